//! Providers and hosts that fail in the middle.

use logline_core::contract::provider::{ErrorKind, ModelRequest, Provider, ProviderError};
use logline_core::ledger::{AppendOptions, Ledger as _, LedgerExt as _, WorkQueue as _};
use logline_core::request::{OnUnknown, Request};
use logline_core::{Clock as _, Draft, Host, Scope, Signer as _, SystemClock, SystemIds, Timestamp};
use logline_kernels::provider::{HostSecrets, PROVIDER_INVOKE, ProviderExec, Script};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::setup::{HOST, Mortal, TENANT, USER, block_on, key, output, trust};
use crate::site::*;

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
            assert!(execution.result.unwrap_err().message.contains("the calls of the last 3 requests failed"));
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

/// The first answer by a schema may take minutes, because the provider compiles the schema.
#[test]
fn a_provider_that_is_slow_with_a_new_schema_is_not_left_alone() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let short = json!({
            "breaker": {"failures": 2, "open_ms": 30_000},
            "retry": {"tries": 1, "pause_ms": 0, "max_pause_ms": 0},
            "deadlines": {"first_byte_ms": 10, "schema_ms": 30},
        });
        let main = publish(&host, with(spec(), short)).await;
        let schema = json!({"name": "answer", "schema": {"type": "object"}});
        let by_schema = |text: &str| {
            let mut request = json!(ModelRequest::ask(text));
            request["output_schema"] = schema.clone();
            Request::new(TENANT, USER, main, json!({"request": request})).this(PROVIDER_INVOKE)
        };
        site.provider.then((0..3).map(|_| Script::Hang));
        for _ in 0..3 {
            site.clock.advance(Duration::from_secs(1));
            assert_eq!(code(&host.execute(by_schema("hello")).await.unwrap()), "provider:timed_out");
        }
        // It is asked all the same, and answers.
        site.provider.then([Script::Text("{}".to_owned())]);
        host.execute(by_schema("hello")).await.unwrap().result.unwrap();
        assert_eq!(site.provider.calls().len(), 4);
        let outcomes = site.spans("provider_execution").await;
        let slow = outcomes.iter().filter(|outcome| outcome.meta("details").unwrap()["new_schema"] == true);
        assert_eq!((slow.count(), outcomes.len()), (3, 4));
        // From then on it has the time of every call, and failures count.
        site.provider.then([Script::Hang, Script::Hang]);
        for expected in ["provider:timed_out", "provider:timed_out", "provider:not_ready"] {
            site.clock.advance(Duration::from_secs(1));
            assert_eq!(code(&host.execute(by_schema("hello")).await.unwrap()), expected);
        }
    });
}

/// One user asks what the provider fails at, over and over; and rows that no host has signed say that it fails.
#[test]
fn neither_the_tries_of_one_request_nor_forged_outcomes_keep_others_from_a_provider() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let main = publish(&host, with(spec(), json!({"breaker": {"failures": 2, "open_ms": 30_000}}))).await;
        site.provider.then((0..3).map(|_| fail(ErrorKind::ModelError)));
        assert_eq!(code(&host.execute(asking(main, "a broken picture")).await.unwrap()), "provider:model_error");
        assert!(host.execute(asking(main, "hello")).await.unwrap().result.is_ok(), "three tries are one failure");
        let forge = async |at: Timestamp, signer: u8| {
            let forged = Draft::new("provider_execution")
                .tenant(TENANT)
                .owner("mallory")
                .who("mallory")
                .this("provider.invoke")
                .status("error")
                .at(at)
                .parent(main)
                .related([Uuid::from_u128(u128::from(signer) << 64 | u128::try_from(at.unix_micros()).unwrap())])
                .error(json!({"code": "provider:timed_out", "message": "no"}));
            let forged = forged.stamp(&SystemClock, &SystemIds).seal_local(&key(signer)).unwrap();
            site.ledger.append_one(&Scope::Operator, forged).await.unwrap();
        };
        let now = site.clock.now();
        for seconds in 0..5 {
            forge(now.saturating_sub(Duration::from_secs(seconds)), 66).await;
        }
        assert!(host.execute(asking(main, "hello")).await.unwrap().result.is_ok(), "who has signed it is no host");
        // A host whose clock is years ahead opens nothing for years.
        for seconds in 0..5 {
            forge("2099-01-01T00:00:00Z".parse::<Timestamp>().unwrap().saturating_add(Duration::from_secs(seconds)), HOST)
                .await;
        }
        assert!(host.execute(asking(main, "hello")).await.unwrap().result.is_ok());
    });
}

