//! Witnesses: the rules of the protocol, status by status, and a log that tries to show two histories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use logline_core::{KeyPair, ManualClock, Signer as _, Timestamp};
use logline_log::note::{KeyKind, KeyName, Note, NoteKey};
use logline_log::tree::{NodeId, ProofPlan};
use logline_log::witness::{
    AddCheckpoint, Answer, ConsistencyProver, CosignError, MAX_PROOF_LINES, MemoryWitness, SIZE_CONTENT_TYPE, Witness,
    WitnessCallError, WitnessClient, cosign,
};
use logline_log::{Checkpoint, TreeHash};

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing waits here")
}

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

/// A log of numbered leaves; `fork` makes the leaves after the third others.
struct Log {
    fork: bool,
}

impl Log {
    fn leaf(&self, n: u64) -> TreeHash {
        TreeHash::leaf(format!("{n}{}", if self.fork && n >= 3 { "forked" } else { "" }).as_bytes())
    }

    fn node(&self, node: NodeId) -> TreeHash {
        if node.level == 0 {
            return self.leaf(node.index);
        }
        let child = |side| self.node(NodeId { level: node.level - 1, index: node.index * 2 + side });
        TreeHash::node(&child(0), &child(1))
    }

    fn prove(&self, old: u64, new: u64) -> Vec<TreeHash> {
        ProofPlan::consistency(old, new).unwrap().build(|node| Ok::<_, ()>(self.node(node))).unwrap()
    }

    fn checkpoint(&self, size: u64) -> Note {
        let mut frontier = logline_log::tree::Frontier::new();
        (0..size).for_each(|n| frontier.push(self.leaf(n)));
        signed(Checkpoint { origin: name("log"), size, root: frontier.root() }, 1)
    }

    fn call(&self, old: u64, new: u64) -> AddCheckpoint {
        AddCheckpoint { old_size: old, proof: self.prove(old, new), checkpoint: self.checkpoint(new) }
    }
}

#[async_trait]
impl ConsistencyProver for Log {
    async fn prove(&self, old: u64, new: u64) -> Result<Vec<TreeHash>, String> {
        Ok(Log::prove(self, old, new))
    }
}

fn signed(checkpoint: Checkpoint, n: u8) -> Note {
    let mut note = checkpoint.to_note().unwrap();
    now(note.sign(&checkpoint.origin, &key(n))).unwrap();
    note
}

fn witness(state: MemoryWitness) -> Witness<MemoryWitness> {
    let log = NoteKey::new(name("log"), KeyKind::Log, key(1).public_key()).unwrap();
    let clock = ManualClock::new(Timestamp::from_unix_micros(1_700_000_000_500_000).unwrap());
    Witness::new(name("witness"), Arc::new(key(2)), Arc::new(clock), vec![log], state)
}

fn ask(witness: &Witness<MemoryWitness>, call: &AddCheckpoint) -> Answer {
    let answer = now(witness.add_checkpoint(call.to_string().as_bytes())).unwrap();
    let again = Answer::parse(answer.status(), Some(answer.content_type()), answer.body().as_bytes()).unwrap();
    assert_eq!(again, answer, "an answer is read as it was written");
    answer
}

const LOG: Log = Log { fork: false };

#[test]
fn a_log_that_grows_is_cosigned_step_by_step() {
    let witness = witness(MemoryWitness::default());
    for (old, new) in [(0, 0), (0, 3), (3, 3), (3, 10), (10, 700)] {
        let call = LOG.call(old, new);
        let Answer::Cosigned(lines) = ask(&witness, &call) else { panic!("{old} to {new}") };
        let mut note = call.checkpoint;
        lines.into_iter().for_each(|line| note.push(line).unwrap());
        let log = NoteKey::new(name("log"), KeyKind::Log, key(1).public_key()).unwrap();
        let (_, signed) = Checkpoint::verify(&note, &log, &[witness.key().unwrap()]).unwrap();
        assert_eq!(signed[1].time, Some(1_700_000_000));
    }
}

