//! What odd, broken and hostile answers become.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod stage;

use std::time::Duration;

use async_trait::async_trait;
use logline_core::conformance::providing::Stage as _;
use logline_core::contract::provider::{
    Advice, Block, Chunk, Chunks, Deadlines, Endpoint, ErrorKind, ModelAnswer, ModelRequest, OutputSchema, ProviderError,
    StopReason, Usage,
};
use serde_json::{Value, json};
use stage::frames::{delta, event, exception, metadata, stop, tool_start};
use stage::{Act, EVENTS, Server, block_on, converse, open};

fn endpoint() -> Endpoint<'static> {
    let ms = Duration::from_millis;
    let deadlines = Deadlines { connect: ms(1000), first_byte: ms(1000), idle: ms(400), total: ms(5000) };
    Endpoint::new("trial-model", "0e4c1d0a-0000-4000-8000-000000000001").deadlines(deadlines)
}

async fn raw(server: &Server, head: &str, body: impl Into<Vec<u8>>) -> Result<ModelAnswer, ProviderError> {
    server.act(Act::Raw(head.to_owned(), body.into()));
    server.provider().invoke(&endpoint(), &ModelRequest::ask("hi")).await
}

async fn answered(server: &Server, content: Value, reason: &str, usage: Value) -> ModelAnswer {
    raw(server, "200 OK", converse(&content, reason, &usage).to_string()).await.unwrap()
}

#[derive(Default)]
struct Heard(Vec<Chunk>);

#[async_trait]
impl Chunks for Heard {
    async fn deliver(&mut self, chunk: Chunk) {
        self.0.push(chunk);
    }
}

async fn streamed(server: &Server, act: Act) -> (Result<ModelAnswer, ProviderError>, Vec<Chunk>) {
    server.act(act);
    let mut heard = Heard::default();
    let result = server.provider().stream(&endpoint(), &ModelRequest::ask("hi"), &mut heard).await;
    (result, heard.0)
}

fn head() -> String {
    format!("200 OK\r\ncontent-type: {EVENTS}\r\nx-amzn-requestid: req-9")
}

async fn frames(server: &Server, frames: &[Vec<u8>]) -> Result<ModelAnswer, ProviderError> {
    streamed(server, Act::Raw(head(), frames.concat())).await.0
}

fn classes(usage: &Usage) -> [Option<u64>; 5] {
    [usage.input, usage.cache_read, usage.cache_write, usage.cache_write_1h, usage.output]
}

#[test]
fn usage_has_classes_that_do_not_overlap() {
    block_on(async {
        let (_serving, server) = open().await;
        let usage = |stated: Value, reason: &'static str| {
            let server = &server;
            async move { answered(server, json!([{"text": "x"}]), reason, stated).await.usage }
        };
        let cached = json!({
            "inputTokens": 20, "outputTokens": 30, "totalTokens": 180, "cacheReadInputTokens": 80, "cacheWriteInputTokens": 50,
            "cacheDetails": [{"ttl": "1h", "inputTokens": 40}, {"ttl": "5m", "inputTokens": 10}],
        });
        let used = usage(cached.clone(), "end_turn").await;
        assert_eq!(classes(&used), [Some(20), Some(80), Some(10), Some(40), Some(30)]);
        assert_eq!((used.total(), &used.raw), (Some(180), &cached));
        // Everything was in the cache.
        let hit = json!({"inputTokens": 0, "outputTokens": 5, "totalTokens": 85, "cacheReadInputTokens": 80, "cacheWriteInputTokens": 0});
        assert_eq!(classes(&usage(hit, "end_turn").await), [Some(0), Some(80), None, None, Some(5)]);
        // More for an hour than was written at all: never a negative number.
        let odd = json!({"inputTokens": 1, "outputTokens": 1, "totalTokens": 5, "cacheWriteInputTokens": 3, "cacheDetails": [{"ttl": "1h", "inputTokens": 9}]});
        assert_eq!(classes(&usage(odd, "end_turn").await), [Some(1), None, None, Some(3), Some(1)]);
        // What is not stated is not known, and not 0.
        for (stated, expected) in [
            (json!({}), [None, None, None, None, None]),
            (json!(null), [None, None, None, None, None]),
            (json!({"outputTokens": 7}), [None, None, None, None, Some(7)]),
            (json!({"inputTokens": -5, "outputTokens": 7, "totalTokens": 2}), [None, None, None, None, Some(7)]),
        ] {
            let used = usage(stated.clone(), "end_turn").await;
            assert_eq!((classes(&used), used.total()), (expected, None), "{stated}");
        }
        // A guardrail that stops a request before the model sees it: nothing was used.
        let nothing = json!({"inputTokens": 0, "outputTokens": 0, "totalTokens": 0});
        assert_eq!(usage(nothing.clone(), "guardrail_intervened").await.total(), Some(0));
        assert_eq!(usage(nothing, "end_turn").await.total(), None);
    });
}

