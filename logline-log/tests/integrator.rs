//! The integrator under faults: it may die at every write, two may run, disks fill up, tiles are replaced, databases are restored. Never are
//! two checkpoints signed that contradict each other.
#![cfg(feature = "integrator")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::Arc;

use logline_core::ledger::{AppendOptions, Ledger as _};
use logline_core::{Draft, MemoryLedger, Scope, SystemClock, SystemIds};
use logline_log::note::Note;
use logline_log::store::{Directory, LockStore as _, StoreError, TileStore as _};
use logline_log::{Checkpoint, Entry, IntegrateError, Integrator, Leaf, LeafIndex, LogSite, Step, prove};
use setup::{Fault, World, append, key, note, rows};

async fn grown(batch: usize, count: usize) -> World {
    let world = World::new(batch);
    append(&world.ledger, count).await;
    world.settle().await;
    world
}

#[tokio::test]
async fn every_row_is_entered_once_in_its_order() {
    let world = World::new(100);
    assert!(matches!(world.integrator().step().await.unwrap(), Step::Begun(Checkpoint { size: 0, .. })));
    assert_eq!(world.integrator().step().await.unwrap(), Step::Idle, "a log without leaves is published too");
    assert_eq!(world.published().unwrap().0.size, 0);
    let mut integrator = world.integrator();
    for count in [1, 99, 100, 101, 255, 256, 400] {
        append(&world.ledger, count).await;
        while integrator.step().await.unwrap() != Step::Idle {}
        world.check().await;
        assert_eq!(world.published().unwrap().0.size, rows(&world.ledger).await.len() as u64);
    }
    let left: Vec<_> = world.store.objects().into_keys().filter(|name| name.starts_with("staging/")).collect();
    assert!(left.is_empty(), "nothing stays staged: {left:?}");
}

#[tokio::test]
async fn a_process_that_dies_at_any_write_is_followed_by_one_that_goes_on() {
    // How many writes there are, from the first to the second batch.
    let world = World::new(300);
    append(&world.ledger, 250).await;
    world.settle().await;
    append(&world.ledger, 20).await;
    world.settle().await;
    let writes = world.store.writes();
    assert!(writes > 20, "{writes}");
    for fault in [Fault::Before, Fault::After] {
        for at in 0..writes {
            let world = World::new(300);
            world.store.fail(at, fault);
            let mut has_died = false;
            for count in [250, 20] {
                append(&world.ledger, count).await;
                // A process lives until its first error.
                let mut integrator = world.integrator();
                loop {
                    match integrator.step().await {
                        Ok(Step::Idle) => break,
                        Ok(_) => {}
                        Err(error) => {
                            assert!(error.is_temporary(), "{error}");
                            assert!(!std::mem::replace(&mut has_died, true));
                            integrator = world.integrator();
                        }
                    }
                    if world.store.objects().contains_key(&World::lock_name()) {
                        world.check().await;
                    }
                }
            }
            assert!(has_died, "write {at}");
            world.check().await;
            let (checkpoint, entries) = world.published().unwrap();
            assert_eq!((checkpoint.size, entries.len()), (270, 270), "write {at}, {fault:?}");
        }
    }
}

#[tokio::test]
async fn the_same_integrator_goes_on_after_a_failed_write() {
    for at in 0..30 {
        let world = World::new(300);
        append(&world.ledger, 260).await;
        world.store.fail(at, Fault::After);
        let mut integrator = world.integrator();
        for _ in 0..10 {
            let _ = integrator.step().await;
        }
        world.check().await;
        assert_eq!(world.published().unwrap().0.size, 260);
    }
}

#[tokio::test]
async fn of_two_integrators_one_signs_at_a_time() {
    let world = World::new(7);
    append(&world.ledger, 300).await;
    let run = |mut integrator: Integrator| async move {
        let (mut lost, mut entered) = (0, 0);
        loop {
            match integrator.step().await.unwrap() {
                Step::Idle => return (lost, entered),
                Step::Lost => lost += 1,
                Step::Integrated { spans, .. } => entered += spans,
                _ => {}
            }
        }
    };
    let (one, two, three) = tokio::join!(run(world.integrator()), run(world.integrator()), run(world.integrator()));
    assert_eq!(one.1 + two.1 + three.1, 300, "each span was entered by one of them");
    assert!(one.0 + two.0 + three.0 > 0, "they did meet");
    world.check().await;
    assert_eq!(world.published().unwrap().0.size, 300);
}

