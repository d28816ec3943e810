//! Calls that no attempt closes: they get one outcome, whoever is faster. Every backend makes these trials.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use logline_core::contract::{
    AskedBy, Call, Context, Effects, Kernel, KernelError, Meters, Remote, RemoteCall, Reply, RequestKind, Reservation, Sandbox,
};
use logline_core::ledger::{Due, LedgerExt as _, Query, Work, WorkQueue};
use logline_core::request::{CallKind, Request};
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{
    Draft, Hash, Host, KernelSet, KeyPair, OpenCall, SYSTEM_TENANT, Scope, SignedSpan, Signer as _, SystemClock, SystemIds,
    VerifiedSpan, Visibility,
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::{Uuid, uuid};

const TENANT: &str = "acme";
const USER: &str = "alice";
const CALLER: Uuid = uuid!("00000000-0000-4000-8000-0000000ca11e");
const TOKENS: &str = "tokens";
const DAY: Duration = Duration::from_secs(86_400);

fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

/// A service that answers when it is told to, and a kernel that calls it.
#[derive(Default, Clone)]
struct Slow {
    is_called: Arc<Notify>,
    may_answer: Arc<Notify>,
}

#[async_trait]
impl Remote for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    async fn call(&self, _: &RemoteCall<'_>) -> Reply {
        self.is_called.notify_one();
        self.may_answer.notified().await;
        Reply::from(Ok(json!("done"))).used([(TOKENS.to_owned(), 100)].into())
    }
}

#[async_trait]
impl Kernel for Slow {
    fn id(&self) -> Uuid {
        CALLER
    }

    fn name(&self) -> &'static str {
        "caller"
    }

    fn version(&self) -> u32 {
        1
    }

    fn requests(&self) -> &'static [RequestKind] {
        &[RequestKind { this: "caller.call", asked_by: AskedBy::Anybody, meters: Meters::NONE }]
    }

    fn lacks(&self, _: Option<&SignedSpan>, _: &[Arc<dyn Sandbox>]) -> Option<String> {
        None
    }

    async fn run(&self, _: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        let reserve = vec![Reservation { quota: TOKENS.to_owned(), units: 600, per_day: 1_000_000 }];
        let call = Call::new("once", "do", json!(1)).kind(CallKind::Provider).reserve(reserve);
        match context.outside.call(self, &call).await {
            Ok(answer) => Ok(Effects::new(Ok(answer.value))),
            Err(error) => Ok(Effects::new(Err(error.into_failure()?))),
        }
    }
}

struct Site<L> {
    ledger: L,
    host: Host,
    slow: Slow,
}

async fn site<L: WorkQueue + Clone + 'static>(ledger: &L) -> Site<L> {
    let slow = Slow::default();
    let seed = Draft::new("function")
        .id(CALLER)
        .tenant(SYSTEM_TENANT)
        .owner(SYSTEM_TENANT)
        .visibility(Visibility::Public)
        .who("logline")
        .this("function.caller")
        .runtime("native@1")
        .code("caller@1")
        .metadata(json!({"requests": ["caller.call"]}));
    let set = KernelSet::new().kernel(slow.clone()).seeds([seed.clone()]);
    let trust = TrustRoot::new([key(1).public_key()], 1);
    let manifest = Manifest::first(RootSet::new([key(1).public_key()], 1))
        .allow_all(&set)
        .grant(key(2).public_key(), Role::Publisher, [SYSTEM_TENANT])
        .grant(key(3).public_key(), Role::Runtime, [SYSTEM_TENANT, "*"]);
    trust.publish(ledger, &manifest, &key(1), &SystemClock).await.unwrap();
    let seed = seed.stamp(&SystemClock, &SystemIds).seal_local(&key(2)).unwrap();
    ledger.append_one(&Scope::runtime(SYSTEM_TENANT), seed).await.unwrap();
    let host = Host::builder().ledger(ledger.clone()).trust(trust).key(key(3)).install(set).build().await.unwrap();
    Site { ledger: ledger.clone(), host, slow }
}

