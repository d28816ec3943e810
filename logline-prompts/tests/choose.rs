//! Families: which variant is chosen, how that is learnt, and that anybody can make the choice again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod site;

use std::collections::BTreeMap;
use std::time::Duration;

use logline_core::contract::Reader;
use logline_core::contract::provider::{ErrorKind, ProviderError};
use logline_core::ledger::{AppendOptions, Ledger as _, LedgerExt as _};
use logline_core::request::{Request, reference};
use logline_core::{Draft, Execution, MemoryLedger, Scope, Span, Verifier, Visibility};
use logline_kernels::provider::Script;
use logline_prompts::{PROMPT_LEARN, PROMPT_RUN, PROMPT_SELECT, VerifySelectionError, verify_selection};
use serde_json::{Value, json};
use site::*;
use uuid::Uuid;

/// Two variants of a family.
struct Two {
    site: Site,
    variants: [Uuid; 2],
    family: Uuid,
}

impl Two {
    async fn new(family: Value) -> Self {
        let site = Site::new().await;
        let variants = [site.named("support@v1").await, site.named("support@v2").await];
        let mut metadata = json!({"variants": variants, "batch": 1, "min_samples": 2});
        metadata.as_object_mut().unwrap().extend(family.as_object().unwrap().clone());
        let family = site.publish(draft("prompt_family", "support").metadata(metadata)).await;
        Self { site, variants, family }
    }

    async fn request(&self, this: &str, input: Value) -> Execution {
        self.site.clock.advance(Duration::from_millis(1));
        self.site.host.execute(Request::new(TENANT, USER, self.family, input).this(this)).await.unwrap()
    }

    async fn choose(&self, session: Option<&str>) -> Value {
        self.request(PROMPT_SELECT, json!({"session": session})).await.result.unwrap()
    }

    async fn learn(&self) -> Value {
        self.request(PROMPT_LEARN, Value::Null).await.result.unwrap()
    }

    /// A run of this variant that the family chose, with an answer that is good or not. Recorded by hand, as nobody can ask for the choice.
    async fn run(&self, variant: usize, is_good: bool) {
        self.site.clock.advance(Duration::from_millis(1));
        let variant = self.site.ledger.get(&Scope::runtime(TENANT), TENANT, self.variants[variant]).await.unwrap();
        let confidence = if is_good { 0.9 } else { 0.1 };
        let run = Draft::new("prompt_run")
            .tenant(TENANT)
            .owner(USER)
            .who("kernel:prompt_runner")
            .this("prompt.support")
            .status("complete");
        let run = run.parent(variant.id).output(json!({"text": "ok", "confidence": confidence}));
        let run = run.meta("variant", reference(&variant)).meta("selection", "one").meta("contract", "held");
        let run =
            run.meta("cost", json!({"currency": "USD", "nanos": 1000})).meta("latency_ms", 5).meta("confidence", confidence);
        self.site.host.record(TENANT, vec![run], &AppendOptions::default()).await.unwrap();
    }

    async fn verify(&self, ledger: &MemoryLedger, selection: &Value) -> Result<(), VerifySelectionError> {
        let trusted = self.site.trust.resolve(&self.site.ledger).await.unwrap();
        let reader = Reader::new(ledger, Scope::runtime(TENANT));
        verify_selection(&reader, &trusted, TENANT, selection.as_str().unwrap().parse().unwrap()).await.map(drop)
    }
}

impl Site {
    async fn named(&self, name: &str) -> Uuid {
        let run = json!({"provider": self.spans[0], "contract": "answer"});
        let metadata = json!({"family": "support", "block_ids": [self.spans[1]], "run": run});
        self.publish(draft("prompt_variant", name).metadata(metadata)).await
    }
}

