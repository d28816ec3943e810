//! Renders the template of a block.

use std::collections::BTreeSet;
use std::io;
use std::sync::LazyLock;

use minijinja::value::{Rest, Serde};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use serde_json::{Map, Value as Json};

use crate::language::{self, Fault};

/// The most instructions of one template.
const FUEL: u64 = 200_000;

/// The most bytes that a filter may return.
const MAX_JOINED: usize = 256 << 10;

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(50);
    environment.add_filter("upper", |text: &str| text.to_uppercase());
    environment.add_filter("lower", |text: &str| text.to_lowercase());
    environment.add_filter("trim", |text: &str| text.trim().to_owned());
    environment.add_filter("length", |value: &Value| value.len().ok_or_else(|| invalid("it has no length")));
    environment.add_filter("json", json);
    environment.add_filter("join", join);
    environment
}

fn invalid(reason: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.to_owned())
}

/// The value as canonical JSON.
fn json(value: &Value) -> Result<String, Error> {
    let value = serde_json::to_value(value).map_err(|_| invalid("it cannot be written as JSON"))?;
    let text = logline_core::canonical::to_vec(&value);
    if text.len() > MAX_JOINED {
        return Err(invalid("the JSON text is too long"));
    }
    String::from_utf8(text).map_err(|_| invalid("it cannot be written as JSON"))
}

fn join(list: &Value, between: Rest<String>) -> Result<String, Error> {
    let between = between.first().map(String::as_str).unwrap_or_default();
    let mut joined = String::new();
    for (n, item) in list.try_iter()?.enumerate() {
        if n > 0 {
            joined.push_str(between);
        }
        joined.push_str(&item.to_string());
        if joined.len() > MAX_JOINED {
            return Err(invalid("the joined text is too long"));
        }
    }
    Ok(joined)
}

/// Writes text until there is too much of it.
struct Bounded {
    text: Vec<u8>,
    most: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len().saturating_add(bytes.len()) > self.most {
            return Err(io::Error::other("too long"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The name that the template has in its environment.
const NAME: &str = "block";

/// A template that was checked and compiled.
pub(crate) struct Compiled {
    environment: Environment<'static>,
    names: BTreeSet<String>,
}

impl Compiled {
    pub(crate) fn new(template: &str) -> Result<Self, Fault> {
        static EMPTY: LazyLock<Environment<'static>> = LazyLock::new(environment);
        language::check(template)?;
        let mut environment = EMPTY.clone();
        environment.add_template_owned(NAME, template.to_owned()).map_err(|error| fault(&error))?;
        let compiled = environment.get_template(NAME).map_err(|error| fault(&error))?;
        let names = compiled.undeclared_variables(false).into_iter().collect();
        Ok(Self { environment, names })
    }

    /// The names that it uses.
    pub(crate) fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Its text with these values, at most `most` bytes.
    pub(crate) fn render(&self, values: &Map<String, Json>, most: usize) -> Result<String, Fault> {
        let mut out = Bounded { text: Vec::new(), most };
        let template = self.environment.get_template(NAME).map_err(|error| fault(&error))?;
        match template.render_captured_to(Serde(values), &mut out) {
            Ok(_) => String::from_utf8(out.text).map_err(|_| Fault { line: 1, reason: "the text is not UTF-8".to_owned() }),
            Err(error) => Err(fault(&error)),
        }
    }
}

/// The fault behind an error of the engine. Its message names operations and variables, and no values.
fn fault(error: &Error) -> Fault {
    let line = error.line().unwrap_or(1);
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => format!("it takes more than {FUEL} steps"),
        ErrorKind::WriteFailure => "its text is too long".to_owned(),
        ErrorKind::UndefinedError => "it uses what is not there, such as a member that a row does not have".to_owned(),
        ErrorKind::SyntaxError | ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction => {
            match error.detail() {
                Some(detail) => format!("{}: {detail}", error.kind()),
                None => error.kind().to_string(),
            }
        }
        kind => kind.to_string(),
    };
    Fault { line, reason }
}
