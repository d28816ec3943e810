//! Runs random histories on a backend and on the in-memory ledger as the model, and compares the results step by step.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use uuid::Uuid;

use super::{Expect as _, fail, id, note, seal};
use crate::ledger::in_memory::MemoryLedger;
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, Ledger, LedgerError, LedgerExt as _, OnExisting, Order, Outcome, Query, Versions};
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;
use crate::span::{SignedSpan, SpanKey, Visibility};

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
const OWNERS: [&str; 2] = ["alice", "bob"];

/// How a span of an append relates to the versions of its id that are stored.
#[derive(Debug, Clone, Copy)]
enum Link {
    First { seq: u32 },
    Next,
    NextOfOlder,
    Gap,
    Again,
}

#[derive(Debug, Clone)]
struct Write {
    id: u8,
    tenant: usize,
    owner: usize,
    entity_type: &'static str,
    visibility: Visibility,
    deleted: bool,
    link: Link,
    content: u8,
}

#[derive(Debug, Clone)]
enum Step {
    Append { scope: Scope, batch: Vec<Write>, keep: bool },
    Get { scope: Scope, tenant: usize, id: u8 },
    History { scope: Scope, tenant: usize, id: u8, from: u32 },
    Scan { scope: Scope, query: Query },
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        3 => Just(Scope::Operator),
        2 => (0..3_usize).prop_map(|t| Scope::runtime(TENANTS.get(t).copied().unwrap_or_default())),
        3 => (0..3_usize, 0..2_usize).prop_map(|(t, o)| {
            Scope::user(TENANTS.get(t).copied().unwrap_or_default(), OWNERS.get(o).copied().unwrap_or_default())
        }),
        1 => Just(Scope::user("", "alice")),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let link = prop_oneof![
        2 => (0..3_u32).prop_map(|seq| Link::First { seq }),
        6 => Just(Link::Next),
        1 => Just(Link::NextOfOlder),
        1 => Just(Link::Gap),
        1 => Just(Link::Again),
    ];
    let visibility = prop_oneof![Just(Visibility::Private), Just(Visibility::Tenant), Just(Visibility::Public)];
    let entity_type = prop_oneof![4 => Just("note"), 1 => Just("request"), 1 => Just("execution")];
    (0..4_u8, 0..3_usize, 0..2_usize, entity_type, visibility, prop::bool::weighted(0.15), link, 0..3_u8).prop_map(
        |(id, tenant, owner, entity_type, visibility, deleted, link, content)| Write {
            id,
            tenant,
            owner,
            entity_type,
            visibility,
            deleted,
            link,
            content,
        },
    )
}

