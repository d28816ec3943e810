//! The traits that other crates implement: kernels, sandboxes, validators, and clients of services outside the ledger.
//!
//! Loops ([`Service`](crate::Service)) and the registration of all of these ([`KernelSet`](crate::KernelSet)) are part of the
//! host, because a loop gets the host as an argument.

mod cipher;
mod functions;
mod kernel;
mod kernel_error;
mod key_provider;
mod key_store;
pub(crate) mod outside;
pub mod provider;
mod sandbox;
mod validator;

pub use cipher::{Cipher, CipherError, Confidential, ERASED, Generation, SEALED, Slot, sealed_text};
pub use functions::{FunctionCall, FunctionEnded, FunctionRun, Functions};
pub use kernel::{
    AskedBy, Attempt, Context, CurrentTrust, Effects, Kernel, Meters, NATIVE_RUNTIME, Publishing, Reader, RequestKind, Usage,
};
pub use kernel_error::KernelError;
pub use key_provider::{DataKey, Destruction, KeyError, KeyProvider};
pub use key_store::{
    Epoch, Forgetting, Kept, KeyStore, MAX_KEY_PAGE, MAX_RECORDS, MAX_WRAPPED_BYTES, MAX_WRAPS, RecordKey, Replacement,
    SubjectKey, check_wrapped,
};
pub use outside::{Answer, Call, Outside, OutsideError, Remote, RemoteCall, Reply, Reservation};
pub use sandbox::{HostCalls, Job, RECEIPT_VERSION, Report, RunReceipt, Sandbox};
pub use validator::Validator;
