//! An embedder that calls a provider of models.

use std::sync::Arc;

use async_trait::async_trait;
use logline_core::contract::provider::{Deadlines, EmbedRequest, Endpoint, Provider, Purpose, Secret};
use logline_core::ledger::search::{Vector, VectorModel};
use logline_core::{Clock as _, IdSource as _, SystemClock, SystemIds};

use super::{EmbedError, Embedder};

/// Makes vectors by a [`Provider`], such as those of `logline-openai` and `logline-bedrock`. Put a [`Breaker`](super::Breaker) around it.
///
/// A call of it is not recorded in the ledger. Use it for texts that may leave the process anyway: memories whose sensitivity is public,
/// and queries of users who have consented.
pub struct ProviderEmbedder {
    provider: Arc<dyn Provider>,
    model: VectorModel,
    /// The model, as the provider names it.
    name: String,
    url: Option<String>,
    secret: Option<Secret>,
    deadlines: Deadlines,
}

impl std::fmt::Debug for ProviderEmbedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderEmbedder").field("model", &self.model).field("url", &self.url).finish_non_exhaustive()
    }
}

impl ProviderEmbedder {
    /// Makes vectors of `model` by a provider that knows it by the same name.
    #[must_use]
    pub fn new(provider: Arc<dyn Provider>, model: VectorModel) -> Self {
        let name = model.name().to_owned();
        let (url, secret, deadlines) = (None, None, Deadlines::default());
        Self { provider, model, name, url, secret, deadlines }
    }

    /// Sets the base URL.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Sets the credentials.
    #[must_use]
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Sets how long the parts of a call may take.
    #[must_use]
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }
}

#[async_trait]
impl Embedder for ProviderEmbedder {
    fn model(&self) -> &VectorModel {
        &self.model
    }

    async fn embed(&self, texts: &[String], purpose: Purpose) -> Result<Vec<Vector>, EmbedError> {
        let mut request = EmbedRequest::new(texts.to_vec(), purpose);
        request.dimensions = u32::try_from(self.model.dimensions()).ok();
        if let Err(fault) = request.check() {
            return Err(EmbedError::Provider(logline_core::contract::provider::ProviderError::new(
                logline_core::contract::provider::ErrorKind::Invalid,
                fault.to_string(),
            )));
        }
        let key = SystemIds.next_id(SystemClock.now()).to_string();
        let endpoint = Endpoint::new(&self.name, &key).url(self.url.as_deref()).secret(self.secret.as_ref());
        let answer = self.provider.embed(&endpoint.deadlines(self.deadlines), &request).await?;
        if answer.vectors.len() != texts.len() {
            return Err(EmbedError::Count { expected: texts.len(), found: answer.vectors.len() });
        }
        Ok(answer.vectors.into_iter().map(|values| Vector::new(&self.model, values)).collect::<Result<_, _>>()?)
    }
}
