//! Calls to the outside: how often a service was called, and what the ledger says of it, whatever dies when.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod open_calls;
#[path = "../setup/mod.rs"]
mod setup;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use logline_core::contract::{
    AskedBy, Call, Context, Effects, Kernel, KernelError, Meters, OutsideError, Remote, RemoteCall, Reply, RequestKind,
    Reservation, Sandbox,
};
use logline_core::ledger::{Due, LedgerExt as _, WorkQueue as _};
use logline_core::request::{CallKind, OnUnknown, Request};
use logline_core::{
    Draft, Execution, Failure, Host, HostError, KernelSet, ManualClock, MemoryLedger, SYSTEM_TENANT, Scope, SignedSpan, Signer,
    SystemClock, VerifiedSpan, Visibility,
};
use serde_json::{Value, json};
use setup::{HOST, Mortal, ROOT, SYSTEM_PUBLISHER, TENANT, USER, block_on, key, trust};
use tokio::sync::Notify;
use uuid::{Uuid, uuid};

const COUNTER: Uuid = uuid!("00000000-0000-4000-8000-00000000c0de");

/// The number of a call at which something happens once.
#[derive(Default)]
struct Once(Mutex<Option<usize>>);

impl Once {
    fn at(n: Option<usize>) -> Self {
        Self(Mutex::new(n))
    }

    fn is_now(&self, n: usize) -> bool {
        self.0.lock().unwrap().take_if(|at| *at == n).is_some()
    }
}

/// A service that counts how often it was called, and by which idempotency key.
#[derive(Default)]
struct Service {
    calls: Mutex<Vec<String>>,
    /// The call before which, and after which, whoever called dies.
    dies_before: Once,
    dies_after: Once,
    died: Notify,
    /// Answers so.
    answer: Option<Result<Value, Failure>>,
    /// What it says that a call used.
    used: Option<u64>,
}

#[async_trait]
impl Remote for Service {
    fn name(&self) -> &str {
        "counter"
    }

