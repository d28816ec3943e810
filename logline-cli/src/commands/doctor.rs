//! `logline doctor`

use logline_pg::Severity;
use serde_json::json;

use crate::{Error, open, output};

pub(crate) async fn run(url: Option<&str>, json: bool) -> Result<bool, Error> {
    let findings = logline_pg::doctor(&open::database(url)?).await?;
    for finding in &findings {
        let severity = match finding.severity {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            _ => "failure",
        };
        output::line(&if json {
            json!({"check": finding.check, "severity": severity, "found": finding.found, "advice": finding.advice}).to_string()
        } else if finding.advice.is_empty() {
            format!("{severity:<8} {}: {}", finding.check, finding.found)
        } else {
            format!("{severity:<8} {}: {}; {}", finding.check, finding.found, finding.advice)
        });
    }
    Ok(findings.iter().all(|finding| finding.severity != Severity::Failure))
}
