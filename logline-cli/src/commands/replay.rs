//! `logline replay`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use logline_core::contract::Sandbox;
use logline_core::{Rules, canonical};
use logline_kernels::{Replay, ReplayError, replay};
use logline_wasm::{Compiler, WasmOptions, WasmSandbox};
use serde_json::json;
use uuid::Uuid;

use super::read::tenant_of;
use crate::open::Identity;
use crate::{Error, open, output};

#[derive(Args)]
pub(crate) struct Options {
    /// The ids of the executions to run again.
    #[arg(required = true)]
    executions: Vec<Uuid>,
    #[command(flatten)]
    identity: Identity,
    /// The tenant that the executions are in, if it is not --tenant.
    #[arg(long, value_name = "TENANT")]
    r#in: Option<String>,
    /// The program `logline-wasm-compiler`, for executions of hosts that compile with it.
    #[arg(long, value_name = "PROGRAM")]
    compiler: Option<PathBuf>,
}

impl Options {
    fn sandboxes(&self) -> Result<Vec<Arc<dyn Sandbox>>, Error> {
        let mut options = WasmOptions::new().calls(1);
        if let Some(program) = &self.compiler {
            if !program.is_file() {
                return Err(format!("`{}` is not a program: pass the path of logline-wasm-compiler", program.display()).into());
            }
            options = options.compiler(Compiler::new(program));
        }
        let modules = WasmSandbox::with(options)?;
        Ok(vec![
            #[cfg(feature = "component-model")]
            Arc::new(modules.components()),
            Arc::new(modules),
        ])
    }
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let ledger = open::for_reading(url).await?;
    let sandboxes = options.sandboxes()?;
    let scope = options.identity.scope();
    let mut all_hold = true;
    for id in &options.executions {
        let tenant = tenant_of(ledger.as_ref(), &options.identity, options.r#in.as_deref(), *id).await?;
        match replay(ledger.as_ref(), &scope, (&tenant, *id), &sandboxes, Rules::default()).await {
            Ok(replay) => {
                all_hold &= replay.holds();
                show(&replay, json);
            }
            Err(ReplayError::Ledger(error)) => return Err(error.into()),
            Err(error) => {
                all_hold = false;
                let holds = matches!(error, ReplayError::DoesNotHold { .. }).then_some(false);
                let line = json!({"tenant": tenant, "execution": id.to_string(), "holds": holds, "reason": error.to_string()});
                output::line(&if json {
                    line.to_string()
                } else {
                    let error = output::plain(&error.to_string());
                    if holds.is_some() { error } else { format!("not repeated: {error}") }
                });
            }
        }
    }
    Ok(all_hold)
}

fn show(replay: &Replay, json: bool) {
    let Replay { execution, recorded, repeated, differences, .. } = replay;
    if json {
        let differences: Vec<_> = differences
            .iter()
            .map(|found| json!({"what": found.what, "recorded": found.recorded, "repeated": found.repeated}))
            .collect();
        let line = json!({
            "tenant": execution.tenant_id,
            "execution": execution.id.to_string(),
            "holds": replay.holds(),
            "same_engine": replay.is_same_engine(),
            "code_hash": recorded.code_hash.to_string(),
            "fuel_used": repeated.receipt.fuel_used,
            "differences": differences,
        });
        output::line(&line.to_string());
        return;
    }
    let engine = match replay.is_same_engine() {
        true => format!("{}, the same settings", recorded.engine),
        false => format!("recorded by {}, repeated by {}", recorded.engine, repeated.receipt.engine),
    };
    let verdict = if replay.holds() { "holds" } else { "DOES NOT HOLD" };
    output::line(&format!("{} {verdict}", output::plain(&execution.to_string())));
    output::line(&format!("  engine    {}", output::plain(&engine)));
    output::line(&format!("  code      BLAKE3 {}", recorded.code_hash));
    let fuel = repeated.receipt.fuel_used;
    output::line(&match replay.is_same_engine() {
        true => format!("  fuel      {fuel}"),
        false => format!("  fuel      {fuel} here, not compared: the recorded engine's settings are {}", recorded.engine_hash),
    });
    let (name, value) = match &repeated.result {
        Ok(output) => ("output", canonical::to_string(output)),
        Err(failure) => ("error", failure.to_string()),
    };
    let shown: String = value.chars().take(200).collect();
    let cut = if shown.len() < value.len() { "…" } else { "" };
    output::line(&format!("  {name:<9} {}{cut}", output::plain(&shown)));
    for difference in differences {
        output::line(&format!("  differs   {}", output::plain(&difference.to_string())));
    }
}
