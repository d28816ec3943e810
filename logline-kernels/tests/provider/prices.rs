//! Tables of prices: what they may say, which version prices a call, and that everybody comes to the recorded cost again.

use std::time::Duration;

use logline_core::contract::Reader;
use logline_core::contract::provider::{Block, ModelAnswer, StopReason, Usage};
use logline_core::ledger::{Ledger as _, LedgerExt as _};
use logline_core::trust::Authorities;
use logline_core::{
    Draft, Host, MemoryLedger, Scope, SignedSpan, Span, SystemClock, SystemIds, VerifiedSpan, Verifier, Visibility,
};
use logline_kernels::provider::{CostError, Script, verify_cost, verify_costs};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::setup::{HOST, PUBLISHER, STRANGER, TENANT, USER, block_on, key, trust};
use crate::site::*;

fn row(from: &str, input: u64) -> Value {
    json!({"model": "fast-1", "valid_from": from, "prices": {"input": input, "output": 5 * input}})
}

const JANUARY: &str = "2026-01-01T00:00:00Z";
const MAY: &str = "2026-05-01T00:00:00Z";
const JUNE: &str = "2026-06-01T00:00:00Z";

fn rows() -> Value {
    json!([row(JUNE, 9_000_000_000), row(JANUARY, 1_000_000_000), row(MAY, 3_000_000_000)])
}

fn table(metadata: Value) -> Draft {
    let draft = Draft::new("price_table").tenant(TENANT).owner("finance").who("publisher").this("price_table.main");
    draft.name("main").visibility(Visibility::Tenant).status("active").metadata(metadata)
}

fn prices(rows: Value) -> Value {
    json!({"adapters": ["scripted"], "currency": "USD", "prices": rows})
}

/// A provider whose prices are in a table.
fn priced_by(table: Uuid) -> Value {
    let models = json!({FAST: {"id": "fast-1", "max_tokens": 100}});
    let mut spec = with(spec(), json!({"models": models, "price_table": table}));
    spec.as_object_mut().unwrap().remove("currency");
    spec
}

async fn publish_table(host: &Host, rows: Value) -> VerifiedSpan {
    host.publish(table(prices(rows)), &key(PUBLISHER)).await.unwrap()
}

fn answer() -> Script {
    let mut usage = Usage::of(1000, 100);
    (usage.cache_read, usage.cache_write) = (Some(500), Some(200));
    Script::Answer(ModelAnswer::new(vec![Block::text("Paris.")], StopReason::EndTurn, usage))
}

async fn authorities(ledger: &MemoryLedger) -> Authorities {
    trust().resolve(ledger).await.unwrap().authorities
}

async fn last(site: &Site) -> SignedSpan {
    site.spans("provider_execution").await.pop().unwrap()
}

#[test]
fn a_call_is_priced_by_the_version_and_the_row_in_force_and_its_cost_can_be_computed_again() {
    block_on(async {
        let site = Site::with(budget(None, Some(1_000_000_000_000))).await;
        let host = site.host().await;
        let first = publish_table(&host, rows()).await;
        let main = publish(&host, priced_by(first.id)).await;
        site.provider.then([answer(), answer(), answer()]);
        assert!(host.execute(asking(main, "q")).await.unwrap().result.is_ok());
        // 1,700 tokens of input in all at 3 dollars a million, 100 of output at 15: 0.0066 dollars.
        let outcome = last(&site).await;
        let cost = outcome.meta("details").unwrap()["cost"].clone();
        assert_eq!((cost["nanos"].as_u64(), &cost["currency"]), (Some(6_600_000), &json!("USD")));
        assert_eq!(cost["price_table"]["curr_hash"], json!(first.seal.curr_hash.to_string()));
        assert_eq!(site.used(MONEY).await, 6_600_000, "the budget is settled with the same number");
        // A new version prices the next call, and the old one still prices the old call.
        let dearer = Draft::next_version(&first).metadata(prices(json!([row(JANUARY, 4_000_000_000)])));
        let second = host.publish(dearer, &key(PUBLISHER)).await.unwrap();
        assert!(host.execute(asking(main, "q2")).await.unwrap().result.is_ok());
        let next = last(&site).await.meta("details").unwrap()["cost"].clone();
        assert_eq!((next["nanos"].as_u64(), &next["price_table"]["seq"]), (Some(8_800_000), &json!(second.seq)));
        let (reader, authorities) = (Reader::new(&site.ledger, Scope::runtime(TENANT)), authorities(&site.ledger).await);
        let costed = verify_cost(&reader, &authorities, TENANT, outcome.id).await.unwrap().unwrap();
        assert_eq!((costed.nanos, costed.currency.as_str(), &costed.price_table), (6_600_000, "USD", &cost["price_table"]));
        // Prices in the provider span itself are found in the same way.
        let inline = publish(&host, spec()).await;
        assert!(host.execute(asking(inline, "q3")).await.unwrap().result.is_ok());
        let report = verify_costs(&reader, &authorities, TENANT, None, 100).await.unwrap();
        assert_eq!((report.looked_at, report.priced, report.faults.len(), report.next.is_some()), (3, 3, 0, false));
    });
}

