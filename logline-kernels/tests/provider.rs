//! Calls to providers: what is recorded of them, and what happens if a provider, a budget or a host fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use logline_core::contract::provider::{
    Block, Chunk, Chunks, Endpoint, ErrorKind, ModelAnswer, ModelRequest, Provider, ProviderError, Secret, SecretSource as _,
    StopReason, Usage,
};
use logline_core::ledger::{Ledger as _, WorkQueue as _};
use logline_core::request::{OnUnknown, Request};
use logline_core::trust::{Budget, Manifest, Money};
use logline_core::{
    Draft, Execution, Host, HostError, ManualClock, MemoryLedger, Scope, SignedSpan, Signer as _, SystemClock, Visibility,
};
use logline_kernels::provider::{HostSecrets, PROVIDER_EMBED, PROVIDER_INVOKE, ProviderExec, Script, ScriptedProvider};
use serde_json::{Value, json};
use setup::{HOST, Mortal, PUBLISHER, ROOT, SYSTEM_PUBLISHER, TENANT, USER, block_on, key, output, trust};
use tokio::sync::Notify;
use uuid::Uuid;

const FAST: &str = "fast";

/// A ledger, a clock that is turned by hand, and a provider whose answers are scripted.
struct Site {
    ledger: MemoryLedger,
    clock: Arc<ManualClock>,
    provider: ScriptedProvider,
    other: ScriptedProvider,
    exec: ProviderExec,
}

impl Site {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Manifest)) -> Self {
        let clock = Arc::new(ManualClock::new("2026-05-01T12:00:00Z".parse().unwrap()));
        let ledger = MemoryLedger::with_clock(clock.clone());
        let (provider, other) = (ScriptedProvider::new("scripted"), ScriptedProvider::new("other"));
        let adapters: [Arc<dyn Provider>; 2] = [Arc::new(provider.clone()), Arc::new(other.clone())];
        let secrets = HostSecrets::new().text("main", Secret::new("hunter2".to_owned()), ["https://models.example"]);
        let exec = ProviderExec::new(adapters, secrets);
        let mut manifest = setup::manifest().allow_all(&exec.behaviours());
        change(&mut manifest);
        trust().publish(&ledger, &manifest, &key(ROOT), &SystemClock).await.unwrap();
        logline_kernels::install(&ledger, &exec.behaviours(), &key(SYSTEM_PUBLISHER), &SystemClock).await.unwrap();
        Self { ledger, clock, provider, other, exec }
    }

    async fn host(&self) -> Host {
        self.host_as(HOST).await
    }

    async fn host_as(&self, n: u8) -> Host {
        let builder = Host::builder().ledger(self.ledger.clone()).trust(trust()).key(key(n)).clock(self.clock.clone());
        builder.install(self.exec.behaviours()).build().await.unwrap()
    }

    async fn spans(&self, entity_type: &str) -> Vec<SignedSpan> {
        setup::spans(&self.ledger, entity_type).await
    }

    /// The statuses of the outcomes, and the codes of those that failed.
    async fn outcomes(&self) -> Vec<String> {
        let code = |span: &SignedSpan| span.error.as_ref().map(|error| error["code"].as_str().unwrap().to_owned());
        let outcomes = self.spans("provider_execution").await;
        outcomes.iter().map(|span| code(span).unwrap_or_else(|| span.status.clone().unwrap())).collect()
    }

    async fn used(&self, quota: &str) -> u64 {
        self.ledger.used(TENANT, quota).await.unwrap()
    }
}

const TOKENS: &str = "provider.tokens.per_tenant.daily";
const MONEY: &str = "provider.nano_usd.per_tenant.daily";

/// The metadata of a provider whose pauses are short.
fn spec() -> Value {
    json!({
        "adapter": "scripted",
        "currency": "USD",
        "models": {FAST: {"max_tokens": 100, "prices": {"input": 3_000_000_000_u64, "output": 15_000_000_000_u64}}},
        "retry": {"tries": 3, "pause_ms": 1, "max_pause_ms": 50},
    })
}

fn with(mut spec: Value, changes: Value) -> Value {
    let (Value::Object(members), Value::Object(changes)) = (&mut spec, changes) else { panic!("objects") };
    members.extend(changes);
    spec
}

fn provider(spec: Value) -> Draft {
    Draft::new("provider")
        .tenant(TENANT)
        .owner("platform")
        .who("publisher")
        .this("provider.main")
        .name("main")
        .visibility(Visibility::Tenant)
        .status("active")
        .metadata(spec)
}

async fn publish(host: &Host, spec: Value) -> Uuid {
    host.publish(provider(spec), &key(PUBLISHER)).await.unwrap().id
}

fn asking(provider: Uuid, text: &str) -> Request {
    Request::new(TENANT, USER, provider, json!({"request": ModelRequest::ask(text)})).this(PROVIDER_INVOKE)
}

fn code(execution: &Execution) -> &str {
    &execution.result.as_ref().expect_err("it must fail").code
}

