//! A governed tenant on a SQLite ledger: who may do what, and the acts of those people.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logline_core::ledger::{AppendOptions, Ledger as _, LedgerExt as _, WorkQueue as _};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::governance::{
    Class, Decision, Docket, Environment, Gate, Governance, Proposed, Statement, Version, Wish,
};
use logline_core::trust::{LogEnd, Manifest, RootSet, TrustRoot};
use logline_core::{
    Clock as _, Draft, Execution, Hash, Host, IdSource as _, KeyPair, SYSTEM_TENANT, Scope, SignedSpan, Signer as _,
    SystemClock, SystemIds, VerifiedSpan, Visibility, ids,
};
use logline_kernels::governance::{GOVERNANCE, PROMOTE, TEST};
use logline_log::note::{KeyKind, KeyName, NoteKey};
use logline_log::store::Directory;
use logline_log::witness::Witness;
use logline_log::{Checkpoint, Integrator, LogSite, Policy, Step, StoredLogs, last_signed};
use logline_sqlite::SqliteLedger;
use logline_wasm::WasmSandbox;
use logline_witness::{HttpWitness, ServeOptions, begin_state, serve};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::Result;

pub(crate) const TENANT: &str = "acme";

/// The function: it returns its argument, which has the configuration in it.
const ECHO: &str = r#"(module
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 65536))
  (func (export "alloc") (param $len i32) (result i32)
    (global.set $next (i32.add (global.get $next) (local.get $len)))
    (i32.sub (global.get $next) (local.get $len)))
  (func (export "run") (param $ptr i32) (param $len i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.extend_i32_u (local.get $len)))))"#;

/// The keys of everybody. In a company each is with another person or machine.
pub(crate) struct Keys {
    pub(crate) root: KeyPair,
    pub(crate) publisher: KeyPair,
    pub(crate) successor: KeyPair,
    pub(crate) approvers: [KeyPair; 3],
    pub(crate) host: KeyPair,
    pub(crate) log: KeyPair,
    pub(crate) witness: KeyPair,
}

pub(crate) struct Site {
    pub(crate) ledger: SqliteLedger,
    pub(crate) keys: Keys,
    pub(crate) trust: TrustRoot,
    pub(crate) host: Host,
    tiles: Directory,
    locks: Directory,
    watch: PathBuf,
    watched: Option<Watched>,
}

/// The witness of another company, which has a folder of its own.
struct Watched {
    key: NoteKey,
    url: String,
}

impl Site {
    pub(crate) async fn new(db: &Path, log: &Path) -> Result<Self> {
        let make = || KeyPair::generate();
        let keys = Keys {
            root: make()?,
            publisher: make()?,
            successor: make()?,
            approvers: [make()?, make()?, make()?],
            host: make()?,
            log: make()?,
            witness: make()?,
        };
        let ledger = SqliteLedger::open(db)?;
        let trust = TrustRoot::new([keys.root.public_key()], 1);
        // Functions need two of three approvals, and a check by a host. The publisher is an approver as well, to show that it does not help.
        let rules = Governance::required().class(Class::Function, 2).gate(Class::Function, Gate::Check);
        let rules = rules.emergency(1, Duration::from_secs(3600));
        let mut manifest = Manifest::first(RootSet::new([keys.root.public_key()], 1))
            .allow("run_code", ids::RUN_CODE)
            .allow("governance", GOVERNANCE)
            .grant(keys.publisher.public_key(), Role::Publisher, [SYSTEM_TENANT, TENANT])
            .grant(keys.publisher.public_key(), Role::Approver, [TENANT])
            .grant(keys.host.public_key(), Role::Runtime, [SYSTEM_TENANT, TENANT])
            .governed(rules);
        for approver in &keys.approvers {
            manifest = manifest.grant(approver.public_key(), Role::Approver, [TENANT]);
        }
        trust.publish(&ledger, &manifest, &keys.root, &SystemClock).await?;
        let behaviours = logline::behaviours();
        logline_kernels::install(&ledger, &behaviours, &keys.publisher, &SystemClock).await?;
        let (tiles, locks) = (Directory::new(log.join("public")), Directory::new(log.join("private")));
        let host = Host::builder()
            .ledger(ledger.clone())
            .trust(trust.clone())
            .key(keys.host.clone())
            .install(behaviours)
            .sandbox(WasmSandbox::new()?)
            .environment(Environment::Production)
            .logs(StoredLogs::new(tiles.clone()))
            .build()
            .await?;
        Ok(Self { ledger, keys, trust, host, tiles, locks, watch: log.join("witness"), watched: None })
    }

