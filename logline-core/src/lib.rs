#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may"))]

mod audit;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod contract;
mod host;
mod keys;
pub mod ledger;
pub mod request;
pub mod roles;
mod span;
pub mod trust;
mod value;

pub use audit::{fsck, ndjson};
pub use host::driver::AdmitError;
pub use host::stage0::{BootError, Booted};
pub use host::{
    Claim, EXECUTIONS_QUOTA, Execution, FUEL_QUOTA, Host, HostBuilder, HostError, KernelSet, OpenCall, OpenCalls, Service,
    ServiceReport, Shutdown,
};
pub use keys::keyfile::{HexErrorKind, KeyFileError, KeyTextError};
pub use keys::{KeyPair, SignError, SignatureError, Signer, Verifier, check_key, dsse};
pub use ledger::in_memory::MemoryLedger;
pub use ledger::scope::{Denied, Scope};
pub use span::draft::Draft;
pub use span::parse::{ParsedSpan, parse_draft, parse_line, parse_unsealed};
pub use span::rules::{InvalidSpan, MAX_INTEGER, MAX_NAME_BYTES, Rules};
pub use span::seal::{Rejected, SealError, VerifiedSpan, VerifyError};
pub use span::{CANONICAL_VERSION, COLUMNS, DIGEST_KEY, SYSTEM_TENANT, Seal, SignedSpan, Span, SpanKey, Visibility, canonical};
pub use value::clock::{Clock, IdSource, ManualClock, SeededIds, SystemClock, SystemIds};
pub use value::failure::Failure;
pub use value::hex::{Hash, HexError, PublicKey, Signature};
pub use value::timestamp::{Timestamp, TimestampError};
pub use value::{ids, json, new_file};
