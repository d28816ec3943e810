//! Prints the results of the commands.

use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use logline_core::SignedSpan;
use serde_json::{Value, json};

/// Whether the reader of a pipe has gone, as in `… | head`.
fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.filter_map(|error| error.downcast_ref::<io::Error>()).any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Reports that the command could not be carried out. Returns exit status 2. If the reader of standard output has gone, it has read
/// what it wanted: that is no failure.
pub(crate) fn failed(error: &(dyn std::error::Error + 'static), json: bool) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    if json {
        note(&json!({"error": error.to_string()}).to_string());
    } else {
        note(&format!("logline: {error}"));
    }
    ExitCode::from(2)
}

/// Prints one line on standard output. If its reader has gone (`… | head`), nobody is left to read more, so the process ends. If it
/// cannot be written (a full disk), the process ends as well, and says so.
pub(crate) fn line(text: &str) {
    raw(&plain(text));
}

/// As [`line()`], for text of our own that may have several lines.
pub(crate) fn raw(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        if error.kind() == io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        note(&format!("logline: standard output: {error}"));
        std::process::exit(2);
    }
}

/// Prints a line that a person reads before an answer: on standard output, or on standard error if a program reads standard output.
pub(crate) fn shown(text: &str, json: bool) {
    match json {
        true => drop(writeln!(io::stderr().lock(), "{}", plain(text))),
        false => line(text),
    }
}

/// Reads a file, or standard input if it is named `-`. A file with more than `most` bytes is refused.
pub(crate) fn text_of(path: &Path, most: u64) -> Result<String, crate::Error> {
    let named = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let source: Box<dyn io::Read> = match path.to_str() {
        Some("-") => Box::new(io::stdin()),
        _ => Box::new(File::open(path).map_err(|error| named(&error))?),
    };
    let mut text = String::new();
    source.take(most + 1).read_to_string(&mut text).map_err(|error| named(&error))?;
    if text.len() as u64 > most {
        return Err(named(&format!("it has more than {most} bytes")).into());
    }
    Ok(text)
}

/// Asks a question on standard error. Whether the answer on standard input is `yes`.
pub(crate) fn is_yes(question: &str) -> io::Result<bool> {
    let mut err = io::stderr().lock();
    write!(err, "{} type `yes`: ", plain(question)).and_then(|()| err.flush())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// Prints one line on standard error. A full disk, or a reader that has gone, must not stop the command.
pub(crate) fn note(text: &str) {
    let text = plain(text);
    // A row may have put a long text into an error.
    let cut: String = text.chars().take(MAX_NOTE).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    let _ = writeln!(io::stderr().lock(), "{cut}{more}");
}

/// The most characters of a note.
const MAX_NOTE: usize = 4000;

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

/// A file that is being written. A regular file is written beside the one that it replaces, so that an export which fails leaves an
/// earlier one as it was.
pub(crate) struct Output {
    file: File,
    /// The temporary file and the one that it becomes; `None` if `file` is not a regular file and is written directly.
    replaces: Option<(PathBuf, PathBuf)>,
}

impl Output {
    /// Opens a file to export to. An earlier export, or an empty file, will be replaced. Any other file, such as a ledger or a key, is
    /// not. A pipe or a device is written directly.
    pub(crate) fn create(path: &Path) -> Result<Self, crate::Error> {
        let named = |e: io::Error| format!("{}: {e}", path.display());
        match std::fs::metadata(path) {
            Ok(found) if !found.is_file() && !found.is_dir() => {
                let file = File::options().write(true).open(path).map_err(named)?;
                return Ok(Self { file, replaces: None });
            }
            Ok(_) => {
                let mut start = [0; 6];
                let length = File::open(path).and_then(|mut file| file.read(&mut start)).map_err(named)?;
                let earlier =
                    [b"{\"at\":".as_slice(), b"{\"chai", b"{\"curr"].iter().any(|beginning| start.starts_with(beginning));
                if length > 0 && !earlier {
                    let advice = "exists and is not an export: remove it, or export to another file";
                    return Err(format!("`{}` {advice}", path.display()).into());
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(named(e).into()),
        }
        // A link is followed, so that it still is one afterwards.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = path.file_name().ok_or_else(|| format!("`{}` has no file name", path.display()))?.to_string_lossy();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let beside = path.with_file_name(format!(".{name}.{}.{number}.part", std::process::id()));
        let file =
            File::options().write(true).create_new(true).open(&beside).map_err(|e| format!("{}: {e}", beside.display()))?;
        Ok(Self { file, replaces: Some((beside, path)) })
    }

    /// Whether both are, or will be, the same file, however their paths are spelt.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.replaces, &other.replaces) {
            (Some((_, a)), Some((_, b))) => a == b || identity(a).is_some_and(|a| Some(a) == identity(b)),
            _ => false,
        }
    }

    /// The file to write to.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Makes what was written durable, and puts it in the place of the earlier file.
    pub(crate) fn finish(mut self) -> Result<(), crate::Error> {
        let Some((beside, path)) = self.replaces.take() else { return Ok(()) };
        let replaced = self.file.sync_all().and_then(|()| std::fs::rename(&beside, &path)).and_then(|()| sync_folder(&path));
        if let Err(e) = replaced {
            // It may have been renamed already.
            let _ = std::fs::remove_file(&beside);
            return Err(format!("{}: {e}", path.display()).into());
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((beside, _)) = &self.replaces {
            // Nothing of an export that was not finished stays.
            let _ = std::fs::remove_file(beside);
        }
    }
}

/// A folder and a name in it, whichever way the folder is spelt.
fn identity(path: &Path) -> Option<(PathBuf, std::ffi::OsString)> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some((std::fs::canonicalize(folder).ok()?, path.file_name()?.to_owned()))
}

/// Makes a rename in the folder of `path` durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Prints one span: as the canonical row with `json`, otherwise as one readable line.
pub(crate) fn span(span: &SignedSpan, json: bool) -> io::Result<()> {
    span_of(span, None, json)
}

/// The same, with the name of the function that it is about, as requests and executions have none of their own.
pub(crate) fn span_of(span: &SignedSpan, function: Option<&str>, json: bool) -> io::Result<()> {
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
            plain(&span.entity_type),
            plain(&span.key().to_string()),
            plain(span.status.as_deref().unwrap_or("-")),
            hash,
            match (span.name.as_deref(), function) {
                (None, Some(function)) => format!("{} {}", plain(&span.this), plain(function)),
                (name, _) => plain(name.unwrap_or(&span.this)),
            }
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
