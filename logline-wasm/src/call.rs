//! One call of a guest, in a store of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use logline_core::Failure;
use logline_core::json;
use logline_core::trust::Limits;
use serde_json::Value;
use wasmtime::{Engine, Extern, Store, Trap};

use crate::abi::{self, Ended, Packed};
use crate::bounds::MAX_TABLE;
use crate::channel::HostChannel;
use crate::compiled::{Code, Compiled, Core};
use crate::share::Permit;
use crate::state::{CallState, SLICE};

/// A store that records the fuel used when it is dropped, also if the call was stopped.
struct Metered(Store<CallState>);

impl Drop for Metered {
    fn drop(&mut self) {
        let rest = self.0.get_fuel().unwrap_or(0);
        let state = self.0.data();
        state.channel.fuel.store(state.limits.fuel.saturating_sub(rest), Ordering::Relaxed);
    }
}

/// Calls `run` of a new instance with `argument`. The instance is dropped at the end of the call, and only then `permit` is
/// given back.
pub(crate) async fn call(
    engine: Engine,
    module: Arc<Compiled>,
    argument: Vec<u8>,
    limits: Limits,
    channel: Arc<HostChannel>,
    permit: Permit,
) -> Result<Value, Failure> {
    let state = CallState { channel, exports: module.exports(), limits, host_calls: 0, in_alloc: false, denied: None };
    let mut store = Metered(Store::new(&engine, state));
    store.0.limiter(|state| state);
    let result = run(&mut store.0, &module, &argument).await;
    let result = match result {
        Ok((bytes, false)) => json::parse(&bytes)
            .map_err(|e| Failure::new("invalid_output", format!("the function's output is not acceptable JSON: {e}"))),
        Ok((bytes, true)) => Err(guest_error(&bytes)),
        Err(error) => Err(failure(&error, store.0.data())),
    };
    drop(store);
    drop(permit);
    result
}

/// Runs the guest. Returns its bytes, and whether they are an error object.
async fn run(store: &mut Store<CallState>, module: &Compiled, argument: &[u8]) -> wasmtime::Result<(Vec<u8>, bool)> {
    store.set_fuel(store.data().limits.fuel)?;
    store.fuel_async_yield_interval(Some(SLICE))?;
    match &module.code {
        Code::Core(core) => run_core(store, core, argument).await,
        #[cfg(feature = "component-model")]
        Code::Component(kernel) => kernel.run(store, argument).await,
    }
}

async fn run_core(store: &mut Store<CallState>, core: &Core, argument: &[u8]) -> wasmtime::Result<(Vec<u8>, bool)> {
    let Core { pre, exports } = core;
    let instance = pre.instantiate_async(&mut *store).await?;
    let memory = instance.get_module_export(&mut *store, &exports.memory).and_then(Extern::into_memory);
    let memory = memory.ok_or_else(|| abi::missing("memory"))?;
    let alloc = instance.get_module_export(&mut *store, &exports.alloc).and_then(Extern::into_func);
    let alloc = alloc.ok_or_else(|| abi::missing("alloc"))?.typed::<i32, i32>(&*store)?;
    let main = instance.get_module_export(&mut *store, &exports.run).and_then(Extern::into_func);
    let main = main.ok_or_else(|| abi::missing("run"))?.typed::<(i32, i32), i64>(&*store)?;
    let pointer = abi::place(&mut *store, &memory, &alloc, argument).await?;
    // `place` has checked that the length fits an i32.
    let packed = main.call_async(&mut *store, (pointer.cast_signed(), argument.len() as i32)).await?;
    let Packed { pointer, len, is_error } = Packed::unpack(packed);
    let (start, len) = (pointer as usize, len as usize);
    abi::check_output(store.data(), len)?;
    let bytes = start.checked_add(len).and_then(|stop| memory.data(&*store).get(start..stop));
    Ok((bytes.ok_or_else(|| abi::out_of_range("the result"))?.to_vec(), is_error))
}

/// The failure that a guest returned. Its code gets the prefix `guest:`, so that it cannot be taken for an error of the host.
fn guest_error(bytes: &[u8]) -> Failure {
    let object = json::parse(bytes).ok();
    let text = |name: &str| object.as_ref().and_then(|o| o.get(name)).and_then(Value::as_str);
    match (text("code"), text("message")) {
        (Some(code), message) => Failure::new(format!("guest:{code}"), message.unwrap_or_default()),
        _ => Failure::new("invalid_output", "the function returned an error that is not an object with `code` and `message`"),
    }
}

/// The failure of a call that the engine or the host ended, with a stable code.
fn failure(error: &wasmtime::Error, state: &CallState) -> Failure {
    let CallState { limits, denied, .. } = state;
    if let Some(Ended(failure)) = error.downcast_ref::<Ended>() {
        return failure.clone();
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Failure::new(
            "fuel_exhausted",
            format!("the function used up its {} units of fuel: it loops, or needs a higher limits.fuel", limits.fuel),
        ),
        Some(Trap::StackOverflow) => Failure::new("stack_overflow", "the function's calls need more than 512 KiB of stack"),
        Some(trap) => match *denied {
            // A guest that does not get memory usually traps.
            Some("memory") => Failure::new(
                "memory_limit",
                format!("the function asked for more than {} bytes of memory and trapped: {trap}", limits.memory_bytes),
            ),
            Some(what) => Failure::new("memory_limit", format!("the function asked for a larger {what} and trapped: {trap}")),
            None => Failure::new("trap", format!("the function trapped: {trap}")),
        },
        None if denied.is_some() => Failure::new(
            "memory_limit",
            format!(
                "the module needs more than the {} bytes of memory or {MAX_TABLE} table elements it may have",
                limits.memory_bytes
            ),
        ),
        None => Failure::new("trap", format!("{error:#}")),
    }
}
