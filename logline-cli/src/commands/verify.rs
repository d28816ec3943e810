//! `logline verify`: an audit of exports, checkpoints, tiles and proofs, without a ledger.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use logline_core::trust::{Ended, MAX_LISTS, Manifest};
use logline_core::{ParsedSpan, Rules, SignedSpan, Verifier, parse_line};
use logline_log::audit::{CheckKind, LogAudit, Verdict};
use logline_log::note::{MAX_NOTE, Note, NoteKey};
use logline_log::store::Directory;
use logline_log::{LogProof, MAX_PROOF_FILE, Policy};
use serde_json::{Value, json};

use crate::{Error, output};

#[derive(Args)]
#[command(
    after_help = "Examples:\n  logline verify export.ndjson --log public/log.invalid/ORIGIN --policy policy.txt --known yesterday.checkpoint\n  logline verify row.ndjson --proof row.tlog-proof --log-key NAME+ID+BASE64\n\nNo ledger is opened. Each check is reported as passed, failed or not checked."
)]
pub(crate) struct Options {
    /// The rows, as `logline export` writes them; `-` is standard input. With `--proof` it has one row.
    export: PathBuf,
    /// The folder of one log, with `checkpoint` and `tile/`.
    #[arg(long, value_name = "DIR", required_unless_present = "proof", conflicts_with = "proof")]
    log: Option<PathBuf>,
    /// A `.tlog-proof` of the one row.
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    /// The checkpoint to audit against, if it is not the one in the folder.
    #[arg(long, value_name = "FILE", requires = "log")]
    checkpoint: Option<PathBuf>,
    /// The logs and witnesses that you trust, and how many witnesses must have cosigned.
    #[arg(long, value_name = "FILE", required_unless_present = "log_key", conflicts_with = "log_key")]
    policy: Option<PathBuf>,
    /// The key of the log that you trust, without witnesses.
    #[arg(long, value_name = "NAME+ID+BASE64")]
    log_key: Option<NoteKey>,
    /// Another checkpoint of the log: one that you saw before, or one that somebody else was shown. May be given several times.
    #[arg(long, value_name = "FILE", requires = "log")]
    known: Vec<PathBuf>,
    /// The manifest that you trust, as `logline manifest show --json` prints it: no row may be signed by a key after its end.
    #[arg(long, value_name = "FILE", requires = "log")]
    manifest: Option<PathBuf>,
    /// The rows of tenant `system` that hold lists of logs, if the manifest ends a key in more logs than it has room for, as
    /// `logline list --tenant system --type blob --versions --limit 1000 --json` prints them.
    #[arg(long, value_name = "FILE", requires = "manifest")]
    lists: Option<PathBuf>,
    /// Rows of other tenants in the export are left out.
    #[arg(long)]
    tenant: Option<String>,
    /// The export is only a part of the tenant's rows. Whether rows are missing is then not checked.
    #[arg(long)]
    partial: bool,
}

pub(crate) fn run(options: &Options, json: bool) -> Result<bool, Error> {
    let policy = policy(options)?;
    let mut export: Box<dyn BufRead + Send> = if options.export.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(&options.export).map_err(|e| format!("{}: {e}", options.export.display()))?))
    };
    match (&options.proof, &options.log) {
        (Some(proof), _) => one(proof, &policy, &mut export, json),
        (None, Some(log)) => audit(options, log, &policy, &mut export, json),
        (None, None) => Err("nothing to verify against: pass --log DIR or --proof FILE".into()),
    }
}

fn policy(options: &Options) -> Result<Policy, Error> {
    match (&options.policy, &options.log_key) {
        (Some(file), _) => {
            let text = String::from_utf8(read(file, MAX_NOTE)?).map_err(|_| format!("{}: not utf-8", file.display()))?;
            Ok(text.parse::<Policy>().map_err(|error| format!("{}: {error}", file.display()))?)
        }
        (None, Some(key)) => Ok(Policy::of_log(key.clone())),
        (None, None) => Err("nobody is trusted: pass --policy FILE or --log-key KEY".into()),
    }
}

/// Reads a small file.
fn read(path: &Path, max: usize) -> Result<Vec<u8>, Error> {
    let named = |error: io::Error| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    File::open(path).map_err(named)?.take(max as u64 + 1).read_to_end(&mut bytes).map_err(named)?;
    if bytes.len() > max { Err(format!("{}: larger than {max} bytes", path.display()).into()) } else { Ok(bytes) }
}

fn manifest(path: &Path) -> Result<Manifest, Error> {
    let bytes = read(path, 1 << 20)?;
    Ok(serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))?)
}

/// The ends of keys, with the logs that stand in lists.
fn ended(manifest: &Manifest, lists: Option<&Path>) -> Result<Vec<Ended>, Error> {
    let mut rows = Vec::new();
    if let Some(path) = lists {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        for line in read(path, MAX_LISTS * Rules::default().max_span_bytes)?
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            if let ParsedSpan::Signed(row) = parse_line(line, &Rules::default()).map_err(|e| named(&e))? {
                rows.push(*row);
            }
        }
    }
    let mut whole = Vec::new();
    for end in &manifest.ended {
        let (end, missing) = end.with_lists(&rows);
        if let Some(reason) = missing.first() {
            return Err(format!("the end of key {}: {reason}; pass it with --lists", end.key).into());
        }
        whole.push(end);
    }
    Ok(whole)
}

