//! The bytes that a signature covers: DSSE's pre-authentication encoding, which binds the kind of statement to its content.
//!
//! Each kind of signed statement has its own payload type. A signature over one kind is therefore never valid for another.

/// The payload type of a span's seal. The body is the 32 bytes of `curr_hash`.
pub const SPAN: &str = "application/vnd.logline.span.v1";

/// The payload type of an export's sidecar. The body is the 32-byte hash of its canonical last line without the
/// signature (`docs/export.md`).
pub const SIDECAR: &str = "application/vnd.logline.sidecar.v1";

/// The payload type of a statement of an approver. The body is the statement in canonical form
/// ([`trust::governance::Statement`](crate::trust::governance::Statement)).
pub const APPROVAL: &str = "application/vnd.logline.approval.v1";

/// `PAE(type, body) = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body`. Lengths are in bytes, as ASCII decimals.
///
/// This is the encoding of the DSSE protocol, version 1.
#[must_use]
pub fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {} {} ", payload_type.len(), payload_type, body.len()).into_bytes();
    out.extend_from_slice(body);
    out
}
