//! Consents that are withdrawn, and users who are forgotten, while memories are on their way.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use logline_core::ledger::{Ledger as _, LedgerExt as _, Query, WorkQueue};
use logline_core::request::{NotRunnable, Request};
use logline_core::trust::{Manifest, TrustRoot};
use logline_core::{Clock as _, Host, HostError, ManualClock, MemoryLedger, Scope, SystemClock};
use logline_kernels::{Loops, Run as _};
use logline_memory::{
    Classifier, KeeperReport, LocalKeys, MEMORY_FORGET, Memories, Memory, MemoryKeeper, MemoryKernel, Mode, Status, Stored,
    Vault, What, consent_id, verify_erasure,
};
use logline_sqlite::SqliteKeys;
use serde_json::json;
use tokio::sync::Notify;

use crate::places::Places;
use crate::site::{self, HOST, PUBLISHER, ROOT, Site, TENANT, block_on, fact, key};

#[test]
fn no_memory_comes_after_the_end_of_the_consent_that_it_cites() {
    block_on(async {
        let site = Site::new().await;
        site::revoke_races_upserts(&site.host, site.kernel.vault(), &site.ledger, 12).await;
    });
}

/// Waits once, with a memory that says `slow`, until it is told to go on.
struct Slow {
    reached: Arc<Notify>,
    go_on: Arc<Notify>,
}

#[async_trait]
impl Classifier for Slow {
    async fn noise(&self, _: &str, memory: &Memory) -> Option<String> {
        if memory.body.text == "slow" {
            self.reached.notify_one();
            self.go_on.notified().await;
            // Once is enough.
            self.go_on.notify_one();
        }
        (memory.body.text == "noise").then(|| "it says nothing".to_owned())
    }
}

