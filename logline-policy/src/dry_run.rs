//! Dry runs: what a policy would have decided. Nothing is written.

use logline_core::Failure;
use logline_core::contract::Reader;
use logline_core::ledger::{LedgerError, Order, Query};
use logline_core::{Host, HostError, Scope, SignedSpan, Span, SpanKey, Timestamp};

use crate::policy::{Decision, Facts, Policy};
use crate::wasm::Sandboxed;

/// The spans that a dry run reads, and the facts that the policy gets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DryRunOptions {
    /// How many of the newest spans of the tenant to read. Default 10,000.
    pub spans: usize,
    /// Skips spans whose `at` is before this time. Default: no limit.
    pub since: Option<Timestamp>,
    /// Skips spans whose `at` is at or after this time. Default: no limit.
    pub until: Option<Timestamp>,
    /// The `facts` of every evaluation. Default: nothing used, no limit.
    pub facts: Facts,
}

impl Default for DryRunOptions {
    fn default() -> Self {
        Self { spans: 10_000, since: None, until: None, facts: Facts::default() }
    }
}

impl DryRunOptions {
    /// Sets how many of the newest spans to read.
    #[must_use]
    pub fn spans(mut self, spans: usize) -> Self {
        self.spans = spans;
        self
    }

    /// Sets the earliest `at` of a span, inclusive.
    #[must_use]
    pub fn since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    /// Sets the latest `at` of a span, exclusive.
    #[must_use]
    pub fn until(mut self, until: Timestamp) -> Self {
        self.until = Some(until);
        self
    }
}

/// What a policy would have decided about one span. [`Decision::Pass`] is left out.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Foreseen {
    /// The span version that the policy was asked about.
    pub span: SpanKey,
    /// The column `at` of that span.
    pub at: Timestamp,
    /// The decision, or why the policy could not decide.
    pub decision: Result<Decision, Failure>,
}

/// Asks `policy` about the newest spans of its tenant. The policy need not be published. Nothing is written. The result is in
/// append order, oldest first.
///
/// # Errors
/// `NotValid` if the policy does not compile, or an error of the ledger.
pub async fn dry_run(host: &Host, policy: &Span, options: &DryRunOptions) -> Result<Vec<Foreseen>, HostError> {
    let compiled = Policy::of(policy).map_err(|reason| HostError::NotValid { entity_type: "policy".to_owned(), reason })?;
    let trusted = host.trusted();
    let sandbox = Sandboxed { sandboxes: host.sandboxes(), manifest: &trusted.manifest };
    let reader = Reader::new(host.ledger(), Scope::runtime(&policy.tenant_id));
    Ok(foresee(&reader, &policy.tenant_id, &compiled, sandbox, options).await?.1)
}

/// As [`dry_run`], with what the reader can see. Also returns how many spans concerned the policy.
pub(crate) async fn foresee(
    reader: &Reader<'_>,
    tenant: &str,
    compiled: &Policy,
    sandbox: Sandboxed<'_>,
    options: &DryRunOptions,
) -> Result<(usize, Vec<Foreseen>), LedgerError> {
    let query = Query::timeline().tenant(tenant).order(Order::Newest);
    let (mut seen, mut concerned, mut cursor) = (0, 0, None);
    let mut foreseen = Vec::new();
    loop {
        let page = reader.scan(&query, cursor.as_ref()).await?;
        for span in page.rows.into_iter().filter_map(|row| row.span.ok()) {
            if seen == options.spans {
                break;
            }
            seen += 1;
            if is_within(&span, options) && compiled.concerns(&span.entity_type) {
                concerned += 1;
                match compiled.decide(&span, options.facts, sandbox).await {
                    Ok(Decision::Pass) => {}
                    decision => foreseen.push(Foreseen { span: span.key(), at: span.at, decision }),
                }
            }
        }
        cursor = page.next;
        if cursor.is_none() || seen == options.spans {
            foreseen.reverse();
            return Ok((concerned, foreseen));
        }
    }
}

fn is_within(span: &SignedSpan, options: &DryRunOptions) -> bool {
    options.since.is_none_or(|since| span.at >= since) && options.until.is_none_or(|until| span.at < until)
}
