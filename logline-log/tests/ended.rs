//! The end of a key: the two runbooks of docs/governance.md, and what a thief tries.
#![cfg(feature = "integrator")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::Arc;

use logline_core::fsck::{Audit, Event, fsck};
use logline_core::ledger::{AppendOptions, Ledger as _, LedgerExt as _};
use logline_core::ndjson;
use logline_core::roles::Role;
use logline_core::trust::governance::{Class, Decision, Environment, Governance, Proposed, Wish};
use logline_core::trust::{
    Delegation, DelegationError, Ended, LogEnd, LogList, MAX_ENDED_LOGS, Manifest, ManifestError, RootSet, SkipReason,
    TrustError, TrustRoot, Trusted,
};
use logline_core::{
    Clock as _, Draft, Hash, Host, IdSource as _, MemoryLedger, Rules, SYSTEM_TENANT, Scope, Signer as _, SystemClock,
    SystemIds, VerifiedSpan, ids,
};
use logline_log::{Checkpoint, Integrator, LogSite, Step, StoredLogs, last_signed};
use setup::{Store, TENANT, key};

const ROOT: u8 = 1;
const SECOND_ROOT: u8 = 2;
const STOLEN: u8 = 11;
const NEXT: u8 = 12;
const APPROVER: u8 = 21;
const HOST: u8 = 31;
const DELEGATED: u8 = 32;

fn trust() -> TrustRoot {
    TrustRoot::new([key(ROOT).public_key(), key(SECOND_ROOT).public_key()], 1)
}

fn manifest() -> Manifest {
    Manifest::first(RootSet::new([key(ROOT).public_key(), key(SECOND_ROOT).public_key()], 1))
        .grant(key(STOLEN).public_key(), Role::Publisher, [TENANT, SYSTEM_TENANT])
        .grant(key(APPROVER).public_key(), Role::Approver, [TENANT])
        .grant(key(HOST).public_key(), Role::Runtime, [TENANT, SYSTEM_TENANT])
}

struct World {
    ledger: MemoryLedger,
    store: Store,
}

impl World {
    async fn new(manifest: &Manifest) -> Self {
        let world = Self { ledger: MemoryLedger::new(), store: Store::default() };
        trust().publish(&world.ledger, manifest, &key(ROOT), &SystemClock).await.unwrap();
        world
    }

    fn logs(&self) -> StoredLogs<Store> {
        StoredLogs::new(self.store.clone())
    }

    /// Enters everything in the log of a tenant, and gives the place where it ends now.
    async fn end_of_log(&self, tenant: &str) -> LogEnd {
        let stores = (Arc::new(self.store.clone()), Arc::new(self.store.clone()));
        let site = LogSite::new(stores.0, stores.1, Arc::new(key(9)));
        let mut integrator = Integrator::new(Arc::new(self.ledger.clone()), site, tenant).begins();
        while !matches!(integrator.step().await.unwrap(), Step::Idle) {}
        let checkpoint = Checkpoint::of(&last_signed(&self.store, tenant).await.unwrap().unwrap()).unwrap();
        LogEnd { origin: checkpoint.origin.to_string(), size: checkpoint.size, root: Hash(checkpoint.root.0) }
    }

    async fn resolve(&self) -> Trusted {
        trust().resolve_with(&self.ledger, Some(&self.logs())).await.unwrap()
    }

    async fn host(&self) -> Host {
        let builder = Host::builder().ledger(self.ledger.clone()).trust(trust()).key(key(HOST)).logs(self.logs());
        builder.build().await.unwrap()
    }

    async fn decide(&self, change: impl FnOnce(Manifest) -> Manifest) -> Result<VerifiedSpan, TrustError> {
        let mut next = change(trust().resolve(&self.ledger).await?.manifest);
        next.version += 1;
        trust().publish(&self.ledger, &next, &key(ROOT), &SystemClock).await
    }

    /// Writes a row behind the host's checks, as whoever can write to the store could.
    async fn smuggle(&self, draft: Draft, by: u8) -> VerifiedSpan {
        let span = draft.stamp(&SystemClock, &SystemIds).seal_local(&key(by)).unwrap();
        self.ledger.append_one(&Scope::Operator, span.clone()).await.unwrap();
        span
    }

