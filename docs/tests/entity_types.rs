//! The pages' lists of entity types are the table's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::collections::BTreeSet;

use logline_core::roles::{ENTITY_TYPES, Signed};

const TRUST: &str = include_str!("../trust.md");
const POLICIES: &str = include_str!("../policies.md");

/// The names in backticks between two texts of a page.
fn named<'p>(page: &'p str, from: &str, to: &str) -> BTreeSet<&'p str> {
    let start = page.find(from).unwrap_or_else(|| panic!("the page has no `{from}`")) + from.len();
    let rest = &page[start..];
    let part = &rest[..rest.find(to).unwrap_or_else(|| panic!("the page has no `{to}`"))];
    part.split('`').skip(1).step_by(2).collect()
}

fn signed(by: Signed) -> BTreeSet<&'static str> {
    ENTITY_TYPES.iter().filter(|row| row.signed == by).map(|row| row.name).collect()
}

#[test]
fn the_page_on_trust_lists_every_type_under_the_role_that_signs_it() {
    assert_eq!(named(TRUST, "root, in `system` only |\n|", "| publisher |"), signed(Signed::Publisher));
    assert_eq!(named(TRUST, "| approver |\n|", "| runtime |"), signed(Signed::Runtime));
}

#[test]
fn the_page_on_policies_lists_every_type_of_the_runtime_that_a_policy_may_emit() {
    let emitted = ENTITY_TYPES.iter().filter(|row| row.signed == Signed::Runtime && row.is_emitted_by_policies);
    let page = named(POLICIES, "and of the types that hosts sign: ", ". Owner:");
    assert_eq!(page, emitted.map(|row| row.name).collect());
}
