//! Evaluations: passed, failed and error are kept apart, the gate fails closed, and every answer is in the ledger.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod site;

use logline_core::Execution;
use logline_core::contract::provider::{Block, ErrorKind, ModelAnswer, ModelRequest, ProviderError, StopReason, Usage};
use logline_core::request::Request;
use logline_kernels::provider::Script;
use logline_prompts::eval::{EvalRun, PROMPT_EVALUATE, Verdict};
use serde_json::{Value, json};
use site::*;
use uuid::Uuid;

/// Answers a fixture with what stands in its question after `say:`; a judge finds that what contains `polite` is polite.
fn answering(request: &ModelRequest) -> Result<ModelAnswer, ProviderError> {
    let asked = request.messages.last().map(|message| message.content.clone()).unwrap_or_default();
    let text = asked.iter().find_map(|block| if let Block::Text { text } = block { Some(text.clone()) } else { None }).unwrap();
    let said = match serde_json::from_str::<Value>(&text) {
        Ok(case) if case.get("criterion").is_some() => {
            if case["answer"].as_str().unwrap().contains("silence") {
                "no verdict".to_owned()
            } else {
                json!({"pass": case["answer"].as_str().unwrap().contains("polite"), "reason": "so it is"}).to_string()
            }
        }
        _ => match text.split_once("say:").map(|(_, said)| said) {
            Some("fail") => return Err(ProviderError::new(ErrorKind::ModelError, "it broke")),
            Some(said) => said.to_owned(),
            None => text,
        },
    };
    Ok(ModelAnswer::new(vec![Block::Text { text: said }], StopReason::EndTurn, Usage::of(10, 5)))
}

fn fixture(id: &str, question: &str, expect: Value) -> Value {
    json!({"id": id, "kind": "happy", "question": question, "vars": vars(), "expect": expect})
}

struct Lab {
    site: Site,
    variants: Vec<Uuid>,
}

impl Lab {
    async fn new(contracts: &[Value]) -> Self {
        let site = Site::answering(answering).await;
        let mut variants = Vec::new();
        for (n, contract) in contracts.iter().enumerate() {
            let run = json!({"provider": site.spans[0], "contract": contract});
            let metadata = json!({"family": "support", "block_ids": [site.spans[1]], "run": run});
            variants.push(site.publish(draft("prompt_variant", &format!("support@v{}", n + 1)).metadata(metadata)).await);
        }
        Self { site, variants }
    }

    async fn suite(&self, fixtures: Vec<Value>, mut metadata: Value) -> Uuid {
        metadata["family"] = json!("support");
        self.site.publish(draft("prompt_eval", "support").content(json!({"fixtures": fixtures})).metadata(metadata)).await
    }

    async fn evaluate(&self, suite: Uuid) -> Execution {
        let request = Request::new(TENANT, USER, suite, json!({"variants": self.variants})).this(PROMPT_EVALUATE);
        self.site.host.execute(request).await.unwrap()
    }

    async fn runs(&self) -> Vec<EvalRun> {
        self.site.all("prompt_eval_run").await.iter().map(|span| EvalRun::read(span).unwrap()).collect()
    }
}

#[test]
fn passed_failed_and_error_are_kept_apart_and_recorded() {
    block_on(async {
        let lab = Lab::new(&[Value::Null]).await;
        let fixtures = vec![
            fixture("good", "say:Paris", json!([{"must_contain": "Paris"}, {"max_cost_nanos": 1_000_000_000}])),
            fixture("bad", "say:Rome", json!([{"must_contain": "Paris"}])),
            fixture("broken", "say:fail", json!([{"must_contain": "Paris"}])),
            json!({"id": "unbuilt", "kind": "conflicting", "question": "q", "expect": [{"must_error": false}]}),
        ];
        let suite = lab.suite(fixtures, json!({})).await;
        let told = lab.evaluate(suite).await.result.unwrap();
        assert_eq!(told["passed"], false);
        let run = lab.runs().await.remove(0);
        assert_eq!(json!(run.counts), json!({"passed": 1, "failed": 1, "errors": 2}));
        let of = |id: &str| run.trials.iter().find(|trial| trial.fixture == id).unwrap();
        assert_eq!(of("good").verdict, Verdict::Passed);
        assert!(of("bad").faults[0].contains("does not contain `Paris`"));
        assert!(of("broken").faults[0].contains("provider:model_error"), "{:?}", of("broken"));
        assert!(of("unbuilt").faults[0].contains("`customer`") && of("unbuilt").answers.is_empty());
        let answers = lab.site.all("provider_execution").await;
        assert!(of("good").answers.iter().all(|id| answers.iter().any(|span| span.id.to_string() == *id)));
        assert!(of("good").cost_nanos.unwrap() > 0);
        assert!(run.gate.reasons[0].contains("2 trials ended in an error"), "{:?}", run.gate);
    });
}

