//! What a function can ask its host.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::Failure;

/// An operation of the host; the numbers are the interface's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[non_exhaustive]
pub enum Op {
    /// Writes a line to the execution's log.
    Log = 1,
    /// Reads the attempt's start.
    Now = 2,
    /// Draws random bytes.
    Random = 3,
    /// Reads spans.
    Query = 4,
    /// Hands in a draft.
    Emit = 5,
}

/// Whoever answers: the sandbox, or a closure in a test.
pub trait Host {
    /// Asks for one operation.
    ///
    /// # Errors
    /// The host's refusal, code and message unchanged.
    fn call(&mut self, op: Op, argument: &Value) -> Result<Value, Failure>;
}

impl<F: FnMut(Op, &Value) -> Result<Value, Failure>> Host for F {
    fn call(&mut self, op: Op, argument: &Value) -> Result<Value, Failure> {
        self(op, argument)
    }
}

/// One page of a query.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Page {
    /// The spans, as in an export.
    pub spans: Vec<Value>,
    /// Where the next page begins; `None` at the end.
    pub cursor: Option<String>,
}

/// The operations by name.
pub trait HostExt: Host {
    /// Writes a line to the execution's log.
    ///
    /// # Errors
    /// The host's refusal.
    fn log(&mut self, level: &str, message: &str, fields: Value) -> Result<(), Failure> {
        self.call(Op::Log, &json!({"level": level, "message": message, "fields": fields})).map(drop)
    }

    /// The attempt's start, RFC 3339 in UTC: the same at every call.
    ///
    /// # Errors
    /// The host's refusal.
    fn now(&mut self) -> Result<String, Failure> {
        text(&self.call(Op::Now, &Value::Null)?, "now")
    }

    /// Random bytes, 1 to 1024, of a stream that a replay repeats.
    ///
    /// # Errors
    /// The host's refusal.
    fn random(&mut self, bytes: usize) -> Result<Vec<u8>, Failure> {
        let hex = text(&self.call(Op::Random, &json!({"bytes": bytes}))?, "hex")?;
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pairs = hex.as_bytes().chunks_exact(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        });
        pairs.collect::<Option<Vec<_>>>().ok_or_else(|| reply("`hex` is not hexadecimal"))
    }

    /// Reads a page of last versions of spans, as the request's owner may: members `tenant`, `id`, `entity_type`, `parent_id`,
    /// `status`, `limit` (100 at most) and `cursor`, all optional.
    ///
    /// # Errors
    /// The host's refusal.
    fn query(&mut self, query: &Value) -> Result<Page, Failure> {
        let page = self.call(Op::Query, query)?;
        Page::deserialize(page).map_err(|e| reply(&e.to_string()))
    }

    /// Hands in a draft, an object of columns with `entity_type`; it is committed with the execution or not at all. The span's id.
    ///
    /// # Errors
    /// The host's refusal.
    fn emit(&mut self, draft: &Value) -> Result<String, Failure> {
        text(&self.call(Op::Emit, draft)?, "id")
    }
}

impl<H: Host + ?Sized> HostExt for H {}

fn reply(what: &str) -> Failure {
    Failure::new("host_reply", format!("the host's answer is not what the interface says: {what}"))
}

fn text(answer: &Value, name: &str) -> Result<String, Failure> {
    let text = answer.get(name).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| reply(&format!("`{name}` is missing")))
}
