//! Well-known ids, and ids that are computed from other values instead of drawn at random.

use uuid::{Uuid, uuid};

/// The id of the kernel `run_code`.
pub const RUN_CODE: Uuid = uuid!("00000000-0000-4000-8000-000000000001");
/// The id of the kernel `observer_bot`.
pub const OBSERVER: Uuid = uuid!("00000000-0000-4000-8000-000000000002");
/// The id of the kernel `request_worker`.
pub const REQUEST_WORKER: Uuid = uuid!("00000000-0000-4000-8000-000000000003");
/// The id of the kernel `policy_agent`.
pub const POLICY_AGENT: Uuid = uuid!("00000000-0000-4000-8000-000000000004");
/// The id of the kernel `provider_exec`.
pub const PROVIDER_EXEC: Uuid = uuid!("00000000-0000-4000-8000-000000000005");
/// The id of the manifest, unless a trust root names another id.
pub const MANIFEST: Uuid = uuid!("00000000-0000-4000-8000-0000000000aa");
/// The id that stands for Stage-0: it is the `parent_id` of boot events.
pub const STAGE0: Uuid = uuid!("00000000-0000-4000-8000-0000000000ff");

/// The name of one of this library's kernels and loops; `None` for another id.
#[must_use]
pub fn kernel_name(id: Uuid) -> Option<&'static str> {
    const NAMES: &[(Uuid, &str)] = &[
        (RUN_CODE, "run_code"),
        (OBSERVER, "observer_bot"),
        (REQUEST_WORKER, "request_worker"),
        (POLICY_AGENT, "policy_agent"),
        (PROVIDER_EXEC, "provider_exec"),
    ];
    NAMES.iter().find(|(known, _)| *known == id).map(|(_, name)| *name)
}

/// The namespace of every derived id: UUIDv5 of `logline` in the DNS namespace.
#[must_use]
pub fn namespace() -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"logline")
}

/// Computes the id of the thing that `kind` and `parts` identify: UUIDv5 in [`namespace`] of the kind and the parts, joined by
/// `\n`.
///
/// The same kind and parts always give the same id. If a host retries, or two hosts write at the same time, they therefore
/// write the same span.
#[must_use]
pub fn derive(kind: &str, parts: &[&str]) -> Uuid {
    let mut name = kind.to_owned();
    for part in parts {
        name.push('\n');
        name.push_str(part);
    }
    Uuid::new_v5(&namespace(), name.as_bytes())
}

/// The id that a user may derive from an idempotency key, so that it is harmless to write the same span again. The owner is
/// part of the id, so nobody else can take it. The span must name the key in `metadata.idempotency_key`.
#[must_use]
pub fn idempotent(tenant: &str, owner: &str, entity_type: &str, key: &str) -> Uuid {
    derive("idempotent", &[tenant, owner, entity_type, key])
}

/// The id of what is published under a name: a provider, a prompt, a schedule. Tools that publish by name make it, and whoever is told a
/// name finds the span by it. (Functions, policies and contracts of memories have ids of their own.)
#[must_use]
pub fn published(tenant: &str, entity_type: &str, name: &str) -> Uuid {
    derive("published", &[tenant, entity_type, name])
}

/// The id of the execution that records an attempt of `request`. The first `attempt` is 1.
#[must_use]
pub fn execution(tenant: &str, request: Uuid, attempt: u32) -> Uuid {
    derive("execution", &[tenant, &request.to_string(), &attempt.to_string()])
}

/// Reads the text of an id. A UUID is taken as it is. Any other text is mapped by [`derive()`] with kind `id`, because imported
/// files may name spans by texts that only look like UUIDs.
#[must_use]
pub fn from_text(text: &str) -> Uuid {
    Uuid::try_parse(text).unwrap_or_else(|_| derive("id", &[text]))
}
