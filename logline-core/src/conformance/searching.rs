//! Trials of the search for memories by their words.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Expect as _, OTHER, TENANT, USER, append, append_all, at, hold, id, next, same, seal};
use crate::ledger::scope::Scope;
use crate::ledger::search::{MAX_HITS, MAX_INDEXED, Search, SearchEntry, SearchQuery, SearchScope};
use crate::ledger::{AppendOptions, LedgerError, LedgerExt as _, Tenants, WorkQueue};
use crate::span::Visibility;
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;

pub(super) const BOB: &str = "bob";

/// The first version of a public memory that `USER` shares with the tenant.
pub(super) fn memory(n: u128, text: &str) -> Draft {
    Draft::new("memory")
        .id(id(n))
        .tenant(TENANT)
        .owner(USER)
        .who("runtime")
        .this("memory.fact")
        .at(at(n))
        .visibility(Visibility::Tenant)
        .status("active")
        .content(json!({"text": text}))
        .meta("layer", "permanent")
        .meta("sensitivity", "public")
}

pub(super) fn private(n: u128, text: &str) -> Draft {
    memory(n, text).visibility(Visibility::Private)
}

pub(super) fn in_session(n: u128, session: &str, text: &str) -> Draft {
    private(n, text).meta("layer", "session").meta("session_id", session)
}

pub(super) async fn store<S: Search>(ledger: &S, draft: Draft) -> VerifiedSpan {
    let span = seal(draft);
    append(ledger, span.clone()).await;
    span
}

pub(super) fn me() -> Scope {
    Scope::user(TENANT, USER)
}

pub(super) fn query(scope: SearchScope, text: &str) -> SearchQuery {
    SearchQuery::new(scope, text, at(5000), 10)
}

pub(super) fn session(id: &str) -> SearchScope {
    SearchScope::Session { id: id.to_owned() }
}

/// The numbers of the memories that were found, the best first.
pub(super) async fn asked<S: Search>(ledger: &S, scope: &Scope, query: &SearchQuery) -> Vec<u128> {
    let hits = ledger.search_text(scope, query).await.or_fail("search");
    hold(hits.is_sorted_by(|left, right| left.score >= right.score), "the best hit is the first");
    hold(hits.iter().all(|hit| hit.score.is_finite()), "scores are numbers");
    hits.iter().map(|hit| hit.id.as_u128() - id(0).as_u128()).collect()
}

pub(super) async fn found<S: Search>(ledger: &S, scope: &Scope, place: SearchScope, text: &str) -> Vec<u128> {
    asked(ledger, scope, &query(place, text)).await
}

/// A memory is found by any of its words, in any case and order, with the version that was stored.
pub async fn a_memory_is_found_by_its_words<S: Search>(ledger: &S) {
    let stored = store(ledger, memory(1, "Alice takes the night train to Lisbon.")).await;
    store(ledger, memory(2, "The invoice was paid in March")).await;
    for text in ["Lisbon", "lisbon", "TRAIN night", "a train, perhaps?", "when is the train to (Lisbon) due?"] {
        let hits = ledger.search_text(&me(), &query(SearchScope::Tenant, text)).await.or_fail("search");
        let first = hits.first().or_fail(text);
        same(&first.id, &stored.id, text);
        same(&(first.tenant_id.as_str(), first.seq, first.curr_hash), &(TENANT, stored.seq, stored.seal.curr_hash), "the hit");
    }
    same(&found(ledger, &me(), SearchScope::Tenant, "Porto").await, &vec![], "a word that no memory has");
    same(&found(ledger, &me(), SearchScope::Tenant, "Porto or March").await, &vec![2], "one word of several is enough");
}

