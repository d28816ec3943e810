//! The tools of a conversation: functions of the ledger that the model may use, at most five times in a row.

use std::collections::BTreeSet;

use logline_core::contract::provider::{Block, ModelAnswer, StopReason, Tool as Offered};
use logline_core::contract::{Context, KernelError};
use logline_core::{Failure, canonical};
use logline_kernels::tool::Tool;
use serde_json::{Value, json};

use crate::contract::Contract;

/// The most rounds of tools in one conversation: the model asks for some, and is told their results.
pub const MAX_TOOL_ROUNDS: u32 = 5;

/// The most tools of one conversation.
pub const MAX_TOOLS: usize = 16;

/// The most tools that one answer may use.
const MAX_USES: usize = 8;

/// The most bytes of a result that a model is told.
const MAX_RESULT: usize = 64 << 10;

/// The tools of one conversation.
pub(crate) struct Toolbox {
    tools: Vec<(Tool, Contract)>,
    pub(crate) rounds: u32,
}

/// One round of tools.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round<'a> {
    /// What stands before the keys of the conversation.
    pub(crate) prefix: &'a str,
    /// From 1.
    pub(crate) number: u32,
    /// Whether every use is told that the tool is not there, as evaluations of such cases want it.
    pub(crate) is_away: bool,
}

/// One use of a tool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Used {
    /// The key of the inner request, after the prefix of the conversation.
    pub(crate) key: String,
    use_id: String,
    name: String,
    request: Option<String>,
    execution: Option<String>,
    function: Value,
    /// The code of what went wrong.
    error: Option<String>,
}

impl Used {
    /// As a `prompt_run` records it. The execution has input and output.
    pub(crate) fn to_value(&self) -> Value {
        let mut value = json!({"call": self.key, "use": self.use_id, "name": self.name});
        let Some(members) = value.as_object_mut() else { return value };
        let texts = [("request", &self.request), ("execution", &self.execution), ("error", &self.error)];
        members.extend(texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.clone()?.into()))));
        if !self.function.is_null() {
            members.insert("function".to_owned(), self.function.clone());
        }
        value
    }
}

impl Toolbox {
    /// No tools.
    pub(crate) fn empty() -> Self {
        Self { tools: Vec::new(), rounds: 0 }
    }

    /// The tools of a run that has been recorded, in their order.
    pub(crate) fn of(tools: impl IntoIterator<Item = Tool>, rounds: u32) -> Result<Self, String> {
        let with_contract = |tool: Tool| Contract::read(&tool.input_schema).map(|contract| (tool, contract));
        Ok(Self { tools: tools.into_iter().map(with_contract).collect::<Result<_, _>>()?, rounds })
    }

