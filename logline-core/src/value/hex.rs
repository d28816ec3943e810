//! Lower-case hexadecimal, the only text form of hashes, keys and signatures in a ledger.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Why a text is not lower-case hexadecimal of the expected length.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HexError {
    /// The text has the wrong number of characters.
    #[error("has {found} characters, expected {expected} lower-case hex digits")]
    Length {
        /// The number of characters that is expected, two for each byte.
        expected: usize,
        /// The number of characters that the text has.
        found: usize,
    },
    /// A character is not one of `0-9a-f`. Upper case is refused because the canonical form has only one spelling.
    #[error("has `{found}` at character {at}: only 0-9 and a-f are allowed")]
    Digit {
        /// The position of the character, counted from 0.
        at: usize,
        /// The character at this position.
        found: char,
    },
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

pub(crate) fn push(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        let high = DIGITS.get(usize::from(byte >> 4)).copied().unwrap_or(b'0');
        let low = DIGITS.get(usize::from(byte & 15)).copied().unwrap_or(b'0');
        out.push(high);
        out.push(low);
    }
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    push(bytes, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

pub(crate) fn decode<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    if let Some((at, found)) = text.char_indices().find(|(_, c)| !matches!(c, '0'..='9' | 'a'..='f')) {
        return Err(HexError::Digit { at, found });
    }
    if text.len() != N * 2 {
        return Err(HexError::Length { expected: N * 2, found: text.len() });
    }
    let value = |digit: u8| if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        if let [high, low] = *pair {
            *byte = value(high) << 4 | value(low);
        }
    }
    Ok(bytes)
}

/// Declares a fixed-size byte string whose text form is lower-case hexadecimal.
macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The raw bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Appends the hex digits to `out`.
            pub fn write_to(&self, out: &mut Vec<u8>) {
                push(&self.0, out);
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), encode(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = HexError;

            fn from_str(text: &str) -> Result<Self, HexError> {
                decode(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(|e| serde::de::Error::custom(format_args!("`{text}` {e}")))
            }
        }
    };
}

hex_bytes! {
    /// A BLAKE3-256 hash; 64 hex digits as text.
    Hash, 32
}
hex_bytes! {
    /// An Ed25519 public key as a row stores it; 64 hex digits as text.
    ///
    /// The value may be any 32 bytes. Weak and non-canonical keys are refused when a signature is verified with them.
    PublicKey, 32
}
hex_bytes! {
    /// An Ed25519 signature; 128 hex digits as text.
    Signature, 64
}

impl Hash {
    /// The BLAKE3-256 hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}
