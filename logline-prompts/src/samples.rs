//! A small family of prompts to begin with: blocks of all four ranks, two variants, a suite with fixtures of all five kinds.

use logline_core::{Draft, Visibility, ids};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

const SUPPORT: &str = include_str!("../seeds/support.json");

#[derive(Deserialize)]
struct Samples {
    blocks: Vec<SampleBlock>,
    variants: Vec<SampleVariant>,
    suite: Map<String, Value>,
    family: Map<String, Value>,
}

#[derive(Deserialize)]
struct SampleBlock {
    name: String,
    rank: Value,
    priority: i64,
    text: String,
    #[serde(default)]
    vars: Map<String, Value>,
}

#[derive(Deserialize)]
struct SampleVariant {
    name: String,
    prior: String,
    blocks: Vec<String>,
}

/// The drafts of the sample family `support`, in the order in which they can be published: blocks, variants, suite, family. Its variants ask
/// `provider`, which must be a provider span of the tenant. The ids follow from tenant and names, see [`sample_id`].
#[must_use]
pub fn samples(tenant: &str, owner: &str, provider: Uuid) -> Vec<Draft> {
    // The tests prove that it can be read.
    let Ok(Samples { blocks, variants, mut suite, mut family }) = serde_json::from_str(SUPPORT) else { return Vec::new() };
    let draft = |entity_type: &str, name: &str| {
        let draft = Draft::new(entity_type).id(sample_id(tenant, entity_type, name)).tenant(tenant).owner(owner);
        let draft = draft.who(format!("publisher:{owner}")).did("defined").this(format!("{entity_type}.{name}")).name(name);
        draft.visibility(Visibility::Tenant).status("active")
    };
    let mut drafts = Vec::new();
    for block in blocks {
        let metadata = json!({"rank": block.rank, "priority": block.priority, "vars": block.vars});
        drafts.push(draft("prompt_block", &block.name).content(json!(block.text)).metadata(metadata));
    }
    let mut ids = Vec::new();
    for variant in variants {
        let blocks: Vec<_> = variant.blocks.iter().map(|name| sample_id(tenant, "prompt_block", name)).collect();
        let run = json!({"provider": provider, "contract": "answer"});
        let metadata = json!({"family": "support", "prior": variant.prior, "block_ids": blocks, "run": run});
        let draft = draft("prompt_variant", &variant.name).metadata(metadata);
        ids.push(draft.columns().id);
        drafts.push(draft);
    }
    let (name, fixtures) = (suite.remove("name"), suite.remove("fixtures"));
    suite.insert("family".to_owned(), name.clone().unwrap_or_default());
    let text = |name: Option<Value>| name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
    drafts.push(draft("prompt_eval", &text(name)).content(json!({"fixtures": fixtures})).metadata(suite.into()));
    let name = text(family.remove("name"));
    family.insert("variants".to_owned(), json!(ids));
    drafts.push(draft("prompt_family", &name).metadata(family.into()));
    drafts
}

/// The id of a span of [`samples`].
#[must_use]
pub fn sample_id(tenant: &str, entity_type: &str, name: &str) -> Uuid {
    ids::derive("prompt_sample", &[tenant, entity_type, name])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::block::Block;
    use crate::eval::Suite;
    use crate::family::Family;
    use crate::variant::Variant;

    #[test]
    fn the_samples_make_sense() {
        let drafts = samples("acme", "copy", Uuid::from_u128(1));
        let of = |entity_type: &str| {
            let drafts = drafts.iter().filter(|draft| draft.columns().entity_type == entity_type).collect::<Vec<_>>();
            assert!(!drafts.is_empty(), "{entity_type}");
            drafts
        };
        let blocks: Vec<_> = of("prompt_block").iter().map(|draft| Block::read(draft.columns()).unwrap()).collect();
        let ranks: BTreeSet<_> = blocks.iter().map(|block| block.rank).collect();
        assert_eq!(ranks.len(), 4);
        for draft in of("prompt_variant") {
            let variant = Variant::read(draft.columns()).unwrap();
            let used: Vec<_> = blocks.iter().filter(|block| variant.blocks.contains(&block.id)).cloned().collect();
            let built = crate::build::build(&variant, &used, &json!({"customer": "Ada"})).unwrap();
            assert!(built.text.contains("Acme") && built.text.contains("{\"text\""), "{}", built.text);
        }
        let suite = Suite::read(of("prompt_eval")[0].columns()).unwrap();
        assert_eq!(suite.fixtures.iter().map(|fixture| fixture.kind).collect::<BTreeSet<_>>().len(), 5);
        assert_eq!(Family::read(of("prompt_family")[0].columns()).unwrap().variants.len(), 2);
    }
}
