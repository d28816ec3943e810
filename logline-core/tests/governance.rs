//! What a quorum must approve: every known way to get something into force without it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::future::Future;
use std::time::Duration;

use logline_core::fsck::{Audit, Event, fsck};
use logline_core::ledger::LedgerExt as _;
use logline_core::ndjson;
use logline_core::roles::Role;
use logline_core::trust::governance::{
    Act, Class, ClassRule, Decision, Docket, Emergency, Environment, Gate, Governance, Held, InForceError, Pointer, Promotion,
    Proposal, Proposed, ReadError, Refusal, SignedStatement, Statement, Version, VoidReason, pointer_id,
};
use logline_core::trust::{Manifest, ManifestError, RootSet, TrustError, TrustRoot, Trusted};
use logline_core::{
    Draft, Hash, IdSource as _, KeyPair, MemoryLedger, Rules, SYSTEM_TENANT, Scope, Signer as _, SystemClock, SystemIds,
    Timestamp, VerifiedSpan, ids,
};
use serde_json::json;
use uuid::Uuid;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

const TENANT: &str = "acme";
const ROOT: u8 = 1;
const AUTHOR: u8 = 11;
const COLLEAGUE: u8 = 12;
const APPROVERS: [u8; 4] = [21, 22, 23, 24];
const HOST: u8 = 31;
const HOUR: Duration = Duration::from_secs(3600);

fn new_id() -> Uuid {
    SystemIds.next_id(start())
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00.000000Z".parse().unwrap()
}

/// Two of four approvers must approve a function. The author may approve too, if nothing excludes them.
fn governance() -> Governance {
    Governance::required().class(Class::Function, 2).class(Class::Policy, 1).emergency(1, HOUR)
}

fn manifest(governance: Governance) -> Manifest {
    let mut manifest = Manifest::first(RootSet::new([key(1).public_key(), key(2).public_key(), key(3).public_key()], 1))
        .grant(key(HOST).public_key(), Role::Runtime, [TENANT, SYSTEM_TENANT])
        .governed(governance);
    for publisher in [AUTHOR, COLLEAGUE] {
        manifest = manifest.grant(key(publisher).public_key(), Role::Publisher, [TENANT, "other"]);
    }
    for approver in APPROVERS.into_iter().chain([AUTHOR, COLLEAGUE]) {
        manifest = manifest.grant(key(approver).public_key(), Role::Approver, [TENANT, "other"]);
    }
    manifest
}

fn root() -> TrustRoot {
    TrustRoot::new([key(1).public_key(), key(2).public_key(), key(3).public_key()], 1)
}

struct World {
    ledger: MemoryLedger,
    trusted: Trusted,
    now: Timestamp,
    function: Uuid,
}

impl World {
    fn new() -> Self {
        Self::governed(governance())
    }

    fn governed(governance: Governance) -> Self {
        block_on(async {
            let ledger = MemoryLedger::default();
            root().publish(&ledger, &manifest(governance), &key(ROOT), &SystemClock).await.unwrap();
            let trusted = root().resolve(&ledger).await.unwrap();
            Self { ledger, trusted, now: start(), function: ids::derive("function", &["f"]) }
        })
    }

    /// Publishes the next manifest.
    fn decide(&mut self, change: impl FnOnce(Manifest) -> Manifest) {
        block_on(async {
            let mut next = change(self.trusted.manifest.clone());
            next.version += 1;
            root().publish(&self.ledger, &next, &key(ROOT), &SystemClock).await.unwrap();
            self.trusted = root().resolve(&self.ledger).await.unwrap();
        });
    }

    fn append(&self, draft: Draft, by: u8) -> VerifiedSpan {
        let mut draft = draft.at(self.now);
        if !draft.has_id() {
            draft = draft.id(new_id());
        }
        let span = draft.seal_local(&key(by)).unwrap();
        block_on(self.ledger.append_one(&Scope::Operator, span.clone())).unwrap();
        span
    }

    /// Publishes the next version of the function.
    fn publish(&self, code: &str, by: u8) -> VerifiedSpan {
        let draft =
            Draft::new("function").id(self.function).tenant(TENANT).owner("team").who("p").this("function.f").code(code);
        let last = block_on(self.ledger.head(&Scope::Operator, TENANT, self.function)).unwrap();
        let draft = match last {
            Some(last) => draft.seq(last.seq + 1).follows(last.seal.curr_hash),
            None => draft,
        };
        self.append(draft, by)
    }

