//! Lists of logs in which a key ends. A key of many tenants has rows in more logs than a manifest has room for, so they stand in blobs, and
//! the manifest names the hash of each.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::keys::{Signer, Verifier};
use crate::ledger::scope::Scope;
use crate::ledger::{Ledger, LedgerError};
use crate::roles::Role;
use crate::span::draft::Draft;
use crate::span::{SYSTEM_TENANT, SignedSpan};
use crate::trust::{Ended, LogEnd, MAX_ENDED_LOGS, TrustError, TrustRoot, own};
use crate::value::clock::Clock;
use crate::value::hex::Hash;
use crate::value::ids;

/// The most lists of one end. With [`MAX_ENDED_LOGS`] in each they hold a million logs.
pub const MAX_LISTS: usize = 256;

/// A blob in tenant `system` whose `content.logs` are places in logs. Its hash covers them, so it does not matter who has signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogList {
    /// The id of the blob, whose version 0 it is.
    pub id: Uuid,
    /// The hash of that version.
    pub curr_hash: Hash,
}

impl LogList {
    fn read(self, row: &SignedSpan) -> Result<Vec<LogEnd>, String> {
        let wrong = |reason: &str| Err(format!("list of logs {}: {reason}", self.id));
        if row.seal.curr_hash != self.curr_hash || row.check(&mut Verifier::new()).is_err() {
            return wrong("it is another one than the manifest names");
        }
        let logs = row.content.as_ref().and_then(|content| content.get("logs")).cloned();
        match logs.map(serde_json::from_value::<Vec<LogEnd>>) {
            Some(Ok(logs)) if logs.len() <= MAX_ENDED_LOGS => Ok(logs),
            Some(Ok(_)) => wrong("it is too long"),
            Some(Err(error)) => wrong(&error.to_string()),
            None => wrong("it has no `content.logs`"),
        }
    }
}

impl Ended {
    /// Puts the logs of its lists in its `logs`, from rows of an export. Of a log that is named twice the first place counts. The second value says which lists are missing or are other ones
    /// than it names: nothing counts that stands in their logs.
    #[must_use]
    pub fn with_lists<'a>(&self, rows: impl IntoIterator<Item = &'a SignedSpan>) -> (Self, Vec<String>) {
        let mut whole = self.clone();
        let rows: Vec<_> = rows.into_iter().filter(|row| row.seq == 0 && row.tenant_id == SYSTEM_TENANT).collect();
        let (mut seen, mut missing) = (HashSet::new(), Vec::new());
        seen.extend(whole.logs.iter().map(|log| log.origin.clone()));
        for list in std::mem::take(&mut whole.lists) {
            match rows.iter().find(|row| row.id == list.id).map(|row| list.read(row)) {
                Some(Ok(logs)) => whole.logs.extend(logs.into_iter().filter(|log| seen.insert(log.origin.clone()))),
                Some(Err(reason)) => missing.push(reason),
                None => missing.push(format!("list of logs {} is not there", list.id)),
            }
        }
        (whole, missing)
    }
}

/// As [`Ended::with_lists`], from the ledger.
pub(super) async fn expand(ledger: &dyn Ledger, ended: &Ended) -> Result<(Ended, Vec<String>), LedgerError> {
    let mut rows = Vec::new();
    for list in &ended.lists {
        rows.extend(ledger.history(&Scope::runtime(SYSTEM_TENANT), SYSTEM_TENANT, list.id, 0, 1).await?);
    }
    Ok(ended.with_lists(&rows))
}

impl TrustRoot {
    /// Appends the lists in which an end names many logs, signed by a publisher of `system`, in the order of `logs`. Calling it again with
    /// the same logs and key changes nothing.
    ///
    /// # Errors
    /// [`TrustError::NotAPublisher`] if the key may not publish in `system`, [`TrustError::Occupied`] if somebody else's span has the id of
    /// a list, and the errors of [`TrustRoot::resolve`].
    pub async fn list_logs(
        &self,
        ledger: &dyn Ledger,
        logs: &[LogEnd],
        signer: &dyn Signer,
        clock: &dyn Clock,
    ) -> Result<Vec<LogList>, TrustError> {
        let (key, now) = (signer.public_key(), clock.now());
        if !self.resolve(ledger).await?.authorities.has(&key, Role::Publisher, SYSTEM_TENANT, now) {
            return Err(TrustError::NotAPublisher { key });
        }
        let mut lists = Vec::new();
        for logs in logs.chunks(MAX_ENDED_LOGS) {
            let content = json!({"logs": logs});
            let id = ids::derive("log_list", &[&Hash::of(content.to_string().as_bytes()).to_string()]);
            let draft = Draft::new("blob").id(id).tenant(SYSTEM_TENANT).owner(SYSTEM_TENANT).who("publisher").this("blob.logs");
            let span = draft.content(content).at(now).deterministic().seal(signer).await?;
            let stored = own::append_own(ledger, span).await?.ok_or(TrustError::Occupied { id })?;
            lists.push(LogList { id, curr_hash: stored.seal.curr_hash });
        }
        Ok(lists)
    }

    /// Checks that the lists of a manifest's ends are there: without them nothing of these keys would count.
    pub(super) async fn check_lists(&self, ledger: &dyn Ledger, ended: &[Ended]) -> Result<(), TrustError> {
        for end in ended {
            let (_, missing) = expand(ledger, end).await?;
            if let Some(reason) = missing.into_iter().next() {
                return Err(TrustError::MissingList { reason });
            }
        }
        Ok(())
    }
}
