//! What the example prints.

use std::collections::BTreeMap;

use logline_core::fsck::Event;
use logline_core::ledger::{Ledger as _, Query};
use logline_core::{Execution, Scope, SpanKey};
use logline_sqlite::SqliteLedger;
use serde_json::Value;

use crate::Result;

/// Counts of the outcomes of all events.
#[derive(Default)]
pub(crate) struct Tally {
    outcomes: BTreeMap<String, u32>,
    executions: u32,
    fuel: u64,
    /// Executions that ended in an error of the function.
    pub(crate) failed: u32,
    pub(crate) bad_lines: u32,
    pub(crate) last_execution: Option<SpanKey>,
}

pub(crate) fn print_header() {
    println!("{:<27}  {:<10} {:<8} {:>5}  {:>9}  {:<8}  rules", "at", "payment", "decision", "score", "fuel", "hash");
}

impl Tally {
    /// Counts one execution and prints one line about it.
    pub(crate) fn add(&mut self, payment: &str, execution: &Execution) {
        let span = &execution.span;
        let (decision, score, rules) = match &execution.result {
            Ok(output) => {
                let text = |name: &str| output.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
                let hits = output.get("hits").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let rules: Vec<_> = hits.iter().filter_map(|hit| hit.get("rule")?.as_str()).collect();
                let score = output.get("score").map(Value::to_string).unwrap_or_default();
                (text("decision"), score, rules.join(" "))
            }
            Err(failure) => ("error".to_owned(), "-".to_owned(), failure.to_string()),
        };
        let fuel = span.meta("receipt").and_then(|r| r.get("fuel_used")).and_then(Value::as_u64).unwrap_or(0);
        let hash = span.seal.curr_hash.to_string();
        println!("{:<27}  {payment:<10} {decision:<8} {score:>5}  {fuel:>9}  {hash:.8}  {rules}", span.at);
        self.failed += u32::from(execution.result.is_err());
        *self.outcomes.entry(decision).or_default() += 1;
        self.executions += 1;
        self.fuel += fuel;
        self.last_execution = Some(span.key());
    }

    pub(crate) fn print_summary(&self) {
        let outcomes: Vec<_> = self.outcomes.iter().map(|(decision, count)| format!("{count} {decision}")).collect();
        println!("\nsummary  {} executions: {}; {} units of fuel", self.executions, outcomes.join(", "), self.fuel);
        if self.bad_lines > 0 {
            println!("         {} lines were not acceptable JSON", self.bad_lines);
        }
    }
}

/// Prints how many versions of spans of each type the ledger holds.
pub(crate) async fn print_span_counts(ledger: &SqliteLedger) -> Result<()> {
    let mut counts = BTreeMap::<String, u64>::new();
    let mut cursor = None;
    loop {
        let page = ledger.scan(&Scope::Operator, &Query::timeline(), cursor.as_ref()).await?;
        cursor.clone_from(&page.next);
        for span in page.into_spans()? {
            *counts.entry(span.span.entity_type).or_default() += 1;
        }
        if cursor.is_none() {
            break;
        }
    }
    let counts: Vec<_> = counts.iter().map(|(entity_type, count)| format!("{count} {entity_type}")).collect();
    println!("spans    {}", counts.join(", "));
    Ok(())
}

pub(crate) fn print_problem(event: Event) {
    if let Event::Store(problem) = &event {
        println!("  fsck:  {problem}");
    }
    if let Event::Problem(problem) = event {
        println!("  fsck:  {problem}");
    }
}