#[test]
fn what_does_better_is_chosen_more_often_and_every_choice_verifies() {
    block_on(async {
        let two = Two::new(json!({"floor": 0.1})).await;
        let first = two.choose(None).await;
        assert_eq!(first["propensity"], 0.5, "nothing is known yet");
        two.verify(&two.site.ledger, &first["selection"]).await.unwrap();
        for n in 0..12 {
            two.run(0, n % 4 == 0).await;
            two.run(1, n % 4 != 0).await;
        }
        let learnt = two.learn().await;
        assert_eq!(learnt["variants"][0]["runs"], json!({"good": 3, "bad": 9}));
        assert_eq!(learnt["variants"][1]["runs"], json!({"good": 9, "bad": 3}));
        let mut often = BTreeMap::new();
        for _ in 0..40 {
            let chosen = two.choose(None).await;
            two.verify(&two.site.ledger, &chosen["selection"]).await.unwrap();
            *often.entry(chosen["variant"].as_str().unwrap().to_owned()).or_insert(0) += 1;
            let is_second = chosen["variant"] == json!(two.variants[1].to_string());
            let propensity = chosen["propensity"].as_f64().unwrap();
            assert!(if is_second { propensity > 0.85 } else { (0.1..0.15).contains(&propensity) }, "{chosen}");
        }
        // Of 40 at 0.85 it is below 25 once in 50,000 times.
        assert!(often[&two.variants[1].to_string()] > 24, "{often:?}");
    });
}

#[test]
fn a_session_keeps_its_variant_and_sessions_of_others_are_others() {
    block_on(async {
        let two = Two::new(json!({})).await;
        let first = two.choose(Some("s")).await;
        for n in 0..6 {
            two.run(n % 2, n % 2 == 0).await;
        }
        two.learn().await;
        for _ in 0..8 {
            let again = two.choose(Some("s")).await;
            assert_eq!((&again["selection"], &again["variant"]), (&first["selection"], &first["variant"]));
        }
        let theirs = Request::new(TENANT, "bob", two.family, json!({"session": "s"})).this(PROMPT_SELECT);
        let theirs = two.site.host.execute(theirs).await.unwrap().result.unwrap();
        assert_ne!(theirs["selection"], first["selection"]);
    });
}

#[test]
fn a_run_of_a_family_records_which_choice_led_to_it() {
    block_on(async {
        let two = Two::new(json!({})).await;
        two.site.provider.then([Script::Text(GOOD.to_owned()), Script::Text(GOOD.to_owned())]);
        let input = json!({"question": "q", "vars": vars(), "session": "s"});
        let first = two.request(PROMPT_RUN, input.clone()).await.result.unwrap();
        let second = two.request(PROMPT_RUN, input).await.result.unwrap();
        assert_eq!(first["selection"], second["selection"], "one choice for the session");
        let runs = two.site.all("prompt_run").await;
        assert!(runs.iter().all(|run| run.meta("selection") == Some(&first["selection"])));
        assert!(runs[0].meta("latency_ms").is_some() && runs[0].meta("cost").is_some(), "what guards measure");
        two.verify(&two.site.ledger, &first["selection"]).await.unwrap();
        let explained = two.site.explain(&two.site.ledger, first["run"].as_str().unwrap().parse().unwrap()).await.unwrap();
        assert_eq!(explained.selection, first["selection"]);
        let alone = json!({"question": "q", "vars": vars(), "session": "s"});
        let failure = two.site.ask(two.variants[0], alone).await.result.unwrap_err();
        assert!(failure.message.contains("`session` is for requests that name a family"), "{failure}");
    });
}

/// Somebody asks what is too long for the provider, in a session that has the variant which they want to lose.
#[test]
fn whoever_asks_too_much_does_not_make_a_variant_lose() {
    block_on(async {
        let two = Two::new(json!({"min_samples": 3, "floor": 0.0, "guards": [{"metric": "errors", "max": 0.3}]})).await;
        two.learn().await;
        let long = json!({"question": "x".repeat(5000), "vars": vars(), "session": "s"});
        for _ in 0..5 {
            two.site.provider.then([Script::Fail(ProviderError::new(ErrorKind::Invalid, "context_length_exceeded"))]);
            assert!(two.request(PROMPT_RUN, long.clone()).await.result.is_err());
        }
        assert_eq!(two.learn().await["posterior"], Value::Null, "nothing is known of either after it");
    });
}

