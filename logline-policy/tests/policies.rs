//! Policies: what they decide, that it happens once, and what they cannot do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

#[path = "../../logline-kernels/tests/setup/mod.rs"]
mod setup;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use logline_core::ledger::{AppendOptions, Ledger as _, WorkQueue as _};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::Manifest;
use logline_core::{
    Draft, Host, HostError, KernelSet, ManualClock, MemoryLedger, SYSTEM_TENANT, Scope, SignedSpan, Signer as _, SystemClock,
    Timestamp, VerifiedSpan, Visibility, ids,
};
use logline_kernels::{Loops, Run as _, Worker, WorkerOptions};
use logline_policy::{
    Action, AgentOptions, Decision, DryRunOptions, Facts, MAX_DEPTH, Policy, PolicyAgent, Sandboxed, built_in_policies,
    dry_run, install_policies, policy_id,
};
use serde_json::{Value, json};
use setup::{HOST, PUBLISHER, TENANT, USER, answer, block_on, echo, key, run_until, spans, until};

const OTHER_HOST: u8 = 40;

fn manifest() -> Manifest {
    setup::manifest().allow("request_worker", ids::REQUEST_WORKER).allow("policy_agent", ids::POLICY_AGENT).grant(
        key(OTHER_HOST).public_key(),
        Role::Runtime,
        [SYSTEM_TENANT, "*"],
    )
}

fn behaviours() -> KernelSet {
    logline_kernels::all().and(logline_policy::all())
}

async fn host_as(ledger: &MemoryLedger, n: u8) -> Host {
    setup::host_that(ledger, n, behaviours()).await
}

fn worker() -> Worker {
    Worker::new(WorkerOptions::default().poll(Duration::from_millis(5)))
}

async fn site() -> (MemoryLedger, Host) {
    let ledger = setup::ledger_with(&manifest(), &behaviours()).await;
    let host = host_as(&ledger, HOST).await;
    (ledger, host)
}

/// A ledger whose clock stands at noon.
async fn at_noon() -> (MemoryLedger, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new("2026-05-01T12:00:00Z".parse::<Timestamp>().unwrap()));
    let ledger = MemoryLedger::with_clock(clock.clone());
    setup::trust().publish(&ledger, &manifest(), &key(setup::ROOT), &SystemClock).await.unwrap();
    logline_kernels::install(&ledger, &behaviours(), &key(setup::SYSTEM_PUBLISHER), &SystemClock).await.unwrap();
    (ledger, clock)
}

fn policy(name: &str, content: Value) -> Draft {
    Draft::new("policy")
        .id(policy_id(name))
        .tenant(TENANT)
        .owner("compliance")
        .who("publisher")
        .this(format!("policy.{name}"))
        .name(name)
        .status("active")
        .language("cel")
        .content(content)
}

async fn publish(host: &Host, name: &str, content: Value) -> VerifiedSpan {
    host.publish(policy(name, content), &key(PUBLISHER)).await.unwrap()
}

/// Echoes every note as a `reply`.
fn echoing() -> Value {
    json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "reply", "content": "${span.content}"}}]})
}

fn note(content: Value) -> Draft {
    Draft::new("note").tenant(TENANT).owner(USER).who("user:alice").this("note.trial").content(content)
}

async fn write(host: &Host, draft: Draft) -> VerifiedSpan {
    host.record(TENANT, vec![draft], &AppendOptions::default()).await.unwrap().remove(0)
}

fn agents() -> Loops {
    PolicyAgent::new(AgentOptions::default().poll(Duration::from_millis(5))).into()
}

fn everything() -> Loops {
    agents().with(worker())
}

fn of_type(entity_type: &'static str) -> impl Fn(&SignedSpan) -> bool {
    move |row| row.entity_type == entity_type
}

/// Runs an agent until it has certainly seen everything that is there now: a marker that one more policy answers.
async fn settle(ledger: &MemoryLedger, host: &Host, loops: Loops) {
    let marker =
        json!({"on": ["marker"], "when": "true", "then": [{"emit": {"entity_type": "seen", "content": "${span.content}"}}]});
    if spans(ledger, "policy").await.iter().all(|span| span.name.as_deref() != Some("marker")) {
        publish(host, "marker", marker).await;
    }
    // It may be asked before the others are; the second time they have been.
    let twice = async {
        for _ in 0..2 {
            let text = format!("marker-{}", spans(ledger, "marker").await.len());
            let mut draft = note(json!(text));
            draft.columns_mut().entity_type = "marker".to_owned();
            write(host, draft).await;
            until(ledger, 1, |row| row.entity_type == "seen" && row.content == Some(json!(text))).await;
        }
    };
    run_until(host, loops, twice).await;
}

