//! What traces and metrics say of a call: names of the conventions, and nothing of what was asked.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use logline_core::contract::provider::ErrorKind;
use logline_kernels::provider::{Script, telemetry};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

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
