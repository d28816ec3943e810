//! The contract of [`Provider`] as tests. Every adapter runs them: those of this project and those of others.
//!
//! An adapter's tests implement [`Stage`]: a provider on this machine that plays a [`Scene`] at each call. [`provider_suite!`] then
//! makes a `#[test]` from every trial.
//!
//! [`provider_suite!`]: crate::provider_suite

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Expect as _, fail, hold, same};
use crate::contract::provider::{
    Advice, Block, Chunk, Chunks, Deadlines, Endpoint, ErrorKind, Message, ModelAnswer, ModelRequest, Provider, ProviderError,
    Role, Secret, StopReason, Tool, Usage,
};

/// What the provider does at the next call.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Scene {
    /// Says this text, in several pieces if it is streamed, and states this usage. `None`: it states none.
    Says(String, Option<Usage>),
    /// Reaches the limit of tokens after this text.
    IsCut(String),
    /// Uses a tool: id, name and input.
    UsesTool(String, String, Value),
    /// Refuses or fails in this way, with a pause that it asks for.
    Fails(ErrorKind, Option<Duration>),
    /// Streams this text, then the connection breaks.
    Breaks(String),
    /// Takes the request and never answers.
    Hangs,
    /// Begins to answer and then says nothing more.
    Stalls(String),
}

/// A provider on this machine that does what it is told.
#[async_trait]
pub trait Stage: Send + Sync {
    /// The adapter.
    fn provider(&self) -> &dyn Provider;

    /// Where the adapter finds the provider.
    fn url(&self) -> Option<String>;

    /// Tells what to do at the next call. Calls that nobody has told what to do hang.
    async fn next(&self, scene: Scene);

    /// How many calls it has seen.
    async fn calls(&self) -> usize;

    /// The kinds of errors that this provider can give. Default: all that do not depend on the network.
    fn fails_with(&self) -> Vec<ErrorKind> {
        vec![
            ErrorKind::Throttled,
            ErrorKind::NotReady,
            ErrorKind::Quota,
            ErrorKind::Invalid,
            ErrorKind::Denied,
            ErrorKind::ContentFiltered,
            ErrorKind::ModelError,
        ]
    }
}

/// Makes a `#[test]` from every trial of an adapter. `open` returns a guard and a [`Stage`]; `block_on` runs a future to its end, on a
/// Tokio runtime if the adapter needs one.
#[macro_export]
macro_rules! provider_suite {
    ($open:path, $block_on:path) => {
        $crate::conformance_suite! { @tests $open, $block_on,
            providing::an_answer_has_text_usage_and_a_reason,
            providing::a_streamed_answer_is_the_same_answer,
            providing::usage_that_is_not_stated_is_not_known,
            providing::an_answer_that_is_cut_says_so,
            providing::a_tool_use_is_an_answer,
            providing::the_results_of_tools_are_given_back,
            providing::each_error_has_its_kind,
            providing::a_pause_that_is_asked_for_is_told,
            providing::a_call_is_made_once,
            providing::a_broken_stream_tells_what_was_delivered,
            providing::a_provider_that_never_answers_is_given_up,
            providing::a_provider_that_falls_silent_is_given_up,
            providing::no_error_contains_the_secret,
        }
    };
}

const SECRET: &str = "secret-9f3c5e7a1b";

/// Short for a provider that is silent, and longer than any machine needs for one that answers.
fn deadlines(scene: Option<&Scene>) -> Deadlines {
    let ms = Duration::from_millis;
    match scene {
        Some(Scene::Hangs | Scene::Stalls(_)) => {
            Deadlines { connect: ms(2000), first_byte: ms(2000), idle: ms(1000), total: ms(30_000) }
        }
        _ => Deadlines { connect: ms(30_000), first_byte: ms(30_000), idle: ms(30_000), total: ms(60_000) },
    }
}

#[derive(Default)]
struct Heard(Vec<Chunk>);

#[async_trait]
impl Chunks for Heard {
    async fn deliver(&mut self, chunk: Chunk) {
        self.0.push(chunk);
    }
}

impl Heard {
    fn text(&self) -> String {
        self.0.iter().filter_map(|chunk| if let Chunk::Text(text) = chunk { Some(text.as_str()) } else { None }).collect()
    }
}

/// How a call is made.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Whole,
    Streamed,
}

const BOTH: [How; 2] = [How::Whole, How::Streamed];

