//! What is left of a forgotten memory: on the disk, in an old copy of everything, with every key that still exists.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod believed;
mod orphans;
#[path = "../places/mod.rs"]
mod places;
mod races;
#[path = "../site/mod.rs"]
mod site;

use std::path::Path;

use logline_core::contract::{KeyError, KeyProvider as _, KeyStore as _};
use logline_memory::{LocalKeys, Memories, MemoryKernel, Mode, ReceiptState, Vault, VaultError, What, close_epoch};
use logline_sqlite::{SqliteKeys, SqliteLedger};
use uuid::Uuid;

use places::Places;
use site::{Site, TENANT, block_on, contains, fact};

const SECRET: &str = "allergic to penicillin";

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// What somebody reads who has a copy of ledger and side store, and the tenant keys of today.
async fn attack(backup: &Path, keys: &Path, memory: Uuid) -> Result<String, VaultError> {
    let vault = Vault::new(LocalKeys::open(keys).unwrap(), SqliteKeys::open(backup.join("service.ledger.keys.db")).unwrap());
    let ledger = SqliteLedger::open(backup.join("service.ledger")).unwrap();
    site::opened(&vault, &ledger, memory).await
}

#[test]
fn an_old_copy_with_todays_keys_opens_nothing_once_the_receipt_is_sealed() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let goes = alice.remember(&fact(SECRET).key("health/allergy")).await.unwrap();
        let stays = alice.remember(&fact("likes tea").key("drink")).await.unwrap();
        // The copy has the write-ahead logs as well.
        let backup = tempfile::tempdir().unwrap();
        copy(site.folder.path(), backup.path());
        let keys = site.path("tenant-keys");
        assert!(attack(backup.path(), &keys, goes.id).await.unwrap().contains(SECRET));

        alice.forget(&What::One(goes.id)).await.unwrap();
        assert!(matches!(attack(site.folder.path(), &keys, goes.id).await, Err(VaultError::Erased)));
        // Until the epoch has ended an old copy can still be opened: this is what `shredded` says.
        assert_eq!(alice.receipts(1).await.unwrap()[0].state, ReceiptState::Shredded);
        assert!(attack(backup.path(), &keys, goes.id).await.unwrap().contains(SECRET));

        close_epoch(&site.host, TENANT).await.unwrap();
        assert_eq!(alice.receipts(1).await.unwrap()[0].state, ReceiptState::Sealed);
        for (folder, memory) in [(backup.path(), goes.id), (backup.path(), stays.id), (site.folder.path(), goes.id)] {
            let opened = attack(folder, &keys, memory).await;
            assert!(matches!(opened, Err(VaultError::Erased | VaultError::Key(KeyError::Destroyed { .. }))), "{opened:?}");
        }
        // What was not forgotten is read as before.
        assert_eq!(alice.get(stays.id).await.unwrap().unwrap().body.text, "likes tea");
    });
}

/// Every key that is left, tried on every wrapped key that any copy has.
#[test]
fn no_key_that_is_left_opens_any_old_wrap() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let goes = alice.remember(&fact(SECRET).key("health/allergy")).await.unwrap();
        alice.remember(&fact("likes tea").key("drink")).await.unwrap();
        let store = |folder: &Path| SqliteKeys::open(folder.join("service.ledger.keys.db")).unwrap();
        let backup = tempfile::tempdir().unwrap();
        copy(site.folder.path(), backup.path());
        alice.forget(&What::One(goes.id)).await.unwrap();
        close_epoch(&site.host, TENANT).await.unwrap();
        let provider = LocalKeys::open(site.path("tenant-keys")).unwrap();
        let old = store(backup.path()).subject_key(TENANT, "alice").await.unwrap().unwrap();
        let new = store(site.folder.path()).subject_key(TENANT, "alice").await.unwrap().unwrap();
        assert_ne!(old.id, new.id);
        for epoch in 1..=3 {
            for (id, wrapped) in [(old.id, &old.wrapped), (new.id, &old.wrapped)] {
                let context = format!("logline.subject.v1:{id}:{}", logline_core::Hash::of(b"alice"));
                assert!(provider.unwrap(TENANT, epoch, &context, wrapped).await.is_err());
            }
        }
        // An epoch that ended does not begin again.
        assert!(matches!(provider.open_epoch(TENANT, 1).await, Err(KeyError::Destroyed { .. })));
        // The wrapped keys themselves are gone from today's files.
        let bytes = site.bytes();
        let found = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(!found(&old.wrapped) && found(&new.wrapped));
        assert!(!contains(&bytes, SECRET));
    });
}

