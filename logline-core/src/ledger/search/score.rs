//! How a match by words is scored: BM25 with the numbers of the place that is searched, and of no other.

use std::cmp::Ordering;

/// How quickly further occurrences of a word stop counting, and how much long texts are set back. The usual values.
const K1: f64 = 1.2;
const B: f64 = 0.75;

/// The numbers of one search: of the place that it looks at, and of its words there.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// The number of entries in the place.
    pub entries: usize,
    /// How many of them have each word of the query.
    pub with_word: Vec<usize>,
    /// The mean number of words of those that have any.
    pub mean_length: f64,
}

/// An entry that has some of the words.
#[derive(Debug, Clone, PartialEq)]
pub struct Match<K> {
    /// The entry.
    pub key: K,
    /// The number of words of its text.
    pub length: usize,
    /// Which words of the query it has (by number), and how often.
    pub words: Vec<(usize, usize)>,
}

impl Statistics {
    /// The score of an entry.
    #[must_use]
    pub fn score<K>(&self, found: &Match<K>) -> f64 {
        let norm = K1 * (1.0 - B + B * found.length as f64 / self.mean_length.max(1.0));
        let of_word = |(word, times): &(usize, usize)| {
            let (n, with) = (self.entries as f64, self.with_word.get(*word).copied().unwrap_or_default() as f64);
            // Never negative, also for words that most entries have.
            let rarity = (1.0 + (n - with).max(0.0) / (with + 0.5)).ln();
            let times = *times as f64;
            rarity * times * (K1 + 1.0) / (times + norm)
        };
        found.words.iter().map(of_word).sum()
    }
}

/// The best `limit` matches with their scores, the best first. Of equal scores the greater key comes first.
///
/// `entries` is the number of entries in the place that was searched, and `words` the number of words of the query.
#[must_use]
pub fn best<K: Ord>(matches: Vec<Match<K>>, entries: usize, words: usize, limit: usize) -> Vec<(K, f64)> {
    let mut with_word = vec![0; words];
    for (word, _) in matches.iter().flat_map(|found| &found.words) {
        if let Some(count) = with_word.get_mut(*word) {
            *count += 1;
        }
    }
    let total: usize = matches.iter().map(|found| found.length).sum();
    let mean_length = total as f64 / matches.len().max(1) as f64;
    let statistics = Statistics { entries: entries.max(matches.len()), with_word, mean_length };
    let mut scored: Vec<_> = matches.into_iter().map(|found| (statistics.score(&found), found.key)).collect();
    let order =
        |left: &(f64, K), right: &(f64, K)| -> Ordering { right.0.total_cmp(&left.0).then_with(|| right.1.cmp(&left.1)) };
    if scored.len() > limit && limit > 0 {
        scored.select_nth_unstable_by(limit - 1, order);
    }
    scored.truncate(limit);
    scored.sort_by(order);
    scored.into_iter().map(|(score, key)| (key, score)).collect()
}
