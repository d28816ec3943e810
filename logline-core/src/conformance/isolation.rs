//! Trials of isolation: attacks by other tenants, by other users, and by callers without identity.

use super::{Expect as _, OTHER, TENANT, USER, append, everything, fail, hold, id, next, note, same, seal};
use crate::ledger::scope::{Denied, Scope};
use crate::ledger::{AppendOptions, Ledger, LedgerError, LedgerExt as _, Query, Versions, WatchFrom};
use crate::roles::{ENTITY_TYPES, Signed};
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;
use crate::span::{SYSTEM_TENANT, Visibility};

const ALL: [Visibility; 3] = [Visibility::Private, Visibility::Tenant, Visibility::Public];

async fn sees<L: Ledger>(ledger: &L, scope: &Scope, n: u128) -> bool {
    let got = ledger.find(scope, TENANT, id(n)).await.or_fail("find").is_some();
    let history = ledger.history(scope, TENANT, id(n), 0, 10).await.or_fail("history");
    let query = Query::new().tenant(TENANT).id(id(n)).versions(Versions::All);
    let scanned = ledger.collect(scope, &query, 10).await.or_fail("scan");
    if [history.is_empty(), scanned.is_empty()] != [!got; 2] {
        fail(format_args!("get, history and scan must agree about what {scope:?} may see"));
    }
    got
}

async fn refused<L: Ledger>(ledger: &L, scope: &Scope, span: VerifiedSpan) -> Denied {
    let before = everything(ledger).await.len();
    let error = match ledger.append(scope, vec![span], &AppendOptions::default()).await {
        Err(LedgerError::Forbidden(denied)) => denied,
        other => fail(format_args!("{scope:?} must be forbidden to append, but: {other:?}")),
    };
    same(&everything(ledger).await.len(), &before, "rows after a refusal");
    error
}

/// Other tenants cannot read `private` and `tenant` rows, even if they name the tenant.
pub async fn another_tenant_cannot_read_my_rows<L: Ledger>(ledger: &L) {
    for (n, visibility) in [(1, Visibility::Private), (2, Visibility::Tenant)] {
        append(ledger, seal(note(n).visibility(visibility))).await;
        for scope in [Scope::user(OTHER, "mallory"), Scope::runtime(OTHER), Scope::runtime(SYSTEM_TENANT)] {
            hold(!sees(ledger, &scope, n).await, "another tenant must not read a row that is not public");
        }
    }
}

/// A user `alice` of one tenant is not the user `alice` of another tenant.
pub async fn the_same_user_name_in_another_tenant_is_somebody_else<L: Ledger>(ledger: &L) {
    append(ledger, seal(note(1))).await;
    hold(sees(ledger, &Scope::user(TENANT, USER), 1).await, "the owner must see the row");
    hold(!sees(ledger, &Scope::user(OTHER, USER), 1).await, "a user with the same name in another tenant must not see the row");
}

/// Another user of the same tenant reads `tenant` and `public` rows, and no `private` ones.
pub async fn a_colleague_cannot_read_my_private_rows<L: Ledger>(ledger: &L) {
    let bob = Scope::user(TENANT, "bob");
    for (n, visibility) in (1..).zip(ALL) {
        append(ledger, seal(note(n).visibility(visibility))).await;
        same(&sees(ledger, &bob, n).await, &(visibility != Visibility::Private), "whether another user of the tenant sees it");
    }
}

/// A scope with an empty user or an empty tenant reads and writes nothing.
pub async fn a_scope_without_identity_sees_and_writes_nothing<L: Ledger>(ledger: &L) {
    append(ledger, seal(note(1).visibility(Visibility::Public))).await;
    let system = Draft::new("note").id(id(2)).tenant(SYSTEM_TENANT).owner("s").who("w").this("t").at(super::at(2));
    append(ledger, seal(system.visibility(Visibility::Public))).await;
    for scope in [Scope::user(TENANT, ""), Scope::user("", USER), Scope::user("", ""), Scope::runtime("")] {
        hold(!sees(ledger, &scope, 1).await, "a scope without identity must not read a public row");
        let all = ledger.collect(&scope, &Query::timeline(), 10).await.or_fail("scan");
        hold(all.is_empty(), "the timeline of a scope without identity must be empty");
        same(&refused(ledger, &scope, seal(note(3))).await, &Denied::NoIdentity, "the error for a scope without identity");
    }
}

