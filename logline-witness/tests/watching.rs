//! Attacks on a witness, over real sockets: whatever a log, a stranger or a crash does, it never cosigns two histories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use logline_core::{KeyPair, PublicKey, SignError, Signature, Signer};
use logline_log::TreeHash;
use logline_log::note::{KeyName, NoteKey};
use logline_log::witness::{AddCheckpoint, CosignError, Seen, StoredWitness, WitnessError, WitnessState, cosign};
use logline_log::{Checkpoint, Policy};
use logline_witness::{HttpWitness, ServeOptions, StateError, begin_state, open_state};
use setup::{FORK, LOG, Serving, ask, key, log_key, name, parts, post, raw, serving, serving_with, signed, state, witness_key};
use tokio::sync::Barrier;

async fn cosigned(serving: &Serving, known: u64, size: u64) -> Result<u64, CosignError> {
    let mut note = LOG.checkpoint(size);
    let done = cosign(&HttpWitness::new(&serving.url).unwrap(), &witness_key(), known, &mut note, &LOG).await;
    if done.is_ok() {
        Policy::new(vec![log_key()], vec![witness_key()], 1).unwrap().verify(&note).unwrap();
    }
    done
}

#[tokio::test]
async fn a_log_that_grows_is_cosigned_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let serving = serving(state(folder.path())).await;
    for (known, size) in [(0, 0), (0, 3), (3, 3), (3, 10), (10, 700)] {
        assert_eq!(cosigned(&serving, known, size).await.unwrap(), size);
    }
}

#[tokio::test]
async fn each_status_of_the_protocol_goes_over_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let serving = serving(state(folder.path())).await;
    let (status, content_type, body) = ask(&serving, &LOG.call(0, 5)).await;
    assert_eq!((status, content_type.as_str()), (200, "text/plain; charset=utf-8"));
    assert!(body.starts_with("— witness.example/w ") && body.ends_with('\n'), "{body}");
    let root = TreeHash::leaf(b"x");
    let other = |origin: &str, size, root| signed(Checkpoint { origin: name(origin), size, root });
    let with = |old_size, proof, checkpoint| AddCheckpoint { old_size, proof, checkpoint };
    let cases = [
        (400, with(9, vec![], LOG.checkpoint(5)), "the old size is larger"),
        (400, with(5, vec![root; 64], LOG.checkpoint(9)), "64 lines of proof"),
        (404, with(5, vec![], other("elsewhere", 9, root)), "a log that is not watched"),
        (409, LOG.call(4, 9), "an old size that is not the last one"),
        (422, with(5, vec![root], LOG.checkpoint(9)), "a proof of another tree"),
        (422, with(5, LOG.proof(4, 9), LOG.checkpoint(9)), "a proof between other sizes"),
        (422, with(5, vec![], other("log", 5, root)), "the same size with another root"),
        (422, with(0, vec![], other("log", 0, root)), "an empty tree with a root"),
        (422, with(5, FORK.proof(5, 9), FORK.checkpoint(9)), "another history"),
    ];
    for (expected, call, what) in cases {
        let (status, content_type, body) = ask(&serving, &call).await;
        assert_eq!(status, expected, "{what}");
        if expected == 409 {
            assert_eq!((content_type.as_str(), body.as_str()), ("text/x.tlog.size", "5\n"));
        }
    }
    let mut forged = LOG.call(5, 9);
    forged.checkpoint = Checkpoint::of(&forged.checkpoint).unwrap().to_note().unwrap();
    forged.checkpoint.sign(&name("log"), &key(9)).await.unwrap();
    assert_eq!(ask(&serving, &forged).await.0, 403, "signed by a stranger under the log's name");
    for (request, expected) in [
        (post("old 5\n"), 400),
        (b"GET /add-checkpoint HTTP/1.1\r\nhost: w\r\n\r\n".to_vec(), 405),
        (b"POST /add-checkpoints HTTP/1.1\r\nhost: w\r\ncontent-length: 0\r\n\r\n".to_vec(), 404),
    ] {
        assert_eq!(parts(&raw(serving.address, &request).await).0, expected);
    }
    assert_eq!(cosigned(&serving, 5, 9).await.unwrap(), 9, "none of these moved it");
}

#[tokio::test]
async fn a_fork_is_cosigned_on_one_side_only_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    {
        let serving = serving(state(folder.path())).await;
        assert_eq!(cosigned(&serving, 0, 3).await.unwrap(), 3, "both histories have these");
        assert_eq!(cosigned(&serving, 3, 6).await.unwrap(), 6);
        assert_eq!(ask(&serving, &FORK.call(3, 8)).await.0, 409);
    }
    let serving = serving(open_state(folder.path(), &witness_key()).unwrap()).await;
    let mut fork = FORK.checkpoint(8);
    let refused = cosign(&HttpWitness::new(&serving.url).unwrap(), &witness_key(), 3, &mut fork, &FORK).await;
    assert!(matches!(refused, Err(CosignError::Refused { status: 422 })), "{refused:?}");
    for call in [FORK.call(6, 8), FORK.call(6, 6)] {
        assert_eq!(ask(&serving, &call).await.0, 422);
    }
    // A log that was rolled back is told so.
    let rolled_back = cosigned(&serving, 3, 4).await;
    assert!(matches!(rolled_back, Err(CosignError::Ahead { size: 6, own: 4 })), "{rolled_back:?}");
}

