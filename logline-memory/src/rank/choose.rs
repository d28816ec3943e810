//! Chooses memories in the strict order, and says of each candidate why it is in or out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::candidate::{Candidate, Key, Out, Tier, tokens};
use super::fuse::fuse;

/// How much an answer may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The most memories.
    pub limit: usize,
    /// The most [tokens] of all texts together. One that does not fit is left out, and a shorter one after it may fit.
    pub tokens: usize,
}

/// Whether a candidate is in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is, at this place, from 0 on.
    In(usize),
    /// It is not.
    Out(Out),
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// Which memory.
    pub key: Key,
    /// Where it was found.
    pub tier: Tier,
    /// Its fused score within its scope.
    pub score: f64,
    /// Whether it is in, and where, or why not.
    pub verdict: Verdict,
}

/// The answer of [`rank`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranking {
    /// The memories of the answer, in their order: indexes into the candidates.
    pub chosen: Vec<usize>,
    /// What became of each candidate, in the order in which they were looked at.
    pub explained: Vec<Explained>,
    /// The tokens of the answer.
    pub tokens: usize,
}

/// Chooses from `candidates`. `lists` are what the searches of one scope have found, each best first, with the scope's name
/// ([`Tier::scope`]): the lists of one scope are fused. A candidate that no list of its scope names has the score 0.
///
/// The same candidate may occur several times, found in different scopes: it is taken where it comes first.
#[must_use]
pub fn rank(candidates: &[Candidate], lists: &[(&str, Vec<Key>)], budget: Budget) -> Ranking {
    let mut of_scope: BTreeMap<&str, Vec<Vec<Key>>> = BTreeMap::new();
    for (scope, list) in lists {
        of_scope.entry(scope).or_default().push(list.clone());
    }
    let scores: BTreeMap<&str, BTreeMap<Key, f64>> =
        of_scope.into_iter().map(|(scope, lists)| (scope, fuse(&lists).into_iter().collect())).collect();
    let score = |candidate: &Candidate| {
        scores.get(candidate.tier.scope()).and_then(|scores| scores.get(&candidate.key)).copied().unwrap_or_default()
    };
    let mut order: Vec<_> =
        candidates.iter().enumerate().map(|(index, candidate)| (index, candidate, score(candidate))).collect();
    order.sort_by(|(left_index, left, left_score), (right_index, right, right_score)| {
        left.tier
            .cmp(&right.tier)
            .then_with(|| right_score.total_cmp(left_score))
            .then_with(|| (Reverse(left.is_promoted), Reverse(left.at)).cmp(&(Reverse(right.is_promoted), Reverse(right.at))))
            .then_with(|| left.key.cmp(&right.key))
            .then_with(|| left_index.cmp(right_index))
    });
    let mut ranking = Ranking::default();
    let mut memories: BTreeSet<&Key> = BTreeSet::new();
    let mut texts: HashMap<String, ()> = HashMap::new();
    for (index, candidate, score) in order {
        let text = normal(&candidate.text);
        let needed = tokens(&candidate.text);
        let out = match candidate.withheld {
            Some(out) => Some(out),
            None if memories.contains(&candidate.key) => Some(Out::SameMemory),
            None if texts.contains_key(&text) => Some(Out::SameText),
            None if ranking.chosen.len() >= budget.limit => Some(Out::Limit),
            None if ranking.tokens.saturating_add(needed) > budget.tokens => Some(Out::Budget),
            None => None,
        };
        let verdict = match out {
            Some(out) => Verdict::Out(out),
            None => {
                memories.insert(&candidate.key);
                texts.insert(text, ());
                ranking.tokens += needed;
                ranking.chosen.push(index);
                Verdict::In(ranking.chosen.len() - 1)
            }
        };
        ranking.explained.push(Explained { key: candidate.key.clone(), tier: candidate.tier, score, verdict });
    }
    ranking
}

/// The text as it is compared with others: lower case, with single spaces, without the signs at its end.
fn normal(text: &str) -> String {
    let words = text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ");
    words.trim_end_matches(['.', '!', '?', ' ']).to_owned()
}
