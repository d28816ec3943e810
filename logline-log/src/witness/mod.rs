//! Witnesses, after C2SP `tlog-witness` v1.0.0: a witness cosigns a checkpoint if it continues the last one that it has cosigned. So a log
//! that shows two histories gets cosignatures for one of them only.
//!
//! Here are both sides without a transport: the bytes of the call and of its answer, the rules of a witness with its state, and what a
//! log makes of an answer. Whoever has a socket implements [`WitnessClient`], or feeds [`Witness::add_checkpoint`].

mod client;
mod message;
mod rules;
mod stored;

pub use client::{ConsistencyProver, CosignError, WitnessCallError, WitnessClient, cosign};
pub use message::{AddCheckpoint, Answer, MAX_PROOF_LINES, RequestError, SIZE_CONTENT_TYPE};
pub use rules::{MemoryWitness, Seen, Witness, WitnessError, WitnessState};
pub use stored::StoredWitness;
