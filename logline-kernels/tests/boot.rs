//! Stage-0: what may boot, what may not, and the signed record of either.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use logline_core::contract::NATIVE_RUNTIME;
use logline_core::fsck::{Audit, fsck};
use logline_core::ledger::LedgerExt as _;
use logline_core::trust::Manifest;
use logline_core::{
    BootError, Draft, Host, HostError, MemoryLedger, SYSTEM_TENANT, Scope, Signer as _, SystemClock, Verifier, Visibility, ids,
};

use setup::{
    HOST, PUBLISHER, ROOT, STRANGER, SYSTEM_PUBLISHER, block_on, host_of, key, ledger, manifest, smuggle, spans, trust,
};

fn kernel(code: &str) -> Draft {
    Draft::new("function")
        .id(ids::PROVIDER_EXEC)
        .tenant(SYSTEM_TENANT)
        .owner(SYSTEM_TENANT)
        .who("logline")
        .this("function.trial")
        .visibility(Visibility::Public)
        .runtime(NATIVE_RUNTIME)
        .code(code)
}

async fn refused(host: &Host) -> BootError {
    match host.boot(ids::PROVIDER_EXEC).await {
        Err(HostError::Boot(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it booted"),
    }
}

/// The error code in the last boot event, which must verify and be signed by the host.
async fn recorded(ledger: &MemoryLedger) -> String {
    let event = spans(ledger, "boot_event").await.pop().expect("a boot event");
    let event = event.verify(&mut Verifier::new()).unwrap();
    assert_eq!(event.seal.public_key, key(HOST).public_key());
    assert_eq!(event.tenant_id, SYSTEM_TENANT);
    assert_eq!(event.status.as_deref(), Some("error"));
    event.error.as_ref().unwrap()["code"].as_str().unwrap().to_owned()
}

fn allowing() -> Manifest {
    manifest().allow("provider_exec", ids::PROVIDER_EXEC)
}

#[test]
fn a_kernel_boots_once_per_process_and_version_and_leaves_a_signed_event() {
    block_on(async {
        let ledger = ledger(&manifest()).await;
        let host = host_of(&ledger).await;
        let booted = host.boot(ids::RUN_CODE).await.unwrap();
        host.boot(ids::RUN_CODE).await.unwrap();
        host.refresh().await.unwrap();
        host.boot(ids::RUN_CODE).await.unwrap();
        let events = spans(&ledger, "boot_event").await;
        assert_eq!(events.len(), 1);
        let event = &events[0];
        assert_eq!(event.status.as_deref(), Some("complete"));
        assert_eq!(event.related_to, [ids::RUN_CODE]);
        assert_eq!(event.meta("kernel").unwrap()["curr_hash"], booted.span.seal.curr_hash.to_string());
        assert_eq!(event.meta("manifest").unwrap()["version"], 1);
        event.clone().verify(&mut Verifier::new()).unwrap();
    });
}

#[test]
fn a_kernel_that_the_manifest_does_not_allow_is_refused() {
    block_on(async {
        let ledger = ledger(&manifest()).await;
        smuggle(&ledger, kernel("run_code@2"), SYSTEM_PUBLISHER).await;
        let error = refused(&host_of(&ledger).await).await;
        assert!(matches!(error, BootError::NotAllowed { .. }), "{error}");
        assert!(error.to_string().contains("publish a manifest with `.allow(…)` for it"));
        assert_eq!(recorded(&ledger).await, "not_allowed");
    });
}

#[test]
fn a_kernel_that_is_not_there_is_refused() {
    block_on(async {
        let ledger = ledger(&allowing()).await;
        let error = refused(&host_of(&ledger).await).await;
        assert!(matches!(error, BootError::NotFound { .. }), "{error}");
        assert_eq!(recorded(&ledger).await, "not_found");
    });
}

#[test]
fn a_kernel_signed_by_anybody_but_the_systems_publisher_is_refused() {
    block_on(async {
        for signer in [STRANGER, PUBLISHER, ROOT, HOST] {
            let ledger = ledger(&allowing()).await;
            smuggle(&ledger, kernel("run_code@2"), signer).await;
            let error = refused(&host_of(&ledger).await).await;
            assert!(matches!(error, BootError::NotAuthorised { .. }), "{error}");
            assert_eq!(recorded(&ledger).await, "not_authorised");
        }
    });
}

/// Whoever can write in `system` could otherwise stop every host with one row.
#[test]
fn a_newer_version_by_a_stranger_neither_runs_nor_stops_the_kernel() {
    block_on(async {
        let ledger = ledger(&allowing()).await;
        let good = smuggle(&ledger, kernel("run_code@2"), SYSTEM_PUBLISHER).await;
        let host = host_of(&ledger).await;
        host.boot(ids::PROVIDER_EXEC).await.unwrap();
        smuggle(&ledger, Draft::next_version(&good).code("other@1"), STRANGER).await;
        host.refresh().await.unwrap();
        assert_eq!(host.boot(ids::PROVIDER_EXEC).await.unwrap().span.seal, good.seal);
        let another = host_of(&ledger).await;
        assert_eq!(another.boot(ids::PROVIDER_EXEC).await.unwrap().span.seal, good.seal, "a host that starts now, too");
    });
}

#[test]
fn a_kernel_in_a_tenant_under_the_same_id_is_never_looked_at() {
    block_on(async {
        let ledger = ledger(&allowing()).await;
        smuggle(&ledger, kernel("run_code@2").tenant("acme"), PUBLISHER).await;
        assert!(matches!(refused(&host_of(&ledger).await).await, BootError::NotFound { .. }));
    });
}

#[test]
fn a_span_that_is_no_native_function_of_this_host_is_refused() {
    block_on(async {
        let mut note = kernel("run_code@2");
        note.columns_mut().entity_type = "policy".to_owned();
        let cases = [
            (note, "not_a_function"),
            (kernel("run_code@2").runtime("wasm@1"), "wrong_runtime"),
            (kernel("run_code@3"), "not_registered"),
            (kernel("rm -rf /"), "not_registered"),
            (kernel(""), "not_registered"),
        ];
        for (draft, code) in cases {
            let ledger = ledger(&allowing()).await;
            smuggle(&ledger, draft, SYSTEM_PUBLISHER).await;
            let error = refused(&host_of(&ledger).await).await;
            assert_eq!(recorded(&ledger).await, code, "{error}");
        }
    });
}

#[test]
fn a_host_that_is_no_runtime_gets_an_error_and_writes_nothing() {
    block_on(async {
        let ledger = ledger(&manifest()).await;
        let builder = Host::builder().ledger(ledger.clone()).trust(trust()).key(key(STRANGER));
        let host = builder.install(logline_kernels::all()).build().await.unwrap();
        let error = host.boot(ids::RUN_CODE).await.err().unwrap();
        assert!(matches!(error, HostError::Boot(BootError::HostNotAuthorised { .. })), "{error}");
        assert!(spans(&ledger, "boot_event").await.is_empty());
    });
}

#[test]
fn a_host_without_its_parts_or_a_manifest_says_what_is_missing() {
    block_on(async {
        let error = |builder: logline_core::HostBuilder| async { builder.build().await.err().unwrap().to_string() };
        assert_eq!(error(Host::builder()).await, "host has no ledger: set it on the builder");
        let empty = MemoryLedger::new();
        assert_eq!(error(Host::builder().ledger(empty.clone())).await, "host has no trust root: set it on the builder");
        assert_eq!(error(Host::builder().ledger(empty.clone()).trust(trust())).await, "host has no key: set it on the builder");
        let no_manifest = error(Host::builder().ledger(empty).trust(trust()).key(key(HOST))).await;
        assert!(no_manifest.contains("seal one with a pinned root key"), "{no_manifest}");
    });
}

#[test]
fn a_rolled_back_manifest_is_noticed() {
    block_on(async {
        let full = ledger(&manifest()).await;
        let mut second = manifest();
        second.version = 2;
        trust().publish(&full, &second, &key(ROOT), &SystemClock).await.unwrap();
        let mut pinned = trust();
        pinned.min_version = 2;
        assert_eq!(pinned.resolve(&full).await.unwrap().manifest.version, 2);
        let old = ledger(&manifest()).await;
        let error = pinned.resolve(&old).await.unwrap_err().to_string();
        assert!(error.contains("newest manifest that counts is version 1, the trust root demands 2"), "{error}");
    });
}

#[test]
fn installing_the_seeds_again_changes_nothing() {
    block_on(async {
        let ledger = ledger(&manifest()).await;
        for _ in 0..2 {
            let installed =
                logline_kernels::install(&ledger, &logline_kernels::all(), &key(SYSTEM_PUBLISHER), &SystemClock).await.unwrap();
            assert!(installed.iter().all(|i| matches!(i, logline_kernels::Installed::Unchanged(_))), "{installed:?}");
        }
        let head = ledger.find(&Scope::Operator, SYSTEM_TENANT, ids::RUN_CODE).await.unwrap().unwrap();
        assert_eq!(head.seq, 2);
        // Another publisher takes over by the next version.
        let installed = logline_kernels::install(&ledger, &logline_kernels::all(), &key(STRANGER), &SystemClock).await.unwrap();
        assert!(matches!(&installed[0], logline_kernels::Installed::Appended(key) if key.seq == 3));
    });
}

#[test]
fn everything_a_boot_leaves_behind_passes_an_audit() {
    block_on(async {
        let ledger = ledger(&allowing()).await;
        let host = host_of(&ledger).await;
        host.boot(ids::RUN_CODE).await.unwrap();
        refused(&host).await;
        let trusted = trust().resolve(&ledger).await.unwrap();
        let mut audit = Audit::default();
        audit.authorities = Some(&trusted.authorities);
        let report = fsck(&ledger, audit, &mut |event| println!("{event:?}")).await.unwrap();
        assert!(report.is_clean() && report.authority_checked, "{report:?}");
    });
}
