//! Two hosts on one ledger: what one of them does is overtaken by the other one, at every call of ledger, keys and store of keys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod places;
mod site;

use std::sync::Arc;
use std::time::Duration;

use logline_core::ledger::{Ledger as _, LedgerExt as _, Query, WorkQueue};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::{Manifest, TrustRoot};
use logline_core::{
    Clock as _, Draft, Host, ManualClock, MemoryLedger, SYSTEM_TENANT, Scope, SignedSpan, Signer as _, SystemClock, SystemIds,
};
use logline_memory::{
    Content, Layer, LocalKeys, MEMORY_CONSENT, MEMORY_FORGET, Memories, MemoryError, MemoryKernel, Mode, Sealed, Status,
    Stored, Vault, VaultError, What, close_epoch, consent_id, expire, verify_erasure,
};
use logline_sqlite::SqliteKeys;
use places::Places;
use serde_json::json;
use site::{HOST, ROOT, TENANT, block_on, fact, key};
use tempfile::TempDir;

/// Two hosts. The first one stops at a place.
struct Two {
    ledger: MemoryLedger,
    clock: Arc<ManualClock>,
    trust: TrustRoot,
    places: Arc<Places>,
    kernels: [MemoryKernel; 2],
    hosts: [Host; 2],
    _folder: TempDir,
}

async fn host(ledger: impl WorkQueue, clock: &Arc<ManualClock>, trust: &TrustRoot, (n, kernel): (u8, &MemoryKernel)) -> Host {
    let set = logline_kernels::all().and(kernel.all());
    let host = Host::builder().ledger(ledger).trust(trust.clone()).key(key(n)).install(set).clock(Arc::clone(clock));
    host.build().await.unwrap()
}

