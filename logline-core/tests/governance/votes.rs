//! Votes that do not count, and votes that end.

use logline_core::ledger::LedgerExt as _;
use logline_core::roles::Role;
use logline_core::trust::governance::{
    Act, Class, Decision, Environment, Governance, InForceError, Proposal, ReadError, Refusal, SignedStatement, Statement,
    Version, VoidReason,
};
use logline_core::{Draft, Hash, Scope, Signer as _, ids};

use crate::world::*;

#[test]
fn two_of_four_approve_and_the_version_is_in_force_until_the_next_is_promoted() {
    let world = World::new();
    let v0 = world.publish("v0", AUTHOR);
    assert!(matches!(world.used(&v0), Err(InForceError::NotPromoted { .. })));
    let proposed = world.propose(&v0);
    assert_eq!(world.verdict(&proposed), Err(Refusal::Approvals { found: 0, needed: 2 }));
    world.approve(&proposed, 21);
    assert_eq!(world.verdict(&proposed), Err(Refusal::Approvals { found: 1, needed: 2 }));
    world.approve(&proposed, 22);
    let held = world.promote(&proposed).unwrap();
    assert_eq!((held.approvals.len(), held.act), (2, Act::Promote));
    assert_eq!(world.used(&v0).unwrap(), v0.seal.curr_hash);
    // A version that nobody has approved changes nothing.
    let v1 = world.publish("v1", AUTHOR);
    assert_eq!(world.used(&v1).unwrap(), v0.seal.curr_hash);
    world.put_in_force(&v1);
    assert_eq!(world.used(&v1).unwrap(), v1.seal.curr_hash);
    // What was carried out keeps the approvals that it was carried out with, whatever is in force since then.
    let tally = world.docket(&proposed).tally;
    assert_eq!((tally.counted, tally.void), (held.approvals, Vec::new()));
}

// 1. Approve, then swap.

#[test]
fn what_is_approved_cannot_be_swapped_for_another_version() {
    let world = World::new();
    let good = world.publish("good", AUTHOR);
    let proposed = world.propose(&good);
    world.approve(&proposed, 21);
    world.approve(&proposed, 22);
    let bad = world.publish("bad", AUTHOR);
    // The same votes do not count for a proposal of the other version.
    let swapped = world.propose(&bad);
    for by in [21, 22] {
        let statement = Statement { proposal: Some(swapped.id), ..world.statement(&proposed) };
        world.vote(statement, by);
    }
    assert_eq!(world.void(&swapped), vec![VoidReason::Other { what: "version" }; 2]);
    assert_eq!(world.verdict(&swapped), Err(Refusal::Approvals { found: 0, needed: 2 }));
    // A proposal cannot be changed after it was made: its later versions do not count.
    let first = block_on(world.ledger.head(&Scope::Operator, TENANT, proposed.id)).unwrap().unwrap();
    let changed = Proposal { subject: Version::of(&bad), ..proposed.proposal.clone() };
    world.append(Draft::next_version(&first).meta("proposal", changed.to_value()), AUTHOR);
    assert_eq!(world.promote(&proposed).unwrap().subject, Version::of(&good));
    assert_eq!(world.used(&bad).unwrap(), good.seal.curr_hash);
}

#[test]
fn a_moved_base_voids_the_approvals() {
    let world = World::new();
    let (v0, v1) = (world.publish("v0", AUTHOR), world.publish("v1", AUTHOR));
    let second = world.propose(&v1);
    world.approve(&second, 21);
    world.approve(&second, 22);
    world.put_in_force(&v0);
    assert_eq!(world.void(&second), vec![VoidReason::BaseMoved; 2]);
    assert_eq!(world.verdict(&second), Err(Refusal::BaseMoved));
}

// 2. Self-approval.

#[test]
fn neither_the_proposer_nor_a_signer_of_what_was_never_in_force_approves() {
    let world = World::new();
    world.put_in_force(&world.publish("v0", AUTHOR));
    // The colleague signs a version, and the author the one after it. Both are part of the change.
    world.publish("v1", COLLEAGUE);
    let proposed = world.propose_as(&world.proposal(&world.publish("v2", 12)), AUTHOR);
    for by in [AUTHOR, COLLEAGUE, 21] {
        world.approve(&proposed, by);
    }
    let mut void = world.void(&proposed);
    void.sort_by_key(|reason| format!("{reason:?}"));
    assert_eq!(void, [VoidReason::Proposer, VoidReason::Signer]);
    assert_eq!(world.verdict(&proposed), Err(Refusal::Approvals { found: 1, needed: 2 }));
}

