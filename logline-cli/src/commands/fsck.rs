//! `logline fsck`

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use clap::Args;
use logline_core::PublicKey;
use logline_core::fsck::{Audit, Event, fsck};
use logline_core::trust::{Logs, TrustRoot};
use serde_json::json;

use crate::open::Location;
use crate::site::logs_in;
use crate::{Error, open, output};

#[derive(Args)]
pub(crate) struct Options {
    /// The file of the pinned trust root. Without it authority is not checked, and the report says so.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// The folder of the tiles of transparency logs, if the manifest has ended a key: they say what is older.
    #[arg(long, value_name = "DIR", env = "LOGLINE_TILES")]
    tiles: Option<PathBuf>,
    /// A sidecar of an earlier export. Every version that it names must still exist.
    #[arg(long, value_name = "SIDECAR")]
    against: Option<PathBuf>,
    /// The public key that must have signed the sidecar.
    #[arg(long, value_name = "HEX", requires = "against")]
    sidecar_key: Option<PublicKey>,
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let ledger = open::for_reading(url).await?;
    if options.trust.is_none()
        && let Some(beside) = Location::of(url)?.trust_beside()
    {
        output::note(&format!(
            "who was allowed to sign is not checked: `--trust {}` checks it by the trust root beside the ledger",
            output::plain(&beside.display().to_string())
        ));
    }
    // If no manifest is valid, no signer has authority. The rows are audited all the same, without that check.
    let logs = logs_in(options.tiles.as_ref());
    let logs = logs.as_ref().map(|logs| logs as &dyn Logs);
    let resolved = match &options.trust {
        Some(file) => Some(TrustRoot::load(file)?.resolve_with(&ledger, logs).await),
        None => None,
    };
    let (trusted, no_manifest) = match resolved {
        None => (None, None),
        Some(Ok(trusted)) => (Some(trusted), None),
        Some(Err(error)) => (None, Some(error)),
    };
    if let Some(error) = &no_manifest {
        output::line(&if json { json!({"problem": error.to_string()}).to_string() } else { error.to_string() });
    }
    for unread in trusted.iter().flat_map(|trusted| &trusted.unread) {
        output::note(&format!("{unread}; none of its rows counts: name the folder of the log's tiles with --tiles"));
    }
    let mut sidecar = match &options.against {
        Some(file) => Some(BufReader::new(File::open(file).map_err(|e| format!("{}: {e}", file.display()))?)),
        None => None,
    };
    let mut audit = Audit::default();
    audit.authorities = trusted.as_ref().map(|t| &t.authorities);
    audit.trusted = trusted.as_ref();
    audit.against = sidecar.as_mut().map(|s| s as &mut (dyn BufRead + Send));
    audit.sidecar_key = options.sidecar_key;
    let mut on_event = |event| match event {
        Event::Progress { rows } => output::progress("rows", rows),
        Event::Problem(problem) if json => {
            let kind = problem.kind.to_string();
            let (tenant, id, seq) = (&problem.tenant_id, &problem.id, &problem.seq);
            output::line(&format!("{}", json!({"problem": kind, "tenant_id": tenant, "id": id, "seq": seq})));
        }
        Event::Problem(problem) => output::line(&format!("{problem}")),
        Event::Store(problem) if json => output::line(&json!({"problem": problem}).to_string()),
        Event::Store(problem) => output::line(&problem),
        _ => {}
    };
    let report = fsck(&ledger, audit, &mut on_event).await?;
    output::end_progress();
    let authority = match (report.authority_checked, &no_manifest) {
        (true, _) => "checked",
        (false, None) => "not checked (no --trust)",
        (false, Some(_)) => "not checked (no manifest is valid)",
    };
    let signer = report.sidecar_key.map(|key| key.to_string());
    if json {
        output::line(&format!(
            "{}",
            json!({
                "rows": report.rows, "chains": report.chains, "problems": report.problems + u64::from(no_manifest.is_some()), "authority": authority,
                "promotions": report.promotions_checked, "executions": report.executions_checked, "heads": report.heads_checked, "sidecar_key": signer, "sidecar_key_checked": report.sidecar_key_checked, "clean": report.is_clean() && no_manifest.is_none(),
            })
        ));
    } else {
        output::line(&format!(
            "{} rows in {} chains: {} problems; authority {authority}",
            report.rows, report.chains, report.problems
        ));
        if let Some(promotions) = report.promotions_checked.filter(|promotions| *promotions > 0) {
            output::line(&format!("the approvals of {promotions} promotions were counted again"));
        }
        if let Some(executions) = report.executions_checked.filter(|executions| *executions > 0) {
            output::line(&format!("{executions} executions were compared with what was promoted"));
        }
        if let (Some(heads), Some(signer)) = (report.heads_checked, signer) {
            let whose = if report.sidecar_key_checked {
                "the key given as --sidecar-key"
            } else {
                "a key that was not checked (no --sidecar-key)"
            };
            output::line(&format!("{heads} heads of the sidecar were checked; it is signed by {signer}, {whose}"));
        }
    }
    Ok(report.is_clean() && no_manifest.is_none())
}
