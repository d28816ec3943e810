//! The journal: what a function was told that its code, its argument and its limits do not determine. It is recorded so that
//! the run can be repeated.
//!
//! `docs/execution.md` specifies the format.

use async_trait::async_trait;
use logline_core::Failure;
use logline_core::contract::{KernelError, Reader};
use logline_core::ledger::{Cursor, LedgerError, Page, Query, Row};
use logline_core::trust::Limits;
use logline_core::{Draft, Hash, SignedSpan, Timestamp, canonical, json as strict};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::call::{Answered, Calls, Wanted, answer as call_answer};

/// The most bytes that the answer of a provider, or the refusal of a call, takes in a journal.
pub(crate) const CALL_ROOM: usize = 16 << 10;

/// The bytes of an answer besides its rows: a cursor and two names.
const ENVELOPE: usize = 256;

/// The version of the format that this library writes.
const VERSION: u32 = 1;

/// An execution's `metadata.journal`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Journal {
    v: u32,
    /// The time that every call of `now` returned.
    pub(crate) now: Timestamp,
    /// The seed of the random numbers. `None` if none were drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<Hash>,
    /// The recorded answers, in the order of the calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) answers: Vec<Answer>,
    /// From this call on, queries were refused because the journal was full. `None` if it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) full_at: Option<u32>,
}

/// The answer to one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    /// The number of the call, from 1.
    pub(crate) call: u32,
    /// The rows that a query found, in order. `None` if the call was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rows: Option<Vec<Named>>,
    /// The cursor of the next page. `None` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
    /// How many rows the query looked at. `None` if the call was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) visited: Option<usize>,
    /// The outcome that holds the answer of a provider. `None` if it was no call to one, or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Named>,
    /// Why the call was refused. `None` if it was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Refusal>,
}

impl Answer {
    fn refusal(call: u32, failure: &Failure) -> Self {
        let error = Refusal { code: failure.code.clone(), message: failure.message.clone() };
        Self { call, rows: None, cursor: None, visited: None, outcome: None, error: Some(error) }
    }

    pub(crate) fn bytes(&self) -> usize {
        // Names, numbers and texts always serialise.
        serde_json::to_value(self).map_or(usize::MAX, |value| canonical::to_vec(&value).len())
    }
}

/// A row by tenant, id, seq and hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Named(pub(crate) String, pub(crate) Uuid, pub(crate) u32, pub(crate) Hash);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Journal {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { v: VERSION, now, seed: None, answers: Vec::new(), full_at: None }
    }

    /// Reads the journal of an execution.
    ///
    /// # Errors
    /// Why there is no journal that this version can use.
    pub(crate) fn of(execution: &SignedSpan) -> Result<Self, String> {
        let journal = execution.meta("journal").ok_or("it has no journal: no code ran, or not by this version of run_code")?;
        let journal: Self = Self::deserialize(journal).map_err(|e| format!("its journal is malformed: {e}"))?;
        if journal.v != VERSION {
            return Err(format!("its journal is of version {}, this library repeats version {VERSION}", journal.v));
        }
        Ok(journal)
    }
}

/// The source of a function's answers: the ledger, or the journal of an earlier run.
#[async_trait]
pub(crate) trait Source: Send {
    /// Answers a query.
    async fn query(&mut self, call: u32, query: Query, cursor: Option<Cursor>) -> Result<Value, Failure>;

    /// Answers a call to a provider.
    async fn call(&mut self, call: u32, wanted: Wanted) -> Result<Value, Failure>;

    /// Returns the seed of the run's random numbers.
    fn seed(&mut self) -> Result<[u8; 32], Failure>;

    /// Records or repeats the outcome of emitting a draft. A refusal depends on the library and the manifest at that time.
    fn emitted(&mut self, call: u32, draft: Result<Draft, Failure>) -> Result<Draft, Failure>;
}

/// Answers from the ledger, with the rights of the request's owner, and records the answers.
pub(crate) struct Recorder<'a> {
    owner: &'a Reader<'a>,
    pub(crate) journal: Journal,
    bytes: usize,
    max_bytes: usize,
    /// The most bytes of an answer. A page ends before this limit.
    max_answer: usize,
    /// The error because of which a query or a call has no answer. It is a failure of the host, not of the function.
    pub(crate) host_error: Option<KernelError>,
    /// Makes calls to providers; `None` if this host has none.
    calls: Option<Calls<'a>>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(owner: &'a Reader<'a>, calls: Option<Calls<'a>>, now: Timestamp, limits: &Limits) -> Self {
        let (max_bytes, max_answer) = (limits.journal_bytes, limits.host_call_bytes);
        Self { owner, journal: Journal::new(now), bytes: 0, max_bytes, max_answer, host_error: None, calls }
    }

    /// Records an answer. Returns false if the journal has no room for it.
    fn write(&mut self, answer: Answer) -> bool {
        let bytes = answer.bytes();
        if self.bytes.saturating_add(bytes) > self.max_bytes {
            return false;
        }
        self.bytes += bytes;
        self.journal.answers.push(answer);
        true
    }

    /// The rows of a page that fit into an answer, at least the first, and the cursor of the next page.
    fn fitting(&self, page: Page) -> Result<Fitting, LedgerError> {
        let visited = page.visited.unwrap_or(page.rows.len());
        let mut next = page.next.as_ref().map(ToString::to_string);
        let (mut spans, mut bytes) = (Vec::new(), ENVELOPE);
        let mut last = None;
        for Row { cursor, span } in page.rows {
            let span = span?;
            bytes = bytes.saturating_add(span.to_line().len() + 1);
            if bytes > self.max_answer && !spans.is_empty() {
                next = last;
                break;
            }
            last = Some(cursor.to_string());
            spans.push(span);
        }
        Ok(Fitting { spans, next, visited })
    }

    fn refuse(&mut self, call: u32, failure: &Failure) -> bool {
        self.write(Answer::refusal(call, failure))
    }
}

