//! One try of a call: asks the adapter, and says what it used and what it cost.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use logline_core::contract::provider::{
    Chunk, Chunks, Embeddings, Endpoint, ErrorKind, ModelAnswer, Provider, ProviderError, Secret, StopReason, Usage, hide,
};
use logline_core::contract::{Remote, RemoteCall, Reply};
use logline_core::{Failure, Hash};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::ask::Ask;
use super::mask::{MIN_SECRET, Mask};
use super::price;
use super::price_table::Priced;
use super::schemas::NEW_SCHEMA;
use super::spec::{ModelSpec, ProviderSpec};

/// The names of the quotas that a call reserves of.
pub(super) struct Quotas {
    /// Quotas in tokens.
    pub(super) tokens: Vec<String>,
    /// The quota in money.
    pub(super) money: Option<String>,
}

/// Whoever listens to the pieces of the answer.
pub(super) type Listening<'a> = Mutex<Option<&'a mut (dyn Chunks + 'a)>>;

pub(super) struct OneTry<'a, 'l> {
    pub(super) adapter: &'a dyn Provider,
    pub(super) spec: &'a ProviderSpec,
    pub(super) model_name: &'a str,
    pub(super) model: &'a ModelSpec,
    pub(super) secret: Option<&'a Secret>,
    pub(super) ask: &'a Ask,
    pub(super) listening: &'a Listening<'l>,
    pub(super) quotas: &'a Quotas,
    /// The table that has the prices; `None` if the provider span has them.
    pub(super) priced: Option<&'a Priced>,
    /// Whether the request is confidential: then nothing is told in the clear that the provider has worded. The answer has it, encrypted.
    pub(super) is_confidential: bool,
    /// The hash of the compiled prompt from which the request was made.
    pub(super) compiled_hash: Option<Hash>,
    /// Whether the request has a schema by which this host got no answer yet.
    pub(super) is_new_schema: bool,
}

/// Counts the pieces that it passes on, without the secret.
struct Counted<'a, 'b> {
    listener: &'a mut (dyn Chunks + 'b),
    began: Instant,
    /// Outside the call, so that it is known also if the call is stopped.
    count: &'a Count,
    mask: Mask<'a>,
}

#[derive(Default)]
struct Count {
    delivered: AtomicU32,
    first_ms: OnceLock<u64>,
}

#[async_trait]
impl Chunks for Counted<'_, '_> {
    async fn deliver(&mut self, chunk: Chunk) {
        self.count.first_ms.get_or_init(|| millis(self.began));
        self.count.delivered.fetch_add(1, Ordering::Relaxed);
        for chunk in self.mask.pass(chunk) {
            self.listener.deliver(chunk).await;
        }
    }
}

impl Counted<'_, '_> {
    /// Passes on what was held back.
    async fn end(&mut self) {
        if let Some(rest) = self.mask.rest() {
            self.listener.deliver(rest).await;
        }
    }
}

#[async_trait]
impl Remote for OneTry<'_, '_> {
    fn name(&self) -> &str {
        SERVICE
    }

