//! API keys: secrets of which the ledger has the hash, in spans of type `api_key`.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use logline_core::ledger::{AppendOptions, LedgerError, LedgerExt as _};
use logline_core::{
    Clock, Draft, Hash, Host, HostError, MAX_NAME_BYTES, SYSTEM_TENANT, Scope, SignedSpan, SystemClock, Timestamp,
    VerifiedSpan, Verifier,
};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::auth::{AuthError, Authenticator};
use crate::identity::{Identity, Permission};

/// How often a revocation is written before somebody else is blamed for being faster each time.
const REVOKE_TRIES: u32 = 64;
const PREFIX: &str = "ll_";
const ENTITY_TYPE: &str = "api_key";
const HASH: &str = "secret_hash";
/// Secrets that were replaced, and how long each is still accepted: `[{"hash": HASH, "until": TIME}]`.
const PREVIOUS: &str = "previous_secrets";
const UNTIL: &str = "until";
/// The most secrets besides the present one.
const MAX_PREVIOUS: usize = 8;
const PERMISSIONS: &str = "permissions";
const EXPIRES: &str = "expires_at";
const ISSUED_WITH: &str = "issued_with";

/// Issues, rotates, revokes and accepts API keys. A key reads `ll_TENANT_ID_SECRET`: the tenant stands in it, so that no look-up
/// crosses tenants. Its hash, permissions and end stand in a span that this host signs, so the ledger tells who had which access
/// when.
#[derive(Clone)]
pub struct ApiKeys {
    host: Host,
    clock: Arc<dyn Clock>,
    verified: Arc<Mutex<HashMap<Hash, Arc<VerifiedSpan>>>>,
}

/// How many versions of keys are remembered as verified.
const MAX_VERIFIED: usize = 4096;

/// What a new key is for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewKey {
    /// The tenant.
    pub tenant: String,
    /// The user whose rights the key has.
    pub user: String,
    /// A name for people, such as the service that holds it.
    pub name: String,
    /// What it permits.
    pub permissions: BTreeSet<Permission>,
    /// How long it lasts.
    pub lifetime: Duration,
    /// When it ends at the latest; `None` if its lifetime alone decides.
    pub until: Option<Timestamp>,
    /// The [`Identity::credential`] with which it was asked for, as it is recorded.
    pub issued_with: Option<String>,
}

impl NewKey {
    /// A key for `user` of `tenant` with these permissions, which lasts 90 days.
    pub fn new(
        tenant: impl Into<String>,
        user: impl Into<String>,
        name: impl Into<String>,
        permissions: impl IntoIterator<Item = Permission>,
    ) -> Self {
        let lifetime = Duration::from_secs(90 * 24 * 60 * 60);
        Self {
            tenant: tenant.into(),
            user: user.into(),
            name: name.into(),
            permissions: permissions.into_iter().collect(),
            lifetime,
            until: None,
            issued_with: None,
        }
    }

    /// Sets how long it lasts.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }
}

/// A key that was issued or rotated. The secret is here and nowhere else.
#[non_exhaustive]
pub struct IssuedKey {
    /// The id of the key, which is also that of its span.
    pub id: Uuid,
    /// The text that the client sends as its token.
    pub token: Zeroizing<String>,
    /// The version of the span that records it.
    pub span: VerifiedSpan,
}