#[test]
fn each_rule_has_its_status() {
    let state = MemoryWitness::default();
    let witness = witness(state.clone());
    assert_eq!(ask(&witness, &LOG.call(0, 5)).status(), 200);
    let with = |change: &dyn Fn(&mut AddCheckpoint)| {
        let mut call = LOG.call(5, 9);
        change(&mut call);
        ask(&witness, &call).status()
    };
    let (origin, root) = (name("log"), TreeHash::leaf(b"x"));
    assert_eq!(with(&|call| call.old_size = 10), 400, "the old size is larger than the checkpoint's");
    assert_eq!(with(&|call| call.proof = vec![TreeHash::EMPTY; MAX_PROOF_LINES + 1]), 400, "more than 63 lines");
    let unknown = name("unknown");
    assert_eq!(with(&|call| call.checkpoint = signed(Checkpoint { origin: unknown.clone(), size: 9, root }, 1)), 404);
    assert_eq!(with(&|call| call.checkpoint = signed(Checkpoint { origin: origin.clone(), size: 9, root }, 9)), 403);
    assert_eq!(
        with(&|call| {
            let other = LOG.checkpoint(8).signatures()[0].clone();
            call.checkpoint.push(other).unwrap();
        }),
        403,
        "a second line of the log's key that is not valid"
    );
    assert_eq!(with(&|call| call.old_size = 4), 409);
    assert_eq!(with(&|call| call.proof.clear()), 422);
    assert_eq!(with(&|call| call.proof.push(TreeHash::EMPTY)), 422);
    assert_eq!(with(&|call| call.checkpoint = signed(Checkpoint { origin: origin.clone(), size: 9, root }, 1)), 422);
    let same = AddCheckpoint {
        old_size: 5,
        proof: vec![],
        checkpoint: signed(Checkpoint { origin: origin.clone(), size: 5, root }, 1),
    };
    assert_eq!(ask(&witness, &same).status(), 422, "the same size with another root");
    let empty = signed(Checkpoint { origin: origin.clone(), size: 0, root }, 1);
    assert_eq!(
        ask(&witness, &AddCheckpoint { old_size: 0, proof: vec![], checkpoint: empty }).status(),
        422,
        "no leaves and a root"
    );
    let proof = AddCheckpoint { old_size: 0, proof: vec![root], checkpoint: LOG.checkpoint(5) };
    assert_eq!(ask(&self::witness(MemoryWitness::default()), &proof).status(), 422, "a proof from the empty tree");
    for body in ["", "old 5\n", "old 05\n\n", "new 5\n\nx\n"] {
        assert_eq!(now(witness.add_checkpoint(body.as_bytes())).unwrap().status(), 400, "{body:?}");
    }
    // None of these refusals moved it.
    assert_eq!(ask(&witness, &LOG.call(5, 9)).status(), 200);
    assert_eq!(ask(&witness, &LOG.call(5, 9)), Answer::Conflict { size: 9 });
}

#[test]
fn a_log_with_two_histories_gets_cosignatures_for_one() {
    let (witness, fork) = (witness(MemoryWitness::default()), Log { fork: true });
    assert_eq!(ask(&witness, &LOG.call(0, 3)).status(), 200);
    assert_eq!(ask(&witness, &LOG.call(3, 6)).status(), 200);
    for call in [fork.call(6, 8), fork.call(6, 6), AddCheckpoint { old_size: 6, ..fork.call(3, 8) }] {
        assert_eq!(ask(&witness, &call).status(), 422);
    }
    assert_eq!(ask(&witness, &fork.call(3, 6)), Answer::Conflict { size: 6 }, "and it cannot be taken back");
}

struct Direct {
    witness: Witness<MemoryWitness>,
}

#[async_trait]
impl WitnessClient for Direct {
    async fn add_checkpoint(&self, call: &AddCheckpoint) -> Result<Answer, WitnessCallError> {
        Ok(self.witness.add_checkpoint(call.to_string().as_bytes()).await.unwrap())
    }
}

#[test]
fn a_witness_that_is_behind_or_ahead_of_what_is_believed_is_asked_again() {
    for seen in [0, 2, 5, 9] {
        let client = Direct { witness: witness(MemoryWitness::default()) };
        if seen > 0 {
            assert_eq!(ask(&client.witness, &LOG.call(0, seen)).status(), 200);
        }
        for believed in [0, 1, 5, 9, 100] {
            let mut note = LOG.checkpoint(9);
            let key = client.witness.key().unwrap();
            let size = now(cosign(&client, &key, believed, &mut note, &LOG));
            assert_eq!(size.unwrap(), 9, "it has seen {seen}, believed are {believed}");
            assert_eq!(note.signatures().len(), 2);
        }
        let mut note = LOG.checkpoint(8);
        let key = client.witness.key().unwrap();
        let ahead = now(cosign(&client, &key, 8, &mut note, &LOG));
        assert!(matches!(ahead, Err(CosignError::Ahead { size: 9, own: 8 })), "the log was set back");
    }
}

#[test]
fn an_answer_without_a_valid_signature_of_the_witness_is_refused() {
    struct Liar;
    #[async_trait]
    impl WitnessClient for Liar {
        async fn add_checkpoint(&self, _: &AddCheckpoint) -> Result<Answer, WitnessCallError> {
            let mut note = LOG.checkpoint(9);
            note.cosign(&name("witness"), 5, &key(3)).await.unwrap();
            Ok(Answer::Cosigned(note.signatures().to_vec()))
        }
    }
    let key = NoteKey::new(name("witness"), KeyKind::Witness, key(2).public_key()).unwrap();
    let mut note = LOG.checkpoint(9);
    let refused = now(cosign(&Liar, &key, 0, &mut note, &LOG));
    assert!(matches!(refused, Err(CosignError::Signature(_))));
    assert_eq!(note.signatures().len(), 1, "nothing was added");
}

#[test]
fn answers_that_the_protocol_does_not_have_are_refused() {
    assert!(Answer::parse(200, None, b"").is_err());
    assert!(Answer::parse(500, None, b"").is_err());
    assert!(Answer::parse(302, None, b"").is_err());
    assert!(Answer::parse(409, None, b"5\n").is_err(), "without its content type");
    assert!(Answer::parse(409, Some(SIZE_CONTENT_TYPE), b"05\n").is_err());
    assert_eq!(Answer::parse(409, Some(SIZE_CONTENT_TYPE), b"5\n").unwrap(), Answer::Conflict { size: 5 });
}
