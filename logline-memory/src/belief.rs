//! Which rows count. Whoever can write to the store can write rows, so that of everything that gives a right, destroys a key, is signed by a
//! host or is handed out, hash, signature and signer are checked first.

use std::ops::Deref;

use logline_core::contract::Reader;
use logline_core::ledger::{LedgerError, Query};
use logline_core::trust::Authorities;
use logline_core::{Draft, Hash, SignedSpan, VerifiedSpan, Verifier};
use uuid::Uuid;

/// How many rows that nobody believes are passed over to find one that counts.
const MAX_DOUBTED: u32 = 1000;

/// A row, if a key that may sign it has signed it.
pub(crate) fn accepted(authorities: &Authorities, verifier: &mut Verifier, row: SignedSpan) -> Option<VerifiedSpan> {
    row.verify(verifier).ok().filter(|row| authorities.check(row).is_ok())
}

/// The latest version of a span that counts. Rows after it that do not count belong to its chain all the same.
#[derive(Debug, Clone)]
pub(crate) struct Believed {
    version: VerifiedSpan,
    /// `seq` and hash of the last row.
    last: (u32, Hash),
}

impl Deref for Believed {
    type Target = VerifiedSpan;

    fn deref(&self) -> &VerifiedSpan {
        &self.version
    }
}

impl Believed {
    /// A draft of the next version: with the columns of the version that counts, after the last row.
    pub(crate) fn next(&self) -> Draft {
        Draft::next_version(&self.version).seq(self.last.0.saturating_add(1)).follows(self.last.1)
    }
}

/// The latest version that counts, where `last` is the last row of its span.
pub(crate) async fn latest(
    reader: &Reader<'_>,
    authorities: &Authorities,
    last: SignedSpan,
) -> Result<Option<Believed>, LedgerError> {
    let (tenant, id, end) = (last.tenant_id.clone(), last.id, (last.seq, last.seal.curr_hash));
    let mut verifier = Verifier::new();
    if let Some(version) = accepted(authorities, &mut verifier, last) {
        return Ok(Some(Believed { version, last: end }));
    }
    tracing::warn!(tenant, %id, "the last version of a span is not to be believed: an earlier one is looked for");
    for seq in (end.0.saturating_sub(MAX_DOUBTED)..end.0).rev() {
        let Some(row) = reader.version(&tenant, id, seq).await? else { break };
        if let Some(version) = accepted(authorities, &mut verifier, row) {
            return Ok(Some(Believed { version, last: end }));
        }
    }
    Ok(None)
}

/// The latest version of a span that counts.
pub(crate) async fn find(
    reader: &Reader<'_>,
    authorities: &Authorities,
    tenant: &str,
    id: Uuid,
) -> Result<Option<Believed>, LedgerError> {
    match reader.find(tenant, id).await? {
        Some(last) => latest(reader, authorities, last).await,
        None => Ok(None),
    }
}

/// A draft of the next version of a span, or of its first one, which `fresh` makes.
pub(crate) async fn next_of(
    reader: &Reader<'_>,
    authorities: &Authorities,
    (tenant, id): (&str, Uuid),
    fresh: impl FnOnce() -> Draft,
) -> Result<Draft, LedgerError> {
    let Some(last) = reader.find(tenant, id).await? else { return Ok(fresh().id(id)) };
    let end = (last.seq, last.seal.curr_hash);
    Ok(match latest(reader, authorities, last).await? {
        Some(before) => before.next(),
        None => fresh().id(id).seq(end.0.saturating_add(1)).follows(end.1),
    })
}

/// Looks at the latest version that counts of each span of a query, which is one for last versions, until `look` returns false.
pub(crate) async fn each(
    reader: &Reader<'_>,
    authorities: &Authorities,
    query: &Query,
    mut look: impl FnMut(Believed) -> bool,
) -> Result<(), LedgerError> {
    let mut cursor = None;
    loop {
        let page = reader.scan(query, cursor.as_ref()).await?;
        for row in page.rows {
            if let Some(believed) = latest(reader, authorities, row.span?).await?
                && !look(believed)
            {
                return Ok(());
            }
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
}
