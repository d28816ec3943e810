//! Foreign tools judge what the adapters of model providers send, and what their tests answer.

use crate::python;
use crate::run::{Failed, command, root};

/// The tests that talk to a server on this machine. They are named, and not run by package, so that they are the ones that `test` has built.
const TALKING: [&str; 5] = ["provider_conformance", "protocol", "converse", "answers", "rights"];

/// Where the tests write what went over the line, and the program that judges it.
const RECORDS: [(&str, &str, &str); 2] = [
    ("LOGLINE_RECORD_BEDROCK", "target/interop-bedrock.ndjson", "interop/bedrock.py"),
    ("LOGLINE_RECORD_OPENAI", "target/interop-openai.ndjson", "interop/openai_protocol.py"),
];

/// Records what the adapters' tests send, and has it judged by botocore and by OpenAI's client.
pub(crate) fn interop() -> Result<(), Failed> {
    let python = python::with_foreign_tools()?;
    let mut tests = command("cargo").args(["test", "--quiet", "--workspace"]);
    for name in TALKING {
        tests = tests.args(["--test", name]);
    }
    for (variable, record, _) in RECORDS {
        let record = root().join(record);
        // It may not exist.
        let _ = std::fs::remove_file(&record);
        tests = tests.env(variable, record);
    }
    tests.run()?;
    for (_, record, judge) in RECORDS {
        command(&python).args([judge, record]).run()?;
    }
    Ok(())
}
