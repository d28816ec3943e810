//! Who decides: the pinned root, manifests, approvals, rotation; and every way around them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::future::Future;
use std::time::Duration;

use logline_core::ledger::{Ledger, LedgerExt as _, Query};
use logline_core::roles::Role;
use logline_core::trust::{
    Delegation, DelegationError, Ended, LogEnd, Manifest, ManifestError, RootSet, SkipReason, TrustError, TrustRoot, Trusted,
    approval,
};
use logline_core::{
    Clock as _, Draft, Hash, KeyPair, ManualClock, MemoryLedger, PublicKey, SYSTEM_TENANT, Scope, Signer as _, SystemClock,
    SystemIds, Timestamp, VerifiedSpan, ids,
};
use serde_json::json;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

fn public(n: u8) -> PublicKey {
    key(n).public_key()
}

/// Keys 1, 2 and 3 are root, `threshold` of them decide.
fn root(threshold: u32) -> TrustRoot {
    TrustRoot::new([public(1), public(2), public(3)], threshold)
}

fn manifest(threshold: u32) -> Manifest {
    Manifest::first(RootSet::new([public(1), public(2), public(3)], threshold))
        .grant(public(10), Role::Publisher, [SYSTEM_TENANT])
        .grant(public(11), Role::Publisher, ["acme"])
}

async fn publish(
    trust: &TrustRoot,
    ledger: &MemoryLedger,
    manifest: &Manifest,
    signer: u8,
) -> Result<VerifiedSpan, TrustError> {
    trust.publish(ledger, manifest, &key(signer), &SystemClock).await
}

async fn approve(trust: &TrustRoot, ledger: &MemoryLedger, span: &VerifiedSpan, signer: u8) {
    trust.approve(ledger, span, &key(signer), &SystemClock).await.unwrap();
}

async fn resolve(trust: &TrustRoot, ledger: &MemoryLedger) -> Trusted {
    trust.resolve(ledger).await.unwrap()
}

fn reason(error: TrustError) -> SkipReason {
    match error {
        TrustError::NoManifest { skipped, .. } => skipped.into_iter().next_back().expect("something was skipped").reason,
        other => panic!("{other}"),
    }
}

/// Appends a manifest span behind the library's checks, as whoever can write to the store could.
async fn smuggle(ledger: &MemoryLedger, draft: Draft, signer: u8) -> VerifiedSpan {
    let span = draft.stamp(&SystemClock, &SystemIds).seal_local(&key(signer)).unwrap();
    ledger.append_one(&Scope::Operator, span.clone()).await.unwrap();
    span
}

#[test]
fn one_key_of_one_is_enough_for_a_laptop() {
    block_on(async {
        let (ledger, trust) = (MemoryLedger::new(), TrustRoot::new([public(1)], 1));
        let first = Manifest::first(RootSet::new([public(1)], 1));
        publish(&trust, &ledger, &first, 1).await.unwrap();
        assert_eq!(resolve(&trust, &ledger).await.manifest.version, 1);
    });
}

#[test]
fn too_few_approvals_do_not_count_until_there_are_enough() {
    block_on(async {
        let (ledger, trust) = (MemoryLedger::new(), root(2));
        let span = publish(&trust, &ledger, &manifest(2), 1).await.unwrap();
        let error = trust.resolve(&ledger).await.unwrap_err();
        assert_eq!(reason(error), SkipReason::Approvals { whose: "pinned", found: 1, needed: 2 });
        approve(&trust, &ledger, &span, 2).await;
        assert_eq!(resolve(&trust, &ledger).await.manifest.version, 1);
    });
}

#[test]
fn one_key_twice_is_one_approval() {
    block_on(async {
        let (ledger, trust) = (MemoryLedger::new(), root(2));
        let span = publish(&trust, &ledger, &manifest(2), 1).await.unwrap();
        approve(&trust, &ledger, &span, 1).await;
        approve(&trust, &ledger, &span, 1).await;
        // The same key in another span, under another id.
        let draft = approval(&span, "approve").tenant(SYSTEM_TENANT).owner(SYSTEM_TENANT).who("another name");
        smuggle(&ledger, draft, 1).await;
        let error = trust.resolve(&ledger).await.unwrap_err();
        assert_eq!(reason(error), SkipReason::Approvals { whose: "pinned", found: 1, needed: 2 });
    });
}

