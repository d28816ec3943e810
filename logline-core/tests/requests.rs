//! The life of a request, step by step: claims, failures, retries, deadlines, cancellation and revival, each at the minute.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use logline_core::contract::{AskedBy, Context, Effects, Kernel, KernelError, Meters, RequestKind, Sandbox};
use logline_core::ledger::{Due, Ledger as _, LedgerExt as _, Query, WorkQueue as _};
use logline_core::request::{
    DEFAULT_BACKOFF, DEFAULT_LEASE, DEFAULT_LOST_ATTEMPTS, Details, MAX_BACKOFF, MAX_LEASE, MAX_UNITS, NotRunnable, Phase,
    Recorded, Request, State, reference,
};
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{
    Claim, Draft, Failure, Host, HostError, IdSource as _, KernelSet, KeyPair, MAX_INTEGER, ManualClock, MemoryLedger, Rules,
    SYSTEM_TENANT, Scope, SignedSpan, Signer as _, SystemIds, Timestamp, VerifiedSpan, Visibility, ids,
};
use serde_json::{Value, json};
use uuid::{Uuid, uuid};

const TENANT: &str = "acme";
const USER: &str = "alice";
const FAILS: Uuid = uuid!("00000000-0000-4000-8000-0000000fa115");
const LEASE: Duration = Duration::from_secs(30);

/// Fails with the code that the input names, or returns the input.
struct Fails;

#[async_trait]
impl Kernel for Fails {
    fn id(&self) -> Uuid {
        FAILS
    }

    fn name(&self) -> &'static str {
        "fails"
    }

    fn version(&self) -> u32 {
        1
    }

    fn requests(&self) -> &'static [RequestKind] {
        &[RequestKind { this: "fails", asked_by: AskedBy::Anybody, meters: Meters::NONE }]
    }

    fn lacks(&self, _: Option<&SignedSpan>, _: &[Arc<dyn Sandbox>]) -> Option<String> {
        None
    }

    async fn run(&self, request: &VerifiedSpan, _: &Context<'_>) -> Result<Effects, KernelError> {
        let input = request.input.clone().unwrap_or_default();
        if input == json!("large") {
            // Neither fits into a row with the other, and the output fits into none.
            let large = || Value::from("x".repeat(900_000));
            let members = [("journal", large()), ("kept", json!(1))].map(|(name, value)| (name.to_owned(), value));
            let details = Details::new(None, members.into_iter().collect()).expendable(&["journal"]);
            return Ok(Effects::new(Ok(large())).execution(details));
        }
        Ok(Effects::new(match input.as_str() {
            Some(code) => Err(Failure::new(code, "as it was asked to")),
            None => Ok(input),
        }))
    }
}

fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

/// Key 3 is the host's, key 4 a member's.
struct Site {
    ledger: MemoryLedger,
    clock: Arc<ManualClock>,
    host: Host,
}

