//! Encrypted texts that commit to their key.
//!
//! AES-GCM alone does not: somebody who knows two keys can make one ciphertext that opens under both, to different texts. Here the key of
//! the cipher and a **commitment** are derived from the record's key, and the commitment is compared before anything is decrypted. (The
//! shape is that of the committing suite of the AWS Encryption SDK.)
//!
//! ```text
//! offset  bytes
//!      0      4  "LLME"
//!      4      1  version, 1
//!      5      1  suite, 1: HKDF-SHA-512, AES-256-GCM
//!      6     16  id of the record's key
//!     22     32  salt
//!     54     32  commitment
//!     86     12  nonce
//!     98      n  ciphertext
//!   98+n     16  tag
//! ```
//!
//! `HKDF(salt, record key, "logline.envelope.v1.encrypt")` is the key of the cipher, `… ".commit"` the commitment. Authenticated with the
//! text are the first 98 bytes, and then tenant, subject, span and field, each with its length in 4 bytes (big-endian) before it; the span
//! is 16 bytes. `docs/memory.md` has the specification, `docs/vectors/envelope.json` the vectors.

use logline_core::contract::DataKey;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

const MAGIC: &[u8; 4] = b"LLME";
const VERSION: u8 = 1;
const SUITE: u8 = 1;
const HEADER: usize = 98;
const TAG: usize = 16;

/// The most bytes of a text that is encrypted.
pub const MAX_PLAINTEXT: usize = 256 << 10;

/// Where an envelope belongs. It opens nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The user whose key protects it.
    pub subject: &'a str,
    /// The span that it stands in.
    pub span: Uuid,
    /// The member of the span, such as `content`.
    pub field: &'a str,
}

/// Why an envelope was not made or does not open. The message never contains a text or a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// It is not an envelope, or was cut off.
    #[error("it is not an envelope, or it was cut off")]
    Malformed,
    /// It is an envelope of a later version or another suite.
    #[error("the envelope has version {version} and suite {suite}, and this library reads version 1 and suite 1: upgrade it")]
    Unknown {
        /// The version.
        version: u8,
        /// The suite.
        suite: u8,
    },
    /// The key is another one than it was encrypted with.
    #[error("the envelope was encrypted with another key")]
    OtherKey,
    /// It was changed, or moved to another place.
    #[error("the envelope was changed, or belongs to another tenant, subject, span or field")]
    Changed,
    /// The text is too long.
    #[error("the text has more than {MAX_PLAINTEXT} bytes: write less, or split it")]
    TooLong,
    /// The system gave no random bytes. A retry may help.
    #[error("the system gave no random bytes")]
    Random,
}

/// The key of a record and a commitment to it.
struct Derived {
    key: LessSafeKey,
    commitment: Zeroizing<[u8; 32]>,
}

struct Bytes32;

impl hkdf::KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

/// Derives 32 bytes for a purpose. `None` never happens: the length is one that HKDF can give.
pub(crate) fn derive(salt: &[u8], key: &DataKey, purpose: &str) -> Option<Zeroizing<[u8; 32]>> {
    expand(&hkdf::Salt::new(hkdf::HKDF_SHA512, salt).extract(key.reveal()), purpose)
}

fn expand(prk: &hkdf::Prk, purpose: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    let info = [purpose.as_bytes()];
    prk.expand(&info, Bytes32).and_then(|okm| okm.fill(bytes.as_mut())).ok().map(|()| bytes)
}

/// The key of a cipher.
pub(crate) fn cipher(key: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
}

fn derived(salt: &[u8], key: &DataKey) -> Option<Derived> {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA512, salt).extract(key.reveal());
    let commitment = expand(&prk, "logline.envelope.v1.commit")?;
    let key = expand(&prk, "logline.envelope.v1.encrypt")?;
    Some(Derived { key: cipher(&key)?, commitment })
}

/// Writes each part with its length before it, so that no two lists of parts give the same bytes.
pub(crate) fn framed<'p>(parts: impl IntoIterator<Item = &'p [u8]>, out: &mut Vec<u8>) {
    for part in parts {
        out.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(part);
    }
}

fn authenticated(header: &[u8], place: &Place<'_>) -> Vec<u8> {
    let mut bytes = header.to_vec();
    framed(
        [place.tenant.as_bytes(), place.subject.as_bytes(), place.span.as_bytes().as_slice(), place.field.as_bytes()],
        &mut bytes,
    );
    bytes
}