impl<L: WorkQueue + Clone + 'static> Site<L> {
    /// A request whose attempt is in the middle of its call, and whose lease is over.
    async fn in_the_middle(&self) -> (Uuid, tokio::task::JoinHandle<()>) {
        let asked = self.host.submit(Request::new(TENANT, USER, CALLER, Value::Null).this("caller.call")).await.unwrap();
        let due = Due { request: asked.clone().into_signed(), function: None };
        let lease = Duration::from_millis(200);
        let claim = self.host.claim(due, self.ledger.now().await.unwrap(), lease).await.unwrap();
        let work = Work::of(claim.running());
        let host = self.host.clone();
        let attempt = tokio::spawn(async move { drop(host.finish(claim).await) });
        self.slow.is_called.notified().await;
        while !self.ledger.is_due(&work).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (asked.id, attempt)
    }

    async fn all(&self, entity_type: &str) -> Vec<SignedSpan> {
        let query = Query::timeline().tenant(TENANT).entity_type(entity_type);
        self.ledger.collect(&Scope::runtime(TENANT), &query, usize::MAX).await.unwrap()
    }

    async fn pass(&self, patience: Duration) -> (usize, usize) {
        let kind = CallKind::Provider;
        let found = self.host.close_open_calls(TENANT, kind, None, 100, patience).await.unwrap();
        (found.closed.len(), found.open.len())
    }

    /// Writes the intent of a call, as a host with this key would.
    async fn intent(&self, request: Uuid, attempt: u32, n: u8) -> Uuid {
        let draft = Draft::new("provider_request").tenant(TENANT).owner(USER).who("host").this("provider.call").parent(request);
        let draft = draft.status("open").meta("call_key", "late").meta("call_hash", Hash::of(b"late").to_string());
        let span =
            draft.meta("attempt", attempt).meta("ordinal", 1).stamp(&SystemClock, &SystemIds).seal_local(&key(n)).unwrap();
        self.ledger.append_one(&Scope::runtime(TENANT), span.clone()).await.unwrap();
        span.id
    }
}

/// A host died in the middle of a call, and nobody tries again. Many reapers close the call once, and what it reserved is spent.
pub async fn of_many_reapers_one_closes_a_call<L: WorkQueue + Clone + 'static>(ledger: &L) {
    let site = site(ledger).await;
    let (_, attempt) = site.in_the_middle().await;
    attempt.abort();
    assert_eq!(site.pass(DAY).await, (0, 1), "it may still be answered");
    let passes = futures_util::future::join_all((0..8).map(|_| site.pass(Duration::ZERO))).await;
    assert_eq!(passes.iter().map(|(closed, _)| closed).sum::<usize>(), 1, "{passes:?}");
    let outcomes = site.all("provider_execution").await;
    assert_eq!(outcomes.iter().map(|span| span.status.clone().unwrap()).collect::<Vec<_>>(), ["unknown"]);
    assert_eq!(site.ledger.used(TENANT, TOKENS).await.unwrap(), 600, "nobody knows what it used");
    assert_eq!(site.pass(Duration::ZERO).await, (0, 0));
    // The next pass goes on behind it.
    let found = site.host.close_open_calls(TENANT, CallKind::Provider, None, 100, DAY).await.unwrap();
    let further = site.host.close_open_calls(TENANT, CallKind::Provider, found.next.as_ref(), 100, DAY).await.unwrap();
    assert_eq!((found.looked_at, further.looked_at), (1, 0));
}

/// The attempt that was taken for lost gets its answer at the moment at which its call is closed.
pub async fn a_late_answer_and_a_reaper_write_one_outcome<L: WorkQueue + Clone + 'static>(ledger: &L) {
    let site = site(ledger).await;
    for n in 1..=6 {
        let (_, attempt) = site.in_the_middle().await;
        let reaper = async {
            if n % 2 == 0 {
                tokio::task::yield_now().await;
            }
            site.pass(Duration::ZERO).await
        };
        let answer = async {
            site.slow.may_answer.notify_one();
            attempt.await.unwrap();
        };
        tokio::join!(reaper, answer);
        let (intents, outcomes) = (site.all("provider_request").await, site.all("provider_execution").await);
        assert_eq!((intents.len(), outcomes.len()), (n, n), "each call has one outcome");
    }
}

/// Calls of requests that have ended, of attempts that others followed, and such that no host has begun.
pub async fn calls_of_attempts_that_are_over_are_closed<L: WorkQueue + Clone + 'static>(ledger: &L) {
    let site = site(ledger).await;
    site.slow.may_answer.notify_one();
    let asked = Request::new(TENANT, USER, CALLER, Value::Null).this("caller.call");
    let done = site.host.execute(asked).await.unwrap();
    assert_eq!(done.result, Ok(json!("done")));
    assert_eq!(site.pass(DAY).await, (0, 0), "an attempt that ends leaves no open call");
    let late = site.intent(done.request.id, 1, 3).await;
    let forged = site.intent(done.request.id, 1, 9).await;
    let (running, attempt) = site.in_the_middle().await;
    let next = site.intent(running, 2, 3).await;
    let zombie = site.intent(running, 0, 3).await;
    let found = site.host.close_open_calls(TENANT, CallKind::Provider, None, 100, DAY).await.unwrap();
    let expected = [late, zombie].map(|intent| CallKind::Provider.outcome_id(TENANT, intent));
    assert_eq!(found.closed.iter().map(|key| key.id).collect::<Vec<_>>(), expected);
    assert!(!found.open.contains(&forged), "no host has begun it, so no host ends it");
    assert!(found.open.contains(&next));
    let look = async |id: Uuid| site.host.close_if_over(TENANT, id, DAY).await.unwrap();
    assert_eq!((look(late).await, look(next).await), (OpenCall::Settled, OpenCall::Open));
    assert_eq!(look(Uuid::from_u128(1)).await, OpenCall::Settled);
    attempt.abort();
}