impl fmt::Debug for IssuedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a key was not issued, rotated or revoked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The tenant or the user cannot have keys.
    #[error("`{name}` cannot have API keys: name a tenant and a user of your own, at most {MAX_NAME_BYTES} bytes each")]
    Name {
        /// The name.
        name: String,
    },
    /// There is no such key, or it is revoked.
    #[error("no active API key {id}: list the spans of type `api_key`, or issue a new key")]
    NoKey {
        /// The id.
        id: Uuid,
    },
    /// As many old secrets are still accepted as there may be.
    #[error(
        "{MAX_PREVIOUS} old secrets of API key {id} are still accepted, the first of them until {until}: wait, or rotate without an overlap, which ends them"
    )]
    TooManySecrets {
        /// The id of the key.
        id: Uuid,
        /// When the first of them ends.
        until: Timestamp,
    },
    /// The machine has no random bytes.
    #[error("the machine gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// The span could not be written.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl ApiKeys {
    /// The keys in the ledger of `host`, which must be a runtime key of the tenants that have keys.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self { host, clock: Arc::new(SystemClock), verified: Arc::default() }
    }

    /// Sets the clock that decides when keys end. Default: the machine's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Has tokens that are no API keys checked by `other`, such as a [`Jwt`](crate::Jwt).
    #[must_use]
    pub fn or(self, other: impl Authenticator) -> impl Authenticator {
        KeysOr { keys: self, other }
    }

    /// Issues a key. `by` is recorded as the one who asked for it.
    ///
    /// # Errors
    /// [`KeyError::Name`]; if the span cannot be written.
    pub async fn issue(&self, new: NewKey, by: &str) -> Result<IssuedKey, KeyError> {
        let refused = |name: &str| name.is_empty() || name == SYSTEM_TENANT || name.len() > MAX_NAME_BYTES;
        if let Some(name) = [&new.tenant, &new.user].into_iter().find(|name| refused(name)) {
            return Err(KeyError::Name { name: name.clone() });
        }
        let now = self.clock.now();
        let id = self.host.ids().next_id(now);
        let secret = secret()?;
        let permissions: Vec<_> = new.permissions.iter().map(|permission| Value::from(permission.as_str())).collect();
        let draft = Draft::new(ENTITY_TYPE)
            .id(id)
            .tenant(&new.tenant)
            .owner(&new.user)
            .who(by)
            .did("issued")
            .this(ENTITY_TYPE)
            .name(new.name)
            .status("active")
            .meta(HASH, hash(id, &secret))
            .meta(PERMISSIONS, permissions)
            .meta(EXPIRES, new.until.into_iter().fold(now.saturating_add(new.lifetime), Timestamp::min).to_string());
        let draft = new.issued_with.into_iter().fold(draft, |draft, credential| draft.meta(ISSUED_WITH, credential));
        self.write(&new.tenant, id, draft, &secret).await
    }

    /// Gives a key a new secret. The old one is accepted for `overlap` longer, so that its holder can change over; so are those to which
    /// earlier rotations have given a time that is not over. Without an overlap all of them end at once.
    ///
    /// # Errors
    /// [`KeyError::NoKey`], [`KeyError::TooManySecrets`]; if the span cannot be written, for example because somebody else changed the key.
    pub async fn rotate(&self, tenant: &str, id: Uuid, overlap: Duration, by: &str) -> Result<IssuedKey, KeyError> {
        let key = self.active(tenant, id).await?;
        self.rotate_seen(&key, overlap, by).await
    }

    /// As [`ApiKeys::rotate`]. It fails with a conflict if the key has had another version since `key`.
    pub(crate) async fn rotate_seen(&self, key: &VerifiedSpan, overlap: Duration, by: &str) -> Result<IssuedKey, KeyError> {
        let id = key.id;
        let secret = secret()?;
        let now = self.clock.now();
        let mut previous = Vec::new();
        if !overlap.is_zero() {
            previous.extend(previous_of(key).filter(|(_, until)| now < *until));
            if previous.len() >= MAX_PREVIOUS {
                let until = previous.iter().map(|(_, until)| *until).min().unwrap_or(now);
                return Err(KeyError::TooManySecrets { id, until });
            }
            previous.extend(hash_in(key.meta(HASH)).map(|hash| (hash, now.saturating_add(overlap))));
        }
        let previous = previous.iter().map(|(hash, until)| json!({"hash": hash.to_hex().as_str(), UNTIL: until.to_string()}));
        let draft = Draft::next_version(key)
            .who(by)
            .did("rotated")
            .meta(HASH, hash(id, &secret))
            .meta(PREVIOUS, previous.collect::<Vec<_>>());
        self.write(&key.tenant_id, id, draft, &secret).await
    }

    /// Ends a key at once, also if somebody else goes on giving it new secrets meanwhile.
    ///
    /// # Errors
    /// [`KeyError::NoKey`]; if the span cannot be written.
    pub async fn revoke(&self, tenant: &str, id: Uuid, by: &str) -> Result<(), KeyError> {
        let mut tries = 1;
        loop {
            let key = self.active(tenant, id).await?;
            let draft = Draft::next_version(&key).who(by).did("revoked").status("revoked");
            match self.host.record(tenant, vec![draft], &AppendOptions::default()).await {
                // Whoever has the secret must not keep its end from being written.
                Err(error) if error.is_conflict() && tries < REVOKE_TRIES => tries += 1,
                written => return Ok(written.map(drop)?),
            }
        }
    }

    async fn write(&self, tenant: &str, id: Uuid, draft: Draft, secret: &str) -> Result<IssuedKey, KeyError> {
        let written = self.host.record(tenant, vec![draft], &AppendOptions::default()).await?;
        let span = written.into_iter().next().ok_or(KeyError::NoKey { id })?;
        let token = Zeroizing::new(format!("{PREFIX}{}_{}_{secret}", escape(tenant), id.simple()));
        Ok(IssuedKey { id, token, span })
    }

    pub(crate) async fn active(&self, tenant: &str, id: Uuid) -> Result<Arc<VerifiedSpan>, KeyError> {
        let key = self.find(tenant, id).await?;
        key.filter(|key| key.status.as_deref() == Some("active")).ok_or(KeyError::NoKey { id })
    }

    /// The last version of a key, if a host has signed it.
    async fn find(&self, tenant: &str, id: Uuid) -> Result<Option<Arc<VerifiedSpan>>, LedgerError> {
        let Some(found) = self.host.ledger().find(&Scope::runtime(tenant), tenant, id).await? else { return Ok(None) };
        let key = self.verified(found, tenant, id);
        Ok(key.filter(|key| self.host.trusted().authorities.check(key).is_ok()))
    }

    /// A version of a key, verified now or before. Nothing else of the row counts than its hash if it was verified before.
    fn verified(&self, found: SignedSpan, tenant: &str, id: Uuid) -> Option<Arc<VerifiedSpan>> {
        let known = || self.verified.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let hash = found.seal.curr_hash;
        let key = known().get(&hash).map(Arc::clone);
        let key = match key {
            Some(key) => key,
            None => {
                let key = Arc::new(found.verify(&mut Verifier::new()).ok()?);
                let mut known = known();
                if known.len() >= MAX_VERIFIED {
                    known.clear();
                }
                known.insert(hash, Arc::clone(&key));
                key
            }
        };
        (key.entity_type == ENTITY_TYPE && key.tenant_id == tenant && key.id == id).then_some(key)
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys").finish_non_exhaustive()
    }
}