fn query() -> impl Strategy<Value = Query> {
    let order = prop_oneof![Just(Order::Append), Just(Order::Newest), Just(Order::Chain)];
    let versions = prop_oneof![Just(Versions::All), Just(Versions::Latest), Just(Versions::Last)];
    let tenant = prop::option::of(0..3_usize);
    let entity_type = prop_oneof![2 => Just(None), 1 => Just(Some("note")), 1 => Just(Some("request"))];
    let filters = (tenant, prop::option::of(0..4_u8), entity_type);
    (order, versions, filters, 1..6_usize, 0..4_usize).prop_map(
        |(order, versions, (tenant, id, entity_type), limit, visited)| {
            let mut query = Query::new().order(order).versions(versions).limit(limit).max_visited(visited);
            query.tenant = tenant.and_then(|t| TENANTS.get(t)).map(|t| (*t).to_owned());
            query.id = id.map(span_id);
            query.entity_type = entity_type.map(str::to_owned);
            query
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (scope(), vec(write(), 1..4), any::<bool>()).prop_map(|(scope, batch, keep)| Step::Append { scope, batch, keep }),
        1 => (scope(), 0..3_usize, 0..4_u8).prop_map(|(scope, tenant, id)| Step::Get { scope, tenant, id }),
        1 => (scope(), 0..3_usize, 0..4_u8, 0..3_u32)
            .prop_map(|(scope, tenant, id, from)| Step::History { scope, tenant, id, from }),
        2 => (scope(), query()).prop_map(|(scope, query)| Step::Scan { scope, query }),
    ]
}

fn span_id(n: u8) -> Uuid {
    id(n.into())
}

/// The result of an append, without the parts that may differ between backends.
type Appended = Result<Vec<(SpanKey, Outcome)>, String>;

/// The variant of an error. Backends may use other texts, but must return the same variant.
fn kind(error: &LedgerError) -> String {
    let text = format!("{error:?}");
    text.split([' ', '{']).next().unwrap_or_default().to_owned()
}

/// The backend and the model must agree on random histories. A history that fails is made smaller before it is reported.
pub async fn random_histories_match_the_model<L: Ledger>(ledger: &L) {
    let mut runner = TestRunner::default();
    let strategy = vec(step(), 1..40);
    // All histories use the same ledger, so each has its own tenants.
    for case in 0..24_u32 {
        let mut tree = strategy.new_tree(&mut runner).or_fail("a history");
        let mut attempt = 0;
        let Err(mut failure) = run(ledger, tree.current(), &format!("{case}.{attempt}")).await else { continue };
        while attempt < 400 && tree.simplify() {
            loop {
                attempt += 1;
                match run(ledger, tree.current(), &format!("{case}.{attempt}")).await {
                    Err(smaller) => {
                        failure = smaller;
                        break;
                    }
                    Ok(()) if attempt >= 400 || !tree.complicate() => break,
                    Ok(()) => {}
                }
            }
        }
        fail(failure);
    }
}

/// Runs one history. `salt` becomes part of its tenants' names, so that they differ from those of other histories on the
/// ledger.
async fn run<L: Ledger>(ledger: &L, steps: Vec<Step>, salt: &str) -> Result<(), String> {
    let history = History { ledger, model: MemoryLedger::new(), salt };
    for (index, step) in steps.iter().enumerate() {
        history.step(step).await.map_err(|e| format!("step {index} of {steps:#?}\n{e}"))?;
    }
    Ok(())
}

struct History<'a, L> {
    ledger: &'a L,
    model: MemoryLedger,
    salt: &'a str,
}

