//! What attackers and races have found, each as the claim that must hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod site;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use logline_core::ledger::LedgerExt as _;
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::Manifest;
use logline_core::trust::governance::Decision;
use logline_core::{Draft, IdSource as _, Scope, Signer as _, SystemClock, SystemIds, Visibility};
use logline_memory::index::IndexLimits;
use logline_memory::{
    Classifier, Layer, LocalKeys, MEMORY_FORGET, Memories, Memory, MemoryError, MemoryKernel, Mode, Sensitivity, Vault,
    VaultError, Wanted, What, close_epoch, consent_id, expire, verify_erasure,
};
use logline_sqlite::SqliteKeys;
use serde_json::{Value, json};
use tokio::sync::Notify;

use site::{HOST, REVIEWER, STRANGER, Site, TENANT, block_on, contains, fact, key};

#[test]
fn of_two_forgettings_at_once_each_destroys_what_its_receipt_names() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let kernel = MemoryKernel::new(site::vault(site.folder.path())).search_in(site.ledger.clone());
        let host = site::host(&site.ledger, &site.trust, &kernel).await;
        let elsewhere = Memories::new(&host, kernel.vault(), TENANT, "alice", Mode::On);
        let stays = alice.remember(&fact("stays")).await.unwrap();
        for _ in 0..60 {
            let first = What::One(alice.remember(&fact("a")).await.unwrap().id);
            let second = What::One(alice.remember(&fact("b")).await.unwrap().id);
            let (here, there) = tokio::join!(alice.forget(&first), elsewhere.forget(&second));
            here.unwrap();
            there.unwrap();
            // What has nothing to do with it is read on all the time.
            assert_eq!(alice.get(stays.id).await.unwrap().unwrap().body.text, "stays");
        }
        let found = verify_erasure(&site.ledger, &site.host.trusted().authorities, site.kernel.vault(), TENANT).await.unwrap();
        assert!(found.is_clean() && found.memories == 120, "{found:?}");
    });
}

#[test]
fn a_live_memory_is_never_told_as_erased_while_others_are_forgotten() {
    block_on(async {
        let site = Arc::new(Site::new().await);
        let alice = site.alice().await;
        let stays = alice.remember(&fact("stays here")).await.unwrap();
        let readers = (0..2).map(|n| {
            let site = Arc::clone(&site);
            tokio::spawn(async move {
                let alice = site.memories("alice", Mode::On);
                for _ in 0..60 {
                    assert_eq!(alice.get(stays.id).await.unwrap().unwrap().body.text, "stays here");
                    if n == 0 {
                        // Only the query may become unreadable in between.
                        match alice.search("stays", &Wanted::default()).await {
                            Ok(answer) => assert!(answer.hits.iter().any(|hit| hit.memory.id == stays.id)),
                            Err(MemoryError::Failed(failure)) => assert_eq!(failure.code, "erased"),
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                }
            })
        });
        let readers: Vec<_> = readers.collect();
        for _ in 0..40 {
            let goes = alice.remember(&fact("goes")).await.unwrap();
            alice.forget(&What::One(goes.id)).await.unwrap();
        }
        for reader in readers {
            reader.await.unwrap();
        }
    });
}

#[test]
fn rows_that_nobody_with_the_role_has_signed_give_no_rights() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let kept = alice.remember(&fact("private teapot")).await.unwrap();
        let forge = async |draft: Draft| {
            let span = draft.stamp(&SystemClock, &SystemIds).seal_local(&key(STRANGER)).unwrap();
            // As somebody who can write to the store.
            site.ledger.append_one(&Scope::Operator, span).await.unwrap();
        };
        forge(Draft::next_version(&site.last(kept.id).await).visibility(Visibility::Tenant).meta("layer", "shared")).await;
        let bob = site.memories("bob", Mode::On);
        bob.grant(None).await.unwrap();
        assert!(bob.search("teapot", &Wanted::default()).await.unwrap().hits.is_empty());
        assert_eq!(bob.get(kept.id).await.unwrap(), None);
        alice.revoke().await.unwrap();
        forge(Draft::next_version(&site.last(consent_id(TENANT, "alice", None)).await).status("granted")).await;
        assert!(matches!(alice.remember(&fact("against her will")).await, Err(MemoryError::NoConsent { .. })));
    });
}