#[test]
fn what_a_policy_decides_happens_once_whoever_runs_it() {
    block_on(async {
        let (ledger, first) = site().await;
        let second = host_as(&ledger, OTHER_HOST).await;
        let before = write(&first, note(json!("before the policy"))).await;
        let policy = publish(&first, "echo", echoing()).await;
        let notes: Vec<_> = (0..700).map(|n| note(json!(n))).collect();
        first.record(TENANT, notes, &AppendOptions::default()).await.unwrap();
        let (stop, stopped) = tokio::sync::watch::channel(());
        let runs = [&first, &second].map(|host| {
            let mut stopped = stopped.clone();
            host.run(agents(), async move { drop(stopped.changed().await) })
        });
        let test = async {
            until(&ledger, 700, of_type("reply")).await;
            drop(stop);
        };
        futures_util::future::join(futures_util::future::join_all(runs), test).await;
        settle(&ledger, &first, agents()).await;
        let replies = spans(&ledger, "reply").await;
        let mut contents: Vec<_> = replies.iter().map(|reply| reply.content.clone().unwrap().as_u64().unwrap()).collect();
        contents.sort_unstable();
        assert_eq!(contents, (0..700).collect::<Vec<_>>(), "each once, and nothing from before the policy");
        let reply = &replies[0];
        assert_eq!((reply.owner_id.as_str(), reply.visibility), ("compliance", Visibility::Private));
        assert_eq!(reply.who, format!("policy:{}", policy.id));
        assert_eq!(reply.meta("policy").unwrap()["depth"], 1);
        assert_ne!(reply.parent_id, Some(before.id));
        for cursor in spans(&ledger, "policy_cursor").await {
            let keys: Vec<_> = cursor.meta("after").unwrap().as_object().unwrap().keys().cloned().collect();
            assert_eq!(keys, ["id", "seq"], "no position of this ledger is signed");
        }
    });
}

#[test]
fn an_agent_goes_on_where_the_last_one_ended() {
    block_on(async {
        let (ledger, host) = site().await;
        publish(&host, "echo", echoing()).await;
        write(&host, note(json!(1))).await;
        run_until(&host, agents(), until(&ledger, 1, of_type("reply"))).await;
        write(&host, note(json!(2))).await;
        // Another process, which knows nothing but the ledger.
        let other = host_as(&ledger, OTHER_HOST).await;
        run_until(&other, agents(), until(&ledger, 2, of_type("reply"))).await;
        settle(&ledger, &other, agents()).await;
        assert_eq!(spans(&ledger, "reply").await.len(), 2);
    });
}

#[test]
fn a_policy_that_cannot_work_is_not_published_and_says_where_it_is_wrong() {
    block_on(async {
        let (ledger, host) = site().await;
        let emit = json!([{"emit": {"entity_type": "reply"}}]);
        let long = "1 + ".repeat(2000) + "1";
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        let hostile = "span.related_to.all(a, span.related_to.all(b, span.related_to.all(c, a == b)))";
        for (content, reason) in [
            (json!({"on": ["note"], "when": "span.status ==", "then": emit}), "content.when: line 1, column"),
            (
                json!({"on": ["note"], "when": "true &&\n  spam.status == 'x'", "then": emit}),
                "line 2, column 3: `spam` is unknown",
            ),
            (json!({"on": ["note"], "when": "span.name.matches('(a+)+$')", "then": emit}), "`matches` cannot be called here"),
            (json!({"on": ["note"], "when": "span.?name.orValue('') == ''", "then": emit}), "cannot be called here"),
            (json!({"on": ["note"], "when": hostile, "then": emit}), "nest fewer loops"),
            (json!({"on": ["note"], "when": long, "then": emit}), "the limit is 4096"),
            (json!({"on": ["note"], "when": deep, "then": emit}), "content.when"),
            (json!({"on": ["note"], "when": "true", "then": []}), "1 to 16"),
            (json!({"on": [], "when": "true", "then": emit}), "content.on"),
            (
                json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "reply", "name": "${span.}"}}]}),
                "content.then[0].emit.name",
            ),
            (
                json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "reply", "name": "${span.id"}}]}),
                "has no `}`",
            ),
            (json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "function"}}]}), "cannot be emitted"),
            (json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "execution"}}]}), "cannot be emitted"),
            (json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "approval"}}]}), "cannot be emitted"),
            (json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "request"}}]}), "with `run`"),
            (
                json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "reply", "signature": "00"}}]}),
                "set by the host",
            ),
            (json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "reply"}, "run": {}}]}), "one of"),
            (json!({"on": ["note"], "when": "true", "then": [{"count": {"this": "x"}}]}), "without a `key`"),
            (json!({"on": ["note"], "when": "facts.used > 1", "due": "now", "then": emit}), "`facts` is unknown"),
            (json!({"on": ["note"], "when": "true", "then": emit, "unless": "false"}), "malformed"),
            (json!("nothing"), "malformed"),
            (json!({"on": ["excution"], "when": "true", "then": emit}), "did you mean `execution`?"),
            (json!({"on": ["note", "requests"], "when": "true", "then": emit}), "did you mean `request`?"),
            (json!({"on": ["note"], "when": "1", "then": emit}), "is a value, not a condition"),
            (json!({"on": ["note"], "when": "'span.status == 1'", "then": emit}), "is a value, not a condition"),
            (json!({"on": ["note"], "when": "[true]", "then": emit}), "is a value, not a condition"),
            (
                json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "reply", "contents": 1}}]}),
                "`contents` is not a column",
            ),
            (json!({"on": ["note"], "when": "true", "then": [{"run": {"function": "fee"}}]}), "`fee`: give the id"),
            (json!({"on": ["note"], "when": "span.contnt == 1", "then": emit}), "`contnt` is not a column"),
            (json!({"on": ["note"], "when": "has(span.contnt.x)", "then": emit}), "`contnt` is not a column"),
        ] {
            let refused = host.publish(policy("wrong", content.clone()), &key(PUBLISHER)).await.unwrap_err();
            assert!(matches!(refused, HostError::NotValid { .. }), "{content}: {refused}");
            assert!(refused.to_string().contains(reason), "{content}:\n {refused}\n lacks `{reason}`");
        }
        let mut without_status = policy("wrong", echoing());
        without_status.columns_mut().status = None;
        let refused = host.publish(without_status, &key(PUBLISHER)).await.unwrap_err().to_string();
        assert!(refused.contains("its status is ``: `active`"), "{refused}");
        assert!(spans(&ledger, "policy").await.is_empty());
    });
}

