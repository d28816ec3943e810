//! Asking a model until its answer holds to the contract, at most twice, and letting it use tools on the way.

use async_trait::async_trait;
use logline_core::contract::provider::{ErrorKind, ModelAnswer, ModelRequest};
use logline_core::contract::{Context, KernelError};
use logline_core::{Failure, VerifiedSpan};
use logline_kernels::provider::{Ask, Asked, FromPrompt, Listener, Permit, Providers, Told};
use logline_kernels::recall::{Recall, Recalled};
use serde_json::{Map, Value, json};

use crate::contract::{Contract, insufficient};
use crate::conversation::{Conversation, Held, Turn};
use crate::results::{CONFIDENCE, INSUFFICIENT, STOP};
use crate::tools::{Round, Toolbox, Used};
use crate::variant::Ran;

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
    /// The prompt from which it is asked; `None`: a judge's.
    pub(crate) prompt: Option<FromPrompt<'a>>,
    /// Whether every use of a tool is told that it is not there.
    pub(crate) are_tools_away: bool,
}

impl Talk<'_> {
    /// Asks, lets the model use its tools, and asks once more if the answer does not hold to the contract. A listener hears the first
    /// answer, with what leads to it.
    pub(crate) async fn ask(
        &self,
        context: &Context<'_>,
        request: &VerifiedSpan,
        asking: ModelRequest,
        mut listener: Option<Listener>,
    ) -> Result<Result<Spoken, Failure>, KernelError> {
        let mut conversation = Conversation::new(asking, self.contract, self.tools);
        let mut spoken = Spoken { held: Held::Broken, ..Spoken::none() };
        loop {
            let key = format!("{}{}", self.prefix, conversation.key());
            let told = match self.call(context, request, conversation.asking(), &key, listener.as_mut()).await? {
                Ok(told) => told,
                Err(failure) => return Ok(Err(failure)),
            };
            let Ok(answer) = ModelAnswer::deserialize_from(&told.answer) else {
                return Ok(Err(Failure::new("provider:bad_answer", "the recorded answer cannot be read")));
            };
            spoken.outcomes.push(told);
            match conversation.answered(&answer) {
                Turn::Tools(number) => {
                    let round = Round { prefix: self.prefix, number, is_away: self.are_tools_away };
                    let results = match self.tools.results(context, round, &answer, &mut spoken.used).await? {
                        Ok(results) => results,
                        Err(failure) => return Ok(Err(failure)),
                    };
                    conversation.told(answer, results);
                }
                Turn::Again => listener = None,
                Turn::Over(output, held) => return Ok(Ok(Spoken { output, held, ..spoken })),
                Turn::None(why) => return Ok(Err(Failure::new(ErrorKind::ContentFiltered.code(), why))),
                Turn::UsedUp => return Ok(Ok(Spoken { is_exhausted: true, ..spoken })),
            }
        }
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
        let asked =
            Asked::new(self.ran.provider, &ask, key).model(self.ran.model.as_deref()).permit(permit).prompt(self.prompt);
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

impl Spoken {
    /// No answer.
    pub(crate) fn none() -> Self {
        Self { output: insufficient(), held: Held::Unchecked, outcomes: Vec::new(), used: Vec::new(), is_exhausted: false }
    }

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
        // Such as `max_tokens`: then the answer is cut.
        if let Some(stop) = last.and_then(|told| told.answer.get("stop")).and_then(Value::as_str) {
            measures.insert(STOP.to_owned(), stop.into());
        }
        measures
    }
}
