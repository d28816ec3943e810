//! The log's side: one call to a witness, within its bounds.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use logline_log::witness::{AddCheckpoint, Answer, WitnessCallError, WitnessClient};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response, Url};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// The most bytes of an answer: the lines of a hundred small signatures.
const MAX_ANSWER: usize = 64 << 10;

/// How long a call may take as a whole, unless it was set.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// Why a witness cannot be called. A retry cannot help.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The URL is not one of a witness.
    #[error("`{url}` cannot be the URL of a witness: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up: {reason}")]
    Client {
        /// What it said.
        reason: String,
    },
}

/// A witness behind HTTP or HTTPS.
///
/// A call has a deadline and a bounded answer, follows no redirect, and is not repeated by itself. Plain HTTP is accepted: a call has nothing
/// secret (an origin is random and names no tenant), and of an answer only a valid cosignature counts. Whoever sits between can do no more
/// than whoever cuts the line, and see how fast the log grows. Use HTTPS where that matters.
#[derive(Debug, Clone)]
pub struct HttpWitness {
    url: Url,
    client: Client,
    timeout: Duration,
}

impl HttpWitness {
    /// The witness below this URL, the `SUBMISSION-PREFIX` of C2SP `tlog-witness`: the call goes to `URL/add-checkpoint`. Certificates are
    /// those that the machine trusts.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(url: &str) -> Result<Self, SetupError> {
        let refused = |reason| SetupError::Url { url: url.chars().take(200).collect(), reason };
        let parsed = Url::parse(url).map_err(|_| refused("it is not a URL"))?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host().is_none() {
            return Err(refused("it must begin with https:// or http://"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(refused("it must not have credentials"));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(refused("it must not have a query or a fragment"));
        }
        let call = format!("{}/add-checkpoint", parsed.as_str().trim_end_matches('/'));
        let call = Url::parse(&call).map_err(|_| refused("it is not a URL"))?;
        let is_local = match parsed.host() {
            Some(host) => ["localhost", "127.0.0.1", "[::1]"].contains(&host.to_string().as_str()),
            None => false,
        };
        Ok(Self { url: call, client: client(is_local)?, timeout: TIMEOUT })
    }

    /// Sets how long a call may take as a whole. Default 10 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn call(&self, call: &AddCheckpoint) -> Result<Answer, WitnessCallError> {
        let failed = |error: reqwest::Error| WitnessCallError { reason: with_causes(&error.without_url()) };
        let post = self.client.post(self.url.clone()).header(CONTENT_TYPE, "text/plain; charset=utf-8").body(call.to_string());
        let response = post.send().await.map_err(failed)?;
        let status = response.status();
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = read(response).await?;
        Answer::parse(status.as_u16(), content_type.as_deref(), &body)
            .map_err(|error| WitnessCallError { reason: format!("status {status}: {error}") })
    }
}

#[async_trait]
impl WitnessClient for HttpWitness {
    async fn add_checkpoint(&self, call: &AddCheckpoint) -> Result<Answer, WitnessCallError> {
        let late = |_| WitnessCallError { reason: format!("no whole answer within {} ms", self.timeout.as_millis()) };
        tokio::time::timeout(self.timeout, self.call(call)).await.map_err(late)?
    }
}

fn client(is_local: bool) -> Result<Client, SetupError> {
    let failed = |reason: String| SetupError::Client { reason };
    // The provider of cryptography is named here, so that it does not depend on which other crates are in the build.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT)
        .user_agent(concat!("logline-witness/", env!("CARGO_PKG_VERSION")))
        // A redirect could lead to a host that nobody has named, and a repeated call is asked for by the log, which knows the size by then.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never());
    if is_local {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| failed(with_causes(&error)))
}

async fn read(response: Response) -> Result<Vec<u8>, WitnessCallError> {
    let mut pieces = response.bytes_stream();
    let mut body = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| WitnessCallError { reason: with_causes(&error.without_url()) })?;
        if body.len().saturating_add(piece.len()) > MAX_ANSWER {
            return Err(WitnessCallError { reason: format!("the answer has more than {MAX_ANSWER} bytes") });
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// The HTTP client says the cause of a failure only in the sources of its error.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
