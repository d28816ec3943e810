//! Audits and imports count promotions again.

use logline_core::fsck::{Audit, Event, fsck};
use logline_core::ledger::LedgerExt as _;
use logline_core::ndjson;
use logline_core::trust::governance::{Class, Environment, Version};
use logline_core::{Draft, MemoryLedger, Rules, Scope, SystemClock, VerifiedSpan};
use serde_json::json;

use crate::world::*;

/// What an audit reports, with the trust root.
fn audit(world: &World) -> (Vec<String>, Option<u64>) {
    let mut audit = Audit::default();
    audit.authorities = Some(&world.trusted.authorities);
    audit.trusted = Some(&world.trusted);
    let mut problems = Vec::new();
    let report = block_on(fsck(&world.ledger, audit, &mut |event| {
        if let Event::Problem(problem) = event {
            problems.push(problem.to_string());
        }
    }));
    (problems, report.unwrap().promotions_checked)
}

fn forge(world: &World, v1: &VerifiedSpan) {
    let last = block_on(world.ledger.head(&Scope::Operator, TENANT, pointer(world))).unwrap().unwrap();
    let mut forged = last.meta("promotion").unwrap().clone();
    forged["subject"] = json!(Version::of(v1));
    world.append(Draft::next_version(&last).meta("promotion", forged), HOST);
}

#[test]
fn the_audit_counts_every_promotion_again() {
    let world = World::new();
    let (v0, v1) = (world.publish("v0", AUTHOR), world.publish("v1", AUTHOR));
    world.put_in_force(&v0);
    assert_eq!(audit(&world), (vec![], Some(1)));
    forge(&world, &v1);
    let (problems, checked) = audit(&world);
    assert_eq!((problems.len(), checked), (1, Some(2)));
    assert!(problems[0].contains("the promotion does not hold: it is not what its proposal says"), "{problems:?}");
}

#[test]
fn an_import_says_which_promotions_do_not_hold_and_refuses_those_that_say_nothing() {
    let world = World::new();
    let (v0, v1) = (world.publish("v0", AUTHOR), world.publish("v1", AUTHOR));
    world.put_in_force(&v0);
    forge(&world, &v1);
    world.append(Draft::new("promotion").tenant(TENANT).owner("team").who("host").this("x"), HOST);
    let mut exported = Vec::new();
    block_on(ndjson::export(&world.ledger, &Scope::Operator, None, &mut exported, &mut |_| {})).unwrap();
    let (copy, trust, mut bad) = (MemoryLedger::default(), root(), Vec::new());
    let import = ndjson::Import {
        signer: None,
        tenant: None,
        owner: None,
        reseal: false,
        keep_unknown: false,
        trust: Some(&trust),
        clock: &SystemClock,
        logs: None,
        rules: Rules::default(),
    };
    let (mut source, mut on_bad) = (exported.as_slice(), |line: ndjson::BadLine| bad.push(line.error.to_string()));
    let done = block_on(ndjson::import(&copy, &mut source, &import, &mut on_bad, &mut |_| {})).unwrap();
    assert_eq!((done.refused, done.void_promotions), (1, 1), "{bad:?}");
    assert!(bad[0].contains("a promotion that cannot be read"), "{bad:?}");
}

/// The record of a function's run, as a host makes it.
fn ran(world: &World, function: &VerifiedSpan, promotion: Option<&Version>) -> VerifiedSpan {
    let mut draft =
        Draft::new("execution").tenant(TENANT).owner("alice").who("kernel:run_code").this("function.f").status("complete");
    draft = draft.meta("function", logline_core::request::reference(function));
    if let Some(promotion) = promotion {
        draft = draft.meta("promotion", logline_core::trust::governance::promotion_reference(TENANT, promotion));
    }
    world.append(draft, HOST)
}

