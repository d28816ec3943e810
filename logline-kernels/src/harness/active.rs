//! Shared by the loops for schedules and policies: lists the active ones, and records once that one of them cannot be run.

use std::collections::BTreeMap;

use logline_core::Failure;
use logline_core::ledger::{ActiveKind, AppendOptions, MAX_ACTIVE, Work, WorkQueue as _};
use logline_core::{Draft, Host, HostError, Timestamp, Visibility, ids};
use serde_json::json;

/// Lists every active span of this kind in the tenants that the host works for. The order is (tenant, id). The list begins
/// after `from` and wraps around, so that no span is always the last if the caller cannot read all of them in one poll.
///
/// # Errors
/// If the ledger fails.
pub async fn list(host: &Host, kind: ActiveKind, from: Option<&Work>) -> Result<Vec<Work>, HostError> {
    let mut active: Vec<Work> = Vec::new();
    loop {
        let page = host.ledger().active(kind, active.last(), MAX_ACTIVE).await?;
        let is_last = page.len() < MAX_ACTIVE;
        active.extend(page);
        if is_last {
            break;
        }
    }
    let mut tenants = BTreeMap::new();
    active.retain(|work| *tenants.entry(work.tenant_id.clone()).or_insert_with(|| host.works_for(&work.tenant_id)));
    if let Some(from) = from {
        let after = active.partition_point(|work| (&work.tenant_id, work.id) <= (&from.tenant_id, from.id));
        active.rotate_left(after);
    }
    Ok(active)
}

/// Records that a schedule or a policy cannot be run, in the name of `kernel` and once for each version and failure code.
///
/// # Errors
/// If the violation cannot be recorded.
pub async fn refuse(
    host: &Host,
    work: &Work,
    (kernel, kind): (&str, ActiveKind),
    failure: &Failure,
    now: Timestamp,
) -> Result<(), HostError> {
    let (id, hash, what) = (work.id.to_string(), work.curr_hash.to_string(), kind.as_str());
    let violation = Draft::new("policy_violation")
        .id(ids::derive("policy_violation", &[&work.tenant_id, &id, &hash, &failure.code]))
        .at(now)
        .tenant(&work.tenant_id)
        .owner(&work.owner_id)
        .visibility(Visibility::Tenant)
        .who(format!("kernel:{kernel}"))
        .did("refused")
        .this(format!("{what}.{}", failure.code))
        .parent(work.id)
        .related([work.id])
        .status("open")
        .error(failure.to_value())
        .metadata(json!({"subject": {"tenant": work.tenant_id, "id": id, "seq": work.seq, "curr_hash": hash}}))
        .deterministic();
    match host.record(&work.tenant_id, vec![violation], &AppendOptions::keep()).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_keep_mismatch() => Ok(()),
        Err(error) => Err(error),
    }
}