    async fn call(&self, call: &RemoteCall<'_>) -> Reply {
        let deadlines = self.spec.deadlines.deadlines(self.is_new_schema);
        let endpoint = Endpoint::new(self.model.id.as_deref().unwrap_or(self.model_name), call.idempotency_key)
            .url(self.spec.url.as_deref())
            .secret(self.secret)
            .deadlines(deadlines);
        let began = Instant::now();
        let count = Count::default();
        let asked = async {
            match self.ask {
                Ask::Embed(request) => {
                    self.adapter.embed(&endpoint, request).await.and_then(|found| embedded(&found, request.texts.len()))
                }
                Ask::Invoke(request) => {
                    let mut listening = self.listening.lock().await;
                    let answer = match listening.as_mut() {
                        None => self.adapter.invoke(&endpoint, request).await,
                        Some(listener) => {
                            let mask = Mask::new(self.secret.map(Secret::reveal));
                            let mut counted = Counted { listener: &mut **listener, began, count: &count, mask };
                            let answer = self.adapter.stream(&endpoint, request, &mut counted).await;
                            counted.end().await;
                            answer
                        }
                    };
                    answer.map(|answer| self.answered(answer))
                }
            }
        };
        // An adapter that breaks its contract must not hold the attempt for ever.
        let result = tokio::time::timeout(deadlines.total, asked).await.unwrap_or_else(|_| {
            let message = format!("no whole answer within {} ms (deadlines.total_ms)", deadlines.total.as_millis());
            Err(ProviderError::new(ErrorKind::TimedOut, message))
        });
        let mut details = Map::new();
        details.insert("latency_ms".to_owned(), millis(began).into());
        if let Some(hash) = self.compiled_hash {
            details.insert(COMPILED_HASH.to_owned(), hash.to_string().into());
        }
        if let Some(first_ms) = count.first_ms.get() {
            details.insert("time_to_first_chunk_ms".to_owned(), (*first_ms).into());
        }
        match result {
            Ok(Answered { value, usage, request_id }) => {
                self.tell(&mut details, Some(&usage), request_id);
                let reply = Reply::from(Ok(value)).details(details);
                match self.used(&usage) {
                    Some(used) => reply.used(used),
                    None => reply,
                }
            }
            Err(error) => {
                self.tell(&mut details, error.usage.as_deref(), error.request_id.clone());
                let delivered = count.delivered.load(Ordering::Relaxed).max(error.chunks);
                if delivered > 0 {
                    details.insert(CHUNKS.to_owned(), delivered.into());
                }
                // It had more time than other calls, so that it was too slow says nothing of them.
                let is_slow =
                    error.kind == ErrorKind::TimedOut && delivered == 0 && millis(began) >= self.spec.deadlines.first_byte_ms;
                if self.is_new_schema && is_slow {
                    details.insert(NEW_SCHEMA.to_owned(), true.into());
                }
                if let Some(pause) = error.retry_after {
                    let ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).min(MAX_PAUSE_MS);
                    details.insert(RETRY_AFTER_MS.to_owned(), ms.into());
                }
                let used = error.usage.as_deref().map(|usage| self.used(usage)).unwrap_or_else(|| {
                    // What is free gives the reservation back. Otherwise nobody knows what the provider charges.
                    error.kind.is_free().then(|| self.used(&Usage::of(0, 0))).flatten()
                });
                let Failure { code, message } = error.to_failure();
                let reply = Reply::from(Err(Failure::new(code, self.hidden(&message)))).details(details);
                match used.filter(|_| delivered == 0 || error.usage.is_some()) {
                    Some(used) => reply.used(used),
                    None => reply,
                }
            }
        }
    }
}

/// The service under which all calls to providers are recorded: whichever provider answers a call, the answer is the call's.
pub(super) const SERVICE: &str = "provider";

/// The member of an outcome's details that says how many pieces were delivered before the error.
pub(super) const CHUNKS: &str = "chunks";

/// The member of an intent's and an outcome's details that names the compiled prompt.
pub(super) const COMPILED_HASH: &str = "compiled_hash";

/// The member of an outcome's details that says how long the provider wants to be left alone.
pub(super) const RETRY_AFTER_MS: &str = "retry_after_ms";

/// A longer pause that a provider asks for is recorded as this: a day.
const MAX_PAUSE_MS: u64 = 86_400_000;

struct Answered {
    value: Value,
    usage: Usage,
    request_id: Option<String>,
}

/// Vectors as they are recorded: numbers of 4 bytes, little-endian, in base64.
fn embedded(found: &Embeddings, texts: usize) -> Result<Answered, ProviderError> {
    let dimensions = found.vectors.first().map_or(0, Vec::len);
    if found.vectors.len() != texts || dimensions == 0 || found.vectors.iter().any(|vector| vector.len() != dimensions) {
        let message = format!("{} vectors for {texts} texts, or vectors of different length", found.vectors.len());
        return Err(ProviderError::new(ErrorKind::BadAnswer, message));
    }
    let encode = |vector: &Vec<f32>| STANDARD.encode(vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>());
    let vectors: Vec<_> = found.vectors.iter().map(encode).collect();
    let usage = stated(&found.usage);
    let value = json!({"vectors": vectors, "dimensions": dimensions, "encoding": "f32-le-base64", "usage": usage});
    Ok(Answered { value, usage: found.usage.clone(), request_id: found.request_id.clone() })
}

