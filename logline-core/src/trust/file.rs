//! Trust roots in files.

use std::io::{self, Read as _};
use std::path::Path;

use crate::trust::{TrustError, TrustRoot};
use crate::value::new_file;

/// The largest size of the file.
const MAX_BYTES: u64 = 1 << 20;

impl TrustRoot {
    /// Loads a trust root: a JSON object of `manifest_id`, `keys` and `threshold`, and `min_version` if it is not 0. The keys are
    /// checked as by [`TrustRoot::check`].
    ///
    /// # Errors
    /// [`TrustError::File`], which names the file, if it cannot be read or is malformed. The errors of [`TrustRoot::check`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, TrustError> {
        let path = path.as_ref();
        let failed = |reason: String| TrustError::File { path: path.to_owned(), reason };
        let found = std::fs::metadata(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                failed("there is no such file: check the path; `logline init` makes one for a new ledger".to_owned())
            }
            _ => failed(e.to_string()),
        })?;
        if !found.is_file() {
            return Err(failed("it is not a regular file".to_owned()));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            if new_file::foreign_owner(&found).is_some() || found.permissions().mode() & 0o022 != 0 {
                let reason =
                    "others may write it, and so decide whom this host trusts: run chmod go-w, and chown to this user or root";
                return Err(failed(reason.to_owned()));
            }
        }
        let file = std::fs::File::open(path).map_err(|e| failed(e.to_string()))?;
        let mut text = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(|e| failed(e.to_string()))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(failed(format!("it has more than {MAX_BYTES} bytes")));
        }
        let root: Self = serde_json::from_slice(&text).map_err(|e| {
            failed(format!("{e}; a trust root is `{{\"manifest_id\": …, \"keys\": [\"PUBLIC KEY\"], \"threshold\": 1}}`"))
        })?;
        root.check()?;
        Ok(root)
    }

    /// Writes a new file that everybody may read and only its owner may write, and syncs it to disk.
    ///
    /// # Errors
    /// If the file cannot be written, or exists already ([`io::ErrorKind::AlreadyExists`]). A file that exists is never overwritten.
    pub fn save_new(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        new_file::write_new(path.as_ref(), 0o644, &text)
    }
}

#[cfg(test)]
mod tests {
    use crate::keys::{KeyPair, Signer as _};

    use super::*;

    #[test]
    fn a_trust_root_is_read_from_its_file_and_what_is_wrong_is_told_with_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trust.json");
        let root = TrustRoot::new([KeyPair::from_seed(&[1; 32]).public_key()], 1);
        root.save_new(&file).unwrap();
        assert_eq!(root.save_new(&file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(TrustRoot::load(&file).unwrap(), root);
        for (text, told) in [("", "EOF"), ("{}", "manifest_id"), ("[1]", "a trust root is"), ("\u{feff}{}", "expected value")] {
            std::fs::write(&file, text).unwrap();
            let error = TrustRoot::load(&file).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains("trust.json"), "{error}");
        }
        let missing = TrustRoot::load(folder.path().join("none.json")).unwrap_err().to_string();
        assert!(missing.contains("none.json") && missing.contains("no such file"), "{missing}");
        let threshold = TrustRoot { threshold: 2, ..root };
        std::fs::write(&file, serde_json::to_vec(&threshold).unwrap()).unwrap();
        assert!(matches!(TrustRoot::load(&file), Err(TrustError::Threshold { .. })));
    }
}
