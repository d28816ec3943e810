//! Stage-0 boots a kernel from its signed span, or records in a signed span why it did not. It is the only behaviour that no
//! span in the ledger names.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use serde_json::json;
use thiserror::Error;
use uuid::Uuid;

use crate::contract::{Kernel, NATIVE_RUNTIME};
use crate::host::driver::{AdmitError, Driver};
use crate::host::kernel_set::KernelSet;
use crate::keys::{Signer, Verifier};
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, LedgerError, LedgerExt as _};
use crate::roles::Role;
use crate::span::SYSTEM_TENANT;
use crate::span::draft::Draft;
use crate::span::seal::{SealError, VerifiedSpan, VerifyError};
use crate::trust::governance::{InForceError, ReadError};
use crate::trust::{NotAuthorised, Trusted};
use crate::value::failure::Failure;
use crate::value::hex::{Hash, PublicKey};
use crate::value::ids;

/// A kernel or loop that Stage-0 has booted, so that it may run.
#[derive(Clone)]
pub struct Booted {
    /// The code; `None` for a loop ([`Service`](crate::Service)).
    pub kernel: Option<Arc<dyn Kernel>>,
    /// The function span from which it was booted.
    pub span: VerifiedSpan,
}

/// The name and the id of a kernel.
fn named(id: &Uuid) -> String {
    ids::kernel_name(*id).map_or_else(|| id.to_string(), |name| format!("{name} ({id})"))
}

/// Why a kernel was not booted. It does not run then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BootError {
    /// The manifest's `allowed_boot_ids` does not name it.
    #[error("kernel {} is not among the manifest's allowed_boot_ids: publish a manifest with `.allow(…)` for it", named(.id))]
    NotAllowed {
        /// The id of the kernel.
        id: Uuid,
    },
    /// Its span is not in the ledger.
    #[error("kernel {} is not in tenant `system`: install its seed (`logline_kernels::install`, or `logline init`)", named(.id))]
    NotFound {
        /// The id of the kernel.
        id: Uuid,
    },
    /// Its span is not of type `function`.
    #[error("kernel {} is a span of type `{entity_type}`, not a function", named(.id))]
    NotAFunction {
        /// The id of the kernel.
        id: Uuid,
        /// The type of its span.
        entity_type: String,
    },
    /// Its hash or signature is invalid.
    #[error("kernel {} is not what was signed: {source}", named(.id))]
    NotVerified {
        /// The id of the kernel.
        id: Uuid,
        /// What is invalid.
        source: VerifyError,
    },
    /// Its signer is not a publisher of tenant `system`.
    #[error("kernel {} is not published by a publisher of `system`: {source}", named(.id))]
    NotAuthorised {
        /// The id of the kernel.
        id: Uuid,
        /// Which role the signer lacks.
        source: Box<NotAuthorised>,
    },
    /// Its runtime is not native.
    #[error("kernel {} has runtime `{runtime}`: this host boots `{NATIVE_RUNTIME}`", named(.id))]
    Runtime {
        /// The id of the kernel.
        id: Uuid,
        /// Its `runtime` column; empty if it has none.
        runtime: String,
    },
    /// The manifest uses promoted kernels only, and no version of this one may be used.
    #[error("kernel {}: {source}", named(.id))]
    NotInForce {
        /// The id of the kernel.
        id: Uuid,
        /// Why.
        source: Box<InForceError>,
    },
    /// This host does not have the code that the span names.
    #[error(
        "kernel {} names `{code}`, which is not registered with this host ({registered}): add it with the builder's `install`, or \
         upgrade the host if it has an older version",
        named(.id)
    )]
    NotRegistered {
        /// The id of the kernel.
        id: Uuid,
        /// Its `code` column, cut to 80 characters.
        code: String,
        /// The kernels and loops of this host, as a list of `name@version`.
        registered: String,
    },
    /// This host's key is not a runtime key of tenant `system`, so it may not record boot events.
    #[error(
        "key {key} is not a runtime key of tenant `system` now: it cannot sign boot events; name it in the manifest, or delegate to it"
    )]
    HostNotAuthorised {
        /// The host's key.
        key: PublicKey,
    },
    /// The boot event could not be sealed.
    #[error("boot event: {0}")]
    Seal(#[from] SealError),
    /// This host's key may not sign the boot event.
    #[error("boot event: {0}")]
    NotRecorded(#[from] Box<NotAuthorised>),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl BootError {
    /// The stable error code in the boot event; `None` for an error that leaves no event.
    fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotAllowed { .. } => "not_allowed",
            Self::NotFound { .. } => "not_found",
            Self::NotAFunction { .. } => "not_a_function",
            Self::NotVerified { .. } => "not_verified",
            Self::NotAuthorised { .. } => "not_authorised",
            Self::Runtime { .. } => "wrong_runtime",
            Self::NotRegistered { .. } => "not_registered",
            Self::NotInForce { source, .. } => return source.code(),
            Self::HostNotAuthorised { .. } | Self::NotRecorded(_) | Self::Seal(_) | Self::Ledger(_) => return None,
        })
    }
}

