//! Which schemas of outputs a provider has answered by. It may take minutes to compile one that it does not know yet.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use logline_core::{Hash, canonical};
use serde_json::json;

use super::ask::Ask;

/// How many providers a host remembers schemas of. Those whose schemas were learnt first are forgotten.
const MAX_PROVIDERS: usize = 1024;

/// How many schemas of a provider. If there are more, it begins anew with this one.
const MAX_SCHEMAS: usize = 256;

/// The member of an outcome's details that says that a call was too slow which had a new schema, and so more time than others.
pub(super) const NEW_SCHEMA: &str = "new_schema";

/// The schemas by which this host has got an answer, for each provider span by its hash.
#[derive(Default)]
pub(super) struct Schemas(Mutex<Vec<(Hash, HashSet<Hash>)>>);

impl Schemas {
    fn known(&self) -> MutexGuard<'_, Vec<(Hash, HashSet<Hash>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hash of a request's model and schema, if this host has no answer by them yet.
    pub(super) fn new_one(&self, provider: Hash, model: &str, ask: &Ask) -> Option<Hash> {
        let Ask::Invoke(request) = ask else { return None };
        let schema = Hash::of(&canonical::to_vec(&json!([model, request.output_schema.as_ref()?.schema])));
        let is_known = self.known().iter().any(|(of, schemas)| *of == provider && schemas.contains(&schema));
        (!is_known).then_some(schema)
    }

    /// Remembers a schema that was answered by.
    pub(super) fn learn(&self, provider: Hash, schema: Hash) {
        let mut known = self.known();
        if let Some((_, schemas)) = known.iter_mut().find(|(of, _)| *of == provider) {
            if schemas.len() >= MAX_SCHEMAS {
                schemas.clear();
            }
            schemas.insert(schema);
            return;
        }
        if known.len() >= MAX_PROVIDERS {
            known.remove(0);
        }
        known.push((provider, HashSet::from([schema])));
    }
}
