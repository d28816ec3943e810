//! Checkpoints and their cosignatures: who is asked when, and what is published without enough of them.
#![cfg(feature = "integrator")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use logline_core::{Signer as _, SystemClock};
use logline_log::note::{KeyKind, Note, NoteKey, NoteSignature};
use logline_log::witness::{AddCheckpoint, Answer, MemoryWitness, Witness, WitnessCallError, WitnessClient};
use logline_log::{Checkpoint, IntegrateError, Integrator, Policy, Step};
use setup::{TENANT, World, append, key};

/// A witness that comes to know the log by its first call, and that can be away.
#[derive(Clone)]
struct Watcher {
    n: u8,
    state: MemoryWitness,
    log: Arc<Mutex<Option<NoteKey>>>,
    is_away: Arc<AtomicBool>,
    /// So many more valid lines, with earlier and earlier times, follow the one that is asked for.
    more: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl Watcher {
    fn new(n: u8) -> Self {
        Self {
            n,
            state: MemoryWitness::default(),
            log: Arc::default(),
            is_away: Arc::default(),
            more: Arc::default(),
            calls: Arc::default(),
        }
    }

    fn key(&self) -> NoteKey {
        NoteKey::new(format!("witness.example/{}", self.n).parse().unwrap(), KeyKind::Witness, key(self.n).public_key())
            .unwrap()
    }

    fn is_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    fn flood(&self, checkpoint: &Note, mut lines: Vec<NoteSignature>) -> Vec<NoteSignature> {
        for time in 0..self.more.load(Ordering::SeqCst) {
            let mut another = Note::new(checkpoint.text()).unwrap();
            another.cosign(self.key().name(), time as u64 + 1, &key(self.n)).now_or_never().unwrap().unwrap();
            // The newest stands neither first nor last.
            lines.insert(if time % 2 == 0 { 0 } else { lines.len() }, another.signatures()[0].clone());
        }
        lines
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl WitnessClient for Watcher {
    async fn add_checkpoint(&self, call: &AddCheckpoint) -> Result<Answer, WitnessCallError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.is_away.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(10)).await;
            return Err(WitnessCallError { reason: "away".to_owned() });
        }
        let origin = Checkpoint::of(&call.checkpoint).unwrap().origin;
        let log = NoteKey::new(origin, KeyKind::Log, key(1).public_key()).unwrap();
        let log = self.log.lock().unwrap().get_or_insert(log).clone();
        let name = self.key().name().clone();
        let witness = Witness::new(name, Arc::new(key(self.n)), Arc::new(SystemClock), vec![log], self.state.clone());
        let answer = witness.add_checkpoint(call.to_string().as_bytes()).await.unwrap();
        Ok(match answer {
            Answer::Cosigned(lines) => Answer::Cosigned(self.flood(&call.checkpoint, lines)),
            other => other,
        })
    }
}

/// How many lines of each witness stand on a note.
fn lines_of(note: &Note, watchers: &[Watcher]) -> Vec<usize> {
    let count = |key: NoteKey| note.signatures().iter().filter(|line| line.id() == key.id()).count();
    watchers.iter().map(|watcher| count(watcher.key())).collect()
}

/// An integrator with these witnesses, of which so many must cosign.
fn integrator(world: &World, watchers: &[Watcher], quorum: Option<usize>) -> Integrator {
    let mut site = world.site();
    for watcher in watchers {
        site = site.witness(watcher.key(), Arc::new(watcher.clone()));
    }
    if let Some(quorum) = quorum {
        let keys = watchers.iter().map(Watcher::key).collect();
        site = site.quorum(Policy::new(Vec::new(), keys, quorum).unwrap());
    }
    Integrator::new(Arc::new(world.ledger.clone()), site, TENANT)
}

/// Size of the published checkpoint, and how many of the witnesses have cosigned it.
fn published(world: &World, watchers: &[Watcher]) -> Option<(u64, usize)> {
    let objects = world.store.objects();
    let note = Note::parse(objects.get(&format!("{}/checkpoint", world.signed().origin))?).unwrap();
    let keys: Vec<_> = watchers.iter().map(Watcher::key).collect();
    let (checkpoint, signed) = Checkpoint::verify(&note, &world.log_key(), &keys).unwrap();
    Some((checkpoint.size, signed.len() - 1))
}

async fn settle(integrator: &mut Integrator) {
    while integrator.step().await.unwrap() != Step::Idle {}
}

