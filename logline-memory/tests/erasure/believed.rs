//! Somebody who can write to the store, and has no key that counts, changes nothing.

use logline_core::trust::Delegation;
use logline_core::{Draft, SignedSpan, Signer as _, SystemClock, Visibility};
use logline_memory::envelope::Place;
use logline_memory::{
    Kind, Layer, LocalKeys, Memories, Memory, MemoryError, MemoryKernel, Mode, Sensitivity, Vault, Wanted, What, close_epoch,
    consent_id, verify_erasure,
};
use logline_sqlite::SqliteKeys;
use serde_json::json;

use crate::site::{HOST, PUBLISHER, REVIEWER, STRANGER, Site, TENANT, block_on, fact, host, key, vault};

/// Writes a row that a stranger has signed.
async fn forge(site: &Site, draft: Draft) -> SignedSpan {
    site.forge(draft, STRANGER).await
}

fn ended(row: &SignedSpan) -> Draft {
    let draft = Draft::next_version(row).did("forgotten").status("forgotten").content(json!({"redacted": true}));
    draft.without_meta("sealed").without_meta("key")
}

fn receipt(owner: &str) -> Draft {
    Draft::new("memory_receipt")
        .id(uuid::Uuid::from_u128(77))
        .tenant(TENANT)
        .owner(owner)
        .who("kernel:memory")
        .did("forgotten")
        .this("memory.receipt")
        .status("shredded")
        .content(json!({"what": "subject", "memories": 99, "in_the_clear": 0, "list_hash": "0".repeat(64), "epoch": 1}))
}

#[test]
fn a_forged_receipt_and_a_forged_end_destroy_no_key_and_get_no_signature() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let kept = alice.remember(&fact("likes tea")).await.unwrap();
        forge(&site, ended(&site.last(kept.id).await)).await;
        let forged = forge(&site, receipt("alice")).await;
        // A host that has just started, and compares receipts with the store of keys.
        let kernel = MemoryKernel::new(vault(site.folder.path())).search_in(site.ledger.clone());
        let fresh = host(&site.ledger, &site.trust, &kernel).await;
        let alice = Memories::new(&fresh, kernel.vault(), TENANT, "alice", Mode::On);
        let hits = alice.search("tea", &Wanted::default()).await.unwrap().hits;
        assert_eq!(hits.len(), 1, "the end that nobody has signed who may");
        assert_eq!(alice.get(kept.id).await.unwrap().unwrap().body.text, "likes tea");
        assert!(alice.receipts(9).await.unwrap().is_empty());
        close_epoch(&fresh, TENANT).await.unwrap();
        assert_eq!(site.last(forged.id).await.seq, forged.seq, "no host signs the next version of a forged receipt");
        let erased = verify_erasure(&site.ledger, &fresh.trusted().authorities, kernel.vault(), TENANT).await.unwrap();
        assert!(erased.is_clean() && erased.memories == 0 && erased.shredded == 0, "{erased:?}");
        // Its owner can forget it all the same, and the chain goes on.
        alice.forget(&What::One(kept.id)).await.unwrap();
        let last = site.last(kept.id).await;
        assert_eq!((last.seq, last.status.as_deref(), last.meta("layer")), (2, Some("forgotten"), Some(&json!("temporary"))));
        assert!(alice.search("tea", &Wanted::default()).await.unwrap().hits.is_empty());
    });
}

#[test]
fn a_forged_memory_is_neither_exported_nor_taken_for_the_newest() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let public = Memory::new(Kind::Fact, "sells tea").sensitivity(Sensitivity::Public);
        let public = alice.remember(&public).await.unwrap();
        let kept = alice.remember(&fact("likes tea")).await.unwrap();
        // A new memory, and a next version of a public one.
        let row = site.last(public.id).await;
        let mut columns = row.span.clone();
        columns.id = uuid::Uuid::from_u128(78);
        columns.content = Some(json!({"text": "confessed to fraud"}));
        forge(&site, Draft::from_columns(columns)).await;
        forge(&site, Draft::next_version(&row).content(json!({"text": "confessed to fraud"}))).await;
        let mut file = Vec::new();
        let exported = alice.export("three words here", &key(HOST), &mut file).await.unwrap();
        assert_eq!(exported.memories, 2);
        let (_, lines) = logline_memory::export::read("three words here", &file[..], None).unwrap();
        let texts: Vec<_> = lines.iter().map(|line| line.memory.body.text.as_str()).collect();
        assert!(texts.contains(&"sells tea") && texts.contains(&"likes tea"), "{texts:?}");
        alice.forget(&What::Last).await.unwrap();
        assert_eq!(site.last(kept.id).await.status.as_deref(), Some("forgotten"), "the newest that counts");
    });
}