#[test]
fn every_reason_to_stop_is_told() {
    block_on(async {
        let (_serving, server) = open().await;
        let used = json!([{"text": "x"}, {"toolUse": {"toolUseId": "t", "name": "add", "input": {}}}]);
        let other = |reason: &str| StopReason::Other(reason.to_owned());
        for (content, reason, expected) in [
            (json!([{"text": "x"}]), "end_turn", StopReason::EndTurn),
            (json!([{"text": "x"}]), "stop_sequence", StopReason::StopSequence),
            (json!([{"text": "x"}]), "max_tokens", StopReason::MaxTokens),
            // What a guardrail says in the model's place is no answer of the model.
            (json!([{"text": "Sorry."}]), "guardrail_intervened", StopReason::ContentFiltered),
            (json!([{"text": "x"}]), "content_filtered", StopReason::ContentFiltered),
            (json!([]), "refusal", StopReason::Refusal),
            (json!([]), "model_context_window_exceeded", other("model_context_window_exceeded")),
            (json!([]), "malformed_tool_use", other("malformed_tool_use")),
            (json!([]), "of_the_future", other("of_the_future")),
            (used.clone(), "tool_use", StopReason::ToolUse),
            (used.clone(), "end_turn", StopReason::ToolUse),
            (used.clone(), "guardrail_intervened", StopReason::ContentFiltered),
            (used, "max_tokens", StopReason::MaxTokens),
        ] {
            let whole = answered(&server, content, reason, json!({})).await;
            assert_eq!(whole.stop, expected, "{reason}");
            let pieces = frames(&server, &[delta(0, &json!({"text": "x"})), stop(reason), metadata(&json!({}))]).await.unwrap();
            assert!(pieces.stop == expected || expected == StopReason::ToolUse, "{reason}: {:?}", pieces.stop);
        }
    });
}

#[test]
fn reasoning_can_be_given_back_as_it_came() {
    block_on(async {
        let (_serving, server) = open().await;
        let content = json!([
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}},
            {"reasoningContent": {"reasoningText": {"text": "", "signature": "b25seQ=="}}},
            {"reasoningContent": {"redactedContent": "AAEC/w=="}},
            {"ofTheFuture": {"x": 1}},
            {"text": "4"},
        ]);
        let expected = [
            Block::Reasoning { text: "hm".to_owned(), signature: Some("c2ln".to_owned()) },
            Block::Reasoning { text: String::new(), signature: Some("b25seQ==".to_owned()) },
            Block::RedactedReasoning { data: "AAEC/w==".to_owned() },
            Block::text("4"),
        ];
        assert_eq!(answered(&server, content, "end_turn", json!({})).await.content, expected);
        let thought = |index, thought: Value| delta(index, &json!({"reasoningContent": thought}));
        let (result, heard) = streamed(
            &server,
            Act::Raw(
                head(),
                [
                    event("messageStart", &json!({"role": "assistant"})),
                    thought(0, json!({"text": "h"})),
                    thought(0, json!({"text": "m"})),
                    thought(0, json!({"signature": "c2"})),
                    thought(0, json!({"signature": "ln"})),
                    thought(1, json!({"signature": "b25seQ=="})),
                    // One byte and three: "AA==" and "AQL/" joined would be no base64.
                    thought(2, json!({"redactedContent": "AA=="})),
                    thought(2, json!({"redactedContent": "AQL/"})),
                    event("ofTheFuture", &json!({"x": 1})),
                    delta(3, &json!({"ofTheFuture": {"x": 1}})),
                    delta(4, &json!({"text": "4"})),
                    stop("end_turn"),
                    metadata(&json!({})),
                ]
                .concat(),
            ),
        )
        .await;
        assert_eq!(result.unwrap().content, expected);
        assert_eq!(heard, [Chunk::Reasoning("h".into()), Chunk::Reasoning("m".into()), Chunk::Text("4".into())]);
    });
}

