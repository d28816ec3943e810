//! Imports lines into a ledger. Good lines are appended, bad lines are reported. Unless the caller asks for resealing, no
//! signed span is altered.

use std::io::{self, BufRead};

use thiserror::Error;

use crate::audit::ndjson::importer::{Importer, MAX_REFUSED};
use crate::audit::ndjson::{Line, LineReader};
use crate::keys::Signer;
use crate::ledger::{Ledger, LedgerError};
use crate::span::rules::{InvalidSpan, Rules};
use crate::span::seal::{SealError, VerifyError};
use crate::trust::{Logs, NotAuthorised, TrustError, TrustRoot};
use crate::value::clock::Clock;

/// The options of an import.
pub struct Import<'a> {
    /// Seals unsigned lines. If `None`, unsigned lines are refused.
    pub signer: Option<&'a dyn Signer>,
    /// The time of unsigned lines that have none.
    pub clock: &'a dyn Clock,
    /// The tenant of unsigned lines that have none.
    pub tenant: Option<String>,
    /// The owner of unsigned lines that have none.
    pub owner: Option<String>,
    /// Whether `signer` seals signed lines again if their own seal is invalid, and the later versions of their chains with
    /// them.
    pub reseal: bool,
    /// Whether members of unsigned lines that are not columns are moved below `metadata.imported`. Otherwise such lines are
    /// refused.
    pub keep_unknown: bool,
    /// The pinned trust root. If `None`, signatures are checked, but not who may sign. Manifests, approvals and delegations take
    /// effect as they are imported, so an export can be imported into an empty ledger. A line whose signer may not sign yet waits
    /// for those that follow, as `fsck` judges the whole ledger by its newest manifest; its place in append order is then later.
    pub trust: Option<&'a TrustRoot>,
    /// The transparency logs in which a manifest may end keys. Without them, lines that an ended key has signed are refused.
    pub logs: Option<&'a dyn Logs>,
    /// The limits that every line must keep.
    pub rules: Rules,
}

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Imported {
    /// Lines read, blank ones not counted.
    pub lines: u64,
    /// Spans appended.
    pub appended: u64,
    /// Spans that the ledger had already.
    pub existing: u64,
    /// Lines refused.
    pub refused: u64,
    /// How many of the appended spans the importing key has sealed.
    pub sealed: u64,
    /// Whether it was checked that each signer was allowed to sign.
    pub authority_checked: bool,
    /// Promotions in the ledger that no quorum has approved, if there was a promotion to import and a trust root to check it by. Hosts
    /// do not obey them.
    pub void_promotions: u64,
    /// Rows in the ledger that do not count, because a manifest that was imported has ended their keys before them. Where the logs cannot be
    /// read, these are all rows of those keys.
    pub after_end: u64,
}

/// A line that was refused.
#[derive(Debug, Error)]
#[error("line {line}: {error}")]
#[non_exhaustive]
pub struct BadLine {
    /// The number of the line, counted from 1.
    pub line: u64,
    /// Why it was refused.
    pub error: LineError,
}