fn fail(kind: ErrorKind) -> Script {
    Script::Fail(ProviderError::new(kind, "no"))
}

#[test]
fn a_call_leaves_an_intent_and_an_outcome_with_usage_and_cost() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let mut usage = Usage::of(1000, 100);
        usage.cache_read = Some(500);
        usage.raw = json!({"inputTokens": 1000, "somethingNew": 7});
        let answer =
            ModelAnswer::new(vec![Block::text("Paris.")], StopReason::EndTurn, usage).request_id(Some("req-1".to_owned()));
        site.provider.then([Script::Answer(answer)]);
        let execution = host.execute(asking(main, "The capital of France?")).await.unwrap();
        let out = output(&execution);
        assert_eq!(out["answer"]["content"], json!([{"type": "text", "text": "Paris."}]));
        let intent = &site.spans("provider_request").await[0];
        assert_eq!(intent.parent_id, Some(execution.request.id));
        assert_eq!((intent.meta("ordinal"), intent.meta("operation")), (Some(&json!(1)), Some(&json!("invoke"))));
        assert_eq!(intent.meta("details").unwrap()["model"], FAST);
        assert_eq!(intent.meta("details").unwrap()["provider"]["id"], json!(main.to_string()));
        let outcome = &site.spans("provider_execution").await[0];
        assert_eq!(out["span"], json!(outcome.id.to_string()));
        assert_eq!((outcome.parent_id, outcome.related_to.contains(&intent.id)), (Some(main), true));
        let details = outcome.meta("details").unwrap();
        // 1,500 tokens at 3 dollars and 100 at 15 dollars a million: 0.006 dollars.
        assert_eq!(details["cost"], json!({"nanos": 6_000_000, "currency": "USD"}));
        assert_eq!(details["usage"]["raw"]["somethingNew"], 7, "what the provider says is kept");
        assert_eq!(details["request_id"], "req-1");
        assert_eq!(site.provider.calls()[0].max_tokens, Some(100), "no answer is longer than what the provider span allows");
    });
}

#[test]
fn what_is_listened_to_comes_in_pieces_and_is_recorded_once() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let request = host.submit(asking(main, "one two three")).await.unwrap();
        let mut pieces = site.exec.streams().listen(TENANT, request.id);
        let heard = async {
            let mut heard = Vec::new();
            while let Some(piece) = pieces.recv().await {
                let Chunk::Text(text) = piece else { panic!("{piece:?}") };
                heard.push(text);
            }
            heard
        };
        let (heard, execution) = futures_util::future::join(heard, host.run_request(TENANT, request.id)).await;
        assert_eq!(heard, ["one ", "two ", "three"]);
        assert_eq!(output(&execution.unwrap())["answer"]["content"][0]["text"], "one two three");
        assert_eq!(site.outcomes().await, ["complete"]);
    });
}

#[test]
fn a_listener_that_goes_away_stops_nothing() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let request = host.submit(asking(main, &"word ".repeat(500))).await.unwrap();
        drop(site.exec.streams().listen(TENANT, request.id));
        assert!(host.run_request(TENANT, request.id).await.unwrap().result.is_ok());
    });
}

#[test]
fn each_try_is_recorded_and_the_wish_of_the_provider_is_a_floor() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let throttled = ProviderError::new(ErrorKind::Throttled, "slow down").retry_after(Some(Duration::from_millis(40)));
        site.provider.then([Script::Fail(throttled), fail(ErrorKind::ModelError)]);
        let began = std::time::Instant::now();
        let execution = host.execute(asking(main, "hello")).await.unwrap();
        assert!(execution.result.is_ok());
        assert!(began.elapsed() >= Duration::from_millis(40), "no call before the provider allows it");
        assert_eq!(site.outcomes().await, ["provider:throttled", "provider:model_error", "complete"]);
        let ordinals: Vec<_> =
            site.spans("provider_request").await.iter().map(|span| span.meta("ordinal").cloned().unwrap()).collect();
        assert_eq!(ordinals, [1, 2, 3]);

        // If the provider wants more time than the span allows, it is not tried again.
        let busy = ProviderError::new(ErrorKind::Throttled, "come tomorrow").retry_after(Some(Duration::from_secs(86_400)));
        site.provider.then([Script::Fail(busy)]);
        let execution = host.execute(asking(main, "hello")).await.unwrap();
        assert_eq!((code(&execution), site.provider.calls().len()), ("provider:throttled", 4));
    });
}

#[test]
fn what_nothing_helps_against_is_not_tried_again() {
    block_on(async {
        for (kind, advice) in [
            (ErrorKind::Invalid, "error"),
            (ErrorKind::ContentFiltered, "error"),
            (ErrorKind::Denied, "error"),
            (ErrorKind::Quota, "scheduled"),
        ] {
            let site = Site::new().await;
            let host = site.host().await;
            let main = publish(&host, spec()).await;
            site.provider.then([fail(kind)]);
            let execution = host.execute(asking(main, "hello").max_attempts(2)).await.unwrap();
            assert_eq!((code(&execution), site.provider.calls().len()), (kind.code(), 1));
            assert_eq!(execution.request.status.as_deref(), Some(advice), "{kind:?}");
        }
    });
}

