//! What an answer must look like: a JSON schema.

use jsonschema::{PatternOptions, Validator};
use serde_json::{Value, json};

/// The most bytes of a schema.
const MAX_BYTES: usize = 32 << 10;

/// The most faults that the model is told.
const MAX_FAULTS: usize = 5;

/// The schema that answers have if a variant asks for `"contract": "answer"`: a text with a confidence from 0 to 1, or an error.
#[must_use]
pub fn answer_contract() -> Value {
    let action = json!({
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": ["create_span", "execute_function", "query", "none"]}, "args": {"type": "object"}},
    });
    json!({
        "type": "object",
        "oneOf": [
            {"required": ["text", "confidence"], "not": {"required": ["error"]}},
            {"required": ["error"], "not": {"required": ["text"]}},
        ],
        "properties": {
            "text": {"type": "string"},
            "confidence": {"type": "number", "minimum": 0, "maximum": 1},
            "follow_up_question": {"type": "string"},
            "actions": {"type": "array", "items": action},
            "citations": {"type": "array", "items": {"type": "string"}},
            "telemetry": {"type": "object"},
            "error": {"type": "string"},
        },
        "additionalProperties": false,
    })
}

/// The answer that stands for none, when no answer holds to the contract.
#[must_use]
pub fn insufficient() -> Value {
    json!({"error": "Insufficient evidence."})
}

/// A schema that is ready to check answers.
pub(crate) struct Contract {
    validator: Validator,
    /// How many places it has, with what it refers to.
    places: usize,
}

impl Contract {
    /// Reads a schema. It can refer to nothing outside itself, and its patterns take time in proportion to what they check.
    pub(crate) fn read(schema: &Value) -> Result<Self, String> {
        if logline_core::canonical::to_vec(schema).len() > MAX_BYTES {
            return Err(format!("the schema has more than {MAX_BYTES} bytes"));
        }
        if !schema.is_object() {
            return Err("a schema must be an object".to_owned());
        }
        check_draft(schema)?;
        let mut places = 0;
        weigh(schema, schema, &mut Vec::new(), &mut places)?;
        let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
        let validator = options.build(schema).map_err(|error| format!("it is no JSON schema: {error}"))?;
        Ok(Self { validator, places })
    }

    /// The answer in a text of a model, or what is wrong with it. The faults name places and rules.
    pub(crate) fn answer(&self, text: &str) -> Result<Value, Vec<String>> {
        let value = parse(text).ok_or_else(|| vec!["the answer is not JSON".to_owned()])?;
        self.value(&value)?;
        Ok(value)
    }

    /// Checks a value. The faults name places and rules.
    pub(crate) fn value(&self, value: &Value) -> Result<(), Vec<String>> {
        // A check may visit every place for every part, and it cannot be stopped.
        if parts(value).saturating_mul(self.places) > MAX_VISITS {
            return Err(vec!["the value has too many parts for this schema".to_owned()]);
        }
        let faults: Vec<_> = self
            .validator
            .iter_errors(value)
            .take(MAX_FAULTS)
            .map(|error| format!("at `{}`: the rule `{}` does not hold", error.instance_path(), error.schema_path()))
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

/// The most visits of a check: about a second.
const MAX_VISITS: usize = 20_000_000;

/// How many values there are in a value, with itself.
fn parts(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(parts).sum(),
        Value::Object(members) => members.values().map(parts).sum(),
        _ => 0,
    }
}

/// The drafts in which what [`weigh`] reads means what it takes it for. Draft 4 and older name a schema by `id`, from which references start.
const DRAFTS: &[&str] = &[
    "json-schema.org/draft-06/schema",
    "json-schema.org/draft-07/schema",
    "json-schema.org/draft/2019-09/schema",
    "json-schema.org/draft/2020-12/schema",
];

/// Refuses a schema of another draft.
fn check_draft(schema: &Value) -> Result<(), String> {
    let Some(draft) = schema.get("$schema") else { return Ok(()) };
    let named = draft.as_str().map(|draft| draft.trim_end_matches('#'));
    let named = named.and_then(|draft| draft.strip_prefix("https://").or_else(|| draft.strip_prefix("http://")));
    if named.is_some_and(|draft| DRAFTS.contains(&draft)) {
        return Ok(());
    }
    Err("`$schema` must name draft 6, 7, 2019-09 or 2020-12".to_owned())
}

/// The most places of a schema, counted as often as they are referred to.
const MAX_PLACES: usize = 10_000;

/// Counts the places of a schema as a check may visit them. A schema of a few kilobytes can refer to itself, or to what refers to what refers
/// on, so that one answer would take hours.
fn weigh<'a>(schema: &'a Value, root: &'a Value, inside: &mut Vec<&'a str>, places: &mut usize) -> Result<(), String> {
    *places += 1;
    if *places > MAX_PLACES {
        return Err(format!("the schema has more than {MAX_PLACES} places, with what it refers to"));
    }
    match schema {
        Value::Array(items) => items.iter().try_for_each(|item| weigh(item, root, inside, places)),
        Value::Object(members) => members.iter().try_for_each(|(name, value)| match (name.as_str(), value) {
            ("$schema", Value::String(_)) if !std::ptr::eq(schema, root) => {
                Err("`$schema` is available at the top alone".to_owned())
            }
            ("$dynamicRef" | "$recursiveRef" | "$anchor" | "$dynamicAnchor" | "$id", Value::String(_)) => {
                Err(format!("`{name}` is not available: refer with `$ref` and a JSON pointer"))
            }
            ("$ref", Value::String(reference)) => {
                let pointer = reference.strip_prefix('#').filter(|pointer| pointer.is_empty() || pointer.starts_with('/'));
                let pointer =
                    pointer.ok_or("`$ref` must be `#` and a JSON pointer: nothing outside the schema can be referred to")?;
                if inside.contains(&pointer) {
                    return Err("the schema refers to itself".to_owned());
                }
                let found =
                    root.pointer(pointer).ok_or_else(|| format!("`$ref`: there is no `{}`", reference.escape_debug()))?;
                inside.push(pointer);
                weigh(found, root, inside, places)?;
                inside.pop();
                Ok(())
            }
            _ => weigh(value, root, inside, places),
        }),
        _ => Ok(()),
    }
}

