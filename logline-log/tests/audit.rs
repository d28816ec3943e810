//! The audit without a database: each way of changing history, and which check finds it.
#![cfg(feature = "integrator")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::collections::BTreeMap;

use logline_core::trust::{Ended, LogEnd};
use logline_core::{Draft, Hash, Signer as _, SystemClock, SystemIds};
use logline_log::audit::{AuditReport, CheckKind, LogAudit, Verdict};
use logline_log::note::{KeyKind, Note, NoteKey};
use logline_log::{Checkpoint, Leaf, LeafIndex, LogFileError, Policy, TreeHash, prove};
use setup::{World, append, key, note, rows};

/// What an auditor has.
struct Evidence {
    files: BTreeMap<String, Vec<u8>>,
    checkpoint: Note,
    lines: Vec<String>,
    policy: Policy,
    known: Vec<Note>,
    is_partial: bool,
    ended: Option<Vec<Ended>>,
}

impl Evidence {
    async fn of(world: &World) -> Self {
        let origin = format!("{}/", world.signed().origin);
        let files: BTreeMap<_, _> = world
            .store
            .objects()
            .into_iter()
            .filter_map(|(name, bytes)| Some((name.strip_prefix(&origin)?.to_owned(), bytes)))
            .collect();
        let checkpoint = Note::parse(&files["checkpoint"]).unwrap();
        let lines = rows(&world.ledger).await.iter().map(|row| String::from_utf8(row.to_line()).unwrap()).collect();
        Self {
            files,
            checkpoint,
            lines,
            policy: Policy::of_log(world.log_key()),
            known: Vec::new(),
            is_partial: false,
            ended: None,
        }
    }

    fn audit(&self) -> (AuditReport, Vec<String>) {
        let mut audit = LogAudit::new(&self.policy);
        audit.known = self.known.clone();
        audit.is_partial = self.is_partial;
        audit.ended = self.ended.as_deref();
        let mut problems = Vec::new();
        let export = self.lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let mut export = std::io::Cursor::new(export.into_bytes());
        let mut read = |name: &str| Ok(self.files.get(name).cloned());
        let report = audit
            .run(&self.checkpoint, &mut read, Some(&mut export), &mut |problem| problems.push(problem.to_string()))
            .unwrap();
        (report, problems)
    }

    /// Exactly these checks fail, and one of the problems says this.
    fn fails(&self, expected: &[CheckKind], says: &str) {
        let (report, problems) = self.audit();
        let failed: Vec<_> =
            report.checks.iter().filter(|check| matches!(check.verdict, Verdict::Failed(_))).map(|check| check.kind).collect();
        assert_eq!(failed, expected, "{problems:#?}");
        assert!(problems.iter().any(|problem| problem.contains(says)), "{problems:#?}");
        assert!(!report.is_clean());
    }
}

async fn world() -> World {
    let world = World::new(200);
    append(&world.ledger, 600).await;
    world.settle().await;
    world
}

#[tokio::test]
async fn an_untouched_log_passes_and_what_was_not_checked_says_so() {
    let evidence = Evidence::of(&world().await).await;
    let (report, problems) = evidence.audit();
    assert!(report.is_clean() && problems.is_empty(), "{problems:#?}");
    for (kind, count) in [
        (CheckKind::Entries, 600),
        (CheckKind::Seals, 600),
        (CheckKind::Rows, 600),
        (CheckKind::Order, 600),
        (CheckKind::Complete, 600),
    ] {
        assert_eq!(report.verdict(kind), Some(&Verdict::Passed(count)), "{kind:?}");
    }
    for kind in [CheckKind::Witnesses, CheckKind::Consistency, CheckKind::Authority, CheckKind::KeyEnds] {
        assert!(matches!(report.verdict(kind), Some(Verdict::NotChecked(_))), "{kind:?}");
    }
}

