//! A sandbox whose functions do what their code says in a word, and a host that dies.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use logline_core::contract::{HostCalls, Job, Report, RunReceipt, Sandbox};
use logline_core::{Failure, Hash, KeyPair, PublicKey, SignError, Signature, Signer};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// Counts what it runs.
#[derive(Clone, Default)]
pub struct ScriptedSandbox {
    inputs: Arc<Mutex<Vec<Value>>>,
}

impl ScriptedSandbox {
    /// The input of every run so far.
    pub fn runs(&self) -> Vec<Value> {
        self.inputs.lock().unwrap().clone()
    }
}

#[async_trait]
impl Sandbox for ScriptedSandbox {
    fn runtime(&self) -> &'static str {
        "script@1"
    }

    async fn run(&self, job: Job<'_>, host: &mut dyn HostCalls) -> Report {
        self.inputs.lock().unwrap().push(job.call["input"].clone());
        let result = match job.code {
            "echo" => Ok(job.call["input"].clone()),
            "fails" => Err(Failure::new("no_such_order", "there is none")),
            "traps" => Err(Failure::new("trap", "unreachable")),
            "is_long" => Ok(json!("x".repeat(100_000))),
            "says_nothing" => Ok(json!("")),
            "asks_for_itself" => {
                let again = json!({"entity_type": "request", "parent_id": job.call["function"]["id"], "status": "scheduled"});
                host.emit(again)
            }
            other => panic!("{other}"),
        };
        let (code, engine) = (Hash::of(job.code.as_bytes()), Hash::of(b"script"));
        Report { result, receipt: RunReceipt::new(code, "script@1", "script", engine, job.limits) }
    }
}

/// Signs until it has signed so often; then its host is dead.
pub struct Mortal {
    pub key: KeyPair,
    pub left: AtomicUsize,
    pub died: Arc<Notify>,
}

#[async_trait]
impl Signer for Mortal {
    fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    async fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
        self.key.sign(message).await
    }

    fn local(&self) -> Option<&KeyPair> {
        None
    }
}
