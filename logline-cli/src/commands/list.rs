//! `logline list`

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroUsize;

use clap::Args;
use logline_core::ledger::{Ledger, LedgerExt as _, Order, Query, Versions};
use logline_core::{Scope, SignedSpan, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use crate::open::Identity;
use crate::{Error, open, output, when};

#[derive(Args)]
#[command(
    after_help = "Example, which executions failed today and why:\n  logline list --ledger sqlite:demo.ledger --type execution --status error --since today"
)]
pub(crate) struct Options {
    #[command(flatten)]
    identity: Identity,
    /// Spans of this type only: request, execution, function, policy, policy_violation, …
    #[arg(long = "type", value_name = "TYPE")]
    entity_type: Option<String>,
    /// Spans with this status only: scheduled, running, complete, error, dead, cancelled, …
    #[arg(long)]
    status: Option<String>,
    /// Spans of this owner only.
    #[arg(long)]
    owner: Option<String>,
    /// Spans at or after this time: `today`, an age such as `30m`, `24h` or `7d`, a day, or a time in RFC 3339. Days are in UTC.
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    since: Option<Timestamp>,
    /// Spans before this time.
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    until: Option<Timestamp>,
    /// At most this many.
    #[arg(long, value_name = "N", default_value = "50")]
    limit: NonZeroUsize,
    /// Every version of each span. Without it: the last one.
    #[arg(long)]
    versions: bool,
}

/// How many rows may be looked at that are older than `--since`: `at` is the author's time, so rows are only nearly in its order.
const OLDER: usize = 10_000;

/// The names of functions that requests and executions are about.
#[derive(Default)]
struct Functions(HashMap<Uuid, Option<String>>);

impl Functions {
    /// `None` if the span is about none, or about one without a name that the asker can see.
    async fn of(&mut self, ledger: &dyn Ledger, scope: &Scope, span: &SignedSpan) -> Result<Option<String>, Error> {
        let named = match span.entity_type.as_str() {
            "request" => span.parent_id,
            "execution" => {
                let function = span.meta("function").and_then(|function| function.get("id")?.as_str());
                function.and_then(|id| id.parse().ok())
            }
            _ => None,
        };
        let Some(id) = named else { return Ok(None) };
        if let Entry::Vacant(place) = self.0.entry(id) {
            let found = ledger.find(scope, &span.tenant_id, id).await?;
            place.insert(found.and_then(|function| function.span.name));
        }
        Ok(self.0.get(&id).cloned().flatten())
    }
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let ledger = open::for_reading(url).await?;
    let scope = options.identity.scope();
    let mut query = Query::new().order(Order::Newest);
    if options.versions {
        query = query.versions(Versions::All);
    }
    query.tenant = options.identity.tenant().map(str::to_owned);
    (query.entity_type, query.status, query.owner) =
        (options.entity_type.clone(), options.status.clone(), options.owner.clone());
    let limit = options.limit.get();
    let (mut cursor, mut found, mut older) = (None, 0, 0);
    let mut functions = Functions::default();
    while found < limit && older < OLDER {
        let page = ledger.scan(&scope, &query, cursor.as_ref()).await?;
        cursor.clone_from(&page.next);
        for row in page.rows {
            let span = match row.span {
                Ok(span) => span,
                Err(damaged) => {
                    output::note(&output::plain(&logline_core::ledger::LedgerError::from(damaged).to_string()));
                    continue;
                }
            };
            if options.since.is_some_and(|since| span.at < since) {
                older += 1;
                continue;
            }
            if options.until.is_some_and(|until| span.at >= until) || found == limit {
                continue;
            }
            found += 1;
            let function = if json { None } else { functions.of(&ledger, &scope, &span).await? };
            output::span_of(&span, function.as_deref(), json)?;
            if let Some(error) = span.error.as_ref().filter(|_| !json) {
                let part = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or("-");
                output::line(&format!("    {}: {}", output::plain(part("code")), output::plain(part("message"))));
                let mut about: Vec<_> = span.parent_id.iter().chain(&span.related_to).map(ToString::to_string).collect();
                about.dedup();
                if !about.is_empty() {
                    output::line(&format!("    about {}", about.join(", ")));
                }
            }
        }
        if cursor.is_none() {
            break;
        }
    }
    if !json && found == limit {
        output::note(&format!("the newest {found}; --limit N shows more"));
    } else if !json && found == 0 {
        output::note("no span matches");
    }
    Ok(true)
}