#[test]
fn what_is_smuggled_past_the_validator_is_reported_once_and_never_run() {
    block_on(async {
        let (ledger, host) = site().await;
        let broken = policy("broken", json!({"on": ["note"], "when": "nonsense(", "then": []}));
        setup::smuggle(&ledger, broken, PUBLISHER).await;
        setup::smuggle(&ledger, policy("forged", echoing()), setup::STRANGER).await;
        write(&host, note(json!(1))).await;
        settle(&ledger, &host, agents()).await;
        settle(&ledger, &host_as(&ledger, OTHER_HOST).await, agents()).await;
        let mut reported: Vec<_> = spans(&ledger, "policy_violation").await.into_iter().map(|span| span.this.clone()).collect();
        reported.sort();
        assert_eq!(reported, ["policy.invalid_policy", "policy.policy_not_authorised"]);
        assert!(spans(&ledger, "policy_violation").await.iter().all(|span| span.who == "kernel:policy_agent"));
        assert!(spans(&ledger, "reply").await.is_empty());
    });
}

#[test]
fn policies_that_trigger_each_other_stop_at_the_documented_depth() {
    block_on(async {
        let (ledger, host) = site().await;
        let to = |from: &str, to: &str| json!({"on": [from], "when": "true", "then": [{"emit": {"entity_type": to, "metadata": {"policy": {"depth": 0}}}}]});
        publish(&host, "ping", to("ping", "pong")).await;
        publish(&host, "pong", to("pong", "ping")).await;
        let mut first = note(json!(1));
        first.columns_mut().entity_type = "ping".to_owned();
        write(&host, first).await;
        run_until(&host, agents(), until(&ledger, 1, of_type("policy_violation"))).await;
        settle(&ledger, &host, agents()).await;
        let (pings, pongs) = (spans(&ledger, "ping").await.len(), spans(&ledger, "pong").await.len());
        assert_eq!((pings + pongs) as u64, 1 + MAX_DEPTH, "the first, and so many that followed");
        let violations = spans(&ledger, "policy_violation").await;
        assert_eq!(violations.len(), 1);
        assert_eq!(
            (violations[0].this.as_str(), violations[0].error.as_ref().unwrap()["code"].as_str()),
            ("policy.depth", Some("policy_loop"))
        );
    });
}

#[test]
fn a_loop_through_functions_stops_as_well() {
    block_on(async {
        let (ledger, host) = site().await;
        // Every execution runs the function again.
        let function = setup::publish(&host, &echo()).await;
        let again = json!({"on": ["execution"], "when": "true", "then": [{"run": {"function": function.to_string(), "input": {"after": "${span.id}"}}}]});
        publish(&host, "again", again).await;
        host.submit(Request::new(TENANT, USER, function, json!(1))).await.unwrap();
        run_until(&host, everything(), until(&ledger, 1, of_type("policy_violation"))).await;
        assert_eq!(spans(&ledger, "execution").await.len() as u64, 1 + MAX_DEPTH);
        assert_eq!(spans(&ledger, "policy_violation").await[0].this, "policy.depth");
    });
}

#[test]
fn a_user_cannot_hide_from_policies_by_claiming_a_depth() {
    block_on(async {
        let (ledger, host) = site().await;
        publish(&host, "echo", echoing()).await;
        let manifest_member = key(PUBLISHER);
        let draft = note(json!("mine")).metadata(json!({"policy": {"depth": 99}}));
        host.publish(draft, &manifest_member).await.unwrap();
        run_until(&host, agents(), until(&ledger, 1, of_type("reply"))).await;
    });
}

#[test]
fn a_guest_can_neither_forge_a_depth_nor_ask_a_policy_to_look_again() {
    block_on(async {
        let (ledger, host) = site().await;
        let forged = r#"{"entity_type":"note","this":"x","metadata":{"policy":{"depth":99}}}"#;
        let emitted = setup::run(&host, &setup::ask(5, forged), json!(null)).await;
        assert!(setup::output(&emitted)["id"].is_string());
        let note = spans(&ledger, "note").await.remove(0);
        assert_eq!(note.meta("policy"), None);
        let due = r#"{"entity_type":"request","this":"policy.due","status":"scheduled"}"#;
        let refused = setup::run(&host, &setup::ask(5, due), json!(null)).await;
        assert_eq!(setup::output(&refused)["code"], "not_permitted", "{:?}", refused.result);
        // Whoever may write requests may not either.
        let reaper = publish(
            &host,
            "reaper",
            json!({"on": ["note"], "when": "true", "due": "now", "then": [{"emit": {"entity_type": "reply"}}]}),
        )
        .await;
        let draft = Draft::new("request").tenant(TENANT).owner(USER).who("user:alice").this("policy.due").status("scheduled");
        let request = host.publish(draft.parent(reaper.id).related([note.id]), &key(PUBLISHER)).await.unwrap();
        let loops = worker();
        run_until(&host, loops, until(&ledger, 1, |row| row.id == request.id && row.status.as_deref() == Some("error"))).await;
        let closed = spans(&ledger, "request").await.into_iter().rfind(|row| row.id == request.id).unwrap();
        assert_eq!(closed.error.as_ref().unwrap()["code"], "request_not_permitted");
        assert!(spans(&ledger, "reply").await.is_empty());
    });
}

