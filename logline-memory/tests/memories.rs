//! Memories as an application uses them, and as others misuse them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod site;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use logline_core::ledger::{Ledger as _, LedgerExt as _, Query};
use logline_core::request::Request;
use logline_core::trust::governance::Decision;
use logline_core::{Scope, Visibility, fsck};
use logline_memory::{
    Classifier, Content, Kind, Layer, MEMORY, MEMORY_UPSERT, Memory, MemoryError, Mode, ReceiptState, Sealed, Sensitivity,
    Status, Stored, VaultError, What, close_epoch, contract, expire,
};
use serde_json::json;

use site::{PUBLISHER, REVIEWER, STRANGER, Site, TENANT, block_on, contains, fact, key};

const SECRET: &str = "the door code is 4711";

fn code(error: &MemoryError) -> &str {
    match error {
        MemoryError::Failed(failure) => &failure.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_remembered_is_read_again_and_stands_nowhere_in_the_clear() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let kept = alice.remember(&fact(SECRET).key("door").data(json!({"floor": 3})).tag("home")).await.unwrap();
        let found = alice.get(kept.id).await.unwrap().unwrap();
        assert_eq!((found.body.text.as_str(), found.body.data), (SECRET, Some(json!({"floor": 3}))));
        assert_eq!((found.status, found.terms.layer, found.seq), (Status::Active, Layer::Temporary, kept.seq));
        let bytes = site.bytes();
        for hidden in [SECRET, "door code", "\"door\""] {
            assert!(!contains(&bytes, hidden), "`{hidden}` is on the disk");
        }
        // It would have been found.
        assert!(contains(&bytes, "home"));
    });
}

#[test]
fn nothing_is_remembered_or_recalled_without_consent() {
    block_on(async {
        let site = Site::new().await;
        for mode in [Mode::Off, Mode::On, Mode::SessionOnly] {
            let alice = site.memories("alice", mode).session("s1");
            let refused = alice.remember(&fact(SECRET)).await.unwrap_err();
            assert!(matches!(refused, MemoryError::NoConsent { .. }), "{mode}: {refused}");
        }
        let alice = site.alice().await;
        let kept = alice.remember(&fact(SECRET)).await.unwrap();
        assert!(matches!(site.memories("alice", Mode::Off).get(kept.id).await, Err(MemoryError::NoConsent { .. })));
        alice.revoke().await.unwrap();
        assert!(matches!(alice.get(kept.id).await, Err(MemoryError::NoConsent { .. })));
        assert!(matches!(alice.remember(&fact("more")).await, Err(MemoryError::NoConsent { .. })));
        alice.grant(None).await.unwrap();
        assert!(alice.get(kept.id).await.unwrap().is_some());
    });
}

#[test]
fn a_consent_that_was_withdrawn_stops_what_waits_already() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let kept = alice.remember(&fact("first").key("k")).await.unwrap();
        let asked = site.rows("request").await.into_iter().rev().find(|row| row.this == MEMORY_UPSERT && row.seq == 0).unwrap();
        // The same input, submitted by somebody who holds it back until the consent is gone.
        let request = Request::new(TENANT, "alice", kept.id, asked.span.input.clone().unwrap()).this(MEMORY_UPSERT);
        let request = site.host.submit(request).await.unwrap();
        alice.revoke().await.unwrap();
        let execution = site.host.run_request(TENANT, request.id).await.unwrap();
        assert_eq!(execution.result.unwrap_err().code, "no_consent");
        // Nor does a later consent revive what cites the one before.
        alice.grant(None).await.unwrap();
        let again = Request::new(TENANT, "alice", kept.id, asked.span.input.clone().unwrap()).this(MEMORY_UPSERT);
        let execution = site.host.execute(again).await.unwrap();
        assert_eq!(execution.result.unwrap_err().code, "no_consent");
    });
}

