//! The kernel `prompt_runner`: builds a prompt, asks the model of its variant, and holds the answer to the contract.

use std::sync::Arc;

use async_trait::async_trait;
use logline_core::contract::provider::{Message, ModelAnswer, ModelRequest, OutputSchema};
use logline_core::contract::{AskedBy, Context, Effects, Kernel, KernelError, Meters, Publishing, RequestKind, Sandbox};
use logline_core::request::{Details, reference};
use logline_core::{Draft, Failure, SignedSpan, Span, VerifiedSpan, ids};
use logline_kernels::provider::{Ask, Asked, Providers, Streams, Told};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::build::build;
use crate::contract::{Contract, insufficient};
use crate::ids::prompt_runner;
use crate::load::{LoadError, Loaded, load};
use crate::record::{about, record};
use crate::variant::{Ran, Variant};

/// The `this` of a request that runs a prompt. Its parent is the variant, its input `{"question", "vars"?, "context"?}`.
pub const PROMPT_RUN: &str = "prompt.run";

/// The most spans of context that a request may name.
const MAX_CONTEXT: usize = 64;

/// The most bytes of a question.
const MAX_QUESTION: usize = 64 << 10;

/// The kernel `prompt_runner`, version 1.
#[derive(Debug, Clone)]
pub struct RunPrompt {
    providers: Providers,
    streams: Streams,
}

impl RunPrompt {
    /// A kernel that asks through these providers.
    #[must_use]
    pub fn new(providers: &Providers) -> Self {
        Self { providers: providers.clone(), streams: Streams::default() }
    }

    /// Where callers in this process listen to answers as they come. The pieces are the model's, before the answer is checked.
    #[must_use]
    pub fn streams(&self) -> &Streams {
        &self.streams
    }
}

/// What a request asks.
struct Question {
    text: String,
    vars: Value,
    context: Vec<Uuid>,
}

#[async_trait]
impl Kernel for RunPrompt {
    fn id(&self) -> Uuid {
        prompt_runner()
    }

    fn name(&self) -> &'static str {
        "prompt_runner"
    }

    fn version(&self) -> u32 {
        1
    }

    fn requests(&self) -> &'static [RequestKind] {
        const METERS: Meters = Meters { executions: true, fuel: false };
        &[RequestKind { this: PROMPT_RUN, asked_by: AskedBy::Anybody, meters: METERS }]
    }

    fn lacks(&self, _: Option<&SignedSpan>, _: &[Arc<dyn Sandbox>]) -> Option<String> {
        None
    }

    /// A variant whose contract is no schema, or whose provider is not there, is not published.
    async fn check(&self, span: &Span, publishing: &Publishing<'_>) -> Result<(), KernelError> {
        if span.entity_type != "prompt_variant" || span.is_deleted {
            return Ok(());
        }
        let refused = |reason: String| KernelError::Refused(Failure::new("prompt_invalid", reason));
        let Some(ran) = Variant::read(span).map_err(refused)?.run else { return Ok(()) };
        if let Some(schema) = ran.schema() {
            Contract::read(&schema).map_err(|reason| refused(format!("metadata.run.contract: {reason}")))?;
        }
        let found = publishing.reader.find(&span.tenant_id, ran.provider).await?;
        match found {
            Some(found) if found.entity_type == "provider" => Ok(()),
            _ => Err(refused(format!("metadata.run.provider: there is no provider {}: publish it first", ran.provider))),
        }
    }

    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        match self.answer(request, context).await? {
            Ok(effects) => Ok(effects),
            Err(failure) => Ok(Effects::new(Err(failure))),
        }
    }
}