#[test]
fn a_fallback_is_asked_if_it_may_help_and_never_after_the_first_piece() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let second = publish(&host, with(spec(), json!({"adapter": "other"}))).await;
        let main = publish(&host, with(spec(), json!({"fallback": [{"provider": second}], "breaker": {"failures": 0}}))).await;
        let listened = async |text: &str| {
            let request = host.submit(asking(main, text)).await.unwrap();
            let mut pieces = site.exec.streams().listen(TENANT, request.id);
            let heard = async { while pieces.recv().await.is_some() {} };
            futures_util::future::join(heard, host.run_request(TENANT, request.id)).await.1.unwrap()
        };
        site.provider.then([fail(ErrorKind::Denied)]);
        assert_eq!(output(&listened("hello").await)["answer"]["content"][0]["text"], "hello");
        assert_eq!((site.provider.calls().len(), site.other.calls().len()), (1, 1));
        let outcomes = site.spans("provider_execution").await;
        assert_eq!(outcomes.iter().map(|span| span.parent_id.unwrap()).collect::<Vec<_>>(), [main, second]);

        site.provider.then([Script::Breaks(2, ProviderError::new(ErrorKind::StreamBroken, "reset"))]);
        assert_eq!(code(&listened("hello").await), "provider:stream_broken");
        assert_eq!((site.provider.calls().len(), site.other.calls().len()), (2, 1));
        assert_eq!(site.spans("provider_execution").await[2].meta("details").unwrap()["chunks"], 2);

        // Before the first piece it is tried again, and then elsewhere.
        site.provider.then((0..3).map(|_| Script::Breaks(0, ProviderError::new(ErrorKind::StreamBroken, "reset"))));
        assert!(listened("hello").await.result.is_ok());
        assert_eq!((site.provider.calls().len(), site.other.calls().len()), (5, 2));
        site.provider.then([fail(ErrorKind::ContentFiltered)]);
        assert_eq!(code(&listened("hello").await), "provider:content_filtered");
        assert_eq!(site.other.calls().len(), 2, "another provider is not asked for what one refuses");
    });
}

#[test]
fn a_provider_that_fails_is_left_alone_by_all_hosts_for_a_while() {
    block_on(async {
        let site = Site::with(|manifest| {
            *manifest = manifest.clone().grant(key(7).public_key(), logline_core::roles::Role::Runtime, ["system", "*"]);
        })
        .await;
        let host = site.host().await;
        let breaker =
            json!({"breaker": {"failures": 3, "open_ms": 30_000}, "retry": {"tries": 1, "pause_ms": 0, "max_pause_ms": 0}});
        let main = publish(&host, with(spec(), breaker)).await;
        site.provider.then([fail(ErrorKind::ModelError), fail(ErrorKind::Invalid)]);
        site.provider.then((0..3).map(|_| fail(ErrorKind::ModelError)));
        for _ in 0..5 {
            site.clock.advance(Duration::from_secs(1));
            host.execute(asking(main, "hello")).await.unwrap();
        }
        assert_eq!(site.provider.calls().len(), 5, "a request that was wrong does not count");
        // Another host, which has just started, knows it from the ledger.
        let another = site.host_as(7).await;
        for host in [&host, &another] {
            let execution = host.execute(asking(main, "hello")).await.unwrap();
            assert_eq!(code(&execution), "provider:not_ready");
            assert!(execution.result.unwrap_err().message.contains("last 3 calls failed"));
        }
        assert_eq!(site.provider.calls().len(), 5);
        site.clock.advance(Duration::from_secs(31));
        site.provider.then([fail(ErrorKind::TimedOut)]);
        assert_eq!(code(&host.execute(asking(main, "hello")).await.unwrap()), "provider:timed_out");
        assert_eq!(
            code(&another.execute(asking(main, "hello")).await.unwrap()),
            "provider:not_ready",
            "one call shows that it still fails"
        );
        site.clock.advance(Duration::from_secs(31));
        assert!(another.execute(asking(main, "hello")).await.unwrap().result.is_ok());
        assert!(host.execute(asking(main, "hello")).await.unwrap().result.is_ok(), "one answer closes it for all");
    });
}

fn budget(tokens: Option<u64>, nanos: Option<u64>) -> impl FnOnce(&mut Manifest) {
    move |manifest| {
        let money_per_day = nanos.map(|nanos| Money { nanos, currency: "USD".to_owned() });
        manifest.budgets.insert(TENANT.to_owned(), Budget { tokens_per_day: tokens, money_per_day });
    }
}