    pub(crate) fn function() -> Uuid {
        ids::derive("function", &["governance", "fee"])
    }

    pub(crate) fn draft(rate: u32) -> Draft {
        Draft::new("function")
            .id(Self::function())
            .tenant(TENANT)
            .owner("payments")
            .who("publisher")
            .this("function.fee")
            .name("fee")
            .visibility(Visibility::Tenant)
            .runtime("wasm@1")
            .code(ECHO)
            .input(json!({"rate": rate}))
    }

    /// Publishes the next version, and has a host check it.
    pub(crate) async fn publish(&self, rate: u32) -> Result<VerifiedSpan> {
        let span = self.host.publish_if_changed(Self::draft(rate), &self.keys.publisher).await?;
        let test = json!({"gate": "check", "seq": span.seq});
        self.ask(Self::function(), TEST, test).await?.result?;
        Ok(span)
    }

    pub(crate) async fn ask(&self, about: Uuid, this: &str, input: Value) -> Result<Execution> {
        Ok(self.host.execute(Request::new(TENANT, "alice", about, input).this(this)).await?)
    }

    /// Runs the function. Its rate, or why it did not run.
    pub(crate) async fn run(&self) -> Result<(Execution, std::result::Result<u64, String>)> {
        let execution = self.host.execute(Request::new(TENANT, "alice", Self::function(), json!({}))).await?;
        let rate = |output: &Value| output.pointer("/config/rate").and_then(Value::as_u64).unwrap_or_default();
        let said = execution.result.as_ref().map(rate).map_err(ToString::to_string);
        Ok((execution, said))
    }

    pub(crate) async fn propose(&self, subject: &SignedSpan, wish: &Wish) -> Result<Proposed> {
        let now = self.ledger.now().await?;
        let proposal = self.host.trusted().draft_proposal(&self.ledger, subject, wish, now).await??;
        let draft = proposal.to_draft(TENANT, "payments", &self.keys.publisher.public_key());
        Ok(Proposed::of(&self.host.publish(draft, &self.keys.publisher).await?)?)
    }

    pub(crate) fn statement(&self, proposed: &Proposed) -> Statement {
        proposed.statement(self.host.trusted().ledger, Decision::Approve)
    }

    /// Signs a statement and appends it below a proposal.
    pub(crate) async fn vote(&self, proposed: &Proposed, statement: Statement, key: &KeyPair) -> Result<()> {
        let draft = statement.sign(key).await?.to_draft("approver").parent(proposed.id);
        self.smuggle(draft, key).await?;
        Ok(())
    }

    pub(crate) async fn approve(&self, proposed: &Proposed, key: &KeyPair) -> Result<()> {
        self.vote(proposed, self.statement(proposed), key).await
    }

    pub(crate) async fn promote(&self, proposed: &Proposed) -> Result<Execution> {
        self.ask(proposed.id, PROMOTE, Value::Null).await
    }

    /// Takes a version from proposal to promotion.
    pub(crate) async fn put_in_force(&self, subject: &SignedSpan, wish: &Wish) -> Result<Proposed> {
        let proposed = self.propose(subject, wish).await?;
        let [one, two, _] = &self.keys.approvers;
        self.approve(&proposed, one).await?;
        self.approve(&proposed, two).await?;
        self.promote(&proposed).await?.result?;
        Ok(proposed)
    }

