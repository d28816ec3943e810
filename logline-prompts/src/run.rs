//! The kernel `prompt_runner`: builds a prompt, asks the model of its variant, and holds the answer to the contract.

use std::sync::Arc;

use async_trait::async_trait;
use logline_core::contract::provider::Block;
use logline_core::contract::{AskedBy, Context, Effects, Kernel, KernelError, Meters, Publishing, RequestKind, Sandbox};
use logline_core::request::{Details, reference};
use logline_core::{Draft, Failure, Hash, SignedSpan, Span, VerifiedSpan, canonical, ids};
use logline_kernels::provider::{FromPrompt, Providers, Streams};
use logline_kernels::recall::{Recall, Recalled};
use logline_kernels::tool::ToolSpec;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::build::{Built, build};
use crate::chooser::FAMILY;
use crate::contract::Contract;
use crate::conversation::messages;
use crate::directives::directives;
use crate::ids::prompt_runner;
use crate::load::{LoadError, Loaded, Versions, active, in_use, load};
use crate::question::{Cites, Question, content};
use crate::record::{Recorded, about, check_personal, compiled_hash, record};
use crate::results::{INPUT_BYTES, SELECTION, VARIANT_OF};
use crate::select::{Selected, select};
use crate::talk::{Spoken, Talk};
use crate::tools::{Toolbox, Used};
use crate::variant::{Ran, Variant};

/// The `this` of a request that runs a prompt. Its parent is a variant, or a family of which one is chosen. Its input is
/// `{"question", "vars"?, "context"?, "session"?, "memory"?, "tools"?}`.
pub const PROMPT_RUN: &str = "prompt.run";

/// The kernel `prompt_runner`, version 1.
#[derive(Clone)]
pub struct RunPrompt {
    providers: Providers,
    streams: Streams,
    recall: Option<Arc<dyn Recall>>,
}

impl std::fmt::Debug for RunPrompt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunPrompt")
            .field("providers", &self.providers)
            .field("recalls", &self.recall.is_some())
            .finish_non_exhaustive()
    }
}

impl RunPrompt {
    /// A kernel that asks through these providers.
    #[must_use]
    pub fn new(providers: &Providers) -> Self {
        Self { providers: providers.clone(), streams: Streams::default(), recall: None }
    }

    /// Finds memories for models, if a confidential request asks for them. `logline-memory` has an implementation.
    #[must_use]
    pub fn recall(mut self, recall: impl Recall + 'static) -> Self {
        self.recall = Some(Arc::new(recall));
        self
    }

    pub(crate) fn providers(&self) -> &Providers {
        &self.providers
    }

    /// Where callers in this process listen to answers as they come. The pieces are the model's, before the answer is checked.
    #[must_use]
    pub fn streams(&self) -> &Streams {
        &self.streams
    }
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

    fn keeps_confidential(&self) -> bool {
        true
    }

    /// A variant whose contract is no schema, or whose provider is not there, is not published; nor is a tool whose input has none.
    async fn check(&self, span: &Span, publishing: &Publishing<'_>) -> Result<(), KernelError> {
        let refused = |reason: String| KernelError::Refused(Failure::new("prompt_invalid", reason));
        if span.entity_type == "function" && !span.is_deleted {
            let Some(tool) = ToolSpec::of(span).map_err(refused)? else { return Ok(()) };
            let read = Contract::read(&tool.input_schema).map(drop);
            return read.map_err(|reason| refused(format!("metadata.tool.input_schema: {reason}")));
        }
        if span.entity_type != "prompt_variant" || span.is_deleted {
            return Ok(());
        }
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
        self.answer(request, context).await
    }
}

/// The variant that a run is made with, and how it came to be that one.
struct Variety {
    id: Uuid,
    selected: Option<Selected>,
}

