//! Functions of the ledger as tools of a model: which one is meant, what its input looks like, and how it is run.
//!
//! A function says in `metadata.tool` what a model has to know of it. Which version that is, is decided when a conversation begins; the
//! request that runs it allows no other. `docs/prompts.md` is the specification.

use std::time::{Duration, Instant};

use logline_core::contract::{Context, FunctionCall, FunctionEnded, FunctionRun, KernelError};
use logline_core::ledger::Query;
use logline_core::request::reference;
use logline_core::{Failure, Hash, SignedSpan, Span, VerifiedSpan, Verifier};
use serde::Deserialize;
use serde_json::Value;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::harness::holding;
use crate::provider::telemetry::{ERROR, OPERATION, TOOL_CALL, TOOL_DURATION, TOOL_NAME, TOOL_TYPE};

/// The most functions of a tenant among which one is found by its name.
const MAX_NAMED: usize = 1_000;

/// The most bytes of what a function says of itself to models.
const MAX_DESCRIPTION: usize = 4 << 10;

/// How long a conversation waits for a function that another host runs.
const PATIENCE: Duration = Duration::from_secs(300);

/// The first and the longest pause between two looks at it.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What a function says of itself to models, in `metadata.tool`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ToolSpec {
    /// The name for models, 1 to 64 letters, digits, `_` and `-`. `None`: the function's own name.
    #[serde(default)]
    pub name: Option<String>,
    /// What it does, for models. 1 to 4,096 bytes.
    pub description: String,
    /// The JSON schema of its input.
    pub input_schema: Value,
}

impl ToolSpec {
    /// Reads what a function says. `None` if it is no tool. The schema itself is not checked.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn of(function: &Span) -> Result<Option<Self>, String> {
        let Some(said) = function.meta("tool") else { return Ok(None) };
        let spec = Self::deserialize(said).map_err(|error| format!("metadata.tool: {error}"))?;
        let name = spec.name.as_deref().or(function.name.as_deref()).unwrap_or_default();
        if !is_name(name) {
            let name = name.escape_debug();
            return Err(format!(
                "metadata.tool.name: `{name}` is no name for models: it has 1 to 64 letters, digits, `_` and `-`"
            ));
        }
        if !(1..=MAX_DESCRIPTION).contains(&spec.description.len()) {
            return Err(format!("metadata.tool.description must have 1 to {MAX_DESCRIPTION} bytes"));
        }
        if !spec.input_schema.is_object() {
            return Err("metadata.tool.input_schema must be an object".to_owned());
        }
        Ok(Some(Self { name: Some(name.to_owned()), ..spec }))
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// A tool of one conversation: a function, and the version that it has there.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Tool {
    /// The name for models.
    pub name: String,
    /// What it does, for models.
    pub description: String,
    /// The JSON schema of its input.
    pub input_schema: Value,
    /// The function.
    pub function: Uuid,
    /// The version that is run, and no other.
    pub version: Hash,
    /// A [`reference`](logline_core::request::reference()) to it.
    pub reference: Value,
}

impl Tool {
    /// The function that `named` means, by its id or its name: the version in force, which a publisher of the tenant has signed and the
    /// request's owner may see.
    ///
    /// # Errors
    /// [`KernelError`] if the ledger fails. Why there is no such tool is the inner error, a failure with the code `tool_invalid`.
    pub async fn find(context: &Context<'_>, tenant: &str, named: &str) -> Result<Result<Self, Failure>, KernelError> {
        let shown = named.escape_debug().to_string();
        let refused = |reason: String| Ok(Err(Failure::new("tool_invalid", format!("tool `{shown}`: {reason}"))));
        let found = match named.parse::<Uuid>() {
            Ok(id) => context.owner.find(tenant, id).await?.filter(|found| found.entity_type == "function"),
            Err(_) => match by_name(context, tenant, named).await? {
                Ok(found) => found,
                Err(reason) => return refused(reason),
            },
        };
        let Some(function) = found else {
            return refused("no such function that the request's owner can see".to_owned());
        };
        let function = context.owner.last_that_counts(context.trusted, function).await?;
        let function = match context.owner.in_force(context.trusted, function, context.attempt.started).await {
            Ok(in_force) => in_force.span,
            Err(error) => return refused(error.refusal()?.message),
        };
        let function = match function.verify(&mut Verifier::new()) {
            Ok(function) => function,
            Err(error) => return refused(format!("it is not what was signed: {error}")),
        };
        if let Err(error) = context.trusted.authorities.check(&function) {
            return refused(error.to_string());
        }
        match Self::of(&function) {
            Ok(tool) => Ok(Ok(tool)),
            Err(reason) => refused(reason),
        }
    }

