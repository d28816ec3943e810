//! Functions as components of the world `logline:kernel/kernel@1.0.0` (`wit/kernel.wit`). The host, the limits and the JSON
//! documents are those of ABI v1, but the functions of the interface are typed.

use logline_core::Failure;
use logline_core::canonical;
use logline_core::json;
use serde_json::{Value, json};
use wasmtime::component::{Component, ComponentExportIndex, ComponentType, InstancePre, Lift, Linker, Lower, WasmStr};
use wasmtime::{Engine, Store, StoreContextMut};

use crate::abi::{self, Ended};
use crate::scan::invalid;
use crate::state::CallState;

const HOST: &str = "logline:kernel/host@1.0.0";
const RUN: &str = "run";

/// Bytes that a call may move beyond its limits: for lengths, and for texts that are a little too long and are then refused.
const SLACK: usize = 64 << 10;

/// The record `failure` of the interface, as the host sends it.
#[derive(Debug, Clone, ComponentType, Lift, Lower)]
#[component(record)]
struct Refusal {
    code: String,
    message: String,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { code: failure.code, message: failure.message }
    }
}

/// The record `failure` as a guest returns it. Its texts are not copied yet.
#[derive(ComponentType, Lift)]
#[component(record)]
struct Returned {
    code: WasmStr,
    message: WasmStr,
}

type Run = (Result<WasmStr, Returned>,);

/// A component that is ready to be called.
pub(crate) struct Kernel {
    pre: InstancePre<CallState>,
    run: ComponentExportIndex,
}

impl Kernel {
    /// Links the component and finds its export `run`.
    ///
    /// # Errors
    /// `invalid_module` if the component imports anything besides the world's imports, or does not export `run`.
    pub(crate) fn new(linker: &Linker<CallState>, component: &Component) -> Result<Self, Failure> {
        let pre = linker.instantiate_pre(component).map_err(|e| invalid(format!("{e:#}")))?;
        let run =
            component.get_export_index(None, RUN).ok_or_else(|| invalid(format!("the component does not export `{RUN}`")))?;
        Ok(Self { pre, run })
    }

    /// Runs the guest. Returns its text, and whether the text is an error object.
    ///
    /// # Errors
    /// Among others `invalid_module` if the export `run` has another type than the world declares.
    pub(crate) async fn run(&self, store: &mut Store<CallState>, argument: &[u8]) -> wasmtime::Result<(Vec<u8>, bool)> {
        let limits = &store.data().limits;
        // The most bytes that one call may move out of the guest, to the host or as its result. A longer text traps. A text
        // that is above its limit but within this bound gets the error of that limit.
        let most = limits.host_call_bytes.max(limits.output_bytes).saturating_add(SLACK);
        store.set_hostcall_fuel(most);
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let run = instance.get_typed_func::<(&str,), Run>(&mut *store, self.run).map_err(|e| {
            wasmtime::Error::new(Ended(invalid(format!("the export `{RUN}` does not have the type of the world: {e:#}"))))
        })?;
        let (returned,) = run.call_async(&mut *store, (std::str::from_utf8(argument)?,)).await?;
        match returned {
            Ok(text) => Ok((output(store, &text)?, false)),
            Err(Returned { code, message }) => {
                let (code, message) = (code.to_str(&*store)?, message.to_str(&*store)?);
                abi::check_output(store.data(), code.len() + message.len())?;
                Ok((canonical::to_vec(&json!({"code": code, "message": message})), true))
            }
        }
    }
}

/// Copies the text of a result, if it is not too long.
fn output(store: &Store<CallState>, text: &WasmStr) -> wasmtime::Result<Vec<u8>> {
    let text = text.to_str(store).map_err(|e| {
        wasmtime::Error::new(Ended(Failure::new("invalid_output", format!("the function's output is not UTF-8: {e}"))))
    })?;
    abi::check_output(store.data(), text.len())?;
    Ok(text.as_bytes().to_vec())
}

/// Defines the functions that the world imports.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<CallState>> {
    let mut linker = Linker::new(engine);
    let mut host = linker.instance(HOST)?;
    host.func_wrap_async("log", |store, (level, message, fields): (String, String, Option<String>)| {
        Box::new(async move {
            let bytes = level.len() + message.len() + fields.as_ref().map_or(0, String::len);
            let entry = || {
                let fields = fields.map_or(Ok(Value::Null), |fields| parse(&fields))?;
                Ok(json!({"level": level, "message": message, "fields": fields}))
            };
            let answer = asked(store, 1, bytes, entry).await?;
            Ok((answer.map(drop),))
        })
    })?;
    host.func_wrap_async("now", |store, (): ()| {
        Box::new(async move {
            let answer = asked(store, 2, 0, || Ok(Value::Null)).await?;
            Ok((text(&answer.unwrap_or_default(), "now"),))
        })
    })?;
    host.func_wrap_async("random", |store, (bytes,): (u32,)| {
        Box::new(async move {
            let answer = asked(store, 3, 0, || Ok(json!({"bytes": bytes}))).await?;
            Ok((answer.map(|answer| unhex(&text(&answer, "hex"))),))
        })
    })?;
    host.func_wrap_async("query", |store, (query,): (String,)| {
        Box::new(async move {
            let answer = asked(store, 4, query.len(), || parse(&query)).await?;
            Ok((answer.map(|page| canonical::to_string(&page)),))
        })
    })?;
    host.func_wrap_async("emit", |store, (draft,): (String,)| {
        Box::new(async move {
            let answer = asked(store, 5, draft.len(), || parse(&draft)).await?;
            Ok((answer.map(|emitted| text(&emitted, "id")),))
        })
    })?;
    Ok(linker)
}

/// Asks the host for one operation, and charges fuel for it as ABI v1 does. `bytes` is the length of all its texts.
async fn asked(
    mut store: StoreContextMut<'_, CallState>,
    op: i32,
    bytes: usize,
    argument: impl FnOnce() -> Result<Value, Failure>,
) -> wasmtime::Result<Result<Value, Refusal>> {
    let most = abi::count_call(&mut store)?;
    abi::charge(&mut store, bytes, 0)?;
    let argument = if bytes > most { Err(abi::call_too_large(bytes, most)) } else { argument() };
    let argument = match argument {
        Ok(argument) => argument,
        Err(failure) => return Ok(abi::refused(failure).await),
    };
    let answer = abi::ask(store.data(), op, argument).await?;
    let reading = abi::reading(&answer);
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => return Ok(Err(failure.into())),
    };
    let bytes = canonical::to_vec(&answer).len();
    abi::charge(&mut store, bytes, reading)?;
    Ok(if bytes > most { Err(abi::answer_too_large(bytes, most).into()) } else { Ok(answer) })
}

fn parse(text: &str) -> Result<Value, Failure> {
    json::parse(text.as_bytes()).map_err(|e| Failure::new("invalid_json", e.to_string()))
}

fn text(answer: &Value, name: &str) -> String {
    answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Decodes hexadecimal that this host has written itself, so it is valid.
fn unhex(hex: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map_or(0, |digit| digit as u8);
    hex.as_bytes().chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, half| byte << 4 | digit(half))).collect()
}
