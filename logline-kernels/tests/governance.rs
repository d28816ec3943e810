//! Governance through a host: nothing runs that no quorum has approved, and what runs says who allowed it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use logline_core::contract::Sandbox;
use logline_core::ledger::{Due, Ledger as _, LedgerExt as _, WorkQueue as _};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::Manifest;
use logline_core::trust::governance::{Class, Decision, Environment, Gate, Governance, Wish, promotion_of};
use logline_core::{
    BootError, Draft, Execution, Host, HostError, KernelSet, KeyPair, MemoryLedger, PublicKey, Rules, SYSTEM_TENANT, Scope,
    SignError, Signature, Signer, SystemClock, ids,
};
use logline_kernels::governance::{GOVERNANCE, PROMOTE, ROLLBACK, TEST, governance};
use logline_kernels::{Loops, Scheduler, SchedulerOptions, replay};
use logline_wasm::WasmSandbox;
use serde_json::{Value, json};
use setup::quorum::{approve, governed, promote, propose, propose_as, put_in_force, vote};
use setup::{
    HOST, PUBLISHER, SYSTEM_PUBLISHER, TENANT, USER, answer, block_on, execute, failure, function, key, output, spans,
};
use tokio::sync::Notify;
use uuid::Uuid;

fn rules() -> Governance {
    Governance::required().class(Class::Function, 2).class(Class::Provider, 1)
}

fn behaviours() -> KernelSet {
    let all = logline_kernels::all();
    all.clone().and(governance(&all))
}

fn manifest(rules: Governance) -> Manifest {
    governed(setup::manifest(), rules, &[TENANT])
}

async fn site(manifest: &Manifest) -> (MemoryLedger, Host) {
    let ledger = setup::ledger_with(manifest, &behaviours()).await;
    let host = host(&ledger, Environment::Production).await;
    (ledger, host)
}

async fn host(ledger: &MemoryLedger, environment: Environment) -> Host {
    let host = Host::builder().ledger(ledger.clone()).trust(setup::trust()).key(key(HOST)).install(behaviours());
    host.sandbox(WasmSandbox::new().unwrap()).environment(environment).build().await.unwrap()
}

/// Publishes the next version of a function that answers `says`.
async fn says(host: &Host, id: Uuid, says: &str) {
    let draft = function(&answer(&json!(says).to_string())).id(id);
    host.publish_if_changed(draft, &key(PUBLISHER)).await.unwrap();
}

fn an_id() -> Uuid {
    ids::derive("function", &["governed"])
}

async fn test(host: &Host, id: Uuid, input: Value) -> Execution {
    host.execute(Request::new(TENANT, USER, id, input).this(TEST)).await.unwrap()
}

#[test]
fn a_function_runs_when_it_is_promoted_and_its_record_says_who_allowed_it() {
    block_on(async {
        let (ledger, host) = site(&manifest(rules())).await;
        says(&host, an_id(), "one").await;
        let refused = execute(&host, an_id(), Value::Null).await;
        assert_eq!(failure(&refused).0, "not_promoted");
        let proposed = propose(&host, TENANT, an_id()).await;
        approve(&host, &proposed, [21]).await;
        let early = promote(&host, &proposed).await;
        assert_eq!(failure(&early), ("not_approved", "1 of 2 approvals count"));
        approve(&host, &proposed, [22]).await;
        let done = promote(&host, &proposed).await;
        assert_eq!(output(&done)["subject"]["seq"], 0);
        let ran = execute(&host, an_id(), Value::Null).await;
        assert_eq!(output(&ran), "one");
        // The record names the promotion, the promotion the approvals.
        let promotion = promotion_of(&ran.span).unwrap();
        let row = ledger.history(&Scope::Operator, TENANT, promotion.id, promotion.seq, 1).await.unwrap().remove(0);
        assert_eq!(row.seal.curr_hash, promotion.curr_hash);
        assert_eq!(row.meta("promotion").unwrap()["approvals"].as_array().unwrap().len(), 2);
        // A newer version changes nothing until it is promoted as well.
        says(&host, an_id(), "two").await;
        assert_eq!(output(&execute(&host, an_id(), Value::Null).await), "one");
        put_in_force(&host, TENANT, an_id()).await;
        let ran = execute(&host, an_id(), Value::Null).await;
        assert_eq!(output(&ran), "two");
        // The record can be repeated from the ledger.
        let sandboxes: [std::sync::Arc<dyn Sandbox>; 1] = [std::sync::Arc::new(WasmSandbox::new().unwrap())];
        let again = replay(&ledger, &Scope::Operator, (TENANT, ran.span.id), &sandboxes, Rules::default()).await.unwrap();
        assert_eq!(again.differences, []);
    });
}

