//! How an answer came about: from the ledger alone.

use std::fmt;

use logline_core::contract::{CipherError, Confidential, Reader};
use logline_core::ledger::{LedgerError, Query};
use logline_core::request::CallKind;
use logline_core::trust::Authorities;
use logline_core::{Failure, Hash, SignedSpan, SpanKey, Verifier};
use serde::{Serialize, Serializer};
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::record::KEYED;
use crate::verify::{VerifyBuildError, verify_build_with};

mod asked;
mod tools;

use asked::Asked;
use tools::tool_calls;

/// How an answer came about.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explained {
    /// The `prompt_run`.
    pub run: Uuid,
    /// The answer.
    pub answer: Value,
    /// Whether the answer held to the contract: `held`, `broken` or `none`.
    pub contract: Value,
    /// The variant, with the hash of the version that was used.
    pub variant: Value,
    /// The `prompt_build`.
    pub build: Uuid,
    /// The hash of the prompt's text, which was built again and compared.
    pub compiled_hash: String,
    /// The text of the prompt.
    pub text: String,
    /// The blocks, with the hashes of the versions that were used.
    pub blocks: Value,
    /// The spans that were offered as context, and whether they were used.
    pub context: Value,
    /// The directives that were in force, with their hashes; `null` if there were none.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub directives: Value,
    /// The `prompt_selection` that chose the variant; `null` if the request named it.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub selection: Value,
    /// Every try of every call to a provider, in order.
    pub tries: Vec<Try>,
    /// Whether the model was asked just this: each call that led to the answer was made up again from prompt, question, context, directives,
    /// earlier answers and results of tools, and compared with the hash in its intent. A difference is an error.
    pub asked: Checked,
    /// The tools that the model could use, with the hashes of the versions that could run; `null` if there were none.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub tools: Value,
    /// Every use of a tool, in order, each compared with what the model asked for and with the record of its execution.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// Whether something was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checked {
    /// It holds.
    Passed,
    /// It cannot be checked, for this reason.
    NotChecked(String),
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::NotChecked(reason) => write!(f, "not checked: {reason}"),
        }
    }
}

impl Serialize for Checked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One use of a tool.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ToolCall {
    /// The key of the call, such as `tool/1/0`: the first round, its first tool.
    pub call: String,
    /// The name of the tool, as the model said it.
    pub name: String,
    /// What the model gave the tool.
    pub input: Value,
    /// What the tool gave back; `null` if it failed.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// The code of what went wrong; `null` if nothing did.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub error: Value,
    /// The request that ran it; `None` if it was refused before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Uuid>,
    /// The execution that records it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<Uuid>,
    /// The function, with the hash of the version that ran.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub function: Value,
    /// How its execution ended; `None` if there is none.
    #[serde(skip)]
    result: Option<Result<Value, Failure>>,
}

/// One try of a call to a provider.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Try {
    /// The caller's name for the call.
    pub call: Value,
    /// The number of the request's attempt.
    pub attempt: Value,
    /// The number of the try within the attempt.
    pub ordinal: Value,
    /// The provider, with the hash of the version that was used.
    pub provider: Value,
    /// The model.
    pub model: Value,
    /// `complete`, `error` or `unknown`; `open` if the try has no outcome yet.
    pub status: String,
    /// The code of the failure.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub error: Value,
    /// What it used.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub usage: Value,
    /// What it cost.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub cost: Value,
    /// Whether the answer is the one that the run used.
    pub is_used: bool,
}

