//! Workers: what they take, how often, and what becomes of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use logline_core::contract::Sandbox;
use logline_core::fsck::{Audit, fsck};
use logline_core::ledger::{Ledger as _, Poll, WatchFrom, WorkQueue as _};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::Manifest;
use logline_core::{
    Draft, Host, HostError, MemoryLedger, Rules, SYSTEM_TENANT, Scope, SignedSpan, Signer as _, SystemClock, VerifiedSpan, ids,
};
use logline_kernels::{Run as _, Worker, WorkerOptions, WorkerReport};
use logline_wasm::WasmSandbox;
use serde_json::json;
use setup::{HOST, PUBLISHER, ROOT, TENANT, USER, answer, echo, host_as, key, module, publish, spans, trust};
use tokio::sync::oneshot;
use uuid::Uuid;

/// Keys of further hosts.
const HOSTS: [u8; 4] = [HOST, 40, 41, 42];

fn manifest() -> Manifest {
    HOSTS[1..].iter().fold(setup::manifest().allow("request_worker", ids::REQUEST_WORKER), |manifest, host| {
        manifest.grant(key(*host).public_key(), Role::Runtime, [SYSTEM_TENANT, "*"])
    })
}

fn options() -> WorkerOptions {
    WorkerOptions::default().poll(Duration::from_millis(50)).lease(Duration::from_secs(5)).grace(Duration::ZERO)
}

/// Runs a worker beside `test` and stops it afterwards.
async fn beside<T>(host: &Host, options: WorkerOptions, test: impl Future<Output = T>) -> (T, WorkerReport) {
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = host.run(Worker::new(options), async move { drop(stopped.await) });
    let test = async move {
        let result = test.await;
        drop(stop);
        result
    };
    let (worked, result) = futures_util::future::join(worker, test).await;
    (result, worked.unwrap().report())
}

fn request(function: Uuid) -> Request {
    Request::new(TENANT, USER, function, json!(1))
}

