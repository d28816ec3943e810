//! What is asked of a provider, of whom, and how large it is.

use async_trait::async_trait;
use logline_core::contract::KernelError;
use logline_core::contract::provider::{Block, EmbedRequest, ErrorKind, ModelRequest};
use logline_core::{Failure, Hash};
use serde_json::Value;
use uuid::Uuid;

use super::spec::ModelSpec;

/// What a call asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// An answer of a model.
    Invoke(ModelRequest),
    /// Vectors.
    Embed(EmbedRequest),
}

impl Ask {
    /// The operation, as calls are recorded.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Invoke(_) => "invoke",
            Self::Embed(_) => "embed",
        }
    }

    /// Reads the body of an operation, and checks it.
    ///
    /// # Errors
    /// A failure with the place of the fault.
    pub fn read(operation: &str, body: Value) -> Result<Self, Failure> {
        let invalid = |reason: String| Failure::new(ErrorKind::Invalid.code(), reason);
        let malformed = |error: serde_json::Error| invalid(format!("the request is malformed: {error}"));
        match operation {
            "invoke" => {
                let request: ModelRequest = serde_json::from_value(body).map_err(malformed)?;
                let request = request.without_blanks();
                request.check().map_err(|fault| invalid(fault.to_string()))?;
                Ok(Self::Invoke(request))
            }
            "embed" => {
                let request: EmbedRequest = serde_json::from_value(body).map_err(malformed)?;
                request.check().map_err(|fault| invalid(fault.to_string()))?;
                Ok(Self::Embed(request))
            }
            other => Err(invalid(format!("there is no operation `{}`: it is `invoke` or `embed`", other.escape_debug()))),
        }
    }

    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Invoke(request) => serde_json::to_value(request),
            Self::Embed(request) => serde_json::to_value(request),
        }
        .unwrap_or_default()
    }

    /// The most tokens of the answer, for a model with this limit.
    pub(super) fn output(&self, model: &ModelSpec) -> Result<u64, Failure> {
        match self {
            Self::Embed(_) => Ok(0),
            Self::Invoke(request) => match request.max_tokens {
                Some(wanted) if wanted > model.max_tokens => Err(Failure::new(
                    ErrorKind::Invalid.code(),
                    format!("max_tokens is {wanted}: this model answers with {} at most", model.max_tokens),
                )),
                wanted => Ok(wanted.unwrap_or(model.max_tokens).into()),
            },
        }
    }

    /// A request with `max_tokens`, so that no answer is longer than what was reserved for it.
    pub(super) fn bounded(&self, model: &ModelSpec) -> Self {
        match self {
            Self::Invoke(request) if request.max_tokens.is_none() => Self::Invoke(request.clone().max_tokens(model.max_tokens)),
            same => same.clone(),
        }
    }
}

/// Says, right before each try of a call, whether it may be made.
#[async_trait]
pub trait Permit: Send + Sync {
    /// Why the try is not made; the outer error means that the attempt could not go on.
    async fn check(&self) -> Result<Result<(), Failure>, KernelError>;
}

/// A call to a provider.
#[derive(Clone)]
#[non_exhaustive]
pub struct Asked<'a> {
    /// The provider span.
    pub provider: Uuid,
    /// The model; `None`: the provider's default model.
    pub model: Option<&'a str>,
    /// What is asked.
    pub ask: &'a Ask,
    /// The caller's name for the call, the same in every attempt. 1 to 128 bytes.
    pub key: &'a str,
    /// What is asked before each try; `None`: nothing.
    pub permit: Option<&'a dyn Permit>,
    /// The prompt from which the request was made, if it was made from one.
    pub prompt: Option<FromPrompt<'a>>,
}

/// The prompt from which a request was made. The intent names it, so that it is known also of a call that never ends.
#[derive(Debug, Clone, Copy)]
pub struct FromPrompt<'a> {
    /// The hash of the compiled prompt.
    pub compiled_hash: Hash,
    /// References of the spans that the model is told, as `prompt_run` has them in `metadata.context`.
    pub context: &'a [Value],
}

impl std::fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { provider, model, key, .. } = self;
        f.debug_struct("Asked").field("provider", provider).field("model", model).field("key", key).finish_non_exhaustive()
    }
}

impl<'a> Asked<'a> {
    /// Asks the default model of `provider`.
    #[must_use]
    pub fn new(provider: Uuid, ask: &'a Ask, key: &'a str) -> Self {
        Self { provider, model: None, ask, key, permit: None, prompt: None }
    }

    /// Sets [`Asked::permit`].
    #[must_use]
    pub fn permit(mut self, permit: Option<&'a dyn Permit>) -> Self {
        self.permit = permit;
        self
    }

    /// Sets [`Asked::prompt`].
    #[must_use]
    pub fn prompt(mut self, prompt: Option<FromPrompt<'a>>) -> Self {
        self.prompt = prompt;
        self
    }

    /// Sets [`Asked::model`].
    #[must_use]
    pub fn model(mut self, model: Option<&'a str>) -> Self {
        self.model = model;
        self
    }
}

/// Tokens for a picture, whatever its size: the most that the large providers count.
const PICTURE_TOKENS: u64 = 4_000;

/// An estimate of the tokens of a request, on the high side: a token has about 4 bytes of ASCII, and 3 are assumed; of other characters,
/// each byte may be a token.
pub(super) fn input_tokens(ask: &Ask, bytes: (usize, usize)) -> u64 {
    let mut pictures = 0_u64;
    let mut picture_bytes = 0_usize;
    if let Ask::Invoke(request) = ask {
        let mut blocks: Vec<&Block> = request.messages.iter().flat_map(|message| &message.content).collect();
        while let Some(block) = blocks.pop() {
            match block {
                Block::Image { data, .. } => {
                    pictures = pictures.saturating_add(1);
                    picture_bytes = picture_bytes.saturating_add(data.len());
                }
                Block::ToolResult { content, .. } => blocks.extend(content),
                _ => {}
            }
        }
    }
    let (ascii, other) = bytes;
    let number = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    let text = number(ascii.saturating_sub(picture_bytes)).div_ceil(3).saturating_add(number(other));
    text.saturating_add(pictures.saturating_mul(PICTURE_TOKENS))
}
