//! Well-known ids, and ids that are derived instead of drawn.

use uuid::{Uuid, uuid};

/// The kernel `run_code`.
pub const RUN_CODE: Uuid = uuid!("00000000-0000-4000-8000-000000000001");
/// The kernel `observer_bot`.
pub const OBSERVER: Uuid = uuid!("00000000-0000-4000-8000-000000000002");
/// The kernel `request_worker`.
pub const REQUEST_WORKER: Uuid = uuid!("00000000-0000-4000-8000-000000000003");
/// The kernel `policy_agent`.
pub const POLICY_AGENT: Uuid = uuid!("00000000-0000-4000-8000-000000000004");
/// The kernel `provider_exec`.
pub const PROVIDER_EXEC: Uuid = uuid!("00000000-0000-4000-8000-000000000005");
/// The manifest, unless a trust root names another.
pub const MANIFEST: Uuid = uuid!("00000000-0000-4000-8000-0000000000aa");
/// Stage-0 itself, as the parent of its boot events.
pub const STAGE0: Uuid = uuid!("00000000-0000-4000-8000-0000000000ff");

/// The namespace of every derived id: UUIDv5 of `logline` in the DNS namespace.
#[must_use]
pub fn namespace() -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"logline")
}

/// The id of the thing of this kind that `parts` identify: UUIDv5 in [`namespace`], the kind and the parts joined by `\n`.
///
/// Whoever derives the id of the same thing gets the same id, which is what makes retries and racing hosts harmless.
#[must_use]
pub fn derive(kind: &str, parts: &[&str]) -> Uuid {
    let mut name = kind.to_owned();
    for part in parts {
        name.push('\n');
        name.push_str(part);
    }
    Uuid::new_v5(&namespace(), name.as_bytes())
}

/// The id that a user derives from an idempotency key, so that writing the same thing again is harmless. It is theirs: the
/// owner is part of it, and the span says the key in `metadata.idempotency_key`.
#[must_use]
pub fn idempotent(tenant: &str, owner: &str, entity_type: &str, key: &str) -> Uuid {
    derive("idempotent", &[tenant, owner, entity_type, key])
}

/// The id of the execution of a request's attempt.
#[must_use]
pub fn execution(tenant: &str, request: Uuid, attempt: u32) -> Uuid {
    derive("execution", &[tenant, &request.to_string(), &attempt.to_string()])
}

/// A UUID as it is, any other id mapped by [`derive()`] with kind `id`: the blueprint names some things by texts that only look
/// like UUIDs.
#[must_use]
pub fn from_text(text: &str) -> Uuid {
    Uuid::try_parse(text).unwrap_or_else(|_| derive("id", &[text]))
}
