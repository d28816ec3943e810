//! The sidecar of an export: the heads of all version chains and the hash of the export, signed.
//!
//! It has head lines `{"curr_hash","id","seq","tenant_id"}` in the order of (tenant, id), and then one last line. The last line
//! holds the counts, the hash of the head lines, the hash of the export, the time, the signer, and the signature over all of
//! that.

use std::io::{self, BufRead, Write};

use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::audit::ndjson::{Exported, Line, LineReader};
use crate::keys::dsse;
use crate::keys::{SignError, SignatureError, Signer, Verifier};
use crate::ledger::scope::Scope;
use crate::ledger::{Ledger, LedgerError, Order, Query};
use crate::span::Span;
use crate::span::canonical;
use crate::value::clock::Clock;
use crate::value::hex::{Hash, PublicKey, Signature};
use crate::value::json;

/// The most bytes of a line of a sidecar.
const MAX_LINE: usize = 16 << 10;

/// Why a sidecar could not be written, or cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SidecarError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The signer failed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Reading or writing failed.
    #[error("sidecar: {0}")]
    Io(#[from] io::Error),
    /// A line is malformed.
    #[error("sidecar line {line}: {reason}")]
    Malformed {
        /// The number of the line, counted from 1.
        line: u64,
        /// What is wrong with the line.
        reason: String,
    },
    /// The last line is missing.
    #[error("sidecar ends without its signed last line: it was cut off, get a whole copy")]
    Truncated,
    /// The head lines are not the ones that were signed.
    #[error("sidecar was changed: its lines do not have the hash that was signed")]
    Changed,
    /// The signature is invalid, or its key cannot be trusted.
    #[error("sidecar's signature by {key} does not count: {source}")]
    Signature {
        /// The key that the sidecar names as its signer.
        key: PublicKey,
        /// Why the signature does not count.
        source: SignatureError,
    },
    /// Another key than the expected one signed it.
    #[error("sidecar is signed by {found}, not by {expected}")]
    Signer {
        /// The key that signed it.
        found: PublicKey,
        /// The key that should have signed it.
        expected: PublicKey,
    },
}

/// One chain's last version in a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SidecarHead {
    /// The tenant of the chain.
    pub tenant_id: String,
    /// The id of the chain.
    pub id: Uuid,
    /// The `seq` of the last version in the export.
    pub seq: u32,
    /// The hash of that version.
    pub curr_hash: Hash,
}

/// Writes the sidecar of an export. Rows after the export's last row are left out. Returns the number of chains.
///
/// # Errors
/// If the ledger, the signer or the output fails.
pub async fn write_sidecar(
    ledger: &dyn Ledger,
    scope: &Scope,
    exported: &Exported,
    signer: &dyn Signer,
    clock: &dyn Clock,
    out: &mut (dyn Write + Send),
) -> Result<u64, SidecarError> {
    let mut query = Query::chains().order(Order::Chain);
    query.tenant.clone_from(&exported.tenant);
    query.until.clone_from(&exported.until);
    let mut heads = HeadLines { out, hasher: blake3::Hasher::new(), chains: 0 };
    let mut last: Option<(Span, Hash)> = None;
    let mut cursor = None;
    while exported.until.is_some() {
        let page = ledger.scan(scope, &query, cursor.as_ref()).await?;
        cursor = page.next.clone();
        for span in page.into_spans()? {
            if let Some((head, hash)) = &last
                && (&head.tenant_id, head.id) != (&span.tenant_id, span.id)
            {
                heads.write(head, hash)?;
            }
            last = Some((span.span, span.seal.curr_hash));
        }
        if cursor.is_none() {
            break;
        }
    }
    if let Some((head, hash)) = &last {
        heads.write(head, hash)?;
    }
    let mut footer = json!({
        "type": "logline.sidecar",
        "v": 1,
        "at": clock.now().to_string(),
        "chains": heads.chains,
        "spans": exported.spans,
        "tenant": exported.tenant,
        "export_blake3": exported.hash.to_string(),
        "heads_blake3": Hash(*heads.hasher.finalize().as_bytes()).to_string(),
        "public_key": signer.public_key().to_string(),
    });
    let signature = signer.sign(&message(&footer)).await?;
    if let Some(members) = footer.as_object_mut() {
        members.insert("signature".to_owned(), signature.to_string().into());
    }
    let mut line = canonical::to_vec(&footer);
    line.push(b'\n');
    heads.out.write_all(&line)?;
    heads.out.flush()?;
    Ok(heads.chains)
}

struct HeadLines<'a> {
    out: &'a mut (dyn Write + Send),
    hasher: blake3::Hasher,
    chains: u64,
}

impl HeadLines<'_> {
    fn write(&mut self, head: &Span, hash: &Hash) -> io::Result<()> {
        let value = json!({
            "tenant_id": head.tenant_id,
            "id": head.id.to_string(),
            "seq": head.seq,
            "curr_hash": hash.to_string(),
        });
        let mut line = canonical::to_vec(&value);
        line.push(b'\n');
        self.hasher.update(&line);
        self.chains += 1;
        self.out.write_all(&line)
    }
}

/// What the signature covers: the hash of the canonical last line without its signature.
fn message(footer: &Value) -> Vec<u8> {
    dsse::pae(dsse::SIDECAR, Hash::of(&canonical::to_vec(footer)).as_bytes())
}