#[tokio::test]
async fn a_full_disk_stops_the_log_and_room_lets_it_go_on() {
    let world = grown(50, 120).await;
    let before = world.store.objects();
    append(&world.ledger, 10).await;
    world.store.is_full(true);
    let mut integrator = world.integrator();
    for _ in 0..3 {
        let error = integrator.step().await.unwrap_err();
        assert!(error.is_temporary() && error.to_string().contains("no space left"), "{error}");
    }
    assert_eq!(world.store.objects(), before);
    world.store.is_full(false);
    assert!(matches!(integrator.step().await.unwrap(), Step::Integrated { spans: 10, .. }));
    world.check().await;
}

#[tokio::test]
async fn a_flipped_bit_is_noticed_before_anything_is_signed() {
    let world = grown(50, 120).await;
    append(&world.ledger, 10).await;
    for part in ["staging/", "entries"] {
        let signed = world.signer.signed.lock().unwrap().len();
        world.store.flip(Some(part));
        let error = world.integrator().step().await.unwrap_err();
        assert!(matches!(error, IntegrateError::Rehash { .. } | IntegrateError::Tiles(_)), "{error}");
        assert_eq!(world.signer.signed.lock().unwrap().len(), signed, "nothing was signed");
    }
    world.store.flip(None);
    world.settle().await;
    world.check().await;
}

#[tokio::test]
async fn a_tile_that_was_truncated_replaced_or_deleted_is_noticed_before_the_log_grows() {
    let world = grown(100, 300).await;
    append(&world.ledger, 10).await;
    let origin = world.signed().origin;
    for tile in ["tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/001.p/44"] {
        let name = format!("{origin}/{tile}");
        let good = world.store.objects()[&name].clone();
        let mut flipped = good.clone();
        flipped[5] ^= 1;
        for bad in [Some(good[..good.len() - 1].to_vec()), Some(flipped), None] {
            world.store.set(&name, bad);
            let error = world.integrator().step().await.unwrap_err();
            assert!(matches!(error, IntegrateError::Tiles(_)) && !error.is_temporary(), "{tile}: {error}");
        }
        world.store.set(&name, Some(good));
    }
    assert_eq!(world.signed().size, 300);
    world.settle().await;
    world.check().await;
}

/// A ledger with the first rows of another one, as a copy of yesterday has.
async fn yesterday(ledger: &MemoryLedger, count: usize) -> MemoryLedger {
    let restored = MemoryLedger::new();
    for row in rows(ledger).await.into_iter().take(count) {
        let row = row.verify(&mut logline_core::Verifier::new()).unwrap();
        restored.append(&Scope::Operator, vec![row], &AppendOptions::default()).await.unwrap();
    }
    restored
}

#[tokio::test]
async fn a_database_restored_from_yesterday_is_refused_and_a_new_log_names_the_old_one() {
    let mut world = grown(100, 130).await;
    let last = world.signed();
    world.ledger = yesterday(&world.ledger, 60).await;
    for more in [0, 30, 200] {
        // Also when it has grown again, past the size of the log.
        append(&world.ledger, more).await;
        let error = world.integrator().step().await.unwrap_err();
        assert!(matches!(error, IntegrateError::Restored { .. }) && !error.is_temporary(), "{error}");
        assert!(error.to_string().contains("begin a new log"), "{error}");
        assert_eq!(world.signed(), last, "nothing was signed");
    }
    let mut integrator = world.integrator();
    assert!(matches!(integrator.begin_again().await.unwrap(), Step::Begun(Checkpoint { size: 1, .. })));
    while integrator.step().await.unwrap() != Step::Idle {}
    let (checkpoint, entries) = world.published().unwrap();
    assert_ne!(checkpoint.origin, last.origin);
    assert_eq!(checkpoint.size, 291);
    let Entry::Continues(old) = &entries[0] else { panic!("{:?}", entries[0]) };
    assert_eq!(Checkpoint::of(&Note::parse(old).unwrap()).unwrap(), last);
}

