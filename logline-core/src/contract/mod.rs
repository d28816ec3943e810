//! What a behaviour, a sandbox, a validator and a caller of the outside must be: the seams at which other crates plug in.
//!
//! Loops ([`Service`](crate::Service)) and the registration of all of these ([`KernelSet`](crate::KernelSet)) are part of the host,
//! because a loop is given one.

mod kernel;
pub(crate) mod outside;
mod sandbox;
mod validator;

pub use kernel::{AskedBy, Attempt, Context, Effects, Kernel, KernelError, Meters, NATIVE_RUNTIME, Reader, RequestKind, Usage};
pub use outside::{Answer, Call, Outside, OutsideError, Remote, RemoteCall};
pub use sandbox::{HostCalls, Job, RECEIPT_VERSION, Report, RunReceipt, Sandbox};
pub use validator::Validator;
