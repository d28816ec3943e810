//! What traces and metrics say of a call: names of the conventions, and nothing of what was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use logline_core::contract::provider::ErrorKind;
use logline_kernels::provider::{Script, telemetry};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};

use crate::setup::block_on;
use crate::site::*;

/// Remembers names and labels.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<BTreeSet<String>>>);

impl Names {
    fn add(&self, key: &Key) {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        self.0.lock().unwrap().insert(format!("{} {}", key.name(), labels.join(" ")));
    }
}

impl Recorder for Names {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.add(key);
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.add(key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.add(key);
        Histogram::noop()
    }
}

#[test]
fn metrics_have_the_labels_of_the_conventions_and_no_tenant() {
    let names = Names::default();
    metrics::with_local_recorder(&names, || {
        block_on(async {
            let site = Site::new().await;
            let host = site.host().await;
            let main = publish(&host, spec()).await;
            site.provider.then([Script::Text("Paris.".to_owned()), fail(ErrorKind::Denied)]);
            host.execute(asking(main, "the secret question")).await.unwrap().result.unwrap();
            host.execute(asking(main, "another")).await.unwrap().result.unwrap_err();
        });
    });
    let found = names.0.lock().unwrap();
    let of = |name: &str| found.iter().filter_map(|found| found.strip_prefix(name)).map(str::trim).collect::<Vec<_>>();
    let call = "gen_ai.operation.name=chat gen_ai.provider.name=scripted gen_ai.request.model=fast";
    assert_eq!(of(telemetry::DURATION), [call, &format!("{call} error.type=provider:denied")]);
    let token = |class: &str| format!("{call} gen_ai.token.type={class}");
    assert_eq!(of(telemetry::TOKENS), [token("input"), token("output")]);
    assert!(!found.iter().any(|found| found.contains("acme") || found.contains("secret")), "{found:?}");
}

/// Remembers the fields of each span, by its number. It sees the spans of all tests of this process: a subscriber of one thread would miss
/// some, because others decide first whether a span is wanted.
#[derive(Clone, Default)]
struct Fields {
    last: Arc<AtomicU64>,
    found: Arc<Mutex<BTreeMap<u64, BTreeMap<String, String>>>>,
}

struct Of<'a>(&'a Fields, u64);

impl Of<'_> {
    fn add(&self, field: &Field, value: String) {
        self.0.found.lock().unwrap().entry(self.1).or_default().insert(field.name().to_owned(), value);
    }
}

impl Visit for Of<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }
}

impl Subscriber for Fields {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("logline_kernels::provider")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let id = self.last.fetch_add(1, Ordering::SeqCst) + 1;
        attributes.record(&mut Of(self, id));
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        values.record(&mut Of(self, span.into_u64()));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn a_trace_of_a_call_has_the_names_of_the_conventions_and_nothing_of_what_was_said() {
    let fields = Fields::default();
    tracing::subscriber::set_global_default(fields.clone()).unwrap();
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let main = publish(&host, with(spec(), json!({"models": {"traced": spec()["models"][FAST]}}))).await;
        site.provider.then([Script::Text("Paris.".to_owned())]);
        host.execute(asking(main, "the secret question")).await.unwrap().result.unwrap();
    });
    let found = fields.found.lock().unwrap();
    let call = found.values().find(|call| call.get("otel.name").is_some_and(|name| name == "chat traced")).unwrap();
    let named: Vec<_> = call.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let number = |name: &str| call.get(name).and_then(|text| text.parse::<u64>().ok());
    assert!(number(telemetry::INPUT_TOKENS) > Some(0) && number(telemetry::OUTPUT_TOKENS) > Some(0), "{named:?}");
    let words: Vec<_> = named.iter().filter(|(name, _)| !name.ends_with("_tokens")).copied().collect();
    assert_eq!(
        words,
        [
            (telemetry::OPERATION, "chat"),
            (telemetry::OUTPUT_TYPE, "text"),
            (telemetry::PROVIDER, "scripted"),
            (telemetry::REQUEST_MODEL, "traced"),
            (telemetry::FINISH_REASONS, "end_turn"),
            (telemetry::RESPONSE_MODEL, "scripted"),
            ("otel.kind", "client"),
            ("otel.name", "chat traced"),
        ]
    );
    assert!(!named.iter().any(|(_, value)| value.contains("secret") || value.contains("Paris")), "{named:?}");
}
