//! The query of a scan: filter, order and page size.

use uuid::Uuid;

use crate::ledger::Cursor;
use crate::ledger::scope::Scope;
use crate::span::{SYSTEM_TENANT, Span, Visibility};

/// A filter, an order and a page size. A row must match every filter that is set.
///
/// If no tenant is set, a user or runtime scope sees the rows of its own tenant that it may read, and the public rows of the
/// tenant `system`. The operator sees all rows.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Query {
    /// Rows of this tenant only (`tenant_id`). To see the public rows of another tenant, name that tenant here.
    pub tenant: Option<String>,
    /// Rows with this id only.
    pub id: Option<Uuid>,
    /// Rows of this type only, for example `request`.
    pub entity_type: Option<String>,
    /// Rows with this `parent_id` only, for example all requests for one function.
    pub parent_id: Option<Uuid>,
    /// Rows with this `owner_id` only.
    pub owner: Option<String>,
    /// Rows whose visibility is not private only: those that others than their owner may read.
    pub shared: bool,
    /// Rows with this `status` only. Rows without a status do not match.
    pub status: Option<String>,
    /// Rows with this `trace_id` only. Rows without a trace do not match.
    pub trace_id: Option<String>,
    /// Whether to return the last version of each id, or every version.
    pub versions: Versions,
    /// The order of the rows.
    pub order: Order,
    /// Rows at or before this position only. It must be a cursor of [`Order::Append`]. Rows that were appended later are left
    /// out.
    pub until: Option<Cursor>,
    /// The largest number of rows in a page. The backend's own limit
    /// ([`Capability::max_page`](crate::ledger::Capability::max_page)) applies too. Zero means the backend's limit.
    pub limit: usize,
    /// The approximate size of a page in bytes of [`weight`]: the page ends with the row that reaches this size. The backend's
    /// own limit applies too. Zero means the backend's limit.
    pub max_bytes: usize,
    /// The largest number of rows that a page may look at, whether it returns them or not ([`Query::looks_at`]). The page ends
    /// there, with a cursor for the next one, and says how many it looked at in [`Page::visited`](crate::ledger::Page::visited).
    /// (A page that ends earlier, because of its rows or bytes, says how many rows there were to look at, up to this number.)
    /// It applies to [`Order::Append`] and [`Order::Newest`]. Zero means no limit.
    pub max_visited: usize,
}

/// The approximate size of a JSON text in memory, in bytes. Each array and object adds 64 bytes to the length of the text,
/// because small ones take much more memory than their text.
#[must_use]
pub fn weight(text: &[u8]) -> usize {
    const CONTAINER: usize = 64;
    text.len() + CONTAINER * text.iter().filter(|byte| matches!(byte, b'{' | b'[')).count()
}

/// The filter of a [`Query`] whose index a scan of one tenant uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Narrow<'a> {
    /// `parent_id`.
    Parent(Uuid),
    /// `trace_id`.
    Trace(&'a str),
    /// `entity_type`.
    Type(&'a str),
}

impl Narrow<'_> {
    /// The column.
    #[must_use]
    pub fn column(self) -> &'static str {
        match self {
            Self::Parent(_) => "parent_id",
            Self::Trace(_) => "trace_id",
            Self::Type(_) => "entity_type",
        }
    }

    /// Whether `span` has this value.
    #[must_use]
    pub fn matches(self, span: &Span) -> bool {
        match self {
            Self::Parent(id) => span.parent_id == Some(id),
            Self::Trace(trace) => span.trace_id.as_deref() == Some(trace),
            Self::Type(name) => span.entity_type == name,
        }
    }
}

/// The `entity_type` of memories, which have indexes of their own.
const MEMORY: &str = "memory";

/// An index of memories in one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memories {
    /// Those of one owner.
    OfOwner,
    /// Those that others than their owner may read.
    Shared,
}

