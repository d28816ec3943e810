//! Requests through `run_code`: what is recorded, who may run what, and what a function may ask.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::time::Duration;

use logline_core::ledger::{Ledger as _, Parking, Poll, WorkQueue as _};
use logline_core::request::{NotRunnable, Request};
use logline_core::{
    Clock as _, Draft, Execution, Host, HostError, Scope, SignedSpan, Signer as _, SystemClock, Verifier, Visibility, ids,
};
use logline_wasm::WasmSandbox;
use serde_json::json;
use uuid::Uuid;

use setup::{
    HOST, PUBLISHER, STRANGER, TENANT, USER, ask, block_on, echo, execute, failure, function, host, host_with, key, module,
    output, publish, run, smuggle, spans,
};

#[test]
fn a_request_becomes_versions_and_one_execution() {
    block_on(async {
        let (ledger, host) = host().await;
        let id = host.publish(function(&echo()).input(json!({"rate": 0.25})), &key(PUBLISHER)).await.unwrap().id;
        let done = execute(&host, id, json!({"amount": 12})).await;
        let versions = ledger.history(&Scope::Operator, TENANT, done.request.id, 0, 10).await.unwrap();
        let states: Vec<_> = versions.iter().map(|v| v.status.clone().unwrap()).collect();
        assert_eq!(states, ["scheduled", "running", "complete"]);
        assert_eq!(versions[1].meta("attempt"), Some(&json!(1)));
        assert_eq!(versions[2].meta("execution"), Some(&json!(done.span.id.to_string())));
        let span: &SignedSpan = &done.span;
        assert_eq!(span.id, ids::execution(TENANT, done.request.id, 1));
        assert_eq!((span.parent_id, &span.related_to), (Some(id), &vec![done.request.id, id]));
        assert_eq!((&span.trace_id, &span.owner_id), (&versions[0].trace_id, &USER.to_owned()));
        assert_eq!(span.input, Some(json!({"amount": 12})));
        // The guest was called with the function, the request, its configuration and the input.
        let call = output(&done);
        assert_eq!(call["config"], json!({"rate": 0.25}));
        assert_eq!(call["input"], json!({"amount": 12}));
        assert_eq!(call["request"], json!({"id": done.request.id.to_string(), "attempt": 1}));
        assert_eq!(call["function"]["id"], json!(id.to_string()));
        let receipt = span.meta("receipt").unwrap();
        assert!(receipt["fuel_used"].as_u64().unwrap() > 0 && receipt["peak_memory_bytes"].as_u64().unwrap() >= 131_072);
        for row in versions.into_iter().chain([span.clone()]) {
            row.verify(&mut Verifier::new()).unwrap();
        }
    });
}

#[test]
fn a_function_whose_last_version_is_not_active_is_stopped() {
    block_on(async {
        let (_, host) = host().await;
        let first = host.publish(function(&echo()).status("active"), &key(PUBLISHER)).await.unwrap();
        let mut last = first.clone();
        for (status, runs) in [("retired", false), ("active", true), ("Active", false), ("paused", true), ("disabled", false)] {
            let next = Draft::next_version(&last).status(status);
            last = host.publish(next, &key(PUBLISHER)).await.unwrap();
            let done = execute(&host, first.id, json!(1)).await;
            match runs {
                true => assert!(done.result.is_ok(), "{status}"),
                false => {
                    let (code, message) = failure(&done);
                    assert!(code == "function_stopped" && message.contains(status), "{status}: {code} {message}");
                }
            }
        }
    });
}

#[test]
fn the_same_run_uses_the_same_fuel() {
    block_on(async {
        let (_, host) = host().await;
        let id = publish(&host, &echo()).await;
        let fuel = |e: &Execution| e.span.meta("receipt").unwrap()["fuel_used"].as_u64().unwrap();
        let first = execute(&host, id, json!(1)).await;
        let second = execute(&host, id, json!(1)).await;
        assert_eq!(fuel(&first), fuel(&second));
    });
}

#[test]
fn an_idempotency_key_makes_one_request_and_one_execution() {
    block_on(async {
        let (ledger, host) = host().await;
        let id = publish(&host, &echo()).await;
        let request = || Request::new(TENANT, USER, id, json!(7)).idempotency_key("order-1");
        let first = host.execute(request()).await.unwrap();
        let again = host.execute(request()).await.unwrap();
        assert_eq!(first, again);
        assert_eq!(spans(&ledger, "execution").await.len(), 1);
        let other = host.execute(Request::new(TENANT, "bob", id, json!(7)).idempotency_key("order-1")).await.unwrap();
        assert_ne!(other.request.id, first.request.id, "another owner's key is another request");
    });
}

