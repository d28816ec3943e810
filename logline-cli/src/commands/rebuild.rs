//! `logline rebuild`

use serde_json::json;

use crate::open::Location;
use crate::{Error, output};

pub(crate) async fn run(url: Option<&str>, json: bool) -> Result<bool, Error> {
    let location = Location::of(url)?;
    location.check_exists()?;
    let rebuilt = location.for_writing().await?.rebuild().await?;
    output::line(&if json {
        json!({"open": rebuilt.open, "active": rebuilt.active, "counters": rebuilt.counters}).to_string()
    } else {
        format!(
            "{} open requests, {} schedules and policies, {} counters of today",
            rebuilt.open, rebuilt.active, rebuilt.counters
        )
    });
    Ok(true)
}
