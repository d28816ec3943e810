//! Asks the fixtures of a suite, and checks the answers.

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use logline_core::contract::provider::ErrorKind;
use logline_core::contract::{Context, KernelError};
use logline_core::{Failure, VerifiedSpan};
use logline_kernels::provider::{FromPrompt, Providers};
use serde_json::Value;

use super::check::{Answered, Checked, check, text};
use super::fixture::{Expectation, Fixture, FixtureKind};
use super::judge::Bench;
use super::suite::Suite;
use super::tally::{Agreement, JudgeReport, Trial, Verdict};
use crate::build::build;
use crate::contract::Contract;
use crate::conversation::{Held, messages};
use crate::load::Loaded;
use crate::results::STOP;
use crate::talk::{Spoken, Talk};
use crate::tools::Toolbox;

/// The most faults of a trial that are recorded, and the most bytes of each.
const FAULTS: (usize, usize) = (3, 200);

/// A variant that is evaluated.
pub(super) struct Candidate {
    pub(super) loaded: Loaded,
    pub(super) contract: Option<Contract>,
    pub(super) blocks: Value,
    pub(super) tools: Toolbox,
}

/// One evaluation.
pub(super) struct Evaluation<'a> {
    pub(super) providers: &'a Providers,
    pub(super) request: &'a VerifiedSpan,
    pub(super) context: &'a Context<'a>,
    pub(super) suite: &'a Suite,
    pub(super) bench: Option<Bench<'a>>,
}

/// What trials cost beside the answers.
#[derive(Default, Clone, Copy)]
pub(super) struct Rulings {
    pub(super) count: u64,
    pub(super) cost_nanos: u64,
}

