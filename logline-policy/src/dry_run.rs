//! What a policy would have done: the same decisions, nothing written.

use logline_core::Failure;
use logline_core::ledger::{Ledger as _, Order, Query};
use logline_core::{Host, HostError, Scope, SignedSpan, Span, SpanKey, Timestamp};

use crate::policy::{Decision, Facts, Policy};
use crate::wasm::Sandboxed;

/// The window that a dry run looks at.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DryRunOptions {
    /// Spans of the tenant, the newest. Default 10,000.
    pub spans: usize,
    /// Those whose `at` is not before this.
    pub since: Option<Timestamp>,
    /// Those whose `at` is before this.
    pub until: Option<Timestamp>,
    /// What the policy is told of the tenant's use today.
    pub facts: Facts,
}

impl Default for DryRunOptions {
    fn default() -> Self {
        Self { spans: 10_000, since: None, until: None, facts: Facts::default() }
    }
}

impl DryRunOptions {
    /// Sets how many spans.
    #[must_use]
    pub fn spans(mut self, spans: usize) -> Self {
        self.spans = spans;
        self
    }

    /// Sets where the window begins.
    #[must_use]
    pub fn since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    /// Sets where the window ends.
    #[must_use]
    pub fn until(mut self, until: Timestamp) -> Self {
        self.until = Some(until);
        self
    }
}

/// What a policy would have decided about one span; passes are left out.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Foreseen {
    /// The span.
    pub span: SpanKey,
    /// Its time.
    pub at: Timestamp,
    /// What would have followed, or why nothing could.
    pub decision: Result<Decision, Failure>,
}

/// Asks `policy`, published or not, about the newest spans of its tenant. Oldest first; nothing is written.
///
/// # Errors
/// `NotValid` where the policy does not compile; the ledger's.
pub async fn dry_run(host: &Host, policy: &Span, options: &DryRunOptions) -> Result<Vec<Foreseen>, HostError> {
    let compiled =
        Policy::of(policy).map_err(|reason| HostError::NotValid { entity_type: policy.entity_type.clone(), reason })?;
    let (tenant, ledger) = (&policy.tenant_id, host.ledger());
    let scope = Scope::runtime(tenant);
    let query = Query::timeline().tenant(tenant).order(Order::Newest);
    let trusted = host.trusted();
    let sandbox = Sandboxed { sandboxes: host.sandboxes(), manifest: &trusted.manifest };
    let (mut seen, mut cursor) = (0, None);
    let mut foreseen = Vec::new();
    loop {
        let page = ledger.scan(&scope, &query, cursor.as_ref()).await?;
        for span in page.rows.into_iter().filter_map(|row| row.span.ok()) {
            if seen == options.spans {
                break;
            }
            seen += 1;
            if is_within(&span, options) && compiled.concerns(&span.entity_type) {
                match compiled.decide(&span, options.facts, sandbox).await {
                    Ok(Decision::Pass) => {}
                    decision => foreseen.push(Foreseen { span: span.key(), at: span.at, decision }),
                }
            }
        }
        cursor = page.next;
        if cursor.is_none() || seen == options.spans {
            foreseen.reverse();
            return Ok(foreseen);
        }
    }
}

fn is_within(span: &SignedSpan, options: &DryRunOptions) -> bool {
    options.since.is_none_or(|since| span.at >= since) && options.until.is_none_or(|until| span.at < until)
}
