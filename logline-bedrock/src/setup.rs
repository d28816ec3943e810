//! How an adapter is set up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_config::BehaviorVersion;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_bedrockruntime::config::retry::RetryConfig;
use aws_sdk_bedrockruntime::config::{Builder as Config, Region, SharedHttpClient, StalledStreamProtectionConfig};
use aws_sdk_bedrockruntime::types as sdk;
use aws_smithy_runtime_api::client::auth::AuthSchemeId;
use serde_json::Value;

use crate::embed::Embedder;
use crate::endpoint::check_url;
use crate::http::Http;
use crate::{Bedrock, Shared};

/// Signing with keys of AWS.
pub(crate) const SIGNED: AuthSchemeId = AuthSchemeId::new("sigv4");

/// The environment variable with the host's Bedrock API key.
const TOKEN_VARIABLE: &str = "AWS_BEARER_TOKEN_BEDROCK";

/// Why an adapter cannot be set up.
#[derive(Debug)]
#[non_exhaustive]
pub struct SetupError {
    reason: String,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the Bedrock adapter cannot be set up: {}", self.reason)
    }
}

impl std::error::Error for SetupError {}

/// A guardrail of Bedrock that every conversation of an adapter goes through.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guardrail {
    /// Its id or ARN.
    pub id: String,
    /// Its version, such as `1` or `DRAFT`.
    pub version: String,
}

impl Guardrail {
    /// This version of a guardrail.
    pub fn new(id: impl Into<String>, version: impl Into<String>) -> Self {
        Self { id: id.into(), version: version.into() }
    }

    pub(crate) fn whole(&self) -> sdk::GuardrailConfiguration {
        sdk::GuardrailConfiguration::builder().guardrail_identifier(&self.id).guardrail_version(&self.version).build()
    }

    /// The guardrail looks at the pieces before they are delivered: what it stops, nobody has seen.
    pub(crate) fn streamed(&self) -> sdk::GuardrailStreamConfiguration {
        sdk::GuardrailStreamConfiguration::builder()
            .guardrail_identifier(&self.id)
            .guardrail_version(&self.version)
            .stream_processing_mode(sdk::GuardrailStreamProcessingMode::Sync)
            .build()
    }
}

/// Sets an adapter up. What is not said here comes from AWS's standard chain: environment, profile, and the machine's or container's role.
#[derive(Default)]
#[must_use]
pub struct BedrockBuilder {
    name: Option<String>,
    region: Option<String>,
    profile: Option<String>,
    endpoint_url: Option<String>,
    credentials: Option<SharedCredentialsProvider>,
    guardrail: Option<Guardrail>,
    model_fields: Option<Value>,
    embedders: BTreeMap<String, Embedder>,
    messages: bool,
}

impl BedrockBuilder {
    /// Asks Anthropic's models in their own messages, by InvokeModel, instead of by Converse. The adapter's name is then `bedrock-messages`
    /// if no other is set, so that a provider span chooses between the two.
    pub fn messages(mut self) -> Self {
        self.messages = true;
        self
    }

    /// The adapter's name in provider spans. Default: `bedrock`. With names of their own, one host can have several adapters, such as one
    /// with a guardrail.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The region of calls whose `url` does not name one.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// A profile of the AWS configuration files. It may assume a role (`role_arn`, `source_profile`).
    pub fn profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = Some(profile.into());
        self
    }

    /// Where calls go that name no `url`, instead of AWS: a proxy, or a server on this machine.
    pub fn endpoint_url(mut self, url: impl Into<String>) -> Self {
        self.endpoint_url = Some(url.into());
        self
    }

    /// The host's credentials, instead of those that the chain finds.
    pub fn credentials(mut self, credentials: impl ProvideCredentials + 'static) -> Self {
        self.credentials = Some(SharedCredentialsProvider::new(credentials));
        self
    }

    /// A guardrail for all conversations. What it stops has the reason `content_filtered`.
    pub fn guardrail(mut self, guardrail: Guardrail) -> Self {
        self.guardrail = Some(guardrail);
        self
    }

    /// Members of requests that the models know and Converse does not, such as `{"thinking": …}`. They are sent with every conversation.
    pub fn model_fields(mut self, fields: Value) -> Self {
        self.model_fields = Some(fields);
        self
    }

    /// How the model is spoken to if it is asked for vectors. Needed only if its id does not say so, such as that of an inference profile.
    pub fn embedder(mut self, model: impl Into<String>, embedder: Embedder) -> Self {
        self.embedders.insert(model.into(), embedder);
        self
    }

    /// Reads the configuration. On a machine of AWS without a region in its environment, this asks the machine's metadata service.
    ///
    /// # Errors
    /// If what was said here cannot be used. That there are no credentials is not known yet: see [`Bedrock::ready`].
    pub async fn load(self) -> Result<Bedrock, SetupError> {
        let fail = |reason: String| SetupError { reason };
        if let Some(url) = &self.endpoint_url {
            check_url(url).map_err(|reason| fail(reason.replace("`url`", "the endpoint's URL")))?;
        }
        if self.model_fields.as_ref().is_some_and(|fields| !fields.is_object()) {
            return Err(fail("`model_fields` must be an object".to_owned()));
        }
        let http = SharedHttpClient::new(Http::new().map_err(fail)?);
        // A later version of the SDK must not change what this adapter does by itself.
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http);
        if let Some(region) = self.region {
            loader = loader.region(Region::new(region));
        }
        if let Some(profile) = self.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(url) = self.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        let has_own = self.credentials.is_some();
        if let Some(credentials) = self.credentials {
            loader = loader.credentials_provider(credentials);
        }
        let chain = loader.load().await;
        let mut config = Config::from(&chain)
            // Every attempt is recorded, and made by whoever records it.
            .retry_config(RetryConfig::disabled())
            // The contract has deadlines of its own. The SDK would end a slow model's answer.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if has_own {
            config.set_auth_scheme_preference(Some([SIGNED].into()));
        }
        let has_token = !has_own && std::env::var_os(TOKEN_VARIABLE).is_some_and(|token| !token.is_empty());
        let shared = Shared {
            name: self.name.unwrap_or_else(|| if self.messages { "bedrock-messages" } else { "bedrock" }.to_owned()),
            region: chain.region().map(|region| region.as_ref().to_owned()),
            credentials: chain.credentials_provider(),
            config,
            has_token,
            guardrail: self.guardrail,
            model_fields: self.model_fields,
            speaks_messages: self.messages,
            embedders: self.embedders,
        };
        Ok(Bedrock { shared: Arc::new(shared) })
    }
}