/// Why an answer cannot be explained.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// There is no such record, or it is not what was signed, or no host of the tenant has signed it.
    #[error("prompt_run {id}: {reason}")]
    NoRecord {
        /// The id.
        id: Uuid,
        /// Why.
        reason: String,
    },
    /// The model was asked something else than the records of the run say.
    #[error("prompt_run {id}: its call `{call}` has the hash {recorded}, and what its records say was asked has {again}")]
    AskedOtherwise {
        /// The id of the run.
        id: Uuid,
        /// The key of the call.
        call: String,
        /// The hash in the intent of the call.
        recorded: String,
        /// The hash of the call that was made up again.
        again: Hash,
    },
    /// The prompt does not verify.
    #[error(transparent)]
    Build(#[from] VerifyBuildError),
    /// The answer cannot be decrypted, or was forgotten.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Explains a `prompt_run`: answer, prompt, blocks, context, and every try with its cost. Record and prompt are verified.
///
/// # Errors
/// See [`ExplainError`]; [`VerifyBuildError::Confidential`] if it belongs to a confidential request.
pub async fn explain(
    reader: &Reader<'_>,
    authorities: &Authorities,
    tenant: &str,
    id: Uuid,
) -> Result<Explained, ExplainError> {
    explain_with(reader, authorities, tenant, id, None).await
}

/// As [`explain`], also for confidential requests: `key` is what their owner's key opens
/// ([`Host::confidential`](logline_core::Host::confidential)).
///
/// # Errors
/// See [`ExplainError`].
pub async fn explain_with(
    reader: &Reader<'_>,
    authorities: &Authorities,
    tenant: &str,
    id: Uuid,
    key: Option<&Confidential>,
) -> Result<Explained, ExplainError> {
    let no_record = |reason: String| ExplainError::NoRecord { id, reason };
    let run = trusted(reader, authorities, tenant, id, "prompt_run").await?;
    let of = |name: &str| run.meta(name).cloned().unwrap_or_default();
    let id_of = |name: &str| of(name).as_str().and_then(|id| id.parse::<Uuid>().ok());
    let build = id_of("build").ok_or_else(|| no_record("metadata.build is missing".to_owned()))?;
    let request = id_of("request").ok_or_else(|| no_record("metadata.request is missing".to_owned()))?;
    let built = verify_build_with(reader, authorities, tenant, build, key).await?;
    if of("compiled_hash").as_str() != Some(built.compiled_hash.to_string().as_str()) {
        return Err(no_record("its hash is not that of its build".to_owned()));
    }
    let record = trusted(reader, authorities, tenant, build, "prompt_build").await?;
    let used: Vec<Value> = of("answers").as_array().cloned().unwrap_or_default();
    let tries = tries(reader, authorities, tenant, request, &used).await?;
    if used.is_empty() || tries.iter().filter(|one| one.is_used).count() != used.len() {
        return Err(no_record("an answer that it names is none of its request".to_owned()));
    }
    if of("variant") != record.meta("variant").cloned().unwrap_or_default() {
        return Err(no_record("its variant is not that of its build".to_owned()));
    }
    let tool_calls = tool_calls(reader, authorities, &run, request).await?;
    let is_keyed = record.meta("hashed").and_then(Value::as_str) == Some(KEYED);
    let asked = Asked { reader, authorities, run: &run, request, text: &built.text, tool_calls: &tool_calls };
    let asked = if is_keyed { asked::confidential() } else { asked.check().await? };
    let answer = run.output.clone().unwrap_or_default();
    let answer = match key.filter(|_| is_keyed) {
        None => answer,
        Some(key) => key.open(run.id, "output", &answer).await?,
    };
    Ok(Explained {
        run: id,
        answer,
        contract: of("contract"),
        variant: of("variant"),
        build,
        compiled_hash: built.compiled_hash.to_string(),
        text: built.text,
        blocks: record.meta("blocks").cloned().unwrap_or_default(),
        context: of("context"),
        directives: of("directives"),
        selection: of("selection"),
        tries,
        asked,
        tools: of("tools"),
        tool_calls,
    })
}

async fn trusted(
    reader: &Reader<'_>,
    authorities: &Authorities,
    tenant: &str,
    id: Uuid,
    entity_type: &str,
) -> Result<SignedSpan, ExplainError> {
    let no_record = |reason: String| ExplainError::NoRecord { id, reason };
    let found = reader.version(tenant, id, 0).await?.ok_or_else(|| no_record("there is none".to_owned()))?;
    if found.entity_type != entity_type {
        return Err(no_record(format!("it is of type `{}`", found.entity_type)));
    }
    let found = found.verify(&mut Verifier::new()).map_err(|error| no_record(error.to_string()))?;
    authorities.check(&found).map_err(|error| no_record(error.to_string()))?;
    Ok(found.into_signed())
}

/// The tries of a request, with their outcomes. Each record must be what was signed. An intent that no host of the tenant has signed is no
/// try.
async fn tries(
    reader: &Reader<'_>,
    authorities: &Authorities,
    tenant: &str,
    request: Uuid,
    used: &[Value],
) -> Result<Vec<Try>, ExplainError> {
    let altered = |key: SpanKey, reason: String| ExplainError::NoRecord {
        id: request,
        reason: format!("{key}, the record of a call, is not what a host has signed: {reason}"),
    };
    let query = Query::new().tenant(tenant).entity_type(CallKind::Provider.intent()).parent_id(request);
    let (mut cursor, mut tries) = (None, Vec::new());
    loop {
        let page = reader.scan(&query, cursor.as_ref()).await?;
        for intent in page.rows.into_iter().filter_map(|row| row.span.ok()) {
            let key = intent.key();
            let intent = intent.verify(&mut Verifier::new()).map_err(|error| altered(key, error.to_string()))?;
            if authorities.check(&intent).is_err() {
                continue;
            }
            let outcome = match reader.version(tenant, CallKind::Provider.outcome_id(tenant, intent.id), 0).await? {
                None => None,
                Some(outcome) => {
                    let key = outcome.key();
                    let outcome =
                        outcome.verify(&mut Verifier::new()).map_err(|error| altered(key.clone(), error.to_string()))?;
                    authorities.check(&outcome).map_err(|error| altered(key, error.to_string()))?;
                    Some(outcome.into_signed())
                }
            };
            tries.push(one(&intent, outcome.as_ref(), used));
        }
        cursor = page.next;
        if cursor.is_none() {
            let number = |value: &Value| value.as_u64().unwrap_or_default();
            tries.sort_by_key(|one| (number(&one.attempt), one.call.to_string(), number(&one.ordinal)));
            return Ok(tries);
        }
    }
}

fn one(intent: &SignedSpan, outcome: Option<&SignedSpan>, used: &[Value]) -> Try {
    let of = |span: &SignedSpan, path: &str| {
        span.meta("details").and_then(|details| details.pointer(path)).cloned().unwrap_or_default()
    };
    let said = |path: &str| outcome.map(|outcome| of(outcome, path)).unwrap_or_default();
    let named = |name: &str| intent.meta(name).cloned().unwrap_or_default();
    let error = outcome.and_then(|outcome| outcome.error.as_ref()).and_then(|error| error.get("code")).cloned();
    Try {
        call: named("call_key"),
        attempt: named("attempt"),
        ordinal: named("ordinal"),
        provider: of(intent, "/provider"),
        model: of(intent, "/model"),
        status: outcome.and_then(|outcome| outcome.status.clone()).unwrap_or("open".to_owned()),
        error: error.unwrap_or_default(),
        usage: said("/usage"),
        cost: said("/cost"),
        is_used: outcome.is_some_and(|outcome| used.contains(&Value::from(outcome.id.to_string()))),
    }
}
