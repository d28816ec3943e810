//! Chooses memories in the strict order, and says of each candidate why it is in or out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::candidate::{Candidate, Key, Out, Tier, tokens};
use super::fuse::fuse;

/// What a list was made by. Scores of one kind can be compared within a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListKind {
    /// By words, in the store or in this process.
    Text,
    /// By vectors.
    Vector,
}

/// What one search of one scope has found, the best first, with its scores.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// The name of the scope, [`Tier::scope`].
    pub scope: &'static str,
    /// What it was made by.
    pub kind: ListKind,
    /// What was found.
    pub hits: Vec<(Key, f64)>,
}

/// How much an answer may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// The most memories.
    pub limit: usize,
    /// The most memories of one scope. Without it an early scope that matches a little would leave no room for a later one that matches
    /// well.
    pub per_scope: usize,
    /// From 0 to 1: a memory all of whose scores are less than this share of the best score of the same kind in its scope is left out.
    /// The strict order would put a temporary memory that shares one common word before the permanent one that was asked for. 0: none
    /// is left out for that.
    pub floor: f64,
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

impl Default for Budget {
    /// Twenty memories, ten of each scope, of at least 40 % of its best score, in 2,000 tokens.
    fn default() -> Self {
        Self { limit: 20, per_scope: 10, floor: 0.4, tokens: 2000 }
    }
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

/// Chooses from `candidates`. The lists of one scope are fused. A candidate that no list of its scope names
/// is left out as [`Out::Weak`].
///
/// The same candidate may occur several times, found in different scopes: it is taken where it comes first.
#[must_use]
pub fn rank(candidates: &[Candidate], lists: &[List], budget: Budget) -> Ranking {
    let strong = strong(lists, budget.floor);
    let mut of_scope: BTreeMap<&str, Vec<Vec<Key>>> = BTreeMap::new();
    for list in lists {
        of_scope.entry(list.scope).or_default().push(list.hits.iter().map(|(key, _)| key.clone()).collect());
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
    let mut texts: HashSet<String> = HashSet::new();
    let mut of_scope: HashMap<&str, usize> = HashMap::new();
    for (index, candidate, score) in order {
        let text = normal(&candidate.text);
        let needed = tokens(&candidate.text);
        let out = match candidate.withheld {
            Some(out) => Some(out),
            None if memories.contains(&candidate.key) => Some(Out::SameMemory),
            None if !strong.contains(&(candidate.tier.scope(), &candidate.key)) => Some(Out::Weak),
            None if texts.contains(&text) => Some(Out::SameText),
            None if ranking.chosen.len() >= budget.limit => Some(Out::Limit),
            None if of_scope.get(candidate.tier.scope()).is_some_and(|taken| *taken >= budget.per_scope)
                || budget.per_scope == 0 =>
            {
                Some(Out::ScopeLimit)
            }
            None if ranking.tokens.saturating_add(needed) > budget.tokens => Some(Out::Budget),
            None => None,
        };
        let verdict = match out {
            Some(out) => Verdict::Out(out),
            None => {
                memories.insert(&candidate.key);
                texts.insert(text);
                *of_scope.entry(candidate.tier.scope()).or_default() += 1;
                ranking.tokens += needed;
                ranking.chosen.push(index);
                Verdict::In(ranking.chosen.len() - 1)
            }
        };
        ranking.explained.push(Explained { key: candidate.key.clone(), tier: candidate.tier, score, verdict });
    }
    ranking
}

/// What has a score of at least `floor` of the best of its scope and kind.
fn strong(lists: &[List], floor: f64) -> BTreeSet<(&str, &Key)> {
    let mut best: BTreeMap<(&str, ListKind), f64> = BTreeMap::new();
    for list in lists {
        let of_list = list.hits.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
        let best = best.entry((list.scope, list.kind)).or_insert(f64::NEG_INFINITY);
        *best = best.max(of_list);
    }
    let mut strong = BTreeSet::new();
    for list in lists {
        let best = best.get(&(list.scope, list.kind)).copied().unwrap_or_default();
        // If even the best is not like the query at all, nothing is weaker than another.
        let least = if best > 0.0 { best * floor.clamp(0.0, 1.0) } else { f64::NEG_INFINITY };
        strong.extend(list.hits.iter().filter(|(_, score)| *score >= least).map(|(key, _)| (list.scope, key)));
    }
    strong
}

/// The text as it is compared with others: lower case, with single spaces, without the signs at its end.
fn normal(text: &str) -> String {
    let words = text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ");
    words.trim_end_matches(['.', '!', '?', ' ']).to_owned()
}