#[test]
fn a_flood_of_forged_outcomes_hides_no_failure_from_the_breaker() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let once =
            json!({"breaker": {"failures": 2, "open_ms": 30_000}, "retry": {"tries": 1, "pause_ms": 0, "max_pause_ms": 0}});
        let main = publish(&host, with(spec(), once)).await;
        site.provider.then((0..2).map(|_| fail(ErrorKind::ModelError)));
        for _ in 0..2 {
            assert_eq!(code(&host.execute(asking(main, "hello")).await.unwrap()), "provider:model_error");
        }
        let forged = |_| {
            let draft = Draft::new("provider_execution").tenant(TENANT).owner("mallory").who("mallory").this("provider.invoke");
            let draft = draft.status("complete").parent(main).at(site.clock.now());
            draft.stamp(&SystemClock, &SystemIds).seal_local(&key(66)).unwrap()
        };
        for _ in 0..5 {
            let batch = (0..100).map(forged).collect();
            site.ledger.append(&Scope::Operator, batch, &AppendOptions::default()).await.unwrap();
        }
        assert_eq!(code(&host.execute(asking(main, "hello")).await.unwrap()), "provider:not_ready");
    });
}

#[test]
fn an_answer_that_was_paid_for_is_read_also_by_a_host_that_cannot_ask_the_provider() {
    block_on(async {
        let mut recorded = 0;
        for step in 0..8 {
            let site = Site::new().await;
            let host = site.host().await;
            let main = publish(&host, with(spec(), json!({"secret": "main", "url": "https://models.example"}))).await;
            let request = host.submit(asking(main, "hello").max_attempts(3)).await.unwrap();
            let died = Arc::new(Notify::new());
            let mortal = Mortal { key: key(HOST), left: AtomicUsize::new(step), died: Arc::clone(&died) };
            let builder = Host::builder().ledger(site.ledger.clone()).trust(trust()).key(mortal).clock(site.clock.clone());
            let dying = builder.install(site.exec.behaviours()).build().await.unwrap();
            tokio::select! {
                biased;
                _ = dying.run_request(TENANT, request.id) => {}
                () = died.notified() => {}
            }
            let answered = site.outcomes().await.iter().any(|outcome| outcome == "complete");
            site.clock.advance(Duration::from_secs(3600));
            let adapters: [Arc<dyn Provider>; 1] = [Arc::new(site.provider.clone())];
            let exec = ProviderExec::new(adapters, HostSecrets::new());
            let builder = Host::builder().ledger(site.ledger.clone()).trust(trust()).key(key(HOST)).clock(site.clock.clone());
            let without_secret = builder.install(exec.behaviours()).build().await.unwrap();
            let calls = site.provider.calls().len();
            match without_secret.run_request(TENANT, request.id).await {
                Ok(again) if answered => {
                    assert_eq!(output(&again)["answer"]["content"][0]["text"], "hello", "step {step}");
                    recorded += 1;
                }
                Ok(again) if calls > 0 => assert_eq!(code(&again), "outcome_unknown", "step {step}"),
                Ok(again) => assert_eq!(code(&again), "secret_not_available", "step {step}"),
                // It had ended before the host died.
                Err(_) => assert!(answered, "step {step}"),
            }
            assert_eq!(site.provider.calls().len(), calls, "step {step}: nobody is asked again");
        }
        assert!(recorded >= 1, "at least one step is between the answer and the end");
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
