//! The host calls of a running function: log, now, random, query, emit, call.

use async_trait::async_trait;
use logline_core::contract::HostCalls;
use logline_core::trust::Limits;
use logline_core::{Draft, Failure, Rules, SignedSpan, Timestamp, canonical, json};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::call::Wanted;
use super::journal::Source;
use super::query::read_query;

/// What the host knows about a run.
pub(crate) struct Facts<'a> {
    /// The version of the request that claimed this attempt.
    pub(crate) request: &'a SignedSpan,
    pub(crate) function: Uuid,
    pub(crate) execution: Uuid,
    pub(crate) started: Timestamp,
    pub(crate) limits: &'a Limits,
    pub(crate) rules: Rules,
}

/// Answers one function's calls and collects what it emits.
pub(crate) struct Guest<'a, S> {
    pub(super) facts: Facts<'a>,
    pub(crate) source: S,
    /// How many calls were made so far.
    calls: u32,
    pub(crate) drafts: Vec<Draft>,
    pub(super) emitted_bytes: usize,
    /// How many arrays and objects all drafts have.
    pub(super) emitted_containers: usize,
    pub(crate) logs: Vec<Value>,
    log_bytes: usize,
    pub(crate) logs_dropped: u32,
    /// The stream of random bytes. `None` before the first draw.
    random: Option<blake3::OutputReader>,
}

impl<'a, S: Source> Guest<'a, S> {
    pub(crate) fn new(facts: Facts<'a>, source: S) -> Self {
        Self {
            facts,
            source,
            calls: 0,
            drafts: Vec::new(),
            emitted_bytes: 0,
            emitted_containers: 0,
            logs: Vec::new(),
            log_bytes: 0,
            logs_dropped: 0,
            random: None,
        }
    }

    /// Counts a call and returns its number, from 1.
    fn count(&mut self) -> u32 {
        self.calls = self.calls.saturating_add(1);
        self.calls
    }
}

#[async_trait]
impl<S: Source> HostCalls for Guest<'_, S> {
    fn log(&mut self, entry: Value) -> Result<(), Failure> {
        self.count();
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let (Some(level), Some(message)) = (text("level"), text("message")) else {
            return Err(Failure::new("invalid_log", "log takes an object of `level`, `message` and optional `fields`"));
        };
        tracing::debug!(target: "logline::guest", function = %self.facts.function, level = cut(level), message = cut(message));
        let mut stored = Map::from_iter([("level".to_owned(), level.into()), ("message".to_owned(), message.into())]);
        if let Some(fields) = entry.get("fields").filter(|f| !f.is_null()) {
            stored.insert("fields".to_owned(), fields.clone());
        }
        let stored = Value::Object(stored);
        let bytes = canonical::to_vec(&stored).len();
        if self.log_bytes.saturating_add(bytes) > self.facts.limits.log_bytes || depth(&stored) > 32 {
            self.logs_dropped = self.logs_dropped.saturating_add(1);
        } else {
            self.log_bytes += bytes;
            self.logs.push(stored);
        }
        Ok(())
    }

    fn now(&mut self) -> Timestamp {
        self.count();
        self.facts.started
    }

    fn random(&mut self, bytes: usize) -> Result<Vec<u8>, Failure> {
        self.count();
        let stream = match &mut self.random {
            Some(stream) => stream,
            None => {
                let seed = self.source.seed()?;
                self.random.insert(blake3::Hasher::new().update(&seed).finalize_xof())
            }
        };
        let mut drawn = vec![0; bytes];
        stream.fill(&mut drawn);
        Ok(drawn)
    }

    async fn query(&mut self, query: Value) -> Result<Value, Failure> {
        let call = self.count();
        let (query, cursor) = read_query(&query).map_err(|message| Failure::new("invalid_query", message))?;
        self.source.query(call, query, cursor).await
    }

    fn emit(&mut self, draft: Value) -> Result<Value, Failure> {
        let call = self.count();
        let (bytes, containers) = (canonical::to_vec(&draft).len(), json::containers(&draft));
        let draft = self.admit(draft, bytes);
        let draft = self.source.emitted(call, draft)?;
        let id = draft.columns().id;
        self.emitted_bytes += bytes;
        self.emitted_containers += containers;
        self.drafts.push(draft);
        Ok(json!({"id": id.to_string()}))
    }

    async fn call(&mut self, argument: Value) -> Result<Value, Failure> {
        let call = self.count();
        let wanted = Wanted::read(&argument)?;
        self.source.call(call, wanted).await
    }
}

/// The first 512 bytes of a guest's text, for the host's own log.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(512)).unwrap_or_default()
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
