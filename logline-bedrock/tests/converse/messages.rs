//! Anthropic's messages by InvokeModel: what is sent, and what odd answers become.

use logline_bedrock::Guardrail;
use logline_core::conformance::providing::{Scene, Stage as _};
use logline_core::contract::provider::{
    Block, CacheTtl, ErrorKind, ModelAnswer, ModelRequest, ProviderError, Role, StopReason, ToolChoice,
};
use serde_json::{Value, json};

use super::{MODEL, endpoint, everything, said, tool, tool_use};
use crate::stage::messages::{begin, chunk, delta, end, message, start};
use crate::stage::{Act, EVENTS, Ignored, Server, block_on, open_messages, open_messages_with};

async fn sent(server: &Server, request: &ModelRequest) -> Value {
    server.act(Act::Scene(Scene::Says("ok".to_owned(), None)));
    server.provider().invoke(&endpoint(MODEL), request).await.unwrap();
    server.last().body
}

#[test]
fn a_request_is_what_anthropics_messages_want() {
    block_on(async {
        let (_serving, server) = open_messages().await;
        assert_eq!(server.provider().adapter(), "bedrock-messages");
        let mut request = everything();
        // A document of a kind that the messages do not take.
        let Block::Document { media_type, .. } = &mut request.messages[2].content[2] else { panic!() };
        assert_eq!(media_type, "application/pdf");
        request.check().unwrap();
        let input = json!({"city": "Lisbon", "days": [1, -2, 0.5, null]});
        let used = |id: &str| json!({"type": "tool_use", "id": id, "name": "weather", "input": input});
        let picture = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}});
        let expected = json!({
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 9,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Weather?", "cache_control": {"type": "ephemeral"}}]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                    {"type": "thinking", "thinking": "", "signature": "b25seQ=="},
                    {"type": "redacted_thinking", "data": "AAEC/w=="},
                    used("a"), used("b"),
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "sun"}, picture]},
                    {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "no"}], "is_error": true},
                    {"type": "document", "title": "plan",
                     "source": {"type": "base64", "media_type": "application/pdf", "data": "BBBB"}},
                    {"type": "text", "text": "So?"},
                ]},
            ],
            "tools": [{"name": "weather", "description": "now", "strict": true,
                       "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}],
            "tool_choice": {"type": "tool", "name": "weather"},
            "temperature": 0.5, "top_p": 0.25, "stop_sequences": ["END"],
            "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
        });
        assert_eq!(sent(&server, &request).await, expected);
        assert!(server.last().path().ends_with("/invoke"));
        server.act(Act::Scene(Scene::Says("ok".to_owned(), None)));
        server.provider().stream(&endpoint(MODEL), &request, &mut Ignored).await.unwrap();
        assert_eq!(server.last().body, expected, "a stream is asked for with the same body");
        assert!(server.last().path().ends_with("/invoke-with-response-stream"));
    });
}

#[test]
fn tools_results_and_turns_are_as_the_messages_want_them() {
    block_on(async {
        let (_serving, server) = open_messages().await;
        let mut request = ModelRequest::ask("hi");
        assert_eq!(sent(&server, &request).await["max_tokens"], 4096, "the messages must have a limit");
        request.messages.push(said(Role::Assistant, vec![tool_use("a")]));
        let result = Block::ToolResult { id: "a".to_owned(), content: vec![Block::text("sun")], is_error: false };
        request.messages.push(said(Role::User, vec![Block::text("See:"), result]));
        request.messages.push(said(Role::User, vec![Block::text(" "), Block::text("So?")]));
        let body = sent(&server, &request).await;
        let turn: Vec<_> =
            body["messages"][2]["content"].as_array().unwrap().iter().map(|block| block["type"].clone()).collect();
        assert_eq!(turn, ["tool_result", "text", "text"], "one turn, and the results stand first");
        assert_eq!(body["tools"], json!([{"name": "weather", "input_schema": {"type": "object"}}]), "what was used is named");
        assert!(body.get("tool_choice").is_none());
        request.tools = vec![tool("weather")];
        for (choice, expected) in [(ToolChoice::None, "none"), (ToolChoice::Auto, "auto"), (ToolChoice::Any, "any")] {
            request.tool_choice = Some(choice);
            assert_eq!(sent(&server, &request).await["tool_choice"], json!({"type": expected}));
        }
        let calls = server.seen().len();
        let odd = |block: Block| {
            let mut request = ModelRequest::ask("hi");
            request.messages = vec![said(Role::User, vec![block])];
            request
        };
        let file = |media_type: &str, data: &str| Block::Document {
            name: "n".to_owned(),
            media_type: media_type.to_owned(),
            data: data.to_owned(),
        };
        for (request, reason) in [
            (
                odd(Block::CachePoint { ttl: Some(CacheTtl::OneHour) }),
                "messages[0].content[0]: a cache point must stand behind",
            ),
            (odd(file("text/csv", "AAAA")), "pdf or plain text"),
            (odd(file("text/plain", "//8=")), "UTF-8"),
            (odd(file("application/pdf", "%")), "base64"),
            (odd(Block::Image { media_type: "image/tiff".to_owned(), data: "AAAA".to_owned() }), "png, jpeg"),
        ] {
            let error = server.provider().invoke(&endpoint(MODEL), &request).await.unwrap_err();
            assert!(error.kind == ErrorKind::Invalid && error.message.contains(reason), "{reason}: {error}");
        }
        assert_eq!(server.seen().len(), calls, "nothing was sent");
    });
}