#[test]
fn votes_that_do_not_count_are_told_with_their_reason() {
    block_on(async {
        let (_, host) = site(&manifest(rules()).grant(key(PUBLISHER).public_key(), Role::Approver, [TENANT])).await;
        says(&host, an_id(), "one").await;
        let proposed = propose(&host, TENANT, an_id()).await;
        approve(&host, &proposed, [PUBLISHER, 21]).await;
        let refused = promote(&host, &proposed).await;
        let (code, message) = failure(&refused);
        assert_eq!(code, "not_approved");
        assert!(message.contains("its key made the proposal"), "{message}");
        assert!(spans_of(&host, "promotion").await.is_empty());
    });
}

async fn spans_of(host: &Host, entity_type: &str) -> Vec<logline_core::SignedSpan> {
    let query = logline_core::ledger::Query::new().entity_type(entity_type).tenant(TENANT);
    host.ledger().collect(&Scope::Operator, &query, 100).await.unwrap()
}

#[test]
fn a_proposal_is_carried_out_once_whichever_host_is_asked() {
    block_on(async {
        let (ledger, one) = site(&manifest(rules())).await;
        let other = host(&ledger, Environment::Production).await;
        says(&one, an_id(), "one").await;
        let proposed = propose(&one, TENANT, an_id()).await;
        approve(&one, &proposed, [21, 22]).await;
        let (a, b) = futures_util::future::join(promote(&one, &proposed), promote(&other, &proposed)).await;
        assert_eq!(output(&a)["promotion"], output(&b)["promotion"]);
        // And once more, later.
        assert_eq!(output(&promote(&other, &proposed).await)["promotion"], output(&a)["promotion"]);
        assert_eq!(spans(&ledger, "promotion").await.len(), 1);
    });
}

/// Signs, and once it is told to, waits before it does.
struct Slow {
    waits: Arc<AtomicBool>,
    goes_on: Arc<Notify>,
}

#[async_trait]
impl Signer for Slow {
    fn public_key(&self) -> PublicKey {
        key(OTHER_HOST).public_key()
    }

    async fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        if self.waits.swap(false, Ordering::SeqCst) {
            self.goes_on.notified().await;
        }
        key(OTHER_HOST).sign(message).await
    }

    fn local(&self) -> Option<&KeyPair> {
        None
    }
}

const OTHER_HOST: u8 = 40;

#[test]
fn two_hosts_that_have_both_counted_the_votes_make_one_promotion() {
    block_on(async {
        let both = manifest(rules()).grant(key(OTHER_HOST).public_key(), Role::Runtime, [SYSTEM_TENANT, "*"]);
        let (ledger, one) = site(&both).await;
        let (waits, goes_on) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let slow = Slow { waits: Arc::clone(&waits), goes_on: Arc::clone(&goes_on) };
        let other = Host::builder().ledger(ledger.clone()).trust(setup::trust()).key(slow).install(behaviours());
        let other = other.sandbox(WasmSandbox::new().unwrap()).build().await.unwrap();
        says(&one, an_id(), "one").await;
        let proposed = propose(&one, TENANT, an_id()).await;
        approve(&one, &proposed, [21, 22]).await;
        // The other host has claimed its request and counted the votes, and is about to sign.
        let asked = other.submit(Request::new(TENANT, USER, proposed.id, Value::Null).this(PROMOTE)).await.unwrap();
        let (due, now) = (Due { request: asked.into_signed(), function: None }, ledger.now().await.unwrap());
        let claim = other.claim(due, now, Duration::from_secs(60)).await.unwrap();
        waits.store(true, Ordering::SeqCst);
        let late = other.finish(claim);
        let first = async {
            tokio::task::yield_now().await;
            assert!(!waits.load(Ordering::SeqCst), "it waits with its signature");
            let done = promote(&one, &proposed).await;
            goes_on.notify_one();
            done
        };
        let (late, first) = futures_util::future::join(late, first).await;
        assert_eq!(output(&late.unwrap())["promotion"], output(&first)["promotion"]);
        assert_eq!(spans(&ledger, "promotion").await.len(), 1);
        assert_eq!(output(&execute(&one, an_id(), Value::Null).await), "one");
    });
}

