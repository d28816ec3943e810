//! What may be published: code that can run, once for each change.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use logline_core::request::Request;
use logline_core::{Draft, Hash, Host, HostError, MemoryLedger, Visibility, ids};
use logline_kernels::publish_module;
use serde_json::json;
use setup::{HOST, PUBLISHER, TENANT, USER, block_on, echo, failure, function, host_of, key, ledger, manifest, module, spans};

async fn site() -> (MemoryLedger, Host) {
    let ledger = ledger(&manifest()).await;
    let host = host_of(&ledger).await;
    (ledger, host)
}

fn fee() -> Draft {
    function(&echo()).id(ids::derive("function", &[TENANT, "fee"])).name("fee")
}

fn reason(refused: HostError) -> (String, String) {
    match refused {
        HostError::NotValid { entity_type, reason } => {
            assert_eq!(entity_type, "function");
            (reason.code, reason.message)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_function_that_no_sandbox_could_run_is_not_published() {
    block_on(async {
        let (ledger, host) = site().await;
        let missing_blob = format!("blob:{}", Hash::of(b"nothing"));
        for (draft, code, told) in [
            (fee().code(""), "invalid_module", "`code` is empty"),
            (fee().code("(module"), "invalid_module", ""),
            (fee().code("(module)"), "invalid_module", "does not export"),
            (fee().code(module("", "(i64.const 1) (i64.const 2)")), "invalid_module", ""),
            (fee().runtime("js@1"), "runtime_not_available", "it has: wasm@1"),
            (fee().code(missing_blob), "blob_not_found", "publish it"),
            (fee().metadata(json!({"limits": {"fuel": "much"}})), "invalid_limits", "expected u64"),
        ] {
            let (found, message) = reason(host.publish(draft.clone(), &key(PUBLISHER)).await.unwrap_err());
            assert_eq!(found, code, "{message}");
            assert!(message.contains(told), "{message}");
            host.publish_if_changed(draft, &key(PUBLISHER)).await.unwrap_err();
        }
        let code = publish_module(&host, fee(), b"\0asm\x01\0\0\0", &key(PUBLISHER)).await.unwrap_err();
        assert_eq!(reason(code).0, "invalid_module");
        assert!(spans(&ledger, "function").await.iter().all(|span| span.tenant_id != TENANT), "nothing was written");
    });
}

#[test]
fn a_host_without_a_sandbox_publishes_functions_only_if_it_was_built_to() {
    block_on(async {
        let ledger = ledger(&manifest()).await;
        let builder =
            || Host::builder().ledger(ledger.clone()).trust(setup::trust()).key(key(HOST)).install(logline_kernels::all());
        let host = builder().build().await.unwrap();
        let (code, message) = reason(host.publish(fee(), &key(PUBLISHER)).await.unwrap_err());
        assert_eq!(code, "runtime_not_available");
        assert!(message.contains("it has: none") && message.contains("publish_unchecked"), "{message}");
        builder().publish_unchecked().build().await.unwrap().publish(fee(), &key(PUBLISHER)).await.unwrap();
    });
}

#[test]
fn to_publish_the_same_again_writes_nothing_and_a_change_is_the_next_version() {
    block_on(async {
        let (ledger, host) = site().await;
        let first = host.publish_if_changed(fee(), &key(PUBLISHER)).await.unwrap();
        let again = host.publish_if_changed(fee(), &key(PUBLISHER)).await.unwrap();
        assert_eq!((first.seq, again.seal.curr_hash), (0, first.seal.curr_hash));
        let changed = host.publish_if_changed(fee().input(json!({"rate": 25})), &key(PUBLISHER)).await.unwrap();
        assert_eq!((changed.seq, changed.prev_hash), (1, Some(first.seal.curr_hash)));
        let back = host.publish_if_changed(fee(), &key(PUBLISHER)).await.unwrap();
        assert_eq!(back.seq, 2);
        let (code, message) = reason(host.publish_if_changed(function(&echo()), &key(PUBLISHER)).await.unwrap_err());
        assert!(
            code == "id_missing" && message.contains("ids::derive"),
            "it would be another function at each start: {message}"
        );
        let count = spans(&ledger, "function").await.iter().filter(|span| span.tenant_id == TENANT).count();
        assert_eq!(count, 3);
        // Modules as well, small and in parts.
        let binary = wat::parse_str(echo()).unwrap();
        let module = publish_module(&host, fee(), &binary, &key(PUBLISHER)).await.unwrap();
        let again = publish_module(&host, fee(), &binary, &key(PUBLISHER)).await.unwrap();
        assert_eq!((module.seq, again.seq), (3, 3));
    });
}

#[test]
fn a_service_that_starts_again_ends_no_emergency_stop() {
    block_on(async {
        let (ledger, host) = site().await;
        let first = host.publish_if_changed(fee(), &key(PUBLISHER)).await.unwrap();
        let stopped = host.publish(Draft::next_version(&first).status("stopped"), &key(PUBLISHER)).await.unwrap();
        // A row that nobody may have signed hides the stop no more than it makes one.
        setup::smuggle(&ledger, Draft::next_version(&stopped).status("active"), setup::STRANGER).await;
        for draft in [fee(), fee().input(json!({"rate": 25}))] {
            match host.publish_if_changed(draft, &key(PUBLISHER)).await.unwrap_err() {
                HostError::Stopped { key, .. } => assert_eq!(key, stopped.key()),
                other => panic!("{other}"),
            }
        }
        // Who means it puts it to work again.
        assert_eq!(host.publish_again(fee(), &key(PUBLISHER)).await.unwrap().seq, 3);
        assert_eq!(host.publish_if_changed(fee(), &key(PUBLISHER)).await.unwrap().seq, 3);
    });
}

#[test]
fn what_a_stranger_has_signed_is_published_again_by_the_publisher() {
    block_on(async {
        let (ledger, host) = site().await;
        let forged = setup::smuggle(&ledger, fee(), setup::STRANGER).await;
        let published = host.publish_if_changed(fee(), &key(PUBLISHER)).await.unwrap();
        assert_eq!((published.seq, published.prev_hash), (1, Some(forged.seal.curr_hash)));
        // And a stranger cannot publish through the host, whether it is the same or not.
        for draft in [fee().name("other"), fee().input(json!(1))] {
            assert!(matches!(host.publish_if_changed(draft, &key(setup::STRANGER)).await, Err(HostError::Admit(_))));
        }
    });
}

#[test]
fn a_private_function_that_another_user_asks_for_is_told_as_what_it_may_be() {
    block_on(async {
        let (_, host) = site().await;
        let hidden = host.publish(fee().visibility(Visibility::Private), &key(PUBLISHER)).await.unwrap();
        let done = host.execute(Request::new(TENANT, USER, hidden.id, json!(1))).await.unwrap();
        let (code, message) = failure(&done);
        assert_eq!(code, "function_not_found");
        assert!(message.contains("a private one is seen by its owner only"), "{message}");
    });
}

#[test]
fn a_host_that_is_called_without_a_tokio_runtime_says_so_before_it_claims() {
    let (ledger, host, id) = block_on(async {
        let (ledger, host) = site().await;
        let id = host.publish(fee(), &key(PUBLISHER)).await.unwrap().id;
        (ledger, host, id)
    });
    let error = futures_executor(host.execute(Request::new(TENANT, USER, id, json!(1)))).unwrap_err();
    assert!(error.to_string().contains("Tokio runtime"), "{error}");
    let requests = block_on(spans(&ledger, "request"));
    assert!(requests.is_empty(), "nothing was stored");
}

/// Runs a future on no runtime at all.
fn futures_executor<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}

#[test]
fn a_tombstone_of_a_stranger_is_followed_by_the_next_version_of_kernels_and_functions() {
    block_on(async {
        let (ledger, host) = site().await;
        let published = host.publish_if_changed(fee(), &key(PUBLISHER)).await.unwrap();
        setup::smuggle(&ledger, Draft::next_version(&published).deleted(), setup::STRANGER).await;
        let again = host.publish_if_changed(fee(), &key(PUBLISHER)).await.unwrap();
        assert_eq!((again.seq, again.is_deleted), (2, false));
        // One of its own was meant.
        let gone = host.publish(Draft::next_version(&again).deleted(), &key(PUBLISHER)).await.unwrap();
        assert!(matches!(host.publish_if_changed(fee(), &key(PUBLISHER)).await, Err(HostError::Stopped { .. })));
        let back = host.publish_again(fee(), &key(PUBLISHER)).await.unwrap();
        assert_eq!((back.seq, back.prev_hash), (4, Some(gone.seal.curr_hash)));
        let kernel = spans(&ledger, "function").await.into_iter().find(|span| span.id == ids::RUN_CODE).unwrap();
        setup::smuggle(&ledger, Draft::next_version(&kernel).deleted(), setup::STRANGER).await;
        host.refresh().await.unwrap();
        assert!(host.boot(ids::RUN_CODE).await.is_err());
        let clock = logline_core::SystemClock;
        logline_kernels::install(&ledger, &logline_kernels::all(), &key(setup::SYSTEM_PUBLISHER), &clock).await.unwrap();
        host.refresh().await.unwrap();
        host.boot(ids::RUN_CODE).await.unwrap();
    });
}

#[test]
fn a_part_of_a_module_that_somebody_else_has_taken_is_told() {
    block_on(async {
        let (ledger, host) = site().await;
        let mut binary = wat::parse_str(echo()).unwrap();
        // A custom section of 600 KiB, so that the module has two parts.
        let section = vec![0_u8; 600 << 10];
        let length = section.len() + 2;
        binary.push(0);
        let mut rest = length;
        while rest >= 0x80 {
            binary.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
            rest >>= 7;
        }
        binary.push(u8::try_from(rest).unwrap());
        binary.extend([1, b'x']);
        binary.extend(section);
        let hash = Hash::of(&binary);
        let id = ids::derive("blob", &[TENANT, &hash.to_string(), "1"]);
        let taken = Draft::new("blob")
            .id(id)
            .tenant(TENANT)
            .owner("risk-team")
            .who("x")
            .this("blob.part")
            .content(json!({"base64": "AAAA"}));
        setup::smuggle(&ledger, taken, setup::STRANGER).await;
        let error = publish_module(&host, fee(), &binary, &key(PUBLISHER)).await.unwrap_err().to_string();
        assert!(error.contains("part 1 of this module"), "{error}");
    });
}