    /// Finds the functions that are named, each in the version that is in force now. The inner error is a failure of the request.
    pub(crate) async fn find<'a>(
        context: &Context<'_>,
        tenant: &str,
        named: impl IntoIterator<Item = &'a String>,
        rounds: u32,
    ) -> Result<Result<Self, Failure>, KernelError> {
        let (mut tools, mut names): (Vec<(Tool, Contract)>, BTreeSet<String>) = (Vec::new(), BTreeSet::new());
        for named in named {
            let invalid = |reason: String| Failure::new("tool_invalid", format!("tool `{}`: {reason}", named.escape_debug()));
            let tool = match Tool::find(context, tenant, named).await? {
                Ok(tool) => tool,
                Err(failure) => return Ok(Err(failure)),
            };
            // A card and a request may name the same function.
            if tools.iter().any(|(known, _)| known.function == tool.function) {
                continue;
            }
            if tools.len() == MAX_TOOLS {
                return Ok(Err(invalid(format!("{MAX_TOOLS} tools are the most"))));
            }
            if !names.insert(tool.name.clone()) {
                return Ok(Err(invalid(format!("two functions are called `{}` for models", tool.name))));
            }
            let contract = match Contract::read(&tool.input_schema) {
                Ok(contract) => contract,
                Err(reason) => return Ok(Err(invalid(format!("metadata.tool.input_schema: {reason}")))),
            };
            tools.push((tool, contract));
        }
        Ok(Ok(Self { tools, rounds }))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// As the model is told of them.
    pub(crate) fn offered(&self) -> Vec<Offered> {
        let offered = |tool: &Tool| Offered {
            name: tool.name.clone(),
            description: tool.description.clone(),
            input_schema: tool.input_schema.clone(),
            strict: false,
        };
        self.tools.iter().map(|(tool, _)| offered(tool)).collect()
    }

    /// As a `prompt_run` records them: each with the version that could run.
    pub(crate) fn recorded(&self) -> Value {
        self.tools.iter().map(|(tool, _)| json!({"name": tool.name, "function": tool.reference})).collect::<Vec<_>>().into()
    }

    /// Whether an answer waits for results of tools.
    pub(crate) fn is_wanted(&self, answer: &ModelAnswer) -> bool {
        !self.is_empty() && answer.stop == StopReason::ToolUse && answer.tool_uses().next().is_some()
    }

    /// Runs the tools that an answer uses, one after the other, and gives the results for the one next message. The inner error is a
    /// failure of the request.
    pub(crate) async fn results(
        &self,
        context: &Context<'_>,
        round: Round<'_>,
        answer: &ModelAnswer,
        used: &mut Vec<Used>,
    ) -> Result<Result<Vec<Block>, Failure>, KernelError> {
        let mut ids = BTreeSet::new();
        if let Some((id, ..)) = answer.tool_uses().find(|(id, ..)| !ids.insert(*id)) {
            let reason = format!("the answer uses two tools under the same id `{}`", id.escape_debug());
            return Ok(Err(Failure::new("provider:bad_answer", reason)));
        }
        let mut results = Vec::new();
        for (n, (id, name, input)) in answer.tool_uses().enumerate() {
            let mut one = Used {
                key: format!("tool/{}/{n}", round.number),
                use_id: id.chars().take(128).collect(),
                name: name.chars().take(64).collect(),
                request: None,
                execution: None,
                function: Value::Null,
                error: None,
            };
            let result = match self.allowed(n, (name, input), round.is_away) {
                Ok(tool) => Self::run(context, round, tool, input, &mut one).await?,
                Err(refused) => Err(refused),
            };
            let (result, code) = told(id, result);
            one.error = code;
            results.push(result);
            used.push(one);
        }
        Ok(Ok(results))
    }

    /// The tool that the use with this number in its answer means, or why it is not run.
    pub(crate) fn allowed(&self, n: usize, (name, input): (&str, &Value), is_away: bool) -> Result<&Tool, Failure> {
        if n >= MAX_USES {
            return Err(Failure::new("too_many_tools", format!("an answer may use {MAX_USES} tools at most: ask again")));
        }
        let Some((tool, contract)) = self.tools.iter().find(|(tool, _)| tool.name == name) else {
            let names: Vec<_> = self.tools.iter().map(|(tool, _)| tool.name.as_str()).collect();
            return Err(Failure::new("unknown_tool", format!("there is no such tool, there are: {}", names.join(", "))));
        };
        if is_away {
            return Err(Failure::new("tool_unavailable", "the tool cannot be used now"));
        }
        match contract.value(input) {
            Ok(()) => Ok(tool),
            Err(faults) => {
                let message = format!("the input does not hold to the schema: {}", faults.join("; "));
                Err(Failure::new("invalid_input", message))
            }
        }
    }

    async fn run(
        context: &Context<'_>,
        round: Round<'_>,
        tool: &Tool,
        input: &Value,
        used: &mut Used,
    ) -> Result<Result<Value, Failure>, KernelError> {
        let key = format!("{}{}", round.prefix, used.key);
        let ended = tool.run(context, &key, &used.use_id, input.clone()).await?;
        used.request = ended.request.map(|key| key.id.to_string());
        used.execution = ended.execution.map(|key| key.id.to_string());
        used.function = ended.function;
        Ok(ended.result)
    }
}

/// The result of one use, as the model is told of it, and the code of what went wrong.
pub(crate) fn told(id: &str, result: Result<Value, Failure>) -> (Block, Option<String>) {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        value => String::from_utf8_lossy(&canonical::to_vec(value)).into_owned(),
    };
    let result = result.map(|output| text(&output)).and_then(|text| {
        let bytes = text.len();
        let too_long = || format!("the output has {bytes} bytes, a model is told {MAX_RESULT} at most: ask for less");
        if bytes <= MAX_RESULT { Ok(text) } else { Err(Failure::new("output_limit", too_long())) }
    });
    let (text, code) = match result {
        // Providers refuse results without words.
        Ok(text) if text.trim().is_empty() => ("(nothing)".to_owned(), None),
        Ok(text) => (text, None),
        Err(failure) => (text(&failure.to_value()), Some(failure.code)),
    };
    (Block::ToolResult { id: id.to_owned(), content: vec![Block::text(text)], is_error: code.is_some() }, code)
}
