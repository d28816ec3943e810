//! Shared by the loops for schedules and policies: the list of active spans, kept up to date at the cost of what is new, and the
//! violations that say why one of them cannot be run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use logline_core::ledger::{
    ActiveKind, Activity, AppendOptions, Cursor, LedgerError, LedgerExt as _, MAX_ACTIVE, Tenants, Work, WorkQueue as _,
};
use logline_core::{Draft, Failure, Hash, Host, HostError, Scope, SignedSpan, Timestamp, Visibility, ids};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

/// The most active spans of one kind and tenant that a host carries out. Those with the smallest ids count.
pub const MAX_PER_TENANT: usize = 1000;

/// The most spans of one tenant on the list. It is larger than [`MAX_PER_TENANT`], because some of them may be refused.
const MAX_LISTED: usize = 2 * MAX_PER_TENANT;

/// How often the whole list is read, for spans that a rebuild or another host has put on it.
const WHOLE: Duration = Duration::from_secs(60);

/// The active spans of one kind in the tenants that a host works for.
#[derive(Debug)]
pub struct ActiveList {
    kind: ActiveKind,
    works: BTreeMap<String, Arc<BTreeMap<Uuid, Work>>>,
    /// Up to here it is known which tenants have new rows.
    after: Option<Cursor>,
    /// When the whole list was read, under which manifest, and for which tenants.
    whole: Option<(Instant, Hash, Tenants)>,
}

impl ActiveList {
    /// An empty list. [`ActiveList::update`] fills it.
    #[must_use]
    pub fn new(kind: ActiveKind) -> Self {
        Self { kind, works: BTreeMap::new(), after: None, whole: None }
    }

    /// Brings the list up to date. Returns the tenants that have had new rows since the last update.
    ///
    /// # Errors
    /// If the ledger fails.
    pub async fn update(&mut self, host: &Host) -> Result<Tenants, HostError> {
        let (ledger, mine, manifest) = (host.ledger(), host.tenants(), host.trusted().span.seal.curr_hash);
        let touched = ledger.touched(self.after.as_ref()).await?;
        if self.whole.as_ref().is_none_or(|(_, under, _)| *under != manifest) {
            // The manifest may name the signers of spans that were refused.
            ledger.offer_active(self.kind, &mine).await?;
        }
        let is_fresh =
            |(at, under, tenants): &(Instant, Hash, Tenants)| at.elapsed() < WHOLE && *under == manifest && *tenants == mine;
        let told = match touched.tenants {
            Tenants::Only(tenants) if self.whole.as_ref().is_some_and(is_fresh) => {
                Tenants::Only(tenants.into_iter().filter(|tenant| mine.contains(tenant)).collect())
            }
            _ => mine.clone(),
        };
        let mut listed = self.list(host, &told).await?;
        self.promoted(host, &mut listed).await?;
        match &told {
            Tenants::Only(tenants) if told != mine => {
                for tenant in tenants {
                    self.works.remove(tenant);
                }
                self.works.extend(listed);
            }
            _ => {
                self.works = listed;
                self.whole = Some((Instant::now(), manifest, mine));
            }
        }
        self.after = Some(touched.cursor);
        Ok(told)
    }

    async fn list(&self, host: &Host, tenants: &Tenants) -> Result<BTreeMap<String, Arc<BTreeMap<Uuid, Work>>>, HostError> {
        let mut listed: BTreeMap<String, BTreeMap<Uuid, Work>> = BTreeMap::new();
        let mut after: Option<(String, Uuid)> = None;
        if *tenants == Tenants::Only(Default::default()) {
            return Ok(BTreeMap::new());
        }
        loop {
            let from = after.as_ref().map(|(tenant, id)| (tenant.as_str(), *id));
            let page = host.ledger().active(self.kind, tenants, from, MAX_ACTIVE).await?;
            let is_last = page.len() < MAX_ACTIVE;
            after = page.last().map(|work| (work.tenant_id.clone(), work.id));
            for work in page {
                let of_tenant = listed.entry(work.tenant_id.clone()).or_default();
                if of_tenant.len() < MAX_LISTED {
                    of_tenant.insert(work.id, work);
                }
            }
            if is_last {
                break;
            }
            // The rest of a tenant that has too many is skipped.
            if let Some((tenant, id)) = &mut after
                && listed.get(tenant).is_some_and(|of_tenant| of_tenant.len() >= MAX_LISTED)
            {
                *id = Uuid::max();
            }
        }
        Ok(listed.into_iter().map(|(tenant, works)| (tenant, Arc::new(works))).collect())
    }

