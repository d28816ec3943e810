//! Executions that are repeated from the ledger: what was recorded can be checked by whoever reads it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::Arc;

use async_trait::async_trait;
use logline_core::contract::{HostCalls, Job, Report, Sandbox};
use logline_core::ledger::{Ledger, LedgerExt as _, Query, Versions};
use logline_core::request::Request;
use logline_core::{Draft, Hash, MemoryLedger, Rules, Scope, SignedSpan, SystemClock, SystemIds, Verifier, Visibility, ids};
use logline_kernels::{Replay, ReplayError};
use logline_wasm::WasmSandbox;
use serde_json::{Value, json};
use uuid::Uuid;

use setup::{
    HOST, PUBLISHER, TENANT, USER, answer, ask, block_on, echo, execute, failure, function, host, host_with, key, module,
    output, publish, smuggle, spans,
};

fn sandboxes() -> Vec<Arc<dyn Sandbox>> {
    vec![Arc::new(WasmSandbox::new().unwrap())]
}

async fn replay(ledger: &dyn Ledger, execution: Uuid) -> Result<Replay, ReplayError> {
    let scope = Scope::runtime(TENANT);
    logline_kernels::replay(ledger, &scope, (TENANT, execution), &sandboxes(), Rules::default()).await
}

/// Asks the host twice: a query for all notes, page by page, and random bytes; emits a draft; returns the last answer.
fn curious() -> String {
    let data = |at: usize, text: &str| format!(r#"(data (i32.const {at}) "{}")"#, text.replace('"', "\\22"));
    let (query, random) = (r#"{"entity_type":"note","limit":2}"#, r#"{"bytes":16}"#);
    let (draft, refused) = (r#"{"entity_type":"alert"}"#, r#"{"entity_type":"execution"}"#);
    let ask =
        |op: u32, at: usize, text: &str| format!("(call $host (i32.const {op}) (i32.const {at}) (i32.const {}))", text.len());
    module(
        &[data(1024, query), data(1100, random), data(1200, draft), data(1300, refused)].concat(),
        &format!(
            "(local $found i64)
             (local.set $found {}) (drop {}) (drop {}) (drop {})
             (local.get $found)",
            ask(4, 1024, query),
            ask(3, 1100, random),
            ask(5, 1200, draft),
            ask(5, 1300, refused),
        ),
    )
}

async fn notes(ledger: &MemoryLedger, count: usize) {
    for n in 0..count {
        let note = Draft::new("note").tenant(TENANT).owner(USER).who("user").this("note").content(json!({"n": n}));
        smuggle(ledger, note, HOST).await;
    }
}

#[test]
fn an_execution_is_repeated_from_the_ledger_alone() {
    block_on(async {
        let (ledger, host) = host().await;
        notes(&ledger, 3).await;
        let id = publish(&host, &curious()).await;
        let done = execute(&host, id, json!({"n": 1})).await;
        assert_eq!(output(&done)["spans"].as_array().unwrap().len(), 2);
        // What the function read has changed meanwhile, and there is more of it.
        let read = spans(&ledger, "note").await.remove(0);
        let changed = Draft::next_version(&read).content(json!({"n": "changed"})).stamp(&SystemClock, &SystemIds);
        ledger.append_one(&Scope::Operator, changed.seal_local(&key(HOST)).unwrap()).await.unwrap();
        notes(&ledger, 5).await;
        let again = replay(&ledger, done.span.id).await.unwrap();
        assert!(again.holds() && again.is_same_engine(), "{:?}", again.differences);
        assert_eq!(again.repeated.result.as_ref().unwrap(), output(&done));
        assert_eq!(again.repeated.receipt.fuel_used, again.recorded.fuel_used);
        assert_eq!(again.repeated.receipt.peak_memory_bytes, again.recorded.peak_memory_bytes);
        let journal = done.span.meta("journal").unwrap();
        assert_eq!(journal["answers"][0]["rows"].as_array().unwrap().len(), 2);
        assert_eq!(journal["answers"][0]["rows"][0][3], read.seal.curr_hash.to_string());
        assert!(journal["answers"][0]["cursor"].is_string() && journal["seed"].is_string());
        assert_eq!(journal["answers"][1]["error"]["code"], "not_permitted");
    });
}

#[test]
fn failures_are_repeated_as_well() {
    block_on(async {
        let (ledger, host) = host_with(|limits| limits.fuel = 1_000_000).await;
        let deeper = "[".repeat(64) + &"]".repeat(64);
        for (code, expected) in [
            (module("", "unreachable"), "trap"),
            (module("", "(loop $again (br $again)) (i64.const 0)"), "fuel_exhausted"),
            (module("", "(i64.const 0x7fffffff00001000)"), "out_of_range"),
            (answer("nonsense"), "invalid_output"),
            (answer(&deeper), "invalid_output"),
            ("(module)".to_owned(), "invalid_module"),
            (ask(9, "null"), ""),
        ] {
            let id = publish(&host, &code).await;
            let done = execute(&host, id, json!(1)).await;
            if !expected.is_empty() {
                assert_eq!(failure(&done).0, expected);
            }
            let again = replay(&ledger, done.span.id).await.unwrap();
            assert!(again.holds(), "{expected}: {:?}", again.differences);
        }
    });
}

#[test]
fn what_depends_on_the_hour_is_not_repeated() {
    block_on(async {
        let (ledger, host) = host_with(|limits| {
            limits.fuel = 100_000_000_000;
            limits.timeout_ms = 50;
        })
        .await;
        let id = publish(&host, &module("", "(loop $again (br $again)) (i64.const 0)")).await;
        let done = execute(&host, id, json!(1)).await;
        let fuel = done.span.meta("receipt").unwrap()["fuel_used"].as_u64().unwrap();
        assert!(fuel > 50_000, "what a stopped function has used is known: {fuel}");
        let error = replay(&ledger, done.span.id).await.unwrap_err();
        assert!(error.to_string().contains("ended with `timeout`, which depends on the machine"), "{error}");
        let error = replay(&ledger, id).await.unwrap_err();
        assert!(error.to_string().contains("it is of type `function`"), "{error}");
        let error = replay(&ledger, Uuid::nil()).await.unwrap_err();
        assert!(matches!(error, ReplayError::Missing { .. }), "{error}");
        let small = function(&echo()).metadata(json!({"limits": {"input_bytes": 10}}));
        let small = host.publish(small, &key(PUBLISHER)).await.unwrap().id;
        let refused = execute(&host, small, json!("x".repeat(11))).await;
        let error = replay(&ledger, refused.span.id).await.unwrap_err();
        assert!(error.to_string().contains("no code ran"), "{error}");
    });
}

/// The same ledger, but that its host has signed another record of this execution.
async fn forged(ledger: &MemoryLedger, honest: &SignedSpan, change: impl FnOnce(&mut Draft)) -> MemoryLedger {
    let mut draft = Draft::from_columns(honest.span.clone());
    change(&mut draft);
    let forged = MemoryLedger::new();
    for row in ledger.collect(&Scope::Operator, &Query::new().versions(Versions::All), 1000).await.unwrap() {
        let span = match row.id == honest.id {
            true => draft.clone().seal_local(&key(HOST)).unwrap(),
            false => row.verify(&mut Verifier::new()).unwrap(),
        };
        forged.append_one(&Scope::Operator, span).await.unwrap();
    }
    forged
}

/// A change of one place in a draft's metadata.
fn set(path: &'static str, value: Value) -> impl FnOnce(&mut Draft) {
    move |draft: &mut Draft| *draft.columns_mut().metadata.as_mut().unwrap().pointer_mut(path).unwrap() = value
}

#[test]
fn a_host_that_records_what_did_not_happen_is_found_out() {
    block_on(async {
        let (ledger, host) = host().await;
        notes(&ledger, 3).await;
        let id = publish(&host, &curious()).await;
        let done = execute(&host, id, json!({"n": 1})).await.span.into_signed();
        let output = |draft: &mut Draft| draft.columns_mut().output = Some(json!("paid"));
        let error = |draft: &mut Draft| {
            let columns = draft.columns_mut();
            (columns.output, columns.status) = (None, Some("error".to_owned()));
            columns.error = Some(json!({"code": "trap", "message": "it failed"}));
        };
        for (ledger, expected) in [
            (forged(&ledger, &done, output).await, &["output"][..]),
            (forged(&ledger, &done, error).await, &["error", "output", "status"]),
            (forged(&ledger, &done, set("/receipt/fuel_used", json!(1))).await, &["metadata.receipt.fuel_used"]),
            (forged(&ledger, &done, set("/receipt/host_calls", json!(1))).await, &["metadata.receipt.host_calls"]),
            (
                forged(&ledger, &done, set("/receipt/peak_memory_bytes", json!(1))).await,
                &["metadata.receipt.peak_memory_bytes"],
            ),
            (
                forged(&ledger, &done, set("/journal/answers/1/error/message", json!("approved"))).await,
                &["metadata.receipt.fuel_used", "metadata.journal.answers (call 4)"],
            ),
            (
                forged(&ledger, &done, set("/receipt/code_hash", json!(Hash::of(b"other").to_string()))).await,
                &["metadata.receipt.code_hash"],
            ),
            (
                forged(&ledger, &done, set("/journal/answers/0/rows", json!([]))).await,
                &["metadata.receipt.fuel_used", "output"],
            ),
            (forged(&ledger, &done, |draft| draft.columns_mut().visibility = Visibility::Public).await, &["visibility"]),
            (forged(&ledger, &done, |draft| draft.columns_mut().owner_id = "mallory".to_owned()).await, &["owner_id"]),
            (forged(&ledger, &done, |draft| draft.columns_mut().parent_id = None).await, &["parent_id"]),
            (forged(&ledger, &done, |draft| draft.columns_mut().input = Some(json!({"n": 2}))).await, &["input"]),
            (forged(&ledger, &done, |draft| draft.columns_mut().name = Some("approved".to_owned())).await, &["name"]),
            (
                forged(&ledger, &done, |draft| {
                    *draft = draft.clone().meta("logs", json!([{"level": "info", "message": "paid"}]))
                })
                .await,
                &["metadata.logs"],
            ),
            (forged(&ledger, &done, |draft| *draft = draft.clone().meta("approved", true)).await, &["metadata.approved"]),
        ] {
            let again = replay(&ledger, done.id).await.unwrap();
            let found: Vec<_> = again.differences.iter().map(|difference| difference.what.as_str()).collect();
            assert_eq!(found, expected, "{:?}", again.differences);
        }
        // A call that was not made: whatever follows.
        let ledger = forged(&ledger, &done, set("/journal/answers/0/call", json!(7))).await;
        assert!(!replay(&ledger, done.id).await.unwrap().holds());
    });
}

#[test]
fn a_record_that_names_rows_that_are_not_there_is_not_believed() {
    block_on(async {
        let (ledger, host) = host().await;
        notes(&ledger, 1).await;
        let id = publish(&host, &curious()).await;
        let done = execute(&host, id, json!(1)).await;
        // Another tenant's runtime does not see what it needs.
        let scope = Scope::runtime("other");
        let replayed = logline_kernels::replay(&ledger, &scope, (TENANT, done.span.id), &sandboxes(), Rules::default()).await;
        assert!(matches!(replayed, Err(ReplayError::Missing { .. })), "{replayed:?}");
        let another = json!(Hash::of(b"another").to_string());
        let forged = forged(&ledger, &done.span, set("/journal/answers/0/rows/0/3", another)).await;
        assert!(matches!(replay(&forged, done.span.id).await, Err(ReplayError::Changed { .. })));
    });
}

/// An engine that counts otherwise, as another version would.
struct Another(WasmSandbox);

#[async_trait]
impl Sandbox for Another {
    fn runtime(&self) -> &'static str {
        self.0.runtime()
    }

    async fn run(&self, job: Job<'_>, host: &mut dyn HostCalls) -> Report {
        let mut report = self.0.run(job, host).await;
        report.receipt.engine_hash = Hash::of(b"another engine");
        report.receipt.fuel_used += 7;
        report
    }
}

#[test]
fn another_engine_owes_the_same_output_but_not_the_same_fuel() {
    block_on(async {
        let (ledger, host) = host().await;
        let done = execute(&host, publish(&host, &echo()).await, json!([1, 2])).await;
        let another: Vec<Arc<dyn Sandbox>> = vec![Arc::new(Another(WasmSandbox::new().unwrap()))];
        let scope = Scope::runtime(TENANT);
        let again = logline_kernels::replay(&ledger, &scope, (TENANT, done.span.id), &another, Rules::default()).await.unwrap();
        assert!(again.holds() && !again.is_same_engine());
    });
}

#[test]
fn a_function_that_reads_more_than_its_journal_holds_is_told_so() {
    block_on(async {
        let (ledger, host) = host_with(|limits| limits.journal_bytes = 400).await;
        notes(&ledger, 5).await;
        let done = execute(&host, publish(&host, &ask(4, r#"{"entity_type":"note"}"#)).await, json!(1)).await;
        assert_eq!(output(&done)["code"], "journal_limit");
        assert_eq!(done.span.meta("journal").unwrap()["full_at"], 1);
        assert!(replay(&ledger, done.span.id).await.unwrap().holds());
        let few = execute(&host, publish(&host, &ask(4, r#"{"entity_type":"note","limit":2}"#)).await, json!(1)).await;
        assert_eq!(output(&few)["spans"].as_array().unwrap().len(), 2);
    });
}

#[test]
fn a_function_may_ask_for_less_than_its_tenant_is_allowed_and_never_for_more() {
    block_on(async {
        let (_, host) = host().await;
        let spin = module("", "(loop $again (br $again)) (i64.const 0)");
        for (limits, fuel) in [(json!({"fuel": 70_000}), 70_000), (json!({"fuel": 100_000_000_000_u64}), 100_000_000)] {
            let draft = function(&spin).visibility(Visibility::Tenant).meta("limits", limits);
            let id = host.publish(draft, &key(PUBLISHER)).await.unwrap().id;
            let done = execute(&host, id, json!(1)).await;
            assert_eq!(failure(&done).0, "fuel_exhausted");
            assert_eq!(done.span.meta("receipt").unwrap()["limits"]["fuel"], fuel);
        }
        let draft = function(&spin).meta("limits", json!({"fule": 1}));
        let error = host.publish(draft.clone(), &key(PUBLISHER)).await.unwrap_err();
        assert!(error.to_string().contains("unknown field `fule`"), "{error}");
    });
}

/// What is said of a record that is false whatever the function does.
async fn denied(ledger: &dyn Ledger, execution: Uuid) -> String {
    match replay(ledger, execution).await {
        Err(error @ ReplayError::DoesNotHold { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn reference(span: &SignedSpan) -> Value {
    json!({"tenant": span.tenant_id, "id": span.id, "seq": span.seq, "curr_hash": span.seal.curr_hash.to_string()})
}

#[test]
fn a_record_that_contradicts_itself_or_what_it_names_does_not_hold() {
    block_on(async {
        let (ledger, host) = host().await;
        notes(&ledger, 3).await;
        let id = publish(&host, &curious()).await;
        let done = execute(&host, id, json!({"n": 1})).await.span.into_signed();
        let claimed = ledger.history(&Scope::Operator, TENANT, done.related_to[0], 1, 1).await.unwrap().remove(0);
        let scheduled = ledger.history(&Scope::Operator, TENANT, claimed.id, 0, 1).await.unwrap().remove(0);
        let private = Draft::new("note").tenant(TENANT).owner("other").who("user").this("note").content(json!({"n": 9}));
        let private = smuggle(&ledger, private.visibility(Visibility::Private), HOST).await;
        let alert = spans(&ledger, "alert").await.remove(0);
        let note = spans(&ledger, "note").await.remove(0);
        let row = |span: &SignedSpan| json!([[span.tenant_id, span.id, span.seq, span.seal.curr_hash.to_string()]]);
        let another = publish(&host, &answer("{\"paid\":true}")).await;
        let another = ledger.get(&Scope::Operator, TENANT, another).await.unwrap();
        let rows = "/journal/answers/0/rows";
        for (forged, reason) in [
            (forged(&ledger, &done, set("/function", reference(&another))).await, "not the function that the request asks for"),
            (forged(&ledger, &done, set("/function", reference(&alert))).await, "not the function that the request asks for"),
            (
                forged(&ledger, &done, set("/request", reference(&scheduled))).await,
                "not the version with which attempt 1 was claimed",
            ),
            (forged(&ledger, &done, set("/attempt", json!(2))).await, "not attempt 2"),
            (forged(&ledger, &done, set("/worker", json!("00".repeat(32)))).await, "was claimed by its worker"),
            (
                forged(&ledger, &done, set("/journal/now", json!("2020-01-01T00:00:00.000000Z"))).await,
                "its journal has the time 2020-01-01",
            ),
            (
                forged(&ledger, &done, set("/receipt/limits/fuel", json!(1_000_000_000_000_u64))).await,
                "the most is 100000000000",
            ),
            (forged(&ledger, &done, set("/receipt/fuel_used", json!(200_000_000))).await, "the limit was 100000000"),
            (forged(&ledger, &done, set("/receipt/abi", json!("wasm@2"))).await, "the function is for `wasm@1`"),
            (forged(&ledger, &done, set(rows, row(&private))).await, "does not find for the request's owner"),
            (forged(&ledger, &done, set(rows, row(&alert))).await, "does not find for the request's owner"),
            (forged(&ledger, &done, set(rows, json!([row(&note)[0], row(&note)[0]]))).await, "twice"),
            (forged(&ledger, &done, set("/kernel", json!({"approved": true}))).await, "names no kernel"),
            (
                forged(&ledger, &done, |draft| {
                    *draft.columns_mut().metadata.as_mut().unwrap().pointer_mut("/journal").unwrap() =
                        json!({"v": 1, "now": claimed.at.to_string(), "full_at": 1})
                })
                .await,
                "because the journal was full, but it had room",
            ),
            (
                forged(
                    &ledger,
                    &done,
                    set("/journal/answers/0", json!({"call": 1, "error": {"code": "unavailable", "message": "no"}})),
                )
                .await,
                "refused with `unavailable`, which is not a valid refusal of a query",
            ),
            (
                forged(&ledger, &done, |draft| draft.columns_mut().error = Some(json!({"code": "timeout"}))).await,
                "contradict each other",
            ),
            (
                forged(&ledger, &done, |draft| draft.columns_mut().status = Some("error".to_owned())).await,
                "contradict each other",
            ),
            (forged(&ledger, &done, |draft| *draft = draft.clone().without_meta("receipt")).await, "no receipt of the code"),
        ] {
            let said = denied(&forged, done.id).await;
            assert!(said.contains(reason), "{said}, not {reason}");
        }
        // A note where the request's own row should be, signed by another runtime.
        let lenient = MemoryLedger::new();
        for row in ledger.collect(&Scope::Operator, &Query::new().versions(Versions::All), 1000).await.unwrap() {
            if row.id != done.id {
                lenient.append_one(&Scope::Operator, row.verify(&mut Verifier::new()).unwrap()).await.unwrap();
            }
        }
        let another_host = Draft::from_columns(done.span.clone()).seal_local(&key(PUBLISHER)).unwrap();
        lenient.append_one(&Scope::Operator, another_host).await.unwrap();
        assert!(denied(&lenient, done.id).await.contains("and claimed by"));
        // A draft that was accepted, recorded as refused.
        let refused = json!({"call": 3, "error": {"code": "emit_limit", "message": "no more"}});
        let ledger = forged(&ledger, &done, |draft| {
            let answers = draft.columns_mut().metadata.as_mut().unwrap().pointer_mut("/journal/answers").unwrap();
            answers.as_array_mut().unwrap().insert(1, refused);
        })
        .await;
        let again = replay(&ledger, done.id).await.unwrap();
        assert!(again.differences.iter().any(|found| found.what.contains("call 3")), "{:?}", again.differences);
    });
}

#[test]
fn a_host_that_asks_something_else_in_the_requests_name_is_found_out() {
    block_on(async {
        let (ledger, host) = host().await;
        let id = publish(&host, &echo()).await;
        let done = execute(&host, id, json!({"amount": 12})).await.span.into_signed();
        let request = done.related_to[0];
        let claimed = ledger.history(&Scope::Operator, TENANT, request, 1, 1).await.unwrap().remove(0);
        // What it claimed is not what was asked for.
        let policy = || json!({"id": id.to_string(), "depth": 1});
        let forgeries: [(&str, Value); 4] = [
            ("/input", json!({"amount": 1_000_000})),
            ("/metadata/policy", policy()),
            ("/metadata/deadline", json!("2030-01-01T00:00:00.000000Z")),
            ("/metadata/max_attempts", json!(9)),
        ];
        for (place, value) in forgeries {
            let mut claim = Draft::from_columns(claimed.span.clone());
            match place.strip_prefix("/metadata/") {
                Some(name) => claim = claim.meta(name, value.clone()),
                None => claim.columns_mut().input = Some(value.clone()),
            }
            let claim = claim.seal_local(&key(HOST)).unwrap();
            let mut record = Draft::from_columns(done.span.clone());
            set("/request", reference(&claim))(&mut record);
            match place {
                "/input" => record.columns_mut().output = Some(value),
                "/metadata/policy" => record = record.meta("policy", value),
                _ => {}
            }
            let forged = MemoryLedger::new();
            for row in ledger.collect(&Scope::Operator, &Query::new().versions(Versions::All), 1000).await.unwrap() {
                if row.id != done.id && !(row.id == request && row.seq > 0) {
                    forged.append_one(&Scope::Operator, row.verify(&mut Verifier::new()).unwrap()).await.unwrap();
                }
            }
            forged.append_one(&Scope::Operator, claim).await.unwrap();
            forged.append_one(&Scope::Operator, record.seal_local(&key(HOST)).unwrap()).await.unwrap();
            let said = denied(&forged, done.id).await;
            assert!(said.contains("asks something else than the request's first version"), "{place}: {said}");
        }
    });
}

#[test]
fn a_record_that_is_replaced_by_a_later_version_does_not_hold_and_is_not_returned() {
    block_on(async {
        let (ledger, host) = host().await;
        let id = publish(&host, &echo()).await;
        let request = Request::new(TENANT, USER, id, json!({"n": 1})).idempotency_key("once");
        let done = host.execute(request.clone()).await.unwrap();
        let second = Draft::next_version(&done.span).output(json!({"paid": true})).stamp(&SystemClock, &SystemIds);
        ledger.append_one(&Scope::Operator, second.seal_local(&key(HOST)).unwrap()).await.unwrap();
        let said = denied(&ledger, done.span.id).await;
        assert!(said.contains("it was replaced by a later version"), "{said}");
        let again = host.execute(request).await.unwrap();
        assert_eq!(again.result, done.result, "whoever asks again gets what was recorded");
    });
}

#[test]
fn what_was_emitted_in_a_functions_name_is_found_out() {
    block_on(async {
        let (ledger, host) = host().await;
        let fails = module(
            r#"(data (i32.const 1024) "{\22code\22:\22no\22,\22message\22:\22no\22}")"#,
            "(i64.or (call $pack (i32.const 1024) (i32.const 28)) (i64.const 0x80000000))",
        );
        for (code, index) in [(fails, 0), (echo(), 0), (curious(), 1), (echo(), 700)] {
            let id = publish(&host, &code).await;
            let done = execute(&host, id, json!(1)).await.span.into_signed();
            assert!(
                replay(&ledger, done.id).await.unwrap().holds(),
                "{:?}",
                replay(&ledger, done.id).await.unwrap().differences
            );
            let extra = ids::derive("emitted", &[&done.id.to_string(), &index.to_string()]);
            let extra = Draft::new("alert").id(extra).tenant(TENANT).owner(USER).who(format!("function:{id}")).this("alert");
            smuggle(&ledger, extra, HOST).await;
            let again = replay(&ledger, done.id).await.unwrap();
            assert_eq!(again.differences.len(), 1, "{:?}", again.differences);
            assert_eq!(again.differences[0].what, "emitted");
        }
    });
}

#[test]
fn an_output_that_cannot_be_stored_is_recorded_without_its_logs_and_holds() {
    block_on(async {
        let (ledger, host) = host().await;
        let deeper = "[".repeat(64) + &"]".repeat(64);
        let said = r#"{"level":"info","message":"here"}"#;
        let code = module(
            &format!(r#"(data (i32.const 1024) "{}") (data (i32.const 2048) "{deeper}")"#, said.replace('"', "\\22")),
            &format!(
                "(drop (call $host (i32.const 1) (i32.const 1024) (i32.const {}))) (call $pack (i32.const 2048) (i32.const 128))",
                said.len()
            ),
        );
        let done = execute(&host, publish(&host, &code).await, json!(1)).await;
        assert_eq!(failure(&done).0, "invalid_output");
        assert!(done.span.meta("logs").is_none());
        let again = replay(&ledger, done.span.id).await.unwrap();
        assert!(again.holds(), "{:?}", again.differences);
    });
}
