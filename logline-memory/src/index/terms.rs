//! From a text to its terms: the keyed hashes of its words' stems.

use logline_core::ledger::search::MAX_INDEXED;
use zeroize::Zeroizing;

use super::porter;

/// The most bytes of a word. The rest of a longer one is not compared.
const MAX_WORD_BYTES: usize = 256;

pub(super) struct Terms {
    key: Zeroizing<[u8; 32]>,
}

impl Terms {
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut_slice())?;
        Ok(Self { key })
    }

    /// Calls `take` with the term of each word of the text, in order. The words are built in one buffer, which is wiped.
    pub(super) fn of(&self, text: &str, mut take: impl FnMut(u64)) {
        // It never grows: a larger buffer would be another one, and the old one would not be wiped.
        let mut word = Zeroizing::new(Vec::with_capacity(MAX_WORD_BYTES + 8));
        let mut end = |word: &mut Vec<u8>| {
            if !word.is_empty() {
                porter::stem(word);
                let hash = blake3::keyed_hash(&self.key, word);
                let (first, _) =
                    hash.as_bytes().split_first_chunk::<8>().map_or(([0; 8], &[][..]), |(first, rest)| (*first, rest));
                take(u64::from_le_bytes(first));
                word.clear();
            }
        };
        let mut bytes = [0; 4];
        for c in text.chars().take(MAX_INDEXED) {
            if !c.is_alphanumeric() {
                end(&mut word);
                continue;
            }
            for lower in c.to_lowercase() {
                let lower = lower.encode_utf8(&mut bytes).as_bytes();
                if word.len() + lower.len() <= MAX_WORD_BYTES {
                    word.extend_from_slice(lower);
                }
            }
        }
        end(&mut word);
    }
}
