//! What is recorded of a call that was answered.

use logline_core::contract::provider::{Block, ModelAnswer, StopReason, Usage};
use logline_core::request::Request;
use logline_kernels::provider::{PROVIDER_EMBED, Script};
use serde_json::{Value, json};

use crate::setup::{TENANT, USER, block_on, output};
use crate::site::*;

#[test]
fn a_call_leaves_an_intent_and_an_outcome_with_usage_and_cost() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let mut usage = Usage::of(1000, 100);
        usage.cache_read = Some(500);
        usage.raw = json!({"inputTokens": 1000, "somethingNew": 7});
        let answer =
            ModelAnswer::new(vec![Block::text("Paris.")], StopReason::EndTurn, usage).request_id(Some("req-1".to_owned()));
        site.provider.then([Script::Answer(answer)]);
        let execution = host.execute(asking(main, "The capital of France?")).await.unwrap();
        let out = output(&execution);
        assert_eq!(out["answer"]["content"], json!([{"type": "text", "text": "Paris."}]));
        let intent = &site.spans("provider_request").await[0];
        assert_eq!(intent.parent_id, Some(execution.request.id));
        assert_eq!((intent.meta("ordinal"), intent.meta("operation")), (Some(&json!(1)), Some(&json!("invoke"))));
        assert_eq!(intent.meta("details").unwrap()["model"], FAST);
        assert_eq!(intent.meta("details").unwrap()["provider"]["id"], json!(main.to_string()));
        let outcome = &site.spans("provider_execution").await[0];
        assert_eq!(out["span"], json!(outcome.id.to_string()));
        assert_eq!((outcome.parent_id, outcome.related_to.contains(&intent.id)), (Some(main), true));
        let details = outcome.meta("details").unwrap();
        // 1,500 tokens at 3 dollars and 100 at 15 dollars a million: 0.006 dollars.
        assert_eq!(details["cost"], json!({"nanos": 6_000_000, "currency": "USD"}));
        assert_eq!(details["usage"]["raw"]["somethingNew"], 7, "what the provider says is kept");
        assert_eq!(details["request_id"], "req-1");
        assert_eq!(site.provider.calls()[0].max_tokens, Some(100), "no answer is longer than what the provider span allows");
    });
}

#[test]
fn odd_answers_are_recorded_as_what_they_are() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let deadlines = json!({"deadlines": {"total_ms": 20, "connect_ms": 5, "first_byte_ms": 5, "idle_ms": 5}, "retry": {"tries": 1, "pause_ms": 0, "max_pause_ms": 0}});
        let main = publish(&host, with(spec(), deadlines)).await;
        let answer = |content| Script::Answer(ModelAnswer::new(content, StopReason::EndTurn, Usage::default()));
        // A text with U+0000, which no span can hold.
        site.provider.then([answer(vec![Block::text("a\0b")])]);
        assert_eq!(output(&host.execute(asking(main, "q")).await.unwrap())["answer"]["content"][0]["text"], "a\u{fffd}b");
        // Tools are wanted, and the provider says that the turn has ended.
        site.provider.then([answer(vec![Block::ToolUse { id: "t".to_owned(), name: "add".to_owned(), input: json!({}) }])]);
        assert_eq!(output(&host.execute(asking(main, "q")).await.unwrap())["answer"]["stop"], "tool_use");
        // Reasoning with a signature and no text goes back as it came.
        let reasoning = Block::Reasoning { text: String::new(), signature: Some("c2ln".to_owned()) };
        site.provider.then([answer(vec![reasoning, Block::RedactedReasoning { data: "eA==".to_owned() }])]);
        let execution = host.execute(asking(main, "q")).await.unwrap();
        let content = &output(&execution)["answer"]["content"];
        assert_eq!(
            content,
            &json!([{"type": "reasoning", "text": "", "signature": "c2ln"}, {"type": "redacted_reasoning", "data": "eA=="}])
        );
        // 2 MB do not fit into a span.
        site.provider.then([answer(vec![Block::text("x".repeat(2 << 20))])]);
        assert_eq!(code(&host.execute(asking(main, "q")).await.unwrap()), "answer_limit");
        // An answer that never comes.
        site.provider.then([Script::Hang]);
        assert_eq!(code(&host.execute(asking(main, "q")).await.unwrap()), "provider:timed_out");
        let outcomes = site.spans("provider_execution").await;
        let usage = &outcomes[0].meta("details").unwrap()["usage"];
        assert_eq!(usage, &json!({}), "what is not said is not 0");
    });
}

#[test]
fn texts_become_vectors() {
    block_on(async {
        let site = Site::with(budget(Some(1000), None)).await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let embed = |texts: Value| {
            Request::new(TENANT, USER, main, json!({"request": {"texts": texts, "purpose": "query"}})).this(PROVIDER_EMBED)
        };
        let execution = host.execute(embed(json!(["one", "two"]))).await.unwrap();
        let answer = &output(&execution)["answer"];
        assert_eq!((answer["vectors"].as_array().unwrap().len(), &answer["dimensions"]), (2, &json!(8)));
        assert_eq!(site.used(TOKENS).await, 2);
        for texts in [json!([]), json!(["one", " "]), json!(vec!["x"; 97])] {
            assert_eq!(code(&host.execute(embed(texts)).await.unwrap()), "provider:invalid");
        }
    });
}
