#![doc = include_str!("../README.md")]

mod answer;
mod body;
mod embed;
mod endpoint;
mod error;
mod http;
mod messages;
mod pieces;
mod setup;
mod stream;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
pub use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_bedrockruntime::Client;
use aws_sdk_bedrockruntime::config::timeout::TimeoutConfig;
use aws_sdk_bedrockruntime::config::{
    Builder as Config, ConfigBag, IdentityCache, Intercept, ProvideCredentials as _, Region, RuntimeComponents, Token,
};
use aws_sdk_bedrockruntime::operation::RequestId as _;
use aws_sdk_bedrockruntime::primitives::Blob;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::http::HTTP_BEARER_AUTH_SCHEME_ID;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use logline_core::contract::provider::{
    Chunks, Deadlines, EmbedRequest, Embeddings, Endpoint, ErrorKind, ModelAnswer, ModelRequest, Provider, ProviderError,
};
use serde_json::Value;

pub use embed::Embedder;
pub use setup::{BedrockBuilder, Guardrail, SetupError};

use body::Body;
use endpoint::{Login, check_url, region_of};
use error::{error, of_call, of_credentials, too_late};
use value::to_document;

/// The adapter `bedrock`. It is cheap to clone; clones share their connections and credentials.
#[derive(Clone)]
pub struct Bedrock {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    region: Option<String>,
    credentials: Option<SharedCredentialsProvider>,
    /// The configuration of calls with the host's own rights.
    config: Config,
    /// Whether the host has a Bedrock API key of its own.
    has_token: bool,
    guardrail: Option<Guardrail>,
    model_fields: Option<Value>,
    /// Whether conversations are Anthropic's own messages, and not Converse.
    speaks_messages: bool,
    embedders: BTreeMap<String, Embedder>,
}

impl fmt::Debug for Bedrock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bedrock").field("name", &self.shared.name).field("region", &self.shared.region).finish_non_exhaustive()
    }
}

impl Bedrock {
    /// An adapter with region and credentials of AWS's standard chain.
    ///
    /// # Errors
    /// If the machine's certificates cannot be used.
    pub async fn load() -> Result<Self, SetupError> {
        Self::builder().load().await
    }

    /// Sets an adapter up.
    pub fn builder() -> BedrockBuilder {
        BedrockBuilder::default()
    }

