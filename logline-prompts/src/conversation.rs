//! The course of a conversation with a model: what it is asked next, given what it has answered. It calls nobody. So a run goes through it
//! with a model, and [`explain`](crate::explain()) once more with the recorded answers.

use logline_core::contract::provider::{Block, Message, ModelAnswer, ModelRequest, OutputSchema, Role, StopReason};
use serde_json::{Value, json};

use crate::contract::{Contract, insufficient};
use crate::tools::Toolbox;
use crate::variant::{Ran, Variant};

/// How often the model is asked: once, and once more if its answer does not hold to the contract.
const TRIES: u32 = 2;

/// How the answer stands to the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// There is no contract.
    Unchecked,
    /// The answer holds to it.
    Kept,
    /// No answer held to it. The output says that there is none.
    Broken,
}

impl Held {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unchecked => "none",
            Self::Kept => "held",
            Self::Broken => "broken",
        }
    }
}

/// What follows from an answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Turn {
    /// The model waits for the results of its tools, in the round with this number.
    Tools(u32),
    /// The model is asked again, because its answer does not hold to the contract.
    Again,
    /// The conversation is over, with this output.
    Over(Value, Held),
    /// The model wants tools, and its rounds are used up.
    UsedUp,
    /// There is no answer: a filter stopped it, the model refused, or it wants a tool that nobody has offered.
    None(&'static str),
}

/// A conversation, and what the model is asked next.
pub(crate) struct Conversation<'a> {
    asking: ModelRequest,
    contract: Option<&'a Contract>,
    tools: &'a Toolbox,
    /// The number of the try, from 1.
    n: u32,
    /// How many results of tools the model has been told in this try.
    steps: u32,
    /// How many in all.
    rounds: u32,
}

/// The messages of a prompt and a question: the examples of the variant stand before the question.
pub(crate) fn messages(variant: &Variant, ran: &Ran, system: &str, question: String) -> ModelRequest {
    let mut asking = ModelRequest::default().system(system);
    for shot in &variant.shots {
        asking.messages.push(Message::user(shot.user.as_str()));
        asking.messages.push(Message::assistant(shot.assistant.as_str()));
    }
    asking.messages.push(Message::user(question));
    asking.max_tokens = ran.max_tokens;
    asking.temperature = ran.temperature;
    if let Some(schema) = ran.schema().filter(|_| ran.native) {
        asking.output_schema = Some(OutputSchema { name: "answer".to_owned(), schema });
    }
    asking
}

impl<'a> Conversation<'a> {
    /// A conversation that begins with `asking`.
    pub(crate) fn new(mut asking: ModelRequest, contract: Option<&'a Contract>, tools: &'a Toolbox) -> Self {
        asking.tools = tools.offered();
        Self { asking, contract, tools, n: 1, steps: 0, rounds: 0 }
    }

    /// What the model is asked next.
    pub(crate) fn asking(&self) -> &ModelRequest {
        &self.asking
    }

    /// The key of the next call, without the conversation's prefix: `answer/1`, and after results of tools `answer/1/1`.
    pub(crate) fn key(&self) -> String {
        match self.steps {
            0 => format!("answer/{}", self.n),
            steps => format!("answer/{}/{steps}", self.n),
        }
    }

    /// Takes an answer.
    pub(crate) fn answered(&mut self, answer: &ModelAnswer) -> Turn {
        if self.tools.is_wanted(answer) {
            if self.rounds == self.tools.rounds {
                return Turn::UsedUp;
            }
            (self.rounds, self.steps) = (self.rounds + 1, self.steps + 1);
            return Turn::Tools(self.rounds);
        }
        match answer.stop {
            StopReason::ContentFiltered => return Turn::None("a filter of the provider stopped the answer"),
            StopReason::Refusal => return Turn::None("the model refused to answer"),
            _ if answer.tool_uses().next().is_some() => return Turn::None("the model wants a tool that it was not offered"),
            _ => {}
        }
        let said = answer.text();
        match self.contract.map(|contract| contract.answer(&said)) {
            None => Turn::Over(json!({"text": said}), Held::Unchecked),
            Some(Ok(output)) => Turn::Over(output, Held::Kept),
            Some(Err(_)) if self.n == TRIES => Turn::Over(insufficient(), Held::Broken),
            Some(Err(faults)) => {
                self.repair(&said, &faults);
                (self.n, self.steps) = (self.n + 1, 0);
                Turn::Again
            }
        }
    }

    /// Tells the model the results of the tools that its answer used. Everything that it said goes back as it was, its reasoning too, and all
    /// results in one message.
    pub(crate) fn told(&mut self, answer: ModelAnswer, results: Vec<Block>) {
        self.asking.messages.push(Message { role: Role::Assistant, content: answer.content });
        self.asking.messages.push(Message { role: Role::User, content: results });
        self.asking = std::mem::take(&mut self.asking).without_blanks();
    }

    /// Tells the model what was wrong with its answer.
    fn repair(&mut self, said: &str, faults: &[String]) {
        let said = if said.trim().is_empty() { "(nothing)" } else { said };
        self.asking.messages.push(Message::assistant(said));
        let faults = faults.join("; ");
        self.asking
            .messages
            .push(Message::user(format!("Your answer does not hold to the schema: {faults}. Answer again, with JSON alone.")));
    }
}