impl Site {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new("2026-05-01T12:00:00Z".parse().unwrap()));
        let ledger = MemoryLedger::with_clock(clock.clone());
        let seed = Draft::new("function")
            .id(FAILS)
            .tenant(SYSTEM_TENANT)
            .owner(SYSTEM_TENANT)
            .visibility(Visibility::Public)
            .who("logline")
            .this("function.fails")
            .runtime("native@1")
            .code("fails@1")
            .metadata(json!({"requests": ["fails"]}));
        let (set, trust) = (KernelSet::new().kernel(Fails), trust());
        let manifest = Manifest::first(RootSet::new([key(1).public_key()], 1))
            .allow_all(&set)
            .grant(key(2).public_key(), Role::Publisher, [SYSTEM_TENANT])
            .grant(key(3).public_key(), Role::Runtime, [SYSTEM_TENANT, TENANT])
            .grant(key(4).public_key(), Role::Member, [TENANT]);
        trust.publish(&ledger, &manifest, &key(1), clock.as_ref()).await.unwrap();
        let seed = seed.stamp(clock.as_ref(), &SystemIds).seal_local(&key(2)).unwrap();
        ledger.append_one(&Scope::Operator, seed).await.unwrap();
        let host = host(&ledger, &clock).await;
        Self { ledger, clock, host }
    }

    /// Another process with the same key.
    async fn second_host(&self) -> Host {
        host(&self.ledger, &self.clock).await
    }

    async fn submit(&self, request: Request) -> VerifiedSpan {
        self.host.submit(request).await.unwrap()
    }

    async fn last(&self, id: Uuid) -> SignedSpan {
        self.ledger.get(&Scope::Operator, TENANT, id).await.unwrap()
    }

    async fn claim(&self, id: Uuid) -> Result<Claim, HostError> {
        let due = Due { request: self.last(id).await, function: None };
        self.host.claim(due, self.ledger.now().await.unwrap(), LEASE).await
    }

    /// Claims, runs, and returns the closing version.
    async fn attempt(&self, id: Uuid) -> SignedSpan {
        self.host.finish(self.claim(id).await.unwrap()).await.unwrap().request.into_signed()
    }

    async fn execution(&self, request: Uuid, attempt: u32) -> SignedSpan {
        self.ledger.get(&Scope::Operator, TENANT, ids::execution(TENANT, request, attempt)).await.unwrap()
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

fn trust() -> TrustRoot {
    TrustRoot::new([key(1).public_key()], 1)
}

async fn host(ledger: &MemoryLedger, clock: &Arc<ManualClock>) -> Host {
    let builder = Host::builder().ledger(ledger.clone()).trust(trust()).key(key(3)).install(KernelSet::new().kernel(Fails));
    builder.clock(Arc::clone(clock)).build().await.unwrap()
}

fn request(input: Value) -> Request {
    Request::new(TENANT, USER, FAILS, input).this("fails")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn phase(span: &SignedSpan) -> Phase {
    Phase::of(span).unwrap()
}

fn code(span: &SignedSpan) -> &str {
    span.error.as_ref().unwrap()["code"].as_str().unwrap()
}

/// When the next attempt is due after this version.
fn pause(closing: &SignedSpan) -> Duration {
    State::of(closing).unwrap().terms.due_at.unwrap().since(closing.at)
}

#[test]
fn a_success_completes_the_request_and_a_failure_without_retries_ends_it() {
    block_on(async {
        let site = Site::new().await;
        let id = site.submit(request(json!({"n": 1}))).await.id;
        let claim = site.claim(id).await.unwrap();
        let running = Arc::clone(claim.running());
        assert_eq!(running.who, format!("host:{}", key(3).public_key()));
        let done = site.host.finish(claim).await.unwrap();
        assert_eq!((phase(&done.request), done.retry_at()), (Phase::Complete, None));
        let claimed =
            json!({"tenant": TENANT, "id": id.to_string(), "seq": 1, "curr_hash": running.seal.curr_hash.to_string()});
        assert_eq!(
            (done.span.meta("request"), &reference(&running)),
            (Some(&claimed), &claimed),
            "the execution names the claim"
        );
        assert_eq!(done.request.meta("execution"), Some(&json!(done.span.id.to_string())));
        let id = site.submit(request(json!("broken"))).await.id;
        let closing = site.attempt(id).await;
        assert_eq!((phase(&closing), code(&closing)), (Phase::Error, "broken"));
        assert!(matches!(site.claim(id).await, Err(HostError::NotRunnable(NotRunnable::Ended { .. }))));
    });
}

#[test]
fn pauses_between_attempts_double_within_their_bounds_and_the_last_failure_is_the_end() {
    block_on(async {
        let site = Site::new().await;
        let first = Duration::from_millis(500);
        let id = site.submit(request(json!("broken")).max_attempts(5).backoff(first)).await.id;
        let mut pauses = Vec::new();
        for doublings in 0..4 {
            let closing = site.attempt(id).await;
            assert_eq!((phase(&closing), code(&closing)), (Phase::Scheduled, "broken"));
            let (longest, pause) = (first * (1 << doublings), pause(&closing));
            assert!(pause <= longest && pause >= longest / 2, "{pause:?} of {longest:?}");
            pauses.push(pause.as_secs_f64() / longest.as_secs_f64());
            site.pass(pause);
        }
        assert!(
            pauses.windows(2).any(|pair| (pair[0] - pair[1]).abs() > 0.01),
            "each has a random part of its own: {pauses:?}"
        );
        let closing = site.attempt(id).await;
        assert_eq!(phase(&closing), Phase::Dead);
        // By default the first pause is a second; none is longer than the longest.
        let id = site.submit(request(json!("broken")).max_attempts(2)).await.id;
        let closing = site.attempt(id).await;
        assert!(pause(&closing) <= DEFAULT_BACKOFF && pause(&closing) >= DEFAULT_BACKOFF / 2);
        let id = site.submit(request(json!("broken")).max_attempts(4).backoff(MAX_BACKOFF)).await.id;
        for _ in 0..3 {
            let closing = site.attempt(id).await;
            assert!(pause(&closing) <= MAX_BACKOFF && pause(&closing) >= MAX_BACKOFF / 2);
            site.pass(MAX_BACKOFF);
        }
        // What would fail again in the same way is not tried again.
        let id = site.submit(request(json!("invalid_call")).max_attempts(5)).await.id;
        assert_eq!(phase(&site.attempt(id).await), Phase::Error);
    });
}

#[test]
fn an_attempt_may_begin_at_the_deadline_and_not_after_it() {
    block_on(async {
        let site = Site::new().await;
        let deadline = site.ledger.now().await.unwrap().saturating_add(Duration::from_secs(60));
        let (at, after) = (
            site.submit(request(json!(1)).deadline(deadline)).await.id,
            site.submit(request(json!(2)).deadline(deadline)).await.id,
        );
        site.pass(Duration::from_secs(60));
        assert_eq!(phase(&site.attempt(at).await), Phase::Complete);
        site.pass(Duration::from_micros(1));
        assert!(matches!(site.claim(after).await, Err(HostError::NotRunnable(NotRunnable::Ended { .. }))));
        let closing = site.last(after).await;
        assert_eq!((phase(&closing), code(&closing)), (Phase::Dead, "deadline_exceeded"));
    });
}

#[test]
fn lost_attempts_are_recorded_and_are_made_again_a_few_times() {
    block_on(async {
        let site = Site::new().await;
        let id = site.submit(request(json!(1))).await.id;
        for attempt in 1..=DEFAULT_LOST_ATTEMPTS {
            assert_eq!(site.claim(id).await.unwrap().attempt().number, attempt);
            site.pass(LEASE);
        }
        assert!(matches!(site.claim(id).await, Err(HostError::NotRunnable(NotRunnable::Ended { .. }))));
        let closing = site.last(id).await;
        assert_eq!((phase(&closing), code(&closing)), (Phase::Dead, "attempts_exhausted"));
        for attempt in 1..=DEFAULT_LOST_ATTEMPTS {
            let lost = site.execution(id, attempt).await;
            assert_eq!((code(&lost), lost.status.as_deref()), ("lost", Some("error")));
            assert_eq!(lost.who, format!("host:{}", key(3).public_key()));
        }
    });
}

#[test]
fn an_attempt_that_was_given_back_is_recorded_and_does_not_count() {
    block_on(async {
        let site = Site::new().await;
        let id = site.submit(request(json!("broken")).max_attempts(1)).await.id;
        for attempt in 1..=3 {
            let claim = site.claim(id).await.unwrap();
            assert_eq!(claim.attempt().number, attempt);
            let given = site.host.hand_back(claim.running()).await.unwrap();
            assert_eq!((phase(&given), State::of(&given).unwrap().attempts_used()), (Phase::Scheduled, 0));
            assert_eq!(code(&site.execution(id, attempt).await), "handed_back");
        }
        assert_eq!(phase(&site.attempt(id).await), Phase::Dead, "the first that counts was the last one allowed");
    });
}

#[test]
fn a_request_is_cancelled_while_it_waits_and_while_it_runs() {
    block_on(async {
        let site = Site::new().await;
        let waits = site.submit(request(json!(1))).await.id;
        let cancelled = site.host.cancel(TENANT, waits, "user:alice").await.unwrap();
        assert_eq!((phase(&cancelled), cancelled.who.as_str(), cancelled.seq), (Phase::Cancelled, "user:alice", 1));
        let runs = site.submit(request(json!(1))).await.id;
        let claim = site.claim(runs).await.unwrap();
        let cancelled = site.host.cancel(TENANT, runs, "user:alice").await.unwrap();
        assert_eq!(phase(&cancelled), Phase::Cancelled);
        assert_eq!(code(&site.execution(runs, 1).await), "cancelled");
        assert!(site.host.finish(claim).await.unwrap_err().is_conflict(), "its result comes too late");
        for ended in [waits, runs] {
            let again = site.host.cancel(TENANT, ended, "user:alice").await.unwrap_err();
            assert!(matches!(again, HostError::NotRunnable(NotRunnable::Ended { .. })), "{again}");
        }
    });
}

#[test]
fn a_revived_request_has_as_many_attempts_as_at_first_and_no_deadline() {
    block_on(async {
        let site = Site::new().await;
        let deadline = site.ledger.now().await.unwrap().saturating_add(Duration::from_secs(3600));
        let id = site.submit(request(json!("broken")).max_attempts(2).deadline(deadline)).await.id;
        let open = site.host.revive(TENANT, id, "user:bob").await.unwrap_err();
        assert!(matches!(open, HostError::NotRunnable(NotRunnable::NotEnded { .. })), "{open}");
        for round in 0..2 {
            site.pass(pause(&site.attempt(id).await));
            assert_eq!(phase(&site.attempt(id).await), Phase::Dead, "round {round}");
            site.pass(Duration::from_secs(7200));
            let revived = site.host.revive(TENANT, id, "user:bob").await.unwrap();
            let state = State::of(&revived).unwrap();
            assert_eq!((state.phase, state.attempts_used(), state.terms.deadline), (Phase::Scheduled, 0, None));
            assert_eq!(revived.who, "user:bob");
        }
        let complete = site.submit(request(json!(1))).await.id;
        site.attempt(complete).await;
        let done = site.host.revive(TENANT, complete, "user:bob").await.unwrap_err();
        assert!(matches!(done, HostError::NotRunnable(NotRunnable::NotEnded { .. })), "{done}");
    });
}

/// The largest requests that are allowed, and those that are one larger.
#[test]
fn the_limits_of_a_request_are_where_they_are_said_to_be() {
    block_on(async {
        let site = Site::new().await;
        let draft = || request(json!(1)).into_draft(ids::derive("test", &["limits"]));
        let accepted = async |draft: Draft| {
            let span = draft
                .id(SystemIds.next_id(Timestamp::EPOCH))
                .stamp(site.clock.as_ref(), &SystemIds)
                .seal_local(&key(3))
                .unwrap();
            site.ledger.append_one(&Scope::Operator, span.clone()).await.unwrap();
            match site.claim(span.id).await {
                Ok(_) => true,
                Err(HostError::NotRunnable(NotRunnable::Malformed { .. })) => {
                    assert_eq!(code(&site.last(span.id).await), "request_malformed");
                    false
                }
                Err(other) => panic!("{other}"),
            }
        };
        let most = MAX_INTEGER - 10_000;
        assert!(accepted(draft().seq(most)).await);
        assert!(!accepted(draft().seq(most + 1)).await);
        // The payload as it is sealed, 64 KiB below the limit of a span.
        let limit = Rules::default().max_span_bytes - (64 << 10);
        let bytes = |draft: &Draft| {
            let span = draft.clone().id(Uuid::max()).at(Timestamp::EPOCH).seal_local(&key(3)).unwrap();
            logline_core::canonical::payload(&span.span, &span.seal.public_key).len()
        };
        let padded = |pad: usize| draft().description("x".repeat(pad));
        let pad = limit - bytes(&padded(1)) + 1;
        assert!(accepted(padded(pad)).await);
        assert!(!accepted(padded(pad + 1)).await);
        // Half of the arrays and objects that a span may have; the metadata is one of them.
        let containers = |count: usize| draft().input(Value::Array(vec![json!([0]); count - 2]));
        let most = logline_core::json::MAX_CONTAINERS / 2;
        assert!(accepted(containers(most)).await);
        assert!(!accepted(containers(most + 1)).await);
        // A first version is `scheduled`, and no attempt has been made.
        assert!(accepted(draft()).await);
        assert!(!accepted(draft().meta("attempt", 1)).await);
    });
}

#[test]
fn the_same_key_slot_and_kind_are_one_request() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let plain = request(json!(1));
    assert_eq!(plain.derived_id(), None);
    let keyed = || request(json!(1)).idempotency_key("pay_1");
    let slot = || request(json!(1)).slot(at("2026-05-01T00:00:00Z"));
    let others = [
        keyed().this("function.run"),
        keyed().this("other"),
        request(json!(1)).idempotency_key("pay_2"),
        Request::new("beta", USER, FAILS, json!(1)).this("fails").idempotency_key("pay_1"),
        Request::new(TENANT, "bob", FAILS, json!(1)).this("fails").idempotency_key("pay_1"),
        slot(),
        request(json!(1)).slot(at("2026-05-02T00:00:00Z")),
    ];
    let mut distinct: Vec<_> = others.iter().chain([&keyed()]).map(|request| request.derived_id().unwrap()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), others.len() + 1);
    assert_eq!(keyed().derived_id(), keyed().priority(9).derived_id());
    assert_eq!(keyed().slot(at("2026-05-01T00:00:00Z")).derived_id(), slot().derived_id(), "the slot comes first");
    // The usual kind is not part of the id, so that ids of earlier ledgers stay what they are.
    let usual = Request::new(TENANT, USER, FAILS, json!(1)).idempotency_key("pay_1");
    assert_eq!(usual.derived_id(), Some(ids::derive("request", &[TENANT, USER, &FAILS.to_string(), "pay_1"])));
}

