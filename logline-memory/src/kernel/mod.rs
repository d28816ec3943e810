//! The kernel `memory`: consent, remembering, recalling, reviewing, forgetting. Each kind of request has a file.

mod consenting;
mod for_prompts;
mod forgetting;
mod lost;
mod recall;
mod remember;
mod review;
mod sealing;
mod shelf;
mod vectors;

pub use lost::MAX_WAIT;
pub(crate) use lost::{earlier, key_of, unreadable};
pub use recall::{MAX_LIMIT, PREVIEW};
pub(crate) use recall::{QUERY, preview};
pub(crate) use remember::{CONTENT, ENDED, ERASED, MEMORY_EXISTS, came_from, found_by, has_ended, public_id};
pub(crate) use sealing::ttl_at;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use logline_core::contract::{AskedBy, Context, Effects, Kernel, KernelError, Meters, Reader, RequestKind, Sandbox};
use logline_core::ledger::{LedgerError, Premise, Query, Search};
use logline_core::request::CAUSE;
use logline_core::trust::Authorities;
use logline_core::{Draft, Failure, KernelSet, SignedSpan, Timestamp, VerifiedSpan, ids, request};

use serde_json::Value;
use uuid::Uuid;

use crate::belief::{self, Believed, Seen, Standing};
use crate::consent::{Asked, Cited, NoConsent, covers, deciding};
use crate::contract::ContractValidator;
use crate::embed::{BreakerOptions, Embedder};
use crate::form::{MEMORY, Memory, Status, Stored};
use crate::index::IndexLimits;
use crate::vault::{Forget, Vault, VaultError};

use shelf::Shelves;
use vectors::Embedding;

/// The `this` of a request that records a consent, or withdraws it.
pub const MEMORY_CONSENT: &str = "memory.consent";
/// The `this` of a request that keeps a memory.
pub const MEMORY_UPSERT: &str = "memory.upsert";
/// The `this` of a request that finds memories.
pub const MEMORY_SEARCH: &str = "memory.search";
/// The `this` of a request that moves a memory between layers.
pub const MEMORY_REVIEW: &str = "memory.review";
/// The `this` of a request that forgets.
pub const MEMORY_FORGET: &str = "memory.forget";
/// The `this` of a request of a host that ends the rows which did not fit into the batch of a forgetting.
pub const MEMORY_FORGET_REST: &str = "memory.forget_rest";
/// The `this` of a request of a host that ends memories whose time has passed.
pub const MEMORY_EXPIRE: &str = "memory.expire";
/// The `this` of a request of a host that ends an epoch of the tenant's key.
pub const MEMORY_SEAL: &str = "memory.seal";

/// The `entity_type` of receipts of forgetting.
pub const RECEIPT: &str = "memory_receipt";

/// The most memories or receipts that one attempt ends. What remains is done by the next.
const PAGE: usize = 500;

/// How many tenants a host keeps in mind that it has looked after.
const MAX_TENANTS: usize = 10_000;

/// How many users' indexes a host keeps.
const OWNERS: usize = 256;

const SEEDS: &str = include_str!("../../seeds/memory.ndjson");

/// The id of the kernel's function span.
#[must_use]
pub fn memory_kernel() -> Uuid {
    ids::derive("kernel", &["memory"])
}

/// Decides whether something is worth remembering.
#[async_trait]
pub trait Classifier: Send + Sync {
    /// Why the memory is noise; `None` if it is worth keeping. The reason is recorded and must not quote the text.
    async fn noise(&self, tenant: &str, memory: &Memory) -> Option<String>;
}

/// The kernel `memory`, version 1. Clones share everything.
#[derive(Clone)]
pub struct MemoryKernel {
    vault: Vault,
    classifier: Option<Arc<dyn Classifier>>,
    /// Finds public memories; `None` if the ledger cannot.
    search: Option<Arc<dyn Search>>,
    embedding: Option<Embedding>,
    shelves: Shelves,
    /// Tenants whose receipts were compared with the store of keys.
    caught_up: Arc<Mutex<BTreeSet<String>>>,
}

impl std::fmt::Debug for MemoryKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryKernel(…)")
    }
}

