//! Schedules: each slot once, whoever observes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use logline_core::ledger::{ActiveKind, Tenants, WorkQueue as _};
use logline_core::roles::Role;
use logline_core::trust::Manifest;
use logline_core::{Draft, Host, HostError, ManualClock, MemoryLedger, SignedSpan, Signer as _, SystemClock, Timestamp, ids};
use logline_kernels::{Loops, Run as _, Scheduler, SchedulerOptions, Worker, WorkerOptions};
use serde_json::{Value, json};
use setup::{PUBLISHER, block_on, echo, function, host_of, key, run_until, spans, until};

fn manifest() -> Manifest {
    setup::manifest().allow("observer_bot", ids::OBSERVER).allow("request_worker", ids::REQUEST_WORKER)
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A ledger whose clock stands, and hosts on it.
async fn site(now: &str) -> (MemoryLedger, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(at(now)));
    let ledger = MemoryLedger::with_clock(clock.clone());
    setup::trust().publish(&ledger, &manifest(), &key(setup::ROOT), &SystemClock).await.unwrap();
    logline_kernels::install(&ledger, &logline_kernels::all(), &key(setup::SYSTEM_PUBLISHER), &SystemClock).await.unwrap();
    (ledger, clock)
}

fn scheduled(schedule: Value, published: &str) -> Draft {
    function(&echo()).status("scheduled").at(at(published)).metadata(json!({"schedule": schedule}))
}

fn observing() -> Loops {
    Scheduler::new(SchedulerOptions::default().poll(Duration::from_millis(5))).into()
}

/// Observes until there are so many requests of slots; the slots, in the order of their submission.
async fn slots(ledger: &MemoryLedger, host: &Host, count: usize) -> Vec<String> {
    run_until(host, observing(), until_slots(ledger, count)).await;
    submitted(ledger).await
}

async fn until_slots(ledger: &MemoryLedger, count: usize) {
    until(ledger, count, |row| row.entity_type == "request" && row.prev_hash.is_none()).await;
}

fn slot(request: &SignedSpan) -> String {
    request.meta("slot").unwrap().as_str().unwrap().replace(":00.000000Z", "")
}

async fn submitted(ledger: &MemoryLedger) -> Vec<String> {
    spans(ledger, "request").await.iter().filter(|span| span.prev_hash.is_none()).map(slot).collect()
}

#[test]
fn any_number_of_observers_submit_each_slot_once() {
    block_on(async {
        let (ledger, clock) = site("2026-05-01T00:00:30Z").await;
        let hosts = [host_of(&ledger).await, host_of(&ledger).await, host_of(&ledger).await];
        let draft = scheduled(json!({"every_ms": 60_000, "catch_up": "all"}), "2026-05-01T00:00:00Z");
        hosts[0].publish(draft, &key(PUBLISHER)).await.unwrap();
        clock.set(at("2026-05-01T00:40:30Z"));
        let (stop, stopped) = tokio::sync::watch::channel(());
        let runs = hosts.iter().map(|host| {
            let mut stopped = stopped.clone();
            host.run(observing(), async move { drop(stopped.changed().await) })
        });
        let test = async {
            until_slots(&ledger, 40).await;
            // And those that come while they run.
            clock.set(at("2026-05-01T00:45:30Z"));
            until_slots(&ledger, 45).await;
            drop(stop);
        };
        let (ran, ()) = futures_util::future::join(futures_util::future::join_all(runs), test).await;
        assert!(ran.into_iter().all(|ran| ran.is_ok()));
        let found = submitted(&ledger).await;
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 45, "{found:?}");
        assert_eq!(found.len(), 45, "each once");
    });
}

#[test]
fn an_observer_that_comes_back_catches_up_as_the_schedule_says() {
    block_on(async {
        for (catch_up, expected) in [
            ("all", vec!["00:05", "00:10", "00:15", "00:20", "00:25"]),
            ("last", vec!["00:05", "00:20", "00:25"]),
            ("skip", vec!["00:05", "00:25"]),
        ] {
            let (ledger, clock) = site("2026-05-01T00:00:30Z").await;
            let observer = host_of(&ledger).await;
            let rare = scheduled(json!({"every_ms": 300_000, "catch_up": catch_up}), "2026-05-01T00:00:20Z");
            let rare = observer.publish(rare, &key(PUBLISHER)).await.unwrap();
            clock.set(at("2026-05-01T00:05:00Z"));
            slots(&ledger, &observer, 1).await;
            // Nobody observes until 00:22. A function of every minute shows when an observer has looked.
            let often = scheduled(json!({"every_ms": 60_000}), "2026-05-01T00:21:30Z");
            observer.publish(often, &key(PUBLISHER)).await.unwrap();
            for (now, of_often) in [("00:22", 1), ("00:25", 3)] {
                clock.set(at(&format!("2026-05-01T{now}:00Z")));
                let of_rare = expected.iter().filter(|slot| **slot <= now).count();
                slots(&ledger, &observer, of_rare + of_often).await;
            }
            let requests = spans(&ledger, "request").await;
            let of_rare = requests.iter().filter(|request| request.parent_id == Some(rare.id));
            let found: Vec<_> = of_rare.map(|request| slot(request).replace("2026-05-01T", "")).collect();
            assert_eq!(found, expected, "{catch_up}");
        }
    });
}