#[test]
fn the_limits_are_what_the_pages_say() {
    assert_eq!(MAX_UNITS, 9_007_199_254_740_991);
    assert_eq!(MAX_BACKOFF, Duration::from_secs(3600));
    assert_eq!(MAX_LEASE, Duration::from_secs(86_400));
    assert_eq!(DEFAULT_LEASE, Duration::from_secs(60));
}

#[test]
fn a_key_that_was_used_for_another_request_is_told_with_what_differs() {
    block_on(async {
        let site = Site::new().await;
        let keyed = |n: u32| request(json!({"n": n})).idempotency_key("pay_1");
        let traced = |trace: &str, caller: &str| {
            let mut request = keyed(1).trace(trace);
            request.parent_span = Some(caller.to_owned());
            request
        };
        let first = site.submit(traced("trace-1", "00f067aa0ba902b7")).await;
        // Retries have traces of their own, and callers with spans of their own.
        for again in [keyed(1).trace("trace-2"), traced("trace-2", "00f067aa0ba902b8"), keyed(1)] {
            assert_eq!(site.submit(again).await.seal.curr_hash, first.seal.curr_hash);
        }
        for (other, differ) in [
            (keyed(2), "input"),
            (keyed(1).priority(9), "metadata.priority"),
            (keyed(1).who("user:bob").visibility(Visibility::Tenant), "visibility, who"),
        ] {
            let error = site.host.submit(other).await.unwrap_err();
            assert!(error.is_keep_mismatch(), "{error}");
            let told = error.to_string();
            assert!(told.contains("`pay_1`") && told.contains(&format!("differs in {differ}:")), "{told}");
            assert!(told.contains(&first.id.to_string()), "{told}");
        }
        // One of a batch that differs stops the batch; one that was asked before does not.
        let new = || request(json!(5)).idempotency_key("pay_2");
        site.host.submit_all([new(), keyed(2)]).await.unwrap_err();
        let stored = site.host.submit_all([keyed(1).trace("trace-3"), new(), request(json!(6))]).await.unwrap();
        assert_eq!(stored[0].seal.curr_hash, first.seal.curr_hash);
        assert_eq!((stored[1].input.clone(), stored[2].input.clone()), (Some(json!(5)), Some(json!(6))));
        for span in &stored {
            assert_eq!(site.last(span.id).await.seal.curr_hash, span.seal.curr_hash);
        }
    });
}