#[test]
fn without_the_exclusions_proposer_and_signer_count() {
    let world = World::governed(Governance { exclude_proposer: false, exclude_signers: false, ..governance() });
    let proposed = world.propose(&world.publish("v0", COLLEAGUE));
    world.approve(&proposed, AUTHOR);
    world.approve(&proposed, COLLEAGUE);
    world.promote(&proposed).unwrap();
}

// 3. and 4. Rules that change during a vote.

#[test]
fn a_lower_threshold_or_a_new_approver_during_the_vote_ends_the_vote() {
    let mut world = World::new();
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    world.approve(&proposed, 21);
    world.decide(|manifest| manifest.governed(governance().class(Class::Function, 1)));
    assert_eq!(world.verdict(&proposed), Err(Refusal::RulesChanged));

    let mut world = World::new();
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    world.approve(&proposed, 21);
    world.decide(|manifest| manifest.grant(key(77).public_key(), Role::Approver, [TENANT]));
    world.approve(&proposed, 77);
    assert_eq!(world.verdict(&proposed), Err(Refusal::RulesChanged));
}

#[test]
fn a_manifest_that_changes_something_else_voids_no_vote() {
    let mut world = World::new();
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    world.approve(&proposed, 21);
    world.decide(|mut manifest| {
        manifest.times.slow_ms = 7_000;
        manifest.governed(governance().class(Class::Policy, 3))
    });
    world.approve(&proposed, 22);
    world.promote(&proposed).unwrap();
}

#[test]
fn a_change_that_changes_nothing_is_refused() {
    let world = World::new();
    let v0 = world.publish("v0", AUTHOR);
    world.put_in_force(&v0);
    let again = world.propose(&v0);
    world.approve(&again, 21);
    world.approve(&again, 22);
    assert_eq!(world.verdict(&again), Err(Refusal::NoChange));
}

// 5. Replay.

#[test]
fn a_statement_is_worth_nothing_for_another_ledger_environment_class_subject_or_proposal() {
    let world = World::new();
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    let said = world.statement(&proposed);
    // The ledger of another company, with the same keys and the same id of the manifest.
    let other = World::governed(governance().class(Class::Prompt, 1));
    assert_ne!(world.trusted.ledger, other.trusted.ledger);
    let cases = [
        ("ledger", Statement { ledger: other.trusted.ledger, ..said.clone() }),
        ("environment", Statement { environment: Environment::Staging, ..said.clone() }),
        ("class", Statement { class: Class::Policy, ..said.clone() }),
        ("subject", Statement { subject: ids::derive("x", &[]), ..said.clone() }),
    ];
    for (n, (what, statement)) in cases.into_iter().enumerate() {
        world.vote(statement, APPROVERS[n]);
        assert!(world.void(&proposed).contains(&VoidReason::Other { what }), "{what}");
    }
    // A vote on another proposal, brought to this one.
    let signed = block_on(Statement { proposal: Some(ids::derive("x", &[])), ..said.clone() }.sign(&key(21))).unwrap();
    world.append(signed.to_draft("approver").parent(proposed.id), 21);
    assert!(world.void(&proposed).contains(&VoidReason::Other { what: "proposal" }));
    assert_eq!(world.verdict(&proposed), Err(Refusal::Approvals { found: 0, needed: 2 }));
}

#[test]
fn a_promotion_in_staging_is_none_in_production() {
    let world = World::new();
    let v0 = world.publish("v0", AUTHOR);
    let proposal = Proposal {
        environment: Environment::Staging,
        rules: world.trusted.rules(TENANT, Environment::Staging, Class::Function).unwrap().pin(),
        ..world.proposal(&v0)
    };
    let proposed = world.propose_as(&proposal, AUTHOR);
    world.approve(&proposed, 21);
    world.approve(&proposed, 22);
    world.promote(&proposed).unwrap();
    assert!(matches!(world.used(&v0), Err(InForceError::NotPromoted { .. })));
    let mut staging = world;
    staging.trusted.environment = Environment::Staging;
    assert_eq!(staging.used(&v0).unwrap(), v0.seal.curr_hash);
}

