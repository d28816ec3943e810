//! Reciprocal rank fusion.

use std::collections::BTreeMap;

/// The constant of reciprocal rank fusion: the higher, the less the first places of a list count beside the others.
pub const K: f64 = 60.0;

/// Fuses lists, each best first: an item scores `1 / (K + place)` for each list that has it, at its first place there. Best first; equal
/// scores by item.
#[must_use]
pub fn fuse<T: Ord + Clone>(lists: &[Vec<T>]) -> Vec<(T, f64)> {
    let mut scores: BTreeMap<&T, f64> = BTreeMap::new();
    for list in lists {
        let mut seen = std::collections::BTreeSet::new();
        let mut place = K;
        for item in list {
            if seen.insert(item) {
                place += 1.0;
                *scores.entry(item).or_insert(0.0) += 1.0 / place;
            }
        }
    }
    let mut fused: Vec<_> = scores.into_iter().map(|(item, score)| (item.clone(), score)).collect();
    fused.sort_by(|left, right| right.1.total_cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
    fused
}