#[test]
fn a_budget_is_reserved_before_a_call_and_settled_after_it() {
    block_on(async {
        let site = Site::with(budget(Some(1000), Some(10_000_000))).await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let answer = |input, output| {
            Script::Answer(ModelAnswer::new(vec![Block::text("yes")], StopReason::EndTurn, Usage::of(input, output)))
        };
        site.provider.then([answer(20, 10)]);
        host.execute(asking(main, "hello")).await.unwrap();
        assert_eq!((site.used(TOKENS).await, site.used(MONEY).await), (30, 20 * 3000 + 10 * 15_000));
        // What is not charged is given back.
        site.provider.then([fail(ErrorKind::Invalid)]);
        host.execute(asking(main, "hello")).await.unwrap();
        assert_eq!(site.used(TOKENS).await, 30);
        // Nobody knows what a provider charges for an answer that did not come: the whole reservation stays.
        site.provider.then([fail(ErrorKind::TimedOut), answer(20, 10)]);
        host.execute(asking(main, "hello")).await.unwrap();
        let used = site.used(TOKENS).await;
        assert!(used > 30 + 30 + 100, "{used}");
        // Usage that the provider does not state is not free.
        let mut unknown = Usage::of(20, 10);
        unknown.output = None;
        site.provider.then([Script::Answer(ModelAnswer::new(vec![Block::text("yes")], StopReason::EndTurn, unknown))]);
        host.execute(asking(main, "hello")).await.unwrap();
        assert!(site.used(TOKENS).await > used + 100);
        let calls = site.provider.calls().len();
        let long = "x".repeat(3000);
        let execution = host.execute(asking(main, &long)).await.unwrap();
        assert_eq!((code(&execution), site.provider.calls().len()), ("budget", calls), "no call is made");
        assert_eq!(site.spans("policy_violation").await[0].this, format!("quota.{TOKENS}"));
        let before = site.used(MONEY).await;
        site.ledger.rebuild().await.unwrap();
        assert_eq!(site.used(MONEY).await, before, "the counters follow from intents and outcomes");
        site.clock.advance(Duration::from_secs(86_400));
        assert_eq!((site.used(TOKENS).await, site.used(MONEY).await), (0, 0));
    });
}

#[test]
fn a_budget_of_zero_allows_no_call() {
    block_on(async {
        for change in [budget(Some(0), None), budget(None, Some(0))] {
            let site = Site::with(change).await;
            let host = site.host().await;
            let main = publish(&host, spec()).await;
            assert_eq!(code(&host.execute(asking(main, "hello")).await.unwrap()), "budget");
            assert!(site.provider.calls().is_empty() && site.spans("provider_request").await.is_empty());
        }
    });
}

#[test]
fn another_tenants_budget_is_not_used() {
    block_on(async {
        let site = Site::with(|manifest| {
            let none = Budget { tokens_per_day: Some(0), money_per_day: None };
            manifest.budgets.insert("*".to_owned(), none);
            manifest.budgets.insert(TENANT.to_owned(), Budget::default());
        })
        .await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        assert!(host.execute(asking(main, "hello")).await.unwrap().result.is_ok(), "an entry of its own counts before `*`");
    });
}

/// The host dies before each of its signatures: before each intent, each outcome, and the end. The first provider refuses, the second
/// answers.
#[test]
fn a_host_that_dies_at_any_step_forgets_no_call_and_pays_for_none_twice() {
    block_on(async {
        let mut recorded = 0;
        for step in 0..12 {
            let site = Site::with(budget(Some(100_000), None)).await;
            let host = site.host().await;
            let second = publish(&host, with(spec(), json!({"adapter": "other"}))).await;
            let main = publish(&host, with(spec(), json!({"fallback": [{"provider": second}]}))).await;
            site.provider.then([fail(ErrorKind::Quota), fail(ErrorKind::Quota)]);
            let request = host.submit(asking(main, "hello").on_unknown(OnUnknown::Retry).max_attempts(3)).await.unwrap();
            let died = Arc::new(Notify::new());
            let mortal = Mortal { key: key(HOST), left: AtomicUsize::new(step), died: Arc::clone(&died) };
            let builder = Host::builder().ledger(site.ledger.clone()).trust(trust()).key(mortal).clock(site.clock.clone());
            let dying = builder.install(site.exec.behaviours()).build().await.unwrap();
            tokio::select! {
                _ = dying.run_request(TENANT, request.id) => {}
                () = died.notified() => {}
            }
            let answered = site.outcomes().await.iter().any(|outcome| outcome == "complete");
            let (calls, used) = (site.provider.calls().len() + site.other.calls().len(), site.used(TOKENS).await);
            site.clock.advance(Duration::from_secs(3600));
            if let Ok(again) = host.run_request(TENANT, request.id).await {
                assert_eq!(output(&again)["answer"]["content"][0]["text"], "hello", "step {step}");
            }
            let all = site.provider.calls().len() + site.other.calls().len();
            let (intents, outcomes) = (site.spans("provider_request").await.len(), site.outcomes().await.len());
            assert!(all <= intents && intents == outcomes, "step {step}: {all} calls, {intents} intents, {outcomes} outcomes");
            if answered {
                recorded += 1;
                assert_eq!((all, site.used(TOKENS).await), (calls, used), "step {step}: nobody is asked again");
            }
            site.ledger.rebuild().await.unwrap();
        }
        assert!(recorded >= 2, "at least one step is between the answer and the end");
    });
}

