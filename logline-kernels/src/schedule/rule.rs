//! When a scheduled function runs. Nothing is written here: the scheduler submits the requests.

use std::str::FromStr as _;
use std::time::Duration;

use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use logline_core::Failure;
use logline_core::request::{MAX_ATTEMPTS, MAX_PRIORITY, Request};
use logline_core::{Span, Timestamp, Visibility, canonical};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The most missed slots that a scheduler runs later. If there are more, the newest run.
pub const MAX_CAUGHT_UP: usize = 1000;

/// A slot that is not older than this is late, not missed. It runs whatever `catch_up` says.
pub const GRACE: Duration = Duration::from_secs(60);

/// The largest input, in bytes. It is the ceiling for the input of any function.
const MAX_INPUT: usize = 256 << 10;

/// The shortest interval: one second, in milliseconds.
const SHORTEST: u64 = 1000;

/// The longest interval: 366 days, in milliseconds.
const LONGEST: u64 = 366 * 24 * 60 * 60 * 1000;

/// What happens to slots that passed while no scheduler ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CatchUp {
    /// None of them runs.
    #[default]
    Skip,
    /// The last of them runs.
    Last,
    /// All of them run, oldest first. If there are more than [`MAX_CAUGHT_UP`], only the newest run.
    All,
}

/// `metadata.schedule` of a function with status `scheduled` (`docs/execution.md`).
#[derive(Debug, Clone)]
pub struct Schedule {
    rule: Rule,
    /// What happens to slots that passed while no scheduler ran.
    pub catch_up: CatchUp,
    terms: Terms,
}

#[derive(Debug, Clone)]
enum Rule {
    Cron {
        cron: Box<Cron>,
        zone: Tz,
    },
    /// Slots at 1970-01-01T00:00:00Z plus `offset` plus any multiple of `interval`, both in microseconds.
    Every {
        interval: i64,
        offset: i64,
    },
}

/// The input and the terms of the requests of a schedule.
#[derive(Debug, Clone, Default)]
struct Terms {
    input: Map<String, Value>,
    visibility: Visibility,
    priority: Option<u8>,
    max_attempts: Option<u32>,
    backoff: Option<Duration>,
    deadline: Option<Duration>,
}

/// The JSON of `metadata.schedule`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    cron: Option<String>,
    time_zone: Option<String>,
    every_ms: Option<u64>,
    offset_ms: Option<u64>,
    #[serde(default)]
    catch_up: CatchUp,
    #[serde(default)]
    input: Map<String, Value>,
    visibility: Option<String>,
    priority: Option<u8>,
    max_attempts: Option<u32>,
    backoff_ms: Option<u64>,
    deadline_ms: Option<u64>,
}

impl Schedule {
    /// Reads the schedule of a function.
    ///
    /// # Errors
    /// Code `invalid_schedule` if `metadata.schedule` is missing or invalid.
    pub fn of(function: &Span) -> Result<Self, Failure> {
        let invalid = |reason: String| Failure::new("invalid_schedule", format!("metadata.schedule {reason}"));
        let Some(value) = function.meta("schedule") else {
            let example =
                r#"is missing: give it `{"cron": "0 9 * * MON-FRI", "time_zone": "Europe/Lisbon"}` or `{"every_ms": 60000}`"#;
            return Err(invalid(example.to_owned()));
        };
        let written = RuleText::deserialize(value).map_err(|e| invalid(format!("is malformed: {e}")))?;
        let rule = written.rule().map_err(invalid)?;
        let visibility = match written.visibility.as_deref() {
            None | Some("private") => Visibility::Private,
            Some("tenant") => Visibility::Tenant,
            Some(other) => return Err(invalid(format!("has visibility `{other}`: use private or tenant"))),
        };
        if written.input.contains_key("slot") {
            return Err(invalid("has `slot` in its input, which the scheduler sets: use another name".to_owned()));
        }
        if written.priority.is_some_and(|priority| priority > MAX_PRIORITY) {
            return Err(invalid(format!("has a priority above {MAX_PRIORITY}: use 0 to {MAX_PRIORITY}")));
        }
        if written.max_attempts.is_some_and(|attempts| !(1..=MAX_ATTEMPTS).contains(&attempts)) {
            return Err(invalid(format!("has a max_attempts that is not 1 to {MAX_ATTEMPTS}")));
        }
        let bytes = canonical::to_vec(&Value::Object(written.input.clone())).len();
        if bytes > MAX_INPUT {
            return Err(invalid(format!("has an input of {bytes} bytes, the limit is {MAX_INPUT}")));
        }
        let terms = Terms {
            input: written.input,
            visibility,
            priority: written.priority,
            max_attempts: written.max_attempts,
            backoff: written.backoff_ms.map(Duration::from_millis),
            deadline: written.deadline_ms.map(Duration::from_millis),
        };
        let schedule = Self { rule, catch_up: written.catch_up, terms };
        if schedule.next(Timestamp::EPOCH).is_none() {
            return Err(invalid("has no time that will ever come".to_owned()));
        }
        Ok(schedule)
    }

