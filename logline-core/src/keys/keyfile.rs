//! Key pairs in files.
//!
//! A key file has one line with `logline-ed25519-secret-v1:` and the 64 hex digits of the RFC 8032 secret. Lines that start
//! with `#` are comments. A new file has its public key in a comment. On Unix, files are created with mode 0600, and a file
//! that others may read, or that another user owns, is refused.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::keys::{KeyPair, Signer as _};
use crate::value::hex::{self, HexError};
use crate::value::new_file;

const PREFIX: &str = "logline-ed25519-secret-v1:";

/// The largest size of a key file.
const MAX_BYTES: u64 = 4096;

/// What to do after an error of the operating system.
fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => ": check the path; `logline keygen` and `KeyPair::load_or_create` make a key",
        std::io::ErrorKind::AlreadyExists => ": it is not overwritten, so choose another path",
        std::io::ErrorKind::PermissionDenied => ": run as the user who owns it",
        _ => "",
    }
}

/// Why a key file could not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file could not be read or written.
    #[error("key file {}: {source}{}", path.display(), advice(source))]
    Io {
        /// The path of the key file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file's mode lets others read the secret.
    #[error("key file {} may be read by others (mode {mode:o}): run chmod 600 on it, and replace the key if it leaked", path.display())]
    Exposed {
        /// The path of the key file.
        path: PathBuf,
        /// The permission bits of the file.
        mode: u32,
    },
    /// Another user owns the file, and could read or replace the key.
    #[error("key file {} belongs to user {owner}, and this process runs as user {user}: run chown on it, or copy it", path.display())]
    Foreign {
        /// The path of the key file.
        path: PathBuf,
        /// The id of the user who owns the file.
        owner: u32,
        /// The id of the user who runs this process.
        user: u32,
    },
    /// The text in the file is not a key.
    #[error("key file {}: {source}", path.display())]
    Malformed {
        /// The path of the key file.
        path: PathBuf,
        /// What is wrong with the text.
        source: KeyTextError,
    },
    /// The operating system gave no random bytes for a new key.
    #[error("the system gave no random bytes for a new key: {0}")]
    Random(getrandom::Error),
}

/// Why a text is not a secret key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyTextError {
    /// The text has no line with a key.
    #[error("no line starts with `{PREFIX}`: make a key with `logline keygen`")]
    NoKey,
    /// The text has more than one key.
    #[error("two keys: a key file holds exactly one")]
    TwoKeys,
    /// A line is neither a comment nor a key.
    #[error("line {line} is neither a comment nor a key")]
    UnknownLine {
        /// The number of the line, counted from 1.
        line: usize,
    },
    /// The digits of the key are wrong. The error does not contain them, because they are secret.
    #[error("the key {0}")]
    Digits(HexErrorKind),
    /// The file is larger than a key file may be, or is not UTF-8 text.
    #[error("it is not utf-8 text of at most {MAX_BYTES} bytes")]
    NotText,
}

/// What is wrong with the digits of a secret, without the digits themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HexErrorKind {
    /// There are not exactly 64 digits.
    #[error("does not have 64 hex digits")]
    Length,
    /// A character is not one of 0-9 and a-f.
    #[error("has a character outside 0-9 and a-f")]
    Digit,
}

impl KeyPair {
    /// Reads the text of a key file.
    ///
    /// # Errors
    /// [`KeyTextError`], which never contains secret digits.
    pub fn from_text(text: &str) -> Result<Self, KeyTextError> {
        let mut found = None;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let digits = line.strip_prefix(PREFIX).ok_or(KeyTextError::UnknownLine { line: index + 1 })?;
            let seed = Zeroizing::new(hex::decode::<32>(digits).map_err(|e| match e {
                HexError::Length { .. } => KeyTextError::Digits(HexErrorKind::Length),
                HexError::Digit { .. } => KeyTextError::Digits(HexErrorKind::Digit),
            })?);
            if found.replace(KeyPair::from_seed(&seed)).is_some() {
                return Err(KeyTextError::TwoKeys);
            }
        }
        found.ok_or(KeyTextError::NoKey)
    }

    /// The text of a key file for this key. The text is wiped from memory when it is dropped.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        // The full size is allocated first. A buffer that grows would leave copies of the secret in memory.
        let mut text = Zeroizing::new(String::with_capacity(512));
        text.push_str("# public key ");
        text.push_str(&self.public_key().to_string());
        text.push_str("\n# Anyone who has this file can sign as its owner.\n");
        text.push_str(PREFIX);
        let digits = Zeroizing::new(hex::encode(self.seed().as_slice()));
        text.push_str(&digits);
        text.push('\n');
        text
    }

    /// Loads the key file at `path`.
    ///
    /// # Errors
    /// If the file cannot be read, is malformed, may be read by others than its owner, or belongs to a user who is neither this
    /// one nor root.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        let io = |source| KeyFileError::Io { path: path.to_owned(), source };
        // A pipe would wait for somebody to write into it.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(io(std::io::Error::other("it is not a regular file")));
        }
        let file = File::open(path).map_err(io)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let found = file.metadata().map_err(io)?;
            let mode = found.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
            }
            if let Some((owner, user)) = new_file::foreign_owner(&found) {
                return Err(KeyFileError::Foreign { path: path.to_owned(), owner, user });
            }
        }
        let malformed = |source| KeyFileError::Malformed { path: path.to_owned(), source };
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES as usize + 1));
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        let text = std::str::from_utf8(&bytes).ok().filter(|t| t.len() as u64 <= MAX_BYTES);
        KeyPair::from_text(text.ok_or_else(|| malformed(KeyTextError::NotText))?).map_err(malformed)
    }

    /// Writes a new key file with mode 0600 and syncs it to disk.
    ///
    /// # Errors
    /// If the file cannot be written, or exists already. A file that exists is never overwritten.
    pub fn save_new(&self, path: impl AsRef<Path>) -> Result<(), KeyFileError> {
        let path = path.as_ref();
        let io = |source| KeyFileError::Io { path: path.to_owned(), source };
        new_file::write_new(path, 0o600, self.to_text().as_bytes()).map_err(io)
    }

    /// Loads the key at `path`. If there is no file, it makes a new key and saves it there. The flag is true if the key is new.
    ///
    /// # Errors
    /// The errors of [`KeyPair::load`] and [`KeyPair::save_new`], and [`KeyFileError::Random`].
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<(Self, bool), KeyFileError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(KeyFileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                let key = Self::generate().map_err(KeyFileError::Random)?;
                match key.save_new(path) {
                    // Another process has created the file in the meantime: use its key.
                    Err(KeyFileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                        Self::load(path).map(|key| (key, false))
                    }
                    saved => saved.map(|()| (key, true)),
                }
            }
            loaded => loaded.map(|key| (key, false)),
        }
    }
}