// Who may run what.

#[test]
fn a_function_signed_by_nobodys_publisher_does_not_run() {
    block_on(async {
        let (ledger, host) = host().await;
        for signer in [STRANGER, HOST] {
            let id = smuggle(&ledger, function(&echo()), signer).await.id;
            let done = execute(&host, id, json!(1)).await;
            let (code, message) = failure(&done);
            assert_eq!(code, "function_not_authorised");
            assert!(message.contains("the signer must be publisher of tenant `acme`"), "{message}");
            assert!(done.span.meta("receipt").is_none(), "no code ran");
        }
        let error = host.publish(function(&echo()), &key(STRANGER)).await.unwrap_err();
        assert!(matches!(error, HostError::Admit(_)), "{error}");
    });
}

/// Whoever can write to the store could otherwise stop every function with a row of each.
#[test]
fn a_newer_version_by_a_stranger_neither_runs_nor_stops_a_function() {
    block_on(async {
        let (ledger, host) = host().await;
        let good = host.publish(function(&echo()).status("active"), &key(PUBLISHER)).await.unwrap();
        let other = smuggle(&ledger, Draft::next_version(&good).code("(module)"), STRANGER).await;
        assert_eq!(output(&execute(&host, good.id, json!(1)).await)["input"], 1);
        smuggle(&ledger, Draft::next_version(&other).status("stopped"), STRANGER).await;
        let done = execute(&host, good.id, json!(2)).await;
        assert_eq!(output(&done)["input"], 2);
        assert_eq!(output(&done)["function"]["curr_hash"], json!(good.seal.curr_hash));
    });
}

#[test]
fn a_function_that_is_missing_hidden_or_something_else_does_not_run() {
    block_on(async {
        let (ledger, host) = host().await;
        let nothing = execute(&host, Uuid::from_u128(1), json!(1)).await;
        assert_eq!(failure(&nothing).0, "function_not_found");
        let private = host.publish(function(&echo()).visibility(Visibility::Private), &key(PUBLISHER)).await.unwrap();
        let hidden = execute(&host, private.id, json!(1)).await;
        assert_eq!(failure(&hidden).0, "function_not_found", "it runs with the rights of whoever asks");
        let mut policy = function(&echo());
        policy.columns_mut().entity_type = "policy".to_owned();
        let policy = smuggle(&ledger, policy, PUBLISHER).await;
        let other = execute(&host, policy.id, json!(1)).await;
        assert_eq!(failure(&other).0, "not_a_function");
        let native = host.publish(function("run_code@2").runtime("native@1"), &key(PUBLISHER)).await.unwrap();
        let kernel = execute(&host, native.id, json!(1)).await;
        assert_eq!(failure(&kernel).0, "runtime_not_available");
        let foreign = smuggle(&ledger, function(&echo()).tenant("globex").visibility(Visibility::Public), PUBLISHER).await;
        let foreign = execute(&host, foreign.id, json!(1)).await;
        assert_eq!(failure(&foreign).0, "function_not_found", "another tenant's function is not this tenant's");
    });
}

#[test]
fn a_function_whose_row_was_changed_or_never_signed_does_not_run() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = logline_sqlite::SqliteLedger::open(&path).unwrap();
        setup::trust().publish(&ledger, &setup::manifest(), &key(setup::ROOT), &SystemClock).await.unwrap();
        logline_kernels::install(&ledger, &logline_kernels::all(), &key(setup::SYSTEM_PUBLISHER), &SystemClock).await.unwrap();
        let builder = Host::builder().ledger(ledger.clone()).trust(setup::trust()).key(key(HOST));
        let host = builder.install(logline_kernels::all()).sandbox(WasmSandbox::new().unwrap()).build().await.unwrap();
        let zeros = "0".repeat(128);
        for set in ["code = '(module)'".to_owned(), format!("signature = '{zeros}'")] {
            let id = publish(&host, &echo()).await;
            assert!(execute(&host, id, json!(1)).await.result.is_ok());
            let sql = format!(
                "DROP TRIGGER IF EXISTS ur_no_update; UPDATE universal_registry SET {set} WHERE id = '{id}' AND entity_type = 'function'"
            );
            rusqlite::Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
            let done = execute(&host, id, json!(1)).await;
            let (code, message) = failure(&done);
            assert_eq!(code, "function_not_verified", "{message}");
            assert!(done.span.meta("receipt").is_none(), "no code ran");
        }
    });
}

