//! The configuration: a TOML file, the environment, and the command line, each over the one before. Unknown names are refused, and all
//! faults are told at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use logline_http::LogFolders;
use toml::{Table, Value};
use url::Url;

/// Variables of the environment begin with this: `LOGLINE_SERVER_TLS_CERT` is `tls.cert` of the file.
const PREFIX: &str = "LOGLINE_SERVER_";

/// Everything that can be set.
const NAMES: [&str; 22] = [
    "listen",
    "ledger",
    "home",
    "tenant",
    "client_header",
    "memory",
    "tenant_keys",
    "chat.provider",
    "chat.url",
    "chat.model",
    "chat.secret_env",
    "chat.secret_file",
    "chat.max_tokens",
    "otlp.endpoint",
    "tls.cert",
    "tls.key",
    "log.tiles",
    "log.locks",
    "log.key",
    "jwt.issuer",
    "jwt.audience",
    "jwt.key_set",
];

/// Where the ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ledger {
    Sqlite(PathBuf),
    Postgres(String),
}

#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) ledger: Ledger,
    /// The folder of keys and trust root. `None`: beside the file of the ledger.
    pub(crate) home: Option<PathBuf>,
    /// The tenant of the token that is printed.
    pub(crate) tenant: String,
    /// The header in which the proxy names the client.
    pub(crate) client_header: Option<http::HeaderName>,
    /// Whether there are memories, and confidential requests.
    pub(crate) memory: bool,
    /// The folder of the tenants' keys, which protect memories. `None`: with the other keys.
    pub(crate) tenant_keys: Option<PathBuf>,
    /// The model that answers `/api/chat`.
    pub(crate) chat: Option<Model>,
    /// Where traces go: the address to which OTLP is sent over HTTP.
    pub(crate) traces: Option<Url>,
    /// Certificate chain and key, as PEM files.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    /// The folders of the transparency log.
    pub(crate) log: Option<LogFolders>,
    pub(crate) jwt: Option<Issuer>,
}

/// The model that answers questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Model {
    /// A script, for trying out.
    Scripted,
    /// A server that speaks OpenAI's protocol.
    OpenAi { url: String, model: String, max_tokens: u32, secret: Option<Secret> },
}

/// Where the secret of a provider is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Secret {
    Environment(String),
    File(PathBuf),
}

/// Whose JWTs are accepted beside API keys.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    /// A file with the key set.
    pub(crate) key_set: PathBuf,
}

/// What is set, and what is wrong with it.
#[derive(Default)]
struct Settings {
    values: BTreeMap<String, Value>,
    variables: BTreeMap<String, String>,
    faults: Vec<String>,
}

impl Settings {
    fn put(&mut self, name: &str, value: Value, from: &str) {
        if NAMES.contains(&name) {
            self.values.insert(name.to_owned(), value);
        } else {
            self.faults.push(format!("{from}: `{name}` is not known; there are {}", NAMES.join(", ")));
        }
    }

    fn file(&mut self, path: &Path) {
        let from = path.display().to_string();
        let table = std::fs::read_to_string(path).map_err(|error| error.to_string());
        let table = table.and_then(|text| text.parse::<Table>().map_err(|error| error.to_string()));
        match table {
            Err(error) => self.faults.push(format!("{from}: {error}")),
            Ok(table) => {
                for (name, value) in table {
                    match value {
                        Value::Table(inner) => {
                            for (inner, value) in inner {
                                self.put(&format!("{name}.{inner}"), value, &from);
                            }
                        }
                        value => self.put(&name, value, &from),
                    }
                }
            }
        }
    }

    fn environment(&mut self) {
        for (variable, value) in self.variables.clone() {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            let name = name.to_ascii_lowercase();
            let known = NAMES.iter().find(|known| known.replace('.', "_") == name);
            self.put(known.copied().unwrap_or(&name), Value::String(value), &variable);
        }
    }

