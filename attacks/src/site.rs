//! A ledger with ten tenants, and a host that works for all of them.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use logline_core::ledger::{Ledger as _, LedgerExt as _, WorkQueue};
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustRoot};
use logline_core::{
    Draft, Host, KeyPair, SYSTEM_TENANT, Scope, Signer as _, SystemClock, SystemIds, VerifiedSpan, Visibility, ids,
};
use logline_kernels::{Loops, Run as _, Worker, WorkerOptions};
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use logline_policy::{AgentOptions, PolicyAgent};
use logline_sqlite::SqliteLedger;
use logline_wasm::WasmSandbox;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::{Store, guests};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The tenant of the attacker, and of one victim.
pub(crate) const HOSTILE: &str = "tenant-0";
pub(crate) const ATTACKER: &str = "mallory";
pub(crate) const VICTIM: &str = "alice";

/// All tenants.
pub(crate) fn tenants() -> impl Iterator<Item = String> {
    (0..10).map(|n| format!("tenant-{n}"))
}

/// The keys of the site.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key {
    Root = 1,
    Publisher = 2,
    Host = 3,
    /// A member of the hostile tenant.
    Member = 4,
    /// Named by nobody.
    Stranger = 5,
}

pub(crate) fn key(key: Key) -> KeyPair {
    KeyPair::from_seed(&[key as u8; 32])
}

/// A ledger with a host that works.
pub(crate) struct Site {
    ledger: Arc<dyn WorkQueue>,
    host: Host,
    stop: oneshot::Sender<()>,
    working: JoinHandle<Result<(), String>>,
    /// What the ledger is stored in. It goes when this is dropped.
    _kept: (Option<TempDir>, Option<PrivateServer>),
}

impl Site {
    pub(crate) async fn open(store: Store) -> Result<Self, Failure> {
        let (ledger, kept): (Arc<dyn WorkQueue>, _) = match store {
            Store::Sqlite => {
                let folder = tempfile::tempdir()?;
                (Arc::new(SqliteLedger::open(folder.path().join("ledger"))?), (Some(folder), None))
            }
            Store::Postgres => {
                let server = PrivateServer::start(&ServerOptions::default())?;
                let mut admin = PgConnection::connect(&server.url("postgres", "postgres")).await?;
                admin.execute("CREATE DATABASE site").await?;
                migrate(&PgOptions::new(&server.url("postgres", "site"))?).await?;
                admin.execute("CREATE ROLE host LOGIN; GRANT logline_operator TO host").await?;
                let ledger = PgLedger::connect(PgOptions::new(&server.url("host", "site"))?).await?;
                (Arc::new(ledger), (None, Some(server)))
            }
        };
        let set = logline_kernels::all().and(logline_policy::all());
        let trust = TrustRoot::new([key(Key::Root).public_key()], 1);
        let mut manifest = Manifest::first(RootSet::new([key(Key::Root).public_key()], 1))
            .allow_all(&set)
            .grant(key(Key::Publisher).public_key(), Role::Publisher, [SYSTEM_TENANT, "*"])
            // Not of every tenant: the requests of others are other hosts' work.
            .grant(key(Key::Host).public_key(), Role::Runtime, tenants().chain([SYSTEM_TENANT.to_owned()]))
            .grant(key(Key::Member).public_key(), Role::Member, [HOSTILE]);
        manifest.throttle.member_max_priority = Some(5);
        trust.publish(&ledger, &manifest, &key(Key::Root), &SystemClock).await?;
        logline_kernels::install(&ledger, &set, &key(Key::Publisher), &SystemClock).await?;
        let host = Host::builder()
            .ledger(Arc::clone(&ledger))
            .trust(trust)
            .key(key(Key::Host))
            .install(set)
            .sandbox(WasmSandbox::new()?)
            .build()
            .await?;
        for tenant in tenants() {
            let echo = function(&tenant, "alice", &guests::echo()).id(echo());
            host.publish(echo.visibility(Visibility::Tenant), &key(Key::Publisher)).await?;
        }
        let (stop, stopped) = oneshot::channel::<()>();
        let loops: Loops = Worker::new(WorkerOptions::default().poll(Duration::from_millis(20)).concurrency(8)).into();
        let loops = loops.with(PolicyAgent::new(AgentOptions::default().poll(Duration::from_millis(20))));
        let working = {
            let host = host.clone();
            let run = async move { host.run(loops, async move { drop(stopped.await) }).await };
            tokio::spawn(async move { run.await.map(drop).map_err(|e| e.to_string()) })
        };
        Ok(Self { ledger, host, stop, working, _kept: kept })
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// The function of every tenant that returns its argument.
    pub(crate) fn echo(&self) -> Uuid {
        echo()
    }

    /// Writes spans as the attacker, who goes round the host.
    pub(crate) async fn write(&self, drafts: Vec<Draft>, signer: Key) -> Result<Vec<VerifiedSpan>, Failure> {
        let mut spans = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let span = draft.stamp(&SystemClock, &SystemIds).seal_local(&key(signer))?;
            self.ledger.append_one(&Scope::user(HOSTILE, ATTACKER), span.clone()).await?;
            spans.push(span);
        }
        Ok(spans)
    }

    /// Writes many spans at once, whoever owns them.
    pub(crate) async fn fill(&self, drafts: Vec<Draft>, signer: Key) -> Result<(), Failure> {
        let mut drafts = drafts.into_iter();
        loop {
            let some: Vec<_> = drafts.by_ref().take(500).collect();
            if some.is_empty() {
                return Ok(());
            }
            let sealed = some.into_iter().map(|draft| draft.stamp(&SystemClock, &SystemIds).seal_local(&key(signer)));
            let sealed = sealed.collect::<Result<Vec<_>, _>>()?;
            self.ledger.append(&Scope::Operator, sealed, &Default::default()).await?;
        }
    }

    pub(crate) async fn publish(&self, draft: Draft) -> Result<Uuid, Failure> {
        Ok(self.host.publish(draft, &key(Key::Publisher)).await?.id)
    }

    /// Stops the loops. It is a failure if one of them has ended before.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        if self.working.is_finished() {
            return Err(format!("the host's loops have ended: {:?}", self.working.await).into());
        }
        drop(self.stop);
        // What the attacker has asked for may still run; nobody waits for it.
        match tokio::time::timeout(Duration::from_secs(60), self.working).await {
            Ok(ended) => Ok(ended??),
            Err(_) => Err("the host does not stop".into()),
        }
    }
}

fn echo() -> Uuid {
    ids::derive("function", &["attacks", "echo"])
}

/// A function of a tenant.
pub(crate) fn function(tenant: &str, owner: &str, code: &str) -> Draft {
    Draft::new("function").tenant(tenant).owner(owner).who("publisher").this("function.trial").runtime("wasm@1").code(code)
}
