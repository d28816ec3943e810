//! What is sent, and what odd servers answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod stage;

use std::time::Duration;

use logline_core::conformance::providing::{Scene, Stage as _};
use logline_core::contract::provider::{
    Block, CacheTtl, Deadlines, EmbedRequest, Endpoint, ErrorKind, Message, ModelAnswer, ModelRequest, OutputSchema,
    Provider as _, ProviderError, Purpose, Role, Secret, StopReason, Tool, ToolChoice, Usage,
};
use logline_openai::{MaxTokens, OpenAi};
use serde_json::{Value, json};
use stage::{Act, Server, block_on, open};

const KEY: &str = "0e4c1d0a-0000-4000-8000-000000000001";

fn deadlines() -> Deadlines {
    let ms = Duration::from_millis;
    Deadlines { connect: ms(1000), first_byte: ms(1000), idle: ms(1000), total: ms(5000) }
}

fn endpoint(url: &str) -> Endpoint<'_> {
    Endpoint::new("trial-model", KEY).url(Some(url)).deadlines(deadlines())
}

async fn raw(server: &Server, head: &str, body: impl Into<Vec<u8>>) -> Result<ModelAnswer, ProviderError> {
    server.act(Act::Raw(head.to_owned(), body.into()));
    server.provider().invoke(&endpoint(server.base()), &ModelRequest::ask("hi")).await
}

async fn sent(server: &Server, request: &ModelRequest) -> Value {
    server.act(Act::Scene(Scene::Says("ok".to_owned(), None)));
    request.check().unwrap();
    server.provider().invoke(&endpoint(server.base()), request).await.unwrap();
    server.seen().last().unwrap().body.clone()
}

#[test]
fn a_request_is_what_the_protocol_wants() {
    block_on(async {
        let (_serving, server) = open().await;
        let mut request = ModelRequest::ask("Weather?").system("Be brief.").max_tokens(9);
        request.system.push(Block::CachePoint { ttl: Some(CacheTtl::OneHour) });
        let schema = json!({"type": "object"});
        request.tools = vec![Tool {
            name: "weather".to_owned(),
            description: "now".to_owned(),
            input_schema: schema.clone(),
            strict: true,
        }];
        request.tool_choice = Some(ToolChoice::Tool("weather".to_owned()));
        request.output_schema = Some(OutputSchema { name: "said".to_owned(), schema: schema.clone() });
        (request.temperature, request.stop) = (Some(0.5), vec!["END".to_owned()]);
        let tool_use =
            |id: &str| Block::ToolUse { id: id.to_owned(), name: "weather".to_owned(), input: json!({"city": "Lisbon"}) };
        let reasoning = Block::Reasoning { text: "hm".to_owned(), signature: Some("c2ln".to_owned()) };
        request.messages.push(Message { role: Role::Assistant, content: vec![reasoning, tool_use("a"), tool_use("b")] });
        let result = |id: &str, is_error| {
            let picture = Block::Image { media_type: "image/png".to_owned(), data: "AAAA".to_owned() };
            let content = if is_error { vec![Block::text("no")] } else { vec![Block::text("sun"), picture] };
            Block::ToolResult { id: id.to_owned(), content, is_error }
        };
        let document =
            Block::Document { name: "plan".to_owned(), media_type: "application/pdf".to_owned(), data: "BBBB".to_owned() };
        request.messages.push(Message {
            role: Role::User,
            content: vec![result("a", false), result("b", true), document, Block::text("So?")],
        });
        let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Lisbon\"}"}});
        assert_eq!(
            sent(&server, &request).await,
            json!({
                "model": "trial-model",
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "Weather?"},
                    {"role": "assistant", "content": null, "tool_calls": [call("a"), call("b")]},
                    {"role": "tool", "tool_call_id": "a", "content": "sun"},
                    {"role": "tool", "tool_call_id": "b", "content": "error: no"},
                    {"role": "user", "content": [
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                        {"type": "file", "file": {"filename": "plan", "file_data": "data:application/pdf;base64,BBBB"}},
                        {"type": "text", "text": "So?"},
                    ]},
                ],
                "tools": [{"type": "function", "function": {"name": "weather", "description": "now", "parameters": schema, "strict": true}}],
                "tool_choice": {"type": "function", "function": {"name": "weather"}},
                "response_format": {"type": "json_schema", "json_schema": {"name": "said", "schema": schema, "strict": true}},
                "max_completion_tokens": 9,
                "temperature": 0.5,
                "stop": ["END"],
            })
        );
        let plain = OpenAi::new().unwrap().max_tokens(MaxTokens::Plain);
        server.act(Act::Scene(Scene::Says("ok".to_owned(), None)));
        plain.invoke(&endpoint(server.base()), &ModelRequest::ask("hi").max_tokens(3)).await.unwrap();
        assert_eq!(server.seen()[1].body["max_tokens"], 3);
    });
}

