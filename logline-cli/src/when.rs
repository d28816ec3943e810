//! Times as people write them.

use std::time::Duration;

use logline_core::{Clock as _, SystemClock, Timestamp};

/// Reads a time: `today`, an age such as `90s`, `30m`, `24h` or `7d`, a day, or a time in RFC 3339. Days are in UTC.
pub(crate) fn parse(text: &str) -> Result<Timestamp, String> {
    let now = SystemClock.now();
    let day = |day: &str| format!("{day}T00:00:00Z").parse::<Timestamp>();
    if text == "today" {
        return day(&now.day().to_string()).map_err(|e| e.to_string());
    }
    if let Some(age) = age(text) {
        return Ok(now.saturating_sub(age));
    }
    let read = text.parse().or_else(|_| day(text));
    read.map_err(|_| {
        format!(
            "`{text}` is not a time: use `today`, an age such as `30m`, `24h` or `7d`, `2026-05-01`, or `2026-05-01T12:00:00Z`"
        )
    })
}

/// Reads a time to come: in a while such as `30s`, `10m`, `2h` or `7d`, on a day, or at a time in RFC 3339.
pub(crate) fn later(text: &str) -> Result<Timestamp, String> {
    match age(text) {
        Some(pause) => Ok(SystemClock.now().saturating_add(pause)),
        None => parse(text).map_err(|_| {
            format!("`{text}` is not a time: use a pause such as `10m`, `2h` or `7d`, `2026-05-01`, or `2026-05-01T12:00:00Z`")
        }),
    }
}

fn age(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_secs(number.saturating_mul(seconds)))
}

/// How long something took, or how old it is, as people read it.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(parse("2026-05-01").unwrap().to_string(), "2026-05-01T00:00:00.000000Z");
        assert_eq!(parse("2026-05-01T12:00:00+01:00").unwrap().to_string(), "2026-05-01T11:00:00.000000Z");
        assert!(parse("today").unwrap() <= SystemClock.now());
        let an_hour_ago = parse("1h").unwrap();
        let hour = SystemClock.now().since(an_hour_ago);
        assert!(hour >= Duration::from_secs(3600) && hour < Duration::from_secs(3660));
        for wrong in ["", "yesterday", "5", "5w", "h", "-1h", "2026-13-01", "\u{661}h"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(duration(Duration::from_millis(12)), "12 ms");
        assert_eq!(duration(Duration::from_secs(7200)), "2 h");
    }
}
