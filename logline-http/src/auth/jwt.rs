//! JSON Web Tokens of one issuer, checked by its key set (RFC 8725: the algorithm belongs to the key, not to the token).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use logline_core::{MAX_NAME_BYTES, SYSTEM_TENANT, Timestamp, json};
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use crate::auth::{AuthError, Authenticator, signatures};
use crate::identity::{Identity, Permission};

/// The most keys of a set.
const MAX_KEYS: usize = 64;

/// The longest wait for a key set.
const FETCH_LIMIT: Duration = Duration::from_secs(10);

/// The most calls that wait for a key set.
const WAITING: usize = 64;

/// Gets the issuer's key set again. The host implements it, with the client that it has: this crate opens no connections.
#[async_trait]
pub trait KeySource: Send + Sync + 'static {
    /// The key set as a JSON document (RFC 7517).
    ///
    /// # Errors
    /// Why it cannot be had. The keys that are known stay in force.
    async fn fetch(&self) -> Result<String, Box<dyn std::error::Error + Send + Sync>>;
}

/// Which tokens are accepted.
#[derive(Clone)]
#[non_exhaustive]
pub struct JwtOptions {
    /// The value that `iss` must have.
    pub issuer: String,
    /// A value that `aud` must have.
    pub audience: String,
    /// The claim that has the tenant. Default `tenant_id`.
    pub tenant_claim: String,
    /// The claim that has the permissions, as a text with spaces or as a list. Default `scope`. Other words in it are ignored.
    pub permissions_claim: String,
    /// How far clocks may differ. Default 30 seconds.
    pub leeway: Duration,
    /// Where the key set is had again if a token names a key that is not known. `None`: never.
    pub source: Option<Arc<dyn KeySource>>,
    /// The least time between two fetches, however many tokens name unknown keys. Default one minute.
    pub fetch_pause: Duration,
}

impl JwtOptions {
    /// Tokens of `issuer` for `audience`.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            tenant_claim: "tenant_id".to_owned(),
            permissions_claim: "scope".to_owned(),
            leeway: Duration::from_secs(30),
            source: None,
            fetch_pause: Duration::from_secs(60),
        }
    }

    /// Sets the claim that has the tenant.
    #[must_use]
    pub fn tenant_claim(mut self, name: impl Into<String>) -> Self {
        self.tenant_claim = name.into();
        self
    }

    /// Sets where the key set is had again, and the least time between two fetches.
    #[must_use]
    pub fn source(mut self, source: impl KeySource, pause: Duration) -> Self {
        self.source = Some(Arc::new(source));
        self.fetch_pause = pause;
        self
    }
}

impl fmt::Debug for JwtOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtOptions").field("issuer", &self.issuer).field("audience", &self.audience).finish_non_exhaustive()
    }
}

/// Why a key set cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JwtError {
    /// It is not a key set.
    #[error("the key set cannot be read: {0}; give the document that the issuer's `jwks_uri` names")]
    Malformed(String),
    /// It has no key that could sign tokens.
    #[error("the key set has no usable key: it needs RSA, P-256, P-384 or Ed25519 keys for signatures, each with a `kid`")]
    NoKey,
    /// It has too many keys.
    #[error("the key set has more than {MAX_KEYS} keys")]
    TooMany,
}

struct Key {
    algorithm: Algorithm,
    key: DecodingKey,
}

type Keys = HashMap<String, Key>;

/// Accepts the JWTs of one issuer.
///
/// A token needs `iss`, `aud`, `exp`, `sub` (the user), the tenant's claim, and a header `kid` that names a key of the issuer's set.
/// The key decides the algorithm. Shared secrets are not supported. The process-wide provider of `jsonwebtoken` is set to one that
/// checks signatures and makes none, unless the process has set another before.
pub struct Jwt {
    options: JwtOptions,
    known: Arc<Known>,
    /// Calls that may wait for a fetch at the same time.
    waiting: Semaphore,
}

