//! The host of a repetition. It answers from the journal, checks that the answers can be true, and writes the journal again.

use std::collections::HashMap;

use async_trait::async_trait;
use logline_core::Failure;
use logline_core::ledger::{Cursor, Query};
use logline_core::request::CallKind;
use logline_core::{Draft, Scope, SignedSpan, SpanKey, VerifiedSpan};
use serde_json::{Value, json};
use uuid::Uuid;

use super::evidence::{Evidence, Rows};
use super::{Difference, ReplayError};
use crate::run_code::{Answer, CALL_ROOM, Journal, Named, Source, Wanted, call_answer, foreign_cursor, full, page};

/// The most bytes that a row takes in a journal, and that a cursor with the rest of its answer takes.
const MAX_ROW: usize = 6 * 256 + 256;
const MAX_CURSOR: usize = 4096;

pub(crate) struct Playback<'a> {
    pub(crate) rows: Rows<'a>,
    execution: SpanKey,
    /// Tenant and id of the request.
    request: (String, Uuid),
    /// The number of the attempt.
    attempt: u32,
    /// The scope of the request's owner, with whose rights the function reads.
    owner: Scope,
    /// The most bytes of an answer.
    max_answer: usize,
    /// The most bytes of the journal.
    max_journal: usize,
    recorded: Journal,
    /// The journal that the repetition writes.
    pub(crate) journal: Journal,
    /// The first reason why a call could not be answered.
    pub(crate) problem: Option<ReplayError>,
    /// Refusals of drafts that differ from what this library decides.
    pub(crate) refusals: Vec<Difference>,
}

impl<'a> Playback<'a> {
    pub(crate) fn new(rows: Rows<'a>, evidence: &Evidence) -> Self {
        let Evidence { span, receipt, journal: recorded, request, .. } = evidence;
        let (execution, recorded) = (span.key(), recorded.clone());
        let (max_answer, max_journal) = (receipt.limits.host_call_bytes, receipt.limits.journal_bytes);
        let owner = Scope::user(&request.tenant_id, &request.owner_id);
        let journal = Journal::new(recorded.now);
        let request = (request.tenant_id.clone(), request.id);
        Self {
            rows,
            execution,
            request,
            attempt: evidence.frame.attempt,
            owner,
            max_answer,
            max_journal,
            recorded,
            journal,
            problem: None,
            refusals: Vec::new(),
        }
    }

    /// The bytes of the journal so far.
    fn bytes(&self) -> usize {
        self.journal.answers.iter().map(Answer::bytes).sum()
    }

    /// Refuses what the recorded run refused because its journal was full, which is not true if `needed` bytes were left.
    fn room(&mut self, call: u32, needed: usize) -> Result<(), Failure> {
        if self.recorded.full_at.is_none_or(|full_at| call < full_at) {
            return Ok(());
        }
        self.journal.full_at.get_or_insert(call);
        if self.bytes() + needed <= self.max_journal {
            let reason = format!("call {call} was refused because the journal was full, but it had room");
            self.problem.get_or_insert(ReplayError::DoesNotHold { key: self.execution.clone(), reason });
        }
        Err(full())
    }

    fn recorded(&self, call: u32) -> Option<Answer> {
        self.recorded.answers.iter().find(|answer| answer.call == call).cloned()
    }

