//! Computes again what a call cost: from the usage in its outcome, and from the prices that its record names by hash.

use std::time::Duration;

use logline_core::contract::Reader;
use logline_core::contract::provider::Usage;
use logline_core::ledger::{Cursor, LedgerError, Query};
use logline_core::request::CallKind;
use logline_core::trust::Authorities;
use logline_core::{SignedSpan, Timestamp, Verifier};
use serde::Deserialize as _;
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use super::price::cost;
use super::price_table::{PRICE_TABLE, PriceTable};
use super::spec::ProviderSpec;

/// How far apart the time of a price and the begin of its call may be: an attempt may wait, and clocks differ.
const MAX_APART: Duration = Duration::from_secs(86_400);

/// What a call cost, computed again.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Costed {
    /// Nanos of the currency.
    pub nanos: u64,
    /// The currency.
    pub currency: String,
    /// The version of the table that has the prices; null if the provider span has them.
    pub price_table: Value,
}

/// Why a cost does not verify.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CostError {
    /// There is no such outcome, or it is not what was signed, or no host of the tenant has signed it.
    #[error("provider_execution {id}: {reason}")]
    NoRecord {
        /// The id.
        id: Uuid,
        /// Why.
        reason: String,
    },
    /// What it was priced by is not there, is not the version that the record names, or was signed by somebody who may not.
    #[error("provider_execution {id}: its prices cannot be found: {reason}")]
    NoPrices {
        /// The id.
        id: Uuid,
        /// Why.
        reason: String,
    },
    /// The recorded cost is another than usage and prices come to.
    #[error("provider_execution {id}: {recorded} nanos are recorded, and usage and prices come to {computed}")]
    OtherCost {
        /// The id.
        id: Uuid,
        /// What is recorded.
        recorded: Value,
        /// What it should be: null if it is not known, or the currency is another.
        computed: Value,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Computes the cost of a call again. `None` if its outcome records none.
///
/// # Errors
/// See [`CostError`].
pub async fn verify_cost(
    reader: &Reader<'_>,
    authorities: &Authorities,
    tenant: &str,
    outcome: Uuid,
) -> Result<Option<Costed>, CostError> {
    let found = reader.version(tenant, outcome, 0).await?;
    let found = found.ok_or_else(|| CostError::NoRecord { id: outcome, reason: "there is none".to_owned() })?;
    verify(reader, authorities, found).await
}

/// What a check of many costs found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CostReport {
    /// How many outcomes it looked at.
    pub looked_at: usize,
    /// How many of them have a cost that was computed again.
    pub priced: usize,
    /// What does not verify.
    pub faults: Vec<CostError>,
    /// Where the next page goes on; `None` after the last.
    pub next: Option<Cursor>,
}

/// Computes the costs of a page of calls again, in the order of the ledger, at most `most` outcomes.
///
/// # Errors
/// If the ledger fails.
pub async fn verify_costs(
    reader: &Reader<'_>,
    authorities: &Authorities,
    tenant: &str,
    after: Option<&Cursor>,
    most: usize,
) -> Result<CostReport, LedgerError> {
    let query = Query::new().tenant(tenant).entity_type(CallKind::Provider.outcome()).limit(most.max(1));
    let page = reader.scan(&query, after).await?;
    let mut report = CostReport { looked_at: page.rows.len(), next: page.next, ..CostReport::default() };
    for row in page.rows {
        let Ok(span) = row.span else { continue };
        match verify(reader, authorities, span).await {
            Ok(costed) => report.priced += usize::from(costed.is_some()),
            Err(CostError::Ledger(error)) => return Err(error),
            Err(fault) => report.faults.push(fault),
        }
    }
    Ok(report)
}

/// Who signed what, by the same rule for each span that is read.
struct Trusting<'a, 'r> {
    reader: &'a Reader<'r>,
    authorities: &'a Authorities,
    tenant: String,
    id: Uuid,
}

impl Trusting<'_, '_> {
    fn no_prices(&self, reason: impl Into<String>) -> CostError {
        CostError::NoPrices { id: self.id, reason: reason.into() }
    }

    fn check(&self, span: SignedSpan) -> Result<SignedSpan, String> {
        let span = span.verify(&mut Verifier::new()).map_err(|error| error.to_string())?;
        self.authorities.check(&span).map_err(|error| error.to_string())?;
        Ok(span.into_signed())
    }

