//! Secrets of this host, from its environment and from files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use logline_core::contract::provider::{Secret, SecretError, SecretSource};
use serde::Deserialize;

/// Where one secret is.
#[derive(Debug, Clone)]
enum Place {
    Environment(String),
    File(PathBuf),
    Text(Secret),
}

#[derive(Debug, Clone)]
struct Entry {
    place: Place,
    urls: Vec<String>,
}

/// Secrets of a host by reference, each with the URLs to which it may be sent. A secret is read when it is needed, so a new one takes
/// effect with the next call.
///
/// ```
/// use logline_kernels::provider::HostSecrets;
///
/// let secrets = HostSecrets::new().env("openai", "OPENAI_API_KEY", ["https://api.openai.com"]);
/// ```
#[derive(Debug, Clone, Default)]
pub struct HostSecrets {
    entries: BTreeMap<String, Entry>,
}

impl HostSecrets {
    /// No secrets.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A secret in the environment variable `variable`. It is sent to `urls` and to what is below them.
    #[must_use]
    pub fn env<U: Into<String>>(
        self,
        reference: impl Into<String>,
        variable: impl Into<String>,
        urls: impl IntoIterator<Item = U>,
    ) -> Self {
        self.with(reference.into(), Place::Environment(variable.into()), urls)
    }

    /// A secret in a file, as container platforms mount them. White space at the end is left out.
    #[must_use]
    pub fn file<U: Into<String>>(
        self,
        reference: impl Into<String>,
        path: impl Into<PathBuf>,
        urls: impl IntoIterator<Item = U>,
    ) -> Self {
        self.with(reference.into(), Place::File(path.into()), urls)
    }

    /// A secret that the program has already.
    #[must_use]
    pub fn text<U: Into<String>>(
        self,
        reference: impl Into<String>,
        secret: Secret,
        urls: impl IntoIterator<Item = U>,
    ) -> Self {
        self.with(reference.into(), Place::Text(secret), urls)
    }

    /// Reads which secrets there are: `{REFERENCE: {"env": VARIABLE, "urls": […]}, …}`, or `"file": PATH` in place of `env`. The text of
    /// a secret cannot stand there.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(text: &str) -> Result<Self, String> {
        let listed: BTreeMap<String, Listed> = serde_json::from_str(text).map_err(|error| {
            // Never the error's own text: it quotes what it found, and that may be a secret that somebody has put here.
            let (line, column) = (error.line(), error.column());
            format!("line {line}, column {column}: it must be {{REFERENCE: {{\"env\": VARIABLE, \"urls\": [...]}}}}, or \"file\": PATH for \"env\"; the secret itself does not stand here")
        })?;
        listed.into_iter().try_fold(Self::default(), |secrets, (reference, Listed { env, file, urls })| match (env, file) {
            (Some(variable), None) => Ok(secrets.env(reference, variable, urls)),
            (None, Some(path)) => Ok(secrets.file(reference, path, urls)),
            _ => Err(format!("`{}` must have either `env` or `file`", reference.escape_debug())),
        })
    }

    fn with<U: Into<String>>(mut self, reference: String, place: Place, urls: impl IntoIterator<Item = U>) -> Self {
        let urls = urls.into_iter().map(|url| url.into().trim_end_matches('/').to_owned()).collect();
        self.entries.insert(reference, Entry { place, urls });
        self
    }
}

/// Where a secret is, as [`HostSecrets::read`] reads it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    #[serde(default)]
    env: Option<String>,
    #[serde(default)]
    file: Option<PathBuf>,
    urls: Vec<String>,
}

/// Whether a path stays below where it begins, however it is read: it has no `..`, and no characters that stand for others.
fn is_plain_path(path: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-_.:~".contains(c);
    path.chars().all(is_plain) && !path.split('/').any(|part| part == ".." || part == ".")
}

#[async_trait]
impl SecretSource for HostSecrets {
    async fn secret(&self, reference: &str, url: Option<&str>) -> Result<Secret, SecretError> {
        let missing = |advice: String| SecretError::Missing { reference: reference.to_owned(), advice };
        let Some(entry) = self.entries.get(reference) else {
            return Err(missing("give it to the host's `HostSecrets`".to_owned()));
        };
        // `https://api.example` must not match `https://api.example.attacker`.
        let is_below = |allowed: &String| {
            let rest = url.and_then(|url| url.strip_prefix(allowed.as_str()));
            rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with('/') && is_plain_path(rest)))
        };
        if !entry.urls.iter().any(is_below) {
            let url = url.unwrap_or("the default URL").to_owned();
            return Err(SecretError::NotAllowed { reference: reference.to_owned(), url });
        }
        let text = match &entry.place {
            Place::Text(secret) => return Ok(secret.clone()),
            Place::Environment(name) => {
                std::env::var(name).map_err(|_| missing(format!("set the environment variable {name}")))?
            }
            Place::File(path) => std::fs::read_to_string(path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => missing(format!("there is no file {}", path.display())),
                _ => SecretError::Unavailable { reference: reference.to_owned(), reason: error.to_string() },
            })?,
        };
        match text.trim_end() {
            "" => Err(missing("it is empty".to_owned())),
            text => Ok(Secret::new(text.to_owned())),
        }
    }
}
