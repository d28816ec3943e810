//! A fleet and what happens to it, which follows from a seed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use logline_core::ledger::{AppendOptions, WorkQueue};
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_core::trust::Manifest;
use logline_core::{Draft, Host, KernelSet, MemoryLedger, SYSTEM_TENANT, SeededIds, Signer as _, ids};
use logline_kernels::{Loops, Run as _, Scheduler, Worker, WorkerOptions};
use logline_policy::{AgentOptions, PolicyAgent};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::check::{Counted, check, check_policies, replies, size_of_open};
use crate::setup::{self, PUBLISHER, key};
use crate::world::{Chance, Connection, Faulty, Play, Virtual, World};
use crate::{PER_DAY, STORM, TENANTS};

pub fn host_key(n: usize) -> u8 {
    40 + u8::try_from(n).unwrap()
}

pub fn manifest(hosts: usize) -> Manifest {
    let mut manifest = (0..=hosts)
        .fold(setup::manifest(), |manifest, n| {
            manifest.grant(key(host_key(n)).public_key(), Role::Runtime, [SYSTEM_TENANT, "*"])
        })
        .allow("request_worker", ids::REQUEST_WORKER)
        .allow("observer_bot", ids::OBSERVER)
        .allow("policy_agent", ids::POLICY_AGENT)
        .grant(key(PUBLISHER).public_key(), Role::Publisher, ["globex", "initech"]);
    manifest.throttle.per_tenant_daily_exec_limit = Some(PER_DAY);
    manifest
}

pub fn behaviours() -> KernelSet {
    logline_kernels::all().and(logline_policy::all())
}

pub async fn host<L: WorkQueue>(
    world: &World,
    ledger: L,
    n: usize,
    seed: u64,
    minutes: i64,
) -> Result<Host, logline_core::HostError> {
    Host::builder()
        .ledger(ledger)
        .trust(setup::trust())
        .key(key(host_key(n)))
        .install(behaviours())
        .sandbox(Play)
        .clock(Virtual { start: world.start, minutes })
        .ids(SeededIds::new(seed))
        .build()
        .await
}

/// A process that is started again whenever it dies.
pub async fn supervise(world: Arc<World>, n: usize, policies: bool) {
    loop {
        let connection =
            Arc::new(Connection { world: Arc::clone(&world), is_dead: AtomicBool::new(false), died: Notify::new() });
        let (seed, minutes) = (world.chance.next(), i64::try_from(world.chance.below(11)).unwrap() - 5);
        let life = async {
            // It may not get as far as running.
            let host = host(&world, Faulty(Arc::clone(&connection)), n, seed, minutes).await?;
            let options =
                WorkerOptions::default().concurrency(4).lease(Duration::from_secs(6)).poll(Duration::from_millis(500));
            let loops = Loops::none().with(Worker::new(options)).with(Scheduler::default());
            let loops = if policies { loops.with(PolicyAgent::new(AgentOptions::default().page(5))) } else { loops };
            host.run(loops, std::future::pending()).await
        };
        tokio::select! {
            biased;
            () = connection.died.notified() => {}
            // A host that gives up because it could not begin.
            _ = life => connection.is_dead.store(true, Ordering::Relaxed),
        }
        tokio::time::sleep(Duration::from_millis(world.chance.below(3000))).await;
    }
}

pub fn function(tenant: &str) -> Uuid {
    ids::derive("function", &[tenant, "play"])
}

