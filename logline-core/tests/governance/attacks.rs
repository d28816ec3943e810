//! Attacks that are none of a single rule: what an insider with some of the keys tries.

use logline_core::ledger::LedgerExt as _;
use logline_core::trust::governance::{Environment, Proposal, Refusal, Statement, Version, pointer_id};
use logline_core::{Draft, Scope, VerifiedSpan};
use serde_json::{Value, json};

use crate::world::*;

/// The next version of the pointer as a thief of the host's key writes it: an honest one, changed, and dated as they like.
fn forged(world: &World, honest: Draft, change: impl FnOnce(&mut Value)) -> VerifiedSpan {
    let mut said = logline_core::Draft::columns(&honest).metadata.clone().unwrap()["promotion"].clone();
    change(&mut said);
    let last = block_on(world.ledger.head(&Scope::Operator, TENANT, pointer(world))).unwrap();
    let draft = honest.meta("promotion", said);
    world.append(last.into_iter().fold(draft, |draft, last| draft.seq(last.seq + 1).follows(last.seal.curr_hash)), HOST)
}

#[test]
fn one_approval_named_twice_is_one() {
    let world = World::new();
    let v0 = world.publish("v0", AUTHOR);
    let proposed = world.propose(&v0);
    world.approve(&proposed, 21);
    let vote = world.docket(&proposed).tally.counted[0];
    world.approve(&proposed, 22);
    let honest = world.docket(&proposed).carry_out(world.now).unwrap().promotion;
    forged(&world, honest, |said| {
        let vote = json!({"id": vote.id, "curr_hash": vote.curr_hash, "key": vote.key});
        said["approvals"] = json!([vote, vote]);
    });
    assert_eq!(world.in_force(), None);
    assert!(world.pointer().skipped()[0].1.contains("1 of 2 approvals"), "{:?}", world.pointer().skipped());
}

#[test]
fn approvals_of_another_proposal_of_the_same_version_do_not_help() {
    let world = World::new();
    let v0 = world.publish("v0", AUTHOR);
    let first = world.propose(&v0);
    world.approve(&first, 21);
    world.approve(&first, 22);
    let honest = world.docket(&first).carry_out(world.now).unwrap().promotion;
    let second = world.propose_as(&Proposal { reason: Some("again".to_owned()), ..world.proposal(&v0) }, COLLEAGUE);
    assert_ne!(first.id, second.id);
    forged(&world, honest, |said| said["proposal"] = json!({"id": second.id, "seq": 0, "curr_hash": second.curr_hash}));
    assert_eq!(world.in_force(), None);
    assert!(world.pointer().skipped()[0].1.contains("0 of 2 approvals"), "{:?}", world.pointer().skipped());
}

#[test]
fn a_withdrawn_proposal_cannot_be_approved_back_to_life() {
    let world = World::new();
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    world.append(proposed.withdrawal("team", None), AUTHOR);
    for by in APPROVERS {
        world.approve(&proposed, by);
    }
    assert_eq!(world.verdict(&proposed), Err(Refusal::Withdrawn));
    assert!(world.promote(&proposed).is_err());
}

#[test]
fn votes_of_another_tenant_with_the_same_keys_do_not_count() {
    let world = World::new();
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    let elsewhere = Statement { tenant: "other".to_owned(), ..world.statement(&proposed) };
    for by in [21, 22] {
        // Said in the other tenant about this proposal, and brought here.
        let signed = block_on(elsewhere.clone().sign(&key(by))).unwrap();
        let span = signed.to_draft("approver").parent(proposed.id);
        world.append(span.clone().tenant("other"), by);
        world.append(span.tenant(TENANT), by);
    }
    assert_eq!(
        world.void(&proposed).len(),
        2,
        "those that were brought here are shown, and the others are none of this tenant's"
    );
    assert_eq!(world.verdict(&proposed), Err(Refusal::Approvals { found: 0, needed: 2 }));
}

#[test]
fn a_promotion_of_another_tenant_or_environment_under_this_pointers_id_is_skipped() {
    let world = World::new();
    let v0 = world.publish("v0", AUTHOR);
    let staging = Proposal {
        environment: Environment::Staging,
        rules: world
            .trusted
            .rules(TENANT, Environment::Staging, logline_core::trust::governance::Class::Function)
            .unwrap()
            .pin(),
        ..world.proposal(&v0)
    };
    let proposed = world.propose_as(&staging, AUTHOR);
    world.approve(&proposed, 21);
    world.approve(&proposed, 22);
    let honest = world.docket(&proposed).carry_out(world.now).unwrap().promotion;
    assert_ne!(honest.columns().id, pointer(&world));
    world.append(honest.id(pointer(&world)), HOST);
    assert_eq!((world.in_force(), world.pointer().skipped().len()), (None, 1));
    assert_ne!(
        pointer_id("other", Environment::Production, logline_core::trust::governance::Class::Function, world.function),
        pointer(&world)
    );
}