    async fn call(&self, call: &RemoteCall<'_>) -> Reply {
        let n = self.calls.lock().unwrap().len();
        if self.dies_before.is_now(n) {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
        self.calls.lock().unwrap().push(call.idempotency_key.to_owned());
        if self.dies_after.is_now(n) {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
        let reply = Reply::from(self.answer.clone().unwrap_or_else(|| Ok(json!({"n": n, "of": call.body}))));
        match self.used {
            Some(units) => reply.used([("tokens".to_owned(), units)].into()),
            None => reply,
        }
    }
}

/// What an attempt does.
#[derive(Clone)]
enum Does {
    /// Calls with these keys, one after the other.
    Calls(Vec<&'static str>),
    /// Calls with these keys, of which each reserves 600 of the 1,000 tokens of a day.
    Spends(Vec<&'static str>),
    /// A call with this key, which asks something else.
    Anew(&'static str),
    /// Begins a call, and drops it.
    Drops,
    /// Waits to be told to call.
    Waits(Arc<Notify>, Arc<Notify>),
}

struct Counter {
    service: Arc<Service>,
    does: Does,
}

#[async_trait]
impl Kernel for Counter {
    fn id(&self) -> Uuid {
        COUNTER
    }

    fn name(&self) -> &'static str {
        "counter"
    }

    fn version(&self) -> u32 {
        1
    }

    fn requests(&self) -> &'static [RequestKind] {
        &[RequestKind { this: "counter.add", asked_by: AskedBy::Anybody, meters: Meters::NONE }]
    }

    fn lacks(&self, _: Option<&SignedSpan>, _: &[Arc<dyn Sandbox>]) -> Option<String> {
        None
    }

    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        let body = match self.does {
            Does::Anew(_) => json!("something else"),
            _ => request.input.clone().unwrap_or_default(),
        };
        let tokens = || Reservation { quota: "tokens".to_owned(), units: 600, per_day: 1000 };
        let reserve = if matches!(self.does, Does::Spends(_)) { vec![tokens()] } else { vec![] };
        let call = |key: &str| Call::new(key, "add", body.clone()).reserve(reserve.clone());
        let keys = match &self.does {
            Does::Calls(keys) | Does::Spends(keys) => keys.clone(),
            Does::Anew(key) => vec![*key],
            Does::Drops => {
                let call = call("dropped");
                let dropped = context.outside.call(self.service.as_ref(), &call);
                tokio::select! {
                    biased;
                    _ = dropped => panic!("it never answers"),
                    () = self.service.died.notified() => return Ok(Effects::new(Ok(json!("without it")))),
                }
            }
            Does::Waits(is_here, go_on) => {
                is_here.notify_one();
                go_on.notified().await;
                vec!["late"]
            }
        };
        let mut answers = Vec::new();
        for key in keys {
            match context.outside.call(self.service.as_ref(), &call(key)).await {
                Ok(answer) => answers.push(json!({"value": answer.value, "was_recorded": answer.was_recorded})),
                Err(error) => return Ok(Effects::new(Err(error.into_failure()?))),
            }
        }
        Ok(Effects::new(Ok(json!(answers))))
    }
}

/// A ledger whose clock is turned by hand.
struct Site {
    ledger: MemoryLedger,
    clock: Arc<ManualClock>,
}

impl Site {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new("2026-05-01T12:00:00Z".parse().unwrap()));
        let ledger = MemoryLedger::with_clock(clock.clone());
        let manifest = setup::manifest().allow_all(&counting(&Arc::default(), Does::Drops));
        trust().publish(&ledger, &manifest, &key(ROOT), &SystemClock).await.unwrap();
        let seed = Draft::new("function")
            .id(COUNTER)
            .tenant(SYSTEM_TENANT)
            .owner(SYSTEM_TENANT)
            .visibility(Visibility::Public)
            .who("logline")
            .this("function.counter")
            .runtime("native@1")
            .code("counter@1")
            .metadata(json!({"requests": ["counter.add"]}));
        let set = KernelSet::new().seeds([seed]);
        logline_kernels::install(&ledger, &set, &key(SYSTEM_PUBLISHER), &SystemClock).await.unwrap();
        Self { ledger, clock }
    }

    async fn host(&self, service: &Arc<Service>, does: Does, signer: impl Signer + 'static) -> Host {
        let builder = Host::builder().ledger(self.ledger.clone()).trust(trust()).key(signer).clock(self.clock.clone());
        builder.install(counting(service, does)).lease(Duration::from_secs(30)).build().await.unwrap()
    }

    async fn living(&self, service: &Arc<Service>, does: Does) -> Host {
        self.host(service, does, key(HOST)).await
    }

    /// Whoever held a request is taken for lost.
    fn pass_the_lease(&self) {
        self.clock.advance(Duration::from_secs(3600));
    }

    async fn spans(&self, entity_type: &str) -> Vec<SignedSpan> {
        setup::spans(&self.ledger, entity_type).await
    }

    /// What must be true of the ledger whatever happened: no call without an intent, each intent with exactly one outcome.
    async fn check(&self, service: &Service) -> (usize, Vec<String>) {
        let (intents, outcomes) = (self.spans("outside_request").await, self.spans("outside_outcome").await);
        let calls = service.calls.lock().unwrap().len();
        assert!(calls <= intents.len(), "{calls} calls, {} intents", intents.len());
        let mut of: Vec<_> = outcomes.iter().map(|outcome| outcome.parent_id.unwrap()).collect();
        let mut ids: Vec<_> = intents.iter().map(|intent| intent.id).collect();
        of.sort();
        ids.sort();
        assert_eq!(of, ids, "each intent has one outcome");
        (calls, outcomes.iter().map(|outcome| outcome.status.clone().unwrap()).collect())
    }
}

fn counting(service: &Arc<Service>, does: Does) -> KernelSet {
    KernelSet::new().kernel(Counter { service: Arc::clone(service), does })
}