#[test]
fn variants_are_compared_on_the_same_fixtures() {
    block_on(async {
        let lab = Lab::new(&[Value::Null, json!("answer")]).await;
        // The second variant has a contract, which plain texts do not hold to.
        let fixtures: Vec<_> =
            (0..20).map(|n| fixture(&format!("f{n}"), "say:Paris", json!([{"must_contain": "Paris"}]))).collect();
        let suite = lab.suite(fixtures, json!({"gate": {"max_drop": 0.2}})).await;
        lab.evaluate(suite).await.result.unwrap();
        let runs = lab.runs().await;
        assert!(runs[0].gate.passed && runs[0].difference.is_none(), "{:?}", runs[0].gate);
        let second = &runs[1];
        assert_eq!((second.counts.failed, second.difference.unwrap().pairs), (20, 20));
        assert!(second.trials[0].faults[0].contains("contract"), "{:?}", second.trials[0]);
        assert_eq!(second.difference.unwrap().difference.value, -1.0);
        assert!(!second.gate.passed && second.gate.reasons.iter().any(|reason| reason.contains("may be worse")));
        assert_eq!(second.baseline.as_ref(), Some(&runs[0].variant));
    });
}

#[test]
fn a_judge_is_recorded_apart_and_its_silence_is_an_error() {
    block_on(async {
        let lab = Lab::new(&[Value::Null]).await;
        let expect = || json!([{"judge": "it is polite"}]);
        let fixtures = vec![
            fixture("polite", "say:how polite", expect()),
            fixture("rude", "say:go away", expect()),
            fixture("silent", "say:silence", expect()),
            fixture("unasked", "say:rude", json!([{"must_contain": "other"}, {"judge": "it is polite"}])),
        ];
        let example =
            |answer: &str, pass: bool| json!({"question": "q", "answer": answer, "criterion": "it is polite", "pass": pass});
        let judge = json!({"provider": lab.site.spans[0], "examples": [example("polite", true), example("x", true), example("y", false)]});
        let suite = lab.suite(fixtures, json!({"judge": judge, "gate": {"min_agreement": 0.9, "max_errors": 1}})).await;
        lab.evaluate(suite).await.result.unwrap();
        let run = lab.runs().await.remove(0);
        let verdicts: Vec<_> = run.trials.iter().map(|trial| trial.verdict).collect();
        assert_eq!(verdicts, [Verdict::Passed, Verdict::Failed, Verdict::Error, Verdict::Failed]);
        let judge = run.judge.as_ref().unwrap();
        assert_eq!((judge.rulings, judge.agreement.unwrap().agreed, judge.agreement.unwrap().of), (2, 2, 3));
        assert!(judge.cost_nanos > 0 && judge.prompt_hash.len() == 64);
        assert!(run.gate.reasons.iter().any(|reason| reason.contains("2 of 3")), "{:?}", run.gate);
    });
}

#[test]
fn repetitions_show_what_is_flaky() {
    block_on(async {
        let lab = Lab::new(&[Value::Null]).await;
        let fixtures = vec![
            fixture("flaky", "q", json!([{"must_contain": "yes"}])),
            fixture("firm", "say:yes", json!([{"must_contain": "yes"}])),
        ];
        let suite = lab.suite(fixtures, json!({"repeats": 3, "parallel": 1})).await;
        lab.site.provider.then(["yes", "no", "yes"].map(|text| Script::Text(text.to_owned())));
        lab.evaluate(suite).await.result.unwrap();
        let run = lab.runs().await.remove(0);
        assert_eq!((run.flaky, run.trials.len(), run.counts.failed), (vec!["flaky".to_owned()], 6, 1));
    });
}