/// Which versions of an id a scan returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Versions {
    /// The last version, if it is visible and not a tombstone. Filters are compared with this version.
    #[default]
    Latest,
    /// The last version, if it is visible, also if it is a tombstone: for readers who decide themselves whether it counts.
    Last,
    /// Every visible version, including tombstones. Filters are compared with each.
    All,
}

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Order {
    /// Append order, oldest first.
    #[default]
    Append,
    /// Append order, newest first.
    Newest,
    /// Ordered by (tenant, id, seq), compared byte by byte: the complete version chain of one id after the other.
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
    /// The last version of every id, oldest first.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every version of every id in append order: a timeline.
    #[must_use]
    pub fn timeline() -> Self {
        Self { versions: Versions::All, ..Self::default() }
    }

    /// Every version of every id in chain order, as an audit reads them.
    #[must_use]
    pub fn chains() -> Self {
        Self { versions: Versions::All, order: Order::Chain, ..Self::default() }
    }

    setters! {
        /// Returns rows of this tenant only.
        tenant: String,
        /// Returns rows with this id only.
        id: Uuid,
        /// Returns rows of this type only.
        entity_type: String,
        /// Returns rows with this `parent_id` only.
        parent_id: Uuid,
        /// Returns rows with this `owner_id` only.
        owner: String,
        /// Returns rows with this `status` only.
        status: String,
        /// Returns rows with this `trace_id` only.
        trace_id: String,
        /// Returns rows at or before this position only. It must be a cursor of [`Order::Append`].
        until: Cursor,
    }

    /// Returns rows only that others than their owner may read.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Sets whether to return the last version of each id, or every version.
    #[must_use]
    pub fn versions(mut self, versions: Versions) -> Self {
        self.versions = versions;
        self
    }

    /// Sets the order of the rows.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Sets the largest number of rows in a page. Zero means the backend's limit.
    #[must_use]
    pub fn limit(mut self, rows: usize) -> Self {
        self.limit = rows;
        self
    }

    /// Whether the columns of `span` match the filters. `versions` and `until` are not checked.
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
            && !(self.shared && span.visibility == Visibility::Private)
            && same(self.status.as_deref(), span.status.as_deref())
            && same(self.trace_id.as_deref(), span.trace_id.as_deref())
    }

    /// Whether a scan by `scope` counts `span` in [`Query::max_visited`]. `is_last` says whether it is the last version of its id.
    ///
    /// In a tenant of its own a scan looks at the rows that one index gives it: those with the `parent_id` of the query, or
    /// else its `trace_id`, or else its `entity_type`, or else all rows. In another tenant it looks at all public rows, so that
    /// its cost says nothing about the rows that are not public. An operator's scan that names no tenant looks at every row. A
    /// scan by `id` looks at the versions of this id, and one of last versions only at the last.
    #[must_use]
    pub fn looks_at(&self, scope: &Scope, span: &Span, is_last: bool) -> bool {
        let own = scope.tenant().is_none_or(|tenant| tenant == span.tenant_id);
        let is_within = match &self.tenant {
            Some(named) => *named == span.tenant_id,
            None => own || span.tenant_id == SYSTEM_TENANT,
        };
        if !is_within || !(own || span.visibility == Visibility::Public) {
            return false;
        }
        if let Some(id) = self.id {
            return id == span.id && (self.versions == Versions::All || is_last);
        }
        match self.narrowest() {
            Some(narrow) if own && self.has_tenant(scope) => narrow.matches(span),
            _ => true,
        }
    }

    fn has_tenant(&self, scope: &Scope) -> bool {
        self.tenant.is_some() || scope.tenant().is_some()
    }

    /// The filter whose index a scan of one tenant uses. `None` if it uses the index of the tenant.
    #[must_use]
    pub fn narrowest(&self) -> Option<Narrow<'_>> {
        let parent = self.parent_id.map(Narrow::Parent);
        let trace = || self.trace_id.as_deref().map(Narrow::Trace);
        let entity_type = || self.entity_type.as_deref().map(Narrow::Type);
        parent.or_else(trace).or_else(entity_type)
    }

    /// The index of memories that a scan of one tenant uses in place of that of [`Query::narrowest`]. `None` if it asks for something else,
    /// or limits how many rows it looks at ([`Query::looks_at`] counts all rows of the type).
    #[must_use]
    pub fn of_memories(&self) -> Option<Memories> {
        let is_of_memories = self.narrowest() == Some(Narrow::Type(MEMORY)) && self.id.is_none() && self.visits().is_none();
        match (is_of_memories && self.order != Order::Chain, &self.owner, self.shared) {
            (true, Some(_), _) => Some(Memories::OfOwner),
            (true, None, true) => Some(Memories::Shared),
            _ => None,
        }
    }

    /// Sets the largest number of rows that a page may look at. Zero means no limit.
    #[must_use]
    pub fn max_visited(mut self, rows: usize) -> Self {
        self.max_visited = rows;
        self
    }

    /// How many rows a page may look at, if the query limits it.
    #[must_use]
    pub fn visits(&self) -> Option<usize> {
        (self.max_visited > 0 && self.order != Order::Chain).then_some(self.max_visited)
    }

    /// Sets the approximate size of a page in bytes. Zero means the backend's limit.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// The bytes of a page for a backend whose own limit is `max`.
    #[must_use]
    pub fn page_bytes(&self, max: usize) -> usize {
        if self.max_bytes == 0 { max } else { self.max_bytes.min(max) }
    }

    /// The rows of a page for a backend whose own limit is `max`.
    #[must_use]
    pub fn page_size(&self, max: usize) -> usize {
        if self.limit == 0 { max } else { self.limit.min(max) }
    }
}