#[test]
fn an_approval_that_could_never_count_is_not_stored() {
    block_on(async {
        let (ledger, trust) = (MemoryLedger::new(), root(2));
        let first = publish(&trust, &ledger, &manifest(2), 1).await.unwrap();
        approve(&trust, &ledger, &first, 2).await;
        let log = LogEnd { origin: "log.example/acme".to_owned(), size: 7, root: Hash([3; 32]) };
        let mut ending = manifest(2).end(Ended::of_key(public(2), [log]));
        ending.version = 2;
        let span = publish(&trust, &ledger, &ending, 1).await.unwrap();
        let before = ledger.collect(&Scope::Operator, &Query::new(), 100).await.unwrap().len();
        let refused =
            async |span: &VerifiedSpan, signer| trust.approve(&ledger, span, &key(signer), &SystemClock).await.unwrap_err();
        // The key that the manifest ends says nothing about its own end, and nothing afterwards.
        assert!(matches!(refused(&span, 2).await, TrustError::Ended { .. }));
        approve(&trust, &ledger, &span, 3).await;
        assert_eq!(resolve(&trust, &ledger).await.manifest.version, 2);
        assert!(matches!(refused(&span, 2).await, TrustError::Ended { .. }));
        // A manifest that was overtaken: its time is over.
        let overtaken = refused(&first, 3).await;
        assert!(matches!(overtaken, TrustError::WouldNotCount(SkipReason::Version { found: 1, next: 3 })), "{overtaken}");
        // More approvals of the one in force change nothing, and are no fault.
        approve(&trust, &ledger, &span, 1).await;
        let after = ledger.collect(&Scope::Operator, &Query::new(), 100).await.unwrap().len();
        assert_eq!(after, before + 2, "the approvals of keys 3 and 1");
    });
}

#[test]
fn an_approval_of_other_content_or_by_a_stranger_does_not_count() {
    block_on(async {
        let (ledger, trust) = (MemoryLedger::new(), root(2));
        let span = publish(&trust, &ledger, &manifest(2), 1).await.unwrap();
        let other = manifest(2).grant(public(66), Role::Runtime, ["*"]).to_draft(ids::MANIFEST).seq(7);
        let other = other.stamp(&SystemClock, &SystemIds).seal_local(&key(1)).unwrap();
        let system = |draft: Draft| draft.tenant(SYSTEM_TENANT).owner(SYSTEM_TENANT).who("w");
        smuggle(&ledger, system(approval(&other, "approve")), 2).await;
        smuggle(&ledger, system(approval(&span, "approve")), 66).await;
        smuggle(&ledger, system(approval(&span, "reject")), 2).await;
        let error = trust.resolve(&ledger).await.unwrap_err();
        assert_eq!(reason(error), SkipReason::Approvals { whose: "pinned", found: 1, needed: 2 });
        assert!(matches!(trust.approve(&ledger, &span, &key(66), &SystemClock).await, Err(TrustError::NotARootKey { .. })));
    });
}

#[test]
fn a_tenants_public_manifest_takes_over_nothing() {
    block_on(async {
        let (ledger, trust) = (MemoryLedger::new(), root(1));
        publish(&trust, &ledger, &manifest(1), 1).await.unwrap();
        let hostile = Manifest::first(RootSet::new([public(66)], 1)).grant(public(66), Role::Publisher, ["*", SYSTEM_TENANT]);
        let draft = hostile.to_draft(ids::MANIFEST).tenant("globex").owner("mallory");
        smuggle(&ledger, draft, 66).await;
        let trusted = resolve(&trust, &ledger).await;
        assert!(!trusted.authorities.has(&public(66), Role::Publisher, "globex", SystemClock.now()));
        assert!(trusted.skipped.is_empty(), "another tenant's rows are not even looked at");
    });
}