#[test]
fn the_secret_and_the_idempotency_key_are_headers() {
    block_on(async {
        let (_serving, server) = open().await;
        let secret = Secret::new("hunter2".to_owned());
        server.act(Act::Scene(Scene::Says("ok".to_owned(), None)));
        server.provider().invoke(&endpoint(server.base()).secret(Some(&secret)), &ModelRequest::ask("hi")).await.unwrap();
        let head = &server.seen()[0].head;
        assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
        assert!(
            head.contains("authorization: Bearer hunter2\r\n") && head.contains(&format!("idempotency-key: {KEY}\r\n")),
            "{head}"
        );
        // A secret that no header may have is refused before anything is sent.
        let broken = Secret::new("two\nlines".to_owned());
        let error = server
            .provider()
            .invoke(&endpoint(server.base()).secret(Some(&broken)), &ModelRequest::ask("hi"))
            .await
            .unwrap_err();
        assert_eq!((error.kind, server.seen().len()), (ErrorKind::Denied, 1));
        assert!(!error.to_string().contains("two"));
    });
}

#[test]
fn usage_has_classes_that_do_not_overlap() {
    block_on(async {
        let (_serving, server) = open().await;
        let body = |usage: Value| {
            json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}).to_string()
        };
        let used = async |usage: Value| raw(&server, "200 OK", body(usage)).await.unwrap().usage;
        let details = json!({"prompt_tokens": 100, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 80}, "completion_tokens_details": {"reasoning_tokens": 20}, "new": 1});
        let usage = used(details.clone()).await;
        assert_eq!((usage.input, usage.cache_read, usage.output, usage.reasoning), (Some(20), Some(80), Some(30), Some(20)));
        assert_eq!((usage.total(), &usage.raw), (Some(130), &details));
        // More cached than there are: never a negative number.
        let odd =
            used(json!({"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}})).await;
        assert_eq!(odd.input, Some(0));
        for nothing in [json!({}), json!(null), json!({"prompt_tokens": -5, "completion_tokens": null})] {
            let usage = used(nothing).await;
            assert_eq!((usage.input, usage.output, usage.total()), (None, None, None));
        }
        let none: Usage =
            raw(&server, "200 OK", json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}).to_string())
                .await
                .unwrap()
                .usage;
        assert_eq!(none.total(), None);
    });
}

