//! How calls to providers appear in traces and metrics: by the OpenTelemetry conventions for generative AI, version 0.1.0, which are still
//! in development. The names stand here and nowhere else.
//!
//! A span covers a call with all its tries; each try is a child. What was asked and answered is not in them: it is in the ledger.

use std::time::Duration;

use logline_core::Failure;
use logline_core::contract::provider::ErrorKind;
use serde_json::Value;
use tracing::{Span, field};

use super::ask::Ask;
use super::call::Told;

/// What was asked: `chat` or `embeddings`.
pub const OPERATION: &str = "gen_ai.operation.name";
/// Whose model it is.
pub const PROVIDER: &str = "gen_ai.provider.name";
/// The model that was asked, by the provider span's name of it.
pub const REQUEST_MODEL: &str = "gen_ai.request.model";
/// The most tokens of the answer.
pub const MAX_TOKENS: &str = "gen_ai.request.max_tokens";
/// The temperature that was asked for.
pub const TEMPERATURE: &str = "gen_ai.request.temperature";
/// What was asked for: `json`, if there is a schema of the output, else `text`.
pub const OUTPUT_TYPE: &str = "gen_ai.output.type";
/// How many numbers each vector was to have.
pub const DIMENSIONS: &str = "gen_ai.embeddings.dimension.count";
/// Why the model stopped.
pub const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
/// Seconds until the first piece of an answer that was streamed.
pub const FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
/// The model that answered.
pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
/// Tokens of input, those that were read from a cache or written to one included.
pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
/// Tokens of output.
pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
/// Tokens of input that were read from a cache.
pub const CACHE_READ_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
/// Tokens of input that were written to a cache.
pub const CACHE_WRITE_TOKENS: &str = "gen_ai.usage.cache_write.input_tokens";
/// Tokens of output that were reasoning.
pub const REASONING_TOKENS: &str = "gen_ai.usage.reasoning.output_tokens";
/// Why the call failed: the code of the failure.
pub const ERROR: &str = "error.type";
/// Seconds that a call of a model took with all its tries (histogram).
pub const DURATION: &str = "gen_ai.client.inference.duration";
/// Seconds that a call for vectors took with all its tries (histogram).
pub const EMBEDDINGS_DURATION: &str = "gen_ai.client.embeddings.duration";
/// Seconds from the beginning of the last try to the first piece of its answer, if that was streamed (histogram).
pub const FIRST_CHUNK_DURATION: &str = "gen_ai.client.inference.time_to_first_chunk";
/// Tokens of calls that were answered (counter).
pub const TOKENS: &str = "gen_ai.client.inference.usage.tokens";

/// The name of a tool, for the model.
pub const TOOL_NAME: &str = "gen_ai.tool.name";
/// What kind of tool it is: always `function`.
pub const TOOL_TYPE: &str = "gen_ai.tool.type";
/// The model's id of the use of a tool.
pub const TOOL_CALL: &str = "gen_ai.tool.call.id";
/// Seconds from the use of a tool to its result (histogram).
pub const TOOL_DURATION: &str = "gen_ai.execute_tool.duration";

/// The conventions' name of an adapter's provider.
fn provider(adapter: &str) -> &str {
    match adapter {
        "bedrock" | "bedrock-messages" => "aws.bedrock",
        other => other,
    }
}

/// A call that is observed.
pub(super) struct Observed {
    span: Span,
    labels: [(&'static str, String); 3],
    duration: &'static str,
    began: tokio::time::Instant,
}

impl Observed {
    pub(super) fn new(adapter: &str, model: &str, ask: &Ask) -> Self {
        let (operation, duration) = match ask {
            Ask::Invoke(_) => ("chat", DURATION),
            Ask::Embed(_) => ("embeddings", EMBEDDINGS_DURATION),
        };
        let (request, vectors) = match ask {
            Ask::Invoke(request) => (Some(request), None),
            Ask::Embed(vectors) => (None, Some(vectors)),
        };
        let provider = provider(adapter);
        let span = tracing::info_span!(
            "model_call",
            "otel.name" = format!("{operation} {model}"),
            "otel.kind" = "client",
            { OPERATION } = operation,
            { PROVIDER } = provider,
            { REQUEST_MODEL } = model,
            { MAX_TOKENS } = request.and_then(|request| request.max_tokens),
            { TEMPERATURE } = request.and_then(|request| request.temperature),
            { OUTPUT_TYPE } = request.map(|request| if request.output_schema.is_some() { "json" } else { "text" }),
            { DIMENSIONS } = vectors.and_then(|vectors| vectors.dimensions),
            { FINISH_REASONS } = field::Empty,
            { FIRST_CHUNK } = field::Empty,
            { RESPONSE_MODEL } = field::Empty,
            { INPUT_TOKENS } = field::Empty,
            { OUTPUT_TOKENS } = field::Empty,
            { CACHE_READ_TOKENS } = field::Empty,
            { CACHE_WRITE_TOKENS } = field::Empty,
            { REASONING_TOKENS } = field::Empty,
            { ERROR } = field::Empty,
        );
        let labels = [(OPERATION, operation.to_owned()), (PROVIDER, provider.to_owned()), (REQUEST_MODEL, model.to_owned())];
        Self { span, labels, duration, began: tokio::time::Instant::now() }
    }

    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    pub(super) fn ended(self, result: &Result<Told, Failure>) {
        let seconds = self.began.elapsed().as_secs_f64();
        match result {
            Ok(told) => {
                let model = told.answer.get("model").and_then(Value::as_str);
                self.span.record(RESPONSE_MODEL, model);
                let class = |name: &str| told.details.get("usage").and_then(|usage| usage.get(name)).and_then(Value::as_u64);
                self.span.record(FINISH_REASONS, told.answer.get("stop").and_then(Value::as_str));
                for (name, class) in [
                    (CACHE_READ_TOKENS, class("cache_read")),
                    (CACHE_WRITE_TOKENS, class("cache_write")),
                    (REASONING_TOKENS, class("reasoning")),
                ] {
                    self.span.record(name, class);
                }
                if let Some(ms) =
                    told.details.get("time_to_first_chunk_ms").and_then(Value::as_u64).filter(|_| !told.was_recorded)
                {
                    let seconds = Duration::from_millis(ms).as_secs_f64();
                    self.span.record(FIRST_CHUNK, seconds);
                    metrics::histogram!(FIRST_CHUNK_DURATION, &self.labels).record(seconds);
                }
                let input = ["input", "cache_read", "cache_write"].into_iter().filter_map(class).fold(0, u64::saturating_add);
                // Usage that is not known is not zero.
                if class("input").is_some() {
                    self.span.record(INPUT_TOKENS, input);
                    self.count("input", input);
                }
                if let Some(output) = class("output") {
                    self.span.record(OUTPUT_TOKENS, output);
                    self.count("output", output);
                }
                metrics::histogram!(self.duration, &self.labels).record(seconds);
            }
            Err(failure) => {
                // Codes of guests and hosts are no closed list, so only those of providers become a label.
                let code = ErrorKind::from_code(&failure.code).map_or("other", ErrorKind::code);
                self.span.record(ERROR, failure.code.as_str());
                let labels: Vec<_> = self.labels.iter().cloned().chain([(ERROR, code.to_owned())]).collect();
                metrics::histogram!(self.duration, &labels).record(seconds);
            }
        }
    }

    fn count(&self, class: &'static str, tokens: u64) {
        let labels: Vec<_> = self.labels.iter().cloned().chain([("gen_ai.token.type", class.to_owned())]).collect();
        metrics::counter!(TOKENS, &labels).increment(tokens);
    }
}
