//! Machine code in files, so that a restart need not compile again.
//!
//! A file is a MAC and machine code ([`Sealed`]). Whatever else stands in the folder (a flipped bit, another engine's code, a file
//! that somebody has put there) is not loaded, and overwritten when the module has been compiled again.

use std::fs;
use std::io::{self, Read as _, Write as _};
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
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            let found = fs::metadata(&folder)?;
            if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0 {
                let message = format!("others may write to {}: it must be this user's, with mode 700", folder.display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
            }
        }
        Ok(Self { folder, key, engine: compatibility(engine) })
    }

    fn path(&self, code: &Hash) -> PathBuf {
        self.folder.join(format!("{code}.logline"))
    }

    /// What was kept for this code, if it stands here as this key has sealed it.
    pub(crate) fn load<T>(&self, code: &Hash, load: impl FnOnce(Artifact<'_>) -> wasmtime::Result<T>) -> Option<T> {
        let path = self.path(code);
        // Read once and then only looked at in memory: who changes the file meanwhile changes nothing.
        let sealed = read(&path).ok()??;
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
            // Left by a process that was killed, if it is there.
            remove(&new)?;
            private().create_new(true).write(true).open(&new)?.write_all(&sealed)?;
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
            if !metadata.is_file() {
                continue;
            }
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

/// Files for their owner only. What stands there is opened, not what a link points to, and a pipe is not waited for.
fn private() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(flags.bits().cast_signed());
    }
    options
}

/// All of a file, unless it is none or too large.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = private().read(true).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.len() > MAX_FILE {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= MAX_FILE))
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
