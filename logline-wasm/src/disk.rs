//! Machine code in files, so that a restart need not compile again.
//!
//! A file is a MAC and machine code ([`Sealed`]). Whatever else stands in the folder (a flipped bit, another engine's code, a file
//! that somebody has put there) is not loaded, and overwritten when the module has been compiled again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use logline_core::Hash;
use wasmtime::Engine;

use crate::artifact::{Artifact, CacheKey, Sealed};

/// Bytes of all files together; past it those go that were written first.
const MAX_BYTES: u64 = 1 << 30;

/// The largest file that is read.
const MAX_FILE: u64 = 256 << 20;

pub(crate) struct Disk {
    folder: PathBuf,
    key: CacheKey,
    /// Tells apart what the machine, the settings and the version of wasmtime make of the same module.
    engine: Hash,
}

impl Disk {
    /// A cache in this folder, which is made where it is missing, for its owner only.
    pub(crate) fn open(folder: PathBuf, key: CacheKey, engine: &Engine) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&folder)?;
        Ok(Self { folder, key, engine: compatibility(engine) })
    }

    fn path(&self, code: &Hash) -> PathBuf {
        self.folder.join(format!("{code}.logline"))
    }

    /// What was kept for this code, if it stands here as this key has sealed it.
    pub(crate) fn load<T>(&self, code: &Hash, load: impl FnOnce(Artifact<'_>) -> wasmtime::Result<T>) -> Option<T> {
        let path = self.path(code);
        if fs::metadata(&path).ok()?.len() > MAX_FILE {
            return None;
        }
        // Read once and then only looked at in memory: who changes the file meanwhile changes nothing.
        let sealed = fs::read(&path).ok()?;
        let Some(artifact) = Sealed::open(&self.key, &self.engine, code, &sealed) else {
            tracing::warn!(path = %path.display(), "cached machine code is not what this host has written for this engine: compiling again");
            return None;
        };
        let loaded = load(artifact);
        loaded.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "cached machine code cannot be loaded")).ok()
    }

    /// Keeps machine code. A cache that cannot be written is slow, not wrong.
    pub(crate) fn store(&self, code: &Hash, serialize: impl FnOnce() -> wasmtime::Result<Vec<u8>>) {
        let stored = || -> io::Result<()> {
            let artifact = serialize().map_err(|e| io::Error::other(format!("{e:#}")))?;
            let sealed = Sealed::seal(&self.key, &self.engine, code, &artifact);
            self.make_room(sealed.len() as u64)?;
            // Whole or not at all, also beside other processes.
            let unique = format!("{code}.{}.{:?}.new", std::process::id(), std::thread::current().id());
            let new = self.folder.join(unique);
            fs::write(&new, &sealed)?;
            fs::rename(&new, self.path(code))
        };
        if let Err(error) = stored() {
            tracing::warn!(folder = %self.folder.display(), %error, "compiled code could not be cached");
        }
    }

    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
        let mut total: u64 = files.iter().map(|(_, len, _)| len).sum();
        files.sort();
        for (_, len, path) in files {
            if total.saturating_add(bytes) <= MAX_BYTES {
                break;
            }
            remove(&path)?;
            total -= len;
        }
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        // Another process was faster.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A hash of everything on which machine code depends.
fn compatibility(engine: &Engine) -> Hash {
    struct Collect(Vec<u8>);

    impl std::hash::Hasher for Collect {
        fn finish(&self) -> u64 {
            0
        }

        fn write(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
    }

    let mut parts = Collect(Vec::new());
    std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut parts);
    Hash::of(&parts.0)
}