/// Usage comes after the end of the message. An answer without it is an answer, and what it used is not known.
#[test]
fn usage_after_the_end_of_the_message_is_waited_for() {
    block_on(async {
        let (_serving, server) = open().await;
        let said = [delta(0, &json!({"text": "Paris"})), stop("end_turn")].concat();
        let used = json!({"inputTokens": 5, "outputTokens": 2, "totalTokens": 7});
        let whole = frames(&server, &[said.clone(), metadata(&used)]).await.unwrap();
        assert_eq!((whole.usage.total(), whole.request_id.as_deref()), (Some(7), Some("req-9")));
        let damaged = [&said[..], &metadata(&used)[..20]].concat();
        let refused = [&said[..], &exception("internalServerException", "oops")].concat();
        for act in [
            Act::Raw(head(), said.clone()),
            Act::HalfClosed(head(), said.clone()),
            Act::Silent(head(), said.clone()),
            Act::Raw(head(), damaged),
            Act::Raw(head(), refused),
        ] {
            let answer = streamed(&server, act).await.0.unwrap();
            assert_eq!((answer.text().as_str(), answer.usage.total()), ("Paris", None));
        }
        // Nothing is waited for after the usage, not even the end of the connection.
        let answer = streamed(&server, Act::Silent(head(), [&said[..], &metadata(&used)].concat())).await.0.unwrap();
        assert_eq!(answer.usage.total(), Some(7));
    });
}

#[test]
fn an_exception_in_the_middle_breaks_the_stream() {
    block_on(async {
        let (_serving, server) = open().await;
        let text = delta(0, &json!({"text": "Par"}));
        for (name, before, after) in [
            ("throttlingException", ErrorKind::Throttled, ErrorKind::StreamBroken),
            ("serviceUnavailableException", ErrorKind::NotReady, ErrorKind::StreamBroken),
            ("internalServerException", ErrorKind::ModelError, ErrorKind::StreamBroken),
            ("modelStreamErrorException", ErrorKind::ModelError, ErrorKind::StreamBroken),
            ("ofTheFutureException", ErrorKind::ModelError, ErrorKind::StreamBroken),
            // It is about what was asked: whoever asks must not make the provider look as if it failed.
            ("validationException", ErrorKind::Invalid, ErrorKind::Invalid),
        ] {
            let first = frames(&server, &[exception(name, "slow down")]).await.unwrap_err();
            assert_eq!((first.kind, first.chunks), (before, 0), "{first}");
            let later = frames(&server, &[text.clone(), text.clone(), exception(name, "slow down")]).await.unwrap_err();
            assert_eq!((later.kind, later.chunks, later.request_id.as_deref()), (after, 2, Some("req-9")), "{later}");
            assert!(later.message.contains("after 2 pieces") || name.starts_with("of"), "{later}");
        }
    });
}

#[test]
fn a_broken_stream_is_broken_wherever_it_breaks() {
    block_on(async {
        let (_serving, server) = open().await;
        let text = delta(0, &json!({"text": "Par"}));
        let mut flipped = delta(0, &json!({"text": "is"}));
        let last = flipped.len() - 5;
        flipped[last] ^= 1;
        let mut endless = delta(0, &json!({"text": "is"}));
        endless[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        for (what, rest) in [
            ("nothing", Vec::new()),
            ("half a frame", text[..text.len() / 2].to_vec()),
            ("a frame with a flipped bit", flipped),
            ("a frame that says it is 4 GB", endless),
            ("no frame", b"<html>Bad gateway</html>".to_vec()),
            ("zeros", vec![0; 64]),
        ] {
            for act in [Act::Raw(head(), [&text[..], &rest].concat()), Act::HalfClosed(head(), [&text[..], &rest].concat())] {
                let error = streamed(&server, act).await.0.unwrap_err();
                assert_eq!((error.kind, error.chunks), (ErrorKind::StreamBroken, 1), "{what}: {error}");
                assert_eq!(error.kind.advice(), Advice::Retry);
            }
        }
        let silent = streamed(&server, Act::Silent(head(), text.clone())).await.0.unwrap_err();
        assert_eq!((silent.kind, silent.chunks), (ErrorKind::TimedOut, 1));
        // A length that the connection does not keep.
        let short = converse(&json!([{"text": "x"}]), "end_turn", &json!({})).to_string();
        let error = raw(&server, "200 OK\r\ncontent-length: 5000", short).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::StreamBroken, "{error}");
        let error = raw(&server, "200 OK\r\ntransfer-encoding: chunked", "zz\r\n").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::StreamBroken, "{error}");
    });
}

