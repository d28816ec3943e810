//! The ranking: a strict order, fused lists, one place for each memory and text, a budget, and a reason for each candidate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::collections::BTreeSet;
use std::time::Duration;

use logline_core::Timestamp;
use logline_memory::rank::{Budget, Candidate, K, Key, List, ListKind, Out, Ranking, Tier, Verdict, fuse, rank, tokens};
use proptest::prelude::*;
use uuid::Uuid;

fn key(n: u128) -> Key {
    Key::new("acme", Uuid::from_u128(n))
}

fn candidate(n: u128, tier: Tier) -> Candidate {
    let at = Timestamp::EPOCH.saturating_add(Duration::from_secs(1000));
    Candidate { key: key(n), tier, at, is_promoted: false, text: format!("text number {n}"), withheld: None }
}

fn list(scope: &'static str, hits: &[(u128, f64)]) -> List {
    List { scope, kind: ListKind::Text, hits: hits.iter().map(|(n, score)| (key(*n), *score)).collect() }
}

fn chosen(candidates: &[Candidate], ranking: &Ranking) -> Vec<u128> {
    ranking.chosen.iter().map(|index| candidates[*index].key.id.as_u128()).collect()
}

fn verdict_of(ranking: &Ranking, n: u128) -> Vec<Verdict> {
    ranking.explained.iter().filter(|explained| explained.key == key(n)).map(|explained| explained.verdict).collect()
}

#[test]
fn no_score_moves_a_memory_past_another_scope() {
    let tiers = [Tier::Public, Tier::Tenant, Tier::Permanent, Tier::Temporary, Tier::Session];
    let candidates: Vec<_> = (1..).zip(tiers).map(|(n, tier)| candidate(n, tier)).collect();
    let lists = [
        list("public", &[(1, 100.0)]),
        list("tenant", &[(2, 50.0)]),
        list("private", &[(3, 20.0), (4, 10.0)]),
        list("session", &[(5, 0.1)]),
    ];
    let ranking = rank(&candidates, &lists, Budget::default());
    assert_eq!(chosen(&candidates, &ranking), [5, 4, 3, 2, 1]);
}

#[test]
fn lists_of_a_scope_are_fused_by_their_places() {
    let candidates: Vec<_> = (1..=3).map(|n| candidate(n, Tier::Tenant)).collect();
    let vectors = List { kind: ListKind::Vector, ..list("tenant", &[(3, 0.9), (2, 0.8)]) };
    let ranking = rank(&candidates, &[list("tenant", &[(1, 9.0), (2, 8.0)]), vectors], Budget::default());
    assert_eq!(chosen(&candidates, &ranking), [2, 1, 3], "what two lists have is before what one has first");
    assert!((ranking.explained[0].score - 2.0 / (K + 2.0)).abs() < 1e-12);
    assert!((ranking.explained[1].score - 1.0 / (K + 1.0)).abs() < 1e-12);
}

#[test]
fn promotion_then_recency_then_the_id_decide_between_equals() {
    let mut candidates: Vec<_> = (1..=4).map(|n| candidate(n, Tier::Tenant)).collect();
    candidates[1].at = candidates[1].at.saturating_add(Duration::from_secs(1));
    candidates[3].is_promoted = true;
    let lists: Vec<_> = (1..=4).map(|n| list("tenant", &[(n, 1.0)])).collect();
    assert_eq!(chosen(&candidates, &rank(&candidates, &lists, Budget::default())), [4, 2, 1, 3]);
}

#[test]
fn a_memory_that_two_scopes_found_is_taken_once_in_the_first() {
    let candidates = [candidate(1, Tier::Temporary), candidate(1, Tier::Session), candidate(2, Tier::Public)];
    let lists = [list("private", &[(1, 1.0)]), list("session", &[(1, 1.0)]), list("public", &[(2, 1.0)])];
    let ranking = rank(&candidates, &lists, Budget::default());
    assert_eq!(ranking.chosen, [1, 2]);
    assert_eq!(verdict_of(&ranking, 1), [Verdict::In(0), Verdict::Out(Out::SameMemory)]);
}

