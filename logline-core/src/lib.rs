//! Signed spans, the ledger contract, trust, Stage-0 and the driver of LogLine.
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
pub use host::{Execution, Host, HostBuilder, HostError};
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