async fn asked<S: Stage>(stage: &S, request: &ModelRequest, how: How) -> (Result<ModelAnswer, ProviderError>, Heard) {
    asked_within(stage, request, how, deadlines(None)).await
}

async fn asked_within<S: Stage>(
    stage: &S,
    request: &ModelRequest,
    how: How,
    deadlines: Deadlines,
) -> (Result<ModelAnswer, ProviderError>, Heard) {
    let (url, secret, mut heard) = (stage.url(), Secret::new(SECRET.to_owned()), Heard::default());
    let endpoint = Endpoint::new("trial-model", "0e4c1d0a-0000-4000-8000-000000000001");
    let endpoint = endpoint.url(url.as_deref()).secret(Some(&secret)).deadlines(deadlines);
    let result = match how {
        How::Whole => stage.provider().invoke(&endpoint, request).await,
        How::Streamed => stage.provider().stream(&endpoint, request, &mut heard).await,
    };
    (result, heard)
}

fn question() -> ModelRequest {
    ModelRequest::ask("The capital of France?").system("Answer in one sentence.").max_tokens(50)
}

async fn answer<S: Stage>(stage: &S, scene: Scene, how: How) -> (ModelAnswer, Heard) {
    stage.next(scene).await;
    let (result, heard) = asked(stage, &question(), how).await;
    (result.or_fail("an answer"), heard)
}

async fn error<S: Stage>(stage: &S, scene: Scene, how: How) -> ProviderError {
    stage.next(scene.clone()).await;
    match asked_within(stage, &question(), how, deadlines(Some(&scene))).await.0 {
        Ok(answer) => fail(format_args!("{scene:?} must fail, and gave {answer:?}")),
        Err(error) => error,
    }
}

const TEXT: &str = "Paris is the capital: 🗼, naïvely said.";

fn says() -> Scene {
    Scene::Says(TEXT.to_owned(), Some(Usage::of(12, 7)))
}

/// A plain answer has its text, its usage by class, and says that the turn has ended.
pub async fn an_answer_has_text_usage_and_a_reason<S: Stage>(stage: &S) {
    let (answer, _) = answer(stage, says(), How::Whole).await;
    same(&answer.text(), &TEXT.to_owned(), "the text");
    same(&(answer.usage.input, answer.usage.output), &(Some(12), Some(7)), "the usage");
    same(&answer.stop, &StopReason::EndTurn, "the reason");
}

/// The pieces of a streamed answer add up to the answer, and the answer is the one that is given whole.
pub async fn a_streamed_answer_is_the_same_answer<S: Stage>(stage: &S) {
    let (whole, _) = answer(stage, says(), How::Whole).await;
    let (streamed, heard) = answer(stage, says(), How::Streamed).await;
    same(&streamed.content, &whole.content, "the content");
    same(&(streamed.usage.total(), &streamed.stop), &(whole.usage.total(), &whole.stop), "usage and reason");
    same(&heard.text(), &TEXT.to_owned(), "the pieces");
    hold(heard.0.len() > 1, "it must come in pieces");
}

/// Usage that a provider does not state is not 0.
pub async fn usage_that_is_not_stated_is_not_known<S: Stage>(stage: &S) {
    for how in BOTH {
        let (answer, _) = answer(stage, Scene::Says(TEXT.to_owned(), None), how).await;
        same(&(answer.usage.input, answer.usage.output, answer.usage.total()), &(None, None, None), "the usage");
    }
}

/// An answer that reached the limit of tokens says so.
pub async fn an_answer_that_is_cut_says_so<S: Stage>(stage: &S) {
    for how in BOTH {
        let (answer, _) = answer(stage, Scene::IsCut("Paris is".to_owned()), how).await;
        same(&(answer.text().as_str(), &answer.stop), &("Paris is", &StopReason::MaxTokens), "a cut answer");
    }
}

fn uses_tool() -> Scene {
    Scene::UsesTool("call-1".to_owned(), "weather".to_owned(), json!({"city": "Paris", "days": [1, 2]}))
}

/// A tool use has its id, its name and its input as JSON.
pub async fn a_tool_use_is_an_answer<S: Stage>(stage: &S) {
    for how in BOTH {
        let (answer, heard) = answer(stage, uses_tool(), how).await;
        let uses: Vec<_> = answer.tool_uses().collect();
        same(&uses, &vec![("call-1", "weather", &json!({"city": "Paris", "days": [1, 2]}))], "the tool uses");
        same(&answer.stop, &StopReason::ToolUse, "the reason");
        if how == How::Streamed {
            let begins = heard.0.iter().any(|chunk| matches!(chunk, Chunk::ToolUse { name, .. } if name == "weather"));
            hold(begins, "the use must be told when it begins");
        }
    }
}

