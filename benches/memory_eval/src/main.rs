//! Measures what memories are found: on a generated corpus, and on LoCoMo and LongMemEval where the user has their files.
//!
//! `cargo xtask memory-eval [--locomo FILE] [--longmemeval FILE] [--model DIR] [--seed N] [--plot FILE]`
//!
//! Retrieval alone is measured: whether a turn that the data set names as evidence is among the first found. No answer is written. With
//! `--model` the sentence transformer in DIR makes vectors, and text alone is compared with both.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement that fails may panic, and prints to its user"
)]

#[path = "../../../logline-memory/tests/corpus/mod.rs"]
mod corpus;
mod hybrid;
mod locomo;
mod longmemeval;
mod metrics;
mod model;
mod plot;
mod systems;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use logline_sqlite::SqliteLedger;
use metrics::{Outcomes, table};

const USAGE: &str =
    "usage: cargo xtask memory-eval [--locomo FILE] [--longmemeval FILE] [--model DIR] [--seed N] [--plot FILE]";

#[derive(Default)]
struct Arguments {
    locomo: Option<PathBuf>,
    longmemeval: Option<PathBuf>,
    model: Option<PathBuf>,
    seed: Option<u64>,
    plot: Option<PathBuf>,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("`{name}` needs a value\n{USAGE}"))?;
        match name.as_str() {
            "--locomo" => found.locomo = Some(value.into()),
            "--longmemeval" => found.longmemeval = Some(value.into()),
            "--model" => found.model = Some(value.into()),
            "--plot" => found.plot = Some(value.into()),
            "--seed" => found.seed = Some(value.parse().map_err(|_| format!("`{value}` is no number\n{USAGE}"))?),
            _ => return Err(format!("`{name}` is unknown\n{USAGE}")),
        }
    }
    Ok(found)
}

fn main() -> ExitCode {
    let result = arguments().and_then(|arguments| run(&arguments));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let mut missed = Vec::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())?;
    if let Some(file) = &arguments.locomo {
        let conversations = locomo::read(file)?;
        let (turns, questions) =
            (conversations.iter().map(|c| c.turns.len()).sum::<usize>(), locomo::questions(&conversations));
        println!("LoCoMo: {} conversations, {turns} turns, {questions} questions with evidence", conversations.len());
        let in_process = systems::index(&conversations);
        let stored = runtime.block_on(systems::fts5(&conversations));
        report(&[("index in this process, over decrypted texts", &in_process), ("FTS5, public memories", &stored)]);
        missed.extend(aims("text alone", &in_process, 0.62, 0.40));
        if let Some(folder) = &arguments.model {
            let measured = hybrid::locomo(folder, &conversations)?;
            compare(&measured);
            missed.extend(aims("text and vectors", &measured.fused, 0.65, 0.40));
        }
    }
    if let Some(file) = &arguments.longmemeval {
        let outcomes = longmemeval::measure(file)?;
        println!("LongMemEval: {} questions, sessions found by their turns", outcomes.len());
        report(&[("index in this process, over decrypted texts", &outcomes)]);
    }
    generated(&runtime, arguments)?;
    if missed.is_empty() { Ok(()) } else { Err(missed.join("\n")) }
}

/// What does not come up to the aims for LoCoMo's questions.
fn aims(system: &str, found: &Outcomes, any_at_10: f64, mrr: f64) -> Vec<String> {
    let values = [("any@10", metrics::any_at(found, 10), any_at_10), ("MRR", metrics::mrr(found), mrr)];
    let missed = values.into_iter().filter(|(_, value, aim)| value < aim);
    missed.map(|(name, value, aim)| format!("{system}: {name} is {value:.3}, and the aim is {aim:.2}")).collect()
}

fn report(systems: &[(&str, &Outcomes)]) {
    print!("{}", table(systems));
    if let [(first, one), (second, other)] = systems {
        let (difference, low, high) = metrics::paired(one, other);
        println!(
            "any@10 of `{first}` less that of `{second}`: {difference:+.3}, 95 % of resamples within {low:+.3} and {high:+.3}\n"
        );
    }
}

/// Text alone beside vectors and both.
fn compare(measured: &hybrid::Hybrid) {
    let systems =
        [("text alone", &measured.text), ("vectors alone", &measured.vectors), ("text and vectors, fused", &measured.fused)];
    print!("{}", table(&systems));
    for (name, value) in metrics::VALUES {
        let (difference, low, high) = metrics::paired_by(&measured.fused, &measured.text, value);
        println!("{name} of both less that of text alone: {difference:+.3}, 95 % of resamples within {low:+.3} and {high:+.3}");
    }
    println!();
}

fn generated(runtime: &tokio::runtime::Runtime, arguments: &Arguments) -> Result<(), String> {
    let seed = arguments.seed.unwrap_or(1);
    let corpus = corpus::generate(seed);
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let recalls = runtime.block_on(async {
        let ledger = SqliteLedger::open(folder.path().join("memories.ledger")).map_err(|e| e.to_string())?;
        let subjects = corpus::ask::store(&ledger, &corpus).await;
        let started = Instant::now();
        let recalls = corpus::ask::measure(&ledger, &subjects, &corpus).await;
        let each = started.elapsed() / u32::try_from(corpus.questions.len().max(1)).unwrap_or(1);
        println!(
            "generated, seed {seed}: {} memories, {} questions, {each:.1?} each",
            corpus.memories.len(),
            corpus.questions.len()
        );
        Ok::<_, String>(recalls)
    })?;
    println!(
        "| scope | questions | any@1 | any@5 | any@10 | MRR | in the answer of all scopes |\n|---|---|---|---|---|---|---|"
    );
    for scope in ["session", "private", "tenant", "public"] {
        let Some(recall) = recalls.get(scope) else { continue };
        let [one, five, ten, answered] =
            [recall.at_1, recall.at_5, recall.at_10, recall.answered].map(|count| recall.share(count));
        let mrr = recall.reciprocal / recall.questions.max(1) as f64;
        println!("| {scope} | {} | {one:.3} | {five:.3} | {ten:.3} | {mrr:.3} | {answered:.3} |", recall.questions);
    }
    if let Some(folder) = &arguments.model {
        println!("\ngenerated, seed {seed}, each question in the scope of its answer:");
        compare(&hybrid::generated(folder, &corpus)?);
    }
    if let Some(file) = &arguments.plot {
        std::fs::write(file, plot::recall(&recalls)).map_err(|e| format!("{}: {e}", file.display()))?;
        println!("\nplotted into {}", file.display());
    }
    Ok(())
}