#[test]
fn a_hostile_policy_never_outlasts_its_bound() {
    block_on(async {
        let (ledger, host) = site().await;
        let twice = "has(span.content) && span.content.all(a, span.content.all(b, a == b || a != b))";
        publish(&host, "twice", json!({"on": ["note"], "when": twice, "then": [{"emit": {"entity_type": "reply"}}]})).await;
        write(&host, note(json!([1, 2, 3]))).await;
        // 20,000 values: 400 million rounds.
        write(&host, note(json!(vec![7; 20_000]))).await;
        write(&host, note(json!([4]))).await;
        run_until(&host, agents(), until(&ledger, 2, of_type("reply"))).await;
        let violations = spans(&ledger, "policy_violation").await;
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].this, "policy.cost");
        assert!(violations[0].error.as_ref().unwrap()["message"].as_str().unwrap().contains("units, the limit is"));
    });
}

#[test]
fn a_policy_that_fails_on_a_span_says_so_once_a_day_and_goes_on() {
    block_on(async {
        let (ledger, host) = site().await;
        let content = json!({"on": ["note"], "when": "span.content.amount > 10", "then": [{"emit": {"entity_type": "reply", "content": "${span.content.amount}"}}]});
        publish(&host, "amounts", content).await;
        for content in [json!({"amount": 11}), json!("no amount"), json!({"amount": "much"}), json!({"amount": 12})] {
            write(&host, note(content)).await;
        }
        run_until(&host, agents(), until(&ledger, 2, of_type("reply"))).await;
        let violations = spans(&ledger, "policy_violation").await;
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert_eq!(violations[0].this, "policy.error");
    });
}

#[test]
fn a_policy_stops_for_the_day_at_its_limit_and_goes_on_the_next() {
    block_on(async {
        let (ledger, clock) = at_noon().await;
        let host = host_as(&ledger, HOST).await;
        let mut content = echoing();
        content["effects_per_day"] = json!(3);
        publish(&host, "echo", content).await;
        for n in 0..5 {
            write(&host, note(json!(n))).await;
        }
        run_until(&host, agents(), until(&ledger, 1, of_type("policy_violation"))).await;
        assert_eq!(spans(&ledger, "policy_violation").await[0].this, "policy.effects");
        settle(&ledger, &host, agents()).await;
        assert_eq!(spans(&ledger, "reply").await.len(), 3);
        clock.set("2026-05-02T00:00:01Z".parse().unwrap());
        // Also by an agent that knows nothing but the ledger.
        let other = host_as(&ledger, OTHER_HOST).await;
        run_until(&other, agents(), until(&ledger, 5, of_type("reply"))).await;
        let contents: Vec<_> = spans(&ledger, "reply").await.into_iter().map(|span| span.content.clone().unwrap()).collect();
        assert_eq!(contents, [json!(0), json!(1), json!(2), json!(3), json!(4)], "nothing is passed over");
    });
}

#[test]
fn counts_are_exact_with_any_number_of_agents() {
    block_on(async {
        let (ledger, first) = site().await;
        let second = host_as(&ledger, OTHER_HOST).await;
        let count = json!({"on": ["note"], "when": "true", "then": [{"key": "${span.content.colour}", "count": {"this": "notes", "labels": {"colour": "${span.content.colour}"}, "value": "${span.content.n}"}}]});
        publish(&first, "count", count).await;
        let (stop, stopped) = tokio::sync::watch::channel(());
        let loops = || PolicyAgent::new(AgentOptions::default().poll(Duration::from_millis(1)).page(7));
        let runs = [&first, &second].map(|host| {
            let mut stopped = stopped.clone();
            host.run(loops(), async move { drop(stopped.changed().await) })
        });
        let test = async {
            let colours = ["red", "green", "blue"];
            for n in 0..120 {
                write(&first, note(json!({"colour": colours[n % 3], "n": n}))).await;
            }
            let done = |row: &SignedSpan| {
                row.entity_type == "metric" && row.output.as_ref().is_some_and(|output| output["count"] == 40)
            };
            until(&ledger, 3, done).await;
            drop(stop);
        };
        let (ran, ()) = futures_util::future::join(futures_util::future::join_all(runs), test).await;
        assert!(ran.iter().all(Result::is_ok), "{ran:?}");
        let mut last = BTreeMap::new();
        for metric in spans(&ledger, "metric").await {
            last.insert(metric.meta("labels").unwrap()["colour"].as_str().unwrap().to_owned(), metric.output.clone().unwrap());
        }
        let sum = |first: u64| (0..40).map(|n| first + 3 * n).sum::<u64>();
        assert_eq!(last["red"], json!({"count": 40, "sum": sum(0)}));
        assert_eq!(last["green"], json!({"count": 40, "sum": sum(1)}));
        assert_eq!(last["blue"], json!({"count": 40, "sum": sum(2)}));
    });
}

