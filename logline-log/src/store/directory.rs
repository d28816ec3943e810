//! Both stores in folders of a local disk.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::{MAX_OBJECT, StoreError, check_name};

/// A folder as a store. Files are written beside, synced, and renamed or linked; then the folder is synced. Several processes may use
/// one folder, if the file system has locks and links (local disks do, and NFS from version 4).
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
}

/// The folder for files that are being written. Its name is not one that an object can have.
const PARTS: &str = ".parts";

impl Directory {
    /// The store in this folder, which is made when something is written.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, name: &str) -> Result<PathBuf, StoreError> {
        check_name(name)?;
        Ok(self.root.join(name))
    }

    /// Reads an object at once, without `await`: for tools that have no runtime. Only a regular file is read, or one that a symbolic link
    /// leads to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read_now(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(name)?;
        let read = || {
            let mut bytes = Vec::new();
            open_regular(&path)?.take(MAX_OBJECT + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > MAX_OBJECT { Err(io::Error::other("it is larger than 17 MiB")) } else { Ok(bytes) }
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(StoreError::Unreadable { name: name.to_owned(), reason: error.to_string() })
            }
            Err(error) => Err(unavailable(name, &error)),
        }
    }

    /// Writes an object that never changes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn create_now(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(name)?;
        // Most repeated writes are seen here, without another file.
        if let Some(found) = self.read_now(name)? {
            if found != bytes {
                return Err(StoreError::Different { name: name.to_owned() });
            }
            // Whoever wrote it may have crashed before its name was durable.
            return sync_folder(&path).map_err(|error| unavailable(name, &error));
        }
        let linked = self.write_beside(name, bytes).and_then(|beside| {
            let linked = fs::hard_link(&beside, &path);
            fs::remove_file(&beside)?;
            linked.and_then(|()| sync_folder(&path))
        });
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match self.read_now(name)? {
                Some(found) if found == bytes => Ok(()),
                _ => Err(StoreError::Different { name: name.to_owned() }),
            },
            linked => linked.map_err(|error| unavailable(name, &error)),
        }
    }

    /// Writes an object in the place of an earlier one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn replace_now(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(name)?;
        let replaced =
            self.write_beside(name, bytes).and_then(|beside| fs::rename(beside, &path)).and_then(|()| sync_folder(&path));
        replaced.map_err(|error| unavailable(name, &error))
    }

    /// Writes a file that nobody reads yet, and makes it durable. The folders of `name` exist afterwards.
    fn write_beside(&self, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        let parts = self.root.join(PARTS);
        fs::create_dir_all(&parts)?;
        if let Some(folder) = self.root.join(name).parent() {
            make_folders(&self.root, folder)?;
        }
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let beside = parts.join(format!("{:016x}-{number}", u64::from_be_bytes(random)));
        let written = File::options().write(true).create_new(true).open(&beside).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        if let Err(error) = written {
            // A full disk must not fill up with halves.
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
        Ok(beside)
    }

    #[cfg(feature = "tokio")]
    fn list_now(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        names(&self.path(folder)?).map_err(|error| unavailable(folder, &error))
    }

    /// A folder that cannot be read is an error, because it would look as if it were new.
    #[cfg(feature = "tokio")]
    fn is_empty_now(&self) -> Result<bool, StoreError> {
        let named = |error: io::Error| unavailable(&self.root.display().to_string(), &error);
        // What begins with a point is the store's own.
        Ok(names(&self.root).map_err(named)?.iter().all(|name| name.starts_with('.')))
    }

    #[cfg(feature = "tokio")]
    fn remove_now(&self, folder: &str) -> Result<(), StoreError> {
        match fs::remove_dir_all(self.path(folder)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unavailable(folder, &error)),
            _ => Ok(()),
        }
    }

    #[cfg(feature = "tokio")]
    fn swap_now(&self, name: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, StoreError> {
        check_name(name)?;
        let locked = || {
            fs::create_dir_all(&self.root)?;
            let file = File::options().create(true).truncate(false).write(true).open(self.root.join(".lock"))?;
            file.lock()?;
            Ok(file)
        };
        // INVARIANT: held from before the comparison until after the write. It ends with the process.
        let lock = locked().map_err(|error: io::Error| unavailable(name, &error))?;
        if self.read_now(name)?.as_deref() != old {
            return Ok(false);
        }
        self.replace_now(name, new)?;
        drop(lock);
        Ok(true)
    }
}

/// Opens a file that has an end. The files of a log may have been made by whoever is audited: a pipe would block forever, and a device may
/// have side effects.
fn open_regular(path: &Path) -> io::Result<File> {
    let refused = || io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file");
    if !fs::metadata(path)?.is_file() {
        return Err(refused());
    }
    let mut options = File::options();
    #[cfg(unix)]
    {
        // It may be replaced by a pipe after it was looked at.
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    let file = options.read(true).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(refused()) }
}

/// What is in a folder; nothing if there is none.
#[cfg(feature = "tokio")]
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn unavailable(name: &str, error: &io::Error) -> StoreError {
    StoreError::Unavailable { name: name.to_owned(), reason: error.to_string() }
}

/// Makes a rename or a link in the folder of `path` durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Makes folders below `root`, each of them durable in the one above.
fn make_folders(root: &Path, folder: &Path) -> io::Result<()> {
    if folder == root || folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folders(root, above)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_folder(folder),
    }
}

#[cfg(feature = "tokio")]
mod waiting {
    //! The same without blocking the runtime.

    use async_trait::async_trait;

    use super::{Directory, StoreError};
    use crate::store::{LockStore, TileStore};

    impl Directory {
        async fn blocking<T: Send + 'static>(
            &self,
            name: &str,
            work: impl FnOnce(&Self, &str) -> Result<T, StoreError> + Send + 'static,
        ) -> Result<T, StoreError> {
            let (store, name) = (self.clone(), name.to_owned());
            let failed = StoreError::Unavailable { name: name.clone(), reason: "the task that writes was ended".to_owned() };
            tokio::task::spawn_blocking(move || work(&store, &name)).await.unwrap_or(Err(failed))
        }
    }

    #[async_trait]
    impl TileStore for Directory {
        async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
            self.blocking(name, Self::read_now).await
        }

        async fn create(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
            let bytes = bytes.to_vec();
            self.blocking(name, move |store, name| store.create_now(name, &bytes)).await
        }

        async fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
            let bytes = bytes.to_vec();
            self.blocking(name, move |store, name| store.replace_now(name, &bytes)).await
        }

        async fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
            self.blocking(folder, Self::list_now).await
        }

        async fn remove(&self, folder: &str) -> Result<(), StoreError> {
            self.blocking(folder, Self::remove_now).await
        }
    }

    #[async_trait]
    impl LockStore for Directory {
        async fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
            self.blocking(name, Self::read_now).await
        }

        async fn is_empty(&self) -> Result<bool, StoreError> {
            self.blocking(".", |store, _| store.is_empty_now()).await
        }

        async fn swap(&self, name: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, StoreError> {
            let (old, new) = (old.map(<[u8]>::to_vec), new.to_vec());
            self.blocking(name, move |store, name| store.swap_now(name, old.as_deref(), &new)).await
        }
    }
}
