//! `policy_agent`: reads new spans, asks the policies of their tenant about them, and carries out the decisions.
//!
//! Each policy has a cursor: a chain of `policy_cursor` spans that name the last span that the policy has decided about. The
//! effects and the next cursor are one batch. If several agents run, only one of them can append the next cursor, so each
//! effect happens once. Tenants take turns: a look at one of them takes a limited time, and several run at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use logline_core::ledger::{ActiveKind, Tenants, WorkQueue as _};
use logline_core::{Host, HostError, Service, ServiceReport, Shutdown, ids};
use logline_kernels::harness::active::ActiveList;
use logline_kernels::harness::{Backoff, jittered, may_pass};
use tokio::time::Instant;
use uuid::Uuid;

use crate::site::{AgentOptions, AgentReport, Site};
use crate::tenant::{Looked, Tenant};
use crate::{NAME, VERSION};

/// The most tenants that are looked at at the same time.
const LOOKS: usize = 16;

/// The loop `policy_agent`, version 1. Any number of hosts may run it, and each effect still happens once.
#[derive(Debug, Clone, Default)]
pub struct PolicyAgent {
    options: AgentOptions,
}

impl PolicyAgent {
    /// Creates an agent with these options.
    #[must_use]
    pub fn new(options: AgentOptions) -> Self {
        Self { options }
    }
}

#[async_trait]
impl Service for PolicyAgent {
    fn id(&self) -> Uuid {
        ids::POLICY_AGENT
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    async fn run(&self, host: &Host, mut shutdown: Shutdown<'_>) -> Result<Box<dyn ServiceReport>, HostError> {
        host.boot(ids::POLICY_AGENT).await?;
        let arrivals = host.ledger().arrivals().await?;
        let id = host.ids().next_id(host.ledger().now().await?);
        let site = Site { host: host.clone(), options: self.options.clone(), id };
        let mut agent = Agent::new(&site);
        let mut backoff = Backoff::default();
        let mut looks = FuturesUnordered::new();
        let (mut seen, mut next_update) = (arrivals.seen(), Instant::now());
        // While something fails, arrivals do not cause earlier updates.
        let mut fails = false;
        loop {
            while looks.len() < LOOKS
                && let Some(look) = agent.next_look(&site)
            {
                looks.push(look);
            }
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(Box::new(agent.report)),
                Some((tenant, looked, result)) = looks.next(), if !looks.is_empty() => {
                    agent.take_back(tenant, looked, result.is_ok()).await?;
                    match result {
                        Ok(()) => {}
                        Err(error) if may_pass(&error) => {
                            tracing::warn!(%error, "policies cannot be processed now; trying again");
                            fails = true;
                            next_update = Instant::now() + backoff.next(host);
                        }
                        Err(error) => return Err(error),
                    }
                    continue;
                }
                () = arrivals.changed(seen), if !fails => {}
                () = tokio::time::sleep_until(next_update) => {}
            }
            seen = arrivals.seen();
            let is_due = Instant::now() >= next_update;
            // A ledger that is away must not hold up the end.
            let updated = tokio::select! {
                biased;
                () = &mut shutdown => None,
                updated = agent.update(is_due) => Some(updated),
            };
            let Some(updated) = updated else { return Ok(Box::new(agent.report)) };
            match updated {
                Ok(()) => {
                    if is_due {
                        next_update = Instant::now() + jittered(host, self.options.poll);
                    }
                    (backoff, fails) = (Backoff::default(), false);
                }
                Err(error) if may_pass(&error) => {
                    tracing::warn!(%error, "policies cannot be processed now; trying again");
                    fails = true;
                    next_update = Instant::now() + backoff.next(host);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A look at a tenant that runs. It gives the tenant back.
type Look<'a> = BoxFuture<'a, (Tenant, Looked, Result<(), HostError>)>;

struct Agent<'a> {
    site: &'a Site,
    list: ActiveList,
    /// The tenants that no look has taken.
    tenants: BTreeMap<String, Tenant>,
    /// The tenants to look at, in turns.
    wanted: VecDeque<String>,
    /// The tenants to look at again when their look ends.
    again: BTreeSet<String>,
    /// The tenants that are being looked at.
    taken: BTreeSet<String>,
    /// The tenants in which something waits for a time, not for a row.
    waiting: BTreeSet<String>,
    report: AgentReport,
}

impl<'a> Agent<'a> {
    fn new(site: &'a Site) -> Self {
        let list = ActiveList::new(ActiveKind::Policy);
        let (tenants, wanted, report) = (BTreeMap::new(), VecDeque::new(), AgentReport::default());
        Self { site, list, tenants, wanted, again: BTreeSet::new(), taken: BTreeSet::new(), waiting: BTreeSet::new(), report }
    }

    fn want(&mut self, tenant: String) {
        if self.taken.contains(&tenant) {
            self.again.insert(tenant);
        } else if !self.wanted.contains(&tenant) {
            self.wanted.push_back(tenant);
        }
    }

    /// Learns which tenants have new rows. If the time of a poll has come, also those in which something waits are wanted.
    async fn update(&mut self, is_due: bool) -> Result<(), HostError> {
        let touched = self.list.update(&self.site.host).await?;
        let active: BTreeSet<String> = self.list.tenants().map(str::to_owned).collect();
        self.tenants.retain(|tenant, _| active.contains(tenant));
        let wanted: Vec<String> = match touched {
            Tenants::Only(tenants) => tenants.intersection(&active).cloned().collect(),
            _ => active.iter().cloned().collect(),
        };
        wanted.into_iter().for_each(|tenant| self.want(tenant));
        if is_due {
            for tenant in std::mem::take(&mut self.waiting) {
                if active.contains(&tenant) {
                    self.want(tenant);
                }
            }
        }
        Ok(())
    }

    /// Starts a look at the next tenant that is wanted.
    fn next_look(&mut self, site: &'a Site) -> Option<Look<'a>> {
        let name = self.wanted.pop_front()?;
        let works = self.list.of(&name);
        self.taken.insert(name.clone());
        let mut tenant = self.tenants.remove(&name).unwrap_or_else(|| Tenant::new(name));
        let look = async move {
            let mut looked = Looked::default();
            let result = tenant.look(site, &works, &mut looked).await;
            (tenant, looked, result)
        };
        Some(look.boxed())
    }

    /// Takes a tenant back from its look.
    async fn take_back(&mut self, tenant: Tenant, looked: Looked, is_ok: bool) -> Result<(), HostError> {
        let name = tenant.name.clone();
        self.report.add(looked.report);
        self.taken.remove(&name);
        self.tenants.insert(name.clone(), tenant);
        if looked.waits || !is_ok {
            self.waiting.insert(name.clone());
        }
        if self.again.remove(&name) || (looked.has_more && is_ok) {
            self.want(name);
        }
        let Some(failure) = looked.failure else { return Ok(()) };
        tracing::warn!(count = looked.unauthorised.len(), %failure, "policies are taken off the list");
        let host = &self.site.host;
        let refused = async {
            let now = host.ledger().now().await?;
            self.list.refuse(host, &looked.unauthorised, (NAME, &failure), now).await
        };
        match refused.await {
            Err(error) if may_pass(&error) => {
                tracing::warn!(%error, "policies could not be taken off the list; the next look finds them again");
                Ok(())
            }
            refused => refused,
        }
    }
}