#[test]
fn a_clock_that_was_set_back_does_not_bring_back_an_approval_that_had_ended() {
    let mut world = World::new();
    let (v0, v1) = (world.publish("v0", AUTHOR), world.publish("v1", AUTHOR));
    let began = world.now;
    world.put_in_force(&v0);
    let proposed = world.propose(&v1);
    for by in [21, 22] {
        world.vote(Statement { expires: began.saturating_add(HOUR), ..world.statement(&proposed) }, by);
    }
    // Two hours later they have ended, and something else is in force: nothing that is dated before it is taken.
    world.now = began.saturating_add(2 * HOUR);
    assert_eq!(world.verdict(&proposed), Err(Refusal::Approvals { found: 0, needed: 2 }));
    let v2 = world.publish("v2", AUTHOR);
    world.put_in_force(&v2);
    world.now = began;
    assert!(world.promote(&proposed).is_err());
    // An honest host whose clock was set back goes on, at the time of the last promotion.
    let v3 = world.publish("v3", AUTHOR);
    let held = world.put_in_force(&v3);
    assert_eq!(held.at, began.saturating_add(2 * HOUR));
    assert_eq!(world.in_force(), Some(v3.seal.curr_hash));
}

#[test]
fn a_promotion_that_is_dated_before_the_one_before_it_is_skipped() {
    let mut world = World::new();
    let (v0, v1) = (world.publish("v0", AUTHOR), world.publish("v1", AUTHOR));
    world.now = start().saturating_add(HOUR);
    world.put_in_force(&v0);
    let proposed = world.propose(&v1);
    world.approve(&proposed, 21);
    world.approve(&proposed, 22);
    let honest = world.docket(&proposed).carry_out(world.now).unwrap().promotion;
    world.now = start();
    forged(&world, honest, |_| ());
    world.now = start().saturating_add(HOUR);
    assert_eq!(world.in_force(), Some(v0.seal.curr_hash));
    assert!(world.pointer().skipped()[0].1.contains("dated before"), "{:?}", world.pointer().skipped());
}

#[test]
fn an_emergency_that_is_dated_into_the_future_is_not_in_force_until_then() {
    let mut world = World::new();
    let (v0, v1) = (world.publish("v0", AUTHOR), world.publish("v1", AUTHOR));
    world.put_in_force(&v0);
    let far = world.now.saturating_add(365 * 24 * HOUR);
    let fast =
        Proposal { emergency: Some("the site is down".to_owned()), expires: far.saturating_add(HOUR), ..world.proposal(&v1) };
    let proposed = world.propose_as(&fast, AUTHOR);
    world.vote(Statement { expires: far.saturating_add(HOUR), ..world.statement(&proposed) }, 21);
    let honest = world.docket(&proposed).carry_out(world.now).unwrap().promotion;
    let now = std::mem::replace(&mut world.now, far);
    forged(&world, honest, |_| ());
    world.now = now;
    // It would be in force for a year, and has one approval.
    assert_eq!(world.used(&v1).unwrap(), v0.seal.curr_hash);
    // The usual way is not held up by it.
    let v2 = world.publish("v2", AUTHOR);
    let held = world.put_in_force(&v2);
    assert_eq!(held.at, now);
    assert_eq!(world.used(&v2).unwrap(), v2.seal.curr_hash);
}

#[test]
fn an_emergency_that_has_ended_without_a_review_allows_no_second_one() {
    let mut world = World::new();
    let (v0, v1) = (world.publish("v0", AUTHOR), world.publish("v1", AUTHOR));
    world.put_in_force(&v0);
    let fast = |world: &World, version: &VerifiedSpan| Proposal {
        emergency: Some("the site is down".to_owned()),
        ..world.proposal(version)
    };
    let first = world.propose_as(&fast(&world, &v1), AUTHOR);
    world.approve(&first, 21);
    world.promote(&first).unwrap();
    world.now = world.now.saturating_add(2 * HOUR);
    assert_eq!(world.in_force(), Some(v0.seal.curr_hash));
    // Neither a new one, nor the old one once more.
    let v2 = world.publish("v2", AUTHOR);
    let second = world.propose_as(&fast(&world, &v2), AUTHOR);
    world.approve(&second, 22);
    assert_eq!(world.verdict(&second), Err(Refusal::NotReviewed));
    let again = world.propose_as(&fast(&world, &v1), COLLEAGUE);
    world.approve(&again, 22);
    assert_eq!(world.verdict(&again), Err(Refusal::NotReviewed));
    // The approvals of the first do not carry it out twice.
    let honest = block_on(world.ledger.head(&Scope::Operator, TENANT, pointer(&world))).unwrap().unwrap();
    world.append(Draft::next_version(&honest).meta("promotion", honest.meta("promotion").unwrap().clone()), HOST);
    assert_eq!(world.in_force(), Some(v0.seal.curr_hash));
}

#[test]
fn a_pointer_that_a_publisher_has_begun_is_skipped_and_promotions_go_on_after_it() {
    let world = World::new();
    let v0 = world.publish("v0", AUTHOR);
    let squat = Draft::new("promotion").id(pointer(&world)).tenant(TENANT).owner("thief").who("p").this("function.production");
    world.append(squat.meta("promotion", json!({"subject": Version::of(&v0)})), AUTHOR);
    assert_eq!(world.in_force(), None);
    world.put_in_force(&v0);
    assert_eq!(world.in_force(), Some(v0.seal.curr_hash));
}