    /// The first slot after `time`. `None` if there is none.
    #[must_use]
    pub fn next(&self, time: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Cron { cron, zone } => {
                let found = cron.find_next_occurrence(&time.to_utc().with_timezone(zone), false).ok()?;
                Timestamp::new(found.to_utc()).ok()
            }
            Rule::Every { interval, offset } => {
                let slots = (time.unix_micros() - offset).div_euclid(*interval);
                Timestamp::from_unix_micros((slots + 1).checked_mul(*interval)?.checked_add(*offset)?).ok()
            }
        }
    }

    /// The last slot at or before `time`. `None` if there is none.
    ///
    /// The search backwards is only a guess: when clocks are put back it may answer a later slot, or leave one out. Searching forwards
    /// from the guess decides, so that both directions always agree.
    fn last(&self, time: Timestamp) -> Option<Timestamp> {
        let start = match &self.rule {
            Rule::Every { interval, offset } => {
                let slots = (time.unix_micros() - offset).div_euclid(*interval);
                return Timestamp::from_unix_micros(slots.checked_mul(*interval)?.checked_add(*offset)?).ok();
            }
            Rule::Cron { cron, zone } => {
                let found = cron.find_previous_occurrence(&time.to_utc().with_timezone(zone), true).ok();
                let found = found.and_then(|found| Timestamp::new(found.to_utc()).ok()).filter(|found| *found <= time);
                // Otherwise begin where some slot must follow before `time`, as close to it as possible.
                let steps = [60, 3_600, 4 * 3_600, 26 * 3_600].map(Duration::from_secs).into_iter();
                let mut before = steps.map(|step| time.saturating_sub(step));
                found.or_else(|| before.find_map(|start| self.next(start).filter(|slot| *slot <= time)))?
            }
        };
        let mut last = start;
        while let Some(next) = self.next(last).filter(|next| *next <= time && *next > last) {
            last = next;
        }
        Some(last)
    }

    /// The slots after `since` that must run by `now`, oldest first. `catch_up` decides about slots older than [`GRACE`].
    #[must_use]
    pub fn due(&self, since: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        let late = now.saturating_sub(GRACE);
        let mut slots = Vec::new();
        let mut next = self.last(now);
        while let Some(slot) = next.filter(|slot| *slot > since && slots.len() < MAX_CAUGHT_UP) {
            let wanted = match self.catch_up {
                _ if slot >= late => true,
                CatchUp::Skip => false,
                CatchUp::Last => slots.is_empty(),
                CatchUp::All => true,
            };
            if !wanted {
                break;
            }
            slots.push(slot);
            next = self.last(slot.saturating_sub(Duration::from_micros(1)));
        }
        slots.reverse();
        slots
    }

    /// The same schedule without the input of its requests: enough to find its slots.
    #[must_use]
    pub fn without_input(self) -> Self {
        Self { terms: Terms { input: Map::new(), ..self.terms }, ..self }
    }

    /// Builds the request for one slot. Its id follows from the slot, so every scheduler builds the same request.
    #[must_use]
    pub fn request(&self, function: &Span, slot: Timestamp) -> Request {
        let terms = &self.terms;
        let mut input = terms.input.clone();
        input.insert("slot".to_owned(), slot.to_string().into());
        let mut request = Request::new(&function.tenant_id, &function.owner_id, function.id, Value::Object(input))
            .visibility(terms.visibility)
            .slot(slot)
            .due_at(slot);
        request.who = Some(format!("kernel:{}", super::NAME));
        request.terms.priority = terms.priority;
        request.terms.max_attempts = terms.max_attempts;
        request.terms.backoff = terms.backoff;
        request.terms.deadline = terms.deadline.map(|after| slot.saturating_add(after));
        request
    }
}

