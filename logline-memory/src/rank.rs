//! From candidates of several searches to one list: reciprocal rank fusion.

use std::collections::BTreeMap;

use uuid::Uuid;

/// The constant of reciprocal rank fusion: the higher, the less the first places of a list count beside the others.
pub const K: f64 = 60.0;

/// Fuses lists of ids, each best first: an id scores `1 / (K + place)` for each list that has it. Best first; equal scores by id.
#[must_use]
pub fn fuse(lists: &[Vec<Uuid>]) -> Vec<(Uuid, f64)> {
    let mut scores = BTreeMap::new();
    for list in lists {
        let mut place = K;
        for id in list {
            place += 1.0;
            *scores.entry(*id).or_insert(0.0) += 1.0 / place;
        }
    }
    let mut fused: Vec<(Uuid, f64)> = scores.into_iter().collect();
    fused.sort_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));
    fused
}
