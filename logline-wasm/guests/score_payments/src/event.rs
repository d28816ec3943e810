//! The payment event: only what every rule table relies on is checked, the rest belongs to the rules.

use crate::found::found;
use logline_guest::Failure;
use serde_json::Value;

/// A payment event with a usable `id`, `amount_minor` and, where there is one, `customer.id`.
pub(crate) struct Event<'a> {
    pub(crate) id: &'a str,
    /// None for a guest checkout.
    pub(crate) customer_id: Option<&'a str>,
    fields: &'a Value,
}

impl<'a> Event<'a> {
    pub(crate) fn parse(input: Option<&'a Value>) -> Result<Self, Failure> {
        let Some(fields) = input.filter(|input| input.is_object()) else {
            return Err(Failure::new(
                "invalid_event",
                format!("`input`: expected a payment event as a JSON object, found {}", found(input)),
            ));
        };
        let Some(id) = text(fields.get("id")) else {
            return Err(invalid("id", "a non-empty string", fields.get("id")));
        };
        let amount = fields.get("amount_minor");
        if amount.and_then(Value::as_u64).is_none() {
            return Err(invalid("amount_minor", "an integer of minor units, 0 or more", amount));
        }
        let customer_id = match field(fields, "customer.id") {
            None => None,
            Some(id) => match text(Some(id)) {
                Some(id) => Some(id),
                None => return Err(invalid("customer.id", "a non-empty string", Some(id))),
            },
        };
        Ok(Self { id, customer_id, fields })
    }

    /// The value at a dotted path. `null` counts as absent, as it does in a span.
    pub(crate) fn field(&self, path: &str) -> Option<&'a Value> {
        field(self.fields, path)
    }
}

fn field<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| value.get(key)).filter(|value| !value.is_null())
}

fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn invalid(field: &str, expected: &str, value: Option<&Value>) -> Failure {
    Failure::new("invalid_event", format!("`{field}`: expected {expected}, found {}", found(value)))
}