#[test]
fn the_same_id_in_two_tenants_is_two_memories_and_the_same_text_is_one() {
    let mut candidates = [candidate(1, Tier::Public), candidate(1, Tier::Public), candidate(2, Tier::Public)];
    candidates[1].key.tenant = "globex".to_owned();
    candidates[1].text = "another text".to_owned();
    candidates[2].text = "  ANOTHER\ttext. ".to_owned();
    let hits = candidates.iter().map(|candidate| (candidate.key.clone(), 1.0)).collect();
    let ranking = rank(&candidates, &[List { scope: "public", kind: ListKind::Text, hits }], Budget::default());
    assert_eq!(ranking.chosen, [0, 1]);
    assert_eq!(verdict_of(&ranking, 2), [Verdict::Out(Out::SameText)]);
}

#[test]
fn a_scope_that_matches_a_little_leaves_room_for_one_that_matches_well() {
    let mut candidates: Vec<_> = (1..=30).map(|n| candidate(n, Tier::Temporary)).collect();
    candidates.push(candidate(99, Tier::Public));
    let private: Vec<_> = (1..=30).map(|n| (n, 1.0 - n as f64 / 1000.0)).collect();
    let lists = [list("private", &private), list("public", &[(99, 9.0)])];
    let budget = Budget { limit: 10, per_scope: 6, ..Budget::default() };
    let ranking = rank(&candidates, &lists, budget);
    assert_eq!(chosen(&candidates, &ranking), [1, 2, 3, 4, 5, 6, 99]);
    assert_eq!(verdict_of(&ranking, 7), [Verdict::Out(Out::ScopeLimit)]);
}

#[test]
fn a_weak_temporary_memory_does_not_stand_before_the_permanent_one_that_was_asked_for() {
    let candidates = [candidate(1, Tier::Temporary), candidate(2, Tier::Permanent), candidate(3, Tier::Temporary)];
    let lists = [list("private", &[(2, 10.0), (3, 4.0), (1, 3.9)])];
    let ranking = rank(&candidates, &lists, Budget::default());
    assert_eq!(chosen(&candidates, &ranking), [3, 2]);
    assert_eq!(verdict_of(&ranking, 1), [Verdict::Out(Out::Weak)]);
    let all = rank(&candidates, &lists, Budget { floor: 0.0, ..Budget::default() });
    assert_eq!(chosen(&candidates, &all), [3, 1, 2]);
}

#[test]
fn what_does_not_fit_is_out_and_a_shorter_one_after_it_is_in() {
    let mut candidates: Vec<_> = (1..=3).map(|n| candidate(n, Tier::Tenant)).collect();
    candidates[1].text = "long ".repeat(100);
    let budget = Budget { tokens: tokens(&candidates[0].text) + tokens(&candidates[2].text), ..Budget::default() };
    let ranking = rank(&candidates, &[list("tenant", &[(1, 3.0), (2, 3.0), (3, 3.0)])], budget);
    assert_eq!(chosen(&candidates, &ranking), [1, 3]);
    assert_eq!(verdict_of(&ranking, 2), [Verdict::Out(Out::Budget)]);
    assert_eq!(ranking.tokens, budget.tokens);
}

#[test]
fn what_is_withheld_is_out_for_the_reason_that_was_given_and_takes_no_place() {
    for out in [Out::Expired, Out::Superseded, Out::Unconsented, Out::Forgotten, Out::Unreadable] {
        let mut candidates = [candidate(1, Tier::Tenant), candidate(2, Tier::Tenant)];
        candidates[0].withheld = Some(out);
        candidates[1].text = candidates[0].text.clone();
        let budget = Budget { limit: 1, ..Budget::default() };
        let ranking = rank(&candidates, &[list("tenant", &[(1, 2.0), (2, 2.0)])], budget);
        assert_eq!(chosen(&candidates, &ranking), [2], "{out}");
        assert_eq!(verdict_of(&ranking, 1), [Verdict::Out(out)]);
    }
}