/// What a query found, as far as it fits into an answer.
struct Fitting {
    spans: Vec<SignedSpan>,
    next: Option<String>,
    visited: usize,
}

/// The refusal of a query whose answer does not fit into the journal, and of every later query.
pub(crate) fn full() -> Failure {
    Failure::new(
        "journal_limit",
        "the rows that this run has read fill its journal: read fewer, or page with a smaller `limit`",
    )
}

/// The refusal of a query with a cursor that is not from this query.
pub(crate) fn foreign_cursor(cursor: &Cursor) -> Failure {
    let shown: String = cursor.as_str().chars().take(120).collect();
    Failure::new("invalid_query", format!("cursor `{shown}` is not from this query"))
}

/// Builds the answer to a query that found these rows.
pub(crate) fn page<'a>(
    rows: impl IntoIterator<Item = &'a SignedSpan>,
    cursor: Option<&str>,
    visited: usize,
) -> Result<Value, Failure> {
    let rows = rows.into_iter().map(|span| strict::parse(&span.to_line())).collect::<Result<Vec<_>, _>>();
    let rows = rows.map_err(|e| Failure::new("internal", e.to_string()))?;
    Ok(json!({"spans": rows, "cursor": cursor, "visited": visited}))
}

#[async_trait]
impl Source for Recorder<'_> {
    async fn query(&mut self, call: u32, query: Query, cursor: Option<Cursor>) -> Result<Value, Failure> {
        if self.journal.full_at.is_some() {
            return Err(full());
        }
        let found =
            self.owner.scan(&query.max_bytes(self.max_answer), cursor.as_ref()).await.and_then(|page| self.fitting(page));
        let (answer, is_written) = match found {
            Ok(Fitting { spans, next, visited }) => {
                let row = |span: &SignedSpan| Named(span.tenant_id.clone(), span.id, span.seq, span.seal.curr_hash);
                let rows = spans.iter().map(row).collect();
                let answer =
                    Answer { call, rows: Some(rows), cursor: next.clone(), visited: Some(visited), outcome: None, error: None };
                let written = self.write(answer);
                (page(&spans, next.as_deref(), visited), written)
            }
            Err(error) => {
                let Some(cursor) = cursor.filter(|_| matches!(error, LedgerError::InvalidCursor { .. })) else {
                    self.host_error.get_or_insert(error.into());
                    return Err(Failure::new("unavailable", "the ledger could not be read"));
                };
                let failure = foreign_cursor(&cursor);
                let written = self.refuse(call, &failure);
                (Err(failure), written)
            }
        };
        if !is_written {
            self.journal.full_at = Some(call);
            return Err(full());
        }
        answer
    }

    async fn call(&mut self, call: u32, wanted: Wanted) -> Result<Value, Failure> {
        // Before the call, because it could not be undone if its answer did not fit.
        if self.journal.full_at.is_some() || self.bytes.saturating_add(CALL_ROOM) > self.max_bytes {
            self.journal.full_at.get_or_insert(call);
            return Err(full());
        }
        let answered = match &self.calls {
            Some(calls) => calls.call(&wanted).await,
            None => Ok(Err(Failure::new("not_permitted", "this host has no providers"))),
        };
        let failure = match answered {
            Ok(Ok(Answered { outcome, hash, answer })) => {
                let named = Named(outcome.tenant_id.clone(), outcome.id, outcome.seq, hash);
                let entry = Answer { call, rows: None, cursor: None, visited: None, outcome: Some(named), error: None };
                self.write(entry);
                return Ok(call_answer(&outcome, answer));
            }
            Ok(Err(failure)) => failure,
            Err(error) => {
                self.host_error.get_or_insert(error);
                return Err(Failure::new("unavailable", "the host could not make or record the call"));
            }
        };
        self.refuse(call, &failure);
        Err(failure)
    }

    fn seed(&mut self) -> Result<[u8; 32], Failure> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|e| Failure::new("unavailable", format!("the host cannot draw random numbers now: {e}")))?;
        self.journal.seed = Some(Hash(seed));
        Ok(seed)
    }

    fn emitted(&mut self, call: u32, draft: Result<Draft, Failure>) -> Result<Draft, Failure> {
        if let Err(failure) = &draft {
            // If the journal has no room, a replay decides again whether to refuse the draft, by the rules of its own version.
            self.refuse(call, failure);
        }
        draft
    }
}