    async fn audit(&self) -> Vec<String> {
        let trusted = self.resolve().await;
        let mut audit = Audit::default();
        audit.authorities = Some(&trusted.authorities);
        audit.trusted = Some(&trusted);
        let mut problems = Vec::new();
        fsck(&self.ledger, audit, &mut |event| {
            if let Event::Problem(problem) = event {
                problems.push(problem.to_string());
            }
        })
        .await
        .unwrap();
        problems
    }
}

fn function(name: &str) -> Draft {
    Draft::new("function").id(ids::derive("f", &[name])).tenant(TENANT).owner("team").who("p").this("function.f").code(name)
}

#[tokio::test]
async fn stolen_key_order_ends_the_key_where_the_log_ends_and_nothing_that_the_thief_signs_counts() {
    let world = World::new(&manifest()).await;
    let host = world.host().await;
    let honest = host.publish(function("honest"), &key(STOLEN)).await.unwrap();
    // Runbook, 1: the last checkpoint that is known to be from before the theft.
    let end = world.end_of_log(TENANT).await;
    // The thief writes meanwhile, and dates the row back before the theft.
    let stolen = world.smuggle(function("stolen").at(honest.at), STOLEN).await;
    let next = world.smuggle(Draft::next_version(&honest).at(honest.at), STOLEN).await;
    world.end_of_log(TENANT).await;
    // 2 and 3: end the key there, and name its successor.
    let ended = Ended::of_key(key(STOLEN).public_key(), [end]);
    world.decide(|m| m.end(ended).grant(key(NEXT).public_key(), Role::Publisher, [TENANT, SYSTEM_TENANT])).await.unwrap();
    host.refresh().await.unwrap();
    // 4: what is older counts, and what is not does not, whatever its date says.
    let trusted = world.resolve().await;
    assert!(trusted.unread.is_empty() && trusted.authorities.check(&honest).is_ok());
    for row in [&stolen, &next] {
        assert!(trusted.authorities.check(row).unwrap_err().has_ended);
    }
    // fsck names both rows of the thief.
    let problems = world.audit().await;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().all(|problem| problem.contains("has ended, and no log shows that the span is older")));
    // The driver writes nothing for the key, dated as it may be, and nothing that the thief brings.
    let refused = host.publish(function("again").at(honest.at), &key(STOLEN)).await.unwrap_err();
    assert!(refused.to_string().contains("has ended"), "{refused}");
    let brought = function("brought").at(honest.at).stamp(&SystemClock, &SystemIds).seal_local(&key(STOLEN)).unwrap();
    assert!(host.admit(&Scope::runtime(TENANT), vec![brought]).await.is_err());
    // The successor goes on.
    host.publish(function("next"), &key(NEXT)).await.unwrap();
    // An importer that knows the end takes the honest row and refuses the others. (One that reads the end further down cannot know
    // yet; fsck names them afterwards.)
    let mut exported = Vec::new();
    ndjson::export(&world.ledger, &Scope::Operator, None, &mut exported, &mut |_| {}).await.unwrap();
    let (decisions, rest): (Vec<_>, Vec<_>) = exported
        .split(|byte| *byte == b'\n')
        .partition(|line| String::from_utf8_lossy(line).contains("\"entity_type\":\"manifest\""));
    let exported = [decisions, rest].concat().join(&b'\n');
    let (trust, logs, copy, mut bad) = (trust(), world.logs(), MemoryLedger::new(), Vec::new());
    let import = ndjson::Import {
        signer: None,
        tenant: None,
        owner: None,
        reseal: false,
        keep_unknown: false,
        trust: Some(&trust),
        clock: &SystemClock,
        logs: Some(&logs),
        rules: Rules::default(),
    };
    let (mut source, mut on_bad) = (exported.as_slice(), |line: ndjson::BadLine| bad.push(line.error.to_string()));
    let done = ndjson::import(&copy, &mut source, &import, &mut on_bad, &mut |_| {}).await.unwrap();
    assert_eq!(done.refused, 2, "{bad:?}");
    assert!(copy.get(&Scope::Operator, TENANT, honest.id).await.is_ok());
}