#[test]
fn odd_events_are_understood_or_refused() {
    block_on(async {
        let (_serving, server) = open().await;
        let input = |index, text: &str| delta(index, &json!({"toolUse": {"input": text}}));
        let end = |reason: &str| [stop(reason), metadata(&json!({}))].concat();
        let text = delta(0, &json!({"text": "x"}));
        let many: Vec<_> = (0..2000).map(|index| delta(index, &json!({"text": "x"}))).collect();
        for (what, frames_of) in [
            ("the input of a tool that was not named", vec![input(0, "{}")]),
            ("a text that goes on as the input of a tool", vec![text.clone(), input(0, "{}")]),
            ("a tool that goes on as text", vec![tool_start(0, "t", "add"), text.clone()]),
            ("a tool that begins twice", vec![tool_start(0, "t", "add"), tool_start(0, "u", "add")]),
            ("2,000 blocks", vec![many.concat()]),
            ("no reason", vec![text.clone(), event("messageStop", &json!({}))]),
            ("an event that is no JSON", vec![text.clone(), event("contentBlockDelta", &json!(7))]),
        ] {
            let error = frames(&server, &[frames_of.concat(), metadata(&json!({}))]).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::BadAnswer, "{what}: {error}");
        }
        let tool = async |pieces: &[&str], reason: &str| {
            let mut sent = tool_start(1, "t", "add");
            for piece in pieces {
                sent.extend(input(1, piece));
            }
            frames(&server, &[sent, end(reason)]).await.unwrap()
        };
        assert_eq!(tool(&[], "tool_use").await.tool_uses().next().unwrap().2, &json!({}));
        assert_eq!(tool(&["{\"a\"", ": 1}"], "end_turn").await.stop, StopReason::ToolUse);
        // What the model said is the caller's to answer, and no reason to pay again.
        assert_eq!(tool(&["{no"], "tool_use").await.tool_uses().next().unwrap().2, &json!("{no"));
        let deep = "[".repeat(100_000);
        assert_eq!(tool(&[&deep], "tool_use").await.tool_uses().next().unwrap().2, &json!(deep));
        let cut = tool(&["{\"city\": \"Lis"], "max_tokens").await;
        assert_eq!((cut.tool_uses().count(), cut.stop), (0, StopReason::MaxTokens));
    });
}

#[test]
fn odd_answers_are_refused() {
    block_on(async {
        let (_serving, server) = open().await;
        let deep = format!(
            "{{\"output\":{{\"message\":{{\"role\":\"assistant\",\"content\":[{{\"toolUse\":{{\"toolUseId\":\"t\",\"name\":\"n\",\"input\":{}",
            "[".repeat(200_000)
        );
        for body in ["", "<html>", "[]", "{\"output\": 7}", "{\"output\": {}}", "{}", &"[".repeat(200_000), &deep] {
            let error = raw(&server, "200 OK", body).await.map(drop).unwrap_err();
            assert_eq!(error.kind, ErrorKind::BadAnswer, "{body:.80}: {error}");
        }
        let large = converse(&json!([{"text": "x".repeat(9 << 20)}]), "end_turn", &json!({}));
        let error = raw(&server, "200 OK", large.to_string()).await.unwrap_err();
        assert!(error.kind == ErrorKind::BadAnswer && error.message.contains("8388608 bytes"), "{error}");
        let endless = delta(0, &json!({"text": "x".repeat(60_000)})).repeat(160);
        let error = frames(&server, &[endless]).await.unwrap_err();
        assert!(error.kind == ErrorKind::BadAnswer && error.message.contains("8388608 bytes"), "{error}");
        assert!(error.chunks > 100, "{error:?}");
    });
}