#[test]
fn a_manifest_by_a_stranger_in_system_is_skipped_not_obeyed_and_not_fatal() {
    block_on(async {
        let (ledger, trust) = (MemoryLedger::new(), root(1));
        let first = publish(&trust, &ledger, &manifest(1), 1).await.unwrap();
        let mut hostile = manifest(1).grant(public(66), Role::Publisher, ["acme"]);
        hostile.version = 2;
        let draft = hostile.to_draft(ids::MANIFEST).seq(1).follows(first.seal.curr_hash);
        smuggle(&ledger, draft, 66).await;
        let trusted = resolve(&trust, &ledger).await;
        assert_eq!(trusted.manifest.version, 1);
        assert_eq!(trusted.skipped[0].reason, SkipReason::Signer { signer: public(66) });
        // The honest next version follows the hostile row in the chain, and counts.
        let mut second = manifest(1).grant(public(12), Role::Runtime, ["acme"]);
        second.version = 2;
        publish(&trust, &ledger, &second, 2).await.unwrap();
        assert_eq!(resolve(&trust, &ledger).await.manifest.version, 2);
    });
}

#[test]
fn a_manifest_that_skips_a_version_does_not_count() {
    block_on(async {
        let (ledger, trust) = (MemoryLedger::new(), root(1));
        let mut skipping = manifest(1);
        for version in [0, 2, 3] {
            skipping.version = version;
            let error = publish(&trust, &ledger, &skipping, 1).await.unwrap_err();
            assert!(matches!(error, TrustError::WouldNotCount(SkipReason::Version { next: 1, .. })), "{error}");
        }
        let first = publish(&trust, &ledger, &manifest(1), 1).await.unwrap();
        skipping.version = 3;
        let draft = skipping.to_draft(ids::MANIFEST).seq(1).follows(first.seal.curr_hash);
        smuggle(&ledger, draft, 1).await;
        let trusted = resolve(&trust, &ledger).await;
        assert_eq!((trusted.manifest.version, trusted.skipped.len()), (1, 1));
    });
}

#[test]
fn rotation_takes_a_threshold_of_the_old_root_and_of_the_new() {
    block_on(async {
        let (ledger, trust) = (MemoryLedger::new(), root(2));
        let first = publish(&trust, &ledger, &manifest(2), 1).await.unwrap();
        approve(&trust, &ledger, &first, 2).await;
        let mut second = manifest(2);
        second.version = 2;
        second.root = RootSet::new([public(1), public(2), public(3), public(4), public(5)], 3);
        let error = publish(&trust, &ledger, &second, 4).await.unwrap_err();
        assert!(matches!(error, TrustError::WouldNotCount(SkipReason::Signer { .. })), "a key it adds cannot seal it");
        let span = publish(&trust, &ledger, &second, 1).await.unwrap();
        approve(&trust, &ledger, &span, 4).await;
        approve(&trust, &ledger, &span, 5).await;
        let trusted = resolve(&trust, &ledger).await;
        let short = SkipReason::Approvals { whose: "previous", found: 1, needed: 2 };
        assert_eq!((trusted.manifest.version, &trusted.skipped[0].reason), (1, &short));
        approve(&trust, &ledger, &span, 2).await;
        assert_eq!(resolve(&trust, &ledger).await.manifest.version, 2);
        // From now on the added keys decide as well.
        let mut third = second.clone();
        third.version = 3;
        let span = publish(&trust, &ledger, &third, 4).await.unwrap();
        approve(&trust, &ledger, &span, 5).await;
        assert_eq!(resolve(&trust, &ledger).await.manifest.version, 2, "two of three");
        approve(&trust, &ledger, &span, 3).await;
        assert_eq!(resolve(&trust, &ledger).await.manifest.version, 3);
    });
}

#[test]
fn ending_a_key_or_a_right_is_refused_and_says_why() {
    block_on(async {
        let (ledger, trust) = (MemoryLedger::new(), root(1));
        publish(&trust, &ledger, &manifest(1), 1).await.unwrap();
        let mut without_root = manifest(1);
        without_root.root = RootSet::new([public(1), public(2)], 1);
        let mut without_right = manifest(1);
        without_right.authorities.pop();
        for mut ending in [without_root, without_right] {
            ending.version = 2;
            let error = publish(&trust, &ledger, &ending, 1).await.unwrap_err();
            assert!(error.to_string().contains("end it with a member of `ended`"), "{error}");
        }
    });
}