/// Encrypts `text` with a key that encrypts nothing else.
///
/// # Errors
/// [`EnvelopeError::TooLong`], [`EnvelopeError::Random`].
pub fn seal(key: &DataKey, key_id: Uuid, place: &Place<'_>, text: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let mut random = [0; 44];
    getrandom::fill(&mut random).map_err(|_| EnvelopeError::Random)?;
    seal_with(key, key_id, place, text, &random)
}

/// As [`seal`], with the 32 bytes of the salt and the 12 of the nonce. Only for vectors: a nonce must never come twice.
pub(crate) fn seal_with(
    key: &DataKey,
    key_id: Uuid,
    place: &Place<'_>,
    text: &[u8],
    random: &[u8; 44],
) -> Result<Vec<u8>, EnvelopeError> {
    if text.len() > MAX_PLAINTEXT {
        return Err(EnvelopeError::TooLong);
    }
    let (salt, nonce) = random.split_at(32);
    let derived = derived(salt, key).ok_or(EnvelopeError::Malformed)?;
    let mut envelope = Vec::with_capacity(HEADER + text.len() + TAG);
    envelope.extend(MAGIC);
    envelope.extend([VERSION, SUITE]);
    envelope.extend(key_id.as_bytes());
    envelope.extend(salt);
    envelope.extend(derived.commitment.as_ref());
    envelope.extend(nonce);
    let aad = authenticated(&envelope, place);
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| EnvelopeError::Malformed)?;
    let mut body = Zeroizing::new(text.to_vec());
    let tag = derived.key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut body).map_err(|_| EnvelopeError::TooLong)?;
    envelope.extend(body.iter());
    envelope.extend(tag.as_ref());
    Ok(envelope)
}

/// The parts of an envelope.
struct Parts<'e> {
    header: &'e [u8],
    key_id: Uuid,
    salt: &'e [u8],
    commitment: &'e [u8],
    nonce: &'e [u8],
    body: &'e [u8],
}

fn parts(envelope: &[u8]) -> Result<Parts<'_>, EnvelopeError> {
    let (header, body) = envelope.split_at_checked(HEADER).ok_or(EnvelopeError::Malformed)?;
    let rest = header.strip_prefix(MAGIC).ok_or(EnvelopeError::Malformed)?;
    let take = |from: usize, to: usize| rest.get(from..to).ok_or(EnvelopeError::Malformed);
    match take(0, 2)? {
        [VERSION, SUITE] => {}
        [version, suite] => return Err(EnvelopeError::Unknown { version: *version, suite: *suite }),
        _ => return Err(EnvelopeError::Malformed),
    }
    if body.len() < TAG || body.len() > MAX_PLAINTEXT + TAG {
        return Err(EnvelopeError::Malformed);
    }
    let key_id = Uuid::from_slice(take(2, 18)?).map_err(|_| EnvelopeError::Malformed)?;
    Ok(Parts { header, key_id, salt: take(18, 50)?, commitment: take(50, 82)?, nonce: take(82, 94)?, body })
}

/// The id of the record's key that opens an envelope.
///
/// # Errors
/// [`EnvelopeError::Malformed`], [`EnvelopeError::Unknown`].
pub fn key_id(envelope: &[u8]) -> Result<Uuid, EnvelopeError> {
    parts(envelope).map(|parts| parts.key_id)
}

