//! The host operations this guest uses.

use crate::Failure;
use serde_json::{json, Value};

/// A host operation; the discriminants are the ABI's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Op {
    /// Write one line to the execution's log.
    Log = 1,
    /// Read the attempt's start time, the same at every call, so that a replay gives the same output.
    Now = 2,
    /// Read spans that the request's owner may see.
    Query = 4,
    /// Append a span together with the execution, or not at all.
    Emit = 5,
}

/// Whoever answers host operations: the sandbox, or a ledger in a test.
pub trait Host {
    /// Performs one operation.
    ///
    /// # Errors
    /// The host's own code and message, unchanged.
    fn call(&mut self, op: Op, input: &Value) -> Result<Value, Failure>;
}

pub(crate) fn log(
    host: &mut dyn Host,
    level: &str,
    message: &str,
    fields: Value,
) -> Result<(), Failure> {
    let line = json!({ "level": level, "message": message, "fields": fields });
    host.call(Op::Log, &line).map(drop)
}

pub(crate) fn now(host: &mut dyn Host) -> Result<String, Failure> {
    let reply = host.call(Op::Now, &Value::Null)?;
    match reply.get("now").and_then(Value::as_str) {
        Some(now) => Ok(now.into()),
        None => Err(Failure::new(
            "host_reply",
            "operation `now` answered without `now`",
        )),
    }
}

pub(crate) fn query(host: &mut dyn Host, query: &Value) -> Result<Value, Failure> {
    host.call(Op::Query, query)
}

pub(crate) fn emit(host: &mut dyn Host, draft: &Value) -> Result<(), Failure> {
    host.call(Op::Emit, draft).map(drop)
}
