//! Whether a model was asked what the records of a run say: every call is made up again, and compared with the hash in its intent.

use logline_core::contract::Reader;
use logline_core::contract::provider::{Block, ModelAnswer};
use logline_core::ledger::LedgerError;
use logline_core::request::CallKind;
use logline_core::trust::Authorities;
use logline_core::{Failure, Hash, SignedSpan, Verifier};
use logline_kernels::provider::{Ask, call_hash};
use logline_kernels::tool::Tool;
use serde_json::Value;
use uuid::Uuid;

use super::{Checked, ExplainError, ToolCall, trusted};
use crate::contract::Contract;
use crate::conversation::{Conversation, Turn, messages};
use crate::directives::{DIRECTIVE, said};
use crate::load::{VersionError, version};
use crate::question::{Cites, Question, content};
use crate::tools::{Toolbox, told};
use crate::variant::Variant;

/// The run whose calls are made up again.
pub(super) struct Asked<'a> {
    pub(super) reader: &'a Reader<'a>,
    pub(super) authorities: &'a Authorities,
    pub(super) run: &'a SignedSpan,
    pub(super) request: Uuid,
    /// The text of the prompt, which was built again.
    pub(super) text: &'a str,
    /// Its uses of tools, which were compared with what ran.
    pub(super) tool_calls: &'a [ToolCall],
}

/// Why a check ends early.
enum Stop {
    /// Something that was said to the model is not in the ledger, or not in the clear.
    NotChecked(String),
    Error(ExplainError),
}

impl From<ExplainError> for Stop {
    fn from(error: ExplainError) -> Self {
        Self::Error(error)
    }
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Self {
        Self::Error(error.into())
    }
}

