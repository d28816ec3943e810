//! The difference between two versions of a span, line by line.

use logline_core::SignedSpan;
use serde_json::{Map, Value};

/// The most lines of a part that are compared line by line. Where there are more, the whole part is shown as replaced.
const MAX_LINES: usize = 2_000;

/// Columns that differ in every version and say nothing of its content.
const OWN: &[&str] = &["seq", "at", "prev_hash", "curr_hash", "signature", "public_key", "duration_ms", "trace_id"];

/// What changes from one version to the next: column by column, lines that go with `-` and lines that come with `+`.
pub(crate) fn difference(from: Option<&SignedSpan>, to: &SignedSpan) -> Vec<String> {
    let (before, after) = (from.map(columns).unwrap_or_default(), columns(to));
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let mut out = Vec::new();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old == new {
            continue;
        }
        out.push(format!("@@ {name}"));
        out.extend(lines(&text(old), &text(new)));
    }
    out
}

fn columns(span: &SignedSpan) -> Map<String, Value> {
    let row: Value = serde_json::from_slice(&span.to_line()).unwrap_or_default();
    let Value::Object(mut row) = row else { return Map::new() };
    row.retain(|name, _| !OWN.contains(&name.as_str()));
    row
}

fn text(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => serde_json::to_string_pretty(value).unwrap_or_default(),
    }
}

/// The lines that go and those that come, with one line around them.
fn lines(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (old.get(start..).unwrap_or_default(), new.get(start..).unwrap_or_default());
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let old = old.get(..old.len().saturating_sub(end)).unwrap_or_default();
    let new = new.get(..new.len().saturating_sub(end)).unwrap_or_default();
    if old.len() > MAX_LINES || new.len() > MAX_LINES {
        let gone = old.iter().map(|line| format!("- {line}"));
        return gone.chain(new.iter().map(|line| format!("+ {line}"))).collect();
    }
    by_common(old, new)
}

/// Compares by the longest common subsequence.
fn by_common(old: &[&str], new: &[&str]) -> Vec<String> {
    let width = new.len() + 1;
    let mut longest = vec![0_u32; (old.len() + 1) * width];
    let at = |longest: &[u32], i: usize, j: usize| longest.get(i * width + j).copied().unwrap_or(0);
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let best = match a == b {
                true => at(&longest, i + 1, j + 1) + 1,
                false => at(&longest, i + 1, j).max(at(&longest, i, j + 1)),
            };
            if let Some(cell) = longest.get_mut(i * width + j) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    loop {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a == b => {
                out.push(format!("  {a}"));
                (i, j) = (i + 1, j + 1);
            }
            (Some(a), b) if b.is_none() || at(&longest, i + 1, j) >= at(&longest, i, j + 1) => {
                out.push(format!("- {a}"));
                i += 1;
            }
            (_, Some(b)) => {
                out.push(format!("+ {b}"));
                j += 1;
            }
            _ => return out,
        }
    }
}
