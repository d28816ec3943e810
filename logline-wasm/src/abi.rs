//! ABI v1 (`docs/wasm-abi.md`): three exports, one import, and JSON in both directions.

use std::sync::atomic::Ordering;

use logline_core::Failure;
use logline_core::contract::HostCalls;
use logline_core::{canonical, json};
use serde_json::{Value, json};
use wasmtime::{AsContextMut as _, Caller, Extern, ExternType, Linker, Memory, Module, StoreContextMut, TypedFunc, ValType};

use crate::bounds::{HOST_CALL, HOST_MESSAGE_FUEL, MODULE, QUERY_FUEL, VISIT_FUEL};
use crate::channel::Answer;
use crate::scan::invalid;
use crate::state::{CallState, Exports};

/// The most random bytes in one answer.
const MAX_RANDOM: usize = 1024;

/// A result as the ABI packs it: the pointer in the high 32 bits, the length in the low 31 bits. Bit 31 marks an error object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) pointer: u32,
    pub(crate) len: u32,
    pub(crate) is_error: bool,
}

impl Packed {
    pub(crate) fn unpack(packed: i64) -> Self {
        let bits = packed.cast_unsigned();
        let low = bits as u32;
        Self { pointer: (bits >> 32) as u32, len: low & 0x7fff_ffff, is_error: low & 0x8000_0000 != 0 }
    }

    fn pack(self) -> i64 {
        let low = self.len | if self.is_error { 0x8000_0000 } else { 0 };
        (u64::from(self.pointer) << 32 | u64::from(low)).cast_signed()
    }
}

/// Why the host ended a call. wasmtime passes it up through the guest's frames.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) Failure);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Ended {}

fn end(code: &str, message: impl Into<String>) -> wasmtime::Error {
    wasmtime::Error::new(Ended(Failure::new(code, message)))
}

/// Finds the exports that a module must have, before it runs for the first time.
pub(crate) fn exports(module: &Module) -> Result<Exports, Failure> {
    let is = |types: &mut dyn Iterator<Item = ValType>, wanted: &[ValType]| {
        let found: Vec<_> = types.collect();
        found.len() == wanted.len() && found.iter().zip(wanted).all(|(a, b)| ValType::eq(a, b))
    };
    let function = |name: &str, params: &[ValType], results: &[ValType]| match module.get_export(name) {
        Some(ExternType::Func(f)) => is(&mut f.params(), params) && is(&mut f.results(), results),
        _ => false,
    };
    let missing = if !matches!(module.get_export("memory"), Some(ExternType::Memory(_))) {
        "`memory`"
    } else if !function("alloc", &[ValType::I32], &[ValType::I32]) {
        "`alloc(len: i32) -> i32`"
    } else if !function("run", &[ValType::I32, ValType::I32], &[ValType::I64]) {
        "`run(ptr: i32, len: i32) -> i64`"
    } else {
        let place = |name| module.get_export_index(name).ok_or_else(|| invalid(format!("the module does not export `{name}`")));
        return Ok(Exports { memory: place("memory")?, alloc: place("alloc")?, run: place("run")? });
    };
    Err(invalid(format!("the module does not export {missing}")))
}

/// Defines the only import, `logline.host_call`.
pub(crate) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    linker.func_wrap_async(MODULE, HOST_CALL, |caller, (op, pointer, len): (i32, i32, i32)| {
        Box::new(host_call(caller, op, pointer, len))
    })?;
    Ok(())
}

/// Counts a call to the host. Returns how many bytes the call may have in each direction.
pub(crate) fn count_call(store: &mut StoreContextMut<'_, CallState>) -> wasmtime::Result<usize> {
    let fuel = store.get_fuel()?;
    let state = store.data_mut();
    state.channel.fuel.store(state.limits.fuel.saturating_sub(fuel), Ordering::Relaxed);
    if state.in_alloc {
        return Err(end("re_entrant", "`alloc` called the host while the host was waiting for it"));
    }
    state.host_calls += 1;
    state.channel.host_calls.store(state.host_calls, Ordering::Relaxed);
    let most = state.limits.host_calls;
    if state.host_calls > most {
        return Err(end("host_call_limit", format!("more than {most} calls to the host: ask for more in each call")));
    }
    Ok(state.limits.host_call_bytes)
}

pub(crate) fn call_too_large(bytes: usize, most: usize) -> Failure {
    Failure::new("too_large", format!("{bytes} bytes in one call, the limit is {most}"))
}

pub(crate) fn answer_too_large(bytes: usize, most: usize) -> Failure {
    Failure::new("too_large", format!("the answer has {bytes} bytes, the limit is {most}"))
}

