//! What a provider span says in its metadata.

use std::collections::BTreeMap;
use std::time::Duration;

use logline_core::Span;
use logline_core::contract::provider::Deadlines;
use logline_core::trust::Money;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::breaker::Breaker;
use super::price::Prices;

/// The most targets of a fallback chain.
const MAX_FALLBACKS: usize = 7;

/// The most tries of one call with one provider.
const MAX_TRIES: u32 = 10;

/// The longest deadline, milliseconds: an hour.
const MAX_MS: u64 = 3_600_000;

/// The metadata of a provider span.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ProviderSpec {
    /// The adapter of the host that makes the calls, such as `openai`.
    pub adapter: String,
    /// The base URL. Whether it is needed depends on the adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The reference of the host's secret that is sent. `None`: no secret is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The models that may be asked, by the name that callers use.
    pub models: BTreeMap<String, ModelSpec>,
    /// The model for callers that name none. `None`: the only model, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_model: Option<String>,
    /// The currency of all prices, such as `USD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// The table that has the prices, in the same tenant, instead of `prices` of the models. `currency` may then be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_table: Option<Uuid>,
    /// What calls may use.
    #[serde(default)]
    pub limits: ProviderLimits,
    /// How long a call may take.
    #[serde(default)]
    pub deadlines: DeadlineSpec,
    /// How a failed call is tried again.
    #[serde(default)]
    pub retry: Retries,
    /// When the provider is left alone because it fails.
    #[serde(default)]
    pub breaker: Breaker,
    /// Who is asked if this provider fails, one after the other. Their own fallbacks do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<Target>,
    /// What the operator wants to remember.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub labels: Value,
}

/// A model of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ModelSpec {
    /// The provider's own name of the model; `None`: the name that callers use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The most tokens of one answer. A request that asks for more is refused, one that says nothing asks for this.
    pub max_tokens: u32,
    /// Tokens of input and output together that the model can take, for those who make requests. Calls are not checked against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<u64>,
    /// What it costs. `None`: not known, and then no budget of money can be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<Prices>,
}

/// Another provider that may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The provider span, in the same tenant.
    pub provider: Uuid,
    /// The model; `None`: its default model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// What the calls of one provider may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ProviderLimits {
    /// Canonical bytes of a request. Default 512 KiB.
    pub request_bytes: usize,
    /// Calls that one host makes at the same time. Default 16.
    pub concurrent: u32,
    /// Calls that one host begins in a minute. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_per_minute: Option<u32>,
    /// Tokens that all hosts together use in a UTC day. Default: only the tenant's budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
}

impl Default for ProviderLimits {
    fn default() -> Self {
        Self { request_bytes: 512 << 10, concurrent: 16, calls_per_minute: None, tokens_per_day: None }
    }
}

/// How long the parts of a call may take, milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DeadlineSpec {
    /// Until the connection stands. Default 5,000.
    pub connect_ms: u64,
    /// Until the first byte of the answer. Default 60,000.
    pub first_byte_ms: u64,
    /// Between two pieces of the answer. Default 30,000.
    pub idle_ms: u64,
    /// One try. Default 300,000.
    pub total_ms: u64,
    /// Until the first byte of the first answer by a schema, which the provider may have to compile. It counts if it is longer than
    /// `first_byte_ms`. `total_ms` limits it as well. Default 300,000.
    pub schema_ms: u64,
}

impl Default for DeadlineSpec {
    fn default() -> Self {
        Self { connect_ms: 5_000, first_byte_ms: 60_000, idle_ms: 30_000, total_ms: 300_000, schema_ms: 300_000 }
    }
}

impl DeadlineSpec {
    /// The same as durations, for a request whose schema is new or not.
    #[must_use]
    pub fn deadlines(&self, is_new_schema: bool) -> Deadlines {
        let ms = Duration::from_millis;
        let least = if is_new_schema { self.schema_ms } else { 0 };
        Deadlines {
            connect: ms(self.connect_ms),
            first_byte: ms(self.first_byte_ms.max(least)),
            idle: ms(self.idle_ms),
            total: ms(self.total_ms),
        }
    }
}