#[tokio::test]
async fn an_edited_row_is_found() {
    let mut evidence = Evidence::of(&world().await).await;
    evidence.lines[7] = evidence.lines[7].replace("user:alice", "user:mallory");
    evidence.fails(&[CheckKind::Seals], "line 8");
}

#[tokio::test]
async fn a_row_that_was_edited_and_sealed_again_by_a_key_of_the_attacker_is_found() {
    let world = world().await;
    let mut evidence = Evidence::of(&world).await;
    let mut draft = Draft::from_columns(rows(&world.ledger).await[7].span.clone());
    draft.columns_mut().who = "user:mallory".to_owned();
    let forged = draft.seal_local(&key(66)).unwrap();
    evidence.lines[7] = String::from_utf8(forged.to_line()).unwrap();
    evidence.fails(&[CheckKind::Rows], "was edited or replaced");
}

#[tokio::test]
async fn a_key_that_was_used_after_its_end_is_found() {
    let world = world().await;
    let mut evidence = Evidence::of(&world).await;
    let mut tree = logline_log::tree::Frontier::new();
    rows(&world.ledger).await.iter().take(400).for_each(|row| tree.push(Leaf::of(row).hash()));
    let end = |key: u8, origin: String, root: TreeHash| {
        Ended::of_key(self::key(key).public_key(), [LogEnd { origin, size: 400, root: Hash(root.0) }])
    };
    let origin = world.signed().origin.to_string();
    let verdict = |evidence: &Evidence| {
        let (report, problems) = evidence.audit();
        let found = report.checks.into_iter().find(|check| check.kind == CheckKind::KeyEnds).unwrap();
        (found.verdict, problems)
    };
    assert!(matches!(verdict(&evidence).0, Verdict::NotChecked(_)), "without a manifest");
    // All rows of the log are by this key: 200 of them stand at and after its end.
    evidence.ended = Some(vec![end(7, origin.clone(), tree.root())]);
    let (found, problems) = verdict(&evidence);
    assert_eq!((found, problems.len()), (Verdict::Failed(200), 200));
    assert!(problems[0].contains("is leaf 400, and its key"), "{}", problems[0]);
    // A right that the rows do not need, in another tenant, and the end of a key that has signed nothing.
    let elsewhere = Ended { tenants: vec!["globex".to_owned()], ..end(7, origin.clone(), tree.root()) };
    evidence.ended = Some(vec![elsewhere, end(8, origin.clone(), tree.root())]);
    assert!(matches!(verdict(&evidence).0, Verdict::Passed(_)));
    // An end in another log is not decided here, and an end in another history is no end at all.
    evidence.ended = Some(vec![end(7, "log.invalid/other".to_owned(), tree.root())]);
    assert!(matches!(verdict(&evidence).0, Verdict::NotChecked(_)));
    evidence.ended = Some(vec![end(8, origin, TreeHash::EMPTY)]);
    evidence.fails(&[CheckKind::Consistency], "two histories");
}

#[tokio::test]
async fn a_removed_row_is_found() {
    let mut evidence = Evidence::of(&world().await).await;
    evidence.lines.remove(7);
    evidence.fails(&[CheckKind::Complete], "leaf 7: row");
}

#[tokio::test]
async fn an_inserted_row_is_found() {
    let mut evidence = Evidence::of(&world().await).await;
    let forged = note(0).stamp(&SystemClock, &SystemIds).seal_local(&key(7)).unwrap();
    evidence.lines.insert(7, String::from_utf8(forged.to_line()).unwrap());
    evidence.fails(&[CheckKind::Rows], "it was inserted");
}

