//! The `payment_alert` spans: raised for a held payment, counted for the customer's next one.

use crate::event::Event;

use crate::score::{Decision, Verdict};
use logline_guest::{Failure, Host, HostExt as _, Op};
use serde_json::{Value, json};

const ENTITY_TYPE: &str = "payment_alert";
const OPEN: &str = "open";
/// The most that the ABI gives for one query.
const PAGE: u64 = 100;

/// Counts a customer's open alerts, reading no further than a rule needs and no page twice.
///
/// The query cannot select by customer, so pages are filtered here; the sandbox's own limit on host calls, and not
/// a cut-off in this crate, is what ends an over-long search, because a cut-off would pass for "no alerts".
pub(crate) struct OpenAlerts<'a> {
    customer_id: Option<&'a str>,
    payment_id: &'a str,
    found: u64,
    next: Next,
}

enum Next {
    First,
    After(Value),
    Done,
}

impl<'a> OpenAlerts<'a> {
    pub(crate) fn of(event: &Event<'a>) -> Self {
        Self { customer_id: event.customer_id, payment_id: event.id, found: 0, next: Next::First }
    }

    /// Whether the customer has this many open alerts. A guest checkout has none.
    pub(crate) fn at_least(&mut self, wanted: u64, host: &mut dyn Host) -> Result<bool, Failure> {
        let Some(customer_id) = self.customer_id else {
            return Ok(false);
        };
        while self.found < wanted {
            let mut query = json!({ "entity_type": ENTITY_TYPE, "status": OPEN, "limit": PAGE });
            match (&self.next, query.as_object_mut()) {
                (Next::Done, _) => break,
                (Next::After(cursor), Some(query)) => drop(query.insert("cursor".into(), cursor.clone())),
                _ => {}
            }
            let page = host.call(Op::Query, &query)?;
            let Some(spans) = page.get("spans").and_then(Value::as_array) else {
                return Err(Failure::new("host_reply", "operation `query` answered without `spans`"));
            };
            self.found += spans.iter().filter(|span| self.counts(span, customer_id)).count() as u64;
            // Cursors are resumable, so a host may give one after the last row too: an empty page also ends it.
            self.next = match page.get("cursor") {
                Some(cursor) if !cursor.is_null() && !spans.is_empty() => Next::After(cursor.clone()),
                _ => Next::Done,
            };
        }
        Ok(self.found >= wanted)
    }

    /// An alert of this very payment does not count: scoring a payment again must not raise its score.
    fn counts(&self, span: &Value, customer_id: &str) -> bool {
        let content = |key| span.get("content").and_then(|content| content.get(key)).and_then(Value::as_str);
        content("customer_id") == Some(customer_id) && content("payment_id") != Some(self.payment_id)
    }
}

/// Emits the alert for a payment that was not allowed, and logs it once.
pub(crate) fn raise(event: &Event<'_>, verdict: &Verdict, host: &mut dyn Host) -> Result<(), Failure> {
    let decision = verdict.decision;
    let draft = json!({
        "entity_type": ENTITY_TYPE,
        "this": "payment.alert",
        "status": OPEN,
        "name": format!("payment {}: {}", event.id, decision.as_str()),
        "content": {
            "customer_id": event.customer_id,
            "payment_id": event.id,
            "decision": decision,
            "score": verdict.score,
            "hits": verdict.hits,
        },
    });
    host.emit(&draft)?;
    let level = if decision == Decision::Block { "warn" } else { "info" };
    let fields = json!({ "payment_id": event.id, "decision": decision, "score": verdict.score });
    host.log(level, "payment not allowed", fields)
}
