//! Reads the members of objects that people and other programs have written.

use logline_core::{Timestamp, json as strict};
use serde_json::{Map, Value};
use uuid::Uuid;

/// The most bytes of a name: of a tag, a key, a session, a schema, or a member that is a short text.
pub const MAX_NAME: usize = 256;

/// Reads the members of an object, and refuses those that it does not know.
pub(crate) struct Members<'v> {
    what: &'static str,
    members: &'v Map<String, Value>,
}

impl<'v> Members<'v> {
    pub(crate) fn of(value: Option<&'v Value>, what: &'static str, known: &[&str]) -> Result<Self, String> {
        Ok(Self { what, members: strict::members(value, what, known)? })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'v Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, name: &str, max: usize) -> Result<Option<&'v str>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() && text.len() <= max && !text.contains('\0') => Ok(Some(text)),
            Some(_) => Err(format!("{}: `{name}` must be a text of 1 to {max} bytes without NUL", self.what)),
        }
    }

    pub(crate) fn needed(&self, name: &str, max: usize) -> Result<&'v str, String> {
        self.text(name, max)?.ok_or_else(|| format!("{}: `{name}` is missing", self.what))
    }

    pub(crate) fn one<T: std::str::FromStr<Err = String>>(&self, name: &str) -> Result<T, String> {
        self.needed(name, MAX_NAME)?.parse().map_err(|reason| format!("{}: `{name}`: {reason}", self.what))
    }

    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, String> {
        let text = self.text(name, MAX_NAME)?;
        text.map(|text| text.parse().map_err(|e| format!("{}: `{name}`: {e}", self.what))).transpose()
    }

    pub(crate) fn id(&self, name: &str) -> Result<Option<Uuid>, String> {
        let text = self.text(name, MAX_NAME)?;
        text.map(|text| text.parse().map_err(|e| format!("{}: `{name}`: {e}", self.what))).transpose()
    }
}
