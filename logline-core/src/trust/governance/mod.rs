//! Governance: what a quorum must approve before it is in force, and how its approvals are counted.
//!
//! `docs/governance.md` describes the rules.

mod class;
mod statement;

pub use class::{Class, Environment};
pub use statement::{Decision, MEMBER as STATEMENT, SignedStatement, Statement, StatementError};
