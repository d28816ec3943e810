//! Functions that misbehave: whatever they do, the attempt ends within its limits and is recorded with a stable code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use serde_json::{Value, json};

use std::time::Duration;

use logline_core::ledger::{Due, Ledger as _, WorkQueue as _};
use logline_core::request::{NotRunnable, Request};
use logline_core::roles::Role;
use logline_core::{Draft, Execution, HostError, IdSource as _, Scope, Signer as _, SystemIds, Timestamp};
use setup::{
    HOST, PUBLISHER, TENANT, USER, answer, ask, block_on, echo, execute, failure, function, host, host_of, host_with, key,
    ledger, manifest, module, output, publish, run, smuggle, spans,
};

#[test]
fn a_function_that_loops_for_ever_runs_out_of_fuel() {
    block_on(async {
        let (_, host) = host().await;
        let done = run(&host, &module("", "(loop $again (br $again)) (i64.const 0)"), json!(1)).await;
        let (code, message) = failure(&done);
        assert_eq!(code, "fuel_exhausted");
        assert!(message.contains("used up its 100000000 units of fuel"), "{message}");
    });
}

#[test]
fn a_function_with_fuel_to_burn_meets_the_clock() {
    block_on(async {
        let (_, host) = host_with(|limits| {
            limits.fuel = 100_000_000_000;
            limits.timeout_ms = 100;
        })
        .await;
        let done = run(&host, &module("", "(loop $again (br $again)) (i64.const 0)"), json!(1)).await;
        let (code, message) = failure(&done);
        assert_eq!(code, "timeout");
        assert!(message.contains("did not end within 100 ms"), "{message}");
    });
}

#[test]
fn a_function_that_allocates_without_end_is_stopped() {
    block_on(async {
        let (_, host) = host_with(|limits| limits.memory_bytes = 1 << 20).await;
        let greedy =
            module("", "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)");
        let done = run(&host, &greedy, json!(1)).await;
        let (code, message) = failure(&done);
        assert_eq!(code, "memory_limit");
        assert!(message.contains("more than 1048576 bytes of memory"), "{message}");
        let born_large = echo().replace("\"memory\") 2", "\"memory\") 100");
        assert_eq!(failure(&run(&host, &born_large, json!(1)).await).0, "memory_limit");
        let beyond_any = echo().replace("\"memory\") 2", "\"memory\") 2000");
        assert!(["memory_limit", "invalid_module"].contains(&failure(&run(&host, &beyond_any, json!(1)).await).0));
    });
}

#[test]
fn a_function_that_returns_a_hundred_megabytes_is_refused_unread() {
    block_on(async {
        let (_, host) = host().await;
        let done = run(&host, &module("", "(call $pack (i32.const 0) (i32.const 104857600))"), json!(1)).await;
        let (code, message) = failure(&done);
        assert_eq!(code, "output_limit");
        assert!(message.contains("returned 104857600 bytes, the limit is 131072"), "{message}");
    });
}

#[test]
fn a_function_that_returns_no_acceptable_json_is_refused() {
    block_on(async {
        let (_, host) = host().await;
        for text in ["nonsense", "", r#"{"a":1,"a":2}"#, "9007199254740993", "1e400", r#""\ud800""#, r#""\u0000""#] {
            let done = run(&host, &answer(text), json!(1)).await;
            assert_eq!(failure(&done).0, "invalid_output", "{text}");
        }
        // As deep as a column may hold, and one deeper: acceptable JSON, but no row could record it.
        let deep = "[".repeat(63) + &"]".repeat(63);
        assert!(output(&run(&host, &answer(&deep), json!(1)).await).is_array());
        let deeper = "[".repeat(64) + &"]".repeat(64);
        assert_eq!(failure(&run(&host, &answer(&deeper), json!(1)).await).0, "invalid_output");
    });
}

