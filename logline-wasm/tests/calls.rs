//! Calls beside each other: what one does is no other's loss, and whoever stops waiting stops the guest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join, join_all};
use logline_core::contract::{Job, Sandbox as _};
use logline_core::trust::{Limits, Share};
use logline_wasm::{WasmOptions, WasmSandbox};
use serde_json::{Value, json};

use setup::{Desk, answer, ask, block_on, code, echo, module, run, run_with, spin};

fn sandbox() -> WasmSandbox {
    WasmSandbox::with(WasmOptions::new().calls(8)).unwrap()
}

#[test]
fn spinning_guests_do_not_keep_the_host_from_its_thread() {
    // One thread for the host: a guest that computed on it would stop everything else.
    block_on(async {
        let sandbox = sandbox();
        let (spin, mut desk) = (spin(), Desk::default());
        let spinning = run_with(&sandbox, "acme", &spin, &mut desk, |limits| {
            limits.fuel = 100_000_000_000;
            limits.timeout_ms = 300;
        });
        let mut turns = 0_u32;
        let counting = async {
            loop {
                tokio::task::yield_now().await;
                turns += 1;
            }
        };
        let report = tokio::select! {
            report = spinning => report,
            () = counting => unreachable!(),
        };
        assert_eq!(code(&report), "timeout");
        assert!(turns > 1000, "the host had {turns} turns while the guest was spinning");
    });
}

#[test]
fn short_calls_go_by_spinning_ones() {
    block_on(async {
        let sandbox = sandbox();
        let (spin, mut desk) = (spin(), Desk::default());
        let spinning = run_with(&sandbox, "spinner", &spin, &mut desk, |limits| {
            limits.fuel = 100_000_000_000;
            limits.timeout_ms = 60_000;
        });
        let short = async {
            for _ in 0..50 {
                assert_eq!(run(&sandbox, &echo()).await.result, Ok(json!({"n": 1})));
            }
        };
        tokio::select! {
            report = spinning => panic!("{report:?}"),
            () = short => {}
        }
    });
}

#[test]
fn a_time_limit_that_ends_while_the_host_is_asked_ends_the_call() {
    block_on(async {
        let sandbox = sandbox();
        let mut desk = Desk::default();
        let queries = ask(4, "{}");
        let report = run_with(&sandbox, "acme", &queries, &mut desk, |limits| limits.timeout_ms = 20).await;
        assert_eq!(code(&report), "timeout");
        assert_eq!(desk.queries.load(Ordering::SeqCst), 1, "the host was asked, and nobody waits for its answer any more");
        // The same where the guest is on a thread of its own by then.
        let late = module(
            r#"(data (i32.const 1024) "{}")"#,
            "(local $n i32)
             (loop $again (local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $again (i32.lt_u (local.get $n) (i32.const 100000))))
             (call $host (i32.const 4) (i32.const 1024) (i32.const 2))",
        );
        let report = run_with(&sandbox, "acme", &late, &mut desk, |limits| limits.timeout_ms = 2000).await;
        assert_eq!(code(&report), "timeout");
        assert_eq!(desk.queries.load(Ordering::SeqCst), 2);
        assert!(report.receipt.fuel_used > 100_000);
        // An answer that comes after all is nobody's: the next call has its own.
        desk.go.notify_one();
        assert!(run_with(&sandbox, "acme", &queries, &mut desk, |_| {}).await.result.is_ok());
    });
}

#[test]
fn a_caller_that_gives_up_frees_its_permit() {
    block_on(async {
        // One place: the next call runs only when the one before is gone.
        let sandbox = WasmSandbox::with(WasmOptions::new().calls(1)).unwrap();
        for code in [spin(), ask(4, "{}")] {
            let desk = Desk::default();
            for _ in 0..3 {
                let mut own = desk.clone();
                let call = run_with(&sandbox, "acme", &code, &mut own, |limits| limits.fuel = 100_000_000_000);
                let mut call = Box::pin(call);
                // Compiled and started, or asked.
                let _ = tokio::time::timeout(Duration::from_millis(30), &mut call).await;
                drop(call);
            }
            assert_eq!(run(&sandbox, &echo()).await.result, Ok(json!({"n": 1})));
        }
    });
}