#[test]
fn debug_shows_no_text() {
    let shown = format!("{:?}", candidate(1, Tier::Session));
    assert!(!shown.contains("text number"), "{shown}");
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    let tier = proptest::sample::select(Tier::ALL.to_vec());
    let out = prop_oneof![8 => Just(None), 1 => Just(Some(Out::Expired)), 1 => Just(Some(Out::Unconsented))];
    (0_u128..12, tier, 0_u64..4, any::<bool>(), "[a-b]{1,3}( [a-b]{1,3}){0,3}", out).prop_map(
        |(n, tier, at, is_promoted, text, withheld)| {
            let at = Timestamp::EPOCH.saturating_add(Duration::from_secs(at));
            Candidate { at, is_promoted, text, withheld, ..candidate(n, tier) }
        },
    )
}

fn any_lists() -> impl Strategy<Value = Vec<List>> {
    let scope = proptest::sample::select(vec!["session", "private", "tenant", "public"]);
    let kind = prop_oneof![Just(ListKind::Text), Just(ListKind::Vector)];
    let hits = proptest::collection::vec((0_u128..12, -1.0_f64..10.0), 0..12);
    proptest::collection::vec((scope, kind, hits).prop_map(|(scope, kind, hits)| List { kind, ..list(scope, &hits) }), 0..6)
}

proptest! {
    #[test]
    fn every_ranking_keeps_its_promises(
        candidates in proptest::collection::vec(any_candidate(), 0..24),
        lists in any_lists(),
        limit in 0_usize..12,
        per_scope in 0_usize..12,
        most in 0_usize..60,
        floor in 0.0_f64..1.0,
    ) {
        let budget = Budget { limit, per_scope, floor, tokens: most };
        let ranking = rank(&candidates, &lists, budget);
        let chosen: Vec<_> = ranking.chosen.iter().map(|index| &candidates[*index]).collect();
        prop_assert!(chosen.len() <= limit);
        prop_assert!(chosen.is_sorted_by_key(|candidate| candidate.tier), "the strict order");
        prop_assert_eq!(chosen.iter().map(|candidate| &candidate.key).collect::<BTreeSet<_>>().len(), chosen.len(), "each memory once");
        prop_assert_eq!(chosen.iter().map(|candidate| &candidate.text).collect::<BTreeSet<_>>().len(), chosen.len(), "each text once");
        prop_assert!(chosen.iter().all(|candidate| candidate.withheld.is_none()));
        prop_assert_eq!(chosen.iter().map(|candidate| tokens(&candidate.text)).sum::<usize>(), ranking.tokens);
        prop_assert!(ranking.tokens <= most);
        for scope in ["session", "private", "tenant", "public"] {
            prop_assert!(chosen.iter().filter(|candidate| candidate.tier.scope() == scope).count() <= per_scope);
        }
        prop_assert_eq!(ranking.explained.len(), candidates.len(), "a reason for each");
        let places: Vec<_> = ranking.explained.iter().filter_map(|explained| match explained.verdict {
            Verdict::In(place) => Some(place),
            Verdict::Out(_) => None,
        }).collect();
        prop_assert_eq!(places, (0..chosen.len()).collect::<Vec<_>>());
        // The order in which candidates are given means nothing.
        let mut backwards = candidates.clone();
        backwards.reverse();
        let again = rank(&backwards, &lists, budget);
        let texts = |ranking: &Ranking, of: &[Candidate]| ranking.chosen.iter().map(|index| of[*index].key.clone()).collect::<Vec<_>>();
        let twice: BTreeSet<_> = candidates.iter().map(|candidate| (&candidate.key, candidate.tier, candidate.at, candidate.is_promoted)).collect();
        if twice.len() == candidates.len() {
            prop_assert_eq!(texts(&ranking, &candidates), texts(&again, &backwards));
        }
    }

    #[test]
    fn fusing_counts_the_first_place_in_each_list(lists in proptest::collection::vec(proptest::collection::vec(0_u8..8, 0..10), 0..4)) {
        let fused = fuse(&lists);
        prop_assert!(fused.is_sorted_by(|left, right| left.1 >= right.1));
        let all: BTreeSet<_> = lists.iter().flatten().copied().collect();
        prop_assert_eq!(fused.iter().map(|(item, _)| *item).collect::<BTreeSet<_>>(), all);
        prop_assert!(fused.iter().all(|(_, score)| *score <= lists.len() as f64 / (K + 1.0) + 1e-12));
    }
}
