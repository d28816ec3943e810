//! Promotions, rollbacks and emergencies: what is in force, and what is skipped.

use logline_core::ledger::LedgerExt as _;
use logline_core::trust::governance::{Act, Governance, Proposal, Refusal, Version};
use logline_core::{Draft, Scope, Signer as _};
use serde_json::json;

use crate::world::*;

// 12. An old version again.

#[test]
fn an_old_version_comes_back_by_a_rollback_only_and_only_if_it_was_in_force() {
    let world = World::new();
    let (v0, v1, v2) = (world.publish("v0", AUTHOR), world.publish("v1", AUTHOR), world.publish("v2", AUTHOR));
    world.put_in_force(&v0);
    world.put_in_force(&v2);
    let approved = |proposal: &Proposal| {
        let proposed = world.propose_as(proposal, AUTHOR);
        world.approve(&proposed, 21);
        world.approve(&proposed, 22);
        proposed
    };
    let old = approved(&world.proposal(&v0));
    assert_eq!(world.verdict(&old), Err(Refusal::NotNewer { proposed: 0, in_force: 2 }));
    let never = approved(&Proposal { act: Act::Rollback, ..world.proposal(&v1) });
    assert_eq!(world.verdict(&never), Err(Refusal::NeverInForce));
    let back = approved(&Proposal { act: Act::Rollback, ..world.proposal(&v0) });
    assert_eq!(world.promote(&back).unwrap().act, Act::Rollback);
    assert_eq!(world.used(&v2).unwrap(), v0.seal.curr_hash);
    // The rollback is a record of its own.
    let query = logline_core::ledger::Query::new().tenant(TENANT).entity_type("rollback");
    assert_eq!(block_on(world.ledger.collect(&Scope::Operator, &query, 9)).unwrap().len(), 1);
}

#[test]
fn the_same_promotion_cannot_be_made_twice() {
    let world = World::new();
    let (v0, v1) = (world.publish("v0", AUTHOR), world.publish("v1", AUTHOR));
    let first = world.propose(&v0);
    world.approve(&first, 21);
    world.approve(&first, 22);
    let carried = world.docket(&first).carry_out(world.now).unwrap();
    world.promote(&first).unwrap();
    world.put_in_force(&v1);
    // A host that has slept, or a thief of its key, writes the old promotion again as the newest.
    let last = block_on(world.ledger.head(&Scope::Operator, TENANT, carried.promotion.columns().id)).unwrap().unwrap();
    let replayed = carried.promotion.seq(last.seq + 1).follows(last.seal.curr_hash);
    world.append(replayed, HOST);
    assert_eq!(world.used(&v1).unwrap(), v1.seal.curr_hash);
    assert_eq!(world.pointer().skipped().len(), 1);
}

// 13. Emergencies.

#[test]
fn an_emergency_needs_a_reason_fewer_approvals_and_a_review_and_ends() {
    let mut world = World::new();
    let (v0, v1) = (world.publish("v0", AUTHOR), world.publish("v1", AUTHOR));
    world.put_in_force(&v0);
    let fast = Proposal { emergency: Some("the site is down".to_owned()), ..world.proposal(&v1) };
    let proposed = world.propose_as(&fast, AUTHOR);
    // The exclusions hold in an emergency too.
    world.approve(&proposed, AUTHOR);
    assert_eq!(world.verdict(&proposed), Err(Refusal::Approvals { found: 0, needed: 1 }));
    world.approve(&proposed, 21);
    let held = world.promote(&proposed).unwrap();
    assert!(held.is_emergency && held.until == Some(world.now.saturating_add(HOUR)));
    assert_eq!(world.used(&v1).unwrap(), v1.seal.curr_hash);
    // Those who were not asked are told.
    let query = logline_core::ledger::Query::new().tenant(TENANT).entity_type("escalation_request");
    let notice = block_on(world.ledger.collect(&Scope::Operator, &query, 9)).unwrap().remove(0);
    let skipped = notice.meta("emergency").unwrap()["skipped"].as_array().unwrap();
    assert!(skipped.contains(&json!(key(22).public_key().to_string())));
    assert!(!skipped.contains(&json!(key(21).public_key().to_string())));
    // A second emergency must wait for the review of the first.
    let v2 = world.publish("v2", AUTHOR);
    let second = Proposal { emergency: Some("again".to_owned()), ..world.proposal(&v2) };
    let second = world.propose_as(&second, AUTHOR);
    world.approve(&second, 22);
    assert_eq!(world.verdict(&second), Err(Refusal::NotReviewed));
    // It ends, and what was in force before is in force again.
    let before = world.now;
    world.now = before.saturating_add(HOUR);
    assert_eq!(world.used(&v2).unwrap(), v0.seal.curr_hash);
    world.now = before;
    // The review: the same version with the usual approvals. It does not end any more.
    world.put_in_force(&v1);
    world.now = before.saturating_add(2 * HOUR);
    assert_eq!(world.used(&v2).unwrap(), v1.seal.curr_hash);
}

