//! Signed spans, the ledger contract, trust, Stage-0 and the driver of LogLine.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! use logline_core::ledger::{Ledger as _, LedgerExt as _};
//! use logline_core::{Draft, KeyPair, MemoryLedger, Scope, SystemClock, SystemIds, Verifier};
//!
//! let (ledger, key) = (MemoryLedger::new(), KeyPair::generate()?);
//! let alice = Scope::user("acme", "alice");
//! let note = Draft::new("note").tenant("acme").owner("alice").who("user:alice").this("note.meeting");
//! let note = note.content(serde_json::json!({"text": "budget approved"}));
//! let first = note.stamp(&SystemClock, &SystemIds).seal_local(&key)?;
//! ledger.append_one(&alice, first.clone()).await?;
//!
//! // A change is the next version, linked to the one before.
//! let second = Draft::next_version(&first).status("final").stamp(&SystemClock, &SystemIds).seal_local(&key)?;
//! ledger.append_one(&alice, second).await?;
//!
//! // What is read claims what it likes until it is verified; others do not see it at all.
//! let read = ledger.get(&alice, "acme", first.id).await?;
//! assert_eq!(read.verify(&mut Verifier::new())?.status.as_deref(), Some("final"));
//! assert!(ledger.find(&Scope::user("globex", "alice"), "acme", first.id).await?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Overview
//!
//! | subject | start at |
//! |---|---|
//! | what a row is | [`Span`], [`Draft`], [`SignedSpan`], [`VerifiedSpan`] |
//! | what is hashed and signed | [`canonical`], [`dsse`], [`KeyPair`], [`Signer`] |
//! | where rows go | [`ledger::Ledger`], [`Scope`], [`MemoryLedger`] |
//! | who may sign what | [`trust::TrustRoot`], [`trust::Manifest`], [`roles`] |
//! | what runs | [`Host`], [`kernel::Kernel`], [`sandbox::Sandbox`], [`request`] |
//! | checking and moving ledgers | [`fsck`], [`ndjson`] |
//!
//! # Features
//!
//! - `conformance`: the trials that every ledger must pass, for whoever writes one.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may"))]

pub mod canonical;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod draft;
mod driver;
pub mod dsse;
pub mod fsck;
mod hex;
mod host;
pub mod ids;
pub mod json;
pub mod kernel;
mod keyfile;
mod keys;
pub mod ledger;
mod memory;
pub mod ndjson;
mod parse;
mod recent;
pub mod request;
pub mod roles;
mod rules;
pub mod sandbox;
mod scope;
mod seal;
mod span;
mod stage0;
mod timestamp;
pub mod trust;

pub use clock::{Clock, IdSource, ManualClock, SeededIds, SystemClock, SystemIds};
pub use draft::Draft;
pub use driver::AdmitError;
pub use hex::{Hash, HexError, PublicKey, Signature};
pub use host::{Claim, EXECUTIONS_QUOTA, Execution, FUEL_QUOTA, Host, HostBuilder, HostError};
pub use keyfile::{HexErrorKind, KeyFileError, KeyTextError};
pub use keys::{KeyPair, SignError, SignatureError, Signer, Verifier, check_key};
pub use memory::MemoryLedger;
pub use parse::{ParsedSpan, parse_draft, parse_line, parse_unsealed};
pub use rules::{InvalidSpan, MAX_INTEGER, MAX_NAME_BYTES, Rules};
pub use scope::{Denied, Scope};
pub use seal::{Rejected, SealError, VerifiedSpan, VerifyError};
pub use span::{CANONICAL_VERSION, DIGEST_KEY, SYSTEM_TENANT, Seal, SignedSpan, Span, SpanKey, Visibility};
pub use stage0::{BootError, Booted};
pub use timestamp::{Timestamp, TimestampError};
