//! Claims about the whole call, made with a ledger that lives in the test.

use crate::score_payment;
use logline_guest::{Failure, Host, Op, Value, answer, json};

const NOW: &str = "2026-03-02T09:14:05.000000Z";

/// Gives `page` rows a time, and a cursor after the last row too, as a resumable cursor may.
#[derive(Default)]
struct TestLedger {
    alerts: Vec<Value>,
    page: usize,
    logs: Vec<Value>,
    queries: Vec<Value>,
    refuse: Option<Op>,
}

impl TestLedger {
    fn with_alerts(alerts: &[(&str, &str)]) -> Self {
        let span = |(customer, payment): &(&str, &str)| {
            json!({ "entity_type": "payment_alert", "status": "open",
                    "content": { "customer_id": customer, "payment_id": payment } })
        };
        Self { alerts: alerts.iter().map(span).collect(), page: 100, ..Self::default() }
    }
}

impl Host for TestLedger {
    fn call(&mut self, op: Op, input: &Value) -> Result<Value, Failure> {
        if self.refuse == Some(op) {
            return Err(Failure::new("host_call_limit", "no more host calls"));
        }
        Ok(match op {
            Op::Log => {
                self.logs.push(input.clone());
                Value::Null
            }
            Op::Now => json!({ "now": NOW }),
            Op::Query => {
                self.queries.push(input.clone());
                let from = input["cursor"].as_u64().unwrap_or(0) as usize;
                let spans: Vec<_> = self.alerts.iter().skip(from).take(self.page).cloned().collect();
                json!({ "cursor": from + spans.len(), "spans": spans })
            }
            Op::Emit => {
                self.alerts.push(input.clone());
                json!({ "id": "0195563c-0000-7000-8000-000000000001" })
            }
            _ => Value::Null,
        })
    }
}

fn call(config: Value, input: Value, ledger: &mut TestLedger) -> Result<Value, Failure> {
    let call = json!({
        "function": { "tenant": "acme", "id": "f", "seq": 0, "curr_hash": "00" },
        "request": { "id": "r", "attempt": 1 },
        "config": config,
        "input": input,
    });
    answer(call.to_string().as_bytes(), ledger, score_payment)
}

fn table(when: Value) -> Value {
    json!({ "version": "t1", "thresholds": { "review": 50, "block": 80 },
            "rules": [{ "id": "r", "score": 50, "when": when, "reason": "because" }] })
}

fn payment() -> Value {
    json!({ "id": "pay_1", "amount_minor": 1000, "currency": "EUR", "method": "card", "ratio": 0.1, "note": null,
            "card": { "country": "DE", "present": false }, "customer": { "id": "cus_1" }, "ip_country": "NL" })
}

fn hits(when: Value) -> bool {
    let mut ledger = TestLedger::default();
    let output = call(table(when.clone()), payment(), &mut ledger).unwrap_or_else(|e| panic!("{when}: {e:?}"));
    output["decision"] == "review"
}

