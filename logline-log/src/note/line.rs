//! One line below a note.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::note::key::KeyName;
use crate::note::{MAX_SIGNATURES, NoteError};

/// A signature as its line has it: `— NAME BASE64`, where the bytes are four of the key's id and those of the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    name: KeyName,
    id: [u8; 4],
    signature: Vec<u8>,
}

impl NoteSignature {
    pub(super) fn new(name: KeyName, id: [u8; 4], signature: Vec<u8>) -> Self {
        Self { name, id, signature }
    }

    /// Reads lines of signatures, each with its line end, as they stand below a note and in the answer of a witness.
    ///
    /// # Errors
    /// [`NoteError::Malformed`] for the first line that is none, and for too many lines.
    pub fn parse_lines(text: &str) -> Result<Vec<Self>, NoteError> {
        let malformed = |reason| NoteError::Malformed { reason };
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let lines = text.strip_suffix('\n').ok_or_else(|| malformed("the last signature has no line end"))?;
        let parsed: Vec<_> = lines
            .split('\n')
            .take(MAX_SIGNATURES + 1)
            .map(Self::parse)
            .collect::<Option<_>>()
            .ok_or_else(|| malformed("a line below the text is not `— NAME BASE64`"))?;
        if parsed.len() > MAX_SIGNATURES {
            return Err(malformed("it has more than 100 signatures"));
        }
        Ok(parsed)
    }

    fn parse(line: &str) -> Option<Self> {
        let (name, text) = line.strip_prefix("— ")?.split_once(' ')?;
        let bytes = STANDARD.decode(text).ok()?;
        let (id, signature) = bytes.split_first_chunk::<4>()?;
        (!signature.is_empty()).then_some(Self { name: name.parse().ok()?, id: *id, signature: signature.to_vec() })
    }

    /// The name of the key that signed, as the line claims.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The id of the key that signed, as the line claims. It is a hint which key to verify with, not a proof.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    /// The bytes after the key's id. What they mean depends on the kind of the key.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }
}

/// The line, without its line end.
impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "— {} {}", self.name, STANDARD.encode([&self.id, self.signature.as_slice()].concat()))
    }
}
