//! Frames of an event stream.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use serde_json::{Value, json};

fn frame(headers: [(&'static str, &str); 3], payload: &Value) -> Vec<u8> {
    let mut message = Message::new(payload.to_string().into_bytes());
    for (name, value) in headers {
        message = message.add_header(Header::new(name, HeaderValue::String(value.to_owned().into())));
    }
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).unwrap();
    bytes
}

/// An event of this type.
pub(crate) fn event(kind: &str, payload: &Value) -> Vec<u8> {
    frame([(":message-type", "event"), (":event-type", kind), (":content-type", "application/json")], payload)
}

/// An exception in the middle of a stream.
pub(crate) fn exception(kind: &str, said: &str) -> Vec<u8> {
    let payload = json!({"message": said});
    frame([(":message-type", "exception"), (":exception-type", kind), (":content-type", "application/json")], &payload)
}

/// More of block `index`.
pub(crate) fn delta(index: i64, delta: &Value) -> Vec<u8> {
    event("contentBlockDelta", &json!({"contentBlockIndex": index, "delta": delta}))
}

/// A tool use begins as block `index`.
pub(crate) fn tool_start(index: i64, id: &str, name: &str) -> Vec<u8> {
    let start = json!({"toolUse": {"toolUseId": id, "name": name}});
    event("contentBlockStart", &json!({"contentBlockIndex": index, "start": start}))
}

pub(crate) fn stop(reason: &str) -> Vec<u8> {
    event("messageStop", &json!({"stopReason": reason}))
}

pub(crate) fn metadata(usage: &Value) -> Vec<u8> {
    event("metadata", &json!({"usage": usage, "metrics": {"latencyMs": 1}}))
}
