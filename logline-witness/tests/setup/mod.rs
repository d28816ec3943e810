//! A log of numbered leaves, a witness behind a real socket, and calls byte by byte.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use logline_core::{KeyPair, Signer, SystemClock};
use logline_log::note::{KeyKind, KeyName, Note, NoteKey};
use logline_log::tree::{Frontier, NodeId, ProofPlan};
use logline_log::witness::{AddCheckpoint, ConsistencyProver, StoredWitness, Witness, WitnessState};
use logline_log::{Checkpoint, TreeHash};
use logline_witness::{ServeOptions, begin_state, open_state, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

pub(crate) fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

pub(crate) fn log_key() -> NoteKey {
    NoteKey::new(name("log"), KeyKind::Log, key(1).public_key()).unwrap()
}

pub(crate) fn witness_key() -> NoteKey {
    NoteKey::new(name("witness.example/w"), KeyKind::Witness, key(2).public_key()).unwrap()
}

/// A log; `fork` makes the leaves after the third others.
pub(crate) struct Log {
    pub(crate) fork: bool,
}

pub(crate) const LOG: Log = Log { fork: false };
pub(crate) const FORK: Log = Log { fork: true };

impl Log {
    fn leaf(&self, n: u64) -> TreeHash {
        TreeHash::leaf(format!("{n}{}", if self.fork && n >= 3 { "forked" } else { "" }).as_bytes())
    }

    fn node(&self, node: NodeId) -> TreeHash {
        if node.level == 0 {
            return self.leaf(node.index);
        }
        let child = |side| self.node(NodeId { level: node.level - 1, index: node.index * 2 + side });
        TreeHash::node(&child(0), &child(1))
    }

    pub(crate) fn proof(&self, old: u64, new: u64) -> Vec<TreeHash> {
        ProofPlan::consistency(old, new).unwrap().build(|node| Ok::<_, ()>(self.node(node))).unwrap()
    }

    pub(crate) fn checkpoint(&self, size: u64) -> Note {
        let mut frontier = Frontier::new();
        (0..size).for_each(|n| frontier.push(self.leaf(n)));
        signed(Checkpoint { origin: name("log"), size, root: frontier.root() })
    }

    pub(crate) fn call(&self, old: u64, new: u64) -> AddCheckpoint {
        AddCheckpoint { old_size: old, proof: self.proof(old, new), checkpoint: self.checkpoint(new) }
    }
}

#[async_trait]
impl ConsistencyProver for Log {
    async fn prove(&self, old: u64, new: u64) -> Result<Vec<TreeHash>, String> {
        Ok(self.proof(old, new))
    }
}

pub(crate) fn signed(checkpoint: Checkpoint) -> Note {
    let mut note = checkpoint.to_note().unwrap();
    note.sign(&checkpoint.origin, &key(1)).now_or_never().unwrap().unwrap();
    note
}

/// A witness that serves on a port of this machine, until it is dropped.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    pub(crate) url: String,
    task: JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn serving_with<S: WitnessState + 'static>(
    state: S,
    signer: Arc<dyn Signer>,
    options: ServeOptions,
) -> Serving {
    let witness = Witness::new(witness_key().name().clone(), signer, Arc::new(SystemClock), vec![log_key()], state);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(serve(listener, witness, options, std::future::pending()));
    Serving { address, url: format!("http://{address}"), task }
}

pub(crate) async fn serving(state: StoredWitness) -> Serving {
    serving_with(state, Arc::new(key(2)), ServeOptions::default()).await
}

/// The state of the test's witness in a folder, begun if it is not there.
pub(crate) fn state(folder: &Path) -> StoredWitness {
    open_state(folder, &witness_key()).or_else(|_| begin_state(folder, &witness_key())).unwrap()
}

/// Everything that the server sends after it was sent `request`.
pub(crate) async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server may answer, and close, before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn post(body: &str) -> Vec<u8> {
    format!("POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Status, content type and body of the answer to a call.
pub(crate) async fn ask(serving: &Serving, call: &AddCheckpoint) -> (u16, String, String) {
    parts(&raw(serving.address, &post(&call.to_string())).await)
}

pub(crate) fn parts(answer: &str) -> (u16, String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    (status, content_type.to_owned(), body.to_owned())
}