impl Two {
    async fn new() -> Self {
        let (folder, places, clock) =
            (tempfile::tempdir().unwrap(), Places::new(), Arc::new(ManualClock::new(SystemClock.now())));
        let ledger = MemoryLedger::with_clock(Arc::clone(&clock) as _);
        let keys = || LocalKeys::open(folder.path().join("tenant-keys")).unwrap();
        let store = || SqliteKeys::open(folder.path().join("keys.db")).unwrap();
        let kernels = [
            MemoryKernel::new(Vault::new(places.of(keys()), places.of(store()))),
            MemoryKernel::new(Vault::new(keys(), store())),
        ];
        let set = logline_kernels::all().and(kernels[0].all());
        let trust = site::begin(&ledger, &set, &SystemClock).await;
        let hosts = [
            host(places.of(ledger.clone()), &clock, &trust, (HOST, &kernels[0])).await,
            host(ledger.clone(), &clock, &trust, (HOST, &kernels[1])).await,
        ];
        Self { ledger, clock, trust, places, kernels, hosts, _folder: folder }
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
        for row in self.rows(Query::new().entity_type("memory")).await {
            let alice = match row.meta("session_id") {
                Some(session) => self.alice(1).session(session.as_str().unwrap()),
                None => self.alice(1),
            };
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
                let request = two.hosts[1].submit(consent_request("grant")).await.unwrap().id;
                two.places.stop_at(place);
                let grant = two.hosts[0].run_request(TENANT, request);
                let withdraws = async {
                    two.clock.advance(Duration::from_millis(1));
                    two.alice(1).revoke().await
                };
                let (granted, revoked) = two.places.meanwhile(grant, withdraws).await;
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

#[test]
fn a_memory_that_is_updated_while_it_expires_is_kept() {
    block_on(async {
        at_every_place!(10, |two, place| {
            let other = two.alice(1);
            other.grant(None).await.unwrap();
            let end = two.clock.now().saturating_add(Duration::from_secs(60));
            other.remember(&fact("a rumour").key("news").ttl_at(end)).await.unwrap();
            two.clock.advance(Duration::from_secs(61));
            two.places.stop_at(place);
            let news = fact("it is true").key("news");
            let (ended, kept) = two.places.meanwhile(expire(&two.hosts[0], TENANT, "alice"), other.remember(&news)).await;
            ended.unwrap();
            if let Some(kept) = kept {
                let found = other.get(kept.unwrap().id).await.unwrap();
                assert_eq!(found.unwrap().body.text, "it is true", "place {place}");
                true
            } else {
                false
            }
        });
    });
}

#[test]
fn what_is_kept_while_an_older_forgetting_is_carried_out_is_readable_or_forgotten() {
    block_on(async {
        for what in ["subject", "session"] {
            let mut readable = 0;
            at_every_place!(10, |two, place| {
                let other = two.alice(1).session("s");
                other.grant(None).await.unwrap();
                let said = |text: &str| fact(text).key("drink").layer(Layer::Session);
                let old = other.remember(&said("likes tea")).await.unwrap();
                let input = match what {
                    "session" => json!({"what": what, "session_id": "s"}),
                    _ => json!({"what": what}),
                };
                let request = Request::new(TENANT, "alice", consent_id(TENANT, "alice", None), input).this(MEMORY_FORGET);
                let request = two.hosts[1].submit(request).await.unwrap().id;
                // The host that was to carry it out has died.
                two.clock.advance(Duration::from_secs(3600));
                two.places.stop_at(place);
                let new = said("likes coffee");
                let forgetting = two.hosts[0].run_request(TENANT, request);
                let (forgotten, kept) = two.places.meanwhile(forgetting, other.remember(&new)).await;
                drop(forgotten.unwrap());
                if let Some(kept) = kept {
                    let kept = kept.unwrap();
                    let ended = async |id| {
                        let last = two.ledger.get(&Scope::Operator, TENANT, id).await.unwrap();
                        Stored::read(&last).unwrap().status == Status::Forgotten
                    };
                    match other.get(kept.id).await.unwrap() {
                        Some(found) => {
                            readable += 1;
                            assert_eq!(found.body.text, "likes coffee", "{what}, place {place}");
                        }
                        None => assert!(ended(kept.id).await, "{what}, place {place}"),
                    }
                    assert!(kept.id == old.id || ended(old.id).await, "{what}, place {place}");
                    true
                } else {
                    false
                }
            });
            assert!(readable > 10, "{what}: only {readable} were readable");
        }
    });
}

#[test]
fn an_older_export_that_a_newer_one_overtakes_anywhere_does_not_win() {
    block_on(async {
        let from = Two::new().await;
        let alice = from.alice(1);
        alice.grant(None).await.unwrap();
        let mut files = Vec::new();
        for text in ["likes tea", "likes coffee"] {
            alice.remember(&fact(text).key("drink")).await.unwrap();
            let mut file = Vec::new();
            alice.export(PASSPHRASE, &key(HOST), &mut file).await.unwrap();
            files.push(file);
        }
        at_every_place!(20, |two, place| {
            let (first, other) = (two.alice(0), two.alice(1));
            other.grant(None).await.unwrap();
            two.places.stop_at(place);
            let imports = (first.import(PASSPHRASE, &files[0][..], None), other.import(PASSPHRASE, &files[1][..], None));
            let (older, newer) = two.places.meanwhile(imports.0, imports.1).await;
            older.unwrap();
            let is_overtaken = newer.is_some();
            if let Some(newer) = newer {
                newer.unwrap();
                let rows = two.rows(Query::new().entity_type("memory")).await;
                assert_eq!(rows.len(), 1, "place {place}");
                let found = other.get(rows[0].id).await.unwrap().unwrap();
                assert_eq!(found.body.text, "likes coffee", "place {place}");
            }
            is_overtaken
        });
    });
}

#[test]
fn a_withdrawal_that_a_host_of_a_newer_manifest_has_recorded_counts_at_once() {
    const ADDED: u8 = 40;
    block_on(async {
        let two = Two::new().await;
        let alice = two.alice(1);
        alice.grant(None).await.unwrap();
        let request = site::upsert_of(&two.ledger, two.kernels[1].vault(), "said before").await;
        let request = two.hosts[1].submit(request).await.unwrap().id;
        let granting = consent_request("grant");
        let granting = two.hosts[1].submit(granting).await.unwrap().id;

        let trusted = two.hosts[0].trusted();
        let next = Manifest { version: 2, ..trusted.manifest.clone() };
        let next = next.grant(key(ADDED).public_key(), Role::Runtime, [SYSTEM_TENANT, "*"]);
        two.trust.publish(&two.ledger, &next, &key(ROOT), &SystemClock).await.unwrap();
        let added = host(two.ledger.clone(), &two.clock, &two.trust, (ADDED, &two.kernels[1])).await;
        two.clock.advance(Duration::from_secs(1));
        Memories::new(&added, two.kernels[1].vault(), TENANT, "alice", Mode::On).revoke().await.unwrap();

        // Neither of the others has read the new manifest yet.
        let kept = two.hosts[0].run_request(TENANT, request).await.unwrap();
        assert_eq!(kept.result.unwrap_err().code, "no_consent");
        let granted = two.hosts[1].run_request(TENANT, granting).await.unwrap();
        assert_eq!(granted.result.unwrap_err().code, "superseded");
        assert!(matches!(alice.remember(&fact("more")).await, Err(MemoryError::NoConsent { .. })));
    });
}

/// A request by which alice decides.
fn consent_request(decision: &str) -> Request {
    Request::new(TENANT, "alice", consent_id(TENANT, "alice", None), json!({"decision": decision})).this(MEMORY_CONSENT)
}

#[test]
fn a_memory_that_expires_takes_all_its_texts_and_its_key_begins_again() {
    block_on(async {
        let two = Two::new().await;
        let alice = two.alice(1);
        alice.grant(None).await.unwrap();
        let end = two.clock.now().saturating_add(Duration::from_secs(60));
        let said = |text: &str| fact(text).key("news").ttl_at(end);
        let first = alice.remember(&said("a rumour")).await.unwrap();
        let last = alice.remember(&said("another rumour")).await.unwrap();
        // A process that died has left the key of a third version, whose row never came.
        let vault = two.kernels[1].vault();
        vault.seal_keyed(TENANT, "alice", "content", "\nnews", b"{}").await.unwrap();
        // And somebody has written a row after the last one that counts.
        let newest = two.ledger.get(&Scope::Operator, TENANT, last.id).await.unwrap();
        let forged = Draft::next_version(&newest).stamp(&SystemClock, &SystemIds).seal_local(&key(site::STRANGER)).unwrap();
        two.ledger.append_one(&Scope::Operator, forged).await.unwrap();
        two.clock.advance(Duration::from_secs(61));
        assert_eq!(expire(&two.hosts[1], TENANT, "alice").await.unwrap(), 1);
        let texts: Vec<_> = two.ledger.history(&Scope::Operator, TENANT, first.id, 0, 10).await.unwrap();
        for row in texts.iter().filter(|row| row.meta("sealed").is_some()) {
            let Content::Sealed(envelope) = Stored::read(row).unwrap().content else { panic!("{} has no text", row.key()) };
            let sealed = Sealed { span: first.id, field: "content", envelope: &envelope };
            let opened = vault.open(TENANT, "alice", &[sealed]).await.unwrap().remove(0);
            assert!(matches!(opened, Err(VaultError::Erased)), "version {} is readable", row.seq);
        }
        let again = alice.remember(&fact("a fact").key("news")).await.unwrap();
        assert_ne!(again.id, first.id);
        assert_eq!(alice.get(again.id).await.unwrap().unwrap().body.text, "a fact");
        assert_eq!(alice.remember(&fact("a newer fact").key("news")).await.unwrap().id, again.id);
        two.holds("after the end").await;
    });
}

/// More than one batch has room for: the rows of the others are ended by requests of their own.
#[test]
fn the_rest_of_a_late_forgetting_leaves_what_was_kept_since() {
    const MANY: usize = 520;
    block_on(async {
        let two = Two::new().await;
        let alice = two.alice(1);
        alice.grant(None).await.unwrap();
        for n in 0..MANY {
            alice.remember(&fact(&format!("fact {n}"))).await.unwrap();
        }
        let request = Request::new(TENANT, "alice", consent_id(TENANT, "alice", None), json!({"what": "subject"}));
        let request = two.hosts[1].submit(request.this(MEMORY_FORGET)).await.unwrap().id;
        two.clock.advance(Duration::from_secs(3600));
        let since = alice.remember(&fact("kept since")).await.unwrap();
        two.clock.advance(Duration::from_secs(1));
        let mut next = Some(request);
        let mut rounds = 0;
        while let Some(request) = next {
            let output = two.hosts[0].run_request(TENANT, request).await.unwrap().result.unwrap();
            next = output.get("next").map(|id| id.as_str().unwrap().parse().unwrap());
            rounds += 1;
        }
        assert_eq!((rounds, two.rows(Query::new().entity_type("memory_receipt")).await.len()), (2, 1));
        assert_eq!(alice.get(since.id).await.unwrap().unwrap().body.text, "kept since");
        let rows = two.rows(Query::new().entity_type("memory")).await;
        let ended = rows.iter().filter(|row| Stored::read(row).unwrap().status == Status::Forgotten).count();
        assert_eq!((ended, rows.len()), (MANY, MANY + 1));
        two.holds("after a late forgetting").await;
    });
}