#[test]
fn each_environment_has_its_own_promoted_version() {
    block_on(async {
        let (ledger, production) = site(&manifest(rules())).await;
        let staging = host(&ledger, Environment::Staging).await;
        says(&production, an_id(), "one").await;
        put_in_force(&production, TENANT, an_id()).await;
        says(&production, an_id(), "two").await;
        let proposed = propose_as(&staging, TENANT, an_id(), &Wish::promote(Environment::Staging), PUBLISHER).await;
        approve(&staging, &proposed, [22, 23]).await;
        promote(&staging, &proposed).await.result.unwrap();
        assert_eq!(output(&execute(&staging, an_id(), Value::Null).await), "two");
        assert_eq!(output(&execute(&production, an_id(), Value::Null).await), "one");
    });
}

#[test]
fn a_rollback_is_an_act_of_its_own() {
    block_on(async {
        let (ledger, host) = site(&manifest(rules())).await;
        for text in ["one", "two"] {
            says(&host, an_id(), text).await;
            put_in_force(&host, TENANT, an_id()).await;
        }
        let first = ledger.history(&Scope::Operator, TENANT, an_id(), 0, 1).await.unwrap().remove(0);
        let now = SystemClock;
        let wish = Wish::roll_back(Environment::Production).because("it answers wrongly");
        let proposal = host.trusted().draft_proposal(host.ledger(), &first, &wish, logline_core::Clock::now(&now)).await;
        let draft = proposal.unwrap().unwrap().to_draft(TENANT, "risk-team", &key(PUBLISHER).public_key());
        let span = host.publish(draft, &key(PUBLISHER)).await.unwrap();
        let proposed = logline_core::trust::governance::Proposed::of(&span).unwrap();
        approve(&host, &proposed, [21, 22]).await;
        let asked = Request::new(TENANT, USER, proposed.id, Value::Null).this(ROLLBACK);
        output(&host.execute(asked).await.unwrap());
        assert_eq!(output(&execute(&host, an_id(), Value::Null).await), "one");
        let rollback = spans(&ledger, "rollback").await.remove(0);
        assert_eq!(rollback.meta("rollback").unwrap()["reason"], "it answers wrongly");
        // What asks for a rollback carries out nothing else.
        says(&host, an_id(), "three").await;
        let forward = propose(&host, TENANT, an_id()).await;
        let asked = Request::new(TENANT, USER, forward.id, Value::Null).this(ROLLBACK);
        assert_eq!(failure(&host.execute(asked).await.unwrap()).0, "not_a_rollback");
    });
}

#[test]
fn a_rejected_proposal_waits_for_others() {
    block_on(async {
        let (_, host) = site(&manifest(rules())).await;
        says(&host, an_id(), "one").await;
        let proposed = propose(&host, TENANT, an_id()).await;
        approve(&host, &proposed, [21, 22]).await;
        vote(&host, &proposed, Decision::Reject, 22).await;
        assert_eq!(failure(&promote(&host, &proposed).await).0, "not_approved");
        approve(&host, &proposed, [23]).await;
        output(&promote(&host, &proposed).await);
    });
}

#[test]
fn the_gate_check_is_passed_by_exactly_the_version_that_a_host_has_checked() {
    block_on(async {
        let (_, host) = site(&manifest(rules().gate(Class::Function, Gate::Check))).await;
        says(&host, an_id(), "one").await;
        let proposed = propose(&host, TENANT, an_id()).await;
        approve(&host, &proposed, [21, 22]).await;
        assert_eq!(failure(&promote(&host, &proposed).await).0, "gate_not_passed");
        let tested = test(&host, an_id(), json!({"gate": "check", "seq": 0})).await;
        assert_eq!(output(&tested)["passed"], true);
        output(&promote(&host, &proposed).await);
        // The next version must pass it as well.
        says(&host, an_id(), "two").await;
        let proposed = propose(&host, TENANT, an_id()).await;
        approve(&host, &proposed, [21, 22]).await;
        assert_eq!(failure(&promote(&host, &proposed).await).0, "gate_not_passed");
    });
}

