//! The functions of `guests/`, as their artifacts are committed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use logline_core::Failure;
use logline_core::contract::{Job, Sandbox as _};
use logline_core::trust::Limits;
use logline_wasm::WasmSandbox;
use serde_json::{Value, json};

use setup::{Desk, block_on};

const LUHN: &str = include_str!("../guests/luhn_c/luhn.wat");
const WORDS: &str = include_str!("../guests/words_assemblyscript/words.wat");
const FEE: &[u8] = include_bytes!("../guests/fee.wasm");

/// What the host calls a function with.
fn asked(code: &str, config: &Value, input: &Value) -> Result<Value, Failure> {
    let call = json!({
        "config": config,
        "function": {"curr_hash": "00", "id": "cafe9f0f-ce62-5f7a-9bf2-9ca6fc133003", "seq": 0, "tenant": "acme"},
        "input": input,
        "request": {"attempt": 1, "id": "01a208e9-76c7-732a-9f68-93382e9ff00d"},
    });
    block_on(async {
        let sandbox = WasmSandbox::new().unwrap();
        sandbox.run(Job::new("acme", code, &call, &Limits::default()), &mut Desk::default()).await.result
    })
}

fn error_code(result: Result<Value, Failure>) -> String {
    result.unwrap_err().code
}

#[test]
fn the_function_in_c_checks_card_numbers() {
    let check = |input: Value| asked(LUHN, &json!({"input": "1"}), &input);
    assert_eq!(check(json!("4539 1488 0343 6467")), Ok(json!({"digits": 16, "valid": true})));
    assert_eq!(check(json!("4539-1488-0343-6468")), Ok(json!({"digits": 16, "valid": false})));
    assert_eq!(check(json!("")), Ok(json!({"digits": 0, "valid": false})));
    for input in [json!(1), json!({"input": "1"}), json!("12a"), json!("1".repeat(33)), json!("1\"2")] {
        assert_eq!(error_code(check(input.clone())), "guest:invalid_input", "{input}");
    }
}

#[test]
fn the_function_in_assemblyscript_counts_words() {
    let count = |input: Value| asked(WORDS, &Value::Null, &input);
    assert_eq!(count(json!({"text": "the quick brown\nfox"})), Ok(json!({"words": 4})));
    assert_eq!(count(json!({"text": " \"quoted\"  é\\n "})), Ok(json!({"words": 2})));
    assert_eq!(count(json!({"text": "word ".repeat(20_000)})), Ok(json!({"words": 20_000})));
    assert_eq!(count(json!({"text": ""})), Ok(json!({"words": 0})));
    assert_eq!(
        count(json!({"a": {"text": "one two"}, "b": "\"text\":\"one two\"", "text": "one", "z": ["text"]})),
        Ok(json!({"words": 1}))
    );
    for input in
        [json!("text"), json!({"a": {"text": "one two"}}), json!({"text": 1}), json!(["text", "one"]), json!({"\"text": "one"})]
    {
        assert_eq!(error_code(count(input.clone())), "guest:invalid_input", "{input}");
    }
    // Only the request's own input counts.
    let config = json!({"input": {"text": "one two"}});
    assert_eq!(asked(WORDS, &config, &json!({"text": "one"})), Ok(json!({"words": 1})));
    assert_eq!(error_code(asked(WORDS, &config, &json!(1))), "guest:invalid_input");
}

#[test]
fn the_function_in_rust_charges_a_fee() {
    let code = logline_wasm::encode_binary(FEE);
    let charge = |input: Value| asked(&code, &json!({"rate": 25}), &input);
    assert_eq!(charge(json!({"payment": "pay_1", "amount_minor": 10_000})), Ok(json!({"fee_minor": 25})));
    assert_eq!(error_code(charge(json!({"payment": "pay_1", "amount_minor": 0}))), "guest:no_amount");
    let failure = charge(json!({"payment": "pay_1", "amount_minor": "12"})).unwrap_err();
    assert_eq!(failure.code, "guest:invalid_call");
    assert!(failure.message.contains("input.amount_minor: invalid type: string \"12\", expected u64"), "{failure}");
    let most = json!({"payment": "pay_1", "amount_minor": 9_007_199_254_740_991_u64});
    assert_eq!(error_code(asked(&code, &json!({"rate": 10_000}), &most)), "guest:too_large");
}