/// A variant that always fails has no `prompt_run`. If nobody counted that, it would be explored for ever.
#[test]
fn a_variant_that_always_fails_is_not_explored_for_ever() {
    block_on(async {
        let two = Two::new(json!({"min_samples": 3, "floor": 0.0, "guards": [{"metric": "errors", "max": 0.3}]})).await;
        let broken = two.variants[1].to_string();
        for _ in 0..3 {
            two.run(0, true).await;
        }
        two.learn().await;
        let mut failed = 0;
        while failed < 3 {
            let error = ProviderError::new(ErrorKind::Invalid, "the prompt is too long");
            two.site.provider.then([Script::Fail(error)]);
            let execution = two.request(PROMPT_RUN, question("q")).await;
            assert_eq!(execution.span.meta("prompt_variant").unwrap()["id"], json!(broken), "only it is unknown");
            failed += u32::from(execution.result.is_err());
            two.learn().await;
        }
        let posterior = two.learn().await;
        assert_eq!(posterior["posterior"], Value::Null, "nothing is new");
        for _ in 0..10 {
            let chosen = two.choose(None).await;
            assert_ne!(chosen["variant"], json!(broken));
            two.verify(&two.site.ledger, &chosen["selection"]).await.unwrap();
        }
        let outage = ProviderError::new(ErrorKind::Throttled, "busy");
        two.site.provider.then([Script::Fail(outage.clone()), Script::Fail(outage)]);
        assert!(two.request(PROMPT_RUN, question("q")).await.result.is_err());
        assert_eq!(two.learn().await["posterior"], Value::Null, "a provider that is away says nothing about the prompt");
    });
}

#[test]
fn what_exceeds_a_guard_is_left_out_unless_nothing_else_is_there() {
    block_on(async {
        let two = Two::new(json!({"guards": [{"metric": "cost_mean_nanos", "max": 1.0}]})).await;
        for _ in 0..3 {
            two.run(1, true).await;
        }
        let learnt = two.learn().await;
        assert!(learnt["variants"][1]["veto"].as_str().unwrap().contains("cost_mean_nanos"), "{learnt}");
        for _ in 0..5 {
            let chosen = two.choose(None).await;
            assert_eq!((&chosen["variant"], &chosen["propensity"]), (&json!(two.variants[0].to_string()), &json!(1.0)));
            two.verify(&two.site.ledger, &chosen["selection"]).await.unwrap();
        }
        for _ in 0..3 {
            two.run(0, true).await;
        }
        two.learn().await;
        let chosen = two.choose(None).await;
        assert_eq!(chosen["variant"], json!(two.variants[0].to_string()), "the first variant is the last resort");
        two.verify(&two.site.ledger, &chosen["selection"]).await.unwrap();
    });
}

#[test]
fn a_new_version_starts_anew_and_an_archived_one_is_out() {
    block_on(async {
        let two = Two::new(json!({})).await;
        for _ in 0..4 {
            two.run(0, true).await;
            two.run(1, true).await;
        }
        two.learn().await;
        let last = two.site.ledger.get(&Scope::runtime(TENANT), TENANT, two.variants[1]).await.unwrap();
        let mut next = Draft::next_version(&last);
        next.columns_mut().metadata.as_mut().unwrap()["prior"] = json!("Be brief.");
        two.site.publish(next).await;
        let chosen = two.choose(None).await;
        assert_eq!((&chosen["variant"], &chosen["propensity"]), (&json!(two.variants[1].to_string()), &json!(1.0)));
        let last = two.site.ledger.get(&Scope::runtime(TENANT), TENANT, two.variants[1]).await.unwrap();
        two.site.publish(Draft::next_version(&last).status("archived")).await;
        let chosen = two.choose(Some("s")).await;
        assert_eq!(chosen["variant"], json!(two.variants[0].to_string()));
        two.verify(&two.site.ledger, &chosen["selection"]).await.unwrap();
    });
}

