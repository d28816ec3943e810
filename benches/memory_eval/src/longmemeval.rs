//! LongMemEval: each question has sessions of its own, of which some have the answer. They are read one question after the other, because
//! the file is large.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use logline_memory::index::{Index, IndexLimits};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use uuid::Uuid;

use crate::metrics::Outcomes;

#[derive(Deserialize)]
struct Asked {
    question_id: String,
    question: String,
    haystack_session_ids: Vec<String>,
    haystack_sessions: Vec<Vec<Turn>>,
    answer_session_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Turn {
    content: String,
}

pub(crate) fn measure(file: &Path) -> Result<Outcomes, String> {
    let wrong = |e: String| format!("{}: {e}: is it a file of LongMemEval?", file.display());
    let reader = BufReader::new(File::open(file).map_err(|e| wrong(e.to_string()))?);
    let mut outcomes = Outcomes::new();
    let each = Each(|asked: &Asked| {
        // Questions that nothing answers.
        if !asked.question_id.ends_with("_abs") {
            outcomes.push(place(asked));
        }
    });
    each.deserialize(&mut serde_json::Deserializer::from_reader(reader)).map_err(|e| wrong(e.to_string()))?;
    if outcomes.is_empty() {
        return Err(wrong("there is no question".to_owned()));
    }
    Ok(outcomes)
}

/// At which place the first session with the answer is, if sessions are ordered by their best turns.
fn place(asked: &Asked) -> Option<usize> {
    let mut index = Index::new(IndexLimits { entries: 1 << 20, bytes: 1 << 30 }).ok()?;
    let mut session_of: HashMap<Uuid, &str> = HashMap::new();
    for (session, turns) in asked.haystack_session_ids.iter().zip(&asked.haystack_sessions) {
        for turn in turns {
            let id = Uuid::from_u128(session_of.len() as u128 + 1);
            index.add(id, &turn.content).ok()?;
            session_of.insert(id, session);
        }
    }
    let mut sessions: Vec<&str> = Vec::new();
    for (id, _) in index.search(&asked.question, 200, |_| true) {
        if let Some(session) = session_of.get(&id)
            && !sessions.contains(session)
        {
            sessions.push(session);
        }
    }
    sessions.iter().position(|session| asked.answer_session_ids.iter().any(|answer| answer == session))
}

/// Reads a list and keeps none of its items.
struct Each<F>(F);

impl<'de, F: FnMut(&Asked)> DeserializeSeed<'de> for Each<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(&Asked)> Visitor<'de> for Each<F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of questions")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut questions: A) -> Result<(), A::Error> {
        while let Some(asked) = questions.next_element::<Asked>()? {
            (self.0)(&asked);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// The members that the data set publishes: roles and dates beside contents, answers that may be numbers, and questions that nothing
    /// answers (`_abs`).
    #[test]
    fn the_published_format_is_read() {
        let turn =
            |content: &str| serde_json::json!({"role": "user", "content": content, "has_answer": content.contains("Porto")});
        let question = |id: &str, answer: serde_json::Value| {
            serde_json::json!({
                "question_id": id, "question_type": "single-session-user", "question": "Where did my sister move?", "answer": answer,
                "question_date": "2023/05/30 (Tue) 23:40",
                "haystack_dates": ["2023/05/20 (Sat) 02:21", "2023/05/21 (Sun) 12:30"],
                "haystack_session_ids": ["sharegpt_1", "answer_2"],
                "haystack_sessions": [[turn("I like tea"), turn("Tea is nice")], [turn("My sister moved to Porto")]],
                "answer_session_ids": ["answer_2"],
            })
        };
        let questions = serde_json::json!([
            question("e47becba", "Porto".into()),
            question("6d550036", 3.into()),
            question("1_abs", "".into())
        ]);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(questions.to_string().as_bytes()).unwrap();
        assert_eq!(measure(file.path()).unwrap(), vec![Some(0), Some(0)]);
    }
}
