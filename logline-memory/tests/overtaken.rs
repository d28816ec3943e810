//! Two hosts on one ledger: what one of them does is overtaken by the other one, at every call of ledger, keys and store of keys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod places;
mod site;

use std::sync::Arc;

use logline_core::ledger::{Ledger as _, LedgerExt as _, Query};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{Host, MemoryLedger, SYSTEM_TENANT, Scope, SignedSpan, Signer as _, SystemClock};
use logline_memory::{
    LocalKeys, MEMORY_CONSENT, Memories, MemoryError, MemoryKernel, Mode, Status, Stored, Vault, What, close_epoch, consent_id,
    verify_erasure,
};
use logline_sqlite::SqliteKeys;
use places::Places;
use site::{HOST, PUBLISHER, ROOT, TENANT, block_on, fact, key};
use tempfile::TempDir;

/// Two hosts. The first one stops at a place.
struct Two {
    ledger: MemoryLedger,
    places: Arc<Places>,
    kernels: [MemoryKernel; 2],
    hosts: [Host; 2],
    _folder: TempDir,
}

impl Two {
    async fn new() -> Self {
        let (folder, ledger, places) = (tempfile::tempdir().unwrap(), MemoryLedger::new(), Places::new());
        let keys = || LocalKeys::open(folder.path().join("tenant-keys")).unwrap();
        let store = || SqliteKeys::open(folder.path().join("keys.db")).unwrap();
        let kernels = [
            MemoryKernel::new(Vault::new(places.of(keys()), places.of(store()))),
            MemoryKernel::new(Vault::new(keys(), store())),
        ];
        let set = logline_kernels::all().and(kernels[0].all());
        let trust = TrustRoot::new([key(ROOT).public_key()], 1);
        let manifest = Manifest::first(RootSet::new([key(ROOT).public_key()], 1))
            .allow_all(&set)
            .grant(key(PUBLISHER).public_key(), Role::Publisher, [SYSTEM_TENANT])
            .grant(key(HOST).public_key(), Role::Runtime, [SYSTEM_TENANT, "*"]);
        trust.publish(&ledger, &manifest, &key(ROOT), &SystemClock).await.unwrap();
        logline_kernels::install(&ledger, &set, &key(PUBLISHER), &SystemClock).await.unwrap();
        let builder = |kernel: &MemoryKernel| {
            let set = logline_kernels::all().and(kernel.all());
            Host::builder().trust(trust.clone()).key(key(HOST)).install(set)
        };
        let hosts = [
            builder(&kernels[0]).ledger(places.of(ledger.clone())).build().await.unwrap(),
            builder(&kernels[1]).ledger(ledger.clone()).build().await.unwrap(),
        ];
        Self { ledger, places, kernels, hosts, _folder: folder }
    }

    /// Alice at one of the hosts.
    fn alice(&self, host: usize) -> Memories<'_> {
        Memories::new(&self.hosts[host], self.kernels[host].vault(), TENANT, "alice", Mode::On)
    }

    async fn rows(&self, query: Query) -> Vec<SignedSpan> {
        self.ledger.collect(&Scope::Operator, &query.tenant(TENANT), usize::MAX).await.unwrap()
    }

    /// What has to hold whatever came in between.
    async fn holds(&self, what: &str) {
        let alice = self.alice(1);
        for row in self.rows(Query::new().entity_type("memory")).await {
            if Stored::read(&row).unwrap().status.is_found() {
                match alice.get(row.id).await {
                    Ok(found) => assert!(found.is_some(), "{what}: {} is live and not found", row.id),
                    Err(MemoryError::NoConsent { .. }) => {}
                    Err(error) => panic!("{what}: {} is live and cannot be read: {error}", row.id),
                }
            }
        }
        let mut consent = None;
        for row in self.rows(Query::timeline()).await {
            match row.entity_type.as_str() {
                "consent" => consent = Some((row.seq, row.status.clone())),
                "memory" if row.did.as_deref() != Some("forgotten") => {
                    let cited = row.meta("consent").unwrap()["seq"].as_u64().and_then(|seq| u32::try_from(seq).ok());
                    assert_eq!(cited, consent.as_ref().map(|consent| consent.0), "{what}: {} outlives its consent", row.key());
                }
                _ => {}
            }
        }
        let authorities = &self.hosts[1].trusted().authorities;
        let report = verify_erasure(&self.ledger, authorities, self.kernels[1].vault(), TENANT).await.unwrap();
        assert!(report.is_clean(), "{what}: {report:?}");
    }
}

