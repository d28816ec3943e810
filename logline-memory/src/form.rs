//! What a memory says of itself, in the clear and encrypted.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use logline_core::{SignedSpan, Span, Timestamp, Visibility, canonical, json as strict};
use serde_json::{Map, Value, json};

use crate::members::{MAX_NAME, Members};
use crate::vault::Text;

/// The `entity_type` of memories.
pub const MEMORY: &str = "memory";

/// The most bytes of a memory's text.
pub const MAX_TEXT: usize = 64 << 10;

/// The most bytes of a memory's structured data, as canonical JSON.
pub const MAX_DATA: usize = 64 << 10;

/// The most tags of a memory, and the most bytes of each tag, key, session and schema id.
pub const MAX_TAGS: usize = 32;

/// Declares an enum with one text for each value.
macro_rules! texts {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$of:meta])* $value:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$of])* $value),+
        }

        impl $name {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$value),+];

            /// The text that stands for it in spans.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|value| value.as_str()).collect();
                    format!(concat!("`{}` is no ", $what, ": write one of {}"), text.escape_debug(), known.join(", "))
                })
            }
        }
    };
}

texts! {
    /// How long a memory is kept, and for whom.
    Layer, "layer of memory" {
        /// For one session. It has a time at which it expires.
        Session = "session",
        /// Until somebody has reviewed it, or it expires.
        Temporary = "temporary",
        /// For good. A reviewer has approved it.
        Permanent = "permanent",
        /// For everybody in the tenant.
        Shared = "shared",
        /// For the application that wrote it.
        Local = "local",
    }
}

texts! {
    /// What a memory is.
    Kind, "type of memory" {
        /// Something that was said.
        Note = "note",
        /// Something that holds.
        Fact = "fact",
        /// A summary of a person.
        Profile = "profile",
        /// What a person likes.
        Preference = "preference",
        /// How two are related.
        Relationship = "relationship",
        /// What is intended.
        Plan = "plan",
        /// What was done.
        Action = "action",
        /// Anything else.
        Other = "other",
    }
}

texts! {
    /// Who would be harmed if a memory became known. Everything but [`Sensitivity::Public`] is encrypted.
    Sensitivity, "sensitivity" {
        /// Nobody. The text stands in the ledger in the clear, for good: it cannot be forgotten.
        Public = "public",
        /// The organisation.
        Internal = "internal",
        /// The organisation, badly.
        Secret = "secret",
        /// A person.
        Pii = "pii",
    }
}

texts! {
    /// What a call may remember and recall. There is no default that remembers.
    Mode, "mode of memory" {
        /// Nothing.
        Off = "off",
        /// Only in the session of the call.
        SessionOnly = "session-only",
        /// Everything that the consent covers.
        On = "on",
    }
}

/// What is known of a memory without its key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terms {
    /// What it is.
    pub kind: Kind,
    /// How long it is kept.
    pub layer: Layer,
    /// Whether it is encrypted.
    pub sensitivity: Sensitivity,
    /// Who may read it.
    pub visibility: Visibility,
    /// Words to filter by. They are not encrypted.
    pub tags: BTreeSet<String>,
    /// When it expires.
    pub ttl_at: Option<Timestamp>,
    /// The session that it belongs to.
    pub session: Option<String>,
    /// The contract that its text and data keep: the name of a `memory_contract`.
    pub schema: Option<String>,
}

/// What is encrypted of a memory.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Body {
    /// The text.
    pub text: String,
    /// Structured data beside the text.
    pub data: Option<Value>,
    /// What it is about, such as `user/home-city`: a later memory of the same subject under the same key supersedes it.
    pub key: Option<String>,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body(…)")
    }
}

/// A memory that is to be kept.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Memory {
    /// What is in the clear.
    pub terms: Terms,
    /// What is encrypted, unless the memory is public.
    pub body: Body,
}

impl Memory {
    /// A memory of this kind: temporary, internal, private, without an end.
    #[must_use]
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        let terms = Terms {
            kind,
            layer: Layer::Temporary,
            sensitivity: Sensitivity::Internal,
            visibility: Visibility::Private,
            tags: BTreeSet::new(),
            ttl_at: None,
            session: None,
            schema: None,
        };
        Self { terms, body: Body { text: text.into(), data: None, key: None } }
    }

    /// Sets what it is about. See [`Body::key`].
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.body.key = Some(key.into());
        self
    }

    /// Sets the structured data.
    #[must_use]
    pub fn data(mut self, data: Value) -> Self {
        self.body.data = Some(data);
        self
    }

    /// Sets the layer. Default [`Layer::Temporary`].
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.terms.layer = layer;
        self
    }

    /// Sets the sensitivity. Default [`Sensitivity::Internal`].
    #[must_use]
    pub fn sensitivity(mut self, sensitivity: Sensitivity) -> Self {
        self.terms.sensitivity = sensitivity;
        self
    }

    /// Sets who may read it. Default [`Visibility::Private`].
    #[must_use]
    pub fn visibility(mut self, visibility: Visibility) -> Self {
        self.terms.visibility = visibility;
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.terms.tags.insert(tag.into());
        self
    }

    /// Sets when it expires.
    #[must_use]
    pub fn ttl_at(mut self, at: Timestamp) -> Self {
        self.terms.ttl_at = Some(at);
        self
    }

    /// Sets the contract that it keeps.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.terms.schema = Some(schema.into());
        self
    }
}

