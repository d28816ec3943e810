//! Audits and imports count promotions again.

use logline_core::fsck::{Audit, Event, fsck};
use logline_core::ledger::LedgerExt as _;
use logline_core::ndjson;
use logline_core::trust::governance::Version;
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
