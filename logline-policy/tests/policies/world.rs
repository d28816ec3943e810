//! Ledgers, hosts and policies for the tests.

use crate::setup;
use crate::setup::{HOST, PUBLISHER, TENANT, USER, key, run_until, spans, until};
use logline_core::ledger::AppendOptions;
use logline_core::roles::Role;
use logline_core::trust::Manifest;
use logline_core::{
    Draft, Host, KernelSet, ManualClock, MemoryLedger, SYSTEM_TENANT, SignedSpan, Signer as _, SystemClock, Timestamp,
    VerifiedSpan, ids,
};
use logline_kernels::{Loops, Worker, WorkerOptions};
use logline_policy::{AgentOptions, PolicyAgent, policy_id};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const OTHER_HOST: u8 = 40;

pub(crate) fn manifest() -> Manifest {
    setup::manifest().allow("request_worker", ids::REQUEST_WORKER).allow("policy_agent", ids::POLICY_AGENT).grant(
        key(OTHER_HOST).public_key(),
        Role::Runtime,
        [SYSTEM_TENANT, "*"],
    )
}

pub(crate) fn behaviours() -> KernelSet {
    logline_kernels::all().and(logline_policy::all())
}

pub(crate) async fn host_as(ledger: &MemoryLedger, n: u8) -> Host {
    setup::host_that(ledger, n, behaviours()).await
}

pub(crate) fn worker() -> Worker {
    Worker::new(WorkerOptions::default().poll(Duration::from_millis(5)))
}

pub(crate) async fn site() -> (MemoryLedger, Host) {
    let ledger = setup::ledger_with(&manifest(), &behaviours()).await;
    let host = host_as(&ledger, HOST).await;
    (ledger, host)
}

/// A ledger whose clock stands at noon.
pub(crate) async fn at_noon() -> (MemoryLedger, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new("2026-05-01T12:00:00Z".parse::<Timestamp>().unwrap()));
    let ledger = MemoryLedger::with_clock(clock.clone());
    setup::trust().publish(&ledger, &manifest(), &key(setup::ROOT), &SystemClock).await.unwrap();
    logline_kernels::install(&ledger, &behaviours(), &key(setup::SYSTEM_PUBLISHER), &SystemClock).await.unwrap();
    (ledger, clock)
}

pub(crate) fn policy(name: &str, content: Value) -> Draft {
    Draft::new("policy")
        .id(policy_id(name))
        .tenant(TENANT)
        .owner("compliance")
        .who("publisher")
        .this(format!("policy.{name}"))
        .name(name)
        .status("active")
        .language("cel")
        .content(content)
}

pub(crate) async fn publish(host: &Host, name: &str, content: Value) -> VerifiedSpan {
    host.publish(policy(name, content), &key(PUBLISHER)).await.unwrap()
}

/// Echoes every note as a `reply`.
pub(crate) fn echoing() -> Value {
    json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "reply", "content": "${span.content}"}}]})
}

pub(crate) fn note(content: Value) -> Draft {
    Draft::new("note").tenant(TENANT).owner(USER).who("user:alice").this("note.trial").content(content)
}

pub(crate) async fn write(host: &Host, draft: Draft) -> VerifiedSpan {
    host.record(TENANT, vec![draft], &AppendOptions::default()).await.unwrap().remove(0)
}

pub(crate) fn agents() -> Loops {
    PolicyAgent::new(AgentOptions::default().poll(Duration::from_millis(5))).into()
}

pub(crate) fn everything() -> Loops {
    agents().with(worker())
}

pub(crate) fn of_type(entity_type: &'static str) -> impl Fn(&SignedSpan) -> bool {
    move |row| row.entity_type == entity_type
}

/// Runs an agent until it has certainly seen everything that is there now: a marker that one more policy answers.
pub(crate) async fn settle(ledger: &MemoryLedger, host: &Host, loops: Loops) {
    run_until(host, loops, settled(ledger, host)).await;
}

/// Waits until a running agent has certainly seen everything that is there now.
pub(crate) async fn settled(ledger: &MemoryLedger, host: &Host) {
    let marker =
        json!({"on": ["marker"], "when": "true", "then": [{"emit": {"entity_type": "seen", "content": "${span.content}"}}]});
    if spans(ledger, "policy").await.iter().all(|span| span.name.as_deref() != Some("marker")) {
        publish(host, "marker", marker).await;
    }
    // It may be asked before the others are; the second time they have been.
    for _ in 0..2 {
        let text = format!("marker-{}", spans(ledger, "marker").await.len());
        let mut draft = note(json!(text));
        draft.columns_mut().entity_type = "marker".to_owned();
        write(host, draft).await;
        until(ledger, 1, |row| row.entity_type == "seen" && row.content == Some(json!(text))).await;
    }
}