#[test]
fn the_audit_compares_what_ran_with_what_was_promoted() {
    let mut world = World::new();
    // Long after the manifest, which is made by the machine's clock.
    world.now = "2099-01-01T00:00:00.000000Z".parse().unwrap();
    let (v0, v1) = (world.publish("v0", AUTHOR), world.publish("v1", AUTHOR));
    let first = world.put_in_force(&v0).promotion;
    ran(&world, &v0, Some(&first));
    assert_eq!(audit(&world).0, Vec::<String>::new());
    let expect = |world: &World, span: &VerifiedSpan, said: &str| {
        let (problems, _) = audit(world);
        let of_it: Vec<_> = problems.iter().filter(|problem| problem.contains(&span.id.to_string())).collect();
        assert!(of_it.len() == 1 && of_it[0].contains(said), "{said}: {problems:?}");
    };
    // A host that ignores the manifest, or a thief of its key, runs what nobody has approved.
    expect(&world, &ran(&world, &v1, None), "it names no promotion");
    expect(&world, &ran(&world, &v1, Some(&first)), "has put version 0 in force");
    let forged = Version { seq: 7, ..first };
    expect(&world, &ran(&world, &v0, Some(&forged)), "does not hold");
    let other = Version { id: new_id(), ..first };
    expect(&world, &ran(&world, &v0, Some(&other)), "of something else");
    // What was replaced may finish what it began, and no more.
    world.put_in_force(&v1);
    let known = audit(&world).0.len();
    ran(&world, &v0, Some(&first));
    assert_eq!(audit(&world).0.len(), known);
    world.now = world.now.saturating_add(HOUR);
    expect(&world, &ran(&world, &v0, Some(&first)), "had been replaced");
}

/// A record that a provider was asked, or a prompt built.
fn used(world: &World, entity_type: &str, about: serde_json::Value) -> VerifiedSpan {
    let draft = Draft::new(entity_type).tenant(TENANT).owner("alice").who("host").this("x").status("complete").metadata(about);
    world.append(draft, HOST)
}

#[test]
fn the_audit_compares_providers_and_prompts_that_were_used_as_well() {
    let governance = governance().class(Class::Provider, 1).class(Class::Prompt, 1);
    let mut world = World::governed(governance);
    world.now = "2099-01-01T00:00:00.000000Z".parse().unwrap();
    let draft = Draft::new("provider").tenant(TENANT).owner("team").who("p").this("provider.x").status("active");
    let (provider, block) = (
        logline_core::request::reference(&world.append(draft, AUTHOR)),
        logline_core::request::reference(&world.append(
            Draft::new("prompt_block").tenant(TENANT).owner("team").who("p").this("prompt.x").status("active"),
            AUTHOR,
        )),
    );
    let void = Version { id: new_id(), seq: 0, curr_hash: logline_core::Hash::of(b"none") };
    let of_block: uuid::Uuid = block["id"].as_str().unwrap().parse().unwrap();
    let named = logline_core::trust::governance::promotion_references(TENANT, [(of_block, void)]);
    for (entity_type, about, said) in [
        ("provider_request", json!({"details": {"provider": provider}}), "it names no promotion"),
        ("prompt_build", json!({"variant": block}), "it names no promotion"),
        ("prompt_build", json!({"blocks": [block], "promotions": named}), "of something else"),
        ("prompt_build", json!({"blocks": [block], "promotions": {"x": 1}}), "it names no promotion"),
    ] {
        let span = used(&world, entity_type, about);
        let (problems, _) = audit(&world);
        let of_it: Vec<_> = problems.iter().filter(|problem| problem.contains(&span.id.to_string())).collect();
        assert!(of_it.len() == 1 && of_it[0].contains(said), "{said}: {problems:?}");
    }
}

#[test]
fn what_ran_before_the_manifest_demanded_promotions_is_no_problem() {
    let mut world = World::new();
    world.now = "2020-01-01T00:00:00.000000Z".parse().unwrap();
    let v0 = world.publish("v0", AUTHOR);
    ran(&world, &v0, None);
    assert_eq!(audit(&world).0, Vec::<String>::new());
}

#[test]
fn where_one_environment_is_not_governed_an_execution_may_have_run_there() {
    let mut governance = governance();
    governance.environments = [Environment::Production].into();
    let mut world = World::governed(governance);
    world.now = "2099-01-01T00:00:00.000000Z".parse().unwrap();
    let v0 = world.publish("v0", AUTHOR);
    ran(&world, &v0, None);
    assert_eq!(audit(&world).0, Vec::<String>::new());
}
