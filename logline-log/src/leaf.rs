//! The entries of a log, byte by byte (`docs/log.md`).
//!
//! A span is entered as a small record of fixed size, not as its row: an entry of C2SP's bundles has at most 65,535 bytes, and a row has
//! up to a mebibyte. The record names the row and repeats its seal, so that whoever has the row can compare both ways, and whoever has
//! the record alone can check the signature. What a row contains is bound by `curr_hash`.

use logline_core::{Hash, PublicKey, Signature, SignatureError, SignedSpan, Verifier, dsse};
use thiserror::Error;
use uuid::Uuid;

use crate::hash::TreeHash;

/// The number of bytes of a span's record.
pub const LEAF_BYTES: usize = 181;

/// The most bytes of an entry, because its length is written in two bytes.
pub const MAX_ENTRY: usize = 65_535;

const SPAN: u8 = 0x01;
const CONTINUES: u8 = 0x02;

/// The record of one version of a span.
///
/// | bytes | what |
/// |---|---|
/// | 0 | `0x01` |
/// | 1–16 | `id`, as the 16 bytes of the UUID |
/// | 17–20 | `seq`, big-endian |
/// | 21–52 | `curr_hash` |
/// | 53–84 | `prev_hash`; 32 zero bytes if the version has none |
/// | 85–116 | `public_key` |
/// | 117–180 | `signature` |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// The span's id.
    pub id: Uuid,
    /// The number of the version.
    pub seq: u32,
    /// BLAKE3-256 of the row's canonical payload, which covers its tenant.
    pub curr_hash: Hash,
    /// `curr_hash` of the version before; `None` in a first version.
    pub prev_hash: Option<Hash>,
    /// The key that signed the row.
    pub public_key: PublicKey,
    /// The row's signature.
    pub signature: Signature,
}

/// An entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry {
    /// One version of a span.
    Span(Leaf),
    /// The log goes on where another one ended, for example because its ledger was restored: `0x02` and the signed checkpoint of that
    /// log. It can only be the first entry.
    Continues(Vec<u8>),
}

/// Why bytes are not an entry. A retry cannot help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The first byte names no kind of entry that this library knows.
    #[error("entry has the unknown kind {kind}: a newer version may know it")]
    Kind {
        /// The first byte.
        kind: u8,
    },
    /// It has the wrong number of bytes.
    #[error("entry has {found} bytes, and the record of a span has {LEAF_BYTES}")]
    Length {
        /// The number of bytes.
        found: usize,
    },
}

impl Leaf {
    /// The record of a row, as the row claims to be. It is not verified here.
    #[must_use]
    pub fn of(row: &SignedSpan) -> Self {
        let seal = row.seal;
        Self {
            id: row.id,
            seq: row.seq,
            curr_hash: seal.curr_hash,
            prev_hash: row.prev_hash,
            public_key: seal.public_key,
            signature: seal.signature,
        }
    }

    /// The bytes of the record.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LEAF_BYTES);
        bytes.push(SPAN);
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.curr_hash.0);
        bytes.extend_from_slice(&self.prev_hash.map_or([0; 32], |hash| hash.0));
        bytes.extend_from_slice(&self.public_key.0);
        bytes.extend_from_slice(&self.signature.0);
        bytes
    }

    /// The hash of the record in the tree.
    #[must_use]
    pub fn hash(&self) -> TreeHash {
        TreeHash::leaf(&self.to_bytes())
    }

    /// Verifies that `public_key` signed `curr_hash`. It needs no row.
    ///
    /// # Errors
    /// Why the signature is not valid.
    pub fn verify(&self, verifier: &mut Verifier) -> Result<(), SignatureError> {
        verifier.verify(&self.public_key, &dsse::pae(dsse::SPAN, self.curr_hash.as_bytes()), &self.signature)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<16>()?;
        let (seq, rest) = rest.split_first_chunk::<4>()?;
        let (curr_hash, rest) = rest.split_first_chunk::<32>()?;
        let (prev_hash, rest) = rest.split_first_chunk::<32>()?;
        let (public_key, signature) = rest.split_first_chunk::<32>()?;
        Some(Self {
            id: Uuid::from_bytes(*id),
            seq: u32::from_be_bytes(*seq),
            curr_hash: Hash(*curr_hash),
            prev_hash: (*prev_hash != [0; 32]).then_some(Hash(*prev_hash)),
            public_key: PublicKey(*public_key),
            signature: Signature(signature.try_into().ok()?),
        })
    }
}

impl Entry {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`EntryError`] if it is of an unknown kind, or of the wrong length.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        let length = EntryError::Length { found: bytes.len() };
        match bytes.split_first().ok_or(length)? {
            (&SPAN, rest) => Leaf::parse(rest).map(Self::Span).ok_or(length),
            (&CONTINUES, checkpoint) => Ok(Self::Continues(checkpoint.to_vec())),
            (kind, _) => Err(EntryError::Kind { kind: *kind }),
        }
    }

    /// The bytes of the entry.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Span(leaf) => leaf.to_bytes(),
            Self::Continues(checkpoint) => [&[CONTINUES], checkpoint.as_slice()].concat(),
        }
    }
}