#[test]
fn a_user_cannot_ask_for_a_forgetting_without_a_receipt() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let kept = alice.remember(&fact("x")).await.unwrap();
        for input in [
            json!({"what": "subject", "until": "2099-01-01T00:00:00Z"}),
            json!({"what": "one", "id": kept.id.to_string(), "until": "2099-01-01T00:00:00Z"}),
            json!({"what": "last"}),
        ] {
            let request = Request::new(TENANT, "alice", kept.id, input).this(MEMORY_FORGET);
            assert_eq!(site.host.execute(request).await.unwrap().result.unwrap_err().code, "memory_invalid");
        }
        assert!(alice.get(kept.id).await.unwrap().is_some());
        // Nor does somebody who has nothing get receipts for it.
        let mallory = site.memories("mallory", Mode::On);
        assert!(mallory.forget(&What::Subject).await.is_err() && mallory.forget(&What::Last).await.is_err());
        assert!(site.rows("memory_receipt").await.is_empty());
    });
}

#[test]
fn an_export_whose_terms_were_changed_makes_nothing_public() {
    const PASSPHRASE: &str = "correct horse battery";
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        alice.remember(&fact("HIV positive since 2019").sensitivity(Sensitivity::Pii)).await.unwrap();
        let mut file = Vec::new();
        alice.export(PASSPHRASE, &key(HOST), &mut file).await.unwrap();
        // Mallory has the file, a key of her own, and not the passphrase.
        let mut lines: Vec<Value> =
            String::from_utf8(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (name, value) in [("sensitivity", "public"), ("visibility", "public"), ("layer", "shared")] {
            lines[1]["terms"][name] = json!(value);
        }
        let before: Vec<u8> =
            lines[..2].iter().flat_map(|line| [logline_core::canonical::to_vec(line), vec![b'\n']].concat()).collect();
        let hash = logline_core::Hash::of(&before).to_string();
        lines[2]["manifest"] = json!({"memories": 1, "hash": hash, "public_key": key(STRANGER).public_key().to_string()});
        let message = logline_core::canonical::to_vec(&lines[2]["manifest"]);
        let message = logline_core::dsse::pae("application/vnd.logline.memory-export.v1", &message);
        lines[2]["signature"] = json!(key(STRANGER).sign(&message).await.unwrap().to_string());
        let forged: Vec<u8> =
            lines.iter().flat_map(|line| [logline_core::canonical::to_vec(line), vec![b'\n']].concat()).collect();
        let refused = alice.import(PASSPHRASE, &forged[..], None).await.unwrap_err();
        assert!(refused.to_string().contains("was changed"), "{refused}");
        assert!(!contains(&site.bytes(), "HIV positive"));
    });
}

/// Waits until it is told to go on.
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
        }
        None
    }
}

#[test]
fn a_consent_that_is_withdrawn_while_a_memory_is_looked_at_stops_it() {
    block_on(async {
        let (reached, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = Slow { reached: Arc::clone(&reached), go_on: Arc::clone(&go_on) };
        let site = Site::with(|kernel| kernel.classifier(slow)).await;
        let alice = site.alice().await;
        let memory = fact("slow");
        let withdrawn = async {
            reached.notified().await;
            alice.revoke().await.unwrap();
            go_on.notify_one();
        };
        let (kept, ()) = tokio::join!(alice.remember(&memory), withdrawn);
        assert!(kept.is_err());
        assert!(site.rows("memory").await.is_empty());
    });
}

#[test]
fn a_review_needs_the_consent_and_does_not_revive_what_has_expired() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let end = site.soon().await;
        let kept = alice.remember(&fact("x").ttl_at(end)).await.unwrap();
        alice.ask_for_review(kept.id).await.unwrap();
        let decision = site.decides(kept.id, Decision::Approve, (REVIEWER, "reviewer"), |_| {}).await.unwrap();
        alice.revoke().await.unwrap();
        let mallory = site.memories("mallory", Mode::Off);
        assert!(mallory.review(kept.id, decision).await.unwrap_err().to_string().contains("consent"));
        alice.grant(None).await.unwrap();
        while site.now().await < end {
            tokio::task::yield_now().await;
        }
        assert!(mallory.review(kept.id, decision).await.unwrap_err().to_string().contains("expired"));
        assert_eq!(alice.get(kept.id).await.unwrap(), None);
    });
}

