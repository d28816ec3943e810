//! The part of the template language that blocks may use.
//!
//! A template cannot make texts that are much longer than what it is given: there are no operators that join or repeat texts, and no names
//! for intermediate results. What is left is output, `if`, `for`, and a few filters. So a template of some lines cannot fill the memory,
//! and its output is counted as it is written.

/// The tags that blocks may use.
const TAGS: &[&str] = &["if", "elif", "else", "endif", "for", "endfor", "raw", "endraw"];

/// The operators that make long texts out of short ones.
const OPERATORS: &[char] = &['*', '~', '+'];

/// The most bytes of one tag, and the most tags of a template. The engine works on both recursively, and a long chain of them would
/// overflow its stack, which ends the process.
const MAX_TAG: usize = 300;
const MAX_TAGS: usize = 300;

/// What is wrong with a template, and in which line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) line: usize,
    pub(crate) reason: String,
}

/// Checks that a template uses only what it may.
pub(crate) fn check(template: &str) -> Result<(), Fault> {
    let mut rest = template;
    let mut line = 1;
    let mut tags = 0;
    while let Some(at) = rest.as_bytes().windows(2).position(|pair| matches!(pair, [b'{', b'{' | b'%' | b'#'])) {
        let (before, tag) = rest.split_at(at);
        line += before.matches('\n').count();
        let Some((inner, after)) = split_tag(tag) else {
            return Err(Fault { line, reason: "a tag is not closed".to_owned() });
        };
        if !tag.starts_with("{#") {
            tags += 1;
            if tags > MAX_TAGS {
                return Err(Fault { line, reason: format!("a block has at most {MAX_TAGS} tags: divide it") });
            }
            check_tag(tag.starts_with("{%"), inner).map_err(|reason| Fault { line, reason })?;
        }
        line += inner.matches('\n').count();
        rest = after;
        if tag.starts_with("{%") && first_word(inner) == "raw" {
            // What stands between is no template.
            let Some(end) = end_of_raw(rest) else {
                return Err(Fault { line, reason: "`raw` is not closed".to_owned() });
            };
            let (raw, after) = rest.split_at(end);
            line += raw.matches('\n').count();
            rest = after;
        }
    }
    Ok(())
}

/// The inside of the tag with which `text` begins, and what follows it.
fn split_tag(text: &str) -> Option<(&str, &str)> {
    let (close, is_comment) = match text.get(..2)? {
        "{{" => ("}}", false),
        "{%" => ("%}", false),
        _ => ("#}", true),
    };
    let body = text.get(2..)?;
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if !is_comment && (c == '"' || c == '\'') => quote = Some(c),
            None if body.get(at..)?.starts_with(close) => {
                return Some((body.get(..at)?, body.get(at..)?.get(2..)?));
            }
            None => {}
        }
    }
    None
}

fn first_word(inner: &str) -> &str {
    let inner = inner.trim_start_matches(['-', '+']).trim_start();
    inner.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
}

fn end_of_raw(text: &str) -> Option<usize> {
    text.match_indices("{%").map(|(at, _)| at).find(|at| {
        let inner = text.get(*at..).and_then(|tag| tag.get(2..)).unwrap_or_default();
        first_word(inner) == "endraw"
    })
}

fn check_tag(is_statement: bool, inner: &str) -> Result<(), String> {
    if inner.len() > MAX_TAG {
        return Err(format!("a tag has at most {MAX_TAG} bytes"));
    }
    // Signs at the ends of a tag are about white space.
    let inner = inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']);
    if is_statement && !TAGS.contains(&first_word(inner)) {
        return Err(format!("`{{% {} %}}` is not available: blocks have {}", first_word(inner), TAGS.join(", ")));
    }
    let mut quote = None;
    let mut escaped = false;
    for c in inner.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            // The engine looks for the end of a tag outside brackets. Without these brackets both find the same end.
            None if c == '{' || c == '}' => return Err("`{` and `}` are not available within a tag".to_owned()),
            None if OPERATORS.contains(&c) => {
                return Err(format!("the operator `{c}` is not available: write the texts one after the other"));
            }
            None => {}
        }
    }
    Ok(())
}
