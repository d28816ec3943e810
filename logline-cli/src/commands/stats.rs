//! `logline stats`

use std::collections::BTreeMap;

use clap::Args;
use logline_core::Timestamp;
use logline_core::ledger::{Ledger as _, Query, Tenants, Waiting, WorkQueue};
use serde_json::{Value, json};

use crate::open::Identity;
use crate::{Error, open, output, when};

#[derive(Args)]
#[command(
    after_help = "Example: logline stats --ledger sqlite:demo.ledger\n\nIt counts the last version of each span, and reads every one."
)]
pub(crate) struct Options {
    #[command(flatten)]
    identity: Identity,
}

/// The most pairs of type and status that are told apart.
const MAX_LINES: usize = 1000;

/// The open requests.
#[derive(Default)]
struct Open {
    due: u64,
    later: u64,
    running: u64,
    parked: u64,
    /// When the one that has waited longest was due.
    oldest: Option<Timestamp>,
}

impl Open {
    fn add(&mut self, waiting: &Waiting, now: Timestamp) {
        if waiting.parked.is_some() {
            self.parked += 1;
        } else if waiting.is_leased {
            self.running += 1;
        } else if let Some(due) = waiting.due.filter(|due| *due <= now) {
            self.due += 1;
            self.oldest = Some(self.oldest.map_or(due, |oldest| oldest.min(due)));
        } else {
            self.later += 1;
        }
    }

    async fn read(ledger: &dyn WorkQueue, tenants: &Tenants, owner: Option<&str>, now: Timestamp) -> Result<Self, Error> {
        let mut open = Self::default();
        open::open_requests(ledger, tenants, |waiting| {
            if owner.is_none_or(|owner| waiting.work.owner_id == owner) {
                open.add(waiting, now);
            }
            true
        })
        .await?;
        Ok(open)
    }
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let ledger = open::queue_for_reading(url).await?;
    let scope = options.identity.scope();
    let mut query = Query::new();
    query.tenant = options.identity.tenant().map(str::to_owned);
    let tenants = query.tenant.iter().cloned().collect();
    let tenants = if query.tenant.is_some() { Tenants::Only(tenants) } else { Tenants::All };
    let now = ledger.now().await?;
    let open = Open::read(&ledger, &tenants, options.identity.user(), now).await?;
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    let (mut cursor, mut rows, mut damaged, mut newest) = (None, 0_u64, 0_u64, None);
    loop {
        let page = ledger.scan(&scope, &query, cursor.as_ref()).await?;
        cursor.clone_from(&page.next);
        for row in page.rows {
            rows += 1;
            let Ok(span) = row.span else {
                damaged += 1;
                continue;
            };
            newest = newest.max(Some(span.at));
            let key = (span.entity_type.clone(), span.status.clone().unwrap_or_default());
            // Anybody can invent types and statuses.
            let key = if counts.len() < MAX_LINES || counts.contains_key(&key) {
                key
            } else {
                ("(others)".to_owned(), String::new())
            };
            *counts.entry(key).or_default() += 1;
        }
        output::progress("spans", rows);
        if cursor.is_none() {
            break;
        }
    }
    output::end_progress();
    let age = open.oldest.map(|oldest| now.since(oldest));
    if json {
        let counts: Vec<Value> = counts
            .iter()
            .map(|((entity_type, status), rows)| json!({"type": entity_type, "status": status, "spans": rows}))
            .collect();
        output::line(
            &json!({
                "spans": rows, "damaged": damaged, "newest": newest.map(|at| at.to_string()), "counts": counts,
                "open": {"due": open.due, "later": open.later, "running": open.running, "parked": open.parked,
                    "oldest_ms": age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))},
            })
            .to_string(),
        );
        return Ok(true);
    }
    output::line(&format!(
        "{rows} spans, the newest version of {}",
        newest.map_or_else(|| "-".to_owned(), |at| at.to_string())
    ));
    if damaged > 0 {
        output::line(&format!("{damaged} rows cannot be read: run `logline fsck`"));
    }
    output::line(&format!("{:<20} {:<12} {:>10}", "type", "status", "spans"));
    for ((entity_type, status), rows) in &counts {
        let status = if status.is_empty() { "-" } else { status };
        output::line(&format!("{:<20} {:<12} {rows:>10}", output::plain(entity_type), output::plain(status)));
    }
    let waited = age.map_or_else(String::new, |age| format!(", the first for {}", when::duration(age)));
    output::line(&format!(
        "open requests: {} due{waited}, {} running, {} later, {} parked",
        open.due, open.running, open.later, open.parked
    ));
    Ok(true)
}
