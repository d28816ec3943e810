//! Tokens of an issuer, and what is sent instead of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use logline_core::{Clock as _, SystemClock};
use logline_http::{Authenticator, Jwt, JwtOptions, KeySource, ServeOptions};
use logline_sqlite::SqliteLedger;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::stage::{Stage, options};

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "logline";

struct Issuer {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    modulus: String,
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> i64 {
    SystemClock.now().unix_micros() / 1_000_000
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap();
        Self { ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(), ec, modulus: encode([0xc5; 256]) }
    }

    fn key_set(&self) -> String {
        let point = self.ec.public_key().as_ref();
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "x": encode(self.ed.public_key().as_ref())},
            {"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": encode(&point[1..33]), "y": encode(&point[33..])},
            {"kty": "RSA", "kid": "rsa", "alg": "RS256", "n": self.modulus, "e": "AQAB"},
            {"kty": "RSA", "kid": "encryption", "use": "enc", "n": self.modulus, "e": "AQAB"},
            {"kty": "oct", "kid": "shared", "alg": "HS256", "k": encode([1; 32])},
        ]})
        .to_string()
    }

    fn claims() -> Value {
        json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "tenant_id": "acme", "exp": now() + 600, "scope": "openid spans:read spans:write"})
    }

    fn message(header: &Value, claims: &Value) -> String {
        format!("{}.{}", encode(header.to_string()), encode(claims.to_string()))
    }

    fn ed(&self, header: &Value, claims: &Value) -> String {
        let message = Self::message(header, claims);
        format!("{message}.{}", encode(self.ed.sign(message.as_bytes())))
    }

    fn ec(&self, header: &Value, claims: &Value) -> String {
        let message = Self::message(header, claims);
        format!("{message}.{}", encode(self.ec.sign(&SystemRandom::new(), message.as_bytes()).unwrap()))
    }

    fn hmac(secret: &[u8], header: &Value, claims: &Value) -> String {
        let message = Self::message(header, claims);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        format!("{message}.{}", encode(hmac::sign(&key, message.as_bytes())))
    }
}