impl RunPrompt {
    async fn answer(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        let invalid = |reason: String| Ok(Effects::new(Err(Failure::new("prompt_invalid", reason))));
        let question = match Question::read(context.input) {
            Ok(question) => question,
            Err(reason) => return invalid(reason),
        };
        let variety = match self.variety(request, context, &question).await? {
            Ok(variety) => variety,
            Err(failure) => return Ok(Effects::new(Err(failure))),
        };
        let loaded = match load(&context.owner, Versions::of(context), &request.tenant_id, variety.id).await {
            Ok(loaded) => loaded,
            Err(LoadError::Ledger(error)) => return Err(error.into()),
            Err(error) => return invalid(error.to_string()),
        };
        let prepared = match self.prepared(request, context, &loaded, &question).await? {
            Ok(prepared) => prepared,
            // The asker's mistake, or the publisher's: it says nothing about how well the variant does.
            Err(failure) => return Ok(Effects::new(Err(failure))),
        };
        let done = self.run_with(request, context, &loaded, prepared).await?;
        let mut details = Details::default();
        Ok(match done {
            Ok(ran) => {
                let recorded = ran.recorded(request, context, &loaded, &question, variety.selected).await?;
                let (mut drafts, told, run) = match recorded {
                    Ok(recorded) => recorded,
                    Err(failure) => return Ok(Effects::new(Err(failure))),
                };
                details.metadata.insert("prompt_run".to_owned(), json!(run));
                let at = context.attempt.started;
                drafts = drafts.into_iter().map(|draft| draft.at(at)).collect();
                Effects::new(Ok(told)).execution(details).emitted(drafts)
            }
            Err(failure) => {
                // What a failed attempt emits is not stored. So its record says which variant failed, or nobody would learn of it.
                details.metadata.insert(VARIANT_OF.to_owned(), reference(&loaded.variant_span));
                let input = request.input.as_ref().map_or(0, |input| canonical::to_vec(input).len());
                details.metadata.insert(INPUT_BYTES.to_owned(), input.into());
                if let Some(selected) = variety.selected {
                    details.metadata.insert(SELECTION.to_owned(), selected.selection.to_string().into());
                }
                Effects::new(Err(failure)).execution(details)
            }
        })
    }

    /// The variant that the request names, or one of the family that it names.
    async fn variety(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        question: &Question,
    ) -> Result<Result<Variety, Failure>, KernelError> {
        let invalid = |reason: &str| Ok(Err(Failure::new("prompt_invalid", reason)));
        let Some(id) = request.parent_id else {
            return invalid("the request names no variant and no family: set its parent_id");
        };
        let found = context.owner.find(&request.tenant_id, id).await?;
        let Some(span) = found.filter(|found| found.entity_type == FAMILY) else {
            if question.session.is_some() {
                return invalid("`session` is for requests that name a family, and this one names a variant");
            }
            return Ok(Ok(Variety { id, selected: None }));
        };
        let span = match in_use(&context.owner, Versions::of(context), span, FAMILY).await {
            Ok((span, _)) => span,
            Err(LoadError::Ledger(error)) => return Err(error.into()),
            Err(error) => return invalid(&error.to_string()),
        };
        match active(span, &context.trusted.authorities, FAMILY) {
            Ok(span) => {
                let selected = select(request, context, &span, question.session.as_deref()).await?;
                Ok(selected.map(|selected| Variety { id: selected.variant, selected: Some(selected) }))
            }
            Err(error) => invalid(&error.to_string()),
        }
    }

    /// Everything that can be known before the model is asked.
    async fn prepared(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        loaded: &Loaded,
        question: &Question,
    ) -> Result<Result<Prepared, Failure>, KernelError> {
        let invalid = |reason: String| Ok(Err(Failure::new("prompt_invalid", reason)));
        let Some(ran) = loaded.variant.run.clone() else {
            return invalid("the variant has no `run`: it says which provider is asked".to_owned());
        };
        let built = match build(&loaded.variant, &loaded.blocks, &question.vars) {
            Ok(built) => built,
            Err(error) => return invalid(error.to_string()),
        };
        let contract = match ran.schema().as_ref().map(Contract::read).transpose() {
            Ok(contract) => contract,
            Err(reason) => return invalid(format!("metadata.run.contract: {reason}")),
        };
        if let Err(reason) = check_personal(&built, context) {
            return invalid(reason);
        }
        let tools = match self.tools(request, context, &ran, question).await? {
            Ok(tools) => tools,
            Err(failure) => return Ok(Err(failure)),
        };
        let compiled_hash = match compiled_hash(context, &built).await? {
            Ok(hash) => hash,
            Err(failure) => return Ok(Err(failure)),
        };
        let recalled = match self.recalled(request, context, question).await? {
            Ok(recalled) => recalled,
            Err(failure) => return Ok(Err(failure)),
        };
        Ok(match self.cite(request, context, &ran, question, recalled.as_ref()).await? {
            Ok((text, cited)) => Ok(Prepared { ran, built, compiled_hash, contract, text, cited, recalled, tools }),
            Err(reason) => return invalid(reason),
        })
    }