#[tokio::test]
async fn routine_order_hands_over_to_a_new_key_and_ends_the_old_one_after_its_last_row() {
    let world = World::new(&manifest()).await;
    let host = world.host().await;
    let old = host.publish(function("old"), &key(STOLEN)).await.unwrap();
    // 1: the new key beside the old one. 2: everybody signs with the new one. 3: the log has all rows of the old one.
    world.decide(|m| m.grant(key(NEXT).public_key(), Role::Publisher, [TENANT, SYSTEM_TENANT])).await.unwrap();
    host.refresh().await.unwrap();
    host.publish(function("new"), &key(NEXT)).await.unwrap();
    let end = world.end_of_log(TENANT).await;
    // 4: end the old one there.
    world.decide(|m| m.end(Ended::of_key(key(STOLEN).public_key(), [end]))).await.unwrap();
    host.refresh().await.unwrap();
    assert!(world.resolve().await.authorities.check(&old).is_ok());
    assert_eq!(world.audit().await, [] as [String; 0]);
    assert!(host.publish(function("late"), &key(STOLEN)).await.is_err());
}

#[tokio::test]
async fn without_a_log_a_key_cannot_be_ended_and_an_end_cannot_be_taken_back_or_moved() {
    let world = World::new(&manifest()).await;
    let ended = Ended::of_key(key(STOLEN).public_key(), []);
    let refused = world.decide(|m| m.end(ended)).await.unwrap_err();
    assert!(refused.to_string().contains("names no log"), "{refused}");
    let left_out = |mut m: Manifest| {
        m.authorities.remove(0);
        m
    };
    let refused = world.decide(left_out).await.unwrap_err();
    assert!(matches!(refused, TrustError::WouldNotCount(SkipReason::Manifest(ManifestError::Ends { .. }))), "{refused}");
    let end = world.end_of_log(SYSTEM_TENANT).await;
    world.decide(|m| m.end(Ended::of_key(key(STOLEN).public_key(), [end]))).await.unwrap();
    for change in [
        (|m: &mut Manifest| m.ended.clear()) as fn(&mut Manifest),
        |m| m.ended[0].logs[0].size += 1,
        |m| m.ended[0].role = Some(Role::Member),
    ] {
        let refused = world.decide(|mut m| {
            change(&mut m);
            m
        });
        let refused = refused.await.unwrap_err();
        assert!(matches!(refused, TrustError::WouldNotCount(SkipReason::Manifest(ManifestError::Revives { .. }))), "{refused}");
    }
}

#[tokio::test]
async fn a_log_that_is_away_or_is_another_than_the_manifest_names_lets_nothing_count() {
    let world = World::new(&manifest()).await;
    let honest = world.host().await.publish(function("honest"), &key(STOLEN)).await.unwrap();
    let end = world.end_of_log(TENANT).await;
    // The thief's host shows a log of the same size with another row in it.
    let lie = LogEnd { root: Hash::of(b"another tree"), ..end.clone() };
    let world_with = async |end: LogEnd| {
        let next = manifest().end(Ended::of_key(key(STOLEN).public_key(), [end]));
        let other = World { ledger: MemoryLedger::new(), store: world.store.clone() };
        trust().publish(&other.ledger, &next, &key(ROOT), &SystemClock).await.unwrap();
        other
    };
    for end in
        [lie, LogEnd { size: end.size + 1, ..end.clone() }, LogEnd { origin: "log.invalid/nothing".to_owned(), ..end.clone() }]
    {
        let trusted = world_with(end).await.resolve().await;
        assert_eq!(trusted.unread.len(), 1);
        assert!(trusted.authorities.check(&honest).is_err());
    }
    // An entry is changed in the store.
    let trusted = world_with(end.clone()).await.resolve().await;
    assert!(trusted.unread.is_empty() && trusted.authorities.check(&honest).is_ok());
    world.store.flip(Some("tile/entries"));
    let trusted = world_with(end.clone()).await.resolve().await;
    assert!(trusted.unread.len() == 1 && trusted.authorities.check(&honest).is_err());
    world.store.flip(None);
    // No log at all.
    let trusted = trust().resolve(&world_with(end).await.ledger).await.unwrap();
    assert!(trusted.unread.len() == 1 && trusted.authorities.check(&honest).is_err());
}

