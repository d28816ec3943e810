//! Which rows count. Whoever can write to the store can write rows, so that of everything that gives a right, destroys a key, is signed by a
//! host or is handed out, hash, signature and signer are checked first. A row that does not count changes nothing: neither what it says nor
//! that it is the last one, or a tombstone, hides the rows before it.

use std::ops::Deref;
use std::vec;

use logline_core::contract::Reader;
use logline_core::ledger::{Cursor, LedgerError, Order, Premise, Query, Row, Versions};
use logline_core::trust::Authorities;
use logline_core::{Draft, Hash, SignedSpan, VerifiedSpan, Verifier};
use uuid::Uuid;

/// A row, if a key that may sign it has signed it.
pub(crate) fn accepted(authorities: &Authorities, verifier: &mut Verifier, row: SignedSpan) -> Option<VerifiedSpan> {
    row.verify(verifier).ok().filter(|row| authorities.check(row).is_ok())
}

/// The rows of a query, one after the other.
pub(crate) struct Rows<'r> {
    reader: &'r Reader<'r>,
    query: Query,
    page: vec::IntoIter<Row>,
    /// Where the next page begins; `None` after the last one.
    next: Option<Option<Cursor>>,
    reached: Option<Cursor>,
}

impl<'r> Rows<'r> {
    pub(crate) fn of(reader: &'r Reader<'r>, query: Query) -> Self {
        Self::after(reader, query, None)
    }

    /// The rows after this place.
    pub(crate) fn after(reader: &'r Reader<'r>, query: Query, place: Option<Cursor>) -> Self {
        Self { reader, query, page: Vec::new().into_iter(), next: Some(place.clone()), reached: place }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<SignedSpan>, LedgerError> {
        loop {
            if let Some(row) = self.page.next() {
                let span = row.span?;
                self.reached = Some(row.cursor);
                return Ok(Some(span));
            }
            let Some(place) = self.next.take() else { return Ok(None) };
            let page = self.reader.scan(&self.query, place.as_ref()).await?;
            self.page = page.rows.into_iter();
            self.next = page.next.map(Some);
        }
    }

    /// The place after the last row that was read, from which a later look goes on.
    pub(crate) fn reached(self) -> Option<Cursor> {
        self.reached
    }
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

    /// The `seq` of the last row that was seen, whether it counts or not.
    pub(crate) fn last_seq(&self) -> u32 {
        self.last.0
    }

    /// Relies on this version being the latest that counts: on nothing having come after what was seen.
    pub(crate) fn premise(&self) -> Result<Premise, LedgerError> {
        Ok(Premise::of(&self.version)?.followed_by(self.last.0, self.last.1))
    }
}

/// The last row of a span, whatever it is.
async fn head(reader: &Reader<'_>, tenant: &str, id: Uuid) -> Result<Option<SignedSpan>, LedgerError> {
    Rows::of(reader, Query::new().tenant(tenant).id(id).versions(Versions::Last)).next().await
}

/// The latest version that decides, tombstone or not, where `last` is the last row of its span.
async fn back_from(
    reader: &Reader<'_>,
    last: SignedSpan,
    decides: impl Fn(&VerifiedSpan) -> bool,
) -> Result<Option<Believed>, LedgerError> {
    let (tenant, id, end) = (last.tenant_id.clone(), last.id, (last.seq, last.seal.curr_hash));
    let mut verifier = Verifier::new();
    let mut decided = |row: SignedSpan| {
        let version = row.verify(&mut verifier).ok().filter(&decides)?;
        Some(Believed { version, last: end })
    };
    let mut seq = last.seq;
    if let Some(found) = decided(last) {
        return Ok(Some(found));
    }
    tracing::warn!(tenant, %id, "the last version of a span does not count: an earlier one is looked for");
    let mut rows = Rows::of(reader, Query::timeline().tenant(tenant).id(id).order(Order::Newest));
    while let Some(row) = rows.next().await? {
        if row.seq >= seq {
            continue;
        }
        // INVARIANT: a version that is hidden from the reader hides those before it as well.
        if row.seq.saturating_add(1) != seq {
            return Ok(None);
        }
        seq = row.seq;
        if let Some(found) = decided(row) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A span as one look saw it. What is decided about it and the next version that is made of it belong together: if the span was looked at
/// once more for the second, a row that came in between would be built upon without having been judged.
pub(crate) struct Seen {
    id: Uuid,
    /// The latest version that decides, tombstone or not.
    version: Option<Believed>,
    /// `seq` and hash of the last row.
    last: Option<(u32, Hash)>,
}

impl Seen {
    /// The latest version that decides; `None` if there is none, or if it is a tombstone.
    pub(crate) fn standing(&self) -> Option<&Believed> {
        self.version.as_ref().filter(|version| !version.is_deleted)
    }

    /// The latest version that decides, tombstone or not.
    pub(crate) fn into_version(self) -> Option<Believed> {
        self.version
    }

    /// A draft of the next version, or of the first one, which `fresh` makes. It is appended only if nothing has come since the look.
    pub(crate) fn next(&self, fresh: impl FnOnce() -> Draft) -> Draft {
        match (self.standing(), self.last) {
            (Some(before), _) => before.next(),
            (None, Some((seq, hash))) => fresh().id(self.id).seq(seq.saturating_add(1)).follows(hash),
            (None, None) => fresh().id(self.id),
        }
    }
}

/// Looks at a span. `decides` says which of its versions may decide.
pub(crate) async fn see_by(
    reader: &Reader<'_>,
    tenant: &str,
    id: Uuid,
    decides: impl Fn(&VerifiedSpan) -> bool,
) -> Result<Seen, LedgerError> {
    let Some(row) = head(reader, tenant, id).await? else { return Ok(Seen { id, version: None, last: None }) };
    let last = Some((row.seq, row.seal.curr_hash));
    Ok(Seen { id, version: back_from(reader, row, decides).await?, last })
}

/// Looks at a span, of which the versions decide that count.
pub(crate) async fn see(reader: &Reader<'_>, authorities: &Authorities, tenant: &str, id: Uuid) -> Result<Seen, LedgerError> {
    see_by(reader, tenant, id, |row| authorities.check(row).is_ok()).await
}

/// The latest version of a span that counts; `None` if that is a tombstone.
pub(crate) async fn find(
    reader: &Reader<'_>,
    authorities: &Authorities,
    tenant: &str,
    id: Uuid,
) -> Result<Option<Believed>, LedgerError> {
    let found = see(reader, authorities, tenant, id).await?.into_version();
    Ok(found.filter(|version| !version.is_deleted))
}

/// The latest versions that count of the spans of a query, one after the other.
pub(crate) struct Standing<'r> {
    rows: Rows<'r>,
    authorities: &'r Authorities,
}

impl<'r> Standing<'r> {
    /// The query must not ask for what a later row could change: with a filter by status, a row that does not count would hide the others.
    pub(crate) fn of(reader: &'r Reader<'r>, authorities: &'r Authorities, query: Query) -> Self {
        Self { rows: Rows::of(reader, query.versions(Versions::Last)), authorities }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Believed>, LedgerError> {
        while let Some(last) = self.rows.next().await? {
            let found = back_from(self.rows.reader, last, |row| self.authorities.check(row).is_ok()).await?;
            if let Some(found) = found.filter(|version| !version.is_deleted) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}
