//! Exports of memories: readable by who has the passphrase, and by nobody who changed a byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod site;

use logline_core::Signer as _;
use logline_memory::export::{ExportError, read};
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
        assert_eq!(bob.import(PASSPHRASE, &file[..], None).await.unwrap(), 2);
        let hits = bob.search("tea", &Wanted::default()).await.unwrap().hits;
        let row = other.last(hits[0].memory.id).await;
        assert_eq!(row.meta("provenance").unwrap()["origin"]["id"], json!(first.id.to_string()));
        assert_eq!(hits[0].memory.terms.layer, Layer::Temporary);
        // Again, it is the next version of the memory under the same key.
        bob.import(PASSPHRASE, &file[..], None).await.unwrap();
        assert_eq!(bob.search("tea", &Wanted::default()).await.unwrap().hits.len(), 1);
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