    fn text(&mut self, name: &str) -> Option<String> {
        match self.values.get(name)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            _ => {
                self.faults.push(format!("`{name}` must be a text that is not empty"));
                None
            }
        }
    }

    fn parsed<T: std::str::FromStr>(&mut self, name: &str, expected: &str) -> Option<T> {
        let text = self.text(name)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.faults.push(format!("`{name}` must be {expected}, and is `{text}`"));
        }
        parsed
    }

    fn switch(&mut self, name: &str, default: bool) -> bool {
        match self.values.get(name) {
            None => default,
            Some(Value::Boolean(on)) => *on,
            Some(Value::String(text)) if ["true", "false"].contains(&text.as_str()) => text == "true",
            Some(_) => {
                self.faults.push(format!("`{name}` must be true or false"));
                false
            }
        }
    }

    /// A whole number from 1.
    fn number(&mut self, name: &str, default: u32) -> u32 {
        let number = match self.values.get(name) {
            None => return default,
            Some(Value::Integer(number)) => u32::try_from(*number).ok(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        number.filter(|number| *number > 0).unwrap_or_else(|| {
            self.faults.push(format!("`{name}` must be a whole number from 1"));
            default
        })
    }

    /// A file that can be read.
    fn readable(&mut self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(name)?);
        if let Err(error) = std::fs::File::open(&path) {
            self.faults.push(format!("`{name}`: {}: {error}", path.display()));
        }
        Some(path)
    }

    /// The address of a server: HTTPS, or HTTP.
    fn url(&mut self, name: &str, text: &str) -> Option<Url> {
        let url = Url::parse(text).ok();
        let url = url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host() && url.query().is_none());
        if url.is_none() {
            // It may hold a password.
            self.faults.push(format!("`{name}` must be an address that begins with https:// or http://, without a query"));
        }
        url
    }

    /// The model that answers questions.
    fn chat(&mut self) -> Option<Model> {
        const OPTIONS: [&str; 5] = ["chat.url", "chat.model", "chat.secret_env", "chat.secret_file", "chat.max_tokens"];
        let given: Vec<_> = OPTIONS.into_iter().filter(|name| self.values.contains_key(*name)).collect();
        let url = self.text("chat.url");
        let url = url.and_then(|text| self.url("chat.url", &text).map(|_| text));
        let model = self.text("chat.model");
        let max_tokens = self.number("chat.max_tokens", 1000);
        let secret = match (self.text("chat.secret_env"), self.readable("chat.secret_file")) {
            (Some(_), Some(_)) => {
                self.faults.push("`chat.secret_env` and `chat.secret_file` are both set: leave one of them out".to_owned());
                None
            }
            (Some(name), None) => {
                if self.variables.get(&name).is_none_or(String::is_empty) {
                    self.faults.push(format!("`chat.secret_env`: the environment has no variable {name}, or it is empty"));
                }
                Some(Secret::Environment(name))
            }
            (None, Some(file)) => Some(Secret::File(file)),
            (None, None) => None,
        };
        let provider = match self.values.contains_key("chat.provider") {
            true => self.text("chat.provider"),
            false if given.is_empty() => None,
            false => {
                self.faults.push(format!("`chat.provider` must be set with {}", given.join(", ")));
                None
            }
        };
        match provider.as_deref()? {
            "scripted" if given.is_empty() => Some(Model::Scripted),
            "scripted" => {
                self.faults.push(format!("`chat.provider` is `scripted`, which takes no {}", given.join(", ")));
                None
            }
            "openai" => {
                let missing = |set: &mut Self, name: &str| {
                    if !set.values.contains_key(name) {
                        set.faults.push(format!("`{name}` must be set with the provider `openai`"));
                    }
                };
                missing(self, "chat.url");
                missing(self, "chat.model");
                Some(Model::OpenAi { url: url?, model: model?, max_tokens, secret })
            }
            _ => {
                self.faults.push("`chat.provider` must be `openai`, or `scripted` for trying out".to_owned());
                None
            }
        }
    }

    /// Where traces go: what the configuration says, or else what OpenTelemetry's own variables say.
    fn traces(&mut self) -> Option<Url> {
        const OWN: &str = "otlp.endpoint";
        const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const WHOLE: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        if self.variables.get("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true")) {
            return None;
        }
        let variable = |set: &Self, name: &str| set.variables.get(name).filter(|text| !text.is_empty()).cloned();
        let (name, text, is_whole) = match self.values.contains_key(OWN) {
            true => (OWN, self.text(OWN)?, false),
            false => match (variable(self, WHOLE), variable(self, BASE)) {
                (Some(text), _) => (WHOLE, text, true),
                (None, Some(text)) => (BASE, text, false),
                (None, None) => return None,
            },
        };
        let text = if is_whole { text } else { format!("{}/v1/traces", text.trim_end_matches('/')) };
        self.url(name, &text)
    }

    /// Settings that are of use only together.
    fn together(&mut self, names: &[&str]) -> bool {
        let missing: Vec<_> = names.iter().filter(|name| !self.values.contains_key(**name)).copied().collect();
        if !missing.is_empty() && missing.len() < names.len() {
            self.faults.push(format!("{} must be set together: {} is missing", names.join(", "), missing.join(", ")));
        }
        missing.is_empty()
    }
}

