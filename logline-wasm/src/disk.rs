//! A cache of machine code in files, so that modules need not be compiled again after a restart.
//!
//! A file holds a MAC and machine code ([`Sealed`]). A file with an invalid MAC (a flipped bit, code for another engine, a file
//! from somebody else) is not loaded. It is overwritten when the module has been compiled again.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use logline_core::Hash;
use wasmtime::Engine;

use crate::artifact::{Artifact, CacheKey, Sealed};

/// The most bytes of all files together. If there are more, the files that were written first are removed.
const MAX_BYTES: u64 = 1 << 30;

/// The largest file that is read, bytes.
const MAX_FILE: u64 = 256 << 20;

pub(crate) struct Disk {
    folder: PathBuf,
    key: CacheKey,
    /// A hash of the machine, the settings and the version of wasmtime. The machine code of a module depends on each of them.
    engine: Hash,
}

impl Disk {
    /// Opens a cache in this folder. If the folder is missing, it is made with mode 700.
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
                let message = format!(
                    "`{}` must belong to this user, and no other user may write to it: set its owner, and mode 700",
                    folder.display()
                );
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
            }
        }
        Ok(Self { folder, key, engine: compatibility(engine) })
    }

    fn path(&self, code: &Hash) -> PathBuf {
        self.folder.join(format!("{code}.logline"))
    }

    /// Loads the machine code for this code. `None` if there is no file, or it was not sealed with this key for this engine.
    pub(crate) fn load<T>(&self, code: &Hash, load: impl FnOnce(Artifact<'_>) -> wasmtime::Result<T>) -> Option<T> {
        let path = self.path(code);
        // The file is read once. The MAC and the code come from the same bytes, so a later change of the file has no effect.
        let sealed = read(&path).ok()??;
        let Some(artifact) = Sealed::open(&self.key, &self.engine, code, &sealed) else {
            tracing::warn!(path = %path.display(), "cached machine code is not from this host and engine: compiling again");
            return None;
        };
        let loaded = load(artifact);
        loaded.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "cached machine code cannot be loaded")).ok()
    }

    /// Stores machine code. If that fails, it is only logged: without a file, the module is compiled again.
    pub(crate) fn store(&self, code: &Hash, serialize: impl FnOnce() -> wasmtime::Result<Vec<u8>>) {
        let stored = || -> io::Result<()> {
            let artifact = serialize().map_err(|e| io::Error::other(format!("{e:#}")))?;
            let sealed = Sealed::seal(&self.key, &self.engine, code, &artifact);
            self.make_room(sealed.len() as u64)?;
            // The rename makes the whole file visible at once, also if other processes write to the folder.
            let unique = format!("{code}.{}.{:?}.new", std::process::id(), std::thread::current().id());
            let new = self.folder.join(unique);
            // A process that was killed may have left this file.
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

/// Options that make files with mode 600, do not follow a symbolic link at the path, and do not block if the path is a pipe.
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

/// The bytes of a file. `None` if the path is not a regular file, or the file is too large.
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
        // Another process has removed it already.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A hash of everything that machine code depends on, besides the module.
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
