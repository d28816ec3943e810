//! Closes calls to the outside that nobody else will close: their attempt is over, and no other reads what it has begun.
//!
//! An attempt closes its own calls when it ends, and the next attempt those of a lost one. What is left are calls that a lost attempt
//! began after its request had been closed, and those of requests that no host takes up again.

use std::time::Duration;

use uuid::Uuid;

use crate::host::{Host, HostError};
use crate::ledger::scope::Scope;
use crate::ledger::{Cursor, Ledger as _, LedgerExt as _, Query, Work, WorkQueue as _};
use crate::request::call::Intent;
use crate::request::{CallKind, Phase, State};
use crate::span::{SignedSpan, SpanKey};

/// What one pass over the calls of a tenant found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OpenCalls {
    /// How many calls it looked at.
    pub looked_at: usize,
    /// The outcomes that it recorded: each is `unknown`, and what was reserved for its call is spent.
    pub closed: Vec<SpanKey>,
    /// The calls that are open and may still be answered. Look at them again later ([`Host::close_if_over`]).
    pub open: Vec<Uuid>,
    /// Where the next pass goes on.
    pub next: Option<Cursor>,
}

/// What became of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenCall {
    /// It has an outcome, or is no call of a host.
    Settled,
    /// It may still be answered.
    Open,
    /// Its outcome was recorded now, as `unknown`.
    Closed(SpanKey),
}

impl Host {
    /// Looks at the calls of a tenant that were begun after `after`, at most `most` of them in the order of the ledger, and closes those
    /// whose attempt is over: its request has ended, goes on with a later attempt, or its lease is over and the call was begun longer than `patience` ago.
    /// Several hosts may do this at once, while an attempt that was taken for lost still records the real outcome: each call gets one
    /// outcome, whoever writes it first.
    ///
    /// # Errors
    /// If the ledger fails. What was closed before that stays closed.
    pub async fn close_open_calls(
        &self,
        tenant: &str,
        kind: CallKind,
        after: Option<&Cursor>,
        most: usize,
        patience: Duration,
    ) -> Result<OpenCalls, HostError> {
        let query = Query::new().tenant(tenant).entity_type(kind.intent()).limit(most.max(1));
        let page = self.ledger().scan(&Scope::runtime(tenant), &query, after).await?;
        let last = page.rows.last().map(|row| row.cursor.clone());
        let mut found = OpenCalls { looked_at: page.rows.len(), ..OpenCalls::default() };
        for intent in page.rows.into_iter().filter_map(|row| row.span.ok()) {
            let id = intent.id;
            match self.close_over(intent, patience).await? {
                OpenCall::Settled => {}
                OpenCall::Open => found.open.push(id),
                OpenCall::Closed(outcome) => found.closed.push(outcome),
            }
        }
        // Without a further page: after what was read, so that rows that come later are found.
        found.next = page.next.or(page.reached).or(last).or_else(|| after.cloned());
        Ok(found)
    }

    /// Closes one call if its attempt is over. `intent` is the id of its `provider_request` or `outside_request`.
    ///
    /// # Errors
    /// As [`Host::close_open_calls`].
    pub async fn close_if_over(&self, tenant: &str, intent: Uuid, patience: Duration) -> Result<OpenCall, HostError> {
        match self.ledger().find(&Scope::runtime(tenant), tenant, intent).await? {
            Some(span) => self.close_over(span, patience).await,
            None => Ok(OpenCall::Settled),
        }
    }

    async fn close_over(&self, span: SignedSpan, patience: Duration) -> Result<OpenCall, HostError> {
        let (tenant, scope) = (span.tenant_id.clone(), Scope::runtime(span.tenant_id.clone()));
        let Some(intent) = Intent::read(&span) else { return Ok(OpenCall::Settled) };
        let Some(request) = span.parent_id else { return Ok(OpenCall::Settled) };
        if !self.ledger().history(&scope, &tenant, intent.outcome_id(&tenant), 0, 1).await?.is_empty() {
            return Ok(OpenCall::Settled);
        }
        // Whoever can write to the store could otherwise have this host sign outcomes of calls that no host has begun.
        let begun = span.at;
        if self.by_host(span).is_none() {
            return Ok(OpenCall::Settled);
        }
        let Some(request) = self.ledger().head(&scope, &tenant, request).await? else { return Ok(OpenCall::Settled) };
        let now = self.ledger().now().await?;
        let is_abandoned = begun.saturating_add(patience) <= now;
        let is_over = match State::of(&request) {
            // The attempt is over, or the request goes on with a later one.
            Ok(state) if state.phase == Phase::Scheduled => intent.attempt <= state.attempts,
            Ok(state) if state.phase == Phase::Running && intent.attempt == state.attempts => {
                is_abandoned && self.ledger().is_due(&Work::of(&request)).await?
            }
            Ok(state) if state.phase == Phase::Running => intent.attempt < state.attempts,
            Ok(_) => true,
            Err(_) => is_abandoned,
        };
        if !is_over {
            return Ok(OpenCall::Open);
        }
        let settled = self.settle(&request, &intent).await?;
        Ok(if settled.is_new { OpenCall::Closed(settled.outcome) } else { OpenCall::Settled })
    }
}