#[test]
fn a_manifest_that_demands_the_unknown_makes_an_older_host_refuse() {
    block_on(async {
        for (member, value) in
            [("critical", json!(["quorum_sensing"])), ("critical", json!(["retention"])), ("promotion", json!("required"))]
        {
            let (ledger, trust) = (MemoryLedger::new(), root(1));
            let draft = manifest(1).to_draft(ids::MANIFEST).meta(member, value);
            smuggle(&ledger, draft, 1).await;
            let error = trust.resolve(&ledger).await.unwrap_err();
            assert!(matches!(error, TrustError::Refused(ManifestError::Critical { .. })), "{member}: {error}");
        }
    });
}

#[test]
fn a_manifest_that_cannot_be_read_is_skipped_unless_it_says_it_must_be_understood() {
    block_on(async {
        for (critical, refused) in [(json!([]), false), (json!(["limits"]), true)] {
            let (ledger, trust) = (MemoryLedger::new(), root(1));
            let first = publish(&trust, &ledger, &manifest(1), 1).await.unwrap();
            let mut second = manifest(1);
            second.version = 2;
            let draft = second.to_draft(ids::MANIFEST).seq(1).follows(first.seal.curr_hash);
            let draft = draft.meta("limits", json!({"fuel": 5, "a_new_limit": 1})).meta("critical", critical);
            smuggle(&ledger, draft, 1).await;
            match trust.resolve(&ledger).await {
                Ok(trusted) => assert!(!refused && trusted.manifest.version == 1 && trusted.skipped.len() == 1),
                Err(error) => assert!(refused, "{error}"),
            }
        }
    });
}

#[test]
fn a_misspelt_policy_is_refused_when_it_is_published() {
    let mut misspelt = manifest(1).to_draft(ids::MANIFEST);
    let policy = misspelt.columns_mut().metadata.as_mut().unwrap().get_mut("policy").unwrap();
    policy["timeoutms"] = json!(7);
    let error = Manifest::from_span(misspelt.columns()).unwrap_err().to_string();
    assert!(error.contains("timeoutms"), "{error}");
}

#[test]
fn unknown_members_are_kept_and_shown() {
    block_on(async {
        let (ledger, trust) = (MemoryLedger::new(), root(1));
        smuggle(&ledger, manifest(1).to_draft(ids::MANIFEST).meta("colour", "blue"), 1).await;
        let trusted = resolve(&trust, &ledger).await;
        assert_eq!(trusted.manifest.unknown.get("colour"), Some(&json!("blue")));
        assert_eq!(trusted.manifest.to_draft(ids::MANIFEST).columns().meta("colour"), Some(&json!("blue")));
    });
}

#[test]
fn malformed_manifests_are_refused_with_the_reason() {
    let weak = PublicKey({
        let mut bytes = [0; 32];
        bytes[0] = 1;
        bytes
    });
    let with_root = |root: RootSet| Manifest::first(root).check().unwrap_err().to_string();
    assert!(with_root(RootSet::new([public(1)], 0)).contains("threshold is 0 of 1"));
    assert!(with_root(RootSet::new([public(1), public(1)], 2)).contains("threshold is 2 of 1"));
    assert!(with_root(RootSet::new([weak], 1)).contains("weak"));
    let base = || Manifest::first(RootSet::new([public(1)], 1));
    let refused = |manifest: Manifest| manifest.check().unwrap_err().to_string();
    assert!(refused(base().grant(public(2), Role::Root, ["acme"])).contains("root keys belong in `root.keys`"));
    assert!(refused(base().grant(public(2), Role::Member, Vec::<String>::new())).contains("for no tenant"));
    let mut limits = base();
    limits.limits.memory_bytes = 1 << 40;
    assert!(refused(limits).contains("limits.memory_bytes"));
}