#[test]
fn an_empty_store_of_keys_beside_memories_is_refused_and_ends_no_epoch() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let kept = alice.remember(&fact("likes tea")).await.unwrap();
        // The disk with the keys is not there, and an empty file is made in its place.
        let keys = LocalKeys::open(site.path("tenant-keys")).unwrap();
        let empty = Vault::new(keys, SqliteKeys::open(site.path("other.keys.db")).unwrap());
        let kernel = MemoryKernel::new(empty).search_in(site.ledger.clone());
        let lost = host(&site.ledger, &site.trust, &kernel).await;
        let elsewhere = Memories::new(&lost, kernel.vault(), TENANT, "alice", Mode::On);
        let failed = |error: MemoryError| match error {
            MemoryError::Failed(failure) => failure.code,
            error => panic!("{error}"),
        };
        assert_eq!(failed(close_epoch(&lost, TENANT).await.unwrap_err()), "memory_keys_lost");
        assert_eq!(failed(elsewhere.search("tea", &Wanted::default()).await.unwrap_err()), "memory_keys_lost");
        // Also if somebody else has begun to use the empty store.
        let place = Place { tenant: TENANT, subject: "bob", span: uuid::Uuid::from_u128(9), field: "content" };
        kernel.vault().seal(&place, b"{}").await.unwrap();
        assert_eq!(failed(close_epoch(&lost, TENANT).await.unwrap_err()), "memory_keys_lost");
        assert_eq!(alice.get(kept.id).await.unwrap().unwrap().body.text, "likes tea", "with the store of keys it opens");
        close_epoch(&site.host, TENANT).await.unwrap();
        assert_eq!(alice.get(kept.id).await.unwrap().unwrap().body.text, "likes tea");
    });
}

/// A host died right after a grant was asked for. The user has withdrawn since, and then a worker finds the request.
#[test]
fn a_grant_that_is_carried_out_after_a_later_withdrawal_counts_for_nothing() {
    use logline_core::request::Request;
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let id = logline_memory::consent_id(TENANT, "alice", None);
        let grant = Request::new(TENANT, "alice", id, json!({"decision": "grant"})).this(logline_memory::MEMORY_CONSENT);
        let late = site.host.submit(grant).await.unwrap();
        alice.revoke().await.unwrap();
        let execution = site.host.run_request(TENANT, late.id).await.unwrap();
        assert_eq!(execution.result.unwrap_err().code, "superseded");
        assert_eq!(site.last(id).await.status.as_deref(), Some("revoked"));
        assert!(matches!(alice.remember(&fact("likes tea")).await, Err(MemoryError::NoConsent { .. })));
        alice.grant(None).await.unwrap();
        alice.remember(&fact("likes tea")).await.unwrap();
    });
}

#[test]
fn a_forged_later_version_of_a_consent_neither_ends_nor_gives_it() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let kept = alice.remember(&fact("likes tea")).await.unwrap();
        let id = consent_id(TENANT, "alice", None);
        for signer in [STRANGER, PUBLISHER, REVIEWER] {
            for is_tombstone in [false, true] {
                let draft = Draft::next_version(&site.last(id).await).status("revoked");
                site.forge(if is_tombstone { draft.deleted() } else { draft }, signer).await;
                alice.remember(&fact("drinks it black")).await.unwrap();
                assert_eq!(alice.search("likes", &Wanted::default()).await.unwrap().hits.len(), 1);
                alice.ask_for_review(alice.remember(&fact("stays")).await.unwrap().id).await.unwrap();
            }
        }
        // More of them than one page has.
        let mut last = site.last(id).await;
        for _ in 0..1200 {
            last = forge(&site, Draft::next_version(&last).status("revoked")).await;
        }
        assert!(alice.get(kept.id).await.unwrap().is_some());
        alice.revoke().await.unwrap();
        forge(&site, Draft::next_version(&site.last(id).await).status("granted")).await;
        assert!(matches!(alice.remember(&fact("against her will")).await, Err(MemoryError::NoConsent { .. })));
        alice.grant(None).await.unwrap();
        alice.remember(&fact("likes coffee")).await.unwrap();
    });
}

