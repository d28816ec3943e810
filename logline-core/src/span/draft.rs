//! Building a span before it is sealed.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::span::canonical;
use crate::span::rules::{self, InvalidSpan, Rules};
use crate::span::{DIGEST_KEY, SignedSpan, Span, Visibility};
use crate::value::clock::{Clock, IdSource};
use crate::value::hex::Hash;
use crate::value::timestamp::Timestamp;

/// A span to be: what a caller wants recorded, without predecessor hash, signer and seal.
///
/// ```
/// # use logline_core::{Draft, KeyPair, SystemClock, SystemIds};
/// let key = KeyPair::generate()?;
/// let note = Draft::new("note")
///     .tenant("acme")
///     .owner("alice")
///     .who("user:alice")
///     .this("note.meeting")
///     .content(serde_json::json!({"text": "budget approved"}))
///     .stamp(&SystemClock, &SystemIds)
///     .seal_local(&key)?;
/// assert_eq!(note.seal.curr_hash.to_string().len(), 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    span: Span,
    at: Option<Timestamp>,
}

macro_rules! text_setters {
    ($($(#[$doc:meta])* $name:ident => $column:ident),* $(,)?) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, value: impl Into<String>) -> Self {
            self.span.$column = value.into().into();
            self
        })*
    };
}

macro_rules! json_setters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, value: Value) -> Self {
            self.span.$name = Some(value);
            self
        })*
    };
}

impl Draft {
    /// A first version of a new span of this type. Required besides: tenant, owner, who, this; id and time come from
    /// [`Draft::stamp`] where they are not set.
    #[must_use]
    pub fn new(entity_type: impl Into<String>) -> Self {
        Self {
            span: Span {
                id: Uuid::nil(),
                seq: 0,
                entity_type: entity_type.into(),
                who: String::new(),
                did: None,
                this: String::new(),
                at: Timestamp::EPOCH,
                parent_id: None,
                related_to: Vec::new(),
                owner_id: String::new(),
                tenant_id: String::new(),
                visibility: Visibility::Private,
                status: None,
                is_deleted: false,
                name: None,
                description: None,
                code: None,
                language: None,
                runtime: None,
                input: None,
                output: None,
                error: None,
                content: None,
                duration_ms: None,
                trace_id: None,
                prev_hash: None,
                metadata: None,
            },
            at: None,
        }
    }

    /// The next version of a stored span: all its columns, `seq + 1`, linked to it; the time is to be set.
    #[must_use]
    pub fn next_version(previous: &SignedSpan) -> Self {
        let mut span = previous.span.clone();
        span.seq = span.seq.saturating_add(1);
        span.prev_hash = Some(previous.seal.curr_hash);
        Self { span, at: None }
    }

    /// A draft of these columns, time included.
    #[must_use]
    pub fn from_columns(span: Span) -> Self {
        Self { at: Some(span.at), span }
    }

    pub(crate) fn without_time(span: Span) -> Self {
        Self { at: None, span }
    }

    /// The columns as they stand.
    #[must_use]
    pub fn columns(&self) -> &Span {
        &self.span
    }

    /// The columns, to be changed; the time is set with [`Draft::at`].
    pub fn columns_mut(&mut self) -> &mut Span {
        &mut self.span
    }

    /// Whether an id was set.
    #[must_use]
    pub fn has_id(&self) -> bool {
        !self.span.id.is_nil()
    }

    text_setters! {
        /// Sets `tenant_id`.
        tenant => tenant_id,
        /// Sets `owner_id`.
        owner => owner_id,
        /// Sets `who`.
        who => who,
        /// Sets `did`.
        did => did,
        /// Sets `this`.
        this => this,
        /// Sets `status`.
        status => status,
        /// Sets `name`.
        name => name,
        /// Sets `description`.
        description => description,
        /// Sets `code`.
        code => code,
        /// Sets `language`.
        language => language,
        /// Sets `runtime`.
        runtime => runtime,
        /// Sets `trace_id`.
        trace => trace_id,
    }

    json_setters! {
        /// Sets `input`.
        input,
        /// Sets `output`.
        output,
        /// Sets `error`.
        error,
        /// Sets `content`.
        content,
        /// Sets `metadata`.
        metadata,
    }