#[tokio::test]
async fn a_ledger_with_all_rows_again_in_another_order_is_refused() {
    let mut world = grown(100, 40).await;
    let restored = MemoryLedger::new();
    let stranger = note(0).tenant("globex").stamp(&SystemClock, &SystemIds).seal_local(&key(7)).unwrap();
    restored.append(&Scope::Operator, vec![stranger], &AppendOptions::default()).await.unwrap();
    for row in rows(&world.ledger).await {
        let row = row.verify(&mut logline_core::Verifier::new()).unwrap();
        restored.append(&Scope::Operator, vec![row], &AppendOptions::default()).await.unwrap();
    }
    world.ledger = restored;
    assert!(matches!(world.integrator().step().await, Err(IntegrateError::Restored { .. })), "the positions are others");
}

#[tokio::test]
async fn a_lock_store_that_was_set_back_is_refused() {
    let world = grown(100, 40).await;
    let old = world.store.objects()[&World::lock_name()].clone();
    append(&world.ledger, 10).await;
    world.settle().await;
    world.store.set(&World::lock_name(), Some(old));
    append(&world.ledger, 10).await;
    let error = world.integrator().step().await.unwrap_err();
    assert!(matches!(error, IntegrateError::SetBack { .. }), "{error}");
}

#[tokio::test]
async fn another_key_does_not_continue_a_log() {
    let world = grown(100, 40).await;
    let site = LogSite::new(Arc::new(world.store.clone()), Arc::new(world.store.clone()), Arc::new(key(9)));
    let mut stranger = Integrator::new(Arc::new(world.ledger.clone()), site, setup::TENANT);
    assert!(matches!(stranger.step().await, Err(IntegrateError::NotOurs { .. })));
    // With a new origin it may.
    assert!(matches!(stranger.begin_again().await.unwrap(), Step::Begun(_)));
    assert!(matches!(stranger.step().await.unwrap(), Step::Integrated { spans: 40, .. }));
}

#[tokio::test]
async fn an_integrator_that_was_stopped_for_a_while_does_not_take_the_log_back() {
    let world = grown(100, 40).await;
    let mut slow = world.integrator();
    assert_eq!(slow.step().await.unwrap(), Step::Idle);
    let origin = world.signed().origin;
    let old = world.store.objects()[&format!("{origin}/checkpoint")].clone();
    append(&world.ledger, 10).await;
    world.settle().await;
    // It wakes up with what it knew, and loses; and an older checkpoint that was written last is put right by the next look.
    append(&world.ledger, 10).await;
    world.settle().await;
    world.store.set(&format!("{origin}/checkpoint"), Some(old));
    append(&world.ledger, 1).await;
    while slow.step().await.unwrap() != Step::Idle {}
    world.check().await;
    assert_eq!(world.published().unwrap().0.size, 61);
}

#[tokio::test]
async fn spans_that_record_checkpoints_cause_none() {
    let world = grown(100, 4).await;
    let mut integrator = world.integrator();
    for n in 0..3 {
        let span = Draft::new("checkpoint")
            .tenant(setup::TENANT)
            .owner("runtime")
            .who("host")
            .this("log.checkpoint")
            .name(n.to_string());
        let span = span.stamp(&SystemClock, &SystemIds).seal_local(&key(7)).unwrap();
        world.ledger.append(&Scope::Operator, vec![span], &AppendOptions::default()).await.unwrap();
        assert_eq!(integrator.step().await.unwrap(), Step::Idle);
    }
    append(&world.ledger, 1).await;
    assert!(matches!(integrator.step().await.unwrap(), Step::Integrated { spans: 4, .. }));
}

/// A small generator, so that a seed repeats a run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % limit).unwrap()
    }
}

