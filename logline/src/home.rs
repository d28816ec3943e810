//! Where the keys and the trust root of a ledger are, and how they are made.
//!
//! | ledger | trust root | keys |
//! |---|---|---|
//! | a file `X` | `X.trust.json` | `X.keys/root.key`, `X.keys/publisher.key`, `X.keys/host.key`; `X.keys/secrets.json` says which secrets of providers there are |
//! | a database, with the folder `DIR` | `DIR/trust.json` | `DIR/keys/…` |
//!
//! In production these files are on different machines: the root keys and the publisher's key with the people who use them, the
//! trust root and a host's own key with the host.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use logline_core::ledger::{Ledger, LedgerError, Query};
use logline_core::roles::Role;
use logline_core::trust::{Authority, Manifest, RootSet, SkipReason, Skipped, TrustError, TrustRoot, Trusted};
use logline_core::{Clock, KernelSet, KeyFileError, KeyPair, MAX_NAME_BYTES, PublicKey, SYSTEM_TENANT, Scope, Signer as _};
use logline_kernels::{InstallError, Installed};
use thiserror::Error;

/// The folder of the keys in the folder of a home.
const KEYS: &str = "keys";

/// Where the keys and the trust root of a ledger are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    trust: PathBuf,
    keys: PathBuf,
}

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOf {
    /// A root key: it decides who may sign what.
    Root,
    /// The publisher's key: it signs functions, policies and kernels.
    Publisher,
    /// The host's key: it signs requests and what came out.
    Host,
}

impl KeyOf {
    const fn file(self) -> &'static str {
        match self {
            Self::Root => "root.key",
            Self::Publisher => "publisher.key",
            Self::Host => "host.key",
        }
    }
}

/// What [`Home::set_up`] makes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setup {
    /// The tenants of the publisher and the host; `*` means all of them. `None`: all for a new ledger, and those that it has for another.
    pub tenants: Option<Vec<String>>,
    /// Whether a manifest that exists is to allow kernels that it does not allow yet. Somebody may have left them out on purpose.
    pub adds_kernels: bool,
    /// Root keys that other people hold. The home's own root key is added.
    pub roots: Vec<PublicKey>,
    /// How many root keys must approve a manifest.
    pub threshold: u32,
}

impl Default for Setup {
    /// All tenants of a new ledger, and the home's own root key alone.
    fn default() -> Self {
        Self { tenants: None, adds_kernels: false, roots: Vec::new(), threshold: 1 }
    }
}

impl Setup {
    /// Sets the tenants of the publisher and the host.
    #[must_use]
    pub fn tenants<T: Into<String>>(mut self, tenants: impl IntoIterator<Item = T>) -> Self {
        self.tenants = Some(tenants.into_iter().map(Into::into).collect());
        self
    }

    /// Has a manifest that exists allow the kernels that it does not allow yet.
    #[must_use]
    pub fn add_kernels(mut self) -> Self {
        self.adds_kernels = true;
        self
    }

    /// Adds root keys of other people, and sets how many of all root keys must approve.
    #[must_use]
    pub fn roots(mut self, others: impl IntoIterator<Item = PublicKey>, threshold: u32) -> Self {
        (self.roots, self.threshold) = (others.into_iter().collect(), threshold);
        self
    }
}

impl Setup {
    /// The tenants that the keys of this home are to have: those that were named, or those of the keys that have been in their place.
    fn wanted(&self, current: &Manifest) -> Vec<String> {
        let of_all = || current.authorities.iter().filter(|a| matches!(a.role, Role::Publisher | Role::Runtime));
        let had = || {
            let names: BTreeSet<_> = of_all().flat_map(|authority| authority.tenants.iter().cloned()).collect();
            names.into_iter().filter(|name| name != SYSTEM_TENANT).collect()
        };
        self.tenants.clone().unwrap_or_else(had)
    }
}

/// What [`Home::set_up`] did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ready {
    /// The files that were made. What existed was not changed.
    pub made: Vec<PathBuf>,
    /// The pinned trust root.
    pub trust: TrustRoot,
    /// The version of the manifest that was published; `None` if the one in force says what is wanted.
    pub published: Option<u64>,
    /// The manifest in force; `None` if other root keys must approve the first one.
    pub trusted: Option<Box<Trusted>>,
    /// The kernels, each with whether it was installed now.
    pub kernels: Vec<Installed>,
}