#[test]
fn a_scheduled_function_runs_as_its_owner_and_gets_its_slot() {
    block_on(async {
        let (ledger, clock) = site("2026-05-01T00:00:30Z").await;
        let host = host_of(&ledger).await;
        let schedule = json!({"cron": "*/5 * * * *", "time_zone": "Europe/Lisbon", "input": {"book": "eur"}});
        host.publish(scheduled(schedule, "2026-05-01T00:00:20Z"), &key(PUBLISHER)).await.unwrap();
        clock.set(at("2026-05-01T00:05:01Z"));
        let loops = observing().with(Worker::new(WorkerOptions::default().poll(Duration::from_millis(20))));
        run_until(&host, loops, until(&ledger, 1, |row| row.entity_type == "execution")).await;
        let executions = spans(&ledger, "execution").await;
        assert_eq!(executions.len(), 1);
        let execution = &executions[0];
        assert_eq!((execution.owner_id.as_str(), execution.status.as_deref()), ("risk-team", Some("complete")));
        let output = execution.output.as_ref().unwrap();
        assert_eq!(output["input"], json!({"book": "eur", "slot": "2026-05-01T00:05:00.000000Z"}));
    });
}

#[test]
fn a_schedule_that_cannot_work_is_not_published_and_a_smuggled_one_is_reported_once() {
    block_on(async {
        let (ledger, clock) = site("2026-05-01T00:00:30Z").await;
        let host = host_of(&ledger).await;
        let broken = scheduled(json!({"cron": "61 * * * *"}), "2026-05-01T00:00:20Z");
        let refused = host.publish(broken.clone(), &key(PUBLISHER)).await.unwrap_err();
        assert!(matches!(&refused, HostError::NotValid { .. }) && refused.to_string().contains("61 * * * *"), "{refused}");
        let mut asleep = scheduled(json!({"every_ms": 60_000}), "2026-05-01T00:00:20Z");
        asleep.columns_mut().status = None;
        let refused = host.publish(asleep, &key(PUBLISHER)).await.unwrap_err().to_string();
        assert!(refused.contains("a schedule and the status ``: `scheduled`"), "{refused}");
        let broken = setup::smuggle(&ledger, broken, PUBLISHER).await;
        let forged =
            setup::smuggle(&ledger, scheduled(json!({"every_ms": 60_000}), "2026-05-01T00:00:20Z"), setup::STRANGER).await;
        host.publish(scheduled(json!({"every_ms": 60_000}), "2026-05-01T00:00:20Z"), &key(PUBLISHER)).await.unwrap();
        for n in [1, 2] {
            clock.set(at(&format!("2026-05-01T00:0{n}:00Z")));
            slots(&ledger, &host, n).await;
        }
        let mut reported: Vec<_> =
            spans(&ledger, "policy_violation").await.into_iter().map(|span| (span.parent_id, span.this.clone())).collect();
        reported.sort_by_key(|(id, _)| id.is_none());
        let expected =
            [(Some(broken.id), "schedule.invalid_schedule".to_owned()), (None, "schedule.function_not_authorised".to_owned())];
        assert_eq!(reported, expected);
        let listed = ledger.active(ActiveKind::Schedule, &Tenants::All, None, 10).await.unwrap();
        assert!(listed.iter().all(|work| work.id != forged.id), "it is off the list, so no poll looks at it again");
    });
}

#[test]
fn a_tenant_that_has_used_its_quota_gets_no_more_slots_today() {
    block_on(async {
        let mut manifest = manifest();
        manifest.throttle.per_tenant_daily_exec_limit = Some(2);
        let clock = Arc::new(ManualClock::new(at("2026-05-01T00:00:30Z")));
        let ledger = MemoryLedger::with_clock(clock.clone());
        setup::trust().publish(&ledger, &manifest, &key(setup::ROOT), &SystemClock).await.unwrap();
        logline_kernels::install(&ledger, &logline_kernels::all(), &key(setup::SYSTEM_PUBLISHER), &SystemClock).await.unwrap();
        let host = host_of(&ledger).await;
        host.publish(scheduled(json!({"every_ms": 60_000, "catch_up": "last"}), "2026-05-01T00:00:20Z"), &key(PUBLISHER))
            .await
            .unwrap();
        let loops = || observing().with(Worker::new(WorkerOptions::default().poll(Duration::from_millis(5))));
        for n in [1, 2] {
            clock.set(at(&format!("2026-05-01T00:0{n}:00Z")));
            run_until(&host, loops(), until(&ledger, n, |row| row.entity_type == "execution")).await;
        }
        clock.set(at("2026-05-01T00:03:00Z"));
        run_until(&host, observing(), until(&ledger, 1, |row| row.entity_type == "policy_violation")).await;
        assert_eq!(submitted(&ledger).await.len(), 2, "no slot beyond the quota");
        // The next day begins with the last slot that was missed.
        clock.set(at("2026-05-02T00:00:10Z"));
        let found = slots(&ledger, &host, 3).await;
        assert_eq!(found.last().unwrap(), "2026-05-02T00:00");
    });
}

