//! Points in time as the ledger stores them: UTC, whole microseconds, years 0001 to 9999.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A point in time with microsecond precision.
///
/// Finer input is truncated towards the past when the value is made, so that every backend can store exactly what is hashed.
/// The text form is canonical: RFC 3339, UTC, exactly six fraction digits and `Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Microseconds since 1970-01-01T00:00:00Z.
    ///
    /// INVARIANT: within years 0001 to 9999.
    micros: i64,
}

/// Why a ledger cannot store a text or a date as a timestamp.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TimestampError {
    /// The text is not an RFC 3339 time.
    #[error("`{text}` is not an RFC 3339 time such as 2026-03-02T09:14:05.000000Z: {reason}")]
    Malformed {
        /// The text, cut after 40 characters.
        text: String,
        /// The reason, as the date parser gives it.
        reason: String,
    },
    /// The time is outside years 0001 to 9999.
    #[error("year {year} is outside 0001-9999")]
    Year {
        /// The year of the time. It is the smallest or largest `i32` if the time is too far away to have one.
        year: i32,
    },
    /// A leap second (`23:59:60`). PostgreSQL would move it to the next minute.
    #[error("leap seconds cannot be stored: use the second before or after")]
    LeapSecond,
}

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self { micros: 0 };

    /// Truncates `time` to whole microseconds.
    ///
    /// # Errors
    /// If `time` is outside years 0001 to 9999, or is a leap second.
    pub fn new(time: DateTime<Utc>) -> Result<Self, TimestampError> {
        if !(1..=9999).contains(&time.year()) {
            return Err(TimestampError::Year { year: time.year() });
        }
        if time.nanosecond() >= 1_000_000_000 {
            return Err(TimestampError::LeapSecond);
        }
        Ok(Self { micros: time.timestamp_micros() })
    }

    /// The point in time `micros` microseconds after the Unix epoch, or before it if negative.
    ///
    /// # Errors
    /// If the time is outside years 0001 to 9999.
    pub fn from_unix_micros(micros: i64) -> Result<Self, TimestampError> {
        let far = TimestampError::Year { year: if micros < 0 { i32::MIN } else { i32::MAX } };
        DateTime::from_timestamp_micros(micros).ok_or(far).and_then(Self::new)
    }

    /// Microseconds since the Unix epoch, negative before it.
    #[must_use]
    pub fn unix_micros(self) -> i64 {
        self.micros
    }

    /// The same point in time as a `chrono` value.
    #[must_use]
    pub fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.micros).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// The UTC day of this time.
    #[must_use]
    pub fn day(self) -> NaiveDate {
        self.to_utc().date_naive()
    }

    /// Midnight, UTC, at the end of `day`: the first moment of the next day.
    #[must_use]
    pub fn start_of_day_after(day: NaiveDate) -> Self {
        let micros = day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();
        Self { micros }.saturating_add(Duration::from_secs(24 * 60 * 60))
    }

    /// This time plus `duration`, but not after the end of year 9999.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        const LAST: i64 = 253_402_300_799_999_999;
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self { micros: self.micros.saturating_add(micros).min(LAST) }
    }

    /// This time minus `duration`, but not before the beginning of year 1.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        const FIRST: i64 = -62_135_596_800_000_000;
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self { micros: self.micros.saturating_sub(micros).max(FIRST) }
    }

    /// The time from `earlier` to this time, or zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.micros.saturating_sub(earlier.micros).try_into().unwrap_or(0))
    }

    /// Appends the canonical text, 27 ASCII bytes, to `out`.
    pub fn write_to(self, out: &mut Vec<u8>) {
        let time = self.to_utc();
        let year = time.year().unsigned_abs();
        out.extend([1000, 100, 10, 1].map(|place| b'0' + (year / place % 10) as u8));
        let rest =
            [(b'-', time.month()), (b'-', time.day()), (b'T', time.hour()), (b':', time.minute()), (b':', time.second())];
        for (separator, value) in rest {
            out.push(separator);
            out.extend([10, 1].map(|place| b'0' + (value / place % 10) as u8));
        }
        out.push(b'.');
        let micros = time.nanosecond() / 1000;
        out.extend([100_000, 10_000, 1000, 100, 10, 1].map(|place| b'0' + (micros / place % 10) as u8));
        out.push(b'Z');
    }
}

impl TryFrom<DateTime<Utc>> for Timestamp {
    type Error = TimestampError;

    fn try_from(time: DateTime<Utc>) -> Result<Self, TimestampError> {
        Self::new(time)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    /// Reads an RFC 3339 time with any offset. Digits beyond microseconds are truncated.
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let malformed = |reason: String| TimestampError::Malformed { text: text.chars().take(40).collect(), reason };
        if !text.is_ascii() {
            return Err(malformed("it has characters outside ascii".to_owned()));
        }
        let time = DateTime::parse_from_rfc3339(text).map_err(|e| malformed(e.to_string()))?;
        // Also if the offset moves it to year 1: PostgreSQL has no year 0.
        if time.year() == 0 {
            return Err(TimestampError::Year { year: 0 });
        }
        Self::new(time.with_timezone(&Utc))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::with_capacity(27);
        self.write_to(&mut out);
        f.pad(std::str::from_utf8(&out).unwrap_or_default())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
