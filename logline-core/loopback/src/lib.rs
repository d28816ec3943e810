//! A server on this machine that plays to adapters of providers what they must cope with, byte by byte if it must. For tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a part of tests")]

mod line;
mod record;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use logline_core::conformance::providing::{Scene, Stage};
use logline_core::contract::provider::Provider;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub use line::{Line, pieces};

/// Runs a test.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// What the server does at the next call. Without one it says nothing, and waits for the client to go.
#[derive(Clone)]
pub enum Act {
    /// What a trial asks for.
    Scene(Scene),
    /// Sends these bytes after the head of the answer, and closes.
    Raw(String, Vec<u8>),
    /// Sends these bytes after the head of the answer, closes its side only, and waits for the client to go.
    HalfClosed(String, Vec<u8>),
    /// Sends these bytes after the head of the answer, and nothing more.
    Silent(String, Vec<u8>),
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The head, with its line ends.
    pub head: String,
    /// The body; `null` if it is not JSON.
    pub body: Value,
}

impl Seen {
    /// The path and query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// The first header with this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }
}

/// How a provider speaks.
#[async_trait]
pub trait Dialect: Send + Sync + 'static {
    /// The environment variable that names the file in which is kept what went over the line, for `cargo xtask interop`.
    fn record(&self) -> &'static str;

    /// The header with the provider's own id of the call.
    fn id_header(&self) -> &'static str;

    /// Whether a request asks for a stream.
    fn streams(&self, seen: &Seen) -> bool;

    /// Plays a scene of a trial.
    async fn play(&self, line: Line, scene: Scene, streams: bool);
}

/// What the server and its test share.
pub struct Shared {
    dialect: Box<dyn Dialect>,
    acts: Mutex<VecDeque<Act>>,
    seen: Mutex<Vec<Seen>>,
    /// Told when a request has come.
    pub arrived: Notify,
    /// Told when a client has closed its connection before it was answered.
    pub left: Notify,
    drips: bool,
}

/// A server, and the adapter that asks it.
pub struct Server<P> {
    /// The adapter.
    pub adapter: P,
    url: String,
    /// What the server and its test share.
    pub shared: Arc<Shared>,
}

/// Begins to listen. With `drips`, every byte is sent by itself. The adapter is made by `adapter`, which gets the address such as
/// `127.0.0.1:4711` and returns the base URL as well.
pub async fn open<P>(
    dialect: impl Dialect,
    drips: bool,
    adapter: impl AsyncFnOnce(String) -> (P, String),
) -> (JoinHandle<()>, Server<P>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (acts, seen) = (Mutex::default(), Mutex::default());
    let shared =
        Arc::new(Shared { dialect: Box::new(dialect), acts, seen, arrived: Notify::new(), left: Notify::new(), drips });
    let served = Arc::clone(&shared);
    let task = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            tokio::spawn(serve(socket, Arc::clone(&served)));
        }
    });
    let (adapter, url) = adapter(address).await;
    (task, Server { adapter, url, shared })
}

async fn serve(socket: TcpStream, shared: Arc<Shared>) {
    let mut line = Line::new(socket, Arc::clone(&shared));
    let Some(seen) = line.request().await else { return };
    let streams = shared.dialect.streams(&seen);
    shared.seen.lock().unwrap().push(seen);
    shared.arrived.notify_one();
    let act = shared.acts.lock().unwrap().pop_front();
    match act {
        None => line.hang().await,
        Some(Act::Raw(head, body)) => line.raw(&head, &body).await,
        Some(Act::HalfClosed(head, body)) => {
            line.raw(&head, &body).await;
            line.close().await;
            line.hang().await;
        }
        Some(Act::Silent(head, body)) => {
            line.raw(&head, &body).await;
            line.hang().await;
        }
        Some(Act::Scene(scene)) => shared.dialect.play(line, scene, streams).await,
    }
}

impl<P> Server<P> {
    /// Begins a call, drops it when the request has come, and waits until the connection is closed.
    ///
    /// # Panics
    /// If the call ends, or the connection stays open for a minute.
    pub async fn given_up<T>(&self, call: impl Future<Output = T>) {
        tokio::select! {
            _ = call => panic!("it never answers"),
            () = self.shared.arrived.notified() => {}
        }
        let left = tokio::time::timeout(Duration::from_secs(60), self.shared.left.notified()).await;
        assert!(left.is_ok(), "the connection is open");
    }

    /// Adds to what the server will do.
    pub fn act(&self, act: Act) {
        self.shared.acts.lock().unwrap().push_back(act);
    }

    /// The requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The last request.
    #[must_use]
    pub fn last(&self) -> Seen {
        self.seen().pop().unwrap()
    }

    /// The base URL.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.url
    }
}

#[async_trait]
impl<P: Provider> Stage for Server<P> {
    fn provider(&self) -> &dyn Provider {
        &self.adapter
    }

    fn url(&self) -> Option<String> {
        Some(self.url.clone())
    }

    async fn next(&self, scene: Scene) {
        self.act(Act::Scene(scene));
    }

    async fn calls(&self) -> usize {
        self.seen().len()
    }
}
