//! ABI v1, the only module with `unsafe`.
//!
//! Buffers that the host fills stay owned by this module from `alloc` until they are read, and are found again by
//! address. No pointer that comes from the host is ever dereferenced, so a wrong one gives an error and not
//! undefined behaviour.

use crate::{Failure, Host, Op};
use core::cell::RefCell;
use serde_json::Value;

/// Set in a packed result that is an error object.
const ERROR: u64 = 1 << 31;
const LENGTH: u64 = ERROR - 1;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

#[link(wasm_import_module = "logline")]
// SAFETY: the name and the signature are those of ABI v1; the sandbox refuses to link anything else.
unsafe extern "C" {
    fn host_call(op: i32, ptr: i32, len: i32) -> i64;
}

/// Memory for the host to write `len` bytes to; 0 when there is none.
// SAFETY: ABI v1 gives the symbol its name, and nothing else in this module defines it.
#[unsafe(no_mangle)]
pub extern "C" fn alloc(len: i32) -> i32 {
    let Ok(len) = usize::try_from(len) else {
        return 0;
    };
    let mut buffer = Vec::new();
    if buffer.try_reserve_exact(len).is_err() {
        return 0;
    }
    buffer.resize(len, 0);
    let address = buffer.as_mut_ptr() as i32;
    BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
    address
}

/// Answers the call in the `len` bytes at `ptr`, which came from `alloc`.
// SAFETY: ABI v1 gives the symbol its name, and nothing else in this module defines it.
#[unsafe(no_mangle)]
pub extern "C" fn run(ptr: i32, len: i32) -> i64 {
    let result = match take(ptr as u32, len as u32) {
        Some(call) => crate::handle(&call, &mut Sandbox),
        None => Err(Failure::new(
            "invalid_input",
            "the call is not in memory from `alloc`",
        )),
    };
    let (bytes, error) = match result {
        Ok(output) => (output.to_string(), 0),
        Err(failure) => (failure.to_json().to_string(), ERROR),
    };
    // Leaked on purpose: the host reads it after this returns, and the instance serves one call only.
    let bytes: &'static str = bytes.leak();
    ((address(bytes.as_bytes()) << 32) | error | (bytes.len() as u64 & LENGTH)) as i64
}

struct Sandbox;

impl Host for Sandbox {
    fn call(&mut self, op: Op, input: &Value) -> Result<Value, Failure> {
        let input = input.to_string();
        // SAFETY: `input` outlives the call, in which the host only reads these bytes. The host may call `alloc`
        // meanwhile; no borrow of `BUFFERS` is held here.
        let packed = unsafe {
            host_call(
                op as i32,
                address(input.as_bytes()) as i32,
                input.len() as i32,
            )
        } as u64;
        let bytes = take((packed >> 32) as u32, (packed & LENGTH) as u32)
            .ok_or_else(|| Failure::new("host_reply", "the reply is not in memory from `alloc`"))?;
        let reply: Value = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::new("host_reply", format!("the reply is not JSON: {error}"))
        })?;
        if packed & ERROR == 0 {
            return Ok(reply);
        }
        let text = |key: &str| reply.get(key).and_then(Value::as_str);
        Err(Failure::new(
            text("code").unwrap_or("host_error"),
            text("message").unwrap_or("the host refused without a message"),
        ))
    }
}

/// Takes back the buffer at `ptr`, cut to the `len` bytes the host wrote.
fn take(ptr: u32, len: u32) -> Option<Vec<u8>> {
    BUFFERS.with_borrow_mut(|buffers| {
        let fits =
            |buffer: &Vec<u8>| address(buffer) == u64::from(ptr) && buffer.len() >= len as usize;
        let index = buffers.iter().position(fits)?;
        let mut buffer = buffers.swap_remove(index);
        buffer.truncate(len as usize);
        Some(buffer)
    })
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr() as usize as u64
}
