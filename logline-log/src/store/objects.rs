//! Both stores in a bucket: S3, Google Cloud Storage, Azure, or whatever else the crate `object_store` can reach.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, UpdateVersion};

use crate::store::{LockStore, MAX_OBJECT, StoreError, TileStore, check_name};

/// A bucket as a store. For a part of a bucket wrap it in `object_store::prefix::PrefixStore`.
///
/// As a [`TileStore`] it needs a store with conditional creation, as a [`LockStore`] one that also replaces an object only if it is still
/// the version that was read. S3, Google Cloud Storage and Azure have both; a local folder has only the first, so take
/// [`Directory`](crate::store::Directory) there. A store that cannot do it is refused when it is first asked: [`StoreError::Unfit`].
///
/// The lock store must keep no versions that somebody could restore, and be readable by the log alone.
#[derive(Debug, Clone)]
pub struct Bucket {
    objects: Arc<dyn ObjectStore>,
}

/// Bytes, and which version of the object they are.
type Found = (Vec<u8>, UpdateVersion);

impl Bucket {
    /// The store in this bucket.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects }
    }

    async fn find(&self, name: &str) -> Result<Option<Found>, StoreError> {
        let found = match self.objects.get(&path(name)?).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(|error| failed(name, &error))?,
        };
        let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let mut parts = found.into_stream();
        let mut bytes = Vec::new();
        while let Some(part) = parts.try_next().await.map_err(|error| failed(name, &error))? {
            bytes.extend_from_slice(&part);
            if bytes.len() as u64 > MAX_OBJECT {
                return Err(StoreError::Unavailable { name: name.to_owned(), reason: "it is larger than 17 MiB".to_owned() });
            }
        }
        Ok(Some((bytes, version)))
    }

    /// Writes an object if that is allowed. Returns false if another was there.
    async fn put(&self, name: &str, bytes: &[u8], mode: PutMode) -> Result<bool, StoreError> {
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.objects.put_opts(&path(name)?, bytes.to_vec().into(), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed(name, &error)),
        }
    }
}

fn path(name: &str) -> Result<Path, StoreError> {
    check_name(name)?;
    Path::parse(name).map_err(|_| StoreError::Name { name: name.to_owned() })
}

fn failed(name: &str, error: &Error) -> StoreError {
    let (name, reason) = (name.to_owned(), error.to_string());
    match error {
        Error::NotImplemented { .. } | Error::NotSupported { .. } | Error::UnknownConfigurationKey { .. } => {
            StoreError::Unfit { name, reason }
        }
        _ => StoreError::Unavailable { name, reason },
    }
}

#[async_trait]
impl TileStore for Bucket {
    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.find(name).await?.map(|(bytes, _)| bytes))
    }

    async fn create(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        // A try whose answer was lost is not another writer: what counts is which bytes are there.
        if self.put(name, bytes, PutMode::Create).await? || self.read(name).await?.as_deref() == Some(bytes) {
            Ok(())
        } else {
            Err(StoreError::Different { name: name.to_owned() })
        }
    }

    async fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.put(name, bytes, PutMode::Overwrite).await.map(|_| ())
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let below = self.objects.list_with_delimiter(Some(&path(folder)?)).await.map_err(|error| failed(folder, &error))?;
        let objects = below.objects.into_iter().map(|object| object.location);
        let names = below.common_prefixes.into_iter().chain(objects);
        Ok(names.filter_map(|path| Some(path.filename()?.to_owned())).collect())
    }

    async fn remove(&self, folder: &str) -> Result<(), StoreError> {
        let below = self.objects.list(Some(&path(folder)?)).map_ok(|object| object.location).boxed();
        let mut removed = self.objects.delete_stream(below);
        while let Some(result) = removed.next().await {
            match result {
                Err(Error::NotFound { .. }) | Ok(_) => {}
                Err(error) => return Err(failed(folder, &error)),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl LockStore for Bucket {
    async fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(name).await
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        let first = self.objects.list(None).try_next().await;
        Ok(first.map_err(|error| failed("the bucket", &error))?.is_none())
    }

    async fn swap(&self, name: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, StoreError> {
        let mode = match (self.find(name).await?, old) {
            (None, None) => PutMode::Create,
            (Some((found, version)), Some(old)) if found == old => {
                if version.e_tag.is_none() && version.version.is_none() {
                    let reason = "it names no version of an object, so nothing can be compared and replaced".to_owned();
                    return Err(StoreError::Unfit { name: name.to_owned(), reason });
                }
                PutMode::Update(version)
            }
            _ => return Ok(false),
        };
        if self.put(name, new, mode).await? {
            return Ok(true);
        }
        // The client tries again by itself. Where the first try has stored it and its answer was lost, the second one finds it changed.
        Ok(self.read(name).await?.as_deref() == Some(new))
    }
}