#[test]
fn each_operator_hits_what_it_says() {
    let cases = [
        (json!({ "field": "currency", "op": "eq", "value": "EUR" }), true),
        (json!({ "field": "currency", "op": "eq", "value": "USD" }), false),
        (json!({ "field": "card.present", "op": "eq", "value": false }), true),
        (json!({ "field": "amount_minor", "op": "eq", "value": 1000.0 }), true),
        (json!({ "field": "amount_minor", "op": "eq", "value": "1000" }), false),
        (json!({ "field": "ratio", "op": "eq", "value": 0.1 }), true),
        (json!({ "field": "currency", "op": "ne", "value": "USD" }), true),
        (json!({ "field": "card.country", "op": "ne", "value_from": "ip_country" }), true),
        (json!({ "field": "card.country", "op": "eq", "value_from": "ip_country" }), false),
        (json!({ "field": "amount_minor", "op": "gt", "value": 999.5 }), true),
        (json!({ "field": "amount_minor", "op": "gt", "value": 1000 }), false),
        (json!({ "field": "amount_minor", "op": "gte", "value": 1000 }), true),
        (json!({ "field": "amount_minor", "op": "lt", "value": 1000 }), false),
        (json!({ "field": "amount_minor", "op": "lte", "value": 1000 }), true),
        (json!({ "field": "currency", "op": "gt", "value": 1 }), false),
        (json!({ "field": "currency", "op": "in", "value": ["USD", "EUR"] }), true),
        (json!({ "field": "amount_minor", "op": "in", "value": [1000.0] }), true),
        (json!({ "field": "currency", "op": "not_in", "value": ["USD", "EUR"] }), false),
        (json!({ "field": "currency", "op": "not_in", "value": ["USD"] }), true),
        (json!({ "field": "card.country", "op": "exists" }), true),
        (json!({ "field": "card.brand", "op": "exists" }), false),
        (json!({ "field": "card.brand", "op": "exists", "value": false }), true),
        (json!({ "all": [{ "field": "id", "op": "exists" }, { "field": "nope", "op": "exists" }] }), false),
        (json!({ "any": [{ "field": "nope", "op": "exists" }, { "field": "id", "op": "exists" }] }), true),
        (json!({ "all": [{ "any": [{ "field": "id", "op": "exists" }] }] }), true),
    ];
    for (when, expected) in cases {
        assert_eq!(hits(when.clone()), expected, "{when}");
    }
}

#[test]
fn an_absent_or_null_field_meets_only_exists_false() {
    for field in ["nope", "card.nope", "currency.nope", "note"] {
        for (op, value) in [("eq", json!(1)), ("ne", json!(1)), ("gt", json!(1)), ("lte", json!(1))] {
            assert!(!hits(json!({ "field": field, "op": op, "value": value })), "{field} {op}");
        }
        for op in ["in", "not_in"] {
            assert!(!hits(json!({ "field": field, "op": op, "value": [1] })), "{field} {op}");
        }
        assert!(!hits(json!({ "field": "currency", "op": "ne", "value_from": field })), "{field}");
        assert!(hits(json!({ "field": field, "op": "exists", "value": false })), "{field}");
    }
}

#[test]
fn thresholds_are_inclusive_and_scores_add_up() {
    let cases = [(49, 0, "allow"), (50, 0, "review"), (79, 0, "review"), (80, 0, "block"), (90, -11, "review")];
    for (first, second, decision) in cases {
        let always = json!({ "field": "id", "op": "exists" });
        let config = json!({ "version": "t1", "thresholds": { "review": 50, "block": 80 }, "rules": [
            { "id": "a", "score": first, "when": always, "reason": "x" },
            { "id": "b", "score": second, "when": always, "reason": "y" },
        ] });
        let output = call(config, payment(), &mut TestLedger::default()).expect("scores");
        assert_eq!(output["decision"], decision, "{first} and {second}");
        assert_eq!(output["score"], first + second);
    }
}

#[test]
fn a_held_payment_raises_one_alert_and_one_log_line() {
    let mut ledger = TestLedger::default();
    let output = call(table(json!({ "field": "id", "op": "exists" })), payment(), &mut ledger).expect("scores");
    let hits = json!([{ "rule": "r", "score": 50, "reason": "because" }]);
    let expected = json!({ "decision": "review", "score": 50, "hits": hits, "rules_version": "t1", "scored_at": NOW });
    assert_eq!(output, expected);
    assert_eq!(
        ledger.alerts,
        [json!({ "entity_type": "payment_alert", "this": "payment.alert", "status": "open",
                 "name": "payment pay_1: review",
                 "content": { "customer_id": "cus_1", "payment_id": "pay_1", "decision": "review", "score": 50,
                              "hits": hits } })]
    );
    assert_eq!(ledger.logs.len(), 1);
}

#[test]
fn an_allowed_payment_writes_nothing() {
    let mut ledger = TestLedger::default();
    call(table(json!({ "field": "nope", "op": "exists" })), payment(), &mut ledger).expect("scores");
    assert!(ledger.alerts.is_empty() && ledger.logs.is_empty() && ledger.queries.is_empty());
}