#[test]
fn a_trust_root_that_cannot_be_met_is_refused() {
    block_on(async {
        let ledger = MemoryLedger::new();
        for trust in [TrustRoot::new([public(1)], 0), TrustRoot::new([public(1), public(1)], 2), TrustRoot::new([], 1)] {
            assert!(matches!(trust.resolve(&ledger).await, Err(TrustError::Threshold { .. })));
        }
    });
}

#[test]
fn the_role_table_holds_for_every_type() {
    block_on(async {
        let (ledger, trust) = (MemoryLedger::new(), root(1));
        let all = manifest(1)
            .grant(public(20), Role::Publisher, ["acme"])
            .grant(public(21), Role::Approver, ["acme"])
            .grant(public(22), Role::Member, ["acme"])
            .grant(public(23), Role::Runtime, ["acme"])
            .grant(public(24), Role::Runtime, ["*"])
            .grant(public(25), Role::Publisher, ["globex"]);
        publish(&trust, &ledger, &all, 1).await.unwrap();
        let trusted = resolve(&trust, &ledger).await;
        let may = |signer: u8, entity_type: &str, tenant: &str, later: bool| {
            let mut draft = Draft::new(entity_type).tenant(tenant).owner("o").who("w").this("t");
            if later {
                draft = draft.seq(1).follows(logline_core::Hash([3; 32]));
            }
            let span = draft.stamp(&SystemClock, &SystemIds).seal_local(&key(signer)).unwrap();
            trusted.authorities.check(&span).is_ok()
        };
        for entity_type in
            ["function", "policy", "provider", "prompt_block", "memory_contract", "app_bundle", "slo", "test_plan"]
        {
            let allowed: Vec<u8> = (20..=25).filter(|k| may(*k, entity_type, "acme", false)).collect();
            assert_eq!(allowed, [20], "{entity_type}");
        }
        for entity_type in ["execution", "metric", "status_patch", "policy_cursor", "memory", "boot_event", "promotion"] {
            let allowed: Vec<u8> = (20..=25).filter(|k| may(*k, entity_type, "acme", false)).collect();
            assert_eq!(allowed, [23, 24], "{entity_type}");
        }
        for entity_type in ["note", "request", "a_type_of_their_own"] {
            let allowed: Vec<u8> = (20..=25).filter(|k| may(*k, entity_type, "acme", false)).collect();
            assert_eq!(allowed, [20, 22, 23, 24], "{entity_type}");
        }
        assert_eq!((20..=25).filter(|k| may(*k, "request", "acme", true)).collect::<Vec<u8>>(), [23, 24]);
        assert_eq!((20..=25).filter(|k| may(*k, "approval", "acme", false)).collect::<Vec<u8>>(), [21]);
        assert!(!may(24, "boot_event", SYSTEM_TENANT, false), "`*` does not reach the system tenant");
        assert!(!may(1, "function", SYSTEM_TENANT, false), "a root key publishes nothing but manifests");
        assert!(may(1, "manifest", SYSTEM_TENANT, false) && !may(10, "manifest", SYSTEM_TENANT, false));
        assert!(!may(1, "manifest", "acme", false), "a manifest in a tenant is nobody's to sign");
    });
}

#[test]
fn an_unreadable_ledger_is_no_manifest() {
    block_on(async {
        let (ledger, trust) = (MemoryLedger::new(), root(1));
        let error = trust.resolve(&ledger).await.unwrap_err();
        assert!(error.to_string().contains("there is none; check that this is the trust root"), "{error}");
        assert!(ledger.capability().durability.contains("none"));
    });
}

/// A ledger whose manifest names key 20 runtime of `system` and `acme`, and a clock.
async fn with_runtime() -> (TrustRoot, MemoryLedger, ManualClock) {
    let (trust, ledger) = (root(1), MemoryLedger::new());
    let manifest =
        manifest(1).grant(public(20), Role::Runtime, [SYSTEM_TENANT, "acme"]).grant(public(21), Role::Runtime, ["acme"]);
    publish(&trust, &ledger, &manifest, 1).await.unwrap();
    (trust, ledger, ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()))
}

