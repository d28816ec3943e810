//! Checked against code that is not ours: the crate `ct-merkle`, and vectors that another implementation has made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof};
use futures_util::FutureExt as _;
use logline_core::{KeyPair, ParsedSpan, Rules, SignedSpan, Verifier, parse_line};
use logline_log::note::{MAX_NOTE, Note, NoteKey};
use logline_log::tree::{Frontier, NodeId, ProofPlan, verify_consistency, verify_inclusion};
use logline_log::{Checkpoint, Leaf, LogProof, Policy, TreeHash};
use serde_json::Value;
use sha2::Sha256;

fn bytes(proof: &[TreeHash]) -> Vec<u8> {
    proof.iter().flat_map(|hash| hash.0).collect()
}

fn hashes(bytes: &[u8]) -> Vec<TreeHash> {
    bytes.as_chunks::<32>().0.iter().map(|hash| TreeHash(*hash)).collect()
}

#[test]
fn roots_and_proofs_are_those_of_another_implementation_and_each_verifies_the_others() {
    let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let (mut ours, mut leaves, mut old) = (Frontier::new(), Vec::new(), Vec::new());
    for n in 0..150_u64 {
        let entry = format!("entry {n}").into_bytes();
        ours.push(TreeHash::leaf(&entry));
        leaves.push(TreeHash::leaf(&entry));
        theirs.push(entry);
        let (size, root) = (n + 1, theirs.root());
        assert_eq!(ours.root().0.as_slice(), root.as_bytes().as_slice(), "{size} leaves");
        let node = |node: NodeId| {
            let first = usize::try_from(node.index << node.level).unwrap();
            let mut tree = Frontier::new();
            leaves[first..first + (1 << node.level)].iter().for_each(|leaf| tree.push(*leaf));
            Ok::<_, ()>(tree.root())
        };
        for index in [0, n / 3, n / 2, n] {
            let at = usize::try_from(index).unwrap();
            let proof = ProofPlan::inclusion(index, size).unwrap().build(node).unwrap();
            let other = theirs.prove_inclusion(at);
            assert_eq!(bytes(&proof), other.as_bytes(), "leaf {index} of {size}");
            root.verify_inclusion(&theirs.get(at).unwrap(), index, &InclusionProof::try_from_bytes(bytes(&proof)).unwrap())
                .unwrap();
            verify_inclusion(leaves[at], index, size, ours.root(), &hashes(other.as_bytes())).unwrap();
        }
        old.push((size, ours.root(), root));
        for (old_size, old_root, their_root) in &old {
            let proof = ProofPlan::consistency(*old_size, size).unwrap().build(node).unwrap();
            let other = theirs.prove_consistency(usize::try_from(size - old_size).unwrap());
            assert_eq!(bytes(&proof), other.as_bytes(), "{old_size} to {size}");
            let again = ConsistencyProof::try_from_bytes(bytes(&proof)).unwrap();
            theirs.root().verify_consistency(their_root, &again).unwrap();
            verify_consistency((*old_size, *old_root), (size, ours.root()), &hashes(other.as_bytes())).unwrap();
        }
    }
}

fn vector() -> Value {
    serde_json::from_str(include_str!("../../docs/vectors/log.json")).unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn rows(vector: &Value) -> Vec<SignedSpan> {
    let row = |leaf: &Value| match parse_line(text(leaf, "line").as_bytes(), &Rules::default()).unwrap() {
        ParsedSpan::Signed(row) => *row,
        other => panic!("{other:?}"),
    };
    vector["leaves"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn the_vectors_of_the_python_implementation_verify() {
    let vector = vector();
    let (log, witness): (NoteKey, NoteKey) =
        (text(&vector, "log_key").parse().unwrap(), text(&vector, "witness_key").parse().unwrap());
    let policy = Policy::new(vec![log], vec![witness], 1).unwrap();
    let rows = rows(&vector);
    for (row, leaf) in rows.iter().zip(vector["leaves"].as_array().unwrap()) {
        row.check(&mut Verifier::new()).unwrap();
        let record: String = Leaf::of(row).to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(record, text(leaf, "record"));
        assert_eq!(Leaf::of(row).hash().to_string(), text(leaf, "hash"));
    }
    let proof = LogProof::parse(text(&vector, "proof").as_bytes()).unwrap();
    let index = vector["index"].as_u64().unwrap();
    assert_eq!(proof.index, index);
    assert_eq!(proof.to_string(), text(&vector, "proof"));
    let proven = proof.verify(&rows[usize::try_from(index).unwrap()], &policy).unwrap();
    assert_eq!(proven.size, rows.len() as u64);
    for (at, row) in rows.iter().enumerate().filter(|(at, _)| *at as u64 != index) {
        assert!(proof.verify(row, &policy).is_err(), "a valid proof of another entry, {at}");
    }
}

#[test]
fn this_implementation_signs_the_same_bytes() {
    let vector = vector();
    let mut tree = Frontier::new();
    rows(&vector).iter().for_each(|row| tree.push(Leaf::of(row).hash()));
    let log: NoteKey = text(&vector, "log_key").parse().unwrap();
    let witness: NoteKey = text(&vector, "witness_key").parse().unwrap();
    let key = |name: &str| KeyPair::from_seed(&text(&vector, name).parse::<logline_core::Hash>().unwrap().0);
    let checkpoint = Checkpoint { origin: log.name().clone(), size: tree.size(), root: tree.root() };
    let mut note = checkpoint.to_note().unwrap();
    note.sign(log.name(), &key("log_seed")).now_or_never().unwrap().unwrap();
    note.cosign(witness.name(), vector["time"].as_u64().unwrap(), &key("witness_seed")).now_or_never().unwrap().unwrap();
    assert_eq!(note.to_string(), text(&vector, "checkpoint"));
    assert_eq!(Note::parse(text(&vector, "checkpoint").as_bytes()).unwrap(), note);
}

#[test]
fn every_bound_of_a_checkpoint_is_where_the_vectors_have_it() {
    let (keys, vectors) = (vector(), include_str!("../../docs/vectors/checkpoints.json"));
    let key = |name: &str| text(&keys, name).parse::<NoteKey>().unwrap();
    let policy = Policy::new(vec![key("log_key")], vec![key("witness_key")], 1).unwrap();
    let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
    let is_accepted = |note: &str| Note::parse(note.as_bytes()).is_ok_and(|note| policy.verify(&note).is_ok());
    for vector in &vectors {
        assert_eq!(vector["is_accepted"], is_accepted(text(vector, "note")), "{}", text(vector, "name"));
    }
    assert!(vectors.len() > 40);
    // Base64 comes in fours, so the name takes what is left of them.
    let good = text(&keys, "checkpoint");
    let left = MAX_NOTE - good.len() - "— other \n".len();
    let line = format!("— other{} {}\n", "x".repeat(left % 4), "A".repeat(left / 4 * 4));
    assert_eq!(good.len() + line.len(), MAX_NOTE);
    assert!(is_accepted(&format!("{good}{line}")));
    assert!(!is_accepted(&format!("{good}{}", line.replace("other", "others"))));
}
