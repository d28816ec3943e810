//! A provider without a network, whose answers are given beforehand: for tests, examples and simulations.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use logline_core::contract::provider::{
    Block, Chunk, Chunks, EmbedRequest, Embeddings, Endpoint, ErrorKind, ModelAnswer, ModelRequest, Provider, ProviderError,
    StopReason, Usage,
};

type Answering = dyn Fn(&ModelRequest) -> Result<ModelAnswer, ProviderError> + Send + Sync;

/// What a scripted provider does at one call.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Script {
    /// Answers with this text.
    Text(String),
    /// Gives this answer.
    Answer(ModelAnswer),
    /// Fails.
    Fail(ProviderError),
    /// Delivers so many pieces of a text, then fails.
    Breaks(u32, ProviderError),
    /// Waits for so long, then does the next.
    Wait(Duration),
    /// Delivers so many pieces of a text, then says nothing more.
    Stalls(u32),
    /// Never answers.
    Hang,
}

/// A provider that follows a script, and answers by a function when the script has ended.
///
/// The default function repeats the last text of the request, so that the same request always has the same answer.
#[derive(Clone)]
pub struct ScriptedProvider {
    adapter: &'static str,
    script: Arc<Mutex<VecDeque<Script>>>,
    calls: Arc<Mutex<Vec<ModelRequest>>>,
    answering: Arc<Answering>,
}

impl ScriptedProvider {
    /// A provider whose adapter has this name.
    #[must_use]
    pub fn new(adapter: &'static str) -> Self {
        Self { adapter, script: Arc::default(), calls: Arc::default(), answering: Arc::new(|request| Ok(echo(request))) }
    }

    /// Answers by this function when the script has ended.
    #[must_use]
    pub fn answering(
        mut self,
        answer: impl Fn(&ModelRequest) -> Result<ModelAnswer, ProviderError> + Send + Sync + 'static,
    ) -> Self {
        self.answering = Arc::new(answer);
        self
    }

    /// Adds to the script.
    pub fn then(&self, script: impl IntoIterator<Item = Script>) {
        lock(&self.script).extend(script);
    }

    /// The requests of all calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<ModelRequest> {
        lock(&self.calls).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn deliver(chunks: &mut dyn Chunks, pieces: u32) {
    for n in 0..pieces {
        chunks.deliver(Chunk::Text(format!("piece {n} "))).await;
    }
}

/// An answer that is this text. A token has 4 bytes.
fn said(request: &ModelRequest, text: String) -> ModelAnswer {
    let tokens = |bytes: usize| u64::try_from(bytes.div_ceil(4)).unwrap_or(u64::MAX);
    let asked = serde_json::to_string(&request.messages).map_or(0, |text| text.len());
    let usage = Usage::of(tokens(asked), tokens(text.len()));
    ModelAnswer::new(vec![Block::Text { text }], StopReason::EndTurn, usage).model(Some("scripted".to_owned()))
}

fn echo(request: &ModelRequest) -> ModelAnswer {
    let mut blocks = request.messages.iter().flat_map(|message| &message.content).rev();
    let last = blocks.find_map(|block| if let Block::Text { text } = block { Some(text.clone()) } else { None });
    said(request, last.unwrap_or_default())
}

#[async_trait]
impl Provider for ScriptedProvider {
    fn adapter(&self) -> &str {
        self.adapter
    }

    async fn invoke(&self, endpoint: &Endpoint<'_>, request: &ModelRequest) -> Result<ModelAnswer, ProviderError> {
        struct Nobody;
        #[async_trait]
        impl Chunks for Nobody {
            async fn deliver(&mut self, _: Chunk) {}
        }
        self.stream(endpoint, request, &mut Nobody).await
    }

    async fn stream(
        &self,
        endpoint: &Endpoint<'_>,
        request: &ModelRequest,
        chunks: &mut dyn Chunks,
    ) -> Result<ModelAnswer, ProviderError> {
        lock(&self.calls).push(request.clone());
        loop {
            let next = lock(&self.script).pop_front();
            let answer = match next {
                None => (self.answering)(request)?,
                Some(Script::Text(text)) => said(request, text),
                Some(Script::Answer(answer)) => answer,
                Some(Script::Fail(error)) => return Err(error),
                Some(Script::Breaks(pieces, error)) => {
                    deliver(chunks, pieces).await;
                    return Err(error.chunks(pieces));
                }
                Some(Script::Stalls(pieces)) => {
                    deliver(chunks, pieces).await;
                    tokio::time::sleep(endpoint.deadlines.idle).await;
                    return Err(ProviderError::new(ErrorKind::TimedOut, "no further piece in time").chunks(pieces));
                }
                Some(Script::Wait(time)) => {
                    tokio::time::sleep(time).await;
                    continue;
                }
                Some(Script::Hang) => {
                    tokio::time::sleep(endpoint.deadlines.first_byte).await;
                    return Err(ProviderError::new(ErrorKind::TimedOut, "no answer in time"));
                }
            };
            for block in &answer.content {
                match block {
                    Block::Text { text } => {
                        for word in text.split_inclusive(' ') {
                            chunks.deliver(Chunk::Text(word.to_owned())).await;
                        }
                    }
                    Block::ToolUse { id, name, input } => {
                        chunks.deliver(Chunk::ToolUse { id: id.clone(), name: name.clone() }).await;
                        chunks.deliver(Chunk::ToolInput(input.to_string())).await;
                    }
                    _ => {}
                }
            }
            return Ok(answer);
        }
    }

    /// Vectors of 8 numbers that depend on the text alone.
    async fn embed(&self, _: &Endpoint<'_>, request: &EmbedRequest) -> Result<Embeddings, ProviderError> {
        let vector = |text: &String| {
            let hash = blake3::hash(text.as_bytes());
            hash.as_bytes().iter().take(8).map(|byte| f32::from(*byte) / 255.0).collect::<Vec<_>>()
        };
        let tokens = request.texts.iter().map(|text| text.len().div_ceil(4)).sum::<usize>();
        let usage = Usage::of(u64::try_from(tokens).unwrap_or(u64::MAX), 0);
        Ok(Embeddings::new(request.texts.iter().map(vector).collect(), usage))
    }
}
