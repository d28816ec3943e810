//! The circuit breaker around an embedder.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use logline_core::contract::provider::Purpose;
use logline_core::ledger::search::{Vector, VectorModel};
use logline_core::{Clock, Timestamp};

use super::{EmbedError, Embedder};

/// When an embedder is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerOptions {
    /// After so many failed calls one after the other. Default 5.
    pub failures: u32,
    /// For so long. Then one call tries again. Default 30 seconds.
    pub pause: Duration,
    /// How long a call may take before it counts as failed. Default 5 seconds: a search waits for it.
    pub timeout: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: 5, pause: Duration::from_secs(30), timeout: Duration::from_secs(5) }
    }
}

/// Whether the embedder is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakerState {
    /// It is.
    Closed,
    /// It is left alone until this time.
    Open(Timestamp),
    /// One call tries whether it works again.
    HalfOpen,
}

/// An embedder that is left alone while it keeps failing. How it does is known to this process only: it decides about waiting, and
/// nothing that is recorded depends on it.
pub struct Breaker<E> {
    inner: E,
    options: BreakerOptions,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    failures: u32,
    open_until: Option<Timestamp>,
    /// A call that tries whether the embedder works again.
    is_trying: bool,
    opened: u64,
}

impl<E: Embedder> Breaker<E> {
    /// A breaker around `inner`, which follows `clock`.
    pub fn new(inner: E, options: BreakerOptions, clock: Arc<dyn Clock>) -> Self {
        Self { inner, options, clock, state: Mutex::default() }
    }

    /// Whether the embedder is called now.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        let state = *self.lock();
        match state.open_until {
            None => BreakerState::Closed,
            Some(until) if self.clock.now() < until => BreakerState::Open(until),
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// How often the breaker has opened.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.lock().opened
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a call through, or says for how long there will be none.
    fn enter(&self) -> Result<Try<'_, E>, EmbedError> {
        let now = self.clock.now();
        let mut state = self.lock();
        if let Some(until) = state.open_until {
            if now < until || state.is_trying {
                let seconds = until.since(now).as_secs().max(1);
                return Err(EmbedError::Open { model: self.inner.model().name().to_owned(), seconds });
            }
            state.is_trying = true;
            return Ok(Try { breaker: self, is_trial: true });
        }
        Ok(Try { breaker: self, is_trial: false })
    }

    fn record(&self, is_failure: bool) {
        let mut state = self.lock();
        if !is_failure {
            (state.failures, state.open_until) = (0, None);
            return;
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures >= self.options.failures.max(1) {
            if state.open_until.is_none() {
                state.opened += 1;
                tracing::warn!(model = self.inner.model().name(), "the embedder keeps failing and is left alone");
            }
            state.open_until = Some(self.clock.now().saturating_add(self.options.pause));
        }
    }
}

/// A call that was let through. If it is dropped, the next one may try.
struct Try<'b, E: Embedder> {
    breaker: &'b Breaker<E>,
    is_trial: bool,
}

impl<E: Embedder> Drop for Try<'_, E> {
    fn drop(&mut self) {
        if self.is_trial {
            self.breaker.lock().is_trying = false;
        }
    }
}

#[async_trait]
impl<E: Embedder> Embedder for Breaker<E> {
    fn model(&self) -> &VectorModel {
        self.inner.model()
    }

    fn is_local(&self) -> bool {
        self.inner.is_local()
    }

    async fn embed(&self, texts: &[String], purpose: Purpose) -> Result<Vec<Vector>, EmbedError> {
        let entered = self.enter()?;
        let answer = match tokio::time::timeout(self.options.timeout, self.inner.embed(texts, purpose)).await {
            Ok(answer) => answer,
            Err(_) => Err(EmbedError::Provider(logline_core::contract::provider::ProviderError::new(
                logline_core::contract::provider::ErrorKind::TimedOut,
                format!("no vectors within {:?}", self.options.timeout),
            ))),
        };
        let vectors = answer.and_then(|vectors| match vectors.len() {
            found if found == texts.len() => Ok(vectors),
            found => Err(EmbedError::Count { expected: texts.len(), found }),
        });
        self.record(vectors.as_ref().is_err_and(EmbedError::is_providers));
        drop(entered);
        vectors
    }
}
