//! What loops share that attend to whatever stands: listing it, and saying once that something of it cannot be followed.

use std::collections::BTreeMap;

use logline_core::ledger::{AppendOptions, MAX_STANDING, Standing, Work, WorkQueue as _};
use logline_core::sandbox::Failure;
use logline_core::{Draft, Host, HostError, Timestamp, Visibility, ids};
use serde_json::json;

/// Everything that stands for `kind` in the tenants that the host works for, in order, beginning after `from` and going around: where not
/// all of it can be read for the first time at once, nobody's comes last for ever.
pub(crate) async fn list(host: &Host, kind: Standing, from: Option<&Work>) -> Result<Vec<Work>, HostError> {
    let mut standing: Vec<Work> = Vec::new();
    loop {
        let page = host.ledger().standing(kind, standing.last(), MAX_STANDING).await?;
        let is_last = page.len() < MAX_STANDING;
        standing.extend(page);
        if is_last {
            break;
        }
    }
    let mut tenants = BTreeMap::new();
    standing.retain(|work| *tenants.entry(work.tenant_id.clone()).or_insert_with(|| host.works_for(&work.tenant_id)));
    if let Some(from) = from {
        let after = standing.partition_point(|work| (&work.tenant_id, work.id) <= (&from.tenant_id, from.id));
        standing.rotate_left(after);
    }
    Ok(standing)
}

/// Records once, for this version, that something which stands cannot be followed.
pub(crate) async fn refuse(
    host: &Host,
    work: &Work,
    kind: Standing,
    failure: &Failure,
    now: Timestamp,
) -> Result<(), HostError> {
    let (id, hash) = (work.id.to_string(), work.curr_hash.to_string());
    let (kernel, what) = match kind {
        Standing::Policy => ("policy_agent", "policy"),
        _ => ("observer_bot", "schedule"),
    };
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
