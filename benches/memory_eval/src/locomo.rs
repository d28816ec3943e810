//! LoCoMo (`locomo10.json`): conversations of two people over months, and questions with the turns that answer them. The data set is
//! CC BY-NC: it is read where the user has it, and nothing of it is kept.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

pub(crate) struct Conversation {
    pub(crate) turns: Vec<Turn>,
    pub(crate) questions: Vec<Question>,
}

pub(crate) struct Turn {
    pub(crate) id: String,
    pub(crate) text: String,
}

pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) evidence: HashSet<String>,
}

/// The category of questions that nothing answers.
const ADVERSARIAL: i64 = 5;

pub(crate) fn read(file: &Path) -> Result<Vec<Conversation>, String> {
    let wrong = |what: &str| format!("{}: {what}: is it `locomo10.json`?", file.display());
    let bytes = std::fs::read(file).map_err(|e| wrong(&e.to_string()))?;
    let samples: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(&e.to_string()))?;
    let samples = samples.as_array().ok_or_else(|| wrong("there is no list"))?;
    let conversations: Vec<_> =
        samples.iter().map(conversation).collect::<Option<_>>().ok_or_else(|| wrong("a sample is not one"))?;
    if questions(&conversations) == 0 {
        return Err(wrong("there is no question with evidence"));
    }
    Ok(conversations)
}

pub(crate) fn questions(conversations: &[Conversation]) -> usize {
    conversations.iter().map(|conversation| conversation.questions.len()).sum()
}

fn conversation(sample: &Value) -> Option<Conversation> {
    let mut turns = Vec::new();
    let mut sessions: Vec<(u32, &Vec<Value>)> = Vec::new();
    for (name, value) in sample.get("conversation")?.as_object()? {
        // `session_3` is a list of turns, `session_3_date_time` is not.
        if let (Some(Ok(number)), Some(list)) = (name.strip_prefix("session_").map(str::parse), value.as_array()) {
            sessions.push((number, list));
        }
    }
    sessions.sort_by_key(|(number, _)| *number);
    for turn in sessions.into_iter().flat_map(|(_, turns)| turns) {
        let (id, text) = (turn.get("dia_id")?.as_str()?, turn.get("text")?.as_str()?);
        let speaker = turn.get("speaker").and_then(Value::as_str).unwrap_or_default();
        turns.push(Turn { id: id.to_owned(), text: format!("{speaker}: {text}") });
    }
    let known: HashSet<&str> = turns.iter().map(|turn| turn.id.as_str()).collect();
    let mut questions = Vec::new();
    for question in sample.get("qa")?.as_array()? {
        if question.get("category").and_then(Value::as_i64) == Some(ADVERSARIAL) {
            continue;
        }
        // Some lists have several ids in one text.
        let named = question.get("evidence").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let ids = named.flat_map(|text| text.split([';', ',', ' '])).map(str::trim);
        let evidence: HashSet<String> = ids.filter(|id| known.contains(id)).map(str::to_owned).collect();
        if !evidence.is_empty() {
            questions.push(Question { text: question.get("question")?.as_str()?.to_owned(), evidence });
        }
    }
    Some(Conversation { turns, questions })
}
