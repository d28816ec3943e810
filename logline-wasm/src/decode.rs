//! Decodes the binary in a function's `code` column, which is text or base64, and encodes a binary for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use logline_core::{Failure, Hash};

use crate::compiled::too_large;
use crate::kind::Kind;
use crate::scan::invalid;

/// Before base64, `code` may have this prefix, the BLAKE3 hash of the binary and white space.
const HASH: &str = "blake3:";

/// Decodes a `code` column. It is WebAssembly text if it begins with `(` or `;;`. Otherwise it is base64, which the hash of the
/// binary may precede.
pub(crate) fn decode(kind: Kind, code: &str, max_bytes: usize) -> Result<Vec<u8>, Failure> {
    let code = code.trim();
    if code.is_empty() {
        return Err(invalid("code is empty: it must be WebAssembly text, or base64 of a binary"));
    }
    let (named, code) = match code.strip_prefix(HASH).map(|rest| rest.split_once(char::is_whitespace)) {
        None => (None, code),
        Some(Some((hash, code))) => {
            let hash = hash
                .parse::<Hash>()
                .map_err(|e| invalid(format!("code begins with `{HASH}`, but no valid hash follows: {e}")))?;
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
                "code is neither WebAssembly text (which begins with `(` or `;;`) nor base64 of a binary (`{HASH}` and its \
                 hash may come first): {e}"
            ))
        })?
    };
    if let Some(named) = named.filter(|named| Hash::of(&binary) != *named) {
        return Err(invalid(format!("the decoded code has the hash `{}`, but code names `{named}`", Hash::of(&binary))));
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