#[test]
fn a_consent_of_another_user_or_session_is_refused() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        alice.remember(&fact("mine")).await.unwrap();
        let asked = site.rows("request").await.into_iter().find(|row| row.this == MEMORY_UPSERT && row.seq == 0).unwrap();
        let input = asked.span.input.clone().unwrap();
        let mallory = Request::new(TENANT, "mallory", asked.id, input).this(MEMORY_UPSERT);
        assert_eq!(site.host.execute(mallory).await.unwrap().result.unwrap_err().code, "no_consent");

        let first = site.memories("bob", Mode::SessionOnly).session("s1");
        first.grant(None).await.unwrap();
        let kept = first.remember(&fact("x").layer(Layer::Session)).await.unwrap();
        assert!(first.get(kept.id).await.unwrap().is_some());
        let second = site.memories("bob", Mode::SessionOnly).session("s2");
        assert!(matches!(second.get(kept.id).await, Err(MemoryError::NoConsent { .. })));
        second.grant(None).await.unwrap();
        assert_eq!(second.get(kept.id).await.unwrap(), None, "a memory of one session was read in another");
        let refused = second.remember(&fact("x")).await.unwrap_err();
        assert_eq!(code(&refused), "memory_refused");
    });
}

#[test]
fn another_user_and_another_tenant_see_nothing() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let kept = alice.remember(&fact(SECRET).key("door")).await.unwrap();
        for (tenant, owner) in [(TENANT, "bob"), ("globex", "alice")] {
            let other = site.of(tenant, owner, Mode::On);
            other.grant(None).await.unwrap();
            assert_eq!(other.get(kept.id).await.unwrap(), None);
            assert_eq!(code(&other.forget(&What::One(kept.id)).await.unwrap_err()), "memory_refused");
            // Their memory under the same key is another one, and its id tells nothing about ours.
            let theirs = other.remember(&fact("theirs").key("door")).await.unwrap();
            assert_ne!(theirs.id, kept.id);
        }
        assert_eq!(alice.get(kept.id).await.unwrap().unwrap().body.text, SECRET);
    });
}

#[test]
fn the_same_key_supersedes_and_unrelated_facts_never_do() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let first = alice.remember(&fact("lives in Porto").key("city")).await.unwrap();
        let other = alice.remember(&fact("works in Porto").key("work")).await.unwrap();
        let third = alice.remember(&fact("lives in Porto")).await.unwrap();
        let second = alice.remember(&fact("lives in Lisbon").key("city")).await.unwrap();
        assert_eq!((second.id, second.seq, second.superseded), (first.id, first.seq + 1, true));
        assert!(other.id != first.id && third.id != first.id && !other.superseded && !third.superseded);
        assert_eq!(alice.get(first.id).await.unwrap().unwrap().body.text, "lives in Lisbon");
        let last = site.last(first.id).await;
        assert_eq!(last.meta("provenance").unwrap()["supersedes"]["seq"], json!(first.seq));
        // After an act of forgetting the subject has a new key, and the fact is found all the same.
        alice.forget(&What::One(other.id)).await.unwrap();
        let again = alice.remember(&fact("lives in Faro").key("city")).await.unwrap();
        assert_eq!((again.id, again.seq), (first.id, first.seq + 2));
    });
}

#[test]
fn parallel_writers_of_one_fact_leave_one_live_fact() {
    block_on(async {
        let site = std::sync::Arc::new(Site::new().await);
        site.alice().await;
        let writers = (0..8).map(|n| {
            let site = std::sync::Arc::clone(&site);
            tokio::spawn(async move {
                let alice = site.memories("alice", Mode::On);
                alice.remember(&fact(&format!("version {n}")).key("k")).await.unwrap()
            })
        });
        let mut kept = Vec::new();
        for writer in writers.collect::<Vec<_>>() {
            kept.push(writer.await.unwrap());
        }
        let mut versions: Vec<_> = kept.iter().map(|kept| kept.seq).collect();
        versions.sort_unstable();
        assert_eq!(versions, (0..8).collect::<Vec<_>>());
        assert!(kept.iter().all(|one| one.id == kept[0].id));
        // The audit of the memory is one chain.
        let audits = site.rows("memory_audit").await;
        assert!(audits.len() == 8 && audits.iter().all(|row| row.id == audits[0].id));
    });
}