#[test]
fn a_function_that_traps_is_recorded() {
    block_on(async {
        let (_, host) = host().await;
        for body in ["(unreachable)", "(i64.extend_i32_u (i32.div_u (i32.const 1) (i32.const 0)))", "(i64.load (i32.const -8))"]
        {
            assert_eq!(failure(&run(&host, &module("", body), json!(1)).await).0, "trap", "{body}");
        }
        let recursion = module("(func $f (call $f))", "(call $f) (i64.const 0)");
        assert!(["stack_overflow", "fuel_exhausted"].contains(&failure(&run(&host, &recursion, json!(1)).await).0));
    });
}

#[test]
fn pointers_out_of_range_are_refused() {
    block_on(async {
        let (_, host) = host().await;
        let results = [
            "(call $pack (i32.const -8) (i32.const 4))",
            "(call $pack (i32.const 131070) (i32.const 4))",
            "(i64.const 0x7fffffff00001000)",
        ];
        for body in results {
            assert_eq!(failure(&run(&host, &module("", body), json!(1)).await).0, "out_of_range", "{body}");
        }
        let argument = "(call $host (i32.const 2) (i32.const 131070) (i32.const 100))";
        assert_eq!(failure(&run(&host, &module("", argument), json!(1)).await).0, "out_of_range");
        let bad_alloc = echo().replace("(local.get $at))\n  (func $pack", "(i32.const 0x7fffffff))\n  (func $pack");
        assert_eq!(failure(&run(&host, &bad_alloc, json!(1)).await).0, "out_of_range");
    });
}

#[test]
fn a_flood_of_host_calls_ends_the_function() {
    block_on(async {
        let (_, host) = host().await;
        let flood = module(
            r#"(data (i32.const 1024) "null")"#,
            "(loop $again (drop (call $host (i32.const 2) (i32.const 1024) (i32.const 4))) (br $again)) (i64.const 0)",
        );
        let (code, message) = {
            let done = run(&host, &flood, json!(1)).await;
            let f = failure(&done);
            (f.0.to_owned(), f.1.to_owned())
        };
        assert_eq!(code, "host_call_limit");
        assert!(message.contains("more than 1000 calls"), "{message}");
    });
}

#[test]
fn alloc_cannot_re_enter_the_host() {
    block_on(async {
        let (_, host) = host().await;
        let nested = echo().replace("(local $at i32)", "(local $at i32) (if (global.get $busy) (then (drop (call $host (i32.const 2) (i32.const 1024) (i32.const 4)))))")
            .replace("(global $next", r#"(global $busy (mut i32) (i32.const 0)) (data (i32.const 1024) "null") (global $next"#)
            .replace("(call $pack (local.get $ptr) (local.get $len)))", "(global.set $busy (i32.const 1)) (drop (call $host (i32.const 2) (i32.const 1024) (i32.const 4))) (call $pack (local.get $ptr) (local.get $len)))");
        assert_eq!(failure(&run(&host, &nested, json!(1)).await).0, "re_entrant");
    });
}

#[test]
fn emitting_more_than_the_limit_is_refused() {
    block_on(async {
        let (ledger, host) = host_with(|limits| limits.emitted = 3).await;
        let draft = r#"{"entity_type":"alert"}"#;
        let code = module(
            &format!(r#"(data (i32.const 1024) "{}")"#, draft.replace('"', "\\22")),
            &format!(
                "(local $n i32) (local $last i64) (loop $again (local.set $last (call $host (i32.const 5) (i32.const 1024) (i32.const {}))) (local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $again (i32.lt_u (local.get $n) (i32.const 5)))) (i64.and (local.get $last) (i64.const 0xffffffff7fffffff))",
                draft.len()
            ),
        );
        let done = run(&host, &code, json!(1)).await;
        assert_eq!(output(&done)["code"], "emit_limit");
        assert_eq!(spans(&ledger, "alert").await.len(), 3);
    });
}

#[test]
fn an_oversized_input_is_refused_before_any_code_runs() {
    block_on(async {
        let (ledger, host) = host().await;
        let id = publish(&host, &echo()).await;
        // The host would not submit it, but a member can write it to the store.
        let request = Request::new(TENANT, USER, id, json!("x".repeat(200_000)));
        assert!(host.submit(request.clone()).await.unwrap_err().to_string().contains("input_limit"));
        let request = smuggle(&ledger, request.into_draft(SystemIds.next_id(Timestamp::EPOCH)), HOST).await;
        let done = host.run_request(TENANT, request.id).await.unwrap();
        assert_eq!(failure(&done).0, "input_limit");
        assert!(done.span.input.is_none() && done.span.meta("receipt").is_none());
    });
}

#[test]
fn what_is_no_module_of_this_interface_is_refused() {
    block_on(async {
        let (_, host) = host().await;
        let wasi = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))) (memory (export "memory") 1))"#;
        let memory_import = r#"(module (import "logline" "memory" (memory 1)))"#;
        let wrong_alloc = echo().replace(
            "(param $len i32) (result i32)\n    (local $at i32)",
            "(param $len i64) (result i32)\n    (local $at i32)",
        );
        let many_locals = module(&format!("(func {})", "(local i64)".repeat(501)), "(i64.const 0)");
        let many_params = module(&format!("(func {})", "(param i32)".repeat(33)), "(i64.const 0)");
        let simd = module("(func (result v128) (v128.const i64x2 0 0))", "(i64.const 0)");
        for (code, reason) in [
            ("", "code is empty"),
            ("not base64!", "neither WebAssembly text"),
            ("AAAA", "magic bytes"),
            ("(module", "expected"),
            ("AGFzbQEAAAA=", "does not export `memory`"),
            (wasi, "the module imports `wasi_snapshot_preview1.fd_write`"),
            (memory_import, "the module imports `logline.memory`"),
            (wrong_alloc.as_str(), ""),
            (many_locals.as_str(), "501 locals"),
            (many_params.as_str(), "33 parameters"),
            (simd.as_str(), ""),
            (r#"(module (memory (export "memory") 1))"#, "`alloc(len: i32) -> i32`"),
        ] {
            let done = run(&host, code, json!(1)).await;
            let (found, message) = failure(&done);
            assert_eq!(found, "invalid_module", "{code:.80}: {message}");
            assert!(message.contains(reason), "{code:.80}: {message}");
        }
    });
}