#[test]
fn a_price_begins_when_its_row_says_so() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let rates = publish_table(&host, rows()).await;
        let main = publish(&host, priced_by(rates.id)).await;
        site.provider.then([answer()]);
        site.clock.advance(Duration::from_secs(31 * 86_400));
        assert!(host.execute(asking(main, "q")).await.unwrap().result.is_ok());
        assert_eq!(last(&site).await.meta("details").unwrap()["cost"]["nanos"], 19_800_000, "June's prices");
        // No row holds yet: the cost is not known, which is not 0.
        let later = publish_table(&host, json!([row("2030-01-01T00:00:00Z", 1)])).await;
        let unpriced = publish(&host, priced_by(later.id)).await;
        site.provider.then([answer()]);
        assert!(host.execute(asking(unpriced, "q")).await.unwrap().result.is_ok());
        assert!(last(&site).await.meta("details").unwrap().get("cost").is_none());

        let site = Site::with(budget(None, Some(1_000_000_000_000))).await;
        let host = site.host().await;
        let later = publish_table(&host, json!([row("2030-01-01T00:00:00Z", 1)])).await;
        let unpriced = publish(&host, priced_by(later.id)).await;
        assert_eq!(code(&host.execute(asking(unpriced, "q")).await.unwrap()), "not_priced");
        assert!(site.provider.calls().is_empty());
    });
}

#[test]
fn a_table_that_makes_no_sense_is_not_published() {
    block_on(async {
        let site = Site::with(budget(None, Some(1_000))).await;
        let host = site.host().await;
        let refused = async |draft: Draft| host.publish(draft, &key(PUBLISHER)).await.map(drop).unwrap_err().to_string();
        let dear = |prices: Value| json!([{"model": "fast-1", "valid_from": MAY, "prices": prices}]);
        for (metadata, said) in [
            (prices(json!([row(MAY, 1), row(MAY, 2)])), "two rows that are valid from"),
            (prices(json!([row(MAY, 1), row("2026-05-01T02:00:00+02:00", 2)])), "two rows that are valid from"),
            (prices(json!([])), "1 to 1000 rows"),
            (prices(dear(json!({"input": -1}))), "metadata:"),
            (prices(dear(json!({"input": 1.5}))), "metadata:"),
            (prices(dear(json!({"input": 1, "outpt": 1}))), "outpt"),
            (prices(dear(json!({"input": 1_000_000_000_000_001_u64}))), "prices[0].prices.input is over"),
            (prices(dear(json!({"output": 1}))), "input"),
            (prices(json!([{"model": "", "valid_from": MAY, "prices": {"input": 1}}])), "model is empty"),
            (prices(json!([{"model": "m", "valid_from": "May", "prices": {"input": 1}}])), "metadata:"),
            (json!({"adapters": ["scripted"], "currency": "dollars", "prices": rows()}), "currency"),
            (json!({"adapters": [], "currency": "USD", "prices": rows()}), "adapters"),
            (json!({"adapters": ["scripted"], "currency": "USD", "prices": rows(), "more": 1}), "more"),
        ] {
            let found = refused(table(metadata.clone())).await;
            assert!(found.contains(said), "{said}: {found}");
        }
        let dollars = publish_table(&host, rows()).await.id;
        let mut euros = prices(rows());
        euros["currency"] = json!("EUR");
        let euros = host.publish(table(euros), &key(PUBLISHER)).await.unwrap().id;
        let mut others = prices(rows());
        others["adapters"] = json!(["other"]);
        let others = host.publish(table(others), &key(PUBLISHER)).await.unwrap().id;
        let both = json!({FAST: {"id": "fast-1", "max_tokens": 100, "prices": {"input": 1}}});
        let unknown = json!({"else": {"max_tokens": 100}});
        for (spec, said) in [
            (priced_by(Uuid::from_u128(5)), "there is no price_table"),
            (priced_by(euros), "the tenant's budget is in USD"),
            (with(priced_by(dollars), json!({"currency": "EUR"})), "the table's prices are in USD"),
            (priced_by(others), "no prices of the adapter `scripted`"),
            (with(priced_by(dollars), json!({"models": both, "currency": "USD"})), "leave one of them out"),
            (with(priced_by(dollars), json!({"models": unknown})), "metadata.models.else.prices"),
        ] {
            let found = refused(provider(spec)).await;
            assert!(found.contains(said), "{said}: {found}");
        }
    });
}

