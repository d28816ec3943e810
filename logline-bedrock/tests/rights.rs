//! With whose rights calls are made, and where they may go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod stage;

use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use logline_bedrock::{Bedrock, Credentials};
use logline_core::conformance::providing::{Scene, Stage as _};
use logline_core::contract::provider::{Deadlines, Endpoint, ErrorKind, ModelRequest, Provider, Secret};
use serde_json::json;
use stage::frames::exception;
use stage::{ACCESS_KEY, Act, EVENTS, REGION, SESSION_TOKEN, Server, block_on, open};

fn endpoint() -> Endpoint<'static> {
    let ms = Duration::from_millis;
    let deadlines = Deadlines { connect: ms(1000), first_byte: ms(1000), idle: ms(400), total: ms(5000) };
    Endpoint::new("trial-model", "0e4c1d0a-0000-4000-8000-000000000001").deadlines(deadlines)
}

async fn asked(server: &Server, endpoint: &Endpoint<'_>) {
    server.act(Act::Scene(Scene::Says("ok".to_owned(), None)));
    server.provider().invoke(endpoint, &ModelRequest::ask("hi")).await.unwrap();
}

#[test]
fn the_hosts_own_credentials_sign_the_call() {
    block_on(async {
        let (_serving, server) = open().await;
        asked(&server, &endpoint()).await;
        let seen = server.last();
        let signed = seen.header("authorization").unwrap();
        assert!(signed.starts_with(&format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/")), "{signed}");
        assert!(signed.contains(&format!("/{REGION}/bedrock/aws4_request")), "{signed}");
        assert_eq!(seen.header("x-amz-security-token"), Some(SESSION_TOKEN));
        assert!(server.adapter.ready().await.is_ok());
    });
}

#[test]
fn a_secret_is_a_key_of_bedrock_or_keys_of_aws() {
    block_on(async {
        let (_serving, server) = open().await;
        let base = server.base().to_owned();
        let token = Secret::new("bedrock-api-key-QUJD".to_owned());
        asked(&server, &endpoint().url(Some(&base)).secret(Some(&token))).await;
        let seen = server.last();
        assert_eq!(
            (seen.header("authorization"), seen.header("x-amz-security-token")),
            (Some("Bearer bedrock-api-key-QUJD"), None)
        );
        let keys = json!({"access_key_id": "AKIDOTHER", "secret_access_key": "other-secret", "session_token": "other-token"});
        let keys = Secret::new(keys.to_string());
        asked(&server, &endpoint().url(Some(&base)).secret(Some(&keys))).await;
        let seen = server.last();
        assert!(seen.header("authorization").unwrap().contains("Credential=AKIDOTHER/"));
        assert_eq!(seen.header("x-amz-security-token"), Some("other-token"));
        // After a call with a secret, the host's own are as they were.
        asked(&server, &endpoint()).await;
        assert!(server.last().header("authorization").unwrap().contains(ACCESS_KEY));

        let calls = server.seen().len();
        for bad in [
            "",
            "two\nlines",
            "naïve",
            "{}",
            "{\"access_key_id\": \"hunter2\"}",
            "{\"access_key_id\": \"a\", \"secret_access_key\": \"hunter2\", \"x\": 1}",
        ] {
            let secret = Secret::new(bad.to_owned());
            let error =
                server.provider().invoke(&endpoint().secret(Some(&secret)), &ModelRequest::ask("hi")).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Denied, "{bad}");
            assert!(!error.to_string().contains("hunter2") && !error.to_string().contains("lines"), "{error}");
        }
        assert_eq!(server.seen().len(), calls, "nothing was sent");
    });
}

/// A publisher chooses the URL of a provider span, and must not be able to have the host's rights sent to a server of their own.
#[test]
fn the_hosts_own_credentials_go_to_bedrock_only() {
    block_on(async {
        let (_serving, server) = open().await;
        let base = server.base().to_owned();
        for url in [
            base.as_str(),
            "https://models.attacker.example",
            "https://bedrock-runtime.eu-central-1.amazonaws.com.attacker.example",
            "https://bedrock-runtime.s3.amazonaws.com",
            "https://bedrock-runtime.s3-us-west-2.amazonaws.com",
            "https://bedrock-runtime.s3.us-west-2.amazonaws.com",
            "https://bedrock-runtime.us-west-2.elb.amazonaws.com",
            "https://abc.execute-api.us-west-2.amazonaws.com",
            "https://bedrock-runtime.us-west-2.amazonaws.com:8443",
            "https://bedrock-runtime.us-west-2.amazonaws.com/x",
            "https://attacker.bedrock-runtime.us-west-2.vpce.amazonaws.com",
        ] {
            let error = server.provider().invoke(&endpoint().url(Some(url)), &ModelRequest::ask("hi")).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Denied, "{url}: {error}");
            assert!(error.message.contains("only sent to Bedrock"), "{url}: {error}");
        }
        assert_eq!(server.seen().len(), 0);
    });
}