#[test]
fn a_request_signed_by_a_stranger_is_not_carried_out() {
    block_on(async {
        let (ledger, host) = host().await;
        let id = publish(&host, &echo()).await;
        let mut draft = Draft::new("request").tenant(TENANT).owner(USER).who("w").this("t").parent(id).status("scheduled");
        draft.columns_mut().input = Some(json!(1));
        let request = smuggle(&ledger, draft, STRANGER).await;
        let error = host.run_request(TENANT, request.id).await.unwrap_err();
        assert!(matches!(error, HostError::NotAuthorised(_)), "{error}");
        assert!(spans(&ledger, "execution").await.is_empty());
        let closed = ledger.get(&Scope::Operator, TENANT, request.id).await.unwrap();
        assert_eq!(closed.error.as_ref().unwrap()["code"], "request_not_authorised");
    });
}

#[test]
fn a_request_that_could_never_be_closed_is_refused_and_closed() {
    block_on(async {
        let (ledger, host) = host().await;
        let id = publish(&host, &echo()).await;
        let large = Request::new(TENANT, USER, id, json!(1)).this("x".repeat(1_000_000));
        let error = host.submit(large).await.unwrap_err();
        assert!(matches!(error, HostError::NotRunnable(NotRunnable::Malformed { .. })), "{error}");
        let draft = || Draft::new("request").tenant(TENANT).owner(USER).who("w").this("t").parent(id).status("scheduled");
        for hostile in [draft().content(json!("x".repeat(1_000_000))), draft().meta("attempt", u32::MAX)] {
            let request = smuggle(&ledger, hostile, HOST).await;
            let error = host.run_request(TENANT, request.id).await.unwrap_err();
            assert!(matches!(error, HostError::NotRunnable(NotRunnable::Malformed { .. })), "{error}");
            let closed = ledger.get(&Scope::Operator, TENANT, request.id).await.unwrap();
            assert_eq!((closed.seq, closed.status.as_deref()), (1, Some("error")));
        }
        let mut note = draft().meta("attempt", 1);
        note.columns_mut().entity_type = "note".to_owned();
        let note = smuggle(&ledger, note, HOST).await;
        assert!(host.run_request(TENANT, note.id).await.is_err());
        assert_eq!(ledger.get(&Scope::Operator, TENANT, note.id).await.unwrap().seq, 0, "what is no request is left alone");
        let last = smuggle(&ledger, draft().seq(logline_core::MAX_INTEGER), HOST).await;
        assert!(host.run_request(TENANT, last.id).await.is_err());
    });
}

#[test]
fn executing_a_request_for_later_returns_at_once() {
    block_on(async {
        let (_, host) = host().await;
        let id = publish(&host, &echo()).await;
        let later = Request::new(TENANT, USER, id, json!(1)).due_at("2999-01-01T00:00:00Z".parse().unwrap());
        let waiting = tokio::time::timeout(Duration::from_secs(30), host.execute(later)).await.expect("it must not wait");
        let error = waiting.unwrap_err();
        assert!(matches!(error, HostError::NotRunnable(NotRunnable::NotDue { .. })), "{error}");
    });
}

#[test]
fn a_request_runs_once_and_a_lost_attempt_is_recorded() {
    block_on(async {
        let (ledger, host) = host().await;
        let id = publish(&host, &echo()).await;
        let done = execute(&host, id, json!(1)).await;
        let again = host.run_request(TENANT, done.request.id).await.unwrap_err();
        assert!(matches!(again, HostError::NotRunnable(NotRunnable::Ended { .. })), "{again}");
        // A worker that claimed and never came back, before and after its lease.
        let claimed = |lease_ms: u64| {
            let request = Request::new(TENANT, USER, id, json!(2));
            let (host, ledger) = (host.clone(), ledger.clone());
            async move {
                let first = host.submit(request).await.unwrap();
                let running = Draft::next_version(&first).status("running").meta("attempt", 1).meta("lease_ms", lease_ms);
                smuggle(&ledger, running, HOST).await
            }
        };
        let busy = claimed(3_600_000).await;
        let error = host.run_request(TENANT, busy.id).await.unwrap_err();
        assert!(matches!(error, HostError::NotRunnable(NotRunnable::NotDue { .. })), "{error}");
        let lost = claimed(0).await;
        let done = host.run_request(TENANT, lost.id).await.unwrap();
        assert_eq!(done.request.meta("attempt"), Some(&json!(2)));
        let first = ledger.get(&Scope::Operator, TENANT, ids::execution(TENANT, lost.id, 1)).await.unwrap();
        assert_eq!(first.error.as_ref().unwrap()["code"], "lost");
    });
}

