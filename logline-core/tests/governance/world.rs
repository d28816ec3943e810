//! A ledger whose functions need two of four approvals, and what people do in it.

use std::future::Future;
use std::time::Duration;

use logline_core::ledger::LedgerExt as _;
use logline_core::roles::Role;
use logline_core::trust::governance::{
    Act, Class, Decision, Docket, Environment, Governance, Held, InForceError, Pointer, Proposal, Proposed, Refusal, Statement,
    Version, VoidReason, pointer_id,
};
use logline_core::trust::{Manifest, RootSet, TrustRoot, Trusted};
use logline_core::{
    Draft, Hash, IdSource as _, KeyPair, MemoryLedger, SYSTEM_TENANT, Scope, Signer as _, SystemClock, SystemIds, Timestamp,
    VerifiedSpan, ids,
};
use uuid::Uuid;

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub(crate) fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

pub(crate) const TENANT: &str = "acme";
pub(crate) const ROOT: u8 = 1;
pub(crate) const AUTHOR: u8 = 11;
pub(crate) const COLLEAGUE: u8 = 12;
pub(crate) const APPROVERS: [u8; 4] = [21, 22, 23, 24];
pub(crate) const HOST: u8 = 31;
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn new_id() -> Uuid {
    SystemIds.next_id(start())
}

pub(crate) fn start() -> Timestamp {
    "2026-01-01T00:00:00.000000Z".parse().unwrap()
}

/// Two of four approvers must approve a function. The author may approve too, if nothing excludes them.
pub(crate) fn governance() -> Governance {
    Governance::required().class(Class::Function, 2).class(Class::Policy, 1).emergency(1, HOUR)
}

pub(crate) fn manifest(governance: Governance) -> Manifest {
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

pub(crate) fn root() -> TrustRoot {
    TrustRoot::new([key(1).public_key(), key(2).public_key(), key(3).public_key()], 1)
}

pub(crate) struct World {
    pub(crate) ledger: MemoryLedger,
    pub(crate) trusted: Trusted,
    pub(crate) now: Timestamp,
    pub(crate) function: Uuid,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::governed(governance())
    }

    pub(crate) fn governed(governance: Governance) -> Self {
        block_on(async {
            let ledger = MemoryLedger::default();
            root().publish(&ledger, &manifest(governance), &key(ROOT), &SystemClock).await.unwrap();
            let trusted = root().resolve(&ledger).await.unwrap();
            Self { ledger, trusted, now: start(), function: ids::derive("function", &["f"]) }
        })
    }

    /// Publishes the next manifest.
    pub(crate) fn decide(&mut self, change: impl FnOnce(Manifest) -> Manifest) {
        block_on(async {
            let mut next = change(self.trusted.manifest.clone());
            next.version += 1;
            root().publish(&self.ledger, &next, &key(ROOT), &SystemClock).await.unwrap();
            self.trusted = root().resolve(&self.ledger).await.unwrap();
        });
    }

    pub(crate) fn append(&self, draft: Draft, by: u8) -> VerifiedSpan {
        let mut draft = draft.at(self.now);
        if !draft.has_id() {
            draft = draft.id(new_id());
        }
        let span = draft.seal_local(&key(by)).unwrap();
        block_on(self.ledger.append_one(&Scope::Operator, span.clone())).unwrap();
        span
    }

    /// Publishes the next version of the function.
    pub(crate) fn publish(&self, code: &str, by: u8) -> VerifiedSpan {
        let draft =
            Draft::new("function").id(self.function).tenant(TENANT).owner("team").who("p").this("function.f").code(code);
        let last = block_on(self.ledger.head(&Scope::Operator, TENANT, self.function)).unwrap();
        let draft = match last {
            Some(last) => draft.seq(last.seq + 1).follows(last.seal.curr_hash),
            None => draft,
        };
        self.append(draft, by)
    }

    pub(crate) fn pointer(&self) -> Pointer {
        let pointer = self.trusted.pointer(&self.ledger, TENANT, Environment::Production, Class::Function, self.function);
        block_on(pointer).unwrap()
    }

    pub(crate) fn in_force(&self) -> Option<Hash> {
        self.pointer().in_force(self.now).map(|held| held.subject.curr_hash)
    }

    pub(crate) fn proposal(&self, subject: &VerifiedSpan) -> Proposal {
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

    pub(crate) fn propose_as(&self, proposal: &Proposal, by: u8) -> Proposed {
        let draft = proposal.to_draft(TENANT, "team", &key(by).public_key());
        Proposed::of(&self.append(draft, by)).unwrap()
    }

    pub(crate) fn propose(&self, subject: &VerifiedSpan) -> Proposed {
        self.propose_as(&self.proposal(subject), AUTHOR)
    }

    pub(crate) fn statement(&self, proposed: &Proposed) -> Statement {
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

    pub(crate) fn vote(&self, statement: Statement, by: u8) -> VerifiedSpan {
        let parent = statement.proposal;
        let signed = block_on(statement.sign(&key(by))).unwrap();
        let draft = signed.to_draft("approver");
        self.append(parent.into_iter().fold(draft, Draft::parent), by)
    }

    pub(crate) fn approve(&self, proposed: &Proposed, by: u8) {
        self.vote(self.statement(proposed), by);
    }

    pub(crate) fn docket(&self, proposed: &Proposed) -> Docket {
        block_on(self.trusted.docket(&self.ledger, TENANT, proposed.id, self.now)).unwrap()
    }

    pub(crate) fn verdict(&self, proposed: &Proposed) -> Result<(), Refusal> {
        self.docket(proposed).tally.verdict
    }

    /// Why the votes do not count that do not.
    pub(crate) fn void(&self, proposed: &Proposed) -> Vec<VoidReason> {
        self.docket(proposed).tally.void.into_iter().map(|void| void.reason).collect()
    }

    pub(crate) fn promote(&self, proposed: &Proposed) -> Result<Held, Refusal> {
        let docket = self.docket(proposed);
        let carried = docket.carry_out(self.now)?;
        // As it was drafted: a host does not change its time.
        let promotion = carried.promotion.seal_local(&key(HOST)).unwrap();
        block_on(self.ledger.append_one(&Scope::Operator, promotion)).unwrap();
        for other in carried.others {
            self.append(other, HOST);
        }
        Ok(self.docket(proposed).carried().expect("it holds").clone())
    }

    /// Takes a version from proposal to promotion.
    pub(crate) fn put_in_force(&self, subject: &VerifiedSpan) -> Held {
        let proposed = self.propose(subject);
        self.approve(&proposed, 21);
        self.approve(&proposed, 22);
        self.promote(&proposed).unwrap()
    }

    pub(crate) fn used(&self, last: &VerifiedSpan) -> Result<Hash, InForceError> {
        let scope = Scope::runtime(TENANT);
        let found = block_on(self.trusted.in_force(&self.ledger, &scope, last.clone().into_signed(), self.now));
        found.map(|found| found.span.seal.curr_hash)
    }
}

pub(crate) fn pointer(world: &World) -> Uuid {
    pointer_id(TENANT, Environment::Production, Class::Function, world.function)
}