    /// The region of calls whose `url` does not name one.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.shared.region.as_deref()
    }

    /// Whether the host has a region and credentials of its own, so that calls without a secret can be made. No model is asked.
    ///
    /// # Errors
    /// What is missing, and where to put it.
    pub async fn ready(&self) -> Result<(), ProviderError> {
        if self.shared.region.is_none() {
            return Err(no_region());
        }
        if self.shared.has_token {
            return Ok(());
        }
        match &self.shared.credentials {
            Some(chain) => chain.provide_credentials().await.map(drop).map_err(|reason| of_credentials(&reason).hiding(&[])),
            None => Err(error(ErrorKind::Denied, "the AWS configuration allows no credentials")),
        }
    }

    /// A client for one call.
    fn client(&self, endpoint: &Endpoint<'_>, login: &Login) -> Result<Client, ProviderError> {
        let invalid = |reason: String| error(ErrorKind::Invalid, reason);
        let connect = TimeoutConfig::builder().connect_timeout(endpoint.deadlines.connect).build();
        let mut config = self.shared.config.clone().timeout_config(connect);
        let url = endpoint.url.map(check_url).transpose().map_err(invalid)?;
        let in_url = url.as_ref().and_then(region_of);
        match login {
            // Whoever publishes a provider span chooses the URL, and must not be able to have the host's rights sent anywhere.
            Login::Own if url.is_some() && in_url.is_none() => {
                let message = "the host's own credentials are only sent to Bedrock: name a `secret` for this `url`, or set the URL with \
                               `Bedrock::builder().endpoint_url(…)`";
                return Err(error(ErrorKind::Denied, message));
            }
            Login::Own => {}
            Login::Token(token) => {
                config = config.bearer_token(Token::new(token.as_str(), None)).identity_cache(IdentityCache::no_cache());
                config.set_auth_scheme_preference(Some([HTTP_BEARER_AUTH_SCHEME_ID].into()));
            }
            Login::Keys(keys) => {
                config = config.credentials_provider(keys.clone()).identity_cache(IdentityCache::no_cache());
                config.set_auth_scheme_preference(Some([setup::SIGNED].into()));
            }
        }
        match (in_url, &self.shared.region) {
            (Some(region), _) => config = config.region(Region::new(region.to_owned())),
            (None, Some(_)) => {}
            (None, None) => return Err(no_region()),
        }
        if let Some(url) = url {
            config = config.endpoint_url(url.as_str());
        }
        Ok(Client::from_conf(config.build()))
    }

    async fn whole(&self, client: &Client, model: &str, request: &ModelRequest) -> Result<ModelAnswer, ProviderError> {
        if self.shared.speaks_messages {
            return self.whole_message(client, model, request).await;
        }
        let asked = Body::of(request)?
            .converse(client.converse().model_id(model))
            .set_guardrail_config(self.shared.guardrail.as_ref().map(Guardrail::whole))
            .set_additional_model_request_fields(self.shared.model_fields.as_ref().map(to_document));
        answer::whole(&asked.send().await.map_err(of_call)?)
    }

    async fn streamed(
        &self,
        client: &Client,
        endpoint: &Endpoint<'_>,
        request: &ModelRequest,
        (chunks, delivered): (&mut dyn Chunks, &mut u32),
    ) -> Result<ModelAnswer, ProviderError> {
        if self.shared.speaks_messages {
            return self.streamed_message(client, endpoint, request, (chunks, delivered)).await;
        }
        let asked = Body::of(request)?
            .converse_stream(client.converse_stream().model_id(endpoint.model))
            .set_guardrail_config(self.shared.guardrail.as_ref().map(Guardrail::streamed))
            .set_additional_model_request_fields(self.shared.model_fields.as_ref().map(to_document));
        let (idle, wait) = (endpoint.deadlines.idle, until_first_byte(endpoint, request));
        let sent = tokio::time::timeout(wait, asked.send()).await;
        let output = sent.map_err(|_| too_late("no answer", wait))?.map_err(of_call)?;
        let id = output.request_id().map(str::to_owned);
        pieces::read::<stream::Reading>(output.stream, id, idle, (chunks, delivered)).await
    }

    async fn whole_message(&self, client: &Client, model: &str, request: &ModelRequest) -> Result<ModelAnswer, ProviderError> {
        let body = messages::body(request, self.shared.model_fields.as_ref())?.to_string();
        let guardrail = self.shared.guardrail.as_ref();
        let asked = client.invoke_model().model_id(model).body(Blob::new(body));
        let asked = asked
            .content_type(JSON)
            .accept(JSON)
            .set_guardrail_identifier(guardrail.map(|guardrail| guardrail.id.clone()))
            .set_guardrail_version(guardrail.map(|guardrail| guardrail.version.clone()));
        let output = asked.send().await.map_err(of_call)?;
        messages::whole(output.body().as_ref(), output.request_id().map(str::to_owned))
    }

    async fn streamed_message(
        &self,
        client: &Client,
        endpoint: &Endpoint<'_>,
        request: &ModelRequest,
        (chunks, delivered): (&mut dyn Chunks, &mut u32),
    ) -> Result<ModelAnswer, ProviderError> {
        let body = messages::body(request, self.shared.model_fields.as_ref())?.to_string();
        let guardrail = self.shared.guardrail.as_ref();
        let asked = client.invoke_model_with_response_stream().model_id(endpoint.model).body(Blob::new(body));
        let asked = asked
            .content_type(JSON)
            .accept(JSON)
            .set_guardrail_identifier(guardrail.map(|guardrail| guardrail.id.clone()))
            .set_guardrail_version(guardrail.map(|guardrail| guardrail.version.clone()));
        let (idle, wait) = (endpoint.deadlines.idle, until_first_byte(endpoint, request));
        let sent = tokio::time::timeout(wait, asked.send()).await;
        let output = sent.map_err(|_| too_late("no answer", wait))?.map_err(of_call)?;
        let id = output.request_id().map(str::to_owned);
        pieces::read::<messages::Reading>(output.body, id, idle, (chunks, delivered)).await
    }

    async fn vectors(&self, client: &Client, model: &str, request: &EmbedRequest) -> Result<Embeddings, ProviderError> {
        let known = self.shared.embedders.get(model).copied().or_else(|| Embedder::of_model(model));
        let embedder = known.ok_or_else(|| {
            let message = format!(
                "the id `{model}` does not say how the model is asked for vectors: tell the adapter with \
                 `Bedrock::builder().embedder(…)`"
            );
            error(ErrorKind::Invalid, message)
        })?;
        let body = embedder.body(request)?.to_string();
        let counted = Counted::default();
        let asked = client.invoke_model().model_id(model).body(Blob::new(body));
        let asked = asked.content_type("application/json").accept("application/json");
        let output = asked.customize().interceptor(counted.clone()).send().await.map_err(of_call)?;
        let id = output.request_id().map(str::to_owned);
        let found = embedder.read(output.body().as_ref(), request.texts.len(), counted.tokens());
        found.map(|found| found.request_id(id.clone())).map_err(|error| error.request_id(id))
    }
}

