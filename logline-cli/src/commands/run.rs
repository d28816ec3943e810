//! `logline run`

use std::time::Duration;

use clap::Args;
use logline::home::KeyOf;
use logline_core::ledger::{Cursor, Ledger as _, Order, Query, Tenants, Waiting, WorkQueue as _};
use logline_core::{Host, Scope};
use logline_kernels::{Loops, Ran, Run as _, Worker, WorkerOptions};
use serde_json::json;

use crate::site::{HomeOptions, Site};
use crate::{Error, open, output};

#[derive(Args)]
#[command(
    after_help = "Example: logline run --ledger sqlite:demo.ledger --until-idle\n\nInterrupt it (Ctrl-C or SIGTERM) to stop: running attempts are finished, or given back after --grace seconds."
)]
pub(crate) struct Options {
    /// End when no request is due or running, and nothing was appended for a second.
    #[arg(long)]
    until_idle: bool,
    /// The most attempts at the same time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// How many seconds a stop waits for running attempts.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=86_400))]
    grace: u64,
    #[command(flatten)]
    home: HomeOptions,
}

/// How often `--until-idle` looks.
const LOOK: Duration = Duration::from_millis(200);

/// How many looks in a row must find nothing. A policy that sees the last row may still ask for something.
const QUIET_LOOKS: u32 = 5;

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.home).await?;
    let host = site.host(KeyOf::Host).await?;
    let worker =
        WorkerOptions::default().concurrency(usize::from(options.concurrency)).grace(Duration::from_secs(options.grace));
    if matches!(host.tenants(), Tenants::Only(tenants) if tenants.is_empty()) {
        return Err(format!(
            "key {} is not a host's key: the manifest and the delegations make it a runtime of no tenant; use the host's key, or \
             `logline delegate` it",
            host.key()
        )
        .into());
    }
    let loops = Loops::installed(&host).with(Worker::new(worker));
    if !json {
        output::note(&format!("host {} works for {}; interrupt to stop", host.key(), named(&host.tenants())));
    }
    let stop = async {
        tokio::select! {
            () = logline::shutdown_signal() => output::note("stopping: running attempts are finished first"),
            () = idle(&host), if options.until_idle => {}
        }
    };
    let ran = host.run(loops, stop).await?;
    report(&ran, json);
    Ok(true)
}

/// Prints what loops did.
pub(crate) fn report(ran: &Ran, json: bool) {
    for (name, report) in ran.iter() {
        let counts = report.counts();
        if json {
            let counts: serde_json::Map<_, _> = counts.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
            output::line(&json!({"loop": name, "counts": counts}).to_string());
        } else {
            let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
            output::line(&format!("{name}: {}", counts.join(", ")));
        }
    }
}

fn named(tenants: &Tenants) -> String {
    match tenants.names() {
        None => "all tenants".to_owned(),
        Some(names) => format!("tenants {}", names.join(", ")),
    }
}

/// Waits until the host has nothing to do now.
async fn idle(host: &Host) {
    let mut quiet = 0;
    let mut rows = None;
    while quiet < QUIET_LOOKS {
        tokio::time::sleep(LOOK).await;
        match look(host).await {
            Ok((is_idle, reached)) => {
                let is_quiet = is_idle && rows == Some(reached.clone());
                quiet = if is_quiet { quiet + 1 } else { 0 };
                rows = Some(reached);
            }
            Err(error) => {
                output::note(&format!("cannot look whether there is work: {error}"));
                quiet = 0;
            }
        }
    }
}

/// Whether nothing is due or running, and where the ledger ends.
async fn look(host: &Host) -> Result<(bool, Vec<Cursor>), Error> {
    let (ledger, tenants) = (host.ledger(), host.tenants());
    // Of the tenants that this host serves: what others write is not its work.
    let mut reached = Vec::new();
    for tenant in tenants.names().map_or_else(|| vec![None], |names| names.into_iter().map(Some).collect()) {
        let mut newest = Query::timeline().order(Order::Newest).limit(1);
        newest.tenant = tenant.map(str::to_owned);
        let scope = tenant.map_or(Scope::Operator, Scope::runtime);
        reached.extend(ledger.scan(&scope, &newest, None).await?.rows.into_iter().map(|row| row.cursor));
    }
    let now = ledger.now().await?;
    // What is held or leased is due again soon; what waits for a later time, or is parked, is not work of now.
    let soon = now.saturating_add(logline_core::ledger::work::MAX_HOLD);
    let is_now = |open: &Waiting| open.is_leased || (open.parked.is_none() && open.due.is_some_and(|due| due <= soon));
    let mut is_idle = true;
    open::open_requests(ledger, &tenants, |open| {
        is_idle = !is_now(open);
        is_idle
    })
    .await?;
    Ok((is_idle, reached))
}
