//! What is sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod messages;
#[path = "../stage/mod.rs"]
mod stage;

use std::time::Duration;

use logline_bedrock::{Embedder, Guardrail};
use logline_core::conformance::providing::{Scene, Stage as _};
use logline_core::contract::provider::{
    Block, CacheTtl, Deadlines, EmbedRequest, Endpoint, ErrorKind, Message, ModelRequest, OutputSchema, Purpose, Role, Tool,
    ToolChoice,
};
use serde_json::{Value, json};
use stage::{Act, Server, block_on, open, open_with};

const KEY: &str = "0e4c1d0a-0000-4000-8000-000000000001";
const MODEL: &str = "anthropic.claude-sonnet-4-5-20250929-v1:0";

fn endpoint(model: &str) -> Endpoint<'_> {
    let ms = Duration::from_millis;
    let deadlines = Deadlines { connect: ms(1000), first_byte: ms(1000), idle: ms(1000), total: ms(5000) };
    Endpoint::new(model, KEY).deadlines(deadlines)
}

async fn sent(server: &Server, request: &ModelRequest) -> Value {
    server.act(Act::Scene(Scene::Says("ok".to_owned(), None)));
    server.provider().invoke(&endpoint(MODEL), request).await.unwrap();
    server.last().body
}

fn tool(name: &str) -> Tool {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    Tool { name: name.to_owned(), description: "now".to_owned(), input_schema: schema, strict: true }
}

fn tool_use(id: &str) -> Block {
    Block::ToolUse {
        id: id.to_owned(),
        name: "weather".to_owned(),
        input: json!({"city": "Lisbon", "days": [1, -2, 0.5, null]}),
    }
}

fn said(role: Role, content: Vec<Block>) -> Message {
    Message { role, content }
}

/// A conversation with everything that the contract has.
fn everything() -> ModelRequest {
    let mut request = ModelRequest::ask("Weather?").system("Be brief.").max_tokens(9);
    request.system.push(Block::CachePoint { ttl: Some(CacheTtl::OneHour) });
    request.tools = vec![tool("weather")];
    request.tool_choice = Some(ToolChoice::Tool("weather".to_owned()));
    request.output_schema = Some(OutputSchema { name: "said".to_owned(), schema: json!({"type": "object"}) });
    (request.temperature, request.top_p, request.stop) = (Some(0.5), Some(0.25), vec!["END".to_owned()]);
    request.metadata.insert("case".to_owned(), "17".to_owned());
    request.messages[0].content.push(Block::CachePoint { ttl: None });
    let signed = Block::Reasoning { text: "hm".to_owned(), signature: Some("c2ln".to_owned()) };
    let only_signed = Block::Reasoning { text: String::new(), signature: Some("b25seQ==".to_owned()) };
    let redacted = Block::RedactedReasoning { data: "AAEC/w==".to_owned() };
    request.messages.push(said(Role::Assistant, vec![signed, only_signed, redacted, tool_use("a"), tool_use("b")]));
    let picture = Block::Image { media_type: "image/png".to_owned(), data: "AAAA".to_owned() };
    let good = Block::ToolResult { id: "a".to_owned(), content: vec![Block::text("sun"), picture], is_error: false };
    let bad = Block::ToolResult { id: "b".to_owned(), content: vec![Block::text("no"), Block::text(" ")], is_error: true };
    let plan = Block::Document { name: "plan".to_owned(), media_type: "application/pdf".to_owned(), data: "BBBB".to_owned() };
    request.messages.push(said(Role::User, vec![good, bad, plan, Block::text("So?")]));
    request
}

