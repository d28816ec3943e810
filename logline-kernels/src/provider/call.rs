//! A call to a provider, with everything around it: budget, limits, retries, fallback, and the circuit breaker.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use logline_core::contract::provider::{Advice, Chunks, ErrorKind, Provider, Secret, SecretSource};
use logline_core::contract::{Answer, Call, Context, KernelError, OutsideError, Reservation};
use logline_core::ledger::Query;
use logline_core::request::{self, CallKind, reference};
use logline_core::trust::governance::{PROMOTIONS, Version, promotion_references};
use logline_core::{Failure, Hash, SignedSpan, SpanKey, VerifiedSpan, Verifier, canonical};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::harness::holding;

use super::ask::{Ask, Asked, input_tokens};
use super::breaker::Breakers;
use super::gates::Gates;
use super::price_table::{self, Priced};
use super::remote::{CHUNKS, COMPILED_HASH, Listening, OneTry, Quotas, RETRY_AFTER_MS, SERVICE};
use super::schemas::Schemas;
use super::secrets::HostSecrets;
use super::spec::{ModelSpec, ProviderSpec, Target};
use super::telemetry::Observed;

/// The most active providers of a tenant that functions may name.
const MAX_NAMED: usize = 100;

/// A recorded answer of a provider.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Told {
    /// The answer: a `ModelAnswer`, or vectors.
    pub answer: Value,
    /// The `provider_execution` that records it.
    pub outcome: SpanKey,
    /// What else is recorded of the call: usage, cost, durations.
    pub details: Map<String, Value>,
    /// Whether an earlier attempt got it, so that no call was made now.
    pub was_recorded: bool,
}

impl From<Answer> for Told {
    fn from(answer: Answer) -> Self {
        Self { answer: answer.value, outcome: answer.outcome, details: answer.details, was_recorded: answer.was_recorded }
    }
}

/// The adapters and secrets of a host, and what it needs to keep the limits of providers. It is cheap to clone.
#[derive(Clone)]
pub struct Providers {
    inner: Arc<Inner>,
}

struct Inner {
    adapters: Vec<Arc<dyn Provider>>,
    secrets: Arc<dyn SecretSource>,
    gates: Gates,
    breakers: Breakers,
    schemas: Schemas,
}

impl std::fmt::Debug for Providers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Providers").field("adapters", &self.names()).finish_non_exhaustive()
    }
}

impl Default for Providers {
    fn default() -> Self {
        Self::new([], HostSecrets::new())
    }
}

/// A provider that is to be asked.
struct Resolved {
    span: VerifiedSpan,
    /// The promotion that has put it in force; `None` if it needs none.
    promotion: Option<Version>,
    spec: ProviderSpec,
    model: String,
    /// The table that prices the call; `None` if the provider span does, or nothing.
    priced: Option<Priced>,
}

impl Resolved {
    fn model(&self) -> Result<&ModelSpec, Failure> {
        self.spec.models.get(&self.model).ok_or_else(|| Failure::new("provider_invalid", "its model is gone"))
    }
}

/// How the tries with one provider ended.
enum Ended {
    Answered(Told),
    /// Another provider may help.
    Elsewhere(Failure),
    /// Nothing else helps.
    Failed(Failure),
}