#[tokio::test]
async fn a_row_with_the_id_of_an_older_leaf_is_not_that_leaf() {
    let world = World::new(&manifest()).await;
    let honest = world.host().await.publish(function("honest"), &key(STOLEN)).await.unwrap();
    let end = world.end_of_log(TENANT).await;
    world.decide(|m| m.end(Ended::of_key(key(STOLEN).public_key(), [end]))).await.unwrap();
    // The thief, who can write to the store, puts another row in its place, and one in another tenant.
    let trusted = world.resolve().await;
    for draft in [function("honest").code("evil"), function("honest").tenant(SYSTEM_TENANT)] {
        let row = draft.at(honest.at).seal_local(&key(STOLEN)).unwrap();
        assert_eq!((row.id, row.seq), (honest.id, honest.seq));
        assert!(trusted.authorities.check(&row).is_err());
    }
}

#[tokio::test]
async fn an_ended_root_key_decides_nothing_and_cannot_sign_its_own_end() {
    let world = World::new(&manifest()).await;
    let end = world.end_of_log(SYSTEM_TENANT).await;
    // Its own end.
    let own = world.decide(|m| m.end(Ended::of_key(key(ROOT).public_key(), [end.clone()]))).await.unwrap_err();
    assert!(matches!(own, TrustError::WouldNotCount(SkipReason::Signer { .. })), "{own}");
    // The other root key ends it.
    let mut next = manifest().end(Ended::of_key(key(ROOT).public_key(), [end]));
    next.version = 2;
    trust().publish(&world.ledger, &next, &key(SECOND_ROOT), &SystemClock).await.unwrap();
    let refused = world.decide(|m| m).await.unwrap_err();
    assert!(matches!(refused, TrustError::WouldNotCount(SkipReason::Signer { .. })), "{refused}");
    // Smuggled in, it is skipped. The first manifest, which the key has signed before, still counts.
    let last = world.ledger.head(&Scope::Operator, SYSTEM_TENANT, ids::MANIFEST).await.unwrap().unwrap();
    let mut third = next.clone();
    third.version = 3;
    let draft = third.to_draft(ids::MANIFEST).seq(last.seq + 1).follows(last.seal.curr_hash);
    world.smuggle(draft, ROOT).await;
    let trusted = world.resolve().await;
    assert_eq!((trusted.manifest.version, trusted.skipped.len()), (2, 1));
    assert_eq!(world.audit().await.len(), 1);
    // Where only ended keys are left, no manifest could follow.
    let mut alone = next;
    alone.root.threshold = 2;
    assert!(alone.check().is_err());
}

#[tokio::test]
async fn the_approval_of_an_ended_approver_counts_if_it_is_older_and_not_otherwise() {
    let rules = Governance::required().class(Class::Function, 1);
    let world = World::new(&manifest().grant(key(22).public_key(), Role::Approver, [TENANT]).governed(rules)).await;
    let host = world.host().await;
    let approved = async |name: &str, by: u8| {
        let subject = host.publish(function(name), &key(STOLEN)).await.unwrap();
        let wish = Wish::promote(Environment::Production);
        let proposal = host.trusted().draft_proposal(&world.ledger, &subject, &wish, SystemClock.now()).await.unwrap().unwrap();
        let draft = proposal.to_draft(TENANT, "team", &key(STOLEN).public_key());
        let proposed = Proposed::of(&host.publish(draft, &key(STOLEN)).await.unwrap()).unwrap();
        let vote = proposed.statement(host.trusted().ledger, Decision::Approve).sign(&key(by)).await.unwrap();
        world.smuggle(vote.to_draft("approver").id(SystemIds.next_id(SystemClock.now())), by).await;
        proposed
    };
    let first = approved("first", APPROVER).await;
    let docket = host.trusted().docket(&world.ledger, TENANT, first.id, SystemClock.now()).await.unwrap();
    let carried = docket.carry_out(SystemClock.now()).unwrap();
    host.record(TENANT, vec![carried.promotion], &AppendOptions::default()).await.unwrap();
    let end = world.end_of_log(TENANT).await;
    world
        .decide(|m| m.end(Ended { role: Some(Role::Approver), ..Ended::of_key(key(APPROVER).public_key(), [end]) }))
        .await
        .unwrap();
    host.refresh().await.unwrap();
    // What it has approved before stays in force.
    let last = world.ledger.get(&Scope::Operator, TENANT, first.proposal.subject.id).await.unwrap();
    let used = host.trusted().in_force(&world.ledger, &Scope::runtime(TENANT), last, SystemClock.now()).await.unwrap();
    assert_eq!(used.span.seal.curr_hash, first.proposal.subject.curr_hash);
    // What it approves now counts for nothing.
    let second = approved("second", APPROVER).await;
    let docket = host.trusted().docket(&world.ledger, TENANT, second.id, SystemClock.now()).await.unwrap();
    assert_eq!((docket.tally.counted.len(), docket.tally.void.len()), (0, 1));
}