/// Key 30 for an hour from `now`.
fn hour(tenants: &[&str], now: Timestamp) -> Delegation {
    Delegation::new(public(30), tenants.iter().copied(), now, now.saturating_add(Duration::from_secs(3600)))
}

fn metric(signer: u8, tenant: &str, at: Timestamp) -> VerifiedSpan {
    let draft = Draft::new("metric").tenant(tenant).owner("host").who("host").this("m").at(at);
    draft.stamp(&SystemClock, &SystemIds).seal_local(&key(signer)).unwrap()
}

#[test]
fn a_delegated_key_is_a_runtime_of_its_tenants_until_it_expires() {
    block_on(async {
        let (trust, ledger, clock) = with_runtime().await;
        let start = clock.now();
        assert!(resolve(&trust, &ledger).await.authorities.check(&metric(30, "acme", start)).is_err());
        let delegation = hour(&["acme"], start);
        let first = trust.delegate(&ledger, &delegation, &key(20), &clock).await.unwrap();
        let again = trust.delegate(&ledger, &delegation, &key(20), &clock).await.unwrap();
        assert_eq!(first.id, again.id, "saying it twice is one span");
        let authorities = resolve(&trust, &ledger).await.authorities;
        authorities.check_now(&metric(30, "acme", start), start).unwrap();
        assert!(authorities.check(&metric(30, "globex", start)).is_err());
        assert!(authorities.check(&metric(30, SYSTEM_TENANT, start)).is_err());
        assert!(authorities.has(&public(30), Role::Runtime, "acme", start));
        for role in [Role::Publisher, Role::Approver, Role::Member, Role::Root] {
            assert!(!authorities.has(&public(30), role, "acme", start), "{role}");
        }
        let end = start.saturating_add(Duration::from_secs(3600));
        let late = authorities.check(&metric(30, "acme", end)).unwrap_err().to_string();
        assert!(late.contains("renew it in time"), "{late}");
    });
}

#[test]
fn an_expired_host_that_dates_back_is_refused_on_append_and_its_honest_rows_stay_good() {
    block_on(async {
        let (trust, ledger, clock) = with_runtime().await;
        let start = clock.now();
        trust.delegate(&ledger, &hour(&["acme"], start), &key(20), &clock).await.unwrap();
        clock.advance(Duration::from_secs(7200));
        let authorities = resolve(&trust, &ledger).await.authorities;
        let dated_back = metric(30, "acme", start);
        assert!(authorities.check_now(&dated_back, clock.now()).is_err());
        authorities.check(&dated_back).unwrap();
    });
}

#[test]
fn a_delegation_gives_nothing_that_its_signer_has_not_and_is_not_passed_on() {
    block_on(async {
        let (trust, ledger, clock) = with_runtime().await;
        let start = clock.now();
        for (signer, tenants, why) in [
            (99, &["acme"][..], "a stranger"),
            (20, &["globex"], "another tenant"),
            (20, &["*"], "every tenant"),
            (21, &["acme"], "no runtime of system"),
            (1, &["acme"], "a root key"),
        ] {
            let delegation = hour(tenants, start);
            let refused = trust.delegate(&ledger, &delegation, &key(signer), &clock).await.unwrap_err();
            assert!(matches!(refused, DelegationError::Signer { .. }), "{why}: {refused}");
            // Written past the library, it still gives nothing.
            let value = serde_json::to_value(&delegation).unwrap();
            let draft = Draft::new("delegation").tenant(SYSTEM_TENANT).owner(SYSTEM_TENANT).who("w").this("t");
            let forged = draft.metadata(json!({"delegation": value})).stamp(&clock, &SystemIds);
            ledger.append_one(&Scope::Operator, forged.seal_local(&key(signer)).unwrap()).await.unwrap();
            let authorities = resolve(&trust, &ledger).await.authorities;
            assert!(authorities.check(&metric(30, "acme", start)).is_err(), "{why}");
        }
        let both = hour(&["acme", SYSTEM_TENANT], start);
        trust.delegate(&ledger, &both, &key(20), &clock).await.unwrap();
        let to_another = Delegation { key: public(31), ..both };
        let passed_on = trust.delegate(&ledger, &to_another, &key(30), &clock).await.unwrap_err();
        assert!(matches!(passed_on, DelegationError::Signer { .. }), "{passed_on}");
    });
}