#[test]
fn a_policy_with_a_due_time_acts_at_that_time_on_the_last_version() {
    block_on(async {
        let (ledger, clock) = at_noon().await;
        install_policies(&ledger, TENANT, "compliance", &key(PUBLISHER), &SystemClock).await.unwrap();
        let host = host_as(&ledger, HOST).await;
        let directive = |ttl: &str| {
            Draft::new("prompt_directive")
                .tenant(TENANT)
                .owner(USER)
                .who("policy")
                .this("x")
                .at("2026-05-01T12:00:00Z".parse().unwrap())
                .metadata(json!({"ttl_at": ttl}))
        };
        let expires = write(&host, directive("2026-05-01T13:00:00Z")).await;
        let extended = write(&host, directive("2026-05-01T13:00:00Z")).await;
        let deleted = write(&host, directive("2026-05-01T13:00:00Z")).await;
        let waits = |row: &SignedSpan| row.this == "policy.due" && row.prev_hash.is_none();
        run_until(&host, agents(), until(&ledger, 3, waits)).await;
        let next =
            Draft::next_version(&extended).meta("ttl_at", "2026-05-01T15:00:00Z").at("2026-05-01T12:30:00Z".parse().unwrap());
        write(&host, next).await;
        write(&host, Draft::next_version(&deleted).deleted()).await;
        run_until(&host, agents(), until(&ledger, 4, waits)).await;
        assert!(spans(&ledger, "status_patch").await.is_empty());
        let looked = |row: &SignedSpan| row.entity_type == "execution" && row.this == "policy.due";
        for (now, looks, archived) in
            [("2026-05-01T13:00:00Z", 3, vec![expires.id]), ("2026-05-01T15:00:00Z", 4, vec![expires.id, extended.id])]
        {
            clock.set(now.parse().unwrap());
            run_until(&host, worker(), until(&ledger, looks, looked)).await;
            let patches: Vec<_> =
                spans(&ledger, "status_patch").await.into_iter().map(|span| span.parent_id.unwrap()).collect();
            assert_eq!(patches, archived, "{now}");
        }
        let patch = spans(&ledger, "status_patch").await.remove(0);
        assert_eq!((patch.status.as_deref(), patch.owner_id.as_str()), (Some("archived"), USER));
        assert_eq!(ledger.used(TENANT, logline_core::EXECUTIONS_QUOTA).await.unwrap(), 0, "looking again is no execution");
    });
}

#[test]
fn a_policy_in_wasm_decides_in_the_sandbox() {
    block_on(async {
        let (ledger, host) = site().await;
        let actions = json!([{"emit": {"entity_type": "reply", "content": "from wasm"}}]).to_string();
        let draft =
            |name: &str, code: &str| policy(name, json!({"on": ["note"]})).language("wasm").runtime("wasm@1").code(code);
        host.publish(draft("wasm", &answer(&actions)), &key(PUBLISHER)).await.unwrap();
        host.publish(draft("traps", &setup::module("", "unreachable")), &key(PUBLISHER)).await.unwrap();
        host.publish(draft("spins", &setup::module("", "(loop $again (br $again)) (i64.const 0)")), &key(PUBLISHER))
            .await
            .unwrap();
        // What a policy asks of its host is refused, and that is its answer.
        host.publish(draft("emits", &setup::ask(5, r#"{"entity_type":"note","this":"x"}"#)), &key(PUBLISHER)).await.unwrap();
        write(&host, note(json!(1))).await;
        run_until(&host, agents(), until(&ledger, 3, of_type("policy_violation"))).await;
        settle(&ledger, &host, agents()).await;
        assert_eq!(spans(&ledger, "reply").await.len(), 1);
        assert_eq!(spans(&ledger, "note").await.len(), 1);
        let mut codes: Vec<_> = spans(&ledger, "policy_violation")
            .await
            .iter()
            .map(|span| span.error.as_ref().unwrap()["code"].as_str().unwrap().to_owned())
            .collect();
        codes.sort();
        assert_eq!(codes, ["fuel_exhausted", "invalid_action", "trap"]);
    });
}

#[test]
fn a_new_version_takes_effect_and_one_that_is_not_active_stops() {
    block_on(async {
        let (ledger, host) = site().await;
        let first = publish(&host, "echo", echoing()).await;
        let test = async {
            write(&host, note(json!(1))).await;
            until(&ledger, 1, of_type("reply")).await;
            let louder = json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "shout"}}]});
            let second = host.publish(Draft::next_version(&first).content(louder), &key(PUBLISHER)).await.unwrap();
            write(&host, note(json!(2))).await;
            until(&ledger, 1, of_type("shout")).await;
            host.publish(Draft::next_version(&second).status("draft"), &key(PUBLISHER)).await.unwrap();
        };
        run_until(&host, agents(), test).await;
        write(&host, note(json!(3))).await;
        settle(&ledger, &host, agents()).await;
        assert_eq!((spans(&ledger, "reply").await.len(), spans(&ledger, "shout").await.len()), (1, 1));
    });
}