#[tokio::test]
async fn a_delegation_and_the_key_that_gives_it_can_be_ended() {
    let world = World::new(&manifest()).await;
    let delegate = async |tenant: &str| {
        let now = SystemClock.now();
        let until = now.saturating_add(std::time::Duration::from_secs(3600));
        let delegation = Delegation::new(key(DELEGATED).public_key(), [tenant], now, until);
        trust().delegate(&world.ledger, &delegation, &key(HOST), &SystemClock).await
    };
    delegate(TENANT).await.unwrap();
    let row = world.smuggle(note(), DELEGATED).await;
    let end = world.end_of_log(TENANT).await;
    let system = world.end_of_log(SYSTEM_TENANT).await;
    // The host's key, which was delegated to.
    world.decide(|m| m.end(Ended::of_key(key(DELEGATED).public_key(), [end.clone()]))).await.unwrap();
    let trusted = world.resolve().await;
    assert!(trusted.authorities.check(&row).is_ok());
    assert!(trusted.authorities.check(&world.smuggle(note(), DELEGATED).await).is_err());
    // The key that delegates: what it has delegated before its end stays, and it delegates no more.
    world.decide(|m| m.end(Ended::of_key(key(HOST).public_key(), [end, system]))).await.unwrap();
    assert!(world.resolve().await.authorities.check(&row).is_ok());
    assert!(matches!(delegate(SYSTEM_TENANT).await, Err(DelegationError::Signer { .. })));
}

