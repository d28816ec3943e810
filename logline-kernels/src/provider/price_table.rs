//! Tables of prices: spans of their own, so that one signed version prices the calls of many providers, and a new price is one publication.

use std::collections::BTreeSet;

use logline_core::contract::{Context, KernelError, Reader};
use logline_core::request::reference;
use logline_core::trust::Money;
use logline_core::trust::governance::Version;
use logline_core::{Failure, SignedSpan, Span, Timestamp, Verifier};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::price::Prices;

/// The entity type of a table.
pub const PRICE_TABLE: &str = "price_table";

/// The most rows of a table.
const MAX_ROWS: usize = 1_000;

/// The most adapters of a table.
const MAX_ADAPTERS: usize = 16;

/// The metadata of a `price_table`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PriceTable {
    /// The adapters whose calls it prices, such as `bedrock`. A provider span with another adapter cannot refer to it.
    pub adapters: Vec<String>,
    /// The currency of all prices, such as `USD`.
    pub currency: String,
    /// The prices, by model and time.
    pub prices: Vec<PriceRow>,
    /// What the operator wants to remember, such as where the prices come from.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub labels: Value,
}

/// What a model costs from some time on, until the next row of the same model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PriceRow {
    /// The model, as the provider names it.
    pub model: String,
    /// From when on, inclusive.
    pub valid_from: Timestamp,
    /// What it costs then.
    pub prices: Prices,
}

impl PriceTable {
    /// Reads the metadata of a `price_table`, and checks them.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(span: &Span) -> Result<Self, String> {
        let metadata = span.metadata.clone().unwrap_or_default();
        let table: Self = serde_json::from_value(metadata).map_err(|error| format!("metadata: {error}"))?;
        table.check().map_err(|reason| format!("metadata.{reason}"))?;
        Ok(table)
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn check(&self) -> Result<(), String> {
        if self.adapters.is_empty() || self.adapters.len() > MAX_ADAPTERS {
            return Err(format!("adapters: there must be 1 to {MAX_ADAPTERS}"));
        }
        Money::check_currency(&self.currency)?;
        if self.prices.is_empty() || self.prices.len() > MAX_ROWS {
            return Err(format!("prices: there must be 1 to {MAX_ROWS} rows"));
        }
        let mut seen = BTreeSet::new();
        for (n, row) in self.prices.iter().enumerate() {
            if row.model.is_empty() {
                return Err(format!("prices[{n}].model is empty"));
            }
            // Two rows of one time would both hold, and nobody could say which.
            if !seen.insert((row.model.as_str(), row.valid_from)) {
                let model = row.model.escape_debug();
                return Err(format!("prices[{n}]: `{model}` has two rows that are valid from {}", row.valid_from));
            }
            row.prices.check().map_err(|reason| format!("prices[{n}].prices.{reason}"))?;
        }
        Ok(())
    }

    /// What a model costs at a time. `None` if no row says so.
    #[must_use]
    pub fn at(&self, model: &str, time: Timestamp) -> Option<&Prices> {
        let valid = self.prices.iter().filter(|row| row.model == model && row.valid_from <= time);
        valid.max_by_key(|row| row.valid_from).map(|row| &row.prices)
    }

    /// Whether it has prices for a model, whenever they begin.
    #[must_use]
    pub fn knows(&self, model: &str) -> bool {
        self.prices.iter().any(|row| row.model == model)
    }

    /// Whether a provider span with this adapter and currency can refer to it.
    ///
    /// # Errors
    /// What does not fit.
    pub fn fits(&self, adapter: &str, currency: Option<&str>) -> Result<(), String> {
        if !self.adapters.iter().any(|known| known == adapter) {
            return Err(format!("the table has no prices of the adapter `{adapter}`"));
        }
        match currency {
            Some(currency) if currency != self.currency => {
                Err(format!("the table's prices are in {}, and the provider span says {currency}", self.currency))
            }
            _ => Ok(()),
        }
    }
}

/// The table that prices a call, and the time at which its rows are looked up.
#[derive(Debug, Clone)]
pub(super) struct Priced {
    pub(super) table: PriceTable,
    pub(super) reference: Value,
    /// The id of the table's span, and the promotion that has put it in force; `None` if it needs none.
    pub(super) promotion: Option<(Uuid, Version)>,
    pub(super) at: Timestamp,
}

/// The table in force that a provider span refers to. The inner error is a failure of the call.
pub(super) async fn in_force(context: &Context<'_>, tenant: &str, id: Uuid) -> Result<Result<Priced, Failure>, KernelError> {
    let refused = |reason: String| Ok(Err(Failure::new("price_table_invalid", format!("price_table {id}: {reason}"))));
    let found = context.runtime.find(tenant, id).await?.filter(|found| found.entity_type == PRICE_TABLE);
    let Some(found) = found else {
        return refused("there is no such table in the tenant".to_owned());
    };
    let found = context.runtime.last_that_counts(context.trusted, found).await?;
    let (found, promotion) = match context.runtime.in_force(context.trusted, found, context.attempt.started).await {
        Ok(in_force) => (in_force.span, in_force.promotion.map(|promotion| (id, promotion))),
        Err(error) => return Ok(Err(error.refusal()?)),
    };
    let found = match found.verify(&mut Verifier::new()) {
        Ok(found) => found,
        Err(error) => return refused(format!("it is not what was signed: {error}")),
    };
    if let Err(error) = context.trusted.authorities.check(&found) {
        return refused(error.to_string());
    }
    if found.status.as_deref() != Some("active") {
        return refused("its status is not `active`".to_owned());
    }
    match PriceTable::read(&found) {
        Ok(table) => Ok(Ok(Priced { table, reference: reference(&found), promotion, at: context.attempt.started })),
        Err(reason) => refused(reason),
    }
}

/// A table that is there, as somebody who publishes a provider span refers to it.
pub(super) async fn published(reader: &Reader<'_>, tenant: &str, id: Uuid) -> Result<Result<PriceTable, String>, KernelError> {
    let found: Option<SignedSpan> = reader.find(tenant, id).await?;
    Ok(match found.filter(|found| found.entity_type == PRICE_TABLE) {
        None => Err(format!("there is no price_table {id}: publish it first")),
        Some(found) => PriceTable::read(&found),
    })
}