    /// Sets the id.
    #[must_use]
    pub fn id(mut self, id: Uuid) -> Self {
        self.span.id = id;
        self
    }

    /// Sets the version. A first version may start at any.
    #[must_use]
    pub fn seq(mut self, seq: u32) -> Self {
        self.span.seq = seq;
        self
    }

    /// Makes it the successor of the version with this hash; `seq` is set apart.
    #[must_use]
    pub fn follows(mut self, prev_hash: Hash) -> Self {
        self.span.prev_hash = Some(prev_hash);
        self
    }

    /// Sets the time.
    #[must_use]
    pub fn at(mut self, at: Timestamp) -> Self {
        self.at = Some(at);
        self
    }

    /// Sets `parent_id`.
    #[must_use]
    pub fn parent(mut self, id: Uuid) -> Self {
        self.span.parent_id = Some(id);
        self
    }

    /// Adds to `related_to`.
    #[must_use]
    pub fn related(mut self, ids: impl IntoIterator<Item = Uuid>) -> Self {
        self.span.related_to.extend(ids);
        self
    }

    /// Sets `visibility`.
    #[must_use]
    pub fn visibility(mut self, visibility: Visibility) -> Self {
        self.span.visibility = visibility;
        self
    }

    /// Sets `duration_ms`.
    #[must_use]
    pub fn duration_ms(mut self, millis: u32) -> Self {
        self.span.duration_ms = Some(millis);
        self
    }

    /// Makes it a tombstone.
    #[must_use]
    pub fn deleted(mut self) -> Self {
        self.span.is_deleted = true;
        self
    }

    /// Sets one member of `metadata`, making it an object if it is not.
    #[must_use]
    pub fn meta(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.set_meta(key, value.into());
        self
    }

    /// Removes one member of `metadata`.
    #[must_use]
    pub fn without_meta(mut self, key: &str) -> Self {
        if let Some(Value::Object(map)) = &mut self.span.metadata {
            map.remove(key);
        }
        self
    }

    pub(crate) fn set_meta(&mut self, key: &str, value: Value) {
        match &mut self.span.metadata {
            Some(Value::Object(map)) => {
                map.insert(key.to_owned(), value);
            }
            // Metadata that is no object is kept as a member of one.
            other => {
                let original = other.take().map(|original| ("original".to_owned(), original));
                *other = Some(Value::Object(Map::from_iter(original.into_iter().chain([(key.to_owned(), value)]))));
            }
        }
    }

    /// Fills in what is not set yet: the id with a new UUIDv7 of `ids`, the time from `clock`.
    #[must_use]
    pub fn stamp(mut self, clock: &dyn Clock, ids: &dyn IdSource) -> Self {
        let now = *self.at.get_or_insert_with(|| clock.now());
        if !self.has_id() {
            self.span.id = ids.next_id(now);
        }
        self
    }

    /// Stores the draft's digest in its metadata, for a deterministic id that several hosts may race to write
    /// ([`OnExisting::Keep`](crate::ledger::OnExisting)). Call it last: it covers every column but `at` and `duration_ms`.
    #[must_use]
    pub fn deterministic(mut self) -> Self {
        rules::normalise(&mut self.span);
        let digest = canonical::draft_digest(&self.span);
        self.meta(DIGEST_KEY, digest.to_string())
    }

    /// The columns, normalised and held to every rule but the size, ready to be sealed.
    ///
    /// # Errors
    /// The first rule it breaks; where its time is not set.
    pub fn into_span(self) -> Result<Span, InvalidSpan> {
        let mut span = self.span;
        span.at = self.at.ok_or(InvalidSpan::Missing { column: "at" })?;
        rules::normalise(&mut span);
        rules::check(&span)?;
        Ok(span)
    }

    /// Whether it could be sealed under `rules`, so that whoever handed it in can be told at once.
    ///
    /// # Errors
    /// The first rule it breaks. The size is checked as if it were sealed.
    pub fn validate(&self, rules: &Rules) -> Result<(), InvalidSpan> {
        let span = self.clone().into_span()?;
        canonical::payload_within(&span, &crate::value::hex::PublicKey([0; 32]), rules).map(drop)
    }
}