impl Asked<'_> {
    /// Makes up every call that led to the answer, and compares it with its intent.
    pub(super) async fn check(&self) -> Result<Checked, ExplainError> {
        match self.conversation().await {
            Ok(()) => Ok(Checked::Passed),
            Err(Stop::NotChecked(reason)) => Ok(Checked::NotChecked(reason)),
            Err(Stop::Error(error)) => Err(error),
        }
    }

    fn no_record(&self, reason: String) -> Stop {
        Stop::Error(ExplainError::NoRecord { id: self.run.id, reason })
    }

    fn of(&self, member: &str) -> Value {
        self.run.meta(member).cloned().unwrap_or_default()
    }

    /// The version that a reference of the run names.
    async fn version(&self, named: &Value, what: &'static str) -> Result<SignedSpan, Stop> {
        match version(self.reader, self.authorities, &self.run.tenant_id, named, what).await {
            Ok(span) => Ok(span.into_signed()),
            Err(VersionError::Load(crate::load::LoadError::Ledger(error))) => Err(error.into()),
            Err(error) => Err(self.no_record(format!("{what}: {error}"))),
        }
    }

    async fn conversation(&self) -> Result<(), Stop> {
        let tenant = self.run.tenant_id.as_str();
        let variant = self.version(&self.of("variant"), "prompt_variant").await?;
        let variant = Variant::read(&variant).map_err(|reason| self.no_record(format!("prompt_variant: {reason}")))?;
        let Some(ran) = &variant.run else { return Err(self.no_record("its variant asks no model".to_owned())) };
        let request = trusted(self.reader, self.authorities, tenant, self.request, "request").await?;
        let question =
            Question::read(request.input.as_ref()).map_err(|reason| self.no_record(format!("its request: {reason}")))?;
        if question.memory.is_some() {
            return Err(Stop::NotChecked("the model was told memories, whose text is encrypted".to_owned()));
        }
        let contract = ran.schema().as_ref().map(Contract::read).transpose();
        let contract = contract.map_err(|reason| self.no_record(format!("its contract: {reason}")))?;
        let tools = self.toolbox(ran.rounds()).await?;
        let mut asking = messages(&variant, ran, self.text, self.cited(ran.context_tokens, &question).await?);
        for named in self.of("directives").as_array().into_iter().flatten() {
            let directive = self.version(named, DIRECTIVE).await?;
            let text = said(&directive).ok_or_else(|| self.no_record("a directive says nothing".to_owned()))?;
            asking.system.push(Block::text(text));
        }
        let mut conversation = Conversation::new(asking, contract.as_ref(), &tools);
        for id in self.of("answers").as_array().into_iter().flatten() {
            let id = id.as_str().and_then(|id| id.parse().ok());
            let id = id.ok_or_else(|| self.no_record("metadata.answers has something that is no id".to_owned()))?;
            let answer = self.answer(id, &conversation, ran.provider).await?;
            if let Turn::Tools(round) = conversation.answered(&answer) {
                let results = self.results(&tools, round, &answer)?;
                conversation.told(answer, results);
            }
        }
        Ok(())
    }

    /// The tools that the model was offered.
    async fn toolbox(&self, rounds: u32) -> Result<Toolbox, Stop> {
        let mut tools = Vec::new();
        for named in self.of("tools").as_array().into_iter().flatten() {
            let function = self.version(named.get("function").unwrap_or(&Value::Null), "function").await?;
            let function = function.verify(&mut Verifier::new());
            let function = function.map_err(|error| self.no_record(format!("function: {error}")))?;
            tools.push(Tool::of(&function).map_err(|reason| self.no_record(format!("function {}: {reason}", function.id)))?);
        }
        Toolbox::of(tools, rounds).map_err(|reason| self.no_record(format!("its tools: {reason}")))
    }

    /// The question, with the contents that stood before it.
    async fn cited(&self, tokens: usize, question: &Question) -> Result<String, Stop> {
        let mut cites = Cites::new(tokens);
        for named in self.of("context").as_array().into_iter().flatten() {
            let text = |member: &str| named.get(member).and_then(Value::as_str);
            let id: Option<Uuid> = text("id").and_then(|id| id.parse().ok());
            let hash: Option<Hash> = text("curr_hash").and_then(|hash| hash.parse().ok());
            let seq = named.get("seq").and_then(Value::as_u64).and_then(|seq| u32::try_from(seq).ok());
            let (Some(id), Some(hash), Some(seq)) = (id, hash, seq) else {
                return Err(self.no_record("metadata.context has something that is no reference".to_owned()));
            };
            let Some(span) = self.reader.version(&self.run.tenant_id, id, seq).await? else {
                return Err(Stop::NotChecked(format!("the span {id} of its context cannot be seen")));
            };
            if span.seal.curr_hash != hash || span.check(&mut Verifier::new()).is_err() {
                return Err(self.no_record(format!("the span {id} of its context is another one")));
            }
            cites.add("context", id, named.clone(), &content(&span).map_err(|reason| self.no_record(reason))?);
        }
        Ok(cites.before(&question.text).0)
    }

    /// The answer with this id, if its call asked what the conversation asks next.
    async fn answer(&self, id: Uuid, conversation: &Conversation<'_>, provider: Uuid) -> Result<ModelAnswer, Stop> {
        let tenant = self.run.tenant_id.as_str();
        let outcome = trusted(self.reader, self.authorities, tenant, id, CallKind::Provider.outcome()).await?;
        let intent = outcome.related_to.iter().find(|intent| CallKind::Provider.outcome_id(tenant, **intent) == id);
        let intent = *intent.ok_or_else(|| self.no_record(format!("the answer {id} names no call")))?;
        let intent = trusted(self.reader, self.authorities, tenant, intent, CallKind::Provider.intent()).await?;
        let key = conversation.key();
        let text = |member: &str| intent.meta(member).and_then(Value::as_str).unwrap_or_default();
        let detail = |member: &str| intent.meta("details").and_then(|details| details.get(member)).cloned().unwrap_or_default();
        if intent.parent_id != Some(self.request) || text("call_key") != key {
            return Err(self.no_record(format!("the answer {id} is not one to its call `{key}`")));
        }
        let asked_provider = detail("asked_provider");
        if asked_provider.as_str() != Some(provider.to_string().as_str()) {
            return Err(self.no_record(format!("its call `{key}` asked another provider than its variant names")));
        }
        let again = call_hash(&Ask::Invoke(conversation.asking().clone()), &asked_provider, &detail("asked_model"));
        if text("call_hash") != again.to_string() {
            let recorded = text("call_hash").to_owned();
            return Err(ExplainError::AskedOtherwise { id: self.run.id, call: key, recorded, again }.into());
        }
        ModelAnswer::deserialize_from(outcome.output.as_ref().unwrap_or(&Value::Null))
            .map_err(|error| self.no_record(format!("the answer {id} cannot be read: {error}")))
    }

    /// What the model was told of the tools that an answer used.
    fn results(&self, tools: &Toolbox, round: u32, answer: &ModelAnswer) -> Result<Vec<Block>, Stop> {
        let mut results = Vec::new();
        for (n, (id, name, input)) in answer.tool_uses().enumerate() {
            let result = match tools.allowed(n, (name, input), false) {
                Err(refused) => Err(refused),
                Ok(_) => self.result(&format!("tool/{round}/{n}"))?,
            };
            results.push(told(id, result).0);
        }
        Ok(results)
    }

    /// What a tool gave back.
    fn result(&self, call: &str) -> Result<Result<Value, Failure>, Stop> {
        let found = self.tool_calls.iter().find(|one| one.call == call).and_then(|one| one.result.clone());
        found.ok_or_else(|| Stop::NotChecked(format!("what became of the tool call `{call}` is in no execution")))
    }
}

/// The reason for which the calls of a run whose request is confidential are not made up again: their hashes are keyed.
pub(super) fn confidential() -> Checked {
    Checked::NotChecked("the request is confidential, so the hashes of its calls are keyed".to_owned())
}
