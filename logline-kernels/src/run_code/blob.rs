//! Blobs: modules that are too large for one span. Their bytes are stored in several spans, named by the hash of the whole
//! module.
//!
//! `docs/wasm-abi.md` specifies the format.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use logline_core::Failure;
use logline_core::contract::Reader;
use logline_core::ledger::{Ledger as _, LedgerError};
use logline_core::{Draft, Hash, Host, HostError, Scope, Signer, Span, VerifiedSpan, ids};
use serde_json::{Value, json};
use uuid::Uuid;

/// The beginning of a function's `code` that names a blob.
const PREFIX: &str = "blob:";

/// The bytes of one part. It is a multiple of three, so that the joined base64 texts of the parts are the base64 text of the
/// whole.
const PART: usize = 3 * (170 << 10);

/// The most parts of a blob. They hold 16 MiB, the ceiling of `limits.module_bytes`.
const MAX_PARTS: u64 = 33;

/// The most bytes of texts in the cache.
const KEPT: usize = 64 << 20;

fn part_id(tenant: &str, hash: &Hash, n: u64) -> Uuid {
    ids::derive("blob", &[tenant, &hash.to_string(), &n.to_string()])
}

/// Publishes a function whose `code` is the module `binary`, unless its last version says the same already
/// ([`Host::publish_if_changed`]). A small module is stored in the function's span, a larger one in blob spans of its tenant. Parts
/// that exist already are not changed.
///
/// # Errors
/// As [`Host::publish`].
pub async fn publish_module(
    host: &Host,
    function: Draft,
    binary: &[u8],
    signer: &dyn Signer,
) -> Result<VerifiedSpan, HostError> {
    if !binary.starts_with(b"\0asm") {
        let message = "the bytes are no WebAssembly binary, which begins with `\\0asm`: pass the content of a .wasm file";
        let reason = Failure::new("invalid_module", message);
        return Err(HostError::NotValid { entity_type: "function".to_owned(), reason });
    }
    let hash = Hash::of(binary);
    let text = |part: &[u8]| STANDARD.encode(part);
    if binary.len() <= PART {
        return host.publish_if_changed(function.code(format!("blake3:{hash}\n{}", text(binary))), signer).await;
    }
    let (tenant, owner) = (function.columns().tenant_id.clone(), function.columns().owner_id.clone());
    let (visibility, who) = (function.columns().visibility, function.columns().who.clone());
    let scope = Scope::runtime(tenant.clone());
    let parts = binary.len().div_ceil(PART) as u64;
    for (n, part) in (0..).zip(binary.chunks(PART)) {
        let id = part_id(&tenant, &hash, n);
        let content = json!({"base64": text(part)});
        if let Some(stored) = host.ledger().history(&scope, &tenant, id, 0, 1).await?.into_iter().next() {
            if stored.content.as_ref() == Some(&content) {
                continue;
            }
            let message =
                format!("another row has the id of part {n} of this module, {id}: run fsck, or change the module by a byte");
            let reason = Failure::new("blob_occupied", message);
            return Err(HostError::NotValid { entity_type: "blob".to_owned(), reason });
        }
        let blob = Draft::new("blob")
            .id(id)
            .tenant(&tenant)
            .owner(&owner)
            .visibility(visibility)
            .who(&who)
            .this("blob.part")
            .content(content)
            .metadata(json!({"blake3": hash.to_string(), "part": n, "parts": parts}));
        host.publish(blob, signer).await?;
    }
    host.publish_if_changed(function.code(format!("{PREFIX}{hash}")), signer).await
}

/// A tenant and the hash of a blob. The tenant is part of the key, because no tenant may run the code of another.
type Key = (String, Hash);

/// The code of a function.
pub(crate) enum Code {
    /// The text to run.
    Text(Arc<str>),
    /// The code is not found, is too large, or does not have the hash that the function names.
    Refused(Failure),
}

/// A cache of the texts of blobs. The most recently used is last.
#[derive(Debug, Default)]
pub(crate) struct Blobs {
    kept: Mutex<VecDeque<(Key, Arc<str>)>>,
}

impl Blobs {
    /// Returns the code of a function: its column `code`, or the text of the blob that the column names. It reads no more parts
    /// than a module of `max_bytes` needs.
    pub(crate) async fn code(&self, function: &Span, reader: &Reader<'_>, max_bytes: usize) -> Result<Code, LedgerError> {
        let code = function.code.as_deref().unwrap_or_default();
        let Some(named) = code.trim_start().strip_prefix(PREFIX) else { return Ok(Code::Text(code.into())) };
        let Ok(hash) = named.trim().parse::<Hash>() else {
            let message = "code names a blob without a valid hash: it must be `blob:` and 64 hexadecimal digits";
            return Ok(Code::Refused(Failure::new("invalid_module", message)));
        };
        let key = (function.tenant_id.clone(), hash);
        if let Some(text) = self.find(&key) {
            return Ok(Code::Text(text));
        }
        let mut text = format!("blake3:{hash}\n");
        let (mut n, mut parts) = (0, 1);
        while n < parts {
            let id = part_id(&function.tenant_id, &hash, n);
            let part = reader.version(&function.tenant_id, id, 0).await?;
            let content = part.as_ref().and_then(|part| part.content.as_ref()?.get("base64")?.as_str());
            let (Some(part), Some(content)) = (&part, content) else {
                let message = format!("part {n} of blob {hash} is not in tenant `{}`: publish it", function.tenant_id);
                return Ok(Code::Refused(Failure::new("blob_not_found", message)));
            };
            if n == 0 {
                parts = part.meta("parts").and_then(Value::as_u64).unwrap_or(1).min(MAX_PARTS);
                let least = PART as u64 * parts.saturating_sub(1);
                if least > max_bytes as u64 {
                    let message = format!("the module has more than {least} bytes, the limit is {max_bytes}: build it smaller");
                    return Ok(Code::Refused(Failure::new("module_limit", message)));
                }
            }
            if content.len() > PART / 3 * 4 {
                let message = format!("part {n} of blob {hash} is longer than {PART} bytes: publish it with publish_module");
                return Ok(Code::Refused(Failure::new("invalid_module", message)));
            }
            text.push_str(content);
            n += 1;
        }
        let body = text.split_once('\n').map_or("", |(_, body)| body);
        if STANDARD.decode(body).map(|binary| Hash::of(&binary)) != Ok(hash) {
            let message = format!("the parts of blob {hash} in tenant `{}` do not have this hash", function.tenant_id);
            return Ok(Code::Refused(Failure::new("invalid_module", message)));
        }
        let text: Arc<str> = text.into();
        self.keep(key, &text);
        Ok(Code::Text(text))
    }

    fn find(&self, key: &Key) -> Option<Arc<str>> {
        let mut kept = self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let at = kept.iter().position(|(known, _)| known == key)?;
        let found = kept.remove(at)?;
        let text = Arc::clone(&found.1);
        kept.push_back(found);
        Some(text)
    }

    fn keep(&self, key: Key, text: &Arc<str>) {
        let mut kept = self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        kept.push_back((key, Arc::clone(text)));
        let mut bytes: usize = kept.iter().map(|(_, text)| text.len()).sum();
        while bytes > KEPT && kept.len() > 1 {
            bytes -= kept.pop_front().map_or(0, |(_, text)| text.len());
        }
    }
}