#[test]
fn a_module_over_the_size_limit_is_refused() {
    block_on(async {
        let (_, host) = host_with(|limits| limits.module_bytes = 300).await;
        let done =
            run(&host, &module(&format!(r#"(data (i32.const 0) "{}")"#, "x".repeat(400)), "(i64.const 0)"), json!(1)).await;
        assert_eq!(failure(&done).0, "module_limit");
    });
}

#[test]
fn a_start_function_that_spins_is_held_to_the_same_fuel() {
    block_on(async {
        let (_, host) = host().await;
        let spins = module("(func $spin (loop $again (br $again))) (start $spin)", "(i64.const 0)");
        assert_eq!(failure(&run(&host, &spins, json!(1)).await).0, "fuel_exhausted");
    });
}

#[test]
fn nothing_of_a_call_is_left_for_the_next() {
    block_on(async {
        let (_, host) = host().await;
        // Returns what memory held at 2048 before writing the argument's first byte there.
        let leaky = module(
            "",
            "(i32.store8 (i32.const 4096) (i32.add (i32.const 48) (i32.and (i32.load8_u (i32.const 2048)) (i32.const 1))))
             (i32.store8 (i32.const 2048) (i32.const 1)) (call $pack (i32.const 4096) (i32.const 1))",
        );
        let id = publish(&host, &leaky).await;
        for _ in 0..20 {
            assert_eq!(output(&execute(&host, id, json!(1)).await), &json!(0));
        }
    });
}

#[test]
fn a_guests_own_error_keeps_its_code_apart_from_the_hosts() {
    block_on(async {
        let (_, host) = host().await;
        let text = r#"{"code":"timeout","message":"pretending"}"#;
        let data = text.replace('"', "\\22");
        let code = module(
            &format!(r#"(data (i32.const 1024) "{data}")"#),
            &format!("(i64.or (call $pack (i32.const 1024) (i32.const {})) (i64.const 0x80000000))", text.len()),
        );
        let done = run(&host, &code, json!(1)).await;
        assert_eq!(failure(&done), ("guest:timeout", "pretending"));
    });
}

#[test]
fn many_spinning_and_short_functions_all_end() {
    block_on(async {
        let (_, host) = host_with(|limits| limits.fuel = 5_000_000).await;
        let spin = publish(&host, &module("", "(loop $again (br $again)) (i64.const 0)")).await;
        let asks = publish(&host, &ask(2, "null")).await;
        let spinning = (0..40).map(|_| execute(&host, spin, json!(1)));
        let asking = (0..100).map(|_| execute(&host, asks, json!(1)));
        let (spun, asked) =
            futures_util::future::join(futures_util::future::join_all(spinning), futures_util::future::join_all(asking)).await;
        assert!(spun.iter().all(|e| failure(e).0 == "fuel_exhausted"));
        for e in &asked {
            assert!(output(e)["now"].is_string());
        }
    });
}

#[test]
fn a_tenant_that_has_used_its_fuel_waits_for_the_next_day() {
    block_on(async {
        let mut manifest = manifest();
        manifest.throttle.per_tenant_daily_fuel = Some(2_000_000);
        manifest.limits.fuel = 1_500_000;
        let ledger = ledger(&manifest).await;
        let host = host_of(&ledger).await;
        let spin = publish(&host, &module("", "(loop $again (br $again)) (i64.const 0)")).await;
        let used = async || ledger.used(TENANT, logline_core::FUEL_QUOTA).await.unwrap();
        for n in 1..=2 {
            assert_eq!(failure(&execute(&host, spin, json!(1)).await).0, "fuel_exhausted");
            // A last instruction may go over by some units.
            assert!((n * 1_500_000..n * 1_500_100).contains(&used().await), "{}", used().await);
        }
        // The second was begun when there was some left; the third waits.
        let waits = host.execute(Request::new(TENANT, USER, spin, json!(1))).await;
        assert!(matches!(&waits, Err(HostError::NotRunnable(NotRunnable::Deferred { .. }))), "{waits:?}");
        let violations = spans(&ledger, "policy_violation").await;
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].this, "quota.fuel.per_tenant.daily");
        let counted = used().await;
        ledger.rebuild().await.unwrap();
        assert_eq!(used().await, counted, "the counter is a sum over rows");
    });
}

#[test]
fn the_scoring_guest_scores() {
    block_on(async {
        let (ledger, host) = host().await;
        let binary = include_bytes!("../../logline-wasm/guests/score_payments.wasm");
        let rules: Value = serde_json::from_str(include_str!("../../logline-wasm/guests/score_payments/rules.json")).unwrap();
        let draft = function(&logline_wasm::encode_binary(binary)).input(rules);
        let id = host.publish(draft, &key(PUBLISHER)).await.unwrap().id;
        let events = include_str!("../../examples/quickstart/events.ndjson");
        let mut decisions = std::collections::BTreeMap::<String, u32>::new();
        for line in events.lines() {
            let event = logline_core::json::parse(line.as_bytes()).unwrap();
            let done = execute(&host, id, event).await;
            *decisions.entry(output(&done)["decision"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let counts: Vec<_> = decisions.into_iter().collect();
        assert_eq!(counts, [("allow".to_owned(), 36), ("block".to_owned(), 5), ("review".to_owned(), 9)]);
        assert_eq!(spans(&ledger, "payment_alert").await.len(), 14);
        let bad = execute(&host, id, json!({"id": "pay", "amount_minor": "12"})).await;
        let (code, message) = failure(&bad);
        assert_eq!(code, "guest:invalid_event");
        assert!(message.contains("amount_minor"), "{message}");
    });
}

#[test]
fn an_attempt_that_is_cancelled_before_it_ends_is_not_free() {
    block_on(async {
        let mut manifest = manifest();
        manifest.throttle.per_tenant_daily_fuel = Some(1_000_000);
        let ledger = ledger(&manifest).await;
        let host = host_of(&ledger).await;
        let spin = function(&module("", "(loop $again (br $again)) (i64.const 0)")).meta("limits", json!({"fuel": 600_000}));
        let published = host.publish(spin, &key(PUBLISHER)).await.unwrap();
        let spin = published.id;
        let request = host.submit(Request::new(TENANT, USER, spin, json!(1))).await.unwrap();
        let used = async || ledger.used(TENANT, logline_core::FUEL_QUOTA).await.unwrap();
        // One that waits has used nothing.
        host.cancel(TENANT, request.id, "user:alice").await.unwrap();
        assert_eq!(used().await, 0);
        for n in 1..=2 {
            host.revive(TENANT, request.id, "user:alice").await.unwrap();
            let now = ledger.now().await.unwrap();
            let open = ledger.get(&Scope::runtime(TENANT), TENANT, request.id).await.unwrap();
            let due = Due { request: open, function: None };
            host.claim(due, now, Duration::from_secs(60)).await.unwrap();
            if n == 2 {
                // What a later version may use is not what this attempt was allowed.
                let modest = Draft::next_version(&published).meta("limits", json!({"fuel": 1}));
                host.publish(modest, &key(PUBLISHER)).await.unwrap();
            }
            host.cancel(TENANT, request.id, "user:alice").await.unwrap();
            assert_eq!(used().await, n * 600_000, "as much as it was allowed");
        }
        host.revive(TENANT, request.id, "user:alice").await.unwrap();
        let waits = host.run_request(TENANT, request.id).await;
        assert!(matches!(&waits, Err(HostError::NotRunnable(NotRunnable::Deferred { .. }))), "{waits:?}");
    });
}

#[test]
fn a_revived_request_has_not_the_outcome_of_its_older_attempt() {
    use futures_util::FutureExt as _;
    block_on(async {
        let ledger = ledger(&manifest()).await;
        let host = host_of(&ledger).await;
        let traps = host.publish(function(&module("", "unreachable")), &key(PUBLISHER)).await.unwrap().id;
        let failed = host.execute(Request::new(TENANT, USER, traps, json!(1))).await.unwrap();
        let id = failed.request.id;
        assert_eq!(host.outcome(TENANT, id).await.unwrap().result.unwrap_err().code, "trap");
        host.revive(TENANT, id, "user:alice").await.unwrap();
        assert!(host.outcome(TENANT, id).now_or_never().is_none(), "it has not ended");
        host.cancel(TENANT, id, "user:alice").await.unwrap();
        let ended = host.outcome(TENANT, id).await;
        let is_cancelled = |error: &HostError| matches!(error, HostError::NotRunnable(NotRunnable::Ended { status, .. }) if status == "cancelled");
        assert!(ended.as_ref().is_err_and(is_cancelled), "{ended:?}");
    });
}

#[test]
fn what_only_the_runtime_says_of_a_request_is_not_believed_of_others() {
    block_on(async {
        const MEMBER: u8 = 77;
        let manifest = manifest().grant(key(MEMBER).public_key(), Role::Member, [TENANT]);
        let ledger = ledger(&manifest).await;
        let host = host_of(&ledger).await;
        let traps = publish(&host, &module("", "unreachable")).await;
        let claims = json!({"attempt": 0, "max_attempts": 1, "attempts_not_counted": 4_294_967_295_u64, "backoff_ms": 0,
            "quota": {"day": "2026-01-01", "keys": ["a", "b"]}, "execution": traps, "worker": "me"});
        let by_member = Draft::new("request").tenant(TENANT).owner(USER).who("user:alice").this("function.run").parent(traps);
        let by_member = smuggle(&ledger, by_member.status("scheduled").metadata(claims.clone()), MEMBER).await;
        let emits = json!({"entity_type": "request", "this": "function.run", "parent_id": traps, "status": "scheduled", "metadata": claims});
        run(&host, &ask(5, &emits.to_string()), json!(1)).await;
        let requests = spans(&ledger, "request").await;
        let by_guest = requests.iter().find(|span| span.who.starts_with("function:")).unwrap();
        for id in [by_member.id, by_guest.id] {
            let done = host.run_request(TENANT, id).await.unwrap();
            assert_eq!(done.result.as_ref().unwrap_err().code, "trap");
            assert_eq!(done.request.status.as_deref(), Some("dead"), "one attempt was asked for: {:?}", done.request.metadata);
            assert!(done.request.meta("quota").is_none() && done.request.meta("attempts_not_counted").is_none());
        }
        assert_eq!(ledger.used(TENANT, "a").await.unwrap(), 0);
    });
}

#[test]
fn a_page_of_a_query_ends_before_the_answer_is_too_long() {
    block_on(async {
        let (ledger, host) = host_with(|limits| limits.host_call_bytes = 100_000).await;
        for n in 0..5 {
            let note = Draft::new("note")
                .tenant(TENANT)
                .owner(USER)
                .who("user")
                .this("note")
                .content(json!({"n": n, "text": "x".repeat(30_000)}));
            smuggle(&ledger, note, HOST).await;
        }
        let done = run(&host, &ask(4, r#"{"entity_type":"note"}"#), json!(1)).await;
        assert_eq!(output(&done)["spans"].as_array().unwrap().len(), 3);
        let cursor = output(&done)["cursor"].as_str().unwrap();
        let rest = json!({"entity_type": "note", "cursor": cursor}).to_string();
        let rest = run(&host, &ask(4, &rest), json!(1)).await;
        let read: Vec<_> = output(&rest)["spans"].as_array().unwrap().iter().map(|span| span["content"]["n"].clone()).collect();
        assert_eq!(read, [json!(3), json!(4)]);
        assert!(output(&rest)["cursor"].is_null());
        // One row is always read, and then too long.
        let long = Draft::new("long").tenant(TENANT).owner(USER).who("user").this("long").content(json!("x".repeat(150_000)));
        smuggle(&ledger, long, HOST).await;
        let done = run(&host, &ask(4, r#"{"entity_type":"long"}"#), json!(1)).await;
        assert_eq!(output(&done)["code"], "too_large");
        assert!(done.span.meta("receipt").unwrap()["fuel_used"].as_u64().unwrap() > 150_000, "and paid for");
    });
}

#[test]
fn a_query_over_rows_that_it_may_not_read_is_paid_for_and_ends() {
    block_on(async {
        let (ledger, host) = host().await;
        for (tenant, rows) in [(TENANT, 1500), ("globex", 1500)] {
            for _ in 0..rows {
                let note = Draft::new("note").tenant(tenant).owner("bob").who("user:bob").this("note.private");
                smuggle(&ledger, note, HOST).await;
            }
        }
        let fuel = |done: &Execution| done.span.meta("receipt").unwrap()["fuel_used"].as_u64().unwrap();
        let query = json!({"tenant": TENANT, "entity_type": "note", "limit": 1});
        let first = run(&host, &ask(4, &query.to_string()), json!(1)).await;
        assert_eq!((output(&first)["spans"].clone(), output(&first)["visited"].clone()), (json!([]), json!(1000)));
        assert!(fuel(&first) > 1_000_000, "1,000 rows for {} units", fuel(&first));
        let rest = json!({"tenant": TENANT, "entity_type": "note", "cursor": output(&first)["cursor"]}).to_string();
        let rest = run(&host, &ask(4, &rest), json!(1)).await;
        assert_eq!((output(&rest)["visited"].clone(), output(&rest)["cursor"].clone()), (json!(500), json!(null)));
        // The private rows of another tenant are not looked at, so neither fuel nor time tells how many there are.
        let foreign = run(&host, &ask(4, r#"{"tenant":"globex","entity_type":"note"}"#), json!(1)).await;
        assert_eq!((output(&foreign)["visited"].clone(), output(&foreign)["cursor"].clone()), (json!(0), json!(null)));
        assert!(fuel(&foreign) < 100_000, "{} units", fuel(&foreign));
    });
}

#[test]
fn drafts_that_would_take_much_memory_are_not_kept() {
    block_on(async {
        let (_, host) = host().await;
        let many = |n: usize| format!(r#"{{"entity_type":"alert","content":[{}]}}"#, vec![r#"{"":0}"#; n].join(","));
        let done = run(&host, &ask(5, &many(8_100)), json!(1)).await;
        assert!(output(&done)["id"].is_string());
        let done = run(&host, &ask(5, &many(8_300)), json!(1)).await;
        assert_eq!(output(&done)["code"], "emit_limit");
    });
}