#[tokio::test]
async fn whatever_fails_in_whatever_order_no_two_checkpoints_contradict_each_other() {
    let seeds = std::env::var("LOGLINE_SIMULATION_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(25);
    for seed in 0..seeds {
        let mut chance = Chance(seed);
        let world = World::new(1 + chance.below(300));
        let mut fleet: Vec<_> = (0..3).map(|_| world.integrator()).collect();
        for _ in 0..40 {
            let (one, two) = (chance.below(3), chance.below(3));
            match chance.below(6) {
                0 => append(&world.ledger, chance.below(200)).await,
                1 => world.store.fail(chance.below(20), if chance.below(2) == 0 { Fault::Before } else { Fault::After }),
                2 => fleet[one] = world.integrator(),
                3 if one != two => {
                    // Two at once, in turns at every await.
                    let (low, high) = (one.min(two), one.max(two));
                    let (left, right) = fleet.split_at_mut(high);
                    let (a, b) = tokio::join!(left[low].step(), right[0].step());
                    for error in [a, b].into_iter().filter_map(Result::err) {
                        assert!(error.is_temporary(), "seed {seed}: {error}");
                    }
                }
                _ => {
                    if let Err(error) = fleet[one].step().await {
                        assert!(error.is_temporary(), "seed {seed}: {error}");
                    }
                }
            }
        }
        world.settle_after_faults().await;
        world.check().await;
        let count = rows(&world.ledger).await.len() as u64;
        assert_eq!(world.published().unwrap().0.size, count, "seed {seed}");
    }
}

impl World {
    /// The last fault may be still to come.
    async fn settle_after_faults(&self) {
        for _ in 0..1000 {
            if matches!(self.integrator().step().await, Ok(Step::Idle)) {
                return;
            }
        }
        panic!("it does not come to an end");
    }
}

#[tokio::test]
async fn a_log_in_folders_is_the_same_and_its_files_are_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let tiles = Directory::new(folder.path().join("tiles"));
    let locks = Directory::new(folder.path().join("locks"));
    let ledger = MemoryLedger::new();
    append(&ledger, 300).await;
    let site = LogSite::new(Arc::new(tiles.clone()), Arc::new(locks.clone()), Arc::new(key(1))).batch(200);
    let mut integrator = Integrator::new(Arc::new(ledger.clone()), site.clone(), setup::TENANT);
    while integrator.step().await.unwrap() != Step::Idle {}
    append(&ledger, 300).await;
    let mut integrator = Integrator::new(Arc::new(ledger), site, setup::TENANT);
    while integrator.step().await.unwrap() != Step::Idle {}
    let record = String::from_utf8(locks.load(&World::lock_name()).await.unwrap().unwrap()).unwrap();
    let checkpoint = Checkpoint::of(&Note::parse(record.split_once("\n\n").unwrap().1.as_bytes()).unwrap()).unwrap();
    assert_eq!(checkpoint.size, 600);
    let origin = &checkpoint.origin;
    assert!(tiles.read_now(&format!("{origin}/tile/entries/002.p/88")).unwrap().is_some());
    assert!(tiles.read_now(&format!("{origin}/tile/0/000")).unwrap().is_some());
    assert!(
        tiles.read_now(&format!("{origin}/tile/0/000.p/200")).unwrap().is_none(),
        "narrow tiles are deleted when they are full"
    );
    let late = tiles.create(&format!("{origin}/tile/0/000"), b"a late write").await;
    assert!(matches!(late, Err(StoreError::Different { .. })), "{late:?}");
    assert!(tiles.list("staging").await.unwrap().len() <= 1);
    for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/.hidden", "a b", "a\\b", "ä"] {
        assert!(matches!(tiles.read_now(bad), Err(StoreError::Name { .. })), "{bad}");
        assert!(matches!(tiles.create(bad, b"").await, Err(StoreError::Name { .. })), "{bad}");
    }
    assert!(!locks.swap("a", Some(b"x"), b"y").await.unwrap());
    assert!(locks.swap("a", None, b"x").await.unwrap());
    assert!(!locks.swap("a", None, b"y").await.unwrap());
    assert!(locks.swap("a", Some(b"x"), b"y").await.unwrap());
    assert_eq!(locks.load("a").await.unwrap().unwrap(), b"y");
}

#[tokio::test]
async fn a_log_asks_its_witness_and_a_witness_that_was_restarted_remembers() {
    use logline_core::{KeyPair, Signer as _};
    use logline_log::note::{KeyKind, NoteKey};
    use logline_log::witness::{AddCheckpoint, Answer, StoredWitness, Witness, WitnessCallError, WitnessClient};

    /// A witness of one log, whose process is new at every call.
    struct Restarted {
        log: NoteKey,
        store: setup::Store,
        key: KeyPair,
    }

    #[async_trait::async_trait]
    impl WitnessClient for Restarted {
        async fn add_checkpoint(&self, call: &AddCheckpoint) -> Result<Answer, WitnessCallError> {
            let state = StoredWitness::new(Arc::new(self.store.clone()));
            let (name, clock) = ("witness".parse().unwrap(), Arc::new(SystemClock));
            let witness = Witness::new(name, Arc::new(self.key.clone()), clock, vec![self.log.clone()], state);
            Ok(witness.add_checkpoint(call.to_string().as_bytes()).await.unwrap())
        }
    }

    let world = grown(100, 40).await;
    let witness = NoteKey::new("witness".parse().unwrap(), KeyKind::Witness, key(8).public_key()).unwrap();
    let client = Restarted { log: world.log_key(), store: setup::Store::default(), key: key(8) };
    let site = world.site().witness(witness.clone(), Arc::new(client));
    for count in [1, 300, 7] {
        append(&world.ledger, count).await;
        // Each time a new process that does not know what the witness has seen.
        let mut integrator = Integrator::new(Arc::new(world.ledger.clone()), site.clone(), setup::TENANT);
        while integrator.step().await.unwrap() != Step::Idle {}
        let origin = world.signed().origin;
        let note = Note::parse(&world.store.objects()[&format!("{origin}/checkpoint")]).unwrap();
        let (checkpoint, signed) = Checkpoint::verify(&note, &world.log_key(), std::slice::from_ref(&witness)).unwrap();
        assert_eq!((checkpoint, signed.len()), (world.signed(), 2), "{count} more");
    }
    world.check().await;
}

