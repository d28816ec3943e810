//! The kernel `provider_exec`: a request that asks a provider.

use std::sync::Arc;

use async_trait::async_trait;
use logline_core::contract::provider::{ErrorKind, Provider, SecretSource};
use logline_core::contract::{AskedBy, Context, Effects, Kernel, KernelError, Meters, Publishing, RequestKind, Sandbox};
use logline_core::request::Details;
use logline_core::{Failure, KernelSet, SignedSpan, Span, VerifiedSpan, ids};
use serde_json::{Value, json};
use uuid::Uuid;

use super::ask::{Ask, Asked};
use super::call::Providers;
use super::price_table::{self, PRICE_TABLE, PriceTable};
use super::spec::{ModelSpec, ProviderSpec};
use super::streams::Streams;

/// The `this` of a request for an answer of a model. Its parent is the provider span, its input `{"model"?, "request"}`.
pub const PROVIDER_INVOKE: &str = "provider.invoke";

/// The `this` of a request for vectors. Its parent is the provider span, its input `{"model"?, "request"}`.
pub const PROVIDER_EMBED: &str = "provider.embed";

/// The kernel `provider_exec`, version 1.
#[derive(Debug, Clone, Default)]
pub struct ProviderExec {
    providers: Providers,
    streams: Streams,
}

impl ProviderExec {
    /// A kernel that calls providers through `adapters`, with the secrets of `secrets`.
    pub fn new(adapters: impl IntoIterator<Item = Arc<dyn Provider>>, secrets: impl SecretSource + 'static) -> Self {
        Self { providers: Providers::new(adapters, secrets), streams: Streams::default() }
    }

    /// The kernel with its seed, to install.
    #[must_use]
    pub fn behaviours(&self) -> KernelSet {
        KernelSet::new().kernel(self.clone()).seeds(crate::seeds::providers())
    }

    /// What makes the calls, for other kernels of the same host.
    #[must_use]
    pub fn providers(&self) -> &Providers {
        &self.providers
    }

    /// Where callers in this process listen to answers as they come.
    #[must_use]
    pub fn streams(&self) -> &Streams {
        &self.streams
    }
}

#[async_trait]
impl Kernel for ProviderExec {
    fn id(&self) -> Uuid {
        ids::PROVIDER_EXEC
    }

    fn name(&self) -> &'static str {
        "provider_exec"
    }

    fn version(&self) -> u32 {
        1
    }

    fn requests(&self) -> &'static [RequestKind] {
        const METERS: Meters = Meters { executions: true, fuel: false };
        &[
            RequestKind { this: PROVIDER_INVOKE, asked_by: AskedBy::Anybody, meters: METERS },
            RequestKind { this: PROVIDER_EMBED, asked_by: AskedBy::Anybody, meters: METERS },
        ]
    }

    fn lacks(&self, function: Option<&SignedSpan>, _: &[Arc<dyn Sandbox>]) -> Option<String> {
        let provider = function.filter(|span| span.entity_type == "provider")?;
        let adapter = provider.meta("adapter").and_then(Value::as_str)?;
        match self.providers.adapter(adapter) {
            Some(_) => None,
            None => Some(format!("adapter `{}`", adapter.chars().take(64).collect::<String>())),
        }
    }

    fn keeps_confidential(&self) -> bool {
        true
    }

    async fn check(&self, span: &Span, publishing: &Publishing<'_>) -> Result<(), KernelError> {
        if span.entity_type == PRICE_TABLE && !span.is_deleted {
            let refused = |reason: String| KernelError::Refused(Failure::new("price_table_invalid", reason));
            return PriceTable::read(span).map(drop).map_err(refused);
        }
        if span.entity_type != "provider" || span.is_deleted {
            return Ok(());
        }
        let refused = |reason: String| KernelError::Refused(Failure::new("provider_invalid", reason));
        let spec = ProviderSpec::read(span).map_err(refused)?;
        self.providers.check(&spec).map_err(refused)?;
        let mut currency = spec.currency.clone();
        let mut table = None;
        if let Some(id) = spec.price_table {
            let place = |reason: String| refused(format!("metadata.price_table: {reason}"));
            let found = price_table::published(&publishing.reader, &span.tenant_id, id).await?.map_err(place)?;
            found.fits(&spec.adapter, spec.currency.as_deref()).map_err(place)?;
            currency = Some(found.currency.clone());
            table = Some(found);
        }
        let budget = publishing.manifest.budget_of(&span.tenant_id);
        if let Some(money) = budget.money_per_day {
            let has_prices = |(name, model): &(&String, &ModelSpec)| match &table {
                Some(table) => table.knows(model.id.as_deref().unwrap_or(name)),
                None => model.prices.is_some(),
            };
            let not_priced = spec.models.iter().find(|model| !has_prices(model));
            if let Some((name, _)) = not_priced {
                return Err(refused(format!(
                    "metadata.models.{name}.prices: the tenant has a budget of money, so it needs prices"
                )));
            }
            if currency.as_ref() != Some(&money.currency) {
                return Err(refused(format!("metadata.currency: the tenant's budget is in {}", money.currency)));
            }
        }
        for (n, target) in spec.fallback.iter().enumerate() {
            let found = publishing.reader.find(&span.tenant_id, target.provider).await?;
            let found = found.filter(|found| found.entity_type == "provider" && found.id != span.id);
            let Some(found) = found else {
                return Err(refused(format!("metadata.fallback[{n}]: there is no other provider {}", target.provider)));
            };
            let other = ProviderSpec::read(&found).map_err(|reason| refused(format!("metadata.fallback[{n}]: {reason}")))?;
            other.model(target.model.as_deref()).map_err(|reason| refused(format!("metadata.fallback[{n}]: {reason}")))?;
        }
        Ok(())
    }

    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        let failed = |failure: Failure| Ok(Effects::new(Err(failure)));
        let Some(provider) = request.parent_id else {
            return failed(Failure::new("provider_not_found", "the request names no provider: set its parent_id"));
        };
        let operation = request.this.strip_prefix("provider.").unwrap_or_default();
        let (model, ask) = match read(operation, context.input) {
            Ok(asked) => asked,
            Err(failure) => return failed(failure),
        };
        let asked = Asked::new(provider, &ask, "ask").model(model.as_deref());
        let mut listener = self.streams.take(&request.tenant_id, request.id);
        let chunks = listener.as_mut().map(|listener| listener.chunks());
        Ok(match self.providers.call(context, request, &asked, chunks).await? {
            Err(failure) => Effects::new(Err(failure)),
            Ok(told) => {
                let mut details = Details::default();
                details.metadata.extend(told.details);
                details.metadata.insert("provider_execution".to_owned(), json!(told.outcome.id));
                Effects::new(Ok(json!({"answer": told.answer, "span": told.outcome.id}))).execution(details)
            }
        })
    }
}

/// Reads the input of a request.
fn read(operation: &str, input: Option<&Value>) -> Result<(Option<String>, Ask), Failure> {
    let invalid = |reason: &str| Failure::new(ErrorKind::Invalid.code(), reason);
    let members = logline_core::json::members(input, "the input", &["request", "model"]).map_err(|reason| invalid(&reason))?;
    let model = match members.get("model") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name.clone()),
        Some(_) => return Err(invalid("`model` must be a text")),
    };
    let body = members.get("request").cloned().ok_or_else(|| invalid("the input has no `request`"))?;
    Ok((model, Ask::read(operation, body)?))
}
