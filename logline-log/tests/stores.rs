//! The contract of both stores, for every store that this crate brings.
#![cfg(feature = "object-store")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::Arc;

use futures_util::future::join_all;
use logline_core::ledger::{AppendOptions, Ledger as _};
use logline_core::trust::{Ended, LogEnd, Logs as _};
use logline_core::{Hash, MemoryLedger, Scope, Signer as _, SystemClock, SystemIds};
use logline_log::store::{Bucket, Directory, LockStore, MAX_OBJECT, StoreError, TileStore};
use logline_log::{Checkpoint, Integrator, LogSite, Step, StoredLogs, last_signed};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use setup::{TENANT, key, note};

fn bucket() -> Bucket {
    Bucket::new(Arc::new(PrefixStore::new(InMemory::new(), "logs/acme")))
}

async fn tiles(store: impl TileStore) {
    assert_eq!(store.read("a/b").await.unwrap(), None);
    assert_eq!(store.list("a").await.unwrap(), Vec::<String>::new());
    store.create("a/b", b"one").await.unwrap();
    store.create("a/b", b"one").await.unwrap();
    assert!(matches!(store.create("a/b", b"two").await, Err(StoreError::Different { .. })), "a late write replaces nothing");
    assert_eq!(store.read("a/b").await.unwrap().unwrap(), b"one");
    store.create("a/c/d", b"").await.unwrap();
    store.create("ab/c", b"other").await.unwrap();
    let mut names = store.list("a").await.unwrap();
    names.sort();
    assert_eq!(names, ["b", "c"]);
    for bytes in [b"first", b"later"] {
        store.replace("a/checkpoint", bytes).await.unwrap();
        assert_eq!(store.read("a/checkpoint").await.unwrap().unwrap(), bytes);
    }
    store.remove("a").await.unwrap();
    store.remove("a").await.unwrap();
    assert_eq!((store.read("a/c/d").await.unwrap(), store.read("ab/c").await.unwrap().unwrap()), (None, b"other".to_vec()));
    for name in ["", "/a", "a/", "a//b", "../a", "a/../b", ".lock", "a b", "a%2fb", "ä", &"a".repeat(513)] {
        assert!(matches!(store.read(name).await, Err(StoreError::Name { .. })), "{name}");
        assert!(matches!(store.create(name, b"").await, Err(StoreError::Name { .. })), "{name}");
    }
    let large = vec![0; usize::try_from(MAX_OBJECT).unwrap() + 1];
    store.create("large", &large).await.unwrap();
    assert!(matches!(store.read("large").await, Err(StoreError::Unavailable { .. })));
}

async fn locks(store: impl LockStore + Clone + 'static) {
    assert!(store.is_empty().await.unwrap());
    assert!(store.load("x").await.unwrap().is_none());
    assert!(!store.swap("x", Some(b"nothing"), b"1").await.unwrap());
    assert!(store.swap("x", None, b"1").await.unwrap());
    assert!(!store.swap("x", None, b"2").await.unwrap());
    assert!(!store.swap("x", Some(b"0"), b"2").await.unwrap());
    // Many want to be next after the same record, round after round: exactly one of them is.
    let mut last = b"1".to_vec();
    for round in 0..20 {
        let tries = (0..8).map(|n| {
            let (store, last, next) = (store.clone(), last.clone(), format!("{round}-{n}").into_bytes());
            tokio::spawn(async move { store.swap("x", Some(&last), &next).await.unwrap().then_some(next) })
        });
        let won: Vec<_> = join_all(tries).await.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(won.len(), 1);
        assert_eq!(store.load("x").await.unwrap().unwrap(), won[0]);
        last.clone_from(&won[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    tiles(Directory::new(folder.path().join("tiles"))).await;
    locks(Directory::new(folder.path().join("locks"))).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_a_device_a_socket_or_a_folder_in_the_place_of_a_file_is_refused_and_blocks_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", path("device")).unwrap();
    std::os::unix::fs::symlink(path("pipe"), path("link")).unwrap();
    let store = Directory::new(folder.path());
    for name in ["pipe", "link", "device", "socket", "folder"] {
        // A thread of its own: if it blocked, the test would fail and not hang.
        let (done, answer) = std::sync::mpsc::channel();
        let here = store.clone();
        std::thread::spawn(move || done.send(here.read_now(name)));
        let refused = answer.recv_timeout(std::time::Duration::from_secs(60)).expect("it blocks").unwrap_err();
        assert!(matches!(refused, StoreError::Unreadable { .. }), "{name}: {refused}");
        assert!(refused.to_string().contains("not a regular file"), "{name}: {refused}");
    }
    // What is not there, is not there; a link to a file is read.
    std::fs::write(path("file"), b"x").unwrap();
    std::os::unix::fs::symlink(path("file"), path("good")).unwrap();
    std::os::unix::fs::symlink(path("nothing"), path("dangling")).unwrap();
    assert_eq!(store.read_now("good").unwrap().unwrap(), b"x");
    assert_eq!((store.read_now("dangling").unwrap(), store.read_now("file/x").unwrap()), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_the_contract() {
    tiles(bucket()).await;
    locks(bucket()).await;
}

#[tokio::test]
async fn a_store_that_cannot_compare_and_replace_decides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Bucket::new(Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap()));
    assert!(store.swap("x", None, b"1").await.unwrap());
    let refused = store.swap("x", Some(b"1"), b"2").await.unwrap_err();
    assert!(matches!(refused, StoreError::Unfit { .. }), "{refused}");
    assert_eq!(store.load("x").await.unwrap().unwrap(), b"1");
}

#[tokio::test]
async fn two_integrators_keep_one_log_in_a_bucket() {
    let (ledger, public, private) = (MemoryLedger::new(), bucket(), bucket());
    let spans = (0..700).map(|n| note(n).stamp(&SystemClock, &SystemIds).seal_local(&key(7)).unwrap());
    ledger.append(&Scope::Operator, spans.collect(), &AppendOptions::default()).await.unwrap();
    let integrators = (0..2).map(|_| {
        let site = LogSite::new(Arc::new(public.clone()), Arc::new(private.clone()), Arc::new(key(9))).batch(50);
        let mut integrator = Integrator::new(Arc::new(ledger.clone()), site, TENANT);
        async move { while integrator.step().await.unwrap() != Step::Idle {} }
    });
    join_all(integrators).await;
    let signed = Checkpoint::of(&last_signed(&private, TENANT).await.unwrap().unwrap()).unwrap();
    assert_eq!(signed.size, 700);
    // Whoever has the files and the log's key finds every row in it.
    let end = LogEnd { origin: signed.origin.to_string(), size: signed.size, root: Hash(signed.root.0) };
    let before = StoredLogs::new(public).before(&Ended::of_key(key(7).public_key(), [end])).await;
    assert_eq!((before.rows.len(), before.unread), (700, vec![]));
}