#[async_trait]
impl Authenticator for ApiKeys {
    async fn authenticate(&self, token: &str) -> Result<Identity, AuthError> {
        let refused = AuthError::refused;
        let (tenant, id, secret) = parse(token).ok_or_else(|| refused("it is not an API key"))?;
        let key = self.find(&tenant, id).await?.ok_or_else(|| refused("no such API key"))?;
        let now = self.clock.now();
        let time = |name: &str| key.meta(name).and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok());
        // `blake3::Hash` compares in constant time.
        let given = digest(id, secret);
        let is_current = hash_in(key.meta(HASH)) == Some(given);
        let until = previous_of(&key).filter(|(hash, until)| *hash == given && now < *until).map(|(_, until)| until).max();
        if !is_current && until.is_none() {
            return Err(refused("the secret is not that of the API key"));
        }
        if key.status.as_deref() != Some("active") {
            return Err(refused("the API key is revoked"));
        }
        let end = time(EXPIRES).ok_or_else(|| refused("the API key has no end"))?;
        let end = if is_current { end } else { until.map_or(end, |until| until.min(end)) };
        if end <= now {
            return Err(refused("the API key has expired"));
        }
        let names = key.meta(PERMISSIONS).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let permissions: Vec<_> = names.filter_map(Permission::of).collect();
        Ok(Identity::new(tenant, &key.owner_id, id.to_string(), permissions).expires(Some(end)))
    }
}