#[test]
fn a_call_whose_end_nobody_saw_stays_spent_and_ends_the_request_unless_it_may_be_repeated() {
    block_on(async {
        for (on_unknown, calls, expected) in [(OnUnknown::Fail, 1, Some("outcome_unknown")), (OnUnknown::Retry, 2, None)] {
            let site = Site::with(budget(Some(100_000), None)).await;
            let host = site.host().await;
            let main = publish(&host, spec()).await;
            site.provider.then([Script::Hang]);
            let request = host.submit(asking(main, "hello").on_unknown(on_unknown)).await.unwrap();
            let dies = tokio::time::timeout(Duration::from_millis(50), host.run_request(TENANT, request.id)).await;
            assert!(dies.is_err(), "the host dies while it waits");
            let reserved = site.used(TOKENS).await;
            assert!(reserved > 100);
            site.clock.advance(Duration::from_secs(3600));
            let again = host.run_request(TENANT, request.id).await.unwrap();
            assert_eq!(again.result.as_ref().err().map(|failure| failure.code.as_str()), expected);
            assert_eq!(site.provider.calls().len(), calls);
            assert!(site.used(TOKENS).await >= reserved, "what may have been spent is not given back");
            assert_eq!(site.outcomes().await[0], "outcome_unknown");
            assert_eq!(site.spans("provider_request").await.len(), site.spans("provider_execution").await.len());
        }
    });
}

#[test]
fn a_secret_goes_to_its_own_url_and_into_no_span() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let of = |url: &str, secret: &str| with(spec(), json!({"url": url, "secret": secret}));
        let good = publish(&host, of("https://models.example/v1", "main")).await;
        assert!(host.execute(asking(good, "hello")).await.unwrap().result.is_ok());
        for url in [
            "https://models.example.attacker/v1",
            "https://attacker/https://models.example",
            "http://models.example",
            "https://models.example@attacker/",
        ] {
            let stolen = publish(&host, of(url, "main")).await;
            let execution = host.execute(asking(stolen, "hello")).await.unwrap();
            assert_eq!(code(&execution), "secret_not_available", "{url}");
        }
        let missing = publish(&host, of("https://models.example", "nobody")).await;
        let execution = host.execute(asking(missing, "hello")).await.unwrap();
        assert!(execution.result.unwrap_err().message.contains("no secret `nobody`"));
        // A provider may send the secret back as the id of the call.
        let id = Some("Bearer hunter2".to_owned());
        let usage = Usage::of(1, 1);
        site.provider
            .then([Script::Answer(ModelAnswer::new(vec![Block::text("hi")], StopReason::EndTurn, usage).request_id(id))]);
        assert!(host.execute(asking(good, "hello")).await.unwrap().result.is_ok());
        assert_eq!(site.provider.calls().len(), 2);
        let everything = site.ledger.scan(&Scope::Operator, &logline_core::ledger::Query::timeline(), None).await.unwrap();
        for row in everything.rows {
            assert!(!format!("{:?}", row.span.unwrap()).contains("hunter2"));
        }
        assert_eq!(format!("{:?}", Secret::new("hunter2".to_owned())), "Secret(…)");
    });
}

#[test]
fn a_provider_that_its_asker_may_not_use_is_not_asked() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let private = host.publish(provider(spec()).visibility(Visibility::Private), &key(PUBLISHER)).await.unwrap().id;
        let inactive = host.publish(provider(spec()).status("archived"), &key(PUBLISHER)).await.unwrap().id;
        // A member writes a provider span behind the host's back.
        let forged = setup::smuggle(&site.ledger, provider(spec()).owner(USER), setup::STRANGER).await.id;
        let theirs =
            setup::smuggle(&site.ledger, provider(spec()).tenant("globex").visibility(Visibility::Public), PUBLISHER).await.id;
        let note =
            setup::smuggle(&site.ledger, Draft::new("note").tenant(TENANT).owner(USER).who(USER).this("n"), HOST).await.id;
        let unsaid = Uuid::from_u128(7);
        for (id, expected) in [
            (private, "provider_not_found"),
            (inactive, "provider_not_active"),
            (forged, "provider_not_authorised"),
            (theirs, "provider_not_found"),
            (note, "provider_not_found"),
            (unsaid, "provider_not_found"),
        ] {
            let execution = host.execute(asking(id, "hello")).await.unwrap();
            assert_eq!(code(&execution), expected);
        }
        assert!(site.provider.calls().is_empty() && site.spans("provider_request").await.is_empty());
    });
}

