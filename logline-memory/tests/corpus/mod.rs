//! Ten thousand memories with known answers, made from a seed: facts about people, in the words of several speakers, among small talk.
//! Some facts contradict earlier ones and supersede them, once or several times; some are forgotten, some have expired; and the same
//! people have other facts in other users' and other tenants' memories.
#![allow(dead_code, reason = "each program uses a part")]

pub(crate) mod ask;

use std::collections::BTreeSet;

use logline_memory::rank::Tier;
use uuid::Uuid;

/// A small generator of chance, the same everywhere.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % most.max(1) as u64).unwrap_or(0)
    }

    pub(crate) fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Live,
    Superseded,
    Forgotten,
    Expired,
}

#[derive(Debug, Clone)]
pub(crate) struct Memory {
    pub(crate) id: Uuid,
    pub(crate) tenant: &'static str,
    pub(crate) owner: String,
    pub(crate) tier: Tier,
    pub(crate) session: Option<String>,
    /// Whether its text may stand in the store; otherwise it is found in the process only.
    pub(crate) is_public: bool,
    pub(crate) text: String,
    pub(crate) state: State,
}

/// A question of one user, the memory that answers it, and those that must never be found.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) tenant: &'static str,
    pub(crate) user: String,
    pub(crate) session: String,
    pub(crate) text: String,
    pub(crate) answer: usize,
}

pub(crate) struct Corpus {
    pub(crate) memories: Vec<Memory>,
    pub(crate) questions: Vec<Question>,
}

pub(crate) const SIZE: usize = 10_000;

const TENANTS: [&str; 2] = ["acme", "globex"];
const USERS: usize = 24;

