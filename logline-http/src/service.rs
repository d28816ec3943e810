//! What all routes share, who calls, and reading bodies.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::Request;
use http::{HeaderMap, StatusCode, header};
use logline_core::ledger::{LedgerError, WorkQueue};
use logline_core::{Host, Scope};
use serde_json::Value;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::auth::{AuthError, Authenticator};
use crate::bodies::Bodies;
use crate::identity::Identity;
use crate::lately::Lately;
use crate::options::Options;
use crate::peers::Peers;
use crate::problem::{Code, Problem};
use crate::queue::QueueGauges;
use crate::rates::Rates;
use crate::ready::Readiness;
use crate::slots::{Slot, Slots, Turns};
use crate::tail::Tails;

/// The longest token.
const MAX_TOKEN: usize = 8 << 10;

pub(crate) struct Service {
    pub(crate) host: Host,
    pub(crate) auth: Arc<dyn Authenticator>,
    pub(crate) options: Options,
    pub(crate) tails: Tails,
    pub(crate) rates: Rates,
    slots: Arc<Slots>,
    pub(crate) bodies: Bodies,
    pub(crate) peers: Peers,
    /// Checks of tokens that are not known, by their digests.
    pub(crate) checks: Turns,
    pub(crate) readiness: Readiness,
    pub(crate) queue: QueueGauges,
    /// Functions that a user of a tenant could see: an execution need not read the code of its function first.
    pub(crate) functions: Lately<(String, String, Uuid)>,
    /// The OpenAPI document of the routes that are mounted.
    pub(crate) document: OnceLock<String>,
    /// Bytes of rows that streams have sent and their clients have not taken.
    pub(crate) sending: Arc<Slots>,
    /// Reads of lists, which may look at many rows.
    reads: Turns,
    /// Chats that this service carries out.
    #[cfg(feature = "prompts")]
    pub(crate) chats: Turns,
}

/// The most bytes of long rows that streams have sent and their clients have not taken, in all and of a tenant.
const SENDING: (usize, usize) = (256 << 20, 32 << 20);

/// The most lists of a tenant that are read at the same time.
const READS: usize = 4;

/// The most chats of a tenant that this service carries out at the same time. The others wait, or a worker takes them: the connections of the
/// ledger's pool are for all tenants.
#[cfg(feature = "prompts")]
const CHATS: usize = 32;

impl Service {
    pub(crate) fn new(host: Host, auth: Arc<dyn Authenticator>, options: Options) -> Self {
        Self {
            tails: Tails::new(Arc::clone(host.ledger())),
            rates: Rates::new(options.tenant_rate, options.key_rate),
            slots: Slots::new(options.max_streams, options.max_streams_per_tenant, Some("logline_http_streams")),
            bodies: Bodies::new(),
            peers: Peers::new(options.refused_rate),
            checks: Turns::new(1),
            readiness: Readiness::default(),
            queue: QueueGauges::default(),
            functions: Lately::default(),
            document: OnceLock::new(),
            sending: Slots::new(SENDING.0, SENDING.1, None),
            reads: Turns::new(READS),
            #[cfg(feature = "prompts")]
            chats: Turns::new(CHATS),
            host,
            auth,
            options,
        }
    }

    pub(crate) fn ledger(&self) -> &Arc<dyn WorkQueue> {
        self.host.ledger()
    }

    pub(crate) async fn identify(&self, token: &str) -> Result<Identity, Problem> {
        match self.auth.authenticate(token).await {
            Ok(identity) => Ok(identity),
            Err(AuthError::Unavailable { reason }) => {
                tracing::warn!(%reason, "tokens cannot be checked");
                Err(Problem::new(Code::Unavailable, "tokens cannot be checked at the moment: try again later"))
            }
            Err(error) => {
                tracing::debug!(%error, "a token was refused");
                metrics::counter!("logline_http_tokens_refused_total").increment(1);
                Err(Problem::new(Code::InvalidToken, "get a new token; why this one is refused is in the service's log"))
            }
        }
    }

    /// A place for a stream or a wait.
    pub(crate) fn slot(&self, tenant: &str) -> Result<Slot, Problem> {
        if self.options.drain.has_begun() {
            return Err(Problem::new(Code::Draining, "go to another instance, or come back later"));
        }
        let full = || Problem::new(Code::TooManyStreams, "close streams that you do not need, or come back later");
        self.slots.take(tenant).ok_or_else(full)
    }

    /// Carries out a read that may look at many rows. Those of one tenant must not keep the others waiting.
    pub(crate) async fn reading<T>(
        &self,
        tenant: &str,
        read: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, Problem> {
        Ok(self.in_turn(tenant, read).await??)
    }

    /// Does what may look at many rows, a few at the same time for each tenant.
    pub(crate) async fn in_turn<T>(&self, tenant: &str, work: impl Future<Output = T>) -> Result<T, Problem> {
        let late = |_| Problem::new(Code::Timeout, "it took too long: ask for less, or for fewer at the same time");
        let in_turn = async {
            let _turn = self.reads.take(tenant).await;
            work.await
        };
        tokio::time::timeout(self.options.call_timeout, in_turn).await.map_err(late)
    }
}

/// Who makes a call.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) identity: Identity,
    /// For streams, which have it checked again.
    pub(crate) token: Arc<Zeroizing<String>>,
}

