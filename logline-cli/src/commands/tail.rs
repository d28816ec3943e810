//! `logline tail`

use clap::Args;
use futures_util::StreamExt as _;
use logline_core::ledger::{Cursor, Ledger as _, WatchFrom};
use serde_json::{Value, json};

use crate::open::Identity;
use crate::{Error, open, output};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    identity: Identity,
    /// Begin at the first row. The default is to begin after the last row that exists now.
    #[arg(long, conflicts_with = "after")]
    from_start: bool,
    /// Begin after this cursor, as `--json` prints it.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Stop after this many rows.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let ledger = open::for_reading(url).await?;
    let from = match &options.after {
        Some(cursor) => WatchFrom::After(Cursor::from_text(cursor.as_str())),
        None if options.from_start => WatchFrom::Beginning,
        None => WatchFrom::Now,
    };
    let stream = ledger.watch(&options.identity.scope(), from).await?;
    let mut rows = stream.take(options.limit.unwrap_or(usize::MAX));
    let mut last = None;
    while let Some(row) = rows.next().await {
        let row = match (row, last) {
            (Ok(row), _) => row,
            (Err(error), Some(last)) => return Err(format!("{error}; go on with `--after {last}`").into()),
            (Err(error), None) => return Err(error.into()),
        };
        last = Some(row.cursor.to_string());
        if json {
            let span: Value = serde_json::from_slice(&row.span.to_line())?;
            output::line(&format!("{}", json!({"cursor": row.cursor.to_string(), "span": span})));
        } else {
            output::span(&row.span, false)?;
        }
    }
    Ok(true)
}
