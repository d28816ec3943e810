//! What many policies, or hostile ones, cost others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

#[path = "../../logline-kernels/tests/setup/mod.rs"]
mod setup;

use std::time::Duration;

use logline_core::ledger::{ActiveKind, AppendOptions, Tenants, WorkQueue as _};
use logline_core::roles::Role;
use logline_core::{Draft, Host, KernelSet, MemoryLedger, Signer as _, Visibility, ids};
use logline_kernels::Loops;
use logline_policy::{AgentOptions, PolicyAgent, policy_id};
use serde_json::{Value, json};
use setup::{HOST, PUBLISHER, STRANGER, TENANT, USER, block_on, key, run_until, spans, until};

const OTHER: &str = "globex";

fn behaviours() -> KernelSet {
    logline_kernels::all().and(logline_policy::all())
}

async fn site() -> (MemoryLedger, Host) {
    let manifest =
        setup::manifest().allow("policy_agent", ids::POLICY_AGENT).grant(key(PUBLISHER).public_key(), Role::Publisher, [OTHER]);
    let ledger = setup::ledger_with(&manifest, &behaviours()).await;
    let host = setup::host_that(&ledger, HOST, behaviours()).await;
    (ledger, host)
}

fn agents() -> Loops {
    PolicyAgent::new(AgentOptions::default().poll(Duration::from_millis(5))).into()
}

fn policy(tenant: &str, name: &str, content: Value) -> Draft {
    Draft::new("policy")
        .id(policy_id(name))
        .tenant(tenant)
        .owner("compliance")
        .who("publisher")
        .this(format!("policy.{name}"))
        .name(name)
        .status("active")
        .language("cel")
        .content(content)
}

/// Answers every note with a `reply`.
fn replying() -> Value {
    json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "reply", "content": "${span.content}"}}]})
}

async fn write(host: &Host, tenant: &str, count: usize) {
    let note = |n: usize| {
        Draft::new("note").tenant(tenant).owner(USER).who("w").this("t").visibility(Visibility::Tenant).content(json!(n))
    };
    host.record(tenant, (0..count).map(note).collect(), &AppendOptions::default()).await.unwrap();
}

#[test]
fn a_tenant_whose_policies_spin_delays_no_other_tenant() {
    block_on(async {
        let (ledger, host) = site().await;
        let spinning = setup::module("", "(loop $again (br $again)) (i64.const 0)");
        for n in 0..12 {
            let spins = policy(TENANT, &format!("spins_{n}"), json!({"on": ["note"]}));
            host.publish(spins.language("wasm").runtime("wasm@1").code(&spinning), &key(PUBLISHER)).await.unwrap();
        }
        host.publish(policy(OTHER, "replies", replying()), &key(PUBLISHER)).await.unwrap();
        write(&host, TENANT, 400).await;
        write(&host, OTHER, 20).await;
        run_until(&host, agents(), until(&ledger, 20, |row| row.entity_type == "reply")).await;
        // Every spinning policy takes its whole fuel for every note. In line, all 4,800 runs would come first.
        let cursors = spans(&ledger, "policy_cursor").await;
        let read = cursors.iter().filter(|cursor| cursor.tenant_id == TENANT).count();
        assert!(read < 12, "{read} of the hostile policies were done before the other tenant's only policy");
    });
}