#[test]
fn a_guardrail_and_fields_of_the_model_go_along() {
    block_on(async {
        let fields = json!({"thinking": {"type": "enabled", "budget_tokens": 1024}});
        let guarded = |builder: logline_bedrock::BedrockBuilder| builder.guardrail(Guardrail::new("gr0123456789", "3"));
        let (_serving, server) = open_messages_with(|builder| guarded(builder).model_fields(fields.clone())).await;
        assert_eq!(sent(&server, &ModelRequest::ask("hi")).await["thinking"], fields["thinking"]);
        let header = |name: &str| server.last().header(name).map(str::to_owned);
        assert_eq!(header("x-amzn-bedrock-guardrailidentifier").as_deref(), Some("gr0123456789"));
        let mut stopped = message(&json!([{"type": "text", "text": "Sorry."}]), "end_turn", &json!({}));
        stopped["amazon-bedrock-guardrailAction"] = json!("INTERVENED");
        server.act(Act::Raw("200 OK".to_owned(), stopped.to_string().into_bytes()));
        let answer = server.provider().invoke(&endpoint(MODEL), &ModelRequest::ask("hi")).await.unwrap();
        assert_eq!(answer.stop, StopReason::ContentFiltered, "what stands in the model's place is not the model's");
    });
}

async fn whole(server: &Server, body: Value) -> Result<ModelAnswer, ProviderError> {
    server.act(Act::Raw("200 OK".to_owned(), body.to_string().into_bytes()));
    server.provider().invoke(&endpoint(MODEL), &ModelRequest::ask("hi")).await
}

async fn streamed(server: &Server, events: &[Value]) -> Result<ModelAnswer, ProviderError> {
    let bytes: Vec<u8> = events.iter().flat_map(chunk).collect();
    server.act(Act::Raw(format!("200 OK\r\ncontent-type: {EVENTS}\r\nx-amzn-requestid: req-9"), bytes));
    server.provider().stream(&endpoint(MODEL), &ModelRequest::ask("hi"), &mut Ignored).await
}

#[test]
fn reasoning_comes_back_as_it_was_whole_and_in_pieces() {
    block_on(async {
        let (_serving, server) = open_messages().await;
        let content = json!([
            {"type": "thinking", "thinking": "hm, no", "signature": "c2lnbmVk"},
            {"type": "thinking", "thinking": "", "signature": "b25seQ=="},
            {"type": "redacted_thinking", "data": "opaque-1/+=="},
            {"type": "server_thing", "x": 1},
            {"type": "text", "text": "Sun."},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Lisbon"}},
        ]);
        let used = json!({"input_tokens": 3, "output_tokens": 4});
        let answer = whole(&server, message(&content, "tool_use", &used)).await.unwrap();
        let piece = |index, kind: &str, member: &str, said: &str| delta(index, &json!({"type": kind, member: said}));
        let mut events = vec![
            start(),
            begin(0, &json!({"type": "thinking", "thinking": "", "signature": ""})),
            piece(0, "thinking_delta", "thinking", "hm, "),
            piece(0, "thinking_delta", "thinking", "no"),
            piece(0, "signature_delta", "signature", "c2ln"),
            piece(0, "signature_delta", "signature", "bmVk"),
            begin(1, &json!({"type": "thinking", "thinking": "", "signature": ""})),
            piece(1, "signature_delta", "signature", "b25seQ=="),
            begin(2, &json!({"type": "redacted_thinking", "data": "opaque-1/+=="})),
            begin(3, &json!({"type": "server_thing", "x": 1})),
            piece(3, "server_delta", "x", "1"),
            begin(4, &json!({"type": "text", "text": ""})),
            piece(4, "text_delta", "text", "Sun."),
            begin(5, &json!({"type": "tool_use", "id": "t1", "name": "weather", "input": {}})),
            piece(5, "input_json_delta", "partial_json", "{\"city\": "),
            piece(5, "input_json_delta", "partial_json", "\"Lisbon\"}"),
        ];
        events.extend(end("tool_use", &used));
        let pieces = streamed(&server, &events).await.unwrap();
        assert_eq!((pieces.content.clone(), &pieces.stop), (answer.content.clone(), &StopReason::ToolUse));
        assert_eq!(answer.content[2], Block::RedactedReasoning { data: "opaque-1/+==".to_owned() });
        // And given back, it is what it was.
        let mut request = ModelRequest::ask("hi");
        request.messages.push(said(Role::Assistant, answer.content));
        let result = Block::ToolResult { id: "t1".to_owned(), content: vec![Block::text("sun")], is_error: false };
        request.messages.push(said(Role::User, vec![result]));
        let back = sent(&server, &request).await["messages"][1]["content"].clone();
        let known: Vec<_> =
            content.as_array().unwrap().iter().filter(|block| block["type"] != "server_thing").cloned().collect();
        assert_eq!(back, json!(known));
    });
}