impl Terms {
    pub(crate) const MEMBERS: &[&str] =
        &["type", "layer", "sensitivity", "visibility", "tags", "ttl_at", "session_id", "schema_id"];

    /// Reads the terms of a request.
    pub(crate) fn read(value: Option<&Value>) -> Result<Self, String> {
        let members = Members::of(value, "terms", Self::MEMBERS)?;
        let visibility = members.needed("visibility", MAX_NAME)?;
        let visibility = [Visibility::Private, Visibility::Tenant, Visibility::Public]
            .into_iter()
            .find(|known| known.as_str() == visibility)
            .ok_or("terms: `visibility` must be private, tenant or public")?;
        let terms = Self {
            kind: members.one("type")?,
            layer: members.one("layer")?,
            sensitivity: members.one("sensitivity")?,
            visibility,
            tags: tags(members.get("tags"))?,
            ttl_at: members.time("ttl_at")?,
            session: members.text("session_id", MAX_NAME)?.map(str::to_owned),
            schema: members.text("schema_id", MAX_NAME)?.map(str::to_owned),
        };
        terms.check()?;
        Ok(terms)
    }

    /// The same as JSON, as requests have it.
    pub(crate) fn to_value(&self) -> Value {
        let mut members = self.metadata();
        members.insert("type".to_owned(), self.kind.as_str().into());
        members.insert("visibility".to_owned(), self.visibility.as_str().into());
        Value::Object(members)
    }

    /// The members of the metadata of a memory. Type and visibility are columns.
    pub(crate) fn metadata(&self) -> Map<String, Value> {
        let mut members = Map::new();
        members.insert("layer".to_owned(), self.layer.as_str().into());
        members.insert("sensitivity".to_owned(), self.sensitivity.as_str().into());
        members.insert("tags".to_owned(), self.tags.iter().cloned().collect());
        let optional = [
            ("ttl_at", self.ttl_at.map(|at| at.to_string())),
            ("session_id", self.session.clone()),
            ("schema_id", self.schema.clone()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                members.insert(name.to_owned(), value.into());
            }
        }
        members
    }

    /// What must hold between the members.
    pub(crate) fn check(&self) -> Result<(), String> {
        let refuse = |condition: bool, reason: &str| if condition { Err(reason.to_owned()) } else { Ok(()) };
        refuse(
            self.layer == Layer::Session && (self.session.is_none() || self.ttl_at.is_none()),
            "terms: a memory of a session needs `session_id` and `ttl_at`",
        )?;
        refuse(
            self.layer != Layer::Session && self.session.is_some(),
            "terms: `session_id` belongs to the layer `session` alone",
        )?;
        refuse(
            self.visibility != Visibility::Private && matches!(self.layer, Layer::Session | Layer::Temporary),
            "terms: a memory that others may read is in the layer shared, local or permanent",
        )?;
        refuse(
            self.visibility == Visibility::Public && self.sensitivity != Sensitivity::Public,
            "terms: what every tenant may read must have the sensitivity public, as nobody else has the key",
        )?;
        Ok(())
    }
}

fn tags(value: Option<&Value>) -> Result<BTreeSet<String>, String> {
    let refused = || format!("terms: `tags` must be at most {MAX_TAGS} texts of 1 to {MAX_NAME} bytes");
    let Some(value) = value else { return Ok(BTreeSet::new()) };
    let tags = value.as_array().filter(|tags| tags.len() <= MAX_TAGS).ok_or_else(refused)?;
    let tag = |tag: &Value| match tag {
        Value::String(tag) if !tag.is_empty() && tag.len() <= MAX_NAME && !tag.contains('\0') => Ok(tag.clone()),
        _ => Err(refused()),
    };
    tags.iter().map(tag).collect()
}

impl Body {
    /// Reads what was encrypted, or the content of a public memory.
    pub(crate) fn read(value: &Value) -> Result<Self, String> {
        let members = Members::of(Some(value), "content", &["text", "data", "key"])?;
        let body = Self {
            text: members.needed("text", MAX_TEXT)?.to_owned(),
            data: members.get("data").cloned(),
            key: members.text("key", MAX_NAME)?.map(str::to_owned),
        };
        body.check()?;
        Ok(body)
    }

