//! Each member of `governance` has an effect, and each manifest is judged by the one before it.

use logline_core::trust::governance::{
    Class, ClassRule, Emergency, Environment, Gate, Governance, Promotion, Refusal, Version,
};
use logline_core::trust::{ManifestError, TrustError};
use logline_core::{Draft, MemoryLedger, SystemClock, VerifiedSpan};
use serde_json::json;

use crate::world::*;

// 9. Each manifest is judged by the one before it.

#[test]
fn a_manifest_does_not_lower_the_threshold_by_which_it_is_judged() {
    block_on(async {
        let ledger = MemoryLedger::default();
        let strict = manifest(governance().class(Class::Manifest, 2));
        root().publish(&ledger, &strict, &key(ROOT), &SystemClock).await.unwrap();
        let mut lax = manifest(governance().class(Class::Manifest, 1));
        lax.version = 2;
        let span = root().publish(&ledger, &lax, &key(ROOT), &SystemClock).await.unwrap();
        // The seal is the proposer's, which does not count, and one more is not enough.
        for (by, version) in [(2, 1), (3, 2)] {
            assert_eq!(root().resolve(&ledger).await.unwrap().manifest.version, 1);
            root().approve(&ledger, &span, &key(by), &SystemClock).await.unwrap();
            assert_eq!(root().resolve(&ledger).await.unwrap().manifest.version, version);
        }
    });
}

// 10. Each member of `governance` has an effect.

#[test]
fn promotion_optional_uses_the_last_version() {
    let world = World::governed(Governance { promotion: Promotion::Optional, ..governance() });
    let v0 = world.publish("v0", AUTHOR);
    assert_eq!(world.used(&v0).unwrap(), v0.seal.curr_hash);
}

#[test]
fn a_class_an_environment_or_a_tenant_that_is_not_named_is_not_governed() {
    let only = |change: fn(&mut Governance)| {
        let mut governance = governance();
        change(&mut governance);
        World::governed(governance)
    };
    for world in [
        only(|governance| drop(governance.classes.remove(&Class::Function))),
        only(|governance| governance.environments = [Environment::Staging].into()),
        only(|governance| governance.tenants = vec!["other".to_owned()]),
    ] {
        let v0 = world.publish("v0", AUTHOR);
        assert_eq!(world.used(&v0).unwrap(), v0.seal.curr_hash);
        let proposed = world.propose(&v0);
        assert_eq!(world.verdict(&proposed), Err(Refusal::NotGoverned));
    }
}

#[test]
fn a_gate_must_have_passed_for_exactly_the_proposed_version() {
    let world = World::governed(governance().gate(Class::Function, Gate::Check));
    let (v0, v1) = (world.publish("v0", AUTHOR), world.publish("v1", AUTHOR));
    let result = |of: &VerifiedSpan, passed: bool| {
        Draft::new("test_result")
            .tenant(TENANT)
            .owner("team")
            .who("kernel")
            .this("gate.check")
            .parent(of.id)
            .meta("gate", json!({"gate": "check", "subject": Version::of(of), "passed": passed}))
    };
    let proposed = world.propose(&v1);
    world.approve(&proposed, 21);
    world.approve(&proposed, 22);
    let missing = Err(Refusal::Gate { gate: Gate::Check, version: 1 });
    assert_eq!(world.verdict(&proposed), missing);
    world.append(result(&v0, true), HOST);
    world.append(result(&v1, false), HOST);
    // A publisher says so. Only a host may.
    world.append(result(&v1, true), AUTHOR);
    assert_eq!(world.verdict(&proposed), missing);
    world.append(result(&v1, true), HOST);
    world.promote(&proposed).unwrap();
}

#[test]
fn a_governance_that_cannot_be_obeyed_makes_the_manifest_malformed() {
    let with = |change: fn(&mut Governance)| {
        let mut governance = governance();
        change(&mut governance);
        manifest(governance).check()
    };
    type Change = fn(&mut Governance);
    let wrong: &[(&str, Change)] = &[
        ("threshold is 0", |g| drop(g.classes.insert(Class::Prompt, ClassRule { threshold: 0, gates: [].into() }))),
        ("no manifest could follow", |g| drop(g.classes.insert(Class::Manifest, ClassRule { threshold: 3, gates: [].into() }))),
        ("have no gates", |g| drop(g.classes.insert(Class::Manifest, ClassRule { threshold: 1, gates: [Gate::Eval].into() }))),
        ("must name at least one", |g| g.environments.clear()),
        ("must name at least one", |g| g.tenants.clear()),
        ("emergency.threshold is 0", |g| g.emergency = Some(Emergency { threshold: 0, expires_s: 3600 })),
        ("emergency.expires_s must", |g| g.emergency = Some(Emergency { threshold: 1, expires_s: 59 })),
        ("emergency.expires_s must", |g| g.emergency = Some(Emergency { threshold: 1, expires_s: u64::MAX })),
    ];
    for (expected, change) in wrong {
        let error = with(*change).unwrap_err();
        assert!(matches!(error, ManifestError::Limits { .. }) && error.to_string().contains(expected), "{error}");
    }
    // A switch beside `governance` would show something that nothing enforces.
    block_on(async {
        let mut manifest = manifest(governance());
        manifest.unknown.insert("promotion".to_owned(), json!("required"));
        let refused = root().publish(&MemoryLedger::default(), &manifest, &key(ROOT), &SystemClock).await;
        assert!(matches!(refused, Err(TrustError::Refused(ManifestError::Critical { .. }))), "{refused:?}");
    });
}