/// What is said of a person, with the ways of saying it and of asking for it. `{s}` is the person, `{o}` the value.
struct Predicate {
    says: [&'static str; 3],
    asks: [&'static str; 3],
    values: [&'static str; 12],
}

const PREDICATES: [Predicate; 8] = [
    Predicate {
        says: ["{s} lives in {o} these days", "{s} has moved to {o}, into a flat near the river", "the home of {s} is in {o}"],
        asks: ["Where does {s} live?", "To which town did {s} move?", "Where is the home of {s}?"],
        values: ["Lisbon", "Turku", "Ghent", "Leeds", "Graz", "Basel", "Tartu", "Cork", "Bergen", "Pilsen", "Lucca", "Nantes"],
    },
    Predicate {
        says: ["{s} works as a {o}", "{s} has a new job, working as {o} for a small firm", "by profession {s} is a {o}"],
        asks: ["What does {s} work as?", "What is the job of {s}?", "What is the profession of {s}?"],
        values: [
            "baker",
            "surveyor",
            "nurse",
            "welder",
            "notary",
            "pilot",
            "florist",
            "lawyer",
            "carpenter",
            "dentist",
            "tailor",
            "translator",
        ],
    },
    Predicate {
        says: [
            "{s} is allergic to {o}",
            "doctors found an allergy of {s} against {o}",
            "{s} cannot eat {o} because of an allergy",
        ],
        asks: ["What is {s} allergic to?", "Which allergy does {s} have?", "Has {s} any allergies?"],
        values: [
            "peanuts",
            "shellfish",
            "celery",
            "sesame",
            "lupin",
            "mustard",
            "milk",
            "eggs",
            "soy",
            "wheat",
            "kiwi",
            "almonds",
        ],
    },
    Predicate {
        says: ["the dog of {s} is called {o}", "{s} named the new dog {o}", "{s} walks {o}, a dog from the shelter"],
        asks: ["What is the dog of {s} called?", "How did {s} name the dog?", "Which dog does {s} walk?"],
        values: ["Bruno", "Pepper", "Ziggy", "Nala", "Otis", "Juno", "Rocco", "Maple", "Biscuit", "Hugo", "Willow", "Tango"],
    },
    Predicate {
        says: ["{s} prefers to travel by {o}", "when travelling, {s} likes to take the {o}", "{s} always travels by {o}"],
        asks: ["How does {s} prefer to travel?", "What does {s} like to take when travelling?", "By what does {s} travel?"],
        values: ["train", "ferry", "bicycle", "coach", "tram", "car", "ship", "motorbike", "plane", "van", "scooter", "canoe"],
    },
    Predicate {
        says: [
            "{s} is learning to play the {o}",
            "{s} plays the {o} in a band",
            "for a birthday {s} got a {o} and plays it daily",
        ],
        asks: ["Which instrument does {s} play?", "What is {s} learning to play?", "What did {s} get for a birthday?"],
        values: [
            "cello",
            "oboe",
            "banjo",
            "harp",
            "tuba",
            "flute",
            "viola",
            "trumpet",
            "accordion",
            "organ",
            "ukulele",
            "bassoon",
        ],
    },
    Predicate {
        says: ["{s} married {o} last year", "the wedding of {s} and {o} was small", "{s} is the spouse of {o}"],
        asks: ["Whom did {s} marry?", "Who is the spouse of {s}?", "Whose wedding with {s} was it?"],
        values: ["Ansel", "Birgit", "Corin", "Dalia", "Edda", "Farid", "Gesa", "Henrik", "Ilse", "Jonas", "Katya", "Lorenz"],
    },
    Predicate {
        says: [
            "{s} supports {o} in football",
            "{s} is a fan of {o} and never misses a match",
            "the favourite team of {s} is {o}",
        ],
        asks: ["Which football team does {s} support?", "Of which team is {s} a fan?", "What is the favourite team of {s}?"],
        values: [
            "Rovers",
            "Athletic",
            "Dynamo",
            "Rangers",
            "United",
            "Wanderers",
            "Sporting",
            "Albion",
            "Hearts",
            "Orient",
            "Fortuna",
            "Villa",
        ],
    },
];

const SMALL_TALK: [&str; 12] = [
    "what a long day it was, we should talk more often",
    "the weather is supposed to get better at the weekend",
    "did you see the match, the team played well in the end",
    "I want to travel more next year and work less",
    "let us have dinner with the others when everybody is in town",
    "my phone is new and I cannot get used to it",
    "they said that the move went well and the flat is nice",
    "the dog next door barks whenever somebody comes home",
    "we went to a wedding where the band played until four",
    "I should eat less in the evening, the doctor said",
    "where is the key of the bicycle, has anybody seen it",
    "which of the books do you like, and what is it called",
];

const SYLLABLES: [&str; 24] = [
    "va", "lo", "ren", "tis", "mar", "ko", "shu", "bel", "dri", "fen", "gal", "hom", "jas", "kel", "lun", "mi", "nor", "pol",
    "qua", "rud", "sel", "tor", "ul", "wen",
];

fn name(chance: &mut Chance, taken: &mut BTreeSet<String>) -> String {
    loop {
        let word: String = (0..3).map(|_| chance.of(&SYLLABLES)).collect();
        let name: String = word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect();
        if taken.insert(name.clone()) {
            return name;
        }
    }
}

/// Where and whose the facts about one person are.
struct Home {
    tenant: &'static str,
    owner: String,
    tier: Tier,
    session: Option<String>,
    is_public: bool,
}

fn home(chance: &mut Chance) -> Home {
    let tier = match chance.below(10) {
        0 => Tier::Session,
        1 | 2 => Tier::Temporary,
        3..=5 => Tier::Permanent,
        6 | 7 => Tier::Tenant,
        _ => Tier::Public,
    };
    let is_public = matches!(tier, Tier::Tenant | Tier::Public) || chance.percent(20);
    let session = (tier == Tier::Session).then(|| format!("session-{}", chance.below(3)));
    Home { tenant: chance.of(&TENANTS), owner: format!("user_{:02}", chance.below(USERS)), tier, session, is_public }
}

/// The corpus of this seed.
pub(crate) fn generate(seed: u64) -> Corpus {
    let mut chance = Chance::new(seed);
    let mut corpus = Corpus { memories: Vec::with_capacity(SIZE), questions: Vec::new() };
    let mut taken = BTreeSet::new();
    while corpus.memories.len() < SIZE - 2500 {
        let person = name(&mut chance, &mut taken);
        let at = home(&mut chance);
        facts(&mut corpus, &mut chance, &person, &at, true);
        if chance.percent(15) {
            // Somebody else has other facts about a person of this name.
            let mut elsewhere = home(&mut chance);
            elsewhere.tier = Tier::Permanent;
            elsewhere.session = None;
            if (elsewhere.tenant, &elsewhere.owner) != (at.tenant, &at.owner) {
                facts(&mut corpus, &mut chance, &person, &elsewhere, false);
            }
        }
    }
    while corpus.memories.len() < SIZE {
        let at = home(&mut chance);
        let text = format!("{}, and {}", chance.of(&SMALL_TALK), chance.of(&SMALL_TALK));
        push(&mut corpus, &at, text, State::Live);
    }
    corpus.memories.truncate(SIZE);
    corpus.questions.retain(|question| question.answer < SIZE);
    corpus
}

fn facts(corpus: &mut Corpus, chance: &mut Chance, person: &str, at: &Home, is_asked: bool) {
    for predicate in &PREDICATES {
        if chance.percent(25) {
            continue;
        }
        // Of a cascade of contradictions only the last holds.
        let values = if chance.percent(20) { 2 + chance.below(4) } else { 1 };
        let last_state = match chance.below(12) {
            0 => State::Forgotten,
            1 => State::Expired,
            _ => State::Live,
        };
        let mut wording = 0;
        for n in 1..=values {
            wording = chance.below(predicate.says.len());
            let says = predicate.says[wording].replace("{s}", person).replace("{o}", chance.of(&predicate.values));
            let text = if chance.percent(30) { format!("{says}, and {}", chance.of(&SMALL_TALK)) } else { says };
            push(corpus, at, text, if n == values { last_state } else { State::Superseded });
        }
        if is_asked && last_state == State::Live && chance.percent(25) {
            let user = match at.tier {
                Tier::Tenant | Tier::Public => format!("user_{:02}", chance.below(USERS)),
                _ => at.owner.clone(),
            };
            // Most people ask in other words than those that were said, some in the same.
            let asks = if chance.percent(50) { predicate.asks[wording] } else { chance.of(&predicate.asks) };
            corpus.questions.push(Question {
                tenant: if at.tier == Tier::Public { chance.of(&TENANTS) } else { at.tenant },
                user,
                session: at.session.clone().unwrap_or_else(|| format!("session-{}", chance.below(3))),
                text: asks.replace("{s}", person),
                answer: corpus.memories.len() - 1,
            });
        }
    }
}

fn push(corpus: &mut Corpus, at: &Home, text: String, state: State) {
    let n = corpus.memories.len() as u128;
    corpus.memories.push(Memory {
        id: Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000 + n),
        tenant: at.tenant,
        owner: at.owner.clone(),
        tier: at.tier,
        session: at.session.clone(),
        is_public: at.is_public,
        text,
        state,
    });
}
