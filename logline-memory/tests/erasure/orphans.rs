//! Keys without a text: of what was refused, and of what was never sent.

use std::time::Duration;

use async_trait::async_trait;
use logline_core::ledger::LedgerExt as _;
use logline_core::{Draft, Scope, SystemClock, SystemIds, Timestamp};
use logline_kernels::{Loops, Run as _};
use logline_memory::envelope::Place;
use logline_memory::{Classifier, KeeperReport, Memory, MemoryError, MemoryKeeper, reap};
use uuid::Uuid;

use crate::races::with_keeper;
use crate::site::{self, HOST, Site, TENANT, block_on, fact, key};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Noise;

#[async_trait]
impl Classifier for Noise {
    async fn noise(&self, _: &str, memory: &Memory) -> Option<String> {
        (memory.body.text == "noise").then(|| "it says nothing".to_owned())
    }
}

fn place(span: Uuid) -> Place<'static> {
    Place { tenant: TENANT, subject: "alice", span, field: "content" }
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000 + n)
}

/// Makes every key of this site as much older.
fn age(site: &Site, hours: i64) {
    let file = rusqlite::Connection::open(site.path("service.ledger.keys.db")).unwrap();
    file.busy_timeout(Duration::from_secs(5)).unwrap();
    file.execute("UPDATE record_keys SET added_at = added_at - ?1", [hours * 3_600_000_000]).unwrap();
}

fn keys(site: &Site) -> i64 {
    let file = rusqlite::Connection::open(site.path("service.ledger.keys.db")).unwrap();
    file.busy_timeout(Duration::from_secs(5)).unwrap();
    file.query_row("SELECT count(*) FROM record_keys", [], |row| row.get(0)).unwrap()
}

/// Looks at everything. Returns how many keys were deleted.
async fn reap_all(site: &Site) -> u64 {
    let (mut dropped, mut from) = (0, None::<(Timestamp, Uuid)>);
    loop {
        let reaped = reap(&site.ledger, site.kernel.vault(), TENANT, DAY, from).await.unwrap();
        (dropped, from) = (dropped + reaped.dropped, reaped.reached);
        if !reaped.more {
            return dropped;
        }
    }
}

#[test]
fn a_refused_text_keeps_no_key() {
    block_on(async {
        let site = Site::with(|kernel| kernel.classifier(Noise)).await;
        let alice = site.alice().await;
        let kept = alice.remember(&fact("x").key("k")).await.unwrap();
        let refused = [fact("noise"), fact("noise").key("k"), fact("x").schema("no such contract")];
        for memory in refused {
            assert!(matches!(alice.remember(&memory).await, Err(MemoryError::Failed(_))));
        }
        assert_eq!(keys(&site), 1, "the key of a refused text is there");
        assert_eq!(alice.get(kept.id).await.unwrap().unwrap().body.text, "x");
    });
}

#[test]
fn keys_without_a_text_are_reaped_and_no_others() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let old = alice.remember(&fact("first").key("k")).await.unwrap();
        let new = alice.remember(&fact("second").key("k")).await.unwrap();
        assert_eq!(old.id, new.id);
        let vault = site.kernel.vault();
        // An application that died before it sent its request, one with another version of a memory that exists, and a text of its own.
        vault.seal(&place(id(1)), b"never sent").await.unwrap();
        vault.seal(&place(new.id), b"never sent").await.unwrap();
        let note = Draft::new("note").id(id(2)).tenant(TENANT).owner("alice").who("user:alice").this("note.trial");
        let note = note.stamp(&SystemClock, &SystemIds).seal_local(&key(HOST)).unwrap();
        site.ledger.append_one(&Scope::Operator, note).await.unwrap();
        vault.seal(&place(id(2)), b"of a note").await.unwrap();
        assert_eq!((reap_all(&site).await, keys(&site)), (0, 5), "nothing is old enough");
        age(&site, 23);
        assert_eq!((reap_all(&site).await, keys(&site)), (0, 5), "nothing is old enough");
        age(&site, 2);
        // A write that is on its way meanwhile.
        let sent = site::upsert(&site, "on its way").await;
        assert_eq!((reap_all(&site).await, keys(&site)), (2, 4));
        let kept = site.host.execute(sent).await.unwrap().result.unwrap()["memory"].as_str().unwrap().parse().unwrap();
        assert_eq!(alice.get(kept).await.unwrap().unwrap().body.text, "on its way");
        assert_eq!(alice.get(new.id).await.unwrap().unwrap().body.text, "second");
        assert_eq!(reap_all(&site).await, 0);
    });
}

/// Between the age at which a text is refused and the one at which its key is deleted lies more time than an attempt may take.
#[test]
fn a_text_that_has_waited_too_long_is_refused_before_its_key_can_go() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let sent = site::upsert(&site, "waited").await;
        age(&site, 13);
        assert_eq!(reap_all(&site).await, 0);
        assert_eq!(site.host.execute(sent).await.unwrap().result.unwrap_err().code, "erased");
        assert!(site.rows("memory").await.is_empty());
        let kept = alice.remember(&fact("sent again")).await.unwrap();
        assert!(alice.get(kept.id).await.unwrap().is_some());
    });
}

#[test]
fn the_loop_reaps_while_memories_are_kept() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        for n in 0..40 {
            site.kernel.vault().seal(&place(id(100 + n)), b"never sent").await.unwrap();
        }
        age(&site, 25);
        let keeper = MemoryKeeper::new([TENANT]).poll(Duration::from_millis(5)).kernel(&site.kernel);
        let host = with_keeper(&site, &keeper).await;
        let mut kept = Vec::new();
        let writes = async {
            for n in 0..30 {
                kept.push(alice.remember(&fact(&format!("memory {n}"))).await.unwrap().id);
            }
            while keys(&site) > 30 {
                tokio::task::yield_now().await;
            }
        };
        let report: KeeperReport = host.run(Loops::none().with(keeper), writes).await.unwrap().report();
        assert!(report.reaped == 40 && report.unreadable == 0 && report.failed == 0, "{report:?}");
        for (n, id) in kept.into_iter().enumerate() {
            assert_eq!(alice.get(id).await.unwrap().unwrap().body.text, format!("memory {n}"));
        }
    });
}