/// Other tenants see a public row only if they name its tenant. Without a tenant, a scan shows public rows of `system` only.
pub async fn public_rows_of_another_tenant_show_only_when_it_is_named<L: Ledger>(ledger: &L) {
    append(ledger, seal(note(1).visibility(Visibility::Public))).await;
    let system = Draft::new("note").id(id(2)).tenant(SYSTEM_TENANT).owner("s").who("w").this("t").at(super::at(2));
    append(ledger, seal(system.visibility(Visibility::Public))).await;
    for scope in [Scope::user(OTHER, "mallory"), Scope::runtime(OTHER)] {
        hold(sees(ledger, &scope, 1).await, "a call that names the tenant must see its public row");
        for query in [Query::timeline(), Query::new()] {
            let unnamed = ledger.collect(&scope, &query, 10).await.or_fail("scan");
            let ids: Vec<_> = unnamed.iter().map(|span| span.id).collect();
            same(&ids, &vec![id(2)], "a scan without a tenant, which shows public rows of `system` only");
        }
    }
}

/// If the last version is not visible to the scope, an older visible version is not shown in its place.
pub async fn a_hidden_last_version_hides_the_id<L: Ledger>(ledger: &L) {
    let public = seal(note(1).visibility(Visibility::Public));
    append(ledger, public.clone()).await;
    append(ledger, seal(next(&public).visibility(Visibility::Private).name("withdrawn"))).await;
    for scope in [Scope::user(TENANT, "bob"), Scope::user(OTHER, "mallory")] {
        let got = ledger.find(&scope, TENANT, id(1)).await.or_fail("find");
        same(&got, &None, "get after the last version became private");
        let latest = ledger.collect(&scope, &Query::new().tenant(TENANT), 10).await.or_fail("scan");
        hold(latest.is_empty(), "a scan must not show an old version if the last one is not visible");
    }
}

/// Other tenants cannot append a version to a chain of this tenant.
pub async fn another_tenant_cannot_publish_my_next_version<L: Ledger>(ledger: &L) {
    let mut mine = note(1);
    mine.columns_mut().entity_type = "function".to_owned();
    let mine = seal(mine.visibility(Visibility::Public));
    append(ledger, mine.clone()).await;
    let theirs = seal(next(&mine).code("(module)"));
    for scope in [Scope::user(OTHER, USER), Scope::runtime(OTHER), Scope::runtime(SYSTEM_TENANT)] {
        let denied = refused(ledger, &scope, theirs.clone()).await;
        hold(matches!(denied, Denied::Tenant { .. }), "must be refused because of the tenant");
    }
}

/// A user writes rows of their own only. The runtime writes rows of every owner.
pub async fn a_user_cannot_write_as_another_owner<L: Ledger>(ledger: &L) {
    let denied = refused(ledger, &Scope::user(TENANT, "bob"), seal(note(1))).await;
    hold(matches!(denied, Denied::Owner { .. }), "must be refused because of the owner");
    let of_system = seal(note(2).tenant(SYSTEM_TENANT));
    let denied = refused(ledger, &Scope::user(SYSTEM_TENANT, USER), of_system).await;
    hold(denied == Denied::System, "every host obeys tenant `system`, so no user may write there");
    ledger.append_one(&Scope::runtime(TENANT), seal(note(1))).await.or_fail("append as the runtime for another owner");
}

/// Executions, boot events and other reserved types are written by the runtime only.
pub async fn a_user_cannot_write_what_only_the_runtime_may<L: Ledger>(ledger: &L) {
    let scope = Scope::user(TENANT, USER);
    let reserved = ENTITY_TYPES.iter().filter(|row| row.signed == Signed::Runtime).map(|row| row.name);
    for (n, entity_type) in (100..).zip(reserved.chain(["logline_x"])) {
        let mut draft = note(n);
        draft.columns_mut().entity_type = entity_type.to_owned();
        let denied = refused(ledger, &scope, seal(draft)).await;
        hold(matches!(denied, Denied::Reserved { .. }), "must be refused because of the type");
    }
    let mut request = note(20).status("scheduled");
    request.columns_mut().entity_type = "request".to_owned();
    let request = seal(request);
    ledger.append_one(&scope, request.clone()).await.or_fail("append a request as a user");
    let closed = refused(ledger, &scope, seal(next(&request).status("complete"))).await;
    hold(matches!(closed, Denied::Reserved { .. }), "a user must not close a request");
}

