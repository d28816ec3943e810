//! Budgets: reserved before a call, settled after it.

use logline_core::contract::provider::{Block, ErrorKind, ModelAnswer, StopReason, Usage};
use logline_core::ledger::WorkQueue as _;
use logline_core::trust::Budget;
use logline_kernels::provider::Script;
use serde_json::json;
use std::time::Duration;

use crate::setup::{TENANT, block_on, output};
use crate::site::*;

#[test]
fn a_budget_is_reserved_before_a_call_and_settled_after_it() {
    block_on(async {
        let site = Site::with(budget(Some(1000), Some(10_000_000))).await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let answer = |input, output| {
            Script::Answer(ModelAnswer::new(vec![Block::text("yes")], StopReason::EndTurn, Usage::of(input, output)))
        };
        site.provider.then([answer(20, 10)]);
        host.execute(asking(main, "hello")).await.unwrap();
        assert_eq!((site.used(TOKENS).await, site.used(MONEY).await), (30, 20 * 3000 + 10 * 15_000));
        // What is not charged is given back.
        site.provider.then([fail(ErrorKind::Invalid)]);
        host.execute(asking(main, "hello")).await.unwrap();
        assert_eq!(site.used(TOKENS).await, 30);
        // Nobody knows what a provider charges for an answer that did not come: the whole reservation stays.
        site.provider.then([fail(ErrorKind::TimedOut), answer(20, 10)]);
        host.execute(asking(main, "hello")).await.unwrap();
        let used = site.used(TOKENS).await;
        assert!(used > 30 + 30 + 100, "{used}");
        // Usage that the provider does not state is not free.
        let mut unknown = Usage::of(20, 10);
        unknown.output = None;
        site.provider.then([Script::Answer(ModelAnswer::new(vec![Block::text("yes")], StopReason::EndTurn, unknown))]);
        host.execute(asking(main, "hello")).await.unwrap();
        assert!(site.used(TOKENS).await > used + 100);
        let calls = site.provider.calls().len();
        let long = "x".repeat(3000);
        let execution = host.execute(asking(main, &long)).await.unwrap();
        assert_eq!((code(&execution), site.provider.calls().len()), ("budget", calls), "no call is made");
        assert_eq!(site.spans("policy_violation").await[0].this, format!("quota.{TOKENS}"));
        let before = site.used(MONEY).await;
        site.ledger.rebuild().await.unwrap();
        assert_eq!(site.used(MONEY).await, before, "the counters follow from intents and outcomes");
        site.clock.advance(Duration::from_secs(86_400));
        assert_eq!((site.used(TOKENS).await, site.used(MONEY).await), (0, 0));
    });
}

#[test]
fn a_budget_of_zero_allows_no_call() {
    block_on(async {
        for change in [budget(Some(0), None), budget(None, Some(0))] {
            let site = Site::with(change).await;
            let host = site.host().await;
            let main = publish(&host, spec()).await;
            assert_eq!(code(&host.execute(asking(main, "hello")).await.unwrap()), "budget");
            assert!(site.provider.calls().is_empty() && site.spans("provider_request").await.is_empty());
        }
    });
}

#[test]
fn another_tenants_budget_is_not_used() {
    block_on(async {
        let site = Site::with(|manifest| {
            let none = Budget { tokens_per_day: Some(0), money_per_day: None };
            manifest.budgets.insert("*".to_owned(), none);
            manifest.budgets.insert(TENANT.to_owned(), Budget::default());
        })
        .await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        assert!(host.execute(asking(main, "hello")).await.unwrap().result.is_ok(), "an entry of its own counts before `*`");
    });
}

#[test]
fn a_paid_answer_is_kept_and_an_absurd_statement_does_not_use_up_the_day() {
    block_on(async {
        let site = Site::with(budget(Some(1_000_000), None)).await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let answer = |content, usage| Script::Answer(ModelAnswer::new(vec![content], StopReason::EndTurn, usage));
        let tool =
            Block::ToolUse { id: "t".to_owned(), name: "find".to_owned(), input: json!({"id": 1_234_567_890_123_456_789_u64}) };
        site.provider.then([answer(tool, Usage::of(10, 5))]);
        let execution = host.execute(asking(main, "q")).await.unwrap();
        assert_eq!(
            output(&execution)["answer"]["content"][0]["input"]["id"],
            "1234567890123456789",
            "a number that no span can hold is a text"
        );
        let mut absurd = Usage::of(u64::MAX, 5);
        absurd.raw = (0..100).fold(json!(u64::MAX), |raw, _| json!([raw]));
        site.provider.then([answer(Block::text("yes"), absurd)]);
        assert!(host.execute(asking(main, "q")).await.unwrap().result.is_ok());
        assert!(site.used(TOKENS).await < 10_000, "{}", site.used(TOKENS).await);
        assert!(host.execute(asking(main, "q")).await.unwrap().result.is_ok(), "the rest of the day is left");
        // What cannot be stored leaves what was used and what it cost.
        site.provider.then([answer(Block::text("x".repeat(2 << 20)), Usage::of(10, 5))]);
        assert_eq!(code(&host.execute(asking(main, "q")).await.unwrap()), "answer_limit");
        let last = site.spans("provider_execution").await.pop().unwrap();
        assert_eq!(last.meta("details").unwrap()["cost"]["currency"], "USD");
    });
}
