//! Where the tenants' keys for memories are: in files of the home, or in a key management service.

use std::path::Path;
use std::str::FromStr;

use logline_core::contract::KeyStore;
use logline_memory::{LocalKeys, Vault};

use crate::Error;

/// The place of the tenants' keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Place {
    /// The folder `tenants` of the home.
    #[default]
    Files,
    /// AWS KMS, with aliases that begin with `alias/PREFIX/`.
    Kms(String),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "files" => Ok(Self::Files),
            Some(("kms", prefix)) if !prefix.is_empty() => Ok(Self::Kms(prefix.to_owned())),
            _ => Err("write `files`, or `kms:PREFIX` for keys of AWS KMS whose aliases begin with `alias/PREFIX/`".to_owned()),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Files => f.write_str("files"),
            Self::Kms(prefix) => write!(f, "kms:{prefix}"),
        }
    }
}

impl Place {
    /// A vault with the keys at this place. `folder` is that of the files.
    pub(crate) async fn vault(&self, folder: Option<&Path>, store: impl KeyStore + 'static) -> Result<Vault, Error> {
        match self {
            Self::Files => {
                let folder =
                    folder.ok_or("the keys of memories are in the home: pass --home DIR, or --memory-keys kms:PREFIX")?;
                Ok(Vault::new(LocalKeys::open(folder)?, store))
            }
            Self::Kms(prefix) => in_kms(prefix, store).await,
        }
    }
}

#[cfg(feature = "kms")]
async fn in_kms(prefix: &str, store: impl KeyStore + 'static) -> Result<Vault, Error> {
    Ok(Vault::new(logline_kms::KmsKeys::from_env().await?.prefix(prefix)?, store))
}

#[cfg(not(feature = "kms"))]
async fn in_kms(_: &str, _: impl KeyStore + 'static) -> Result<Vault, Error> {
    Err("this tool was built without AWS KMS: build it with `cargo install logline-cli --features kms`".into())
}