    /// Puts the promoted versions in the place of the last ones, where the manifest demands that. What has none that is active is taken
    /// off the list, and one violation a day tells the tenant.
    async fn promoted(&self, host: &Host, listed: &mut BTreeMap<String, Arc<BTreeMap<Uuid, Work>>>) -> Result<(), HostError> {
        let trusted = host.trusted();
        let entity_type = match self.kind {
            ActiveKind::Policy => "policy",
            _ => "function",
        };
        for (tenant, works) in listed.iter_mut().filter(|(tenant, _)| trusted.requires_promotion(tenant, entity_type)) {
            let (now, scope) = (host.ledger().now().await?, Scope::runtime(tenant));
            let mut promoted = BTreeMap::new();
            let mut refused: Vec<Failure> = Vec::new();
            for (id, work) in works.iter() {
                // What cannot be read is refused where it is read.
                let Ok(Some(last)) = host.ledger().find(&scope, tenant, *id).await else { continue };
                match trusted.in_force(host.ledger(), &scope, last, now).await {
                    Ok(found) if Activity::of(&found.span) == Activity::Active(self.kind) => {
                        let (seq, curr_hash) = (found.span.seq, found.span.seal.curr_hash);
                        promoted.insert(*id, Work { seq, curr_hash, ..work.clone() });
                    }
                    Ok(_) => {}
                    Err(error) => refused.push(error.refusal()?),
                }
            }
            *works = Arc::new(promoted);
            if let Some(failure) = refused.first() {
                let violation = Refusal { kernel: "governance", kind: self.kind, failure, now };
                violation.record(host, violation.once_a_day(tenant, refused.len())).await?;
            }
        }
        Ok(())
    }

    /// The tenants that have active spans.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.works.keys().map(String::as_str)
    }

    /// The active spans of a tenant; empty if there are none.
    #[must_use]
    pub fn of(&self, tenant: &str) -> Arc<BTreeMap<Uuid, Work>> {
        self.works.get(tenant).map(Arc::clone).unwrap_or_default()
    }

    /// Takes spans off the list, also in the ledger: their signers may not sign them. One violation a day tells the tenant.
    ///
    /// # Errors
    /// If the ledger fails.
    pub async fn refuse(
        &mut self,
        host: &Host,
        refused: &[Work],
        (kernel, failure): (&str, &Failure),
        now: Timestamp,
    ) -> Result<(), HostError> {
        let Some(first) = refused.first() else { return Ok(()) };
        host.ledger().refuse_active(self.kind, refused).await?;
        for work in refused {
            if let Some(works) = self.works.get_mut(&work.tenant_id) {
                Arc::make_mut(works).remove(&work.id);
            }
        }
        let violation = Refusal { kernel, kind: self.kind, failure, now };
        violation.record(host, violation.once_a_day(&first.tenant_id, refused.len())).await
    }
}

/// The version of an active span that `work` names, if it is still the one that this host uses. `None` if it is not.
///
/// # Errors
/// If the ledger fails, or its last version is damaged.
pub async fn in_force(host: &Host, work: &Work, now: Timestamp) -> Result<Option<SignedSpan>, LedgerError> {
    let scope = Scope::runtime(&work.tenant_id);
    let Some(last) = host.ledger().find(&scope, &work.tenant_id, work.id).await? else { return Ok(None) };
    match host.trusted().in_force(host.ledger(), &scope, last, now).await {
        Ok(found) => Ok(Some(found.span).filter(|span| span.seal.curr_hash == work.curr_hash)),
        Err(error) => error.refusal().map(|_| None),
    }
}

/// Why schedules or policies cannot be run.
pub struct Refusal<'a> {
    /// The name of the kernel that refuses them.
    pub kernel: &'a str,
    /// What they are.
    pub kind: ActiveKind,
    /// The reason.
    pub failure: &'a Failure,
    /// The time of the ledger's clock.
    pub now: Timestamp,
}

impl Refusal<'_> {
    /// Drafts the violation for one version of a schedule or policy. Whoever sees the span sees the violation: the reason may quote
    /// it.
    #[must_use]
    pub fn of(&self, work: &Work, visibility: Visibility) -> Draft {
        let (id, hash) = (work.id.to_string(), work.curr_hash.to_string());
        self.draft(&work.tenant_id)
            .id(ids::derive("policy_violation", &[&work.tenant_id, &id, &hash, &self.failure.code]))
            .owner(&work.owner_id)
            .visibility(visibility)
            .parent(work.id)
            .related([work.id])
            .metadata(json!({"subject": {"tenant": work.tenant_id, "id": id, "seq": work.seq, "curr_hash": hash}}))
    }

    /// Drafts the violation that a tenant gets once a day, however many of its spans are refused for this reason.
    #[must_use]
    pub fn once_a_day(&self, tenant: &str, count: usize) -> Draft {
        let day = self.now.day().to_string();
        self.draft(tenant)
            .id(ids::derive("policy_violation", &[tenant, self.kind.as_str(), &self.failure.code, &day]))
            .owner("runtime")
            .visibility(Visibility::Tenant)
            .metadata(json!({"day": day, "first": count}))
    }

    fn draft(&self, tenant: &str) -> Draft {
        Draft::new("policy_violation")
            .at(self.now)
            .tenant(tenant)
            .who(format!("kernel:{}", self.kernel))
            .did("refused")
            .this(format!("{}.{}", self.kind.as_str(), self.failure.code))
            .status("open")
            .error(self.failure.to_value())
            .deterministic()
    }

    /// Records a violation. If it exists already, that is no error. If it cannot be written, that is logged.
    ///
    /// # Errors
    /// If the ledger fails.
    pub async fn record(&self, host: &Host, violation: Draft) -> Result<(), HostError> {
        let tenant = violation.columns().tenant_id.clone();
        match host.record(&tenant, vec![violation], &AppendOptions::keep()).await {
            Err(error) if super::is_general(&error) => Err(error),
            Err(error) if !error.is_keep_mismatch() => {
                tracing::error!(%error, tenant, "a violation could not be recorded");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