#[tokio::test]
async fn a_row_outside_the_log_that_follows_nothing_is_found_at_the_end_too() {
    let world = world().await;
    let mut evidence = Evidence::of(&world).await;
    // A second version 1 of an id whose version 1 is in the log: the chain was forked.
    let first = rows(&world.ledger).await[4].clone();
    let forged = Draft::next_version(&first).status("forged").stamp(&SystemClock, &SystemIds).seal_local(&key(7)).unwrap();
    let forged = Draft::next_version(&forged).stamp(&SystemClock, &SystemIds).seal_local(&key(7)).unwrap();
    evidence.lines.push(String::from_utf8(forged.to_line()).unwrap());
    evidence.fails(&[CheckKind::Rows], "does not follow");
}

#[tokio::test]
async fn a_duplicated_row_is_found() {
    let mut evidence = Evidence::of(&world().await).await;
    evidence.lines.insert(20, evidence.lines[7].clone());
    evidence.fails(&[CheckKind::Order], "is there twice");
}

#[tokio::test]
async fn reordered_rows_are_found() {
    let mut evidence = Evidence::of(&world().await).await;
    evidence.lines.swap(7, 8);
    evidence.fails(&[CheckKind::Order], "comes after a row that was entered later");
}

#[tokio::test]
async fn a_truncated_tail_is_found() {
    let mut evidence = Evidence::of(&world().await).await;
    evidence.lines.truncate(580);
    evidence.fails(&[CheckKind::Complete], "its last 20 rows were cut off");
    evidence.is_partial = true;
    let (report, _) = evidence.audit();
    assert!(report.is_clean());
    assert!(matches!(report.verdict(CheckKind::Complete), Some(Verdict::NotChecked(_))), "a part is never said to be whole");
}

#[tokio::test]
async fn rows_that_are_newer_than_the_checkpoint_are_counted_and_not_failed() {
    let world = world().await;
    append(&world.ledger, 30).await;
    let evidence = Evidence::of(&world).await;
    let (report, problems) = evidence.audit();
    assert!(report.is_clean(), "{problems:#?}");
    assert_eq!(report.newer, 30);
    assert_eq!(report.verdict(CheckKind::Rows), Some(&Verdict::Passed(600)));
}

#[tokio::test]
async fn a_fork_shown_to_two_auditors_is_found() {
    let world = world().await;
    let mut evidence = Evidence::of(&world).await;
    // The same log, the same key, another history of 300 rows.
    let root = TreeHash::leaf(b"another history");
    let mut other = Checkpoint { origin: world.signed().origin, size: 300, root }.to_note().unwrap();
    other.sign(&world.signed().origin, &key(1)).await.unwrap();
    evidence.known = vec![other];
    evidence.fails(&[CheckKind::Consistency], "two histories");
    // Of the same history: its own checkpoint.
    evidence.known = vec![evidence.checkpoint.clone()];
    assert_eq!(evidence.audit().0.verdict(CheckKind::Consistency), Some(&Verdict::Passed(1)));
    // A fork that is longer than the log is one too, also beside one that agrees.
    let mut longer = Checkpoint { origin: world.signed().origin, size: 5000, root }.to_note().unwrap();
    longer.sign(&world.signed().origin, &key(1)).await.unwrap();
    for known in
        [vec![longer.clone()], vec![longer.clone(), evidence.checkpoint.clone()], vec![evidence.checkpoint.clone(), longer]]
    {
        evidence.known = known;
        evidence.fails(&[CheckKind::Consistency], "another checkpoint has 5000 leaves, and this checkpoint has 600");
    }
}

#[tokio::test]
async fn a_log_that_is_rolled_back_behind_a_checkpoint_that_the_auditor_holds_is_found() {
    let world = world().await;
    let mut evidence = Evidence::of(&world).await;
    append(&world.ledger, 30).await;
    world.settle().await;
    let newer = Evidence::of(&world).await.checkpoint;
    // Yesterday's log and yesterday's rows are whole by themselves.
    assert!(evidence.audit().0.is_clean());
    evidence.known = vec![newer.clone()];
    evidence.fails(&[CheckKind::Consistency], "rows were withdrawn, or this copy of the log is old");
    // Without a valid signature of the log it proves nothing, and is refused for that.
    let forged = newer.to_string().replacen("\n630\n", "\n631\n", 1);
    evidence.known = vec![Note::parse(forged.as_bytes()).unwrap()];
    evidence.fails(&[CheckKind::Consistency], "another checkpoint is not valid");
}

