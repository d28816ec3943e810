//! Vectors, by `InvokeModel`: each family of models has a body of its own.

use logline_core::contract::provider::{EmbedRequest, Embeddings, ErrorKind, ProviderError, Purpose, Usage};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{bad, error};

/// How a model that makes vectors is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Embedder {
    /// Amazon's Titan: one text in each request, no purposes.
    Titan,
    /// Cohere's Embed, versions 3 and 4.
    Cohere,
}

impl Embedder {
    /// By the model's id, if it says so. The ids of inference profiles that somebody made do not.
    pub(crate) fn of_model(model: &str) -> Option<Self> {
        match model {
            model if model.contains("amazon.titan-embed-text") => Some(Self::Titan),
            model if model.contains("cohere.embed-") => Some(Self::Cohere),
            _ => None,
        }
    }

    /// The body of a request.
    ///
    /// # Errors
    /// What the family cannot do.
    pub(crate) fn body(self, request: &EmbedRequest) -> Result<Value, ProviderError> {
        let EmbedRequest { texts, purpose, dimensions, .. } = request;
        let mut body = match (self, texts.as_slice()) {
            (Self::Titan, [text]) => json!({"inputText": text}),
            (Self::Titan, texts) => {
                let message = format!("Titan takes one text in a request, not {}: make a request for each", texts.len());
                return Err(error(ErrorKind::Invalid, message));
            }
            (Self::Cohere, texts) => {
                let purpose = match purpose {
                    Purpose::Query => "search_query",
                    Purpose::Document => "search_document",
                };
                json!({"texts": texts, "input_type": purpose, "embedding_types": ["float"]})
            }
        };
        let member = match self {
            Self::Titan => "dimensions",
            Self::Cohere => "output_dimension",
        };
        if let (Some(dimensions), Some(members)) = (dimensions, body.as_object_mut()) {
            members.insert(member.to_owned(), json!(dimensions));
        }
        Ok(body)
    }

    /// Reads the vectors of an answer. `counted` is the number of tokens in the answer's head.
    pub(crate) fn read(self, body: &[u8], texts: usize, counted: Option<u64>) -> Result<Embeddings, ProviderError> {
        let (vectors, tokens) = match self {
            Self::Titan => {
                let Titan { embedding, input_text_token_count } = parse(body)?;
                (vec![embedding], input_text_token_count)
            }
            Self::Cohere => match parse::<Cohere>(body)?.embeddings {
                Vectors::ByType { float } | Vectors::Plain(float) => (float, None),
            },
        };
        let length = vectors.first().map_or(0, Vec::len);
        if vectors.len() != texts || length == 0 || vectors.iter().any(|vector| vector.len() != length) {
            return Err(bad(format!("{} vectors for {texts} texts, or of several lengths", vectors.len())));
        }
        let input = counted.or(tokens);
        let mut usage = Usage::default();
        // Vectors have no output.
        (usage.input, usage.output) = (input, input.map(|_| 0));
        usage.raw = input.map(|tokens| json!({"inputTokens": tokens})).unwrap_or_default();
        Ok(Embeddings::new(vectors, usage))
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ProviderError> {
    serde_json::from_slice(body).map_err(|reason| {
        // Where, without what stands there.
        let what = match reason.classify() {
            serde_json::error::Category::Data => "it has another form",
            serde_json::error::Category::Eof => "it ends too early",
            _ => "it is not JSON",
        };
        bad(format!("{what} (line {}, column {})", reason.line(), reason.column()))
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Titan {
    embedding: Vec<f32>,
    #[serde(default)]
    input_text_token_count: Option<u64>,
}

#[derive(Deserialize)]
struct Cohere {
    embeddings: Vectors,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Vectors {
    ByType { float: Vec<Vec<f32>> },
    Plain(Vec<Vec<f32>>),
}