    /// Reads the outcome that a call to a provider was answered with, and checks that it can be its answer: it is an answered call of
    /// this request, with this key.
    async fn outcome(&mut self, call: u32, wanted: &Wanted, named: Option<&Named>) -> Result<VerifiedSpan, ReplayError> {
        let deny = |reason: String| Err(ReplayError::DoesNotHold { key: self.execution.clone(), reason });
        let Some(Named(tenant, id, seq, hash)) = named else {
            return deny(format!("call {call} to a provider was answered without an outcome"));
        };
        let key = SpanKey { tenant_id: tenant.clone(), id: *id, seq: *seq };
        let outcome = self.rows.get(&(key, *hash)).await?;
        // The id of an outcome follows from its intent, so an outcome that was made up has none.
        let mut intents = Vec::new();
        for id in outcome.related_to.clone() {
            intents.extend(self.rows.first(tenant, id).await?);
        }
        let is_answer = outcome.prev_hash.is_none()
            && outcome.status.as_deref() == Some("complete")
            && intents
                .iter()
                .any(|intent| CallKind::Provider.outcome_id(tenant, intent.id) == outcome.id && self.is_intent(intent, wanted));
        if is_answer {
            return Ok(outcome);
        }
        deny(format!("call {call} was answered with {}, which is not the answer to it", outcome.key()))
    }

    /// The answer to a call that this attempt, or one before it, got and recorded.
    async fn answered(&mut self, wanted: &Wanted) -> Result<Option<SpanKey>, ReplayError> {
        let (tenant, request) = self.request.clone();
        let query = Query::timeline().tenant(&tenant).entity_type(CallKind::Provider.intent()).parent_id(request);
        for intent in self.rows.scan(&query).await? {
            let attempt = intent.meta("attempt").and_then(Value::as_u64).unwrap_or(u64::MAX);
            if attempt > self.attempt.into() || !self.is_intent(&intent, wanted) {
                continue;
            }
            let outcome = self.rows.first(&tenant, CallKind::Provider.outcome_id(&tenant, intent.id)).await?;
            if let Some(outcome) = outcome.filter(|outcome| outcome.status.as_deref() == Some("complete")) {
                return Ok(Some(outcome.key()));
            }
        }
        Ok(None)
    }

    /// Whether a span is the intent of this call of this request: its key, its operation, and the body that the function gives.
    fn is_intent(&self, intent: &SignedSpan, wanted: &Wanted) -> bool {
        let text = |name: &str| intent.meta(name).and_then(Value::as_str);
        let asked = |name: &str| intent.meta("details").and_then(|details| details.get(name)).cloned().unwrap_or_default();
        let hash = wanted.hash(&asked("asked_provider"), &asked("asked_model"));
        intent.entity_type == CallKind::Provider.intent()
            && intent.tenant_id == self.request.0
            && intent.parent_id == Some(self.request.1)
            && text("call_key") == Some(wanted.recorded_key().as_str())
            && text("call_hash") == Some(hash.to_string().as_str())
    }

    /// Reads the rows that a query was answered with, and checks that they can be its answer.
    async fn rows(&mut self, call: u32, query: &Query, answer: &Answer) -> Result<Vec<SignedSpan>, ReplayError> {
        let named = answer.rows.as_deref().unwrap_or_default();
        let deny = |reason: String| Err(ReplayError::DoesNotHold { key: self.execution.clone(), reason });
        if named.len() > query.limit {
            return deny(format!("call {call} was answered with {} rows, but it asked for {}", named.len(), query.limit));
        }
        let visited = answer.visited.unwrap_or_default();
        if visited < named.len() || visited > query.max_visited {
            return deny(format!(
                "call {call} says that it looked at {visited} rows for {}, but it may look at {}",
                named.len(),
                query.max_visited
            ));
        }
        let (mut spans, mut bytes) = (Vec::with_capacity(named.len()), 0_usize);
        let mut seen: HashMap<(String, Uuid), u32> = HashMap::new();
        for row in named {
            let key = SpanKey { tenant_id: row.0.clone(), id: row.1, seq: row.2 };
            let span = self.rows.get(&(key, row.3)).await?;
            if !query.matches(&span) || span.is_deleted || !self.owner.may_read(&span, query.tenant.as_deref()) {
                return deny(format!(
                    "call {call} was answered with {}, which its query does not find for the request's owner",
                    span.key()
                ));
            }
            // A query finds each version once. While a page is read, an id can only get newer versions.
            if seen.insert((span.tenant_id.clone(), span.id), span.seq).is_some_and(|before| before >= span.seq) {
                return deny(format!("call {call} was answered with {} twice, or with an older version after it", span.key()));
            }
            bytes = bytes.saturating_add(span.to_line().len());
            if bytes > self.max_answer && !spans.is_empty() {
                return deny(format!("call {call} was answered with more rows than fit into {} bytes", self.max_answer));
            }
            spans.push(span.into_signed());
        }
        Ok(spans)
    }
}