/// Tries each place, until the first host is done before it reaches the next one. The body says whether it was overtaken.
macro_rules! at_every_place {
    ($at_least:literal, |$two:ident, $place:ident| $body:block) => {{
        let mut place = 0;
        loop {
            let $two = Two::new().await;
            let $place = place;
            let was_overtaken: bool = $body;
            $two.holds(&format!("place {place}")).await;
            if !was_overtaken {
                break;
            }
            place += 1;
        }
        assert!(place > $at_least, "only {place} places were tried");
    }};
}

#[test]
fn a_grant_that_a_withdrawal_overtakes_anywhere_does_not_count() {
    block_on(async {
        for granted_before in [false, true] {
            at_every_place!(10, |two, place| {
                if granted_before {
                    two.alice(1).grant(None).await.unwrap();
                }
                // The user has asked for it, and withdraws it before it is carried out.
                let id = consent_id(TENANT, "alice", None);
                let request = Request::new(TENANT, "alice", id, serde_json::json!({"decision": "grant"})).this(MEMORY_CONSENT);
                let request = two.hosts[1].submit(request).await.unwrap().id;
                two.places.stop_at(place);
                let grant = two.hosts[0].run_request(TENANT, request);
                let alice = two.alice(1);
                let (granted, revoked) = two.places.meanwhile(grant, alice.revoke()).await;
                drop(granted.unwrap());
                if let Some(revoked) = revoked {
                    revoked.unwrap();
                    let last = two.ledger.get(&Scope::Operator, TENANT, id).await.unwrap();
                    assert_eq!(last.status.as_deref(), Some("revoked"), "place {place}, granted before: {granted_before}");
                    true
                } else {
                    false
                }
            });
        }
    });
}

const PASSPHRASE: &str = "correct horse battery";

#[test]
fn an_import_that_another_one_overtakes_anywhere_keeps_a_memory_once() {
    block_on(async {
        let from = Two::new().await;
        let alice = from.alice(1);
        alice.grant(None).await.unwrap();
        alice.remember(&fact("has a cat")).await.unwrap();
        let mut file = Vec::new();
        alice.export(PASSPHRASE, &key(HOST), &mut file).await.unwrap();
        at_every_place!(20, |two, place| {
            two.alice(1).grant(None).await.unwrap();
            two.places.stop_at(place);
            let (first, other) = (two.alice(0), two.alice(1));
            let imports = (first.import(PASSPHRASE, &file[..], None), other.import(PASSPHRASE, &file[..], None));
            let (first, other) = two.places.meanwhile(imports.0, imports.1).await;
            let (first, other) = (first.unwrap(), other.map(Result::unwrap));
            let kept = first.kept + other.map_or(0, |other| other.kept);
            assert_eq!(kept, 1, "place {place}: {first:?}, {other:?}");
            assert_eq!(two.rows(Query::timeline().entity_type("memory")).await.len(), 1, "place {place}");
            other.is_some()
        });
    });
}

#[test]
fn a_memory_that_another_one_overtakes_anywhere_becomes_its_next_version() {
    block_on(async {
        at_every_place!(20, |two, place| {
            two.alice(1).grant(None).await.unwrap();
            let memories = [fact("likes tea").key("drink"), fact("likes coffee").key("drink")];
            two.places.stop_at(place);
            let (first, other) = (two.alice(0), two.alice(1));
            let (first, other) = two.places.meanwhile(first.remember(&memories[0]), other.remember(&memories[1])).await;
            let (first, other) = (first.unwrap(), other.map(Result::unwrap));
            if let Some(other) = other {
                assert_eq!(first.id, other.id, "place {place}");
                let seen = [first, other].map(|kept| (kept.seq, kept.superseded));
                assert!(seen == [(0, false), (1, true)] || seen == [(1, true), (0, false)], "place {place}: {seen:?}");
            }
            other.is_some()
        });
    });
}

#[test]
fn a_memory_that_a_forgetting_or_the_end_of_an_epoch_overtakes_anywhere_is_readable_or_forgotten() {
    block_on(async {
        for forgets in [true, false] {
            at_every_place!(20, |two, place| {
                two.alice(1).grant(None).await.unwrap();
                let old = two.alice(1).remember(&fact("likes tea").key("drink")).await.unwrap();
                two.places.stop_at(place);
                let (first, other, new) = (two.alice(0), two.alice(1), fact("likes coffee").key("drink"));
                let meanwhile = async {
                    if forgets {
                        other.forget(&What::Subject).await.unwrap();
                    }
                    close_epoch(&two.hosts[1], TENANT).await.unwrap();
                };
                let (kept, other) = two.places.meanwhile(first.remember(&new), meanwhile).await;
                let kept = kept.unwrap();
                let last = two.ledger.get(&Scope::Operator, TENANT, old.id).await.unwrap();
                let ended = Stored::read(&last).unwrap().status == Status::Forgotten;
                assert!(kept.id == old.id || ended, "place {place}, forgets: {forgets}");
                other.is_some()
            });
        }
    });
}
