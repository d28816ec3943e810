//! Parameters of the query, read strictly: unknown and repeated names are refused, and so is text that is not UTF-8.

use std::collections::BTreeMap;
use std::str::FromStr;

#[cfg(any(feature = "memory", feature = "prompts"))]
use http::HeaderMap;

use crate::problem::{Code, Problem};

/// The most bytes of a query.
const MAX_QUERY: usize = 8 << 10;

/// The parameters of one query.
#[derive(Debug, Default)]
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads a query whose parameters are among `known`.
    pub(crate) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let query = query.unwrap_or_default();
        if query.len() > MAX_QUERY {
            return Err(Problem::new(Code::InvalidParameter, format!("the query is longer than {MAX_QUERY} bytes")));
        }
        let mut found = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if !known.contains(&name.as_str()) {
                return Err(Problem::parameter(&name, &format!("left out: this route takes {}", known.join(", "))));
            }
            if found.insert(name.clone(), value).is_some() {
                return Err(Problem::parameter(&name, "given once"));
            }
        }
        Ok(Self(found))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A value that is parsed; `None` if it is absent.
    pub(crate) fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        self.text(name).map(|text| text.parse().map_err(|_| Problem::parameter(name, expected))).transpose()
    }
}

/// Decodes one name or value of a query.
fn decode(text: &str) -> Result<String, Problem> {
    let refused = || Problem::new(Code::InvalidParameter, "the query must be UTF-8, percent-encoded");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit().ok_or_else(refused)?, digit().ok_or_else(refused)?);
                u8::try_from(high * 16 + low).map_err(|_| refused())?
            }
            byte => byte,
        });
    }
    // No column has it, and PostgreSQL does not take it.
    if bytes.contains(&0) {
        return Err(Problem::new(Code::InvalidParameter, "the query has a NUL"));
    }
    String::from_utf8(bytes).map_err(|_| refused())
}

/// The value of a header that may be given once.
#[cfg(any(feature = "memory", feature = "prompts"))]
pub(crate) fn header<T: FromStr>(headers: &HeaderMap, name: &'static str, expected: &str) -> Result<Option<T>, Problem> {
    let refused = || Problem::parameter(name, expected);
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().ok().and_then(|text| text.parse().ok()).map(Some).ok_or_else(refused),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_encoding_and_unknown_names_are_refused() {
        for query in [
            "status=%ff",
            "status=a%00b",
            "status=%c3%28",
            "status=%",
            "status=%4",
            "status=%zz",
            "st%61tus=a&status=b",
            "other=1",
            "=1",
        ] {
            let problem = Params::read(Some(query), &["status"]).unwrap_err();
            assert_eq!(problem.code(), Code::InvalidParameter, "{query}");
        }
        let long = format!("status={}", "a".repeat(MAX_QUERY));
        assert!(Params::read(Some(&long), &["status"]).is_err());
    }

    #[test]
    fn values_are_decoded_once() {
        let params = Params::read(Some("status=a+b%2Bc%2525&type="), &["status", "type"]).unwrap();
        assert_eq!((params.text("status"), params.text("type")), (Some("a b+c%25"), Some("")));
        assert_eq!(params.parsed::<u32>("none", "a number").unwrap(), None);
    }
}