/// Waits until the last version of a request has one of these statuses.
async fn until(ledger: &MemoryLedger, request: &VerifiedSpan, statuses: &[&str]) -> SignedSpan {
    let mut watch = ledger.watch(&Scope::Operator, WatchFrom::Beginning).await.unwrap();
    let wait = async {
        loop {
            let row = watch.next().await.unwrap().unwrap().span;
            if row.id == request.id && statuses.contains(&row.status.as_deref().unwrap_or_default()) {
                return row;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), wait).await.unwrap_or_else(|_| panic!("no {statuses:?} of {}", request.id))
}

/// Executions by request and attempt: code of the error, or `ok`.
async fn attempts(ledger: &MemoryLedger, request: Uuid) -> BTreeMap<u64, String> {
    let executions = spans(ledger, "execution").await.into_iter().filter(|span| span.related_to.contains(&request));
    let mut attempts = BTreeMap::new();
    for span in executions {
        let code = span.error.as_ref().map_or("ok".to_owned(), |error| error["code"].as_str().unwrap().to_owned());
        let before = attempts.insert(span.meta("attempt").unwrap().as_u64().unwrap(), code);
        assert!(before.is_none(), "an attempt has one execution");
    }
    attempts
}

fn spinning() -> String {
    module("", "(loop $again (br $again)) (i64.const 0)")
}

fn trapping() -> String {
    module("", "unreachable")
}

/// Fuel and time enough to spin for the rest of the test.
async fn endless() -> (MemoryLedger, Host) {
    let mut manifest = manifest();
    manifest.limits.fuel = 100_000_000_000;
    manifest.limits.timeout_ms = 3_600_000;
    manifest.times.timeout_ms = Some(3_600_000);
    let ledger = setup::ledger(&manifest).await;
    let host = host_as(&ledger, HOST).await;
    (ledger, host)
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

#[test]
fn four_workers_carry_out_every_request_once() {
    block_on(async {
        let ledger = setup::ledger(&manifest()).await;
        let mut hosts = Vec::new();
        for n in HOSTS {
            hosts.push(host_as(&ledger, n).await);
        }
        let function = publish(&hosts[0], &echo()).await;
        let mut requests = Vec::new();
        for _ in 0..200 {
            requests.push(hosts[0].submit(request(function)).await.unwrap());
        }
        let all = async {
            for request in &requests {
                until(&ledger, request, &["complete"]).await;
            }
        };
        let (stop, _) = tokio::sync::broadcast::channel::<()>(1);
        let workers = hosts.iter().map(|host| {
            let mut stopped = stop.subscribe();
            let host = host.clone();
            tokio::spawn(async move {
                let worker = Worker::new(options().grace(Duration::from_secs(30)));
                let ran = host.run(worker, async move { drop(stopped.recv().await) }).await.unwrap();
                ran.report::<WorkerReport>()
            })
        });
        let workers: Vec<_> = workers.collect();
        all.await;
        stop.send(()).unwrap();
        let mut recorded = 0;
        for worker in workers {
            let worked = worker.await.unwrap();
            recorded += worked.recorded;
            assert_eq!(worked.claimed, worked.recorded, "{worked:?}");
        }
        assert_eq!(recorded, 200);
        let executed: BTreeSet<_> = spans(&ledger, "execution").await.iter().map(|span| span.id).collect();
        assert_eq!(executed.len(), 200);
        assert!(requests.iter().all(|request| executed.contains(&ids::execution(TENANT, request.id, 1))));
        let trusted = trust().resolve(&ledger).await.unwrap();
        let mut audit = Audit::default();
        audit.authorities = Some(&trusted.authorities);
        assert_eq!(fsck(&ledger, audit, &mut |_| {}).await.unwrap().problems, 0);
    });
}

#[test]
fn a_poison_function_is_tried_so_often_then_dead_and_can_be_revived() {
    block_on(async {
        let ledger = setup::ledger(&manifest()).await;
        let host = host_as(&ledger, HOST).await;
        let poison = publish(&host, &trapping()).await;
        let patient = request(poison).max_attempts(3).backoff(Duration::from_millis(20));
        let patient = host.submit(patient).await.unwrap();
        let once = host.submit(request(poison)).await.unwrap();
        let test = async {
            let dead = until(&ledger, &patient, &["dead"]).await;
            assert_eq!(dead.error.as_ref().unwrap()["code"], "trap");
            until(&ledger, &once, &["error"]).await;
            host.revive(TENANT, patient.id, "user:operator").await.unwrap();
            let mut seen = 0;
            let mut watch = ledger.watch(&Scope::Operator, WatchFrom::Beginning).await.unwrap();
            while seen < 2 {
                let row = watch.next().await.unwrap().unwrap().span;
                seen += usize::from(row.id == patient.id && row.status.as_deref() == Some("dead"));
            }
        };
        beside(&host, options(), test).await;
        let codes = attempts(&ledger, patient.id).await;
        assert_eq!(codes.into_values().collect::<Vec<_>>(), ["trap"; 6]);
        assert_eq!(attempts(&ledger, once.id).await.len(), 1);
        // Each pause is longer than the one before, and its end is when it was tried again at the earliest.
        let versions = ledger.history(&Scope::Operator, TENANT, patient.id, 0, 100).await.unwrap();
        let again: Vec<_> = versions.windows(2).filter(|pair| pair[0].did.as_deref() == Some("failed")).collect();
        assert_eq!(again.len(), 4);
        for pair in again {
            let due: logline_core::Timestamp = pair[0].meta("due_at").unwrap().as_str().unwrap().parse().unwrap();
            assert!(pair[1].at >= due, "{} before {due}", pair[1].at);
        }
        let error = host.revive(TENANT, once.id, "user:operator").await.map(drop);
        assert!(error.is_ok(), "what ended in error can be revived as well");
    });
}

#[test]
fn a_functions_own_no_is_not_asked_again() {
    block_on(async {
        let ledger = setup::ledger(&manifest()).await;
        let host = host_as(&ledger, HOST).await;
        let no = r#"{"code":"declined","message":"no"}"#;
        let body = format!("(i64.or (call $pack (i32.const 1024) (i32.const {})) (i64.const 0x80000000))", no.len());
        let data = no.replace('"', "\\22");
        let function = publish(&host, &module(&format!("(data (i32.const 1024) \"{data}\")"), &body)).await;
        let asked = host.submit(request(function).max_attempts(5)).await.unwrap();
        let (ended, _) = beside(&host, options(), until(&ledger, &asked, &["error", "dead"])).await;
        assert_eq!(
            (ended.status.as_deref(), ended.error.as_ref().unwrap()["code"].as_str()),
            (Some("error"), Some("guest:declined"))
        );
        assert_eq!(attempts(&ledger, asked.id).await.len(), 1);
    });
}

#[test]
fn a_cancelled_attempt_stops_and_is_recorded() {
    block_on(async {
        let (ledger, host) = endless().await;
        let function = publish(&host, &spinning()).await;
        let running = host.submit(request(function)).await.unwrap();
        let waiting = host.submit(request(function).due_at("2999-01-01T00:00:00Z".parse().unwrap())).await.unwrap();
        let test = async {
            until(&ledger, &running, &["running"]).await;
            for request in [&running, &waiting] {
                host.cancel(TENANT, request.id, "user:alice").await.unwrap();
                let again = host.cancel(TENANT, request.id, "user:alice").await.unwrap_err();
                assert!(matches!(again, HostError::NotRunnable(_)), "{again}");
            }
            // The next heartbeat tells the worker, and its place is free for others.
            let quick = publish(&host, &echo()).await;
            let next = host.submit(request(quick)).await.unwrap();
            until(&ledger, &next, &["complete"]).await;
        };
        // What has been recorded is also counted before the end.
        let short = options().concurrency(1).lease(Duration::from_millis(300)).grace(Duration::from_secs(5));
        let (_, worked) = beside(&host, short, test).await;
        assert_eq!((worked.claimed, worked.recorded, worked.lost, worked.handed_back), (2, 1, 1, 0));
        assert_eq!(attempts(&ledger, running.id).await, BTreeMap::from([(1, "cancelled".to_owned())]));
        assert!(attempts(&ledger, waiting.id).await.is_empty());
    });
}

#[test]
fn a_shutdown_gives_back_what_it_cannot_finish() {
    block_on(async {
        let (ledger, host) = endless().await;
        let function = publish(&host, &spinning()).await;
        let long = host.submit(request(function)).await.unwrap();
        let (_, worked) = beside(&host, options(), until(&ledger, &long, &["running"])).await;
        assert_eq!((worked.claimed, worked.recorded, worked.handed_back), (1, 0, 1));
        let last = ledger.get(&Scope::Operator, TENANT, long.id).await.unwrap();
        assert_eq!((last.status.as_deref(), last.did.as_deref()), (Some("scheduled"), Some("handed_back")));
        assert_eq!(attempts(&ledger, long.id).await, BTreeMap::from([(1, "handed_back".to_owned())]));
        // The next worker goes on at once.
        assert_eq!(ledger.claimable(&Poll::new(10)).await.unwrap().len(), 1);
    });
}

/// A deploy is not the request's failure: what a shutdown gives back is tried again, however few attempts it may have.
#[test]
fn a_shutdown_uses_up_no_attempt() {
    block_on(async {
        let ledger = setup::ledger(&manifest()).await;
        let host = host_as(&ledger, HOST).await;
        let function = publish(&host, &echo()).await;
        let once = host.submit(request(function).max_attempts(1)).await.unwrap();
        for _ in 0..3 {
            let polled = ledger.take(&Poll::new(10)).await.unwrap();
            let claim = host.claim(polled.due.into_iter().next().unwrap(), polled.now, Duration::from_secs(60)).await.unwrap();
            host.hand_back(claim.running()).await.unwrap();
        }
        let (last, _) = beside(&host, options(), until(&ledger, &once, &["complete", "dead"])).await;
        assert_eq!(last.status.as_deref(), Some("complete"));
        let ends = ["handed_back", "handed_back", "handed_back", "ok"].map(str::to_owned);
        assert_eq!(attempts(&ledger, once.id).await, (1..).zip(ends).collect());
    });
}

#[test]
fn a_lease_is_kept_for_as_long_as_the_attempt_takes() {
    block_on(async {
        let (ledger, host) = endless().await;
        let function = publish(&host, &spinning()).await;
        let long = host.submit(request(function)).await.unwrap();
        let short = options().lease(Duration::from_secs(2));
        let test = async {
            until(&ledger, &long, &["running"]).await;
            for _ in 0..80 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert!(ledger.claimable(&Poll::new(10)).await.unwrap().is_empty(), "nobody may take what is under way");
            }
        };
        beside(&host, short, test).await;
    });
}

#[test]
fn a_worker_that_died_loses_its_attempt_and_its_late_result() {
    block_on(async {
        let ledger = setup::ledger(&manifest()).await;
        let (dead, alive) = (host_as(&ledger, HOSTS[0]).await, host_as(&ledger, HOSTS[1]).await);
        let function = publish(&dead, &echo()).await;
        let lost = dead.submit(request(function)).await.unwrap();
        // It claimed, its lease ended, and it is not as dead as it seemed.
        let polled = ledger.take(&Poll::new(10)).await.unwrap();
        let claim = dead.claim(polled.due.into_iter().next().unwrap(), polled.now, Duration::ZERO).await.unwrap();
        let patient = options().grace(Duration::from_secs(30));
        let (_, worked) = beside(&alive, patient, until(&ledger, &lost, &["complete"])).await;
        assert_eq!(worked.recorded, 1);
        let late = dead.finish(claim).await.unwrap_err();
        assert!(late.is_conflict(), "{late}");
        assert_eq!(attempts(&ledger, lost.id).await, BTreeMap::from([(1, "lost".to_owned()), (2, "ok".to_owned())]));
    });
}

#[test]
fn a_request_whose_deadline_has_passed_or_whose_attempts_were_all_lost_is_dead() {
    block_on(async {
        let ledger = setup::ledger(&manifest()).await;
        let host = host_as(&ledger, HOST).await;
        let function = publish(&host, &echo()).await;
        let late = host.submit(request(function).deadline("2020-01-01T00:00:00Z".parse().unwrap())).await.unwrap();
        let lost = host.submit(request(function).max_attempts(2)).await.unwrap();
        for _ in 0..2 {
            let polled = ledger.take(&Poll::new(10)).await.unwrap();
            let due = polled.due.into_iter().find(|due| due.request.id == lost.id).unwrap();
            host.claim(due, polled.now, Duration::ZERO).await.unwrap();
        }
        let test = async { (until(&ledger, &late, &["dead"]).await, until(&ledger, &lost, &["dead"]).await) };
        let ((late, lost), _) = beside(&host, options(), test).await;
        assert_eq!(late.error.as_ref().unwrap()["code"], "deadline_exceeded");
        assert_eq!(lost.error.as_ref().unwrap()["code"], "attempts_exhausted");
        assert!(attempts(&ledger, late.id).await.is_empty());
        assert_eq!(attempts(&ledger, lost.id).await, BTreeMap::from([(1, "lost".to_owned()), (2, "lost".to_owned())]));
    });
}

#[test]
fn a_quota_holds_leaves_one_violation_and_the_override_key_is_free_of_it() {
    block_on(async {
        let mut manifest = manifest();
        manifest.throttle.per_tenant_daily_exec_limit = Some(3);
        manifest.override_pubkey_hex = Some(key(PUBLISHER).public_key());
        let ledger = setup::ledger(&manifest).await;
        let host = host_as(&ledger, HOST).await;
        let function = publish(&host, &echo()).await;
        let mut requests = Vec::new();
        for _ in 0..8 {
            requests.push(host.submit(request(function)).await.unwrap());
        }
        let forced = setup::function(&echo()).meta("force", true);
        let forced = host.publish(forced, &key(PUBLISHER)).await.unwrap().id;
        let test = async {
            let (mut completed, mut parked) = (0, Vec::new());
            for request in &requests {
                // Parking is no event of the ledger, so this asks until the request has ended or is parked.
                loop {
                    match ledger.waiting(TENANT, request.id).await.unwrap() {
                        None => break completed += 1,
                        Some(waiting) if waiting.parked.is_some() => break parked.push(waiting),
                        Some(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                    }
                }
            }
            assert_eq!(completed, 3);
            let free = host.submit(request(forced)).await.unwrap();
            until(&ledger, &free, &["complete"]).await;
            parked
        };
        let (parked, _) = beside(&host, options(), test).await;
        assert_eq!(parked.len(), 5);
        let today = ledger.now().await.unwrap().day();
        for waiting in parked {
            assert!(waiting.due.unwrap().day() > today, "{waiting:?}");
            assert_eq!(waiting.work.seq, 0, "no version is written for a request that only waits");
            assert!(waiting.parked.unwrap().contains("has used its 3 of exec.per_tenant.daily"));
        }
        let violations = spans(&ledger, "policy_violation").await;
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].meta("limit"), Some(&json!(3)));
        // What is free of the limit counts all the same.
        assert_eq!(ledger.used(TENANT, logline_core::EXECUTIONS_QUOTA).await.unwrap(), 4);
        // Also where no worker has looked at the function before.
        assert!(host.execute(request(forced)).await.unwrap().result.is_ok());
        assert!(host.execute(request(function)).await.is_err());
    });
}