#[test]
fn a_version_that_the_sandbox_refuses_does_not_pass_the_gate_check() {
    block_on(async {
        let ledger = setup::ledger_with(&manifest(rules().gate(Class::Function, Gate::Check)), &behaviours()).await;
        let careless = Host::builder().ledger(ledger.clone()).trust(setup::trust()).key(key(HOST)).install(behaviours());
        let careless = careless.sandbox(WasmSandbox::new().unwrap()).publish_unchecked().build().await.unwrap();
        careless.publish(function("no module").id(an_id()), &key(PUBLISHER)).await.unwrap();
        let tested = test(&careless, an_id(), json!({"gate": "check", "seq": 0})).await;
        assert_eq!(output(&tested)["passed"], false);
        let proposed = propose(&careless, TENANT, an_id()).await;
        approve(&careless, &proposed, [21, 22]).await;
        assert_eq!(failure(&promote(&careless, &proposed).await).0, "gate_not_passed");
    });
}

#[test]
fn the_gate_smoke_is_passed_by_an_execution_of_that_version_in_staging() {
    block_on(async {
        let mut governance = rules().gate(Class::Function, Gate::Smoke);
        governance.environments = [Environment::Production].into();
        let (ledger, production) = site(&manifest(governance)).await;
        let staging = host(&ledger, Environment::Staging).await;
        let promises = |says: &str, smoke: Value| {
            let draft = function(&answer(&json!(says).to_string())).id(an_id()).meta("smoke", smoke);
            let production = &production;
            async move { production.publish_if_changed(draft, &key(PUBLISHER)).await.unwrap().seq }
        };
        let passes = |seq: u32, evidence: Uuid, expect: Option<&str>| {
            let mut input = json!({"gate": "smoke", "seq": seq, "evidence": evidence});
            input.as_object_mut().unwrap().extend(expect.map(|expect| ("expect".to_owned(), json!(expect))));
            let production = &production;
            async move { output(&test(production, an_id(), input).await).clone() }
        };
        let seq = promises("one", json!({"expect": "one"})).await;
        let ran = execute(&staging, an_id(), Value::Null).await.span.id;
        let proposed = propose(&production, TENANT, an_id()).await;
        approve(&production, &proposed, [21, 22]).await;
        assert_eq!(failure(&promote(&production, &proposed).await).0, "gate_not_passed");
        // Whoever asks cannot say what is expected, not even what is right.
        for expect in ["another", "one"] {
            let said = passes(seq, ran, Some(expect)).await;
            assert!(said["passed"] == false && said["reason"].as_str().unwrap().contains("anybody"), "{said}");
        }
        assert_eq!(failure(&promote(&production, &proposed).await).0, "gate_not_passed");
        assert_eq!(passes(seq, ran, None).await["passed"], true);
        output(&promote(&production, &proposed).await);
        // A run of an old version, an output or an input that the version does not promise, and a version that promises nothing.
        let seq = promises("two", json!({"expect": "three"})).await;
        assert_eq!(passes(seq, ran, None).await["passed"], false);
        let ran = execute(&staging, an_id(), Value::Null).await.span.id;
        assert!(passes(seq, ran, None).await["reason"].as_str().unwrap().contains("another output"));
        let seq = promises("two", json!({"expect": "two", "input": {"a": 1}})).await;
        let ran = execute(&staging, an_id(), Value::Null).await.span.id;
        assert!(passes(seq, ran, None).await["reason"].as_str().unwrap().contains("another input"));
        says(&production, an_id(), "two").await;
        let ran = execute(&staging, an_id(), Value::Null).await.span.id;
        assert!(passes(seq + 1, ran, None).await["reason"].as_str().unwrap().contains("says nothing of a smoke test"));
    });
}

#[test]
fn a_policy_cannot_write_the_result_of_a_gate() {
    assert!(!logline_core::roles::is_emitted_by_policies("test_result"));
}