/// Reads a sidecar head by head. Only after the last line is it known whether the heads can be trusted.
pub struct SidecarReader<'a> {
    lines: LineReader<'a>,
    hasher: blake3::Hasher,
    heads: u64,
    previous: Option<(String, Uuid)>,
    expected_key: Option<PublicKey>,
    footer: Option<Footer>,
}

struct Footer {
    signer: PublicKey,
    export_hash: Hash,
}

impl<'a> SidecarReader<'a> {
    /// Reads `source`. `key` must have signed it; if `key` is `None`, any key may have signed it.
    pub fn new(source: &'a mut (dyn BufRead + Send), key: Option<PublicKey>) -> Self {
        Self {
            lines: LineReader::new(source, MAX_LINE),
            hasher: blake3::Hasher::new(),
            heads: 0,
            previous: None,
            expected_key: key,
            footer: None,
        }
    }

    /// The next head; `None` when the last line was read and is valid.
    ///
    /// # Errors
    /// If the sidecar is malformed, was changed or cut off, or is signed by another key.
    pub fn next_head(&mut self) -> Result<Option<SidecarHead>, SidecarError> {
        if self.footer.is_some() {
            return Ok(None);
        }
        let (number, bytes) = match self.lines.next_line()? {
            None => return Err(SidecarError::Truncated),
            Some(Line::TooLong(line)) => {
                return Err(SidecarError::Malformed { line, reason: format!("longer than {MAX_LINE} bytes") });
            }
            Some(Line::Whole(number, bytes)) => (number, bytes.to_vec()),
        };
        let malformed = |reason: String| SidecarError::Malformed { line: number, reason };
        let value = json::parse(&bytes).map_err(|e| malformed(e.to_string()))?;
        if canonical::to_vec(&value) != bytes {
            return Err(malformed("it is not in canonical form".to_owned()));
        }
        if value.get("type").is_some() {
            self.finish(value, number)?;
            return match self.lines.next_line()? {
                None => Ok(None),
                Some(_) => {
                    Err(SidecarError::Malformed { line: number + 1, reason: "no line may follow the signed line".to_owned() })
                }
            };
        }
        let head = read_head(&value).ok_or_else(|| malformed("it is neither a head nor the last line".to_owned()))?;
        let key = (head.tenant_id.clone(), head.id);
        if self.previous.as_ref().is_some_and(|previous| *previous >= key) {
            return Err(malformed("heads are not in the order of tenant and id".to_owned()));
        }
        self.previous = Some(key);
        self.hasher.update(&bytes).update(b"\n");
        self.heads += 1;
        Ok(Some(head))
    }

    fn finish(&mut self, mut footer: Value, line: u64) -> Result<(), SidecarError> {
        let malformed = |what: &str| SidecarError::Malformed { line, reason: format!("`{what}` is missing or malformed") };
        let signature = footer.as_object_mut().and_then(|members| members.remove("signature"));
        let signature: Option<Signature> = signature.and_then(|s| s.as_str()?.parse().ok());
        let signature = signature.ok_or_else(|| malformed("signature"))?;
        let text = |name: &str| footer.get(name).and_then(Value::as_str);
        let signer: PublicKey = text("public_key").and_then(|t| t.parse().ok()).ok_or_else(|| malformed("public_key"))?;
        let heads: Hash = text("heads_blake3").and_then(|t| t.parse().ok()).ok_or_else(|| malformed("heads_blake3"))?;
        let export_hash = text("export_blake3").and_then(|t| t.parse().ok()).ok_or_else(|| malformed("export_blake3"))?;
        if footer.get("v").and_then(Value::as_u64) != Some(1) || text("type") != Some("logline.sidecar") {
            return Err(malformed("v"));
        }
        Verifier::new()
            .verify(&signer, &message(&footer), &signature)
            .map_err(|source| SidecarError::Signature { key: signer, source })?;
        if let Some(expected) = self.expected_key.filter(|key| *key != signer) {
            return Err(SidecarError::Signer { found: signer, expected });
        }
        let counted = footer.get("chains").and_then(Value::as_u64) == Some(self.heads);
        if !counted || heads != Hash(*self.hasher.finalize().as_bytes()) {
            return Err(SidecarError::Changed);
        }
        self.footer = Some(Footer { signer, export_hash });
        Ok(())
    }

    /// The key that signed it. It is known when the last line was read.
    ///
    /// # Errors
    /// [`SidecarError::Truncated`] before that.
    pub fn signer(&self) -> Result<PublicKey, SidecarError> {
        self.footer.as_ref().map(|f| f.signer).ok_or(SidecarError::Truncated)
    }

    /// The hash of the export that it belongs to. It is known when the last line was read.
    ///
    /// # Errors
    /// [`SidecarError::Truncated`] before that.
    pub fn export_hash(&self) -> Result<Hash, SidecarError> {
        self.footer.as_ref().map(|f| f.export_hash).ok_or(SidecarError::Truncated)
    }
}

fn read_head(value: &Value) -> Option<SidecarHead> {
    let text = |name: &str| value.get(name)?.as_str();
    Some(SidecarHead {
        tenant_id: text("tenant_id")?.to_owned(),
        id: text("id")?.parse().ok()?,
        seq: value.get("seq")?.as_u64()?.try_into().ok()?,
        curr_hash: text("curr_hash")?.parse().ok()?,
    })
}