#[test]
fn errors_have_their_kinds() {
    block_on(async {
        let (_serving, server) = open().await;
        for (status, code, said, kind) in [
            (
                "400 Bad",
                "ValidationException",
                "The model returned: blocked by content filtering policy",
                ErrorKind::ContentFiltered,
            ),
            ("400 Bad", "ValidationException", "temperature and top_p cannot both be specified", ErrorKind::Invalid),
            ("400 Bad", "ServiceQuotaExceededException", "", ErrorKind::Quota),
            ("429 Slow", "ThrottlingException", "Too many tokens per day, please wait", ErrorKind::Quota),
            ("429 Slow", "ThrottlingException", "Too many tokens, please wait", ErrorKind::Throttled),
            ("429 Slow", "ModelNotReadyException", "", ErrorKind::NotReady),
            ("408 Late", "ModelTimeoutException", "", ErrorKind::TimedOut),
            ("424 Failed", "ModelErrorException", "", ErrorKind::ModelError),
            ("500 Oops", "InternalServerException", "", ErrorKind::ModelError),
            ("503 Busy", "ServiceUnavailableException", "", ErrorKind::NotReady),
            ("404 None", "ResourceNotFoundException", "", ErrorKind::Denied),
            ("403 No", "ExpiredTokenException", "", ErrorKind::Denied),
            ("403 No", "UnrecognizedClientException", "", ErrorKind::Denied),
            ("403 No", "InvalidSignatureException", "", ErrorKind::Denied),
            ("400 Bad", "", "", ErrorKind::Invalid),
            ("413 Large", "", "", ErrorKind::Invalid),
            ("429 Slow", "", "", ErrorKind::Throttled),
            ("502 Bad", "", "", ErrorKind::ModelError),
            ("504 Late", "", "", ErrorKind::TimedOut),
            ("301 Moved\r\nlocation: http://127.0.0.1:9/", "", "", ErrorKind::ModelError),
        ] {
            let named = if code.is_empty() { String::new() } else { format!("\r\nx-amzn-errortype: {code}") };
            let body = if code.is_empty() { "<html>".to_owned() } else { json!({"message": said}).to_string() };
            let error = raw(&server, &format!("{status}\r\nx-amzn-requestid: req-3{named}"), body.clone()).await.unwrap_err();
            assert_eq!(error.kind, kind, "{status} {code}: {error}");
            assert_eq!(error.request_id.as_deref(), Some("req-3"), "{status} {code}");
            let streamed = streamed(&server, Act::Raw(format!("{status}{named}"), body.into_bytes())).await.0.unwrap_err();
            assert_eq!((streamed.kind, streamed.chunks), (kind, 0), "{status} {code}");
        }
        let long = json!({"message": "é".repeat(40_000)}).to_string();
        let error = raw(&server, "400 Bad\r\nx-amzn-errortype: ValidationException", long).await.unwrap_err();
        assert!(error.message.chars().count() < 600);
    });
}

#[test]
fn pauses_come_in_seconds_milliseconds_and_dates() {
    block_on(async {
        let (_serving, server) = open().await;
        let date = (chrono::Utc::now() + chrono::TimeDelta::seconds(90)).to_rfc2822();
        for (header, expected) in [
            ("retry-after: 3".to_owned(), Some(3000..=3000)),
            ("retry-after: 60\r\nx-amz-retry-after: 250".to_owned(), Some(250..=250)),
            (format!("retry-after: {date}"), Some(80_000..=90_000)),
            ("retry-after: Thu, 01 Jan 2015 00:00:00 GMT".to_owned(), Some(0..=0)),
            ("retry-after: soon".to_owned(), None),
            ("retry-after: -5".to_owned(), None),
            // The longest pause there is.
            ("retry-after: 1e999".to_owned(), Some(u128::from(u64::MAX)..=u128::MAX)),
        ] {
            let head = format!("429 Slow\r\nx-amzn-errortype: ThrottlingException\r\n{header}");
            let pause = raw(&server, &head, "{}").await.unwrap_err().retry_after.map(|pause| pause.as_millis());
            assert_eq!(pause.is_some(), expected.is_some(), "{header}");
            assert!(pause.zip(expected).is_none_or(|(pause, range)| range.contains(&pause)), "{header}: {pause:?}");
        }
    });
}

/// The first use of a schema is compiled, which may take longer than any first byte.
#[test]
fn a_schema_has_the_time_of_the_whole_call() {
    block_on(async {
        let (_serving, server) = open().await;
        let mut request = ModelRequest::ask("hi");
        request.output_schema = Some(OutputSchema { name: "said".to_owned(), schema: json!({"type": "object"}) });
        let ms = Duration::from_millis;
        let deadlines = Deadlines { connect: ms(100), first_byte: ms(100), idle: ms(100), total: ms(600) };
        let late = async |request: &ModelRequest| {
            server.provider().stream(&endpoint().deadlines(deadlines), request, &mut stage::Ignored).await.unwrap_err()
        };
        assert!(late(&ModelRequest::ask("hi")).await.message.contains("within 200 ms"));
        let error = late(&request).await;
        assert!(error.kind == ErrorKind::TimedOut && error.message.contains("within 600 ms"), "{error}");
    });
}

#[test]
fn whoever_gives_up_frees_the_provider() {
    block_on(async {
        let (_serving, server) = open().await;
        let (at, request) = (endpoint(), ModelRequest::ask("hi"));
        server.given_up(server.provider().invoke(&at, &request)).await;
        // In the middle of an answer.
        server.act(Act::Silent(head(), delta(0, &json!({"text": "Par"}))));
        let mut ignored = stage::Ignored;
        server.given_up(server.provider().stream(&at, &request, &mut ignored)).await;
    });
}