async fn stage(jwt: Jwt) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(folder.path().join("service.ledger")).unwrap();
    Stage::on(Arc::new(ledger), folder, options(), ServeOptions::default(), |keys| keys.or(jwt)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_the_issuer_are_accepted_and_forged_ones_are_not() {
    let issuer = Issuer::new();
    let stage = stage(Jwt::new(JwtOptions::new(ISSUER, AUDIENCE), &issuer.key_set()).unwrap()).await;
    let claims = Issuer::claims();
    let (ed, ec) = (json!({"alg": "EdDSA", "typ": "JWT", "kid": "ed"}), json!({"alg": "ES256", "kid": "ec"}));
    let good = issuer.ed(&ed, &claims);
    for token in [&good, &issuer.ec(&ec, &claims), &issuer.ed(&json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "ed"}), &claims)]
    {
        assert_eq!(stage.get(token, "/api/spans").await.status, 200, "{token}");
    }
    let key = stage.token("acme", "alice").await;
    assert_eq!(stage.get(&key, "/api/spans").await.status, 200, "API keys are accepted beside them");

    let mut refused: Vec<(&str, String)> = vec![
        ("no algorithm", format!("{}.", Issuer::message(&json!({"alg": "none", "kid": "ed"}), &claims))),
        ("no algorithm, in capitals", format!("{}.", Issuer::message(&json!({"alg": "NONE", "kid": "ed"}), &claims))),
        ("no signature", format!("{}.", Issuer::message(&ed, &claims))),
        (
            "the RSA key as a shared secret",
            Issuer::hmac(issuer.modulus.as_bytes(), &json!({"alg": "HS256", "kid": "rsa"}), &claims),
        ),
        ("the RSA key's bytes as a shared secret", Issuer::hmac(&[0xc5; 256], &json!({"alg": "HS256", "kid": "rsa"}), &claims)),
        (
            "the Ed25519 key as a shared secret",
            Issuer::hmac(issuer.ed.public_key().as_ref(), &json!({"alg": "HS256", "kid": "ed"}), &claims),
        ),
        ("a secret from the public key set", Issuer::hmac(&[1; 32], &json!({"alg": "HS256", "kid": "shared"}), &claims)),
        ("another algorithm than the key's", issuer.ed(&json!({"alg": "ES256", "kid": "ed"}), &claims)),
        ("another key than the signer's", issuer.ed(&json!({"alg": "EdDSA", "kid": "ec"}), &claims)),
        ("a key for encryption", issuer.ed(&json!({"alg": "RS256", "kid": "encryption"}), &claims)),
        ("no kid", issuer.ed(&json!({"alg": "EdDSA"}), &claims)),
        ("a kid that is no text", issuer.ed(&json!({"alg": "EdDSA", "kid": 1}), &claims)),
        ("a header that must be understood", issuer.ed(&json!({"alg": "EdDSA", "kid": "ed", "crit": ["x"], "x": 1}), &claims)),
        ("another type of token", issuer.ed(&json!({"alg": "EdDSA", "kid": "ed", "typ": "dpop+jwt"}), &claims)),
        ("a key in the header", {
            let other = Issuer::new();
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(other.ed.public_key().as_ref())});
            other.ed(&json!({"alg": "EdDSA", "kid": "ed", "jwk": jwk}), &claims)
        }),
        ("another issuer's key", Issuer::new().ed(&ed, &claims)),
        ("changed claims", {
            let parts: Vec<_> = good.split('.').collect();
            let mut changed = claims.clone();
            changed["tenant_id"] = "beta".into();
            format!("{}.{}.{}", parts[0], encode(changed.to_string()), parts[2])
        }),
        ("four parts", format!("{good}.x")),
        ("nothing", ".".to_owned()),
    ];
    for (name, claim, value) in [
        ("expired", "exp", json!(now() - 60)),
        ("an end that is no number", "exp", json!("2100-01-01")),
        ("not yet valid", "nbf", json!(now() + 600)),
        ("another issuer", "iss", json!("https://other.example")),
        ("another audience", "aud", json!("other")),
        ("another list of audiences", "aud", json!(["a", "b"])),
        ("no user", "sub", json!("")),
        ("a tenant that no token has", "tenant_id", json!("system")),
        ("a tenant that is no text", "tenant_id", json!(["acme"])),
    ] {
        let mut claims = claims.clone();
        claims[claim] = value;
        refused.push((name, issuer.ed(&ed, &claims)));
    }
    for claim in ["exp", "iss", "aud", "sub", "tenant_id"] {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(claim);
        refused.push((claim, issuer.ed(&ed, &claims)));
    }
    for (name, token) in &refused {
        let answer = stage.get(token, "/api/spans").await;
        assert_eq!(answer.status, 401, "{name}");
        answer.is(401, "invalid_token");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        let detail = &answer.json()["detail"];
        assert_eq!(*detail, stage.get("ll_x", "/api/spans").await.json()["detail"], "{name}: it is not said why");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_permissions_permits_nothing() {
    let issuer = Issuer::new();
    let stage = stage(Jwt::new(JwtOptions::new(ISSUER, AUDIENCE), &issuer.key_set()).unwrap()).await;
    let mut claims = Issuer::claims();
    for scope in [json!(null), json!("openid"), json!(["spans:reader"]), json!({"spans:read": true})] {
        claims["scope"] = scope;
        let token = issuer.ed(&json!({"alg": "EdDSA", "kid": "ed"}), &claims);
        stage.get(&token, "/api/spans").await.is(403, "not_permitted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_without_a_plain_token_are_refused() {
    let stage = Stage::start().await;
    let token = stage.token("acme", "alice").await;
    stage.call("GET", "/api/spans", &[], None).await.is(401, "no_token");
    let long = format!("Bearer {}", "a".repeat(9000));
    for value in
        ["", "Bearer", "Bearer ", &format!("Basic {token}"), &token, &format!("Bearer  {token}"), &long, "Bearer \u{e9}"]
    {
        stage.call("GET", "/api/spans", &[("authorization", value)], None).await.is(401, "invalid_token");
    }
    let bearer = format!("Bearer {token}");
    let twice = [("authorization", bearer.as_str()), ("authorization", bearer.as_str())];
    stage.call("GET", "/api/spans", &twice, None).await.is(401, "invalid_token");
    stage.call("GET", &format!("/api/spans?access_token={token}"), &[], None).await.is(401, "no_token");
}

struct Counted {
    fetches: Arc<AtomicUsize>,
    document: Option<String>,
}

#[async_trait]
impl KeySource for Counted {
    async fn fetch(&self) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        self.document.clone().ok_or_else(|| "the issuer is away".into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_unknown_kids_fetches_once_and_takes_no_key_away() {
    let issuer = Issuer::new();
    for document in [None, Some("{\"keys\": []}".to_owned()), Some("no JSON".to_owned())] {
        let fetches = Arc::new(AtomicUsize::new(0));
        let source = Counted { fetches: Arc::clone(&fetches), document };
        let options = JwtOptions::new(ISSUER, AUDIENCE).source(source, Duration::from_secs(3600));
        let jwt = Arc::new(Jwt::new(options, &issuer.key_set()).unwrap());
        let storm = (0..500).map(|n| {
            let (jwt, token) =
                (Arc::clone(&jwt), issuer.ed(&json!({"alg": "EdDSA", "kid": format!("k{n}")}), &Issuer::claims()));
            async move { jwt.authenticate(&token).await.is_err() }
        });
        assert!(futures_util::future::join_all(storm).await.into_iter().all(|refused| refused));
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
        let good = issuer.ed(&json!({"alg": "EdDSA", "kid": "ed"}), &Issuer::claims());
        assert_eq!(jwt.authenticate(&good).await.unwrap().user, "alice");
    }
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_found_when_a_token_names_it() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let fetches = Arc::new(AtomicUsize::new(0));
    let source = Counted { fetches: Arc::clone(&fetches), document: Some(new.key_set().replace("\"ed\"", "\"ed-2\"")) };
    let options = JwtOptions::new(ISSUER, AUDIENCE).source(source, Duration::from_secs(3600));
    let jwt = Jwt::new(options, &old.key_set()).unwrap();
    let token = new.ed(&json!({"alg": "EdDSA", "kid": "ed-2"}), &Issuer::claims());
    let identity = jwt.authenticate(&token).await.unwrap();
    assert_eq!((identity.tenant.as_str(), identity.user.as_str(), fetches.load(Ordering::SeqCst)), ("acme", "alice", 1));
}

#[test]
fn key_sets_without_usable_keys_are_refused() {
    for set in ["", "[]", "{}", "{\"keys\":[]}", r#"{"keys":[{"kty":"oct","kid":"a","k":"AAAA"}]}"#] {
        assert!(Jwt::new(JwtOptions::new(ISSUER, AUDIENCE), set).is_err(), "{set}");
    }
}