impl Caller {
    pub(crate) fn scope(&self) -> Scope {
        self.identity.scope()
    }

    pub(crate) fn read_scope(&self) -> Scope {
        self.identity.read_scope()
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.identity.tenant
    }
}

/// The token of a call.
pub(crate) fn token(headers: &HeaderMap) -> Result<Zeroizing<String>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let refused = |detail| Problem::new(Code::InvalidToken, detail);
    match (values.next(), values.next()) {
        (None, _) => Err(Problem::new(Code::NoToken, "send it as `Authorization: Bearer TOKEN`")),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| refused("the header is not plain text"))?;
            let (scheme, token) = text.split_once(' ').ok_or_else(|| refused("send it as `Authorization: Bearer TOKEN`"))?;
            if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > MAX_TOKEN {
                return Err(refused("send it as `Authorization: Bearer TOKEN`"));
            }
            Ok(Zeroizing::new(token.to_owned()))
        }
        _ => Err(refused("send one `Authorization` header")),
    }
}

/// The type of a body, without its parameters, in lower case.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// An id in a path.
pub(crate) fn id(text: &str) -> Result<Uuid, Problem> {
    // Only the hyphenated form: an id has one spelling in paths.
    let parsed = Uuid::try_parse(text).ok().filter(|id| id.to_string() == text.to_ascii_lowercase());
    parsed.ok_or_else(|| Problem::parameter("id", "a UUID"))
}

/// The trace of a call, which may have begun with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallTrace {
    /// The 32 digits of the trace.
    pub(crate) id: String,
    /// The 16 digits of the caller's span. `None`: the trace begins here.
    pub(crate) parent: Option<String>,
}

impl CallTrace {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        match trace(headers) {
            Some(Trace { id, parent }) => Self { id, parent: Some(parent) },
            None => {
                let mut bytes = [0; 16];
                // Traces that are mixed up confuse a reader, nothing else. One of zeros would not be valid.
                getrandom::fill(&mut bytes).ok();
                let [first, ..] = &mut bytes;
                *first |= 1;
                Self { id: Uuid::from_bytes(bytes).simple().to_string(), parent: None }
            }
        }
    }
}

/// The trace of a request that a call submits.
pub(crate) fn call_trace(extensions: &http::Extensions, headers: &HeaderMap) -> CallTrace {
    extensions.get::<CallTrace>().cloned().unwrap_or_else(|| CallTrace::of(headers))
}

/// Where a call comes from, by its `traceparent` (Trace Context level 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The 32 digits of the trace: the `trace_id` of what the call writes.
    pub(crate) id: String,
    /// The 16 digits of the caller's span.
    pub(crate) parent: String,
}

/// The trace of a call. `None` if it has none that is valid.
pub(crate) fn trace(headers: &HeaderMap) -> Option<Trace> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    let is_valid = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && !is_zero(trace)
        && is_hex(parent, 16)
        && !is_zero(parent)
        && is_hex(flags, 2)
        && (version != "00" || parts.next().is_none());
    is_valid.then(|| Trace { id: trace.to_owned(), parent: parent.to_owned() })
}

/// The seconds of `Prefer: wait=N` (RFC 7240).
pub(crate) fn preferred_wait(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let preferences =
        values.flat_map(|value| value.split(',')).map(|preference| preference.split(';').next().unwrap_or_default());
    preferences.filter_map(|preference| preference.split_once('=')).find_map(|(name, value)| {
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("wait").then(|| value.parse().ok()).flatten()
    })
}

/// An answer with a JSON body.
pub(crate) fn answer(status: StatusCode, body: &Value) -> axum::response::Response {
    json_bytes(status, body.to_string().into_bytes())
}

/// An answer whose body is JSON already.
pub(crate) fn json_bytes(status: StatusCode, body: Vec<u8>) -> axum::response::Response {
    let mut response = axum::response::Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// The caller of a request, as the layer that checks tokens has left it.
pub(crate) fn caller(request: &Request) -> Result<Caller, Problem> {
    let missing = || Problem::new(Code::NoToken, "send it as `Authorization: Bearer TOKEN`");
    request.extensions().get::<Caller>().cloned().ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn only_valid_trace_contexts_count() {
        let (trace_id, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let of = |text: String| trace(&headers("traceparent", &text)).map(|trace| trace.id);
        assert_eq!(of(format!("00-{trace_id}-{parent}-01")).as_deref(), Some(trace_id));
        assert_eq!(of(format!("01-{trace_id}-{parent}-01-more")).as_deref(), Some(trace_id));
        for text in [
            format!("ff-{trace_id}-{parent}-01"),
            format!("00-{trace_id}-{parent}-01-more"),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{trace_id}-{}-01", "0".repeat(16)),
            format!("00-{}-{parent}-01", trace_id.to_uppercase()),
            format!("00-{trace_id}"),
            String::new(),
        ] {
            assert_eq!(of(text.clone()), None, "{text}");
        }
    }

    #[test]
    fn a_wait_is_found_among_other_preferences() {
        for (text, wait) in [
            ("wait=10", Some(10)),
            ("respond-async, wait=5", Some(5)),
            ("Wait=\"7\"; x=1", Some(7)),
            ("wait", None),
            ("wait=-1", None),
            ("wait=99999999999999999999", None),
        ] {
            assert_eq!(preferred_wait(&headers("prefer", text)), wait, "{text}");
        }
    }
}