#[test]
fn a_restored_store_of_keys_forgets_again_before_anything_is_read() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let goes = alice.remember(&fact(SECRET)).await.unwrap();
        let stays = alice.remember(&fact("likes tea")).await.unwrap();
        let backup = tempfile::tempdir().unwrap();
        copy(site.folder.path(), backup.path());
        alice.forget(&What::One(goes.id)).await.unwrap();
        // The store of keys comes back from the backup; the ledger is that of today.
        let restored = SqliteKeys::open(backup.path().join("service.ledger.keys.db")).unwrap();
        let vault = Vault::new(LocalKeys::open(site.path("tenant-keys")).unwrap(), restored.clone());
        assert_eq!(vault.spans(TENANT, "alice").await.unwrap().len(), 2);
        let kernel = MemoryKernel::new(vault);
        let host = site::host(&site.ledger, &site.trust, &kernel).await;
        let alice = Memories::new(&host, kernel.vault(), TENANT, "alice", Mode::On);
        // The first call of a kernel that opens anything catches up.
        alice.remember(&fact("new")).await.unwrap();
        let left = kernel.vault().spans(TENANT, "alice").await.unwrap();
        assert!(!left.contains(&goes.id) && left.contains(&stays.id));
        assert_eq!(alice.get(stays.id).await.unwrap().unwrap().body.text, "likes tea");
    });
}

#[test]
fn a_forget_or_the_end_of_an_epoch_that_is_cut_off_anywhere_is_done_or_undone() {
    block_on(async {
        let mut stop = 0;
        loop {
            let site = Site::new().await;
            let alice = site.alice().await;
            let goes = alice.remember(&fact(SECRET).key("a")).await.unwrap();
            let stays = alice.remember(&fact("likes tea").key("b")).await.unwrap();
            let places = Places::new();
            let provider = LocalKeys::open(site.path("tenant-keys")).unwrap();
            let store = SqliteKeys::open(site.path("service.ledger.keys.db")).unwrap();
            let kernel = MemoryKernel::new(Vault::new(places.of(provider), places.of(store)));
            let host = site::host(&places.of(site.ledger.clone()), &site.trust, &kernel).await;
            let alice = Memories::new(&host, kernel.vault(), TENANT, "alice", Mode::On);
            let both = async {
                alice.forget(&What::One(goes.id)).await.unwrap();
                close_epoch(&host, TENANT).await.unwrap();
            };
            // When it stops, everything that it was doing is dropped.
            places.stop_at(stop);
            let was_stopped = places.dies(both).await;
            // What comes up again has no memory of it, and no lock.
            let alice = site.memories("alice", Mode::On);
            match alice.forget(&What::One(goes.id)).await {
                Ok(receipt) => assert!(receipt.memories == 1),
                // It was done before.
                Err(error) => assert!(error.to_string().contains("nothing was forgotten"), "stop {stop}: {error}"),
            }
            close_epoch(&site.host, TENANT).await.unwrap();
            assert_eq!(alice.get(goes.id).await.unwrap(), None, "stop {stop}");
            assert_eq!(alice.get(stays.id).await.unwrap().unwrap().body.text, "likes tea", "stop {stop}");
            assert!(!site.kernel.vault().spans(TENANT, "alice").await.unwrap().contains(&goes.id));
            for receipt in alice.receipts(10).await.unwrap() {
                assert_eq!(receipt.state, ReceiptState::Sealed, "stop {stop}");
            }
            let kept = alice.remember(&fact("again").key("a")).await.unwrap();
            assert_eq!(alice.get(kept.id).await.unwrap().unwrap().body.text, "again", "stop {stop}");
            if !was_stopped {
                break;
            }
            stop += 1;
        }
        assert!(stop > 20, "only {stop} places were tried");
    });
}
