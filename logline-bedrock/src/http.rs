//! The HTTP client under the SDK: the workspace's TLS, a bound on answers, and errors that say whether a request was sent.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::ErrorKind;
use http_body_util::Limited;
use rustls::RootCertStore;

/// The most bytes of an answer. A span holds less.
pub(crate) const MAX_ANSWER: usize = 8 << 20;

/// How many pairs of time limits have connections of their own.
const MAX_CONNECTORS: usize = 8;

/// The limits of time for connecting and reading, which are properties of a connector.
type Limits = (Option<Duration>, Option<Duration>);

/// Opens connections. Providers may name any limit of time, so those of the SDK, which it keeps for ever, are not used.
pub(crate) struct Http {
    tls: TlsContext,
    connectors: Mutex<BTreeMap<Limits, SharedHttpConnector>>,
}

impl Http {
    /// A client that trusts the machine's certificate authorities.
    ///
    /// # Errors
    /// What is wrong, as text.
    pub(crate) fn new() -> Result<Self, String> {
        // On a machine without any, connections over TLS fail as those to an unknown authority do. The SDK would panic in debug builds.
        let found = rustls_native_certs::load_native_certs();
        let (usable, _) = RootCertStore::empty().add_parsable_certificates(found.certs);
        let trusted = TrustStore::empty().with_native_roots(usable > 0);
        let tls = TlsContext::builder().with_trust_store(trusted).build().map_err(|error| error.to_string())?;
        Ok(Self { tls, connectors: Mutex::default() })
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

impl HttpClient for Http {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let limits = (settings.connect_timeout(), settings.read_timeout());
        let mut connectors = self.connectors.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(connector) = connectors.get(&limits) {
            return connector.clone();
        }
        let mut builder = Connector::builder();
        builder.set_sleep_impl(components.sleep_impl());
        let connector = builder
            .connector_settings(settings.clone())
            .proxy_config(ProxyConfig::from_env())
            // The provider of cryptography is named here, so that it does not depend on which other crates are in the build.
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(self.tls.clone())
            .build();
        let connector = SharedHttpConnector::new(Bounded(connector));
        if connectors.len() >= MAX_CONNECTORS {
            connectors.pop_first();
        }
        connectors.insert(limits, connector.clone());
        connector
    }
}

/// A connector whose answers have a bound, and whose errors say whether a request was sent.
#[derive(Debug)]
struct Bounded(Connector);

impl HttpConnector for Bounded {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answered = self.0.call(request);
        HttpConnectorFuture::new(async move {
            match answered.await {
                Ok(response) => Ok(response.map(|body| SdkBody::from_body_1_x(Limited::new(body, MAX_ANSWER)))),
                // Transient: whoever fetches credentials may try again. Calls to models are tried by whoever records them.
                Err(error) if is_connecting(&error) => {
                    Err(ConnectorError::other(NotSent(chain(&error)).into(), Some(ErrorKind::TransientError)))
                }
                Err(error) => Err(error),
            }
        })
    }
}

/// Whether the error is one of connecting. No call to a model has a limit for reading, so a limit that was reached is
/// the one for connecting.
fn is_connecting(error: &ConnectorError) -> bool {
    error.is_timeout() || find::<hyper_util::client::legacy::Error>(error).is_some_and(|error| error.is_connect())
}

/// No request was sent, for this reason.
#[derive(Debug)]
pub(crate) struct NotSent(String);

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection: {}", self.0)
    }
}

impl Error for NotSent {}

/// The error of this type among the causes of `error`.
pub(crate) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

/// The causes of `error` as one text, without those that only repeat what the one before said.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in std::iter::successors(Some(error), |&error| error.source()) {
        let said = cause.to_string();
        if text.is_empty() {
            text = said;
        } else if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
    }
    text
}