/// Waits until this many requests are parked. Parking is no event of the ledger, so this asks.
async fn until_parked(ledger: &MemoryLedger, requests: &[VerifiedSpan], wanted: usize) {
    loop {
        let mut parked = 0;
        for request in requests {
            let waiting = ledger.waiting(TENANT, request.id).await.unwrap();
            parked += usize::from(waiting.is_some_and(|waiting| waiting.parked.is_some()));
        }
        if parked == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn what_waits_for_a_quota_goes_on_when_the_manifest_raises_it() {
    block_on(async {
        let mut limited = manifest();
        limited.throttle.per_tenant_daily_exec_limit = Some(2);
        let ledger = setup::ledger(&limited).await;
        let host = host_as(&ledger, HOST).await;
        let function = publish(&host, &echo()).await;
        let mut requests = Vec::new();
        for _ in 0..6 {
            requests.push(host.submit(request(function)).await.unwrap());
        }
        let raise = async |version: u64, to: Option<u64>| {
            let mut raised = limited.clone();
            (raised.version, raised.throttle.per_tenant_daily_exec_limit) = (version, to);
            trust().publish(&ledger, &raised, &key(ROOT), &SystemClock).await.unwrap();
        };
        let test = async {
            until_parked(&ledger, &requests, 4).await;
            // A worker that runs.
            raise(2, Some(5)).await;
            until_parked(&ledger, &requests, 1).await;
        };
        beside(&host, options(), test).await;
        // A worker that begins afterwards.
        raise(3, None).await;
        let later = host_as(&ledger, HOST).await;
        let all = async {
            for request in &requests {
                until(&ledger, request, &["complete"]).await;
            }
        };
        beside(&later, options(), all).await;
        assert_eq!(later.offer_deferred().await.unwrap(), 0);
    });
}

#[test]
fn a_new_version_of_a_function_or_manifest_is_obeyed_without_restart() {
    block_on(async {
        let ledger = setup::ledger(&manifest()).await;
        let host = host_as(&ledger, HOST).await;
        let first = host.publish(setup::function(&answer("1")), &key(PUBLISHER)).await.unwrap();
        let test = async {
            let before = host.submit(request(first.id)).await.unwrap();
            until(&ledger, &before, &["complete"]).await;
            let second = Draft::next_version(&first).code(answer("2"));
            let second = host.publish(second, &key(PUBLISHER)).await.unwrap();
            let after = host.submit(request(first.id)).await.unwrap();
            until(&ledger, &after, &["complete"]).await;
            for (request, output) in [(&before, 1), (&after, 2)] {
                let execution = ledger.get(&Scope::Operator, TENANT, ids::execution(TENANT, request.id, 1)).await.unwrap();
                assert_eq!(execution.output, Some(json!(output)));
            }
            drop(second);
            // A manifest that stops everything after a moment.
            let mut next = manifest();
            next.version = 2;
            next.limits.fuel = 1;
            trust().publish(&ledger, &next, &key(ROOT), &SystemClock).await.unwrap();
            while host.trusted().manifest.version < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let starved = host.submit(request(first.id)).await.unwrap();
            let starved = until(&ledger, &starved, &["error"]).await;
            assert_eq!(starved.error.as_ref().unwrap()["code"], "fuel_exhausted");
        };
        beside(&host, options(), test).await;
    });
}

#[test]
fn what_is_not_signed_by_the_tenant_is_closed_and_holds_nobody_up() {
    block_on(async {
        let ledger = setup::ledger(&manifest()).await;
        let host = host_as(&ledger, HOST).await;
        let function = publish(&host, &echo()).await;
        let mut strange = Vec::new();
        for _ in 0..5 {
            let draft =
                Draft::new("request").tenant(TENANT).owner(USER).who("w").this("t").parent(function).status("scheduled");
            strange.push(setup::smuggle(&ledger, draft, setup::STRANGER).await);
        }
        let honest = host.submit(request(function)).await.unwrap();
        let test = async {
            for request in &strange {
                let closed = until(&ledger, request, &["error"]).await;
                assert_eq!(closed.error.as_ref().unwrap()["code"], "request_not_authorised");
            }
            until(&ledger, &honest, &["complete"]).await;
        };
        beside(&host, options().concurrency(1), test).await;
    });
}

#[test]
fn a_host_whose_manifest_does_not_allow_the_worker_runs_none() {
    block_on(async {
        let ledger = setup::ledger(&setup::manifest()).await;
        let host = host_as(&ledger, HOST).await;
        let refused = host.run(Worker::new(options()), std::future::pending()).await.unwrap_err();
        assert!(refused.to_string().contains("allowed_boot_ids"), "{refused}");
    });
}

#[test]
fn one_tenants_backlog_does_not_delay_anothers_first_request() {
    block_on(async {
        let manifest = manifest().grant(key(PUBLISHER).public_key(), Role::Publisher, ["zeta"]);
        let ledger = setup::ledger(&manifest).await;
        let host = host_as(&ledger, HOST).await;
        let flood = publish(&host, &echo()).await;
        let rare = setup::function(&echo()).tenant("zeta");
        let rare = host.publish(rare, &key(PUBLISHER)).await.unwrap().id;
        for _ in 0..1000 {
            host.submit(request(flood)).await.unwrap();
        }
        let rare = host.submit(Request::new("zeta", USER, rare, json!(1))).await.unwrap();
        let (_, worked) = beside(&host, options().concurrency(8), until(&ledger, &rare, &["complete"])).await;
        assert!(worked.claimed < 100, "it was among the first: {worked:?}");
    });
}

#[test]
fn a_host_of_one_tenant_leaves_the_others_requests_to_those_who_may_work_on_them() {
    block_on(async {
        let manifest = manifest().grant(key(PUBLISHER).public_key(), Role::Publisher, ["aaa"]).grant(
            key(77).public_key(),
            Role::Runtime,
            [SYSTEM_TENANT, TENANT],
        );
        let ledger = setup::ledger(&manifest).await;
        let (all, some) = (host_as(&ledger, HOST).await, host_as(&ledger, 77).await);
        let foreign = all.publish(setup::function(&echo()).tenant("aaa"), &key(PUBLISHER)).await.unwrap();
        let function = publish(&all, &echo()).await;
        let theirs = all.submit(Request::new("aaa", USER, foreign.id, json!(1))).await.unwrap();
        let ours = all.submit(request(function)).await.unwrap();
        beside(&some, options(), until(&ledger, &ours, &["complete"])).await;
        // Neither touched nor held.
        assert_eq!(ledger.claimable(&Poll::new(10)).await.unwrap(), [logline_core::ledger::Work::of(&theirs)]);
        beside(&all, options(), until(&ledger, &theirs, &["complete"])).await;
    });
}

#[test]
fn what_workers_record_can_be_repeated_whichever_attempt_it_was() {
    block_on(async {
        let ledger = setup::ledger(&manifest()).await;
        let host = host_as(&ledger, HOST).await;
        let (echo, traps) = (publish(&host, &echo()).await, publish(&host, &trapping()).await);
        let ran = host.submit(request(echo)).await.unwrap();
        let tried = host.submit(request(traps).max_attempts(3).backoff(Duration::from_millis(1))).await.unwrap();
        let test = async { (until(&ledger, &ran, &["complete"]).await, until(&ledger, &tried, &["dead"]).await) };
        beside(&host, options(), test).await;
        let executions = spans(&ledger, "execution").await;
        assert_eq!(executions.len(), 4);
        let sandboxes: Vec<Arc<dyn Sandbox>> = vec![Arc::new(WasmSandbox::new().unwrap())];
        for execution in executions {
            let (scope, named) = (Scope::runtime(TENANT), (TENANT, execution.id));
            let again = logline_kernels::replay(&ledger, &scope, named, &sandboxes, Rules::default()).await.unwrap();
            assert!(again.holds(), "{:?}", again.differences);
        }
    });
}
