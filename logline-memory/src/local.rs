//! Keys of tenants in a folder of this machine.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use logline_core::contract::{DataKey, Destruction, KeyError, KeyProvider};
use logline_core::{Hash, new_file};
use zeroize::Zeroizing;

use crate::wrap;

const PREFIX: &str = "logline-tenant-key-v1:";

/// Keys of tenants as files in one folder, readable by this user alone: `TENANT/epoch-N.key`, where `TENANT` is a hash of the tenant's
/// name. For one machine, or a folder that all hosts of a service mount.
///
/// To destroy a key, its file is overwritten and removed, and `epoch-N.gone` remains. What a disk keeps of overwritten blocks, and what a
/// backup of this folder keeps, is not destroyed: **never back this folder up together with ledger or side store**, and use a key
/// management service where that cannot be promised.
#[derive(Debug, Clone)]
pub struct LocalKeys {
    folder: PathBuf,
}

impl LocalKeys {
    /// Keeps keys in this folder. It is made with the first key.
    ///
    /// # Errors
    /// [`KeyError::Refused`] if others may read the folder, or another user owns it; [`KeyError::Unavailable`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, KeyError> {
        let folder = folder.as_ref().to_owned();
        let found = match fs::metadata(&folder) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self { folder }),
            Err(e) => return Err(unavailable(&folder, &e)),
        };
        let refused = |what: &str| Err(KeyError::Refused { reason: format!("{}: {what}", folder.display()) });
        if !found.is_dir() {
            return refused("it is not a folder");
        }
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777;
            if mode & 0o077 != 0 {
                return refused(&format!("others may read the keys in it (mode {mode:o}): run chmod 700 on it"));
            }
            if new_file::foreign_owner(&found).is_some() {
                return refused("it belongs to another user, who could read or replace the keys: run chown on it");
            }
        }
        Ok(Self { folder })
    }

    fn file(&self, tenant: &str, epoch: u64, ending: &str) -> PathBuf {
        self.folder.join(Hash::of(tenant.as_bytes()).to_string()).join(format!("epoch-{epoch}.{ending}"))
    }

    fn key(&self, tenant: &str, epoch: u64) -> Result<DataKey, KeyError> {
        let path = self.file(tenant, epoch, "key");
        let text = match File::open(&path) {
            Ok(file) => {
                #[cfg(unix)]
                {
                    let found = file.metadata().map_err(|e| unavailable(&path, &e))?;
                    let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777;
                    if mode & 0o077 != 0 || new_file::foreign_owner(&found).is_some() {
                        let reason = format!("{}: others may read the key: run chmod 600 and chown on it", path.display());
                        return Err(KeyError::Refused { reason });
                    }
                }
                let mut text = Zeroizing::new(String::with_capacity(128));
                file.take(256).read_to_string(&mut text).map_err(|e| match e.kind() {
                    io::ErrorKind::InvalidData => {
                        KeyError::Refused { reason: format!("{} is damaged: restore the file", path.display()) }
                    }
                    _ => unavailable(&path, &e),
                })?;
                text
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let tenant = tenant.to_owned();
                return Err(match self.file(&tenant, epoch, "gone").exists() {
                    true => KeyError::Destroyed { tenant, epoch },
                    false => KeyError::Missing { tenant, epoch },
                });
            }
            Err(e) => return Err(unavailable(&path, &e)),
        };
        let damaged = || KeyError::Refused { reason: format!("{} is damaged: restore the file", path.display()) };
        let digits = text.trim_end().strip_prefix(PREFIX).ok_or_else(damaged)?;
        // A hash has the form of a key: 64 hexadecimal digits.
        let bytes = digits.parse::<Hash>().map_err(|_| damaged())?;
        let bytes = Zeroizing::new(bytes.0);
        Ok(DataKey::new(*bytes))
    }

    /// Runs blocking work on files. It is short, and there may be no runtime that could do it elsewhere.
    fn destroy(&self, tenant: &str, epoch: u64) -> Result<(), KeyError> {
        let (key, gone) = (self.file(tenant, epoch, "key"), self.file(tenant, epoch, "gone"));
        if let Some(folder) = gone.parent() {
            make(folder)?;
        }
        // First the mark, so that a crash in between leaves a key that the next call destroys, and never an epoch that begins again.
        match new_file::write_new(&gone, 0o600, b"") {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(unavailable(&gone, &e)),
            _ => {}
        }
        match overwrite(&key) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(unavailable(&key, &e)),
            _ => Ok(()),
        }
    }
}

/// Overwrites a file, makes that durable, and removes it.
fn overwrite(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    file.rewind()?;
    file.write_all(&vec![0; bytes])?;
    file.sync_all()?;
    drop(file);
    fs::remove_file(path)?;
    if let Some(folder) = path.parent().filter(|_| cfg!(unix)) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn make(folder: &Path) -> Result<(), KeyError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|e| unavailable(folder, &e))
}

fn unavailable(path: &Path, error: &io::Error) -> KeyError {
    KeyError::Unavailable { reason: format!("{}: {error}", path.display()) }
}

#[async_trait]
impl KeyProvider for LocalKeys {
    async fn open_epoch(&self, tenant: &str, epoch: u64) -> Result<(), KeyError> {
        if self.file(tenant, epoch, "gone").exists() {
            return Err(KeyError::Destroyed { tenant: tenant.to_owned(), epoch });
        }
        let path = self.file(tenant, epoch, "key");
        if path.exists() {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            make(folder)?;
        }
        let key = DataKey::random()?;
        let text = Zeroizing::new(format!("{PREFIX}{}\n", Hash(*key.reveal())));
        match new_file::write_new(&path, 0o600, text.as_bytes()) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(unavailable(&path, &e)),
            _ => Ok(()),
        }
    }

    async fn wrap(&self, tenant: &str, epoch: u64, context: &str, key: &DataKey) -> Result<Vec<u8>, KeyError> {
        let epoch_key = self.key(tenant, epoch)?;
        wrap::wrap(&epoch_key, &[tenant.as_bytes(), &epoch.to_be_bytes(), context.as_bytes()], key)
    }

    async fn unwrap(&self, tenant: &str, epoch: u64, context: &str, wrapped: &[u8]) -> Result<DataKey, KeyError> {
        let epoch_key = self.key(tenant, epoch)?;
        wrap::unwrap(&epoch_key, &[tenant.as_bytes(), &epoch.to_be_bytes(), context.as_bytes()], wrapped)
    }

    async fn destroy_epoch(&self, tenant: &str, epoch: u64) -> Result<Destruction, KeyError> {
        self.destroy(tenant, epoch).map(|()| Destruction::Done)
    }
}