impl<L: Ledger> History<'_, L> {
    fn tenant(&self, index: usize) -> String {
        self.salted(TENANTS.get(index).copied().unwrap_or_default())
    }

    fn salted(&self, tenant: &str) -> String {
        if tenant.is_empty() { String::new() } else { format!("{tenant}-{}", self.salt) }
    }

    fn scope(&self, scope: &Scope) -> Scope {
        match scope {
            Scope::User { tenant, user } => Scope::user(self.salted(tenant), user.as_str()),
            Scope::Runtime { tenant } => Scope::runtime(self.salted(tenant)),
            Scope::Operator => Scope::Operator,
        }
    }

    async fn step(&self, step: &Step) -> Result<(), String> {
        match step {
            Step::Append { scope, batch, keep } => {
                let scope = self.scope(scope);
                let batch = self.batch(batch).await;
                let options = AppendOptions {
                    on_existing: if *keep { OnExisting::Keep } else { OnExisting::Conflict },
                    ..Default::default()
                };
                let appended = |result: Result<Vec<crate::ledger::AppendReceipt>, LedgerError>| -> Appended {
                    let receipts = result.map_err(|e| kind(&e))?;
                    Ok(receipts.into_iter().map(|r| (r.key, r.outcome)).collect())
                };
                let ours = appended(self.ledger.append(&scope, batch.clone(), &options).await);
                agree(&ours, &appended(self.model.append(&scope, batch, &options).await))
            }
            Step::Get { scope, tenant, id } => {
                let (scope, tenant, id) = (self.scope(scope), self.tenant(*tenant), span_id(*id));
                let ours = self.ledger.get(&scope, &tenant, id).await.map_err(|e| kind(&e));
                agree(&ours, &self.model.get(&scope, &tenant, id).await.map_err(|e| kind(&e)))
            }
            Step::History { scope, tenant, id, from } => {
                let (scope, tenant, id) = (self.scope(scope), self.tenant(*tenant), span_id(*id));
                let ours = self.ledger.history(&scope, &tenant, id, *from, 5).await.map_err(|e| kind(&e));
                agree(&ours, &self.model.history(&scope, &tenant, id, *from, 5).await.map_err(|e| kind(&e)))
            }
            Step::Scan { scope, query } => {
                let mut query = query.clone();
                query.tenant = query.tenant.map(|tenant| self.salted(&tenant));
                // The ledger has rows of other histories too. The operator names a tenant to see rows of this history only.
                if *scope == Scope::Operator && query.tenant.is_none() {
                    query.tenant = Some(self.tenant(0));
                }
                let scope = self.scope(scope);
                if query.visits().is_some() {
                    // The operator waits until append order is final. Others do not wait for rows that they may not see.
                    for tenant in 0..TENANTS.len() {
                        let all = Query::timeline().tenant(self.tenant(tenant));
                        self.ledger.collect(&Scope::Operator, &all, 1000).await.map_err(|e| e.to_string())?;
                    }
                }
                agree(&pages(self.ledger, &scope, &query).await?, &pages(&self.model, &scope, &query).await?)
            }
        }
    }

    /// Seals a batch that continues the versions in the model. The backend and the model then get the same bytes.
    async fn batch(&self, writes: &[Write]) -> Vec<VerifiedSpan> {
        let mut batch: Vec<VerifiedSpan> = Vec::new();
        for write in writes {
            let tenant = self.tenant(write.tenant);
            let id = span_id(write.id);
            let mut history: Vec<SignedSpan> =
                self.model.history(&Scope::Operator, &tenant, id, 0, 1000).await.unwrap_or_default();
            history.extend(batch.iter().filter(|s| s.tenant_id == tenant && s.id == id).map(|s| (**s).clone()));
            batch.push(seal(write.draft(&tenant, &history)));
        }
        batch
    }
}

impl Write {
    fn draft(&self, tenant: &str, history: &[SignedSpan]) -> Draft {
        let owner = OWNERS.get(self.owner).copied().unwrap_or_default();
        let mut first = note(self.id.into()).tenant(tenant).owner(owner);
        first.columns_mut().entity_type = self.entity_type.to_owned();
        let last = history.last();
        let older = history.len().checked_sub(2).and_then(|index| history.get(index));
        let mut draft = match (self.link, last) {
            (Link::First { seq }, _) => first.seq(seq),
            (_, None) => first,
            (Link::Next, Some(last)) => super::next(last),
            (Link::NextOfOlder, Some(last)) => super::next(older.unwrap_or(last)),
            (Link::Gap, Some(last)) => super::next(last).seq(last.seq + 2),
            (Link::Again, Some(last)) => Draft::from_columns(last.span.clone()),
        };
        if !matches!(self.link, Link::Again) {
            let columns = draft.columns_mut();
            columns.visibility = self.visibility;
            columns.is_deleted = self.deleted;
            columns.content = Some(self.content.into());
        }
        draft
    }
}

fn agree<T: PartialEq + std::fmt::Debug>(ours: &T, model: &T) -> Result<(), String> {
    if ours == model { Ok(()) } else { Err(format!("the backend says {ours:#?}\nthe model says {model:#?}")) }
}

/// The pages of a query: the spans of each, and how many rows it looked at.
async fn pages<L: Ledger>(ledger: &L, scope: &Scope, query: &Query) -> Result<Vec<(Vec<SignedSpan>, Option<usize>)>, String> {
    let mut pages = Vec::new();
    let mut cursor = None;
    loop {
        let page = ledger.scan(scope, query, cursor.as_ref()).await.map_err(|e| e.to_string())?;
        cursor.clone_from(&page.next);
        let visited = page.visited;
        pages.push((page.into_spans().map_err(|e| e.to_string())?, visited));
        if cursor.is_none() {
            return Ok(pages);
        }
    }
}