    /// The tool that a version of a function is.
    ///
    /// # Errors
    /// Why it is none.
    pub fn of(function: &VerifiedSpan) -> Result<Self, String> {
        let spec = ToolSpec::of(function)?.ok_or("it has no metadata.tool, which says to models what it does")?;
        Ok(Self {
            name: spec.name.unwrap_or_default(),
            description: spec.description,
            input_schema: spec.input_schema,
            function: function.id,
            version: function.seal.curr_hash,
            reference: reference(function),
        })
    }

    /// Runs the tool as a request within the attempt's request, and waits for its end. `key` names the call, `use_id` is the model's name of
    /// it. What an earlier attempt has run is not run again.
    ///
    /// # Errors
    /// [`KernelError`] if the claim is lost or the ledger fails. A failure of the function is in the result.
    pub async fn run(
        &self,
        context: &Context<'_>,
        key: &str,
        use_id: &str,
        input: Value,
    ) -> Result<FunctionEnded, KernelError> {
        let call = FunctionCall::new(key, self.function, self.version, input);
        let span = tracing::info_span!(
            "execute_tool",
            "otel.name" = format!("execute_tool {}", self.name),
            { OPERATION } = "execute_tool",
            { TOOL_NAME } = self.name,
            { TOOL_TYPE } = "function",
            { TOOL_CALL } = use_id,
        );
        let began = Instant::now();
        let ended = holding(context, wait(context, &call)).instrument(span).await?;
        let seconds = began.elapsed().as_secs_f64();
        match &ended.result {
            Ok(_) => metrics::histogram!(TOOL_DURATION).record(seconds),
            Err(_) => metrics::histogram!(TOOL_DURATION, ERROR => "failed").record(seconds),
        }
        Ok(ended)
    }
}

/// Waits until a call has ended, whoever carries it out. After [`PATIENCE`] it is cancelled.
async fn wait(context: &Context<'_>, call: &FunctionCall) -> Result<FunctionEnded, KernelError> {
    let (began, mut pause) = (Instant::now(), PAUSE.0);
    loop {
        if let FunctionRun::Ended(ended) = context.functions.run(call).await? {
            return Ok(*ended);
        }
        if began.elapsed() >= PATIENCE {
            context.functions.cancel(&call.key).await?;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// The only function of this name that the request's owner can see.
async fn by_name(context: &Context<'_>, tenant: &str, name: &str) -> Result<Result<Option<SignedSpan>, String>, KernelError> {
    let query = Query::new().tenant(tenant).entity_type("function");
    let (mut cursor, mut looked_at, mut named) = (None, 0, Vec::new());
    loop {
        let page = context.owner.scan(&query, cursor.as_ref()).await?;
        looked_at += page.rows.len();
        named.extend(page.rows.into_iter().filter_map(|row| row.span.ok()).filter(|span| span.name.as_deref() == Some(name)));
        cursor = page.next;
        if cursor.is_none() {
            if named.len() > 1 {
                // A row that nobody may have signed takes no name from a function.
                let mut verifier = Verifier::new();
                named.retain(|span| context.trusted.counts(span, &mut verifier));
            }
            if named.len() > 1 {
                return Ok(Err("there are two functions of this name: name it by its id".to_owned()));
            }
            return Ok(Ok(named.pop()));
        }
        if looked_at >= MAX_NAMED {
            return Ok(Err(format!("the tenant has more than {MAX_NAMED} functions: name it by its id")));
        }
    }
}
