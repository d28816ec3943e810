//! Runs the same function on a host with a ledger, shows what is recorded, and repeats it.

use std::sync::Arc;

use logline_core::contract::Sandbox;
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{
    Draft, Host, KeyPair, MemoryLedger, Rules, SYSTEM_TENANT, Scope, Signer as _, SystemClock, Visibility, canonical, ids,
};
use logline_kernels::replay;
use logline_wasm::WasmSandbox;
use serde_json::Value;

use crate::Result;

/// Runs `code` for one request, shows its receipt and journal, and runs it again from the ledger. Returns true if the function
/// answered and the second run gave the same result.
pub(crate) async fn show(code: &[u8], config: Value, input: Value) -> Result<bool> {
    let (ledger, key) = (MemoryLedger::new(), KeyPair::generate()?);
    let trust = TrustRoot::new([key.public_key()], 1);
    // One key has every role. That is enough for a tour; the quickstart uses a key for each role.
    let manifest = Manifest::first(RootSet::new([key.public_key()], 1))
        .allow("run_code", ids::RUN_CODE)
        .grant(key.public_key(), Role::Publisher, [SYSTEM_TENANT, "acme"])
        .grant(key.public_key(), Role::Runtime, [SYSTEM_TENANT, "acme"]);
    trust.publish(&ledger, &manifest, &key, &SystemClock).await?;
    logline_kernels::install(&ledger, &logline_kernels::all(), &key, &SystemClock).await?;
    let host = Host::builder()
        .ledger(ledger.clone())
        .trust(trust)
        .key(key.clone())
        .install(logline_kernels::all())
        .sandbox(WasmSandbox::new()?)
        .build()
        .await?;
    let function = Draft::new("function")
        .tenant("acme")
        .owner("risk")
        .who("publisher:risk")
        .this("function.score_payments")
        .visibility(Visibility::Tenant)
        .runtime(logline_wasm::RUNTIME)
        .code(logline_wasm::encode_binary(code))
        .input(config);
    let function = host.publish(function, &key).await?;
    let done = host.execute(Request::new("acme", "payments-api", function.id, input)).await?;

    println!("\nthe same, recorded as execution {}:", done.span.id);
    for part in ["receipt", "journal"] {
        println!("  {part}: {}", canonical::to_string(done.span.meta(part).unwrap_or(&Value::Null)));
    }
    let sandboxes: [Arc<dyn Sandbox>; 1] = [Arc::new(WasmSandbox::new()?)];
    let again = replay(&ledger, &Scope::runtime("acme"), ("acme", done.span.id), &sandboxes, Rules::default()).await?;
    println!(
        "  run again from the ledger by another sandbox: {}, {} units of fuel",
        if again.holds() { "it came to the same" } else { "it DIFFERS" },
        again.repeated.receipt.fuel_used
    );
    for difference in &again.differences {
        println!("  {difference}");
    }
    Ok(again.holds() && done.result.is_ok())
}
