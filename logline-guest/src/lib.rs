//! For authors of LogLine functions in Rust: a typed call in, a result out, and what the host can be asked.
//!
//! ```
//! use logline_guest::{Call, Failure, Host, HostExt as _, json};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Config {
//!     rate: f64,
//! }
//!
//! #[derive(Deserialize)]
//! struct Input {
//!     amount: f64,
//! }
//!
//! #[derive(Serialize)]
//! struct Output {
//!     fee: f64,
//! }
//!
//! fn fee(call: Call<Config, Input>, host: &mut dyn Host) -> Result<Output, Failure> {
//!     if call.input.amount < 0.0 {
//!         return Err(Failure::new("negative_amount", "amount is below zero: send what is to be paid"));
//!     }
//!     let fee = call.input.amount * call.config.rate;
//!     host.emit(&json!({"entity_type": "fee", "content": {"fee": fee}}))?;
//!     Ok(Output { fee })
//! }
//!
//! logline_guest::export!(fee);
//! # fn main() {}
//! ```
//!
//! The crate is a `cdylib`, built for `wasm32-unknown-unknown`. Natively the same function is called by tests, with any closure as its
//! host ([`answer`]). `docs/writing-functions.md` goes through it from the first line to the signed execution.

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod abi;
mod host;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
pub use serde_json::{Value, json};

pub use host::{Host, HostExt, Op, Page};

/// What a function is called with. `config` is the function span's `input` column, `input` the request's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Call<C = Value, I = Value> {
    /// What the function's publisher has set; null where nothing.
    pub config: C,
    /// What the request asks about; null where nothing.
    pub input: I,
    /// The function's own span: tenant, id, seq and `curr_hash`.
    #[serde(default)]
    pub function: Value,
    /// The request's id and the number of the attempt.
    #[serde(default)]
    pub request: Value,
}

/// Why a call has no result: the execution's `error`, its code behind `guest:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable, for programs.
    pub code: String,
    /// What was wrong and what to do, for people.
    pub message: String,
}

impl Failure {
    /// A failure with this code and message.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}

/// Answers one call, given as JSON, with `function`: what the sandbox does, for tests.
///
/// # Errors
/// `invalid_call` where `config` or `input` is not what the function takes, with the path to it; what the function answers.
pub fn answer<C: DeserializeOwned, I: DeserializeOwned, O: Serialize>(
    call: &[u8],
    host: &mut dyn Host,
    function: impl FnOnce(Call<C, I>, &mut dyn Host) -> Result<O, Failure>,
) -> Result<Value, Failure> {
    let call = serde_json::from_slice(call).or_else(|_| told(call))?;
    let output = function(call, host)?;
    serde_json::to_value(output).map_err(|e| Failure::new("invalid_output", e.to_string()))
}

/// Reads what could not be read once more, for the path of the error: `input.amount: missing field …`. Keeping it costs each call.
fn told<T: DeserializeOwned>(call: &[u8]) -> Result<T, Failure> {
    let mut call = serde_json::Deserializer::from_slice(call);
    serde_path_to_error::deserialize(&mut call).map_err(|e| Failure::new("invalid_call", e.to_string()))
}

/// Makes a function of this crate the one that the sandbox runs: the exports `alloc` and `run` of ABI v1. Natively it does nothing.
#[macro_export]
macro_rules! export {
    ($function:path) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the interface gives these symbols their names, and nothing else defines them")]
        const _: () = {
            #[unsafe(no_mangle)]
            extern "C" fn alloc(len: i32) -> i32 {
                $crate::abi::alloc(len)
            }

            #[unsafe(no_mangle)]
            extern "C" fn run(pointer: i32, len: i32) -> i64 {
                $crate::abi::run(pointer, len, |call, host| $crate::answer(call, host, $function))
            }
        };
    };
}
