//! A governed tenant: proposals, votes and promotions, as in production.
#![allow(dead_code, reason = "each test file uses its own part")]

use logline_core::ledger::{AppendOptions, Ledger as _, LedgerExt as _, WorkQueue as _};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::Manifest;
use logline_core::trust::governance::{Decision, Environment, Governance, Proposed, Wish};
use logline_core::{Execution, Host, MemoryLedger, Scope, SignedSpan, Signer as _, Verifier};
use logline_kernels::governance::{GOVERNANCE, PROMOTE};
use uuid::Uuid;

use super::{PUBLISHER, USER, key};

pub(crate) const APPROVERS: [u8; 3] = [21, 22, 23];

/// The manifest of the setup, governed.
pub(crate) fn governed(manifest: Manifest, governance: Governance, tenants: &[&str]) -> Manifest {
    let manifest = manifest.allow("governance", GOVERNANCE).governed(governance);
    let approvers = APPROVERS.into_iter();
    approvers.fold(manifest, |manifest, n| manifest.grant(key(n).public_key(), Role::Approver, tenants.iter().copied()))
}

/// Proposes the last version of a span, as the publisher with this key.
pub(crate) async fn propose_as(host: &Host, tenant: &str, id: Uuid, wish: &Wish, publisher: u8) -> Proposed {
    let ledger = host.ledger();
    let last: SignedSpan = ledger.find(&Scope::Operator, tenant, id).await.unwrap().unwrap();
    let now = ledger.now().await.unwrap();
    let proposal = host.trusted().draft_proposal(ledger, &last, wish, now).await.unwrap().unwrap();
    let draft = proposal.to_draft(tenant, &last.owner_id, &key(publisher).public_key());
    Proposed::of(&host.publish(draft, &key(publisher)).await.unwrap()).unwrap()
}

/// Proposes the last version of a span for production.
pub(crate) async fn propose(host: &Host, tenant: &str, id: Uuid) -> Proposed {
    propose_as(host, tenant, id, &Wish::promote(Environment::Production), PUBLISHER).await
}

pub(crate) async fn vote(host: &Host, proposed: &Proposed, decision: Decision, by: u8) {
    let statement = proposed.statement(host.trusted().ledger, decision);
    let draft = statement.sign(&key(by)).await.unwrap().to_draft("approver");
    host.publish(draft, &key(by)).await.unwrap();
}

pub(crate) async fn approve(host: &Host, proposed: &Proposed, by: impl IntoIterator<Item = u8>) {
    for by in by {
        vote(host, proposed, Decision::Approve, by).await;
    }
}

/// Asks a host to carry out a proposal.
pub(crate) async fn promote(host: &Host, proposed: &Proposed) -> Execution {
    host.execute(Request::new(&proposed.tenant, USER, proposed.id, serde_json::Value::Null).this(PROMOTE)).await.unwrap()
}

/// Takes the last version of a span from proposal to promotion.
pub(crate) async fn put_in_force(host: &Host, tenant: &str, id: Uuid) {
    let proposed = propose(host, tenant, id).await;
    approve(host, &proposed, [21, 22]).await;
    promote(host, &proposed).await.result.unwrap();
}

/// The last version of a span, verified.
pub(crate) async fn last(ledger: &MemoryLedger, tenant: &str, id: Uuid) -> logline_core::VerifiedSpan {
    ledger.get(&Scope::Operator, tenant, id).await.unwrap().verify(&mut Verifier::new()).unwrap()
}

/// Carries out a proposal with the host's key, where no host has the kernel that does it.
pub(crate) async fn promote_directly(host: &Host, proposed: &Proposed) {
    let now = host.ledger().now().await.unwrap();
    let docket = host.trusted().docket(host.ledger(), &proposed.tenant, proposed.id, now).await.unwrap();
    let carried = docket.carry_out(now).unwrap();
    host.record(&proposed.tenant, vec![carried.promotion], &AppendOptions::default()).await.unwrap();
}