impl MemoryKernel {
    /// A kernel that encrypts with this vault.
    #[must_use]
    pub fn new(vault: Vault) -> Self {
        let shelves = Shelves::new(OWNERS, IndexLimits::default());
        Self { vault, classifier: None, search: None, embedding: None, shelves, caught_up: Arc::default() }
    }

    /// Refuses what `classifier` calls noise.
    #[must_use]
    pub fn classifier(mut self, classifier: impl Classifier + 'static) -> Self {
        self.classifier = Some(Arc::new(classifier));
        self
    }

    /// Finds public memories in this ledger, which must be the host's. Without it they are kept, and not found.
    #[must_use]
    pub fn search_in(mut self, ledger: impl Search + 'static) -> Self {
        self.search = Some(Arc::new(ledger));
        self
    }

    /// Finds by vectors as well, with this embedder, and leaves it alone while it keeps failing. Public memories get vectors in the ledger,
    /// if it keeps any; others get them in the memory of this process, if the embedder [is in it](Embedder::is_local). Nothing waits for an
    /// embedder in order to be kept: a vector is made when a search or the loop `memory_keeper` comes by.
    #[must_use]
    pub fn embedder(mut self, embedder: impl Embedder + 'static, options: BreakerOptions) -> Self {
        self.embedding = Some(Embedding::new(embedder, options));
        self
    }

    /// Keeps the indexes of at most `owners` users in memory, each within `limits`. Default 256, and [`IndexLimits::default`].
    #[must_use]
    pub fn indexes(mut self, owners: usize, limits: IndexLimits) -> Self {
        self.shelves = Shelves::new(owners, limits);
        self
    }

    /// The kernel, the seed of its function span and the [validator](ContractValidator) of contracts, for [`HostBuilder::install`](logline_core::HostBuilder::install).
    #[must_use]
    pub fn all(&self) -> KernelSet {
        // The tests prove that the seed can be read.
        let set = KernelSet::new().kernel(self.clone()).validator(ContractValidator);
        set.seeds(logline_kernels::parse_seeds(SEEDS).unwrap_or_default())
    }

    /// The vault.
    #[must_use]
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Destroys again what was forgotten, if the store of keys does not remember it: then it comes from a backup. Nothing of a tenant is
    /// opened, forgotten or sealed before. Keys are destroyed only for receipts and ends that hosts have signed.
    ///
    /// A store that knows nothing of a tenant whose memories are in the ledger is refused: it was lost, and not begun.
    pub(crate) async fn catch_up(&self, reader: &Reader<'_>, authorities: &Authorities, tenant: &str) -> Result<(), Refusal> {
        let known = || self.caught_up.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(tenant) {
            return Ok(());
        }
        if self.has_lost_keys(reader, authorities, tenant).await? {
            return Err(Refusal::Failed(Failure::new("memory_keys_lost", KEYS_LOST)));
        }
        self.forget_again(reader, authorities, tenant).await?;
        let mut known = known();
        if known.len() >= MAX_TENANTS {
            known.clear();
        }
        known.insert(tenant.to_owned());
        Ok(())
    }

    /// Destroys again what was forgotten, whatever the store of keys is.
    pub(crate) async fn forget_again(
        &self,
        reader: &Reader<'_>,
        authorities: &Authorities,
        tenant: &str,
    ) -> Result<(), Refusal> {
        let mut receipts = Vec::new();
        let query = Query::new().tenant(tenant).entity_type(RECEIPT);
        let mut standing = Standing::of(reader, authorities, query);
        while let Some(row) = standing.next().await? {
            receipts.push((row.id, row.owner_id.clone()));
        }
        let mut missing = Vec::new();
        for some in receipts.chunks(PAGE) {
            let ids: Vec<_> = some.iter().map(|(id, _)| *id).collect();
            let lost = self.vault.not_forgotten(tenant, &ids).await?;
            missing.extend(some.iter().filter(|(id, _)| lost.contains(id)).cloned());
        }
        for (receipt, owner) in missing {
            tracing::warn!(tenant, %receipt, "the store of keys does not remember a receipt: it forgets again");
            let mut gone = BTreeSet::new();
            for span in self.vault.spans(tenant, &owner).await? {
                let last = belief::find(reader, authorities, tenant, span).await?;
                let stands = last.and_then(|last| Stored::read(&last).ok());
                if stands.is_some_and(|stored| matches!(stored.status, Status::Forgotten | Status::Expired)) {
                    gone.insert(span);
                }
            }
            self.vault.forget(tenant, receipt, &owner, &Forget::Spans(gone)).await?;
        }
        Ok(())
    }