/// API keys, and another authenticator for all other tokens.
struct KeysOr<A> {
    keys: ApiKeys,
    other: A,
}

#[async_trait]
impl<A: Authenticator> Authenticator for KeysOr<A> {
    async fn authenticate(&self, token: &str) -> Result<Identity, AuthError> {
        if token.starts_with(PREFIX) { self.keys.authenticate(token).await } else { self.other.authenticate(token).await }
    }
}

fn hash_in(member: Option<&Value>) -> Option<blake3::Hash> {
    blake3::Hash::from_hex(member?.as_str()?).ok()
}

/// The old secrets of a key, and until when each is accepted.
fn previous_of(key: &VerifiedSpan) -> impl Iterator<Item = (blake3::Hash, Timestamp)> {
    let read = |old: &Value| Some((hash_in(old.get("hash"))?, old.get(UNTIL)?.as_str()?.parse().ok()?));
    key.meta(PREVIOUS).and_then(Value::as_array).into_iter().flatten().filter_map(read)
}

/// 32 random bytes as hex.
fn secret() -> Result<Zeroizing<String>, getrandom::Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut())?;
    Ok(Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// The secrets have 256 random bits, so a fast hash is enough.
fn digest(id: Uuid, secret: &str) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key("logline-http 2026 API keys");
    hasher.update(id.as_bytes()).update(secret.as_bytes());
    hasher.finalize()
}

fn hash(id: Uuid, secret: &str) -> String {
    digest(id, secret).to_hex().to_string()
}

/// Reads `ll_TENANT_ID_SECRET`. The tenant may have underscores, the others have none.
fn parse(token: &str) -> Option<(String, Uuid, &str)> {
    let mut parts = token.strip_prefix(PREFIX)?.rsplitn(3, '_');
    let (secret, id, tenant) = (parts.next()?, parts.next()?, unescape(parts.next()?)?);
    let is_simple = id.len() == 32 && secret.len() == 64;
    (is_simple && !tenant.is_empty() && tenant != SYSTEM_TENANT && tenant.len() <= MAX_NAME_BYTES).then_some((
        tenant,
        Uuid::try_parse(id).ok()?,
        secret,
    ))
}

/// Writes a tenant so that it can stand in a header: other bytes than letters, digits, `.`, `-` and `_` become `~` and two digits.
fn escape(tenant: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_".contains(byte);
    tenant.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("~{byte:02x}") }).collect()
}

fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('~');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend(rest.as_bytes());
    }
    // Only what `escape` writes: a tenant has one spelling.
    String::from_utf8(bytes).ok().filter(|tenant| escape(tenant) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenant_has_one_spelling_in_keys() {
        for tenant in ["acme", "acme_ltd", "_", "a.b-c", "ä ö", "~", "a~b"] {
            assert_eq!(unescape(&escape(tenant)).as_deref(), Some(tenant));
            let token = format!("ll_{}_{}_{}", escape(tenant), Uuid::nil().simple(), "a".repeat(64));
            assert_eq!(parse(&token).unwrap().0, tenant);
        }
        for text in ["a~", "a~6", "a~zz", "~61", "ä", "~C3~a4", "~+1"] {
            assert_eq!(unescape(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_not_parsed() {
        let (id, secret) = (Uuid::nil().simple().to_string(), "a".repeat(64));
        for token in [
            String::new(),
            "ll_".to_owned(),
            "ll___".to_owned(),
            format!("ll_system_{id}_{secret}"),
            format!("ll__{id}_{secret}"),
            format!("ll_acme_{id}_"),
            format!("ll_acme_{}_{secret}", Uuid::nil()),
            format!("LL_acme_{id}_{secret}"),
        ] {
            assert!(parse(&token).is_none(), "{token}");
        }
    }
}
