//! Trials of the search for memories by vectors.

use serde_json::json;

use super::{Expect as _, OTHER, TENANT, USER, at, hold, id, next, same};
use crate::ledger::scope::Scope;
use crate::ledger::search::{InvalidVector, Search, SearchScope, Vector, VectorModel, VectorSupport};
use crate::ledger::{LedgerError, WorkQueue};
use crate::span::Visibility;
use crate::span::seal::VerifiedSpan;

use super::searching::{BOB, found, in_session, me, memory, private, query, session, store};

fn model(version: &str) -> VectorModel {
    VectorModel::new("trial", version, 3).or_fail("a model")
}

fn vector(version: &str, values: [f32; 3]) -> Vector {
    Vector::new(&model(version), values.to_vec()).or_fail("a vector")
}

async fn nearest<S: Search>(ledger: &S, scope: &Scope, place: SearchScope, to: &Vector) -> Vec<u128> {
    let hits = ledger.search_vector(scope, &query(place, ""), to).await.or_fail("search");
    hold(hits.is_sorted_by(|left, right| left.score >= right.score), "the nearest is the first");
    hits.iter().map(|hit| hit.id.as_u128() - id(0).as_u128()).collect()
}

/// The memories whose vectors have the greatest cosine are found first, whatever the length of the vectors.
pub async fn the_nearest_vectors_come_first<S: Search>(ledger: &S) {
    let runtime = Scope::runtime(TENANT);
    let vectors = [[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]];
    for (n, values) in (1..).zip(vectors) {
        let stored = store(ledger, memory(n, "text")).await;
        let scaled = vector("1", values.map(|value: f32| value * 1000.0));
        hold(ledger.put_vector(&runtime, stored.id, stored.seq, &scaled).await.or_fail("put"), "the vector of a last version");
    }
    hold(ledger.vector_support().await.or_fail("support") != VectorSupport::Missing { advice: "" }, "vectors are supported");
    same(&nearest(ledger, &me(), SearchScope::Tenant, &vector("1", [0.001, 0.0, 0.0])).await, &vec![1, 2, 3, 4], "the order");
    let mut one = query(SearchScope::Tenant, "");
    one.limit = 1;
    let hits = ledger.search_vector(&me(), &one, &vector("1", [0.0, 1.0, 0.0])).await.or_fail("search");
    same(&hits.len(), &1, "the limit");
    hold(hits.first().is_some_and(|hit| (hit.score - 1.0).abs() < 1e-5), "the score is the cosine");
}

/// A search by vector keeps to the scope, the filters and the end of memories, as one by text does.
pub async fn vectors_are_searched_within_the_scope<S: Search>(ledger: &S) {
    let near = vector("1", [1.0, 0.0, 0.0]);
    let drafts = [
        memory(1, "shared"),
        private(2, "private"),
        private(3, "of bob").owner(BOB),
        memory(4, "of another tenant").tenant(OTHER),
        in_session(5, "s-1", "of a session"),
        memory(6, "over").meta("ttl_at", at(10).to_string()),
        memory(7, "public").visibility(Visibility::Public),
        memory(8, "tagged").meta("tags", json!(["t"])),
    ];
    for draft in drafts {
        let stored = store(ledger, draft).await;
        let runtime = Scope::runtime(stored.tenant_id.clone());
        hold(ledger.put_vector(&runtime, stored.id, stored.seq, &near).await.or_fail("put"), "a last version");
    }
    same(&nearest(ledger, &me(), SearchScope::Tenant, &near).await, &vec![8, 1], "the tenant's");
    same(&nearest(ledger, &me(), SearchScope::Private, &near).await, &vec![2], "mine");
    same(&nearest(ledger, &Scope::user(TENANT, BOB), SearchScope::Private, &near).await, &vec![3], "bob's");
    same(&nearest(ledger, &me(), session("s-1"), &near).await, &vec![5], "the session's");
    same(&nearest(ledger, &Scope::user(OTHER, USER), SearchScope::Private, &near).await, &vec![], "another tenant's user");
    same(&nearest(ledger, &Scope::user(OTHER, USER), SearchScope::Public, &near).await, &vec![7], "public ones");
    let tagged = query(SearchScope::Tenant, "").tag("t");
    same(&ledger.search_vector(&me(), &tagged, &near).await.or_fail("search").len(), &1, "with a tag");
}