#[test]
fn a_request_is_what_converse_wants() {
    block_on(async {
        let (_serving, server) = open().await;
        let request = everything();
        request.check().unwrap();
        let used = |id: &str| json!({"toolUse": {"toolUseId": id, "name": "weather", "input": {"city": "Lisbon", "days": [1, -2, 0.5, null]}}});
        let expected = json!({
            "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default", "ttl": "1h"}}],
            "messages": [
                {"role": "user", "content": [{"text": "Weather?"}, {"cachePoint": {"type": "default"}}]},
                {"role": "assistant", "content": [
                    {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}},
                    {"reasoningContent": {"reasoningText": {"text": "", "signature": "b25seQ=="}}},
                    {"reasoningContent": {"redactedContent": "AAEC/w=="}},
                    used("a"),
                    used("b"),
                ]},
                {"role": "user", "content": [
                    {"toolResult": {"toolUseId": "a", "content": [{"text": "sun"}, {"image": {"format": "png", "source": {"bytes": "AAAA"}}}], "status": "success"}},
                    {"toolResult": {"toolUseId": "b", "content": [{"text": "no"}], "status": "error"}},
                    {"document": {"format": "pdf", "name": "plan", "source": {"bytes": "BBBB"}}},
                    {"text": "So?"},
                ]},
            ],
            "toolConfig": {
                "tools": [{"toolSpec": {"name": "weather", "description": "now", "strict": true, "inputSchema": {"json": request.tools[0].input_schema}}}],
                "toolChoice": {"tool": {"name": "weather"}},
            },
            "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "topP": 0.25, "stopSequences": ["END"]},
            "outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"name": "said", "schema": "{\"type\":\"object\"}"}}}},
            "requestMetadata": {"case": "17"},
        });
        assert_eq!(sent(&server, &request).await, expected);
        assert!(server.last().head.starts_with(&format!("POST /model/{}/converse HTTP/1.1", MODEL.replace(':', "%3A"))));
        server.act(Act::Scene(Scene::Says("ok".to_owned(), None)));
        server.provider().stream(&endpoint(MODEL), &request, &mut stage::Ignored).await.unwrap();
        assert_eq!(server.last().body, expected, "the stream is asked for with the same words");
    });
}

#[test]
fn only_what_is_asked_for_is_sent() {
    block_on(async {
        let (_serving, server) = open().await;
        let body = sent(&server, &ModelRequest::ask("hi")).await;
        assert_eq!(body, json!({"messages": [{"role": "user", "content": [{"text": "hi"}]}]}));
    });
}

/// Bedrock refuses blank texts, and two messages of one speaker that follow each other.
#[test]
fn blank_texts_are_left_out_and_speakers_take_turns() {
    block_on(async {
        let (_serving, server) = open().await;
        let mut request = ModelRequest::ask("one").system("  \n");
        request.messages.push(said(Role::User, vec![Block::text("\t"), Block::text("two")]));
        request.messages.push(said(Role::Assistant, vec![Block::text(" ")]));
        request.messages.push(said(Role::User, vec![Block::text("three")]));
        let body = sent(&server, &request).await;
        let texts = json!([{"text": "one"}, {"text": "two"}, {"text": "three"}]);
        assert_eq!(body, json!({"messages": [{"role": "user", "content": texts}]}));
    });
}

/// The results of one turn that were given in two messages go back in one.
#[test]
fn all_results_of_a_turn_are_in_the_next_user_message() {
    block_on(async {
        let (_serving, server) = open().await;
        let mut request = ModelRequest::ask("Weather?");
        request.messages.push(said(Role::Assistant, vec![tool_use("a"), tool_use("b")]));
        for id in ["a", "b"] {
            let result = Block::ToolResult { id: id.to_owned(), content: vec![Block::text("sun")], is_error: false };
            request.messages.push(said(Role::User, vec![result]));
        }
        let body = sent(&server, &request).await;
        let results = body["messages"][2]["content"].as_array().unwrap();
        let ids: Vec<_> = results.iter().map(|result| result["toolResult"]["toolUseId"].as_str().unwrap()).collect();
        assert_eq!((ids, body["messages"].as_array().unwrap().len()), (vec!["a", "b"], 3));
    });
}

#[test]
fn the_tools_are_sent_whenever_the_conversation_has_some() {
    block_on(async {
        let (_serving, server) = open().await;
        let mut request = ModelRequest::ask("Weather?");
        request.tools = vec![tool("weather"), tool("news")];
        request.tool_choice = Some(ToolChoice::None);
        // Converse has no choice of none: tools that nobody may use are not offered.
        assert_eq!(sent(&server, &request).await.get("toolConfig"), None);
        request.messages.push(said(Role::Assistant, vec![tool_use("a")]));
        let result = Block::ToolResult { id: "a".to_owned(), content: vec![Block::text("sun")], is_error: false };
        request.messages.push(said(Role::User, vec![result]));
        let config = sent(&server, &request).await["toolConfig"].clone();
        assert_eq!((config["tools"].as_array().unwrap().len(), config.get("toolChoice")), (2, None));
        (request.tools, request.tool_choice) = (Vec::new(), None);
        let config = sent(&server, &request).await["toolConfig"].clone();
        assert_eq!(config, json!({"tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": {"type": "object"}}}}]}));
        for (choice, expected) in [(ToolChoice::Auto, json!({"auto": {}})), (ToolChoice::Any, json!({"any": {}}))] {
            (request.tools, request.tool_choice) = (vec![tool("weather")], Some(choice));
            assert_eq!(sent(&server, &request).await["toolConfig"]["toolChoice"], expected);
        }
        // What a model once said instead of an input, shown to it as an object.
        request.messages[1].content =
            vec![Block::ToolUse { id: "a".to_owned(), name: "weather".to_owned(), input: json!("{no") }];
        assert_eq!(sent(&server, &request).await["messages"][1]["content"][0]["toolUse"]["input"], json!({"input": "{no"}));
    });
}

