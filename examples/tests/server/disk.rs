//! A full disk: calls that write are refused, and what was acknowledged is there afterwards.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::{Ready, example, json, run_line, start};

/// Writes a span of 30 KB. Returns the status and the answer.
fn write(ready: &Ready, number: u32) -> (u16, Value) {
    let line = format!(
        "printf '{{\"entity_type\":\"note\",\"name\":\"{number}\",\"content\":\"%030000d\"}}' 0 | curl -sS -w '\\n%{{http_code}}' \
         -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' --data-binary @- \"$URL/api/spans\""
    );
    let text = run_line(&line, &ready.url, &ready.token);
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), json(body))
}

fn names(ready: &Ready) -> BTreeSet<u32> {
    let line = "curl -sS --fail-with-body -H \"Authorization: Bearer $TOKEN\" \"$URL/api/spans?type=note&limit=500\"";
    let page = json(&run_line(line, &ready.url, &ready.token));
    let rows = page["spans"].as_array().unwrap().iter();
    rows.map(|row| row["name"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    // No file may have more than 4 MiB. A write beyond that fails, as on a full disk.
    let limited = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", limited])
        .arg(example())
        .args(["--listen", "127.0.0.1:0", "--db"])
        .arg(folder.path().join("demo.ledger"));
    let ready = Ready::start(&mut command);
    let (mut acknowledged, mut refused) = (BTreeSet::new(), 0);
    for number in 0..400 {
        let (status, answer) = write(&ready, number);
        match status {
            201 => {
                acknowledged.insert(number);
            }
            503 => {
                assert_eq!(answer["code"], "unavailable", "{answer}");
                refused += 1;
            }
            other => panic!("{other}: {answer}"),
        }
        if refused >= 3 {
            break;
        }
    }
    assert!(refused >= 3 && acknowledged.len() > 20, "{refused} refused, {} written", acknowledged.len());
    // It is alive and gives what it has, and says that it measures faults.
    assert_eq!(names(&ready), acknowledged);
    let metrics = run_line("curl -sS --fail \"$URL/metrics\"", &ready.url, "");
    let errors = metrics.lines().find(|line| line.starts_with("logline_ledger_errors_total{operation=\"append\"}")).unwrap();
    assert!(!errors.ends_with(" 0"), "{errors}");
    drop(ready);
    // With room, everything is there and it goes on.
    let ready = Ready::start(&mut start(folder.path(), &[]));
    assert_eq!(names(&ready), acknowledged);
    assert_eq!(write(&ready, 1000).0, 201);
    ready.end();
}