#[tokio::test(start_paused = true)]
async fn each_checkpoint_is_cosigned_by_all_that_answer() {
    let (world, watchers) = (World::new(50), [Watcher::new(21), Watcher::new(22)]);
    let mut log = integrator(&world, &watchers, None);
    for _ in 0..3 {
        append(&world.ledger, 70).await;
        settle(&mut log).await;
        assert_eq!(published(&world, &watchers).unwrap().1, 2);
    }
    // A process that starts again asks nobody for what is on the published checkpoint already.
    let calls = watchers[0].calls();
    settle(&mut integrator(&world, &watchers, None)).await;
    assert_eq!(watchers[0].calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_witness_that_is_away_does_not_delay_each_batch_and_cosigns_when_it_is_back() {
    let (world, watchers) = (World::new(10), [Watcher::new(21), Watcher::new(22)]);
    let mut log = integrator(&world, &watchers, None);
    settle(&mut log).await;
    watchers[1].is_away(true);
    let (started, before) = (tokio::time::Instant::now(), watchers[1].calls());
    append(&world.ledger, 500).await;
    settle(&mut log).await;
    assert_eq!(published(&world, &watchers), Some((500, 1)), "it is published without the one that is away");
    // Fifty batches, and each call of the one that is away costs ten seconds.
    assert!(watchers[1].calls() - before <= 2, "{}", watchers[1].calls());
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    watchers[1].is_away(false);
    settle(&mut log).await;
    assert_eq!(published(&world, &watchers), Some((500, 1)), "it rests");
    tokio::time::advance(Duration::from_secs(61)).await;
    settle(&mut log).await;
    assert_eq!(published(&world, &watchers), Some((500, 2)), "its cosignature is added, though there are no new rows");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_before_the_quorum() {
    let (world, watchers) = (World::new(50), [Watcher::new(21), Watcher::new(22), Watcher::new(23)]);
    let mut log = integrator(&world, &watchers, Some(2));
    append(&world.ledger, 20).await;
    settle(&mut log).await;
    assert_eq!(published(&world, &watchers), Some((20, 3)));
    watchers[0].is_away(true);
    append(&world.ledger, 20).await;
    settle(&mut log).await;
    assert_eq!(published(&world, &watchers), Some((40, 2)), "two are enough");
    watchers[1].is_away(true);
    append(&world.ledger, 20).await;
    let error = log.step().await.unwrap_err();
    assert!(matches!(error, IntegrateError::Quorum { cosigned: 1, .. }) && error.is_temporary(), "{error}");
    assert_eq!(published(&world, &watchers).unwrap().0, 40, "readers see the one before");
    assert_eq!(world.signed().size, 60);
    // The log does not grow past it, whoever tries.
    append(&world.ledger, 20).await;
    for mut log in [log, integrator(&world, &watchers, Some(2))] {
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(matches!(log.step().await, Err(IntegrateError::Quorum { .. })));
    }
    assert_eq!(world.signed().size, 60);
    watchers[1].is_away(false);
    let mut log = integrator(&world, &watchers, Some(2));
    settle(&mut log).await;
    assert_eq!(published(&world, &watchers), Some((80, 2)));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_cosignature_that_somebody_has_damaged_is_asked_for_again() {
    let (world, watchers) = (World::new(50), [Watcher::new(21)]);
    append(&world.ledger, 20).await;
    settle(&mut integrator(&world, &watchers, None)).await;
    let name = format!("{}/checkpoint", world.signed().origin);
    let mut note = Note::new(Note::parse(&world.store.objects()[&name]).unwrap().text()).unwrap();
    note.sign(&world.signed().origin, &key(1)).await.unwrap();
    // The witness's line of another checkpoint.
    let mut other = Note::new("log\n1\nother\n").unwrap();
    other.cosign(watchers[0].key().name(), 5, &key(21)).await.unwrap();
    note.push(other.signatures()[0].clone()).unwrap();
    world.store.set(&name, Some(note.to_string().into_bytes()));
    settle(&mut integrator(&world, &watchers, None)).await;
    assert_eq!(published(&world, &watchers), Some((20, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_new_log_is_a_new_log_for_its_witnesses() {
    let (world, watchers) = (World::new(50), [Watcher::new(21)]);
    append(&world.ledger, 20).await;
    let mut log = integrator(&world, &watchers, None);
    settle(&mut log).await;
    *watchers[0].log.lock().unwrap() = None;
    log.begin_again().await.unwrap();
    settle(&mut log).await;
    assert_eq!(published(&world, &watchers), Some((21, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_witness_that_answers_with_99_valid_lines_takes_no_room_from_the_others() {
    let (world, watchers) = (World::new(50), [Watcher::new(21), Watcher::new(22), Watcher::new(23)]);
    let mut log = integrator(&world, &watchers, Some(2));
    settle(&mut log).await;
    for more in [98, 99] {
        // A hundred lines are as many as an answer may have.
        watchers[0].more.store(more, Ordering::SeqCst);
        append(&world.ledger, 20).await;
        settle(&mut log).await;
        let size = world.signed().size;
        assert_eq!(published(&world, &watchers), Some((size, 3)), "{more} more lines");
        let note = Note::parse(&world.store.objects()[&format!("{}/checkpoint", world.signed().origin)]).unwrap();
        assert_eq!(lines_of(&note, &watchers), [1, 1, 1]);
        let signed = note.verify(&[watchers[0].key()]).unwrap();
        assert!(signed[0].time.unwrap() > 1_000_000, "the newest is the one that is kept, not {:?}", signed[0].time);
    }
}

#[tokio::test(start_paused = true)]
async fn a_published_checkpoint_that_one_witness_has_filled_has_room_again_for_the_others() {
    let (world, watchers) = (World::new(50), [Watcher::new(21), Watcher::new(22)]);
    watchers[1].is_away(true);
    append(&world.ledger, 20).await;
    settle(&mut integrator(&world, &watchers, None)).await;
    let name = format!("{}/checkpoint", world.signed().origin);
    let mut full = Note::parse(&world.store.objects()[&name]).unwrap();
    watchers[0].more.store(98, Ordering::SeqCst);
    for line in watchers[0].flood(&full, Vec::new()) {
        full.push(line).unwrap();
    }
    assert_eq!(full.signatures().len(), 100);
    world.store.set(&name, Some(full.to_string().into_bytes()));
    watchers[1].is_away(false);
    settle(&mut integrator(&world, &watchers, None)).await;
    assert_eq!(published(&world, &watchers), Some((20, 2)));
    let note = Note::parse(&world.store.objects()[&name]).unwrap();
    assert_eq!((lines_of(&note, &watchers), note.signatures().len()), (vec![1, 1], 3));
}