    pub(crate) fn parse(text: &Text) -> Result<Self, String> {
        Self::read(&strict::parse(text).map_err(|e| format!("content: {e}"))?)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.text.trim().is_empty() || self.text.len() > MAX_TEXT || self.text.contains('\0') {
            return Err(format!(
                "content: the text has {} bytes: 1 to {MAX_TEXT} are allowed, not only spaces, without NUL",
                self.text.len()
            ));
        }
        match &self.data {
            Some(data) if canonical::to_vec(data).len() > MAX_DATA => {
                Err(format!("content: `data` has more than {MAX_DATA} bytes: keep less, or keep a reference"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        let mut members = Map::new();
        members.insert("text".to_owned(), self.text.clone().into());
        if let Some(data) = &self.data {
            members.insert("data".to_owned(), data.clone());
        }
        if let Some(key) = &self.key {
            members.insert("key".to_owned(), key.clone().into());
        }
        Value::Object(members)
    }

    pub(crate) fn to_bytes(&self) -> Text {
        Text::new(canonical::to_vec(&self.to_value()))
    }
}

/// The text of a memory as its span has it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// In the clear.
    Clear(Body),
    /// Encrypted: the bytes of an envelope.
    Sealed(Vec<u8>),
    /// There is none: the memory was forgotten or has expired.
    Gone,
}

/// A memory as a span has it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Stored {
    /// What is in the clear.
    pub terms: Terms,
    /// The text.
    pub content: Content,
    /// The status: see [`Status`].
    pub status: Status,
}

texts! {
    /// Where a memory stands.
    Status, "status of a memory" {
        /// It is found.
        Active = "active",
        /// It is found, and waits for a reviewer.
        NeedsReview = "needs_review",
        /// A reviewer has refused to keep it. It is not found.
        Denied = "denied",
        /// Its time has passed. It is not found, and its key is destroyed.
        Expired = "expired",
        /// It is not found, and its key is destroyed.
        Forgotten = "forgotten",
    }
}

impl Status {
    /// Whether a search may find a memory that stands so.
    #[must_use]
    pub fn is_found(self) -> bool {
        matches!(self, Self::Active | Self::NeedsReview)
    }
}

impl Stored {
    /// Reads a span.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(span: &Span) -> Result<Self, String> {
        if span.entity_type != MEMORY {
            return Err(format!("a span of type `{}` is no memory", span.entity_type.escape_debug()));
        }
        let metadata = span.metadata.as_ref();
        let text = |name: &str| metadata.and_then(|metadata| metadata.get(name)).and_then(Value::as_str);
        let needed = |name: &str| text(name).ok_or_else(|| format!("metadata.{name} is missing"));
        let kind = span.this.strip_prefix("memory.").unwrap_or_default();
        let terms = Terms {
            kind: kind.parse()?,
            layer: needed("layer")?.parse()?,
            sensitivity: needed("sensitivity")?.parse()?,
            visibility: span.visibility,
            tags: tags(metadata.and_then(|metadata| metadata.get("tags")))?,
            ttl_at: text("ttl_at").map(|at| at.parse().map_err(|e| format!("metadata.ttl_at: {e}"))).transpose()?,
            session: text("session_id").map(str::to_owned),
            schema: text("schema_id").map(str::to_owned),
        };
        let status: Status = span.status.as_deref().unwrap_or_default().parse()?;
        let sealed = metadata.and_then(|metadata| metadata.get("sealed"));
        let content = match (terms.sensitivity, sealed, &span.content) {
            _ if !status.is_found() && status != Status::Denied => Content::Gone,
            (Sensitivity::Public, None, Some(content)) => Content::Clear(Body::read(content)?),
            (Sensitivity::Public, ..) => return Err("a public memory has its text in `content`".to_owned()),
            (_, Some(sealed), _) => Content::Sealed(envelope(sealed)?),
            (_, None, _) => return Err("metadata.sealed is missing".to_owned()),
        };
        Ok(Self { terms, content, status })
    }
}

/// The member that stands for an envelope: `{"envelope": BASE64}`.
pub(crate) fn sealed(envelope: &[u8]) -> Value {
    json!({"envelope": BASE64.encode(envelope)})
}

/// Reads what [`sealed`] makes.
pub(crate) fn envelope(value: &Value) -> Result<Vec<u8>, String> {
    let members = Members::of(Some(value), "sealed", &["envelope"])?;
    let text = members.get("envelope").and_then(Value::as_str).ok_or("sealed: `envelope` is missing")?;
    BASE64.decode(text).map_err(|e| format!("sealed: `envelope` is not base64: {e}"))
}

/// Whether two versions of a memory say the same of where it belongs.
pub(crate) fn is_memory_of(span: &SignedSpan, tenant: &str, owner: &str) -> bool {
    span.entity_type == MEMORY && span.tenant_id == tenant && span.owner_id == owner
}