    /// Whether the first memories of the tenant that need a key have none, and nobody has forgotten them.
    async fn has_lost_keys(&self, reader: &Reader<'_>, authorities: &Authorities, tenant: &str) -> Result<bool, Refusal> {
        let mut some = Vec::new();
        let mut standing = Standing::of(reader, authorities, Query::new().tenant(tenant).entity_type(MEMORY));
        while some.len() < SAMPLE
            && let Some(row) = standing.next().await?
        {
            some.extend(Some(row).filter(lost::needs_key));
        }
        lost::are_lost(&self.vault, reader, authorities, &some).await
    }
}

/// How many memories are looked at to find out whether a store of keys was lost.
const SAMPLE: usize = 8;

/// Why nothing is done with a store of keys that is empty.
const KEYS_LOST: &str = "the store of keys knows nothing of this tenant, whose encrypted memories are in the ledger: restore the store from its \
                         backup (nothing was opened, forgotten or destroyed; a retry does not help before)";

/// Why a request is not carried out.
pub(crate) enum Refusal {
    /// The request failed, and its record says why.
    Failed(Failure),
    /// The attempt could not be made.
    Kernel(KernelError),
}

impl Refusal {
    /// Why.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Failed(failure) => failure.to_string(),
            Self::Kernel(error) => error.to_string(),
        }
    }

    /// As a kernel tells it: the inner error is a failure that is recorded.
    pub(crate) fn told<T>(self) -> Result<Result<T, Failure>, KernelError> {
        match self {
            Self::Failed(failure) => Ok(Err(failure)),
            Self::Kernel(error) => Err(error),
        }
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        Self::Kernel(error.into())
    }
}

impl From<VaultError> for Refusal {
    fn from(error: VaultError) -> Self {
        let code = match &error {
            VaultError::Erased => ERASED,
            error if error.may_retry() => "memory_unavailable",
            _ => "memory_key",
        };
        Self::Failed(Failure::new(code, error.to_string()))
    }
}

impl From<NoConsent> for Refusal {
    fn from(error: NoConsent) -> Self {
        Self::Failed(Failure::new("no_consent", error.reason()))
    }
}

/// The request does not say what it must.
pub(crate) fn invalid(reason: impl Into<String>) -> Refusal {
    Refusal::Failed(Failure::new("memory_invalid", reason.into()))
}

/// The request says what may not be done.
pub(crate) fn refused(reason: impl Into<String>) -> Refusal {
    Refusal::Failed(Failure::new("memory_refused", reason.into()))
}

#[async_trait]
impl Kernel for MemoryKernel {
    fn id(&self) -> Uuid {
        memory_kernel()
    }

