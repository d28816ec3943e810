//! Families: variants for the same purpose, and how one of them is chosen.

use std::collections::BTreeSet;

use logline_core::Span;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The most variants of a family.
pub const MAX_VARIANTS: usize = 16;

/// Which variants serve a purpose, and how one is chosen for a run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Family {
    /// The name, such as `support`. Its variants are called `support@…`.
    #[serde(skip)]
    pub name: String,
    /// The ids of the variants. The first is the one that is used if nothing speaks for another.
    pub variants: Vec<Uuid>,
    /// How likely each variant is to be chosen at least, however badly it does. Default 0.05.
    #[serde(default = "usual_floor")]
    pub floor: f64,
    /// As long as less is known of a variant than so many results, it is preferred to variants that are known. Default 10.
    #[serde(default = "usual_min_samples")]
    pub min_samples: u64,
    /// Results of the last so many days count. Default 14.
    #[serde(default = "usual_window")]
    pub window_days: u32,
    /// The shares are renewed when there are so many new results. Default 20.
    #[serde(default = "usual_batch")]
    pub batch: u64,
    /// An answer that says how confident it is does well from here on. Default 0.6.
    #[serde(default = "usual_confidence")]
    pub min_confidence: f64,
    /// The suite whose evaluations count; `None`: none do. Anybody may evaluate, with any suite.
    #[serde(default)]
    pub suite: Option<Uuid>,
    /// The last evaluation of a variant with that suite counts as so many results at most. Default 20.
    #[serde(default = "usual_evals")]
    pub evals: u64,
    /// What takes a variant out, however well it does.
    #[serde(default)]
    pub guards: Vec<Guard>,
    /// Whatever you want to remember.
    #[serde(default)]
    pub labels: Value,
}

/// A limit of a measure. A variant that exceeds it is not chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Guard {
    /// What is measured.
    pub metric: Metric,
    /// The highest value that is allowed. For a rate, the lower end of its interval is compared.
    pub max: f64,
}

/// What a guard measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Metric {
    /// How many of the runs failed, from 0 to 1.
    Errors,
    /// How many of the answers did not hold to their contract, from 0 to 1.
    Broken,
    /// The latency in milliseconds that 95 of 100 runs do not exceed.
    LatencyP95Ms,
    /// The average cost of a run, in nanos.
    CostMeanNanos,
}

fn usual_floor() -> f64 {
    0.05
}

fn usual_min_samples() -> u64 {
    10
}

fn usual_window() -> u32 {
    14
}

fn usual_batch() -> u64 {
    20
}

fn usual_confidence() -> f64 {
    0.6
}

fn usual_evals() -> u64 {
    20
}

impl Family {
    /// Reads a `prompt_family`: its name is the family's, the rest is metadata.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(span: &Span) -> Result<Self, String> {
        let metadata = span.metadata.clone().unwrap_or_default();
        let mut family: Self = serde_json::from_value(metadata).map_err(|error| format!("metadata: {error}"))?;
        family.name = span
            .name
            .clone()
            .filter(|name| !name.is_empty() && !name.contains('@'))
            .ok_or("the name must be that of a family, without `@`")?;
        let count = family.variants.len();
        if count == 0 || count > MAX_VARIANTS {
            return Err(format!("metadata.variants: there must be 1 to {MAX_VARIANTS} variants"));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = family.variants.iter().find(|id| !seen.insert(**id)) {
            return Err(format!("metadata.variants: {twice} stands there twice"));
        }
        #[expect(clippy::cast_precision_loss, reason = "there are at most 16")]
        let most = 1.0 / count as f64;
        if !(0.0..=most).contains(&family.floor) {
            return Err(format!("metadata.floor must be from 0 to {most}: each of the {count} variants has it"));
        }
        if !(0.0..=1.0).contains(&family.min_confidence) {
            return Err("metadata.min_confidence must be from 0 to 1".to_owned());
        }
        if !(1..=90).contains(&family.window_days) {
            return Err("metadata.window_days must be from 1 to 90".to_owned());
        }
        if family.min_samples > 10_000 || family.batch == 0 || family.evals > 10_000 {
            return Err("metadata: min_samples and evals must be at most 10000, batch at least 1".to_owned());
        }
        if let Some(guard) = family.guards.iter().find(|guard| !guard.max.is_finite() || guard.max < 0.0) {
            return Err(format!("metadata.guards: {} is no limit", guard.max));
        }
        Ok(family)
    }
}