fn request() -> Request {
    Request::new(TENANT, USER, COUNTER, json!({"by": 2})).this("counter.add").idempotency_key("one")
}

fn code(execution: &Execution) -> &str {
    &execution.result.as_ref().expect_err("it must fail").code
}

/// An attempt whose host dies at the `step`th signature or at a call; then another host makes the next attempt.
async fn attempt_twice(step: usize, service: Service, on_unknown: OnUnknown) -> (Site, Arc<Service>, Execution, bool) {
    let (site, service) = (Site::new().await, Arc::new(service));
    let died = Arc::new(Notify::new());
    let mortal = Mortal { key: key(HOST), left: AtomicUsize::new(step), died: Arc::clone(&died) };
    let first = site.host(&service, Does::Calls(vec!["a", "b"]), mortal).await;
    let submitted = site.living(&service, Does::Drops).await.submit(request().on_unknown(on_unknown)).await.unwrap();
    let has_died = tokio::select! {
        biased;
        _ = first.run_request(TENANT, submitted.id) => false,
        () = died.notified() => true,
        () = service.died.notified() => true,
    };
    site.pass_the_lease();
    let second = site.living(&service, Does::Calls(vec!["a", "b"])).await;
    let execution = match second.run_request(TENANT, submitted.id).await {
        Ok(execution) => execution,
        Err(HostError::NotRunnable(_)) => second.execute(request().on_unknown(on_unknown)).await.unwrap(),
        Err(error) => panic!("{error}"),
    };
    (site, service, execution, has_died)
}

/// A site with a request whose first attempt has called once, and whose host has died before it recorded the answer.
async fn after_a_lost_call() -> (Site, Arc<Service>, VerifiedSpan) {
    let (site, service) = (Site::new().await, Arc::new(Service { dies_after: Once::at(Some(0)), ..Service::default() }));
    let host = site.living(&service, Does::Calls(vec!["a"])).await;
    let submitted = host.submit(request()).await.unwrap();
    tokio::select! {
        biased;
        _ = host.run_request(TENANT, submitted.id) => panic!("it never answers"),
        () = service.died.notified() => {}
    }
    (site, service, submitted)
}

#[test]
fn a_host_that_dies_at_any_step_makes_no_call_twice_and_forgets_none() {
    block_on(async {
        let mut deaths = 0;
        for step in 0.. {
            let (site, service, execution, has_died) = attempt_twice(step, Service::default(), OnUnknown::Fail).await;
            let (calls, outcomes) = site.check(&service).await;
            let keys: std::collections::BTreeSet<_> = service.calls.lock().unwrap().iter().cloned().collect();
            assert_eq!(keys.len(), calls, "step {step}: no call was made twice");
            let is_unknown = outcomes.iter().any(|status| status == "unknown");
            assert_eq!(execution.result.is_err(), is_unknown, "step {step}: {:?} {outcomes:?}", execution.result);
            if is_unknown {
                assert_eq!(code(&execution), "outcome_unknown", "step {step}");
                assert_eq!(execution.request.status.as_deref(), Some("error"), "it is not tried again");
            } else {
                assert_eq!(calls, 2, "step {step}");
            }
            deaths += usize::from(has_died);
            if !has_died {
                break;
            }
        }
        assert!(deaths >= 7, "claim, boot, two intents, two outcomes, the end: {deaths}");
    });
}

#[test]
fn a_request_that_asks_for_it_repeats_a_call_of_unknown_outcome_under_the_same_idempotency_key() {
    block_on(async {
        for (dies_before, dies_after, expected) in
            [(Some(0), None, 2), (None, Some(0), 3), (Some(1), None, 2), (None, Some(1), 3)]
        {
            let (dies_before, dies_after) = (Once::at(dies_before), Once::at(dies_after));
            let service = Service { dies_before, dies_after, ..Service::default() };
            let (site, service, execution, has_died) = attempt_twice(usize::MAX, service, OnUnknown::Retry).await;
            assert!(has_died);
            let (calls, outcomes) = site.check(&service).await;
            assert_eq!(outcomes.iter().filter(|status| *status == "unknown").count(), 1);
            assert_eq!(calls, expected, "the call that may have been carried out is made again, the other is not");
            let keys: std::collections::BTreeSet<_> = service.calls.lock().unwrap().iter().cloned().collect();
            assert_eq!(keys.len(), 2, "each call has one key");
            assert!(execution.result.is_ok(), "{:?}", execution.result);
        }
    });
}