#[test]
fn a_new_version_of_a_schedule_takes_effect_while_the_observer_runs() {
    block_on(async {
        let (ledger, clock) = site("2026-05-01T00:00:30Z").await;
        let host = host_of(&ledger).await;
        let first =
            host.publish(scheduled(json!({"every_ms": 60_000}), "2026-05-01T00:00:20Z"), &key(PUBLISHER)).await.unwrap();
        let test = async {
            clock.set(at("2026-05-01T00:01:00Z"));
            until_slots(&ledger, 1).await;
            let next = Draft::next_version(&first)
                .at(at("2026-05-01T00:01:30Z"))
                .metadata(json!({"schedule": {"every_ms": 60_000, "offset_ms": 15_000}}));
            host.publish(next, &key(PUBLISHER)).await.unwrap();
            clock.set(at("2026-05-01T00:02:20Z"));
            until_slots(&ledger, 2).await;
        };
        run_until(&host, observing(), test).await;
        let found = spans(&ledger, "request").await;
        assert_eq!(found[1].meta("slot").unwrap(), "2026-05-01T00:02:15.000000Z");
        assert_eq!(found.len(), 2);
    });
}

#[test]
fn a_tenant_with_many_schedules_does_not_delay_those_of_another() {
    const OTHER: &str = "zebra";
    block_on(async {
        let clock = Arc::new(ManualClock::new(at("2026-05-01T00:00:30Z")));
        let ledger = MemoryLedger::with_clock(clock.clone());
        let manifest = manifest().grant(key(5).public_key(), Role::Publisher, [OTHER]);
        setup::trust().publish(&ledger, &manifest, &key(setup::ROOT), &SystemClock).await.unwrap();
        logline_kernels::install(&ledger, &logline_kernels::all(), &key(setup::SYSTEM_PUBLISHER), &SystemClock).await.unwrap();
        let host = host_of(&ledger).await;
        let every_minute = || scheduled(json!({"every_ms": 60_000}), "2026-05-01T00:00:20Z");
        for _ in 0..100 {
            host.publish(every_minute(), &key(PUBLISHER)).await.unwrap();
        }
        host.publish(every_minute().tenant(OTHER), &key(5)).await.unwrap();
        let test = async {
            for minute in 1..=2 {
                clock.set(at(&format!("2026-05-01T00:0{minute}:00Z")));
                until_slots(&ledger, minute * 101).await;
            }
        };
        run_until(&host, observing(), test).await;
        let requests = spans(&ledger, "request").await;
        let tenants: Vec<_> =
            requests.iter().filter(|span| span.prev_hash.is_none()).map(|span| span.tenant_id.as_str()).collect();
        for slots in tenants.chunks(101) {
            let place = slots.iter().position(|tenant| *tenant == OTHER).unwrap();
            assert!(place < 2, "the other tenant's slot was the {}th", place + 1);
        }
    });
}

#[test]
fn a_row_that_takes_the_id_of_a_slot_costs_that_slot_only_and_is_reported() {
    block_on(async {
        let (ledger, clock) = site("2026-05-01T00:00:30Z").await;
        let host = host_of(&ledger).await;
        let draft = scheduled(json!({"every_ms": 60_000, "catch_up": "all"}), "2026-05-01T00:00:20Z");
        let function = host.publish(draft, &key(PUBLISHER)).await.unwrap();
        for minute in ["21", "33"] {
            let slot = format!("2026-05-01T00:{minute}:00.000000Z");
            let id = ids::derive("slot", &[setup::TENANT, &function.owner_id, &function.id.to_string(), &slot]);
            let squatter = Draft::new("note").id(id).tenant(setup::TENANT).owner(&function.owner_id).who("x").this("note");
            setup::smuggle(&ledger, squatter, setup::STRANGER).await;
        }
        clock.set(at("2026-05-01T00:40:30Z"));
        let found = slots(&ledger, &host, 38).await;
        assert_eq!(found.len(), 38, "{found:?}");
        run_until(&host, observing(), until(&ledger, 1, |row| row.this == "schedule.slot_occupied")).await;
        let reported = spans(&ledger, "policy_violation").await;
        assert_eq!(reported.len(), 1, "once for this version of the schedule");
        assert_eq!(reported[0].parent_id, Some(function.id));
    });
}