#[test]
fn one_tenant_cannot_take_every_permit() {
    block_on(async {
        let sandbox = WasmSandbox::with(WasmOptions::new().calls(4)).unwrap();
        let share = Share { calls: 3, ..Share::default() };
        let (spin, limits) = (spin(), {
            let mut limits = Limits::default();
            limits.fuel = 100_000_000_000;
            limits.timeout_ms = 60_000;
            limits
        });
        let mut desks = vec![Desk::default(); 6];
        let greedy =
            desks.iter_mut().map(|desk| sandbox.run(Job::new("greedy", &spin, &Value::Null, &limits).share(share), desk));
        let mut greedy = Box::pin(join_all(greedy));
        // Compiled before, so that nothing but a place is waited for.
        sandbox.check("greedy", &spin, &limits).await.unwrap();
        // All of them want to run.
        assert!(tokio::time::timeout(Duration::from_millis(100), &mut greedy).await.is_err());
        assert_eq!(run(&sandbox, &echo()).await.result, Ok(json!({"n": 1})), "another tenant finds a place");
        // Within its own share nobody else finds one.
        let mut short = limits.clone();
        short.timeout_ms = 30;
        let fourth = sandbox.run(Job::new("greedy", &spin, &Value::Null, &short).share(share), &mut Desk::default()).await;
        assert_eq!(self::code(&fourth), "busy");
    });
}