#[test]
fn a_session_neither_supersedes_nor_learns_what_is_outside_it() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        for sensitivity in [Sensitivity::Pii, Sensitivity::Public] {
            let of = |text: &str| fact(text).key("health/allergy").sensitivity(sensitivity);
            let general = alice.remember(&of("penicillin")).await.unwrap();
            let session = site.memories("alice", Mode::SessionOnly).session("s1");
            session.grant(None).await.unwrap();
            let inside = session.remember(&of("none").layer(Layer::Session)).await.unwrap();
            assert!(inside.id != general.id && !inside.superseded);
            assert_eq!(alice.get(general.id).await.unwrap().unwrap().body.text, "penicillin");
            assert_eq!(session.forget(&What::Session("s1".to_owned())).await.unwrap().memories, 1);
            assert!(alice.get(general.id).await.unwrap().is_some());
        }
        // A consent for a session ends with it, whatever was asked for.
        let late = site.now().await.saturating_add(Duration::from_secs(1000 * 24 * 3600));
        let session = site.memories("alice", Mode::SessionOnly).session("s2");
        session.grant(Some(late)).await.unwrap();
        let until = site.last(consent_id(TENANT, "alice", Some("s2"))).await;
        let until: logline_core::Timestamp = until.meta("until").unwrap().as_str().unwrap().parse().unwrap();
        assert!(until < late);
    });
}

#[test]
fn the_newest_memory_is_the_one_that_began_last() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let old = alice.remember(&fact("old").key("k")).await.unwrap();
        let new = alice.remember(&fact("new")).await.unwrap();
        alice.remember(&fact("old, changed").key("k")).await.unwrap();
        alice.forget(&What::Last).await.unwrap();
        assert_eq!(alice.get(new.id).await.unwrap(), None);
        assert!(alice.get(old.id).await.unwrap().is_some());
    });
}

#[test]
fn a_lost_store_of_keys_begins_again_after_the_epochs_that_have_ended() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        alice.remember(&fact("lost")).await.unwrap();
        close_epoch(&site.host, TENANT).await.unwrap();
        let empty = SqliteKeys::open(site.path("new.keys.db")).unwrap();
        let kernel = MemoryKernel::new(Vault::new(LocalKeys::open(site.path("tenant-keys")).unwrap(), empty));
        let host = site::host(&site.ledger, &site.trust, &kernel).await;
        let alice = Memories::new(&host, kernel.vault(), TENANT, "alice", Mode::On);
        // It may come back, so nothing is done with the empty one before what needs it is given up.
        assert!(alice.remember(&fact("again")).await.unwrap_err().to_string().contains("memory_keys_lost"));
        alice.forget(&What::Subject).await.unwrap();
        let kept = alice.remember(&fact("again")).await.unwrap();
        assert_eq!(alice.get(kept.id).await.unwrap().unwrap().body.text, "again");
        close_epoch(&host, TENANT).await.unwrap();
        assert_eq!(alice.get(kept.id).await.unwrap().unwrap().body.text, "again");
    });
}

#[test]
fn a_user_who_shares_very_much_leaves_room_for_what_others_share() {
    block_on(async {
        let site = Site::with(|kernel| kernel.indexes(8, IndexLimits { entries: 20, bytes: 1 << 20 })).await;
        let shared = |text: String| fact(&text).layer(Layer::Shared).visibility(Visibility::Tenant);
        let (mallory, bob) = (site.memories("mallory", Mode::On), site.memories("bob", Mode::On));
        for user in [&mallory, &bob] {
            user.grant(None).await.unwrap();
        }
        for n in 0..30 {
            mallory.remember(&shared(format!("noise number{n}"))).await.unwrap();
        }
        for n in 0..5 {
            bob.remember(&shared(format!("teapot number{n}"))).await.unwrap();
        }
        let carol = site.memories("carol", Mode::On);
        carol.grant(None).await.unwrap();
        assert_eq!(carol.search("teapot", &Wanted::most(20)).await.unwrap().hits.len(), 5);
        let answer = carol.search("noise", &Wanted::most(20)).await.unwrap();
        let record = site.last(answer.result).await;
        let candidates = record.meta("candidates").unwrap().as_array().unwrap().len();
        assert_eq!(candidates, 15, "the rest of the index");
    });
}

