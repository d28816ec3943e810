//! What the commands print.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use logline_core::SignedSpan;
use serde_json::{Value, json};

/// Reports that the command could not be carried out.
pub(crate) fn failed(error: &dyn std::error::Error, json: bool) -> ExitCode {
    if json {
        note(&json!({"error": error.to_string()}).to_string());
    } else {
        note(&format!("logline: {error}"));
    }
    ExitCode::from(2)
}

/// One line on standard output. Whoever reads it may have gone (`… | head`): then there is nobody left to tell anything.
pub(crate) fn line(text: &str) {
    if writeln!(io::stdout().lock(), "{text}").is_err() {
        std::process::exit(2);
    }
}

/// One line on standard error. A full disk or a reader that has gone must not stop the work it is about.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A text of a row on one line: whoever wrote the row must not be able to write lines, or to the terminal.
pub(crate) fn plain(text: &str) -> String {
    let shown = |c: char| if is_control(c) { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Control characters, and those that turn the direction of writing.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Creates a file to export to. An earlier export, or an empty file, is overwritten; anything else that stands there (a ledger, a
/// key) is not.
pub(crate) fn create(path: &Path) -> Result<File, crate::Error> {
    let named = |e: io::Error| format!("{}: {e}", path.display());
    let mut start = [0; 6];
    let length = match File::open(path) {
        Ok(mut file) => file.read(&mut start).map_err(named)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        Err(e) => return Err(named(e).into()),
    };
    let earlier = [b"{\"at\":".as_slice(), b"{\"chai", b"{\"curr"].iter().any(|beginning| start.starts_with(beginning));
    if length > 0 && !earlier {
        return Err(format!("{} exists and is no export: remove it, or export to another file", path.display()).into());
    }
    Ok(File::create(path).map_err(named)?)
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
            plain(&span.key().to_string()),
            plain(span.status.as_deref().unwrap_or("-")),
            hash,
            plain(span.name.as_deref().unwrap_or(&span.this))
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
        let shown = plain(&text.chars().take(400).collect::<String>());
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
        note("");
    }
}
