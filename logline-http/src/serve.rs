//! A server with the limits that a service on the open net needs. A host may use any other: the router does not depend on it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tower::ServiceExt as _;

use crate::options::Drain;
use crate::peers::{Peer, network};
use crate::slots::Slots;

/// The limits of connections.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeOptions {
    /// The most connections at once. Others wait until one ends. If the process may open too few files for so many, there are fewer, and
    /// the log says so: a quarter of the files is left for everything else. Default 20,000.
    pub max_connections: usize,
    /// The most connections at once of one address (in version 6: of one network of 64 bits). More of it are closed at once. All clients
    /// behind a proxy have the proxy's address: there, set it to as many as there may be in all. Default `None`: a quarter of all.
    pub max_connections_per_address: Option<usize>,
    /// How long the head of a request may take to arrive, and how long a connection may rest between two. Default 15 seconds.
    pub header_timeout: Duration,
    /// The most headers of a request. Default 64.
    pub max_headers: usize,
    /// The most bytes of a request's head, at least 8 KiB. Default 32 KiB.
    pub max_header_bytes: usize,
    /// How long a client may take nothing of an answer that it is sent. Then it is cut. Default 30 seconds.
    pub write_timeout: Duration,
    /// How long open calls may take to end after the shutdown has begun. Default 20 seconds.
    pub drain_timeout: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_connections_per_address: None,
            header_timeout: Duration::from_secs(15),
            max_headers: 64,
            max_header_bytes: 32 << 10,
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// Makes of an accepted connection the one that speaks HTTP, for example by a TLS handshake.
#[async_trait]
pub trait Secure: Clone + Send + Sync + 'static {
    /// The connection that speaks HTTP.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The handshake. It is cut after [`ServeOptions::header_timeout`].
    ///
    /// # Errors
    /// If the connection is not to be served.
    async fn secure(&self, stream: TcpStream) -> io::Result<Self::Io>;
}

/// Connections as they are: a proxy before the service has ended TLS.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

#[async_trait]
impl Secure for Plain {
    type Io = TcpStream;

    async fn secure(&self, stream: TcpStream) -> io::Result<TcpStream> {
        Ok(stream)
    }
}

/// As [`serve_secure`], without TLS.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: ServeOptions,
    drain: Drain,
    shutdown: impl Future<Output = ()>,
) {
    serve_secure(listener, router, options, drain, shutdown, Plain).await;
}

/// Serves HTTP/1.1 on `listener` until `shutdown` completes. Then it takes no more connections, begins `drain` (which ends streams and
/// waits), lets open calls end, and returns. It does not return an error: what fails is one connection.
pub async fn serve_secure(
    listener: TcpListener,
    router: Router,
    options: ServeOptions,
    drain: Drain,
    shutdown: impl Future<Output = ()>,
    secure: impl Secure,
) {
    let room = Room::of(&options, open_files());
    if room.all < options.max_connections {
        let (asked, served) = (options.max_connections, room.all);
        tracing::warn!(
            asked,
            served,
            "the process may open too few files for so many connections: raise its limit of open files"
        );
    }
    let places = Arc::new(Semaphore::new(room.all));
    let of_addresses = Slots::new(room.all, room.of_address, None);
    let mut connections = JoinSet::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_headers(options.max_headers)
        .max_buf_size(options.max_header_bytes.max(8 << 10))
        // A client that closes its side has left: its stream ends, and its place is free.
        .half_close(false);
    // Apart from `drain`: an instance that drains still answers, until it shuts down.
    let closing = Drain::new();
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
        // Finished connections are forgotten.
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Such as too many open files: others may close soon.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(share) = of_addresses.take(&network(peer.ip()).to_string()) else {
            metrics::counter!("logline_http_rate_limited_total", "limit" => "connections").increment(1);
            tracing::debug!(%peer, "a connection was closed: its address has as many as it may");
            continue;
        };
        stream.set_nodelay(true).ok();
        let service = TowerToHyperService::new(router.clone().map_request(move |request: Request<Incoming>| {
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(Peer(peer));
            request
        }));
        let (http, closing, secure) = (http.clone(), closing.clone(), secure.clone());
        let (handshake, patience) = (options.header_timeout, options.write_timeout);
        connections.spawn(async move {
            let _held = (place, share);
            let secured = tokio::select! {
                secured = tokio::time::timeout(handshake, secure.secure(stream)) => secured,
                () = closing.wait() => return,
            };
            let Ok(Ok(stream)) = secured else {
                tracing::debug!("a connection was not secured");
                return;
            };
            let io = TokioIo::new(Connection::new(stream, patience));
            let mut connection = std::pin::pin!(http.serve_connection(io, service));
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = closing.wait() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    drain.begin();
    closing.begin();
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(options.drain_timeout, ended).await.is_err() {
        tracing::warn!("connections did not end in time and are cut");
    }
    connections.shutdown().await;
}

/// How many connections there may be.
#[derive(Debug, PartialEq)]
struct Room {
    all: usize,
    of_address: usize,
}

impl Room {
    /// What the options allow, and the files that the process may open: each connection is one. Others are of the ledger, of its pool, and
    /// of calls to the outside.
    fn of(options: &ServeOptions, files: Option<usize>) -> Self {
        let most = files.map_or(usize::MAX, |files| files - files / 4);
        let all = options.max_connections.min(most).clamp(1, Semaphore::MAX_PERMITS);
        Self { all, of_address: options.max_connections_per_address.unwrap_or(all / 4).clamp(1, all) }
    }
}

/// The most files that the process may open, if the system has such a limit.
#[cfg(unix)]
fn open_files() -> Option<usize> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current?;
    Some(usize::try_from(limit).unwrap_or(usize::MAX))
}

#[cfg(not(unix))]
fn open_files() -> Option<usize> {
    None
}

/// A connection that fails if its client takes nothing for too long.
struct Connection<S> {
    stream: S,
    timeout: Duration,
    /// Runs while a write waits.
    patience: Pin<Box<Sleep>>,
    waits: bool,
}

impl<S> Connection<S> {
    fn new(stream: S, timeout: Duration) -> Self {
        Self { stream, timeout, patience: Box::pin(tokio::time::sleep(timeout)), waits: false }
    }

    fn check<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waits = false;
            return polled;
        }
        if !self.waits {
            self.waits = true;
            self.patience.as_mut().reset(Instant::now() + self.timeout);
        }
        match self.patience.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.check(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_connections_than_the_process_may_open_files_are_not_taken() {
        let room = |all, of_address, files| {
            let mut options = ServeOptions::default();
            (options.max_connections, options.max_connections_per_address) = (all, of_address);
            let Room { all, of_address } = Room::of(&options, files);
            (all, of_address)
        };
        assert_eq!(room(20_000, None, Some(1024)), (768, 192));
        assert_eq!(room(20_000, None, Some(1 << 20)), (20_000, 5_000));
        assert_eq!(room(20_000, Some(20_000), Some(1024)), (768, 768), "behind a proxy");
        assert_eq!(room(100, Some(7), None), (100, 7));
        assert_eq!(room(0, Some(0), Some(0)), (1, 1), "whoever serves serves somebody");
        assert!(open_files().is_none_or(|files| files > 0));
    }
}