#[test]
fn a_schedule_follows_the_promoted_version() {
    block_on(async {
        let manifest = manifest(rules()).allow("observer_bot", ids::OBSERVER);
        let (ledger, host) = site(&manifest).await;
        let scheduled = |offset_ms: u64| {
            let draft = function(&answer("1")).id(an_id()).status("scheduled");
            draft.metadata(json!({"schedule": {"every_ms": 1_000, "offset_ms": offset_ms, "catch_up": "all"}}))
        };
        let observing = || -> Loops { Scheduler::new(SchedulerOptions::default().poll(Duration::from_millis(5))).into() };
        host.publish(scheduled(0), &key(PUBLISHER)).await.unwrap();
        // Nothing is promoted: no slot is submitted, and the tenant is told why.
        let violated = |row: &logline_core::SignedSpan| row.entity_type == "policy_violation";
        setup::run_until(&host, observing(), setup::until(&ledger, 1, violated)).await;
        assert_eq!(spans(&ledger, "policy_violation").await[0].this, "schedule.not_promoted");
        assert!(spans(&ledger, "request").await.is_empty());
        put_in_force(&host, TENANT, an_id()).await;
        // A version that nobody has approved would run half a second later.
        host.publish_if_changed(scheduled(500), &key(PUBLISHER)).await.unwrap();
        let of_slot = |row: &logline_core::SignedSpan| row.entity_type == "request" && row.meta("slot").is_some();
        setup::run_until(&host, observing(), setup::until(&ledger, 2, of_slot)).await;
        let slots: Vec<_> = spans(&ledger, "request")
            .await
            .iter()
            .filter(|row| of_slot(row))
            .map(|row| row.meta("slot").unwrap().to_string())
            .collect();
        assert!(slots.iter().all(|slot| slot.contains(".000000Z")), "{slots:?}");
    });
}

#[test]
fn stage_0_boots_the_promoted_version_of_a_kernel_where_system_is_governed() {
    block_on(async {
        // The order of a first setup: the kernels are promoted before the manifest demands it.
        let mut governance = rules();
        governance.tenants = vec![SYSTEM_TENANT.to_owned(), "*".to_owned()];
        governance.promotion = logline_core::trust::governance::Promotion::Optional;
        let first = governed(setup::manifest(), governance.clone(), &[TENANT, SYSTEM_TENANT]);
        let (ledger, host) = site(&first).await;
        for kernel in [GOVERNANCE, ids::RUN_CODE] {
            let wish = Wish::promote(Environment::Production);
            let proposed = propose_as(&host, SYSTEM_TENANT, kernel, &wish, SYSTEM_PUBLISHER).await;
            approve(&host, &proposed, [21, 22]).await;
            output(&promote(&host, &proposed).await);
        }
        let mut second = governed(setup::manifest(), governance, &[TENANT, SYSTEM_TENANT]);
        second.version = 2;
        second.governance.as_mut().unwrap().promotion = logline_core::trust::governance::Promotion::Required;
        setup::trust().publish(&ledger, &second, &key(setup::ROOT), &SystemClock).await.unwrap();
        host.refresh().await.unwrap();
        let booted = host.boot(ids::RUN_CODE).await.unwrap();
        // The publisher of the kernels signs another version. It boots nowhere.
        let next = Draft::next_version(&booted.span).meta("note", "changed");
        setup::smuggle(&ledger, next, SYSTEM_PUBLISHER).await;
        host.refresh().await.unwrap();
        assert_eq!(host.boot(ids::RUN_CODE).await.unwrap().span, booted.span);
        // What was never promoted does not boot at all, and the refusal is recorded.
        let staging = self::host(&ledger, Environment::Staging).await;
        let Err(HostError::Boot(error)) = staging.boot(ids::RUN_CODE).await else { panic!("it boots") };
        assert!(matches!(error, BootError::NotInForce { .. }), "{error}");
        let events = spans(&ledger, "boot_event").await;
        assert!(events.iter().any(|event| event.error.as_ref().is_some_and(|error| error["code"] == "not_promoted")));
    });
}

#[test]
fn members_ask_for_promotions_and_only_a_quorum_makes_them() {
    block_on(async {
        let (ledger, host) = site(&manifest(rules())).await;
        // No proposal, or something else in its place.
        let ask = |id: Uuid| Request::new(TENANT, USER, id, Value::Null).this(PROMOTE);
        let nothing = host.execute(ask(ids::derive("nothing", &[]))).await.unwrap();
        assert_eq!(failure(&nothing).0, "proposal_not_found");
        says(&host, an_id(), "one").await;
        let other = host.execute(ask(an_id())).await.unwrap();
        assert_eq!(failure(&other).0, "proposal_invalid");
        assert!(spans(&ledger, "promotion").await.is_empty());
    });
}
