//! The operations that a function can ask its host for.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::Failure;

/// An operation of the host. The numbers are those of ABI v1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[non_exhaustive]
pub enum Op {
    /// Writes a line to the log of the execution.
    Log = 1,
    /// Reads the time when the attempt started.
    Now = 2,
    /// Reads random bytes.
    Random = 3,
    /// Reads one page of spans.
    Query = 4,
    /// Hands in the draft of a span.
    Emit = 5,
    /// Asks a provider of models.
    Call = 6,
}

/// Answers a function's calls: the sandbox, or a closure in a test.
pub trait Host {
    /// Asks for one operation. `docs/wasm-abi.md` has the argument and the answer of each.
    ///
    /// # Errors
    /// The host's refusal, with its code and message unchanged. `host_reply` if the answer cannot be read.
    fn call(&mut self, op: Op, argument: &Value) -> Result<Value, Failure>;
}

impl<F: FnMut(Op, &Value) -> Result<Value, Failure>> Host for F {
    fn call(&mut self, op: Op, argument: &Value) -> Result<Value, Failure> {
        self(op, argument)
    }
}

/// One page of the spans that a query finds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Page {
    /// The spans, in the form that they have in an export.
    pub spans: Vec<Value>,
    /// The position where the next page begins; `None` if this is the last page. A page without spans can have a next page.
    pub cursor: Option<String>,
    /// How many rows the host looked at for this page. Each costs 1,000 units of fuel, and the page 50,000.
    #[serde(default)]
    pub visited: u64,
}

/// A method for each operation.
pub trait HostExt: Host {
    /// Writes a line to the log of the execution. `fields` is any JSON; null for none.
    ///
    /// # Errors
    /// The host's refusal, such as `invalid_log`.
    fn log(&mut self, level: &str, message: &str, fields: Value) -> Result<(), Failure> {
        self.call(Op::Log, &json!({"level": level, "message": message, "fields": fields})).map(drop)
    }

    /// The time when the attempt started, RFC 3339 in UTC. It is the same at every call.
    ///
    /// # Errors
    /// The host's refusal. `host_reply` if the answer has no time.
    fn now(&mut self) -> Result<String, Failure> {
        text(&self.call(Op::Now, &Value::Null)?, "now")
    }

    /// The next random bytes, 1 to 1024. A replay of the execution gives the same bytes.
    ///
    /// # Errors
    /// The host's refusal, such as `invalid_random`. `host_reply` if the answer is not hexadecimal.
    fn random(&mut self, bytes: usize) -> Result<Vec<u8>, Failure> {
        let hex = text(&self.call(Op::Random, &json!({"bytes": bytes}))?, "hex")?;
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pairs = hex.as_bytes().chunks_exact(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        });
        pairs.collect::<Option<Vec<_>>>().ok_or_else(|| reply("`hex` is not hexadecimal"))
    }

    /// Reads a page of the last versions of spans, with the rights of the request's owner. `query` is an object with the
    /// members `tenant`, `id`, `entity_type`, `parent_id`, `status`, `limit` (100 at most) and `cursor`. All of them are
    /// optional. The host looks at 1,000 rows at most for one page, so a page may have no spans and still have a next page.
    ///
    /// # Errors
    /// The host's refusal, such as `invalid_query`. `host_reply` if the answer is not a page.
    fn query(&mut self, query: &Value) -> Result<Page, Failure> {
        let page = self.call(Op::Query, query)?;
        Page::deserialize(page).map_err(|e| reply(&e.to_string()))
    }

    /// Hands in the draft of a span and returns the id of the span. `draft` is an object of columns; `entity_type` is required.
    /// The span is committed together with the execution, or not at all.
    ///
    /// # Errors
    /// The host's refusal, such as `invalid_draft`. `host_reply` if the answer has no id.
    fn emit(&mut self, draft: &Value) -> Result<String, Failure> {
        text(&self.call(Op::Emit, draft)?, "id")
    }

    /// Asks a model, and waits for its answer. `key` names the call within the request, and must be the same in every attempt: an attempt
    /// after a lost one gets the recorded answer. `body` is a request as in `docs/providers.md`. The function needs the capability
    /// `provider.invoke:PROVIDER/MODEL`.
    ///
    /// # Errors
    /// The host's refusal: `not_permitted`, `invalid_call`, `budget`, `outcome_unknown`, `provider_not_found`, or the provider's, such as
    /// `provider:content_filtered`. `host_reply` if the answer cannot be read.
    fn invoke(&mut self, provider: &str, key: &str, body: Value) -> Result<Told, Failure> {
        let call = json!({"provider": provider, "operation": "invoke", "key": key, "body": body});
        Told::deserialize(self.call(Op::Call, &call)?).map_err(|e| reply(&e.to_string()))
    }
}

impl<H: Host + ?Sized> HostExt for H {}

/// The answer of a provider.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Told {
    /// The id of the span that records the answer.
    pub span: String,
    /// What was answered, see `docs/providers.md`.
    pub answer: Value,
}

fn reply(what: &str) -> Failure {
    Failure::new("host_reply", format!("the host's answer does not follow the interface: {what}"))
}

fn text(answer: &Value, name: &str) -> Result<String, Failure> {
    let text = answer.get(name).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| reply(&format!("`{name}` is missing")))
}
