//! Prints the results of the commands.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use logline_core::SignedSpan;
use serde_json::{Value, json};

/// Reports that the command could not be carried out. Returns exit status 2.
pub(crate) fn failed(error: &dyn std::error::Error, json: bool) -> ExitCode {
    if json {
        note(&json!({"error": error.to_string()}).to_string());
    } else {
        note(&format!("logline: {error}"));
    }
    ExitCode::from(2)
}

/// Prints one line on standard output. If its reader has gone (`… | head`), nobody is left to read more, so the process ends.
pub(crate) fn line(text: &str) {
    if writeln!(io::stdout().lock(), "{text}").is_err() {
        std::process::exit(2);
    }
}

/// Prints one line on standard error. A full disk, or a reader that has gone, must not stop the command.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Shows a text of a row on one line. The author of the row must not be able to write further lines, or control codes for the
/// terminal.
pub(crate) fn plain(text: &str) -> String {
    let shown = |c: char| if is_control(c) { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Control characters, and characters that change the direction of text.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Creates a file to export to. An earlier export, or an empty file, is overwritten. Any other file, such as a ledger or a key,
/// is not.
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
        return Err(format!("`{}` exists and is not an export: remove it, or export to another file", path.display()).into());
    }
    Ok(File::create(path).map_err(named)?)
}

/// Prints one span: as the canonical row with `json`, otherwise as one readable line.
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

/// Prints every column of one span, one on each line.
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

/// Shows progress on standard error, if that is a terminal. The next call overwrites the line.
pub(crate) fn progress(what: &str, count: u64) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        // Progress that cannot be shown is not a failure.
        let _ = write!(err, "\r{what} {count}\u{1b}[K").and_then(|()| err.flush());
    }
}

pub(crate) fn end_progress() {
    if io::stderr().is_terminal() {
        note("");
    }
}
