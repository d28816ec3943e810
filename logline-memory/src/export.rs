//! The memories of one user in a file that the user can read, and anybody can check who has the passphrase.
//!
//! The file is NDJSON. The first line says how the key follows from the passphrase (PBKDF2-HMAC-SHA-512), each further line has one memory
//! in an envelope, and the last is a manifest: the number of memories, the hash of all lines before it, and a signature of the host that
//! wrote it (DSSE, `application/vnd.logline.memory-export.v1`). `docs/memory.md` has the specification.

use std::io::{BufRead, Write};
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use logline_core::contract::DataKey;
use logline_core::ledger::{Order, Query, WorkQueue as _};
use logline_core::{Hash, PublicKey, Signature, Signer, Verifier, Visibility, canonical, dsse, json as strict};
use ring::pbkdf2;
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::belief::{self, Standing};
use crate::consent::Cited;
use crate::envelope::{self, Place};
use crate::form::{Body, Layer, MEMORY, Memory, Terms, is_memory_of};
use crate::kernel::{MEMORY_EXISTS, came_from, has_ended};
use crate::members::Members;
use crate::memories::{Memories, MemoryError};

/// The payload type of the manifest's signature.
const PAYLOAD: &str = "application/vnd.logline.memory-export.v1";

/// The name of the format.
const FORMAT: &str = "logline.memory-export.v1";

/// How often the hash is made that a key is derived with.
const ITERATIONS: u32 = 210_000;

/// The most iterations that a file may ask a reader for.
const MAX_ITERATIONS: u32 = 2_000_000;

/// The fewest bytes of a passphrase.
pub const MIN_PASSPHRASE: usize = 12;

/// The longest line of a file.
const MAX_LINE: usize = 1 << 20;

/// Why an export was not written or does not count.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The passphrase is too short.
    #[error("the passphrase has fewer than {MIN_PASSPHRASE} bytes: take several words")]
    Passphrase,
    /// A line is not what it must be.
    #[error("line {line}: {reason}")]
    Line {
        /// The number of the line, from 1 on.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The file was changed, cut off, or written by somebody else.
    #[error("the export does not count: {reason}")]
    NotGenuine {
        /// Why.
        reason: String,
    },
    /// The memories could not be read or kept.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The host could not sign.
    #[error("the export could not be signed: {0}")]
    Sign(String),
}

/// What is in an export.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// How many memories.
    pub memories: u64,
    /// The hash of the lines before the manifest.
    pub hash: Hash,
    /// The key that signed it.
    pub key: PublicKey,
}

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Imported {
    /// How many memories were kept.
    pub kept: u64,
    /// How many were there already.
    pub already: u64,
}

/// A memory as an export has it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Line {
    /// Where it was.
    pub id: Uuid,
    /// Its version.
    pub seq: u32,
    /// The hash of the version.
    pub curr_hash: Hash,
    /// The memory.
    pub memory: Memory,
}