#[tokio::test]
async fn a_process_that_is_killed_at_any_await_is_followed_by_one_that_goes_on() {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    for polls in 0.. {
        let world = World::new(20);
        append(&world.ledger, 30).await;
        let has_ended = {
            let mut integrator = world.integrator();
            let mut running = pin!(async { while integrator.step().await.unwrap() != Step::Idle {} });
            let mut has_ended = false;
            for _ in 0..polls {
                has_ended = has_ended || running.as_mut().now_or_never().is_some();
                if has_ended {
                    break;
                }
            }
            // Here it is dropped, wherever it is.
            has_ended
        };
        world.settle().await;
        world.check().await;
        assert_eq!(world.published().unwrap().0.size, 30, "killed after {polls} polls");
        if has_ended {
            assert!(polls > 20, "{polls} awaits were tried");
            return;
        }
    }
}

/// Without what is staged, and without the locks.
fn public(world: &World) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut objects = world.store.objects();
    objects.retain(|name, _| name.starts_with("log.invalid/"));
    objects
}

#[tokio::test]
async fn lost_and_damaged_files_are_made_again_from_the_rows() {
    // Narrow tiles of older checkpoints are there as well: 600 and 700 leaves.
    let world = grown(1000, 600).await;
    append(&world.ledger, 100).await;
    world.settle().await;
    let (good, origin) = (public(&world), world.signed().origin);
    let all: Vec<_> = good.keys().cloned().collect();
    let file = |name: &str| format!("{origin}/{name}");
    let full = [file("tile/0/000"), file("tile/entries/001")];
    let narrow = [file("tile/0/002.p/188"), file("tile/entries/002.p/188"), file("tile/1/000.p/2")];
    let older = [file("tile/0/002.p/88"), file("tile/entries/002.p/88")];
    for name in full.iter().chain(&narrow).chain(&older) {
        assert!(good.contains_key(name), "{name}: {all:?}");
    }
    for damage in 0..3 {
        for names in [&all[..], &full, &narrow, &older, &[file("checkpoint")]] {
            for name in names {
                let mut bytes = good[name].clone();
                match damage {
                    0 => bytes.truncate(33),
                    1 => bytes[40] ^= 1,
                    _ => {}
                }
                world.store.set(name, (damage < 2).then_some(bytes));
            }
            let rebuilt = world.integrator().rebuild(None).await.unwrap();
            assert_eq!((rebuilt.files, &rebuilt.checkpoint), (7, &world.signed()));
            let found = public(&world);
            // Which narrow tiles an older checkpoint had is in their names alone.
            let lost = if damage == 2 { &older[..] } else { &[] };
            for (name, bytes) in good.iter().filter(|(name, _)| !(names.contains(name) && lost.contains(name))) {
                assert_eq!(found.get(name), Some(bytes), "{name}, damage {damage}");
            }
            for name in lost {
                world.store.set(name, Some(good[name].clone()));
            }
            assert_eq!(world.integrator().rebuild(None).await.unwrap().damaged, 0);
        }
    }
    // Which leaf a span is follows from the files, and every proof is made again.
    let (objects, mut index) = (public(&world), LeafIndex::new());
    let mut read = |name: &str| Ok::<_, String>(objects.get(&file(name)).cloned());
    let note = Note::parse(&objects[&file("checkpoint")]).unwrap();
    index.grow(700, &mut read).unwrap();
    for (at, row) in (0..).zip(rows(&world.ledger).await) {
        let proof = prove(&Leaf::of(&row), &note, &world.signed(), Some(&index), &mut read).unwrap();
        assert_eq!((proof.index, index.leaf_of(row.id, row.seq)), (at, Some(at)));
    }
    append(&world.ledger, 200).await;
    world.settle().await;
    world.check().await;
}

