//! Which schemas of outputs a provider has answered by. It may take minutes to compile one that it does not know yet.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use logline_core::{Hash, canonical};
use serde_json::json;

use super::ask::Ask;

/// The most schemas that a host remembers. If there are more, it begins anew.
const MAX_SCHEMAS: usize = 4096;

/// The member of an outcome's details that says that this host knew of no answer by the schema of its request.
pub(super) const NEW_SCHEMA: &str = "new_schema";

/// The schemas by which this host has got an answer: hashes of the provider span, the model and the schema.
#[derive(Default)]
pub(super) struct Schemas(Mutex<HashSet<Hash>>);

impl Schemas {
    /// The schema of a request, if this host has no answer by it yet.
    pub(super) fn new_one(&self, provider: Hash, model: &str, ask: &Ask) -> Option<Hash> {
        let Ask::Invoke(request) = ask else { return None };
        let asked = json!([provider.to_string(), model, request.output_schema.as_ref()?.schema]);
        let schema = Hash::of(&canonical::to_vec(&asked));
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!known.contains(&schema)).then_some(schema)
    }

    /// Remembers a schema that was answered by.
    pub(super) fn learn(&self, schema: Hash) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_SCHEMAS {
            known.clear();
        }
        known.insert(schema);
    }
}