/// An answer with tool uses can be given back with the results of the tools, as the next messages of the conversation.
pub async fn the_results_of_tools_are_given_back<S: Stage>(stage: &S) {
    let (used, _) = answer(stage, uses_tool(), How::Whole).await;
    let mut request = question();
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tool = Tool { name: "weather".to_owned(), description: "The weather.".to_owned(), input_schema: schema, strict: false };
    request.tools = vec![tool];
    request.messages.push(Message { role: Role::Assistant, content: used.content });
    let result = Block::ToolResult { id: "call-1".to_owned(), content: vec![Block::text("sunny")], is_error: false };
    request.messages.push(Message { role: Role::User, content: vec![result, Block::text("Well?")] });
    request.check().or_fail("the conversation is valid");
    stage.next(says()).await;
    same(&asked(stage, &request, How::Whole).await.0.or_fail("an answer").text(), &TEXT.to_owned(), "the answer");
}

/// Each way to fail has its kind, whole and streamed.
pub async fn each_error_has_its_kind<S: Stage>(stage: &S) {
    for kind in stage.fails_with() {
        for how in BOTH {
            let error = error(stage, Scene::Fails(kind, None), how).await;
            same(&error.kind, &kind, "the kind of error");
            same(&error.chunks, &0, "nothing was delivered");
            hold(!error.message.is_empty(), "an error says what happened");
        }
    }
}

/// A provider that asks for a pause is understood.
pub async fn a_pause_that_is_asked_for_is_told<S: Stage>(stage: &S) {
    let pause = Duration::from_secs(7);
    let error = error(stage, Scene::Fails(ErrorKind::Throttled, Some(pause)), How::Whole).await;
    same(&error.retry_after, &Some(pause), "the pause");
    same(&error.kind.advice(), &Advice::Retry, "the advice");
}

/// Neither an answer nor an error makes a second call: each try is recorded, and the adapter does not record.
pub async fn a_call_is_made_once<S: Stage>(stage: &S) {
    let mut expected = 0;
    for how in BOTH {
        answer(stage, says(), how).await;
        for kind in stage.fails_with() {
            error(stage, Scene::Fails(kind, None), how).await;
        }
        expected += 1 + stage.fails_with().len();
        same(&stage.calls().await, &expected, "calls");
    }
}

/// If an answer breaks off, the error says how many pieces were delivered.
pub async fn a_broken_stream_tells_what_was_delivered<S: Stage>(stage: &S) {
    stage.next(Scene::Breaks("Paris is the".to_owned())).await;
    let (result, heard) = asked(stage, &question(), How::Streamed).await;
    let error = result.err().or_fail("a broken answer is an error");
    same(&error.kind, &ErrorKind::StreamBroken, "the kind of error");
    same(&usize::try_from(error.chunks).unwrap_or(0), &heard.0.len(), "the pieces");
    hold(error.chunks > 0, "at least one piece was delivered");
}

/// A provider that takes the request and never answers does not hold the call longer than the deadlines.
pub async fn a_provider_that_never_answers_is_given_up<S: Stage>(stage: &S) {
    same(&error(stage, Scene::Hangs, How::Streamed).await.kind, &ErrorKind::TimedOut, "the kind of error");
}

/// A provider that begins to answer and falls silent does not hold the call either.
pub async fn a_provider_that_falls_silent_is_given_up<S: Stage>(stage: &S) {
    let error = error(stage, Scene::Stalls("Paris".to_owned()), How::Streamed).await;
    same(&error.kind, &ErrorKind::TimedOut, "the kind of error");
    hold(error.chunks > 0, "at least one piece was delivered");
}

/// Whatever a provider says when it refuses the secret, the error does not repeat the secret.
pub async fn no_error_contains_the_secret<S: Stage>(stage: &S) {
    for kind in stage.fails_with() {
        let error = error(stage, Scene::Fails(kind, None), How::Whole).await;
        hold(!format!("{error} {error:?}").contains(SECRET), "no error may contain the secret");
    }
}

/// The secret that the trials use. A stage repeats it in every error, as careless providers do.
pub const TRIAL_SECRET: &str = SECRET;
