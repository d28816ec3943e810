//! The record in the lock store: the last signed checkpoint, and how far the ledger has been read for it.
//!
//! ```text
//! logline-log-lock@v1
//! {"after":"CURSOR","before":"CURSOR"}
//!
//! the signed checkpoint
//! ```

use logline_core::json;
use logline_core::ledger::Cursor;
use serde_json::Value;

use crate::integrator::error::IntegrateError;
use crate::note::Note;

const FIRST: &str = "logline-log-lock@v1";

/// Cursor and checkpoint change in one swap, so that no span is entered twice or left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LockRecord {
    /// The position before the last row that was entered, so that this row can be read again; `None` if it is the first.
    pub(super) before: Option<Cursor>,
    /// The position of the last row that was entered; `None` if there is none.
    pub(super) after: Option<Cursor>,
    /// The checkpoint with the log's signature.
    pub(super) checkpoint: Note,
}

impl LockRecord {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let text = |cursor: &Option<Cursor>| cursor.as_ref().map_or(Value::Null, |cursor| cursor.as_str().into());
        let cursors = serde_json::json!({"after": text(&self.after), "before": text(&self.before)});
        format!("{FIRST}\n{cursors}\n\n{}", self.checkpoint).into_bytes()
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, IntegrateError> {
        let damaged = |reason: &str| IntegrateError::Record { reason: reason.to_owned() };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not utf-8"))?;
        let (head, note) = text.split_once("\n\n").ok_or_else(|| damaged("it has no checkpoint"))?;
        let cursors = head
            .strip_prefix(FIRST)
            .and_then(|rest| rest.strip_prefix('\n'))
            .ok_or_else(|| damaged("it is of another version"))?;
        let cursors = json::parse(cursors.as_bytes()).map_err(|error| damaged(&error.to_string()))?;
        let cursor = |name: &str| match cursors.get(name) {
            Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(Cursor::from_text(text.as_str()))),
            _ => Err(damaged("it has no cursors")),
        };
        Ok(Self { before: cursor("before")?, after: cursor("after")?, checkpoint: Note::parse(note.as_bytes())? })
    }
}
