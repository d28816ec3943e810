//! The log by itself: every entry hashed again, up to the root, and the chains of versions.

use std::collections::HashMap;

use logline_core::Hash;
use uuid::Uuid;

use crate::audit::report::{CheckKind, Findings};
use crate::checkpoint::Checkpoint;
use crate::hash::TreeHash;
use crate::index::{LogFileError, ReadFile, read_tile};
use crate::leaf::{Entry, Leaf};
use crate::tile::{Bundle, Growth, TileKind, TilePath, Written};

/// A leaf of the log.
pub(super) struct Slot {
    pub(super) index: u64,
    pub(super) hash: TreeHash,
    /// Whether the export has its row.
    pub(super) is_seen: bool,
}

/// The leaves by id and version, and the last version of each id.
pub(super) struct Entries {
    pub(super) slots: HashMap<(Uuid, u32), Slot>,
    pub(super) heads: HashMap<Uuid, (u32, Hash)>,
    /// Whether all entries could be read. Otherwise a row that is not here may still be in the log.
    pub(super) is_whole: bool,
    pub(super) size: u64,
}

impl Entries {
    /// Reads the log of a checkpoint. What is wrong goes to `findings`.
    pub(super) fn read(
        checkpoint: &Checkpoint,
        known: Vec<Checkpoint>,
        read: &mut ReadFile<'_>,
        findings: &mut Findings<'_>,
    ) -> Self {
        let mut entries = Self { slots: HashMap::new(), heads: HashMap::new(), is_whole: true, size: checkpoint.size };
        let (mut growth, mut files) = (Growth::new(), 0);
        let claimed = |size| known.iter().filter(move |other| other.size == size);
        entries.fork(claimed(0), &growth, findings);
        for index in 0..checkpoint.size.div_ceil(crate::tile::WIDTH) {
            let Some(path) = TilePath::of(TileKind::Entries, index, checkpoint.size) else { break };
            let bundle = read_tile(path, read).and_then(|bytes| Bundle::parse(path, &bytes).map_err(LogFileError::from));
            let bundle = match bundle {
                Ok(bundle) => bundle,
                Err(error) => {
                    findings.problem(CheckKind::Tiles, error.to_string());
                    // Without it no later root is known.
                    entries.is_whole = false;
                    break;
                }
            };
            for bytes in bundle.entries() {
                let index = growth.size();
                let mut full = Vec::new();
                growth.push(bytes, |file| full.push(file));
                for file in full.into_iter().filter(|file| file.path.kind != TileKind::Entries) {
                    files += u64::from(compare(&file, read, findings));
                }
                entries.enter(index, bytes, findings);
                entries.fork(claimed(growth.size()), &growth, findings);
            }
        }
        if entries.is_whole {
            for file in growth.partial().into_iter().filter(|file| file.path.kind != TileKind::Entries) {
                files += u64::from(compare(&file, read, findings));
            }
            let (found, expected) = (growth.root(), checkpoint.root);
            if found != expected {
                let text = format!("the entries have root {found}, and the checkpoint has {expected}: the log was changed");
                findings.problem(CheckKind::Tiles, text);
            }
            findings.passed(CheckKind::Entries, checkpoint.size);
            findings.passed(CheckKind::Consistency, known.len() as u64);
        }
        findings.passed(CheckKind::Tiles, files);
        entries
    }

    /// Compares the roots that others were shown with the root that this log had at their size.
    fn fork<'k>(&self, known: impl Iterator<Item = &'k Checkpoint>, growth: &Growth, findings: &mut Findings<'_>) {
        for other in known.filter(|other| other.root != growth.root()) {
            let text = format!(
                "two histories: another checkpoint of {} leaves has root {}, and this log had {} then. Keep both checkpoints: the log signed both",
                other.size,
                other.root,
                growth.root()
            );
            findings.problem(CheckKind::Consistency, text);
        }
    }

    fn enter(&mut self, index: u64, bytes: &[u8], findings: &mut Findings<'_>) {
        let mut problem = |text: String| findings.problem(CheckKind::Entries, format!("entry {index}: {text}"));
        match Entry::parse(bytes) {
            Err(error) => problem(error.to_string()),
            Ok(Entry::Continues(_)) if index == 0 => {}
            Ok(Entry::Continues(_)) => problem("only the first entry may name another log".to_owned()),
            Ok(Entry::Span(leaf)) => {
                let Leaf { id, seq, .. } = leaf;
                if let Some(first) = self.slots.get(&(id, seq)) {
                    return problem(format!("{id}/{seq} is entry {} already", first.index));
                }
                if let Err(text) = follows(self.heads.get(&id), &leaf) {
                    problem(text);
                }
                self.heads.insert(id, (seq, leaf.curr_hash));
                self.slots.insert((id, seq), Slot { index, hash: TreeHash::leaf(bytes), is_seen: false });
            }
        }
    }
}

/// Whether a version follows the last one of its id.
pub(super) fn follows(head: Option<&(u32, Hash)>, leaf: &Leaf) -> Result<(), String> {
    let Leaf { id, seq, prev_hash, .. } = leaf;
    match (head, prev_hash) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(format!("{id}/{seq} follows a version that is not in the log")),
        (Some((last, hash)), Some(prev)) if last.checked_add(1) == Some(*seq) && hash == prev => Ok(()),
        (Some((last, _)), _) => Err(format!("{id}/{seq} does not follow version {last}, the last one before it")),
    }
}

/// Compares a tile with what the entries make it. Returns false if it is another.
fn compare(file: &Written, read: &mut ReadFile<'_>, findings: &mut Findings<'_>) -> bool {
    let found = read_tile(file.path, read);
    let problem = match found {
        // The full tile in the place of a narrow one begins with it.
        Ok(found) if found.starts_with(&file.bytes) && (found.len() == file.bytes.len() || found.len() == 8192) => return true,
        Ok(_) => format!("`{}` does not have the hashes of the entries: it was changed or truncated", file.path),
        Err(error) => error.to_string(),
    };
    findings.problem(CheckKind::Tiles, problem);
    false
}