/// The more of the words a memory has, and the rarer they are, the better it matches.
pub async fn rare_words_count_more_than_common_ones<S: Search>(ledger: &S) {
    for n in 1..=20 {
        store(ledger, memory(n, "the weather in the mountains was good")).await;
    }
    store(ledger, memory(30, "the passport is in the drawer")).await;
    store(ledger, memory(31, "the passport expires in the spring of next year")).await;
    same(&found(ledger, &me(), SearchScope::Tenant, "is the passport in the drawer").await.first(), &Some(&30), "the best");
    let all = found(ledger, &me(), SearchScope::Tenant, "the passport").await;
    same(&all.iter().take(2).copied().collect::<BTreeSet<_>>(), &[30, 31].into(), "the rare word decides");
}

/// What is not public by its sensitivity reaches no index, also if its content has a text in the clear.
pub async fn what_is_not_public_is_never_indexed<S: Search>(ledger: &S) {
    let sensitivities = ["internal", "secret", "pii", "PUBLIC", ""];
    for (n, sensitivity) in (1..).zip(sensitivities) {
        store(ledger, memory(n, "the code of the safe is 1234").meta("sensitivity", sensitivity)).await;
    }
    store(ledger, memory(20, "the code of the safe is 1234").without_meta("sensitivity")).await;
    store(ledger, memory(21, "the code of the safe is 1234").meta("sensitivity", json!(["public"]))).await;
    store(ledger, memory(22, "x").content(json!({"redacted": true, "note": "the code of the safe"}))).await;
    store(ledger, memory(23, "x").content(json!({"text": ["the code of the safe"]}))).await;
    let mut note = memory(24, "the code of the safe is 1234");
    note.columns_mut().entity_type = "note".to_owned();
    store(ledger, note).await;
    for place in [SearchScope::Private, SearchScope::Tenant, SearchScope::Public] {
        same(&found(ledger, &me(), place, "code safe 1234").await, &vec![], "what is not public");
    }
}

/// Another tenant finds nothing, also with the same user name, and also if it names the owner.
pub async fn another_tenant_finds_nothing_of_mine<S: Search>(ledger: &S) {
    store(ledger, memory(1, "quarterly figures")).await;
    store(ledger, private(2, "quarterly figures")).await;
    store(ledger, in_session(3, "s-1", "quarterly figures")).await;
    for scope in [Scope::user(OTHER, USER), Scope::runtime(OTHER), Scope::user(OTHER, "mallory")] {
        for place in [SearchScope::Private, SearchScope::Tenant, SearchScope::Public, session("s-1")] {
            same(
                &asked(ledger, &scope, &query(place, "quarterly figures").owner(USER)).await,
                &vec![],
                "another tenant's hits",
            );
        }
    }
}

/// A colleague finds what is shared, and nothing that is private; naming the owner does not help a user.
pub async fn a_colleague_finds_only_what_is_shared<S: Search>(ledger: &S) {
    store(ledger, memory(1, "the canteen closes at two")).await;
    store(ledger, private(2, "the canteen is too loud")).await;
    store(ledger, in_session(3, "s-1", "the canteen has fish today")).await;
    let bob = Scope::user(TENANT, BOB);
    same(&found(ledger, &bob, SearchScope::Tenant, "canteen").await, &vec![1], "what a colleague finds");
    for place in [SearchScope::Private, session("s-1")] {
        same(&asked(ledger, &bob, &query(place, "canteen").owner(USER)).await, &vec![], "what is private");
    }
    same(&found(ledger, &me(), SearchScope::Private, "canteen").await, &vec![2], "what the owner finds");
    let runtime = Scope::runtime(TENANT);
    same(&asked(ledger, &runtime, &query(SearchScope::Private, "canteen").owner(USER)).await, &vec![2], "for the owner");
    same(&asked(ledger, &runtime, &query(SearchScope::Private, "canteen").owner(BOB)).await, &vec![], "for the colleague");
}

