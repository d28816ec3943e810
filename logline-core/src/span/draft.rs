//! Drafts: spans that are not sealed yet.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::span::canonical;
use crate::span::rules::{self, InvalidSpan, Rules};
use crate::span::{DIGEST_KEY, SignedSpan, Span, Visibility};
use crate::value::clock::{Clock, IdSource};
use crate::value::hex::Hash;
use crate::value::timestamp::Timestamp;

/// A span before it is sealed: the columns that a caller wants to record, without signer, hash and signature.
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
    /// Begins the first version of a new span of type `entity_type`. The caller must also set tenant, owner, who and this.
    /// [`Draft::stamp`] sets the id and the time if the caller does not.
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

    /// Begins the next version of a stored span: all its columns, `seq + 1`, and a link to `previous`. The time is not set yet.
    #[must_use]
    pub fn next_version(previous: &SignedSpan) -> Self {
        let mut span = previous.span.clone();
        span.seq = span.seq.saturating_add(1);
        span.prev_hash = Some(previous.seal.curr_hash);
        Self { span, at: None }
    }

    /// This draft as the next version of `existing`. `None` if `existing` says the same already: except for `seq`, `at` and
    /// `prev_hash`, all columns are equal.
    #[must_use]
    pub fn following(mut self, existing: &SignedSpan) -> Option<Self> {
        rules::normalise(&mut self.span);
        let mut same = self.span.clone();
        (same.seq, same.at, same.prev_hash) = (existing.seq, existing.at, existing.prev_hash);
        (same != existing.span).then(|| self.seq(existing.seq.saturating_add(1)).follows(existing.seal.curr_hash))
    }

    /// A draft with these columns and with their time.
    #[must_use]
    pub fn from_columns(span: Span) -> Self {
        Self { at: Some(span.at), span }
    }

    pub(crate) fn without_time(span: Span) -> Self {
        Self { at: None, span }
    }

    /// The current columns. Their `at` may differ from the time that was set with [`Draft::at`].
    #[must_use]
    pub fn columns(&self) -> &Span {
        &self.span
    }

    /// The columns, for changes. A change of their `at` has no effect: use [`Draft::at`].
    pub fn columns_mut(&mut self) -> &mut Span {
        &mut self.span
    }

    /// Whether an id is set. The nil UUID counts as not set.
    #[must_use]
    pub fn has_id(&self) -> bool {
        !self.span.id.is_nil()
    }

    text_setters! {
        /// Sets `tenant_id`, the tenant that the span belongs to.
        tenant => tenant_id,
        /// Sets `owner_id`, the user of the tenant who owns the span.
        owner => owner_id,
        /// Sets `who`, the one who acted, such as `user:alice`.
        who => who,
        /// Sets `did`, the action as a past participle, such as `approved`.
        did => did,
        /// Sets `this`, a dotted name of the thing acted on, such as `note.meeting`.
        this => this,
        /// Sets `status`, such as `scheduled` or `complete`.
        status => status,
        /// Sets `name`, a name for people.
        name => name,
        /// Sets `description`, a description for people.
        description => description,
        /// Sets `code`, the source or binary of a function in the form that its `runtime` defines.
        code => code,
        /// Sets `language`, the language of `code`.
        language => language,
        /// Sets `runtime`, the runtime of `code` with its interface version, such as `wasm@1`.
        runtime => runtime,
        /// Sets `trace_id`, the trace that the span belongs to.
        trace => trace_id,
    }

    json_setters! {
        /// Sets `input`. JSON `null` means absent.
        input,
        /// Sets `output`. JSON `null` means absent.
        output,
        /// Sets `error`, an object with the members `code` and `message`.
        error,
        /// Sets `content`. JSON `null` means absent.
        content,
        /// Sets `metadata` and replaces all its members. [`Draft::meta`] sets one of them.
        metadata,
    }

    /// Sets the id. [`Draft::stamp`] makes one if it is not set.
    #[must_use]
    pub fn id(mut self, id: Uuid) -> Self {
        self.span.id = id;
        self
    }

    /// Sets `seq`, the number of the version. A first version may have any number; the default is 0.
    #[must_use]
    pub fn seq(mut self, seq: u32) -> Self {
        self.span.seq = seq;
        self
    }

    /// Sets `prev_hash`, the `curr_hash` of the version before. It does not change `seq`.
    #[must_use]
    pub fn follows(mut self, prev_hash: Hash) -> Self {
        self.span.prev_hash = Some(prev_hash);
        self
    }

    /// Sets the time. [`Draft::stamp`] takes it from a clock if it is not set.
    #[must_use]
    pub fn at(mut self, at: Timestamp) -> Self {
        self.at = Some(at);
        self
    }

    /// Sets `parent_id`, the span that this one belongs to.
    #[must_use]
    pub fn parent(mut self, id: Uuid) -> Self {
        self.span.parent_id = Some(id);
        self
    }

    /// Adds ids of other spans to `related_to`.
    #[must_use]
    pub fn related(mut self, ids: impl IntoIterator<Item = Uuid>) -> Self {
        self.span.related_to.extend(ids);
        self
    }

    /// Sets who besides the owner may read the span. The default is [`Visibility::Private`].
    #[must_use]
    pub fn visibility(mut self, visibility: Visibility) -> Self {
        self.span.visibility = visibility;
        self
    }

    /// Sets how long the recorded work took, in milliseconds.
    #[must_use]
    pub fn duration_ms(mut self, millis: u32) -> Self {
        self.span.duration_ms = Some(millis);
        self
    }

    /// Makes the version a tombstone: `is_deleted` is true.
    #[must_use]
    pub fn deleted(mut self) -> Self {
        self.span.is_deleted = true;
        self
    }

    /// Sets one member of `metadata`. If the metadata is not an object, it becomes one and keeps the old value as `original`.
    #[must_use]
    pub fn meta(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.set_meta(key, value.into());
        self
    }

    /// Removes one member of `metadata`, if it is there.
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
            // Metadata that is not an object is kept as a member of the new object.
            other => {
                let original = other.take().map(|original| ("original".to_owned(), original));
                *other = Some(Value::Object(Map::from_iter(original.into_iter().chain([(key.to_owned(), value)]))));
            }
        }
    }

    /// Sets the time from `clock` and the id to a new UUIDv7 from `ids`. It keeps a time or an id that is already set.
    #[must_use]
    pub fn stamp(mut self, clock: &dyn Clock, ids: &dyn IdSource) -> Self {
        let now = *self.at.get_or_insert_with(|| clock.now());
        if !self.has_id() {
            self.span.id = ids.next_id(now);
        }
        self
    }

    /// Stores the draft's digest in its metadata. Use it for a derived id that several hosts may write at the same time
    /// ([`OnExisting::Keep`](crate::ledger::OnExisting)). Call it last: the digest covers every column except `at`,
    /// `duration_ms` and `prev_hash`.
    #[must_use]
    pub fn deterministic(mut self) -> Self {
        rules::normalise(&mut self.span);
        let digest = canonical::draft_digest(&self.span);
        self.meta(DIGEST_KEY, digest.to_string())
    }

    /// The columns, normalised and ready to be sealed. They are checked against every rule except the size.
    ///
    /// # Errors
    /// The first rule that the draft breaks, or [`InvalidSpan::Missing`] if its time is not set.
    pub fn into_span(self) -> Result<Span, InvalidSpan> {
        let mut span = self.span;
        span.at = self.at.ok_or(InvalidSpan::Missing { column: "at" })?;
        rules::normalise(&mut span);
        rules::check(&span)?;
        Ok(span)
    }

    /// Checks whether the draft could be sealed under `rules`, so that its author can be told at once.
    ///
    /// # Errors
    /// The first rule that the draft breaks. The size is that of the sealed span.
    pub fn validate(&self, rules: &Rules) -> Result<(), InvalidSpan> {
        let span = self.clone().into_span()?;
        canonical::payload_within(&span, &crate::value::hex::PublicKey([0; 32]), rules).map(drop)
    }
}