#[test]
fn an_attempt_after_a_failed_one_reads_the_recorded_answer() {
    block_on(async {
        let (site, service) = (Site::new().await, Arc::new(Service::default()));
        // The second call of the first attempt is refused, which may pass.
        let refusing = Arc::new(Service { answer: Some(Err(Failure::new("throttled", "slow down"))), ..Service::default() });
        let host = site.living(&service, Does::Calls(vec!["a"])).await;
        let asked = request().max_attempts(3);
        let submitted = host.submit(asked.clone()).await.unwrap();
        let failing = site.living(&refusing, Does::Calls(vec!["a"])).await;
        let first = failing.run_request(TENANT, submitted.id).await.unwrap();
        assert_eq!(code(&first), "throttled");
        assert_eq!(first.request.status.as_deref(), Some("scheduled"), "it is tried again");
        site.pass_the_lease();
        let second = host.run_request(TENANT, submitted.id).await.unwrap();
        assert_eq!(second.result.unwrap()[0]["was_recorded"], json!(false), "a failed call is made again");
        assert_eq!((service.calls.lock().unwrap().len(), refusing.calls.lock().unwrap().len()), (1, 1));
        let statuses: Vec<_> = site.spans("outside_outcome").await.into_iter().map(|span| span.span.status.unwrap()).collect();
        assert_eq!(statuses, ["error", "complete"]);
    });
}

/// Somebody who can bring rows into the store, and is no host, answers the call of an attempt that died.
#[test]
fn an_outcome_that_no_host_has_signed_answers_nothing_and_is_not_paid_for_twice() {
    block_on(async {
        let (site, service, _) = after_a_lost_call().await;
        let intent = site.spans("outside_request").await.remove(0);
        let forged = Draft::new("outside_outcome")
            .id(CallKind::Outside.outcome_id(TENANT, intent.id))
            .tenant(TENANT)
            .owner("mallory")
            .who("mallory")
            .this("outside.call")
            .status("complete")
            .parent(intent.id)
            .output(json!("FORGED"));
        let forged = forged.stamp(&SystemClock, &logline_core::SystemIds).seal_local(&key(66)).unwrap();
        site.ledger.append_one(&Scope::Operator, forged).await.unwrap();
        site.pass_the_lease();
        let execution = site.living(&service, Does::Calls(vec!["a"])).await.execute(request()).await.unwrap();
        assert_eq!((code(&execution), service.calls.lock().unwrap().len()), ("outcome_unknown", 1));
    });
}

/// A function or a prompt was published anew between two attempts, so that the second one asks something else under the same key.
#[test]
fn a_call_that_was_left_unknown_is_told_also_if_the_next_attempt_asks_something_else() {
    block_on(async {
        let (site, service, _) = after_a_lost_call().await;
        site.pass_the_lease();
        let execution = site.living(&service, Does::Anew("a")).await.execute(request()).await.unwrap();
        assert_eq!((code(&execution), service.calls.lock().unwrap().len()), ("outcome_unknown", 1));
    });
}

