//! Text alone, vectors alone, and both fused, as a host finds private memories after it decrypted them.

use std::collections::BTreeMap;
use std::path::Path;

use logline_memory::index::{Index, IndexLimits};
use logline_memory::rank::{Tier, fuse};
use uuid::Uuid;

use crate::corpus::{Corpus, Memory, State};
use crate::locomo::Conversation;
use crate::metrics::Outcomes;
use crate::model::Vectors;

/// How many hits of each list are fused.
const DEPTH: usize = 100;

/// Texts that one search looks through, and questions about them with what counts as their answer.
struct Place<'a> {
    texts: Vec<&'a str>,
    questions: Vec<Asked<'a>>,
}

/// A question, and whether the text at a place answers it.
type Asked<'a> = (&'a str, Box<dyn Fn(usize) -> bool + 'a>);

/// The outcomes of the three ways, for the same questions in the same order.
#[derive(Default)]
pub(crate) struct Hybrid {
    pub(crate) text: Outcomes,
    pub(crate) vectors: Outcomes,
    pub(crate) fused: Outcomes,
}

fn measure(folder: &Path, places: &[Place<'_>]) -> Result<Hybrid, String> {
    let texts =
        places.iter().flat_map(|place| place.texts.iter().copied().chain(place.questions.iter().map(|(text, _)| *text)));
    let vectors = Vectors::of(folder, texts.map(str::to_owned))?;
    let mut measured = Hybrid::default();
    for place in places {
        let mut index = Index::new(IndexLimits::default()).map_err(|e| e.to_string())?;
        for (n, text) in place.texts.iter().enumerate() {
            index.add(Uuid::from_u128(n as u128), text).map_err(|e| e.to_string())?;
        }
        for (question, is_answer) in &place.questions {
            let by_words = index.search(question, DEPTH, |_| true);
            let by_words: Vec<usize> = by_words.into_iter().map(|(id, _)| id.as_u128() as usize).collect();
            let nearest = vectors.nearest(question, &place.texts, DEPTH);
            let fused: Vec<usize> = fuse(&[by_words.clone(), nearest.clone()]).into_iter().map(|(n, _)| n).collect();
            let at = |found: &[usize]| found.iter().position(|n| is_answer(*n));
            measured.text.push(at(&by_words));
            measured.vectors.push(at(&nearest));
            measured.fused.push(at(&fused));
        }
    }
    Ok(measured)
}

/// Where the memory is found, and by whom.
fn place_of(memory: &Memory) -> (&'static str, &str, &str, &str) {
    let session = memory.session.as_deref().unwrap_or_default();
    match memory.tier {
        Tier::Session => ("session", memory.tenant, &memory.owner, session),
        Tier::Temporary | Tier::Permanent => ("private", memory.tenant, &memory.owner, ""),
        Tier::Tenant => ("tenant", memory.tenant, "", ""),
        Tier::Public => ("public", "", "", ""),
    }
}

/// The generated corpus: each question in the scope of its answer, among everything that is live there.
pub(crate) fn generated(folder: &Path, corpus: &Corpus) -> Result<Hybrid, String> {
    let mut members: BTreeMap<_, Vec<&Memory>> = BTreeMap::new();
    for memory in corpus.memories.iter().filter(|memory| memory.state == State::Live) {
        members.entry(place_of(memory)).or_default().push(memory);
    }
    let mut places = Vec::new();
    for (name, members) in &members {
        let asked = corpus.questions.iter().filter(|question| place_of(&corpus.memories[question.answer]) == *name);
        let questions = asked.map(|question| {
            let (answer, members) = (corpus.memories[question.answer].id, members.clone());
            let is_answer: Box<dyn Fn(usize) -> bool> = Box::new(move |n| members[n].id == answer);
            (question.text.as_str(), is_answer)
        });
        places
            .push(Place { texts: members.iter().map(|memory| memory.text.as_str()).collect(), questions: questions.collect() });
    }
    measure(folder, &places)
}

/// LoCoMo: each conversation is one owner's.
pub(crate) fn locomo(folder: &Path, conversations: &[Conversation]) -> Result<Hybrid, String> {
    measure(folder, &conversations.iter().map(turns).collect::<Vec<_>>())
}

fn turns(conversation: &Conversation) -> Place<'_> {
    let questions = conversation.questions.iter().map(|question| {
        let is_answer: Box<dyn Fn(usize) -> bool + '_> = Box::new(|n| question.evidence.contains(&conversation.turns[n].id));
        (question.text.as_str(), is_answer)
    });
    Place { texts: conversation.turns.iter().map(|turn| turn.text.as_str()).collect(), questions: questions.collect() }
}
