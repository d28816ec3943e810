//! Providers of models: what an adapter implements, and what it is given.
//!
//! An adapter makes one call when it is asked to. It does not retry, does not fall back to another model and keeps no state of its
//! own between calls, because every attempt is recorded: the kernel `provider_exec` does these things, and knows budgets, prices and
//! limits. `conformance::providing` (feature `conformance`) has the trials that every adapter must pass.

mod answer;
mod error;
mod message;
mod secret;

use std::time::Duration;

use async_trait::async_trait;

pub use answer::{Chunk, Chunks, Embeddings, ModelAnswer, StopReason, Usage};
pub use error::{Advice, ErrorKind, ProviderError, hide, retry_after, retry_after_ms};
pub use message::{
    Block, CacheTtl, EmbedRequest, Message, ModelRequest, OutputSchema, Purpose, RequestFault, Role, Tool, ToolChoice,
};
pub use secret::{Secret, SecretError, SecretSource};

/// Calls the models of one kind of provider.
///
/// # Contract
/// - One call of [`Provider::invoke`], [`Provider::stream`] or [`Provider::embed`] makes at most one call to the provider.
/// - It ends within [`Endpoint::deadlines`].
/// - Dropping the future ends the call: the connection is closed, so that the provider can stop.
/// - Usage that the provider does not state is `None`, never 0.
/// - The secret appears in no error and no log.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The name of the adapter, as provider spans have it in `metadata.adapter`.
    fn adapter(&self) -> &str;

    /// Asks a model, and waits for the whole answer.
    ///
    /// # Errors
    /// Why there is no answer.
    async fn invoke(&self, endpoint: &Endpoint<'_>, request: &ModelRequest) -> Result<ModelAnswer, ProviderError>;

    /// Asks a model, gives the pieces of the answer to `chunks` as they come, and returns the whole answer. The default waits for
    /// the answer and gives it as one piece.
    ///
    /// # Errors
    /// Why there is no whole answer. [`ProviderError::chunks`] says how many pieces were delivered.
    async fn stream(
        &self,
        endpoint: &Endpoint<'_>,
        request: &ModelRequest,
        chunks: &mut dyn Chunks,
    ) -> Result<ModelAnswer, ProviderError> {
        let answer = self.invoke(endpoint, request).await?;
        for chunk in Chunk::of(&answer) {
            chunks.deliver(chunk).await;
        }
        Ok(answer)
    }

    /// Turns texts into vectors.
    ///
    /// # Errors
    /// Why there are none. The default has none: [`ErrorKind::Invalid`].
    async fn embed(&self, endpoint: &Endpoint<'_>, request: &EmbedRequest) -> Result<Embeddings, ProviderError> {
        let _ = (endpoint, request);
        Err(ProviderError::new(ErrorKind::Invalid, format!("the adapter `{}` has no embeddings", self.adapter())))
    }

    /// Checks what a provider span says about its endpoint, without calling it.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    fn check(&self, url: Option<&str>, model: &str) -> Result<(), String> {
        let _ = (url, model);
        Ok(())
    }
}

/// Where a call goes, and how long it may take.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Endpoint<'a> {
    /// The base URL; `None`: the adapter's default.
    pub url: Option<&'a str>,
    /// The model, as the provider names it.
    pub model: &'a str,
    /// The credentials; `None`: the call needs none, or the adapter finds its own.
    pub secret: Option<&'a Secret>,
    /// A UUID that is the same whenever the same call is made again.
    pub idempotency_key: &'a str,
    /// How long the parts of the call may take.
    pub deadlines: Deadlines,
}

impl<'a> Endpoint<'a> {
    /// A call to `model` without credentials, with the default URL and deadlines.
    #[must_use]
    pub fn new(model: &'a str, idempotency_key: &'a str) -> Self {
        Self { url: None, model, secret: None, idempotency_key, deadlines: Deadlines::default() }
    }

    /// Sets [`Endpoint::url`].
    #[must_use]
    pub fn url(mut self, url: Option<&'a str>) -> Self {
        self.url = url;
        self
    }

    /// Sets [`Endpoint::secret`].
    #[must_use]
    pub fn secret(mut self, secret: Option<&'a Secret>) -> Self {
        self.secret = secret;
        self
    }

    /// Sets [`Endpoint::deadlines`].
    #[must_use]
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }
}

/// How long the parts of a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Until the connection stands. Default 5 seconds.
    pub connect: Duration,
    /// From the request to the first byte of the answer. Default 60 seconds.
    pub first_byte: Duration,
    /// Between two pieces of the answer. Default 30 seconds.
    pub idle: Duration,
    /// The whole call. Default 5 minutes.
    pub total: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(5), first_byte: seconds(60), idle: seconds(30), total: seconds(300) }
    }
}