/// The media type of requests and answers of InvokeModel.
const JSON: &str = "application/json";

/// How long the first byte of a stream is waited for. A schema that Bedrock has not seen is compiled first, which may take minutes.
fn until_first_byte(endpoint: &Endpoint<'_>, request: &ModelRequest) -> Duration {
    let Deadlines { connect, first_byte, total, .. } = endpoint.deadlines;
    let has_schema = request.output_schema.is_some() || request.tools.iter().any(|tool| tool.strict);
    if has_schema { total } else { connect.saturating_add(first_byte) }
}

fn no_region() -> ProviderError {
    let message = "the AWS region is not known: set AWS_REGION, name a region in the profile, or set it with \
                   `Bedrock::builder().region(…)`";
    error(ErrorKind::Denied, message)
}

/// Ends a call that takes longer than its whole time.
async fn within<T>(total: Duration, call: impl Future<Output = Result<T, ProviderError>>) -> Result<T, ProviderError> {
    tokio::time::timeout(total, call).await.unwrap_or_else(|_| Err(too_late("no whole answer", total)))
}

#[async_trait]
impl Provider for Bedrock {
    fn adapter(&self) -> &str {
        &self.shared.name
    }

    async fn invoke(&self, endpoint: &Endpoint<'_>, request: &ModelRequest) -> Result<ModelAnswer, ProviderError> {
        let login = Login::of(endpoint.secret)?;
        let client = self.client(endpoint, &login)?;
        let answered = within(endpoint.deadlines.total, self.whole(&client, endpoint.model, request)).await;
        answered.map_err(|error| error.hiding(&login.secrets()))
    }

    async fn stream(
        &self,
        endpoint: &Endpoint<'_>,
        request: &ModelRequest,
        chunks: &mut dyn Chunks,
    ) -> Result<ModelAnswer, ProviderError> {
        let login = Login::of(endpoint.secret)?;
        let client = self.client(endpoint, &login)?;
        let mut delivered = 0;
        let call = self.streamed(&client, endpoint, request, (chunks, &mut delivered));
        let answered = within(endpoint.deadlines.total, call).await;
        answered.map_err(|error| error.chunks(delivered).hiding(&login.secrets()))
    }

    async fn embed(&self, endpoint: &Endpoint<'_>, request: &EmbedRequest) -> Result<Embeddings, ProviderError> {
        let login = Login::of(endpoint.secret)?;
        let client = self.client(endpoint, &login)?;
        let found = within(endpoint.deadlines.total, self.vectors(&client, endpoint.model, request)).await;
        found.map_err(|error| error.hiding(&login.secrets()))
    }

    fn check(&self, url: Option<&str>, model: &str) -> Result<(), String> {
        if model.trim().is_empty() {
            return Err("a model needs the id of a model or of an inference profile, or its ARN".to_owned());
        }
        url.map_or(Ok(()), |url| check_url(url).map(drop))
    }
}

/// Reads how many tokens the head of an answer counts.
#[derive(Debug, Clone, Default)]
struct Counted(Arc<Mutex<Option<u64>>>);

impl Counted {
    fn tokens(&self) -> Option<u64> {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Intercept for Counted {
    fn name(&self) -> &'static str {
        "CountedTokens"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let counted = context.response().headers().get("x-amzn-bedrock-input-token-count");
        let tokens = counted.and_then(|text| text.trim().parse().ok());
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = tokens;
        Ok(())
    }
}
