//! Prepares what must exist before the first request: keys, trust root, manifest, kernels, and the tenant's function.

use std::path::{Path, PathBuf};

use logline_core::ledger::{Ledger as _, LedgerExt as _, Query};
use logline_core::roles::Role;
use logline_core::trust::{Manifest, RootSet, TrustError, TrustRoot};
use logline_core::{Draft, Host, KeyPair, SYSTEM_TENANT, Scope, SignedSpan, Signer as _, SystemClock, Visibility, ids, json};
use logline_sqlite::SqliteLedger;

use crate::{Result, TENANT};

/// The function's code, built from `logline-wasm/guests/score_payments`, and its rule table.
const CODE: &[u8] = include_bytes!("../../logline-wasm/guests/score_payments.wasm");
const RULES: &str = include_str!("../../logline-wasm/guests/score_payments/rules.json");

pub(crate) struct Setup {
    pub(crate) trust: TrustRoot,
    pub(crate) host: KeyPair,
    tenant_publisher: KeyPair,
}

impl Setup {
    /// Loads or makes the four keys and the trust root beside `path`. Publishes a manifest if there is none, and installs the
    /// kernels.
    pub(crate) async fn prepare(path: &Path, ledger: &SqliteLedger) -> Result<Self> {
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        // The trust root is outside the ledger, so write access to the ledger is not enough to change whom the host trusts.
        let trust_file = beside(".trust.json");
        let is_new = !trust_file.exists();
        let newest = Query::timeline().limit(1);
        if is_new && !ledger.scan(&Scope::Operator, &newest, None).await?.rows.is_empty() {
            let missing = trust_file.display();
            return Err(format!(
                "the ledger holds rows already, and {missing} is missing: it is not the quickstart's, or it lost its trust root"
            )
            .into());
        }
        let key = |role: &str| {
            let file = beside(&format!(".{role}.key"));
            if is_new { KeyPair::load_or_create(file).map(|(key, _)| key) } else { KeyPair::load(file) }
        };
        let (root, system_publisher) = (key("root")?, key("system-publisher")?);
        let (tenant_publisher, host) = (key("tenant-publisher")?, key("host")?);
        if is_new {
            TrustRoot::new([root.public_key()], 1).save_new(&trust_file)?;
        }
        let trust = TrustRoot::load(&trust_file)?;

        match trust.resolve(ledger).await {
            Ok(_) => {}
            Err(TrustError::NoManifest { .. }) => {
                let manifest = Manifest::first(RootSet::new([root.public_key()], 1))
                    .allow("run_code", ids::RUN_CODE)
                    .grant(system_publisher.public_key(), Role::Publisher, [SYSTEM_TENANT])
                    .grant(tenant_publisher.public_key(), Role::Publisher, [TENANT])
                    .grant(host.public_key(), Role::Runtime, [SYSTEM_TENANT, TENANT]);
                trust.publish(ledger, &manifest, &root, &SystemClock).await?;
            }
            Err(e) => return Err(e.into()),
        }
        logline_kernels::install(ledger, &logline_kernels::all(), &system_publisher, &SystemClock).await?;
        Ok(Self { trust, host, tenant_publisher })
    }

    /// Publishes the scoring function, or its next version if code or rules differ from the last version.
    pub(crate) async fn publish_function(&self, host: &Host) -> Result<SignedSpan> {
        let id = ids::derive("function", &[TENANT, "score_payments"]);
        let code = logline_wasm::encode_binary(CODE);
        let rules = json::parse(RULES.as_bytes())?;
        let existing = host.ledger().find(&Scope::runtime(TENANT), TENANT, id).await?;
        let draft = match existing {
            Some(existing) if existing.code.as_ref() == Some(&code) && existing.input.as_ref() == Some(&rules) => {
                return Ok(existing);
            }
            Some(existing) => Draft::next_version(&existing),
            None => Draft::new("function").id(id).tenant(TENANT).owner("risk-team"),
        };
        let draft = draft
            .who("publisher:risk-team")
            .did("published")
            .this("function.score_payments")
            .name("score_payments")
            .visibility(Visibility::Tenant)
            .status("active")
            .language("rust")
            .runtime(logline_wasm::RUNTIME)
            .code(code)
            .input(rules);
        Ok(host.publish(draft, &self.tenant_publisher).await?.into_signed())
    }
}