#[test]
fn a_full_index_is_made_anew_when_enough_was_forgotten() {
    block_on(async {
        let site = Site::with(|kernel| kernel.indexes(8, IndexLimits { entries: 10, bytes: 1 << 20 })).await;
        let alice = site.alice().await;
        let mut kept = Vec::new();
        for n in 0..15 {
            kept.push(alice.remember(&fact(&format!("teapot number{n}"))).await.unwrap().id);
        }
        let before = alice.search("teapot", &Wanted::most(20)).await.unwrap();
        assert!(before.hits.len() == 10 && before.is_truncated);
        for id in &kept[..8] {
            alice.forget(&What::One(*id)).await.unwrap();
        }
        let after = alice.search("teapot", &Wanted::most(20)).await.unwrap();
        assert!(after.hits.len() == 7 && !after.is_truncated, "{} {}", after.hits.len(), after.is_truncated);
    });
}

#[test]
fn one_damaged_key_does_not_keep_the_others_in_an_old_epoch() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let kept = alice.remember(&fact("teapot")).await.unwrap().id;
        let bob = site.memories("bob", Mode::On);
        bob.grant(None).await.unwrap();
        bob.remember(&fact("x")).await.unwrap();
        let file = rusqlite::Connection::open(site.path("service.ledger.keys.db")).unwrap();
        file.execute("UPDATE subject_keys SET wrapped = zeroblob(60) WHERE subject = 'bob'", []).unwrap();
        let vault = site.kernel.vault();
        for _ in 0..2 {
            let error = vault.close_epoch(TENANT).await.unwrap_err();
            assert!(matches!(&error, VaultError::Damaged { subject, .. } if subject == "bob"), "{error}");
            assert!(!error.may_retry());
        }
        let in_old: i64 = file
            .query_row("SELECT count(*) FROM subject_keys WHERE epoch = 1 AND subject <> 'bob'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(in_old, 0);
        assert_eq!(alice.get(kept).await.unwrap().unwrap().body.text, "teapot");
        // Once the user's memories are given up, the epoch ends.
        bob.forget(&What::Subject).await.unwrap();
        let closed = vault.close_epoch(TENANT).await.unwrap();
        assert_eq!(vault.finish_epochs(TENANT).await.unwrap().newest, closed.newest);
        assert_eq!(alice.get(kept).await.unwrap().unwrap().body.text, "teapot");
    });
}

#[test]
fn two_hosts_that_end_an_epoch_at_once_both_succeed() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let kept = alice.remember(&fact("teapot")).await.unwrap().id;
        let other = site::vault(site.folder.path());
        for _ in 0..20 {
            let (here, there) = tokio::join!(site.kernel.vault().close_epoch(TENANT), other.close_epoch(TENANT));
            here.unwrap();
            there.unwrap();
        }
        assert_eq!(alice.get(kept).await.unwrap().unwrap().body.text, "teapot");
    });
}

/// A reviewer who brings a memory, and calls herself otherwise in her decision, is known by her key.
#[test]
fn a_reviewer_does_not_review_what_her_own_key_has_asked_for() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        // The reviewer's key is also that of a member, and has signed the request itself.
        let trusted = site.trust.resolve(&site.ledger).await.unwrap();
        let manifest = Manifest { version: trusted.manifest.version + 1, ..trusted.manifest.clone() };
        let manifest = manifest.grant(key(REVIEWER).public_key(), Role::Member, [TENANT]);
        site.trust.publish(&site.ledger, &manifest, &key(site::ROOT), &SystemClock).await.unwrap();
        let host = site::host(&site.ledger, &site.trust, &site.kernel).await;
        let request = site::upsert(&site, "a rumour").await;
        let id = SystemIds.next_id(site.now().await);
        let signed = request.into_draft(id).stamp(&SystemClock, &SystemIds).seal_local(&key(REVIEWER)).unwrap();
        site.ledger.append_one(&Scope::user(TENANT, "alice"), signed).await.unwrap();
        let kept = host.run_request(TENANT, id).await.unwrap().result.unwrap()["memory"].as_str().unwrap().parse().unwrap();
        alice.ask_for_review(kept).await.unwrap();
        let decision = site.decides(kept, Decision::Approve, (REVIEWER, "somebody else"), |_| {}).await.unwrap();
        let refused =
            Memories::new(&host, site.kernel.vault(), TENANT, "bob", Mode::On).review(kept, decision).await.unwrap_err();
        assert!(refused.to_string().contains("the reviewer is the author"), "{refused}");
        // Of what others have asked for, the same key decides.
        let other = alice.remember(&fact("another rumour")).await.unwrap().id;
        alice.ask_for_review(other).await.unwrap();
        let decision = site.decides(other, Decision::Approve, (REVIEWER, "somebody else"), |_| {}).await.unwrap();
        alice.review(other, decision).await.unwrap();
    });
}