async fn slow() -> (Site, Arc<Notify>, Arc<Notify>) {
    let (reached, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = Slow { reached: Arc::clone(&reached), go_on: Arc::clone(&go_on) };
    (Site::with(|kernel| kernel.classifier(slow)).await, reached, go_on)
}

/// Every memory of the tenant is readable or has ended.
async fn all_is_readable_or_ended(site: &Site, alice: &Memories<'_>) -> (usize, usize) {
    let rows = site.ledger.collect(&Scope::Operator, &Query::new().entity_type("memory"), 100).await.unwrap();
    let (mut readable, mut ended) = (0, 0);
    for row in rows {
        match Stored::read(&row).unwrap().status {
            Status::Forgotten => ended += 1,
            _ => {
                assert!(alice.get(row.id).await.unwrap().is_some(), "{} cannot be read", row.id);
                readable += 1;
            }
        }
    }
    (readable, ended)
}

async fn whats(site: &Site) -> Vec<String> {
    let receipts = site.rows("memory_receipt").await;
    receipts.iter().map(|row| row.content.as_ref().unwrap()["what"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_memory_that_is_kept_while_everything_is_forgotten_is_readable_or_has_a_receipt() {
    block_on(async {
        let (site, reached, go_on) = slow().await;
        let alice = site.alice().await;
        alice.remember(&fact("old")).await.unwrap();
        let slow = fact("slow");
        let forgotten = async {
            reached.notified().await;
            // The kernel has opened the text. Now its key goes.
            let receipt = alice.forget(&What::Subject).await.unwrap();
            go_on.notify_one();
            receipt
        };
        let (kept, receipt) = tokio::join!(alice.remember(&slow), forgotten);
        assert_eq!(receipt.memories, 1);
        assert_eq!(alice.get(kept.unwrap().id).await.unwrap().unwrap().body.text, "slow");
        assert_eq!(all_is_readable_or_ended(&site, &alice).await, (1, 2));
        assert_eq!(whats(&site).await, ["subject", "lost"]);
        assert!(
            verify_erasure(&site.ledger, &site.host.trusted().authorities, site.kernel.vault(), TENANT)
                .await
                .unwrap()
                .is_clean()
        );
    });
}

#[test]
fn a_memory_without_a_key_whose_writer_has_died_is_ended_by_the_loop() {
    block_on(async {
        let (site, reached, go_on) = slow().await;
        let alice = site.alice().await;
        // The writer dies with its request on the way, and a worker carries it out.
        let request = site::upsert(&site, "slow").await;
        let worker = site.host.execute(request);
        let forgotten = async {
            reached.notified().await;
            alice.forget(&What::Subject).await.unwrap();
            go_on.notify_one();
        };
        let (kept, ()) = tokio::join!(worker, forgotten);
        let id = kept.unwrap().result.unwrap()["memory"].as_str().unwrap().parse().unwrap();
        assert!(alice.get(id).await.is_err(), "it is live and cannot be read");
        // Somebody else's key was lost for another reason: it may come back, so this memory stays, and is told.
        let bob = site.memories("bob", Mode::On);
        bob.grant(None).await.unwrap();
        let unlucky = bob.remember(&fact("unlucky")).await.unwrap();
        let file = rusqlite::Connection::open(site.path("service.ledger.keys.db")).unwrap();
        file.execute("DELETE FROM record_keys WHERE span = ?1", [unlucky.id.to_string()]).unwrap();

        let keeper = MemoryKeeper::new([TENANT]).poll(Duration::from_millis(20)).kernel(&site.kernel);
        let host = with_keeper(&site, &keeper).await;
        let ended = async {
            while Stored::read(&site.last(id).await.span).unwrap().status != Status::Forgotten {
                tokio::task::yield_now().await;
            }
        };
        let report: KeeperReport = host.run(Loops::none().with(keeper), ended).await.unwrap().report();
        assert!(report.mended == 1 && report.unreadable <= 1 && report.failed == 0, "{report:?}");
        assert_eq!(alice.get(id).await.unwrap(), None);
        assert_eq!(whats(&site).await, ["subject", "lost"]);
        assert_eq!(Stored::read(&site.last(unlucky.id).await.span).unwrap().status, Status::Active);
    });
}

/// A host whose manifest allows the loop.
pub(crate) async fn with_keeper(site: &Site, keeper: &MemoryKeeper) -> Host {
    let set = logline_kernels::all().and(site.kernel.all()).and(keeper.all());
    let trusted = site.trust.resolve(&site.ledger).await.unwrap();
    let manifest = Manifest { version: trusted.manifest.version + 1, ..trusted.manifest.clone() }.allow_all(&set);
    site.trust.publish(&site.ledger, &manifest, &key(ROOT), &SystemClock).await.unwrap();
    logline_kernels::install(&site.ledger, &set, &key(PUBLISHER), &SystemClock).await.unwrap();
    let host = Host::builder().ledger(site.ledger.clone()).trust(site.trust.clone()).key(key(HOST)).install(set);
    host.build().await.unwrap()
}

/// A ledger in memory whose leases follow a clock that the test moves.
struct Timed {
    ledger: MemoryLedger,
    clock: Arc<ManualClock>,
    trust: TrustRoot,
}

impl Timed {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let ledger = MemoryLedger::with_clock(Arc::clone(&clock) as _);
        let set = logline_kernels::all().and(MemoryKernel::new(Vault::without_keys()).all());
        let trust = site::begin(&ledger, &set, &*clock).await;
        Self { ledger, clock, trust }
    }

    async fn host(&self, kernel: &MemoryKernel) -> Host {
        self.host_on(self.ledger.clone(), kernel).await
    }

    async fn host_on(&self, ledger: impl WorkQueue, kernel: &MemoryKernel) -> Host {
        let set = logline_kernels::all().and(kernel.all());
        let host = Host::builder().ledger(ledger).trust(self.trust.clone()).key(key(HOST)).install(set);
        host.clock(Arc::clone(&self.clock)).build().await.unwrap()
    }
}

/// A machine loses power between any two writes of a forgetting, also between the destruction of the keys and the receipt. Another one
/// carries the same request out: it ends as done, once, with one receipt.
#[test]
fn a_forgetting_that_lost_its_attempt_anywhere_is_done_once() {
    block_on(async {
        for what in ["subject", "one", "keys"] {
            let mut stop = 0;
            loop {
                let folder = tempfile::tempdir().unwrap();
                let timed = Timed::new().await;
                let provider = || LocalKeys::open(folder.path().join("tenant-keys")).unwrap();
                let store = || SqliteKeys::open(folder.path().join("keys.db")).unwrap();
                let kernel = MemoryKernel::new(Vault::new(provider(), store()));
                let host = timed.host(&kernel).await;
                let alice = Memories::new(&host, kernel.vault(), TENANT, "alice", Mode::On);
                alice.grant(None).await.unwrap();
                let mut about = consent_id(TENANT, "alice", None);
                let mut input = json!({"what": "subject"});
                if what == "keys" {
                    // Nothing was kept yet, and there is a key already.
                    kernel.vault().memory_id(TENANT, "alice", "k").await.unwrap();
                } else {
                    about = alice.remember(&fact("goes")).await.unwrap().id;
                }
                if what == "one" {
                    input = json!({"what": "one", "id": about.to_string()});
                }
                let request = Request::new(TENANT, "alice", about, input).this(MEMORY_FORGET);
                let request = host.submit(request).await.unwrap().id;

                let places = Places::new();
                let vault = Vault::new(places.of(provider()), places.of(store()));
                let dying = timed.host_on(places.of(timed.ledger.clone()), &MemoryKernel::new(vault)).await;
                places.stop_at(stop);
                let done = async { drop(dying.run_request(TENANT, request).await.unwrap().result.unwrap()) };
                let was_stopped = places.dies(done).await;
                timed.clock.advance(Duration::from_secs(3600));
                match host.run_request(TENANT, request).await {
                    Ok(execution) => drop(execution.result.unwrap_or_else(|e| panic!("{what}, stop {stop}: {e}"))),
                    // It died after its last write.
                    Err(HostError::NotRunnable(NotRunnable::Ended { status, .. })) if status == "complete" => {}
                    Err(error) => panic!("{what}, stop {stop}: {error}"),
                }
                let count = async |entity_type: &str| {
                    let query = Query::timeline().entity_type(entity_type);
                    timed.ledger.collect(&Scope::Operator, &query, 100).await.unwrap().len()
                };
                assert_eq!(count("memory_receipt").await, 1, "{what}, stop {stop}");
                assert_eq!(count("memory").await, if what == "keys" { 0 } else { 2 }, "{what}, stop {stop}");
                if what != "keys" {
                    let last = timed.ledger.get(&Scope::Operator, TENANT, about).await.unwrap();
                    assert_eq!(Stored::read(&last).unwrap().status, Status::Forgotten, "{what}, stop {stop}");
                }
                assert!(kernel.vault().spans(TENANT, "alice").await.unwrap().is_empty());
                if !was_stopped {
                    break;
                }
                stop += 1;
            }
            assert!(stop > 6, "only {stop} places were tried");
        }
    });
}
