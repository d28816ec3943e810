//! The two ways in which text is found.

use logline_core::ledger::search::{Search as _, SearchQuery, SearchScope};
use logline_core::ledger::{AppendOptions, Ledger as _};
use logline_core::{Draft, KeyPair, Scope, Visibility};
use logline_memory::index::{Index, IndexLimits};
use logline_sqlite::SqliteLedger;
use serde_json::json;
use uuid::Uuid;

use crate::corpus::ask::now;
use crate::locomo::Conversation;
use crate::metrics::Outcomes;

/// How many hits are looked at.
const DEPTH: usize = 100;

fn id(n: usize) -> Uuid {
    Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000 + n as u128)
}

/// The index in this process, as private memories are found after they were decrypted.
pub(crate) fn index(conversations: &[Conversation]) -> Outcomes {
    let mut outcomes = Outcomes::new();
    for conversation in conversations {
        let mut index = Index::new(IndexLimits::default()).unwrap();
        for (n, turn) in conversation.turns.iter().enumerate() {
            index.add(id(n), &turn.text).unwrap();
        }
        for question in &conversation.questions {
            let found = index.search(&question.text, DEPTH, |_| true);
            let turn = |found: &Uuid| &conversation.turns[(found.as_u128() - id(0).as_u128()) as usize];
            outcomes.push(found.iter().position(|(found, _)| question.evidence.contains(&turn(found).id)));
        }
    }
    outcomes
}

/// FTS5, as public memories are found. Each conversation is one owner's, so that each is searched for itself.
pub(crate) async fn fts5(conversations: &[Conversation]) -> Outcomes {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(folder.path().join("memories.ledger")).unwrap();
    let key = KeyPair::from_seed(&[5; 32]);
    let mut outcomes = Outcomes::new();
    for (number, conversation) in conversations.iter().enumerate() {
        let owner = format!("owner-{number}");
        let first = number * 100_000;
        let spans = conversation.turns.iter().enumerate().map(|(n, turn)| {
            let draft =
                Draft::new("memory").id(id(first + n)).tenant("acme").owner(owner.clone()).who("runtime").this("memory.note");
            let draft = draft.at(now()).visibility(Visibility::Private).status("active").content(json!({"text": turn.text}));
            draft.meta("layer", "permanent").meta("sensitivity", "public").seal_local(&key).unwrap()
        });
        ledger.append(&Scope::runtime("acme"), spans.collect(), &AppendOptions::default()).await.unwrap();
        for question in &conversation.questions {
            let query = SearchQuery::new(SearchScope::Private, question.text.clone(), now(), DEPTH);
            let found = ledger.search_text(&Scope::user("acme", owner.clone()), &query).await.unwrap();
            let turn = |found: Uuid| &conversation.turns[(found.as_u128() - id(first).as_u128()) as usize];
            outcomes.push(found.iter().position(|hit| question.evidence.contains(&turn(hit.id).id)));
        }
    }
    outcomes
}
