//! Every input rule against the checked-in corpus of hostile lines, and key files against theirs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::fs;
use std::path::PathBuf;

use logline_core::json::JsonErrorKind;
use logline_core::ndjson::{Line, LineReader, SidecarReader};
use logline_core::{
    Draft, InvalidSpan, KeyPair, Rules, SignatureError, Signer as _, SystemClock, SystemIds, check_key, parse_line,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn kind(error: &InvalidSpan) -> &'static str {
    match error {
        InvalidSpan::Json(e) => match e.kind {
            JsonErrorKind::Syntax { .. } => "syntax",
            JsonErrorKind::Utf8 => "utf8",
            JsonErrorKind::DuplicateKey { .. } => "duplicate_key",
            JsonErrorKind::NumberOutOfRange { .. } => "number_out_of_range",
            JsonErrorKind::NonFiniteNumber => "non_finite",
            JsonErrorKind::NulCharacter => "nul",
            JsonErrorKind::LoneSurrogate => "lone_surrogate",
            JsonErrorKind::TooDeep => "too_deep",
            JsonErrorKind::TooMany => "too_many",
            _ => "unknown",
        },
        InvalidSpan::NotAnObject { .. } => "not_an_object",
        InvalidSpan::UnknownColumn { .. } => "unknown_column",
        InvalidSpan::Missing { .. } => "missing",
        InvalidSpan::Type { .. } => "type",
        InvalidSpan::NameTooLong { .. } => "name_too_long",
        InvalidSpan::ControlCharacter { .. } => "control_character",
        InvalidSpan::Visibility { .. } => "visibility",
        InvalidSpan::NegativeSeq { .. } => "negative_seq",
        InvalidSpan::IntegerOutOfRange { .. } => "integer_out_of_range",
        InvalidSpan::Timestamp(_) => "timestamp",
        InvalidSpan::Uuid { .. } => "uuid",
        InvalidSpan::Hex { .. } => "hex",
        InvalidSpan::Version { .. } => "version",
        InvalidSpan::IncompleteSeal { .. } => "incomplete_seal",
        InvalidSpan::UnsignedWithPredecessor => "unsigned_with_predecessor",
        InvalidSpan::PredecessorOfZero => "predecessor_of_zero",
        InvalidSpan::Number { .. } => "number_out_of_range",
        InvalidSpan::Nul { .. } => "nul",
        InvalidSpan::TooDeep { .. } => "too_deep",
        InvalidSpan::TooMany { .. } => "too_many",
        InvalidSpan::TooLarge { .. } => "too_large",
        _ => "unknown",
    }
}

