//! Models that use functions of the ledger: what they are told, what is recorded, and what they cannot do.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use logline_core::contract::provider::{Block, ModelAnswer, ModelRequest, ProviderError, StopReason, Usage};
use logline_core::ledger::LedgerExt as _;
use logline_core::request::{Request, Within};
use logline_core::trust::Budget;
use logline_core::{Execution, Hash, HostError, MemoryLedger, Scope, SignedSpan, Span, Verifier, Visibility};
use logline_kernels::provider::Script;
use logline_prompts::{Checked, ExplainError, MAX_TOOL_ROUNDS, PROMPT_RUN};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::site::*;

fn uses(uses: &[(&str, &str, Value)]) -> ModelAnswer {
    let block = |(id, name, input): &(&str, &str, Value)| Block::ToolUse {
        id: (*id).to_owned(),
        name: (*name).to_owned(),
        input: input.clone(),
    };
    ModelAnswer::new(uses.iter().map(block).collect(), StopReason::ToolUse, Usage::of(10, 5))
}

fn asks(name: &str, input: Value) -> Script {
    Script::Answer(uses(&[("t1", name, input)]))
}

fn order() -> Value {
    json!({"order": 17})
}

/// What the model was told of the tools in its last message: id, text, and whether it is an error.
fn told(request: &ModelRequest) -> Vec<(String, String, bool)> {
    let result = |block: &Block| match block {
        Block::ToolResult { id, content, is_error } => {
            let [Block::Text { text }] = content.as_slice() else { panic!("{content:?}") };
            (id.clone(), text.clone(), *is_error)
        }
        other => panic!("{other:?}"),
    };
    request.messages.last().unwrap().content.iter().map(result).collect()
}

/// Uses the tool `state` once, then answers.
fn once(request: &ModelRequest) -> Result<ModelAnswer, ProviderError> {
    let has_result = request.messages.iter().flat_map(|m| &m.content).any(|block| matches!(block, Block::ToolResult { .. }));
    Ok(match has_result {
        false => uses(&[("t1", "state", order())]),
        true => ModelAnswer::new(vec![Block::text(GOOD)], StopReason::EndTurn, Usage::of(20, 5)),
    })
}

async fn site(code: &str, run: Value) -> (Site, uuid::Uuid, uuid::Uuid) {
    let site = Site::new().await;
    let function = site.publish(tool("state", code)).await;
    let mut run = run;
    run["tools"] = json!(["state"]);
    let variant = site.variant(run).await;
    (site, variant, function)
}

async fn record(site: &Site, execution: &Execution) -> SignedSpan {
    site.ledger.find(&Scope::runtime(TENANT), TENANT, run_of(execution)).await.unwrap().unwrap()
}

