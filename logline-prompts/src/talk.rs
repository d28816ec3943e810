//! Asking a model until its answer holds to the contract, at most twice, and letting it use tools on the way.

use async_trait::async_trait;
use logline_core::contract::provider::{Message, ModelAnswer, ModelRequest, OutputSchema, Role};
use logline_core::contract::{Context, KernelError};
use logline_core::{Failure, VerifiedSpan};
use logline_kernels::provider::{Ask, Asked, Listener, Permit, Providers, Told};
use logline_kernels::recall::{Recall, Recalled};
use serde_json::{Map, Value, json};

use crate::contract::{Contract, insufficient};
use crate::load::Loaded;
use crate::results::{CONFIDENCE, INSUFFICIENT};
use crate::tools::{Round, Toolbox, Used};
use crate::variant::Ran;

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

/// An answer, and the calls that led to it.
#[derive(Debug)]
pub(crate) struct Spoken {
    pub(crate) output: Value,
    pub(crate) held: Held,
    pub(crate) outcomes: Vec<Told>,
    /// The tools that the model used, in order.
    pub(crate) used: Vec<Used>,
    /// Whether the model still wanted tools when its rounds were used up.
    pub(crate) is_exhausted: bool,
}

/// What is asked, and of whom.
pub(crate) struct Talk<'a> {
    pub(crate) providers: &'a Providers,
    pub(crate) ran: &'a Ran,
    pub(crate) contract: Option<&'a Contract>,
    /// What stands before `answer/1` in the name of a call.
    pub(crate) prefix: &'a str,
    /// The memories that the model is told; `None` if there are none.
    pub(crate) recalled: Option<(&'a dyn Recall, &'a Recalled)>,
    pub(crate) tools: &'a Toolbox,
    /// Whether every use of a tool is told that it is not there.
    pub(crate) are_tools_away: bool,
}

/// The messages of a prompt and a question: the examples of the variant stand before the question.
pub(crate) fn messages(loaded: &Loaded, ran: &Ran, system: &str, question: String) -> ModelRequest {
    let mut asking = ModelRequest::default().system(system);
    for shot in &loaded.variant.shots {
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

impl Talk<'_> {
    /// Asks, lets the model use its tools, and asks once more if the answer does not hold to the contract. A listener hears the first
    /// answer, with what leads to it.
    pub(crate) async fn ask(
        &self,
        context: &Context<'_>,
        request: &VerifiedSpan,
        mut asking: ModelRequest,
        mut listener: Option<Listener>,
    ) -> Result<Result<Spoken, Failure>, KernelError> {
        asking.tools = self.tools.offered();
        let mut spoken =
            Spoken { output: insufficient(), held: Held::Broken, outcomes: Vec::new(), used: Vec::new(), is_exhausted: false };
        let mut rounds = 0;
        for n in 1..=TRIES {
            let mut steps = 0;
            let answer = loop {
                // Keys of answers to results of tools count on: `answer/1`, `answer/1/1`.
                let step = if steps == 0 { String::new() } else { format!("/{steps}") };
                let key = format!("{}answer/{n}{step}", self.prefix);
                let told = match self.call(context, request, &asking, &key, listener.as_mut()).await? {
                    Ok(told) => told,
                    Err(failure) => return Ok(Err(failure)),
                };
                let Ok(answer) = ModelAnswer::deserialize_from(&told.answer) else {
                    return Ok(Err(Failure::new("provider:bad_answer", "the recorded answer cannot be read")));
                };
                spoken.outcomes.push(told);
                if !self.tools.is_wanted(&answer) {
                    break answer;
                }
                if rounds == self.tools.rounds {
                    spoken.is_exhausted = true;
                    return Ok(Ok(spoken));
                }
                (rounds, steps) = (rounds + 1, steps + 1);
                let round = Round { prefix: self.prefix, number: rounds, is_away: self.are_tools_away };
                let results = self.tools.results(context, round, &answer, &mut spoken.used).await?;
                let content = match results {
                    Ok(content) => content,
                    Err(failure) => return Ok(Err(failure)),
                };
                // Everything that the model said goes back as it was, its reasoning too, and all results in one message.
                asking.messages.push(Message { role: Role::Assistant, content: answer.content });
                asking.messages.push(Message { role: Role::User, content });
                asking = asking.without_blanks();
            };
            listener = None;
            let said = answer.text();
            match self.contract.map(|contract| contract.answer(&said)) {
                None => return Ok(Ok(Spoken { output: json!({"text": said}), held: Held::Unchecked, ..spoken })),
                Some(Ok(output)) => return Ok(Ok(Spoken { output, held: Held::Kept, ..spoken })),
                Some(Err(faults)) => repair(&mut asking, &said, &faults),
            }
        }
        Ok(Ok(spoken))
    }

    async fn call(
        &self,
        context: &Context<'_>,
        request: &VerifiedSpan,
        asking: &ModelRequest,
        key: &str,
        listener: Option<&mut Listener>,
    ) -> Result<Result<Told, Failure>, KernelError> {
        let ask = Ask::Invoke(asking.clone());
        let consent = self.recalled.map(|(recall, recalled)| Consent { recall, recalled, request, context });
        let permit = consent.as_ref().map(|consent| consent as &dyn Permit);
        let asked = Asked::new(self.ran.provider, &ask, key).model(self.ran.model.as_deref()).permit(permit);
        let chunks = listener.map(|listener| listener.chunks());
        self.providers.call(context, request, &asked, chunks).await
    }
}

/// Whether the model may be told what was recalled.
struct Consent<'a> {
    recall: &'a dyn Recall,
    recalled: &'a Recalled,
    request: &'a VerifiedSpan,
    context: &'a Context<'a>,
}