impl Evaluation<'_> {
    /// Asks every fixture as often as the suite says, some at the same time.
    pub(super) async fn trials(&self, candidate: &Candidate) -> Result<(Vec<Trial>, Rulings), KernelError> {
        let mut asked: Vec<BoxFuture<'_, Result<(Trial, Rulings), KernelError>>> = Vec::new();
        for fixture in &self.suite.fixtures {
            for repeat in 1..=self.suite.repeats {
                asked.push(Box::pin(self.trial(candidate, fixture, repeat)));
            }
        }
        let mut asked = stream::iter(asked).buffered(self.suite.parallel);
        let (mut trials, mut rulings) = (Vec::new(), Rulings::default());
        while let Some(done) = asked.next().await {
            let (trial, more) = done?;
            trials.push(trial);
            rulings.count += more.count;
            rulings.cost_nanos = rulings.cost_nanos.saturating_add(more.cost_nanos);
        }
        Ok((trials, rulings))
    }

    async fn trial(&self, candidate: &Candidate, fixture: &Fixture, repeat: u32) -> Result<(Trial, Rulings), KernelError> {
        let mut trial = Trial {
            fixture: fixture.id.clone(),
            kind: fixture.kind,
            cluster: fixture.source.clone().unwrap_or_else(|| fixture.id.clone()),
            repeat,
            verdict: Verdict::Error,
            faults: Vec::new(),
            compiled_hash: None,
            answers: Vec::new(),
            latency_ms: None,
            cost_nanos: None,
        };
        let mut rulings = Rulings::default();
        let built = match build(&candidate.loaded.variant, &candidate.loaded.blocks, &fixture.vars) {
            Ok(built) => built,
            Err(error) => {
                trial.faults.push(clipped(&error.to_string()));
                return Ok((trial, rulings));
            }
        };
        trial.compiled_hash = Some(built.compiled_hash.to_string());
        let Some(ran) = &candidate.loaded.variant.run else { return Ok((trial, rulings)) };
        let asking = messages(&candidate.loaded.variant, ran, &built.text, question(fixture));
        // By the version, so that a later attempt does not take the answers of another.
        let version = candidate.loaded.variant_span.seal.curr_hash.to_string();
        let prefix = format!("{}/{}/{repeat}/", version.get(..12).unwrap_or_default(), fixture.id);
        let talk = Talk {
            providers: self.providers,
            ran,
            contract: candidate.contract.as_ref(),
            prefix: &prefix,
            recalled: None,
            tools: &candidate.tools,
            prompt: Some(FromPrompt { compiled_hash: built.compiled_hash, context: &[] }),
            are_tools_away: fixture.kind == FixtureKind::ToolUnavailable,
        };
        let spoken = match talk.ask(self.context, self.request, asking, None).await? {
            Ok(spoken) => spoken,
            // The fixture expects that there is no answer, and a refusal is none.
            Err(failure) if failure.code == ErrorKind::ContentFiltered.code() && expects_none(fixture) => Spoken::none(),
            Err(failure) => {
                trial.faults.push(clipped(&format!("{}: {}", failure.code, failure.message)));
                return Ok((trial, rulings));
            }
        };
        let measures = spoken.measures();
        trial.latency_ms = measures.get("latency_ms").and_then(Value::as_u64);
        trial.cost_nanos = measures.get("cost").and_then(|cost| cost.get("nanos")).and_then(Value::as_u64);
        trial.answers = spoken.outcomes.iter().map(|told| told.outcome.id.to_string()).collect();
        let (mut faults, mut unknown) = (Vec::new(), Vec::new());
        if spoken.held == Held::Broken {
            let used_up = "the model still wanted tools when its rounds were used up";
            let broken = "the answer does not hold to the contract of the variant";
            faults.push(if spoken.is_exhausted { used_up } else { broken }.to_owned());
        }
        if measures.get(STOP).and_then(Value::as_str) == Some("max_tokens") {
            faults.push("the answer is cut: it has as many tokens as it may have".to_owned());
        }
        let answered = Answered {
            output: &spoken.output,
            cost_nanos: trial.cost_nanos,
            latency_ms: trial.latency_ms,
            is_text: spoken.held == Held::Unchecked,
            may_error: expects_none(fixture),
        };
        for (at, expectation) in fixture.expect.iter().enumerate() {
            match (check(expectation, &answered), expectation) {
                (Checked::Holds, _) => {}
                (Checked::Fails(reason), _) => faults.push(reason),
                (Checked::Unknown(reason), _) => unknown.push(reason),
                // What has failed already needs no judge.
                (Checked::ForJudge, Expectation::Judge(criterion)) if faults.is_empty() => {
                    let said = text(&spoken.output);
                    let name = format!("{prefix}judge/{at}/");
                    match self.rule(&name, (&fixture.question, &said, criterion), &mut rulings).await? {
                        Ok((true, _)) => {}
                        Ok((false, reason)) => faults.push(format!("the judge: {reason}")),
                        Err(reason) => unknown.push(reason),
                    }
                }
                (Checked::ForJudge, _) => {}
            }
        }
        trial.verdict = match (faults.is_empty(), unknown.is_empty()) {
            (false, _) => Verdict::Failed,
            (true, false) => Verdict::Error,
            (true, true) => Verdict::Passed,
        };
        trial.faults = faults.iter().chain(&unknown).take(FAULTS.0).map(|fault| clipped(fault)).collect();
        Ok((trial, rulings))
    }

    /// What the judge says; the inner error says why it says nothing.
    async fn rule(
        &self,
        name: &str,
        case: (&str, &str, &str),
        rulings: &mut Rulings,
    ) -> Result<Result<(bool, String), String>, KernelError> {
        let Some(bench) = &self.bench else { return Ok(Err("there is no judge".to_owned())) };
        Ok(match bench.ask(self.context, self.request, name, case).await? {
            Ok(ruling) => {
                rulings.count += 1;
                rulings.cost_nanos = rulings.cost_nanos.saturating_add(ruling.cost_nanos.unwrap_or(0));
                Ok((ruling.pass, ruling.reason))
            }
            Err(failure) => Err(format!("the judge: {}: {}", failure.code, failure.message)),
        })
    }

    /// How often the judge agrees with people.
    pub(super) async fn agreement(&self) -> Result<Result<Option<Agreement>, Failure>, KernelError> {
        let examples = self.suite.judge.as_ref().map(|judge| judge.examples.as_slice()).unwrap_or_default();
        if examples.is_empty() {
            return Ok(Ok(None));
        }
        let mut agreement = Agreement { agreed: 0, of: 0 };
        for (at, example) in examples.iter().enumerate() {
            let case = (example.question.as_str(), example.answer.as_str(), example.criterion.as_str());
            let name = format!("judge/example/{at}/");
            match self.rule(&name, case, &mut Rulings::default()).await? {
                Ok((pass, _)) => {
                    agreement.of += 1;
                    agreement.agreed += u64::from(pass == example.pass);
                }
                Err(reason) => return Ok(Err(Failure::new("judge", reason))),
            }
        }
        Ok(Ok(Some(agreement)))
    }

    pub(super) fn reported(&self, rulings: Rulings, agreement: Option<Agreement>) -> Option<JudgeReport> {
        let (judge, bench) = (self.suite.judge.as_ref()?, self.bench.as_ref()?);
        Some(JudgeReport {
            provider: judge.provider.to_string(),
            model: judge.model.clone(),
            prompt_hash: bench.prompt_hash.to_string(),
            rulings: rulings.count,
            cost_nanos: rulings.cost_nanos,
            agreement,
        })
    }
}

/// The question of a fixture, with its context before it, as a run has them.
fn question(fixture: &Fixture) -> String {
    let mut text = String::new();
    for (at, content) in fixture.context.iter().enumerate() {
        text.push_str(&format!("<context id=\"{}/{at}\">\n{content}\n</context>\n\n", fixture.id));
    }
    text.push_str(&fixture.question);
    text
}

/// Whether a fixture expects that there is no answer.
fn expects_none(fixture: &Fixture) -> bool {
    fixture.expect.contains(&Expectation::MustError(true))
}

/// A fault as it is recorded.
fn clipped(fault: &str) -> String {
    match fault.char_indices().map(|(at, _)| at).find(|at| *at >= FAULTS.1) {
        Some(end) => format!("{}…", fault.get(..end).unwrap_or_default()),
        None => fault.to_owned(),
    }
}
