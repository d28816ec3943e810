//! Operation 6: a function asks a provider.

use logline_core::contract::{Context, KernelError};
use logline_core::trust::capability;
use logline_core::{Failure, Hash, SignedSpan, SpanKey, VerifiedSpan};
use serde_json::{Value, json};

use crate::provider::{self, Ask, Asked, Providers};

/// The most bytes of a key that a function gives a call.
const MAX_KEY: usize = 100;

/// What a function asks of a provider.
#[derive(Debug, PartialEq)]
pub(crate) struct Wanted {
    /// The name of the provider span.
    provider: String,
    model: Option<String>,
    /// The function's name for the call.
    key: String,
    ask: Ask,
}

impl Wanted {
    /// Reads the argument of the operation.
    pub(crate) fn read(argument: &Value) -> Result<Self, Failure> {
        let invalid = |reason: &str| Failure::new("invalid_call", reason);
        let members = logline_core::json::members(Some(argument), "a call", &MEMBERS).map_err(|reason| invalid(&reason))?;
        let text = |name: &str| match members.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(invalid(&format!("`{name}` must be a text"))),
        };
        let needed = |name: &str| text(name)?.ok_or_else(|| invalid(&format!("`{name}` is missing")));
        let key = needed("key")?;
        if !(1..=MAX_KEY).contains(&key.len()) || key.chars().any(char::is_control) {
            return Err(invalid(&format!("`key` must have 1 to {MAX_KEY} bytes, and no control characters")));
        }
        let ask = Ask::read(&needed("operation")?, members.get("body").cloned().unwrap_or_default())?;
        Ok(Self { provider: needed("provider")?, model: text("model")?, key, ask })
    }

    /// The key under which the call is recorded. Functions cannot take the keys of kernels.
    pub(crate) fn recorded_key(&self) -> String {
        format!("guest/{}", self.key)
    }

    /// The hash of the call, as its intent has it, if this provider and model were asked first.
    pub(crate) fn hash(&self, provider: &Value, model: &Value) -> Hash {
        provider::call_hash(&self.ask, provider, model)
    }

    pub(crate) fn operation(&self) -> &'static str {
        self.ask.operation()
    }
}

const MEMBERS: [&str; 5] = ["provider", "operation", "key", "body", "model"];

/// A recorded answer: the outcome that holds it, and its hash.
pub(crate) struct Answered {
    pub(crate) outcome: SpanKey,
    pub(crate) hash: Hash,
    pub(crate) answer: Value,
}

/// Makes the calls of one function.
pub(crate) struct Calls<'a> {
    pub(crate) providers: &'a Providers,
    pub(crate) context: &'a Context<'a>,
    pub(crate) request: &'a SignedSpan,
    pub(crate) function: &'a VerifiedSpan,
}

impl Calls<'_> {
    /// Makes a call that the function and the manifest both allow.
    pub(crate) async fn call(&self, wanted: &Wanted) -> Result<Result<Answered, Failure>, KernelError> {
        let tenant = self.request.tenant_id.as_str();
        let named = self.providers.named(self.context, tenant, &wanted.provider, wanted.model.as_deref()).await?;
        let (provider, model) = match named {
            Ok(named) => named,
            Err(failure) => return Ok(Err(failure)),
        };
        let kind = format!("provider.{}", wanted.operation());
        let target = format!("{}/{model}", wanted.provider);
        if let Err(failure) = self.permits(&kind, &target) {
            return Ok(Err(failure));
        }
        let key = wanted.recorded_key();
        let asked = Asked::new(provider, &wanted.ask, &key).model(Some(&model));
        let told = match self.providers.call(self.context, self.request, &asked, None).await? {
            Ok(told) => told,
            Err(failure) => return Ok(Err(failure)),
        };
        let outcome = self.context.runtime.version(tenant, told.outcome.id, told.outcome.seq).await?;
        let Some(outcome) = outcome else {
            return Ok(Err(Failure::new("unavailable", "the outcome of the call cannot be read")));
        };
        Ok(Ok(Answered { hash: outcome.seal.curr_hash, outcome: told.outcome, answer: told.answer }))
    }

    fn permits(&self, kind: &str, target: &str) -> Result<(), Failure> {
        let refused =
            |who: &str, how: &str| Failure::new("not_permitted", format!("{who} does not allow `{kind}:{target}`: {how}"));
        let named = self.function.meta("capabilities").and_then(Value::as_array).into_iter().flatten();
        if !named.filter_map(Value::as_str).any(|one| capability::allows(one, kind, target)) {
            return Err(refused("the function", "name it in metadata.capabilities"));
        }
        let granted = self.context.trusted.manifest.capabilities_of(&self.request.tenant_id);
        if !granted.iter().any(|one| capability::allows(one, kind, target)) {
            return Err(refused("the manifest", "name it in `capabilities` of the tenant"));
        }
        Ok(())
    }
}

/// The answer as the function gets it.
pub(crate) fn answer(outcome: &SpanKey, answer: Value) -> Value {
    json!({"span": outcome.id.to_string(), "answer": answer})
}
