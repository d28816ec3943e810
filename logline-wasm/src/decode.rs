//! The binary in a function's `code` column, as text or as base64, and the same in the other direction.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use logline_core::{Failure, Hash};

use crate::compiled::too_large;
use crate::kind::Kind;
use crate::scan::invalid;

/// What the binary in a `code` column may be preceded by: its hash.
const HASH: &str = "blake3:";

/// The binary in a `code` column: WebAssembly text where it begins like one, base64 otherwise, after the binary's hash if it has one.
pub(crate) fn decode(kind: Kind, code: &str, max_bytes: usize) -> Result<Vec<u8>, Failure> {
    let code = code.trim();
    if code.is_empty() {
        return Err(invalid("code is empty: put WebAssembly text there, or base64 of a binary"));
    }
    let (named, code) = match code.strip_prefix(HASH).map(|rest| rest.split_once(char::is_whitespace)) {
        None => (None, code),
        Some(Some((hash, code))) => {
            let hash = hash.parse::<Hash>().map_err(|e| invalid(format!("code begins with `{HASH}` and no hash: {e}")))?;
            (Some(hash), code.trim_start())
        }
        Some(None) => return Err(invalid(format!("code begins with `{HASH}`: a hash, white space and base64 must follow"))),
    };
    let binary = if named.is_none() && (code.starts_with('(') || code.starts_with(";;")) {
        kind.check_text(code)?;
        wat::parse_str(code).map_err(|e| invalid(e.to_string()))?
    } else {
        STANDARD.decode(code).map_err(|e| {
            invalid(format!(
                "code is neither WebAssembly text (it would begin with `(` or `;;`) nor base64 of a binary, with or without \
                 `{HASH}` and its hash before: {e}"
            ))
        })?
    };
    if let Some(named) = named.filter(|named| Hash::of(&binary) != *named) {
        return Err(invalid(format!("the decoded code has BLAKE3 {}, it says {named}", Hash::of(&binary))));
    }
    if !binary.starts_with(b"\0asm") {
        return Err(invalid("the decoded code does not begin with the WebAssembly magic bytes: encode the binary itself"));
    }
    too_large(binary.len(), max_bytes)?;
    Ok(binary)
}

pub(crate) fn encode(binary: &[u8]) -> String {
    format!("{HASH}{}\n{}", Hash::of(binary), STANDARD.encode(binary))
}
