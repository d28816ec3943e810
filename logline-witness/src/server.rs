//! A witness behind HTTP: one path, one method, and limits.

use std::convert::Infallible;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use logline_log::witness::{Answer, Witness, WitnessState};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::peers::Peers;

/// The most bytes of a call: a note of 256 KiB, 63 lines of proof and the size.
pub const MAX_CALL: usize = (256 << 10) + (4 << 10);

/// The limits of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeOptions {
    /// The most connections at once. Others wait until one ends. Default 256.
    pub max_connections: usize,
    /// The most connections at once of one address. Others are closed at once. Default 32.
    pub max_per_address: usize,
    /// How long a connection may live. It serves one call. Default 10 seconds.
    pub call_timeout: Duration,
    /// The most calls of one address per second, in the long run. Others are answered with 429. Default 20.
    pub calls_per_second: NonZeroU32,
    /// How many calls an address may make at once, after it has rested. Default 100.
    pub burst: NonZeroU32,
}

impl Default for ServeOptions {
    fn default() -> Self {
        let number = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            max_connections: 256,
            max_per_address: 32,
            call_timeout: Duration::from_secs(10),
            calls_per_second: number(20),
            burst: number(100),
        }
    }
}

/// Serves `POST /add-checkpoint` of C2SP `tlog-witness` on `listener` until `shutdown` completes; then open calls may end. It does not return
/// an error: what fails is one connection.
///
/// A connection serves one call and has [`ServeOptions::call_timeout`] for all of it, so a slow client holds a place for no longer. What
/// the rules of the witness do not answer is answered with 404 (other paths), 405 (other methods), 429 (too many calls of one address) and
/// 500 (the state or the key is not available; nothing was cosigned).
///
/// There is no TLS: put a proxy in front of it that has a certificate. All calls then come from its address; set
/// [`ServeOptions::calls_per_second`] and [`ServeOptions::max_per_address`] for all of them together, and limit addresses in the proxy.
pub async fn serve<S: WitnessState + 'static>(
    listener: TcpListener,
    witness: Witness<S>,
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(options.max_connections));
    let peers = Peers::new(options.max_per_address, options.calls_per_second, options.burst);
    let site = Arc::new(Site { witness, peers });
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let place = tokio::select! {
            () = &mut shutdown => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(error) => {
                // Such as too many open files: others may close soon.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(own_place) = site.peers.connect(peer) else {
            count("closed");
            continue;
        };
        let (site, timeout) = (Arc::clone(&site), options.call_timeout);
        connections.spawn(async move {
            let _places = (place, own_place);
            if tokio::time::timeout(timeout, connection(site, stream, peer)).await.is_err() {
                count("cut");
                tracing::debug!(%peer, "a client was too slow and is cut");
            }
        });
    }
    drop(listener);
    // Each of them ends by its own deadline.
    while connections.join_next().await.is_some() {}
}

struct Site<S> {
    witness: Witness<S>,
    peers: Peers,
}

async fn connection<S: WitnessState>(site: Arc<Site<S>>, stream: TcpStream, peer: IpAddr) {
    stream.set_nodelay(true).ok();
    let service = service_fn(|request| {
        let site = Arc::clone(&site);
        async move {
            let mut answer = answer(&site, request, peer).await;
            count(answer.status().as_str());
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_headers(64)
        .max_buf_size(32 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

async fn answer<S: WitnessState>(site: &Site<S>, request: Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
    if request.uri().path() != "/add-checkpoint" {
        return plain(StatusCode::NOT_FOUND);
    }
    if request.method() != Method::POST {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED);
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return refused;
    }
    if !site.peers.may_call(peer) {
        let mut refused = plain(StatusCode::TOO_MANY_REQUESTS);
        refused.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return refused;
    }
    // A client that waits for `100 Continue` is told before it sends anything.
    if request.body().size_hint().lower() > MAX_CALL as u64 {
        return plain(StatusCode::BAD_REQUEST);
    }
    let Ok(body) = Limited::new(request.into_body(), MAX_CALL).collect().await else {
        return plain(StatusCode::BAD_REQUEST);
    };
    match site.witness.add_checkpoint(&body.to_bytes()).await {
        Ok(answer) => written(&answer),
        Err(error) => {
            tracing::error!(%error, "a call could not be answered");
            plain(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

fn written(answer: &Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(answer.body()));
    *response.status_mut() = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type()));
    response
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// Counts by a status, or by what became of a connection without one.
fn count(outcome: &str) {
    metrics::counter!("logline_witness_calls_total", "outcome" => outcome.to_owned()).increment(1);
}