#[test]
fn a_model_uses_a_function_and_the_ledger_shows_what_ran() {
    block_on(async {
        let (site, variant, function) = site("echo", json!({"contract": "answer"})).await;
        let mut first = uses(&[("t1", "state", order()), ("t2", "state", json!({"order": 18}))]);
        let thought = Block::Reasoning { text: "hm".to_owned(), signature: Some("c2ln".to_owned()) };
        first.content.insert(0, thought.clone());
        site.provider.then([Script::Answer(first), Script::Text(GOOD.to_owned())]);
        let execution = site.ask(variant, question("Where are my orders?")).await;
        assert_eq!(execution.result.as_ref().unwrap()["answer"]["text"], "Done.");

        let calls = site.provider.calls();
        assert_eq!((calls[0].tools.len(), calls[0].tools[0].name.as_str()), (1, "state"));
        let turn = &calls[1].messages[calls[1].messages.len() - 2];
        assert_eq!(turn.content[0], thought, "reasoning goes back as it was");
        let results =
            [("t1".to_owned(), r#"{"order":17}"#.to_owned(), false), ("t2".to_owned(), r#"{"order":18}"#.to_owned(), false)];
        assert_eq!(told(&calls[1]), results, "all results of a turn are in the one next message");

        let explained = site.explain(&site.ledger, run_of(&execution)).await.unwrap();
        assert_eq!((explained.tool_calls.len(), &explained.asked), (2, &Checked::Passed));
        let call = &explained.tool_calls[0];
        assert_eq!((call.call.as_str(), &call.input, &call.output), ("tool/1/0", &order(), &order()));
        assert_eq!(call.function["id"], json!(function.to_string()));
        assert_eq!(explained.tools[0]["function"], call.function, "what could run is what ran");
        let inner = site.ledger.find(&Scope::runtime(TENANT), TENANT, call.request.unwrap()).await.unwrap().unwrap();
        let within = Within { request: execution.request.id, key: "tool/1/0".to_owned() };
        assert_eq!(
            (Within::of(&inner), &inner.trace_id, inner.owner_id.as_str()),
            (Some(within), &execution.request.trace_id, USER)
        );
        let ran = site.ledger.find(&Scope::runtime(TENANT), TENANT, call.execution.unwrap()).await.unwrap().unwrap();
        assert_eq!((ran.parent_id, ran.output.clone()), (Some(function), Some(order())));
        let record = record(&site, &execution).await;
        assert_eq!(record.meta("tool_use_count"), Some(&json!(2)));
        assert_eq!(record.meta("usage").unwrap()["output"].as_u64().map(|tokens| tokens > 5), Some(true), "both calls count");
    });
}

#[test]
fn what_goes_wrong_with_a_tool_is_told_to_the_model_and_to_the_record() {
    block_on(async {
        for (code, name, input, error, runs) in [
            ("echo", "delete_all", order(), "unknown_tool", 0),
            ("echo", "state", json!({"order": "seventeen"}), "invalid_input", 0),
            ("echo", "state", json!("17"), "invalid_input", 0),
            ("fails", "state", order(), "no_such_order", 1),
            ("traps", "state", order(), "trap", 1),
            ("is_long", "state", order(), "output_limit", 1),
            ("asks_for_itself", "state", order(), "not_permitted", 1),
        ] {
            let (site, variant, _) = site(code, json!({"contract": "answer"})).await;
            site.provider.then([asks(name, input), Script::Text(GOOD.to_owned())]);
            let execution = site.ask(variant, question("q")).await;
            assert!(execution.result.is_ok(), "{error}: {:?}", execution.result);
            let told = told(&site.provider.calls()[1]);
            assert!(told.len() == 1 && told[0].2 && told[0].1.contains(error), "{error}: {told:?}");
            assert_eq!(site.sandbox.runs().len(), runs, "{error}");
            let explained = site.explain(&site.ledger, run_of(&execution)).await.unwrap();
            assert_eq!(explained.tool_calls[0].error, error);
            assert_eq!(explained.asked, Checked::Passed, "{error}");
            assert_eq!(explained.tool_calls[0].execution.is_some(), runs > 0, "{error}");
            let requests: std::collections::BTreeSet<_> = site.all("request").await.iter().map(|span| span.id).collect();
            assert_eq!(requests.len(), 1 + runs, "{error}: the question, and what ran");
        }
        let (site, variant, _) = site("says_nothing", json!({})).await;
        site.provider.then([asks("state", order()), Script::Text("So.".to_owned())]);
        assert!(site.ask(variant, question("q")).await.result.is_ok());
        assert_eq!(told(&site.provider.calls()[1])[0].1, "(nothing)", "providers refuse results without words");
    });
}

#[test]
fn a_model_that_never_stops_using_tools_gets_no_sixth_round() {
    block_on(async {
        for (run, rounds) in [(json!({}), MAX_TOOL_ROUNDS), (json!({"contract": "answer", "tool_rounds": 2}), 2)] {
            let (site, variant, _) = site("echo", run).await;
            site.provider.then((0..9).map(|_| asks("state", order())));
            let execution = site.ask(variant, question("q")).await;
            assert_eq!(execution.result.as_ref().unwrap()["answer"], json!({"error": "Insufficient evidence."}));
            let counts = (site.provider.calls().len(), site.sandbox.runs().len());
            assert_eq!(counts, (rounds as usize + 1, rounds as usize));
            let record = record(&site, &execution).await;
            assert_eq!(
                (record.meta("contract"), record.meta("tool_rounds_used_up")),
                (Some(&json!("broken")), Some(&json!(rounds)))
            );
            assert_eq!(site.explain(&site.ledger, run_of(&execution)).await.unwrap().asked, Checked::Passed);
        }
        // One answer that uses many: only so many are run.
        let (site, variant, _) = site("echo", json!({})).await;
        let ids: Vec<_> = (0..10).map(|n| format!("t{n}")).collect();
        let many: Vec<_> = ids.iter().map(|id| (id.as_str(), "state", order())).collect();
        site.provider.then([Script::Answer(uses(&many)), Script::Text("So.".to_owned())]);
        assert!(site.ask(variant, question("q")).await.result.is_ok());
        assert_eq!(site.sandbox.runs().len(), 8);
        assert!(told(&site.provider.calls()[1])[9].1.contains("too_many_tools"));
        let twice = uses(&[("t", "state", order()), ("t", "state", order())]);
        site.provider.then([Script::Answer(twice)]);
        assert_eq!(site.ask(variant, question("q")).await.result.unwrap_err().code, "provider:bad_answer");
    });
}

#[test]
fn a_tool_that_is_none_costs_no_call() {
    block_on(async {
        let site = Site::new().await;
        let mute = tool("mute", "echo").metadata(json!({}));
        site.publish(mute).await;
        let hidden = site.publish(tool("hidden", "echo").visibility(Visibility::Private)).await;
        let smuggled = tool("smuggled", "echo").owner(USER).stamp(&logline_core::SystemClock, &logline_core::SystemIds);
        let smuggled = smuggled.seal_local(&key(9)).unwrap();
        site.ledger.append_one(&Scope::Operator, smuggled).await.unwrap();
        for name in ["twin", "twin"] {
            site.publish(tool(name, "echo")).await;
        }
        let variant = site.variant(json!({})).await;
        for (tools, said) in [
            (json!(["nobody"]), "no such function"),
            (json!([hidden]), "no such function"),
            (json!([variant]), "no such function"),
            (json!(["mute"]), "no metadata.tool"),
            (json!(["smuggled"]), "tool `smuggled`"),
            (json!(["twin"]), "two functions of this name"),
        ] {
            let mut input = question("q");
            input["tools"] = tools;
            let failure = site.ask(variant, input).await.result.unwrap_err();
            assert!(failure.code == "tool_invalid" && failure.message.contains(said), "{said}: {failure}");
        }
        for tools in [json!("mute"), json!([5]), json!(vec!["x"; 17])] {
            let mut input = question("q");
            input["tools"] = tools;
            assert_eq!(site.ask(variant, input).await.result.unwrap_err().code, "prompt_invalid");
        }
        assert!(site.provider.calls().is_empty() && site.sandbox.runs().is_empty());
        let refused = async |draft| site.host.publish(draft, &key(PUBLISHER)).await.map(drop).unwrap_err().to_string();
        let said = |said: Value| tool("odd", "echo").metadata(json!({"tool": said}));
        let fine = json!({"type": "object"});
        assert!(refused(said(json!({"description": "d", "input_schema": {"type": "blob"}}))).await.contains("no JSON schema"));
        assert!(refused(said(json!({"description": "", "input_schema": fine}))).await.contains("description"));
        assert!(refused(said(json!({"name": "a b", "description": "d", "input_schema": fine}))).await.contains("no name"));
        let rounds = |n: u32| site.draft(json!({"provider": site.spans[0], "tool_rounds": n}));
        for n in [0, MAX_TOOL_ROUNDS + 1] {
            assert!(refused(rounds(n)).await.contains("tool_rounds must be"), "{n}");
        }
    });
}

#[test]
fn a_request_names_tools_and_their_version_and_no_other_version_runs() {
    block_on(async {
        let site = Site::new().await;
        let function = site.publish(tool("state", "echo")).await;
        let variant = site.variant(json!({})).await;
        site.provider.then([asks("state", order()), Script::Text("So.".to_owned())]);
        let mut input = question("q");
        input["tools"] = json!(["state", function]);
        assert!(site.ask(variant, input).await.result.is_ok());
        assert_eq!((site.provider.calls()[0].tools.len(), site.sandbox.runs().len()), (1, 1), "one function is one tool");

        let old = site.ledger.find(&Scope::runtime(TENANT), TENANT, function).await.unwrap().unwrap();
        let old = old.verify(&mut Verifier::new()).unwrap();
        site.publish(logline_core::Draft::next_version(&old).code("fails")).await;
        let pinned = Request::new(TENANT, USER, function, order()).function_hash(old.seal.curr_hash);
        assert_eq!(site.host.execute(pinned).await.unwrap().result.unwrap_err().code, "other_version");
        assert_eq!(site.sandbox.runs().len(), 1);
        let odd = Request::new(TENANT, USER, function, order()).function_hash(Hash::of(b"odd"));
        assert_eq!(site.host.execute(odd).await.unwrap().result.unwrap_err().code, "other_version");
    });
}

#[test]
fn quotas_and_budgets_hold_for_every_round() {
    block_on(async {
        let with_tool = async |site: &Site| {
            site.publish(tool("state", "echo")).await;
            site.variant(json!({"tools": ["state"], "max_tokens": 100})).await
        };
        // Enough for the first call, and not for the second one after it.
        let site = Site::governed(|manifest| {
            manifest.budgets.insert(TENANT.to_owned(), Budget { tokens_per_day: Some(400), money_per_day: None });
        })
        .await;
        let variant = with_tool(&site).await;
        let mut dear = uses(&[("t1", "state", order())]);
        dear.usage = Usage::of(200, 100);
        site.provider.then([Script::Answer(dear), Script::Text("So.".to_owned())]);
        assert_eq!(site.ask(variant, question("q")).await.result.unwrap_err().code, "budget");
        assert_eq!((site.provider.calls().len(), site.sandbox.runs().len()), (1, 1));

        let site = Site::governed(|manifest| manifest.throttle.per_tenant_daily_exec_limit = Some(1)).await;
        let variant = with_tool(&site).await;
        site.provider.then([asks("state", order()), Script::Text("So.".to_owned())]);
        assert!(site.ask(variant, question("q")).await.result.is_ok());
        assert!(told(&site.provider.calls()[1])[0].1.contains("quota"), "the tool had no quota left");
        assert!(site.sandbox.runs().is_empty());
        let mut open = site.all("request").await.into_iter().filter(|span| Within::of(span).is_some());
        assert_eq!(open.next_back().unwrap().status.as_deref(), Some("cancelled"), "nobody waits for it until tomorrow");
    });
}

/// A host that dies between any two writes: the next attempt runs no tool again whose execution is recorded, asks no question again that
/// was answered, and each ordinal has one request.
#[test]
fn a_host_that_dies_at_any_step_runs_no_recorded_tool_again() {
    block_on(async {
        let mut deaths = 0;
        for step in 0.. {
            let site = Site::answering(once).await;
            site.publish(tool("state", "echo")).await;
            let variant = site.variant(json!({"contract": "answer", "tools": ["state"]})).await;
            let died = Arc::new(Notify::new());
            let mortal = Mortal { key: key(HOST), left: AtomicUsize::new(step), died: Arc::clone(&died) };
            let first = site.host_signing(mortal).await;
            let asked = site.host.submit(Request::new(TENANT, USER, variant, question("q")).this(PROMPT_RUN)).await.unwrap();
            let has_died = tokio::select! {
                biased;
                _ = first.run_request(TENANT, asked.id) => false,
                () = died.notified() => true,
            };
            site.clock.advance(Duration::from_secs(3600));
            let result = match site.host.run_request(TENANT, asked.id).await {
                Ok(execution) => execution.result,
                Err(HostError::NotRunnable(_)) => site.host.outcome(TENANT, asked.id).await.unwrap().result,
                Err(error) => panic!("step {step}: {error}"),
            };
            let executions = site.all("execution").await;
            let inner: std::collections::BTreeSet<_> =
                site.all("request").await.into_iter().filter(|span| Within::of(span).is_some()).map(|span| span.id).collect();
            let of_tool: Vec<_> = executions.iter().filter(|span| inner.contains(&span.related_to[0])).collect();
            let is_unknown = site.all("provider_execution").await.iter().any(|span| span.status.as_deref() == Some("unknown"));
            assert_eq!(result.is_err(), is_unknown, "step {step}: {result:?}");
            if !is_unknown {
                let complete = of_tool.iter().filter(|span| span.status.as_deref() == Some("complete")).count();
                assert_eq!((inner.len(), complete, site.provider.calls().len()), (1, 1, 2), "step {step}");
                let lost = of_tool.len() - complete;
                assert!(site.sandbox.runs().len() <= 1 + lost, "step {step}: a recorded run is not repeated");
            }
            assert!(site.provider.calls().len() <= site.all("provider_request").await.len(), "step {step}");
            deaths += usize::from(has_died);
            if !has_died {
                break;
            }
        }
        assert!(deaths >= 10, "claim, boot, two calls, the tool's request, claim and end, the end: {deaths}");
    });
}

/// A request that somebody else has put under the id of a tool's request is not taken for it.
#[test]
fn a_request_under_the_id_of_a_tools_request_is_not_taken_for_it() {
    block_on(async {
        let (site, variant, function) = site("echo", json!({})).await;
        let asked = site.host.submit(Request::new(TENANT, USER, variant, question("q")).this(PROMPT_RUN)).await.unwrap();
        let within = Within { request: asked.id, key: "tool/1/0".to_owned() };
        let squat = Request::new(TENANT, USER, function, json!({"order": 1})).within(within.clone());
        let squat = squat.into_draft(asked.id).stamp(&logline_core::SystemClock, &logline_core::SystemIds);
        site.ledger.append_one(&Scope::Operator, squat.seal_local(&key(9)).unwrap()).await.unwrap();
        site.provider.then([asks("state", order()), Script::Text("So.".to_owned())]);
        let execution = site.host.run_request(TENANT, asked.id).await.unwrap();
        assert!(execution.result.is_ok());
        assert!(told(&site.provider.calls()[1])[0].1.contains("other_call"));
        assert!(site.sandbox.runs().is_empty());
    });
}

/// Records of tools that somebody with the host's key has changed explain nothing.
#[test]
fn a_tool_call_that_was_changed_is_not_explained() {
    block_on(async {
        let (site, variant, _) = site("echo", json!({})).await;
        site.provider.then([asks("state", order()), Script::Text("So.".to_owned())]);
        let execution = site.ask(variant, question("q")).await;
        let honest = record(&site, &execution).await;
        for (path, value) in [
            ("/tool_calls/0/name", json!("refund")),
            ("/tool_calls/0/use", json!("t9")),
            ("/tool_calls/0/call", json!("tool/1/1")),
            ("/tool_calls/0/request", json!(execution.request.id.to_string())),
            ("/tool_calls/0/execution", json!(execution.span.id.to_string())),
            ("/tool_calls/0/function/seq", json!(7)),
        ] {
            let copy = MemoryLedger::new();
            for entity_type in [
                "function",
                "provider",
                "prompt_block",
                "prompt_variant",
                "prompt_build",
                "provider_request",
                "provider_execution",
                "request",
                "execution",
            ] {
                for span in site.all(entity_type).await {
                    copy.append_one(&Scope::Operator, span.verify(&mut Verifier::new()).unwrap()).await.unwrap();
                }
            }
            let mut columns = Span::clone(&honest);
            *columns.metadata.as_mut().unwrap().pointer_mut(path).unwrap() = value;
            let forged = logline_core::Draft::from_columns(columns).seal_local(&key(HOST)).unwrap();
            copy.append_one(&Scope::Operator, forged).await.unwrap();
            assert!(matches!(site.explain(&copy, honest.id).await, Err(ExplainError::NoRecord { .. })), "{path}");
        }
        site.explain(&site.ledger, honest.id).await.unwrap();
    });
}