#[test]
fn another_tenants_spans_are_no_business_of_a_policy() {
    block_on(async {
        let (ledger, host) = site().await;
        publish(&host, "echo", echoing()).await;
        let foreign = note(json!("theirs")).tenant("globex").visibility(Visibility::Public);
        host.record("globex", vec![foreign], &AppendOptions::default()).await.unwrap();
        write(&host, note(json!("ours"))).await;
        settle(&ledger, &host, agents()).await;
        let replies = spans(&ledger, "reply").await;
        assert_eq!(replies.iter().map(|span| span.content.clone().unwrap()).collect::<Vec<_>>(), [json!("ours")]);
    });
}

#[test]
fn the_built_in_policies_do_what_they_say() {
    block_on(async {
        let mut manifest = manifest();
        manifest.throttle.per_tenant_daily_exec_limit = Some(4);
        let ledger = setup::ledger_with(&manifest, &behaviours()).await;
        let host = host_as(&ledger, HOST).await;
        let installed = install_policies(&ledger, TENANT, "compliance", &key(PUBLISHER), &SystemClock).await.unwrap();
        assert_eq!(installed.len(), 8);
        let again = install_policies(&ledger, TENANT, "compliance", &key(PUBLISHER), &SystemClock).await.unwrap();
        assert!(again.iter().all(|one| matches!(one, logline_kernels::Installed::Unchanged(_))), "{again:?}");
        let good = setup::publish(&host, &echo()).await;
        let bad = setup::publish(&host, &setup::module("", "unreachable")).await;
        for function in [good, good, bad, bad] {
            host.execute(Request::new(TENANT, USER, function, json!(1))).await.unwrap();
        }
        let run = |confidence: f64, tools: u32| {
            Draft::new("prompt_run")
                .tenant(TENANT)
                .owner(USER)
                .who("kernel")
                .this("prompt")
                .output(json!({"confidence": confidence}))
                .metadata(json!({"tool_use_count": tools}))
        };
        write(&host, run(0.9, 6)).await;
        write(&host, run(0.5, 1)).await;
        write(&host, run(1.0, 5)).await;
        let mut slow = Draft::new("execution").tenant(TENANT).owner(USER).who("kernel").this("function.run").status("complete");
        slow = slow.duration_ms(1500);
        write(&host, slow).await;
        settle(&ledger, &host, agents()).await;
        settle(&ledger, &host, agents()).await;
        let violations = spans(&ledger, "policy_violation").await;
        assert!(violations.is_empty(), "{violations:?}");
        let all = spans(&ledger, "metric").await;
        let names: Vec<_> = all.iter().map(|span| (&span.this, &span.output)).collect();
        assert_eq!(all.iter().filter(|span| span.this == "execution.duration_ms").count(), 5, "{names:?}");
        let daily: Vec<_> = all.iter().filter(|span| span.this == "execution.daily").collect();
        let counted = |status: &str| {
            let of_status = daily.iter().filter(|span| span.meta("labels").unwrap()["status"] == status);
            of_status.map(|span| span.output.as_ref().unwrap()["count"].as_u64().unwrap()).max()
        };
        assert_eq!((counted("complete"), counted("error")), (Some(3), Some(2)));
        assert_eq!(spans(&ledger, "error_report").await.len(), 2);
        assert_eq!(spans(&ledger, "error_report").await[0].error.as_ref().unwrap()["code"], "trap");
        let patches = spans(&ledger, "status_patch").await;
        let mut patches: Vec<_> = patches.iter().map(|span| span.this.as_str()).collect();
        patches.sort_unstable();
        assert_eq!(patches, ["execution.slow", "tenant.near_limit"], "one slow execution; the tenant once a day");
        let directives = spans(&ledger, "prompt_directive").await;
        assert_eq!(directives.len(), 1);
        let ttl: Timestamp = directives[0].meta("ttl_at").unwrap().as_str().unwrap().parse().unwrap();
        assert!(ttl > directives[0].at, "the directive ends by itself");
        assert_eq!(spans(&ledger, "escalation_request").await.len(), 1);
        let violations = spans(&ledger, "policy_violation").await;
        assert!(violations.is_empty(), "{violations:?}");
    });
}

#[test]
fn the_seeds_compile_and_a_changed_input_survives_an_upgrade() {
    block_on(async {
        for draft in built_in_policies().unwrap() {
            Policy::of(draft.columns()).unwrap_or_else(|e| panic!("{:?}: {e}", draft.columns().name));
        }
        let (ledger, host) = site().await;
        install_policies(&ledger, TENANT, "compliance", &key(PUBLISHER), &SystemClock).await.unwrap();
        let slow = spans(&ledger, "policy").await.into_iter().find(|span| span.name.as_deref() == Some("slow_exec")).unwrap();
        let changed = Draft::next_version(&slow).input(json!({"threshold_ms": 7})).description("ours");
        host.publish(changed, &key(PUBLISHER)).await.unwrap();
        install_policies(&ledger, TENANT, "compliance", &key(PUBLISHER), &SystemClock).await.unwrap();
        let slow = spans(&ledger, "policy").await.into_iter().rfind(|span| span.id == slow.id).unwrap();
        assert_eq!((slow.seq, slow.input.clone()), (2, Some(json!({"threshold_ms": 7}))));
    });
}