#[test]
fn a_family_that_makes_no_sense_is_refused() {
    block_on(async {
        let two = Two::new(json!({})).await;
        let other = json!({"family": "other", "block_ids": [two.site.spans[1]]});
        let other = two.site.publish(draft("prompt_variant", "other@v1").metadata(other)).await;
        let refused = async |metadata: Value| {
            let draft = draft("prompt_family", "support").metadata(metadata);
            two.site.host.publish(draft, &key(PUBLISHER)).await.map(drop).unwrap_err().to_string()
        };
        let of = |more: Value| {
            let mut metadata = json!({"variants": two.variants});
            metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            metadata
        };
        for (metadata, said) in [
            (of(json!({"variants": []})), "1 to 16"),
            (of(json!({"variants": [two.variants[0], two.variants[0]]})), "twice"),
            (of(json!({"variants": [Uuid::from_u128(5)]})), "there is no prompt_variant"),
            (of(json!({"variants": [other]})), "of the family `other`"),
            (of(json!({"floor": 0.6})), "floor"),
            (of(json!({"floor": -0.1})), "floor"),
            (of(json!({"window_days": 0})), "window_days"),
            (of(json!({"batch": 0})), "batch"),
            (of(json!({"guards": [{"metric": "mood", "max": 1}]})), "mood"),
            (of(json!({"guards": [{"metric": "errors", "max": -1}]})), "no limit"),
            (of(json!({"luck": 1})), "luck"),
        ] {
            let found = refused(metadata).await;
            assert!(found.contains(said), "{said}: {found}");
        }
        for (input, said) in
            [(json!({"session": ""}), "256"), (json!({"session": 5}), "a text"), (json!({"user": "x"}), "no member")]
        {
            let failure = two.request(PROMPT_SELECT, input).await.result.unwrap_err();
            assert!(failure.message.contains(said), "{failure}");
        }
        let stranger = Request::new(TENANT, USER, two.variants[0], json!({})).this(PROMPT_SELECT);
        assert!(two.site.host.execute(stranger).await.unwrap().result.is_err());
    });
}

/// Mistakes of the asker, and requests that a user sends on purpose, do not take a variant out for everybody.
#[test]
fn a_user_who_asks_badly_does_not_make_a_variant_look_bad() {
    block_on(async {
        let two = Two::new(json!({"guards": [{"metric": "errors", "max": 0.3}], "min_samples": 2})).await;
        for _ in 0..20 {
            two.run(0, true).await;
            two.run(1, true).await;
        }
        two.learn().await;
        for input in [json!({"question": "q"}), json!({"question": "q", "vars": {"customer": "Ada", "typo": 1}})] {
            let bad = Request::new(TENANT, "mallory", two.family, input).this(PROMPT_RUN).max_attempts(10);
            assert_eq!(two.site.host.execute(bad).await.unwrap().result.unwrap_err().code, "prompt_invalid");
        }
        // She asks for a variant by its name, as often as she likes.
        for _ in 0..5 {
            two.site.provider.then([Script::Text(json!({"text": "x", "confidence": 0}).to_string())]);
            let direct = Request::new(TENANT, "mallory", two.variants[1], question("q")).this(PROMPT_RUN);
            assert!(two.site.host.execute(direct).await.unwrap().result.is_ok());
        }
        assert_eq!(two.learn().await, json!({"posterior": null, "new": 0}));
    });
}

/// As many results leave the window as come: the counts are the same, and everything has turned round.
#[test]
fn results_that_replace_as_many_old_ones_are_new() {
    block_on(async {
        let two = Two::new(json!({"batch": 5})).await;
        for _ in 0..5 {
            two.run(0, true).await;
        }
        assert_ne!(two.learn().await["posterior"], Value::Null);
        for _ in 0..4 {
            two.run(0, true).await;
        }
        assert_eq!(two.learn().await, json!({"posterior": null, "new": 4}));
        two.run(0, true).await;
        assert_ne!(two.learn().await["posterior"], Value::Null);
    });
}

/// A time in the past would choose by results from before the guards.
#[test]
fn a_due_time_in_the_past_does_not_turn_the_guards_off() {
    block_on(async {
        let two = Two::new(json!({"guards": [{"metric": "cost_mean_nanos", "max": 1.0}]})).await;
        for _ in 0..3 {
            two.run(1, true).await;
        }
        two.learn().await;
        for _ in 0..5 {
            let request = Request::new(TENANT, USER, two.family, Value::Null).this(PROMPT_SELECT);
            let request = request.due_at("2001-01-01T00:00:00Z".parse().unwrap());
            let chosen = two.site.host.execute(request).await.unwrap().result.unwrap();
            assert_eq!(chosen["variant"], json!(two.variants[0].to_string()));
            two.verify(&two.site.ledger, &chosen["selection"]).await.unwrap();
        }
    });
}