#[test]
fn a_memory_that_expires_while_it_is_reviewed_is_permanent_or_gone() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let (mut kept_for_good, mut gone) = (0, 0);
        let mut lead = Duration::from_millis(250);
        for round in 0..12_u64 {
            let end = site.now().await.saturating_add(lead);
            let kept = alice.remember(&fact(&format!("rumour {round}")).ttl_at(end)).await;
            let asked = match &kept {
                Ok(kept) => alice.ask_for_review(kept.id).await.is_ok(),
                Err(_) => false,
            };
            if !asked {
                // The machine was too slow for this round.
                lead *= 2;
                continue;
            }
            let kept = kept.unwrap().id;
            let decision = site.decides(kept, Decision::Approve, (REVIEWER, "reviewer"), |_| {}).await.unwrap();
            // The review begins from a little before the end until a little after it.
            while site.now().await.saturating_add(Duration::from_millis(24 - 4 * round.min(6))) < end {
                tokio::task::yield_now().await;
            }
            let expiring = async {
                while site.now().await < end {
                    tokio::task::yield_now().await;
                }
                expire(&site.host, TENANT, "alice").await.unwrap()
            };
            let bob = site.memories("bob", Mode::Off);
            let (reviewed, _) = tokio::join!(bob.review(kept, decision), expiring);
            expire(&site.host, TENANT, "alice").await.unwrap();
            let (last, read) = (site.last(kept).await, alice.get(kept).await.unwrap());
            match (&reviewed, last.status.as_deref()) {
                (Ok(_), Some("active")) => {
                    kept_for_good += 1;
                    assert_eq!(read.unwrap().body.text, format!("rumour {round}"));
                    assert_eq!((last.meta("layer"), last.meta("ttl_at")), (Some(&json!("permanent")), None));
                }
                // The review was in time; its memory ended with its key.
                (Ok(_) | Err(_), Some("expired")) => {
                    gone += 1;
                    assert_eq!(read, None);
                }
                half => panic!("round {round}: {half:?}"),
            }
        }
        assert!(kept_for_good + gone > 0, "no round was in time");
    });
}

#[test]
fn epochs_that_end_under_load_lose_no_memory_and_fail_no_call() {
    block_on(async {
        let site = Arc::new(Site::new().await);
        let alice = site.alice().await;
        let stays = alice.remember(&fact("stays here")).await.unwrap().id;
        let is_over = Arc::new(AtomicBool::new(false));
        let load = (0..3).map(|n| {
            let (site, is_over) = (Arc::clone(&site), Arc::clone(&is_over));
            tokio::spawn(async move {
                let alice = site.memories("alice", Mode::On);
                let mut calls = 0;
                while !is_over.load(Ordering::SeqCst) {
                    match n {
                        0 => assert_eq!(alice.get(stays).await.unwrap().unwrap().body.text, "stays here"),
                        1 => {
                            let found = alice.search("stays", &Wanted::most(200)).await.unwrap();
                            assert!(found.hits.iter().any(|hit| hit.memory.id == stays));
                        }
                        _ => drop(alice.remember(&fact(&format!("number {calls}"))).await.unwrap()),
                    }
                    calls += 1;
                }
                calls
            })
        });
        let load: Vec<_> = load.collect();
        for _ in 0..15 {
            close_epoch(&site.host, TENANT).await.unwrap();
        }
        is_over.store(true, Ordering::SeqCst);
        let mut calls = Vec::new();
        for each in load {
            calls.push(each.await.unwrap());
        }
        assert!(calls.iter().all(|calls| *calls > 0), "{calls:?}");
        // Everything that was kept in between can be read in the newest epoch.
        for row in site.rows("memory").await {
            assert!(alice.get(row.id).await.unwrap().is_some(), "{}", row.id);
        }
    });
}