impl RuleText {
    fn rule(&self) -> Result<Rule, String> {
        match (&self.cron, self.every_ms) {
            (Some(pattern), None) => {
                if self.offset_ms.is_some() {
                    return Err("has `offset_ms`, which goes with `every_ms`: leave it out".to_owned());
                }
                let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
                let cron = parser.parse(pattern).map_err(|e| format!("has cron `{pattern}`, which cannot be read: {e}"))?;
                let zone = self.time_zone.as_deref().unwrap_or("UTC");
                let zone = Tz::from_str(zone).map_err(|_| {
                    format!("has the unknown time zone `{zone}`: use a name of the IANA database such as Europe/Lisbon")
                })?;
                Ok(Rule::Cron { cron: Box::new(cron), zone })
            }
            (None, Some(every)) => {
                if self.time_zone.is_some() {
                    return Err("has `time_zone`, which goes with `cron`: leave it out".to_owned());
                }
                let offset = self.offset_ms.unwrap_or(0);
                if !(SHORTEST..=LONGEST).contains(&every) || offset >= every {
                    return Err(format!(
                        "has every_ms {every} and offset_ms {offset}: an interval is from {SHORTEST} to {LONGEST}, the offset less than it"
                    ));
                }
                let micros = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1000);
                Ok(Rule::Every { interval: micros(every), offset: micros(offset) })
            }
            _ => Err("needs either `cron` or `every_ms`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logline_core::Draft;
    use serde_json::json;

    fn function(schedule: Value) -> Span {
        Draft::new("function").tenant("acme").owner("ops").metadata(json!({"schedule": schedule})).columns().clone()
    }

    fn schedule(value: Value) -> Schedule {
        Schedule::of(&function(value)).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn slots(schedule: &Schedule, since: &str, now: &str) -> Vec<String> {
        schedule.due(at(since), at(now)).into_iter().map(|slot| slot.to_string().replace(".000000", "")).collect()
    }

    #[test]
    fn a_time_of_day_follows_its_zone_through_the_clock_change() {
        let nine = schedule(json!({"cron": "0 9 * * *", "time_zone": "Europe/Lisbon", "catch_up": "all"}));
        // Summer time begins on 2026-03-29 and ends on 2026-10-25.
        assert_eq!(
            slots(&nine, "2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z"),
            ["2026-03-28T09:00:00Z", "2026-03-29T08:00:00Z", "2026-03-30T08:00:00Z"]
        );
        assert_eq!(
            slots(&nine, "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z"),
            ["2026-10-25T09:00:00Z", "2026-10-26T09:00:00Z"]
        );
    }

    #[test]
    fn an_hour_that_the_clock_repeats_runs_a_daily_job_once() {
        let daily = schedule(json!({"cron": "30 1 * * *", "time_zone": "Europe/Lisbon", "catch_up": "all"}));
        let found = slots(&daily, "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z");
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn an_hour_that_the_clock_leaves_out_does_not_lose_a_daily_job() {
        let daily = schedule(json!({"cron": "30 1 * * *", "time_zone": "Europe/Lisbon", "catch_up": "all"}));
        let found = slots(&daily, "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z");
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn what_was_missed_is_caught_up_with_as_the_schedule_says() {
        let every = |catch_up: &str| schedule(json!({"every_ms": 3_600_000, "offset_ms": 60_000, "catch_up": catch_up}));
        let (since, now) = ("2026-05-01T00:30:00Z", "2026-05-01T03:30:00Z");
        assert!(slots(&every("skip"), since, now).is_empty());
        assert_eq!(slots(&every("last"), since, now), ["2026-05-01T03:01:00Z"]);
        assert_eq!(slots(&every("all"), since, now), ["2026-05-01T01:01:00Z", "2026-05-01T02:01:00Z", "2026-05-01T03:01:00Z"]);
        for catch_up in ["skip", "last", "all"] {
            // A slot that is half a minute late is not missed. A slot that is done is not due.
            assert_eq!(slots(&every(catch_up), since, "2026-05-01T01:01:30Z"), ["2026-05-01T01:01:00Z"]);
            assert!(slots(&every(catch_up), "2026-05-01T03:01:00Z", now).is_empty());
        }
        let often = schedule(json!({"every_ms": 1000, "catch_up": "all"}));
        let found = slots(&often, "2020-01-01T00:00:00Z", now);
        assert_eq!((found.len(), found[999].as_str()), (MAX_CAUGHT_UP, "2026-05-01T03:30:00Z"));
    }

    #[test]
    fn a_schedule_that_cannot_work_is_refused_with_the_reason() {
        for (value, reason) in [
            (json!({}), "needs either"),
            (json!({"cron": "* * * * *", "every_ms": 1000}), "needs either"),
            (json!({"cron": "61 * * * *"}), "cannot be read"),
            (json!({"cron": "0 0 30 2 *"}), "no time that will ever come"),
            (json!({"cron": "* * * * *", "time_zone": "Mars/Olympus"}), "unknown time zone"),
            (json!({"every_ms": 999}), "an interval is from"),
            (json!({"every_ms": 1000, "offset_ms": 1000}), "an interval is from"),
            (json!({"every_ms": 1000, "every": 1}), "malformed"),
            (json!({"every_ms": 1000, "catch_up": "sometimes"}), "malformed"),
            (json!({"every_ms": 1000, "input": {"slot": 1}}), "slot"),
            (json!({"every_ms": 1000, "visibility": "public"}), "visibility"),
            (json!("hourly"), "malformed"),
            (json!({"every_ms": 1000, "input": {"text": "x".repeat(300_000)}}), "the limit is"),
        ] {
            let failure = Schedule::of(&function(value.clone())).unwrap_err();
            assert!(failure.code == "invalid_schedule" && failure.message.contains(reason), "{value}: {failure}");
        }
        assert!(Schedule::of(Draft::new("function").columns()).unwrap_err().message.contains("is missing"));
    }

    #[test]
    fn a_slots_request_is_the_same_whoever_makes_it() {
        let hourly = schedule(json!({"every_ms": 3_600_000, "input": {"book": "eur"}, "deadline_ms": 60_000, "priority": 9}));
        let function = function(json!(null));
        let slot = at("2026-05-01T03:00:00Z");
        let request = hourly.request(&function, slot);
        assert_eq!(request.input, json!({"book": "eur", "slot": "2026-05-01T03:00:00.000000Z"}));
        assert_eq!(request.terms.deadline, Some(at("2026-05-01T03:01:00Z")));
        assert_eq!(request.derived_id(), hourly.request(&function, slot).derived_id());
        assert_ne!(request.derived_id(), hourly.request(&function, at("2026-05-01T04:00:00Z")).derived_id());
    }

    /// Every slot in a window, by searching forwards.
    fn forwards(schedule: &Schedule, since: Timestamp, until: Timestamp) -> Vec<Timestamp> {
        let mut slots = Vec::new();
        let mut last = since;
        while let Some(next) = schedule.next(last).filter(|next| *next <= until) {
            assert!(next > last, "a search forwards advances");
            slots.push(next);
            last = next;
        }
        slots
    }

    #[test]
    fn catching_up_finds_every_slot_around_every_change_of_the_clocks() {
        const DAY: i64 = 86_400;
        // All zones take minutes. The suite has those that differ in kind: half hours, changes at midnight, at 01:00 UTC, twice a year.
        let zones =
            ["Europe/Lisbon", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Africa/Cairo"];
        let zones: Vec<Tz> = match std::env::var_os("LOGLINE_ALL_ZONES") {
            Some(_) => chrono_tz::TZ_VARIANTS.to_vec(),
            None => zones.iter().map(|zone| zone.parse().unwrap()).collect(),
        };
        let offset = |zone: Tz, second: i64| {
            use chrono::{Offset as _, TimeZone as _};
            zone.timestamp_opt(second, 0).unwrap().offset().fix().local_minus_utc()
        };
        let mut changes = 0;
        for zone in zones {
            let first: i64 = 1_767_225_600; // 2026-01-01
            for day in (0..3653).map(|n| first + n * DAY).filter(|day| offset(zone, *day) != offset(zone, day + DAY)) {
                changes += 1;
                let (since, until) = (day - DAY, day + 2 * DAY);
                let [since, until] = [since, until].map(|second| Timestamp::from_unix_micros(second * 1_000_000).unwrap());
                for cron in ["0 * * * *", "*/30 * * * *", "30 1 * * *", "0 0 * * *", "15 2 * * *"] {
                    let rule = json!({"cron": cron, "time_zone": zone.name(), "catch_up": "all"});
                    let schedule = schedule(rule);
                    assert_eq!(
                        schedule.due(since, until),
                        forwards(&schedule, since, until),
                        "{cron} in {zone} around {since}"
                    );
                }
            }
        }
        assert!(changes > 50, "{changes}");
    }
}