impl Providers {
    /// Providers that are called through `adapters`, with the secrets of `secrets`.
    pub fn new(adapters: impl IntoIterator<Item = Arc<dyn Provider>>, secrets: impl SecretSource + 'static) -> Self {
        let (gates, breakers) = (Gates::default(), Breakers::default());
        let inner = Inner {
            adapters: adapters.into_iter().collect(),
            secrets: Arc::new(secrets),
            gates,
            breakers,
            schemas: Schemas::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The adapter with this name.
    #[must_use]
    pub fn adapter(&self, name: &str) -> Option<&dyn Provider> {
        self.inner.adapters.iter().find(|adapter| adapter.adapter() == name).map(|adapter| &**adapter)
    }

    /// The names of the adapters, for messages.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.inner.adapters.iter().map(|adapter| format!("`{}`", adapter.adapter())).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// Checks a provider span against this host, without calling the provider: the adapter exists, and takes URL and models.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn check(&self, spec: &ProviderSpec) -> Result<(), String> {
        let Some(adapter) = self.adapter(&spec.adapter) else {
            return Err(format!("metadata.adapter: this host has no adapter `{}`, it has {}", spec.adapter, self.names()));
        };
        for (name, model) in &spec.models {
            let id = model.id.as_deref().unwrap_or(name);
            adapter.check(spec.url.as_deref(), id).map_err(|reason| format!("metadata: {reason} (model `{name}`)"))?;
        }
        Ok(())
    }

    /// Makes a call, or returns its recorded answer. It is tried again, and then with the provider's fallbacks, as far as the provider
    /// span says and the error allows. Once a piece of the answer was delivered to `chunks`, it is neither tried again nor elsewhere.
    ///
    /// # Errors
    /// [`KernelError`] if the host cannot go on. A failure of the call is the inner error.
    pub async fn call(
        &self,
        context: &Context<'_>,
        request: &SignedSpan,
        asked: &Asked<'_>,
        chunks: Option<&mut dyn Chunks>,
    ) -> Result<Result<Told, Failure>, KernelError> {
        let tenant = request.tenant_id.as_str();
        let first = match self.resolve(context, tenant, asked.provider, asked.model).await? {
            Ok(first) => first,
            Err(failure) => {
                // That a call of an earlier attempt may have been carried out must be told, also if nothing can be asked any more.
                let call = Call::new(asked.key, asked.ask.operation(), Value::Null).kind(CallKind::Provider);
                return Ok(Err(match context.outside.known(SERVICE, &call).await {
                    Ok(_) => failure,
                    Err(error) => error.into_failure()?,
                }));
            }
        };
        let value = asked.ask.to_value();
        let text = canonical::to_vec(&value);
        let (bytes, ascii) = (text.len(), text.iter().filter(|byte| byte.is_ascii()).count());
        let most = first.spec.limits.request_bytes;
        if bytes > most {
            let message = format!("the request has {bytes} bytes: the provider span allows {most} (limits.request_bytes)");
            return Ok(Err(Failure::new(ErrorKind::Invalid.code(), message)));
        }
        let attempt = CallOf {
            providers: self,
            context,
            tenant,
            asked,
            // The same for every provider that may answer, so that a later attempt finds the answer of whichever did.
            body: body(&json!(asked.provider), &json!(first.model), value),
            asked_model: first.model.clone(),
            bytes: (ascii, bytes - ascii),
            listening: Listening::new(chunks.map(|chunks| chunks as &mut (dyn Chunks + '_))),
        };
        let observed = Observed::new(&first.spec.adapter, &first.model, asked.ask);
        let asking = self.ask_all(context, tenant, &first, &attempt).instrument(observed.span());
        let result = holding(context, asking).await?;
        observed.ended(&result);
        Ok(result)
    }

    async fn ask_all(
        &self,
        context: &Context<'_>,
        tenant: &str,
        first: &Resolved,
        attempt: &CallOf<'_>,
    ) -> Result<Result<Told, Failure>, KernelError> {
        let mut ordinal = 0;
        let mut last = match attempt.with(first, &mut ordinal).await? {
            Ended::Answered(told) => return Ok(Ok(told)),
            Ended::Failed(failure) => return Ok(Err(failure)),
            Ended::Elsewhere(failure) => failure,
        };
        for Target { provider, model } in &first.spec.fallback {
            let next = match self.resolve(context, tenant, *provider, model.as_deref()).await? {
                Ok(next) => next,
                Err(failure) => {
                    tracing::warn!(%provider, %failure, "a fallback cannot be asked");
                    continue;
                }
            };
            // Not the message: it may repeat what was asked.
            tracing::info!(failed = last.code, next = %provider, "asking the next provider");
            match attempt.with(&next, &mut ordinal).await? {
                Ended::Answered(told) => return Ok(Ok(told)),
                Ended::Failed(failure) => return Ok(Err(failure)),
                Ended::Elsewhere(failure) => last = failure,
            }
        }
        Ok(Err(last))
    }

    /// The active provider with this name that the request's owner may see, and the name of its model.
    pub(crate) async fn named(
        &self,
        context: &Context<'_>,
        tenant: &str,
        name: &str,
        model: Option<&str>,
    ) -> Result<Result<(Uuid, String), Failure>, KernelError> {
        let query = Query::new().tenant(tenant).entity_type("provider").status("active").limit(MAX_NAMED);
        let page = context.owner.scan(&query, None).await?;
        let shown = name.escape_debug().to_string();
        if page.next.is_some() {
            let message = format!("the tenant has more than {MAX_NAMED} active providers: archive some");
            return Ok(Err(Failure::new("provider_not_found", message)));
        }
        let rows = page.rows.into_iter().filter_map(|row| row.span.ok());
        let mut found: Vec<_> = rows.filter(|span| span.name.as_deref() == Some(name)).collect();
        if found.len() > 1 {
            // A row that nobody may have signed takes no name from a provider.
            let mut verifier = Verifier::new();
            found.retain(|span| context.trusted.counts(span, &mut verifier));
        }
        let Some(span) = found.pop() else {
            let message = format!("no active provider `{shown}` that the request's owner can see");
            return Ok(Err(Failure::new("provider_not_found", message)));
        };
        if !found.is_empty() {
            let message = format!("there are two active providers `{shown}`: archive one");
            return Ok(Err(Failure::new("provider_not_found", message)));
        }
        Ok(self.resolve(context, tenant, span.id, model).await?.map(|resolved| (resolved.span.id, resolved.model)))
    }

    /// The provider span that the request's owner may see and a publisher of the tenant has signed.
    async fn resolve(
        &self,
        context: &Context<'_>,
        tenant: &str,
        id: Uuid,
        model: Option<&str>,
    ) -> Result<Result<Resolved, Failure>, KernelError> {
        let refused = |code: &str, reason: String| Ok(Err(Failure::new(code, format!("provider {id}: {reason}"))));
        let Some(span) = context.owner.find(tenant, id).await? else {
            let advice = "no such span that the request's owner can see: check the id and the span's visibility";
            return refused("provider_not_found", advice.to_owned());
        };
        if span.entity_type != "provider" {
            return refused("provider_not_found", format!("it is of type `{}`, not a provider", span.entity_type));
        }
        let span = context.owner.last_that_counts(context.trusted, span).await?;
        let (span, promotion) = match context.owner.in_force(context.trusted, span, context.attempt.started).await {
            Ok(in_force) => (in_force.span, in_force.promotion),
            Err(error) => return Ok(Err(error.refusal()?)),
        };
        let span = match span.verify(&mut Verifier::new()) {
            Ok(span) => span,
            Err(error) => return refused("provider_not_verified", format!("it is not what was signed: {error}")),
        };
        if let Err(error) = context.trusted.authorities.check(&span) {
            return refused("provider_not_authorised", error.to_string());
        }
        if span.status.as_deref() != Some("active") {
            return refused("provider_not_active", "its status is not `active`".to_owned());
        }
        let spec = match ProviderSpec::read(&span) {
            Ok(spec) => spec,
            Err(reason) => return refused("provider_invalid", reason),
        };
        let model = match spec.model(model) {
            Ok((name, _)) => name.to_owned(),
            Err(reason) => return refused(ErrorKind::Invalid.code(), reason),
        };
        let (mut spec, mut priced) = (spec, None);
        if let Some(id) = spec.price_table {
            let table = match price_table::in_force(context, tenant, id).await? {
                Ok(table) => table,
                Err(failure) => return Ok(Err(failure)),
            };
            if let Err(reason) = table.table.fits(&spec.adapter, spec.currency.as_deref()) {
                return refused("price_table_invalid", reason);
            }
            for (name, model) in &mut spec.models {
                model.prices = table.table.at(model.id.as_deref().unwrap_or(name), table.at).cloned();
            }
            spec.currency = Some(table.table.currency.clone());
            priced = Some(table);
        }
        Ok(Ok(Resolved { span, promotion, spec, model, priced }))
    }
}

/// One call, with whichever provider.
struct CallOf<'a> {
    providers: &'a Providers,
    context: &'a Context<'a>,
    tenant: &'a str,
    asked: &'a Asked<'a>,
    body: Value,
    /// The model that was asked first.
    asked_model: String,
    /// Bytes of the request that are ASCII, and others.
    bytes: (usize, usize),
    listening: Listening<'a>,
}

impl CallOf<'_> {
    /// Tries one provider. `ordinal` is the number of the last try.
    async fn with(&self, resolved: &Resolved, ordinal: &mut u32) -> Result<Ended, KernelError> {
        let Resolved { span, spec, model: name, priced, .. } = resolved;
        let model = match resolved.model() {
            Ok(model) => model,
            Err(failure) => return Ok(Ended::Failed(failure)),
        };
        let Some(adapter) = self.providers.adapter(&spec.adapter) else {
            let message = format!("this host has no adapter `{}`, it has {}", spec.adapter, self.providers.names());
            return Ok(Ended::Elsewhere(Failure::new("adapter_not_available", message)));
        };
        let output = match self.asked.ask.output(model) {
            Ok(output) => output,
            Err(failure) => return Ok(Ended::Failed(failure)),
        };
        let ask = self.asked.ask.bounded(model);
        let (quotas, reserve) = match self.reserve(resolved, model, output) {
            Ok(reserve) => reserve,
            Err(failure) => return Ok(Ended::Failed(failure)),
        };
        if *ordinal == 0
            && let Some(known) = self.known().await?
        {
            return Ok(known);
        }
        let (now, breakers) = (self.context.clock.now(), &self.providers.inner.breakers);
        let reader = (&self.context.runtime, &self.context.trusted.authorities);
        if let Some(until) = breakers.open_until(&spec.breaker, reader, (self.tenant, span.id), now).await? {
            let message =
                format!("the calls of the last {} requests failed, so it is left alone until {until}", spec.breaker.failures);
            return Ok(Ended::Elsewhere(Failure::new(ErrorKind::NotReady.code(), message)));
        }
        let secret = match self.secret(spec).await {
            Ok(secret) => secret,
            Err(failure) => return Ok(Ended::Elsewhere(failure)),
        };
        let secret = secret.as_ref();
        let (ask, listening, quotas) = (&ask, &self.listening, &quotas);
        let (priced, is_confidential) = (priced.as_ref(), self.context.confidential.is_some());
        let schemas = &self.providers.inner.schemas;
        let new_schema = schemas.new_one(span.seal.curr_hash, name, ask);
        let remote = OneTry {
            adapter,
            spec,
            model_name: name,
            model,
            secret,
            ask,
            listening,
            quotas,
            priced,
            is_confidential,
            compiled_hash: self.asked.prompt.map(|prompt| prompt.compiled_hash),
            is_new_schema: new_schema.is_some(),
        };
        let longest = Duration::from_millis(spec.retry.max_pause_ms);
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(spec.retry.pause_ms))
            .with_max_delay(longest)
            .with_factor(2.0)
            .with_jitter()
            .with_max_times(usize::try_from(spec.retry.tries).unwrap_or(1).saturating_sub(1))
            .build();
        loop {
            let deadline = Instant::now() + spec.deadlines.deadlines(new_schema.is_some()).total;
            let Some(permit) = self.providers.inner.gates.pass(span.seal.curr_hash, &spec.limits, deadline).await else {
                let message = "this host makes as many calls of it as the provider span allows (limits)";
                return Ok(Ended::Elsewhere(Failure::new(ErrorKind::Throttled.code(), message)));
            };
            if let Some(permit) = self.asked.permit
                && let Err(failure) = permit.check().await?
            {
                return Ok(Ended::Failed(failure));
            }
            *ordinal = ordinal.saturating_add(1);
            let call = Call::new(self.asked.key, ask.operation(), self.body.clone())
                .ordinal(*ordinal)
                .kind(CallKind::Provider)
                .subject(span.id)
                .details(self.about(resolved))
                .reserve(reserve.clone());
            let tried = tracing::debug_span!("model_try", ordinal, adapter = spec.adapter, model = name);
            let (failure, details) = match self.context.outside.call(&remote, &call).instrument(tried).await {
                Ok(answer) => {
                    new_schema.into_iter().for_each(|schema| schemas.learn(span.seal.curr_hash, schema));
                    return Ok(Ended::Answered(answer.into()));
                }
                Err(OutsideError::Failed { failure, details, .. }) => (failure, details),
                Err(error) => return Ok(Ended::Failed(error.into_failure()?)),
            };
            drop(permit);
            breakers.forget(self.tenant, span.id);
            let number = |name: &str| details.get(name).and_then(Value::as_u64);
            if number(CHUNKS).is_some_and(|delivered| delivered > 0) {
                return Ok(Ended::Failed(failure));
            }
            match ErrorKind::from_code(&failure.code).map(ErrorKind::advice) {
                Some(Advice::Retry) => {}
                Some(Advice::Elsewhere) => return Ok(Ended::Elsewhere(failure)),
                _ => return Ok(Ended::Failed(failure)),
            }
            let floor = Duration::from_millis(number(RETRY_AFTER_MS).unwrap_or(0));
            match pauses.next() {
                // The provider's own wish is a floor. The pause is random, so that not all who were told the same come back at once.
                Some(pause) if floor <= longest => tokio::time::sleep(floor.saturating_add(pause)).await,
                _ => return Ok(Ended::Elsewhere(failure)),
            }
        }
    }

    /// What an earlier attempt of the request has recorded of the call. It is read before anything that may keep this host from asking, such
    /// as an open breaker or a secret that is gone: it was paid for.
    async fn known(&self) -> Result<Option<Ended>, KernelError> {
        let call = Call::new(self.asked.key, self.asked.ask.operation(), self.body.clone()).kind(CallKind::Provider);
        match self.context.outside.known(SERVICE, &call).await {
            Ok(known) => Ok(known.map(|answer| Ended::Answered(answer.into()))),
            Err(error) => Ok(Some(Ended::Failed(error.into_failure()?))),
        }
    }

    /// Which provider and model a try goes to, and which were asked first, for its intent.
    fn about(&self, Resolved { span, promotion, spec, model, priced }: &Resolved) -> Map<String, Value> {
        let mut about = Map::new();
        about.insert("provider".to_owned(), reference(span));
        let mut promotions: Vec<_> = promotion.map(|promotion| (span.id, promotion)).into_iter().collect();
        if let Some(priced) = priced {
            about.insert("price_table".to_owned(), priced.reference.clone());
            promotions.extend(priced.promotion);
        }
        if !promotions.is_empty() {
            about.insert(PROMOTIONS.to_owned(), promotion_references(self.tenant, promotions));
        }
        about.insert("adapter".to_owned(), spec.adapter.as_str().into());
        about.insert("model".to_owned(), model.as_str().into());
        if let Some(prompt) = self.asked.prompt {
            about.insert(COMPILED_HASH.to_owned(), prompt.compiled_hash.to_string().into());
            if !prompt.context.is_empty() {
                about.insert("context".to_owned(), prompt.context.into());
            }
        }
        about.insert("asked_provider".to_owned(), json!(self.asked.provider));
        about.insert("asked_model".to_owned(), self.asked_model.as_str().into());
        about
    }

    /// What the call may use at most of each budget that applies.
    fn reserve(&self, resolved: &Resolved, model: &ModelSpec, output: u64) -> Result<(Quotas, Vec<Reservation>), Failure> {
        let budget = self.context.trusted.manifest.budget_of(self.tenant);
        let input = input_tokens(self.asked.ask, self.bytes);
        let tokens = input.saturating_add(output);
        let (mut quotas, mut reserve) = (Quotas { tokens: Vec::new(), money: None }, Vec::new());
        let of_provider = || format!("provider.tokens.{}", resolved.span.id);
        let limits = [(TOKENS.to_owned(), budget.tokens_per_day), (of_provider(), resolved.spec.limits.tokens_per_day)];
        for (quota, per_day) in limits.into_iter().filter_map(|(quota, per_day)| Some((quota, per_day?))) {
            quotas.tokens.push(quota.clone());
            reserve.push(Reservation { quota, units: tokens, per_day });
        }
        if let Some(money) = &budget.money_per_day {
            let quota = money_quota(&money.currency);
            let (Some(prices), Some(currency)) = (&model.prices, &resolved.spec.currency) else {
                let message = "the tenant has a budget of money, and the provider span has no prices for this model: add them";
                return Err(Failure::new("not_priced", message));
            };
            if currency != &money.currency {
                let message =
                    format!("the tenant's budget is in {}, and the provider's prices are in {currency}", money.currency);
                return Err(Failure::new("not_priced", message));
            }
            reserve.push(Reservation { quota: quota.clone(), units: prices.most(input, output), per_day: money.nanos });
            quotas.money = Some(quota);
        }
        Ok((quotas, reserve))
    }

    async fn secret(&self, spec: &ProviderSpec) -> Result<Option<Secret>, Failure> {
        let Some(reference) = &spec.secret else { return Ok(None) };
        let found = self.providers.inner.secrets.secret(reference, spec.url.as_deref()).await;
        found.map(Some).map_err(|error| Failure::new("secret_not_available", error.to_string()))
    }
}

/// The quota of the tokens that a tenant may use in a day.
const TOKENS: &str = "provider.tokens.per_tenant.daily";

/// The quota of the money that a tenant may use in a day.
fn money_quota(currency: &str) -> String {
    format!("provider.nano_{}.per_tenant.daily", currency.to_ascii_lowercase())
}

/// The body of a call, of which its intent has the hash.
fn body(provider: &Value, model: &Value, request: Value) -> Value {
    json!({"provider": provider, "model": model, "request": request})
}

/// The hash that the intent of a call has in `metadata.call_hash`, if this provider (its id, as a text) and this model (a text) were asked
/// first. That of a confidential request is keyed, and another one.
#[must_use]
pub fn call_hash(ask: &Ask, provider: &Value, model: &Value) -> Hash {
    request::call_hash(SERVICE, ask.operation(), &body(provider, model, ask.to_value()))
}
