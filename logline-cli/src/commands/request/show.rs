//! `logline request show`

use std::sync::Arc;

use logline_core::ledger::{Ledger as _, LedgerExt as _, Query, Waiting, WorkQueue};
use logline_core::request::{Phase, State};
use logline_core::{Scope, SignedSpan, Timestamp, Verifier, ids};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Error, output, when};

/// The most versions of a request that are shown.
const MAX_VERSIONS: usize = 1000;

/// The most attempts that are shown: the last ones.
const MAX_ATTEMPTS: u32 = 100;

/// The most spans of its trace among which those are looked for that its attempts emitted.
const MAX_TRACE: usize = 5000;

/// Everything about a request.
struct Life {
    /// The first of its versions, and the last one.
    versions: Vec<SignedSpan>,
    /// What is not shown, because there is too much of it.
    left_out: Vec<String>,
    function: Option<SignedSpan>,
    /// The records of its attempts, in their order.
    attempts: Vec<SignedSpan>,
    /// What its attempts emitted.
    emitted: Vec<SignedSpan>,
    waiting: Option<Waiting>,
    now: Timestamp,
}

impl Life {
    async fn of(ledger: &Arc<dyn WorkQueue>, scope: &Scope, tenant: &str, id: Uuid) -> Result<Self, Error> {
        let mut versions = ledger.history(scope, tenant, id, 0, MAX_VERSIONS).await?;
        let mut left_out = Vec::new();
        if let (Some(shown), Some(head)) = (versions.last(), ledger.head(scope, tenant, id).await?)
            && shown.seq < head.seq
        {
            left_out.push(format!("versions {} to {}", shown.seq.saturating_add(1), head.seq.saturating_sub(1)));
            versions.push(head);
        }
        let last = versions.last().ok_or_else(|| format!("no request {id} in tenant `{tenant}` that this scope can see"))?;
        let function = match last.parent_id {
            Some(function) => ledger.find(scope, tenant, function).await?,
            None => None,
        };
        let made = State::of(last).map_or(0, |state| state.attempts);
        let mut attempts = Vec::new();
        let first = made.saturating_sub(MAX_ATTEMPTS).saturating_add(1);
        if first > 1 {
            left_out.push(format!("attempts 1 to {}", first - 1));
        }
        for n in first..=made {
            attempts.extend(ledger.history(scope, tenant, ids::execution(tenant, id, n), 0, 1).await?);
        }
        // What a function emits has the trace of the request, and names its execution.
        let ids: Vec<_> = attempts.iter().map(|attempt| attempt.id).collect();
        let mut emitted = match &last.trace_id {
            Some(trace) => ledger.collect(scope, &Query::new().tenant(tenant).trace_id(trace.as_str()), MAX_TRACE + 1).await?,
            None => Vec::new(),
        };
        if emitted.len() > MAX_TRACE {
            left_out.push(format!("what is emitted: its trace has more than {MAX_TRACE} spans"));
        }
        // Anybody can name an execution. What a host emitted has the signer of the execution.
        let signers: Vec<_> = attempts.iter().map(|attempt| attempt.seal.public_key).collect();
        emitted.retain(|span| {
            let is_related = span.related_to.iter().any(|id| ids.contains(id)) && span.entity_type != "request";
            is_related && signers.contains(&span.seal.public_key)
        });
        let (waiting, now) = (ledger.waiting(tenant, id).await?, ledger.now().await?);
        Ok(Self { versions, left_out, function, attempts, emitted, waiting, now })
    }

    /// Why it has not ended. `None` if it has.
    fn why_open(&self) -> Option<String> {
        let waiting = self.waiting.as_ref()?;
        let when = match waiting.due {
            Some(due) if due > self.now => format!("until {due} (in {})", when::duration(due.since(self.now))),
            Some(_) => "for a worker: it is due now".to_owned(),
            None => "until it has another version: no worker can carry it out".to_owned(),
        };
        Some(match (&waiting.parked, waiting.is_leased) {
            (Some(reason), _) => format!("parked {when}: {reason}"),
            (None, true) => format!("running: its worker holds it {when}"),
            (None, false) => format!("waits {when}"),
        })
    }

    /// Each signature, once: whether the rows are what was signed.
    fn invalid(&self) -> Vec<String> {
        let mut verifier = Verifier::new();
        let rows = self.versions.iter().chain(&self.attempts).chain(&self.emitted);
        rows.filter_map(|row| row.check(&mut verifier).err().map(|e| format!("{} is not valid: {e}", row.key()))).collect()
    }
}

