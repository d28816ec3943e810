//! What the commands print.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use logline_core::SignedSpan;
use serde_json::{Value, json};

/// Reports that the command could not be carried out.
pub(crate) fn failed(error: &dyn std::error::Error, json: bool) -> ExitCode {
    if json {
        eprintln!("{}", json!({"error": error.to_string()}));
    } else {
        eprintln!("logline: {error}");
    }
    ExitCode::from(2)
}

/// One line on standard output. Whoever reads it may have gone (`… | head`): then there is nobody left to tell anything.
pub(crate) fn line(text: &str) {
    if writeln!(io::stdout().lock(), "{text}").is_err() {
        std::process::exit(2);
    }
}

/// One span: the canonical row for machines, one readable line otherwise.
pub(crate) fn span(span: &SignedSpan, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        out.write_all(&span.to_line())?;
        writeln!(out)
    } else {
        let hash = span.seal.curr_hash.to_string();
        writeln!(
            out,
            "{}  {:<16} {}  {:<10} {:.8}  {}",
            span.at,
            span.entity_type,
            span.key(),
            span.status.as_deref().unwrap_or("-"),
            hash,
            span.name.as_deref().unwrap_or(&span.this)
        )
    }
}

/// Every column of one span, for people.
pub(crate) fn columns(span: &SignedSpan) -> io::Result<()> {
    let row: Value = serde_json::from_slice(&span.to_line()).map_err(io::Error::from)?;
    let mut out = io::stdout().lock();
    for (column, value) in row.as_object().into_iter().flatten() {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let cut = text.chars().count() > 400;
        let shown: String = text.chars().take(400).collect();
        writeln!(out, "{column:<12} {shown}{}", if cut { "… (--json prints all)" } else { "" })?;
    }
    Ok(())
}

/// A line of progress on a terminal's standard error, overwritten by the next.
pub(crate) fn progress(what: &str, count: u64) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        // Progress that cannot be shown is no failure.
        let _ = write!(err, "\r{what} {count}\u{1b}[K").and_then(|()| err.flush());
    }
}

pub(crate) fn end_progress() {
    if io::stderr().is_terminal() {
        eprintln!();
    }
}
