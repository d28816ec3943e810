//! The page of metrics has what the source of all crates records, name by name and label by label.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use logline_kernels::provider::telemetry;

const PAGE: &str = include_str!("../../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../../examples/server/grafana.json");
const RULES: &str = include_str!("../../../examples/server/alerts.yml");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// Metrics whose names are constants, with kind and labels: those of calls to providers and of tools.
const BY_CONSTANT: [(&str, &str, &[&str]); 5] = [
    (
        telemetry::DURATION,
        "histogram",
        &[telemetry::OPERATION, telemetry::PROVIDER, telemetry::REQUEST_MODEL, telemetry::ERROR],
    ),
    (
        telemetry::EMBEDDINGS_DURATION,
        "histogram",
        &[telemetry::OPERATION, telemetry::PROVIDER, telemetry::REQUEST_MODEL, telemetry::ERROR],
    ),
    (telemetry::FIRST_CHUNK_DURATION, "histogram", &[telemetry::OPERATION, telemetry::PROVIDER, telemetry::REQUEST_MODEL]),
    (telemetry::TOKENS, "counter", &[telemetry::OPERATION, telemetry::PROVIDER, telemetry::REQUEST_MODEL, "gen_ai.token.type"]),
    (telemetry::TOOL_DURATION, "histogram", &[telemetry::ERROR]),
];

/// Words that no label may have: their values are the clients' or too many.
const NO_LABEL: [&str; 6] = ["tenant", "user", "owner", "id", "request", "path"];

type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

/// The part of the page that lists metrics.
fn list() -> &'static str {
    PAGE.split("\n## ").next().unwrap()
}

fn on_the_page() -> Metrics {
    let rows = list().lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels = cells[2].split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        (cells[0].trim_end_matches('`').to_owned(), (cells[1].to_owned(), labels))
    })
    .collect()
}

fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

/// What follows a macro's opening parenthesis, up to the one that closes it.
fn arguments(text: &str) -> &str {
    let mut depth = 1;
    let end = text.char_indices().find(|(_, letter)| {
        depth += match letter {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    });
    &text[..end.unwrap().0]
}

fn in_the_source() -> Metrics {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let source = entry.unwrap().path().join("src");
        if source.is_dir() && source.parent().unwrap().file_name().unwrap().to_string_lossy().starts_with("logline-") {
            sources(&source, &mut texts);
        }
    }
    let mut found = Metrics::new();
    for text in &texts {
        for (kind, call) in [("counter", "counter!("), ("gauge", "gauge!("), ("histogram", "histogram!(")] {
            for piece in text.split(&format!("metrics::{call}")).skip(1) {
                let quoted: Vec<_> = arguments(piece).split('"').collect();
                let Some(name) = quoted.get(1).filter(|name| name.starts_with("logline_")) else { continue };
                // A label is a text before `=>`.
                let labels = quoted.iter().skip(3).step_by(2).zip(quoted.iter().skip(4).step_by(2));
                let labels =
                    labels.filter(|(_, after)| after.trim_start().starts_with("=>")).map(|(label, _)| (*label).to_owned());
                found.entry((*name).to_owned()).or_insert((kind.to_owned(), BTreeSet::new())).1.extend(labels);
            }
        }
        // A gauge whose name is handed over.
        if text.contains("Some(\"logline_http_streams\")") {
            found.insert("logline_http_streams".to_owned(), ("gauge".to_owned(), BTreeSet::new()));
        }
    }
    found
}

#[test]
fn every_metric_stands_on_the_page_with_its_kind_and_labels() {
    let (mut page, source) = (on_the_page(), in_the_source());
    for (name, kind, labels) in BY_CONSTANT {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        assert_eq!(page.remove(name), Some((kind.to_owned(), labels)), "{name}");
    }
    assert_eq!(page, source);
}

#[test]
fn exporters_print_the_meaning_that_the_page_has() {
    let described = include_str!("../../src/described.rs");
    for row in list().lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let (name, meaning) = (cells[0].trim_matches('`'), cells[3].split(" ([").next().unwrap().replace('`', ""));
        let of_name = described.split(&format!("\"{name}\"")).nth(1).unwrap_or_else(|| panic!("{name}"));
        assert!(of_name.trim_start_matches([',', ' ', '\n']).starts_with(&format!("\"{meaning}")), "{name}: {meaning}");
    }
}

#[test]
fn no_metric_has_a_label_whose_values_clients_choose() {
    for (name, (_, labels)) in on_the_page() {
        for label in labels {
            assert!(
                !label.split(['_', '.']).any(|word| NO_LABEL.contains(&word)) || label.starts_with("gen_ai."),
                "{name}: {label}"
            );
        }
    }
}

#[test]
fn dashboard_and_rules_name_only_metrics_that_exist() {
    let page = on_the_page();
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    for (file, text) in [("grafana.json", DASHBOARD), ("alerts.yml", RULES)] {
        let mut count = 0;
        for word in text.split(|letter| !is_letter(letter)).filter(|word| word.starts_with("logline_")) {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            let histogram = page.get(base).is_some_and(|(kind, _)| kind == "histogram");
            assert!(page.contains_key(word) || histogram, "{file}: {word}");
            count += 1;
        }
        assert!(count > 10, "{file} names {count}");
    }
}

#[test]
fn every_alert_has_its_section_of_the_operators_page() {
    let alerts: BTreeSet<_> =
        RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_lowercase).collect();
    let sections: BTreeSet<_> = OPERATIONS.lines().filter_map(|line| line.strip_prefix("#### ")).map(str::to_owned).collect();
    assert_eq!(alerts, sections);
}