    fn pointer(&self) -> Pointer {
        let pointer = self.trusted.pointer(&self.ledger, TENANT, Environment::Production, Class::Function, self.function);
        block_on(pointer).unwrap()
    }

    fn in_force(&self) -> Option<Hash> {
        self.pointer().in_force(self.now).map(|held| held.subject.curr_hash)
    }

    fn proposal(&self, subject: &VerifiedSpan) -> Proposal {
        let rules = self.trusted.rules(TENANT, Environment::Production, Class::Function);
        Proposal {
            act: Act::Promote,
            environment: Environment::Production,
            class: Class::Function,
            subject: Version::of(subject),
            replaces: self.in_force(),
            rules: rules.map_or(Hash::of(b"none"), |rules| rules.pin()),
            expires: self.now.saturating_add(24 * HOUR),
            emergency: None,
            reason: None,
        }
    }

    fn propose_as(&self, proposal: &Proposal, by: u8) -> Proposed {
        let draft = proposal.to_draft(TENANT, "team", &key(by).public_key());
        Proposed::of(&self.append(draft, by)).unwrap()
    }

    fn propose(&self, subject: &VerifiedSpan) -> Proposed {
        self.propose_as(&self.proposal(subject), AUTHOR)
    }

    fn statement(&self, proposed: &Proposed) -> Statement {
        let proposal = &proposed.proposal;
        Statement {
            ledger: self.trusted.ledger,
            tenant: TENANT.to_owned(),
            environment: proposal.environment,
            class: proposal.class,
            subject: proposal.subject.id,
            proposal: Some(proposed.id),
            replaces: proposal.replaces,
            approves: proposal.subject.curr_hash,
            decision: Decision::Approve,
            expires: self.now.saturating_add(24 * HOUR),
        }
    }

    fn vote(&self, statement: Statement, by: u8) -> VerifiedSpan {
        let parent = statement.proposal;
        let signed = block_on(statement.sign(&key(by))).unwrap();
        let draft = signed.to_draft("approver");
        self.append(parent.into_iter().fold(draft, Draft::parent), by)
    }

    fn approve(&self, proposed: &Proposed, by: u8) {
        self.vote(self.statement(proposed), by);
    }

    fn docket(&self, proposed: &Proposed) -> Docket {
        block_on(self.trusted.docket(&self.ledger, TENANT, proposed.id, self.now)).unwrap()
    }

    fn verdict(&self, proposed: &Proposed) -> Result<(), Refusal> {
        self.docket(proposed).tally.verdict
    }

    /// Why the votes do not count that do not.
    fn void(&self, proposed: &Proposed) -> Vec<VoidReason> {
        self.docket(proposed).tally.void.into_iter().map(|void| void.reason).collect()
    }

    fn promote(&self, proposed: &Proposed) -> Result<Held, Refusal> {
        let docket = self.docket(proposed);
        let carried = docket.carry_out(self.now)?;
        self.append(carried.promotion, HOST);
        for other in carried.others {
            self.append(other, HOST);
        }
        Ok(self.docket(proposed).carried().expect("it holds").clone())
    }

    /// Takes a version from proposal to promotion.
    fn put_in_force(&self, subject: &VerifiedSpan) -> Held {
        let proposed = self.propose(subject);
        self.approve(&proposed, 21);
        self.approve(&proposed, 22);
        self.promote(&proposed).unwrap()
    }

    fn used(&self, last: &VerifiedSpan) -> Result<Hash, InForceError> {
        let scope = Scope::runtime(TENANT);
        let found = block_on(self.trusted.in_force(&self.ledger, &scope, last.clone().into_signed(), self.now));
        found.map(|found| found.span.seal.curr_hash)
    }
}

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

fn pointer(world: &World) -> Uuid {
    pointer_id(TENANT, Environment::Production, Class::Function, world.function)
}

#[test]
fn a_signed_statement_stands_for_itself() {
    let world = World::new();
    let proposed = world.propose(&world.publish("v0", AUTHOR));
    let span = world.vote(world.statement(&proposed), 21);
    let signed = SignedStatement::of(&span, &mut logline_core::Verifier::new()).unwrap();
    assert_eq!(signed.statement().approves, proposed.proposal.subject.curr_hash);
}

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