#[test]
fn what_breaks_a_rule_is_refused_before_anything_is_kept() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let now = site.now().await;
        let past = now.saturating_sub(Duration::from_secs(1));
        for (memory, place) in [
            (fact(""), "text"),
            (fact("   "), "text"),
            (fact("a\0b"), "NUL"),
            (fact(&"x".repeat(1 << 20)), "1048576"),
            (fact("x").data(json!("y".repeat(1 << 20))), "data"),
            (fact("x").layer(Layer::Session), "session_id"),
            (fact("x").visibility(Visibility::Tenant), "layer"),
            (fact("x").visibility(Visibility::Public).layer(Layer::Shared), "sensitivity"),
        ] {
            let refused = alice.remember(&memory).await.unwrap_err();
            assert!(matches!(refused, MemoryError::Invalid { .. }) && refused.to_string().contains(place), "{refused}");
        }
        for (memory, expected) in [
            (fact("x").ttl_at(past), "memory_invalid"),
            (fact("x").layer(Layer::Permanent), "memory_refused"),
            (fact("x").tag("t".repeat(1000)), "memory_invalid"),
            (fact("x").schema("nobody/knows"), "memory_contract"),
        ] {
            assert_eq!(code(&alice.remember(&memory).await.unwrap_err()), expected);
        }
        assert_eq!(site.rows("memory").await.len(), 0);
    });
}

#[test]
fn a_memory_that_breaks_its_contract_is_refused_with_the_place_and_not_the_value() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let schema = json!({"properties": {"data": {"type": "object", "required": ["city"],
            "properties": {"city": {"type": "string", "maxLength": 5}}}}, "required": ["data"]});
        site.host.publish(contract(TENANT, "copy", "profile/v1", schema), &key(PUBLISHER)).await.unwrap();
        let kept = alice.remember(&fact("x").schema("profile/v1").data(json!({"city": "Porto"}))).await.unwrap();
        assert!(alice.get(kept.id).await.unwrap().is_some());
        let refused = alice.remember(&fact("x").schema("profile/v1").data(json!({"city": "Lisbon-by-the-sea"}))).await;
        let refused = refused.unwrap_err().to_string();
        let place = "/properties/data/properties/city/maxLength";
        assert!(refused.contains(place) && !refused.contains("Lisbon"), "{refused}");
        // Names of members are what was said, as values are.
        let schema = json!({"properties": {"data": {"type": "object", "additionalProperties": {"type": "string"}}}});
        site.host.publish(contract(TENANT, "copy", "profile/v3", schema), &key(PUBLISHER)).await.unwrap();
        let told = alice.remember(&fact("x").schema("profile/v3").data(json!({"diagnosis": 5}))).await.unwrap_err();
        assert!(told.to_string().contains("/additionalProperties") && !told.to_string().contains("diagnosis"), "{told}");
        let no_schema = contract(TENANT, "copy", "profile/v2", json!({"type": 7}));
        assert!(site.host.publish(no_schema, &key(PUBLISHER)).await.is_err());
        // At another id no memory would find it.
        let elsewhere = contract(TENANT, "copy", "profile/v4", json!({})).id(uuid::Uuid::from_u128(4));
        let refused = site.host.publish(elsewhere, &key(PUBLISHER)).await.unwrap_err().to_string();
        assert!(refused.contains("logline publish"), "{refused}");
    });
}

#[test]
fn noise_is_refused_by_the_classifier() {
    struct Greetings;

    #[async_trait]
    impl Classifier for Greetings {
        async fn noise(&self, _: &str, memory: &Memory) -> Option<String> {
            (memory.body.text == "hello").then(|| "a greeting says nothing that lasts".to_owned())
        }
    }

    block_on(async {
        let site = Site::with(|kernel| kernel.classifier(Greetings)).await;
        let alice = site.alice().await;
        assert_eq!(code(&alice.remember(&fact("hello")).await.unwrap_err()), "memory_noise");
        alice.remember(&fact("is called Ada")).await.unwrap();
    });
}