#[tokio::test]
async fn a_log_that_is_rolled_back_behind_the_end_of_a_key_in_the_manifest_is_found() {
    let world = world().await;
    let mut evidence = Evidence::of(&world).await;
    let end = LogEnd { origin: world.signed().origin.to_string(), size: 601, root: Hash([9; 32]) };
    evidence.ended = Some(vec![Ended::of_key(key(8).public_key(), [end])]);
    evidence.fails(&[CheckKind::Consistency], "the end of a key in the manifest has 601 leaves");
}

#[tokio::test]
async fn a_check_that_was_asked_for_and_could_not_be_made_is_not_clean() {
    let world = world().await;
    let mut evidence = Evidence::of(&world).await;
    let other = NoteKey::new("log.invalid/other".parse().unwrap(), KeyKind::Log, key(3).public_key()).unwrap();
    evidence.policy = Policy::new(vec![world.log_key(), other.clone()], vec![], 0).unwrap();
    let mut note = Checkpoint { origin: other.name().clone(), size: 5, root: TreeHash::leaf(b"x") }.to_note().unwrap();
    note.sign(other.name(), &key(3)).await.unwrap();
    // Beside one that passes it is not passed either.
    for known in
        [vec![note.clone()], vec![note.clone(), evidence.checkpoint.clone()], vec![evidence.checkpoint.clone(), note.clone()]]
    {
        evidence.known = known;
        let (report, problems) = evidence.audit();
        assert!(matches!(report.verdict(CheckKind::Consistency), Some(Verdict::NotChecked(_))) && problems.is_empty());
        assert_eq!((report.is_clean(), report.not_possible), (false, vec![CheckKind::Consistency]));
    }
    evidence.known = Vec::new();
    assert!(evidence.audit().0.is_clean(), "nobody has asked for it");
    let elsewhere = LogEnd { origin: "log.invalid/other".to_owned(), size: 5, root: Hash([9; 32]) };
    evidence.ended = Some(vec![Ended::of_key(key(7).public_key(), [elsewhere])]);
    let report = evidence.audit().0;
    assert_eq!((report.is_clean(), report.not_possible), (false, vec![CheckKind::KeyEnds]));
}

#[tokio::test]
async fn a_checkpoint_by_another_key_is_refused_and_nothing_else_is_said() {
    let world = world().await;
    let mut evidence = Evidence::of(&world).await;
    let stranger = NoteKey::new(world.signed().origin, KeyKind::Log, logline_core::Signer::public_key(&key(9))).unwrap();
    evidence.policy = Policy::of_log(stranger);
    evidence.fails(&[CheckKind::Checkpoint], "has signed");
    let (report, _) = evidence.audit();
    assert!(report.checks.iter().skip(1).all(|check| matches!(check.verdict, Verdict::NotChecked(_))));
}

#[tokio::test]
async fn a_checkpoint_without_its_tiles_a_truncated_tile_and_a_changed_entry_are_found() {
    let world = world().await;
    let good = Evidence::of(&world).await;
    // Narrow tiles of older checkpoints may be there too; nobody needs them.
    let names: Vec<_> = logline_log::tile::TilePath::added(0, 600).map(|path| path.to_string()).collect();
    for name in &names {
        for (change, _) in [("remove", 0), ("truncate", 1), ("flip", 2)] {
            let mut evidence = Evidence {
                files: good.files.clone(),
                checkpoint: good.checkpoint.clone(),
                lines: good.lines.clone(),
                policy: good.policy.clone(),
                known: vec![],
                is_partial: false,
                ended: None,
            };
            let bytes = evidence.files.get_mut(name).unwrap();
            match change {
                "truncate" => bytes.truncate(bytes.len() - 32),
                "flip" => *bytes.last_mut().unwrap() ^= 1,
                _ => drop(evidence.files.remove(name)),
            }
            let (report, problems) = evidence.audit();
            assert!(!report.is_clean(), "{change} {name} was not noticed");
            assert!(matches!(report.verdict(CheckKind::Tiles), Some(Verdict::Failed(_))), "{change} {name}: {problems:#?}");
        }
    }
}