#[test]
fn a_delegated_key_does_not_count_in_a_quorum() {
    block_on(async {
        let (trust, ledger, clock) = with_runtime().await;
        let both = hour(&["acme", SYSTEM_TENANT], clock.now());
        trust.delegate(&ledger, &both, &key(20), &clock).await.unwrap();
        let mut next = manifest(1).grant(public(20), Role::Runtime, [SYSTEM_TENANT, "acme"]);
        next = next.grant(public(21), Role::Runtime, ["acme"]);
        next.version = 2;
        assert!(publish(&trust, &ledger, &next, 30).await.is_err());
        let span = publish(&trust, &ledger, &next, 1).await.unwrap();
        assert!(trust.approve(&ledger, &span, &key(30), &clock).await.is_err());
    });
}

#[test]
fn delegations_that_never_were_in_force_are_refused_with_what_is_wrong() {
    block_on(async {
        let (trust, ledger, clock) = with_runtime().await;
        let now = clock.now();
        let good = hour(&["acme"], now);
        let later = now.saturating_add(Duration::from_secs(400 * 24 * 3600));
        for (delegation, message) in [
            (Delegation { tenants: Vec::new(), ..good.clone() }, "names no tenant"),
            (Delegation { expires: now, ..good.clone() }, "must end after it begins"),
            (Delegation { expires: later, ..good.clone() }, "within 366 days"),
            (Delegation { key: PublicKey([0; 32]), ..good.clone() }, "delegation of 00"),
        ] {
            let refused = trust.delegate(&ledger, &delegation, &key(20), &clock).await.unwrap_err().to_string();
            assert!(refused.contains(message), "{refused}");
        }
        clock.advance(Duration::from_secs(3600));
        let ended = trust.delegate(&ledger, &good, &key(20), &clock).await.unwrap_err();
        assert!(matches!(ended, DelegationError::Ended { .. }), "{ended}");
    });
}

#[test]
fn an_approval_whose_id_a_stranger_has_taken_is_no_success() {
    block_on(async {
        let (ledger, trust) = (MemoryLedger::new(), root(2));
        let span = publish(&trust, &ledger, &manifest(2), 1).await.unwrap();
        let id = ids::derive("approval", &[&span.seal.curr_hash.to_string(), &public(2).to_string()]);
        let copy = approval(&span, "approve").id(id).tenant(SYSTEM_TENANT).owner(SYSTEM_TENANT).who("root").deterministic();
        smuggle(&ledger, copy, 66).await;
        let error = trust.approve(&ledger, &span, &key(2), &SystemClock).await.unwrap_err();
        assert!(matches!(error, TrustError::Occupied { id: taken } if taken == id), "{error}");
        approve(&trust, &ledger, &span, 3).await;
        // Approving twice changes nothing.
        approve(&trust, &ledger, &span, 3).await;
        assert_eq!(resolve(&trust, &ledger).await.manifest.version, 1);
    });
}

#[test]
fn a_delegation_whose_id_a_stranger_has_taken_is_no_success() {
    block_on(async {
        let (trust, elsewhere, clock) = with_runtime().await;
        let (_, ledger, _) = with_runtime().await;
        let delegation = hour(&["acme"], clock.now());
        // The stranger has seen it in another ledger of the same root.
        let seen = trust.delegate(&elsewhere, &delegation, &key(20), &clock).await.unwrap();
        smuggle(&ledger, Draft::from_columns(seen.span.clone()), 66).await;
        let error = trust.delegate(&ledger, &delegation, &key(20), &clock).await.unwrap_err();
        assert!(matches!(error, DelegationError::Occupied { .. }), "{error}");
        // Delegating twice changes nothing.
        trust.delegate(&elsewhere, &delegation, &key(20), &clock).await.unwrap();
    });
}
