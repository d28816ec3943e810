//! `logline replay` on a ledger that a host has written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::process::Command;

use logline_core::ledger::LedgerExt as _;
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{Draft, Execution, Host, KeyPair, Scope, Signer as _, SystemClock, Visibility, ids};
use logline_sqlite::SqliteLedger;
use logline_wasm::WasmSandbox;
use serde_json::{Value, json};
use uuid::Uuid;

const SCORE: &[u8] = include_bytes!("../../logline-wasm/guests/score_payments.wasm");
const RULES: &str = include_str!("../../logline-wasm/guests/score_payments/rules.json");

async fn score(ledger: SqliteLedger, key: &KeyPair) -> Execution {
    let trust = TrustRoot::new([key.public_key()], 1);
    let manifest = Manifest::first(RootSet::new([key.public_key()], 1))
        .allow("run_code", ids::RUN_CODE)
        .grant(key.public_key(), Role::Publisher, ["system", "*"])
        .grant(key.public_key(), Role::Runtime, ["system", "*"]);
    trust.publish(&ledger, &manifest, key, &SystemClock).await.unwrap();
    logline_kernels::install(&ledger, &logline_kernels::all(), key, &SystemClock).await.unwrap();
    let host = Host::builder()
        .ledger(ledger)
        .trust(trust)
        .key(key.clone())
        .install(logline_kernels::all())
        .sandbox(WasmSandbox::new().unwrap())
        .build()
        .await
        .unwrap();
    let function = Draft::new("function")
        .tenant("acme")
        .owner("risk")
        .who("publisher")
        .this("function.score")
        .visibility(Visibility::Tenant)
        .runtime(logline_wasm::RUNTIME)
        .code(logline_wasm::encode_binary(SCORE))
        .input(serde_json::from_str(RULES).unwrap());
    let function = host.publish(function, key).await.unwrap().id;
    let payment = json!({"id": "pay_1", "amount_minor": 620_000, "currency": "EUR",
        "card": {"country": "DE", "present": false}, "customer": {"id": "cus_7", "age_days": 3, "country": "DE"},
        "ip_country": "US", "attempts_last_hour": 1});
    host.execute(Request::new("acme", "alice", function, payment)).await.unwrap()
}

fn replay(ledger: &str, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_logline"))
        .args(["--ledger", ledger, "replay"])
        .args(arguments)
        .env_remove("LOGLINE_LEDGER")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn an_execution_is_repeated_from_the_shell_and_a_false_record_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let (honest, false_one) = (folder.path().join("honest"), folder.path().join("false"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = KeyPair::generate().unwrap();
    let done = runtime.block_on(score(SqliteLedger::open(&honest).unwrap(), &key));
    assert!(done.result.is_ok(), "{:?}", done.result);
    let (url, id) = (format!("sqlite:{}", honest.display()), done.span.id.to_string());
    let (status, out, err) = replay(&url, &[&id]);
    assert_eq!(status, 0, "{out}{err}");
    assert!(out.contains(&format!("acme/{id}/0 holds")) && out.contains("the same settings"), "{out}");
    let (status, out, _) = replay(&url, &["--json", "--tenant", "acme", &id]);
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &line["holds"], &line["same_engine"]), (0, &json!(true), &json!(true)), "{out}");

    // The same host, had it recorded another decision.
    runtime.block_on(async {
        let (from, to) = (SqliteLedger::open(&honest).unwrap(), SqliteLedger::open(&false_one).unwrap());
        let all = logline_core::ledger::Query::new().versions(logline_core::ledger::Versions::All);
        for row in from.collect(&Scope::Operator, &all, usize::MAX).await.unwrap() {
            let mut draft = Draft::from_columns(row.span.clone());
            let span = if row.id == done.span.id {
                draft.columns_mut().output = Some(json!({"decision": "allow"}));
                draft.seal_local(&key).unwrap()
            } else {
                row.verify(&mut logline_core::Verifier::new()).unwrap()
            };
            to.append_one(&Scope::Operator, span).await.unwrap();
        }
    });
    let false_url = format!("sqlite:{}", false_one.display());
    let (status, out, _) = replay(&false_url, &[&id]);
    assert_eq!(status, 1);
    assert!(out.contains("DOES NOT HOLD") && out.contains(r#"differs   output: recorded {"decision":"allow"}"#), "{out}");

    let (status, out, _) = replay(&url, &["--tenant", "acme", &Uuid::nil().to_string()]);
    assert_eq!(status, 1);
    assert!(out.contains("not repeated") && out.contains("does not exist or is not visible"), "{out}");
    let (status, _, err) = replay(&url, &["no-uuid"]);
    assert_eq!(status, 2, "{err}");
}