#[tokio::test]
async fn a_log_that_enters_a_version_twice_or_out_of_its_chain_is_found() {
    // The operator of a log signs whatever it wants: the tree is valid, the entries are not.
    let world = world().await;
    let mut evidence = Evidence::of(&world).await;
    let rows = rows(&world.ledger).await;
    let mut growth = logline_log::tile::Growth::new();
    evidence.files.clear();
    let mut files = Vec::new();
    // Row 5 is the second version of row 4.
    for row in [0, 1, 1, 5].map(|n| &rows[n]) {
        growth.push(&Leaf::of(row).to_bytes(), |file| files.push(file));
    }
    files.extend(growth.partial());
    evidence.files = files.into_iter().map(|file| (file.path.to_string(), file.bytes)).collect();
    let mut note = Checkpoint { origin: world.signed().origin, size: 4, root: growth.root() }.to_note().unwrap();
    note.sign(&world.signed().origin, &key(1)).await.unwrap();
    evidence.checkpoint = note;
    evidence.lines = [0, 1, 5].map(|n: usize| String::from_utf8(rows[n].to_line()).unwrap()).to_vec();
    evidence.fails(&[CheckKind::Entries], "is entry 1 already");
    evidence.fails(&[CheckKind::Entries], "follows a version that is not in the log");
}

#[tokio::test]
async fn a_proof_is_made_from_the_tiles_for_every_row_and_verified_offline() {
    let world = world().await;
    let evidence = Evidence::of(&world).await;
    let checkpoint = Checkpoint::of(&evidence.checkpoint).unwrap();
    let mut read = |name: &str| Ok(evidence.files.get(name).cloned());
    let mut index = LeafIndex::new();
    index.grow(100, &mut read).unwrap();
    index.grow(600, &mut read).unwrap();
    assert_eq!(index.size(), 600);
    for (n, row) in rows(&world.ledger).await.iter().enumerate() {
        assert_eq!(index.leaf_of(row.id, row.seq), Some(n as u64));
        let index = (n % 2 == 0).then_some(&index);
        let proof = prove(&Leaf::of(row), &evidence.checkpoint, &checkpoint, index, &mut read).unwrap();
        assert_eq!(proof.index, n as u64);
        assert_eq!(proof.verify(row, &evidence.policy).unwrap(), checkpoint);
    }
    append(&world.ledger, 1).await;
    let newer = rows(&world.ledger).await.pop().unwrap();
    let refused = prove(&Leaf::of(&newer), &evidence.checkpoint, &checkpoint, Some(&index), &mut read);
    assert!(matches!(refused, Err(LogFileError::NotInLog { size: 600, .. })));
}

#[tokio::test]
async fn a_damaged_tile_makes_no_proof() {
    let world = world().await;
    let evidence = Evidence::of(&world).await;
    let checkpoint = Checkpoint::of(&evidence.checkpoint).unwrap();
    let row = &rows(&world.ledger).await[3];
    let mut read = |name: &str| {
        let mut bytes = evidence.files.get(name).cloned();
        if let Some(bytes) = bytes.as_mut().filter(|_| name == "tile/0/000") {
            bytes[32 * 9] ^= 1;
        }
        Ok(bytes)
    };
    let refused = prove(&Leaf::of(row), &evidence.checkpoint, &checkpoint, None, &mut read);
    assert!(matches!(refused, Err(LogFileError::Prove(_))), "{refused:?}");
}
