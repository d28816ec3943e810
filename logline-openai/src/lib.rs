#![doc = include_str!("../README.md")]

mod answer;
mod body;
mod error;
mod http;
mod stream;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use logline_core::contract::provider::{
    Chunks, EmbedRequest, Embeddings, Endpoint, ErrorKind, ModelAnswer, ModelRequest, Provider, ProviderError, Secret,
};

pub use body::MaxTokens;
pub use http::SetupError;

/// The adapter `openai`. It is cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct OpenAi {
    http: Arc<http::Http>,
    max_tokens: MaxTokens,
}

impl OpenAi {
    /// An adapter that trusts the machine's certificate authorities.
    ///
    /// # Errors
    /// If the machine's certificates cannot be read.
    pub fn new() -> Result<Self, SetupError> {
        Ok(Self { http: Arc::new(http::Http::new()?), max_tokens: MaxTokens::default() })
    }

    /// Sets the member of a request in which the limit of tokens stands. Default: [`MaxTokens::Completion`].
    #[must_use]
    pub fn max_tokens(mut self, member: MaxTokens) -> Self {
        self.max_tokens = member;
        self
    }
}

#[async_trait]
impl Provider for OpenAi {
    fn adapter(&self) -> &str {
        "openai"
    }

    async fn invoke(&self, endpoint: &Endpoint<'_>, request: &ModelRequest) -> Result<ModelAnswer, ProviderError> {
        let body = body::chat(endpoint.model, request, self.max_tokens, false);
        let deadlines = endpoint.deadlines;
        http::within(deadlines.total, async {
            // The headers come with the answer, so only the deadline of the whole call applies.
            let answered = self.http.post(endpoint, "chat/completions", &body, deadlines.total).await?;
            let request_id = answered.request_id.clone();
            let text = answered.text(deadlines.total).await?;
            answer::chat(&text, request_id)
        })
        .await
        .map_err(|error| error.hiding(endpoint.secret.map(Secret::reveal).as_slice()))
    }

    async fn stream(
        &self,
        endpoint: &Endpoint<'_>,
        request: &ModelRequest,
        chunks: &mut dyn Chunks,
    ) -> Result<ModelAnswer, ProviderError> {
        let body = body::chat(endpoint.model, request, self.max_tokens, true);
        let deadlines = endpoint.deadlines;
        let mut delivered = 0;
        let streamed = http::within(deadlines.total, async {
            let wait = deadlines.connect.saturating_add(deadlines.first_byte);
            let answered = self.http.post(endpoint, "chat/completions", &body, wait).await?;
            let mut reading = stream::Reading::new(answered.request_id.clone());
            let mut events = std::pin::pin!(answered.streamed()?.events(deadlines.idle));
            while let Some(event) = events.next().await {
                for chunk in reading.take(&event?)? {
                    chunks.deliver(chunk).await;
                    delivered += 1;
                }
                if reading.is_done() {
                    break;
                }
            }
            reading.finish()
        })
        .await;
        streamed.map_err(|error| error.chunks(delivered).hiding(endpoint.secret.map(Secret::reveal).as_slice()))
    }

    async fn embed(&self, endpoint: &Endpoint<'_>, request: &EmbedRequest) -> Result<Embeddings, ProviderError> {
        let body = body::embeddings(endpoint.model, request);
        let deadlines = endpoint.deadlines;
        http::within(deadlines.total, async {
            let answered = self.http.post(endpoint, "embeddings", &body, deadlines.total).await?;
            let request_id = answered.request_id.clone();
            let text = answered.text(deadlines.total).await?;
            answer::embeddings(&text, request.texts.len(), request_id)
        })
        .await
        .map_err(|error| error.hiding(endpoint.secret.map(Secret::reveal).as_slice()))
    }

    fn check(&self, url: Option<&str>, _: &str) -> Result<(), String> {
        let url = url.ok_or("`url` is missing: the adapter `openai` needs it, such as https://api.openai.com/v1")?;
        http::check_url(url).map(drop)
    }
}

/// An error without details of the provider.
fn error(kind: ErrorKind, message: impl Into<String>) -> ProviderError {
    ProviderError::new(kind, message)
}