#[test]
fn an_attempt_that_has_lost_its_claim_makes_no_call() {
    block_on(async {
        let (site, service) = (Site::new().await, Arc::new(Service::default()));
        let (is_here, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = site.living(&service, Does::Waits(Arc::clone(&is_here), Arc::clone(&go_on))).await;
        let id = slow.submit(request()).await.unwrap().id;
        let run = tokio::spawn(async move { slow.run_request(TENANT, id).await });
        is_here.notified().await;
        site.pass_the_lease();
        let quick = site.living(&service, Does::Calls(vec!["late"])).await;
        assert!(quick.run_request(TENANT, id).await.unwrap().result.is_ok());
        go_on.notify_one();
        let error = run.await.unwrap().unwrap_err();
        assert!(matches!(error, HostError::Kernel(KernelError::LostClaim)), "{error}");
        assert_eq!(site.check(&service).await, (1, vec!["complete".to_owned()]), "and records nothing");
    });
}

#[test]
fn a_call_that_is_dropped_a_cancelled_one_and_one_that_is_handed_back_end_as_unknown() {
    block_on(async {
        // Dropped by its kernel: closed together with the attempt.
        let (site, service) = (Site::new().await, Arc::new(Service { dies_after: Once::at(Some(0)), ..Service::default() }));
        let host = site.living(&service, Does::Drops).await;
        let execution = host.execute(request()).await.unwrap();
        assert_eq!(execution.result, Ok(json!("without it")));
        assert_eq!(site.check(&service).await, (1, vec!["unknown".to_owned()]));

        for cancels in [true, false] {
            let (site, service) =
                (Site::new().await, Arc::new(Service { dies_after: Once::at(Some(0)), ..Service::default() }));
            let host = site.living(&service, Does::Calls(vec!["a"])).await;
            let submitted = host.submit(request()).await.unwrap();
            let now = site.ledger.now().await.unwrap();
            let due = Due { request: submitted.clone().into_signed(), function: None };
            let claim = host.claim(due, now, Duration::from_secs(60)).await.unwrap();
            let running = Arc::clone(claim.running());
            tokio::select! {
                biased;
                _ = host.finish(claim) => panic!("it never answers"),
                () = service.died.notified() => {}
            }
            if cancels {
                host.cancel(TENANT, submitted.id, "user:alice").await.unwrap();
            } else {
                host.hand_back(&running).await.unwrap();
            }
            assert_eq!(site.check(&service).await, (1, vec!["unknown".to_owned()]), "cancelled: {cancels}");
        }
    });
}

#[test]
fn a_lost_attempt_of_a_kind_that_the_manifest_no_longer_allows_has_its_record_and_its_call_an_outcome() {
    block_on(async {
        let (site, service, submitted) = after_a_lost_call().await;
        let mut without = setup::manifest();
        without.version = 2;
        trust().publish(&site.ledger, &without, &key(ROOT), &SystemClock).await.unwrap();
        site.pass_the_lease();
        let other = Host::builder().ledger(site.ledger.clone()).trust(trust()).key(key(HOST)).clock(site.clock.clone());
        let other = other.install(logline_kernels::all()).build().await.unwrap();
        assert!(other.run_request(TENANT, submitted.id).await.is_err());
        assert_eq!(site.check(&service).await, (1, vec!["unknown".to_owned()]));
        let executions = site.spans("execution").await;
        assert_eq!(executions.len(), 1, "every attempt has its record");
        assert_eq!(executions[0].error.as_ref().unwrap()["code"], "lost");
        let closed = site.ledger.find(&Scope::runtime(TENANT), TENANT, submitted.id).await.unwrap().unwrap();
        assert_eq!(closed.error.as_ref().unwrap()["code"], "request_unknown");
    });
}

#[test]
fn calls_that_cannot_be_told_apart_or_recorded_are_refused_before_they_are_made() {
    block_on(async {
        for keys in [vec![""], vec!["a\nb"], vec!["a", "a"]] {
            let (site, service) = (Site::new().await, Arc::new(Service::default()));
            let host = site.living(&service, Does::Calls(keys.clone())).await;
            let execution = host.execute(request()).await.unwrap();
            assert_eq!(code(&execution), "invalid_call", "{keys:?}");
            assert_eq!(site.check(&service).await.0, keys.len() - 1, "{keys:?}");
        }
        // An answer that no span can hold is a failure: it could not be read again.
        let large = Service { answer: Some(Ok(json!("x".repeat(2 << 20)))), ..Service::default() };
        let (site, service) = (Site::new().await, Arc::new(large));
        let host = site.living(&service, Does::Calls(vec!["a"])).await;
        let execution = host.execute(request().max_attempts(5)).await.unwrap();
        assert_eq!(code(&execution), "answer_limit");
        assert_eq!(execution.request.status.as_deref(), Some("error"), "another attempt would pay again for the same");
        assert_eq!(site.check(&service).await, (1, vec!["error".to_owned()]));
    });
}

#[test]
fn a_service_that_does_not_know_ends_the_request_unless_it_asks_to_repeat() {
    block_on(async {
        let unknown = || Service { answer: Some(Err(Failure::new(OutsideError::UNKNOWN, "timed out"))), ..Service::default() };
        for (on_unknown, expected, status) in
            [(OnUnknown::Fail, "outcome_unknown", "error"), (OnUnknown::Retry, "call_unanswered", "scheduled")]
        {
            let (site, service) = (Site::new().await, Arc::new(unknown()));
            let host = site.living(&service, Does::Calls(vec!["a"])).await;
            let execution = host.execute(request().max_attempts(3).on_unknown(on_unknown)).await.unwrap();
            assert_eq!((code(&execution), execution.request.status.as_deref()), (expected, Some(status)));
            assert_eq!(site.check(&service).await, (1, vec!["unknown".to_owned()]));
        }
    });
}

/// The budget of a tenant is charged before a call, whoever makes it, and settled after it.
#[test]
fn no_call_is_made_for_which_the_budget_does_not_suffice() {
    block_on(async {
        let keys = ["a", "b", "c"];
        // (what the service says that a call used, calls of three that are made, units used in the end)
        for (used, calls, left) in
            [(Some(10), 3, 30), (Some(600), 1, 600), (None, 1, 600), (Some(900), 1, 900), (Some(200), 3, 600)]
        {
            let (site, service) = (Site::new().await, Arc::new(Service { used, ..Service::default() }));
            let host = site.living(&service, Does::Spends(keys.to_vec())).await;
            let execution = host.execute(request()).await.unwrap();
            assert_eq!(site.ledger.used(TENANT, "tokens").await.unwrap(), left, "{used:?}");
            assert_eq!(site.check(&service).await.0, calls, "{used:?}");
            let denied = setup::spans(&site.ledger, "policy_violation").await;
            if calls == 3 {
                assert!(execution.result.is_ok() && denied.is_empty(), "{used:?}");
                continue;
            }
            assert_eq!(code(&execution), "budget");
            let message = execution.result.unwrap_err().message;
            assert!(message.contains("600 of quota `tokens`") && message.contains("1000 of 2026-05-01"), "{message}");
            assert_eq!(denied[0].this, "quota.tokens");
            // Another request of the day is refused too, and the tenant is told once.
            let again = host.execute(request().idempotency_key("two")).await.unwrap();
            assert_eq!(code(&again), "budget");
            assert_eq!(setup::spans(&site.ledger, "policy_violation").await.len(), 1);
            site.clock.advance(Duration::from_secs(24 * 3600));
            host.execute(request().idempotency_key("three")).await.unwrap();
            assert_eq!(site.check(&service).await.0, calls + 1, "the next day has a budget of its own");
            site.ledger.rebuild().await.unwrap();
        }
        // A failed call gives back what it did not use; a call that nobody knows of, nothing.
        for (code, left) in [("refused", 0), (OutsideError::UNKNOWN, 600)] {
            let service = Service { answer: Some(Err(Failure::new(code, "no"))), used: Some(0), ..Service::default() };
            let (site, service) = (Site::new().await, Arc::new(service));
            site.living(&service, Does::Spends(vec!["a"])).await.execute(request()).await.unwrap();
            assert_eq!(site.ledger.used(TENANT, "tokens").await.unwrap(), left, "{code}");
        }
    });
}

/// Whenever the host dies, the budget has what is reserved or what was used, and never less.
#[test]
fn a_host_that_dies_gives_no_budget_back_that_may_be_spent() {
    block_on(async {
        for step in 0..4 {
            let (site, service) = (Site::new().await, Arc::new(Service { used: Some(100), ..Service::default() }));
            let died = Arc::new(Notify::new());
            // The signatures of boot and submission and claim come first.
            let mortal = Mortal { key: key(HOST), left: AtomicUsize::new(3 + step), died: Arc::clone(&died) };
            let dying = site.host(&service, Does::Spends(vec!["a"]), mortal).await;
            tokio::select! {
                _ = dying.execute(request()) => {}
                () = died.notified() => {}
            }
            let (intents, called) = (site.spans("outside_request").await.len(), service.calls.lock().unwrap().len());
            let settled = site.spans("outside_outcome").await.len();
            let expected = if settled == 1 { 100 } else { 600 * intents as u64 };
            assert_eq!(
                site.ledger.used(TENANT, "tokens").await.unwrap(),
                expected,
                "step {step}: {intents} intents, {called} calls"
            );
            assert!(called <= intents, "step {step}");
        }
    });
}

#[test]
fn intents_and_outcomes_are_the_hosts_to_write() {
    block_on(async {
        let site = Site::new().await;
        for entity_type in ["outside_request", "outside_outcome"] {
            let forged = Draft::new(entity_type).tenant(TENANT).owner(USER).who("user:alice").this("outside.call");
            let forged = forged.stamp(&SystemClock, &logline_core::SystemIds).seal_local(&key(setup::STRANGER)).unwrap();
            assert!(site.ledger.append_one(&Scope::user(TENANT, USER), forged).await.is_err(), "{entity_type}");
        }
    });
}

#[test]
fn calls_that_no_attempt_closes_are_closed_once_in_memory_and_in_a_file() {
    block_on(async {
        open_calls::of_many_reapers_one_closes_a_call(&MemoryLedger::new()).await;
        open_calls::a_late_answer_and_a_reaper_write_one_outcome(&MemoryLedger::new()).await;
        open_calls::calls_of_attempts_that_are_over_are_closed(&MemoryLedger::new()).await;
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| logline_sqlite::SqliteLedger::open(folder.path().join(name)).unwrap();
        open_calls::of_many_reapers_one_closes_a_call(&open("one.ledger")).await;
        open_calls::a_late_answer_and_a_reaper_write_one_outcome(&open("two.ledger")).await;
        open_calls::calls_of_attempts_that_are_over_are_closed(&open("three.ledger")).await;
    });
}

/// A worker closes what others have left, without being asked.
#[test]
fn a_worker_closes_the_calls_that_are_left() {
    block_on(async {
        let ledger = setup::ledger(&setup::manifest().allow_all(&logline_kernels::all())).await;
        let host = setup::host_of(&ledger).await;
        let done = setup::run(&host, &setup::echo(), json!(1)).await;
        let left = Draft::new("outside_request").tenant(TENANT).owner(USER).who("host").this("outside.call");
        let left = left.parent(done.request.id).status("open").meta("call_key", "b").meta("attempt", 1).meta("ordinal", 1);
        let left = left.meta("call_hash", logline_core::Hash::of(b"b").to_string());
        let left = setup::smuggle(&ledger, left, HOST).await;
        let worker =
            logline_kernels::Worker::new(logline_kernels::WorkerOptions::default().open_calls(Duration::from_millis(5)));
        let is_closed = |span: &SignedSpan| span.entity_type == "outside_outcome" && span.parent_id == Some(left.id);
        // A host of all tenants knows those whose requests it had.
        host.submit(Request::new(TENANT, USER, done.request.parent_id.unwrap(), json!(2))).await.unwrap();
        setup::run_until(&host, worker, setup::until(&ledger, 1, is_closed)).await;
    });
}
