//! A function as its author tests it: natively, with a closure for a host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use logline_guest::{Call, Failure, Host, HostExt as _, Op, Value, answer, json};
use serde::Deserialize;

#[derive(Deserialize)]
struct Input {
    amount: u64,
}

fn curious(call: Call<Option<Value>, Input>, host: &mut dyn Host) -> Result<Value, Failure> {
    if call.input.amount == 0 {
        return Err(Failure::new("no_amount", "amount is 0: send what is to be paid"));
    }
    host.log("info", "asked", json!({"amount": call.input.amount}))?;
    let page = host.query(&json!({"entity_type": "note"}))?;
    let id = host.emit(&json!({"entity_type": "alert"}))?;
    Ok(
        json!({"now": host.now()?, "random": host.random(2)?, "found": page.spans.len(), "more": page.cursor.is_some(), "id": id}),
    )
}

fn desk(op: Op, argument: &Value) -> Result<Value, Failure> {
    match op {
        Op::Log => {
            assert_eq!(argument, &json!({"level": "info", "message": "asked", "fields": {"amount": 3}}));
            Ok(Value::Null)
        }
        Op::Now => Ok(json!({"now": "2026-03-02T09:14:05.000000Z"})),
        Op::Random => Ok(json!({"hex": "0aff"})),
        Op::Query => Ok(json!({"spans": [{"id": "x"}], "cursor": "next"})),
        Op::Emit => Ok(json!({"id": "y"})),
        _ => Err(Failure::new("unknown_operation", "there is no such")),
    }
}

#[test]
fn a_function_is_called_with_what_it_takes_and_asks_by_name() {
    let call = br#"{"config":null,"input":{"amount":3},"function":{},"request":{"id":"r","attempt":1}}"#;
    let output = answer(call, &mut desk, curious).unwrap();
    let expected = json!({"now": "2026-03-02T09:14:05.000000Z", "random": [10, 255], "found": 1, "more": true, "id": "y"});
    assert_eq!(output, expected);
}

#[test]
fn what_a_function_does_not_take_is_told_with_its_place() {
    let failure = answer(br#"{"config":null,"input":{"amount":"3"}}"#, &mut desk, curious).unwrap_err();
    assert_eq!(failure.code, "invalid_call");
    assert!(failure.message.starts_with("input.amount: ") && failure.message.contains("expected u64"), "{failure}");
    assert_eq!(answer(b"{}", &mut desk, curious).unwrap_err().code, "invalid_call");
    assert_eq!(answer(br#"{"config":1,"input":{"amount":0}}"#, &mut desk, curious).unwrap_err().code, "no_amount");
}

#[test]
fn refusals_and_false_answers_of_a_host_are_failures() {
    let call = br#"{"config":null,"input":{"amount":3}}"#;
    let mut refuses = |_: Op, _: &Value| Err(Failure::new("not_permitted", "no"));
    assert_eq!(answer(call, &mut refuses, curious).unwrap_err().to_string(), "not_permitted: no");
    let mut lies = |_: Op, _: &Value| Ok(json!({"spans": 1, "hex": "zz"}));
    assert_eq!(answer(call, &mut lies, curious).unwrap_err().code, "host_reply");
}