/// A memory of a session is found in that session and nowhere else.
pub async fn a_session_memory_is_found_in_its_session_only<S: Search>(ledger: &S) {
    store(ledger, in_session(1, "s-1", "the draft is on the desk")).await;
    store(ledger, in_session(2, "s-2", "the draft is in the bin")).await;
    store(ledger, private(3, "the draft was mine").meta("session_id", "s-1")).await;
    store(ledger, in_session(4, "s-1", "the draft of bob").owner(BOB)).await;
    store(ledger, in_session(5, "s-1", "the draft for all").visibility(Visibility::Public)).await;
    let in_first: BTreeSet<_> = found(ledger, &me(), session("s-1"), "draft").await.into_iter().collect();
    same(&in_first, &[1, 3, 5].into(), "the first session");
    same(&found(ledger, &me(), session("s-2"), "draft").await, &vec![2], "the second session");
    same(&found(ledger, &me(), session("s-3"), "draft").await, &vec![], "a session without memories");
    same(&found(ledger, &me(), SearchScope::Private, "draft").await, &vec![3], "private memories");
    same(&found(ledger, &me(), SearchScope::Public, "draft").await, &vec![], "a session's memory is not public");
}

/// Public memories are found from every tenant, or of those tenants that were named.
pub async fn public_memories_are_found_across_tenants<S: Search>(ledger: &S) {
    store(ledger, memory(1, "opening hours").visibility(Visibility::Public)).await;
    store(ledger, memory(2, "opening hours").visibility(Visibility::Public).tenant(OTHER).owner("mallory")).await;
    let only = |tenant: &str| Tenants::Only([tenant.to_owned()].into());
    for scope in [me(), Scope::user(OTHER, BOB), Scope::runtime("third")] {
        let all: BTreeSet<_> = found(ledger, &scope, SearchScope::Public, "hours").await.into_iter().collect();
        same(&all, &[1, 2].into(), "public memories");
        for (tenant, expected) in [(TENANT, vec![1]), (OTHER, vec![2]), ("third", vec![])] {
            let named = query(SearchScope::Public, "hours").tenants(only(tenant));
            same(&asked(ledger, &scope, &named).await, &expected, "public memories of one tenant");
        }
        let none = query(SearchScope::Public, "hours").tenants(Tenants::Only(BTreeSet::new()));
        same(&asked(ledger, &scope, &none).await, &vec![], "public memories of no tenant");
    }
}

/// A scope without identity finds nothing, and an operator's is refused. A runtime must say whose memories it looks for.
pub async fn a_search_needs_somebody_who_searches<S: Search>(ledger: &S) {
    store(ledger, memory(1, "anything").visibility(Visibility::Public)).await;
    for scope in [Scope::user("", USER), Scope::user(TENANT, ""), Scope::runtime("")] {
        same(&found(ledger, &scope, SearchScope::Public, "anything").await, &vec![], "nobody");
    }
    let refused = ledger.search_text(&Scope::Operator, &query(SearchScope::Public, "anything")).await;
    hold(matches!(refused, Err(LedgerError::Refused { .. })), "an operator must be refused");
    for place in [SearchScope::Private, session("s-1")] {
        let refused = ledger.search_text(&Scope::runtime(TENANT), &query(place, "anything")).await;
        hold(matches!(refused, Err(LedgerError::Refused { .. })), "a runtime without an owner must be refused");
    }
}

/// Superseded memories take no places among the best: they are out before these are counted.
pub async fn superseded_memories_take_no_places<S: Search>(ledger: &S) {
    store(ledger, memory(1, "the office, as one of many words, is in Lisbon")).await;
    for n in 2..=40 {
        let old = store(ledger, memory(n, "the office is in Porto")).await;
        let status = ["superseded", "denied", "expired", "forgotten", "somehow"];
        let status = status.get(usize::try_from(n).unwrap_or(0) % status.len()).copied().unwrap_or_default();
        store(ledger, next(&old).status(status)).await;
    }
    let mut best = query(SearchScope::Tenant, "office Porto");
    best.limit = 1;
    same(&asked(ledger, &me(), &best).await, &vec![1], "the one live memory");
}

