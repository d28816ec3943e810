//! The fuzz targets of `fuzz/` on their corpora and on changes of them, the same at every run. (`cargo fuzz` goes on from there.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::path::PathBuf;

#[path = "../../fuzz/targets.rs"]
mod targets;

/// The files of a corpus, each with so many changes.
fn each(corpus: &str, changes: usize, target: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(corpus);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    // Any generator will do that gives the same numbers everywhere.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).unwrap()
    };
    for file in files {
        let seed = std::fs::read(&file).unwrap();
        target(&seed);
        for _ in 0..changes {
            let mut bytes = seed.clone();
            for _ in 0..=next(3) {
                let at = next(bytes.len());
                match next(5) {
                    0 if !bytes.is_empty() => bytes[at] ^= 1 << next(8),
                    1 if !bytes.is_empty() => bytes[at] = [0, 0x0b, 0x7f, 0x80, 0xff, b'"', b'{', b'9'][next(8)],
                    2 => bytes.truncate(at),
                    3 => {
                        let piece = bytes[at..(at + next(16)).min(bytes.len())].to_vec();
                        let to = next(bytes.len());
                        bytes.splice(to..to, piece);
                    }
                    _ => drop(bytes.drain(at..(at + next(8)).min(bytes.len()))),
                }
            }
            target(&bytes);
        }
    }
}

#[test]
fn lines_are_read_or_refused() {
    each("spans", 3000, targets::spans);
}

#[test]
fn modules_are_refused_or_run_within_their_limits() {
    each("modules", 150, targets::modules);
}

#[test]
fn no_numbers_of_a_guest_lead_out_of_its_memory() {
    each("answers", 150, targets::answers);
}
