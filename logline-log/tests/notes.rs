//! Notes, checkpoints, proof files and policies: what is accepted, and every way of cheating that is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use futures_util::FutureExt as _;
use logline_core::{Draft, KeyPair, SignedSpan, Signer as _, SystemClock, SystemIds, Verifier};
use logline_log::note::{KeyKind, KeyName, Note, NoteError, NoteKey, NoteKeyError};
use logline_log::tree::ProofError;
use logline_log::{
    Checkpoint, CheckpointError, Entry, EntryError, LEAF_BYTES, Leaf, LogProof, LogProofError, Policy, PolicyError, TreeHash,
    random_origin,
};
use proptest::prelude::*;

fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

fn log_key(n: u8) -> NoteKey {
    NoteKey::new(name("example.com/log"), KeyKind::Log, key(n).public_key()).unwrap()
}

fn witness_key(n: u8) -> NoteKey {
    NoteKey::new(name(&format!("witness{n}")), KeyKind::Witness, key(n).public_key()).unwrap()
}

fn checkpoint(size: u64, root: TreeHash) -> Note {
    let mut note = Checkpoint { origin: name("example.com/log"), size, root }.to_note().unwrap();
    note.sign(&name("example.com/log"), &key(1)).now_or_never().unwrap().unwrap();
    note
}

fn cosign(note: &mut Note, n: u8) {
    note.cosign(&name(&format!("witness{n}")), 1_700_000_000, &key(n)).now_or_never().unwrap().unwrap();
}

#[test]
fn the_example_of_the_specification_verifies() {
    let key: NoteKey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k".parse().unwrap();
    assert_eq!(key.to_string(), "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k");
    let text = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    let note = Note::parse(text.as_bytes()).unwrap();
    assert_eq!(note.verify(std::slice::from_ref(&key)).unwrap()[0].key, key);
    assert_eq!(note.to_string(), text);
    let changed = Note::parse(text.replace("message", "massage").as_bytes()).unwrap();
    assert!(matches!(changed.verify(&[key]), Err(NoteError::BadSignature { .. })));
}