    /// The version that a reference names, if it is of this type and has that hash.
    async fn version(&self, named: &Value, entity_type: &str) -> Result<SignedSpan, CostError> {
        let text = |name: &str| named.get(name).and_then(Value::as_str);
        let seq = named.get("seq").and_then(Value::as_u64).and_then(|seq| u32::try_from(seq).ok());
        let (Some(id), Some(seq)) = (text("id").and_then(|id| id.parse().ok()), seq) else {
            return Err(self.no_prices(format!("no {entity_type} is named")));
        };
        let found = self.reader.version(&self.tenant, id, seq).await?;
        let found = found.filter(|found| found.entity_type == entity_type);
        let found = found.ok_or_else(|| self.no_prices(format!("there is no version {seq} of {entity_type} {id}")))?;
        if text("curr_hash") != Some(found.seal.curr_hash.to_string().as_str()) {
            return Err(self.no_prices(format!("{entity_type} {id} has another hash than the record names")));
        }
        self.check(found).map_err(|reason| self.no_prices(format!("{entity_type} {id}: {reason}")))
    }
}

async fn verify(reader: &Reader<'_>, authorities: &Authorities, outcome: SignedSpan) -> Result<Option<Costed>, CostError> {
    let (id, tenant) = (outcome.id, outcome.tenant_id.clone());
    let trusting = Trusting { reader, authorities, tenant, id };
    let no_record = |reason: String| CostError::NoRecord { id, reason };
    if outcome.entity_type != CallKind::Provider.outcome() {
        return Err(no_record(format!("it is of type `{}`", outcome.entity_type)));
    }
    let outcome = trusting.check(outcome).map_err(no_record)?;
    let details = outcome.meta("details");
    let Some(recorded) = details.and_then(|details| details.get("cost")) else { return Ok(None) };
    let [_, intent] = outcome.related_to.as_slice() else { return Err(no_record("it names no intent".to_owned())) };
    let intent = reader.version(&trusting.tenant, *intent, 0).await?;
    let intent = intent.filter(|found| CallKind::Provider.outcome_id(&found.tenant_id, found.id) == id);
    let intent = intent.ok_or_else(|| no_record("its intent is not there".to_owned()))?;
    let intent = trusting.check(intent).map_err(no_record)?;
    let said = |name: &str| intent.meta("details").and_then(|details| details.get(name));
    let provider = trusting.version(said("provider").unwrap_or(&Value::Null), "provider").await?;
    let spec = ProviderSpec::read(&provider).map_err(|reason| trusting.no_prices(reason))?;
    let name = said("model").and_then(Value::as_str).unwrap_or_default();
    let model = spec.models.get(name).ok_or_else(|| trusting.no_prices("the provider has no such model"))?;
    let named = recorded.get("price_table").cloned().unwrap_or(Value::Null);
    let (prices, currency) = match (spec.price_table, &named) {
        (None, Value::Null) => (model.prices.clone(), spec.currency.clone()),
        (Some(table), named) if named.get("id") == Some(&Value::from(table.to_string())) => {
            let table = trusting.version(named, PRICE_TABLE).await?;
            let table = PriceTable::read(&table).map_err(|reason| trusting.no_prices(reason))?;
            table.fits(&spec.adapter, spec.currency.as_deref()).map_err(|reason| trusting.no_prices(reason))?;
            let at = recorded.get("priced_at").and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok());
            let at = at.ok_or_else(|| trusting.no_prices("the time of the price is missing"))?;
            // Otherwise an old price could be taken for a new one.
            if intent.at.since(at).max(at.since(intent.at)) > MAX_APART {
                return Err(trusting.no_prices(format!("they are those of {at}, and the call began at {}", intent.at)));
            }
            (table.at(model.id.as_deref().unwrap_or(name), at).cloned(), Some(table.currency))
        }
        _ => return Err(trusting.no_prices("the record names another table than the provider")),
    };
    let usage = details.and_then(|details| details.get("usage")).and_then(|usage| Usage::deserialize(usage).ok());
    let computed = usage.zip(prices).and_then(|(usage, prices)| cost(&usage, &prices));
    let nanos = recorded.get("nanos").cloned().unwrap_or_default();
    let is_same_currency = recorded.get("currency").and_then(Value::as_str) == currency.as_deref();
    match (computed.filter(|_| is_same_currency), currency) {
        (Some(computed), Some(currency)) if nanos == computed => {
            Ok(Some(Costed { nanos: computed, currency, price_table: named }))
        }
        (computed, _) => Err(CostError::OtherCost { id, recorded: nanos, computed: computed.into() }),
    }
}