#[test]
fn policies_of_a_key_that_nobody_knows_are_looked_at_once_and_told_once() {
    block_on(async {
        let (ledger, host) = site().await;
        for n in 0..700 {
            setup::smuggle(&ledger, policy(TENANT, &format!("forged_{n}"), replying()), STRANGER).await;
        }
        let honest = host.publish(policy(TENANT, "honest", replying()), &key(PUBLISHER)).await.unwrap();
        write(&host, TENANT, 1).await;
        let listed = async || ledger.active(ActiveKind::Policy, &Tenants::All, None, 1000).await.unwrap();
        assert_eq!(listed().await.len(), 701);
        run_until(&host, agents(), async {
            until(&ledger, 1, |row| row.entity_type == "reply").await;
            while listed().await.len() > 1 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        assert_eq!(listed().await.iter().map(|work| work.id).collect::<Vec<_>>(), [honest.id]);
        let violations = spans(&ledger, "policy_violation").await;
        assert_eq!(violations.len(), 1, "one violation a day, not one for each");
        assert_eq!(violations[0].this, "policy.policy_not_authorised");
        // A host that starts looks again, because it may obey another manifest.
        run_until(&host, agents(), async {
            while listed().await.len() > 1 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        assert_eq!(spans(&ledger, "policy_violation").await.len(), 1);
    });
}

#[test]
fn a_tenant_has_policies_up_to_a_size_and_the_others_are_told() {
    block_on(async {
        let (ledger, host) = site().await;
        for n in 0..24 {
            let large = policy(TENANT, &format!("large_{n}"), replying()).input(json!({"filler": "x".repeat(900 << 10)}));
            host.publish(large, &key(PUBLISHER)).await.unwrap();
        }
        write(&host, TENANT, 1).await;
        run_until(&host, agents(), until(&ledger, 18, |row| row.entity_type == "reply")).await;
        let refused = spans(&ledger, "policy_violation").await;
        assert_eq!(refused.len(), 6);
        assert!(refused.iter().all(|span| span.this == "policy.too_many_policies"));
        assert_eq!(spans(&ledger, "reply").await.len(), 18, "16 MiB of policies");
    });
}

/// CEL quotes values in its messages. What the whole tenant reads quotes no private span.
#[test]
fn a_violation_shows_nothing_of_a_private_span() {
    block_on(async {
        let (ledger, host) = site().await;
        let failing = |visibility: &str| {
            json!({"on": ["note"], "when": format!("span.visibility == '{visibility}' && span.content.secret + 1 == 0"),
            "then": [{"emit": {"entity_type": "reply"}}]})
        };
        for visibility in ["private", "tenant"] {
            host.publish(policy(TENANT, visibility, failing(visibility)), &key(PUBLISHER)).await.unwrap();
        }
        let note = |visibility| {
            let draft = Draft::new("note").tenant(TENANT).owner(USER).who("w").this("t").visibility(visibility);
            draft.content(json!({"secret": "hunter2"}))
        };
        let notes = vec![note(Visibility::Private), note(Visibility::Tenant)];
        host.record(TENANT, notes, &AppendOptions::default()).await.unwrap();
        run_until(&host, agents(), until(&ledger, 2, |row| row.entity_type == "policy_violation")).await;
        let told = |of: &str| {
            let id = policy_id(of);
            move |span: &&logline_core::SignedSpan| span.parent_id == Some(id)
        };
        let violations = spans(&ledger, "policy_violation").await;
        let private = violations.iter().find(told("private")).unwrap();
        let shared = violations.iter().find(told("tenant")).unwrap();
        assert!(shared.error.as_ref().unwrap().to_string().contains("hunter2"), "{shared:?}");
        assert!(!String::from_utf8(private.to_line()).unwrap().contains("hunter2"), "{private:?}");
        assert!(private.error.as_ref().unwrap().to_string().contains("dry run"));
    });
}

/// A policy is edited while no agent runs. What happened meanwhile is the new version's to judge.
#[test]
fn a_new_version_before_the_first_cursor_skips_nothing() {
    block_on(async {
        let (ledger, host) = site().await;
        let first = host.publish(policy(TENANT, "edited", replying()), &key(PUBLISHER)).await.unwrap();
        write(&host, TENANT, 10).await;
        let edited = Draft::next_version(&first).input(json!({"threshold": 2}));
        let second = host.publish(edited, &key(PUBLISHER)).await.unwrap();
        run_until(&host, agents(), until(&ledger, 10, |row| row.entity_type == "reply")).await;
        // What happens while a policy is not active is nobody's.
        let paused = host.publish(Draft::next_version(&second).status("paused"), &key(PUBLISHER)).await.unwrap();
        let other = host.publish(policy(TENANT, "other", replying()), &key(PUBLISHER)).await.unwrap();
        let off = host.publish(Draft::next_version(&other).status("paused"), &key(PUBLISHER)).await.unwrap();
        write(&host, TENANT, 5).await;
        host.publish(Draft::next_version(&off).status("active"), &key(PUBLISHER)).await.unwrap();
        write(&host, TENANT, 1).await;
        run_until(&host, agents(), until(&ledger, 11, |row| row.entity_type == "reply")).await;
        assert_eq!(spans(&ledger, "reply").await.len(), 11, "{paused:?}");
    });
}

/// Whoever can write to the store could make a policy skip what it likes.
#[test]
fn a_cursor_of_a_key_that_nobody_knows_is_not_obeyed() {
    block_on(async {
        let (ledger, host) = site().await;
        host.publish(policy(TENANT, "replies", replying()), &key(PUBLISHER)).await.unwrap();
        write(&host, TENANT, 1).await;
        run_until(&host, agents(), until(&ledger, 1, |row| row.entity_type == "policy_cursor")).await;
        write(&host, TENANT, 10).await;
        let newest = spans(&ledger, "note").await.pop().unwrap();
        let cursor = spans(&ledger, "policy_cursor").await.pop().unwrap();
        let skips = Draft::next_version(&cursor).meta("after", json!({"id": newest.id.to_string(), "seq": newest.seq}));
        setup::smuggle(&ledger, skips, STRANGER).await;
        run_until(&host, agents(), until(&ledger, 11, |row| row.entity_type == "reply")).await;
    });
}

/// To read a policy of 800 KB takes most of a second, and all of them would be read before the other tenant's notes.
#[test]
fn a_tenant_whose_policies_are_huge_delays_no_other_tenant() {
    block_on(async {
        let (ledger, host) = site().await;
        let text = "${span.id + span.id + string(size(span.id))} ".repeat(60);
        let fields: serde_json::Map<_, _> = (0..300).map(|n| (format!("f{n}"), json!(text))).collect();
        let content = json!({"on": ["nothing"], "when": "true", "then": [{"emit": {"entity_type": "x", "content": fields}}]});
        for n in 0..24 {
            setup::smuggle(&ledger, policy(TENANT, &format!("huge_{n}"), content.clone()), PUBLISHER).await;
        }
        host.publish(policy(OTHER, "replies", replying()), &key(PUBLISHER)).await.unwrap();
        write(&host, TENANT, 1).await;
        write(&host, OTHER, 5).await;
        run_until(&host, agents(), until(&ledger, 5, |row| row.entity_type == "reply")).await;
        let read = spans(&ledger, "policy_violation").await.len();
        assert!(read < 12, "{read} of the huge policies were read before the other tenant's only policy");
    });
}