/// Why a line was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LineError {
    /// It breaks an input rule.
    #[error(transparent)]
    Invalid(#[from] InvalidSpan),
    /// A column of its seal is not one of this library's.
    #[error("{0}; if another system has sealed it, pass --reseal to seal it again with the importing key")]
    OtherSeal(InvalidSpan),
    /// It has a member that is not a column.
    #[error("{0}, or pass --keep-unknown to have it moved there")]
    UnknownColumn(InvalidSpan),
    /// It is signed, and its seal is invalid.
    #[error("{0}; pass --reseal to seal it again with the importing key")]
    Verify(#[from] VerifyError),
    /// Its signer may not sign a span of this type.
    #[error(transparent)]
    NotAuthorised(#[from] Box<NotAuthorised>),
    /// It is a promotion that says nothing that a host could obey.
    #[error("it is a promotion that cannot be read: {reason}")]
    Promotion {
        /// What is wrong.
        reason: String,
    },
    /// It is unsigned and there is no key to seal it.
    #[error("it is unsigned and no key was given to seal it: pass --key")]
    NoKey,
    /// It has no tenant or owner.
    #[error("column `{column}` is missing: add it to the line, or pass --{flag}")]
    MissingScope {
        /// The missing column: `tenant_id` or `owner_id`.
        column: &'static str,
        /// The option of the command line that sets it, without the dashes.
        flag: &'static str,
    },
    /// An unsigned version that does not follow the last one.
    #[error("unsigned seq {seq} does not follow seq {head}, the last version in the ledger: put the versions in order")]
    Order {
        /// The `seq` of the line.
        seq: u32,
        /// The `seq` of the last version in the ledger.
        head: u32,
    },
    /// An earlier version of its chain was refused.
    #[error("a version of this id before it was refused on line {line}")]
    PredecessorRefused {
        /// The number of the line that was refused.
        line: u64,
    },
    /// It would begin a chain with a version after 0, and an earlier line could not be read at all.
    #[error("line {line} could not be read and may be the version before it: correct that line first")]
    MaybePredecessorRefused {
        /// The number of the line that was refused.
        line: u64,
    },
    /// The ledger refused it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The span could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Why an import stopped. What it has appended stays. To continue, run it again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The source could not be read.
    #[error("import could not be read: {0}")]
    Io(#[from] io::Error),
    /// The source is not NDJSON: no line of it can be a span.
    #[error("import could not be read: {0}")]
    Format(&'static str),
    /// The ledger failed, and no line is the cause.
    #[error("import stopped at line {line}: {source}")]
    Ledger {
        /// The first line that is perhaps not stored.
        line: u64,
        /// Why the ledger failed.
        source: LedgerError,
    },
    /// The manifest could not be resolved.
    #[error("import stopped: {0}")]
    Trust(Box<TrustError>),
    /// More ids were refused or sealed again than are kept in memory.
    #[error(
        "import stopped at line {line}: more than {MAX_REFUSED} ids were refused or sealed again; correct these lines first"
    )]
    TooManyRefused {
        /// The number of the line at which it stopped.
        line: u64,
    },
}

/// Looks at the beginning of the source. A byte order mark of UTF-8 is skipped. For other formats one error names the cause,
/// where otherwise every line would be refused.
fn check_format(source: &mut (dyn BufRead + Send)) -> Result<(), ImportError> {
    let start = loop {
        match source.fill_buf() {
            Ok(start) => break start,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    };
    let (start, mark) = start.strip_prefix(b"\xef\xbb\xbf").map_or((start, 0), |rest| (rest, 3));
    let text = start.trim_ascii_start();
    let first_line = text.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    let reason = match start {
        [0x1f, 0x8b, ..] => Some("it is compressed with gzip: run `gunzip` on it first"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("it is compressed with zstd: run `unzstd` on it first"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'{', 0, ..] | [0, b'{', ..] => Some("it is UTF-16: convert it to UTF-8 first"),
        _ if text.starts_with(b"[") => Some("it is a JSON array: write one span per line, as `jq -c '.[]'` does"),
        _ if first_line == b"{" && text.len() > 1 => {
            Some("its JSON is spread over several lines: write one span per line, as `jq -c .` does")
        }
        _ => None,
    };
    match reason {
        Some(reason) => Err(ImportError::Format(reason)),
        None => {
            source.consume(mark);
            Ok(())
        }
    }
}

/// Imports `source`, one span per line. It calls `on_bad` for each refused line, and `progress` with the number of lines read
/// after each batch. Memory does not grow with the source.
///
/// Importing the same lines again changes nothing, if the versions of each id are in their order. Otherwise a second import finds
/// the predecessor of a version that the first one refused.
///
/// # Errors
/// If the source or the ledger fails. A bad line is not an error.
pub async fn import(
    ledger: &dyn Ledger,
    source: &mut (dyn BufRead + Send),
    import: &Import<'_>,
    on_bad: &mut (dyn FnMut(BadLine) + Send),
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Imported, ImportError> {
    let mut importer = Importer::new(ledger, import, on_bad);
    importer.resolve().await?;
    check_format(source)?;
    let mut lines = LineReader::new(source, import.rules.max_line_bytes());
    while let Some(line) = lines.next_line()? {
        match line {
            Line::Whole(_, bytes) if bytes.iter().all(u8::is_ascii_whitespace) => {}
            Line::Whole(number, bytes) => importer.line(number, bytes).await?,
            Line::TooLong(number) => {
                importer.report.lines += 1;
                let max = import.rules.max_line_bytes();
                importer.refuse(number, None, InvalidSpan::TooLarge { bytes: max + 1, max }.into())?;
            }
        }
        if importer.has_batch() {
            importer.flush().await?;
            progress(importer.report.lines);
        }
    }
    importer.flush().await?;
    importer.release(true).await?;
    importer.flush().await?;
    importer.check_promotions().await?;
    importer.check_ends().await?;
    progress(importer.report.lines);
    Ok(importer.report)
}
