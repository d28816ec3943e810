//! Fixtures from other tools: tests of promptfoo, and items of Langfuse data sets. A bad entry is named, the others are kept.

use serde_json::{Map, Value};

use super::fixture::{Expectation, Fixture, FixtureKind};

/// What could be read, and what could not.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Imported {
    /// The fixtures.
    pub fixtures: Vec<Fixture>,
    /// The place of each entry that could not be read, counted from 1, and why.
    pub faults: Vec<(usize, String)>,
}

impl Imported {
    fn of(entries: &[Value], read: impl Fn(usize, &Value) -> Result<Fixture, String>) -> Self {
        let mut imported = Self::default();
        for (at, entry) in entries.iter().enumerate() {
            let read = read(at, entry).and_then(|fixture| fixture.check().map(|()| fixture));
            match read {
                Ok(fixture) if imported.fixtures.iter().any(|other| other.id == fixture.id) => {
                    imported.faults.push((at + 1, format!("the id `{}` stands there twice", fixture.id)));
                }
                Ok(fixture) => imported.fixtures.push(fixture),
                Err(reason) => imported.faults.push((at + 1, reason)),
            }
        }
        imported
    }
}

/// Reads tests of promptfoo: `{"vars": {…}, "assert": [{"type", "value"?, "threshold"?}], "description"?, "metadata"?}`. The variable that
/// is named `question` becomes the question, the others are the fixture's variables. The id is `metadata.id`, or `test-N`.
#[must_use]
pub fn promptfoo(tests: &[Value], question: &str) -> Imported {
    Imported::of(tests, |at, test| {
        let mut vars = match test.get("vars") {
            Some(Value::Object(vars)) => vars.clone(),
            _ => return Err("`vars` must be an object".to_owned()),
        };
        let asked = match vars.remove(question) {
            Some(Value::String(asked)) => asked,
            _ => return Err(format!("`vars` has no text `{question}`: name the variable with the question")),
        };
        if test.get("threshold").is_some() || test.get("options").is_some() {
            return Err("`threshold` and `options` of a test are not known: all assertions must hold".to_owned());
        }
        let mut fixture = fixture(at, "test", test.get("metadata"), asked)?;
        if !vars.is_empty() {
            fixture.vars = Value::Object(vars);
        }
        let asserts = test.get("assert").and_then(Value::as_array).ok_or("`assert` must be a list")?;
        for assert in asserts {
            fixture.expect.push(asserted(assert)?);
        }
        Ok(fixture)
    })
}

fn asserted(assert: &Value) -> Result<Expectation, String> {
    let kind = assert.get("type").and_then(Value::as_str).ok_or("an assertion has no `type`")?;
    let members = assert.as_object().into_iter().flat_map(|members| members.keys());
    if let Some(other) = members.into_iter().find(|name| !["type", "value", "threshold"].contains(&name.as_str())) {
        return Err(format!("`{kind}`: `{}` is not known", other.escape_debug()));
    }
    let value = assert.get("value");
    let text = || value.and_then(Value::as_str).map(str::to_owned).ok_or_else(|| format!("`{kind}` needs a text as `value`"));
    // Of a price in units of a currency and of milliseconds.
    let threshold = |factor: f64| {
        let number = assert.get("threshold").and_then(Value::as_f64).filter(|number| *number >= 0.0 && number * factor < 1e15);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is checked above")]
        number.map(|number| (number * factor).round() as u64).ok_or_else(|| format!("`{kind}` needs a number as `threshold`"))
    };
    Ok(match kind {
        "contains" => Expectation::MustContain(text()?),
        "icontains" => Expectation::MustContainAnyCase(text()?),
        "not-contains" => Expectation::MustNotContain(text()?),
        "equals" => Expectation::MustEqual(value.cloned().ok_or("`equals` needs a `value`")?),
        "regex" => Expectation::MustMatch(text()?),
        "is-json" => Expectation::MustHold(value.cloned().filter(Value::is_object).unwrap_or(Value::Object(Map::new()))),
        "cost" => Expectation::MaxCostNanos(threshold(1e9)?),
        "latency" => Expectation::MaxLatencyMs(threshold(1.0)?),
        "llm-rubric" => Expectation::Judge(text()?),
        other => return Err(format!("assertions of the type `{}` are not known", other.escape_debug())),
    })
}