#[test]
fn a_suite_that_makes_no_sense_is_refused() {
    block_on(async {
        let lab = Lab::new(&[Value::Null]).await;
        let good = || fixture("a", "q", json!([{"must_contain": "x"}]));
        let of = |member: &str, value: Value| {
            let mut fixture = good();
            fixture[member] = value;
            json!({"fixtures": [fixture]})
        };
        let judged = || json!({"fixtures": [fixture("a", "q", json!([{"judge": "x"}]))]});
        let one = || json!({"fixtures": [good()]});
        let cases = [
            (json!({"fixtures": []}), json!({}), "1 to 300"),
            (json!({"fixtures": vec![good(); 301]}), json!({}), "1 to 300"),
            (json!({"fixtures": [good(), good()]}), json!({}), "fixtures[1]: the id `a` stands there twice"),
            (of("id", json!("a b")), json!({}), "id must be"),
            (of("expect", json!([])), json!({}), "every answer would pass"),
            (of("expect", json!([{"must_match": "("}])), json!({}), "no regular expression"),
            (of("expect", json!([{"must_match": "(a{1000}){1000}"}])), json!({}), "no regular expression"),
            (of("expect", json!([{"must_hold": {"type": "blob"}}])), json!({}), "no JSON schema"),
            (of("expect", json!([{"must_sing": "x"}])), json!({}), "must_sing"),
            (of("kind", json!("sad")), json!({}), "sad"),
            (of("question", json!(" ")), json!({}), "question"),
            (of("question", json!("x".repeat(70_000))), json!({}), "65536"),
            (judged(), json!({}), "metadata.judge is missing"),
            (judged(), json!({"judge": {"provider": Uuid::from_u128(5)}}), "no provider"),
            (one(), json!({"gate": {"min_rate": 2}}), "min_rate"),
            (one(), json!({"gate": {"min_agreement": 0.5}}), "no judge"),
            (one(), json!({"repeats": 0}), "repeats"),
            (one(), json!({"parallel": 99}), "parallel"),
        ];
        for (content, mut metadata, said) in cases {
            metadata["family"] = json!("support");
            let draft = draft("prompt_eval", "support").content(content).metadata(metadata);
            let found = lab.site.host.publish(draft, &key(PUBLISHER)).await.map(drop).unwrap_err().to_string();
            assert!(found.contains(said), "{said}: {found}");
        }
        let suite = lab.suite(vec![good()], json!({})).await;
        let asked = async |input: Value| {
            let request = Request::new(TENANT, USER, suite, input).this(PROMPT_EVALUATE);
            lab.site.host.execute(request).await.unwrap().result.unwrap_err().message
        };
        let variant = lab.variants[0];
        for (input, said) in [
            (json!({}), "1 to 8 ids"),
            (json!({"variants": [variant, variant]}), "twice"),
            (json!({"variants": [Uuid::from_u128(5)]}), "no prompt_variant"),
            (json!({"variants": [variant], "repeats": 5}), "no member `repeats`"),
        ] {
            let found = asked(input).await;
            assert!(found.contains(said), "{said}: {found}");
        }
        let other = json!({"family": "other", "block_ids": [lab.site.spans[1]]});
        let other = lab.site.publish(draft("prompt_variant", "other@v1").metadata(other)).await;
        assert!(asked(json!({"variants": [other]})).await.contains("not of the family"));
        assert!(lab.site.provider.calls().is_empty());
    });
}

/// Gates that name no rate, or compare with nothing, do not let everything through.
#[test]
fn a_gate_does_not_open_on_nothing() {
    block_on(async {
        let lab = Lab::new(&[Value::Null]).await;
        let bad = || vec![fixture("bad", "say:Rome", json!([{"must_contain": "Paris"}]))];
        let good = || vec![fixture("good", "say:Paris", json!([{"must_contain": "Paris"}]))];
        let passed = async |fixtures, metadata| {
            let suite = lab.suite(fixtures, metadata).await;
            lab.evaluate(suite).await.result.unwrap()["passed"].clone()
        };
        assert_eq!(passed(bad(), json!({})).await, false);
        assert_eq!(passed(good(), json!({})).await, true);
        assert_eq!(passed(good(), json!({"gate": {"max_drop": 0.5}})).await, false, "it is compared with nothing");
        let suite = lab.suite(good(), json!({"gate": {"max_drop": 0.5, "baseline": Uuid::from_u128(5)}})).await;
        let failure = lab.evaluate(suite).await.result.unwrap_err();
        assert!(failure.message.contains("name it first"), "{failure}");
    });
}

#[test]
fn an_evaluation_that_an_attempt_cannot_finish_is_refused_before_anything_is_paid() {
    block_on(async {
        let lab = Lab::new(&[json!("answer"), json!("answer")]).await;
        let fixtures = (0..300).map(|n| fixture(&format!("f{n}"), "q", json!([{"must_contain": "x"}]))).collect();
        let suite = lab.suite(fixtures, json!({})).await;
        let failure = lab.evaluate(suite).await.result.unwrap_err();
        assert!(failure.message.contains("1200 calls, 1000 is the most"), "{failure}");
        assert!(lab.site.provider.calls().is_empty());
    });
}

/// The bandit begins with what an evaluation says of the very version.
#[test]
fn an_evaluation_counts_for_the_version_that_it_was_made_of() {
    block_on(async {
        let lab = Lab::new(&[Value::Null]).await;
        let fixtures: Vec<_> = (0..8)
            .map(|n| fixture(&format!("f{n}"), "say:x", json!([{"must_contain": if n < 6 { "x" } else { "y" }}])))
            .collect();
        let suite = lab.suite(fixtures, json!({})).await;
        lab.evaluate(suite).await.result.unwrap();
        let family = draft("prompt_family", "support").metadata(json!({"variants": lab.variants, "evals": 4, "suite": suite}));
        let family = lab.site.publish(family).await;
        let request = Request::new(TENANT, USER, family, Value::Null).this(logline_prompts::PROMPT_LEARN);
        // Anybody may evaluate, with a suite of their own.
        let other = vec![fixture("hard", "say:x", json!([{"must_contain": "y"}]))];
        let other = lab.suite(other, json!({})).await;
        lab.evaluate(other).await.result.unwrap();
        let learnt = lab.site.host.execute(request).await.unwrap().result.unwrap();
        assert_eq!(learnt["variants"][0]["evals"], json!({"good": 3, "bad": 1}), "6 of 8, as 4");
    });
}