    /// The tools that the model may use: those of the variant, and those of the request.
    async fn tools(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        ran: &Ran,
        question: &Question,
    ) -> Result<Result<Toolbox, Failure>, KernelError> {
        let named: Vec<_> = ran.tools.iter().chain(&question.tools).collect();
        if !named.is_empty() && context.confidential.is_some() {
            let reason = "a function keeps nothing confidential: leave the tools out, or send the request as one that is not confidential";
            return Ok(Err(Failure::new("tools_not_confidential", reason)));
        }
        Toolbox::find(context, &request.tenant_id, named, ran.rounds()).await
    }

    /// The memories that the request wants the model to be told.
    async fn recalled(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        question: &Question,
    ) -> Result<Result<Option<Recalled>, Failure>, KernelError> {
        let Some(asked) = &question.memory else { return Ok(Ok(None)) };
        let Some(recall) = &self.recall else {
            let message = "this host finds no memories: give the kernel `prompt_runner` something that does";
            return Ok(Err(Failure::new("memory_not_available", message)));
        };
        Ok(recall.recall(request, context, asked, &question.text).await?.map(Some))
    }

    async fn run_with(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        loaded: &Loaded,
        prepared: Prepared,
    ) -> Result<Result<Run, Failure>, KernelError> {
        let Prepared { ran, built, compiled_hash, contract, text, cited, recalled, tools } = prepared;
        let mut asking = messages(&loaded.variant, &ran, &built.text, text);
        let directives = directives(request, context, loaded).await?;
        asking.system.extend(directives.iter().map(|directive| Block::text(directive.text.as_str())));
        let directives = directives.into_iter().map(|directive| directive.reference).collect();
        let listener = self.streams.take(&request.tenant_id, request.id);
        let told = self.recall.as_deref().zip(recalled.as_ref());
        let (providers, contract) = (&self.providers, contract.as_ref());
        let (prefix, prompt) = ("", Some(FromPrompt { compiled_hash, context: &cited }));
        let talk =
            Talk { providers, ran: &ran, contract, prefix, recalled: told, tools: &tools, prompt, are_tools_away: false };
        let spoken = talk.ask(context, request, asking, listener).await?;
        Ok(spoken.map(|spoken| Run { built, cited, spoken, recalled, tools, directives }))
    }

    /// The question with its context, and what became of each span of the context.
    async fn cite(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        ran: &Ran,
        question: &Question,
        recalled: Option<&Recalled>,
    ) -> Result<Result<(String, Vec<Value>), String>, KernelError> {
        let mut cites = Cites::new(ran.context_tokens);
        for id in &question.context {
            let Some(span) = context.owner.find(&request.tenant_id, *id).await? else {
                return Ok(Err(format!("context: no span {id} that the request's owner can see")));
            };
            let content = match content(&span) {
                Ok(content) => content,
                Err(reason) => return Ok(Err(reason)),
            };
            cites.add("context", *id, reference(&span), &content);
        }
        for found in recalled.iter().flat_map(|recalled| &recalled.texts) {
            let mut version = found.version.clone();
            if let Some(members) = version.as_object_mut() {
                members.insert("scope".to_owned(), found.scope.as_str().into());
            }
            cites.add("memory", found.id, version, &found.text);
        }
        Ok(Ok(cites.before(&question.text)))
    }
}

