//! What somebody tries who owns the machine of a log, its folder, or one of the files that an auditor is given.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::{Folder, shell};

const PLACE: [&str; 6] = ["--tiles", "tiles", "--locks", "locks", "--log-key", "log.key"];

/// `logline log run` until it is idle, for these tenants.
fn keep<'a>(tenants: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let tenants = tenants.iter().flat_map(|tenant| ["--tenant", tenant]);
    ["log", "run", "--until-idle"].into_iter().chain(tenants).chain(PLACE).chain(more.iter().copied()).collect()
}

/// Runs, and fails instead of waiting forever.
fn run_in_time(folder: &Folder, arguments: &[&str]) -> Output {
    let child = shell::command(&folder.0, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output().unwrap()));
    ended.recv_timeout(Duration::from_secs(60)).expect("it hangs")
}

#[test]
fn an_operator_rolls_the_log_and_the_rows_back_behind_a_checkpoint_that_the_auditor_holds() {
    let folder = Folder::with(20);
    folder.keep(&[]);
    let shown = folder.checkpoint();
    let (key, origin) = (shown["key"].as_str().unwrap(), shown["origin"].as_str().unwrap());
    folder.expect(0, &["export", "old.ndjson", "--tenant", "acme"]);
    fs::write(folder.path("old.checkpoint"), shown["checkpoint"].as_str().unwrap()).unwrap();
    folder.append(5);
    folder.keep(&[]);
    fs::write(folder.path("new.checkpoint"), folder.checkpoint()["checkpoint"].as_str().unwrap()).unwrap();
    // The tiles of the older tree are all there, so yesterday's log is whole by itself.
    let log = format!("tiles/{origin}");
    let verify = ["verify", "old.ndjson", "--log", &log, "--log-key", key, "--checkpoint", "old.checkpoint"];
    folder.expect(0, &verify);
    let (out, _) = folder.expect(1, &[&verify[..], &["--known", "new.checkpoint"]].concat());
    assert!(out.contains("consistency: rows were withdrawn, or this copy of the log is old"), "{out}");
    assert!(out.contains("another checkpoint has 25 leaves, and this checkpoint has 20"), "{out}");
    let (out, _) = folder.expect(1, &[&verify[..], &["--known", "new.checkpoint", "--json"]].concat());
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&last["clean"], &last["checks"]["consistency"]["verdict"]), (&Value::Bool(false), &Value::from("failed")));
}