/// The JSON in a text. Models like to put it between fences.
fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let text = inner.map_or(text, |inner| inner.strip_prefix("json").unwrap_or(inner).trim());
    logline_core::json::parse(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_to_the_contract_or_name_the_place() {
        let contract = Contract::read(&answer_contract()).unwrap();
        for good in [
            r#"{"text": "Paris.", "confidence": 0.9}"#,
            "```json\n{\"text\": \"Paris.\", \"confidence\": 1, \"citations\": [\"a\"]}\n```",
            "```\n{\"error\": \"Insufficient evidence.\"}```",
        ] {
            contract.answer(good).unwrap();
        }
        for (bad, place) in [
            ("Paris.", "not JSON"),
            ("", "not JSON"),
            (r#"{"text": "Paris."}"#, "oneOf"),
            (r#"{"text": "Paris.", "confidence": 2}"#, "`/confidence`"),
            (r#"{"text": "Paris.", "confidence": 1, "error": "no"}"#, "oneOf"),
            (r#"{"text": "Paris.", "confidence": 1, "mood": "good"}"#, "additionalProperties"),
            (r#"{"text": "Paris.", "confidence": 1, "actions": [{"type": "launch"}]}"#, "`/actions/0/type`"),
            (r#"{"text": "a", "text": "b", "confidence": 1}"#, "not JSON"),
        ] {
            let faults = contract.answer(bad).unwrap_err().join("; ");
            assert!(faults.contains(place), "{bad}: {faults}");
        }
    }

    #[test]
    fn what_is_no_schema_or_reaches_outside_is_refused() {
        for bad in [
            json!("text"),
            json!({"type": "blob"}),
            json!({"type": 5}),
            json!({"pattern": "("}),
            json!({"pattern": "(a)\\1"}),
            json!({"$ref": "https://attacker.example/schema.json"}),
            json!({"$ref": "file:///etc/passwd"}),
            json!({"description": "x".repeat(40_000)}),
        ] {
            assert!(Contract::read(&bad).is_err(), "{bad}");
        }
    }

    /// Each level refers to the next one twice: 40 levels would be looked at 2^40 times.
    #[test]
    fn references_that_double_and_double_are_refused() {
        let doubling = |levels: u32| {
            let level = |n: u32| json!({"allOf": [{"$ref": format!("#/$defs/a{n}")}, {"$ref": format!("#/$defs/a{n}")}]});
            let mut definitions: serde_json::Map<_, _> = (0..levels).map(|n| (format!("a{n}"), level(n + 1))).collect();
            definitions.insert(format!("a{levels}"), json!({"type": "object"}));
            json!({"$defs": definitions, "$ref": "#/$defs/a0"})
        };
        assert!(Contract::read(&doubling(5)).is_ok());
        for bad in [
            doubling(40),
            json!({"$ref": "#"}),
            json!({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}),
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
            json!({"$ref": "#/$defs/none"}),
            json!({"$dynamicRef": "#x"}),
        ] {
            assert!(Contract::read(&bad).is_err(), "{bad}");
        }
    }

    /// In draft 4, references within a schema with an `id` start there, and not at the top, where harmless decoys stand.
    #[test]
    fn a_draft_in_which_references_mean_something_else_is_refused() {
        let draft = |named: &str| json!({"$schema": named, "type": "object", "properties": {"id": {"type": "string"}}});
        for good in [
            "https://json-schema.org/draft/2020-12/schema",
            "http://json-schema.org/draft-07/schema#",
            "http://json-schema.org/draft-06/schema",
        ] {
            Contract::read(&draft(good)).map(drop).unwrap();
        }
        let mut inner = json!({"type": "object"});
        inner["properties"] = json!({"a": draft("http://json-schema.org/draft-04/schema#")});
        let hidden = json!({
            "$schema": "http://json-schema.org/draft-04/schema#",
            "definitions": {"a0": {}},
            "allOf": [{"id": "http://x/", "definitions": {"a0": {"$ref": "#/definitions/a0"}}, "$ref": "#/definitions/a0"}],
        });
        let other = draft("http://json-schema.org/draft-03/schema#");
        for bad in [hidden, inner, other, draft("https://attacker.example/"), json!({"$schema": 4})] {
            assert!(Contract::read(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_with_more_parts_than_a_check_could_visit_is_refused_before_it() {
        let item = json!({"allOf": (0..1_000).map(|n| json!({"not": {"const": n}})).collect::<Vec<_>>()});
        let contract = Contract::read(&json!({"type": "array", "items": item})).unwrap();
        contract.value(&json!([-1, -2])).unwrap();
        let faults = contract.value(&json!(vec![-1; 500_000])).unwrap_err().join("; ");
        assert!(faults.contains("too many parts"), "{faults}");
    }

    #[test]
    fn a_pattern_that_could_run_for_ever_does_not() {
        let contract = Contract::read(&json!({"type": "string", "pattern": "^(a+)+$"})).unwrap();
        assert!(contract.answer(&format!("\"{}!\"", "a".repeat(50_000))).is_err());
    }
}
