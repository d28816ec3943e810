#![doc = include_str!("../README.md")]

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod abi;
mod host;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
pub use serde_json::{Value, json};

pub use host::{Host, HostExt, Op, Page};

/// The argument of a function.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Call<C = Value, I = Value> {
    /// The function span's `input` column, which the publisher has set. Null if it is absent.
    pub config: C,
    /// The request's `input` column. Null if it is absent.
    pub input: I,
    /// The function's own span: an object with `tenant`, `id`, `seq` and `curr_hash`. Null if the call does not have it.
    #[serde(default)]
    pub function: Value,
    /// The request: an object with its `id` and the number of the `attempt`, from 1. Null if the call does not have it.
    #[serde(default)]
    pub request: Value,
}

/// Why a call has no result. It becomes the execution's `error`, and the code there has the prefix `guest:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A stable code for programs, such as `negative_amount`.
    pub code: String,
    /// A message for people: what is wrong and what to do.
    pub message: String,
}

impl Failure {
    /// Makes a failure with this code and message.
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

/// Calls `function` with one call, given as JSON. Tests use it to do what the sandbox does.
///
/// # Errors
/// `invalid_call` if `call` does not have the types that the function takes; the message has the path to the error.
/// `invalid_output` if the output cannot be written as JSON. Otherwise the error that the function returned.
pub fn answer<C: DeserializeOwned, I: DeserializeOwned, O: Serialize>(
    call: &[u8],
    host: &mut dyn Host,
    function: impl FnOnce(Call<C, I>, &mut dyn Host) -> Result<O, Failure>,
) -> Result<Value, Failure> {
    let call = serde_json::from_slice(call).or_else(|_| told(call))?;
    let output = function(call, host)?;
    serde_json::to_value(output).map_err(|e| Failure::new("invalid_output", e.to_string()))
}

/// Reads a call again that could not be read, to find the path of the error: `input.amount: missing field …`. The first reading
/// does not track the path, because that would make every call slower.
fn told<T: DeserializeOwned>(call: &[u8]) -> Result<T, Failure> {
    let mut call = serde_json::Deserializer::from_slice(call);
    serde_path_to_error::deserialize(&mut call).map_err(|e| Failure::new("invalid_call", e.to_string()))
}

/// Exports a function as the one that the sandbox runs. It defines the exports `alloc` and `run` of ABI v1. In a native build
/// it does nothing.
#[macro_export]
macro_rules! export {
    ($function:path) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the interface requires these symbol names, and nothing else defines them")]
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