    pub(crate) async fn docket(&self, proposed: &Proposed) -> Result<Docket> {
        let now = self.ledger.now().await?;
        Ok(self.host.trusted().docket(&self.ledger, TENANT, proposed.id, now).await?)
    }

    /// Appends a row without asking any host, as whoever can write to the file could.
    pub(crate) async fn smuggle(&self, draft: Draft, key: &KeyPair) -> Result<VerifiedSpan> {
        let now = SystemClock.now();
        let draft = if draft.has_id() { draft } else { draft.id(SystemIds.next_id(now)) };
        let span = draft.stamp(&SystemClock, &SystemIds).seal_local(key)?;
        self.ledger.append(&Scope::Operator, vec![span.clone()], &AppendOptions::default()).await?;
        Ok(span)
    }

    pub(crate) async fn version(&self, version: &Version) -> Result<SignedSpan> {
        let rows = self.ledger.history(&Scope::Operator, TENANT, version.id, version.seq, 1).await?;
        Ok(rows.into_iter().next().ok_or("the version is gone")?)
    }

    pub(crate) async fn last(&self, id: Uuid) -> Result<SignedSpan> {
        Ok(self.ledger.head(&Scope::Operator, TENANT, id).await?.ok_or("the span is gone")?)
    }

    /// Enters everything in the log of the tenant. From the second checkpoint on none is published that the witness has not cosigned.
    pub(crate) async fn keep_log(&mut self) -> Result<Checkpoint> {
        loop {
            let mut site =
                LogSite::new(Arc::new(self.tiles.clone()), Arc::new(self.locks.clone()), Arc::new(self.keys.log.clone()));
            if let Some(watched) = &self.watched {
                site = site.witness(watched.key.clone(), Arc::new(HttpWitness::new(&watched.url)?));
                site = site.quorum(Policy::new(Vec::new(), vec![watched.key.clone()], 1)?);
            }
            let mut integrator = Integrator::new(Arc::new(self.ledger.clone()), site, TENANT);
            let step = integrator.step().await?;
            let note = last_signed(&self.locks, TENANT).await?.ok_or("the log was not begun")?;
            let checkpoint = Checkpoint::of(&note)?;
            if self.watched.is_none() {
                // The origin is drawn when the log begins. The witness is told which key signs under it.
                let log = NoteKey::new(checkpoint.origin.clone(), KeyKind::Log, self.keys.log.public_key())?;
                self.watched = Some(self.begin_witness(log).await?);
                continue;
            }
            if step == Step::Idle {
                return Ok(checkpoint);
            }
        }
    }

    /// What the other company does: `logline witness` is the same as a program.
    async fn begin_witness(&self, log: NoteKey) -> Result<Watched> {
        let (name, signer) = ("witness.example/w".parse::<KeyName>()?, Arc::new(self.keys.witness.clone()));
        let key = NoteKey::new(name.clone(), KeyKind::Witness, signer.public_key())?;
        let state = begin_state(&self.watch, &key)?;
        let witness = Witness::new(name, signer, Arc::new(SystemClock), vec![log], state);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        println!("   a witness listens on {url}");
        tokio::spawn(serve(listener, witness, ServeOptions::default(), std::future::pending()));
        Ok(Watched { key, url })
    }

    /// The keys of the log and of its witness, as an auditor gets them.
    pub(crate) fn log_keys(&self, checkpoint: &Checkpoint) -> Result<(NoteKey, NoteKey)> {
        let log = NoteKey::new(checkpoint.origin.clone(), KeyKind::Log, self.keys.log.public_key())?;
        Ok((log, self.watched.as_ref().ok_or("nobody watches the log")?.key.clone()))
    }

    pub(crate) fn tiles(&self) -> &Directory {
        &self.tiles
    }
}

/// The place in a log where a checkpoint ends.
pub(crate) fn end_at(checkpoint: &Checkpoint) -> LogEnd {
    LogEnd { origin: checkpoint.origin.to_string(), size: checkpoint.size, root: Hash(checkpoint.root.0) }
}
