//! A host on SQLite files with the kernel `memory`, and everything that an attacker may copy.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::future::Future;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use logline_core::ledger::{Ledger, LedgerExt as _, Query, WorkQueue};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::governance::{Class, Decision, Environment, Statement};
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{
    AdmitError, Clock, Draft, Host, IdSource as _, KernelSet, KeyPair, SYSTEM_TENANT, Scope, SignedSpan, Signer as _,
    SystemClock, SystemIds, Timestamp,
};
use logline_memory::envelope::Place;
use logline_memory::{
    Content, Kind, LocalKeys, MEMORY_UPSERT, Memories, Memory, MemoryError, MemoryKernel, Mode, Sealed, Stored, Vault,
    VaultError, consent_id,
};
use logline_sqlite::{SqliteKeys, SqliteLedger};
use serde_json::json;
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
        let trust = begin(&ledger, &set, &SystemClock).await;
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
        self.ledger.now().await.unwrap()
    }

    /// A time that a trial waits for: late enough for what a busy machine writes before it.
    pub async fn soon(&self) -> Timestamp {
        self.now().await.saturating_add(std::time::Duration::from_secs(3))
    }

    pub async fn rows(&self, entity_type: &str) -> Vec<SignedSpan> {
        self.ledger.collect(&Scope::Operator, &Query::timeline().entity_type(entity_type), usize::MAX).await.unwrap()
    }

    pub async fn last(&self, id: Uuid) -> SignedSpan {
        self.ledger.head(&Scope::Operator, TENANT, id).await.unwrap().unwrap()
    }

    /// Appends a row that this key has signed, as somebody who can write to the store.
    pub async fn forge(&self, draft: Draft, signer: u8) -> SignedSpan {
        let span = draft.stamp(&SystemClock, &SystemIds).seal_local(&key(signer)).unwrap();
        self.ledger.append_one(&Scope::Operator, span.clone()).await.unwrap();
        span.into_signed()
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

/// Begins a ledger: its manifest, which allows these kernels, and their spans.
pub async fn begin(ledger: &dyn Ledger, set: &KernelSet, clock: &dyn Clock) -> TrustRoot {
    let trust = TrustRoot::new([key(ROOT).public_key()], 1);
    let manifest = Manifest::first(RootSet::new([key(ROOT).public_key()], 1))
        .allow_all(set)
        .grant(key(PUBLISHER).public_key(), Role::Publisher, [SYSTEM_TENANT, TENANT, "globex"])
        .grant(key(REVIEWER).public_key(), Role::Approver, [TENANT])
        .grant(key(HOST).public_key(), Role::Runtime, [SYSTEM_TENANT, "*"]);
    trust.publish(ledger, &manifest, &key(ROOT), clock).await.unwrap();
    logline_kernels::install(ledger, set, &key(PUBLISHER), clock).await.unwrap();
    trust
}

pub fn vault(folder: &Path) -> Vault {
    let keys = LocalKeys::open(folder.join("tenant-keys")).unwrap();
    Vault::new(keys, SqliteKeys::open(folder.join("service.ledger.keys.db")).unwrap())
}

pub async fn host(ledger: &(impl WorkQueue + Clone), trust: &TrustRoot, kernel: &MemoryKernel) -> Host {
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

/// The text of the first version of alice's memory that has one, from what `ledger` has, whatever became of it since.
pub async fn opened(vault: &Vault, ledger: &dyn Ledger, memory: Uuid) -> Result<String, VaultError> {
    let versions = ledger.history(&Scope::Operator, TENANT, memory, 0, 10).await.unwrap();
    let envelope = |row: &SignedSpan| match Stored::read(row).map(|stored| stored.content) {
        Ok(Content::Sealed(envelope)) => Some(envelope),
        _ => None,
    };
    let envelope = versions.iter().find_map(envelope).expect("a version with a text");
    let text = Sealed { span: memory, field: "content", envelope: &envelope };
    let text = vault.open(TENANT, "alice", &[text]).await?.remove(0)?;
    Ok(String::from_utf8(text.to_vec()).unwrap())
}

pub fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

pub fn fact(text: &str) -> Memory {
    Memory::new(Kind::Fact, text)
}

/// The request of an application that keeps a private memory of alice: the key of its text is durable, and nothing was sent yet.
pub async fn upsert(site: &Site, text: &str) -> Request {
    upsert_of(&site.ledger, site.kernel.vault(), text).await
}

/// As [`upsert`].
pub async fn upsert_of(ledger: &impl WorkQueue, vault: &Vault, text: &str) -> Request {
    let consent = ledger.get(&Scope::Operator, TENANT, consent_id(TENANT, "alice", None)).await.unwrap();
    let id = SystemIds.next_id(ledger.now().await.unwrap());
    let place = Place { tenant: TENANT, subject: "alice", span: id, field: "content" };
    let body = logline_core::canonical::to_vec(&json!({"text": text}));
    let envelope = vault.seal(&place, &body).await.unwrap();
    let input = json!({
        "id": id.to_string(),
        "terms": {"type": "fact", "layer": "temporary", "sensitivity": "internal", "visibility": "private", "tags": []},
        "mode": "on",
        "consent": {"id": consent.id.to_string(), "seq": consent.seq, "curr_hash": consent.seal.curr_hash.to_string()},
        "sealed": {"envelope": base64::engine::general_purpose::STANDARD.encode(envelope)},
    });
    Request::new(TENANT, "alice", id, input).this(MEMORY_UPSERT)
}

/// Withdraws a consent while memories are kept under it, again and again. In append order no memory comes after the end of the consent
/// that it cites.
pub async fn revoke_races_upserts(host: &Host, vault: &Vault, ledger: &dyn Ledger, rounds: usize) {
    let alice = Memories::new(host, vault, TENANT, "racer", Mode::On);
    let (mut kept, mut refused) = (0, 0);
    for round in 0..rounds {
        alice.grant(None).await.unwrap();
        let texts: Vec<_> = (0..6).map(|n| fact(&format!("round {round}, memory {n}"))).collect();
        let upserts = futures_util::future::join_all(texts.iter().map(|memory| alice.remember(memory)));
        let (upserts, revoked) = tokio::join!(upserts, alice.revoke());
        revoked.unwrap();
        for upsert in upserts {
            match upsert {
                Ok(_) => kept += 1,
                Err(MemoryError::NoConsent { .. }) => refused += 1,
                Err(MemoryError::Failed(failure)) if failure.code == "no_consent" => refused += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    assert!(kept + refused == rounds * 6 && refused > 0, "{kept} kept, {refused} refused");
    let rows = ledger.collect(&Scope::Operator, &Query::timeline().tenant(TENANT).owner("racer"), usize::MAX).await.unwrap();
    let mut latest = None;
    for row in rows {
        match row.entity_type.as_str() {
            "consent" => latest = Some(row.seq),
            "memory" => {
                let cited = row.meta("consent").unwrap()["seq"].as_u64().and_then(|seq| u32::try_from(seq).ok());
                assert_eq!(cited, latest, "{} cites a consent that had ended", row.key());
            }
            _ => {}
        }
    }
}