#[tokio::test]
async fn a_rebuild_writes_nothing_if_the_rows_are_not_those_that_were_signed() {
    let world = grown(100, 300).await;
    let origin = world.signed().origin;
    world.store.set(&format!("{origin}/tile/0/000"), None);
    let damaged = world.store.objects();
    let rows = rows(&world.ledger).await;
    let all = rows.len();
    for (count, what) in [(all, "another row"), (all - 1, "a row less"), (0, "no row")] {
        let other = MemoryLedger::new();
        for (at, row) in rows.iter().take(count).enumerate() {
            let mut row = row.clone().verify(&mut logline_core::Verifier::new()).unwrap();
            if at == 17 {
                row = note(999).stamp(&SystemClock, &SystemIds).seal_local(&key(7)).unwrap();
            }
            // The next version of the row that is not there any more.
            if other.append(&Scope::Operator, vec![row], &AppendOptions::default()).await.is_err() {
                let row = note(at).stamp(&SystemClock, &SystemIds).seal_local(&key(7)).unwrap();
                other.append(&Scope::Operator, vec![row], &AppendOptions::default()).await.unwrap();
            }
        }
        let error = Integrator::new(Arc::new(other), world.site(), setup::TENANT).rebuild(None).await.unwrap_err();
        let is_refused = match error {
            IntegrateError::OtherRows { .. } => count == all,
            IntegrateError::Restored { .. } => count < all,
            _ => false,
        };
        assert!(is_refused, "{what}: {error}");
        assert_eq!(world.store.objects(), damaged, "{what}");
    }
    world.integrator().rebuild(None).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_log_that_was_begun_again_is_made_again_with_its_first_entry() {
    let world = grown(100, 40).await;
    let old = world.signed().origin;
    world.integrator().begin_again().await.unwrap();
    world.settle().await;
    let (origin, good) = (world.signed().origin, public(&world));
    let of_log = |name: &String| name.starts_with(origin.as_str());
    // The first bundle is there still.
    world.store.set(&format!("{origin}/tile/0/000.p/41"), None);
    world.integrator().rebuild(None).await.unwrap();
    assert_eq!(public(&world), good);
    for name in good.keys().filter(|name| of_log(name)) {
        world.store.set(name, None);
    }
    let error = world.integrator().rebuild(None).await.unwrap_err();
    assert!(matches!(error, IntegrateError::FirstEntry { .. }), "{error}");
    let continues = Note::parse(&good[&format!("{old}/checkpoint")]).unwrap();
    world.integrator().rebuild(Some(&continues)).await.unwrap();
    let found = public(&world);
    assert!(
        found.iter().all(|(name, bytes)| good.get(name) == Some(bytes)) && found.contains_key(&format!("{origin}/checkpoint"))
    );
    append(&world.ledger, 10).await;
    world.settle().await;
    assert_eq!(world.published().unwrap().0.size, 51);
}

#[tokio::test]
async fn no_log_is_begun_beside_another_whose_lock_is_away() {
    let world = grown(100, 40).await;
    let elsewhere = setup::Store::default();
    let site = LogSite::new(Arc::new(world.store.clone()), Arc::new(elsewhere.clone()), Arc::new(key(1)));
    let before = world.store.objects();
    let log = || Integrator::new(Arc::new(world.ledger.clone()), site.clone(), setup::TENANT);
    let error = log().step().await.unwrap_err();
    assert!(
        matches!(error, IntegrateError::Missing { .. }) && error.to_string().contains(world.signed().origin.as_str()),
        "{error}"
    );
    assert_eq!(world.store.objects(), before);
    assert!(elsewhere.objects().is_empty());
    // A tenant that is new there is begun by somebody's word.
    let site = LogSite::new(Arc::new(world.store.clone()), Arc::new(world.store.clone()), Arc::new(key(1)));
    let new = || Integrator::new(Arc::new(world.ledger.clone()), site.clone(), "globex");
    assert!(matches!(new().step().await, Err(IntegrateError::Missing { .. })));
    assert!(matches!(new().begins().step().await.unwrap(), Step::Begun(_)));
    assert_eq!(new().step().await.unwrap(), Step::Idle);
}