#[test]
fn malformed_notes_are_refused() {
    let good = checkpoint(1, TreeHash::leaf(b"a")).to_string();
    assert!(Note::parse(good.as_bytes()).is_ok());
    for bad in [
        String::new(),
        "\n".to_owned(),
        good.trim_end().to_owned(),
        good.replace("— ", "- "),
        good.replace("\n\n", "\n"),
        good.replace("log\n", "log\r\n"),
        good.replace("log\n", "log\0\n"),
        format!("{good}\n"),
        format!("{good}junk\n"),
        format!("{good}— two words AAAAAAAA\n"),
        format!("{good}— plus+name AAAAAAAA\n"),
        format!("{good}— short AAAA\n"),
        format!("{good}— short AAAAAA==\n"),
    ] {
        assert!(Note::parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert!(Note::parse(b"\xff\n\n\xe2\x80\x94 a AAAAAAAA\n").is_err());
    assert!(Note::new("no line end").is_err());
}

#[test]
fn many_signatures_are_accepted_and_unknown_ones_ignored_wherever_they_stand() {
    let mut note = checkpoint(1, TreeHash::leaf(b"a"));
    for n in 2..=20 {
        cosign(&mut note, n);
    }
    let text = note.to_string();
    // The log's line need not be the first, and lines of kinds that nobody knows are kept.
    let (head, lines) = text.split_once("\n\n").unwrap();
    let mut lines: Vec<_> = lines.lines().map(str::to_owned).collect();
    lines.reverse();
    lines.insert(3, format!("— post.quantum {}", "AAAA".repeat(900)));
    let shuffled = Note::parse(format!("{head}\n\n{}\n", lines.join("\n")).as_bytes()).unwrap();
    let witnesses: Vec<_> = (2..=20).map(witness_key).collect();
    let (checkpoint, signed) = Checkpoint::verify(&shuffled, &log_key(1), &witnesses).unwrap();
    assert_eq!((checkpoint.size, signed.len()), (1, 20));
    assert_eq!(signed.iter().filter(|signed| signed.time == Some(1_700_000_000)).count(), 19);
}

#[test]
fn a_bad_signature_of_a_known_key_rejects_the_note_although_others_are_good() {
    let mut note = checkpoint(1, TreeHash::leaf(b"a"));
    let mut other = checkpoint(2, TreeHash::leaf(b"b"));
    cosign(&mut other, 2);
    note.push(other.signatures()[1].clone()).unwrap();
    assert!(matches!(
        Checkpoint::verify(&note, &log_key(1), &[witness_key(2)]),
        Err(CheckpointError::Note(NoteError::BadSignature { .. }))
    ));
    assert!(Checkpoint::verify(&note, &log_key(1), &[]).is_ok(), "who does not know the key ignores its line");
}

#[test]
fn a_checkpoint_by_another_key_or_of_another_log_is_refused() {
    let note = checkpoint(1, TreeHash::leaf(b"a"));
    assert!(matches!(
        Checkpoint::verify(&note, &log_key(9), &[]),
        Err(CheckpointError::Note(NoteError::Unsigned { known: 1 }))
    ));
    // The server renames itself: the same key under another name.
    let renamed = NoteKey::new(name("example.com/other"), KeyKind::Log, key(1).public_key()).unwrap();
    assert!(matches!(Checkpoint::verify(&note, &renamed, &[]), Err(CheckpointError::Origin { .. })));
    // A cosignature of a witness is not a signature of the log, also if both have the same key.
    let mut cosigned = Checkpoint { origin: name("witness2"), size: 0, root: TreeHash::EMPTY }.to_note().unwrap();
    cosign(&mut cosigned, 2);
    let as_log = NoteKey::new(name("witness2"), KeyKind::Log, key(2).public_key()).unwrap();
    assert!(matches!(Checkpoint::verify(&cosigned, &as_log, &[witness_key(2)]), Err(CheckpointError::NotByLog { .. })));
}

#[test]
fn malformed_checkpoints_are_refused() {
    let root = TreeHash::leaf(b"a");
    for bad in [
        format!("example.com/log\n01\n{root}\n"),
        format!("example.com/log\n-1\n{root}\n"),
        format!("example.com/log\n+1\n{root}\n"),
        format!("example.com/log\n18446744073709551616\n{root}\n"),
        format!("example.com/log\n0\n{root}\n"),
        format!("example.com/log\n1\n{}\n", &root.to_string()[1..]),
        format!("example.com/log\n1\n{}\n", root.to_string().trim_end_matches('=')),
        format!("example.com/log\n1\n{root}\n\n"),
        format!("\n1\n{root}\n"),
        format!("two words\n1\n{root}\n"),
        format!("a+b\n1\n{root}\n"),
        "example.com/log\n1\n".to_owned(),
    ] {
        assert!(Checkpoint::of(&Note::new(bad.clone()).unwrap()).is_err(), "{bad:?}");
    }
    let extended = Note::new(format!("example.com/log\n1\n{root}\nanything\n")).unwrap();
    assert_eq!(Checkpoint::of(&extended).unwrap().size, 1, "lines of others after the root are read over");
    for bad in ["a\nb", "a b", "", "a\u{a0}b", "a\u{2028}b", "a+b", &"x".repeat(256)] {
        assert!(bad.parse::<KeyName>().is_err(), "{bad:?}");
    }
}

#[test]
fn origins_are_random_and_valid() {
    let (one, two) = (random_origin().unwrap(), random_origin().unwrap());
    assert_ne!(one, two);
    let note = Checkpoint::empty(one.clone()).to_note().unwrap();
    assert_eq!(Checkpoint::of(&note).unwrap(), Checkpoint::empty(one));
}

#[test]
fn keys_that_were_changed_or_are_weak_are_refused() {
    let good = log_key(1).to_string();
    assert_eq!(good.parse::<NoteKey>().unwrap(), log_key(1));
    assert!(matches!(good.replace("example", "exemple").parse::<NoteKey>(), Err(NoteKeyError::Id { .. })));
    assert!(matches!("no".parse::<NoteKey>(), Err(NoteKeyError::Malformed)));
    assert!(matches!("a+00000000+BgAA".parse::<NoteKey>(), Err(NoteKeyError::Kind { kind: 6, .. })));
    let weak = NoteKey::new(name("a"), KeyKind::Log, logline_core::PublicKey([0; 32]));
    assert!(matches!(weak, Err(NoteKeyError::Key { .. })));
}

fn row() -> SignedSpan {
    let draft = Draft::new("note").tenant("acme").owner("alice").who("user:alice").this("note.meeting");
    draft.stamp(&SystemClock, &SystemIds).seal_local(&key(7)).unwrap().into_signed()
}

#[test]
fn the_record_of_a_span_is_read_back_and_every_byte_counts() {
    let first = row();
    let next = Draft::next_version(&first).stamp(&SystemClock, &SystemIds).seal_local(&key(7)).unwrap().into_signed();
    for row in [first, next] {
        let leaf = Leaf::of(&row);
        let bytes = leaf.to_bytes();
        assert_eq!(bytes.len(), LEAF_BYTES);
        assert_eq!(
            (&bytes[1..17], &bytes[21..53], &bytes[117..]),
            (row.id.as_bytes().as_slice(), row.seal.curr_hash.0.as_slice(), row.seal.signature.0.as_slice())
        );
        assert_eq!(Entry::parse(&bytes), Ok(Entry::Span(leaf)));
        leaf.verify(&mut Verifier::new()).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_ne!(TreeHash::leaf(&changed), leaf.hash());
        }
        assert_eq!(Entry::parse(&bytes[1..]).is_err(), bytes[1] != 2);
        assert_eq!(Entry::parse(&bytes[..180]), Err(EntryError::Length { found: 180 }));
    }
    assert_eq!(Entry::parse(&[]), Err(EntryError::Length { found: 0 }));
    assert_eq!(Entry::parse(&[9, 1]), Err(EntryError::Kind { kind: 9 }));
    let continues = Entry::Continues(b"note".to_vec());
    assert_eq!(Entry::parse(&continues.to_bytes()), Ok(continues));
}

/// A proof of `row` as the second of two leaves.
fn proof(row: &SignedSpan, witnesses: &[u8]) -> LogProof {
    let (first, leaf) = (TreeHash::leaf(b"first"), Leaf::of(row).hash());
    let mut note = checkpoint(2, TreeHash::node(&first, &leaf));
    witnesses.iter().for_each(|n| cosign(&mut note, *n));
    LogProof::new(1, vec![first], note)
}

#[test]
fn a_proof_file_verifies_one_row_offline_and_no_other() {
    let row = row();
    let policy = Policy::new(vec![log_key(1)], vec![witness_key(2), witness_key(3), witness_key(4)], 2).unwrap();
    let mut made = proof(&row, &[2, 4]);
    made.extra = Some(b"for people".to_vec());
    let read = LogProof::parse(made.to_string().as_bytes()).unwrap();
    assert_eq!(read, made);
    assert_eq!(read.verify(&row, &policy).unwrap().size, 2);
    // A valid proof of another entry.
    let mut other = row.clone();
    other.seal.curr_hash = logline_core::Hash::of(b"other");
    assert!(matches!(read.verify(&other, &policy), Err(LogProofError::Proof(ProofError::Root { .. }))));
    // The root of the proof is not the root of the checkpoint.
    let mut moved = read.clone();
    moved.checkpoint = checkpoint(2, TreeHash::leaf(b"another tree"));
    [2, 4].iter().for_each(|n| cosign(&mut moved.checkpoint, *n));
    assert!(matches!(moved.verify(&row, &policy), Err(LogProofError::Proof(_))));
    let mut wrong = read.clone();
    wrong.index = 0;
    assert!(matches!(wrong.verify(&row, &policy), Err(LogProofError::Proof(_))));
    wrong.index = 2;
    assert!(matches!(wrong.verify(&row, &policy), Err(LogProofError::Proof(ProofError::OutOfTree { .. }))));
    let mut more = read;
    more.hashes.push(TreeHash::EMPTY);
    assert!(matches!(more.verify(&row, &policy), Err(LogProofError::Proof(ProofError::Length { .. }))));
}

#[test]
fn malformed_proof_files_are_refused() {
    let good = proof(&row(), &[]).to_string();
    assert!(LogProof::parse(good.as_bytes()).is_ok());
    for bad in [
        good.replace("@v1", "@v2"),
        good.replace("index 1", "index 01"),
        good.replace("index 1", "index"),
        good.replace("index 1\n", ""),
        good.replace("index 1\n", "extra !\nindex 1\n"),
        good.replace("index 1\n", "extra AAAA\nextra AAAA\nindex 1\n"),
        good.replace("index 1\n", &format!("index 1\n{}", format!("{}\n", TreeHash::EMPTY).repeat(64))),
        good.replace("index 1\n", "index 1\nAAAA\n"),
        String::new(),
    ] {
        assert!(LogProof::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn a_quorum_counts_keys_and_not_names() {
    let row = row();
    let policy = Policy::new(vec![log_key(1)], vec![witness_key(2), witness_key(3), witness_key(4)], 2).unwrap();
    for (witnesses, expected) in
        [(&[][..], false), (&[2], false), (&[2, 2], false), (&[2, 9], false), (&[2, 3], true), (&[4, 3, 2], true)]
    {
        let verdict = proof(&row, witnesses).verify(&row, &policy);
        assert_eq!(verdict.is_ok(), expected, "{witnesses:?}");
        assert!(expected || matches!(verdict, Err(LogProofError::Policy(PolicyError::Quorum { .. }))));
    }
    let again = NoteKey::new(name("another-name"), KeyKind::Witness, key(2).public_key()).unwrap();
    assert!(Policy::new(vec![log_key(1)], vec![witness_key(2), again], 1).is_err(), "one key under two names");
    assert!(Policy::new(vec![log_key(1)], vec![log_key(2)], 1).is_err(), "a log is no witness");
    assert!(Policy::new(vec![witness_key(1)], vec![], 0).is_err(), "a witness is no log");
    assert!(Policy::new(vec![log_key(1)], vec![witness_key(2)], 2).is_err());
    let unknown = Policy::of_log(NoteKey::new(name("other"), KeyKind::Log, key(1).public_key()).unwrap());
    assert!(matches!(proof(&row, &[]).verify(&row, &unknown), Err(LogProofError::Policy(PolicyError::UnknownLog { .. }))));
}

#[test]
fn policy_files_are_read_and_their_mistakes_named_by_line() {
    let (log, w2, w3, w4) = (log_key(1), witness_key(2), witness_key(3), witness_key(4));
    let text = format!(
        "# two companies\nlog {log} https://log.example/\n\nwitness X1 {w2}\n witness\tX2 {w3} https://x2.example/\ngroup X any X1 X2\nwitness Y {w4}\ngroup both all X Y\nquorum both\n"
    );
    let policy: Policy = text.parse().unwrap();
    let row = row();
    for (witnesses, expected) in [(&[2, 3][..], false), (&[4], false), (&[2, 4], true), (&[3, 4], true)] {
        assert_eq!(proof(&row, witnesses).verify(&row, &policy).is_ok(), expected, "{witnesses:?}");
    }
    for (bad, line) in [
        (format!("log {log}\n"), 0),
        (format!("log {log}\nlog {log}\nquorum none\n"), 2),
        (format!("log {w2}\nquorum none\n"), 1),
        (format!("witness a {w2}\nwitness b {w2}\nquorum a\n"), 2),
        (format!("witness a {w2}\nwitness a {w3}\nquorum a\n"), 2),
        (format!("witness none {w2}\nquorum none\n"), 1),
        (format!("witness a {w2}\ngroup g 2 a\nquorum g\n"), 2),
        (format!("witness a {w2}\ngroup g 0 a\nquorum g\n"), 2),
        (format!("witness a {w2}\ngroup g any a a\nquorum g\n"), 2),
        (format!("witness a {w2}\ngroup g any a\ngroup h any a\nquorum g\n"), 3),
        (format!("witness a {w2}\ngroup g any none\nquorum g\n"), 2),
        ("group g any\nquorum g\n".to_owned(), 1),
        ("quorum x\n".to_owned(), 1),
        ("quorum none\nquorum none\n".to_owned(), 2),
        ("quorum none\nfish\n".to_owned(), 2),
        ("quorum none\r\n".to_owned(), 0),
    ] {
        let error = bad.parse::<Policy>().unwrap_err();
        assert_eq!(error.line, line, "{bad}: {error}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in "(\\PC|\n|— |[a-z+/=]){0,200}") {
        let _ = Note::parse(text.as_bytes()).map(|note| Checkpoint::of(&note));
        let _ = LogProof::parse(text.as_bytes());
        let _ = text.parse::<Policy>();
        let _ = text.parse::<NoteKey>();
        let _ = logline_log::witness::AddCheckpoint::parse(text.as_bytes());
    }
}