#[tokio::test]
async fn a_witness_behind_or_ahead_of_our_hint_is_asked_again() {
    for seen in [0, 2, 5, 9] {
        let folder = tempfile::tempdir().unwrap();
        let serving = serving(state(folder.path())).await;
        if seen > 0 {
            cosigned(&serving, 0, seen).await.unwrap();
        }
        for hint in [0, 1, 5, 9, 100] {
            assert_eq!(cosigned(&serving, hint, 9).await.unwrap(), 9, "it has seen {seen}, the hint is {hint}");
        }
    }
}

/// Lets calls compare at the same moment.
struct Racing {
    state: StoredWitness,
    barrier: Barrier,
}

#[async_trait]
impl WitnessState for Racing {
    async fn last(&self, origin: &KeyName) -> Result<Option<Seen>, WitnessError> {
        self.state.last(origin).await
    }

    async fn advance(&self, origin: &KeyName, old_size: u64, next: &Seen) -> Result<bool, WitnessError> {
        self.barrier.wait().await;
        self.state.advance(origin, old_size, next).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_histories_submitted_at_once_one_is_cosigned() {
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let begun = state(folder.path());
        let first = serving(begun.clone()).await;
        cosigned(&first, 0, 3).await.unwrap();
        let racing = Racing { state: begun, barrier: Barrier::new(2) };
        let serving = serving_with(racing, Arc::new(key(2)), ServeOptions::default()).await;
        let (one, two) = (LOG.call(3, 6), FORK.call(3, 6));
        let (one, two) = tokio::join!(ask(&serving, &one), ask(&serving, &two));
        let mut statuses = [one.0, two.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
        let lost = if one.0 == 409 { one } else { two };
        assert_eq!(lost.2, "6\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_on_one_state_one_cosigns() {
    let folder = tempfile::tempdir().unwrap();
    let one = serving(state(folder.path())).await;
    let two = serving(open_state(folder.path(), &witness_key()).unwrap()).await;
    cosigned(&one, 0, 3).await.unwrap();
    let (ours, fork) = (LOG.call(3, 6), FORK.call(3, 6));
    let (a, b) = tokio::join!(ask(&one, &ours), ask(&two, &fork));
    assert_eq!([a.0, b.0].iter().filter(|status| **status == 200).count(), 1, "{a:?} {b:?}");
}

/// A key that is away at first, as in a process that dies between the state and the signature.
struct Away {
    key: KeyPair,
    is_away: AtomicBool,
}

#[async_trait]
impl Signer for Away {
    fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    async fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        if self.is_away.swap(false, Ordering::SeqCst) {
            return Err(SignError { public_key: self.public_key(), reason: "away".to_owned(), retryable: true });
        }
        self.key.sign(message).await
    }

    fn local(&self) -> Option<&KeyPair> {
        None
    }
}

#[tokio::test]
async fn a_crash_between_state_and_answer_costs_one_more_call_and_no_history() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Arc::new(Away { key: key(2), is_away: AtomicBool::new(true) });
    let serving = serving_with(state(folder.path()), signer, ServeOptions::default()).await;
    assert_eq!(ask(&serving, &LOG.call(0, 5)).await.0, 500, "the state is stored, the signature is not made");
    assert_eq!(ask(&serving, &FORK.call(0, 5)).await.0, 409, "another history has no second chance");
    assert_eq!(ask(&serving, &FORK.call(5, 5)).await.0, 422);
    assert_eq!(cosigned(&serving, 0, 5).await.unwrap(), 5, "the log that asks again gets its signature");
}

#[tokio::test]
async fn a_state_that_cannot_be_written_cosigns_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let serving = serving(state(folder.path())).await;
    cosigned(&serving, 0, 3).await.unwrap();
    let record = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut record = record.filter(|path| path.file_name().unwrap().len() == 64);
    let record = record.next().unwrap();
    let good = std::fs::read(&record).unwrap();
    for bad in [&b""[..], &good[..good.len() - 9], b"old"] {
        std::fs::write(&record, bad).unwrap();
        for call in [LOG.call(3, 6), LOG.call(0, 6), FORK.call(0, 6)] {
            assert_eq!(ask(&serving, &call).await.0, 500, "a damaged record is no empty one");
        }
    }
    std::fs::write(&record, good).unwrap();
    assert_eq!(cosigned(&serving, 3, 6).await.unwrap(), 6);
}

#[test]
fn a_folder_without_state_or_with_that_of_another_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("state");
    assert!(matches!(open_state(&at, &witness_key()), Err(StateError::Missing { .. })), "a disk that is not mounted");
    begin_state(&at, &witness_key()).unwrap();
    assert!(matches!(begin_state(&at, &witness_key()), Err(StateError::Exists { .. })));
    open_state(&at, &witness_key()).unwrap();
    let other = NoteKey::new(name("witness.example/w"), witness_key().kind(), key(3).public_key()).unwrap();
    assert!(matches!(open_state(&at, &other), Err(StateError::Other { .. })));
}