fn note(path: &Path) -> Result<Note, Error> {
    Ok(Note::parse(&read(path, MAX_NOTE)?).map_err(|error| format!("{}: {error}", path.display()))?)
}

/// The checkpoint in the folder of a log, which is read as its other files are: whoever is audited may have made them.
fn published(files: &Directory, log: &Path) -> Result<Note, Error> {
    let named = |reason: &dyn std::fmt::Display| format!("{}: {reason}", log.join("checkpoint").display());
    let bytes = files.read_now("checkpoint").map_err(|error| named(&error))?.ok_or_else(|| named(&"there is no such file"))?;
    Ok(Note::parse(&bytes).map_err(|error| named(&error))?)
}

fn audit(options: &Options, log: &Path, policy: &Policy, export: &mut (dyn BufRead + Send), json: bool) -> Result<bool, Error> {
    let files = Directory::new(log);
    let checkpoint = match &options.checkpoint {
        Some(path) => note(path)?,
        None => published(&files, log)?,
    };
    let mut audit = LogAudit::new(policy);
    audit.tenant = options.tenant.as_deref();
    audit.is_partial = options.partial;
    let manifest = options.manifest.as_deref().map(manifest).transpose()?;
    let ended = manifest.map(|manifest| ended(&manifest, options.lists.as_deref())).transpose()?;
    audit.ended = ended.as_deref();
    audit.known = options.known.iter().map(|path| note(path)).collect::<Result<_, _>>()?;
    let mut read = |name: &str| files.read_now(name).map_err(|error| error.to_string());
    let report = audit.run(&checkpoint, &mut read, Some(export), &mut |problem| {
        output::line(&if json {
            json!({"check": problem.kind.as_str(), "problem": problem.text}).to_string()
        } else {
            problem.to_string()
        });
    })?;
    let named = report.checkpoint.as_ref().map(ToString::to_string);
    if json {
        let checks: serde_json::Map<_, _> =
            report.checks.iter().map(|check| (check.kind.as_str().to_owned(), verdict(&check.verdict))).collect();
        output::line(
            &json!({
                "checks": checks, "clean": report.is_clean(), "newer": report.newer,
                "size": report.checkpoint.as_ref().map(|checkpoint| checkpoint.size),
                "origin": report.checkpoint.as_ref().map(|checkpoint| checkpoint.origin.as_str()),
            })
            .to_string(),
        );
    } else {
        for check in &report.checks {
            output::line(&format!("{:<12} {}", check.kind.as_str(), check.verdict));
        }
        if report.newer > 0 {
            output::line(&format!("{} rows are newer than the checkpoint: the log does not cover them yet", report.newer));
        }
        output::line(&named.unwrap_or_else(|| "no checkpoint was accepted, so nothing else was checked".to_owned()));
    }
    Ok(report.is_clean())
}

fn verdict(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Passed(count) => json!({"verdict": "passed", "count": count}),
        Verdict::Failed(count) => json!({"verdict": "failed", "count": count}),
        Verdict::NotChecked(reason) => json!({"verdict": "not checked", "reason": reason}),
        _ => Value::Null,
    }
}

/// One row and its proof.
fn one(proof: &Path, policy: &Policy, export: &mut (dyn BufRead + Send), json: bool) -> Result<bool, Error> {
    let proof = LogProof::parse(&read(proof, MAX_PROOF_FILE)?).map_err(|error| format!("{}: {error}", proof.display()))?;
    let row = only_row(export)?;
    let seal = row.check(&mut Verifier::new());
    let logged = proof.verify(&row, policy);
    let of = |error: Option<String>| match error {
        None => json!({"verdict": "passed", "count": 1}),
        Some(problem) => json!({"verdict": "failed", "count": 1, "problem": problem}),
    };
    let problems = [
        (CheckKind::Seals, seal.err().map(|e| e.to_string())),
        (CheckKind::Rows, logged.as_ref().err().map(|e| e.to_string())),
    ];
    let is_clean = problems.iter().all(|(_, problem)| problem.is_none());
    if json {
        let checks: serde_json::Map<_, _> =
            problems.into_iter().map(|(kind, problem)| (kind.as_str().to_owned(), of(problem))).collect();
        output::line(
            &json!({"row": row.key().to_string(), "index": proof.index, "checks": checks, "clean": is_clean}).to_string(),
        );
        return Ok(is_clean);
    }
    for (kind, problem) in &problems {
        output::line(&format!(
            "{:<12} {}",
            kind.as_str(),
            problem.as_deref().map_or("passed".to_owned(), |problem| format!("FAILED: {problem}"))
        ));
    }
    output::line("authority    not checked: who was allowed to sign is checked by `logline fsck --trust`");
    if let Ok(checkpoint) = &logged {
        output::line(&format!("{} is leaf {} of {checkpoint}", row.key(), proof.index));
    }
    Ok(is_clean)
}

fn only_row(export: &mut (dyn BufRead + Send)) -> Result<SignedSpan, Error> {
    let rules = Rules::default();
    let most = rules.max_line_bytes() + 2;
    let mut text = Vec::new();
    export.take(most as u64 + 1).read_to_end(&mut text)?;
    // What was not read may be another row, which nobody has compared with the proof.
    if text.len() > most {
        return Err(
            format!("a proof is about one row: the file has more than {most} bytes, so it was not read to its end").into()
        );
    }
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err("a proof is about one row: the file must have exactly one".into());
    };
    match parse_line(line, &rules)? {
        ParsedSpan::Signed(row) => Ok(*row),
        _ => Err("the row is not signed".into()),
    }
}