async fn host_call(mut caller: Caller<'_, CallState>, op: i32, pointer: i32, len: i32) -> wasmtime::Result<i64> {
    let max_bytes = count_call(&mut caller.as_context_mut())?;
    let exports = caller.data().exports.ok_or_else(|| missing("memory"))?;
    let Some(Extern::Memory(memory)) = caller.get_module_export(&exports.memory) else { return Err(missing("memory")) };
    let (start, len) = (pointer.cast_unsigned() as usize, len.cast_unsigned() as usize);
    // Before anything is charged: a length that no memory has, such as a negative one, is a mistake and no work.
    if start.checked_add(len).is_none_or(|stop| stop > memory.data_size(&caller)) {
        return Err(out_of_range("the call's argument"));
    }
    charge(&mut caller.as_context_mut(), len, 0)?;
    let answer = if len > max_bytes {
        refused(call_too_large(len, max_bytes)).await
    } else {
        let bytes = start.checked_add(len).and_then(|stop| memory.data(&caller).get(start..stop));
        match json::parse(bytes.ok_or_else(|| out_of_range("the call's argument"))?) {
            Ok(argument) => ask(caller.data(), op, argument).await?,
            Err(e) => refused(Failure::new("invalid_json", e.to_string())).await,
        }
    };
    let reading = reading(&answer);
    let (mut reply, mut is_error) = match answer {
        Ok(value) => (canonical::to_vec(&value), false),
        Err(failure) => (canonical::to_vec(&failure.to_value()), true),
    };
    // An answer that is too long costs fuel as well, because the host has made it.
    charge(&mut caller.as_context_mut(), reply.len(), reading)?;
    if reply.len() > max_bytes {
        (reply, is_error) = (canonical::to_vec(&answer_too_large(reply.len(), max_bytes).to_value()), true);
    }
    let Some(Extern::Func(alloc)) = caller.get_module_export(&exports.alloc) else { return Err(missing("alloc")) };
    let alloc = alloc.typed::<i32, i32>(&caller)?;
    caller.data_mut().in_alloc = true;
    let pointer = place(&mut caller, &memory, &alloc, &reply).await?;
    caller.data_mut().in_alloc = false;
    // At most host_call_bytes, which is far below 2^31.
    Ok(Packed { pointer, len: reply.len() as u32, is_error }.pack())
}

/// Passes the question to the caller of the run, which answers for the host.
pub(crate) async fn ask(state: &CallState, op: i32, argument: Value) -> wasmtime::Result<Answer> {
    let answer = state.channel.ask(op, argument).await;
    answer.map(Ok).unwrap_or_else(|| Err(end("closed", "the host no longer answers")))
}

/// Refuses a call without asking the host. Charging fuel starts a new slice for the guest, so the guest lets others run first,
/// as it does when the host is asked.
pub(crate) async fn refused<T, E: From<Failure>>(failure: Failure) -> Result<T, E> {
    tokio::task::yield_now().await;
    Err(failure.into())
}

/// The fuel for what the host has read for an answer. Only the answer to a query says how many rows it looked at.
pub(crate) fn reading(answer: &Answer) -> u64 {
    let visited = answer.as_ref().ok().and_then(|answer| answer.get("visited")).and_then(Value::as_u64);
    visited.map_or(0, |rows| QUERY_FUEL.saturating_add(rows.saturating_mul(VISIT_FUEL)))
}

/// Charges fuel for a call to the host, or for its answer: for its bytes, and what the host has read for it.
pub(crate) fn charge(store: &mut StoreContextMut<'_, CallState>, bytes: usize, reading: u64) -> wasmtime::Result<()> {
    let fuel = store.get_fuel()?;
    let cost = HOST_MESSAGE_FUEL.saturating_add(bytes as u64).saturating_add(reading);
    match fuel.checked_sub(cost) {
        Some(rest) => store.set_fuel(rest),
        None => {
            store.set_fuel(0)?;
            Err(wasmtime::Trap::OutOfFuel.into())
        }
    }
}

/// The error for a missing export. It should not occur, because the exports are checked when the module is compiled.
pub(crate) fn missing(export: &str) -> wasmtime::Error {
    end("invalid_module", format!("the module does not export `{export}`"))
}

/// Refuses an output that is too long. It is called before the output is copied.
pub(crate) fn check_output(state: &CallState, bytes: usize) -> wasmtime::Result<()> {
    let most = state.limits.output_bytes;
    if bytes <= most {
        return Ok(());
    }
    Err(end("output_limit", format!("the function returned {bytes} bytes, the limit is {most}: return less, or emit spans")))
}

pub(crate) fn out_of_range(what: &str) -> wasmtime::Error {
    end("out_of_range", format!("{what} is not within the guest's memory"))
}

/// Writes `bytes` into memory that the guest allocates, and returns their address.
pub(crate) async fn place(
    mut store: impl wasmtime::AsContextMut<Data = CallState>,
    memory: &Memory,
    alloc: &TypedFunc<i32, i32>,
    bytes: &[u8],
) -> wasmtime::Result<u32> {
    let len = i32::try_from(bytes.len()).map_err(|_| out_of_range("the argument"))?;
    let pointer = alloc.call_async(&mut store, len).await?.cast_unsigned();
    memory.write(&mut store, pointer as usize, bytes).map_err(|_| out_of_range("the buffer that `alloc` returned"))?;
    Ok(pointer)
}

/// The operation that waits for somebody outside.
pub(crate) const CALL: i32 = 6;

/// Answers one operation. If the operation is unknown, the guest gets an error and continues.
pub(crate) async fn answer(host: &mut dyn HostCalls, op: i32, argument: Value) -> Result<Value, Failure> {
    match op {
        1 => host.log(argument).map(|()| Value::Null),
        2 => Ok(json!({"now": host.now().to_string()})),
        3 => {
            let bytes = argument.get("bytes").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
            let bytes = bytes.filter(|n| (1..=MAX_RANDOM).contains(n)).ok_or_else(|| {
                Failure::new("invalid_random", format!("random takes `{{\"bytes\"}}`, a number from 1 to {MAX_RANDOM}"))
            })?;
            let hex: String = host.random(bytes)?.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(json!({"hex": hex}))
        }
        4 => host.query(argument).await,
        5 => host.emit(argument),
        CALL => host.call(argument).await,
        _ => Err(Failure::new("unknown_operation", format!("operation {op} is unknown: ABI v1 has 1 to 6"))),
    }
}