#[test]
fn an_empty_key_or_an_input_that_no_function_takes_is_refused_at_once() {
    block_on(async {
        let site = Site::new().await;
        let empty = site.host.submit(request(json!(1)).idempotency_key("")).await.unwrap_err().to_string();
        assert!(empty.contains("idempotency key is empty"), "{empty}");
        let most = "x".repeat(131_072 - 2);
        let run = |input: &str| Request::new(TENANT, USER, FAILS, json!(input));
        site.submit(run(&most)).await;
        let large = site.host.submit(run(&(most + "x"))).await.unwrap_err().to_string();
        assert!(large.contains("131073 bytes") && large.contains("131072"), "{large}");
    });
}

#[test]
fn what_cannot_be_recorded_is_left_out_and_the_attempt_is_recorded_all_the_same() {
    block_on(async {
        let site = Site::new().await;
        let id = site.submit(request(json!("large"))).await.id;
        let done = site.host.finish(site.claim(id).await.unwrap()).await.unwrap();
        assert_eq!(done.result.unwrap_err().code, "invalid_output");
        assert_eq!((done.span.meta("journal"), done.span.meta("kept")), (None, Some(&json!(1))));
    });
}

#[test]
fn executions_are_read_as_typed_values_page_after_page() {
    block_on(async {
        let site = Site::new().await;
        let mut expected = Vec::new();
        for n in 0..7 {
            let input = if n % 3 == 0 { json!("broken") } else { json!(n) };
            let id = site.submit(request(input.clone())).await.id;
            site.attempt(id).await;
            let result = if n % 3 == 0 { Err("broken".to_owned()) } else { Ok(input) };
            expected.push((id, result));
        }
        let query = Query::new().tenant(TENANT).entity_type("execution").limit(2);
        let spans: Vec<_> = site.ledger.stream(Scope::runtime(TENANT), query).try_collect().await.unwrap();
        let found = spans.iter().map(|span| {
            let recorded = Recorded::of(span).unwrap();
            assert_eq!((recorded.attempt, recorded.worker, recorded.function), (1, Some(key(3).public_key()), Some(FAILS)));
            (recorded.request.unwrap(), recorded.result.map_err(|failure| failure.code))
        });
        assert_eq!(found.collect::<Vec<_>>(), expected);
        let request = site.last(expected[0].0).await;
        assert_eq!(Recorded::of(&request), None);
    });
}

