//! One request over HTTP, within its deadlines and bounds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventsource_stream::Eventsource as _;
use futures_util::{Stream, StreamExt as _};
use logline_core::contract::provider::{Endpoint, ErrorKind, ProviderError};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, Url};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::error;
use crate::error::of_status;

/// The most bytes of an answer. A span holds less.
const MAX_ANSWER: usize = 8 << 20;

/// The most bytes of an error.
const MAX_ERROR: usize = 64 << 10;

/// How long the body of an error may take: its status says most of it.
const ERROR_WAIT: Duration = Duration::from_secs(5);

/// What some servers put in front of a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// How many deadlines of connecting have a client of their own.
const MAX_CLIENTS: usize = 8;

/// Why an adapter cannot be set up.
#[derive(Debug)]
#[non_exhaustive]
pub struct SetupError {
    reason: String,
}

impl std::fmt::Display for SetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the HTTP client cannot be set up: {}", self.reason)
    }
}

impl std::error::Error for SetupError {}

pub(crate) struct Http {
    tls: ClientConfig,
    /// Clients by their deadline for connecting and by whether they use proxies, which are properties of the client.
    clients: Mutex<BTreeMap<(Duration, bool), Client>>,
}

impl Http {
    pub(crate) fn new() -> Result<Self, SetupError> {
        // The provider of cryptography is named here, so that it does not depend on which other crates are in the build.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| SetupError { reason: error.to_string() })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = Self { tls, clients: Mutex::default() };
        http.client(Duration::from_secs(5), false).map_err(|error| SetupError { reason: error.to_string() })?;
        Ok(http)
    }

    fn client(&self, connect: Duration, is_proxied: bool) -> Result<Client, reqwest::Error> {
        let mut clients = self.clients.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(client) = clients.get(&(connect, is_proxied)) {
            return Ok(client.clone());
        }
        let client = Client::builder();
        let client = if is_proxied { client } else { client.no_proxy() };
        let client = client
            .tls_backend_preconfigured(self.tls.clone())
            .connect_timeout(connect)
            // A redirect could carry the secret to another server, and a retry would be a call that nobody recorded.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()?;
        if clients.len() >= MAX_CLIENTS {
            clients.pop_first();
        }
        clients.insert((connect, is_proxied), client.clone());
        Ok(client)
    }

    /// Posts `body`, and waits at most `wait` for the headers of the answer.
    pub(crate) async fn post(
        &self,
        endpoint: &Endpoint<'_>,
        path: &str,
        body: &Value,
        wait: Duration,
    ) -> Result<Answered, ProviderError> {
        let invalid = |reason: String| error(ErrorKind::Invalid, reason);
        let base = endpoint.url.ok_or_else(|| invalid("the provider span has no `url`".to_owned()))?;
        let base = check_url(base).map_err(invalid)?;
        let url = format!("{}/{path}", base.as_str().trim_end_matches('/'));
        // Only HTTPS goes through a proxy of the environment, which sees neither the secret nor the question.
        let client = self.client(endpoint.deadlines.connect, base.scheme() == "https");
        let client = client.map_err(|reason| invalid(reason.to_string()))?;
        let mut post = client.post(url).header("idempotency-key", endpoint.idempotency_key).json(body);
        if let Some(secret) = endpoint.secret {
            let mut value = HeaderValue::try_from(format!("Bearer {}", secret.reveal()))
                .map_err(|_| error(ErrorKind::Denied, "the secret has characters that no header may have"))?;
            value.set_sensitive(true);
            post = post.header(AUTHORIZATION, value);
        }
        let sent = tokio::time::timeout(wait, post.send()).await;
        let response = sent.map_err(|_| too_late("no answer", wait))?.map_err(|reason| of_transport(&reason))?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let request_id = header("x-request-id").or_else(|| header("request-id"));
        if response.status().is_success() {
            return Ok(Answered { response, request_id });
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read(response, MAX_ERROR, wait.min(ERROR_WAIT)).await.unwrap_or_default();
        Err(of_status(status, &headers, &String::from_utf8_lossy(&body)).request_id(request_id))
    }
}

/// An answer whose headers have come.
pub(crate) struct Answered {
    response: Response,
    pub(crate) request_id: Option<String>,
}

impl Answered {
    /// The whole body.
    pub(crate) async fn text(self, wait: Duration) -> Result<String, ProviderError> {
        let id = self.request_id;
        let bytes = read(self.response, MAX_ANSWER, wait).await.map_err(|error| error.request_id(id.clone()))?;
        String::from_utf8(bytes).map_err(|_| error(ErrorKind::BadAnswer, "the answer is not text in UTF-8").request_id(id))
    }

    /// Refuses an answer that is no stream: it was paid for, and asking once more would not help.
    pub(crate) fn streamed(self) -> Result<Self, ProviderError> {
        let kind = self.response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.trim_start().starts_with("application/json")) {
            let reason = "the answer is one JSON text and no stream of events: the server cannot stream";
            return Err(error(ErrorKind::BadAnswer, reason).request_id(self.request_id));
        }
        Ok(self)
    }