#[test]
fn usage_is_told_by_class_and_what_is_not_said_is_not_known() {
    block_on(async {
        let (_serving, server) = open_messages().await;
        let text = json!([{"type": "text", "text": "ok"}]);
        let stated = json!({
            "input_tokens": 10, "output_tokens": 20, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 44,
            "cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 4}, "service_tier": "standard",
        });
        let used = whole(&server, message(&text, "end_turn", &stated)).await.unwrap().usage;
        assert_eq!(
            (used.input, used.cache_read, used.cache_write, used.cache_write_1h, used.output),
            (Some(10), Some(30), Some(40), Some(4), Some(20))
        );
        assert_eq!((used.total(), used.raw), (Some(104), stated.clone()));
        let none = whole(&server, message(&text, "end_turn", &json!({}))).await.unwrap().usage;
        assert_eq!((none.input, none.output, none.raw), (None, None, Value::Null));
        // In a stream, the last numbers count, and those of the beginning that are not said again.
        let mut first = start();
        first["message"]["usage"] = json!({"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 5});
        let mut events = vec![first, begin(0, &json!({"type": "text", "text": "ok"}))];
        events.extend(end("end_turn", &json!({"output_tokens": 7})));
        let used = streamed(&server, &events).await.unwrap();
        assert_eq!((used.usage.input, used.usage.cache_read, used.usage.output), (Some(10), Some(5), Some(7)));
        assert_eq!((used.model.as_deref(), used.request_id.as_deref()), (Some("claude-trial"), Some("req-9")));
    });
}

#[test]
fn broken_and_hostile_answers_are_errors() {
    block_on(async {
        let (_serving, server) = open_messages().await;
        for body in [json!([]), json!({}), message(&json!([]), "", &json!({})), json!({"content": [], "stop_reason": null})] {
            assert_eq!(whole(&server, body.clone()).await.unwrap_err().kind, ErrorKind::BadAnswer, "{body}");
        }
        let text = begin(0, &json!({"type": "text", "text": ""}));
        let more = delta(0, &json!({"type": "text_delta", "text": "a"}));
        let overloaded = json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}});
        let refused = json!({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}});
        for (events, kind) in [
            (vec![start(), overloaded.clone()], ErrorKind::NotReady),
            (vec![start(), text.clone(), more.clone(), overloaded], ErrorKind::StreamBroken),
            (vec![start(), text.clone(), more.clone(), refused], ErrorKind::Invalid),
            (vec![start(), text.clone(), more.clone()], ErrorKind::StreamBroken),
            (vec![start(), text.clone(), text.clone()], ErrorKind::BadAnswer),
            (vec![start(), more.clone()], ErrorKind::BadAnswer),
            (vec![text.clone(), delta(0, &json!({"type": "input_json_delta", "partial_json": "{"}))], ErrorKind::BadAnswer),
        ] {
            let error = streamed(&server, &events).await.unwrap_err();
            assert_eq!(error.kind, kind, "{events:?}: {error}");
        }
        // A tool use that is cut in the middle is none; what is no JSON is what the model said.
        let used = begin(0, &json!({"type": "tool_use", "id": "t", "name": "w", "input": {}}));
        let half = delta(0, &json!({"type": "input_json_delta", "partial_json": "{\"ci"}));
        for (reason, count, stop) in [("max_tokens", 0, StopReason::MaxTokens), ("tool_use", 1, StopReason::ToolUse)] {
            let mut events = vec![used.clone(), half.clone()];
            events.extend(end(reason, &json!({})));
            let answer = streamed(&server, &events).await.unwrap();
            assert_eq!((answer.content.len(), answer.stop), (count, stop), "{reason}");
        }
    });
}
