//! How calls may be refused, for the OpenAPI document.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::{ContentBuilder, Ref, RefOr};

use crate::problem::{Code, PROBLEM_JSON};

type Responses = BTreeMap<String, RefOr<utoipa::openapi::response::Response>>;

fn responses(codes: &[Code]) -> Responses {
    let mut texts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for code in codes {
        texts.entry(code.status().as_str().to_owned()).or_default().push(code.as_str());
    }
    let response = |codes: Vec<&str>| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        ResponseBuilder::new().description(format!("Codes: {}", codes.join(", "))).content(PROBLEM_JSON, content).build()
    };
    texts.into_iter().map(|(status, codes)| (status, response(codes).into())).collect()
}

const READS: [Code; 15] = [
    Code::InvalidParameter,
    Code::InvalidCursor,
    Code::NoToken,
    Code::InvalidToken,
    Code::NotPermitted,
    Code::OtherIdentity,
    Code::NotFound,
    Code::NoConsent,
    Code::NotVerified,
    Code::Timeout,
    Code::RateLimited,
    Code::TooManyStreams,
    Code::Internal,
    Code::Unavailable,
    Code::Draining,
];

/// How a call that reads may be refused.
pub(crate) struct Refused;

impl IntoResponses for Refused {
    fn responses() -> Responses {
        responses(&READS)
    }
}

/// How a call that writes may be refused.
pub(crate) struct RefusedWrite;

impl IntoResponses for RefusedWrite {
    fn responses() -> Responses {
        let writes = [
            Code::InvalidBody,
            Code::NotAuthorised,
            Code::Conflict,
            Code::InFlight,
            Code::WrongState,
            Code::TooLarge,
            Code::UnsupportedType,
            Code::InvalidSpan,
            Code::KeyReused,
            Code::MemoryRefused,
            Code::RunFailed,
            Code::QuotaExceeded,
        ];
        responses(&[&READS[..], &writes[..]].concat())
    }
}
