//! Policies in WebAssembly: the sandbox calls their code with a span, and it returns actions.

use std::sync::Arc;

use async_trait::async_trait;
use logline_core::Failure;
use logline_core::Timestamp;
use logline_core::contract::{HostCalls, Job, Sandbox};
use logline_core::trust::Manifest;
use serde_json::{Value, json};

/// The sandboxes and the limits for a policy in WebAssembly.
#[derive(Clone, Copy)]
pub struct Sandboxed<'a> {
    /// The host's sandboxes.
    pub sandboxes: &'a [Arc<dyn Sandbox>],
    /// The manifest. It limits each run, and all runs of a tenant together.
    pub manifest: &'a Manifest,
}

/// The longest that a policy may take for one span, in milliseconds.
const TIMEOUT_MS: u64 = 3000;

/// Runs the code of a policy once and returns what it answered.
pub(super) async fn run(
    (runtime, code): (&str, &str),
    tenant: &str,
    config: &Value,
    input: &Value,
    given: Sandboxed<'_>,
) -> Result<Value, Failure> {
    let Some(sandbox) = given.sandboxes.iter().find(|sandbox| sandbox.runtime() == runtime) else {
        return Err(Failure::new("runtime_not_available", format!("no sandbox of this host runs `{runtime}`: install one")));
    };
    let now = input.get("now").and_then(Value::as_str).and_then(|text| text.parse().ok());
    let call = json!({"config": config, "input": input});
    let mut limits = given.manifest.limits_of(tenant);
    limits.timeout_ms = limits.timeout_ms.min(TIMEOUT_MS);
    let mut host = Nothing { now: now.unwrap_or(Timestamp::EPOCH) };
    sandbox.run(Job::new(tenant, code, &call, &limits).share(given.manifest.share()), &mut host).await.result
}

/// The host calls of a policy. It may log and ask for the time, which is the time of the span. Other calls are refused.
struct Nothing {
    now: Timestamp,
}

fn refusal(what: &str) -> Failure {
    Failure::new("not_permitted", format!("a policy decides only from its input: it cannot {what}"))
}

#[async_trait]
impl HostCalls for Nothing {
    fn log(&mut self, entry: Value) -> Result<(), Failure> {
        let text = entry.get("message").and_then(Value::as_str).unwrap_or_default();
        tracing::debug!(target: "logline::policy", message = text);
        Ok(())
    }

    fn now(&mut self) -> Timestamp {
        self.now
    }

    fn random(&mut self, _: usize) -> Result<Vec<u8>, Failure> {
        Err(refusal("draw random numbers"))
    }

    async fn query(&mut self, _: Value) -> Result<Value, Failure> {
        Err(refusal("query"))
    }

    fn emit(&mut self, _: Value) -> Result<Value, Failure> {
        Err(refusal("emit: return an action instead"))
    }
}
