//! Test data of the benches: a realistic span of about 1.2 KB, and functions that seal and append many of them.

pub mod plain;

use logline_core::ledger::{AppendOptions, Ledger as _, LedgerError};
use logline_core::{Draft, KeyPair, Scope, SealError, SystemClock, SystemIds, VerifiedSpan};
use serde_json::json;
use uuid::Uuid;

/// A draft of an execution. When it is sealed, its payload has about 1.2 KB. `n` is a number in its `input`.
#[must_use]
pub fn draft(n: u64) -> Draft {
    Draft::new("execution")
        .who("edge:stage0")
        .did("executed")
        .this("function.invoice")
        .parent(Uuid::from_u128(0x7c1f_2f3e_1111_4222_8333_4444_5555_6666))
        .related([Uuid::from_u128(0x7c1f_2f3e_1111_4222_8333_4444_5555_6667), Uuid::from_u128(0x7c1f_2f3e_1111_4222_8333_4444_5555_6668)])
        .owner("user_01")
        .tenant("tenant_01")
        .status("complete")
        .name("invoice.total")
        .language("javascript")
        .runtime("js@1")
        .input(json!({"order": n, "lines": [{"sku": "A-1", "qty": 2, "price": 1299}, {"sku": "B-7", "qty": 1, "price": 450}], "currency": "EUR"}))
        .output(json!({"total": 3048, "tax": 579.12, "currency": "EUR", "ok": true}))
        .metadata(json!({"worker": "w-3", "attempt": 1, "limits": {"ms": 500, "mem": 33_554_432}}))
        .duration_ms(3)
        .trace("4bf92f3577b34da6a3ce929d0e0e4736")
        .description("x".repeat(220))
        .stamp(&SystemClock, &SystemIds)
}

/// The key that the benches sign with. It is made from a fixed seed.
#[must_use]
pub fn key() -> KeyPair {
    KeyPair::from_seed(&[7; 32])
}

/// Makes `spans` sealed spans from [`draft`].
///
/// # Errors
/// Returns the error of the seal. The spans of [`draft`] cause none.
pub fn sealed(spans: u64) -> Result<Vec<VerifiedSpan>, SealError> {
    (0..spans).map(|n| draft(n).seal_local(&key())).collect()
}

/// Appends `spans` spans to a ledger, 1,000 in each append.
///
/// # Errors
/// Returns the ledger's error if an append fails.
pub async fn fill(ledger: &logline_sqlite::SqliteLedger, spans: u64) -> Result<(), LedgerError> {
    for start in (0..spans).step_by(1000) {
        let batch =
            sealed(1000.min(spans - start)).map_err(|e| LedgerError::Unavailable { reason: e.to_string(), source: None })?;
        ledger.append(&Scope::Operator, batch, &AppendOptions::default()).await?;
    }
    Ok(())
}
