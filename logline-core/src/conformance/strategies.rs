//! Random spans for property tests. They use everything that the input rules allow.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Number, Value};
use uuid::Uuid;

use crate::span::Visibility;
use crate::span::draft::Draft;
use crate::value::json::MAX_NUMBER;
use crate::value::timestamp::Timestamp;

/// Texts without U+0000, with characters that are often escaped or sorted incorrectly.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z]{0,12}",
        1 => "[\u{1}-\u{7f}]{0,8}",
        1 => vec(prop_oneof![
            Just('\u{ffff}'), Just('\u{e000}'), Just('\u{d7ff}'), Just('\u{10000}'), Just('\u{1f600}'), Just('\u{2028}'),
            Just('"'), Just('\\'), any::<char>().prop_filter("U+0000 is refused", |c| *c != '\0')
        ], 0..6).prop_map(String::from_iter),
    ]
}

/// Numbers within ±(2^53 − 1), integers and fractions.
pub fn number() -> impl Strategy<Value = Number> {
    let max = MAX_NUMBER as i64;
    prop_oneof![
        (-max..=max).prop_map(Number::from),
        (-1000_i64..1000).prop_map(Number::from),
        any::<f64>().prop_filter_map("within range", |f| {
            (f.is_finite() && f.abs() <= MAX_NUMBER as f64).then(|| Number::from_f64(f)).flatten()
        }),
        (-1.0e6..1.0e6).prop_filter_map("finite", Number::from_f64),
    ]
}

/// JSON values that the input rules allow, nested up to five levels.
pub fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number().prop_map(Value::Number),
        text().prop_map(Value::String),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            btree_map(text(), inner, 0..6).prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

/// Times in the whole allowed range, the years 1 to 9999, with microseconds.
pub fn timestamp() -> impl Strategy<Value = Timestamp> {
    // From year 1 to the end of year 9999, in microseconds since the Unix epoch.
    (-62_135_596_800_000_000_i64..=253_402_300_799_999_999)
        .prop_filter_map("within range", |micros| chrono::DateTime::from_timestamp_micros(micros)?.try_into().ok())
}

fn visibility() -> impl Strategy<Value = Visibility> {
    prop_oneof![Just(Visibility::Private), Just(Visibility::Tenant), Just(Visibility::Public)]
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn required() -> impl Strategy<Value = String> {
    text().prop_map(|t| if t.is_empty() { "x".to_owned() } else { t })
}

/// First versions with random columns, in three tenants.
pub fn draft() -> impl Strategy<Value = Draft> {
    let names = (prop_oneof![Just("acme"), Just("globex"), Just("système")], "[a-z]{1,8}", required(), required());
    let links = (uuid().prop_filter("an id is not nil", |id| !id.is_nil()), option::of(uuid()), vec(uuid(), 0..3));
    let texts = vec(option::of(text()), 6);
    let values = vec(option::of(value()), 5);
    let numbers = (0..=crate::span::rules::MAX_INTEGER, option::of(0..=crate::span::rules::MAX_INTEGER), any::<bool>());
    (names, links, texts, values, numbers, timestamp(), visibility(), option::of("[a-z]{1,9}")).prop_map(
        |(names, links, texts, values, numbers, at, visibility, status)| {
            let (tenant, owner, who, this) = names;
            let mut draft = Draft::new("note").tenant(tenant).owner(owner).who(who).this(this).id(links.0).at(at);
            let columns = draft.columns_mut();
            columns.parent_id = links.1;
            columns.related_to = links.2;
            columns.visibility = visibility;
            (columns.seq, columns.duration_ms, columns.is_deleted) = numbers;
            columns.trace_id.clone_from(&status);
            columns.status = status;
            let mut texts = texts.into_iter();
            let mut text = || texts.next().flatten();
            (columns.did, columns.name, columns.description) = (text(), text(), text());
            (columns.code, columns.language, columns.runtime) = (text(), text(), text());
            let mut values = values.into_iter();
            let mut value = || values.next().flatten();
            (columns.input, columns.output, columns.error) = (value(), value(), value());
            (columns.content, columns.metadata) = (value(), value());
            draft
        },
    )
}