#[test]
fn only_the_customers_other_payments_count_as_open_alerts() {
    let cases: [(&[(&str, &str)], bool); 4] = [
        (&[("cus_1", "pay_a"), ("cus_1", "pay_b")], true),
        (&[("cus_1", "pay_a"), ("cus_2", "pay_b")], false),
        (&[("cus_1", "pay_a"), ("cus_1", "pay_1")], false),
        (&[], false),
    ];
    for (alerts, expected) in cases {
        let mut ledger = TestLedger::with_alerts(alerts);
        let output = call(table(json!({ "op": "open_alerts_gte", "value": 2 })), payment(), &mut ledger);
        assert_eq!(output.expect("scores")["decision"] == "review", expected, "{alerts:?}");
    }
}

#[test]
fn alerts_are_counted_over_all_pages_and_no_page_is_read_twice() {
    let mut ledger = TestLedger { page: 1, ..TestLedger::with_alerts(&[("cus_1", "a"), ("cus_2", "b"), ("cus_1", "c")]) };
    let when = json!({ "any": [
        { "op": "open_alerts_gte", "value": 4 },
        { "op": "open_alerts_gte", "value": 3 },
        { "op": "open_alerts_gte", "value": 2 },
    ] });
    assert_eq!(call(table(when), payment(), &mut ledger).expect("scores")["decision"], "review");
    let cursors: Vec<_> = ledger.queries.iter().map(|query| query["cursor"].as_u64()).collect();
    assert_eq!(cursors, [None, Some(1), Some(2), Some(3)]);
    assert!(ledger.queries.iter().all(|query| query["entity_type"] == "payment_alert" && query["status"] == "open"));
}

#[test]
fn a_guest_checkout_asks_nothing_about_open_alerts() {
    let mut ledger = TestLedger::with_alerts(&[("cus_1", "pay_a")]);
    let event = json!({ "id": "pay_2", "amount_minor": 0 });
    let output = call(table(json!({ "op": "open_alerts_gte", "value": 1 })), event, &mut ledger).expect("scores");
    assert_eq!(output["decision"], "allow");
    assert!(ledger.queries.is_empty());
}

#[test]
fn a_refusal_by_the_host_is_passed_on_and_never_read_as_no_alerts() {
    for op in [Op::Log, Op::Now, Op::Query, Op::Emit] {
        let mut ledger = TestLedger { refuse: Some(op), ..TestLedger::with_alerts(&[("cus_1", "pay_a")]) };
        let result = call(table(json!({ "op": "open_alerts_gte", "value": 1 })), payment(), &mut ledger);
        assert_eq!(result.map_err(|failure| failure.code), Err("host_call_limit".into()), "{op:?}");
    }
}

#[test]
fn a_bad_event_names_the_field_and_what_is_expected() {
    let cases = [
        (json!(null), "`input`", "JSON object"),
        (json!([1]), "`input`", "JSON object"),
        (json!({ "amount_minor": 1 }), "`id`", "found nothing"),
        (json!({ "id": "", "amount_minor": 1 }), "`id`", "an empty string"),
        (json!({ "id": 7, "amount_minor": 1 }), "`id`", "found a number"),
        (json!({ "id": "p" }), "`amount_minor`", "found nothing"),
        (json!({ "id": "p", "amount_minor": "1" }), "`amount_minor`", "found a string"),
        (json!({ "id": "p", "amount_minor": 1.5 }), "`amount_minor`", "a number with a fraction"),
        (json!({ "id": "p", "amount_minor": -1 }), "`amount_minor`", "found a negative number"),
        (json!({ "id": "p", "amount_minor": 1, "customer": { "id": 7 } }), "`customer.id`", "non-empty string"),
    ];
    for (event, field, part) in cases {
        let failure =
            call(table(json!({ "field": "id", "op": "exists" })), event, &mut TestLedger::default()).expect_err("is refused");
        assert_eq!(failure.code, "invalid_event");
        assert!(failure.message.starts_with(field) && failure.message.contains(part), "{}", failure.message);
    }
}