/// The host that recorded it is not trusted any more, or its clock was wrong: whether the user was asked does not show.
#[test]
fn a_withdrawal_counts_also_if_the_right_of_the_host_that_signed_it_is_over() {
    const LENT: u8 = 9;
    block_on(async {
        let site = Site::new().await;
        site.alice().await;
        let now = site.now().await;
        let end = now.saturating_add(std::time::Duration::from_secs(60));
        let lent = Delegation::new(key(LENT).public_key(), [TENANT], now, end);
        site.trust.delegate(&site.ledger, &lent, &key(HOST), &SystemClock).await.unwrap();
        let kernel = MemoryKernel::new(vault(site.folder.path())).search_in(site.ledger.clone());
        let fresh = host(&site.ledger, &site.trust, &kernel).await;
        let alice = Memories::new(&fresh, kernel.vault(), TENANT, "alice", Mode::On);
        let id = consent_id(TENANT, "alice", None);
        alice.remember(&fact("likes tea")).await.unwrap();
        // After the end of its delegation.
        site.forge(Draft::next_version(&site.last(id).await).status("revoked").at(end), LENT).await;
        let refused = alice.remember(&fact("likes coffee")).await.unwrap_err();
        assert!(refused.to_string().contains("withdrawn"), "{refused}");
        // It takes a right away, and gives none.
        site.forge(Draft::next_version(&site.last(id).await).status("granted").at(end), LENT).await;
        assert!(matches!(alice.remember(&fact("likes coffee")).await, Err(MemoryError::NoConsent { .. })));
        alice.grant(None).await.unwrap();
        alice.remember(&fact("likes coffee")).await.unwrap();
    });
}

#[test]
fn a_forged_tombstone_hides_nothing_and_a_forged_contract_is_not_kept() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let (goes, stays) = (alice.remember(&fact("goes")).await.unwrap(), alice.remember(&fact("stays")).await.unwrap());
        for id in [goes.id, stays.id] {
            forge(&site, Draft::next_version(&site.last(id).await).deleted()).await;
        }
        let shared = fact("sells tea").layer(Layer::Shared).visibility(Visibility::Tenant);
        let shared = alice.remember(&shared).await.unwrap();
        forge(&site, Draft::next_version(&site.last(shared.id).await).visibility(Visibility::Private)).await;
        let bob = site.memories("bob", Mode::On);
        bob.grant(None).await.unwrap();
        assert!(bob.get(shared.id).await.unwrap().is_some(), "it is shared still");
        assert_eq!(alice.get(stays.id).await.unwrap().unwrap().body.text, "stays");
        let receipt = alice.forget(&What::One(goes.id)).await.unwrap();
        assert_eq!(alice.get(goes.id).await.unwrap(), None);
        forge(&site, Draft::next_version(&site.last(receipt.id).await).deleted()).await;
        assert_eq!(alice.receipts(9).await.unwrap(), [receipt]);
        assert_eq!(close_epoch(&site.host, TENANT).await.unwrap(), 1, "its receipt is sealed");

        let schema = |max: u64| json!({"properties": {"text": {"maxLength": max}}});
        let draft = logline_memory::contract(TENANT, "copy", "short/v1", schema(8));
        let contract = site.host.publish(draft, &key(PUBLISHER)).await.unwrap().id;
        forge(&site, Draft::next_version(&site.last(contract).await).content(schema(999))).await;
        alice.remember(&fact("short").schema("short/v1")).await.unwrap();
        assert!(alice.remember(&fact("far too long").schema("short/v1")).await.is_err());
    });
}
