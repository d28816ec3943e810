//! The channel between a guest and its host: one question at a time, and the resources that the call has used.

use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard};

use logline_core::Failure;
use serde_json::Value;
use tokio::sync::{Notify, oneshot};

/// The host's answer: a value or a refusal. The guest continues after either.
pub(crate) type Answer = Result<Value, Failure>;

/// A question from the guest to its host.
pub(crate) struct Question {
    pub(crate) op: i32,
    pub(crate) argument: Value,
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// Shared by the guest and the caller of the run. The caller can read the resources used even if the call was stopped from
/// outside.
#[derive(Default)]
pub(crate) struct HostChannel {
    pub(crate) fuel: AtomicU64,
    pub(crate) peak_memory: AtomicU64,
    pub(crate) host_calls: AtomicU32,
    question: Mutex<Option<Question>>,
    rung: Notify,
}

impl HostChannel {
    fn question(&self) -> MutexGuard<'_, Option<Question>> {
        self.question.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Asks the host. `None` if the host no longer answers.
    pub(crate) async fn ask(&self, op: i32, argument: Value) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        *self.question() = Some(Question { op, argument, reply });
        self.rung.notify_one();
        answer.await.ok()
    }

    /// Takes the question that waits for an answer, if there is one.
    pub(crate) fn take(&self) -> Option<Question> {
        self.question().take()
    }

    /// Waits until a question was asked. It may have been taken already.
    pub(crate) async fn asked(&self) {
        self.rung.notified().await;
    }
}
