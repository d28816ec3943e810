//! Modules that are too large for one span.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use logline_core::contract::Sandbox;
use logline_core::ledger::LedgerExt as _;
use logline_core::{Draft, Hash, Rules, Scope, SystemClock, SystemIds, ids};
use logline_kernels::publish_module;
use serde_json::json;
use std::sync::Arc;

use setup::{HOST, PUBLISHER, TENANT, block_on, echo, execute, failure, function, host, key, output, spans};

/// The echo module with so many bytes of data besides.
fn large(bytes: usize) -> Vec<u8> {
    let data = format!("(data (i32.const 2000) \"{}\")", "\\aa\\55\\0f".repeat(1000));
    let text = echo().replace("(global $next", &format!("{} (global $next", data.repeat(bytes / 3000)));
    wat::parse_str(text).unwrap()
}

#[test]
fn a_module_that_fits_no_span_runs_from_blobs_and_is_repeated_from_them() {
    block_on(async {
        let (ledger, host) = host().await;
        let binary = large(900_000);
        assert!(binary.len() > 800_000);
        let published =
            publish_module(&host, function("").id(ids::derive("function", &[TENANT, "large"])), &binary, &key(PUBLISHER))
                .await
                .unwrap();
        assert_eq!(published.code.as_deref(), Some(format!("blob:{}", Hash::of(&binary)).as_str()));
        let parts = spans(&ledger, "blob").await;
        assert_eq!((parts.len(), parts[0].meta("parts")), (2, Some(&json!(2))));
        for _ in 0..2 {
            let done = execute(&host, published.id, json!([1, 2])).await;
            assert_eq!(output(&done)["input"], json!([1, 2]));
        }
        let done = execute(&host, published.id, json!("x")).await;
        let sandboxes: [Arc<dyn Sandbox>; 1] = [Arc::new(logline_wasm::WasmSandbox::new().unwrap())];
        let scope = Scope::runtime(TENANT);
        let again = logline_kernels::replay(&ledger, &scope, (TENANT, done.span.id), &sandboxes, Rules::default());
        assert!(again.await.unwrap().holds());
        // Published again, the parts stay what they are.
        publish_module(&host, function("").id(published.id), &binary, &key(PUBLISHER)).await.unwrap();
        assert_eq!(spans(&ledger, "blob").await.len(), 2);
        let small =
            publish_module(&host, function("").id(ids::derive("function", &[TENANT, "small"])), &large(3000), &key(PUBLISHER))
                .await
                .unwrap();
        assert!(small.code.as_deref().unwrap().starts_with("blake3:"));
        assert!(execute(&host, small.id, json!(1)).await.result.is_ok());
    });
}

#[test]
fn a_blob_that_is_not_there_or_not_what_it_says_does_not_run() {
    block_on(async {
        let (ledger, host) = host().await;
        let missing = host.publish(function(&format!("blob:{}", Hash::of(b"nothing"))), &key(PUBLISHER)).await.unwrap();
        let done = execute(&host, missing.id, json!(1)).await;
        let (code, message) = failure(&done);
        assert_eq!(code, "blob_not_found");
        assert!(message.contains("part 0") && message.contains("publish it"), "{message}");
        let nonsense = host.publish(function("blob:nonsense"), &key(PUBLISHER)).await.unwrap();
        assert_eq!(failure(&execute(&host, nonsense.id, json!(1)).await).0, "invalid_module");
        // A false part, by whoever can write to the store with a key of the tenant.
        let hash = Hash::of(b"what it says");
        let id = logline_core::ids::derive("blob", &[TENANT, &hash.to_string(), "0"]);
        let code = logline_wasm::encode_binary(&wat::parse_str(echo()).unwrap());
        let base64 = code.split_once('\n').unwrap().1;
        let part = Draft::new("blob").id(id).tenant(TENANT).owner("risk-team").who("x").this("blob.part");
        let part = part.content(json!({"base64": base64})).metadata(json!({"parts": 1}));
        let part = part.stamp(&SystemClock, &SystemIds).seal_local(&key(HOST)).unwrap();
        ledger.append_one(&Scope::Operator, part).await.unwrap();
        let false_one = host.publish(function(&format!("blob:{hash}")), &key(PUBLISHER)).await.unwrap();
        let done = execute(&host, false_one.id, json!(1)).await;
        let (code, message) = failure(&done);
        assert_eq!(code, "invalid_module");
        assert!(message.contains("do not have this hash"), "{message}");
    });
}

#[test]
fn a_blob_of_more_parts_than_a_module_may_have_is_not_read() {
    block_on(async {
        let (ledger, host) = host().await;
        let hash = Hash::of(b"large");
        for (n, parts, content, expected) in
            [(0, 33, "AAAA".to_owned(), "module_limit"), (1, 1, "A".repeat(800_000), "invalid_module")]
        {
            let hash = Hash::of(&[hash.0.as_slice(), &[n]].concat());
            let id = logline_core::ids::derive("blob", &[TENANT, &hash.to_string(), "0"]);
            let part = Draft::new("blob").id(id).tenant(TENANT).owner("risk-team").who("x").this("blob.part");
            let part = part.content(json!({"base64": content})).metadata(json!({"parts": parts}));
            let part = part.stamp(&SystemClock, &SystemIds).seal_local(&key(HOST)).unwrap();
            ledger.append_one(&Scope::Operator, part).await.unwrap();
            let function = host.publish(function(&format!("blob:{hash}")), &key(PUBLISHER)).await.unwrap();
            let done = execute(&host, function.id, json!(1)).await;
            assert_eq!(failure(&done).0, expected, "{:?}", done.result);
        }
    });
}
