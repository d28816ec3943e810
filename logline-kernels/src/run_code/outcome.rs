//! The outcome of running a function, and the part of it that the record of the attempt keeps. A run and its replay use the
//! same code.

use logline_core::contract::RunReceipt;
use logline_core::request::{Details, reference};
use logline_core::trust::governance::{Version, promotion_reference};
use logline_core::{Draft, Failure, SignedSpan, VerifiedSpan};
use serde_json::{Map, Value, json};

use crate::run_code::journal::Journal;

/// The outcome of one attempt.
pub(crate) struct Outcome {
    pub(crate) result: Result<Value, Failure>,
    pub(crate) receipt: Option<RunReceipt>,
    pub(crate) function: Option<VerifiedSpan>,
    /// The promotion that has put the function in force; `None` if it needs none.
    pub(crate) promotion: Option<Version>,
    pub(crate) emitted: Vec<Draft>,
    pub(crate) logs: Vec<Value>,
    pub(crate) logs_dropped: u32,
    pub(crate) journal: Option<Journal>,
}

impl Outcome {
    /// The outcome of an attempt that ended before any code ran.
    pub(crate) fn refused(failure: Failure) -> Self {
        Self {
            result: Err(failure),
            receipt: None,
            function: None,
            promotion: None,
            emitted: Vec::new(),
            logs: Vec::new(),
            logs_dropped: 0,
            journal: None,
        }
    }

    /// What the kernel adds to the record of the attempt.
    pub(crate) fn details(&self, request: &SignedSpan) -> Details {
        let mut metadata = Map::new();
        let mut add = |name: &str, value: Value| drop(metadata.insert(name.to_owned(), value));
        if let Some(function) = &self.function {
            add("function", reference(function));
            if let Some(promotion) = &self.promotion {
                add("promotion", promotion_reference(&function.tenant_id, promotion));
            }
        }
        if let Some(receipt) = &self.receipt {
            add("receipt", json!(receipt));
        }
        if !self.logs.is_empty() {
            add("logs", Value::Array(self.logs.clone()));
        }
        if let Some(journal) = &self.journal {
            add("journal", json!(journal));
        }
        if self.logs_dropped > 0 {
            add("logs_dropped", self.logs_dropped.into());
        }
        // An input that is too large for the record remains in the request only.
        let refused_input = matches!(&self.result, Err(failure) if failure.code == "input_limit");
        let input = request.input.clone().filter(|_| !refused_input);
        Details::new(input, metadata).expendable(&["logs"])
    }
}