#[test]
fn odd_answers_are_understood_or_refused() {
    block_on(async {
        let (_serving, server) = open().await;
        let choice = |choice: Value| json!({"choices": [choice]}).to_string();
        let call =
            |arguments: &str| json!([{"id": "t", "type": "function", "function": {"name": "add", "arguments": arguments}}]);
        for (body, kind) in [
            (choice(json!({"message": {"content": "x"}})), ErrorKind::BadAnswer),
            (choice(json!({"message": {"content": "x"}, "finish_reason": null})), ErrorKind::BadAnswer),
            (json!({"choices": []}).to_string(), ErrorKind::BadAnswer),
            (json!({"error": "no"}).to_string(), ErrorKind::BadAnswer),
            ("<html>".to_owned(), ErrorKind::BadAnswer),
            (String::new(), ErrorKind::BadAnswer),
            ("[".repeat(100_000), ErrorKind::BadAnswer),
        ] {
            let error = raw(&server, "200 OK", body.clone()).await.map(drop).unwrap_err();
            assert_eq!(error.kind, kind, "{body:.80}");
        }
        let good = async |body: Value| raw(&server, "200 OK", choice(body)).await.unwrap();
        let no_arguments = good(json!({"message": {"tool_calls": call("")}, "finish_reason": "stop"})).await;
        assert_eq!((no_arguments.tool_uses().next().unwrap().2, &no_arguments.stop), (&json!({}), &StopReason::ToolUse));
        // What the model said is the caller's to answer, and no reason to pay again or to think that the provider failed.
        let odd = good(json!({"message": {"tool_calls": call("{not json")}, "finish_reason": "tool_calls"})).await;
        assert_eq!(odd.tool_uses().next().unwrap().2, &json!("{not json"));
        let cut =
            good(json!({"message": {"content": "I will", "tool_calls": call("{\"city\": \"Lis")}, "finish_reason": "length"}))
                .await;
        assert_eq!((cut.text().as_str(), cut.tool_uses().count(), &cut.stop), ("I will", 0, &StopReason::MaxTokens));
        let refused = good(json!({"message": {"content": null, "refusal": "I will not."}, "finish_reason": "stop"})).await;
        assert_eq!((refused.text().as_str(), refused.stop), ("I will not.", StopReason::Refusal));
        let filtered = good(json!({"message": {"content": ""}, "finish_reason": "content_filter"})).await;
        assert_eq!(filtered.stop, StopReason::ContentFiltered);
        let thinking = good(json!({"message": {"content": "4", "reasoning": "2+2"}, "finish_reason": "stop"})).await;
        assert_eq!(thinking.content, [Block::Reasoning { text: "2+2".to_owned(), signature: None }, Block::text("4")]);
        let other = good(json!({"message": {"content": "x"}, "finish_reason": "paused"})).await;
        assert_eq!(other.stop, StopReason::Other("paused".to_owned()));
        let long = good(json!({"message": {"content": "x"}, "finish_reason": "é".repeat(900 << 10)})).await;
        assert_eq!(long.stop, StopReason::Other("é".repeat(900 << 10)), "it is cut where it is recorded");
        // 9 MB of text.
        let large =
            raw(&server, "200 OK", choice(json!({"message": {"content": "x".repeat(9 << 20)}, "finish_reason": "stop"}))).await;
        assert_eq!(large.unwrap_err().kind, ErrorKind::BadAnswer);
    });
}

#[test]
fn an_answer_that_never_ends_is_cut_off() {
    block_on(async {
        let (_serving, server) = open().await;
        let event = format!("data: {}\n\n", stage::delta(&json!({"content": "x".repeat(60_000)}), None));
        server.act(Act::Raw("200 OK".to_owned(), event.repeat(160).into_bytes()));
        let error = streamed(&server).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadAnswer);
        assert!(error.message.contains("8388608 bytes") && error.chunks > 100, "{error}");
    });
}

struct Ignored;

#[async_trait::async_trait]
impl logline_core::contract::provider::Chunks for Ignored {
    async fn deliver(&mut self, _: logline_core::contract::provider::Chunk) {}
}

async fn streamed(server: &Server) -> Result<ModelAnswer, ProviderError> {
    server.provider().stream(&endpoint(server.base()), &ModelRequest::ask("hi"), &mut Ignored).await
}

