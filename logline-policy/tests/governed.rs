//! Policies where the manifest demands promotion: an agent asks the promoted version and no other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

#[path = "../../logline-kernels/tests/setup/mod.rs"]
mod setup;

use std::time::Duration;

use logline_core::ledger::{AppendOptions, LedgerExt as _};
use logline_core::request::Request;
use logline_core::trust::governance::{Class, Gate, Governance};
use logline_core::{Draft, Host, KernelSet, Scope, SignedSpan, Visibility, ids};
use logline_kernels::Loops;
use logline_kernels::governance::{Governor, TEST, governance};
use logline_policy::{AgentOptions, DryRunTest, PolicyAgent, policy_id};
use serde_json::{Value, json};
use setup::quorum::{approve, governed, promote, propose, put_in_force};
use setup::{HOST, PUBLISHER, TENANT, USER, block_on, failure, key, output, run_until, spans, until};

fn behaviours() -> KernelSet {
    let set = logline_kernels::all().and(logline_policy::all());
    set.clone().and(governance(&set))
}

/// Answers every note with a `reply` that says this.
fn policy(says: &str) -> Draft {
    Draft::new("policy")
        .id(policy_id("p"))
        .tenant(TENANT)
        .owner("compliance")
        .who("publisher")
        .this("policy.p")
        .name("p")
        .status("active")
        .language("cel")
        .content(json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "reply", "content": says}}]}))
}

async fn write(host: &Host) {
    let draft = Draft::new("note").tenant(TENANT).owner(USER).who("user:alice").this("note.trial").content(json!("hello"));
    host.record(TENANT, vec![draft], &AppendOptions::default()).await.unwrap();
}

fn agents() -> Loops {
    PolicyAgent::new(AgentOptions::default().poll(Duration::from_millis(5))).into()
}

fn replies(rows: &[SignedSpan]) -> Vec<Value> {
    rows.iter().map(|row| row.content.clone().unwrap()).collect()
}

#[test]
fn an_agent_asks_the_promoted_version_and_no_other() {
    block_on(async {
        let manifest = setup::manifest().allow("policy_agent", ids::POLICY_AGENT);
        let rules = Governance::required().class(Class::Policy, 2);
        let ledger = setup::ledger_with(&governed(manifest, rules, &[TENANT]), &behaviours()).await;
        let host = setup::host_that(&ledger, HOST, behaviours()).await;
        host.publish(policy("one"), &key(PUBLISHER)).await.unwrap();
        write(&host).await;
        // Nothing is promoted: the policy is not asked, and the tenant is told why.
        let refused = |row: &SignedSpan| row.entity_type == "policy_violation" && row.this == "policy.not_promoted";
        run_until(&host, agents(), until(&ledger, 1, refused)).await;
        assert!(spans(&ledger, "reply").await.is_empty());
        put_in_force(&host, TENANT, policy_id("p")).await;
        write(&host).await;
        let reply = |row: &SignedSpan| row.entity_type == "reply";
        run_until(&host, agents(), until(&ledger, 1, reply)).await;
        // A version that nobody has approved is not asked, while the promoted one goes on.
        host.publish_if_changed(policy("two"), &key(PUBLISHER)).await.unwrap();
        write(&host).await;
        run_until(&host, agents(), until(&ledger, 2, reply)).await;
        assert!(replies(&spans(&ledger, "reply").await).iter().all(|said| said == "one"));
        // A promotion takes effect while the agent runs, although the policy has no new version.
        let before = spans(&ledger, "reply").await.len();
        run_until(&host, agents(), async {
            put_in_force(&host, TENANT, policy_id("p")).await;
            let promoted = |row: &SignedSpan| row.entity_type == "promotion" && row.seq == 1;
            until(&ledger, 1, promoted).await;
            loop {
                write(&host).await;
                until(&ledger, before + 1, reply).await;
                let said = replies(&spans(&ledger, "reply").await);
                if said.contains(&json!("two")) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        let policy = ledger.head(&Scope::Operator, TENANT, policy_id("p")).await.unwrap().unwrap();
        assert_eq!(policy.seq, 1);
    });
}

#[test]
fn the_gate_dry_run_is_passed_by_the_version_that_has_decided_about_recent_spans_without_a_failure() {
    block_on(async {
        let set = logline_kernels::all().and(logline_policy::all());
        let behaviours = set.clone().and(Governor::new(set).test(DryRunTest).behaviour());
        let manifest = setup::manifest().allow("policy_agent", ids::POLICY_AGENT);
        let rules = Governance::required().class(Class::Policy, 2).gate(Class::Policy, Gate::DryRun);
        let ledger = setup::ledger_with(&governed(manifest, rules, &[TENANT]), &behaviours).await;
        let host = setup::host_that(&ledger, HOST, behaviours).await;
        let next = async |when: &str| {
            let emit = json!([{"emit": {"entity_type": "reply", "content": "seen"}}]);
            // The owner of a request must see the version that is tested.
            let draft = policy("p").visibility(Visibility::Tenant).content(json!({"on": ["note"], "when": when, "then": emit}));
            host.publish_if_changed(draft, &key(PUBLISHER)).await.unwrap().seq
        };
        let test = async |input: Value| {
            let tested = host.execute(Request::new(TENANT, USER, policy_id("p"), input).this(TEST)).await.unwrap();
            output(&tested).clone()
        };
        let dry_run = async |seq: u32| test(json!({"gate": "dry_run", "seq": seq})).await;
        let good = next("true").await;
        let said = dry_run(good).await;
        assert!(said["passed"] == false && said["reason"].as_str().unwrap().contains("has shown nothing"), "{said}");
        write(&host).await;
        assert_eq!(dry_run(good).await["passed"], true);
        // It is the gate of exactly this version.
        let bad = next("span.content.amount > 5").await;
        let proposed = propose(&host, TENANT, policy_id("p")).await;
        approve(&host, &proposed, [21, 22]).await;
        let said = dry_run(bad).await;
        assert!(said["passed"] == false && said["reason"].as_str().unwrap().contains("fails"), "{said}");
        assert_eq!(test(json!({"gate": "dry_run", "seq": bad, "expect": "nothing"})).await["passed"], false);
        assert_eq!(failure(&promote(&host, &proposed).await).0, "gate_not_passed");
        let fixed = next("span.content == 'hello'").await;
        assert_eq!(dry_run(fixed).await["passed"], true);
        put_in_force(&host, TENANT, policy_id("p")).await;
    });
}