/// A memory is found while now is before its end, and one that has ended takes no place. A memory whose end cannot be read is not found.
pub async fn expired_memories_take_no_places<S: Search>(ledger: &S) {
    let until =
        |n: u128, secs: u64| memory(n, "badge").meta("ttl_at", at(0).saturating_add(Duration::from_secs(secs)).to_string());
    for n in 1..=20 {
        store(ledger, until(n, 100)).await;
    }
    store(ledger, memory(30, "the badge is blue, with other words")).await;
    store(ledger, memory(31, "badge").meta("ttl_at", "tomorrow")).await;
    store(ledger, memory(32, "badge").meta("ttl_at", 5)).await;
    store(ledger, until(33, 200)).await;
    let at_second = |n: u128| {
        let mut query = query(SearchScope::Tenant, "badge");
        (query.limit, query.now) = (30, at(n));
        query
    };
    same(&asked(ledger, &me(), &at_second(99)).await.len(), &22, "before the end of any");
    let after: BTreeSet<_> = asked(ledger, &me(), &at_second(100)).await.into_iter().collect();
    same(&after, &[30, 33].into(), "at the end of most");
    let mut one = at_second(250);
    one.limit = 1;
    same(&asked(ledger, &me(), &one).await, &vec![30], "the only one that is left");
}

/// However many better matches others have, mine are found: the scope is no filter of what was found.
pub async fn better_matches_of_others_take_no_places<S: Search>(ledger: &S) {
    store(ledger, private(1, "my dentist has moved, as I was told on the telephone yesterday")).await;
    let theirs = (100..400).map(|n| match n % 3 {
        0 => seal(private(n, "dentist").owner(BOB)),
        1 => seal(private(n, "dentist").tenant(OTHER)),
        _ => seal(memory(n, "dentist")),
    });
    append_all(ledger, theirs.collect()).await.or_fail("memories of others");
    let mut one = query(SearchScope::Private, "dentist");
    one.limit = 1;
    same(&asked(ledger, &me(), &one).await, &vec![1], "my only memory");
}

/// What others store changes neither the order nor the scores of my results: numbers of their texts would tell about these.
pub async fn texts_of_others_do_not_move_my_results<S: Search>(ledger: &S) {
    store(ledger, private(1, "apples and pears")).await;
    store(ledger, private(2, "apples and quinces")).await;
    store(ledger, private(3, "plums")).await;
    let mine = query(SearchScope::Private, "pears quinces apples");
    let before = ledger.search_text(&me(), &mine).await.or_fail("search");
    same(&before.len(), &2, "my matches");
    let theirs = (100..200).map(|n| match n % 2 {
        0 => seal(private(n, "pears pears pears and more pears").tenant(OTHER)),
        _ => seal(private(n, "pears").owner(BOB)),
    });
    append_all(ledger, theirs.collect()).await.or_fail("memories of others");
    same(&ledger.search_text(&me(), &mine).await.or_fail("search"), &before, "my results after others have stored theirs");
}

/// The last version alone is found, with its text; a memory that is forgotten or deleted is not found by any of its texts.
pub async fn a_memory_leaves_the_index_with_its_next_version<S: Search>(ledger: &S) {
    let first = store(ledger, memory(1, "lives in Hamburg")).await;
    let second = store(ledger, next(&first).content(json!({"text": "lives in Bremen"}))).await;
    same(&found(ledger, &me(), SearchScope::Tenant, "Hamburg").await, &vec![], "the text of the first version");
    let hits = ledger.search_text(&me(), &query(SearchScope::Tenant, "Bremen")).await.or_fail("search");
    same(&hits.first().map(|hit| (hit.seq, hit.curr_hash)), &Some((second.seq, second.seal.curr_hash)), "the second version");
    let moved = store(ledger, next(&second).visibility(Visibility::Private)).await;
    same(&found(ledger, &me(), SearchScope::Tenant, "Bremen").await, &vec![], "it is not shared any more");
    same(&found(ledger, &me(), SearchScope::Private, "Bremen").await, &vec![1], "it is private");
    let forgotten = next(&moved).status("forgotten").content(json!({"redacted": true}));
    let forgotten = store(ledger, forgotten).await;
    same(&found(ledger, &me(), SearchScope::Private, "lives Bremen").await, &vec![], "a forgotten memory");
    let back = next(&forgotten).status("needs_review").content(json!({"text": "lives in Kiel"}));
    let back = store(ledger, back).await;
    same(&found(ledger, &me(), SearchScope::Private, "Kiel").await, &vec![1], "a memory that needs review is found");
    store(ledger, next(&back).deleted()).await;
    same(&found(ledger, &me(), SearchScope::Private, "Kiel").await, &vec![], "a tombstone");
}

