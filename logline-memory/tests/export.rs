//! Exports of memories: readable by who has the passphrase, and by nobody who changed a byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod site;

use logline_core::Signer as _;
use logline_memory::export::{ExportError, Imported, read};
use logline_memory::{Layer, Mode, Sensitivity, Wanted, What};
use serde_json::json;

use site::{HOST, STRANGER, Site, block_on, contains, fact, key};

const PASSPHRASE: &str = "correct horse battery";

#[test]
fn an_export_is_read_by_its_passphrase_and_kept_elsewhere_with_its_origin() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        let first = alice.remember(&fact("likes tea").key("drink").tag("t").data(json!({"sugar": 0}))).await.unwrap();
        alice.remember(&fact("public").sensitivity(Sensitivity::Public)).await.unwrap();
        let gone = alice.remember(&fact("gone")).await.unwrap();
        alice.forget(&What::One(gone.id)).await.unwrap();
        // A user has the right to a copy, whatever the consent.
        alice.revoke().await.unwrap();
        let mut file = Vec::new();
        let exported = alice.export(PASSPHRASE, &key(HOST), &mut file).await.unwrap();
        assert_eq!((exported.memories, exported.key), (2, key(HOST).public_key()));
        assert!(!contains(&file, "tea") && !contains(&file, PASSPHRASE) && !contains(&file, "sugar"));
        let (found, lines) = read(PASSPHRASE, &file[..], Some(key(HOST).public_key())).unwrap();
        assert_eq!((found, lines.len(), lines[0].memory.body.text.as_str()), (exported, 2, "likes tea"));

        let other = Site::new().await;
        let bob = other.memories("bob", Mode::On);
        bob.grant(None).await.unwrap();
        assert_eq!(imported(bob.import(PASSPHRASE, &file[..], None).await), (2, 0));
        let hits = bob.search("tea", &Wanted::default()).await.unwrap().hits;
        let row = other.last(hits[0].memory.id).await;
        assert_eq!(row.meta("provenance").unwrap()["origin"]["id"], json!(first.id.to_string()));
        assert_eq!(hits[0].memory.terms.layer, Layer::Temporary);
    });
}

/// How many memories were kept, and how many were there.
fn imported(result: Result<Imported, ExportError>) -> (u64, u64) {
    let imported = result.unwrap();
    (imported.kept, imported.already)
}

#[test]
fn an_export_that_is_imported_twice_is_kept_once() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        alice.remember(&fact("likes tea").key("drink")).await.unwrap();
        alice.remember(&fact("has a cat")).await.unwrap();
        alice.remember(&fact("sells honey").sensitivity(Sensitivity::Public)).await.unwrap();
        let mut file = Vec::new();
        alice.export(PASSPHRASE, &key(HOST), &mut file).await.unwrap();
        assert_eq!(imported(alice.import(PASSPHRASE, &file[..], None).await), (0, 3), "it comes from here");

        let other = Site::new().await;
        let bob = other.memories("bob", Mode::On);
        bob.grant(None).await.unwrap();
        let import = async || imported(bob.import(PASSPHRASE, &file[..], None).await);
        let two = tokio::join!(import(), import());
        assert_eq!(two.0.0 + two.1.0, 3, "{two:?}");
        assert_eq!(import().await, (0, 3));
        assert_eq!(other.rows("memory").await.len(), 3);
        // What has changed here since is not overwritten.
        bob.remember(&fact("likes coffee").key("drink")).await.unwrap();
        assert_eq!(import().await, (0, 3));
        assert_eq!(bob.search("likes", &Wanted::default()).await.unwrap().hits[0].memory.body.text, "likes coffee");
        // What was forgotten is kept again, and once.
        for word in ["cat", "honey"] {
            let id = bob.search(word, &Wanted::default()).await.unwrap().hits[0].memory.id;
            bob.forget(&What::One(id)).await.unwrap();
            assert_eq!((import().await, import().await), ((1, 2), (0, 3)), "{word}");
        }
        // Of a later export, only what is new.
        alice.remember(&fact("has a dog")).await.unwrap();
        let mut later = Vec::new();
        alice.export(PASSPHRASE, &key(HOST), &mut later).await.unwrap();
        assert_eq!(imported(bob.import(PASSPHRASE, &later[..], None).await), (1, 3));
    });
}

#[test]
fn a_changed_cut_or_extended_export_keeps_nothing() {
    block_on(async {
        let site = Site::new().await;
        let alice = site.alice().await;
        for n in 0..3 {
            alice.remember(&fact(&format!("fact {n}"))).await.unwrap();
        }
        let mut file = Vec::new();
        alice.export(PASSPHRASE, &key(HOST), &mut file).await.unwrap();
        let text = String::from_utf8(file.clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let join = |order: &[usize]| order.iter().map(|at| format!("{}\n", lines[*at])).collect::<String>();
        for (changed, order) in [
            ("removed", join(&[0, 1, 2, 4])),
            ("moved", join(&[0, 2, 1, 3, 4])),
            ("doubled", join(&[0, 1, 1, 2, 3, 4])),
            ("cut off", join(&[0, 1, 2, 3])),
            ("extended", join(&[0, 1, 2, 3, 4, 1])),
            ("without a header", join(&[1, 2, 3, 4])),
            ("empty", String::new()),
        ] {
            assert!(read(PASSPHRASE, order.as_bytes(), None).is_err(), "{changed}");
        }
        for at in (0..file.len()).step_by(101) {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(alice.import(PASSPHRASE, &changed[..], None).await.is_err(), "byte {at}");
        }
        assert_eq!(site.rows("memory").await.len(), 3);
        assert!(matches!(read("another passphrase", &file[..], None), Err(ExportError::Line { line: 2, .. })));
        assert!(matches!(read("short", &file[..], None), Err(ExportError::Passphrase)));
        let stranger = Some(key(STRANGER).public_key());
        assert!(matches!(read(PASSPHRASE, &file[..], stranger), Err(ExportError::NotGenuine { .. })));
        // Who asks for years of hashing is refused.
        let slow = text.replace("\"iterations\":210000", "\"iterations\":4000000000");
        assert!(read(PASSPHRASE, slow.as_bytes(), None).is_err());
    });
}
