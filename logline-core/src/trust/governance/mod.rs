//! Governance: what a quorum must approve before it is in force, and how its approvals are counted.
//!
//! What depends on no ledger is pure: [`Rules`] say what the manifest demands, [`decide`] counts the votes on a proposal,
//! [`Pointer`] says what is in force. [`Trusted`](crate::trust::Trusted) reads what these need, and its `in_force` is the one place
//! that says which version of a span a host uses.
//!
//! `docs/governance.md` describes the rules.

mod ballot;
mod class;
mod decide;
mod in_force;
mod pointer;
mod proposal;
mod read;
mod rules;
mod statement;

pub use ballot::Wish;
pub use class::{Class, Environment};
pub use decide::{Case, Counted, Refusal, Tally, Void, VoidReason, Vote, decide};
pub(crate) use in_force::Pointers;
pub use in_force::{InForce, InForceError, check_running};
pub(crate) use pointer::Promoted;
pub use pointer::{
    Carried, Held, PROMOTIONS, Pointer, pointer_id, promotion_of, promotion_reference, promotion_references, promotions_of,
};
pub use proposal::{Act, MAX_REASON_BYTES, Proposal, Proposed, Version};
pub use read::{Docket, MAX_READ, ReadError};
pub(crate) use rules::Past;
pub use rules::{ClassRule, Emergency, Gate, Governance, Promotion, Rules};
pub use statement::{Decision, MEMBER as STATEMENT, SignedStatement, Statement, StatementError};