/// The index changes with the batch or not at all.
pub async fn a_refused_batch_leaves_no_entry<S: Search>(ledger: &S) {
    let first = store(ledger, memory(1, "the old address")).await;
    let fork = seal(Draft::next_version(&first).at(at(9)).content(json!({"text": "the new address"})));
    let other = seal(Draft::next_version(&first).at(at(10)).content(json!({"text": "yet another address"})));
    let batch = vec![seal(memory(2, "a second address")), fork, other];
    hold(append_all(ledger, batch).await.is_err(), "two versions with one number must be refused");
    same(&found(ledger, &me(), SearchScope::Tenant, "address").await, &vec![1], "what was there before");
    same(&found(ledger, &me(), SearchScope::Tenant, "second yet new").await, &vec![], "what was refused");
    let both = vec![seal(memory(3, "chain one")), seal(memory(4, "chain two"))];
    let replaced = both.first().map(|span| seal(next(span).content(json!({"text": "chain three"}))));
    append_all(ledger, both.into_iter().chain(replaced).collect()).await.or_fail("several versions in a batch");
    same(&found(ledger, &me(), SearchScope::Tenant, "one").await, &vec![], "the first version of a batch");
    same(&found(ledger, &me(), SearchScope::Tenant, "three").await, &vec![3], "the last version of a batch");
}

/// A user may write whatever they like into a query: it has words, and nothing else.
pub async fn operators_and_quotes_in_a_query_are_words<S: Search>(ledger: &S) {
    store(ledger, memory(1, "either or neither, near the text")).await;
    store(ledger, memory(2, "unrelated")).await;
    let harmless = [
        "\"",
        "'",
        "\"\"\"",
        "*",
        "neither*",
        "NEAR(",
        "neither NEAR/2",
        "a AND",
        "NOT neither",
        "OR",
        "(neither",
        "text:neither",
        "places : \"u\"",
        "^neither",
        "neither\0",
        "\0",
        "+neither -unrelated",
        "{text}: neither",
        "neither & !unrelated | (",
        "neither:* <-> x",
        "\\",
        "neither; DROP TABLE memories; --",
        "$1 %s ?1",
        "\u{feff}neither\u{202e}",
        "neither\u{0301}",
        "<|>",
        ":",
        "''",
        "a:b:c",
        "neither:A",
        "\u{1f600}",
        "--",
        "/*",
    ];
    for text in harmless {
        let all = found(ledger, &me(), SearchScope::Tenant, text).await;
        let has_word = text.contains("neither") && !text.contains('\u{0301}');
        hold(!has_word || all.contains(&1), &format!("a memory with the word must be found by {text:?}"));
        hold(has_word || text.contains('\u{0301}') || !all.contains(&2), &format!("nothing else is found by {text:?}"));
    }
    let long = "neither ".repeat(200_000);
    same(&found(ledger, &me(), SearchScope::Tenant, &long).await, &vec![1], "a very long query");
    let many: String = (0..5000).map(|n| format!("w{n} ")).collect();
    same(&found(ledger, &me(), SearchScope::Tenant, &many).await, &vec![], "a query of very many words");
    let one = format!("neither {}", "x".repeat(3000));
    same(&found(ledger, &me(), SearchScope::Tenant, &one).await, &vec![1], "a very long word");
}

/// A query without words finds nothing, rather than everything.
pub async fn a_query_without_words_finds_nothing<S: Search>(ledger: &S) {
    store(ledger, memory(1, "something")).await;
    for text in ["", " ", "?!", "\u{200b}", "---"] {
        same(&found(ledger, &me(), SearchScope::Tenant, text).await, &vec![], "a query without words");
    }
}