/// Ids of models are opaque: also ARNs, whose slashes must not become parts of the path.
#[test]
fn the_id_of_a_model_is_one_part_of_the_path() {
    block_on(async {
        let (_serving, server) = open().await;
        for (model, path) in [
            ("eu.amazon.nova-pro-v1:0", "/model/eu.amazon.nova-pro-v1%3A0/converse"),
            (
                "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/a1b2c3",
                "/model/arn%3Aaws%3Abedrock%3Aeu-central-1%3A123456789012%3Aapplication-inference-profile%2Fa1b2c3/converse",
            ),
            ("../../admin?x=1#", "/model/..%2F..%2Fadmin%3Fx%3D1%23/converse"),
        ] {
            server.act(Act::Scene(Scene::Says("ok".to_owned(), None)));
            server.provider().invoke(&endpoint(model), &ModelRequest::ask("hi")).await.unwrap();
            assert_eq!(server.last().path(), path);
        }
        assert_eq!(server.provider().check(None, " ").unwrap_err().split(' ').next(), Some("a"));
    });
}

#[test]
fn what_converse_has_no_form_for_is_refused_before_it_is_sent() {
    block_on(async {
        let (_serving, server) = open().await;
        let document = |name: &str, media: &str, data: &str| Block::Document {
            name: name.to_owned(),
            media_type: media.to_owned(),
            data: data.to_owned(),
        };
        let picture = |media: &str, data: &str| Block::Image { media_type: media.to_owned(), data: data.to_owned() };
        for (block, reason) in [
            (picture("image/tiff", "AAAA"), "png, jpeg, gif or webp"),
            (picture("image/png", "not base64!"), "base64"),
            (document("a", "application/zip", "AAAA"), "not `application/zip`"),
            (document("a", "text/csv", "%"), "base64"),
            (Block::RedactedReasoning { data: "%".to_owned() }, "base64"),
        ] {
            let mut request = ModelRequest::ask("hi");
            request.messages[0].content.push(block);
            let error = server.provider().invoke(&endpoint(MODEL), &request).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.message.starts_with("messages[0].content[1]: ") && error.message.contains(reason), "{error}");
        }
        let error =
            server.provider().invoke(&endpoint(MODEL), &ModelRequest::ask("hi").max_tokens(u32::MAX)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        // The names of documents are the contract's to check, as every provider refuses the same.
        for bad in ["a/b", "two  spaces", "", &"x".repeat(201), "naïve"] {
            let mut request = ModelRequest::ask("hi");
            request.messages[0].content.push(document(bad, "text/csv", "AAAA"));
            assert!(request.check().is_err(), "{bad}");
        }
        assert_eq!(server.seen().len(), 0, "nothing was sent");
        for (media, format) in [
            ("text/plain", "txt"),
            ("text/markdown", "md"),
            ("text/html", "html"),
            ("text/csv", "csv"),
            ("application/msword", "doc"),
            ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx"),
            ("application/vnd.ms-excel", "xls"),
            ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
        ] {
            let mut request = ModelRequest::ask("hi");
            request.messages[0].content.push(document("a", media, "AAAA"));
            assert_eq!(sent(&server, &request).await["messages"][0]["content"][1]["document"]["format"], format);
        }
    });
}