/// What Stage-0 needs to boot a kernel.
pub(crate) struct Stage0<'a> {
    pub(crate) driver: Driver<'a>,
    pub(crate) trusted: &'a Trusted,
    pub(crate) installed: &'a KernelSet,
    pub(crate) signer: &'a dyn Signer,
    /// The boots that this process has recorded, as (hash of the manifest, hash of the kernel's span).
    pub(crate) recorded: &'a Mutex<HashSet<(Hash, Hash)>>,
    /// The boot events of this process.
    pub(crate) events: &'a Mutex<HashSet<Uuid>>,
}

impl From<AdmitError> for BootError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::NotAuthorised(error) => Self::NotRecorded(error),
            AdmitError::Seal(error) => Self::Seal(error),
            AdmitError::Ledger(error) => Self::Ledger(error),
        }
    }
}

impl Stage0<'_> {
    /// Boots the kernel or loop `id` and records the result.
    pub(crate) async fn boot(&self, id: Uuid) -> Result<Booted, BootError> {
        let key = self.signer.public_key();
        if !self.trusted.authorities.has(&key, Role::Runtime, SYSTEM_TENANT, self.driver.clock.now()) {
            tracing::error!(kernel = %id, host = %key, "boot refused: this host's key is not a runtime key of tenant system");
            return Err(BootError::HostNotAuthorised { key });
        }
        let resolved = self.resolve(id).await;
        let version = resolved.as_ref().ok().map(|booted| (self.trusted.span.seal.curr_hash, booted.span.seal.curr_hash));
        let recorded = || self.recorded.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if version.is_some_and(|version| recorded().contains(&version)) {
            return resolved;
        }
        let event = match &resolved {
            Ok(booted) => self.event(id).status("complete").meta(
                "kernel",
                json!({
                    "seq": booted.span.seq,
                    "curr_hash": booted.span.seal.curr_hash.to_string(),
                    "code": booted.span.code,
                }),
            ),
            Err(error) => {
                tracing::error!(kernel = %id, %error, "boot refused");
                let Some(code) = error.code() else { return resolved };
                self.event(id).status("error").error(Failure::new(code, error.to_string()).to_value())
            }
        };
        let scope = Scope::runtime(SYSTEM_TENANT);
        let event = event.stamp(self.driver.clock, self.driver.ids);
        // Before it is written, so that this process knows it when it sees it.
        self.events.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(event.columns().id);
        self.driver.write(&scope, vec![event], self.signer, &AppendOptions::default()).await?;
        recorded().extend(version);
        if let Ok(booted) = &resolved {
            tracing::info!(kernel = %id, seq = booted.span.seq, code = booted.span.code, "kernel booted");
        }
        resolved
    }

    async fn resolve(&self, id: Uuid) -> Result<Booted, BootError> {
        if !self.trusted.manifest.allowed_boot_ids.contains(&id) {
            return Err(BootError::NotAllowed { id });
        }
        let span = self.driver.ledger.find(&Scope::runtime(SYSTEM_TENANT), SYSTEM_TENANT, id).await?;
        let span = span.ok_or(BootError::NotFound { id })?;
        let scope = Scope::runtime(SYSTEM_TENANT);
        let span = self.trusted.last_that_counts(self.driver.ledger, &scope, span).await?;
        let in_force = self.trusted.in_force(self.driver.ledger, &scope, span, self.driver.clock.now()).await;
        let span = match in_force {
            Ok(in_force) => in_force.span,
            Err(InForceError::Read(ReadError::Ledger(error))) => return Err(error.into()),
            Err(source) => return Err(BootError::NotInForce { id, source: Box::new(source) }),
        };
        if span.entity_type != "function" {
            return Err(BootError::NotAFunction { id, entity_type: span.span.entity_type });
        }
        let span = span.verify(&mut Verifier::new()).map_err(|source| BootError::NotVerified { id, source })?;
        let checked = self.trusted.authorities.check(&span);
        checked.map_err(|source| BootError::NotAuthorised { id, source })?;
        if span.runtime.as_deref() != Some(NATIVE_RUNTIME) {
            return Err(BootError::Runtime { id, runtime: span.runtime.clone().unwrap_or_default() });
        }
        let code = span.code.clone().unwrap_or_default();
        let KernelSet { kernels, services, .. } = self.installed;
        let kernels = kernels.iter().map(|k| (format!("{}@{}", k.name(), k.version()), Some(k)));
        let services = services.iter().map(|s| (format!("{}@{}", s.name(), s.version()), None));
        let mut registered = kernels.chain(services);
        match registered.clone().find(|(name, _)| name == code.trim()) {
            Some((_, kernel)) => Ok(Booted { kernel: kernel.cloned(), span }),
            None => {
                let registered = registered.by_ref().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
                Err(BootError::NotRegistered { id, code: code.chars().take(80).collect(), registered })
            }
        }
    }

    fn event(&self, id: Uuid) -> Draft {
        let manifest = &self.trusted.span;
        Draft::new("boot_event")
            .tenant(SYSTEM_TENANT)
            .owner(SYSTEM_TENANT)
            .who("stage0")
            .did("booted")
            .this("stage0")
            .parent(ids::STAGE0)
            .related([id])
            .input(json!({"boot_id": id.to_string()}))
            .metadata(json!({
                "manifest": {
                    "version": self.trusted.manifest.version,
                    "seq": manifest.seq,
                    "curr_hash": manifest.seal.curr_hash.to_string(),
                },
                "environment": self.trusted.environment.as_str(),
                "library": concat!("logline-core ", env!("CARGO_PKG_VERSION")),
            }))
    }
}