pub async fn simulate(seed: u64, policies: bool) -> Result<Counted, String> {
    let start = Instant::now();
    let clock = Arc::new(Virtual { start, minutes: 0 });
    let world = Arc::new(World {
        ledger: MemoryLedger::with_clock(clock),
        chance: Chance(AtomicU64::new(seed)),
        start,
        is_calm: AtomicBool::new(false),
        away_until: Mutex::new(start),
        crashes: AtomicU64::new(0),
        failures: AtomicU64::new(0),
    });
    let (chance, ledger) = (&world.chance, &world.ledger);
    let hosts = 2 + usize::try_from(chance.below(3)).unwrap();
    setup::trust().publish(ledger, &manifest(hosts), &key(setup::ROOT), &Virtual { start, minutes: 0 }).await.unwrap();
    logline_kernels::install(ledger, &behaviours(), &key(setup::SYSTEM_PUBLISHER), &Virtual { start, minutes: 0 })
        .await
        .unwrap();
    // Somebody whose connection is good.
    let steady = host(&world, ledger.clone(), hosts, seed, 0).await.unwrap();
    for tenant in TENANTS {
        let draft = setup::function("play").id(function(tenant)).tenant(tenant).runtime("play@1");
        steady.publish(draft, &key(PUBLISHER)).await.unwrap();
    }
    let schedule = json!({"schedule": {"every_ms": 10_000, "catch_up": "all", "input": {"n": 0}}});
    let draft = setup::function("play").tenant("globex").runtime("play@1").status("scheduled").metadata(schedule);
    let scheduled = steady.publish(draft, &key(PUBLISHER)).await.unwrap();
    if policies {
        let then = json!([
            {"emit": {"entity_type": "reply", "content": "${span.content}"}},
            {"key": "all", "count": {"this": "notes", "value": "${span.content}"}},
        ]);
        let draft = Draft::new("policy")
            .tenant("acme")
            .owner("compliance")
            .who("publisher")
            .this("policy.notes")
            .status("active")
            .language("cel")
            .content(json!({"on": ["note"], "when": "true", "then": then}));
        steady.publish(draft, &key(PUBLISHER)).await.unwrap();
    }
    let mut notes = 0;
    let fleet: Vec<_> = (0..hosts).map(|n| tokio::spawn(supervise(Arc::clone(&world), n, policies))).collect();
    let mut submitted: BTreeMap<Uuid, u64> = BTreeMap::new();
    while start.elapsed() < STORM {
        tokio::time::sleep(Duration::from_millis(chance.below(4000))).await;
        if chance.once_in(12) {
            *world.away_until.lock().unwrap() = Instant::now() + Duration::from_secs(10);
        }
        for _ in 0..if policies { chance.below(8) } else { 0 } {
            let note = Draft::new("note").tenant("acme").owner("alice").who("user:alice").this("note").content(json!(notes));
            steady.record("acme", vec![note], &AppendOptions::default()).await.unwrap();
            notes += 1;
        }
        for _ in 0..chance.below(4) {
            let n = submitted.len() as u64;
            let tenant = TENANTS[usize::try_from(chance.below(3)).unwrap()];
            let fails = [None, None, None, None, Some("trap"), Some("guest:no")][usize::try_from(chance.below(6)).unwrap()];
            let input =
                json!({"n": n, "ms": if chance.once_in(8) { chance.below(20_000) } else { chance.below(300) }, "fails": fails});
            let mut request =
                Request::new(tenant, "alice", function(tenant), input).priority(u8::try_from(chance.below(10)).unwrap());
            if chance.once_in(2) {
                request = request.max_attempts(1 + u32::try_from(chance.below(4)).unwrap()).backoff(Duration::from_millis(500));
            }
            let now = ledger.now().await.unwrap();
            if chance.once_in(5) {
                request = request.due_at(now.saturating_add(Duration::from_millis(chance.below(15_000))));
            }
            if chance.once_in(10) {
                request = request.deadline(now.saturating_add(Duration::from_millis(chance.below(10_000))));
            }
            submitted.insert(steady.submit(request).await.unwrap().id, n);
        }
        if chance.once_in(10)
            && let Some((id, _)) = submitted.iter().nth(usize::try_from(chance.below(submitted.len().max(1) as u64)).unwrap())
        {
            for tenant in TENANTS {
                // It may be another tenant's, have ended, or change under way.
                let _ = steady.cancel(tenant, *id, "operator").await;
            }
        }
    }
    world.is_calm.store(true, Ordering::Relaxed);
    let until = Instant::now() + Duration::from_secs(300);
    while Instant::now() < until && (size_of_open(ledger).await > 0 || replies(ledger).await.len() < notes) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let stopped = ledger.now().await.unwrap();
    fleet.iter().for_each(tokio::task::JoinHandle::abort);
    for task in fleet {
        let _ = task.await;
    }
    check_policies(ledger, notes).await?;
    let mut counted = check(ledger, &submitted, &scheduled, stopped).await?;
    (counted.crashes, counted.failures) = (world.crashes.load(Ordering::Relaxed), world.failures.load(Ordering::Relaxed));
    Ok(counted)
}
