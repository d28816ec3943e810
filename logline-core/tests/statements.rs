//! The statement that approvers sign: what it binds, and every way to make one say something else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

use std::time::Duration;

use futures_util::FutureExt as _;
use logline_core::trust::governance::{Class, Decision, Environment, STATEMENT, SignedStatement, Statement, StatementError};
use logline_core::{Draft, Hash, KeyPair, Signer as _, Timestamp, VerifiedSpan, Verifier, dsse, ids};
use serde_json::{Value, json};

fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

fn statement() -> Statement {
    Statement {
        ledger: Hash::of(b"ledger"),
        tenant: "acme".to_owned(),
        environment: Environment::Production,
        class: Class::Function,
        subject: ids::derive("subject", &[]),
        proposal: Some(ids::derive("proposal", &[])),
        replaces: Some(Hash::of(b"old")),
        approves: Hash::of(b"new"),
        decision: Decision::Approve,
        expires: Timestamp::EPOCH.saturating_add(Duration::from_secs(1_000)),
    }
}

fn signed(statement: Statement, by: u8) -> SignedStatement {
    statement.sign(&key(by)).now_or_never().unwrap().unwrap()
}

fn sealed(draft: Draft, by: u8) -> VerifiedSpan {
    draft.id(ids::derive("decision", &[])).at(Timestamp::EPOCH).seal_local(&key(by)).unwrap()
}

fn read(span: &VerifiedSpan) -> Result<SignedStatement, StatementError> {
    SignedStatement::of(span, &mut Verifier::new())
}

#[test]
fn a_statement_is_read_from_its_span_as_it_was_signed() {
    for decision in [Decision::Approve, Decision::Reject] {
        let said = signed(Statement { decision, ..statement() }, 1);
        let span = sealed(said.to_draft("alice"), 1);
        assert_eq!(span.entity_type, decision.entity_type());
        assert_eq!(read(&span).unwrap(), said);
    }
}

#[test]
fn each_member_is_covered_by_the_signature() {
    let said = signed(statement(), 1).to_value();
    let other = Statement {
        ledger: Hash::of(b"x"),
        tenant: "other".to_owned(),
        environment: Environment::Staging,
        class: Class::Policy,
        subject: ids::derive("x", &[]),
        proposal: None,
        replaces: None,
        approves: Hash::of(b"x"),
        decision: Decision::Reject,
        expires: Timestamp::EPOCH,
    };
    let Value::Object(other) = other.to_value() else { panic!("an object") };
    assert_eq!(other.len(), 10);
    for (member, value) in other {
        let mut changed = said.clone();
        *changed.pointer_mut(&format!("/statement/{member}")).unwrap() = value;
        let error = SignedStatement::parse(&changed, &mut Verifier::new()).unwrap_err();
        assert!(matches!(error, StatementError::Signature { .. }), "{member}: {error}");
    }
}

#[test]
fn a_statement_is_accepted_in_one_spelling_only() {
    let value = statement().to_value();
    let with = |member: &str, written: Value| {
        let mut value = value.clone();
        value.as_object_mut().unwrap().insert(member.to_owned(), written);
        value
    };
    let mut without = value.clone();
    without.as_object_mut().unwrap().remove("replaces");
    for wrong in [
        with("expires", json!("1970-01-01T00:16:40Z")),
        with("approves", json!(Hash::of(b"new").to_string().to_uppercase())),
        with("subject", json!(ids::derive("subject", &[]).simple().to_string())),
        with("tenant", json!("")),
        with("tenant", json!("t".repeat(100_000))),
        with("class", json!("everything")),
        with("environment", json!("laptop")),
        with("note", json!("ignored?")),
        without,
        json!([]),
    ] {
        let error = Statement::parse(&wrong).unwrap_err();
        assert!(matches!(error, StatementError::Malformed { .. }), "{wrong}: {error}");
    }
    assert_eq!(Statement::parse(&value).unwrap(), statement());
}

#[test]
fn a_statement_of_another_cannot_be_brought_as_ones_own() {
    let span = sealed(signed(statement(), 1).to_draft("mallory"), 2);
    assert!(matches!(read(&span), Err(StatementError::Key { .. })));
    // Nor can its key be exchanged.
    let mut value = signed(statement(), 1).to_value();
    *value.pointer_mut("/public_key").unwrap() = json!(key(2).public_key().to_string());
    let span = sealed(signed(statement(), 1).to_draft("mallory").meta(STATEMENT, value), 2);
    assert!(matches!(read(&span), Err(StatementError::Signature { .. })));
}

#[test]
fn a_rejection_cannot_be_worn_as_an_approval() {
    let said = signed(Statement { decision: Decision::Reject, ..statement() }, 1);
    let mut draft = said.to_draft("mallory");
    draft.columns_mut().entity_type = "approval".to_owned();
    assert!(matches!(read(&sealed(draft, 1)), Err(StatementError::EntityType { .. })));
}

#[test]
fn a_statement_counts_in_its_own_tenant_only() {
    let span = sealed(signed(statement(), 1).to_draft("mallory").tenant("other"), 1);
    assert!(matches!(read(&span), Err(StatementError::Tenant { .. })));
}

#[test]
fn a_decision_is_not_changed_by_a_later_version() {
    let first = sealed(signed(statement(), 1).to_draft("alice"), 1);
    let next = Draft::next_version(&first)
        .meta(STATEMENT, signed(Statement { approves: Hash::of(b"x"), ..statement() }, 1).to_value());
    assert_eq!(read(&next.at(Timestamp::EPOCH).seal_local(&key(1)).unwrap()), Err(StatementError::NotFirst));
}

#[test]
fn a_signature_of_another_kind_is_not_one_of_a_statement() {
    let mut value = signed(statement(), 1).to_value();
    let other_kind = key(1).sign_now(&dsse::pae(dsse::SPAN, &statement().to_bytes()));
    *value.pointer_mut("/signature").unwrap() = json!(other_kind.to_string());
    assert!(matches!(SignedStatement::parse(&value, &mut Verifier::new()), Err(StatementError::Signature { .. })));
}
