//! The end of a key. It is a position in a transparency log, not a time: whoever has stolen the key also writes the times of what it
//! signs, but cannot put a row before the end of a log that others have seen.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::ledger::{Ledger, LedgerError};
use crate::roles::Role;
use crate::span::SignedSpan;
use crate::trust::log_list::{self, LogList, MAX_LISTS};
use crate::trust::manifest::covers;
use crate::value::hex::{Hash, PublicKey};

/// The most logs that one end may name in the manifest itself. A manifest has room for about 5,000 of them. More are in lists:
/// [`LogList`].
pub const MAX_ENDED_LOGS: usize = 4096;

/// The end of a key, or of one of its rights. Rows that the key has signed count only if they are leaves before the end of one of these
/// logs. It stays in every later manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// The key.
    pub key: PublicKey,
    /// The role that ends; `None` for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The tenants in which it ends, by name. `*` means every tenant except `system`. Empty: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
    /// Where each log ends for the key. What is in no log of these and of `lists` does not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<LogEnd>,
    /// Blobs that hold more logs, for a key of many tenants. [`TrustRoot::list_logs`](crate::trust::TrustRoot::list_logs) makes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<LogList>,
}

/// The place in a log from which on the rows of a key do not count.
#[derive(Debug, Clone, PartialEq, Eq, std::hash::Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEnd {
    /// The log's origin.
    pub origin: String,
    /// The number of leaves that count: those from this index on do not.
    pub size: u64,
    /// The root of the tree of that size, from a checkpoint that was trusted before the theft: 64 lower-case hex digits of SHA-256.
    pub root: Hash,
}

impl Ended {
    /// The end of everything that `key` may sign.
    pub fn of_key(key: PublicKey, logs: impl IntoIterator<Item = LogEnd>) -> Self {
        Self { key, role: None, tenants: Vec::new(), logs: logs.into_iter().collect(), lists: Vec::new() }
    }

    /// Whether it ends `role` in `tenant`.
    #[must_use]
    pub fn ends(&self, role: Role, tenant: &str) -> bool {
        self.role.is_none_or(|ended| ended == role) && (self.tenants.is_empty() || covers(&self.tenants, tenant))
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let refuse = |reason: String| Err(format!("ended key {}: {reason}", self.key));
        if self.logs.is_empty() && self.lists.is_empty() {
            return refuse(
                "it names no log: without one it would end the past as well; keep the right, stop using the key, and begin a log".to_owned(),
            );
        }
        if self.logs.len() > MAX_ENDED_LOGS {
            return refuse(format!("it names {} logs, {MAX_ENDED_LOGS} is the most", self.logs.len()));
        }
        if self.lists.len() > MAX_LISTS {
            return refuse(format!("it names {} lists of logs, {MAX_LISTS} is the most", self.lists.len()));
        }
        let mut seen = HashSet::new();
        match self.logs.iter().find(|log| !seen.insert(log.origin.as_str())) {
            Some(log) => refuse(format!("it names the log `{}` twice", log.origin.escape_debug())),
            None => Ok(()),
        }
    }
}

/// Reads transparency logs: which rows of an ended key are older than its end. `logline_log` implements it from the files of a log.
///
/// # Contract
/// It answers from entries whose tree has exactly the root that the end names. What it cannot read or verify, it reports: no row of that
/// log counts then.
#[async_trait]
pub trait Logs: Send + Sync {
    /// The rows that `ended.key` has signed and that are leaves before the end in one of `ended.logs`.
    async fn before(&self, ended: &Ended) -> Before;
}

/// What logs say of the rows of an ended key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Before {
    /// The `curr_hash` of every row that is older than the end.
    pub rows: HashSet<Hash>,
    /// The logs that cannot be read, or are not the ones that the end names, and why.
    pub unread: Vec<String>,
}

/// The ends of keys, with the rows that are older.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ends(Arc<Vec<(Ended, HashSet<Hash>)>>);

impl Ends {
    /// Reads the logs for every end. A log that cannot be read counts as nothing: the key has ended, and nothing shows what is older. The
    /// second value says which could not be read.
    ///
    /// # Errors
    /// If the ledger fails: whoever has read the ends before goes on with those.
    pub(crate) async fn read(
        ledger: &dyn Ledger,
        ended: &[Ended],
        logs: Option<&dyn Logs>,
    ) -> Result<(Self, Vec<String>), LedgerError> {
        let (mut ends, mut unread) = (Vec::new(), Vec::new());
        for end in ended {
            let (whole, missing) = log_list::expand(ledger, end).await?;
            let mut before = match logs {
                Some(logs) => logs.before(&whole).await,
                None => Before { rows: HashSet::new(), unread: vec!["no log was given".to_owned()] },
            };
            before.unread.extend(missing);
            for reason in before.unread {
                tracing::error!(key = %end.key, reason, "the end of a key cannot be compared with a log: none of its rows there count");
                unread.push(format!("key {}: {reason}", end.key));
            }
            ends.push((end.clone(), before.rows));
        }
        Ok((Self(Arc::new(ends)), unread))
    }

    /// Whether `role` of `key` has ended in `tenant`.
    pub(crate) fn has_ended(&self, key: &PublicKey, role: Role, tenant: &str) -> bool {
        self.0.iter().any(|(end, _)| end.key == *key && end.ends(role, tenant))
    }

    /// Whether a row is older than every end of its signer's role.
    pub(crate) fn is_before(&self, row: &SignedSpan, role: Role) -> bool {
        let (key, tenant) = (&row.seal.public_key, row.tenant_id.as_str());
        let mut ends = self.0.iter().filter(|(end, _)| end.key == *key && end.ends(role, tenant));
        ends.all(|(_, before)| before.contains(&row.seal.curr_hash))
    }
}