#[test]
fn a_provider_span_that_cannot_work_is_not_published() {
    block_on(async {
        let site = Site::with(budget(None, Some(10))).await;
        let host = site.host().await;
        let model = |model: Value| json!({"models": {FAST: model}});
        let other = Uuid::from_u128(9);
        for (change, said) in [
            (json!({"adapter": "nobody"}), "no adapter `nobody`, it has `scripted`, `other`"),
            (json!({"models": {}}), "at least one model"),
            (json!({"default_model": "slow"}), "no model `slow`"),
            (json!({"currency": "dollars"}), "three capital letters"),
            (json!({"currency": "EUR"}), "budget is in USD"),
            (json!({"currency": null}), "the prices need one"),
            (json!({"secrets": "x"}), "unknown field `secrets`"),
            (model(json!({"max_tokens": 0})), "max_tokens"),
            (model(json!({"max_tokens": -1})), "-1"),
            (model(json!({"max_tokens": 10})), "needs prices"),
            (model(json!({"max_tokens": 10, "prices": {"input": -3}})), "-3"),
            (model(json!({"max_tokens": 10, "prices": {"input": 2_000_000_000_000_000_u64}})), "input is over"),
            (model(json!({"max_tokens": 10, "prices": {"input": 1.5}})), "1.5"),
            (json!({"limits": {"concurrent": 0}}), "allows none"),
            (json!({"limits": {"tokens_per_day": -1}}), "-1"),
            (json!({"deadlines": {"total_ms": 0}}), "total_ms"),
            (json!({"retry": {"tries": 11}}), "from 1 to 10"),
            (json!({"breaker": {"failures": 51}}), "50 is the most"),
            (json!({"fallback": [{"provider": other}]}), "no other provider"),
            (json!({"fallback": vec![json!({"provider": other}); 8]}), "7 is the most"),
        ] {
            let refused = host.publish(provider(with(spec(), change.clone())), &key(PUBLISHER)).await;
            let message = refused.map(drop).unwrap_err().to_string();
            assert!(message.contains(said), "{change}: {message}");
        }
        publish(&host, spec()).await;
        assert!(matches!(
            host.publish(provider(spec()), &key(setup::STRANGER)).await,
            Err(HostError::Admit(_) | HostError::NotAuthorised(_))
        ));
    });
}

#[test]
fn a_request_that_no_provider_would_take_costs_no_call() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let tool_use = json!({"type": "tool_use", "id": "t1", "name": "add", "input": {}});
        let said = |blocks: Value| json!({"role": "assistant", "content": blocks});
        let user = |blocks: Value| json!({"role": "user", "content": blocks});
        let text = json!([{"type": "text", "text": "hello"}]);
        let result = |id: &str| json!([{"type": "tool_result", "id": id, "content": []}]);
        for (request, place) in [
            (json!({}), "messages"),
            (json!({"messages": [said(text.clone())]}), "messages"),
            (json!({"messages": [user(json!([{"type": "text", "text": "  \n"}]))]}), "messages"),
            (json!({"messages": [user(json!([{"type": "image", "media_type": "x"}]))]}), "data"),
            (json!({"messages": [user(json!([{"type": "hologram"}]))]}), "hologram"),
            (json!({"messages": [user(text.clone()), said(json!([tool_use])), user(text.clone())]}), "`t1`"),
            (json!({"messages": [user(text.clone()), said(json!([tool_use])), user(result("t2"))]}), "`t2`"),
            (json!({"messages": [user(text.clone()), said(json!([tool_use]))]}), "`t1`"),
            (json!({"messages": [user(result("t1"))]}), "messages[0].content[0]"),
            (json!({"messages": [user(text.clone())], "max_tokens": 0}), "max_tokens"),
            (json!({"messages": [user(text.clone())], "max_tokens": 101}), "100 at most"),
            (json!({"messages": [user(text.clone())], "temperature": 3}), "temperature"),
            (json!({"messages": [user(text.clone())], "tool_choice": "any"}), "tool_choice"),
            (json!({"messages": [user(text.clone())], "tools": [{"name": "a b", "input_schema": {}}]}), "tools[0].name"),
            (json!({"messages": [user(text.clone())], "output_schema": {"name": "x", "schema": 5}}), "output_schema"),
            (
                json!({"messages": [user(json!([{"type": "cache_point", "ttl": "5m"}, {"type": "cache_point", "ttl": "1h"}]))]}),
                "content[1]",
            ),
            (json!({"messages": [user(text.clone())], "model": "x"}), "unknown field `model`"),
        ] {
            let asked = Request::new(TENANT, USER, main, json!({"request": request})).this(PROVIDER_INVOKE);
            let execution = host.execute(asked).await.unwrap();
            assert_eq!(code(&execution), "provider:invalid", "{request}");
            let message = execution.result.unwrap_err().message;
            assert!(message.contains(place), "{request}: {message}");
        }
        for (input, said) in [
            (json!("hello"), "must be an object"),
            (json!({"model": FAST}), "no `request`"),
            (json!({"request": {}, "provider": "x"}), "no member `provider`"),
            (json!({"request": ModelRequest::ask("hi"), "model": "slow"}), "no model `slow`: it has `fast`"),
        ] {
            let execution = host.execute(Request::new(TENANT, USER, main, input.clone()).this(PROVIDER_INVOKE)).await.unwrap();
            let message = execution.result.unwrap_err().message;
            assert!(message.contains(said), "{input}: {message}");
        }
        assert!(site.provider.calls().is_empty() && site.spans("provider_request").await.is_empty());
    });
}