/// The keys in force.
struct Known {
    keys: RwLock<Arc<Keys>>,
    /// When the last fetch began.
    fetched: Mutex<Option<Instant>>,
}

impl Jwt {
    /// Tokens that are signed with the keys of `key_set`, a JSON document.
    ///
    /// # Errors
    /// [`JwtError`].
    pub fn new(options: JwtOptions, key_set: &str) -> Result<Self, JwtError> {
        signatures::install();
        let known = Arc::new(Known { keys: RwLock::new(Arc::new(read(key_set)?)), fetched: Mutex::new(None) });
        Ok(Self { options, known, waiting: Semaphore::new(WAITING) })
    }

    /// Puts another key set in force, for hosts that fetch it on their own.
    ///
    /// # Errors
    /// [`JwtError`]; the old set stays in force.
    pub fn replace(&self, key_set: &str) -> Result<(), JwtError> {
        self.known.replace(key_set)
    }

    /// The keys, fetched again if `kid` is not among them and the last fetch is long enough ago. However many tokens name unknown keys,
    /// there is one fetch, and few calls wait for it.
    async fn keys_with(&self, kid: &str) -> Result<Arc<Keys>, AuthError> {
        let keys = self.known.keys();
        let Some(source) = self.options.source.as_ref().filter(|_| !keys.contains_key(kid)) else { return Ok(keys) };
        let Ok(_place) = self.waiting.try_acquire() else {
            return Err(AuthError::Unavailable { reason: "too many tokens name unknown keys".to_owned() });
        };
        let (known, source, pause) = (Arc::clone(&self.known), Arc::clone(source), self.options.fetch_pause);
        let kid = kid.to_owned();
        // A client that leaves does not break off the fetch, for which all others would have to wait another pause.
        let fetch = tokio::spawn(async move { known.keys_with(&kid, &*source, pause).await });
        Ok(fetch.await.unwrap_or(keys))
    }
}

impl Known {
    fn replace(&self, key_set: &str) -> Result<(), JwtError> {
        let keys = Arc::new(read(key_set)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn keys_with(&self, kid: &str, source: &dyn KeySource, pause: Duration) -> Arc<Keys> {
        let mut fetched = self.fetched.lock().await;
        let is_fresh = fetched.is_some_and(|at| at.elapsed() < pause);
        if self.keys().contains_key(kid) || is_fresh {
            return self.keys();
        }
        *fetched = Some(Instant::now());
        match tokio::time::timeout(FETCH_LIMIT, source.fetch()).await {
            // INVARIANT: a fetch that fails takes no key away.
            Ok(Ok(document)) => {
                if let Err(error) = self.replace(&document) {
                    tracing::warn!(%error, "the issuer's new key set is not used");
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "the issuer's key set cannot be had"),
            Err(_) => tracing::warn!("the issuer's key set did not come within {} s", FETCH_LIMIT.as_secs()),
        }
        self.keys()
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("options", &self.options).finish_non_exhaustive()
    }
}

#[async_trait]
impl Authenticator for Jwt {
    async fn authenticate(&self, token: &str) -> Result<Identity, AuthError> {
        let refused = AuthError::refused;
        let kid = kid(token).ok_or_else(|| refused("its header is not that of a signed JWT with a `kid`"))?;
        let keys = self.keys_with(&kid).await?;
        let key = keys.get(&kid).ok_or_else(|| refused("it names an unknown key"))?;
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = self.options.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.options.issuer]);
        validation.set_audience(&[&self.options.audience]);
        let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation).map_err(|error| {
            tracing::debug!(%error, "a JWT was refused");
            refused("its signature or a claim is not valid")
        })?;
        self.identity(&claims.claims)
    }
}