#[async_trait]
impl Source for Playback<'_> {
    async fn query(&mut self, call: u32, query: Query, cursor: Option<Cursor>) -> Result<Value, Failure> {
        self.room(call, MAX_ROW * query.limit + MAX_CURSOR)?;
        // The recorded run did not make this call. The consequence shows as a difference.
        let unknown = || Failure::new("unavailable", "the recorded run did not make this call");
        let answer = self.recorded(call).ok_or_else(unknown)?;
        self.journal.answers.push(answer.clone());
        if let Some(error) = answer.error {
            // The only reason to refuse a well-formed query is a cursor that is not from it.
            let expected = cursor.as_ref().map(foreign_cursor);
            if expected.is_none_or(|expected| (expected.code, expected.message) != (error.code.clone(), error.message.clone()))
            {
                let reason = format!("call {call} was refused with `{}`, which is not a valid refusal of a query", error.code);
                self.problem.get_or_insert(ReplayError::DoesNotHold { key: self.execution.clone(), reason });
            }
            return Err(Failure::new(error.code, error.message));
        }
        match self.rows(call, &query, &answer).await {
            Ok(spans) => page(&spans, answer.cursor.as_deref(), answer.visited.unwrap_or_default()),
            Err(problem) => {
                self.problem.get_or_insert(problem);
                Err(Failure::new("unavailable", "a row no longer exists"))
            }
        }
    }

    async fn call(&mut self, call: u32, wanted: Wanted) -> Result<Value, Failure> {
        self.room(call, CALL_ROOM)?;
        let unknown = || Failure::new("unavailable", "the recorded run did not make this call");
        let answer = self.recorded(call).ok_or_else(unknown)?;
        self.journal.answers.push(answer.clone());
        if let Some(error) = answer.error {
            match self.answered(&wanted).await {
                Ok(None) => {}
                Ok(Some(outcome)) => {
                    let reason = format!("call {call} was refused with `{}`, but {outcome} answers it", error.code);
                    self.problem.get_or_insert(ReplayError::DoesNotHold { key: self.execution.clone(), reason });
                }
                Err(problem) => drop(self.problem.get_or_insert(problem)),
            }
            return Err(Failure::new(error.code, error.message));
        }
        match self.outcome(call, &wanted, answer.outcome.as_ref()).await {
            Ok(outcome) => Ok(call_answer(&outcome.key(), outcome.output.clone().unwrap_or_default())),
            Err(problem) => {
                self.problem.get_or_insert(problem);
                Err(Failure::new("unavailable", "the outcome of the call no longer exists"))
            }
        }
    }

    fn seed(&mut self) -> Result<[u8; 32], Failure> {
        self.journal.seed = self.recorded.seed;
        let seed = self.recorded.seed.map(|seed| seed.0);
        seed.ok_or_else(|| Failure::new("unavailable", "the recorded run drew no random numbers"))
    }

    fn emitted(&mut self, call: u32, draft: Result<Draft, Failure>) -> Result<Draft, Failure> {
        let Some(answer) = self.recorded(call) else { return draft };
        let Some(error) = answer.error.clone() else { return draft };
        self.journal.answers.push(answer);
        // The function sees the message of a refusal, so the message is compared as well.
        let again = draft.as_ref().err().map(Failure::to_value).unwrap_or_default();
        if again != json!(error) {
            let what = format!("metadata.journal.answers (call {call})");
            self.refusals.push(Difference { what, recorded: json!(error), repeated: again });
        }
        Err(Failure::new(error.code, error.message))
    }
}
