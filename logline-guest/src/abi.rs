//! ABI v1 (`docs/wasm-abi.md`): how the guest and its host exchange data in the guest's memory.
//!
//! INVARIANT: a buffer that the host fills is owned here from `alloc` until it is read, and is found by its address. No pointer
//! from the host is dereferenced, so a wrong pointer is an error and not undefined behaviour.
#![allow(unsafe_code, reason = "the host is called through raw numbers")]

use std::cell::RefCell;

use serde_json::Value;

use crate::{Failure, Host, Op};

/// The bit that marks a packed result as an error object.
const ERROR: u64 = 1 << 31;

/// The bits of a packed result that hold its length.
const LENGTH: u64 = ERROR - 1;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

#[link(wasm_import_module = "logline")]
// SAFETY: the name and the signature are those of the interface. The sandbox links nothing else.
unsafe extern "C" {
    fn host_call(op: i32, pointer: i32, len: i32) -> i64;
}

/// Allocates memory to which the host writes `len` bytes, and returns its address. 0 if `len` is negative or there is no
/// memory.
#[must_use]
pub fn alloc(len: i32) -> i32 {
    let Ok(len) = usize::try_from(len) else { return 0 };
    let mut buffer = Vec::new();
    if buffer.try_reserve_exact(len).is_err() {
        return 0;
    }
    buffer.resize(len, 0);
    let address = address(&buffer) as i32;
    BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
    address
}

/// Answers the call in the `len` bytes at `pointer`, which came from [`alloc`], and returns the packed result.
pub fn run(pointer: i32, len: i32, answer: impl FnOnce(&[u8], &mut dyn Host) -> Result<Value, Failure>) -> i64 {
    let result = match take(pointer as u32, len as u32) {
        Some(call) => answer(&call, &mut Sandbox),
        None => Err(Failure::new("invalid_call", "the call is not in memory from `alloc`")),
    };
    let (bytes, error) = match result {
        Ok(output) => (output.to_string(), 0),
        Err(failure) => (serde_json::json!(failure).to_string(), ERROR),
    };
    // The result is leaked on purpose: the host reads it after this function returns, and an instance serves only one call.
    let bytes: &'static str = bytes.leak();
    ((address(bytes.as_bytes()) << 32) | error | (bytes.len() as u64 & LENGTH)) as i64
}

struct Sandbox;

impl Host for Sandbox {
    fn call(&mut self, op: Op, argument: &Value) -> Result<Value, Failure> {
        let argument = argument.to_string();
        // SAFETY: `argument` outlives the call, and the host only reads its bytes. During the call the host may call `alloc`,
        // and no borrow of `BUFFERS` is held here.
        let packed = unsafe { host_call(op as i32, address(argument.as_bytes()) as i32, argument.len() as i32) } as u64;
        let malformed = |what: String| Failure::new("host_reply", what);
        let bytes = take((packed >> 32) as u32, (packed & LENGTH) as u32)
            .ok_or_else(|| malformed("the answer is not in memory from `alloc`".to_owned()))?;
        let answer: Value = serde_json::from_slice(&bytes).map_err(|e| malformed(format!("the answer is not JSON: {e}")))?;
        if packed & ERROR == 0 {
            return Ok(answer);
        }
        let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
        Err(Failure::new(text("code"), text("message")))
    }
}

/// Takes the buffer at `pointer`, shortened to the `len` bytes that the host wrote. `None` if `alloc` did not return this
/// address, or the buffer is shorter.
fn take(pointer: u32, len: u32) -> Option<Vec<u8>> {
    BUFFERS.with_borrow_mut(|buffers| {
        let fits = |buffer: &Vec<u8>| address(buffer) == u64::from(pointer) && buffer.len() >= len as usize;
        let index = buffers.iter().position(fits)?;
        let mut buffer = buffers.swap_remove(index);
        buffer.truncate(len as usize);
        Some(buffer)
    })
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr() as usize as u64
}
