//! Pieces of answers for callers in the same process, while the ledger gets the whole answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use logline_core::contract::provider::{Chunk, Chunks};
use tokio::sync::mpsc;
use uuid::Uuid;

/// How many pieces wait for a slow listener before the call waits too.
const WAITING: usize = 64;

/// Who listens to which request. It is cheap to clone; all clones are the same.
///
/// The pieces are not recorded: the recorded answer is what counts. If an attempt is made again, or answered from the record, the
/// pieces may come again, or not at all.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    listeners: Arc<Mutex<Listeners>>,
}

/// By tenant and request.
type Listeners = HashMap<(String, Uuid), mpsc::Sender<Chunk>>;

impl Streams {
    /// The pieces of the answer to a request. Listen before it is carried out. The stream ends with the attempt.
    #[must_use]
    pub fn listen(&self, tenant: &str, request: Uuid) -> mpsc::Receiver<Chunk> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut listeners = self.listeners();
        listeners.retain(|_, listener| !listener.is_closed());
        listeners.insert((tenant.to_owned(), request), sender);
        receiver
    }

    /// Whoever listens to a request, for the kernel that carries it out.
    #[must_use]
    pub fn take(&self, tenant: &str, request: Uuid) -> Option<Listener> {
        self.listeners().remove(&(tenant.to_owned(), request)).map(|sender| Listener(Some(sender)))
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// How long a call waits for a listener that does not take its pieces. Then the listener hears no more.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes the pieces of one answer.
#[derive(Debug)]
pub struct Listener(Option<mpsc::Sender<Chunk>>);

impl Listener {
    /// As what [`Providers::call`](super::Providers::call) takes it.
    pub fn chunks(&mut self) -> &mut dyn Chunks {
        self
    }
}

#[async_trait]
impl Chunks for Listener {
    async fn deliver(&mut self, chunk: Chunk) {
        // A listener that went away, or does not listen, misses the rest. It must not hold up the call, and much less fail it.
        let Some(sender) = &self.0 else { return };
        if !matches!(tokio::time::timeout(PATIENCE, sender.send(chunk)).await, Ok(Ok(()))) {
            self.0 = None;
        }
    }
}