#[test]
fn urls_that_could_leak_a_secret_are_refused() {
    block_on(async {
        let (_serving, server) = open().await;
        let bedrock = server.provider();
        for good in [
            "https://bedrock-runtime.eu-central-1.amazonaws.com",
            "https://vpce-0a1b2c-3d4e.bedrock-runtime.eu-central-1.vpce.amazonaws.com",
            "http://127.0.0.1:8000",
            "http://[::1]:8000/",
        ] {
            bedrock.check(Some(good), "m").unwrap();
        }
        bedrock.check(None, "m").unwrap();
        for (bad, said) in [
            ("http://bedrock-runtime.eu-central-1.amazonaws.com", "https://"),
            ("http://127.0.0.1.attacker.example", "https://"),
            ("ftp://models.example", "https://"),
            ("https://user:pass@models.example", "credentials"),
            ("https://models.example/?key=1", "query"),
            ("https://models.example/#x", "fragment"),
            ("models.example", "not a URL"),
            ("", "not a URL"),
        ] {
            let reason = bedrock.check(Some(bad), "m").unwrap_err();
            assert!(reason.contains(said), "{bad}: {reason}");
            let error = bedrock.invoke(&endpoint().url(Some(bad)), &ModelRequest::ask("hi")).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid, "{bad}: {error}");
        }
        assert!(Bedrock::builder().region(REGION).endpoint_url("http://models.example").load().await.is_err());
        assert!(Bedrock::builder().region(REGION).model_fields(json!([])).load().await.is_err());
    });
}

/// Wherever a provider repeats the secret, the error does not.
#[test]
fn the_secret_is_in_no_error_whatever_the_provider_does_with_it() {
    block_on(async {
        let (_serving, server) = open().await;
        let base = server.base().to_owned();
        let token = Secret::new("sk-hunter2".to_owned());
        let keys = json!({"access_key_id": "AKID", "secret_access_key": "sk-hunter2", "session_token": "st-hunter2"});
        let keys = Secret::new(keys.to_string());
        let said = json!({"message": "no: sk-hunter2 st-hunter2 sk-\u{1}hunter2"}).to_string();
        let (events, broken) = (format!("200 OK\r\ncontent-type: {EVENTS}"), b"\0\0\0\x10sk-hunter2".to_vec());
        for (head, body) in [
            ("400 Bad\r\nx-amzn-errortype: ValidationException", said.clone().into_bytes()),
            ("403 No\r\nx-amzn-requestid: sk-hunter2 st-hunter2", said.clone().into_bytes()),
            ("403 No\r\nx-amzn-errortype: sk-hunter2", said.clone().into_bytes()),
            ("500 No", said.into_bytes()),
            ("200 OK", br#"{"output":"sk-hunter2"}"#.to_vec()),
            (events.as_str(), exception("throttlingException", "sk-hunter2 st-hunter2")),
            (events.as_str(), exception("sk-hunter2", "st-hunter2")),
            (events.as_str(), broken),
        ] {
            for (secret, streams) in [(&token, false), (&token, true), (&keys, false), (&keys, true)] {
                server.act(Act::Raw(head.to_owned(), body.clone()));
                let (at, request) = (endpoint().url(Some(&base)).secret(Some(secret)), ModelRequest::ask("hi"));
                let result = match streams {
                    true => server.provider().stream(&at, &request, &mut stage::Ignored).await,
                    false => server.provider().invoke(&at, &request).await,
                };
                let error = format!("{:?}", result.map(drop).unwrap_err());
                let leaks = if std::ptr::eq(secret, &token) { error.contains("sk-hunter2") } else { error.contains("hunter2") };
                assert!(!leaks, "{head}: {error}");
            }
        }
        assert!(!format!("{:?}", server.adapter).contains(stage::SECRET_KEY));
    });
}

#[test]
fn nobody_there_is_unreachable_and_nothing_panics_for_tls() {
    block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let (_serving, server) = open().await;
        let token = Secret::new("key".to_owned());
        for url in [
            format!("http://127.0.0.1:{port}"),
            format!("https://127.0.0.1:{port}"),
            "https://nobody.invalid".to_owned(),
            // A server that does not speak TLS.
            server.base().replace("http://", "https://"),
        ] {
            let at = endpoint().url(Some(&url)).secret(Some(&token));
            for error in [
                server.provider().invoke(&at, &ModelRequest::ask("hi")).await.unwrap_err(),
                server.provider().stream(&at, &ModelRequest::ask("hi"), &mut stage::Ignored).await.unwrap_err(),
            ] {
                assert_eq!(error.kind, ErrorKind::Unreachable, "{url}: {error}");
            }
        }
    });
}

#[derive(Debug)]
struct Nobody;

impl ProvideCredentials for Nobody {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("there is nobody")))
    }
}

#[test]
fn what_is_missing_is_said() {
    block_on(async {
        let (_serving, server) = open().await;
        let bedrock = Bedrock::builder().region(REGION).credentials(Nobody).endpoint_url(server.base()).load().await.unwrap();
        let asked = bedrock.invoke(&endpoint(), &ModelRequest::ask("hi")).await.unwrap_err();
        for error in [bedrock.ready().await.unwrap_err(), asked] {
            assert_eq!(error.kind, ErrorKind::Denied);
            for word in ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK", "there is nobody"] {
                assert!(error.message.contains(word), "{error}");
            }
        }
        assert_eq!(server.seen().len(), 0, "nothing was sent");
        // Credentials that are too old are the service's to refuse.
        let old = Credentials::new("AKID", "key", None, Some(std::time::UNIX_EPOCH), "trial");
        let bedrock = Bedrock::builder().region(REGION).credentials(old).load().await.unwrap();
        assert!(bedrock.ready().await.is_ok());
    });
}
