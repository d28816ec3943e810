//! Which tools a run used: what the run says of them, compared with what the model asked for and with what ran.

use logline_core::SignedSpan;
use logline_core::contract::Reader;
use logline_core::contract::provider::{ModelAnswer, StopReason};
use logline_core::request::{Recorded, Within};
use logline_core::trust::Authorities;
use serde_json::Value;
use uuid::Uuid;

use super::{ExplainError, ToolCall, trusted};

/// The uses of tools that `run` names, in order.
pub(crate) async fn tool_calls(
    reader: &Reader<'_>,
    authorities: &Authorities,
    run: &SignedSpan,
    request: Uuid,
) -> Result<Vec<ToolCall>, ExplainError> {
    let Some(said) = run.meta("tool_calls").and_then(Value::as_array).filter(|said| !said.is_empty()) else {
        return Ok(Vec::new());
    };
    let tenant = run.tenant_id.as_str();
    let asked = asked_for(reader, authorities, run).await?;
    let mut calls = Vec::new();
    for (n, said) in said.iter().enumerate() {
        let call = text(said, "call").unwrap_or_default();
        let no_record = |reason: &str| ExplainError::NoRecord { id: run.id, reason: format!("tool call `{call}`: {reason}") };
        let (id, name, input) = asked.get(n).ok_or_else(|| no_record("no answer asks for it"))?;
        let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
        if text(said, "use") != Some(cut(id, 128)) || text(said, "name") != Some(cut(name, 64)) {
            return Err(no_record("the model asked for another one"));
        }
        let mut one = ToolCall {
            call: call.clone(),
            name: name.clone(),
            input: input.clone(),
            output: Value::Null,
            error: said.get("error").cloned().unwrap_or_default(),
            request: uuid(said, "request"),
            execution: uuid(said, "execution"),
            function: said.get("function").cloned().unwrap_or_default(),
            result: None,
        };
        if let Some(inner) = one.request {
            let asked = trusted(reader, authorities, tenant, inner, "request").await?;
            let within = Within { request, key: call.clone() };
            if Within::of(&asked).as_ref() != Some(&within) || inner != within.id(tenant) || asked.input.as_ref() != Some(input)
            {
                return Err(no_record("its request was made for something else"));
            }
        }
        if let Some(execution) = one.execution {
            let ran = trusted(reader, authorities, tenant, execution, "execution").await?;
            let recorded = Recorded::of(&ran).filter(|recorded| recorded.request.is_some() && recorded.request == one.request);
            let recorded = recorded.ok_or_else(|| no_record("its execution is one of another request"))?;
            if ran.meta("function").cloned().unwrap_or_default() != one.function {
                return Err(no_record("another version ran"));
            }
            one.result = Some(recorded.result.clone());
            match recorded.result {
                Ok(output) => one.output = output,
                Err(failure) if one.error != failure.code.as_str() => {
                    return Err(no_record("it ended otherwise"));
                }
                Err(_) => {}
            }
        }
        calls.push(one);
    }
    Ok(calls)
}

/// What the answers of the run ask for, in order: id, name and input of each use.
async fn asked_for(
    reader: &Reader<'_>,
    authorities: &Authorities,
    run: &SignedSpan,
) -> Result<Vec<(String, String, Value)>, ExplainError> {
    let mut asked = Vec::new();
    for answer in run.meta("answers").and_then(Value::as_array).into_iter().flatten() {
        let Some(id) = answer.as_str().and_then(|id| id.parse().ok()) else { continue };
        let outcome = trusted(reader, authorities, &run.tenant_id, id, "provider_execution").await?;
        let Ok(answer) = ModelAnswer::deserialize_from(outcome.output.as_ref().unwrap_or(&Value::Null)) else { continue };
        // An answer that does not wait for tools has used none, whatever stands in it.
        if answer.stop == StopReason::ToolUse {
            asked.extend(answer.tool_uses().map(|(id, name, input)| (id.to_owned(), name.to_owned(), input.clone())));
        }
    }
    Ok(asked)
}

fn text(said: &Value, member: &str) -> Option<String> {
    said.get(member).and_then(Value::as_str).map(str::to_owned)
}

fn uuid(said: &Value, member: &str) -> Option<Uuid> {
    said.get(member).and_then(Value::as_str).and_then(|id| id.parse().ok())
}