#[tokio::test]
async fn a_key_of_many_tenants_ends_in_lists_of_logs_whose_hashes_the_manifest_names() {
    let world = World::new(&manifest()).await;
    let host = world.host().await;
    let honest = host.publish(function("honest"), &key(STOLEN)).await.unwrap();
    let here = world.end_of_log(TENANT).await;
    let stolen = world.smuggle(function("stolen").at(honest.at), STOLEN).await;
    // Logs of other tenants, whose files this host does not have.
    let other = |n: usize| LogEnd { origin: format!("log.invalid/{n:032x}"), size: 7, root: Hash::of(b"theirs") };
    let mut logs: Vec<_> = (0..MAX_ENDED_LOGS + 10).map(other).collect();
    logs.push(here);
    let ended = |lists: Vec<LogList>| Ended { lists, ..Ended::of_key(key(STOLEN).public_key(), []) };
    let list = async |by: u8| trust().list_logs(&world.ledger, &logs, &key(by), &SystemClock).await;
    // A member's list is no list, and a manifest does not name one that is not there.
    assert!(matches!(list(HOST).await, Err(TrustError::NotAPublisher { .. })));
    let nowhere = LogList { id: SystemIds.next_id(SystemClock.now()), curr_hash: Hash::of(b"nothing") };
    let missing = world.decide(|m| m.end(ended(vec![nowhere]))).await.unwrap_err();
    assert!(matches!(missing, TrustError::MissingList { .. }), "{missing}");
    let lists = list(STOLEN).await.unwrap();
    assert_eq!((lists.len(), &list(STOLEN).await.unwrap()), (2, &lists), "a second call changes nothing");
    // The list that the manifest names is exactly one.
    let swapped = LogList { curr_hash: lists[1].curr_hash, ..lists[0] };
    let refused = world.decide(|m| m.end(ended(vec![swapped]))).await.unwrap_err();
    assert!(refused.to_string().contains("another one than the manifest names"), "{refused}");

    world.decide(|m| m.end(ended(lists.clone()))).await.unwrap();
    let trusted = world.resolve().await;
    assert!(trusted.authorities.check(&honest).is_ok(), "what this host's log shows counts, whatever it cannot read of others");
    assert!(trusted.authorities.check(&stolen).unwrap_err().has_ended);
    assert_eq!(trusted.unread.len(), MAX_ENDED_LOGS + 10);
    // An auditor without a ledger has them from an export.
    let blob = world.ledger.history(&Scope::Operator, SYSTEM_TENANT, lists[0].id, 0, 1).await.unwrap().remove(0);
    let (whole, missing) = trusted.manifest.ended[0].with_lists([&blob]);
    assert_eq!((whole.logs.len(), missing.len()), (MAX_ENDED_LOGS, 1));
    // Neither can an end in a list be moved.
    let moved = world.decide(|mut m| {
        m.ended[0].lists.pop();
        m
    });
    let moved = moved.await.unwrap_err();
    assert!(matches!(moved, TrustError::WouldNotCount(SkipReason::Manifest(ManifestError::Revives { .. }))), "{moved}");
}

fn note() -> Draft {
    Draft::new("execution").tenant(TENANT).owner("alice").who("host").this("execution").id(SystemIds.next_id(SystemClock.now()))
}

#[tokio::test]
async fn stage_0_boots_no_kernel_that_a_publisher_has_signed_after_its_end() {
    let set = logline_kernels::all();
    let world = World::new(&manifest().allow("run_code", ids::RUN_CODE)).await;
    logline_kernels::install(&world.ledger, &set, &key(STOLEN), &SystemClock).await.unwrap();
    let end = world.end_of_log(SYSTEM_TENANT).await;
    world.decide(|m| m.end(Ended::of_key(key(STOLEN).public_key(), [end]))).await.unwrap();
    let builder = Host::builder().ledger(world.ledger.clone()).trust(trust()).key(key(HOST)).install(set).logs(world.logs());
    let host = builder.build().await.unwrap();
    let booted = host.boot(ids::RUN_CODE).await.unwrap();
    world.smuggle(Draft::next_version(&booted.span).at(booted.span.at), STOLEN).await;
    host.refresh().await.unwrap();
    assert_eq!(host.boot(ids::RUN_CODE).await.unwrap().span.seal, booted.span.seal, "the last version that counts");
}

#[tokio::test]
async fn a_host_that_has_slept_through_three_changes_of_the_root_catches_up() {
    let world = World::new(&manifest()).await;
    let host = world.host().await;
    let (mut by, mut current) = (vec![ROOT], manifest());
    for (n, new) in [(2, 3_u8), (3, 4), (4, 5)] {
        // Each time a key is added and the threshold grows, so that the next one needs the new keys as well.
        current.version = n;
        current.root.keys.push(key(new).public_key());
        current.root.threshold += 1;
        let span = trust().publish(&world.ledger, &current, &key(by[0]), &SystemClock).await.unwrap();
        for approver in by.iter().skip(1).chain([&new]) {
            trust().approve(&world.ledger, &span, &key(*approver), &SystemClock).await.unwrap();
        }
        by.push(new);
    }
    assert_eq!(host.trusted().manifest.version, 1);
    host.refresh().await.unwrap();
    assert_eq!((host.trusted().manifest.version, host.trusted().manifest.root.threshold), (4, 4));
    // A manifest that skips one does not count.
    let mut skipping = current;
    skipping.version = 6;
    let refused = trust().publish(&world.ledger, &skipping, &key(ROOT), &SystemClock).await;
    assert!(matches!(refused, Err(TrustError::WouldNotCount(SkipReason::Version { .. }))));
}