#[test]
fn a_second_process_with_the_key_of_a_host_is_noticed() {
    block_on(async {
        let site = Site::new().await;
        site.host.boot(FAILS).await.unwrap();
        let boots = async || {
            let query = Query::timeline().entity_type("boot_event");
            site.ledger.collect(&Scope::Operator, &query, 100).await.unwrap()
        };
        let own = boots().await;
        assert!(own.iter().all(|boot| !site.host.is_boot_of_another(boot)));
        let twin = site.second_host().await;
        twin.boot(FAILS).await.unwrap();
        let all = boots().await;
        let foreign: Vec<_> = all.iter().filter(|boot| site.host.is_boot_of_another(boot)).collect();
        assert_eq!((all.len(), foreign.len()), (2, 1));
        assert!(!twin.is_boot_of_another(foreign[0]) && twin.is_boot_of_another(&own[0]));
        // A row in its name that it has not signed says nothing.
        let mut forged = foreign[0].clone();
        forged.span.name = Some("forged".to_owned());
        assert!(!site.host.is_boot_of_another(&forged));
    });
}

#[test]
fn a_row_that_a_stranger_wrote_under_the_id_of_a_request_is_no_answer() {
    block_on(async {
        let site = Site::new().await;
        let keyed = |n: &str| request(json!(1)).idempotency_key(n);
        let variants: [fn(Draft) -> Draft; 6] = [
            |draft| draft,
            |mut draft| {
                draft.columns_mut().entity_type = "note".to_owned();
                draft
            },
            |draft| draft.deleted(),
            |draft| draft.status("complete"),
            |draft| draft.did("granted"),
            |draft| draft.status("dead").related([Uuid::nil()]),
        ];
        for (n, variant) in variants.iter().enumerate() {
            for signer in [66, 4] {
                // Key 66 is nobody's. Key 4 is a member's, who may sign requests, but not that this one has ended.
                let name = format!("pay_{n}_{signer}");
                let draft = variant(keyed(&name).into_draft(Uuid::nil()));
                let squatted = draft.stamp(site.clock.as_ref(), &SystemIds).seal_local(&key(signer)).unwrap();
                site.ledger.append_one(&Scope::Operator, squatted.clone()).await.unwrap();
                match site.host.submit(keyed(&name)).await {
                    // The member's own request, exactly as it would have been submitted.
                    Ok(stored) => assert_eq!((n, signer, stored.seal.curr_hash), (0, 4, squatted.seal.curr_hash)),
                    Err(error) => {
                        let is_told = matches!(error, HostError::NotAuthorised(_) | HostError::OtherRequest { .. });
                        assert!(is_told, "variant {n}, key {signer}: {error}");
                    }
                }
            }
        }
    });
}
