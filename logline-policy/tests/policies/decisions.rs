//! What policies decide, and that it happens once.

use crate::setup;
use crate::setup::{HOST, PUBLISHER, TENANT, USER, answer, block_on, echo, key, run_until, spans, until};
use crate::world::*;
use logline_core::ledger::AppendOptions;
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::{Draft, Host, HostError, SYSTEM_TENANT, SignedSpan, Signer as _, SystemClock, Timestamp, Visibility};
use logline_kernels::Run as _;
use logline_policy::{
    Action, AgentOptions, Decision, DryRunOptions, Facts, Policy, PolicyAgent, Sandboxed, built_in_policies, dry_run,
    install_policies,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

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
fn a_policy_in_wasm_decides_in_the_sandbox() {
    block_on(async {
        let (ledger, host) = site().await;
        let actions = json!([{"emit": {"entity_type": "reply", "content": "from wasm"}}]).to_string();
        let draft =
            |name: &str, code: &str| policy(name, json!({"on": ["note"]})).language("wasm").runtime("wasm@1").code(code);
        // What cannot run is not published.
        for (refused, code) in [
            (draft("broken", "AGFzbQ=="), "invalid_module"),
            (draft("elsewhere", &answer(&actions)).runtime("lua@1"), "runtime_not_available"),
        ] {
            match host.publish(refused, &key(PUBLISHER)).await {
                Err(HostError::NotValid { reason, .. }) => assert_eq!(reason.code, code),
                other => panic!("{other:?}"),
            }
        }
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
                .metadata(json!({"confidence": confidence, "tool_use_count": tools}))
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
fn an_action_is_written_as_it_is_read_and_told_in_words() {
    let function = Uuid::from_u128(7);
    for (value, told) in [
        (
            json!({"emit": {"entity_type": "note", "name": "n"}, "key": "k"}),
            "emit a `note`: {\"entity_type\":\"note\",\"name\":\"n\"}, once for `k`",
        ),
        (
            json!({"run": {"function": function, "input": {"n": 1}, "priority": 3, "max_attempts": 2, "due_at": "2026-01-01T00:00:00.000000Z"}}),
            "run 00000000-0000-0000-0000-000000000007 with {\"n\":1}, priority 3, at most 2 attempts, not before 2026-01-01T00:00:00.000000Z",
        ),
        (json!({"run": {"function": function, "input": null}}), "run 00000000-0000-0000-0000-000000000007 with null"),
        (json!({"count": {"this": "m", "labels": {"a": 1}, "value": 2.5}, "key": "k"}), "count 2.5 in `m` for `k`"),
    ] {
        let action = Action::of(&value).unwrap();
        assert_eq!(action.to_value(), value);
        assert_eq!(action.to_string(), told);
    }
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