/// Why a home could not be set up or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HomeError {
    /// The ledger has rows, but the home has no trust root.
    #[error("the ledger has rows, but there is no trust root {}: copy it there, or use another ledger", file.display())]
    NoTrustRoot {
        /// Where the trust root should be.
        file: PathBuf,
    },
    /// The home has another trust root than the one that was asked for.
    #[error("{} pins other root keys than those that were named: leave them out, or use another ledger", file.display())]
    OtherRoot {
        /// The file of the trust root.
        file: PathBuf,
    },
    /// The manifest must change, and the root key is not here.
    #[error("{}: there is no root key, and {why}: bring the root key here, or restore the missing key from a copy", file.display())]
    NeedsRoot {
        /// Where the root key should be.
        file: PathBuf,
        /// Why it is needed.
        why: String,
    },
    /// The name of a tenant cannot be used.
    #[error("`{name}` cannot be a tenant here: name a tenant of your own, or `*` for all")]
    Tenant {
        /// The name.
        name: String,
    },
    /// The manifest must change, and more than one root key must approve that.
    #[error(
        "the manifest does not name {missing}, and {threshold} root keys must approve the next one: publish it as docs/trust.md says"
    )]
    NeedsApproval {
        /// What it does not name.
        missing: String,
        /// How many root keys must approve.
        threshold: u32,
    },
    /// Others could exchange the keys.
    #[error("{} is not a folder that only its owner may write to, or another user owns it: run chmod 700 on it, or remove it", path.display())]
    Folder {
        /// The folder of the keys.
        path: PathBuf,
    },
    /// A file or a folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A key could not be read or made.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The trust root cannot be used, or no manifest counts.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A kernel could not be installed.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Home {
    /// The home of a ledger in the file `ledger`.
    #[must_use]
    pub fn beside(ledger: &Path) -> Self {
        let beside = |suffix: &str| {
            let mut name = ledger.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        Self { trust: beside(".trust.json"), keys: beside(".keys") }
    }

    /// The home in `folder`, of a ledger that is elsewhere.
    #[must_use]
    pub fn folder(folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        Self { trust: folder.join("trust.json"), keys: folder.join(KEYS) }
    }

    /// The file of the trust root.
    #[must_use]
    pub fn trust_file(&self) -> &Path {
        &self.trust
    }

    /// The file of a key.
    #[must_use]
    pub fn key_file(&self, of: KeyOf) -> PathBuf {
        self.keys.join(of.file())
    }

    /// The folder of the tenants' keys that protect memories.
    #[must_use]
    pub fn tenant_keys(&self) -> PathBuf {
        self.keys.join("tenants")
    }

    /// The file that says which secrets of providers there are (`HostSecrets::read`). It need not exist.
    #[must_use]
    pub fn secrets_file(&self) -> PathBuf {
        self.keys.join("secrets.json")
    }

    /// Reads the trust root.
    ///
    /// # Errors
    /// If the file is missing or malformed.
    pub fn trust(&self) -> Result<TrustRoot, TrustError> {
        TrustRoot::load(&self.trust)
    }

    /// Reads a key.
    ///
    /// # Errors
    /// If the file is missing, malformed, or may be read by others.
    pub fn key(&self, of: KeyOf) -> Result<KeyPair, KeyFileError> {
        KeyPair::load(self.key_file(of))
    }

    /// Makes what is missing: the keys, the trust root, the first manifest, the kernels. Nothing that exists is changed, so it may
    /// be called at each start, by several processes, and again after it was interrupted. If the manifest does not name a tenant, a
    /// key (because it was lost, and a new one was made), or a kernel that [`Setup::adds_kernels`] asks for, the next version is
    /// published, which does.
    ///
    /// The root key is needed only if the manifest changes.
    ///
    /// # Errors
    /// [`HomeError::NoTrustRoot`] if the ledger belongs to somebody else. [`HomeError::OtherRoot`], [`HomeError::NeedsRoot`],
    /// [`HomeError::NeedsApproval`], [`HomeError::Tenant`], [`HomeError::Folder`].
    pub async fn set_up(
        &self,
        ledger: &dyn Ledger,
        setup: &Setup,
        set: &KernelSet,
        clock: &dyn Clock,
    ) -> Result<Ready, HomeError> {
        let cannot_be = |name: &&String| name.trim().is_empty() || *name == SYSTEM_TENANT || name.len() > MAX_NAME_BYTES;
        if let Some(name) = setup.tenants.iter().flatten().find(cannot_be) {
            return Err(HomeError::Tenant { name: name.clone() });
        }
        let mut made = Vec::new();
        let is_new = !self.trust.exists();
        if is_new {
            let newest = ledger.scan(&Scope::Operator, &Query::timeline().limit(1), None).await?;
            // Another process may have made both since.
            if !newest.rows.is_empty() && !self.trust.exists() {
                return Err(HomeError::NoTrustRoot { file: self.trust.clone() });
            }
            self.make_folder()?;
        }
        self.check_folder()?;
        let mut key = |of: KeyOf| {
            let file = self.key_file(of);
            let (key, is_new) = KeyPair::load_or_create(&file)?;
            made.extend(is_new.then_some(file));
            Ok::<_, HomeError>(key)
        };
        let exists = |of: KeyOf| self.key_file(of).exists();
        let root = match (is_new || exists(KeyOf::Root), exists(KeyOf::Publisher) && exists(KeyOf::Host)) {
            (true, _) => Some(key(KeyOf::Root)?),
            // It is kept elsewhere, and not needed if nothing changes.
            (false, true) => None,
            (false, false) => {
                let why = "a key of the publisher or the host is missing, and a new one must be named in the manifest";
                return Err(self.needs_root(why));
            }
        };
        let (publisher, host) = (key(KeyOf::Publisher)?, key(KeyOf::Host)?);
        let mut roots: Vec<_> = setup.roots.clone();
        roots.splice(0..0, root.iter().map(KeyPair::public_key).filter(|root| !setup.roots.contains(root)));
        let wanted = TrustRoot::new(roots, setup.threshold);
        if is_new {
            wanted.check()?;
            // The last file: without it the next call begins again, with the keys that are there.
            match wanted.save_new(&self.trust) {
                Ok(()) => made.push(self.trust.clone()),
                Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(HomeError::Io { path: self.trust.clone(), source }),
            }
        }
        // It is read again: another process may have been first.
        let trust = self.trust()?;
        let is_named = !setup.roots.is_empty() || setup.threshold != 1 || is_new;
        if is_named && (trust.threshold, sorted(&trust.keys)) != (wanted.threshold, sorted(&wanted.keys)) {
            return Err(HomeError::OtherRoot { file: self.trust.clone() });
        }
        let mut tries = 1;
        let (published, trusted) = loop {
            let keys = [(publisher.public_key(), Role::Publisher), (host.public_key(), Role::Runtime)];
            let published = self.publish(ledger, (&trust, root.as_ref()), keys, (setup, set), clock).await;
            match published {
                // Another process does the same at the same time: what it has published is read again.
                Err(HomeError::Trust(error)) if is_race(&error) && tries < 5 => tries += 1,
                published => break published?,
            }
        };
        let kernels = loop {
            match logline_kernels::install(ledger, set, &publisher, clock).await {
                Err(InstallError::Ledger(LedgerError::Conflict(_))) if tries < 10 => tries += 1,
                installed => break installed?,
            }
        };
        Ok(Ready { made, trust, published, trusted: trusted.map(Box::new), kernels })
    }

    /// Publishes the first or the next manifest, if the one in force lacks something. Returns its version, and the manifest in force.
    async fn publish(
        &self,
        ledger: &dyn Ledger,
        (trust, root): (&TrustRoot, Option<&KeyPair>),
        keys: [(PublicKey, Role); 2],
        (setup, set): (&Setup, &KernelSet),
        clock: &dyn Clock,
    ) -> Result<(Option<u64>, Option<Trusted>), HomeError> {
        let grants = |tenants: &[String]| {
            let tenants = || std::iter::once(SYSTEM_TENANT.to_owned()).chain(tenants.iter().cloned());
            keys.map(|(key, role)| Authority::new(key, role, tenants()))
        };
        let (manifest, missing) = match trust.resolve(ledger).await {
            Ok(trusted) => match next_manifest(&trusted.manifest, &grants(&setup.wanted(&trusted.manifest)), (setup, set)) {
                None => return Ok((None, Some(trusted))),
                Some((_, missing)) if trusted.manifest.root.threshold > 1 => {
                    return Err(HomeError::NeedsApproval { missing, threshold: trusted.manifest.root.threshold });
                }
                Some(next) => next,
            },
            Err(TrustError::NoManifest { skipped, .. }) if skipped.iter().any(waits_for_approvals) => return Ok((None, None)),
            // If there are others, they are rows of strangers, or the ledger is somebody else's: the error names them.
            Err(TrustError::NoManifest { skipped, .. }) if skipped.is_empty() => {
                let mut manifest = Manifest::first(RootSet::new(trust.keys.iter().copied(), trust.threshold)).allow_all(set);
                let all = || vec!["*".to_owned()];
                manifest.authorities.extend(grants(&setup.tenants.clone().unwrap_or_else(all)));
                (manifest, "there is no manifest".to_owned())
            }
            Err(error) => return Err(error.into()),
        };
        let root = root.ok_or_else(|| self.needs_root(&missing))?;
        trust.publish(ledger, &manifest, root, clock).await?;
        match trust.resolve(ledger).await {
            Ok(trusted) => Ok((Some(manifest.version), Some(trusted))),
            Err(TrustError::NoManifest { .. }) if trust.threshold > 1 => Ok((Some(manifest.version), None)),
            Err(error) => Err(error.into()),
        }
    }

    fn needs_root(&self, why: &str) -> HomeError {
        HomeError::NeedsRoot { file: self.key_file(KeyOf::Root), why: why.to_owned() }
    }

    /// Makes the folder of the keys, which only its owner may read.
    fn make_folder(&self) -> Result<(), HomeError> {
        let mut builder = fs::DirBuilder::new();
        // The folder of a home is made with what leads to it; beside a ledger there is one already.
        builder.recursive(self.keys.file_name().is_some_and(|name| name == KEYS));
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt as _;
            builder.mode(0o700);
        }
        match builder.create(&self.keys) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                Err(HomeError::Io { path: self.keys.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Refuses a folder in which others could exchange the keys.
    fn check_folder(&self) -> Result<(), HomeError> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
            let found = fs::symlink_metadata(&self.keys).map_err(|source| HomeError::Io { path: self.keys.clone(), source })?;
            // The owner of this folder is the user of this process.
            let is_foreign = fs::metadata("/proc/self").is_ok_and(|process| found.uid() != process.uid() && found.uid() != 0);
            if !found.is_dir() || is_foreign || found.permissions().mode() & 0o022 != 0 {
                return Err(HomeError::Folder { path: self.keys.clone() });
            }
        }
        Ok(())
    }
}