#[test]
fn what_is_forgotten_is_read_by_nobody_and_the_chain_still_verifies() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let stays = alice.remember(&fact("stays").key("a")).await.unwrap();
        let goes = alice.remember(&fact(SECRET).key("b")).await.unwrap();
        let receipt = alice.forget(&What::Last).await.unwrap();
        assert_eq!((receipt.memories, receipt.in_the_clear, receipt.state), (1, 0, ReceiptState::Shredded));
        assert_eq!(alice.get(goes.id).await.unwrap(), None);
        assert_eq!(site.last(goes.id).await.status.as_deref(), Some("forgotten"));
        assert_eq!(alice.get(stays.id).await.unwrap().unwrap().body.text, "stays");
        // Not even the versions before, with the vault itself.
        let first = site.ledger.history(&Scope::Operator, TENANT, goes.id, 0, 1).await.unwrap().remove(0);
        let Content::Sealed(envelope) = Stored::read(&first).unwrap().content else { panic!("it was sealed") };
        let text = Sealed { span: goes.id, field: "content", envelope: &envelope };
        let opened = site.kernel.vault().open(TENANT, "alice", &[text]).await.unwrap().remove(0);
        assert!(matches!(opened, Err(VaultError::Erased)));
        // The fact may come again, as a new version of the same memory or a new one, and is read.
        let again = alice.remember(&fact("new").key("b")).await.unwrap();
        assert_eq!(alice.get(again.id).await.unwrap().unwrap().body.text, "new");
        assert_eq!(close_epoch(&site.host, TENANT).await.unwrap(), 1);
        assert_eq!(alice.receipts(10).await.unwrap()[0].state, ReceiptState::Sealed);
        assert_eq!(alice.get(stays.id).await.unwrap().unwrap().body.text, "stays");
        assert_eq!(close_epoch(&site.host, TENANT).await.unwrap(), 0);
        let trusted = site.trust.resolve(&site.ledger).await.unwrap();
        let mut audit = fsck::Audit::default();
        audit.authorities = Some(&trusted.authorities);
        let report = fsck::fsck(&site.ledger, audit, &mut |_| {}).await.unwrap();
        assert!(report.is_clean() && report.authority_checked, "{report:?}");
    });
}

#[test]
fn a_whole_subject_is_forgotten_over_many_batches() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let public = fact("likes tea").sensitivity(Sensitivity::Public).layer(Layer::Shared).visibility(Visibility::Tenant);
        let public = alice.remember(&public).await.unwrap();
        let bob = site.memories("bob", Mode::On);
        bob.grant(None).await.unwrap();
        let bobs = bob.remember(&fact("bob's")).await.unwrap();
        assert_eq!(bob.get(public.id).await.unwrap().unwrap().body.text, "likes tea");
        let mut ids = vec![public.id];
        let one = fact("one of many");
        for _ in 0..64 {
            let some = (0..8).map(|_| alice.remember(&one));
            ids.extend(join_all(some).await.into_iter().map(|kept| kept.unwrap().id));
        }
        let receipt = alice.forget(&What::Subject).await.unwrap();
        assert_eq!((receipt.memories, receipt.in_the_clear), (513, 1));
        let ended = Query::new().tenant(TENANT).entity_type(MEMORY).status("forgotten");
        let ended = site.ledger.collect(&Scope::Operator, &ended, usize::MAX).await.unwrap();
        assert_eq!(ended.len(), ids.len());
        for id in ids.into_iter().step_by(100) {
            assert_eq!(alice.get(id).await.unwrap(), None);
        }
        assert_eq!(bob.get(public.id).await.unwrap(), None);
        assert!(bob.get(bobs.id).await.unwrap().is_some(), "a scoped deletion took somebody else's memory");
        assert_eq!(code(&alice.forget(&What::Subject).await.unwrap_err()), "memory_refused");
    });
}