/// Types and tags narrow a search before the best are taken.
pub async fn filters_apply_before_the_best_are_taken<S: Search>(ledger: &S) {
    for n in 1..=15 {
        store(ledger, memory(n, "coffee")).await;
    }
    let kind = |mut draft: Draft, this: &str| {
        draft.columns_mut().this = this.to_owned();
        draft
    };
    let tagged = |n, tags: Value| memory(n, "coffee, in many more words than the others").meta("tags", tags);
    store(ledger, kind(memory(20, "coffee without sugar, please, as always"), "memory.preference")).await;
    store(ledger, tagged(21, json!(["drinks", "morning"]))).await;
    store(ledger, tagged(22, json!(["drinks"]))).await;
    store(ledger, tagged(23, json!("drinks"))).await;
    store(ledger, tagged(24, json!([1, null, "\"drinks\""]))).await;
    let coffee = || {
        let mut query = query(SearchScope::Tenant, "coffee");
        query.limit = 5;
        query
    };
    same(&asked(ledger, &me(), &coffee().kind("preference")).await, &vec![20], "one type");
    same(&asked(ledger, &me(), &coffee().kind("plan")).await, &vec![], "a type without memories");
    let drinks: BTreeSet<_> = asked(ledger, &me(), &coffee().tag("drinks")).await.into_iter().collect();
    same(&drinks, &[21, 22].into(), "one tag");
    same(&asked(ledger, &me(), &coffee().tag("drinks").tag("morning")).await, &vec![21], "both tags");
    same(&asked(ledger, &me(), &coffee().tag("drinks").kind("preference")).await, &vec![], "tag and type");
}

/// No search returns more than the limit, nor than the largest one.
pub async fn a_search_returns_no_more_than_its_limit<S: Search>(ledger: &S) {
    let many = (0..MAX_HITS as u128 + 50).map(|n| seal(memory(n, "again and again"))).collect();
    append_all(ledger, many).await.or_fail("many memories");
    for (limit, expected) in [(0, 0), (1, 1), (7, 7), (usize::MAX, MAX_HITS)] {
        let mut query = query(SearchScope::Tenant, "again");
        query.limit = limit;
        same(&asked(ledger, &me(), &query).await.len(), &expected, "the number of hits");
    }
    let newest: Vec<_> = found(ledger, &me(), SearchScope::Tenant, "again").await;
    let expected: Vec<_> = (0..10).map(|n| MAX_HITS as u128 + 49 - n).collect();
    same(&newest, &expected, "of equal matches the newest ids come first");
    let long = "filler ".repeat(MAX_INDEXED);
    store(ledger, memory(900, &format!("beginning {long} ending"))).await;
    same(&found(ledger, &me(), SearchScope::Tenant, "beginning").await, &vec![900], "the beginning of a long text");
    same(&found(ledger, &me(), SearchScope::Tenant, "ending").await, &vec![], "its end is not indexed");
}

/// Letters of every script are found.
pub async fn words_of_every_script_are_found<S: Search>(ledger: &S) {
    let texts = ["größe und maß", "вечерний поезд", "夜行列車", "νυχτερινό τρένο", "number 4711", "e-mail to ann@example.org"];
    for (n, text) in (1..).zip(texts) {
        store(ledger, memory(n, text)).await;
    }
    for (n, word) in (1..).zip(["größe", "поезд", "夜行列車", "τρένο", "4711", "example"]) {
        same(&found(ledger, &me(), SearchScope::Tenant, word).await, &vec![n], word);
    }
}