/// Decrypts an envelope. The text is cleared from memory when it is dropped.
///
/// # Errors
/// [`EnvelopeError::OtherKey`] before anything is decrypted; [`EnvelopeError::Changed`], [`EnvelopeError::Malformed`],
/// [`EnvelopeError::Unknown`].
pub fn open(key: &DataKey, place: &Place<'_>, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
    let parts = parts(envelope)?;
    let derived = derived(parts.salt, key).ok_or(EnvelopeError::Malformed)?;
    if !bool::from(derived.commitment.ct_eq(parts.commitment)) {
        return Err(EnvelopeError::OtherKey);
    }
    let aad = authenticated(parts.header, place);
    let nonce = Nonce::try_assume_unique_for_key(parts.nonce).map_err(|_| EnvelopeError::Malformed)?;
    let mut body = Zeroizing::new(parts.body.to_vec());
    let text = derived.key.open_in_place(nonce, Aad::from(aad), &mut body).map_err(|_| EnvelopeError::Changed)?.len();
    body.truncate(text);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PLACE: Place<'_> = Place { tenant: "acme", subject: "u-1", span: Uuid::from_u128(7), field: "content" };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn bytes(text: &Value) -> Vec<u8> {
        let text = text.as_str().unwrap();
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn vectors() -> Vec<Value> {
        ["", "the door code is 4711", "Grüße, 世界"]
            .into_iter()
            .zip(1_u8..)
            .map(|(text, number)| {
                let random: [u8; 44] = std::array::from_fn(|at| u8::try_from(at).unwrap().wrapping_mul(number));
                let key = DataKey::new([number; 32]);
                let id = Uuid::from_u128(u128::from(number));
                let envelope = seal_with(&key, id, &PLACE, text.as_bytes(), &random).unwrap();
                json!({
                    "key": hex(key.reveal()),
                    "tenant": PLACE.tenant,
                    "subject": PLACE.subject,
                    "span": PLACE.span.to_string(),
                    "field": PLACE.field,
                    "text": text,
                    "envelope": hex(&envelope),
                })
            })
            .collect()
    }

    /// The published vectors are what this library writes. `docs/verify/envelope.py` opens them with a library that is not ours.
    #[test]
    fn the_vectors_are_those_that_are_published() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/vectors/envelope.json");
        let made =
            serde_json::to_string_pretty(&json!({"version": 1, "envelopes": vectors(), "forgery": forgery()})).unwrap() + "\n";
        // In ASCII, as every file of vectors.
        let escaped = |c: char| if c.is_ascii() { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) };
        let made: String = made.chars().map(escaped).collect();
        if std::env::var_os("LOGLINE_WRITE_VECTORS").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let published = std::fs::read_to_string(path).unwrap();
        assert_eq!(published, made);
        let published: Value = serde_json::from_str(&published).unwrap();
        for vector in published["envelopes"].as_array().unwrap() {
            let key = DataKey::new(bytes(&vector["key"]).try_into().unwrap());
            let text = open(&key, &PLACE, &bytes(&vector["envelope"])).unwrap();
            assert_eq!(std::str::from_utf8(&text).unwrap(), vector["text"]);
        }
    }

    /// An envelope whose commitment is that of one key, and whose body opens under the key of another: what somebody makes who knows both
    /// keys and wants two readers to read different texts.
    fn forgery() -> Value {
        let (first, second) = (DataKey::new([1; 32]), DataKey::new([2; 32]));
        let random = [3; 44];
        let mut envelope = seal_with(&first, Uuid::from_u128(9), &PLACE, b"pay 100", &random).unwrap();
        let other = seal_with(&second, Uuid::from_u128(9), &PLACE, b"pay 999", &random).unwrap();
        envelope.truncate(54);
        envelope.extend(&derived(&random[..32], &first).unwrap().commitment[..]);
        envelope.extend(&other[86..98]);
        let derived = derived(&random[..32], &second).unwrap();
        let aad = authenticated(&envelope, &PLACE);
        let mut body = b"pay 999".to_vec();
        let nonce = Nonce::try_assume_unique_for_key(&random[32..]).unwrap();
        let tag = derived.key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut body).unwrap();
        envelope.extend(body);
        envelope.extend(tag.as_ref());
        json!({"keys": [hex(first.reveal()), hex(second.reveal())], "envelope": hex(&envelope)})
    }

    #[test]
    fn an_envelope_that_would_open_under_two_keys_opens_under_none() {
        let forged = forgery();
        let envelope = bytes(&forged["envelope"]);
        for (key, error) in [(1, EnvelopeError::Changed), (2, EnvelopeError::OtherKey)] {
            assert_eq!(open(&DataKey::new([key; 32]), &PLACE, &envelope).map(drop).unwrap_err(), error);
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let key = DataKey::new([5; 32]);
        let envelope = seal(&key, Uuid::from_u128(1), &PLACE, b"the door code is 4711").unwrap();
        for at in 0..envelope.len() {
            for bit in 0..8 {
                let mut changed = envelope.clone();
                changed[at] ^= 1 << bit;
                assert!(open(&key, &PLACE, &changed).is_err(), "byte {at}, bit {bit}");
            }
            assert!(open(&key, &PLACE, &envelope[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn an_envelope_opens_in_its_own_place_only() {
        let key = DataKey::new([5; 32]);
        let envelope = seal(&key, Uuid::from_u128(1), &PLACE, b"x").unwrap();
        let others = [
            Place { tenant: "globex", ..PLACE },
            Place { subject: "u-2", ..PLACE },
            Place { span: Uuid::from_u128(8), ..PLACE },
            Place { field: "input", ..PLACE },
            // The same bytes, divided elsewhere.
            Place { tenant: "acm", subject: "eu-1", ..PLACE },
        ];
        for place in others {
            assert_eq!(open(&key, &place, &envelope).map(drop), Err(EnvelopeError::Changed), "{place:?}");
        }
    }
}