#[test]
fn a_second_row_hides_behind_more_empty_lines_than_are_read() {
    let folder = Folder::with(2);
    folder.keep(&[]);
    let ids = folder.append(2);
    folder.keep(&[]);
    let prove = ["log", "prove", "acme", &ids[0], "--row", "row.ndjson", "--out", "row.tlog-proof"];
    folder.expect(0, &[&prove[..], &PLACE[..4]].concat());
    let prove = ["log", "prove", "acme", &ids[1], "--row", "other.ndjson", "--out", "other.tlog-proof"];
    folder.expect(0, &[&prove[..], &PLACE[..4]].concat());
    let shown = folder.checkpoint();
    let one = ["verify", "both.ndjson", "--proof", "row.tlog-proof", "--log-key", shown["key"].as_str().unwrap()];
    let (row, other) = (fs::read(folder.path("row.ndjson")).unwrap(), fs::read(folder.path("other.ndjson")).unwrap());
    for (empty, says) in
        [(0, "exactly one"), (1 << 20, "exactly one"), (5 << 20, "not read to its end"), (70 << 20, "not read to its end")]
    {
        fs::write(folder.path("both.ndjson"), [&row[..], &vec![b'\n'; empty], &other].concat()).unwrap();
        let (out, err) = folder.expect(2, &one);
        assert!(err.contains(says) && !out.contains("passed"), "{empty} empty lines: {out}{err}");
    }
    // Empty lines alone, after what is allowed of them, are not read to their end either.
    fs::write(folder.path("both.ndjson"), [&row[..], &vec![b'\n'; 70 << 20]].concat()).unwrap();
    folder.expect(2, &one);
    fs::write(folder.path("both.ndjson"), [&row[..], b"\n\n"].concat()).unwrap();
    folder.expect(0, &one);
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_in_the_folder_of_a_log_does_not_hold_the_auditor() {
    let folder = Folder::with(300);
    folder.keep(&[]);
    let shown = folder.checkpoint();
    let log = format!("tiles/{}", shown["origin"].as_str().unwrap());
    folder.expect(0, &["export", "export.ndjson", "--tenant", "acme"]);
    let verify = ["verify", "export.ndjson", "--log", &log, "--log-key", shown["key"].as_str().unwrap()];
    folder.expect(0, &verify);
    for (name, status) in [("tile/entries/000", 1), ("tile/0/000", 1), ("checkpoint", 2)] {
        let path = folder.path(&format!("{log}/{name}"));
        let good = fs::read(&path).unwrap();
        for is_pipe in [true, false] {
            fs::remove_file(&path).unwrap();
            if is_pipe {
                assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            } else {
                std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
            }
            let (out, err) = shell::ended(status, &verify, &run_in_time(&folder, &verify));
            assert!(format!("{out}{err}").contains("not a regular file"), "{name}: {out}{err}");
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, good).unwrap();
    }
    folder.expect(0, &verify);
}

#[test]
fn a_lost_lock_of_one_tenant_begins_no_second_log_beside_the_first() {
    let folder = Folder::with(3);
    // In new folders nothing can be lost: several tenants begin at once.
    folder.expect(0, &keep(&["acme", "globex"], &[]));
    folder.expect(0, &keep(&["acme", "globex"], &[]));
    let shown = folder.checkpoint();
    let locks: Vec<_> = fs::read_dir(folder.path("locks")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let is_acme = |path: &&std::path::PathBuf| {
        path.is_file() && String::from_utf8_lossy(&fs::read(path).unwrap()).contains(shown["origin"].as_str().unwrap())
    };
    let lock = locks.iter().find(is_acme).unwrap();
    let logs = || fs::read_dir(folder.path("tiles/log.invalid")).unwrap().count();
    // The lock of another tenant is there, or any other file; and the logs may be elsewhere too.
    fs::rename(lock, folder.path("away")).unwrap();
    // The log of the other tenant goes on.
    for (tenants, status) in [(&["acme"][..], 2), (&["acme", "globex"], 1)] {
        let (_, err) = folder.expect(status, &keep(tenants, &[]));
        assert!(err.contains("tenant `acme` has no last signed checkpoint") && err.contains("is its disk there?"), "{err}");
        assert!(err.contains(shown["origin"].as_str().unwrap()) && err.contains("--begin"), "it names the old log: {err}");
    }
    fs::rename(folder.path("tiles"), folder.path("other-tiles")).unwrap();
    folder.expect(2, &keep(&["acme"], &[]));
    fs::rename(folder.path("other-tiles"), folder.path("tiles")).unwrap();
    assert_eq!(logs(), 2);
    // A folder that cannot be read is not a new one.
    fs::rename(folder.path("locks"), folder.path("other-locks")).unwrap();
    fs::write(folder.path("locks"), b"no folder").unwrap();
    folder.expect(2, &keep(&["acme"], &[]));
    fs::remove_file(folder.path("locks")).unwrap();
    fs::rename(folder.path("other-locks"), folder.path("locks")).unwrap();
    assert_eq!(logs(), 2);
    // The file comes back, and the log goes on.
    fs::rename(folder.path("away"), lock).unwrap();
    folder.expect(0, &keep(&["acme"], &[]));
    assert_eq!(folder.checkpoint()["origin"], shown["origin"]);
    // A new tenant begins by the operator's word, which does not stay in a script.
    let (_, err) = folder.expect(1, &keep(&["acme", "initech"], &[]));
    assert!(err.contains("tenant `initech`"), "{err}");
    folder.expect(0, &keep(&["acme", "initech"], &["--begin"]));
    assert_eq!(logs(), 3);
    let (_, err) = folder.expect(2, &keep(&["acme", "initech"], &["--begin"]));
    assert!(err.contains("run without `--begin`"), "{err}");
    folder.expect(0, &keep(&["acme", "initech"], &[]));
}

#[test]
fn a_failure_that_passes_does_not_end_a_run_until_idle() {
    let folder = Folder::with(3);
    // Nothing can be staged until somebody removes the file in the way.
    fs::create_dir(folder.path("tiles")).unwrap();
    fs::write(folder.path("tiles/staging"), b"in the way").unwrap();
    let mut process =
        shell::command(&folder.0, &keep(&["acme"], &[])).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = BufReader::new(process.stderr.take().unwrap());
    let mut first = String::new();
    err.read_line(&mut first).unwrap();
    assert!(first.contains("try again"), "{first}");
    fs::remove_file(folder.path("tiles/staging")).unwrap();
    std::thread::spawn(move || std::io::copy(&mut err, &mut std::io::sink()));
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(folder.checkpoint()["size"], 3);
    // One that does not pass ends it.
    folder.append(1);
    let _ = fs::remove_dir_all(folder.path("tiles/staging"));
    fs::write(folder.path("tiles/staging"), b"in the way").unwrap();
    let (_, err) = folder.expect(2, &keep(&["acme"], &[]));
    assert_eq!(err.lines().filter(|line| line.contains("try again")).count(), 6, "{err}");
}

#[test]
fn three_runs_until_idle_in_one_folder_all_end_well() {
    let folder = Folder::with(1);
    folder.keep(&[]);
    for round in 1..=6 {
        folder.append(60);
        let keep = keep(&["acme"], &["--batch", "3"]);
        let start = || shell::command(&folder.0, &keep).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let processes: Vec<_> = (0..3).map(|_| start()).collect();
        for process in processes {
            shell::ended(0, &keep, &process.wait_with_output().unwrap());
        }
        assert_eq!(folder.checkpoint()["size"], round * 60 + 1);
    }
}
