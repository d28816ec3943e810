//! The table of entity types: the only place that says who may sign a type, and whether policies may emit it.

use crate::roles::Role;
use crate::span::Span;

/// Who may sign the spans of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signed {
    /// Root keys.
    Root,
    /// Approvers. (Approvals of a manifest are signed by root keys, see [`Authorities`](crate::trust::Authorities).)
    Approver,
    /// Publishers.
    Publisher,
    /// Hosts.
    Runtime,
    /// Members, publishers and hosts. This also holds for types that the table does not name.
    Anyone,
    /// The first version as for [`Signed::Anyone`], later versions by hosts only. Requests are signed in this way.
    Request,
    /// Nobody: the name begins with [`RESERVED_PREFIX`], and this version of the library does not know it.
    Nobody,
}

impl Signed {
    /// The roles that may sign a first version or a later one. The signer needs one of them. If there is none, nobody may sign.
    #[must_use]
    pub fn roles(self, is_first: bool) -> &'static [Role] {
        match self {
            Self::Root => &[Role::Root],
            Self::Approver => &[Role::Approver],
            Self::Publisher => &[Role::Publisher],
            Self::Request if !is_first => &[Role::Runtime],
            Self::Runtime => &[Role::Runtime],
            Self::Anyone | Self::Request => &[Role::Member, Role::Publisher, Role::Runtime],
            Self::Nobody => &[],
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntityType {
    /// The value of the `entity_type` column.
    pub name: &'static str,
    /// Who may sign spans of this type.
    pub signed: Signed,
    /// Whether the action of a policy may emit spans of this type. It may not if only a host's own work creates such spans.
    pub is_emitted_by_policies: bool,
}

/// Type names that begin with this are reserved for later versions of the library. Nobody may sign a type with such a name if
/// the table does not list it.
pub const RESERVED_PREFIX: &str = "logline_";

const fn row(name: &'static str, signed: Signed) -> EntityType {
    EntityType { name, signed, is_emitted_by_policies: false }
}

impl EntityType {
    const fn emitted(self) -> Self {
        Self { is_emitted_by_policies: true, ..self }
    }
}

/// Every type that the library knows, sorted by name. All other types are [`Signed::Anyone`] and may be emitted, unless their
/// names begin with [`RESERVED_PREFIX`].
///
/// INVARIANT: if a type is added later, existing rows of that type that members have signed fail the audit. A new type of the
/// runtime is therefore added here before the code that writes it, or its name begins with [`RESERVED_PREFIX`].
pub const ENTITY_TYPES: &[EntityType] = &[
    row("api_key", Signed::Runtime),
    row("app_bundle", Signed::Publisher),
    row("approval", Signed::Approver),
    row("blob", Signed::Publisher),
    row("boot_event", Signed::Runtime),
    row("bundle_instantiation", Signed::Runtime).emitted(),
    row("bundle_template", Signed::Publisher),
    row("checkpoint", Signed::Runtime),
    row("consent", Signed::Runtime),
    row("delegation", Signed::Runtime),
    row("error_report", Signed::Runtime).emitted(),
    row("escalation_request", Signed::Runtime).emitted(),
    row("execution", Signed::Runtime),
    row("export_artifact", Signed::Runtime).emitted(),
    row("export_request", Signed::Runtime).emitted(),
    row("function", Signed::Publisher),
    row("idempotency_record", Signed::Runtime),
    row("manifest", Signed::Root),
    row("memory", Signed::Runtime),
    row("memory_audit", Signed::Runtime),
    row("memory_contract", Signed::Publisher),
    row("memory_receipt", Signed::Runtime),
    row("memory_search_result", Signed::Runtime),
    row("metric", Signed::Runtime).emitted(),
    row("note", Signed::Anyone).emitted(),
    row("outside_outcome", Signed::Runtime),
    row("outside_request", Signed::Runtime),
    row("pact", Signed::Publisher),
    row("policy", Signed::Publisher),
    row("policy_cursor", Signed::Runtime),
    row("policy_violation", Signed::Runtime).emitted(),
    row("price_table", Signed::Publisher),
    row("promotion", Signed::Runtime),
    row("prompt_block", Signed::Publisher),
    row("prompt_build", Signed::Runtime),
    row("prompt_directive", Signed::Runtime).emitted(),
    row("prompt_eval", Signed::Publisher),
    row("prompt_eval_run", Signed::Runtime),
    row("prompt_family", Signed::Publisher),
    row("prompt_posterior", Signed::Runtime),
    row("prompt_run", Signed::Runtime),
    row("prompt_selection", Signed::Runtime),
    row("prompt_variant", Signed::Publisher),
    row("proposal", Signed::Publisher),
    row("provider", Signed::Publisher),
    row("provider_execution", Signed::Runtime),
    row("provider_request", Signed::Runtime),
    row("redaction", Signed::Runtime),
    row("registration", Signed::Runtime).emitted(),
    row("rejection", Signed::Approver),
    row("request", Signed::Request),
    row("rollback", Signed::Runtime),
    row("slo", Signed::Publisher),
    row("status_patch", Signed::Runtime).emitted(),
    row("test_plan", Signed::Publisher),
    row("test_result", Signed::Runtime),
    row("withdrawal", Signed::Publisher),
];

/// The row of a type, or a default row if the table does not list the type.
fn of(name: &str) -> EntityType {
    match ENTITY_TYPES.binary_search_by(|row| row.name.cmp(name)) {
        Ok(index) => ENTITY_TYPES.get(index).copied().unwrap_or(row("", Signed::Nobody)),
        Err(_) if name.starts_with(RESERVED_PREFIX) => row("", Signed::Nobody),
        Err(_) => row("", Signed::Anyone).emitted(),
    }
}

/// The roles that may sign a span. The signer needs one of them. If there is none, nobody may sign it.
#[must_use]
pub fn required(span: &Span) -> &'static [Role] {
    of(&span.entity_type).signed.roles(span.prev_hash.is_none())
}

/// Whether only a host, or nobody, may write this span. Users and guests cannot write it.
#[must_use]
pub fn is_reserved_for_runtime(span: &Span) -> bool {
    matches!(required(span), [] | [Role::Runtime])
}

/// Whether the action of a policy may emit spans of this type.
#[must_use]
pub fn is_emitted_by_policies(entity_type: &str) -> bool {
    of(entity_type).is_emitted_by_policies
}

/// The type that the library knows and that `name` is probably meant to be. `None` if `name` is one of them, or like none.
#[must_use]
pub fn similar(name: &str) -> Option<&'static str> {
    let is_like = |known: &&str| known.len() > 4 && is_near(known, name);
    if ENTITY_TYPES.iter().any(|row| row.name == name) {
        return None;
    }
    ENTITY_TYPES.iter().map(|row| row.name).find(is_like)
}

/// Whether one text becomes the other by changing, adding, leaving out or exchanging a byte, or is the same.
#[must_use]
pub fn is_near(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (a.get(start..).unwrap_or_default(), b.get(start..).unwrap_or_default());
    match (a, b) {
        ([], []) => true,
        ([_, a @ ..], [_, b @ ..]) if a == b => true,
        ([_, a @ ..], b) if a == b => true,
        (a, [_, b @ ..]) if a == b => true,
        ([a1, a2, a @ ..], [b1, b2, b @ ..]) => a1 == b2 && a2 == b1 && a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_it_can_be_searched() {
        assert!(ENTITY_TYPES.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn a_misspelt_type_is_recognised_and_other_names_are_not() {
        for misspelt in ["excution", "executions", "exexution", "exceution", "execution "] {
            assert_eq!(similar(misspelt), Some("execution"), "{misspelt}");
        }
        for other in ["execution", "request", "note", "payment", "", "quest", "rejections_by_month"] {
            assert_eq!(similar(other), None, "{other}");
        }
    }
}
