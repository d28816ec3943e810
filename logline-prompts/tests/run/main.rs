//! Prompts that are run: answers that hold to their contract or do not, context, and explanations from the ledger alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod directives;
#[path = "../site/mod.rs"]
mod site;
mod tools;

use logline_core::contract::provider::{Block, ErrorKind, ModelAnswer, ProviderError, Role as Speaker, StopReason, Usage};
use logline_core::ledger::{Ledger as _, LedgerExt as _};
use logline_core::request::Request;
use logline_core::{Draft, MemoryLedger, Scope, SignedSpan, Span, Verifier};
use logline_kernels::provider::Script;
use logline_prompts::{Checked, ExplainError, PROMPT_RUN};
use serde_json::{Value, json};
use site::*;
use uuid::Uuid;

#[test]
fn an_answer_is_traced_to_prompt_model_and_cost() {
    block_on(async {
        let site = Site::new().await;
        let variant = site.variant(json!({"contract": "answer"})).await;
        site.provider.then([Script::Fail(ProviderError::new(ErrorKind::Throttled, "busy")), Script::Text(GOOD.to_owned())]);
        let execution = site.ask(variant, question("Help me?")).await;
        let out = execution.result.as_ref().unwrap();
        assert_eq!(out["answer"], json!({"text": "Done.", "confidence": 0.8}));
        let asked = &site.provider.calls()[1];
        let said: Vec<_> = asked.messages.iter().map(|message| (message.role, message.content.len())).collect();
        assert_eq!(
            said,
            [(Speaker::User, 1), (Speaker::Assistant, 1), (Speaker::User, 1)],
            "the examples stand before the question"
        );

        let explained = site.explain(&site.ledger, run_of(&execution)).await.unwrap();
        assert_eq!((explained.text.as_str(), &explained.asked), ("Help Ada.", &Checked::Passed));
        assert_eq!(json!(explained.compiled_hash), out["compiled_hash"]);
        assert_eq!(explained.blocks[0]["id"], json!(site.spans[1].to_string()));
        let statuses: Vec<_> = explained.tries.iter().map(|one| (one.status.as_str(), one.is_used)).collect();
        assert_eq!(statuses, [("error", false), ("complete", true)]);
        assert_eq!(explained.tries[0].error, "provider:throttled");
        assert!(explained.tries[1].cost["nanos"].as_u64().unwrap() > 0);
        assert_eq!(explained.tries[1].provider["id"], json!(site.spans[0].to_string()));
        assert!(serde_json::to_value(&explained).unwrap()["tries"][1].get("error").is_none());
    });
}