// 6. Counting.

#[test]
fn one_key_that_approves_twice_is_one() {
    let world = World::new();
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    world.approve(&proposed, 21);
    world.approve(&proposed, 21);
    assert_eq!(world.void(&proposed), [VoidReason::Again]);
    assert_eq!(world.verdict(&proposed), Err(Refusal::Approvals { found: 1, needed: 2 }));
}

#[test]
fn a_key_with_the_role_in_another_tenant_or_with_another_role_does_not_count() {
    let mut world = World::new();
    world.decide(|manifest| manifest.grant(key(55).public_key(), Role::Approver, ["elsewhere"]));
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    for by in [55, HOST, 99] {
        world.approve(&proposed, by);
    }
    assert_eq!(world.void(&proposed), vec![VoidReason::NotAnApprover; 3]);
}

// 7. Time.

#[test]
fn an_approval_and_a_proposal_end_at_their_end_by_the_ledgers_clock() {
    let mut world = World::new();
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    world.vote(Statement { expires: world.now.saturating_add(HOUR), ..world.statement(&proposed) }, 21);
    world.approve(&proposed, 22);
    assert_eq!(world.verdict(&proposed), Ok(()));
    let asked = world.now;
    world.now = asked.saturating_add(HOUR);
    assert_eq!(world.void(&proposed), [VoidReason::Expired { expires: world.now }]);
    world.now = asked.saturating_add(24 * HOUR);
    assert_eq!(world.verdict(&proposed), Err(Refusal::Expired { expires: world.now }));
}

// 8. What is approved is content, not a hash. The tool shows it; here: the content must be in the ledger.

#[test]
fn what_is_not_in_the_ledger_cannot_be_decided_about() {
    let world = World::new();
    let v0 = world.publish("v0", AUTHOR);
    for subject in [
        Version { curr_hash: Hash::of(b"never seen"), ..Version::of(&v0) },
        Version { seq: 9, ..Version::of(&v0) },
        Version { id: ids::derive("nothing", &[]), ..Version::of(&v0) },
    ] {
        let proposed = world.propose_as(&Proposal { subject, ..world.proposal(&v0) }, AUTHOR);
        let found = block_on(world.trusted.docket(&world.ledger, TENANT, proposed.id, world.now));
        assert!(matches!(found, Err(ReadError::Subject { .. })), "{found:?}");
    }
}

// 11. is shown above: `Tally::void` has every vote that does not count, with its reason. Rejections are shown as well.

#[test]
fn a_rejection_takes_back_the_approval_of_its_key() {
    let world = World::new();
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    world.approve(&proposed, 21);
    world.approve(&proposed, 22);
    world.vote(Statement { decision: Decision::Reject, ..world.statement(&proposed) }, 22);
    let tally = world.docket(&proposed).tally;
    assert_eq!((tally.counted.len(), tally.rejected.len()), (1, 1));
    assert_eq!(tally.void[0].reason, VoidReason::Rejected);
}

#[test]
fn a_withdrawn_proposal_is_not_carried_out() {
    let world = World::new();
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    world.approve(&proposed, 21);
    world.approve(&proposed, 22);
    // A stranger cannot withdraw it.
    let stranger = world.append(proposed.withdrawal("x", None).id(new_id()), 99);
    assert_eq!((stranger.parent_id, world.verdict(&proposed)), (Some(proposed.id), Ok(())));
    world.append(proposed.withdrawal("team", Some("a mistake")), AUTHOR);
    assert_eq!(world.verdict(&proposed), Err(Refusal::Withdrawn));
}

#[test]
fn a_signed_statement_stands_for_itself() {
    let world = World::new();
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    let span = world.vote(world.statement(&proposed), 21);
    let signed = SignedStatement::of(&span, &mut logline_core::Verifier::new()).unwrap();
    assert_eq!(signed.statement().approves, proposed.proposal.subject.curr_hash);
}