#[test]
fn guardrail_and_fields_of_models_go_with_every_conversation() {
    block_on(async {
        let fields = json!({"thinking": {"type": "enabled", "budget_tokens": 1024}});
        let (_serving, server) = open_with(|builder| {
            builder.guardrail(Guardrail::new("gr0123456789", "3")).model_fields(fields.clone()).name("bedrock-guarded")
        })
        .await;
        let body = sent(&server, &ModelRequest::ask("hi")).await;
        assert_eq!(
            body["guardrailConfig"],
            json!({"guardrailIdentifier": "gr0123456789", "guardrailVersion": "3", "trace": "disabled"})
        );
        assert_eq!(body["additionalModelRequestFields"], fields);
        server.act(Act::Scene(Scene::Says("ok".to_owned(), None)));
        server.provider().stream(&endpoint(MODEL), &ModelRequest::ask("hi"), &mut stage::Ignored).await.unwrap();
        // The guardrail sees the pieces before anybody else does.
        assert_eq!(server.last().body["guardrailConfig"]["streamProcessingMode"], "sync");
        assert_eq!(server.provider().adapter(), "bedrock-guarded");
    });
}

async fn embedded(
    server: &Server,
    model: &str,
    request: &EmbedRequest,
    head: &str,
    answer: &Value,
) -> Result<(Vec<Vec<f32>>, Option<u64>), ErrorKind> {
    server.act(Act::Raw(format!("200 OK\r\ncontent-type: application/json{head}"), answer.to_string().into_bytes()));
    let found = server.provider().embed(&endpoint(model), request).await;
    found.map(|found| (found.vectors, found.usage.total())).map_err(|error| error.kind)
}

#[test]
fn vectors_are_asked_for_with_purpose_and_dimensions() {
    block_on(async {
        let profile = "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/vectors";
        let (_serving, server) = open_with(|builder| builder.embedder(profile, Embedder::Cohere)).await;
        let one = |purpose| EmbedRequest { dimensions: Some(256), ..EmbedRequest::new(vec!["a".to_owned()], purpose) };
        let titan = json!({"embedding": [1.0, 0.5], "inputTextTokenCount": 3, "embeddingsByType": {"float": [1.0, 0.5]}});
        let found = embedded(&server, "amazon.titan-embed-text-v2:0", &one(Purpose::Query), "", &titan).await;
        assert_eq!(found, Ok((vec![vec![1.0, 0.5]], Some(3))));
        let seen = server.last();
        assert_eq!(
            (seen.path(), seen.body.clone()),
            ("/model/amazon.titan-embed-text-v2%3A0/invoke", json!({"inputText": "a", "dimensions": 256}))
        );

        let two = EmbedRequest::new(vec!["a".to_owned(), "b".to_owned()], Purpose::Document);
        let cohere =
            json!({"id": "x", "response_type": "embeddings_by_type", "embeddings": {"float": [[1.0, 0.5], [2.0, 0.5]]}});
        let counted = "\r\nx-amzn-bedrock-input-token-count: 4";
        let found = embedded(&server, "cohere.embed-v4:0", &two, counted, &cohere).await;
        assert_eq!(found, Ok((vec![vec![1.0, 0.5], vec![2.0, 0.5]], Some(4))));
        assert_eq!(
            server.last().body,
            json!({"texts": ["a", "b"], "input_type": "search_document", "embedding_types": ["float"]})
        );
        let plain = json!({"embeddings": [[1.0]]});
        let found = embedded(&server, profile, &one(Purpose::Query), "", &plain).await;
        assert_eq!(found, Ok((vec![vec![1.0]], None)), "tokens that nobody counted are not known");
        let body = server.last().body;
        assert_eq!((&body["input_type"], &body["output_dimension"]), (&json!("search_query"), &json!(256)));

        for bad in [
            json!({"embeddings": {"float": [[1.0]]}}),
            json!({"embeddings": {"float": [[1.0], [1.0, 2.0]]}}),
            json!({"embeddings": [[], []]}),
            json!({}),
            json!([]),
        ] {
            assert_eq!(embedded(&server, "cohere.embed-v4:0", &two, "", &bad).await, Err(ErrorKind::BadAnswer), "{bad}");
        }
        let calls = server.seen().len();
        for (model, reason) in [
            ("amazon.titan-embed-text-v2:0", "one text"),
            ("arn:aws:bedrock:x:y:application-inference-profile/z", "does not say"),
        ] {
            let error = server.provider().embed(&endpoint(model), &two).await.unwrap_err();
            assert!(error.kind == ErrorKind::Invalid && error.message.contains(reason), "{error}");
        }
        assert_eq!(server.seen().len(), calls, "nothing was sent");
    });
}