#[test]
fn a_stream_may_fail_in_the_middle_and_end_in_many_ways() {
    block_on(async {
        let (_serving, server) = open().await;
        let text = stage::delta(&json!({"content": "Par"}), None);
        let stop = stage::delta(&json!({"content": "is"}), Some("stop"));
        let fails = json!({"error": {"code": "rate_limit_exceeded", "message": "slow down"}}).to_string();
        let play = async |events: &[&str], end: &str| {
            let body: String = events.iter().map(|event| format!("data: {event}{end}{end}")).collect();
            server.act(Act::Raw("200 OK".to_owned(), body.into_bytes()));
            streamed(&server).await
        };
        for end in ["\n", "\r\n", "\r"] {
            assert_eq!(play(&[&text, &stop, "[DONE]"], end).await.unwrap().text(), "Paris", "{end:?}");
        }
        // Not every server says that it is done.
        assert_eq!(play(&[&text, &stop], "\n").await.unwrap().text(), "Paris");
        assert_eq!(play(&[&text], "\n").await.unwrap_err().kind, ErrorKind::StreamBroken);
        assert_eq!(play(&[&text, "[DONE]"], "\n").await.unwrap_err().kind, ErrorKind::BadAnswer);
        let error = play(&[&text, &fails], "\n").await.unwrap_err();
        assert_eq!((error.kind, error.chunks), (ErrorKind::Throttled, 1));
        assert_eq!(play(&[&text, "{half"], "\n").await.unwrap_err().kind, ErrorKind::BadAnswer);
        let out_of_order = stage::delta(&json!({"tool_calls": [{"index": 4_000_000_000_u32, "id": "x"}]}), None);
        assert_eq!(play(&[&out_of_order], "\n").await.unwrap_err().kind, ErrorKind::BadAnswer);
    });
}

/// It was paid for, and asking once more would be paid again.
#[test]
fn a_whole_answer_in_the_place_of_a_stream_is_a_bad_answer_and_not_a_broken_stream() {
    block_on(async {
        let (_serving, server) = open().await;
        let body = json!({"choices": [{"message": {"content": "Paris"}, "finish_reason": "stop"}]}).to_string();
        server.act(Act::Raw("200 OK\r\ncontent-type: application/json; charset=utf-8".to_owned(), body.into_bytes()));
        let error = streamed(&server).await.unwrap_err();
        assert!(error.kind == ErrorKind::BadAnswer && error.message.contains("cannot stream"), "{error}");
    });
}

const ASKS: &str = "LOGLINE_TEST_ASKS";

/// A proxy would read the secret and the question. The variables are those of a process, so that another one asks.
#[test]
fn a_provider_on_this_machine_is_asked_without_a_proxy() {
    block_on(async {
        if let Ok(base) = std::env::var(ASKS) {
            let provider = OpenAi::new().unwrap();
            let answer = provider.invoke(&endpoint(&base), &ModelRequest::ask("hi")).await.unwrap();
            assert_eq!(answer.text(), "ok");
            return;
        }
        let (_serving, server) = open().await;
        server.act(Act::Scene(Scene::Says("ok".to_owned(), None)));
        let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        proxy.set_nonblocking(true).unwrap();
        let url = format!("http://{}", proxy.local_addr().unwrap());
        let mut asking = std::process::Command::new(std::env::current_exe().unwrap());
        asking.args(["--exact", "a_provider_on_this_machine_is_asked_without_a_proxy"]).env(ASKS, server.base());
        for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            asking.env(name, &url);
        }
        let asked = tokio::task::spawn_blocking(move || asking.output()).await.unwrap().unwrap();
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stdout));
        assert_eq!(server.seen().len(), 1);
        assert!(proxy.accept().is_err(), "nobody has come to the proxy");
    });
}

#[test]
fn a_mark_before_the_events_is_skipped() {
    block_on(async {
        let (_serving, server) = open().await;
        let stop = stage::delta(&json!({"content": "Paris"}), Some("stop"));
        for mark in ["\u{feff}", ""] {
            server.act(Act::Raw("200 OK".to_owned(), format!("{mark}data: {stop}\n\n").into_bytes()));
            assert_eq!(streamed(&server).await.unwrap().text(), "Paris");
        }
        // A part of a mark, and a mark in the middle.
        server.act(Act::Raw("200 OK".to_owned(), [&b"\xef\xbb"[..], format!("data: {stop}\n\n").as_bytes()].concat()));
        let _ = streamed(&server).await;
        server.act(Act::Raw("200 OK".to_owned(), format!("data: {stop}\n\n\u{feff}data: x\n\n").into_bytes()));
        let _ = streamed(&server).await;
    });
}