/// Whoever can write to the store could make calls cheap, if a table counted that no publisher has signed.
#[test]
fn a_table_that_no_publisher_has_signed_prices_no_call() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let honest = publish_table(&host, rows()).await;
        let main = publish(&host, priced_by(honest.id)).await;
        let cheap = Draft::next_version(&honest).metadata(prices(json!([row(JANUARY, 0)])));
        let forged = cheap.stamp(&SystemClock, &SystemIds).seal_local(&key(STRANGER)).unwrap();
        site.ledger.append_one(&Scope::Operator, forged).await.unwrap();
        // What a stranger has added neither prices a call nor takes the honest prices away.
        let execution = host.execute(asking(main, "q1")).await.unwrap();
        let outcome = execution.result.unwrap()["span"].as_str().unwrap().parse().unwrap();
        let outcome = site.ledger.get(&Scope::Operator, TENANT, outcome).await.unwrap();
        assert_eq!(outcome.meta("details").unwrap()["cost"]["price_table"]["curr_hash"], json!(honest.seal.curr_hash));
        let other = publish_table(&host, rows()).await;
        let archived = Draft::next_version(&other).status("archived");
        let main = publish(&host, priced_by(other.id)).await;
        host.publish(archived, &key(PUBLISHER)).await.unwrap();
        assert_eq!(code(&host.execute(asking(main, "q")).await.unwrap()), "price_table_invalid");
        let mine = table(prices(rows())).owner(USER).stamp(&SystemClock, &SystemIds).seal_local(&key(HOST)).unwrap();
        site.ledger.append_one(&Scope::Operator, mine.clone()).await.unwrap();
        let main = publish(&host, priced_by(mine.id)).await;
        assert_eq!(code(&host.execute(asking(main, "q")).await.unwrap()), "price_table_invalid", "a host is no publisher");
        assert_eq!(site.provider.calls().len(), 1);
    });
}

/// Costs that somebody with the host's key has changed do not verify.
#[test]
fn a_cost_that_was_changed_does_not_verify() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let rates = publish_table(&host, rows()).await;
        let main = publish(&host, priced_by(rates.id)).await;
        site.provider.then([answer()]);
        host.execute(asking(main, "q")).await.unwrap();
        let honest = last(&site).await;
        let authorities = authorities(&site.ledger).await;
        let forged = async |change: &dyn Fn(&mut Value), signer: u8, without: Option<Uuid>| {
            let copy = MemoryLedger::new();
            for entity_type in ["provider", "price_table", "provider_request"] {
                for span in site.spans(entity_type).await.into_iter().filter(|span| Some(span.id) != without) {
                    copy.append_one(&Scope::Operator, span.verify(&mut Verifier::new()).unwrap()).await.unwrap();
                }
            }
            let mut columns = Span::clone(&honest);
            change(columns.metadata.as_mut().unwrap().get_mut("details").unwrap());
            let sealed = Draft::from_columns(columns).seal_local(&key(signer)).unwrap();
            copy.append_one(&Scope::Operator, sealed).await.unwrap();
            verify_cost(&Reader::new(&copy, Scope::runtime(TENANT)), &authorities, TENANT, honest.id).await
        };
        assert!(forged(&|_| {}, HOST, None).await.unwrap().is_some(), "unchanged");
        assert!(forged(&|details| drop(details.as_object_mut().unwrap().remove("cost")), HOST, None).await.unwrap().is_none());
        type Change = Box<dyn Fn(&mut Value)>;
        let set = |path: &'static str, value: Value| -> Change {
            Box::new(move |details| *details.pointer_mut(path).unwrap() = value.clone())
        };
        for change in [
            set("/cost/nanos", json!(1)),
            set("/cost/currency", json!("EUR")),
            set("/usage/output", json!(1)),
            set("/usage/cache_read", json!(0)),
            set("/usage", json!({})),
        ] {
            assert!(matches!(forged(&change, HOST, None).await, Err(CostError::OtherCost { .. })));
        }
        for change in [
            set("/cost/price_table/seq", json!(3)),
            set("/cost/price_table/id", json!(main.to_string())),
            set("/cost/price_table/curr_hash", json!("00".repeat(32))),
            set("/cost/price_table", Value::Null),
            // January's price for a call in May.
            set("/cost/priced_at", json!("2026-01-02T00:00:00Z")),
            set("/cost/priced_at", json!(5)),
        ] {
            assert!(matches!(forged(&change, HOST, None).await, Err(CostError::NoPrices { .. })));
        }
        assert!(matches!(forged(&|_| {}, HOST, Some(rates.id)).await, Err(CostError::NoPrices { .. })));
        assert!(matches!(forged(&|_| {}, STRANGER, None).await, Err(CostError::NoRecord { .. })));
        let intent = site.spans("provider_request").await[0].id;
        assert!(matches!(forged(&|_| {}, HOST, Some(intent)).await, Err(CostError::NoRecord { .. })));
    });
}