#[test]
fn a_bad_rule_table_names_the_place() {
    let rule = |rule: Value| json!({ "version": "t", "thresholds": { "review": 1, "block": 2 }, "rules": [rule] });
    let cases = [
        (json!(null), "`config`"),
        (json!({ "thresholds": {}, "rules": [] }), "`version`"),
        (json!({ "version": "t", "rules": [] }), "`thresholds`"),
        (json!({ "version": "t", "thresholds": { "review": 1.5, "block": 2 }, "rules": [] }), "`thresholds.review`"),
        (json!({ "version": "t", "thresholds": { "review": 3, "block": 2 }, "rules": [] }), "`thresholds`"),
        (json!({ "version": "t", "thresholds": { "review": 1, "block": 2 } }), "`rules`"),
        (json!({ "version": "t", "thresholds": { "review": 1, "block": 2 }, "rules": [], "rulez": [] }), "`config`"),
        (rule(json!(1)), "`rules[0]`"),
        (rule(json!({ "id": "a", "score": 1001, "reason": "x", "when": {} })), "`rules[0].score`"),
        (rule(json!({ "id": "a", "score": 1, "reason": "x" })), "`rules[0].when`"),
        (table(json!({})), "`rules[0].when.op`"),
        (table(json!({ "field": "a", "op": "like", "value": 1 })), "`rules[0].when.op`"),
        (table(json!({ "field": "a..b", "op": "exists" })), "`rules[0].when.field`"),
        (table(json!({ "field": "a", "op": "exists", "value": 1 })), "`rules[0].when.value`"),
        (table(json!({ "field": "a", "op": "gt", "value": "1" })), "`rules[0].when.value`"),
        (table(json!({ "field": "a", "op": "eq", "value": null })), "`rules[0].when.value`"),
        (table(json!({ "field": "a", "op": "eq" })), "`rules[0].when`"),
        (table(json!({ "field": "a", "op": "eq", "value": 1, "value_from": "b" })), "`rules[0].when`"),
        (table(json!({ "field": "a", "op": "eq", "value": 1, "vaule": 1 })), "`rules[0].when`"),
        (table(json!({ "field": "a", "op": "in", "value": [] })), "`rules[0].when.value`"),
        (table(json!({ "op": "open_alerts_gte", "value": 0 })), "`rules[0].when.value`"),
        (table(json!({ "all": [] })), "`rules[0].when.all`"),
        (table(json!({ "all": [{ "any": [{ "op": "eq" }] }] })), "`rules[0].when.all[0].any[0].field`"),
    ];
    for (config, place) in cases {
        let failure = call(config.clone(), payment(), &mut TestLedger::default()).expect_err("is refused");
        assert_eq!(failure.code, "invalid_config", "{config}");
        assert!(failure.message.starts_with(&format!("{place}:")), "{place}: {}", failure.message);
    }
    let mut twice = table(json!({ "field": "id", "op": "exists" }));
    let again = twice["rules"][0].clone();
    twice["rules"].as_array_mut().expect("rules").push(again);
    let failure = call(twice, payment(), &mut TestLedger::default()).expect_err("is refused");
    assert!(failure.message.starts_with("`rules[1].id`"), "{}", failure.message);
}

#[test]
fn bytes_that_are_no_call_are_an_error() {
    let deep = "[".repeat(100_000);
    for bytes in [&b""[..], b"\xff", b"{", deep.as_bytes()] {
        let failure = answer(bytes, &mut TestLedger::default(), score_payment).expect_err("is refused");
        assert_eq!(failure.code, "invalid_call");
    }
    for bytes in [&b"null"[..], b"[]", b"{}", b"1e999"] {
        assert!(answer(bytes, &mut TestLedger::default(), score_payment).is_err());
    }
}

#[test]
fn the_shipped_rule_table_is_valid() {
    let config = serde_json::from_str(include_str!("../rules.json")).expect("is JSON");
    let output = call(config, payment(), &mut TestLedger::default()).expect("scores");
    assert_eq!((&output["decision"], &output["rules_version"]), (&json!("allow"), &json!("2026-03")));
}