#[test]
fn an_answer_that_breaks_its_contract_is_repaired_once() {
    block_on(async {
        let site = Site::new().await;
        let variant = site.variant(json!({"contract": "answer"})).await;
        site.provider.then([Script::Text("Sure: done!".to_owned()), Script::Text(format!("```json\n{GOOD}\n```"))]);
        let execution = site.ask(variant, question("Help me?")).await;
        assert_eq!(execution.result.as_ref().unwrap()["answer"]["text"], "Done.");
        let repair = site.provider.calls()[1].messages.last().unwrap().clone();
        assert!(format!("{repair:?}").contains("the answer is not JSON"), "{repair:?}");
        let explained = site.explain(&site.ledger, run_of(&execution)).await.unwrap();
        assert_eq!((explained.contract, explained.tries.len()), (json!("held"), 2));
        assert_eq!(explained.asked, Checked::Passed, "the repair too");

        let bad = || Script::Text(r#"{"text": "Done.", "confidence": 7}"#.to_owned());
        site.provider.then([bad(), bad(), bad()]);
        let execution = site.ask(variant, question("Help me?")).await;
        assert_eq!(execution.result.as_ref().unwrap()["answer"], json!({"error": "Insufficient evidence."}));
        assert_eq!(site.provider.calls().len(), 4, "one repair, not more");
        let explained = site.explain(&site.ledger, run_of(&execution)).await.unwrap();
        assert_eq!(explained.contract, json!("broken"));
    });
}

#[test]
fn without_a_contract_any_text_is_an_answer_and_a_schema_can_be_given_to_the_provider() {
    block_on(async {
        let site = Site::new().await;
        let variant = site.variant(json!({})).await;
        site.provider.then([Script::Text("Done.".to_owned())]);
        let execution = site.ask(variant, question("Help me?")).await;
        assert_eq!(execution.result.unwrap()["answer"], json!({"text": "Done."}));
        let schema = json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
        let native = site.variant(json!({"contract": schema, "native": true, "max_tokens": 7, "temperature": 0.5})).await;
        site.provider.then([Script::Text(r#"{"n": 3}"#.to_owned())]);
        assert_eq!(site.ask(native, question("n?")).await.result.unwrap()["answer"], json!({"n": 3}));
        let asked = site.provider.calls().pop().unwrap();
        assert_eq!((asked.output_schema.unwrap().schema, asked.max_tokens, asked.temperature), (schema, Some(7), Some(0.5)));
    });
}

#[test]
fn context_is_what_the_asker_may_see_within_a_budget() {
    block_on(async {
        let site = Site::new().await;
        let variant = site.variant(json!({"context_tokens": 10})).await;
        let (short, long, theirs) = (
            site.note("It is Monday.", USER).await,
            site.note(&"x".repeat(41), USER).await,
            site.note("secret", "mallory").await,
        );
        let input = |context: Value| json!({"question": "What day?", "vars": vars(), "context": context});
        let execution = site.ask(variant, input(json!([short, long]))).await;
        let asked = format!("{:?}", site.provider.calls()[0].messages.last().unwrap());
        assert!(asked.contains("It is Monday.") && !asked.contains("xxxx"), "{asked}");
        let explained = site.explain(&site.ledger, run_of(&execution)).await.unwrap();
        assert_eq!((explained.context[0]["used"].clone(), explained.context[1]["used"].clone()), (json!(true), json!(false)));
        assert_eq!(explained.asked, Checked::Passed, "with its context");
        for (context, said) in [
            (json!([theirs]), "no span"),
            (json!(["x"]), "must be a list of ids"),
            (json!(vec![short; 65]), "at most 64"),
            (json!("x"), "must be a list"),
        ] {
            let failure = site.ask(variant, input(context)).await.result.unwrap_err();
            assert!(failure.code == "prompt_invalid" && failure.message.contains(said), "{failure}");
        }
        assert_eq!(site.provider.calls().len(), 1);
    });
}

#[test]
fn what_a_filter_stopped_or_the_model_refused_is_no_answer_and_a_cut_one_is_told() {
    block_on(async {
        for (stop, fails) in [
            (StopReason::ContentFiltered, true),
            (StopReason::Refusal, true),
            (StopReason::MaxTokens, false),
            (StopReason::EndTurn, false),
        ] {
            let site = Site::new().await;
            let variant = site.variant(json!({})).await;
            let answer = ModelAnswer::new(vec![Block::text("half of")], stop.clone(), Usage::of(1, 1));
            site.provider.then([Script::Answer(answer)]);
            let execution = site.ask(variant, question("one")).await;
            match &execution.result {
                Err(failure) => assert!(fails && failure.code == "provider:content_filtered", "{stop:?}: {failure}"),
                Ok(_) => {
                    assert!(!fails, "{stop:?}");
                    let run = site.ledger.get(&Scope::runtime(TENANT), TENANT, run_of(&execution)).await.unwrap();
                    assert_eq!(run.meta("stop"), Some(&json!(stop)));
                }
            }
        }
    });
}

#[test]
fn a_question_that_makes_no_sense_costs_no_call() {
    block_on(async {
        let site = Site::new().await;
        let variant = site.variant(json!({"contract": "answer"})).await;
        for (input, said) in [
            (json!({}), "`question` must be a text"),
            (json!("hello"), "must be an object"),
            (json!({"question": "  "}), "white space only"),
            (json!({"question": "x".repeat(70_000)}), "65536 bytes"),
            (json!({"question": "q", "var": {}}), "no member `var`"),
            (json!({"question": "q"}), "needs a value for `customer`"),
        ] {
            let failure = site.ask(variant, input).await.result.unwrap_err();
            assert!(failure.code == "prompt_invalid" && failure.message.contains(said), "{said}: {failure}");
        }
        let only_built = site.draft(json!(null));
        let only_built = site.host.publish(only_built, &key(PUBLISHER)).await.unwrap().id;
        assert!(site.ask(only_built, question("q")).await.result.unwrap_err().message.contains("no `run`"));
        assert!(site.provider.calls().is_empty() && site.all("prompt_run").await.is_empty());
        let refused =
            async |run: Value| site.host.publish(site.draft(run), &key(PUBLISHER)).await.map(drop).unwrap_err().to_string();
        assert!(refused(json!({"provider": Uuid::from_u128(5)})).await.contains("no provider"));
        assert!(refused(json!({"provider": site.spans[0], "contract": {"type": "blob"}})).await.contains("no JSON schema"));
        assert!(refused(json!({"provider": site.spans[0], "contract": "other"})).await.contains("must be an object"));
        assert!(refused(json!({"provider": site.spans[0], "tool": []})).await.contains("tool"));
    });
}

#[test]
fn a_provider_that_fails_fails_the_request_with_its_reason() {
    block_on(async {
        let site = Site::new().await;
        let variant = site.variant(json!({"contract": "answer"})).await;
        site.provider.then([Script::Fail(ProviderError::new(ErrorKind::ContentFiltered, "no"))]);
        let execution = site.ask(variant, question("q")).await;
        assert_eq!(execution.result.unwrap_err().code, "provider:content_filtered");
        assert!(site.all("prompt_run").await.is_empty());
        assert_eq!(site.all("provider_execution").await.len(), 1, "what was paid is recorded all the same");
    });
}

#[test]
fn listeners_hear_the_answer() {
    block_on(async {
        let site = Site::new().await;
        let variant = site.variant(json!({})).await;
        site.provider.then([Script::Text("one two".to_owned())]);
        let request = site.host.submit(Request::new(TENANT, USER, variant, question("q")).this(PROMPT_RUN)).await.unwrap();
        let mut pieces = site.run.streams().listen(TENANT, request.id);
        let hearing = async {
            let mut heard = 0;
            while pieces.recv().await.is_some() {
                heard += 1;
            }
            heard
        };
        let (ran, heard) = tokio::join!(site.host.run_request(TENANT, request.id), hearing);
        assert!(ran.unwrap().result.is_ok() && heard == 2);
    });
}

/// A record by somebody with the host's key that names another build, or an answer of another request, explains nothing.
#[test]
fn a_record_that_was_changed_is_not_explained() {
    block_on(async {
        let site = Site::new().await;
        let variant = site.variant(json!({})).await;
        let first = run_of(&site.ask(variant, question("one")).await);
        let second = run_of(&site.ask(variant, json!({"question": "two", "vars": {"customer": "Bo"}})).await);
        let record = async |id: Uuid| site.ledger.get(&Scope::runtime(TENANT), TENANT, id).await.unwrap();
        let (honest, other) = (record(first).await, record(second).await);
        for member in ["build", "compiled_hash", "answers", "request"] {
            let mut columns = Span::clone(&honest);
            columns.metadata.as_mut().unwrap()[member] = other.meta(member).cloned().unwrap();
            let forged = Draft::from_columns(columns).seal_local(&key(HOST)).unwrap();
            let copy = MemoryLedger::new();
            for entity_type in
                ["provider", "prompt_block", "prompt_variant", "prompt_build", "provider_request", "provider_execution"]
            {
                for span in site.all(entity_type).await {
                    copy.append_one(&Scope::Operator, span.verify(&mut Verifier::new()).unwrap()).await.unwrap();
                }
            }
            copy.append_one(&Scope::Operator, forged).await.unwrap();
            assert!(matches!(site.explain(&copy, first).await, Err(ExplainError::NoRecord { .. })), "{member}");
        }
        assert!(matches!(site.explain(&site.ledger, variant).await, Err(ExplainError::NoRecord { .. })));
    });
}

/// Somebody who is no host has brought records of calls into the ledger.
#[test]
fn tries_that_no_host_has_signed_are_not_told() {
    block_on(async {
        let site = Site::new().await;
        let variant = site.variant(json!({})).await;
        let run = run_of(&site.ask(variant, question("one")).await);
        let honest = site.explain(&site.ledger, run).await.unwrap().tries.len();
        let intent = site.all("provider_request").await.remove(0);
        let forged = |id: Uuid, like: &SignedSpan| {
            let mut columns = Span::clone(like);
            (columns.id, columns.owner_id) = (id, "mallory".to_owned());
            Draft::from_columns(columns).seal_local(&key(66)).unwrap()
        };
        let other = Uuid::from_u128(7);
        site.ledger.append_one(&Scope::Operator, forged(other, &intent)).await.unwrap();
        assert_eq!(site.explain(&site.ledger, run).await.unwrap().tries.len(), honest, "a try that nobody made");
        // An outcome for a try that a host has made, and whose own outcome is not there.
        let copy = MemoryLedger::new();
        for entity_type in
            ["provider", "prompt_block", "prompt_variant", "prompt_build", "prompt_run", "request", "provider_request"]
        {
            for span in site.all(entity_type).await.into_iter().filter(|span| span.seq == 0 && span.id != other) {
                copy.append_one(&Scope::Operator, span.verify(&mut Verifier::new()).unwrap()).await.unwrap();
            }
        }
        for outcome in site.all("provider_execution").await {
            copy.append_one(&Scope::Operator, forged(outcome.id, &outcome)).await.unwrap();
        }
        let error = site.explain(&copy, run).await.unwrap_err().to_string();
        assert!(error.contains("is not what a host has signed"), "{error}");
    });
}

/// Somebody with the host's key changes what was asked, or what the intent of a call says of it, and leaves the rest as it was.
#[test]
fn a_run_that_asked_something_else_than_its_records_say_is_not_explained() {
    block_on(async {
        let site = Site::new().await;
        let variant = site.variant(json!({})).await;
        let run = run_of(&site.ask(variant, question("one")).await);
        assert_eq!(site.explain(&site.ledger, run).await.unwrap().asked, Checked::Passed);
        let other_question: fn(&mut Span) = |request| request.input.as_mut().unwrap()["question"] = json!("two");
        let other_hash: fn(&mut Span) = |intent| intent.metadata.as_mut().unwrap()["call_hash"] = json!("0".repeat(64));
        let other_model: fn(&mut Span) = |intent| intent.metadata.as_mut().unwrap()["details"]["asked_model"] = json!("m2");
        for (of, change) in [("request", other_question), ("provider_request", other_hash), ("provider_request", other_model)] {
            let copy = MemoryLedger::new();
            for entity_type in [
                "provider",
                "prompt_block",
                "prompt_variant",
                "prompt_build",
                "prompt_run",
                "request",
                "provider_request",
                "provider_execution",
            ] {
                for span in site.all(entity_type).await.into_iter().filter(|span| span.seq == 0) {
                    let mut span = span.verify(&mut Verifier::new()).unwrap();
                    if entity_type == of {
                        let mut columns = Span::clone(&span);
                        change(&mut columns);
                        span = Draft::from_columns(columns).seal_local(&key(HOST)).unwrap();
                    }
                    copy.append_one(&Scope::Operator, span).await.unwrap();
                }
            }
            let error = site.explain(&copy, run).await.unwrap_err();
            assert!(matches!(&error, ExplainError::AskedOtherwise { call, .. } if call == "answer/1"), "{error}");
        }
    });
}