#[test]
fn without_an_emergency_path_there_is_none() {
    let world = World::governed(Governance { emergency: None, ..governance() });
    let fast = Proposal { emergency: Some("now".to_owned()), ..world.proposal(&world.publish("v0", AUTHOR)) };
    let proposed = world.propose_as(&fast, AUTHOR);
    world.approve(&proposed, 21);
    world.approve(&proposed, 22);
    assert_eq!(world.verdict(&proposed), Err(Refusal::NoEmergency));
}

// 14. Only hosts carry out, and whoever reads counts again.

#[test]
fn a_promotion_that_no_quorum_has_approved_is_skipped_although_a_host_has_signed_it() {
    let world = World::new();
    let (v0, v1) = (world.publish("v0", AUTHOR), world.publish("v1", AUTHOR));
    world.put_in_force(&v0);
    let proposed = world.propose(&v1);
    world.approve(&proposed, 21);
    // One approval is missing. The thief of a host's key writes a promotion that names a vote of nobody.
    let honest = world.propose(&v1);
    let last = block_on(world.ledger.head(&Scope::Operator, TENANT, pointer(&world))).unwrap().unwrap();
    let mut forged = last.meta("promotion").unwrap().clone();
    forged["subject"] = json!(Version::of(&v1));
    forged["replaces"] = json!(v0.seal.curr_hash);
    forged["proposal"] = json!({"id": honest.id, "seq": 0, "curr_hash": honest.curr_hash});
    world.append(Draft::next_version(&last).meta("promotion", forged), HOST);
    assert_eq!(world.used(&v1).unwrap(), v0.seal.curr_hash);
    assert!(world.pointer().skipped()[0].1.contains("0 of 2 approvals"), "{:?}", world.pointer().skipped());
    // A publisher cannot write one at all, and the next honest one goes on after them.
    world.approve(&proposed, 22);
    assert_eq!(world.promote(&proposed).unwrap().subject, Version::of(&v1));
    assert_eq!(world.used(&v1).unwrap(), v1.seal.curr_hash);
}

#[test]
fn a_promotion_by_a_publisher_is_skipped() {
    let world = World::new();
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    world.approve(&proposed, 21);
    world.approve(&proposed, 22);
    let carried = world.docket(&proposed).carry_out(world.now).unwrap();
    world.append(carried.promotion, AUTHOR);
    assert_eq!((world.in_force(), world.pointer().skipped().len()), (None, 1));
}

#[test]
fn two_hosts_that_carry_out_the_same_proposal_draft_the_same() {
    let world = World::new();
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    for by in [22, 21] {
        world.approve(&proposed, by);
    }
    let carried = |now| world.docket(&proposed).carry_out(now).unwrap().promotion.columns().clone();
    let (one, mut other) = (carried(world.now), carried(world.now.saturating_add(HOUR)));
    other.at = one.at;
    assert_eq!(one, other);
}

#[test]
fn a_tombstone_stops_what_is_promoted() {
    let world = World::new();
    let v0 = world.publish("v0", AUTHOR);
    world.put_in_force(&v0);
    world.append(Draft::next_version(&v0).deleted(), AUTHOR);
    let found = block_on(world.ledger.find(&Scope::runtime(TENANT), TENANT, world.function)).unwrap();
    assert!(found.is_none(), "to stop needs no quorum");
}