fn key(passphrase: &str, salt: &[u8], iterations: u32) -> Result<DataKey, ExportError> {
    if passphrase.len() < MIN_PASSPHRASE {
        return Err(ExportError::Passphrase);
    }
    let iterations = NonZeroU32::new(iterations).filter(|iterations| iterations.get() <= MAX_ITERATIONS);
    let iterations = iterations.ok_or(ExportError::Line { line: 1, reason: "`iterations` is out of range".to_owned() })?;
    let mut bytes = Zeroizing::new([0; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, iterations, salt, passphrase.as_bytes(), bytes.as_mut());
    Ok(DataKey::new(*bytes))
}

/// Writes lines, and hashes what it has written.
struct Lines<W> {
    out: W,
    bytes: Vec<u8>,
    hash: blake3::Hasher,
}

impl<W: Write> Lines<W> {
    fn write(&mut self, value: &Value) -> Result<(), ExportError> {
        self.bytes.clear();
        canonical::write_to(value, &mut self.bytes);
        self.bytes.push(b'\n');
        self.hash.update(&self.bytes);
        Ok(self.out.write_all(&self.bytes)?)
    }
}

impl Memories<'_> {
    /// Writes all memories of the user that can be read, under a key that follows from `passphrase`, and a manifest that `signer` signs
    /// (the host's key).
    ///
    /// # Errors
    /// [`MemoryError::NoConsent`] does not occur: a user may always have what is kept of them.
    pub async fn export(&self, passphrase: &str, signer: &dyn Signer, out: impl Write + Send) -> Result<Exported, ExportError> {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|e| ExportError::Io(std::io::Error::other(e.to_string())))?;
        let key = key(passphrase, &salt, ITERATIONS)?;
        let mut lines = Lines { out, bytes: Vec::new(), hash: blake3::Hasher::new() };
        lines.write(&json!({
            "format": FORMAT, "tenant": self.tenant, "owner": self.owner, "kdf": "pbkdf2-hmac-sha512", "salt": BASE64.encode(salt),
            "iterations": ITERATIONS,
        }))?;
        let mut count = 0_u64;
        let query = Query::new().tenant(&self.tenant).entity_type(MEMORY).owner(&self.owner).order(Order::Append);
        let now = self.host.ledger().now().await.map_err(MemoryError::from)?;
        let trusted = self.host.trusted();
        // The host signs the export: what nobody may have signed is not in it.
        let reader = self.reader();
        let mut standing = Standing::of(&reader, &trusted.authorities, query);
        while let Some(row) = standing.next().await.map_err(MemoryError::from)? {
            let found = match self.open_any(&row, now).await {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(MemoryError::Vault(error)) if error.is_of_text() => {
                    tracing::warn!(memory = %row.id, %error, "a memory cannot be read, and is not in the export");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let curr_hash = row.seal.curr_hash.to_string();
            let field = bound(&found.terms.to_value(), found.seq, &curr_hash);
            let place = Place { tenant: &self.tenant, subject: &self.owner, span: found.id, field: &field };
            let sealed = envelope::seal(&key, found.id, &place, &found.body.to_bytes());
            let sealed = sealed.map_err(|e| MemoryError::Vault(e.into()))?;
            lines.write(&json!({
                "id": found.id.to_string(), "seq": found.seq, "curr_hash": curr_hash, "terms": found.terms.to_value(),
                "sealed": BASE64.encode(sealed),
            }))?;
            count += 1;
        }
        let hash = Hash(*lines.hash.finalize().as_bytes());
        let manifest = manifest(count, hash, signer.public_key());
        let message = dsse::pae(PAYLOAD, &canonical::to_vec(&manifest));
        let signature = signer.sign(&message).await.map_err(|e| ExportError::Sign(e.to_string()))?;
        lines.write(&json!({"manifest": manifest, "signature": signature.to_string()}))?;
        lines.out.flush()?;
        Ok(Exported { memories: count, hash, key: signer.public_key() })
    }

    /// Keeps the memories of an export, each with what it came from. `expected` is the key that must have signed it; without it anybody who
    /// has the file can leave memories out. A memory under a key that is kept here already becomes its next
    /// version; nothing else is overwritten. Permanent memories come as temporary ones, as the review was made elsewhere.
    ///
    /// What is here already, because it was exported here or imported before, is left as it is, also if it has changed since. What the
    /// user has forgotten here since is kept again.
    ///
    /// # Errors
    /// If the file is not genuine, before anything is kept; if a memory is refused, those before it are kept.
    pub async fn import(
        &self,
        passphrase: &str,
        input: impl BufRead,
        expected: Option<PublicKey>,
    ) -> Result<Imported, ExportError> {
        let (_, lines) = read(passphrase, input, expected)?;
        let mut imported = Imported::default();
        for line in lines {
            let mut memory = line.memory;
            // Neither a review nor a session holds elsewhere.
            if matches!(memory.terms.layer, Layer::Permanent | Layer::Session) {
                memory.terms.session = None;
                memory = memory.layer(Layer::Temporary).visibility(Visibility::Private);
            }
            let origin = Cited { id: line.id, seq: line.seq, curr_hash: line.curr_hash };
            if self.has(&memory, &origin).await? {
                imported.already += 1;
                continue;
            }
            match self.remember_from(&memory, Some(&origin)).await {
                Ok(_) => imported.kept += 1,
                // Another import of the same file was faster.
                Err(MemoryError::Failed(failure)) if failure.code == MEMORY_EXISTS => imported.already += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(imported)
    }

    /// Whether a memory is here that is `origin`, or was imported from it or from a later version of it.
    async fn has(&self, memory: &Memory, origin: &Cited) -> Result<bool, MemoryError> {
        let copy = self.id_of(memory, Some(origin)).await?;
        let (reader, trusted) = (self.reader(), self.host.trusted());
        for id in [Some(origin.id), copy].into_iter().flatten() {
            let last = belief::find(&reader, &trusted.authorities, &self.tenant, id).await?;
            if !last.is_some_and(|last| is_memory_of(&last, &self.tenant, &self.owner) && !has_ended(&last)) {
                continue;
            }
            if came_from(&reader, &trusted.authorities, (&self.tenant, id), origin).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What an envelope of an export is bound to besides its place: whoever has the file and not the passphrase cannot make a memory public.
fn bound(terms: &Value, seq: u32, curr_hash: &str) -> String {
    format!("{FORMAT}:{}", Hash::of(&canonical::to_vec(&json!({"terms": terms, "seq": seq, "curr_hash": curr_hash}))))
}

fn manifest(count: u64, hash: Hash, key: PublicKey) -> Value {
    json!({"memories": count, "hash": hash.to_string(), "public_key": key.to_string()})
}

/// Reads an export and checks it: the hash of its lines, the signature, and that every memory opens. `expected` is the key of the host that
/// must have signed it; without it any key will do, and the caller looks at [`Exported::key`].
///
/// # Errors
/// See [`ExportError`].
pub fn read(
    passphrase: &str,
    mut input: impl BufRead,
    expected: Option<PublicKey>,
) -> Result<(Exported, Vec<Line>), ExportError> {
    let not_genuine = |reason: &str| ExportError::NotGenuine { reason: reason.to_owned() };
    let mut hash = blake3::Hasher::new();
    let mut header: Option<(DataKey, String, String)> = None;
    let mut found: Vec<Line> = Vec::new();
    for number in 1.. {
        let Some(bytes) = line(&mut input, number)? else { return Err(not_genuine("it was cut off: the manifest is missing")) };
        let failed = |reason: String| ExportError::Line { line: number, reason };
        let value = strict::parse(&bytes).map_err(|e| failed(e.to_string()))?;
        let Some((key, tenant, owner)) = &header else {
            header = Some(head(&value, passphrase)?);
            hash.update(&bytes);
            continue;
        };
        if value.get("manifest").is_some() {
            let digest = Hash(*hash.finalize().as_bytes());
            let exported = check(&value, digest, found.len()).map_err(failed)?;
            if expected.is_some_and(|expected| expected != exported.key) {
                return Err(not_genuine("another key has signed it than the one that was expected"));
            }
            if line(&mut input, number + 1)?.is_some() {
                return Err(not_genuine("there is something after the manifest"));
            }
            return Ok((exported, found));
        }
        hash.update(&bytes);
        found.push(memory(&value, key, tenant, owner).map_err(failed)?);
    }
    Err(not_genuine("it has no end"))
}

fn line(input: &mut impl BufRead, number: usize) -> Result<Option<Vec<u8>>, ExportError> {
    let mut bytes = Vec::new();
    std::io::Read::take(input, u64::try_from(MAX_LINE).unwrap_or(u64::MAX)).read_until(b'\n', &mut bytes)?;
    match bytes.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(bytes)),
        Some(_) => Err(ExportError::Line { line: number, reason: "it is too long, or was cut off".to_owned() }),
    }
}

fn head(value: &Value, passphrase: &str) -> Result<(DataKey, String, String), ExportError> {
    let failed = |reason: String| ExportError::Line { line: 1, reason };
    let known = &["format", "tenant", "owner", "kdf", "salt", "iterations"];
    let members = Members::of(Some(value), "the header", known).map_err(failed)?;
    let text = |name: &str| members.needed(name, 4096).map_err(failed);
    if text("format")? != FORMAT || text("kdf")? != "pbkdf2-hmac-sha512" {
        return Err(failed(format!("it is not of the format {FORMAT}: a later version of this library may read it")));
    }
    let salt = BASE64.decode(text("salt")?).map_err(|e| failed(format!("`salt` is not base64: {e}")))?;
    let iterations = members.get("iterations").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    Ok((key(passphrase, &salt, iterations)?, text("tenant")?.to_owned(), text("owner")?.to_owned()))
}

fn check(value: &Value, hash: Hash, memories: usize) -> Result<Exported, String> {
    let members = Members::of(Some(value), "the manifest", &["manifest", "signature"])?;
    let signature: Signature = members.needed("signature", 256)?.parse().map_err(|e| format!("`signature` {e}"))?;
    let said = members.get("manifest").ok_or("`manifest` is missing")?;
    let key: PublicKey = Members::of(Some(said), "the manifest", &["memories", "hash", "public_key"])?
        .needed("public_key", 128)?
        .parse()
        .map_err(|e| format!("`public_key` {e}"))?;
    let memories = u64::try_from(memories).unwrap_or(u64::MAX);
    if *said != manifest(memories, hash, key) {
        return Err("the lines are not those that were signed: one was changed, added, removed or moved".to_owned());
    }
    let message = dsse::pae(PAYLOAD, &canonical::to_vec(said));
    Verifier::new().verify(&key, &message, &signature).map_err(|e| format!("the signature does not match: {e}"))?;
    Ok(Exported { memories, hash, key })
}

fn memory(value: &Value, key: &DataKey, tenant: &str, owner: &str) -> Result<Line, String> {
    let members = Members::of(Some(value), "a memory", &["id", "seq", "curr_hash", "terms", "sealed"])?;
    let id = members.id("id")?.ok_or("`id` is missing")?;
    let terms = Terms::read(members.get("terms"))?;
    let sealed = members.get("sealed").and_then(Value::as_str).ok_or("`sealed` is missing")?;
    let sealed = BASE64.decode(sealed).map_err(|e| format!("`sealed` is not base64: {e}"))?;
    let seq = members.get("seq").and_then(Value::as_u64).and_then(|seq| u32::try_from(seq).ok()).ok_or("`seq` is missing")?;
    let curr_hash = members.needed("curr_hash", 128)?;
    let field = bound(&terms.to_value(), seq, curr_hash);
    let place = Place { tenant, subject: owner, span: id, field: &field };
    let text = envelope::open(key, &place, &sealed).map_err(|e| match e {
        envelope::EnvelopeError::OtherKey => "the passphrase is another one".to_owned(),
        e => e.to_string(),
    })?;
    Ok(Line {
        id,
        seq,
        curr_hash: curr_hash.parse().map_err(|e| format!("`curr_hash` {e}"))?,
        memory: Memory { terms, body: Body::parse(&text)? },
    })
}