    /// The data of the events, of which each must come within `idle` after the one before.
    pub(crate) fn events(self, idle: Duration) -> impl Stream<Item = Result<String, ProviderError>> {
        let id = self.request_id;
        let mut left = MAX_ANSWER;
        let mut mark = BYTE_ORDER_MARK;
        let bytes = self.response.bytes_stream().map(move |piece| {
            let piece = piece.map_err(|reason| of_transport(&reason))?;
            left = left.checked_sub(piece.len()).ok_or_else(too_large)?;
            // The parser of events does not expect a mark in front of them.
            let mut piece = &*piece;
            while let (Some((expected, rest)), Some((found, after))) = (mark.split_first(), piece.split_first()) {
                if expected != found {
                    mark = &[];
                    break;
                }
                (mark, piece) = (rest, after);
            }
            Ok::<_, ProviderError>(piece.to_vec())
        });
        let events = whole_lines(bytes).eventsource().map(|event| match event {
            Ok(event) => Ok(event.data),
            Err(eventsource_stream::EventStreamError::Transport(error)) => Err(error),
            Err(other) => Err(error(ErrorKind::BadAnswer, format!("the stream cannot be understood: {other}"))),
        });
        futures_util::stream::unfold((Box::pin(events), false), move |(mut events, is_over)| {
            let id = id.clone();
            async move {
                if is_over {
                    return None;
                }
                let next = match tokio::time::timeout(idle, events.next()).await {
                    Ok(next) => next?,
                    Err(_) => Err(too_late("no further piece of the answer", idle)),
                };
                let is_over = next.is_err();
                Some((next.map_err(|error| error.request_id(id)), (events, is_over)))
            }
        })
    }
}

/// The same bytes in pieces that end with a line, the last one excepted. The parser of events looks at a line from its beginning whenever a
/// piece of it comes, so that a long line in small pieces would take time in the square of its length.
fn whole_lines(
    bytes: impl Stream<Item = Result<Vec<u8>, ProviderError>>,
) -> impl Stream<Item = Result<Vec<u8>, ProviderError>> {
    futures_util::stream::unfold((Box::pin(bytes), Vec::new(), false), |(mut bytes, mut held, is_over)| async move {
        if is_over {
            return None;
        }
        loop {
            match bytes.next().await {
                Some(Ok(piece)) => {
                    let end = piece.iter().rposition(|byte| matches!(byte, b'\n' | b'\r'));
                    let Some(end) = end else {
                        held.extend_from_slice(&piece);
                        continue;
                    };
                    let (line, rest) = piece.split_at(end + 1);
                    held.extend_from_slice(line);
                    return Some((Ok(held), (bytes, rest.to_vec(), false)));
                }
                Some(Err(error)) => return Some((Err(error), (bytes, Vec::new(), true))),
                None if held.is_empty() => return None,
                None => return Some((Ok(held), (bytes, Vec::new(), true))),
            }
        }
    })
}

async fn read(response: Response, most: usize, wait: Duration) -> Result<Vec<u8>, ProviderError> {
    let mut pieces = response.bytes_stream();
    let mut body = Vec::new();
    let read = async {
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|reason| of_transport(&reason))?;
            if body.len().saturating_add(piece.len()) > most {
                return Err(too_large());
            }
            body.extend_from_slice(&piece);
        }
        Ok(())
    };
    tokio::time::timeout(wait, read).await.map_err(|_| too_late("no whole answer", wait))??;
    Ok(body)
}

fn too_large() -> ProviderError {
    error(ErrorKind::BadAnswer, format!("the answer has more than {MAX_ANSWER} bytes"))
}

fn too_late(what: &str, wait: Duration) -> ProviderError {
    error(ErrorKind::TimedOut, format!("{what} within {} ms", wait.as_millis()))
}

/// Ends a call that takes longer than its whole time.
pub(crate) async fn within<T>(
    total: Duration,
    call: impl Future<Output = Result<T, ProviderError>>,
) -> Result<T, ProviderError> {
    tokio::time::timeout(total, call).await.unwrap_or_else(|_| Err(too_late("no whole answer", total)))
}

/// The error behind one of the HTTP client. Its text contains no headers, so no secret.
fn of_transport(reason: &reqwest::Error) -> ProviderError {
    let kind = if reason.is_connect() || reason.is_builder() {
        ErrorKind::Unreachable
    } else if reason.is_timeout() {
        ErrorKind::TimedOut
    } else {
        ErrorKind::StreamBroken
    };
    let mut message = reason.to_string();
    let mut source = std::error::Error::source(reason);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    error(kind, message)
}

/// Checks a base URL: HTTPS, or HTTP on this machine; without credentials, query or fragment.
pub(crate) fn check_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|reason| format!("`url` is not a URL: {reason}"))?;
    let is_local = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if is_local => {}
        _ => return Err("`url` must begin with https:// (http:// is for this machine only)".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("`url` must not contain credentials: name a `secret`".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("`url` must not have a query or a fragment".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_in_pieces_of_one_byte_come_as_whole_lines() {
        let text = "data: a\n\ndata: é\r\n\r\ndata: the last";
        let pieces = text.bytes().map(|byte| Ok(vec![byte]));
        let lines: Vec<_> = whole_lines(futures_util::stream::iter(pieces)).collect().await;
        let lines: Vec<_> = lines.into_iter().map(|line| String::from_utf8(line.unwrap()).unwrap()).collect();
        assert_eq!(lines.concat(), text);
        assert!(lines.iter().rev().skip(1).all(|line| line.ends_with(['\n', '\r'])), "{lines:?}");
        let broken = [Ok(b"data: a".to_vec()), Err(error(ErrorKind::StreamBroken, "reset"))];
        let lines: Vec<_> = whole_lines(futures_util::stream::iter(broken)).collect().await;
        assert!(matches!(lines.as_slice(), [Err(_)]), "what is cut in the middle is no line");
    }
}
