//! A host on SQLite files with the kernel `memory`, and everything that an attacker may copy.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::future::Future;
use std::path::{Path, PathBuf};

use logline_core::ledger::{LedgerExt as _, Query};
use logline_core::roles::Role;
use logline_core::trust::governance::{Class, Decision, Environment, Statement};
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{AdmitError, Host, KeyPair, SYSTEM_TENANT, Scope, SignedSpan, Signer as _, SystemClock, Timestamp};
use logline_memory::{Kind, LocalKeys, Memories, Memory, MemoryKernel, Mode, Vault};
use logline_sqlite::{SqliteKeys, SqliteLedger};
use tempfile::TempDir;
use uuid::Uuid;

pub const TENANT: &str = "acme";

pub const ROOT: u8 = 1;
pub const PUBLISHER: u8 = 2;
pub const HOST: u8 = 3;
pub const REVIEWER: u8 = 4;
pub const STRANGER: u8 = 5;

pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap().block_on(future)
}

pub fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

pub struct Site {
    pub folder: TempDir,
    pub ledger: SqliteLedger,
    pub kernel: MemoryKernel,
    pub host: Host,
    pub trust: TrustRoot,
}

impl Site {
    pub async fn new() -> Self {
        Self::with(|kernel| kernel).await
    }

    pub async fn with(change: impl FnOnce(MemoryKernel) -> MemoryKernel) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(folder.path().join("service.ledger")).unwrap();
        let kernel = change(MemoryKernel::new(vault(folder.path())).search_in(ledger.clone()));
        let set = logline_kernels::all().and(kernel.all());
        let trust = TrustRoot::new([key(ROOT).public_key()], 1);
        let manifest = Manifest::first(RootSet::new([key(ROOT).public_key()], 1))
            .allow_all(&set)
            .grant(key(PUBLISHER).public_key(), Role::Publisher, [SYSTEM_TENANT, TENANT, "globex"])
            .grant(key(REVIEWER).public_key(), Role::Approver, [TENANT])
            .grant(key(HOST).public_key(), Role::Runtime, [SYSTEM_TENANT, "*"]);
        trust.publish(&ledger, &manifest, &key(ROOT), &SystemClock).await.unwrap();
        logline_kernels::install(&ledger, &set, &key(PUBLISHER), &SystemClock).await.unwrap();
        let host = host(&ledger, &trust, &kernel).await;
        Self { folder, ledger, kernel, host, trust }
    }

    pub fn memories(&self, owner: &str, mode: Mode) -> Memories<'_> {
        self.of(TENANT, owner, mode)
    }

    pub fn of(&self, tenant: &str, owner: &str, mode: Mode) -> Memories<'_> {
        Memories::new(&self.host, self.kernel.vault(), tenant, owner, mode)
    }

    /// Alice, who has consented to everything.
    pub async fn alice(&self) -> Memories<'_> {
        let alice = self.memories("alice", Mode::On);
        alice.grant(None).await.unwrap();
        alice
    }

    pub async fn now(&self) -> Timestamp {
        use logline_core::ledger::WorkQueue as _;
        self.ledger.now().await.unwrap()
    }

    pub async fn rows(&self, entity_type: &str) -> Vec<SignedSpan> {
        self.ledger.collect(&Scope::Operator, &Query::timeline().entity_type(entity_type), usize::MAX).await.unwrap()
    }

    pub async fn last(&self, id: Uuid) -> SignedSpan {
        self.ledger.head(&Scope::Operator, TENANT, id).await.unwrap().unwrap()
    }

    /// What a reviewer says about the last version of a memory.
    pub async fn decides(
        &self,
        memory: Uuid,
        decision: Decision,
        (reviewer, owner): (u8, &str),
        change: impl FnOnce(&mut Statement),
    ) -> Result<Uuid, AdmitError> {
        let subject = self.last(memory).await;
        let trusted = self.trust.resolve(&self.ledger).await.unwrap();
        let mut statement = Statement {
            ledger: trusted.ledger,
            tenant: TENANT.to_owned(),
            environment: Environment::Production,
            class: Class::Memory,
            subject: memory,
            proposal: None,
            replaces: None,
            approves: subject.seal.curr_hash,
            decision,
            expires: self.now().await.saturating_add(std::time::Duration::from_secs(3600)),
        };
        change(&mut statement);
        let signed = statement.sign(&key(reviewer)).await.unwrap();
        let draft = signed.to_draft(owner).stamp(&SystemClock, &logline_core::SystemIds);
        let span = draft.seal_local(&key(reviewer)).unwrap();
        let id = span.id;
        // As somebody who can write to the store: what counts is checked by who reads it.
        self.ledger.append_one(&Scope::Operator, span).await.unwrap();
        Ok(id)
    }

    /// Every byte that this site has on the disk.
    pub fn bytes(&self) -> Vec<u8> {
        let mut found = Vec::new();
        read(self.folder.path(), &mut found);
        found
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

pub fn vault(folder: &Path) -> Vault {
    let keys = LocalKeys::open(folder.join("tenant-keys")).unwrap();
    Vault::new(keys, SqliteKeys::open(folder.join("service.ledger.keys.db")).unwrap())
}

pub async fn host(ledger: &SqliteLedger, trust: &TrustRoot, kernel: &MemoryKernel) -> Host {
    let set = logline_kernels::all().and(kernel.all());
    Host::builder().ledger(ledger.clone()).trust(trust.clone()).key(key(HOST)).install(set).build().await.unwrap()
}

pub fn read(folder: &Path, found: &mut Vec<u8>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, found);
        } else {
            found.extend(std::fs::read(path).unwrap());
        }
    }
}

pub fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

pub fn fact(text: &str) -> Memory {
    Memory::new(Kind::Fact, text)
}