#[test]
fn a_dry_run_shows_what_would_follow_and_writes_nothing() {
    block_on(async {
        let (ledger, host) = site().await;
        for n in 0..30 {
            write(&host, note(json!(n))).await;
        }
        let content = json!({"on": ["note"], "when": "span.content % 10 == 0", "then": [{"emit": {"entity_type": "reply", "content": "${span.content + 1}"}}]});
        let draft = policy("tens", content);
        let before = spans(&ledger, "note").await.len();
        let foreseen = dry_run(&host, draft.columns(), &DryRunOptions::default().spans(25)).await.unwrap();
        let contents: Vec<_> = foreseen
            .iter()
            .map(|one| match one.decision.as_ref().unwrap() {
                Decision::Act(actions) => match &actions[0] {
                    Action::Emit { columns, .. } => columns["content"].clone(),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(contents, [json!(11), json!(21)], "of the newest 25 notes");
        assert_eq!(spans(&ledger, "note").await.len(), before);
        assert!(spans(&ledger, "reply").await.is_empty() && spans(&ledger, "policy").await.is_empty());
    });
}

#[test]
fn a_decision_is_the_same_whenever_it_is_asked() {
    block_on(async {
        let (_, host) = site().await;
        let span = write(&host, note(json!(1))).await;
        let content = json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "reply", "content": "at ${now} of ${day}: $${x} {${span.content + 1}}"}}]});
        let policy = Policy::of(policy("times", content).columns()).unwrap();
        let trusted = host.trusted();
        let sandbox = Sandboxed { sandboxes: host.sandboxes(), manifest: &trusted.manifest };
        let decisions = [
            policy.decide(&span, Facts::default(), sandbox).await.unwrap(),
            policy.decide(&span, Facts::default(), sandbox).await.unwrap(),
        ];
        assert_eq!(decisions[0], decisions[1]);
        let Decision::Act(actions) = &decisions[0] else { panic!("{:?}", decisions[0]) };
        let Action::Emit { columns, .. } = &actions[0] else { panic!("{actions:?}") };
        assert_eq!(columns["content"], format!("at {} of {}: ${{x}} {{2}}", span.at, span.at.day()));
    });
}

#[test]
fn no_expression_of_the_allowed_length_breaks_the_compiler() {
    let units = [
        "1+",
        "(",
        "[",
        "{'a':",
        "!",
        "-",
        "a.",
        "a?b:",
        "true&&",
        "true||",
        "x[",
        "has(",
        "'",
        "\"\"\"",
        "b'",
        "r'",
        "\\",
        "/*",
        "//",
        "?",
        "span.all(a,",
        "span.map(a,a.map(b,",
        "1 in ",
        "\u{0}",
        "é",
        "${",
        "0x",
        "1e",
        "9",
        "..",
        "a(",
        "\n",
    ];
    for unit in units {
        for tail in ["", "1", ")", "]"] {
            let source = unit.repeat(4096 / unit.len() - 1) + tail;
            let draft =
                policy("hostile", json!({"on": ["note"], "when": source, "then": [{"emit": {"entity_type": "reply"}}]}));
            // It answers, on the stack of a test: the parser, the check, and what takes the expression apart again.
            if let Err(refused) = Policy::of(draft.columns()).map(drop) {
                assert!(["invalid_expression", "too_costly"].contains(&refused.code.as_str()), "{unit}…{tail}: {refused}");
            }
        }
    }
}

#[test]
fn a_request_that_claims_a_depth_does_not_hide_what_follows_from_it() {
    block_on(async {
        let (ledger, host) = site().await;
        let answered = json!({"on": ["execution"], "when": "true", "then": [{"emit": {"entity_type": "reply"}}]});
        publish(&host, "answered", answered).await;
        let function = setup::publish(&host, &echo()).await;
        let draft = Draft::new("request")
            .tenant(TENANT)
            .owner(USER)
            .who("user:alice")
            .this("function.run")
            .parent(function)
            .status("scheduled")
            .metadata(json!({"policy": {"depth": 99}}));
        host.publish(draft.clone(), &key(PUBLISHER)).await.unwrap();
        let cancelled = host.publish(draft, &key(PUBLISHER)).await.unwrap();
        host.cancel(TENANT, cancelled.id, "operator").await.unwrap();
        run_until(&host, everything(), until(&ledger, 1, of_type("reply"))).await;
        let execution = spans(&ledger, "execution").await.remove(0);
        assert_eq!(execution.meta("policy"), None);
        let requests = spans(&ledger, "request").await;
        assert!(requests.iter().all(|row| row.prev_hash.is_none() || row.meta("policy").is_none()), "{requests:?}");
    });
}

#[test]
fn a_members_request_of_another_kernel_stops_no_worker() {
    block_on(async {
        // This manifest does not allow the policy agent at all.
        let ledger = setup::ledger_with(&setup::manifest().allow("request_worker", ids::REQUEST_WORKER), &behaviours()).await;
        let host = host_as(&ledger, HOST).await;
        let function = setup::publish(&host, &echo()).await;
        let due = |signer| {
            let draft = Draft::new("request").tenant(TENANT).owner(USER).who("user:alice").this("policy.due");
            let draft = draft.status("scheduled").parent(function);
            (draft, signer)
        };
        let forged = host.publish(due(PUBLISHER).0, &key(due(PUBLISHER).1)).await.unwrap();
        // A host's own, for which this one has no kernel: left to another.
        let left = host.publish(due(HOST).0, &key(HOST)).await.unwrap();
        host.submit(Request::new(TENANT, USER, function, json!(1))).await.unwrap();
        let loops = worker();
        let both = async {
            until(&ledger, 1, of_type("execution")).await;
            until(&ledger, 1, |row| row.id == forged.id && row.status.as_deref() == Some("error")).await;
        };
        run_until(&host, loops, both).await;
        let left: Vec<_> = spans(&ledger, "request").await.into_iter().filter(|row| row.id == left.id).collect();
        assert_eq!(left.len(), 1, "nobody touched it");
    });
}