/// What the command line sets.
pub(crate) struct Line {
    pub(crate) file: Option<PathBuf>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) db: Option<PathBuf>,
    pub(crate) tenant: Option<String>,
    pub(crate) provider: Option<String>,
}

impl Config {
    /// Reads everything.
    ///
    /// # Errors
    /// All faults.
    pub(crate) fn read(line: Line, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, Vec<String>> {
        let mut set = Settings { variables: variables.into_iter().collect(), ..Settings::default() };
        if let Some(file) = &line.file {
            set.file(file);
        }
        set.environment();
        if let Some(listen) = line.listen {
            set.put("listen", Value::String(listen.to_string()), "--listen");
        }
        if let Some(db) = line.db {
            set.put("ledger", Value::String(format!("sqlite:{}", db.display())), "--db");
        }
        if let Some(tenant) = line.tenant {
            set.put("tenant", Value::String(tenant), "--tenant");
        }
        if let Some(provider) = line.provider {
            set.put("chat.provider", Value::String(provider), "--provider");
        }
        let listen = set.parsed("listen", "an address with a port");
        let ledger = set.text("ledger").unwrap_or_default();
        let ledger = match ledger.strip_prefix("sqlite:") {
            Some(file) if !file.is_empty() => Some(Ledger::Sqlite(file.into())),
            None if ledger.starts_with("postgres://") || ledger.starts_with("postgresql://") => Some(Ledger::Postgres(ledger)),
            _ => {
                set.faults.push("`ledger` must be `sqlite:FILE` or `postgres://…`; `--db FILE` sets it as well".to_owned());
                None
            }
        };
        let home = set.text("home").map(PathBuf::from);
        if home.is_none() && matches!(ledger, Some(Ledger::Postgres(_))) {
            set.faults.push("`home` must be set with PostgreSQL: the folder of keys and trust root".to_owned());
        }
        let tls = set.together(&["tls.cert", "tls.key"]);
        let tls = (set.readable("tls.cert"), set.readable("tls.key")).into_pair().filter(|_| tls);
        set.together(&["log.tiles", "log.locks"]);
        let log = (set.text("log.tiles"), set.text("log.locks")).into_pair();
        let log = log.map(|(tiles, locks)| LogFolders::new(tiles, locks));
        let key = set.parsed("log.key", "a key as `logline log checkpoint` prints it");
        let log = match key {
            Some(key) => log.map(|log| log.key(key)),
            None => log,
        };
        set.together(&["jwt.issuer", "jwt.audience", "jwt.key_set"]);
        let jwt = (set.text("jwt.issuer"), (set.text("jwt.audience"), set.readable("jwt.key_set")).into_pair()).into_pair();
        let jwt = jwt.map(|(issuer, (audience, key_set))| Issuer { issuer, audience, key_set });
        let client_header = set.parsed("client_header", "the name of a header");
        let memory = set.switch("memory", true);
        let tenant_keys = set.text("tenant_keys").map(PathBuf::from);
        let (chat, traces) = (set.chat(), set.traces());
        let tenant = set.text("tenant").unwrap_or_else(|| "acme".to_owned());
        match (ledger, set.faults.is_empty()) {
            (Some(ledger), true) => {
                let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
                Ok(Self { listen, ledger, home, tenant, client_header, memory, tenant_keys, chat, traces, tls, log, jwt })
            }
            _ => Err(set.faults),
        }
    }
}

/// Both or none.
trait IntoPair {
    type Pair;
    fn into_pair(self) -> Option<Self::Pair>;
}

impl<A, B> IntoPair for (Option<A>, Option<B>) {
    type Pair = (A, B);

    fn into_pair(self) -> Option<(A, B)> {
        self.0.zip(self.1)
    }
}
