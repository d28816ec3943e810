//! What a run is asked, and the contents that stand before the question.

use logline_core::SignedSpan;
use logline_core::contract::sealed_text;
use serde_json::Value;
use uuid::Uuid;

use crate::tools::MAX_TOOLS;

/// The most spans of context that a request may name.
const MAX_CONTEXT: usize = 64;

/// The most bytes of a question.
const MAX_QUESTION: usize = 64 << 10;

/// About how many bytes a token has.
const BYTES_PER_TOKEN: usize = 4;

/// What a request asks.
pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) vars: Value,
    pub(crate) context: Vec<Uuid>,
    pub(crate) session: Option<String>,
    /// Which memories the model may be told. It is for whoever finds them to read.
    pub(crate) memory: Option<Value>,
    /// Functions that the model may use beside those of the variant.
    pub(crate) tools: Vec<String>,
}

impl Question {
    /// Reads the input of a request.
    pub(crate) fn read(input: Option<&Value>) -> Result<Self, String> {
        let members =
            logline_core::json::members(input, "the input", &["question", "vars", "context", "session", "memory", "tools"])?;
        let text = match members.get("question") {
            Some(Value::String(text)) if !text.trim().is_empty() && text.len() <= MAX_QUESTION => text.clone(),
            Some(Value::String(_)) => {
                return Err(format!("`question` must have 1 to {MAX_QUESTION} bytes, and not white space only"));
            }
            _ => return Err("`question` must be a text".to_owned()),
        };
        let context = match members.get("context") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(named)) if named.len() <= MAX_CONTEXT => named
                .iter()
                .map(|id| id.as_str().and_then(|id| id.parse().ok()).ok_or("`context` must be a list of ids".to_owned()))
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(format!("`context` must be a list of at most {MAX_CONTEXT} ids")),
        };
        let session = match members.get("session") {
            None | Some(Value::Null) => None,
            Some(Value::String(session)) => Some(session.clone()),
            Some(_) => return Err("`session` must be a text".to_owned()),
        };
        let tools = match members.get("tools") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(named)) if named.len() <= MAX_TOOLS => {
                let text = |named: &Value| {
                    named.as_str().map(str::to_owned).ok_or("`tools` must be a list of ids and names".to_owned())
                };
                named.iter().map(text).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(format!("`tools` must be a list of at most {MAX_TOOLS} ids and names")),
        };
        let memory = members.get("memory").filter(|memory| !memory.is_null()).cloned();
        Ok(Self { text, vars: members.get("vars").cloned().unwrap_or_default(), context, session, memory, tools })
    }
}

/// The text of a span that a model is shown.
pub(crate) fn content(span: &SignedSpan) -> Result<String, String> {
    let id = span.id;
    match span.content.as_ref().or(span.output.as_ref()) {
        Some(value) if sealed_text(value).is_some() => {
            Err(format!("context: span {id} is encrypted, and a model could not read it: leave it out"))
        }
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value) => Ok(String::from_utf8_lossy(&logline_core::canonical::to_vec(value)).into_owned()),
        None => Err(format!("context: span {id} has neither content nor output")),
    }
}

/// What stands before the question: contents that are data, each in a frame of its own, as far as the budget allows.
pub(crate) struct Cites {
    left: usize,
    text: String,
    cited: Vec<Value>,
}

impl Cites {
    pub(crate) fn new(tokens: usize) -> Self {
        Self { left: tokens.saturating_mul(BYTES_PER_TOKEN), text: String::new(), cited: Vec::new() }
    }

    pub(crate) fn add(&mut self, frame: &str, id: Uuid, mut version: Value, content: &str) {
        let fits = content.len() <= self.left;
        if let Some(members) = version.as_object_mut() {
            members.insert("used".to_owned(), fits.into());
        }
        self.cited.push(version);
        if fits {
            self.left -= content.len();
            // A content must not end its own frame and begin that of another span.
            let content = without_frames(content);
            self.text.push_str(&format!("<{frame} id=\"{id}\">\n{content}\n</{frame}>\n\n"));
        }
    }

    /// The contents and the question, and what became of each content.
    pub(crate) fn before(mut self, question: &str) -> (String, Vec<Value>) {
        self.text.push_str(question);
        (self.text, self.cited)
    }
}

/// The names of frames.
const FRAMES: [&str; 2] = ["context", "memory"];

/// A content in which a backslash follows each `<` that would begin or end a frame, in upper or lower case.
fn without_frames(content: &str) -> String {
    let mut safe = String::with_capacity(content.len());
    let mut rest = content;
    while let Some(at) = rest.find('<') {
        let (before, after) = rest.split_at(at + 1);
        safe.push_str(before);
        let name = after.trim_start_matches(|c: char| c == '/' || c.is_whitespace() || c.is_control());
        if FRAMES.iter().any(|frame| name.get(..frame.len()).is_some_and(|name| name.eq_ignore_ascii_case(frame))) {
            safe.push('\\');
        }
        rest = after;
    }
    safe.push_str(rest);
    safe
}