/// How a failed call is tried again with the same provider, if its error says that this may help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Retries {
    /// Tries in all, 1 to 10. Default 3.
    pub tries: u32,
    /// The pause before the second try, milliseconds; it doubles with each further try, and a random part is added. Default 500.
    pub pause_ms: u64,
    /// The longest pause, milliseconds. If the provider asks for a longer one, it is not tried again. Default 20,000.
    pub max_pause_ms: u64,
}

impl Default for Retries {
    fn default() -> Self {
        Self { tries: 3, pause_ms: 500, max_pause_ms: 20_000 }
    }
}

impl ProviderSpec {
    /// Reads the metadata of a provider span, and checks them.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(span: &Span) -> Result<Self, String> {
        let metadata = span.metadata.clone().unwrap_or_default();
        let spec: Self = serde_json::from_value(metadata).map_err(|error| format!("metadata: {error}"))?;
        spec.check().map_err(|reason| format!("metadata.{reason}"))?;
        Ok(spec)
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn check(&self) -> Result<(), String> {
        if self.models.is_empty() {
            return Err("models: name at least one model".to_owned());
        }
        if let Some(default) = self.default_model.as_ref().filter(|name| !self.models.contains_key(*name)) {
            return Err(format!("default_model: there is no model `{default}`"));
        }
        match &self.currency {
            Some(currency) => Money::check_currency(currency)?,
            None if self.models.values().any(|model| model.prices.is_some()) => {
                return Err("currency: the prices need one, such as USD".to_owned());
            }
            None => {}
        }
        for (name, model) in &self.models {
            if model.max_tokens == 0 {
                return Err(format!("models.{name}.max_tokens must be at least 1"));
            }
            if self.price_table.is_some() && model.prices.is_some() {
                return Err(format!("models.{name}.prices: the prices are those of price_table: leave one of them out"));
            }
            if let Some(prices) = &model.prices {
                prices.check().map_err(|reason| format!("models.{name}.prices.{reason}"))?;
            }
        }
        let of_time = [
            ("deadlines.connect_ms", self.deadlines.connect_ms),
            ("deadlines.first_byte_ms", self.deadlines.first_byte_ms),
            ("deadlines.idle_ms", self.deadlines.idle_ms),
            ("deadlines.total_ms", self.deadlines.total_ms),
            ("deadlines.schema_ms", self.deadlines.schema_ms),
        ];
        if let Some((place, ms)) = of_time.into_iter().find(|(_, ms)| !(1..=MAX_MS).contains(ms)) {
            return Err(format!("{place} is {ms}: it must be from 1 to {MAX_MS}"));
        }
        if !(1..=MAX_TRIES).contains(&self.retry.tries) {
            return Err(format!("retry.tries is {}: it must be from 1 to {MAX_TRIES}", self.retry.tries));
        }
        if self.retry.pause_ms > self.retry.max_pause_ms || self.retry.max_pause_ms > MAX_MS {
            return Err(format!("retry.max_pause_ms must be from retry.pause_ms to {MAX_MS}"));
        }
        if self.limits.concurrent == 0 || self.limits.calls_per_minute == Some(0) {
            return Err("limits: a limit of 0 calls allows none: delete the provider instead".to_owned());
        }
        if self.fallback.len() > MAX_FALLBACKS {
            return Err(format!("fallback: {MAX_FALLBACKS} is the most"));
        }
        self.breaker.check().map_err(|reason| format!("breaker.{reason}"))
    }

    /// The model with this name, or the default model: its name and what is said about it.
    ///
    /// # Errors
    /// A text that names the models that there are.
    pub fn model(&self, name: Option<&str>) -> Result<(&str, &ModelSpec), String> {
        let wanted = name.or(self.default_model.as_deref());
        let found = match wanted {
            Some(name) => self.models.get_key_value(name),
            None => self.models.iter().next().filter(|_| self.models.len() == 1),
        };
        found.map(|(name, model)| (name.as_str(), model)).ok_or_else(|| {
            let names = self.models.keys().map(String::as_str).collect::<Vec<_>>().join("`, `");
            match wanted {
                Some(wanted) => format!("it has no model `{wanted}`: it has `{names}`"),
                None => format!("it has several models and no default: name one of `{names}`"),
            }
        })
    }
}