/// Reads items of a Langfuse data set: `{"id"?, "input", "expectedOutput", "metadata"?}`. The input is the question, or an object with
/// `question` and variables. An expected text must be contained, another expected value must be the answer.
#[must_use]
pub fn langfuse(items: &[Value]) -> Imported {
    Imported::of(items, |at, item| {
        let (asked, vars) = match item.get("input") {
            Some(Value::String(asked)) => (asked.clone(), Map::new()),
            Some(Value::Object(input)) => {
                let mut vars = input.clone();
                match vars.remove("question") {
                    Some(Value::String(asked)) => (asked, vars),
                    _ => return Err("`input` has no text `question`".to_owned()),
                }
            }
            _ => return Err("`input` must be a text, or an object with `question`".to_owned()),
        };
        let mut fixture = fixture(at, "item", item.get("metadata"), asked)?;
        if let Some(id) = item.get("id").and_then(Value::as_str) {
            fixture.id = id.to_owned();
        }
        if !vars.is_empty() {
            fixture.vars = Value::Object(vars);
        }
        fixture.expect.push(match item.get("expectedOutput") {
            Some(Value::String(text)) => Expectation::MustContain(text.clone()),
            None | Some(Value::Null) => return Err("`expectedOutput` is missing: nothing could be checked".to_owned()),
            Some(value) => Expectation::MustEqual(value.clone()),
        });
        Ok(fixture)
    })
}

/// A fixture with what its metadata says: `id`, `kind`, `source`.
fn fixture(at: usize, of: &str, metadata: Option<&Value>, question: String) -> Result<Fixture, String> {
    let text = |name: &str| metadata.and_then(|metadata| metadata.get(name)).and_then(Value::as_str);
    let kind = match text("kind") {
        None => FixtureKind::Happy,
        Some(name) => {
            let value = Value::String(name.to_owned());
            serde_json::from_value(value).map_err(|_| format!("`metadata.kind`: there is no kind `{}`", name.escape_debug()))?
        }
    };
    let id = text("id").map_or_else(|| format!("{of}-{}", at + 1), str::to_owned);
    let mut fixture = Fixture::new(&id, kind, &question);
    fixture.source = text("source").map(str::to_owned);
    Ok(fixture)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tests_of_promptfoo_become_fixtures_and_bad_ones_are_named() {
        let tests = [
            json!({
                "description": "d",
                "vars": {"query": "Where?", "customer": "Ada"},
                "assert": [
                    {"type": "contains", "value": "Paris"}, {"type": "icontains", "value": "PARIS"}, {"type": "not-contains", "value": "x"},
                    {"type": "regex", "value": "^P"}, {"type": "is-json"}, {"type": "cost", "threshold": 0.002},
                    {"type": "latency", "threshold": 1500}, {"type": "llm-rubric", "value": "is polite"}, {"type": "equals", "value": 5},
                ],
                "metadata": {"kind": "ambiguous", "source": "ticket-7"},
            }),
            json!({"vars": {"query": "a"}, "assert": [{"type": "similar", "value": "x"}]}),
            json!({"vars": {"other": "a"}, "assert": []}),
            json!({"vars": {"query": "a"}, "assert": []}),
            json!({"vars": {"query": "a"}, "assert": [{"type": "regex", "value": "("}]}),
            json!({"vars": {"query": "a"}, "assert": [{"type": "cost", "threshold": -1}]}),
            json!(5),
            json!({"vars": {"query": "b"}, "assert": [{"type": "contains", "value": "b"}]}),
        ];
        let imported = promptfoo(&tests, "query");
        assert_eq!(imported.fixtures.iter().map(|fixture| fixture.id.as_str()).collect::<Vec<_>>(), ["test-1", "test-8"]);
        let first = &imported.fixtures[0];
        assert_eq!((first.kind, first.source.as_deref()), (FixtureKind::Ambiguous, Some("ticket-7")));
        assert_eq!((&first.question, &first.vars), (&"Where?".to_owned(), &json!({"customer": "Ada"})));
        assert!(first.expect.contains(&Expectation::MaxCostNanos(2_000_000)) && first.expect.len() == 9, "{first:?}");
        assert_eq!(imported.faults.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7]);
        assert!(imported.faults[0].1.contains("`similar`"), "{:?}", imported.faults);
    }

    #[test]
    fn items_of_langfuse_become_fixtures_and_bad_ones_are_named() {
        let items = [
            json!({"id": "a", "input": "Where?", "expectedOutput": "Paris", "metadata": {"kind": "conflicting"}}),
            json!({"input": {"question": "Who?", "customer": "Ada"}, "expectedOutput": {"text": "x"}}),
            json!({"input": "q"}),
            json!({"input": 5, "expectedOutput": "x"}),
            json!({"id": "a", "input": "again", "expectedOutput": "x"}),
            json!({"id": "b", "input": "q", "expectedOutput": "x", "metadata": {"kind": "odd"}}),
        ];
        let imported = langfuse(&items);
        assert_eq!(imported.fixtures.iter().map(|fixture| fixture.id.as_str()).collect::<Vec<_>>(), ["a", "item-2"]);
        assert_eq!(imported.faults.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [3, 4, 5, 6]);
    }
}