impl Jwt {
    fn identity(&self, claims: &Map<String, Value>) -> Result<Identity, AuthError> {
        let refused = AuthError::refused;
        let name = |claim: &str| {
            let name = claims.get(claim).and_then(Value::as_str);
            name.filter(|name| !name.is_empty() && name.len() <= MAX_NAME_BYTES && *name != SYSTEM_TENANT)
        };
        let user = name("sub").ok_or_else(|| refused("`sub` cannot be a user"))?;
        let tenant = name(&self.options.tenant_claim).ok_or_else(|| refused("it has no tenant"))?;
        let permissions: Vec<_> = match claims.get(&self.options.permissions_claim) {
            Some(Value::String(words)) => words.split(' ').filter_map(Permission::of).collect(),
            Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).filter_map(Permission::of).collect(),
            _ => Vec::new(),
        };
        let exp = claims.get("exp").and_then(Value::as_f64).ok_or_else(|| refused("`exp` is no number"))?;
        #[allow(clippy::cast_possible_truncation, reason = "a float that is too large becomes the largest integer")]
        let end = Timestamp::from_unix_micros((exp as i64).saturating_mul(1_000_000)).ok();
        let end = end.map(|end| end.saturating_add(self.options.leeway));
        let credential = format!("{}#{user}", self.options.issuer);
        Ok(Identity::new(tenant, user, credential, permissions).expires(end))
    }
}

/// The key that a token names, if its header is one that this library understands.
fn kid(token: &str) -> Option<String> {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let header = json::parse(&header).ok()?;
    let header = header.as_object()?;
    // A header that must be understood is not understood here, and tokens of other kinds are for other uses.
    let typ = header.get("typ").map_or(Some("JWT"), Value::as_str)?.to_ascii_lowercase();
    if header.contains_key("crit")
        || header.contains_key("b64")
        || !["jwt", "at+jwt", "application/at+jwt"].contains(&typ.as_str())
    {
        return None;
    }
    header.get("kid")?.as_str().filter(|kid| kid.len() <= 256).map(str::to_owned)
}

fn read(key_set: &str) -> Result<Keys, JwtError> {
    let set: JwkSet = serde_json::from_str(key_set).map_err(|error| JwtError::Malformed(error.to_string()))?;
    if set.keys.len() > MAX_KEYS {
        return Err(JwtError::TooMany);
    }
    let keys: Keys = set.keys.iter().filter_map(usable).collect();
    if keys.is_empty() { Err(JwtError::NoKey) } else { Ok(keys) }
}

/// A key that signs tokens, with its `kid` and its one algorithm.
fn usable(jwk: &Jwk) -> Option<(String, Key)> {
    let common = &jwk.common;
    if common.public_key_use.as_ref().is_some_and(|used_for| *used_for != PublicKeyUse::Signature) {
        return None;
    }
    let named = common.key_algorithm;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => match named {
            None | Some(KeyAlgorithm::RS256) => Algorithm::RS256,
            Some(KeyAlgorithm::RS384) => Algorithm::RS384,
            Some(KeyAlgorithm::RS512) => Algorithm::RS512,
            Some(KeyAlgorithm::PS256) => Algorithm::PS256,
            Some(KeyAlgorithm::PS384) => Algorithm::PS384,
            Some(KeyAlgorithm::PS512) => Algorithm::PS512,
            Some(_) => return None,
        },
        AlgorithmParameters::EllipticCurve(curve) => match (&curve.curve, named) {
            (EllipticCurve::P256, None | Some(KeyAlgorithm::ES256)) => Algorithm::ES256,
            (EllipticCurve::P384, None | Some(KeyAlgorithm::ES384)) => Algorithm::ES384,
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(pair) => match (&pair.curve, named) {
            (EllipticCurve::Ed25519, None | Some(KeyAlgorithm::EdDSA)) => Algorithm::EdDSA,
            _ => return None,
        },
        // A secret in a key set is public.
        _ => return None,
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some((common.key_id.clone()?, Key { algorithm, key }))
}
