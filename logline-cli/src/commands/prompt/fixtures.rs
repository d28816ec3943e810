//! `logline prompt fixtures`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use logline_prompts::eval::import;
use serde_json::{Value, json};

use crate::{Error, output};

#[derive(Args)]
pub(super) struct Fixtures {
    /// The file: YAML, JSON, or JSON lines. `-` reads standard input.
    file: PathBuf,
    /// Which tool it comes from.
    #[arg(long, value_enum)]
    from: From,
    /// The variable with the question, of promptfoo's tests.
    #[arg(long, default_value = "question")]
    question: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum From {
    /// Tests of promptfoo: a list, or a configuration with `tests`.
    Promptfoo,
    /// Items of a Langfuse data set.
    Langfuse,
}

/// A larger file is not read.
const MAX_BYTES: u64 = 16 << 20;

pub(super) fn run(options: &Fixtures, json: bool) -> Result<bool, Error> {
    let text = output::text_of(&options.file, MAX_BYTES)?;
    let entries = entries(&text).map_err(|reason| format!("{}: {reason}", options.file.display()))?;
    let imported = match options.from {
        From::Promptfoo => import::promptfoo(&entries, &options.question),
        From::Langfuse => import::langfuse(&entries),
    };
    for (at, reason) in &imported.faults {
        let reason = output::plain(reason);
        output::note(&if json { json!({"entry": at, "fault": reason}).to_string() } else { format!("entry {at}: {reason}") });
    }
    output::line(&json!({"fixtures": imported.fixtures}).to_string());
    Ok(imported.faults.is_empty())
}

/// The entries of a file: of a list, of the member `tests` or `data`, or one a line. A line that cannot be read becomes `null`, so that it is
/// named and the others are kept.
fn entries(text: &str) -> Result<Vec<Value>, String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.iter().all(|line| line.trim_start().starts_with('{')) && !lines.is_empty() {
        let parsed: Vec<_> = lines.iter().map(|line| logline_core::json::parse(line.as_bytes()).ok()).collect();
        if lines.len() > 1 || parsed.iter().all(|one| one.as_ref().is_some_and(|one| one.get("tests").is_none())) {
            return Ok(parsed.into_iter().map(Option::unwrap_or_default).collect());
        }
    }
    let whole: Value = match logline_core::json::parse(text.as_bytes()) {
        Ok(whole) => whole,
        Err(_) => serde_saphyr::from_str(text).map_err(|error| format!("it is neither JSON nor YAML: {error}"))?,
    };
    match whole {
        Value::Array(entries) => Ok(entries),
        Value::Object(mut members) => match members.remove("tests").or_else(|| members.remove("data")) {
            Some(Value::Array(entries)) => Ok(entries),
            _ => Err("it has no list, and no list `tests` or `data`".to_owned()),
        },
        _ => Err("it has no list".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_lines_and_configurations_are_read() {
        let two = |text: &str| assert_eq!(entries(text).unwrap().len(), 2, "{text}");
        two("[{\"a\":1},{\"a\":2}]");
        two("{\"a\":1}\n{\"a\":2}\n");
        two("{\"a\":1}\n{\"a\":\n");
        two(
            "prompts: [x]\ntests:\n  - vars: {question: a}\n    assert:\n      - type: contains\n        value: a\n  - vars: {question: b}\n",
        );
        two("- a: 1\n- a: 2\n");
        two("{\n  \"data\": [1, 2]\n}");
        for bad in ["", "5", "a: [", "tests: 5", "{\n \"tests\": {}\n}"] {
            assert!(entries(bad).is_err(), "{bad}");
        }
    }

    /// A few lines that stand for gigabytes.
    #[test]
    fn aliases_of_aliases_of_aliases_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let before = n - 1;
            bomb.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{before}"); 10].join(", ")));
        }
        assert!(entries(&bomb).is_err());
    }
}