/// A run before the model is asked.
struct Prepared {
    ran: Ran,
    built: Built,
    compiled_hash: Hash,
    contract: Option<Contract>,
    text: String,
    cited: Vec<Value>,
    recalled: Option<Recalled>,
    tools: Toolbox,
}

/// A run with its answer.
struct Run {
    built: Built,
    cited: Vec<Value>,
    spoken: Spoken,
    recalled: Option<Recalled>,
    tools: Toolbox,
    /// The versions of the directives that it obeyed.
    directives: Vec<Value>,
}

impl Run {
    /// The records of the run, what its caller is told, and the id of the `prompt_run`. The inner error is a failure of the request.
    async fn recorded(
        self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        loaded: &Loaded,
        question: &Question,
        selected: Option<Selected>,
    ) -> Result<Result<(Vec<Draft>, Value, Uuid), Failure>, KernelError> {
        let Self { built, cited, spoken, recalled, tools, directives } = self;
        let execution = context.attempt.execution_id;
        let Recorded { draft: made, compiled_hash } = match record(request, context, loaded, &built, &question.vars).await? {
            Ok(recorded) => recorded,
            Err(failure) => return Ok(Err(failure)),
        };
        let build_id = made.columns().id;
        let run = ids::derive("prompt_run", &[&execution.to_string()]);
        let shown = match context.confidential {
            None => spoken.output.clone(),
            Some(key) => match key.seal(run, "output", &spoken.output).await {
                Ok(sealed) => sealed,
                Err(error) => return Ok(Err(error.into_failure()?)),
            },
        };
        let last = spoken.outcomes.last().map(|told| told.outcome.id);
        let answers: Vec<Value> = spoken.outcomes.iter().map(|told| told.outcome.id.to_string().into()).collect();
        let mut draft = Draft::new("prompt_run")
            .id(run)
            .did("ran")
            .this(format!("prompt.{}", loaded.variant.family))
            .name(loaded.variant.name.as_str())
            .parent(loaded.variant_span.id)
            .related([request.id, execution, build_id].into_iter().chain(last))
            .status("complete")
            .output(shown)
            .meta("build", build_id.to_string())
            .meta("compiled_hash", compiled_hash.to_string())
            .meta("request", request.id.to_string())
            .meta("variant", reference(&loaded.variant_span))
            .meta("answers", answers)
            .meta("contract", spoken.held.as_str())
            .meta("context", cited);
        let mut measures = spoken.measures();
        if context.confidential.is_some() {
            // The answer's own words. What was asked for stands in the outcome.
            measures.remove("model");
        }
        for (name, value) in measures.into_iter().chain(spoken.says_of_itself()) {
            draft = draft.meta(&name, value);
        }
        if !tools.is_empty() {
            let calls: Vec<_> = spoken.used.iter().map(Used::to_value).collect();
            draft = draft.meta("tools", tools.recorded()).meta("tool_use_count", calls.len()).meta("tool_calls", calls);
        }
        if !directives.is_empty() {
            draft = draft.meta("directives", directives);
        }
        if spoken.is_exhausted {
            draft = draft.meta("tool_rounds_used_up", tools.rounds);
        }
        let mut drafts = vec![made];
        if let Some(recalled) = recalled {
            draft = draft.meta("memory", recalled.record.columns().id.to_string());
            drafts.push(recalled.record);
        }
        let mut told = Map::new();
        told.insert("answer".to_owned(), spoken.output);
        told.insert("compiled_hash".to_owned(), compiled_hash.to_string().into());
        if let Some(selected) = selected {
            draft = draft.meta(SELECTION, selected.selection.to_string());
            told.insert("variant".to_owned(), loaded.variant.name.as_str().into());
            told.insert("selection".to_owned(), selected.selection.to_string().into());
            drafts.extend(selected.record);
        }
        let draft = about(draft, request, "kernel:prompt_runner");
        told.insert("run".to_owned(), run.to_string().into());
        drafts.push(draft);
        Ok(Ok((drafts, told.into(), run)))
    }
}