/// The usage as it can be stored, whatever the provider put into it.
fn stated(usage: &Usage) -> Value {
    let is_small = |raw: &Value| depth(raw) <= 8 && raw.to_string().len() <= 4096;
    let mut usage = usage.clone();
    // An absurd number must not make the answer unreadable.
    let Usage { input, cache_read, cache_write, cache_write_1h, output, reasoning, .. } = &mut usage;
    for number in [input, cache_read, cache_write, cache_write_1h, output, reasoning].into_iter().flatten() {
        *number = (*number).min(MAX_INTEGER);
    }
    if !is_small(&usage.raw) {
        usage.raw = Value::Null;
    }
    let mut value = json!(usage);
    storable(&mut value);
    value
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The largest integer that a span can hold.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// The same, as a number.
const MAX_NUMBER: f64 = 9_007_199_254_740_991.0;

/// The deepest part of an answer that is kept as it is. A span holds 64 levels, and the answer is some way down.
const MAX_DEPTH: usize = 48;

/// A span cannot hold U+0000, numbers over 2^53 and deep nesting, and an answer that was paid for should not be lost for them.
fn storable(value: &mut Value) {
    storable_at(value, 0);
}

fn storable_at(value: &mut Value, depth: usize) {
    let plain = |text: &str| text.replace('\0', "\u{fffd}");
    match value {
        Value::Number(number) if number.as_f64().is_none_or(|size| size.abs() > MAX_NUMBER) => {
            *value = Value::String(number.to_string());
        }
        Value::String(text) if text.contains('\0') => *text = plain(text),
        Value::Array(_) | Value::Object(_) if depth == MAX_DEPTH => *value = Value::String(plain(&value.to_string())),
        Value::Array(items) => items.iter_mut().for_each(|item| storable_at(item, depth + 1)),
        Value::Object(members) => {
            if members.keys().any(|name| name.contains('\0')) {
                *members = std::mem::take(members).into_iter().map(|(name, value)| (plain(&name), value)).collect();
            }
            members.values_mut().for_each(|value| storable_at(value, depth + 1));
        }
        _ => {}
    }
}

/// Replaces a secret wherever an answer repeats it, in names of members too.
fn without(value: &mut Value, secret: &str) {
    match value {
        Value::String(text) if text.contains(secret) => *text = text.replace(secret, "…"),
        Value::Array(items) => items.iter_mut().for_each(|item| without(item, secret)),
        Value::Object(members) => {
            if members.keys().any(|name| name.contains(secret)) {
                *members =
                    std::mem::take(members).into_iter().map(|(name, value)| (name.replace(secret, "…"), value)).collect();
            }
            members.values_mut().for_each(|value| without(value, secret));
        }
        _ => {}
    }
}

/// The most characters of a name that the provider chose.
const MAX_NAME: usize = 256;

/// Leaves the beginning of a long name: it must not keep an answer that was paid for from being recorded.
fn cut(name: &mut String) {
    if let Some((end, _)) = name.char_indices().nth(MAX_NAME) {
        name.truncate(end);
    }
}

impl OneTry<'_, '_> {
    fn answered(&self, mut answer: ModelAnswer) -> Answered {
        // Some providers say that the model has ended its turn although it waits for tools.
        if answer.tool_uses().next().is_some() && matches!(answer.stop, StopReason::EndTurn | StopReason::StopSequence) {
            answer.stop = StopReason::ToolUse;
        }
        answer.request_id = answer.request_id.map(|id| self.id(&id));
        let (usage, request_id) = (answer.usage.clone(), answer.request_id.clone());
        let mut value = serde_json::to_value(&answer).unwrap_or_default();
        if let Some(member) = value.get_mut("usage") {
            *member = stated(&usage);
        }
        storable(&mut value);
        self.hide_in(&mut value);
        // Without the secret first: what is left of one that was cut in two would not be found.
        for place in ["/model", "/stop/other"] {
            if let Some(Value::String(name)) = value.pointer_mut(place) {
                cut(name);
            }
        }
        Answered { value, usage, request_id }
    }

    /// What the call used of each quota. `None` if it is not known.
    fn used(&self, usage: &Usage) -> Option<BTreeMap<String, u64>> {
        let mut used = BTreeMap::new();
        if !self.quotas.tokens.is_empty() {
            let total = usage.total()?;
            used.extend(self.quotas.tokens.iter().map(|quota| (quota.clone(), total)));
        }
        if let Some(quota) = &self.quotas.money {
            used.insert(quota.clone(), price::cost(usage, self.model.prices.as_ref()?)?);
        }
        Some(used)
    }

    /// A text of the provider without the secret.
    fn hidden(&self, text: &str) -> String {
        hide(text, self.secret.map(Secret::reveal).as_slice())
    }

    /// Takes the secret out of what a provider repeats: gateways send back headers.
    fn hide_in(&self, value: &mut Value) {
        if let Some(secret) = self.secret.map(Secret::reveal).filter(|secret| secret.len() >= MIN_SECRET) {
            without(value, secret);
        }
    }

    /// The provider's own id of the call, as it is recorded.
    fn id(&self, id: &str) -> String {
        let mut id = self.hidden(id);
        cut(&mut id);
        id
    }

    fn tell(&self, details: &mut Map<String, Value>, usage: Option<&Usage>, request_id: Option<String>) {
        if let Some(id) = request_id.filter(|_| !self.is_confidential) {
            details.insert("request_id".to_owned(), self.id(&id).into());
        }
        let Some(usage) = usage else { return };
        let mut numbers = stated(usage);
        if let Some(members) = numbers.as_object_mut().filter(|_| self.is_confidential) {
            members.remove("raw");
        }
        self.hide_in(&mut numbers);
        details.insert("usage".to_owned(), numbers);
        if let (Some(prices), Some(currency)) = (&self.model.prices, &self.spec.currency)
            && let Some(nanos) = price::cost(usage, prices).filter(|nanos| *nanos <= MAX_INTEGER)
        {
            let mut cost = json!({"nanos": nanos, "currency": currency});
            if let (Some(Priced { reference, at, .. }), Some(members)) = (self.priced, cost.as_object_mut()) {
                members.insert("price_table".to_owned(), reference.clone());
                members.insert("priced_at".to_owned(), at.to_string().into());
            }
            details.insert("cost".to_owned(), cost);
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_no_span_could_hold_is_kept_all_the_same() {
        let mut deep = json!("end");
        for _ in 0..100 {
            deep = json!([deep]);
        }
        let mut value =
            json!({"u\0": 1, "big": 1e30, "small": -9_007_199_254_740_993_i64, "fits": 0.5, "deep": deep, "text": "a\0b"});
        storable(&mut value);
        assert_eq!((&value["u\u{fffd}"], &value["big"], &value["fits"]), (&json!(1), &json!("1e+30"), &json!(0.5)));
        assert_eq!((&value["small"], &value["text"]), (&json!("-9007199254740993"), &json!("a\u{fffd}b")));
        assert_eq!(depth(&value), MAX_DEPTH);
        assert!(value.to_string().contains("end"));
    }

    #[test]
    fn an_absurd_usage_can_be_read_again() {
        let usage = Usage::of(u64::MAX, MAX_INTEGER + 1);
        let read: Usage = serde_json::from_value(stated(&usage)).unwrap();
        assert_eq!((read.input, read.output), (Some(MAX_INTEGER), Some(MAX_INTEGER)));
    }

    #[test]
    fn a_secret_that_a_gateway_repeats_is_in_no_part_of_an_answer() {
        let mut value = json!({"content": [{"text": "Bearer sk-1234567\nnext"}], "sk-1234567": {"raw": "sk-1234567"}});
        without(&mut value, "sk-1234567");
        assert_eq!(value, json!({"content": [{"text": "Bearer …\nnext"}], "…": {"raw": "…"}}));
    }
}
