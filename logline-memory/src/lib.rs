//! Memories: what an agent may remember of a person, with consent, encrypted, found again in a strict order, and forgotten for good.

pub mod rank;