/// What only its owner may see is not told to whoever asks for the counts; everybody may check a choice.
#[test]
fn a_private_variant_is_counted_and_not_told() {
    block_on(async {
        let two = Two::new(json!({})).await;
        let last = two.site.ledger.get(&Scope::runtime(TENANT), TENANT, two.variants[1]).await.unwrap();
        two.site.publish(Draft::next_version(&last).visibility(Visibility::Private)).await;
        two.run(0, true).await;
        let learnt = two.learn().await;
        assert_eq!(learnt["variants"].as_array().unwrap().len(), 1, "{learnt}");
        let posterior: Uuid = learnt["posterior"].as_str().unwrap().parse().unwrap();
        let posterior = two.site.ledger.get(&Scope::runtime(TENANT), TENANT, posterior).await.unwrap();
        assert_eq!((posterior.visibility, posterior.owner_id.as_str()), (Visibility::Tenant, "copy"));
    });
}

/// Somebody with the host's key changes a record, so that its signature holds: the choice does not come out again.
#[test]
fn a_choice_that_was_steered_does_not_verify() {
    block_on(async {
        let two = Two::new(json!({"guards": [{"metric": "errors", "max": 0.9}]})).await;
        for n in 0..8 {
            two.run(0, n % 2 == 0).await;
            two.run(1, true).await;
        }
        two.learn().await;
        let chosen = two.choose(None).await;
        let id: Uuid = chosen["selection"].as_str().unwrap().parse().unwrap();
        let get = async |id: Uuid| two.site.ledger.get(&Scope::runtime(TENANT), TENANT, id).await.unwrap();
        let record = get(id).await;
        let named = |at: usize| record.meta("candidates").unwrap()[at]["variant"].clone();
        let other = usize::from(record.meta("variant") == Some(&named(0)));
        let copy = async |forged: &dyn Fn(&mut Span)| {
            let ledger = MemoryLedger::new();
            for entity_type in ["prompt_variant", "prompt_family", "prompt_posterior", "request"] {
                for span in two.site.all(entity_type).await {
                    ledger.append_one(&Scope::Operator, span.verify(&mut Verifier::new()).unwrap()).await.unwrap();
                }
            }
            let mut columns = Span::clone(&record);
            forged(&mut columns);
            let forged = Draft::from_columns(columns).seal_local(&key(HOST)).unwrap();
            ledger.append_one(&Scope::Operator, forged).await.unwrap();
            two.verify(&ledger, &chosen["selection"]).await
        };
        copy(&|_| ()).await.unwrap();
        fn meta<'a>(span: &'a mut Span, member: &str) -> &'a mut Value {
            &mut span.metadata.as_mut().unwrap()[member]
        }
        type Forged<'a> = &'a dyn Fn(&mut Span);
        let stranger = two
            .site
            .publish(draft("prompt_variant", "other@v1").metadata(json!({"family": "other", "block_ids": [two.site.spans[1]]})))
            .await;
        let stranger = reference(&get(stranger).await);
        let steered: [(&str, Forged<'_>); 10] = [
            ("another variant", &|span| *meta(span, "variant") = named(other)),
            ("a seed that was picked", &|span| *meta(span, "seed") = json!("00".repeat(32))),
            ("another request", &|span| *meta(span, "request") = json!(Uuid::from_u128(7))),
            ("a likelihood", &|span| *meta(span, "propensity") = json!(0.999)),
            ("a reason", &|span| *meta(span, "why") = json!("exploring")),
            ("no posterior", &|span| *meta(span, "posterior") = Value::Null),
            ("a candidate left out", &|span| meta(span, "candidates")[other]["out"] = json!("errors: 1 is over 0.9")),
            ("a candidate that was in use, as if it were not", &|span| {
                let chosen = span.metadata.as_ref().unwrap()["candidates"][1 - other]["variant"].clone();
                meta(span, "candidates")[other] = json!({"variant": null, "id": two.variants[other], "out": "not found"});
                (*meta(span, "variant"), *meta(span, "why"), *meta(span, "propensity")) = (chosen, json!("only"), json!(1));
            }),
            ("a variant of another family", &|span| {
                meta(span, "candidates")[other]["variant"] = stranger.clone();
            }),
            ("fewer candidates", &|span| drop(meta(span, "candidates").as_array_mut().unwrap().remove(other))),
        ];
        for (what, forged) in steered {
            assert!(copy(forged).await.is_err(), "{what}");
        }
        let posterior: Uuid = record.meta("posterior").unwrap()["id"].as_str().unwrap().parse().unwrap();
        assert!(two.verify(&two.site.ledger, &json!(posterior.to_string())).await.is_err());
    });
}