#[test]
fn a_dropped_run_leaves_the_request_to_its_lease() {
    block_on(async {
        let (ledger, host) = host_with(|limits| {
            limits.fuel = 100_000_000_000;
            limits.timeout_ms = 3_600_000;
        })
        .await;
        let id = publish(&host, &module("", "(loop $again (br $again)) (i64.const 0)")).await;
        let request = host.submit(Request::new(TENANT, USER, id, json!(1))).await.unwrap();
        let outcome = tokio::time::timeout(Duration::from_millis(100), host.run_request(TENANT, request.id)).await;
        assert!(outcome.is_err(), "the guest was still spinning");
        let head = ledger.get(&Scope::Operator, TENANT, request.id).await.unwrap();
        assert_eq!(head.status.as_deref(), Some("running"));
        assert!(spans(&ledger, "execution").await.is_empty());
    });
}

#[test]
fn a_slow_run_is_marked() {
    block_on(async {
        let mut manifest = setup::manifest();
        manifest.times.slow_ms = 0;
        manifest.times.timeout_ms = Some(5_000);
        let ledger = setup::ledger(&manifest).await;
        let host = setup::host_of(&ledger).await;
        // Long enough for a millisecond on any machine.
        let work = module(
            "",
            "(local $n i32) (loop $again (local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $again (i32.lt_u (local.get $n) (i32.const 10000000)))) (call $pack (local.get $ptr) (local.get $len))",
        );
        let done = run(&host, &work, json!(1)).await;
        let marks = spans(&ledger, "status_patch").await;
        assert_eq!(marks.len(), 1);
        assert_eq!((marks[0].status.as_deref(), marks[0].parent_id), (Some("slow"), Some(done.span.id)));
    });
}

// What a function may ask.

#[test]
fn now_is_the_attempts_start() {
    block_on(async {
        let (ledger, host) = host().await;
        let done = run(&host, &ask(2, "null"), json!(1)).await;
        let running = ledger.history(&Scope::Operator, TENANT, done.request.id, 1, 1).await.unwrap();
        assert_eq!(output(&done)["now"], json!(running[0].at.to_string()));
    });
}