#[async_trait]
impl Permit for Consent<'_> {
    async fn check(&self) -> Result<Result<(), Failure>, KernelError> {
        self.recall.still_permitted(self.request, self.context, self.recalled).await
    }
}

/// Tells the model what was wrong with its answer.
fn repair(asking: &mut ModelRequest, said: &str, faults: &[String]) {
    let said = if said.trim().is_empty() { "(nothing)" } else { said };
    asking.messages.push(Message::assistant(said));
    let faults = faults.join("; ");
    asking
        .messages
        .push(Message::user(format!("Your answer does not hold to the schema: {faults}. Answer again, with JSON alone.")));
}

impl Spoken {
    /// What the answer says of itself: how sure it is, and whether it is none. Readers of results need it also if the answer is encrypted.
    pub(crate) fn says_of_itself(&self) -> Map<String, Value> {
        let mut says = Map::new();
        says.extend(
            self.output.get("confidence").filter(|sure| sure.is_number()).map(|sure| (CONFIDENCE.to_owned(), sure.clone())),
        );
        if self.output.get("error").is_some() {
            says.insert(INSUFFICIENT.to_owned(), true.into());
        }
        says
    }

    /// What the run needed, as far as every call says it: tokens, cost, time, and the model that answered last.
    pub(crate) fn measures(&self) -> Map<String, Value> {
        let mut measures = Map::new();
        let sum = |of: fn(&Told) -> Option<u64>| {
            self.outcomes.iter().map(of).try_fold(0_u64, |sum, number| Some(sum.saturating_add(number?)))
        };
        let input = sum(|told| told.details.get("usage")?.get("input")?.as_u64());
        let output = sum(|told| told.details.get("usage")?.get("output")?.as_u64());
        if let (Some(input), Some(output)) = (input, output) {
            measures.insert("usage".to_owned(), json!({"input": input, "output": output}));
        }
        let last = self.outcomes.last();
        let currency = last.and_then(|told| told.details.get("cost")?.get("currency")).cloned();
        let nanos = sum(|told| told.details.get("cost")?.get("nanos")?.as_u64());
        if let (Some(nanos), Some(currency)) = (nanos, currency) {
            measures.insert("cost".to_owned(), json!({"currency": currency, "nanos": nanos}));
        }
        if let Some(latency) = sum(|told| told.details.get("latency_ms")?.as_u64()) {
            measures.insert("latency_ms".to_owned(), latency.into());
        }
        if let Some(model) = last.and_then(|told| told.answer.get("model")).filter(|model| model.is_string()) {
            measures.insert("model".to_owned(), model.clone());
        }
        measures
    }
}