#[test]
fn memory_of_a_tenant_is_counted_over_its_calls() {
    block_on(async {
        let sandbox = sandbox();
        // Room for two runs of 64 MiB, or one and many small ones.
        let share = Share { calls: 8, memory_bytes: 128 << 20 };
        let waits = ask(4, "{}");
        let (large, mut small) = (Limits::default(), Limits::default());
        small.memory_bytes = 1 << 20;
        small.timeout_ms = 30;
        let desk = Desk::default();
        let mut desks = [desk.clone(), desk.clone()];
        let held = desks.iter_mut().map(|desk| sandbox.run(Job::new("acme", &waits, &Value::Null, &large).share(share), desk));
        let mut held = Box::pin(join_all(held));
        while desk.queries.load(Ordering::SeqCst) < 2 {
            assert!((&mut held).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        let echo = echo();
        let third = sandbox.run(Job::new("acme", &echo, &Value::Null, &small).share(share), &mut Desk::default()).await;
        assert_eq!(code(&third), "busy");
        assert!(run(&sandbox, &echo).await.result.is_ok(), "another share is another matter");
        desk.go.notify_one();
        let go = Arc::clone(&desk.go);
        let both = async {
            held.await;
        };
        join(both, async move {
            tokio::task::yield_now().await;
            go.notify_one();
        })
        .await;
        let after = sandbox.run(Job::new("acme", &echo, &Value::Null, &small).share(share), &mut Desk::default()).await;
        assert!(after.result.is_ok());
    });
}

#[test]
fn nothing_leaks_between_two_calls_of_two_tenants_through_a_pooled_instance() {
    block_on(async {
        // One slot: every call gets the memory, the table and the stack of the one before.
        let sandbox = WasmSandbox::with(WasmOptions::new().calls(1)).unwrap();
        let secret = module(
            "(table 10 funcref) (elem declare func $pack) (global $g (mut i32) (i32.const 0))",
            "(memory.fill (i32.const 0) (i32.const 83) (i32.const 131072))
             (drop (memory.grow (i32.const 100)))
             (memory.fill (i32.const 131072) (i32.const 83) (i32.const 6553600))
             (table.fill (i32.const 0) (ref.func $pack) (i32.const 10))
             (global.set $g (i32.const 1)) (i64.const 0)",
        );
        // Looks through all memory it can get for a byte that is not zero, and into its table.
        let thief = module(
            "(table 10 funcref) (global $g (mut i32) (i32.const 0))",
            r#"(local $at i32) (local $found i32)
               (drop (memory.grow (i32.const 100)))
               (local.set $at (i32.const 131072))
               (loop $again
                 (local.set $found (i32.or (local.get $found) (i32.load (local.get $at))))
                 (local.set $at (i32.add (local.get $at) (i32.const 4)))
                 (br_if $again (i32.lt_u (local.get $at) (i32.const 6684672))))
               (local.set $at (i32.const 0))
               (loop $again
                 (local.set $found (i32.or (local.get $found) (i32.eqz (ref.is_null (table.get (local.get $at))))))
                 (local.set $at (i32.add (local.get $at) (i32.const 1)))
                 (br_if $again (i32.lt_u (local.get $at) (i32.const 10))))
               (local.set $found (i32.or (local.get $found) (global.get $g)))
               (i32.store8 (i32.const 0) (i32.add (i32.const 48) (i32.ne (local.get $found) (i32.const 0))))
               (call $pack (i32.const 0) (i32.const 1))"#,
        );
        for _ in 0..10 {
            // It answers nothing: what it leaves behind is the point.
            assert_eq!(code(&run_with(&sandbox, "victim", &secret, &mut Desk::default(), |_| {}).await), "invalid_output");
            let found = run_with(&sandbox, "thief", &thief, &mut Desk::default(), |_| {}).await;
            assert_eq!(found.result, Ok(json!(0)));
        }
    });
}

#[test]
fn bulk_operations_cost_what_they_do() {
    block_on(async {
        let sandbox = sandbox();
        for (what, body) in [
            ("fill", "(memory.fill (i32.const 0) (i32.const 1) (i32.const 60000000))"),
            ("copy", "(memory.copy (i32.const 0) (i32.const 1) (i32.const 60000000))"),
        ] {
            let flood =
                module("", &format!("(drop (memory.grow (i32.const 1000))) (loop $again {body} (br $again)) (i64.const 0)"));
            let report = run(&sandbox, &flood).await;
            assert_eq!(code(&report), "fuel_exhausted", "{what}");
        }
    });
}

#[test]
fn tables_and_memories_cannot_grow_beyond_their_limits() {
    block_on(async {
        let sandbox = sandbox();
        let grows = module(
            "(table $t 1 funcref)",
            "(if (i32.ne (table.grow $t (ref.null func) (i32.const 20000)) (i32.const -1)) (then (return (i64.const 0)))) unreachable",
        );
        assert_eq!(code(&run(&sandbox, &grows).await), "memory_limit");
        let born_large = echo().replace("(global $next", "(table 20000 funcref) (global $next");
        assert_eq!(code(&run(&sandbox, &born_large).await), "invalid_module");
        let two = echo().replace("(global $next", "(table 1 funcref) (table 1 funcref) (global $next");
        assert_eq!(code(&run(&sandbox, &two).await), "invalid_module");
        // Denied memory is an answer to whoever asks; who goes on without it is not stopped.
        let modest = module(
            r#"(data (i32.const 0) "true")"#,
            "(drop (memory.grow (i32.const 60000))) (call $pack (i32.const 0) (i32.const 4))",
        );
        assert_eq!(run(&sandbox, &modest).await.result, Ok(json!(true)));
    });
}

#[test]
fn every_answer_of_the_interface_can_be_told_apart() {
    block_on(async {
        let sandbox = sandbox();
        let asked = async |op, argument: &str| run(&sandbox, &ask(op, argument)).await.result.unwrap();
        assert_eq!(asked(1, r#"{"level":"info","message":"x"}"#).await, Value::Null);
        assert_eq!(asked(2, "null").await["now"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(asked(3, r#"{"bytes":2}"#).await["hex"], "0707");
        assert_eq!(asked(5, "{}").await["id"], "00000000-0000-7000-8000-000000000000");
        for (op, argument, expected) in [
            (3, r#"{"bytes":0}"#, "invalid_random"),
            (3, r#"{"bytes":1025}"#, "invalid_random"),
            (6, "null", "not_permitted"),
            (0, "null", "unknown_operation"),
            (-1, "null", "unknown_operation"),
            (1, "{", "invalid_json"),
            (1, r#"{"a":1,"a":1}"#, "invalid_json"),
        ] {
            assert_eq!(asked(op, argument).await["code"], expected, "{op} {argument}");
        }
        let utf8 = module(r#"(data (i32.const 0) "\22\ff\22")"#, "(call $pack (i32.const 0) (i32.const 3))");
        assert_eq!(code(&run(&sandbox, &utf8).await), "invalid_output");
        let overlapping = run(&sandbox, &answer(r#"{"ok":true}"#).replace("(i32.const 65536))\n", "(i32.const 1020))\n")).await;
        // The argument is written over the answer: whatever it says then, it is the guest's own memory.
        assert!(overlapping.result.is_ok() || code(&overlapping) == "invalid_output");
    });
}

#[test]
fn a_check_tells_what_a_call_would_come_to_and_what_to_do() {
    block_on(async {
        let sandbox = WasmSandbox::new().unwrap();
        let limits = Limits::default();
        assert_eq!(sandbox.check("acme", &echo(), &limits).await, Ok(()));
        let garbage = "QUJD".repeat(100);
        for (code, told) in [
            (
                echo().replace("(memory (export \"memory\") 2", "(memory (export \"memory\") 1025"),
                "starts with 67174400 bytes, the limit is 67108864",
            ),
            (
                echo().replace("(global $next", "(table 20000 funcref) (global $next"),
                "starts with 20000 elements, the limit is 10000",
            ),
            (echo().replace("\"logline\"", "\"env\""), "the module imports `env.host_call`"),
            (echo().replace("\"run\"", "\"main\""), "run"),
            ("(component)".to_owned(), "wasm-component@1"),
            ("(modul)".to_owned(), "expected"),
            (garbage, "magic bytes"),
            ("\u{7f}ELF".to_owned(), "`(` or `;;`"),
            (" \n".to_owned(), "code is empty"),
            ("blob:".to_owned() + &"0".repeat(64), "base64"),
        ] {
            let refused = sandbox.check("acme", &code, &limits).await.unwrap_err();
            assert_eq!(refused.code, "invalid_module", "{refused}");
            assert!(refused.message.contains(told), "{refused}");
            let call = sandbox.run(Job::new("acme", &code, &Value::Null, &limits), &mut Desk::default()).await;
            assert_eq!(call.result, Err(refused), "a call tells the same");
        }
    });
}

/// A range that no memory has, such as one of a negative length, is out of range. It is no work that fuel is charged for.
#[test]
fn a_call_whose_argument_is_outside_the_memory_ends_out_of_range() {
    block_on(async {
        let sandbox = sandbox();
        for (start, len) in [(1024, -1), (-1, 1), (1024, i32::MIN), (1024, 2_000_000_000), (-8, 16)] {
            let outside = format!("(drop (call $host (i32.const 1) (i32.const {start}) (i32.const {len}))) (i64.const 0)");
            let report = run_with(&sandbox, "acme", &module("", &outside), &mut Desk::default(), |_| {}).await;
            assert_eq!(code(&report), "out_of_range", "{start} {len}");
            assert!(report.receipt.fuel_used < 1000, "{report:?}");
        }
    });
}

#[test]
fn a_guest_that_asks_only_nonsense_does_not_keep_the_host_from_its_thread() {
    // One thread for the host. The guest never asks anything that the host would answer, and never uses up a slice between two calls.
    block_on(async {
        let sandbox = sandbox();
        for len in [0, 2_000] {
            let nonsense = module(
                "",
                &format!(
                    "(local $i i32)
                     (loop $again
                       (drop (call $host (i32.const 1) (i32.const 1024) (i32.const {len})))
                       (local.set $i (i32.const 0))
                       (loop $burn
                         (local.set $i (i32.add (local.get $i) (i32.const 1)))
                         (br_if $burn (i32.lt_u (local.get $i) (i32.const 4000))))
                       (br $again))
                     (i64.const 0)"
                ),
            );
            let (mut desk, mut turns) = (Desk::default(), 0_u64);
            let running = run_with(&sandbox, "acme", &nonsense, &mut desk, |limits| {
                limits.fuel = 100_000_000_000;
                limits.timeout_ms = 300;
                limits.host_calls = 100_000;
                limits.host_call_bytes = 1_000;
            });
            let mut running = Box::pin(running);
            let report = loop {
                match (&mut running).now_or_never() {
                    Some(report) => break report,
                    None => turns += 1,
                }
                tokio::task::yield_now().await;
            };
            assert!(["timeout", "host_call_limit"].contains(&code(&report)), "{report:?}");
            assert!(turns > 100, "the host had {turns} turns meanwhile");
        }
    });
}

#[test]
fn an_answer_that_is_too_long_is_paid_for_whole() {
    block_on(async {
        let mut limits = Limits::default();
        limits.host_call_bytes = 1000;
        let code = ask(4, "{}");
        let mut desk = Desk { reply: Some(json!("x".repeat(1_000_000))), ..Desk::default() };
        let report = sandbox().run(Job::new("acme", &code, &Value::Null, &limits), &mut desk).await;
        assert_eq!(report.result.unwrap()["code"], "too_large");
        assert!(report.receipt.fuel_used > 1_000_000, "{}", report.receipt.fuel_used);
    });
}

#[test]
fn a_share_that_changes_counts_what_is_under_way() {
    block_on(async {
        let sandbox = sandbox();
        let (waits, limits, desk) = (ask(4, "{}"), Limits::default(), Desk::default());
        let one = Share { calls: 1, ..Share::default() };
        let mut first = desk.clone();
        let mut held = Box::pin(sandbox.run(Job::new("acme", &waits, &Value::Null, &limits).share(one), &mut first));
        while desk.queries.load(Ordering::SeqCst) < 1 {
            assert!((&mut held).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        // Neither a check nor another share in between makes room for a second.
        let mut short = limits.clone();
        short.timeout_ms = 30;
        let echo = echo();
        assert_eq!(sandbox.check("acme", &echo, &limits).await, Ok(()));
        let (sandbox, echo, short) = (&sandbox, &echo, &short);
        let second = |share: Share| async move {
            sandbox.run(Job::new("acme", echo, &Value::Null, short).share(share), &mut Desk::default()).await
        };
        assert_eq!(code(&second(one).await), "busy");
        let two = Share { calls: 2, ..Share::default() };
        assert!(second(two).await.result.is_ok());
        assert_eq!(code(&second(one).await), "busy");
        desk.go.notify_one();
        assert!(held.await.result.is_ok());
        assert!(second(one).await.result.is_ok());
    });
}
