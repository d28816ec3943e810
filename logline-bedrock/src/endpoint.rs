//! Where a call goes, and with whose rights.

use aws_credential_types::Credentials;
use logline_core::contract::provider::{ErrorKind, ProviderError, Secret};
use serde::Deserialize;
use url::{Host, Url};

use crate::error::error;

/// With whose rights a call is made.
pub(crate) enum Login {
    /// Those of the host.
    Own,
    /// A Bedrock API key.
    Token(String),
    /// Keys of AWS.
    Keys(Credentials),
}

/// A secret as keys of AWS.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    session_token: Option<String>,
}

impl Login {
    /// Reads a secret: JSON with keys of AWS, or else a Bedrock API key.
    ///
    /// # Errors
    /// That it is neither, without what it is.
    pub(crate) fn of(secret: Option<&Secret>) -> Result<Self, ProviderError> {
        let Some(secret) = secret else { return Ok(Self::Own) };
        let text = secret.reveal();
        if text.trim_start().starts_with('{') {
            let keys: Keys = serde_json::from_str(text).map_err(|_| {
                let form = r#"{"access_key_id": "…", "secret_access_key": "…", "session_token": "…"}"#;
                error(ErrorKind::Denied, format!("the secret is not {form} (the token only for temporary keys)"))
            })?;
            let Keys { access_key_id, secret_access_key, session_token } = keys;
            return Ok(Self::Keys(Credentials::new(access_key_id, secret_access_key, session_token, None, "logline-bedrock")));
        }
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(error(ErrorKind::Denied, "the secret is empty or has characters that no header may have"));
        }
        Ok(Self::Token(text.to_owned()))
    }

    /// The texts that no error may contain.
    pub(crate) fn secrets(&self) -> Vec<&str> {
        match self {
            Self::Own => Vec::new(),
            Self::Token(token) => vec![token],
            Self::Keys(keys) => [Some(keys.secret_access_key()), keys.session_token()].into_iter().flatten().collect(),
        }
    }
}

/// Checks a base URL: HTTPS, or HTTP on this machine; without credentials, path, query or fragment.
pub(crate) fn check_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|reason| format!("`url` is not a URL: {reason}"))?;
    let is_local = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if is_local => {}
        _ => return Err("`url` must begin with https:// (http:// is for this machine only)".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("`url` must not contain credentials: name a `secret`".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("`url` must not have a query or a fragment".to_owned());
    }
    Ok(url)
}

/// The region of Bedrock to which the URL belongs, if it is one of AWS and nobody else can have it: hosts such as
/// `bedrock-runtime.eu-central-1.amazonaws.com`, and those of VPC endpoints.
pub(crate) fn region_of(url: &Url) -> Option<&str> {
    if url.scheme() != "https" || url.port().is_some() || !matches!(url.path(), "" | "/") {
        return None;
    }
    let labels: Vec<&str> = url.host_str()?.split('.').collect();
    let region = match labels.as_slice() {
        [service, region, "amazonaws", "com"]
        | [service, region, "amazonaws", "com", "cn"]
        | [service, region, "api", "aws"]
            if is_service(service) =>
        {
            region
        }
        [endpoint, service, region, "vpce", "amazonaws", "com"] if is_service(service) && endpoint.starts_with("vpce-") => {
            region
        }
        _ => return None,
    };
    is_region(region).then_some(region)
}

fn is_service(label: &str) -> bool {
    matches!(label, "bedrock-runtime" | "bedrock-runtime-fips")
}

/// Whether it looks like `us-east-1` or `us-gov-west-1`. Hosts of other services, such as `s3-us-west-2`, do not.
fn is_region(label: &str) -> bool {
    let parts: Vec<&str> = label.split('-').collect();
    let Some((number, words)) = parts.split_last() else { return false };
    let is_word = |word: &&str| word.len() >= 2 && word.bytes().all(|byte| byte.is_ascii_lowercase());
    words.len() >= 2 && words.iter().all(is_word) && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}
