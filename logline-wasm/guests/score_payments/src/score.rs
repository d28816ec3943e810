//! From hits to a decision.

use crate::alerts::OpenAlerts;
use crate::event::Event;
use crate::rules::Table;
use logline_guest::{Failure, Host};
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Decision {
    Allow,
    Review,
    Block,
}

impl Decision {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Review => "review",
            Self::Block => "block",
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Hit {
    pub(crate) rule: String,
    pub(crate) score: i64,
    pub(crate) reason: String,
}

/// A decision and what it rests on. `score` is always the sum of the hits, so a reader can check it by hand.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) decision: Decision,
    pub(crate) score: i64,
    pub(crate) hits: Vec<Hit>,
}

impl Verdict {
    pub(crate) fn into_output(self, rules_version: &str, scored_at: &str) -> Value {
        json!({
            "decision": self.decision,
            "score": self.score,
            "hits": self.hits,
            "rules_version": rules_version,
            "scored_at": scored_at,
        })
    }
}

/// Evaluates every rule, in the table's order: none stops the others, because the hits are the explanation.
pub(crate) fn score(table: &Table, event: &Event<'_>, host: &mut dyn Host) -> Result<Verdict, Failure> {
    let mut alerts = OpenAlerts::of(event);
    let mut score = 0_i64;
    let mut hits = Vec::new();
    for rule in &table.rules {
        if rule.when.holds(event, &mut alerts, host)? {
            score = score.saturating_add(rule.score);
            hits.push(Hit { rule: rule.id.clone(), score: rule.score, reason: rule.reason.clone() });
        }
    }
    let decision = if score >= table.block {
        Decision::Block
    } else if score >= table.review {
        Decision::Review
    } else {
        Decision::Allow
    };
    Ok(Verdict { decision, score, hits })
}