#[test]
fn odd_answers_are_recorded_as_what_they_are() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let deadlines = json!({"deadlines": {"total_ms": 20, "connect_ms": 5, "first_byte_ms": 5, "idle_ms": 5}, "retry": {"tries": 1, "pause_ms": 0, "max_pause_ms": 0}});
        let main = publish(&host, with(spec(), deadlines)).await;
        let answer = |content| Script::Answer(ModelAnswer::new(content, StopReason::EndTurn, Usage::default()));
        // A text with U+0000, which no span can hold.
        site.provider.then([answer(vec![Block::text("a\0b")])]);
        assert_eq!(output(&host.execute(asking(main, "q")).await.unwrap())["answer"]["content"][0]["text"], "a\u{fffd}b");
        // Tools are wanted, and the provider says that the turn has ended.
        site.provider.then([answer(vec![Block::ToolUse { id: "t".to_owned(), name: "add".to_owned(), input: json!({}) }])]);
        assert_eq!(output(&host.execute(asking(main, "q")).await.unwrap())["answer"]["stop"], "tool_use");
        // Reasoning with a signature and no text goes back as it came.
        let reasoning = Block::Reasoning { text: String::new(), signature: Some("c2ln".to_owned()) };
        site.provider.then([answer(vec![reasoning, Block::RedactedReasoning { data: "eA==".to_owned() }])]);
        let execution = host.execute(asking(main, "q")).await.unwrap();
        let content = &output(&execution)["answer"]["content"];
        assert_eq!(
            content,
            &json!([{"type": "reasoning", "text": "", "signature": "c2ln"}, {"type": "redacted_reasoning", "data": "eA=="}])
        );
        // 2 MB do not fit into a span.
        site.provider.then([answer(vec![Block::text("x".repeat(2 << 20))])]);
        assert_eq!(code(&host.execute(asking(main, "q")).await.unwrap()), "answer_limit");
        // An answer that never comes.
        site.provider.then([Script::Hang]);
        assert_eq!(code(&host.execute(asking(main, "q")).await.unwrap()), "provider:timed_out");
        let outcomes = site.spans("provider_execution").await;
        let usage = &outcomes[0].meta("details").unwrap()["usage"];
        assert_eq!(usage, &json!({}), "what is not said is not 0");
    });
}

#[test]
fn texts_become_vectors() {
    block_on(async {
        let site = Site::with(budget(Some(1000), None)).await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let embed = |texts: Value| {
            Request::new(TENANT, USER, main, json!({"request": {"texts": texts, "purpose": "query"}})).this(PROVIDER_EMBED)
        };
        let execution = host.execute(embed(json!(["one", "two"]))).await.unwrap();
        let answer = &output(&execution)["answer"];
        assert_eq!((answer["vectors"].as_array().unwrap().len(), &answer["dimensions"]), (2, &json!(8)));
        assert_eq!(site.used(TOKENS).await, 2);
        for texts in [json!([]), json!(["one", " "]), json!(vec!["x"; 97])] {
            assert_eq!(code(&host.execute(embed(texts)).await.unwrap()), "provider:invalid");
        }
    });
}

/// A listener that does not listen neither fails a call nor makes the provider look as if it failed.
#[test]
fn a_listener_that_does_not_take_its_pieces_is_left_behind() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let request = host.submit(asking(main, &"word ".repeat(300))).await.unwrap();
        let stopped = site.exec.streams().listen(TENANT, request.id);
        let execution = host.run_request(TENANT, request.id).await.unwrap();
        assert!(execution.result.is_ok());
        drop(stopped);
        assert!(host.execute(asking(main, "hello")).await.unwrap().result.is_ok());
    });
}

/// An adapter that falls silent after three pieces, and keeps no deadline itself.
struct Silent(AtomicUsize);

#[async_trait::async_trait]
impl Provider for Silent {
    fn adapter(&self) -> &str {
        "scripted"
    }

    async fn invoke(&self, _: &Endpoint<'_>, _: &ModelRequest) -> Result<ModelAnswer, ProviderError> {
        std::future::pending().await
    }

    async fn stream(&self, _: &Endpoint<'_>, _: &ModelRequest, chunks: &mut dyn Chunks) -> Result<ModelAnswer, ProviderError> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        for n in 0..3 {
            chunks.deliver(Chunk::Text(n.to_string())).await;
        }
        std::future::pending().await
    }
}