    fn name(&self) -> &'static str {
        "memory"
    }

    fn version(&self) -> u32 {
        1
    }

    fn requests(&self) -> &'static [RequestKind] {
        const METERS: Meters = Meters { executions: true, fuel: false };
        const FREE: Meters = Meters::NONE;
        &[
            RequestKind { this: MEMORY_CONSENT, asked_by: AskedBy::Anybody, meters: METERS },
            RequestKind { this: MEMORY_UPSERT, asked_by: AskedBy::Anybody, meters: METERS },
            RequestKind { this: MEMORY_SEARCH, asked_by: AskedBy::Anybody, meters: METERS },
            RequestKind { this: MEMORY_REVIEW, asked_by: AskedBy::Anybody, meters: METERS },
            // Nobody is kept from forgetting by a quota.
            RequestKind { this: MEMORY_FORGET, asked_by: AskedBy::Anybody, meters: FREE },
            RequestKind { this: MEMORY_FORGET_REST, asked_by: AskedBy::Hosts, meters: FREE },
            RequestKind { this: MEMORY_EXPIRE, asked_by: AskedBy::Hosts, meters: FREE },
            RequestKind { this: MEMORY_SEAL, asked_by: AskedBy::Hosts, meters: FREE },
        ]
    }

    fn lacks(&self, _: Option<&SignedSpan>, _: &[Arc<dyn Sandbox>]) -> Option<String> {
        (!self.vault.has_keys()).then(|| "keys for memories: give the kernel `memory` a vault".to_owned())
    }

    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        let outcome = match request.this.as_str() {
            MEMORY_CONSENT => consenting::run(request, context).await,
            MEMORY_UPSERT => self.upsert(request, context).await,
            MEMORY_SEARCH => self.search(request, context).await,
            MEMORY_REVIEW => self.review(request, context).await,
            MEMORY_FORGET | MEMORY_FORGET_REST => self.forget(request, context).await,
            MEMORY_EXPIRE => self.expire(request, context).await,
            MEMORY_SEAL => self.seal_receipts(request, context).await,
            _ => Err(invalid("the kernel `memory` has no such kind of request")),
        };
        match outcome {
            Ok(effects) => Ok(effects),
            Err(Refusal::Failed(failure)) => Ok(Effects::new(Err(failure))),
            Err(Refusal::Kernel(error)) => Err(error),
        }
    }
}

/// The latest version of a span that counts.
async fn believed(context: &Context<'_>, tenant: &str, id: Uuid) -> Result<Option<Believed>, Refusal> {
    Ok(belief::find(&context.runtime, &context.trusted.authorities, tenant, id).await?)
}

/// The ledger's time, as far as this attempt can know it.
fn now(context: &Context<'_>) -> Timestamp {
    context.attempt.started.saturating_add(context.clock.now().since(context.began))
}

/// The consent `id`, by the trust of the attempt or a newer one.
async fn seen_consent(context: &Context<'_>, tenant: &str, id: Uuid) -> Result<Seen, LedgerError> {
    deciding(&context.runtime, &context.trusted.authorities, context.current_trust, tenant, id).await
}

/// Checks that the consent which a call cites is in force now. What the call writes relies on it.
async fn check_consent(context: &Context<'_>, asked: &Asked<'_>, cited: &Cited) -> Result<Premise, Refusal> {
    let latest = seen_consent(context, asked.tenant, cited.id).await?.into_version();
    covers(asked, cited, latest.as_deref().map(|latest| &**latest), now(context))?;
    Ok(latest.ok_or(NoConsent::Missing)?.premise()?)
}

/// Gives a draft the columns that follow from the request.
fn about(draft: Draft, request: &SignedSpan, context: &Context<'_>) -> Draft {
    let mut draft = draft.tenant(&request.tenant_id).who("kernel:memory").at(context.attempt.started);
    if draft.columns().owner_id.is_empty() {
        draft = draft.owner(&request.owner_id);
    }
    draft.columns_mut().trace_id.clone_from(&request.trace_id);
    match request::cause(request) {
        Some(cause) => draft.meta(CAUSE, cause.clone()),
        None => draft,
    }
}

/// The draft that records what was done to a memory. Its versions form a chain: each names the hash of the one before.
async fn audit(
    request: &SignedSpan,
    context: &Context<'_>,
    memory: (Uuid, u32),
    owner: &str,
    action: &str,
) -> Result<Draft, Refusal> {
    let id = ids::derive("memory_audit", &[&request.tenant_id, &memory.0.to_string()]);
    let seen = belief::see(&context.runtime, &context.trusted.authorities, &request.tenant_id, id).await?;
    let draft = seen
        .next(|| Draft::new("memory_audit").owner(owner))
        .did(action)
        .this("memory.audit")
        .parent(memory.0)
        .related([request.id, context.attempt.execution_id])
        .status("complete")
        .meta("action", action)
        .meta("seq", memory.1);
    Ok(about(draft, request, context))
}

/// Reads the input of a request.
fn input(request: &SignedSpan) -> Option<&Value> {
    request.input.as_ref()
}