#[test]
fn logs_are_kept_with_the_execution_up_to_their_limit() {
    block_on(async {
        let (_, host) = host_with(|limits| limits.log_bytes = 60).await;
        let line = r#"{"level":"info","message":"hello"}"#;
        let logs = module(
            &format!(r#"(data (i32.const 1024) "{}")"#, line.replace('"', "\\22")),
            &format!(
                "(drop (call $host (i32.const 1) (i32.const 1024) (i32.const {0}))) (drop (call $host (i32.const 1) (i32.const 1024) (i32.const {0}))) (call $pack (local.get $ptr) (local.get $len))",
                line.len()
            ),
        );
        let done = run(&host, &logs, json!(1)).await;
        assert_eq!(done.span.meta("logs"), Some(&json!([{"level": "info", "message": "hello"}])));
        assert_eq!(done.span.meta("logs_dropped"), Some(&json!(1)));
    });
}

#[test]
fn a_query_sees_what_the_requests_owner_may_see() {
    block_on(async {
        let (ledger, host) = host().await;
        let note = |n: u128, tenant: &str, owner: &str, visibility| {
            Draft::new("note").id(Uuid::from_u128(n)).tenant(tenant).owner(owner).who("w").this("t").visibility(visibility)
        };
        smuggle(&ledger, note(1, TENANT, USER, Visibility::Private), HOST).await;
        smuggle(&ledger, note(2, TENANT, "bob", Visibility::Private), HOST).await;
        smuggle(&ledger, note(3, TENANT, "bob", Visibility::Tenant), HOST).await;
        smuggle(&ledger, note(4, "globex", USER, Visibility::Private), HOST).await;
        smuggle(&ledger, note(5, "globex", "eve", Visibility::Public), HOST).await;
        let seen = async |query: &str| {
            let done = run(&host, &ask(4, query), json!(1)).await;
            let spans = output(&done)["spans"].as_array().unwrap_or_else(|| panic!("{:?}", done.result)).clone();
            spans.iter().map(|s| s["id"].as_str().unwrap().parse::<Uuid>().unwrap().as_u128()).collect::<Vec<_>>()
        };
        assert_eq!(seen(r#"{"entity_type":"note"}"#).await, [1, 3]);
        assert_eq!(seen(r#"{"entity_type":"note","tenant":"globex"}"#).await, [5]);
        assert_eq!(seen(r#"{"entity_type":"note","tenant":"acme","limit":1}"#).await, [1]);
        for (query, reason) in [
            (r#"{"limit":101}"#, "`limit` must be a number from 1 to 100"),
            (r#"{"owner":"bob"}"#, "`owner` is unknown"),
            (r#"{"id":"x"}"#, "`id` must be a uuid"),
            (r#"{"cursor":"garbage"}"#, "is not from this query"),
            (r#"[]"#, "query takes an object"),
        ] {
            let done = run(&host, &ask(4, query), json!(1)).await;
            let answer = output(&done);
            assert_eq!(answer["code"], "invalid_query", "{query}");
            assert!(answer["message"].as_str().unwrap().contains(reason), "{answer}");
        }
    });
}

#[test]
fn what_is_emitted_is_committed_with_the_execution_as_the_owners() {
    block_on(async {
        let (ledger, host) = host().await;
        let done = run(&host, &ask(5, r#"{"entity_type":"alert","status":"open","content":{"n":1}}"#), json!(1)).await;
        let alerts = spans(&ledger, "alert").await;
        assert_eq!(alerts.len(), 1);
        let alert = &alerts[0];
        assert_eq!(output(&done)["id"], json!(alert.id.to_string()));
        assert_eq!((alert.owner_id.as_str(), alert.tenant_id.as_str(), &alert.trace_id), (USER, TENANT, &done.span.trace_id));
        assert_eq!(alert.seal.public_key, done.span.seal.public_key);
        assert_eq!(alert.related_to, [done.span.id]);
    });
}

#[test]
fn a_function_cannot_escalate_through_emit() {
    block_on(async {
        let (ledger, host) = host().await;
        for (draft, code) in [
            (r#"{"entity_type":"function","code":"(module)"}"#, "not_permitted"),
            (r#"{"entity_type":"policy"}"#, "not_permitted"),
            (r#"{"entity_type":"manifest"}"#, "not_permitted"),
            (r#"{"entity_type":"approval"}"#, "not_permitted"),
            (r#"{"entity_type":"execution"}"#, "not_permitted"),
            (r#"{"entity_type":"boot_event"}"#, "not_permitted"),
            (r#"{"entity_type":"memory_audit"}"#, "not_permitted"),
            (r#"{"entity_type":"logline_note"}"#, "not_permitted"),
            (r#"{"entity_type":"request","this":"policy.due","status":"scheduled"}"#, "not_permitted"),
            (r#"{"entity_type":"request","this":"anything.else","status":"scheduled"}"#, "not_permitted"),
            (r#"{"entity_type":"note","owner_id":"bob"}"#, "not_permitted"),
            (r#"{"entity_type":"note","tenant_id":"globex"}"#, "not_permitted"),
            (r#"{"entity_type":"note","id":"00000000-0000-4000-8000-000000000009"}"#, "not_permitted"),
            (r#"{"entity_type":"note","seq":3}"#, "not_permitted"),
            (r#"{"entity_type":"note","at":"2020-01-01T00:00:00Z"}"#, "not_permitted"),
            (r#"{"entity_type":"note","unknown":1}"#, "invalid_draft"),
            (r#"{"status":"open"}"#, "invalid_draft"),
            (r#""note""#, "invalid_draft"),
        ] {
            let done = run(&host, &ask(5, draft), json!(1)).await;
            let answer = output(&done);
            assert_eq!(answer["code"], code, "{draft}: {answer}");
        }
        for entity_type in ["note", "policy", "approval", "memory_audit"] {
            assert!(spans(&ledger, entity_type).await.is_empty(), "{entity_type}");
        }
        assert!(spans(&ledger, "function").await.iter().all(|f| f.seal.public_key != key(HOST).public_key()));
        assert_eq!((spans(&ledger, "manifest").await.len(), spans(&ledger, "boot_event").await.len()), (1, 1));
    });
}

#[test]
fn what_a_failed_function_emitted_never_happened() {
    block_on(async {
        let (ledger, host) = host().await;
        let draft = r#"{"entity_type":"alert"}"#;
        let code = module(
            &format!(r#"(data (i32.const 1024) "{}")"#, draft.replace('"', "\\22")),
            &format!("(drop (call $host (i32.const 5) (i32.const 1024) (i32.const {}))) (unreachable)", draft.len()),
        );
        let done = run(&host, &code, json!(1)).await;
        assert_eq!(failure(&done).0, "trap");
        assert!(spans(&ledger, "alert").await.is_empty());
    });
}

#[test]
fn an_unknown_operation_is_an_answer_not_the_end() {
    block_on(async {
        let (_, host) = host().await;
        for (op, code) in [
            (0, "unknown_operation"),
            (7, "unknown_operation"),
            (-1, "unknown_operation"),
            (3, "invalid_random"),
            (6, "invalid_call"),
        ] {
            let done = run(&host, &ask(op, "null"), json!(1)).await;
            assert_eq!(output(&done)["code"], code, "operation {op}");
        }
        let done = run(&host, &ask(2, "{nonsense"), json!(1)).await;
        assert_eq!(output(&done)["code"], "invalid_json");
    });
}

#[test]
fn random_bytes_can_be_drawn_again_from_the_recorded_seed() {
    block_on(async {
        let (_, host) = host().await;
        // Two draws in one call: 4 bytes, then 6, of which the second is answered.
        let four = r#"{"bytes":4}"#;
        let six = r#"{"bytes":6}"#;
        let data = |at: u32, text: &str| format!("(data (i32.const {at}) \"{}\")", text.replace('"', "\\22"));
        let body = format!(
            "(drop (call $host (i32.const 3) (i32.const 1024) (i32.const {}))) (call $host (i32.const 3) (i32.const 2048) (i32.const {}))",
            four.len(),
            six.len()
        );
        let code = module(&(data(1024, four) + &data(2048, six)), &body);
        let drawn = run(&host, &code, json!(null)).await;
        let again = run(&host, &code, json!(null)).await;
        assert_ne!(output(&drawn), output(&again), "each attempt has a seed of its own");
        let seed: logline_core::Hash = drawn.span.meta("journal").unwrap()["seed"].as_str().unwrap().parse().unwrap();
        let mut stream = [0; 10];
        blake3::Hasher::new().update(&seed.0).finalize_xof().fill(&mut stream);
        let hex: String = stream[4..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(output(&drawn)["hex"], hex);
        let none = run(&host, &echo(), json!(null)).await;
        assert!(none.span.meta("journal").unwrap().get("seed").is_none(), "none was drawn");
    });
}

/// Between a worker's poll and its claims a request is `scheduled`, and due for nobody else.
#[test]
fn a_caller_waits_for_a_worker_that_is_about_to_claim_its_request() {
    block_on(async {
        let (ledger, host) = host().await;
        let id = publish(&host, &echo()).await;
        let ask = |key: &str| Request::new(TENANT, USER, id, json!(7)).idempotency_key(key);
        host.submit(ask("held")).await.unwrap();
        let polled = ledger.take(&Poll::new(1).hold(Duration::from_secs(60))).await.unwrap();
        let due = polled.due.into_iter().next().unwrap();
        let worker = async {
            let claim = host.claim(due, polled.now, Duration::from_secs(60)).await.unwrap();
            host.finish(claim).await.unwrap()
        };
        // The caller comes first.
        let (asked, worked) = futures_util::future::join(host.execute(ask("held")), worker).await;
        assert_eq!(asked.unwrap().span.id, worked.span.id);
        // What is for later, or parked, is told at once.
        let later = ask("later").due_at(SystemClock.now().saturating_add(Duration::from_secs(3600)));
        let told = host.execute(later).await.unwrap_err();
        assert!(matches!(told, HostError::NotRunnable(NotRunnable::NotDue { .. })), "{told}");
        let parked = host.submit(ask("parked")).await.unwrap();
        let until = SystemClock.now().saturating_add(Duration::from_secs(3600));
        ledger.park(&[Parking::of(&parked, Some(until), "quota".to_owned())]).await.unwrap();
        let told = host.execute(ask("parked")).await.unwrap_err();
        assert!(matches!(told, HostError::NotRunnable(NotRunnable::Deferred { until: at, .. }) if at == until), "{told}");
    });
}
