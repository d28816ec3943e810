//! Asking a model until its answer holds to the contract, at most twice.

use logline_core::contract::provider::{Message, ModelAnswer, ModelRequest, OutputSchema};
use logline_core::contract::{Context, KernelError};
use logline_core::{Failure, SignedSpan};
use logline_kernels::provider::{Ask, Asked, Listener, Providers, Told};
use serde_json::{Map, Value, json};

use crate::contract::{Contract, insufficient};
use crate::load::Loaded;
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
}

/// What is asked, and of whom.
pub(crate) struct Talk<'a> {
    pub(crate) providers: &'a Providers,
    pub(crate) ran: &'a Ran,
    pub(crate) contract: Option<&'a Contract>,
    /// What stands before `answer/1` in the name of a call.
    pub(crate) prefix: &'a str,
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
    /// Asks, and asks once more if the answer does not hold to the contract. A listener hears the first answer.
    pub(crate) async fn ask(
        &self,
        context: &Context<'_>,
        request: &SignedSpan,
        mut asking: ModelRequest,
        mut listener: Option<Listener>,
    ) -> Result<Result<Spoken, Failure>, KernelError> {
        let mut outcomes = Vec::new();
        for n in 1..=TRIES {
            let ask = Ask::Invoke(asking.clone());
            let key = format!("{}answer/{n}", self.prefix);
            let asked = Asked::new(self.ran.provider, &ask, &key).model(self.ran.model.as_deref());
            let mut heard = listener.take();
            let chunks = heard.as_mut().map(|listener| listener.chunks());
            let told = match self.providers.call(context, request, &asked, chunks).await? {
                Ok(told) => told,
                Err(failure) => return Ok(Err(failure)),
            };
            let Ok(answer) = ModelAnswer::deserialize_from(&told.answer) else {
                return Ok(Err(Failure::new("provider:bad_answer", "the recorded answer cannot be read")));
            };
            outcomes.push(told);
            let said = answer.text();
            match self.contract.map(|contract| contract.answer(&said)) {
                None => return Ok(Ok(Spoken { output: json!({"text": said}), held: Held::Unchecked, outcomes })),
                Some(Ok(output)) => return Ok(Ok(Spoken { output, held: Held::Kept, outcomes })),
                Some(Err(faults)) => repair(&mut asking, &said, &faults),
            }
        }
        Ok(Ok(Spoken { output: insufficient(), held: Held::Broken, outcomes }))
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
