//! The loop on hosts: two of them keep the logs of two tenants.
#![cfg(feature = "integrator")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::Arc;

use logline_core::ledger::{AppendOptions, Ledger as _};
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{Host, MemoryLedger, SYSTEM_TENANT, Scope, Signer as _, SystemClock, SystemIds};
use logline_kernels::Run as _;
use logline_log::note::Note;
use logline_log::store::{LockStore, StoreError};
use logline_log::{Checkpoint, LOG_KEEPER, LogKeeper, LogReport, LogSite, all, last_signed};
use setup::{Store, TENANT, World, key, note};
use tokio::sync::watch;

async fn host(ledger: &MemoryLedger, n: u8, keeper: &LogKeeper) -> Host {
    let trust = TrustRoot::new([key(1).public_key()], 1);
    Host::builder().ledger(ledger.clone()).trust(trust).key(key(n)).install(all(keeper)).build().await.unwrap()
}

#[tokio::test]
async fn two_hosts_keep_the_logs_of_two_tenants_and_of_no_other() {
    let store = Store::default();
    let site = LogSite::new(Arc::new(store.clone()), Arc::new(store.clone()), Arc::new(key(9))).batch(10);
    let keeper = LogKeeper::new(site, ["acme", "globex", "foreign"]).poll(std::time::Duration::from_millis(50));
    let ledger = MemoryLedger::new();
    let manifest = Manifest::first(RootSet::new([key(1).public_key()], 1))
        .allow("log_keeper", LOG_KEEPER)
        .grant(key(2).public_key(), Role::Publisher, [SYSTEM_TENANT])
        .grant(key(4).public_key(), Role::Runtime, [SYSTEM_TENANT, "acme", "globex"])
        .grant(key(5).public_key(), Role::Runtime, [SYSTEM_TENANT, "acme", "globex"]);
    let trust = TrustRoot::new([key(1).public_key()], 1);
    trust.publish(&ledger, &manifest, &key(1), &SystemClock).await.unwrap();
    logline_kernels::install(&ledger, &all(&keeper), &key(2), &SystemClock).await.unwrap();
    for (tenant, count) in [("acme", 45), ("globex", 3), ("foreign", 2)] {
        let spans = (0..count).map(|n| note(n).tenant(tenant).stamp(&SystemClock, &SystemIds).seal_local(&key(7)).unwrap());
        ledger.append(&Scope::Operator, spans.collect(), &AppendOptions::default()).await.unwrap();
    }
    let (one, two) = (host(&ledger, 4, &keeper).await, host(&ledger, 5, &keeper).await);
    let (stop, stopped) = watch::channel(false);
    let until = |mut stopped: watch::Receiver<bool>| async move { drop(stopped.wait_for(|stopped| *stopped).await) };
    let published = async |tenant: &str| {
        let origin = Checkpoint::of(&last_signed(&store, tenant).await.unwrap()?).unwrap().origin;
        let bytes = store.objects().get(&format!("{origin}/checkpoint"))?.clone();
        Some(Checkpoint::of(&Note::parse(&bytes).unwrap()).unwrap().size)
    };
    let ending = async {
        while published("acme").await != Some(45) || published("globex").await != Some(3) {
            tokio::task::yield_now().await;
        }
        // A row that comes while they run.
        let late = note(0).stamp(&SystemClock, &SystemIds).seal_local(&key(7)).unwrap();
        ledger.append(&Scope::Operator, vec![late], &AppendOptions::default()).await.unwrap();
        while published("acme").await != Some(46) {
            tokio::task::yield_now().await;
        }
        stop.send_replace(true);
    };
    // The other one is started while the first one begins the logs: it begins none beside them.
    let first = one.run(keeper.clone(), until(stopped.clone()));
    let second = async {
        while last_signed(&store, "globex").await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        two.run(keeper.clone(), until(stopped)).await
    };
    let (first, second, ()) = tokio::join!(first, second, ending);
    let (first, second): (LogReport, LogReport) = (first.unwrap().report(), second.unwrap().report());
    assert_eq!(first.entered + second.entered, 49, "{first:?} {second:?}");
    assert_eq!(first.failed + second.failed, 0, "{first:?} {second:?}");
    assert!(
        last_signed(&store, "foreign").await.unwrap().is_none(),
        "a host keeps no log of a tenant for which it is no runtime"
    );
}

/// The locks of a host whose disk is not there, and who has asked for one.
#[derive(Clone, Default)]
struct Away {
    store: Store,
    asked: Arc<watch::Sender<u32>>,
}

#[async_trait::async_trait]
impl LockStore for Away {
    async fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.store.load(name).await;
        self.asked.send_modify(|times| *times += 1);
        found
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        self.store.is_empty().await
    }

    async fn swap(&self, name: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, StoreError> {
        self.store.swap(name, old, new).await
    }
}

#[tokio::test]
async fn a_host_whose_locks_are_away_begins_no_second_log() {
    let (world, away) = (World::new(10), Away::default());
    setup::append(&world.ledger, 3).await;
    world.settle().await;
    let (tiles, log) = (world.store.objects(), world.signed());
    let site = LogSite::new(Arc::new(world.store.clone()), Arc::new(away.clone()), Arc::new(key(1)));
    let keeper = LogKeeper::new(site, [TENANT]);
    let manifest = Manifest::first(RootSet::new([key(1).public_key()], 1))
        .allow("log_keeper", LOG_KEEPER)
        .grant(key(2).public_key(), Role::Publisher, [SYSTEM_TENANT])
        .grant(key(4).public_key(), Role::Runtime, [SYSTEM_TENANT, TENANT]);
    let trust = TrustRoot::new([key(1).public_key()], 1);
    trust.publish(&world.ledger, &manifest, &key(1), &SystemClock).await.unwrap();
    logline_kernels::install(&world.ledger, &all(&keeper), &key(2), &SystemClock).await.unwrap();
    let host = host(&world.ledger, 4, &keeper).await;
    // It looks at the start, and in its first step twice.
    let mut asked = away.asked.subscribe();
    let looked = async { drop(asked.wait_for(|times| *times >= 3).await) };
    let report: LogReport = host.run(keeper.clone(), looked).await.unwrap().report();
    assert_eq!((report.checkpoints, report.failed), (0, 1));
    assert!(away.store.objects().is_empty() && world.store.objects() == tiles && world.signed() == log);
}
