//! What keys are called in an account, and what a call authenticates. None of it names a tenant: aliases and contexts stand in the
//! service's log.

use logline_core::contract::KeyError;

/// The most characters of a prefix.
const MAX_PREFIX: usize = 64;

/// What the description of a key begins with.
const DESCRIPTION: &str = "LogLine, key of a tenant, epoch ";

/// The names of a service's keys.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
}

impl Default for Names {
    fn default() -> Self {
        Self { prefix: "logline".to_owned() }
    }
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Result<Self, KeyError> {
        let is_good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        // AWS keeps `alias/aws` for itself.
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.chars().all(is_good) || prefix == "aws" {
            let reason =
                format!("the prefix of aliases must have 1 to {MAX_PREFIX} letters, digits, `-` or `_`, and not be `aws`");
            return Err(KeyError::Refused { reason });
        }
        Ok(Self { prefix: prefix.to_owned() })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The alias of an epoch's key.
    pub(crate) fn epoch(&self, tenant: &str, epoch: u64) -> String {
        format!("alias/{}/{}/{epoch}", self.prefix, pseudonym(tenant))
    }

    /// The alias of the newest epoch's key.
    pub(crate) fn newest(&self, tenant: &str) -> String {
        format!("alias/{}/{}/newest", self.prefix, pseudonym(tenant))
    }

    /// What a call authenticates.
    pub(crate) fn context(&self, tenant: &str, epoch: u64, context: &str) -> [(&'static str, String); 3] {
        [("logline:tenant", pseudonym(tenant)), ("logline:epoch", epoch.to_string()), ("logline:context", context.to_owned())]
    }
}

/// The first half of the tenant's BLAKE3, in hex.
fn pseudonym(tenant: &str) -> String {
    blake3::hash(tenant.as_bytes()).to_hex().as_str().chars().take(32).collect()
}

/// The description of an epoch's key.
pub(crate) fn description(epoch: u64) -> String {
    format!("{DESCRIPTION}{epoch}")
}

/// The epoch in a description.
pub(crate) fn epoch_of(description: &str) -> Option<u64> {
    description.strip_prefix(DESCRIPTION)?.parse().ok()
}