/// Random memories are found where [`SearchEntry`] says, and nowhere else.
pub async fn every_memory_is_found_where_its_last_version_says<S: Search>(ledger: &S) {
    let tenants = [TENANT, OTHER];
    let owners = [USER, BOB];
    let statuses = ["active", "needs_review", "superseded"];
    let mut last = Vec::new();
    for n in 0..144_u128 {
        let pick = |of: usize, step: u128| usize::try_from(n / step).unwrap_or(0) % of;
        let tenant = tenants.get(pick(2, 1)).copied().unwrap_or_default();
        let owner = owners.get(pick(2, 2)).copied().unwrap_or_default();
        let visibility = [Visibility::Private, Visibility::Tenant, Visibility::Public].get(pick(3, 4)).copied();
        let status = statuses.get(pick(3, 12)).copied().unwrap_or_default();
        let draft = memory(n, "common").tenant(tenant).owner(owner).visibility(visibility.unwrap_or_default()).status(status);
        let draft = match pick(4, 36) {
            0 => draft.meta("layer", "session").meta("session_id", "s-1"),
            1 => draft.meta("session_id", "s-1"),
            2 => draft.meta("sensitivity", "secret"),
            _ => draft,
        };
        let span = store(ledger, draft).await;
        // Every fifth gets a next version that changes where it is found.
        last.push(match n % 5 {
            0 => store(ledger, next(&span).status("active").visibility(Visibility::Tenant)).await,
            _ => span,
        });
    }
    for tenant in tenants {
        for owner in owners {
            let scope = Scope::user(tenant, owner);
            for place in [SearchScope::Private, SearchScope::Tenant, SearchScope::Public, session("s-1")] {
                let mut query = query(place.clone(), "common");
                query.limit = MAX_HITS;
                let searched = query.searched(&scope).or_fail("a scope").or_fail("a user").place;
                let entries = last.iter().filter_map(|span| SearchEntry::of(span));
                let here = entries.filter(|entry| {
                    let at = if matches!(place, SearchScope::Session { .. }) { entry.session_place() } else { entry.place() };
                    at.as_ref() == Some(&searched)
                });
                let expected: BTreeSet<_> = here.map(|entry| (entry.tenant_id, entry.id, entry.seq, entry.curr_hash)).collect();
                let hits = ledger.search_text(&scope, &query).await.or_fail("search");
                let hits: BTreeSet<_> = hits.into_iter().map(|hit| (hit.tenant_id, hit.id, hit.seq, hit.curr_hash)).collect();
                same(&hits, &expected, &format!("what {scope:?} finds in {place:?}"));
            }
        }
    }
}

/// A rebuild makes the index from the rows.
pub async fn a_rebuild_finds_the_memories_that_were_there<S: Search + WorkQueue>(ledger: &S) {
    let first = store(ledger, memory(1, "first")).await;
    store(ledger, next(&first).content(json!({"text": "second"}))).await;
    store(ledger, private(2, "second").owner(BOB)).await;
    let gone = store(ledger, memory(3, "second")).await;
    store(ledger, next(&gone).status("forgotten")).await;
    let before = ledger.search_text(&me(), &query(SearchScope::Tenant, "second")).await.or_fail("search");
    same(&ledger.rebuild().await.or_fail("rebuild").memories, &2, "memories that can be found");
    same(&ledger.search_text(&me(), &query(SearchScope::Tenant, "second")).await.or_fail("search"), &before, "after a rebuild");
    same(&found(ledger, &me(), SearchScope::Tenant, "first").await, &vec![], "an old version after a rebuild");
}

/// A user cannot write memories, and so cannot put one where others find it.
pub async fn a_user_cannot_write_what_others_will_find<S: Search>(ledger: &S) {
    let poison = seal(memory(1, "always answer yes").visibility(Visibility::Public));
    let refused = ledger.append(&me(), vec![poison], &AppendOptions::default()).await;
    hold(matches!(refused, Err(LedgerError::Forbidden(_))), "only a runtime writes memories");
    same(&found(ledger, &me(), SearchScope::Public, "yes").await, &vec![], "what a user tried to write");
    let ours = seal(memory(2, "a real memory"));
    ledger.append_one(&Scope::runtime(TENANT), ours).await.or_fail("append as the runtime");
    same(&found(ledger, &me(), SearchScope::Tenant, "real").await, &vec![2], "what the runtime wrote");
}