/// Whether another process has published a manifest since this one read the ledger.
fn is_race(error: &TrustError) -> bool {
    matches!(error, TrustError::WouldNotCount(SkipReason::Version { .. }) | TrustError::Ledger(LedgerError::Conflict(_)))
}

fn sorted(keys: &[PublicKey]) -> Vec<PublicKey> {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn waits_for_approvals(skipped: &Skipped) -> bool {
    matches!(skipped.reason, SkipReason::Approvals { .. })
}

/// The manifest that has `grants` and, if that is wanted, the kernels of `set` as well, and what the one in force lacks. `None` if it lacks nothing.
fn next_manifest(current: &Manifest, grants: &[Authority], (setup, set): (&Setup, &KernelSet)) -> Option<(Manifest, String)> {
    let mut missing = Vec::new();
    let mut next = current.clone();
    for grant in grants {
        let has = |tenant: &String| {
            let of_key = current.authorities.iter().filter(|a| a.key == grant.key && a.role == grant.role);
            of_key
                .into_iter()
                .any(|authority| authority.tenants.contains(tenant) || (tenant != "*" && authority.covers(tenant)))
        };
        let new: Vec<_> = grant.tenants.iter().filter(|tenant| !has(tenant)).cloned().collect();
        if !new.is_empty() {
            missing.push(format!("the {} for {}", grant.role, new.join(", ")));
            next.authorities.push(Authority::new(grant.key, grant.role, new));
        }
    }
    for (name, id) in set.into_iter().filter(|_| setup.adds_kernels) {
        if !current.allowed_boot_ids.contains(&id) {
            missing.push(format!("the kernel {name}"));
            next = next.allow(name, id);
        }
    }
    next.version += 1;
    (!missing.is_empty()).then(|| (next, missing.join(", ")))
}
