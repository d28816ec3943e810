//! The loop that ends memories and epochs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod site;

use std::time::Duration;

use logline_core::ledger::{Ledger as _, WatchFrom};
use logline_core::roles::Role;
use logline_core::trust::Manifest;
use logline_core::{Draft, Host, SYSTEM_TENANT, Scope, Signer as _, SystemClock};
use logline_kernels::{Loops, Run as _};
use logline_memory::{KeeperReport, MemoryKeeper, ReceiptState, What};

use futures_util::StreamExt as _;
use site::{HOST, PUBLISHER, ROOT, STRANGER, Site, TENANT, block_on, fact, key};

#[test]
fn memories_end_at_their_time_and_receipts_are_sealed_by_the_loop() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let end = site.soon().await;
        let ends = alice.remember(&fact("ends").ttl_at(end)).await.unwrap();
        let goes = alice.remember(&fact("goes")).await.unwrap();
        let stays = alice.remember(&fact("stays")).await.unwrap();
        let receipt = alice.forget(&What::One(goes.id)).await.unwrap();
        // A row that nobody may have signed takes neither from the loop.
        for (id, status) in [(receipt.id, "done"), (ends.id, "forgotten")] {
            site.forge(Draft::next_version(&site.last(id).await).status(status).without_meta("ttl_at"), STRANGER).await;
        }

        let keeper = MemoryKeeper::new([TENANT]).poll(Duration::from_millis(50)).epoch(Duration::from_secs(1));
        let set = logline_kernels::all().and(site.kernel.all()).and(keeper.all());
        let trusted = site.trust.resolve(&site.ledger).await.unwrap();
        let manifest = Manifest { version: trusted.manifest.version + 1, ..trusted.manifest.clone() }.allow_all(&set);
        let manifest = manifest.grant(key(HOST).public_key(), Role::Runtime, [SYSTEM_TENANT, "*"]);
        site.trust.publish(&site.ledger, &manifest, &key(ROOT), &SystemClock).await.unwrap();
        logline_kernels::install(&site.ledger, &set, &key(PUBLISHER), &SystemClock).await.unwrap();
        let host = Host::builder().ledger(site.ledger.clone()).trust(site.trust.clone()).key(key(HOST)).install(set);
        let host = host.build().await.unwrap();

        let mut watch = site.ledger.watch(&Scope::Operator, WatchFrom::Now).await.unwrap();
        let sealed = async {
            let (mut receipts, mut ended) = (0, false);
            while receipts < 2 || !ended {
                let row = watch.next().await.unwrap().unwrap().span;
                receipts += u32::from(row.entity_type == "memory_receipt" && row.status.as_deref() == Some("sealed"));
                ended |= row.id == ends.id && row.status.as_deref() == Some("expired");
            }
        };
        let ran = host.run(Loops::none().with(keeper), sealed).await.unwrap();
        let report: KeeperReport = ran.report();
        assert!(report.expired >= 1 && report.epochs >= 1 && report.failed == 0, "{report:?}");
        assert!(alice.receipts(10).await.unwrap().iter().all(|receipt| receipt.state == ReceiptState::Sealed));
        assert_eq!(alice.get(ends.id).await.unwrap(), None);
        assert!(alice.get(stays.id).await.unwrap().is_some());
    });
}