/// Wherever a provider repeats the secret, the error does not.
#[test]
fn the_secret_is_in_no_error_whatever_the_provider_does_with_it() {
    block_on(async {
        let (_serving, server) = open().await;
        let secret = Secret::new("sk-hunter2".to_owned());
        let fails = json!({"error": {"message": "Incorrect API key provided: sk-hunter2"}}).to_string();
        for (head, body) in [
            ("200 OK", format!("data: {fails}\n\n")),
            ("200 OK", r#"{"choices":"Bearer sk-hunter2"}"#.to_owned()),
            ("200 OK", "data: {\"choices\":\"Bearer sk-hunter2\"}\n\n".to_owned()),
            ("401 No", r#"{"error":{"message":"sk-\u0001hunter2"}}"#.to_owned()),
            ("500 No\r\nx-request-id: Bearer sk-hunter2", "{}".to_owned()),
            ("200 OK\r\nx-request-id: Bearer sk-hunter2", "{}".to_owned()),
        ] {
            for streams in [false, true] {
                server.act(Act::Raw(head.to_owned(), body.clone().into_bytes()));
                let (at, request) = (endpoint(server.base()).secret(Some(&secret)), ModelRequest::ask("hi"));
                let result = match streams {
                    true => server.provider().stream(&at, &request, &mut Ignored).await,
                    false => server.provider().invoke(&at, &request).await,
                };
                let error = result.map(drop).unwrap_err();
                assert!(!format!("{error} {error:?}").contains("hunter2"), "{head} {body}: {error:?}");
            }
        }
    });
}

#[test]
fn pauses_come_in_seconds_milliseconds_and_dates() {
    block_on(async {
        let (_serving, server) = open().await;
        let date = (chrono::Utc::now() + chrono::TimeDelta::seconds(90)).to_rfc2822();
        for (header, least, most) in [
            ("retry-after: 3".to_owned(), 3000, 3000),
            ("retry-after: 0.5".to_owned(), 500, 500),
            ("retry-after: 60\r\nretry-after-ms: 250".to_owned(), 250, 250),
            (format!("retry-after: {date}"), 80_000, 90_000),
            ("retry-after: Thu, 01 Jan 2015 00:00:00 GMT".to_owned(), 0, 0),
        ] {
            let error = raw(&server, &format!("429 Slow\r\n{header}"), "{}").await.unwrap_err();
            let pause = error.retry_after.unwrap().as_millis();
            assert!((least..=most).contains(&pause), "{header}: {pause}");
        }
        for header in ["retry-after: 1e999", "retry-after-ms: -1\r\nretry-after: 1e300", "retry-after-ms: 1e300"] {
            let error = raw(&server, &format!("429 Slow\r\n{header}"), "{}").await.unwrap_err();
            assert_eq!(error.retry_after, Some(Duration::MAX), "{header}");
        }
        for header in ["retry-after: soon", "retry-after: -5", "x: y"] {
            assert_eq!(raw(&server, &format!("429 Slow\r\n{header}"), "{}").await.unwrap_err().retry_after, None, "{header}");
        }
    });
}

#[test]
fn statuses_have_their_kinds() {
    block_on(async {
        let (_serving, server) = open().await;
        for (status, body, kind) in [
            ("301 Moved\r\nlocation: http://127.0.0.1:9/", "", ErrorKind::ModelError),
            ("400 Bad", "not json", ErrorKind::Invalid),
            ("402 Pay", "{}", ErrorKind::Quota),
            ("403 No", r#"{"detail": "no"}"#, ErrorKind::Denied),
            ("404 None", r#"{"error": "model not found"}"#, ErrorKind::Denied),
            ("408 Late", "{}", ErrorKind::TimedOut),
            ("413 Large", "{}", ErrorKind::Invalid),
            ("422 Odd", "{}", ErrorKind::Invalid),
            ("502 Bad", "<html>", ErrorKind::ModelError),
            ("504 Late", "", ErrorKind::TimedOut),
            ("529 Busy", "{}", ErrorKind::NotReady),
        ] {
            let error = raw(&server, status, body).await.unwrap_err();
            assert_eq!(error.kind, kind, "{status}");
        }
        let long = raw(&server, "400 Bad", json!({"error": {"message": "é".repeat(40_000)}}).to_string()).await.unwrap_err();
        assert!(long.message.chars().count() < 600);
    });
}

#[test]
fn whoever_gives_up_frees_the_provider() {
    block_on(async {
        let (_serving, server) = open().await;
        let (at, request) = (endpoint(server.base()), ModelRequest::ask("hi"));
        server.given_up(server.provider().invoke(&at, &request)).await;
    });
}

#[test]
fn nobody_there_is_unreachable_and_nothing_panics_for_tls() {
    block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let openai = OpenAi::new().unwrap();
        for url in [
            format!("http://127.0.0.1:{port}/v1"),
            format!("https://127.0.0.1:{port}/v1"),
            "https://nobody.invalid/v1".to_owned(),
        ] {
            let error = openai.invoke(&endpoint(&url), &ModelRequest::ask("hi")).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unreachable, "{url}: {error}");
        }
        // A server that does not speak TLS.
        let (_serving, server) = open().await;
        let url = server.base().replace("http://", "https://");
        let error = openai.invoke(&endpoint(&url), &ModelRequest::ask("hi")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    });
}

#[test]
fn urls_that_could_leak_a_secret_are_refused() {
    let openai = OpenAi::new().unwrap();
    for good in ["https://api.openai.com/v1", "http://127.0.0.1:11434/v1", "http://localhost:8000/v1/", "http://[::1]:8000"] {
        openai.check(Some(good), "m").unwrap();
    }
    for (bad, said) in [
        (None, "is missing"),
        (Some("http://models.example/v1"), "https://"),
        (Some("http://127.0.0.1.attacker.example/v1"), "https://"),
        (Some("ftp://models.example"), "https://"),
        (Some("https://user:pass@models.example"), "credentials"),
        (Some("https://models.example/v1?key=1"), "query"),
        (Some("https://models.example/#x"), "fragment"),
        (Some("models.example"), "not a URL"),
        (Some(""), "not a URL"),
    ] {
        let reason = openai.check(bad, "m").unwrap_err();
        assert!(reason.contains(said), "{bad:?}: {reason}");
    }
}

#[test]
fn vectors_come_in_the_order_of_the_texts() {
    block_on(async {
        let (_serving, server) = open().await;
        let texts = EmbedRequest::new(vec!["a".to_owned(), "b".to_owned()], Purpose::Query);
        let embed = async |body: Value| {
            server.act(Act::Raw("200 OK".to_owned(), body.to_string().into_bytes()));
            server.provider().embed(&endpoint(server.base()), &texts).await
        };
        let vector = |index: usize, number: f32| json!({"index": index, "embedding": [number, 0.5]});
        let found = embed(json!({"data": [vector(1, 2.0), vector(0, 1.0)], "usage": {"prompt_tokens": 4, "total_tokens": 4}}))
            .await
            .unwrap();
        assert_eq!((found.vectors, found.usage.total()), (vec![vec![1.0, 0.5], vec![2.0, 0.5]], Some(4)));
        assert_eq!(server.seen()[0].body, json!({"model": "trial-model", "input": ["a", "b"], "encoding_format": "float"}));
        for data in [
            json!([vector(0, 1.0)]),
            json!([vector(0, 1.0), vector(0, 2.0)]),
            json!([vector(0, 1.0), vector(2, 2.0)]),
            json!([]),
        ] {
            assert_eq!(embed(json!({"data": data})).await.unwrap_err().kind, ErrorKind::BadAnswer);
        }
    });
}