pub(super) async fn show(
    ledger: &Arc<dyn WorkQueue>,
    scope: &Scope,
    tenant: &str,
    id: Uuid,
    json: bool,
) -> Result<bool, Error> {
    let life = Life::of(ledger, scope, tenant, id).await?;
    let invalid = life.invalid();
    if json {
        let rows = |spans: &[SignedSpan]| -> Result<Vec<Value>, Error> {
            spans.iter().map(|span| Ok(serde_json::from_slice(&span.to_line())?)).collect()
        };
        output::line(
            &json!({
                "versions": rows(&life.versions)?, "attempts": rows(&life.attempts)?, "emitted": rows(&life.emitted)?,
                "open": life.why_open(), "invalid": invalid, "left_out": life.left_out,
            })
            .to_string(),
        );
    } else {
        print(&life);
        invalid.iter().for_each(|problem| output::line(&output::plain(problem)));
    }
    Ok(invalid.is_empty())
}

/// The longest text that is shown of a value.
const MAX_SHOWN: usize = 400;

fn shown(value: &Value) -> String {
    let text = value.to_string();
    let cut: String = text.chars().take(MAX_SHOWN).collect();
    let more = if cut.len() < text.len() { "… (--json prints all)" } else { "" };
    format!("{}{more}", output::plain(&cut))
}

fn print(life: &Life) {
    let line = |text: String| output::line(&text);
    let (Some(first), Some(last)) = (life.versions.first(), life.versions.last()) else { return };
    let name = life.function.as_ref().and_then(|function| function.name.as_deref()).unwrap_or(&first.this);
    line(format!("request   {}", first.id));
    let function = first.parent_id.map_or_else(String::new, |id| format!(" ({id})"));
    line(format!("function  {}{function}", output::plain(name)));
    line(format!("tenant    {}, owner {}", output::plain(&first.tenant_id), output::plain(&first.owner_id)));
    let status = last.status.as_deref().unwrap_or("-");
    line(format!("status    {}", output::plain(status)));
    if let Some(open) = life.why_open() {
        line(format!("          {}", output::plain(&open)));
    }
    if let Some(error) = last.error.as_ref().filter(|_| Phase::of(last) != Some(Phase::Complete)) {
        line(format!("error     {}", shown(error)));
    }
    if let Some(input) = &first.input {
        line(format!("input     {}", shown(input)));
    }
    line("versions".to_owned());
    for version in &life.versions {
        line(format!(
            "  {:<3} {}  {:<10} {:<10} by {}",
            version.seq,
            version.at,
            output::plain(version.did.as_deref().unwrap_or("-")),
            output::plain(version.status.as_deref().unwrap_or("-")),
            output::plain(&version.who)
        ));
    }
    if !life.attempts.is_empty() {
        line("attempts".to_owned());
    }
    for attempt in &life.attempts {
        let number = attempt.meta("attempt").map_or_else(String::new, Value::to_string);
        let took = attempt.duration_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        let worker = attempt.meta("worker").and_then(Value::as_str).unwrap_or("-");
        line(format!(
            "  {number:<3} {}  {:<10} {took}, worker {}",
            attempt.at,
            output::plain(attempt.status.as_deref().unwrap_or("-")),
            output::plain(&worker.chars().take(12).collect::<String>())
        ));
        if let Some(error) = &attempt.error {
            line(format!("      error   {}", shown(error)));
        }
        if let Some(output) = &attempt.output {
            line(format!("      output  {}", shown(output)));
        }
        for entry in attempt.meta("logs").and_then(Value::as_array).into_iter().flatten() {
            line(format!("      log     {}", shown(entry)));
        }
        line(format!("      proof   execution {}, hash {}", attempt.id, attempt.seal.curr_hash));
        line(format!("              signed by {}", attempt.seal.public_key));
    }
    for what in &life.left_out {
        line(format!("not shown: {what}"));
    }
    if !life.emitted.is_empty() {
        line("emitted".to_owned());
    }
    for span in &life.emitted {
        let name = output::plain(span.name.as_deref().unwrap_or(&span.this));
        line(format!("  {:<12} {name}  {}", output::plain(&span.entity_type), span.key()));
    }
}
