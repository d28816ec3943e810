//! What a scan looks for.

use uuid::Uuid;

use crate::ledger::Cursor;
use crate::span::Span;

/// A filter, an order and a page size. Every field that is set must match.
///
/// Without a tenant, a user or runtime scope sees its own tenant's rows and the public ones of `system`; the operator sees all.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Query {
    /// The tenant.
    pub tenant: Option<String>,
    /// The id.
    pub id: Option<Uuid>,
    /// The type.
    pub entity_type: Option<String>,
    /// The parent.
    pub parent_id: Option<Uuid>,
    /// The owner.
    pub owner: Option<String>,
    /// The status.
    pub status: Option<String>,
    /// The trace.
    pub trace_id: Option<String>,
    /// Which versions of an id.
    pub versions: Versions,
    /// In which order.
    pub order: Order,
    /// Rows at or before this position only (a cursor of [`Order::Append`]): what was there when somebody looked.
    pub until: Option<Cursor>,
    /// Rows in a page; backends cap it ([`Capability::max_page`](crate::ledger::Capability)). Zero means the cap.
    pub limit: usize,
    /// Bytes in a page, about: it ends with the row that reaches them. Backends cap this as well. Zero means the cap.
    pub max_bytes: usize,
}

/// What a text of JSON weighs in memory, about, in bytes of a page: small arrays and objects take many times their text.
#[must_use]
pub fn weight(text: &[u8]) -> usize {
    const CONTAINER: usize = 64;
    text.len() + CONTAINER * text.iter().filter(|byte| matches!(byte, b'{' | b'[')).count()
}

/// Which versions of an id a scan yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Versions {
    /// The last one, if it is visible and no tombstone. Filters apply to it.
    #[default]
    Latest,
    /// Every visible one, tombstones included.
    All,
}

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Order {
    /// As appended, oldest first.
    #[default]
    Append,
    /// As appended, newest first.
    Newest,
    /// By (tenant, id, seq), byte-wise: whole version chains one after the other.
    Chain,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, value: impl Into<$type>) -> Self {
            self.$name = Some(value.into());
            self
        })*
    };
}

impl Query {
    /// The last version of everything, oldest first.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every version of everything in append order: a timeline.
    #[must_use]
    pub fn timeline() -> Self {
        Self { versions: Versions::All, ..Self::default() }
    }

    /// Every version of everything, chain by chain: an audit.
    #[must_use]
    pub fn chains() -> Self {
        Self { versions: Versions::All, order: Order::Chain, ..Self::default() }
    }

    setters! {
        /// Filters by tenant.
        tenant: String,
        /// Filters by id.
        id: Uuid,
        /// Filters by type.
        entity_type: String,
        /// Filters by parent.
        parent_id: Uuid,
        /// Filters by owner.
        owner: String,
        /// Filters by status.
        status: String,
        /// Filters by trace.
        trace_id: String,
        /// Bounds the scan.
        until: Cursor,
    }

    /// Sets which versions.
    #[must_use]
    pub fn versions(mut self, versions: Versions) -> Self {
        self.versions = versions;
        self
    }

    /// Sets the order.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Sets the page size.
    #[must_use]
    pub fn limit(mut self, rows: usize) -> Self {
        self.limit = rows;
        self
    }

    /// Whether the columns of `span` match (not its version, nor its position).
    #[must_use]
    pub fn matches(&self, span: &Span) -> bool {
        fn same<T: PartialEq + ?Sized>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none_or(|w| Some(w) == found)
        }
        same(self.tenant.as_deref(), Some(span.tenant_id.as_str()))
            && same(self.id.as_ref(), Some(&span.id))
            && same(self.entity_type.as_deref(), Some(span.entity_type.as_str()))
            && same(self.parent_id.as_ref(), span.parent_id.as_ref())
            && same(self.owner.as_deref(), Some(span.owner_id.as_str()))
            && same(self.status.as_deref(), span.status.as_deref())
            && same(self.trace_id.as_deref(), span.trace_id.as_deref())
    }

    /// Sets the bytes of a page.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// The bytes of a page within a backend's cap.
    #[must_use]
    pub fn page_bytes(&self, max: usize) -> usize {
        if self.max_bytes == 0 { max } else { self.max_bytes.min(max) }
    }

    /// The page size within a backend's cap.
    #[must_use]
    pub fn page_size(&self, max: usize) -> usize {
        if self.limit == 0 { max } else { self.limit.min(max) }
    }
}