#[test]
fn one_policy_that_cannot_be_carried_out_stops_no_other() {
    block_on(async {
        let (ledger, host) = site().await;
        let deep = format!("${{{}1{}}}", "[".repeat(70), "]".repeat(70));
        // What it wants counted can never be written: numbers and depths that no span has, no name.
        for (n, count) in [
            json!({"this": "", "value": 1}),
            json!({"this": "x", "labels": {"n": "${9007199254740993}"}}),
            json!({"this": "x", "labels": deep}),
            json!({"this": "x", "value": "${1e300}"}),
        ]
        .into_iter()
        .enumerate()
        {
            let content = json!({"on": ["note"], "when": "true", "then": [{"key": "k", "count": count}]});
            publish(&host, &format!("a{n}"), content).await;
        }
        publish(&host, "echo", echoing()).await;
        write(&host, note(json!(1))).await;
        run_until(&host, agents(), until(&ledger, 1, of_type("reply"))).await;
        settle(&ledger, &host, agents()).await;
        let violations = spans(&ledger, "policy_violation").await;
        assert_eq!(violations.len(), 4, "{violations:?}");
        assert!(violations.iter().all(|span| span.this == "policy.error"));
    });
}

#[test]
fn a_host_attends_to_the_tenants_it_works_for() {
    block_on(async {
        let manifest = manifest().grant(key(PUBLISHER).public_key(), Role::Publisher, ["aaa"]).grant(
            key(77).public_key(),
            Role::Runtime,
            [SYSTEM_TENANT, TENANT],
        );
        let ledger = setup::ledger_with(&manifest, &behaviours()).await;
        let all = host_as(&ledger, HOST).await;
        let foreign = policy("foreign", echoing()).tenant("aaa");
        all.publish(foreign, &key(PUBLISHER)).await.unwrap();
        all.record("aaa", vec![note(json!("theirs")).tenant("aaa")], &AppendOptions::default()).await.unwrap();
        publish(&all, "echo", echoing()).await;
        write(&all, note(json!("ours"))).await;
        let some = Host::builder()
            .ledger(ledger.clone())
            .trust(setup::trust())
            .key(key(77))
            .install(behaviours())
            .build()
            .await
            .unwrap();
        run_until(&some, agents(), until(&ledger, 1, of_type("reply"))).await;
        run_until(&all, agents(), until(&ledger, 2, of_type("reply"))).await;
    });
}

#[test]
fn a_decision_that_is_put_off_again_and_again_waits_longer_each_time() {
    block_on(async {
        let (ledger, host) = site().await;
        let content = json!({"on": ["note"], "when": "true", "due": "now + duration('1ms')", "then": [{"emit": {"entity_type": "reply"}}]});
        publish(&host, "restless", content).await;
        write(&host, note(json!("x"))).await;
        let is_put_off = |row: &SignedSpan| row.entity_type == "request" && row.this == "policy.due" && row.prev_hash.is_none();
        run_until(&host, everything(), until(&ledger, 4, is_put_off)).await;
        let requests: Vec<_> = spans(&ledger, "request").await.into_iter().filter(|row| row.this == "policy.due").collect();
        let mut delays = Vec::new();
        for request in &requests {
            let first = ledger.history(&Scope::Operator, TENANT, request.id, 0, 1).await.unwrap().remove(0);
            let due: Timestamp = first.meta("due_at").unwrap().as_str().unwrap().parse().unwrap();
            delays.push(due.since(first.at).as_millis());
        }
        delays.sort_unstable();
        delays.dedup();
        assert!(delays[1] >= 900 && delays[2] >= 1900 && delays[3] >= 3900, "{delays:?}");
    });
}

#[test]
fn a_delay_that_is_lengthened_is_waited_for() {
    block_on(async {
        let (ledger, clock) = at_noon().await;
        let host = host_as(&ledger, HOST).await;
        let content = json!({"on": ["note"], "when": "true", "due": "timestamp(span.at) + duration(config.delay)", "then": [{"emit": {"entity_type": "reply"}}]});
        let first = host.publish(policy("later", content).input(json!({"delay": "60s"})), &key(PUBLISHER)).await.unwrap();
        write(&host, note(json!(1)).at("2026-05-01T12:00:00Z".parse().unwrap())).await;
        let asks = |row: &SignedSpan| row.this == "policy.due" && row.entity_type == "request" && row.prev_hash.is_none();
        run_until(&host, agents(), until(&ledger, 1, asks)).await;
        host.publish(Draft::next_version(&first).input(json!({"delay": "3600s"})), &key(PUBLISHER)).await.unwrap();
        clock.set("2026-05-01T12:01:00Z".parse().unwrap());
        run_until(&host, worker(), until(&ledger, 2, asks)).await;
        assert!(spans(&ledger, "reply").await.is_empty());
        clock.set("2026-05-01T13:00:00Z".parse().unwrap());
        run_until(&host, worker(), until(&ledger, 1, of_type("reply"))).await;
    });
}
