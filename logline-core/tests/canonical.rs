//! Canonical form v1 against the published vectors, the project's own, and another implementation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::fs;
use std::path::PathBuf;

use logline_core::conformance::strategies;
use logline_core::{
    Draft, Hash, KeyPair, ParsedSpan, Rules, SignedSpan, Signer as _, Verifier, canonical, json, parse_draft, parse_line,
};
use proptest::prelude::*;
use serde_json::{Map, Number, Value};

fn vectors(name: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors").join(name);
    let text = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    match serde_json::from_slice(&text).unwrap() {
        Value::Array(vectors) => vectors,
        other => panic!("{} is {other}", path.display()),
    }
}

fn text<'a>(vector: &'a Value, member: &str) -> &'a str {
    vector[member].as_str().unwrap_or_else(|| panic!("{member} in {vector}"))
}

#[test]
fn rfc_8785_number_table() {
    let table = vectors("numbers.json");
    assert!(table.len() > 20);
    for vector in table {
        let bits = u64::from_str_radix(text(&vector, "ieee754"), 16).unwrap();
        let number = f64::from_bits(bits);
        match vector["text"].as_str() {
            Some(expected) => {
                let value = Value::Number(Number::from_f64(number).expect("finite"));
                assert_eq!(canonical::to_string(&value), expected, "{bits:016x}");
            }
            None => assert!(Number::from_f64(number).is_none(), "{bits:016x} is not finite and no JSON"),
        }
    }
}

#[test]
fn rfc_8785_examples_and_ours() {
    for vector in vectors("jcs.json") {
        // serde_json reads what the input rules would refuse: the writer covers more than spans may hold.
        let value: Value = serde_json::from_str(text(&vector, "input")).unwrap();
        assert_eq!(canonical::to_string(&value), text(&vector, "canonical"), "{}", text(&vector, "name"));
    }
}

#[test]
fn spans_seal_to_the_same_bytes_hash_and_signature_as_another_implementation() {
    let vectors = vectors("spans.json");
    assert!(vectors.len() >= 8);
    for vector in vectors {
        let name = text(&vector, "name");
        let seed: Hash = text(&vector, "seed").parse().unwrap();
        let key = KeyPair::from_seed(seed.as_bytes());
        let mut columns = vector["columns"].clone();
        let prev_hash = columns.as_object_mut().unwrap().remove("prev_hash");
        // Through the strict reader, as a line would come in.
        let columns = json::parse(columns.to_string().as_bytes()).unwrap();
        let mut draft: Draft = parse_draft(columns).unwrap();
        draft.columns_mut().prev_hash = prev_hash.map(|h| h.as_str().unwrap().parse().unwrap());
        let span = draft.seal_local(&key).unwrap();
        let payload = canonical::payload(&span.span, &span.seal.public_key);
        assert_eq!(String::from_utf8(payload).unwrap(), text(&vector, "payload"), "{name}");
        assert_eq!(span.seal.curr_hash.to_string(), text(&vector, "curr_hash"), "{name}");
        assert_eq!(span.seal.signature.to_string(), text(&vector, "signature"), "{name}");
        assert_eq!(key.public_key().to_string(), text(&vector, "public_key"), "{name}");
        assert_eq!(String::from_utf8(span.to_line()).unwrap(), text(&vector, "line"), "{name}");
        match parse_line(text(&vector, "line").as_bytes(), &Rules::default()).unwrap() {
            ParsedSpan::Signed(parsed) => {
                let verified = parsed.verify(&mut Verifier::new()).unwrap();
                assert_eq!(verified, span, "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Any JSON value, numbers over the whole range of doubles included.
fn wide_value() -> impl Strategy<Value = Value> {
    let number = any::<f64>().prop_filter_map("finite", |f| Number::from_f64(f).map(Value::Number));
    let leaf = prop_oneof![number, strategies::value()];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map(strategies::text(), inner, 0..6).prop_map(|m| Value::Object(Map::from_iter(m))),
        ]
    })
}

fn reseal(span: &SignedSpan) -> Option<Hash> {
    let draft = Draft::from_columns(span.span.clone());
    Some(draft.seal_local(&KeyPair::from_seed(&[7; 32])).ok()?.seal.curr_hash)
}

proptest! {
    #[test]
    fn the_writer_agrees_with_a_published_jcs_crate(value in wide_value()) {
        let theirs = serde_json_canonicalizer::to_string(&value).unwrap();
        prop_assert_eq!(canonical::to_string(&value), theirs);
    }

    #[test]
    fn reading_what_was_written_gives_the_value_back(value in strategies::value()) {
        let written = canonical::to_vec(&value);
        let read = json::parse(&written).unwrap();
        prop_assert_eq!(canonical::to_vec(&read), written);
    }

    #[test]
    fn a_line_reads_back_as_the_span_it_was(draft in strategies::draft()) {
        let span = draft.seal_local(&KeyPair::from_seed(&[7; 32])).unwrap();
        match parse_line(&span.to_line(), &Rules::default()).unwrap() {
            ParsedSpan::Signed(read) => prop_assert_eq!(read.verify(&mut Verifier::new()).unwrap(), span),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn the_readers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = json::parse(&bytes);
        let _ = parse_line(&bytes, &Rules::default());
    }

    #[test]
    fn a_mutated_line_is_refused_or_the_same_span(draft in strategies::draft(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let span = draft.seal_local(&KeyPair::from_seed(&[7; 32])).unwrap();
        let mut line = span.to_line();
        let at = at.index(line.len());
        line[at] = byte;
        // Whatever still parses and verifies is what was signed, perhaps spelled another way.
        if let Ok(ParsedSpan::Signed(read)) = parse_line(&line, &Rules::default())
            && let Ok(read) = read.verify(&mut Verifier::new()) {
                prop_assert_eq!(reseal(&read), reseal(&span));
            }
    }
}

#[test]
fn the_list_of_columns_is_that_of_a_row_that_has_them_all() {
    let draft = Draft::new("note")
        .tenant("acme")
        .owner("alice")
        .who("user:alice")
        .this("note")
        .did("wrote")
        .status("active")
        .name("n")
        .description("d")
        .code("c")
        .language("l")
        .runtime("r@1")
        .trace("t")
        .input(serde_json::json!(1))
        .output(serde_json::json!(1))
        .error(serde_json::json!({"code": "c", "message": "m"}))
        .content(serde_json::json!(1))
        .metadata(serde_json::json!({"m": 1}))
        .parent(uuid::Uuid::nil())
        .related([uuid::Uuid::nil()])
        .duration_ms(1)
        .seq(1)
        .follows(Hash([0; 32]));
    let span =
        draft.stamp(&logline_core::SystemClock, &logline_core::SystemIds).seal_local(&KeyPair::from_seed(&[1; 32])).unwrap();
    let row: serde_json::Value = serde_json::from_slice(&span.to_line()).unwrap();
    let mut names: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, logline_core::COLUMNS);
}