#[test]
fn every_hostile_line_is_refused_for_its_own_reason() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors/invalid.json");
    let vectors: Vec<Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert!(vectors.len() >= 60);
    let mut wrong = Vec::new();
    for vector in &vectors {
        let line = match (vector["line"].as_str(), vector["line_hex"].as_str()) {
            (Some(line), _) => line.as_bytes().to_vec(),
            (None, Some(hex)) => {
                (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
            }
            _ => panic!("{vector}"),
        };
        let found = match parse_line(&line, &Rules::default()) {
            Ok(_) => "accepted",
            Err(e) => kind(&e),
        };
        if Some(found) != vector["error"].as_str() {
            wrong.push(format!("{}: found {found}, expected {}", vector["name"], vector["error"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn draft() -> Draft {
    Draft::new("note").tenant("acme").owner("alice").who("w").this("t").stamp(&SystemClock, &SystemIds)
}

/// An array of so many objects, each of a few bytes.
fn small_objects(count: usize) -> Value {
    Value::Array(vec![json!({"": 0}); count])
}

#[test]
fn small_objects_that_would_take_much_memory_are_refused_before_they_do() {
    let text = |count: usize| serde_json::to_vec(&small_objects(count)).unwrap();
    assert!(logline_core::json::parse(&text(32_767)).is_ok());
    let refused = logline_core::json::parse(&text(1_000_000)).unwrap_err();
    assert_eq!(refused.kind, JsonErrorKind::TooMany);
    assert!(refused.offset < 32_769 * 7, "it stopped at byte {}", refused.offset);
    // Whatever is sealed can be read again.
    let key = KeyPair::generate().unwrap();
    let most = draft().content(small_objects(32_758)).metadata(json!({"n": 1})).related([draft().columns().id]);
    let sealed = most.seal_local(&key).unwrap();
    parse_line(&sealed.to_line(), &Rules::default()).unwrap();
}

#[test]
fn a_draft_is_held_to_the_same_rules_when_it_is_sealed() {
    let mut deep = json!(1);
    for _ in 0..64 {
        deep = json!([deep]);
    }
    let cases = [
        (draft().content(json!(9_007_199_254_740_992_i64)), "number_out_of_range"),
        (draft().content(json!([{"a": -1e300}])), "number_out_of_range"),
        (draft().content(json!({"a\0": 1})), "nul"),
        (draft().name("\0"), "nul"),
        (draft().content(deep), "too_deep"),
        (draft().content(small_objects(32_760)), "too_many"),
        (draft().content(small_objects(20_000)).metadata(json!({"more": small_objects(20_000)})), "too_many"),
        (draft().seq(1 << 31), "integer_out_of_range"),
        (draft().duration_ms(u32::MAX), "integer_out_of_range"),
        (draft().tenant(""), "missing"),
        (draft().owner(""), "missing"),
        (draft().who(""), "missing"),
        (draft().tenant("a\nb"), "control_character"),
        (draft().status("s".repeat(257)), "name_too_long"),
        (draft().follows(logline_core::Hash([0; 32])), "predecessor_of_zero"),
        (draft().code("x".repeat(1 << 20)), "too_large"),
        (Draft::new("note").tenant("a").owner("b").who("w").this("t"), "missing"),
    ];
    let key = KeyPair::generate().unwrap();
    for (draft, expected) in cases {
        let shown = format!("{:.200?}", draft.columns());
        match draft.seal_local(&key) {
            Err(logline_core::SealError::Invalid(e)) => assert_eq!(kind(&e), expected, "{shown}"),
            other => panic!("{shown}: {other:?}"),
        }
    }
}

#[test]
fn the_deepest_allowed_nesting_is_sealed_and_read_back() {
    let mut deep = json!(1);
    for _ in 0..63 {
        deep = json!([deep]);
    }
    let span = draft().content(deep).seal_local(&KeyPair::generate().unwrap()).unwrap();
    parse_line(&span.to_line(), &Rules::default()).unwrap();
}

#[test]
fn weak_and_non_canonical_keys_are_refused() {
    let point = |first: u8, fill: u8, last: u8| {
        let mut bytes = [fill; 32];
        bytes[0] = first;
        bytes[31] = last;
        logline_core::PublicKey(bytes)
    };
    // The neutral element, the point of order 2, two of order 4 and 8.
    assert_eq!(check_key(&point(1, 0, 0)), Err(SignatureError::WeakKey));
    assert_eq!(check_key(&point(0xec, 0xff, 0x7f)), Err(SignatureError::WeakKey));
    assert_eq!(check_key(&point(0, 0, 0)), Err(SignatureError::WeakKey));
    let order_8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a".parse().unwrap();
    assert_eq!(check_key(&order_8), Err(SignatureError::WeakKey));
    // y = p and y = p + 1 are second spellings of 0 and 1; a set sign bit on x = 0 is one of the neutral element.
    assert_eq!(check_key(&point(0xed, 0xff, 0x7f)), Err(SignatureError::NonCanonicalKey));
    assert_eq!(check_key(&point(0xee, 0xff, 0xff)), Err(SignatureError::NonCanonicalKey));
    assert!(check_key(&point(1, 0, 0x80)).is_err());
    assert!(check_key(&KeyPair::generate().unwrap().public_key()).is_ok());
}

#[test]
fn a_signature_is_bound_to_its_kind() {
    let key = KeyPair::generate().unwrap();
    let span = draft().seal_local(&key).unwrap();
    // The same hash signed as a sidecar's is no seal of a span.
    let message = logline_core::dsse::pae(logline_core::dsse::SIDECAR, span.seal.curr_hash.as_bytes());
    let mut forged = span.into_signed();
    forged.seal.signature = key.sign_now(&message);
    assert!(forged.verify(&mut logline_core::Verifier::new()).is_err());
}

#[test]
fn key_files_are_private_and_survive_the_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.key");
    let key = KeyPair::generate().unwrap();
    key.save_new(&path).unwrap();
    assert_eq!(KeyPair::load(&path).unwrap().public_key(), key.public_key());
    assert!(key.save_new(&path).is_err(), "nothing is overwritten");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = KeyPair::load(&path).unwrap_err().to_string();
        assert!(error.contains("may be read by others (mode 640): run chmod 600"), "{error}");
    }
}

#[test]
fn hostile_key_files_are_refused_without_repeating_the_secret() {
    let digits = "5e".repeat(32);
    let prefix = "logline-ed25519-secret-v1:";
    let cases = [
        (String::new(), "no line starts with"),
        ("# only a comment\n".to_owned(), "no line starts with"),
        (format!("{prefix}{digits}\n{prefix}{digits}\n"), "two keys"),
        (format!("{prefix}{}", &digits[1..]), "does not have 64 hex digits"),
        (format!("{prefix}{}", digits.to_uppercase()), "outside 0-9 and a-f"),
        (digits.clone(), "line 1 is neither"),
        (format!("logline-ed25519-secret-v2:{digits}"), "line 1 is neither"),
    ];
    for (text, expected) in cases {
        let error = KeyPair::from_text(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
        assert!(!error.contains("5e5e"), "the secret is in the message: {error}");
    }
    assert!(!format!("{:?}", KeyPair::generate().unwrap()).contains("secret"));
}

/// The lines of `bytes` as a reader of a whole file would have them.
fn plain_lines(bytes: &[u8], max: usize) -> Vec<Option<Vec<u8>>> {
    let mut lines: Vec<_> = bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    if lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    let whole = |line: Vec<u8>| (line.len() <= max).then(|| line.strip_suffix(b"\r").unwrap_or(&line).to_vec());
    lines.into_iter().map(whole).collect()
}

proptest! {
    #[test]
    fn lines_are_the_same_however_they_arrive(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..400), chunk in 1_usize..50) {
        let mut source = std::io::BufReader::with_capacity(chunk, bytes.as_slice());
        let mut reader = LineReader::new(&mut source, 40);
        let mut found = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            found.push(match line {
                Line::Whole(_, bytes) => Some(bytes.to_vec()),
                Line::TooLong(_) => None,
            });
        }
        prop_assert_eq!(found, plain_lines(&bytes, 40));
    }

    #[test]
    fn reading_a_sidecar_never_panics(text in "(\\{[\"a-z_:,0-9]{0,60}\\}\n?|.{0,40}\n){0,6}") {
        let mut source = text.as_bytes();
        let mut reader = SidecarReader::new(&mut source, None);
        while let Ok(Some(_)) = reader.next_head() {}
        prop_assert!(reader.signer().is_err(), "nobody signed this");
    }

    #[test]
    fn reading_a_key_file_never_panics(text in ".{0,200}") {
        let _ = KeyPair::from_text(&text);
    }
}