/// A vector belongs to one version: it goes with it, and cannot be put for one that is over, or by anybody but the tenant's runtime.
pub async fn a_vector_goes_with_its_version<S: Search>(ledger: &S) {
    let (runtime, near) = (Scope::runtime(TENANT), vector("1", [1.0, 0.0, 0.0]));
    let first = store(ledger, memory(1, "first")).await;
    hold(ledger.put_vector(&runtime, first.id, first.seq, &near).await.or_fail("put"), "the vector of a last version");
    let second = store(ledger, next(&first)).await;
    same(&nearest(ledger, &me(), SearchScope::Tenant, &near).await, &vec![], "the vector of an old version");
    hold(!ledger.put_vector(&runtime, first.id, first.seq, &near).await.or_fail("put"), "an old version has no vector");
    hold(!ledger.put_vector(&Scope::runtime(OTHER), second.id, second.seq, &near).await.or_fail("put"), "another tenant");
    hold(!ledger.put_vector(&runtime, id(77), 0, &near).await.or_fail("put"), "a memory that does not exist");
    for scope in [me(), Scope::Operator, Scope::runtime("")] {
        let refused = ledger.put_vector(&scope, second.id, second.seq, &near).await;
        hold(matches!(refused, Err(LedgerError::Refused { .. })), "only a runtime puts vectors");
    }
    hold(ledger.put_vector(&runtime, second.id, second.seq, &near).await.or_fail("put"), "the new version");
    let other = vector("1", [0.0, 1.0, 0.0]);
    hold(ledger.put_vector(&runtime, second.id, second.seq, &other).await.or_fail("put"), "in place of an earlier one");
    let hits = ledger.search_vector(&me(), &query(SearchScope::Tenant, ""), &other).await.or_fail("search");
    same(&hits.len(), &1, "one vector of a model");
    hold(hits.first().is_some_and(|hit| hit.score > 0.9), "the one that was put last");
    store(ledger, next(&second).status("forgotten")).await;
    same(&nearest(ledger, &me(), SearchScope::Tenant, &other).await, &vec![], "a forgotten memory");
    hold(
        !ledger.put_vector(&runtime, second.id, second.seq + 1, &near).await.or_fail("put"),
        "a forgotten memory takes no vector",
    );
}

/// Vectors of different models, versions and dimensions are never compared.
pub async fn vectors_of_another_model_are_not_compared<S: Search>(ledger: &S) {
    let runtime = Scope::runtime(TENANT);
    let stored = store(ledger, memory(1, "text")).await;
    let (old, new) = (vector("1", [1.0, 0.0, 0.0]), vector("2", [0.0, 1.0, 0.0]));
    let wide = VectorModel::new("trial", "1", 4).or_fail("a model");
    let wide = Vector::new(&wide, vec![1.0, 0.0, 0.0, 0.0]).or_fail("a vector");
    hold(ledger.put_vector(&runtime, stored.id, stored.seq, &old).await.or_fail("put"), "put");
    same(&nearest(ledger, &me(), SearchScope::Tenant, &new).await, &vec![], "another version of the model");
    same(&nearest(ledger, &me(), SearchScope::Tenant, &wide).await, &vec![], "another number of dimensions");
    hold(ledger.put_vector(&runtime, stored.id, stored.seq, &new).await.or_fail("put"), "put");
    hold(ledger.put_vector(&runtime, stored.id, stored.seq, &wide).await.or_fail("put"), "put");
    for vector in [&old, &new, &wide] {
        same(&nearest(ledger, &me(), SearchScope::Tenant, vector).await, &vec![1], "each model has its vector");
    }
    same(
        &Vector::new(&model("1"), vec![1.0; 4]).err(),
        &Some(InvalidVector::OtherDimensions { expected: 3, found: 4 }),
        "a vector of other dimensions",
    );
    same(&Vector::new(&model("1"), vec![0.0; 3]).err(), &Some(InvalidVector::Zero), "a vector without direction");
    same(&Vector::new(&model("1"), vec![1.0, f32::NAN, 0.0]).err(), &Some(InvalidVector::NotFinite), "not a number");
}

/// A memory that has no vector yet is pending, and is found by text meanwhile.
pub async fn a_memory_without_a_vector_is_pending_and_found_by_text<S: Search + WorkQueue>(ledger: &S) {
    let (runtime, near) = (Scope::runtime(TENANT), vector("1", [1.0, 0.0, 0.0]));
    let stored = [store(ledger, memory(1, "text")).await, store(ledger, private(2, "text").owner(BOB)).await];
    store(ledger, memory(3, "text").meta("sensitivity", "secret")).await;
    store(ledger, memory(4, "text").tenant(OTHER)).await;
    let pending = async |version: &str, after: Option<u128>, limit: usize| {
        let pending = ledger.pending(&runtime, &model(version), after.map(id), limit).await.or_fail("pending");
        pending.into_iter().map(|entry| (entry.id.as_u128() - id(0).as_u128(), entry.seq, entry.curr_hash)).collect::<Vec<_>>()
    };
    let numbered = |n: u128, span: &VerifiedSpan| (n, span.seq, span.seal.curr_hash);
    let [one, two] = &stored;
    same(&pending("1", None, 10).await, &vec![numbered(1, one), numbered(2, two)], "both wait");
    same(&pending("1", None, 1).await, &vec![numbered(1, one)], "the first page");
    same(&pending("1", Some(1), 10).await, &vec![numbered(2, two)], "the second page");
    same(&found(ledger, &me(), SearchScope::Tenant, "text").await, &vec![1], "found by text");
    hold(ledger.put_vector(&runtime, one.id, one.seq, &near).await.or_fail("put"), "put");
    same(&pending("1", None, 10).await, &vec![numbered(2, two)], "one waits");
    same(&pending("2", None, 10).await.len(), &2, "both wait for another model");
    let changed = store(ledger, next(one)).await;
    same(&pending("1", None, 1).await, &vec![numbered(1, &changed)], "another version waits again");
    let refused = ledger.pending(&me(), &model("1"), None, 10).await;
    hold(matches!(refused, Err(LedgerError::Refused { .. })), "a user does not see what is pending");
    hold(ledger.put_vector(&runtime, changed.id, changed.seq, &near).await.or_fail("put"), "put");
    ledger.rebuild().await.or_fail("rebuild");
    same(&pending("1", None, 10).await.len(), &2, "after a rebuild all wait");
}