#[test]
fn a_call_that_is_stopped_after_a_piece_is_not_made_again() {
    block_on(async {
        let site = Site::new().await;
        let silent = Arc::new(Silent(AtomicUsize::new(0)));
        let exec = ProviderExec::new([Arc::clone(&silent) as Arc<dyn Provider>], HostSecrets::new());
        let builder = Host::builder().ledger(site.ledger.clone()).trust(trust()).key(key(HOST)).clock(site.clock.clone());
        let host = builder.install(exec.behaviours()).build().await.unwrap();
        let main = publish(&host, with(spec(), json!({"deadlines": {"total_ms": 30}}))).await;
        let request = host.submit(asking(main, "hello")).await.unwrap();
        let mut pieces = exec.streams().listen(TENANT, request.id);
        let execution = host.run_request(TENANT, request.id).await.unwrap();
        assert_eq!(code(&execution), "provider:timed_out");
        assert_eq!(silent.0.load(std::sync::atomic::Ordering::SeqCst), 1);
        let mut heard = 0;
        while pieces.try_recv().is_ok() {
            heard += 1;
        }
        let outcomes = site.spans("provider_execution").await;
        assert_eq!((heard, outcomes.len(), &outcomes[0].meta("details").unwrap()["chunks"]), (3, 1, &json!(3)));
    });
}

#[test]
fn a_secret_does_not_leave_its_path() {
    block_on(async {
        let secret = || Secret::new("hunter2".to_owned());
        let secrets = HostSecrets::new().text("main", secret(), ["https://gw.example/team-a"]);
        for good in ["https://gw.example/team-a", "https://gw.example/team-a/v1", "https://gw.example/team-a/v1/"] {
            secrets.secret("main", Some(good)).await.unwrap();
        }
        for bad in [
            "https://gw.example/team-a/../team-b",
            "https://gw.example/team-a/./../team-b",
            "https://gw.example/team-a/%2e%2e/team-b",
            "https://gw.example/team-a/..\\team-b",
            "https://gw.example/team-a/.\t./team-b",
            "https://gw.example/team-ab",
            "https://gw.example/team-a@evil",
            "https://gw.example/team-a?x=1",
        ] {
            assert!(secrets.secret("main", Some(bad)).await.is_err(), "{bad}");
        }
        assert!(secrets.secret("main", None).await.is_err());
    });
}

#[test]
fn a_paid_answer_is_kept_and_an_absurd_statement_does_not_use_up_the_day() {
    block_on(async {
        let site = Site::with(budget(Some(1_000_000), None)).await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let answer = |content, usage| Script::Answer(ModelAnswer::new(vec![content], StopReason::EndTurn, usage));
        let tool =
            Block::ToolUse { id: "t".to_owned(), name: "find".to_owned(), input: json!({"id": 1_234_567_890_123_456_789_u64}) };
        site.provider.then([answer(tool, Usage::of(10, 5))]);
        let execution = host.execute(asking(main, "q")).await.unwrap();
        assert_eq!(
            output(&execution)["answer"]["content"][0]["input"]["id"],
            "1234567890123456789",
            "a number that no span can hold is a text"
        );
        let mut absurd = Usage::of(u64::MAX, 5);
        absurd.raw = (0..100).fold(json!(u64::MAX), |raw, _| json!([raw]));
        site.provider.then([answer(Block::text("yes"), absurd)]);
        assert!(host.execute(asking(main, "q")).await.unwrap().result.is_ok());
        assert!(site.used(TOKENS).await < 10_000, "{}", site.used(TOKENS).await);
        assert!(host.execute(asking(main, "q")).await.unwrap().result.is_ok(), "the rest of the day is left");
        // What cannot be stored leaves what was used and what it cost.
        site.provider.then([answer(Block::text("x".repeat(2 << 20)), Usage::of(10, 5))]);
        assert_eq!(code(&host.execute(asking(main, "q")).await.unwrap()), "answer_limit");
        let last = site.spans("provider_execution").await.pop().unwrap();
        assert_eq!(last.meta("details").unwrap()["cost"]["currency"], "USD");
    });
}

/// A host without the adapter leaves the request to others.
#[test]
fn a_host_without_the_adapter_does_not_claim() {
    block_on(async {
        let site = Site::new().await;
        let main = publish(&site.host().await, spec()).await;
        let bare = ProviderExec::new([], HostSecrets::new());
        let builder = Host::builder().ledger(site.ledger.clone()).trust(trust()).key(key(HOST)).clock(site.clock.clone());
        let bare = builder.install(bare.behaviours()).build().await.unwrap();
        let error = bare.execute(asking(main, "hello")).await.unwrap_err().to_string();
        assert!(error.contains("adapter `scripted`"), "{error}");
        assert_eq!(site.spans("request").await.len(), 1, "it is still open, and has no other version");
    });
}