/// Anybody can compute the ids of executions and emitted spans. Only the runtime may write their first versions.
pub async fn a_user_cannot_squat_on_derived_ids<L: Ledger>(ledger: &L) {
    let scope = Scope::user(TENANT, "mallory");
    let theirs = || note(1).owner("mallory");
    let execution = crate::value::ids::execution(TENANT, id(7), 1);
    let denied = refused(ledger, &scope, seal(theirs().id(execution))).await;
    hold(matches!(denied, Denied::DerivedId { .. }), "must be refused because of the id");
    let key = |owner: &str| crate::value::ids::idempotent(TENANT, owner, "note", "k-1");
    let of_another = theirs().id(key(USER)).meta("idempotency_key", "k-1");
    let denied = refused(ledger, &scope, seal(of_another)).await;
    hold(matches!(denied, Denied::DerivedId { .. }), "must be refused, because the id is derived for another owner");
    let own = theirs().id(key("mallory")).meta("idempotency_key", "k-1");
    ledger.append_one(&scope, seal(own)).await.or_fail("append with the id derived for this user");
}

/// A span with the same id in another tenant does not block, change or reveal the span of this tenant.
pub async fn the_same_id_in_another_tenant_changes_nothing<L: Ledger>(ledger: &L) {
    let mine = seal(note(1));
    let theirs = seal(note(1).tenant(OTHER).owner("mallory"));
    append(ledger, mine.clone()).await;
    ledger.append_one(&Scope::user(OTHER, "mallory"), theirs.clone()).await.or_fail("append the same id in another tenant");
    append(ledger, seal(next(&mine))).await;
    let theirs_now = ledger.get(&Scope::user(OTHER, "mallory"), OTHER, id(1)).await.or_fail("get");
    same(&theirs_now, &theirs.into_signed(), "the row of the other tenant");
    let history = ledger.history(&Scope::user(TENANT, USER), TENANT, id(1), 0, 10).await.or_fail("history");
    same(&history.len(), &2, "the owner's versions");
}

/// Compares reads with [`Scope::may_read`], for all combinations of tenant, owner, visibility, scope and named tenant.
pub async fn every_scope_sees_exactly_what_the_predicate_says<L: Ledger>(ledger: &L) {
    let tenants = [TENANT, OTHER, SYSTEM_TENANT];
    let owners = [USER, "bob"];
    let mut rows = Vec::new();
    for tenant in tenants {
        for owner in owners {
            for visibility in ALL {
                let n = rows.len() as u128;
                rows.push(seal(note(n).tenant(tenant).owner(owner).visibility(visibility)));
            }
        }
    }
    super::append_all(ledger, rows.clone()).await.or_fail("append");
    let mut scopes = vec![Scope::Operator, Scope::runtime("nowhere"), Scope::user("nowhere", USER), Scope::user(TENANT, "eve")];
    for tenant in tenants {
        scopes.push(Scope::runtime(tenant));
        scopes.extend(owners.map(|owner| Scope::user(tenant, owner)));
    }
    for scope in &scopes {
        for named in [None, Some(TENANT), Some(OTHER), Some(SYSTEM_TENANT), Some("nowhere")] {
            let mut query = Query::timeline();
            query.tenant = named.map(str::to_owned);
            let mut latest = Query::new();
            latest.tenant.clone_from(&query.tenant);
            let expected: Vec<_> = rows.iter().filter(|row| scope.may_read(row, named)).map(|row| row.key()).collect();
            for query in [query, latest] {
                let found = ledger.collect(scope, &query, 100).await.or_fail("scan");
                let found: Vec<_> = found.iter().map(|span| span.key()).collect();
                same(&found, &expected, &format!("what {scope:?} sees when it names {named:?}"));
            }
        }
        for row in &rows {
            let found = ledger.find(scope, &row.tenant_id, row.id).await.or_fail("find").is_some();
            same(&found, &scope.may_read(row, Some(&row.tenant_id)), &format!("whether {scope:?} gets {}", row.key()));
        }
        drop(ledger.watch(scope, WatchFrom::Now).await.or_fail("start a watch"));
    }
}