impl RunPrompt {
    async fn answer(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Result<Effects, Failure>, KernelError> {
        let invalid = |reason: String| Ok(Err(Failure::new("prompt_invalid", reason)));
        let Some(variant) = request.parent_id else {
            return invalid("the request names no variant: set its parent_id".to_owned());
        };
        let question = match question(request.input.as_ref()) {
            Ok(question) => question,
            Err(reason) => return invalid(reason),
        };
        let loaded = match load(&context.owner, &context.trusted.authorities, &request.tenant_id, variant).await {
            Ok(loaded) => loaded,
            Err(LoadError::Ledger(error)) => return Err(error.into()),
            Err(error) => return invalid(error.to_string()),
        };
        let Some(ran) = loaded.variant.run.clone() else {
            return invalid("the variant has no `run`: it says which provider is asked".to_owned());
        };
        let built = match build(&loaded.variant, &loaded.blocks, &question.vars) {
            Ok(built) => built,
            Err(error) => return invalid(error.to_string()),
        };
        let schema = ran.schema();
        let contract = match schema.as_ref().map(Contract::read).transpose() {
            Ok(contract) => contract,
            Err(reason) => return invalid(format!("metadata.run.contract: {reason}")),
        };
        let (text, cited) = match self.cite(request, context, &ran, &question).await? {
            Ok(cited) => cited,
            Err(reason) => return invalid(reason),
        };
        let mut asking = asking(&loaded, &ran, &built.text, text);
        if let Some(schema) = schema.filter(|_| ran.native) {
            asking.output_schema = Some(OutputSchema { name: "answer".to_owned(), schema });
        }
        let (mut outcomes, mut result) = (Vec::new(), None);
        for n in 1..=TRIES {
            let told = match self.ask(request, context, &ran, (&asking, n)).await? {
                Ok(told) => told,
                Err(failure) => return Ok(Err(failure)),
            };
            let Ok(answer) = ModelAnswer::deserialize_from(&told.answer) else {
                return Ok(Err(Failure::new("provider:bad_answer", "the recorded answer cannot be read")));
            };
            outcomes.push(told);
            let said = answer.text();
            match contract.as_ref().map(|contract| contract.answer(&said)) {
                None => {
                    result = Some(json!({"text": said}));
                    break;
                }
                Some(Ok(value)) => {
                    result = Some(value);
                    break;
                }
                Some(Err(faults)) => repair(&mut asking, answer, &faults),
            }
        }
        let holds = result.is_some();
        let output = result.unwrap_or_else(insufficient);
        let made = record(request, context.attempt.execution_id, &loaded, &built, &question.vars);
        let build_id = made.columns().id;
        let last = outcomes.last().map(|told| told.outcome.id);
        let mut draft = Draft::new("prompt_run")
            .id(ids::derive("prompt_run", &[&context.attempt.execution_id.to_string()]))
            .did("ran")
            .this(format!("prompt.{}", loaded.variant.family))
            .name(loaded.variant.name.as_str())
            .parent(loaded.variant_span.id)
            .related([request.id, context.attempt.execution_id, build_id].into_iter().chain(last))
            .status("complete")
            .output(output.clone())
            .meta("build", build_id.to_string())
            .meta("compiled_hash", built.compiled_hash.to_string())
            .meta("request", request.id.to_string())
            .meta("variant", reference(&loaded.variant_span))
            .meta("answers", outcomes.iter().map(|told| Value::from(told.outcome.id.to_string())).collect::<Vec<_>>())
            .meta(
                "contract",
                if contract.is_none() {
                    "none"
                } else if holds {
                    "held"
                } else {
                    "broken"
                },
            )
            .meta("context", cited);
        if let Some(usage) = usage(&outcomes) {
            draft = draft.meta("usage", usage);
        }
        let draft = about(draft, request, "kernel:prompt_runner");
        let told = json!({"answer": output, "run": draft.columns().id, "compiled_hash": built.compiled_hash.to_string()});
        let at = context.attempt.started;
        let mut details = Details::default();
        details.metadata.insert("prompt_run".to_owned(), json!(draft.columns().id));
        Ok(Ok(Effects::new(Ok(told)).execution(details).emitted(vec![made.at(at), draft.at(at)])))
    }

    async fn ask(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        ran: &Ran,
        (asking, n): (&ModelRequest, u32),
    ) -> Result<Result<Told, Failure>, KernelError> {
        let ask = Ask::Invoke(asking.clone());
        let key = format!("answer/{n}");
        let asked = Asked::new(ran.provider, &ask, &key).model(ran.model.as_deref());
        let mut listener = if n == 1 { self.streams.take(&request.tenant_id, request.id) } else { None };
        self.providers.call(context, request, &asked, listener.as_mut().map(|listener| listener.chunks())).await
    }

    /// The question with its context, and what became of each span of the context.
    async fn cite(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        ran: &Ran,
        question: &Question,
    ) -> Result<Result<(String, Vec<Value>), String>, KernelError> {
        let (mut text, mut cited) = (String::new(), Vec::new());
        let mut left = ran.context_tokens.saturating_mul(BYTES_PER_TOKEN);
        for id in &question.context {
            let Some(span) = context.owner.find(&request.tenant_id, *id).await? else {
                return Ok(Err(format!("context: no span {id} that the request's owner can see")));
            };
            let content = match span.content.as_ref().or(span.output.as_ref()) {
                Some(Value::String(text)) => text.clone(),
                Some(value) => String::from_utf8_lossy(&logline_core::canonical::to_vec(value)).into_owned(),
                None => return Ok(Err(format!("context: span {id} has neither content nor output"))),
            };
            let mut entry = reference(&span);
            let fits = content.len() <= left;
            if let Some(members) = entry.as_object_mut() {
                members.insert("used".to_owned(), fits.into());
            }
            cited.push(entry);
            if fits {
                left -= content.len();
                text.push_str(&format!("<context id=\"{id}\">\n{content}\n</context>\n\n"));
            }
        }
        text.push_str(&question.text);
        Ok(Ok((text, cited)))
    }
}

/// How often the model is asked: once, and once more if its answer does not hold to the contract.
const TRIES: u32 = 2;

/// About how many bytes a token has.
const BYTES_PER_TOKEN: usize = 4;

fn asking(loaded: &Loaded, ran: &Ran, system: &str, question: String) -> ModelRequest {
    let mut asking = ModelRequest::default().system(system);
    for shot in &loaded.variant.shots {
        asking.messages.push(Message::user(shot.user.as_str()));
        asking.messages.push(Message::assistant(shot.assistant.as_str()));
    }
    asking.messages.push(Message::user(question));
    asking.max_tokens = ran.max_tokens;
    asking.temperature = ran.temperature;
    asking
}

/// Tells the model what was wrong with its answer.
fn repair(asking: &mut ModelRequest, answer: ModelAnswer, faults: &[String]) {
    let said = if answer.text().trim().is_empty() { "(nothing)".to_owned() } else { answer.text() };
    asking.messages.push(Message::assistant(said));
    let faults = faults.join("; ");
    asking
        .messages
        .push(Message::user(format!("Your answer does not hold to the schema: {faults}. Answer again, with JSON alone.")));
}

/// The tokens of all answers together, if every one says what it used.
fn usage(outcomes: &[Told]) -> Option<Value> {
    let number = |told: &Told, class: &str| told.details.get("usage")?.get(class)?.as_u64();
    let sum = |class: &str| outcomes.iter().map(|told| number(told, class)).sum::<Option<u64>>();
    let mut usage = Map::new();
    usage.insert("input".to_owned(), sum("input")?.into());
    usage.insert("output".to_owned(), sum("output")?.into());
    Some(usage.into())
}

/// Reads the input of a request.
fn question(input: Option<&Value>) -> Result<Question, String> {
    let Some(Value::Object(members)) = input else {
        return Err("the input must be an object with `question`".to_owned());
    };
    if let Some(name) = members.keys().find(|name| !["question", "vars", "context"].contains(&name.as_str())) {
        return Err(format!("the input has no member `{}`: it has `question`, `vars` and `context`", name.escape_debug()));
    }
    let text = match members.get("question") {
        Some(Value::String(text)) if !text.trim().is_empty() && text.len() <= MAX_QUESTION => text.clone(),
        Some(Value::String(_)) => {
            return Err(format!("`question` must have 1 to {MAX_QUESTION} bytes, and not white space only"));
        }
        _ => return Err("`question` must be a text".to_owned()),
    };
    let context = match members.get("context") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(named)) if named.len() <= MAX_CONTEXT => named
            .iter()
            .map(|id| id.as_str().and_then(|id| id.parse().ok()).ok_or("`context` must be a list of ids".to_owned()))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(format!("`context` must be a list of at most {MAX_CONTEXT} ids")),
    };
    Ok(Question { text, vars: members.get("vars").cloned().unwrap_or_default(), context })
}