#[test]
fn a_session_is_forgotten_alone() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await.session("s1");
        let in_session = alice.remember(&fact("in the session").layer(Layer::Session)).await.unwrap();
        let stays = alice.remember(&fact("stays")).await.unwrap();
        assert_eq!(
            alice.forget(&What::Session("s2".to_owned())).await.map_err(|e| code(&e).to_owned()).unwrap_err(),
            "memory_refused"
        );
        assert_eq!(alice.forget(&What::Session("s1".to_owned())).await.unwrap().memories, 1);
        assert_eq!(alice.get(in_session.id).await.unwrap(), None);
        assert!(alice.get(stays.id).await.unwrap().is_some());
    });
}

#[test]
fn a_memory_whose_time_has_passed_is_refused_before_it_is_erased() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let end = site.soon().await;
        let kept = alice.remember(&fact(SECRET).ttl_at(end)).await.unwrap();
        let stays = alice.remember(&fact("stays")).await.unwrap();
        while site.now().await < end {
            tokio::task::yield_now().await;
        }
        assert_eq!(alice.get(kept.id).await.unwrap(), None);
        assert_eq!(expire(&site.host, TENANT, "alice").await.unwrap(), 1);
        assert_eq!(expire(&site.host, TENANT, "alice").await.unwrap(), 0);
        assert_eq!(site.last(kept.id).await.status.as_deref(), Some("expired"));
        assert!(alice.get(stays.id).await.unwrap().is_some());
    });
}

#[test]
fn a_reviewer_promotes_exactly_what_was_reviewed() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let kept = alice.remember(&fact("lives in Porto").key("city")).await.unwrap();
        let by = (REVIEWER, "reviewer");
        let early = site.decides(kept.id, Decision::Approve, by, |_| {}).await.unwrap();
        assert_eq!(code(&alice.review(kept.id, early).await.unwrap_err()), "memory_refused");
        alice.ask_for_review(kept.id).await.unwrap();
        // A decision about the version before, one by a key that is no approver, one by the author, one that has expired, and one for
        // another ledger do not count.
        let now = site.now().await;
        let mut bad = vec![early];
        bad.push(site.decides(kept.id, Decision::Approve, (STRANGER, "reviewer"), |_| {}).await.unwrap());
        bad.push(site.decides(kept.id, Decision::Approve, (REVIEWER, "alice"), |_| {}).await.unwrap());
        bad.push(site.decides(kept.id, Decision::Approve, by, |said| said.expires = now).await.unwrap());
        bad.push(site.decides(kept.id, Decision::Approve, by, |said| said.ledger = said.approves).await.unwrap());
        for decision in bad {
            assert_eq!(code(&alice.review(kept.id, decision).await.unwrap_err()), "memory_refused");
        }
        assert_eq!(alice.get(kept.id).await.unwrap().unwrap().status, Status::NeedsReview);
        let good = site.decides(kept.id, Decision::Approve, by, |_| {}).await.unwrap();
        alice.review(kept.id, good).await.unwrap();
        let promoted = alice.get(kept.id).await.unwrap().unwrap();
        assert_eq!((promoted.status, promoted.terms.layer), (Status::Active, Layer::Permanent));
        assert_eq!(code(&alice.review(kept.id, good).await.unwrap_err()), "memory_refused");

        let other = alice.remember(&Memory::new(Kind::Note, "gossip")).await.unwrap();
        alice.ask_for_review(other.id).await.unwrap();
        let denied = site.decides(other.id, Decision::Reject, by, |_| {}).await.unwrap();
        alice.review(other.id, denied).await.unwrap();
        assert_eq!(alice.get(other.id).await.unwrap(), None);
    });
}

#[test]
fn a_missing_tenant_key_refuses_the_write() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let kept = alice.remember(&fact("x")).await.unwrap();
        let rows = site.rows("memory").await.len();
        std::fs::rename(site.path("tenant-keys"), site.path("elsewhere")).unwrap();
        assert!(matches!(alice.remember(&fact("y")).await, Err(MemoryError::Vault(VaultError::Key(_)))));
        assert!(matches!(alice.get(kept.id).await, Err(MemoryError::Vault(VaultError::Key(_)))));
        assert_eq!(site.rows("memory").await.len(), rows);
        std::fs::rename(site.path("elsewhere"), site.path("tenant-keys")).unwrap();
        assert!(alice.get(kept.id).await.unwrap().is_some());
    });
}

/// The runbook for a tenant's key that is lost for good.
#[test]
fn after_the_loss_of_a_tenants_key_users_are_forgotten_and_begin_anew() {
    block_on(async {
        let site = Site::new().await;
        let (alice, bob) = (site.alice().await, site.memories("bob", Mode::On));
        bob.grant(None).await.unwrap();
        let mut kept = vec![alice.remember(&fact("likes tea")).await.unwrap().id];
        kept.push(bob.remember(&fact("likes coffee")).await.unwrap().id);
        std::fs::remove_dir_all(site.path("tenant-keys")).unwrap();
        assert!(matches!(alice.get(kept[0]).await, Err(MemoryError::Vault(VaultError::Key(_)))));
        assert!(alice.remember(&fact("likes milk")).await.is_err());
        for user in [&alice, &bob] {
            user.forget(&What::Subject).await.unwrap();
        }
        close_epoch(&site.host, TENANT).await.unwrap();
        for (user, id) in [(&alice, kept[0]), (&bob, kept[1])] {
            assert_eq!(user.get(id).await.unwrap(), None);
            let again = user.remember(&fact("likes water")).await.unwrap().id;
            assert_eq!(user.get(again).await.unwrap().unwrap().body.text, "likes water");
        }
    });
}

#[test]
fn an_envelope_that_was_moved_to_another_memory_does_not_open() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let first = alice.remember(&fact("first")).await.unwrap();
        let asked = site.rows("request").await.into_iter().find(|row| row.this == MEMORY_UPSERT && row.seq == 0).unwrap();
        let mut input = asked.span.input.clone().unwrap();
        input["id"] = json!(logline_core::ids::derive("somewhere", &["else"]).to_string());
        let moved = Request::new(TENANT, "alice", first.id, input).this(MEMORY_UPSERT);
        assert_eq!(site.host.execute(moved).await.unwrap().result.unwrap_err().code, "memory_key");
        // Nor can a text that is not public be written in the clear, past the library.
        let mut input = asked.span.input.clone().unwrap();
        let members = input.as_object_mut().unwrap();
        members.remove("sealed");
        members.insert("clear".to_owned(), json!({"text": SECRET}));
        let clear = Request::new(TENANT, "alice", first.id, input).this(MEMORY_UPSERT);
        assert_eq!(site.host.execute(clear).await.unwrap().result.unwrap_err().code, "memory_invalid");
    });
}

/// The id of a public memory under a key can be computed by anybody, and so can those of consents and receipts.
#[test]
fn a_stranger_cannot_take_the_id_of_somebody_elses_memory() {
    block_on(async {
        let site = Site::new().await;
        let mallory = site.memories("mallory", Mode::On);
        mallory.grant(None).await.unwrap();
        let public = fact("x").sensitivity(Sensitivity::Public).key("city");
        mallory.remember(&public).await.unwrap();
        let asked = site.rows("request").await.into_iter().find(|row| row.this == MEMORY_UPSERT && row.seq == 0).unwrap();
        let alices = logline_core::ids::derive("memory", &[TENANT, "alice", "\ncity"]);
        for (id, clear) in [
            (alices, json!({"text": "x", "key": "city"})),
            (alices, json!({"text": "x"})),
            (logline_memory::consent_id(TENANT, "alice", None), json!({"text": "x"})),
            (uuid::Uuid::nil(), json!({"text": "x"})),
        ] {
            let mut input = asked.span.input.clone().unwrap();
            input["id"] = json!(id.to_string());
            input["clear"] = clear;
            let request = Request::new(TENANT, "mallory", id, input).this(MEMORY_UPSERT);
            assert_eq!(site.host.execute(request).await.unwrap().result.unwrap_err().code, "memory_refused");
        }
        let alice = site.alice().await;
        assert_eq!(alice.remember(&public).await.unwrap().id, alices);
    });
}
