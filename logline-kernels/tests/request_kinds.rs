//! Which kernel carries out which request, and what becomes of requests for which there is none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use logline_core::contract::{AskedBy, Context, Effects, Kernel, KernelError, Meters, RequestKind, Sandbox};
use logline_core::ledger::LedgerExt as _;
use logline_core::request::{NotRunnable, Request};
use logline_core::roles::Role;
use logline_core::{
    Draft, Failure, Host, HostError, KernelSet, MemoryLedger, SYSTEM_TENANT, Scope, SignedSpan, Signer as _, SystemClock,
    VerifiedSpan, Visibility, ids,
};
use logline_kernels::{Loops, Run as _, Worker, WorkerOptions};
use serde_json::{Value, json};
use setup::{HOST, STRANGER, TENANT, USER, block_on, echo, key, run_until, until};
use uuid::{Uuid, uuid};

const PING: Uuid = uuid!("00000000-0000-4000-8000-00000000face");
const MEMBER: u8 = 70;

struct Ping;

#[async_trait]
impl Kernel for Ping {
    fn id(&self) -> Uuid {
        PING
    }

    fn name(&self) -> &'static str {
        "ping"
    }

    fn version(&self) -> u32 {
        1
    }

    fn requests(&self) -> &'static [RequestKind] {
        &[
            RequestKind { this: "ping.anybody", asked_by: AskedBy::Anybody, meters: Meters::NONE },
            RequestKind { this: "ping.hosts", asked_by: AskedBy::Hosts, meters: Meters::NONE },
        ]
    }

    fn lacks(&self, _: Option<&SignedSpan>, _: &[Arc<dyn Sandbox>]) -> Option<String> {
        None
    }

    async fn run(&self, request: &VerifiedSpan, _: &Context<'_>) -> Result<Effects, KernelError> {
        let emitted = Draft::new("note").tenant(TENANT).owner(&request.owner_id).who("kernel:ping").this("note.ping");
        let emitted = emitted.id(ids::derive("test", &[&request.id.to_string()]));
        let result = match request.input.as_ref().and_then(Value::as_str) {
            Some("fail") => Err(Failure::new("asked_to", "it was asked to fail")),
            Some("huge") => Ok(json!("x".repeat(2 << 20))),
            _ => Ok(json!("pong")),
        };
        Ok(Effects::new(result).emitted(vec![emitted]))
    }
}

fn with_ping() -> KernelSet {
    let seed = Draft::new("function")
        .id(PING)
        .tenant(SYSTEM_TENANT)
        .owner(SYSTEM_TENANT)
        .visibility(Visibility::Public)
        .who("logline")
        .this("function.ping")
        .runtime("native@1")
        .code("ping@1")
        .metadata(json!({"requests": ["ping.anybody"], "host_requests": ["ping.hosts"]}));
    logline_kernels::all().and(KernelSet::new().kernel(Ping).seeds([seed]))
}

async fn site() -> MemoryLedger {
    let manifest = setup::manifest().allow_all(&with_ping()).grant(key(MEMBER).public_key(), Role::Member, [TENANT]);
    setup::ledger_with(&manifest, &with_ping()).await
}

fn request(this: &str) -> Request {
    Request::new(TENANT, USER, ids::derive("function", &["any"]), json!(1)).this(this)
}

/// The same, signed by a member and written behind the host's back.
async fn by_member(ledger: &MemoryLedger, this: &str) -> VerifiedSpan {
    let draft = request(this).into_draft(ids::derive("member", &[this])).stamp(&SystemClock, &logline_core::SystemIds);
    let span = draft.seal_local(&key(MEMBER)).unwrap();
    ledger.append_one(&Scope::Operator, span.clone()).await.unwrap();
    span
}

async fn last(ledger: &MemoryLedger, id: Uuid) -> (String, Option<String>) {
    let span = ledger.find(&Scope::runtime(TENANT), TENANT, id).await.unwrap().unwrap();
    let code = span.error.as_ref().map(|error| error["code"].as_str().unwrap().to_owned());
    (span.span.status.unwrap(), code)
}

fn reason(error: HostError) -> NotRunnable {
    match error {
        HostError::NotRunnable(reason) => reason,
        other => panic!("{other}"),
    }
}

#[test]
fn a_request_goes_to_the_kernel_that_declares_it() {
    block_on(async {
        let ledger = site().await;
        let host = setup::host_that(&ledger, HOST, with_ping()).await;
        let done = host.execute(request("ping.anybody")).await.unwrap();
        assert_eq!(done.result, Ok(json!("pong")));
        assert_eq!((done.span.who.as_str(), done.span.this.as_str()), ("kernel:ping", "ping.anybody"));
        assert_eq!(done.span.meta("kernel").unwrap()["id"], PING.to_string());
        assert_eq!(host.execute(request("ping.hosts")).await.unwrap().result, Ok(json!("pong")), "a host has signed it");
        let member = by_member(&ledger, "ping.anybody").await;
        assert!(host.run_request(TENANT, member.id).await.unwrap().result.is_ok());
    });
}

#[test]
fn what_a_failed_kernel_emits_is_not_written_and_what_cannot_be_stored_is_a_failure() {
    block_on(async {
        let ledger = site().await;
        let host = setup::host_that(&ledger, HOST, with_ping()).await;
        for (input, code) in [("fail", "asked_to"), ("huge", "invalid_output")] {
            let mut asked = request("ping.anybody");
            asked.input = json!(input);
            let done = host.execute(asked).await.unwrap();
            assert_eq!(done.result.unwrap_err().code, code);
            assert_eq!(done.request.status.as_deref(), Some("error"));
        }
        assert!(setup::spans(&ledger, "note").await.is_empty());
    });
}

#[test]
fn a_host_that_lacks_a_kernel_leaves_its_requests_to_others() {
    block_on(async {
        let ledger = site().await;
        let without = setup::host_as(&ledger, HOST).await;
        let asked = without.submit(request("ping.anybody")).await.unwrap();
        let refused = reason(without.run_request(TENANT, asked.id).await.unwrap_err());
        assert!(matches!(refused, NotRunnable::NoKernel { .. }), "{refused}");
        assert_eq!(last(&ledger, asked.id).await, ("scheduled".to_owned(), None));
        let with = setup::host_that(&ledger, HOST, with_ping()).await;
        assert!(with.run_request(TENANT, asked.id).await.unwrap().result.is_ok());
    });
}

#[test]
fn a_worker_goes_on_beside_requests_for_which_it_has_no_kernel() {
    block_on(async {
        let ledger = site().await;
        let host = setup::host_as(&ledger, HOST).await;
        let function = setup::publish(&host, &echo()).await;
        for _ in 0..5 {
            host.submit(request("ping.anybody")).await.unwrap();
        }
        host.submit(Request::new(TENANT, USER, function, json!(1))).await.unwrap();
        let worker = Worker::new(WorkerOptions::default().poll(Duration::from_millis(5)));
        run_until(&host, worker, until(&ledger, 1, |row| row.entity_type == "execution")).await;
    });
}

#[test]
fn a_request_that_no_kernel_of_the_manifest_carries_out_is_closed() {
    block_on(async {
        let ledger = site().await;
        let host = setup::host_as(&ledger, HOST).await;
        for span in [by_member(&ledger, "transfer.approve").await, host.submit(request("pong.anybody")).await.unwrap()] {
            let refused = reason(host.run_request(TENANT, span.id).await.unwrap_err());
            assert!(matches!(refused, NotRunnable::UnknownKind { .. }), "{refused}");
            assert_eq!(last(&ledger, span.id).await, ("error".to_owned(), Some("request_unknown".to_owned())));
        }
    });
}

#[test]
fn a_member_cannot_ask_for_what_only_hosts_may_ask_whether_the_host_has_the_kernel_or_not() {
    block_on(async {
        for set in [logline_kernels::all(), with_ping()] {
            let ledger = site().await;
            let host = setup::host_that(&ledger, HOST, set).await;
            let forged = by_member(&ledger, "ping.hosts").await;
            let refused = reason(host.run_request(TENANT, forged.id).await.unwrap_err());
            assert!(matches!(refused, NotRunnable::NotPermitted { .. }), "{refused}");
            let closed = (String::from("error"), Some("request_not_permitted".to_owned()));
            assert_eq!(last(&ledger, forged.id).await, closed);
            // What was refused stays refused.
            assert!(host.revive(TENANT, forged.id, "user:alice").await.is_ok(), "its signer may write requests");
            let again = reason(host.run_request(TENANT, forged.id).await.unwrap_err());
            assert!(matches!(again, NotRunnable::NotPermitted { .. }), "{again}");
        }
    });
}

#[test]
fn what_was_refused_because_of_its_signer_cannot_be_revived() {
    block_on(async {
        let ledger = site().await;
        let host = setup::host_that(&ledger, HOST, with_ping()).await;
        let draft = request("ping.anybody").into_draft(ids::derive("stranger", &["1"]));
        let stranger = setup::smuggle(&ledger, draft, STRANGER).await;
        assert!(host.run_request(TENANT, stranger.id).await.is_err());
        assert_eq!(last(&ledger, stranger.id).await.1.as_deref(), Some("request_not_authorised"));
        let error = host.revive(TENANT, stranger.id, "user:alice").await.unwrap_err();
        assert!(matches!(error, HostError::NotAuthorised(_)), "{error}");
        assert!(host.cancel(TENANT, stranger.id, "user:alice").await.is_err());
    });
}

#[test]
fn a_worker_with_nothing_to_carry_out_refuses_to_start() {
    block_on(async {
        let ledger = site().await;
        let host = setup::host_that(&ledger, HOST, KernelSet::new().service(Worker::default())).await;
        let error = host.run(Worker::default(), std::future::pending()).await.unwrap_err();
        assert!(matches!(error, HostError::Missing { .. }), "{error}");
    });
}

#[test]
fn a_report_is_found_by_the_name_of_its_loop() {
    block_on(async {
        let ledger = site().await;
        let host: Host = setup::host_that(&ledger, HOST, with_ping()).await;
        let loops = Loops::none().with(Worker::default());
        host.submit(request("ping.anybody")).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let wait = async {
            until(&ledger, 1, |row| row.entity_type == "execution").await;
            drop(stop);
        };
        let run = host.run(loops, async { drop(stopped.await) });
        let ran = futures_util::future::join(run, wait).await.0.unwrap();
        let counts: Vec<_> = ran.iter().map(|(name, report)| (name, report.counts())).collect();
        assert_eq!(counts[0].0, "request_worker");
        assert!(counts[0].1.contains(&("claimed", 1)), "{counts:?}");
    });
}

#[test]
fn a_host_without_the_functions_sandbox_leaves_the_request_and_a_worker_without_any_refuses_to_start() {
    block_on(async {
        let ledger = site().await;
        let with = setup::host_as(&ledger, HOST).await;
        let function = setup::publish(&with, &echo()).await;
        let asked = with.submit(Request::new(TENANT, USER, function, json!(1))).await.unwrap();
        let bare = Host::builder().ledger(ledger.clone()).trust(setup::trust()).key(key(HOST)).install(logline_kernels::all());
        let bare = bare.build().await.unwrap();
        let refused = reason(bare.run_request(TENANT, asked.id).await.unwrap_err());
        assert!(matches!(refused, NotRunnable::NotEquipped { .. }), "{refused}");
        assert_eq!(
            last(&ledger, asked.id).await,
            ("scheduled".to_owned(), None),
            "what a host lacks is not the request's failure"
        );
        let error = bare.run(Worker::default(), std::future::pending()).await.unwrap_err();
        assert!(matches!(error, HostError::NotEquipped { .. }), "{error}");
        assert_eq!(bare.lacking().len(), 1);
        assert!(with.run_request(TENANT, asked.id).await.unwrap().result.is_ok());
    });
}

/// A caller who gets an error calls again. Had the first call stored its request, both would run later.
#[test]
fn what_a_host_could_never_carry_out_it_does_not_store() {
    block_on(async {
        let ledger = site().await;
        let with = setup::host_as(&ledger, HOST).await;
        let function = setup::publish(&with, &echo()).await;
        let builder = || Host::builder().ledger(ledger.clone()).trust(setup::trust()).key(key(HOST));
        let (bare, empty) =
            (builder().install(logline_kernels::all()).build().await.unwrap(), builder().build().await.unwrap());
        let asked = || Request::new(TENANT, USER, function, json!(1));
        let error = bare.execute(asked()).await.unwrap_err();
        assert!(matches!(&error, HostError::NotEquipped { lacks } if lacks.contains("sandbox")), "{error}");
        let error = empty.execute(asked()).await.unwrap_err();
        assert!(matches!(error, HostError::Missing { .. }), "{error}");
        assert!(setup::spans(&ledger, "request").await.is_empty());
        let error = empty.run(Loops::installed(&empty), std::future::pending()).await.unwrap_err();
        assert!(matches!(error, HostError::NothingToRun), "{error}");
    });
}

#[test]
fn terms_that_no_request_can_have_are_refused_and_not_changed() {
    block_on(async {
        let ledger = site().await;
        let host = setup::host_as(&ledger, HOST).await;
        let function = setup::publish(&host, &echo()).await;
        let asked = || Request::new(TENANT, USER, function, json!(1));
        for asked in [asked().priority(10), asked().max_attempts(0), asked().max_attempts(1001)] {
            let refused = reason(host.submit(asked).await.unwrap_err());
            assert!(matches!(refused, NotRunnable::Malformed { .. }), "{refused}");
        }
        assert!(setup::spans(&ledger, "request").await.is_empty());
        host.submit(asked().priority(9).max_attempts(1000)).await.unwrap();
    });
}

#[test]
fn callers_who_execute_beside_a_worker_get_the_recorded_outcome_and_run_nothing_twice() {
    block_on(async {
        let ledger = site().await;
        let host = setup::host_as(&ledger, HOST).await;
        let function = setup::publish(&host, &echo()).await;
        let worker = Worker::new(WorkerOptions::default().poll(Duration::from_millis(1)));
        let calls = async {
            let calls = (0..50).map(|n| host.execute(Request::new(TENANT, USER, function, json!(n))));
            for (n, done) in futures_util::future::join_all(calls).await.into_iter().enumerate() {
                let done = done.unwrap();
                assert_eq!(done.result.unwrap()["input"], json!(n));
                assert_eq!(done.request.status.as_deref(), Some("complete"));
            }
        };
        run_until(&host, worker, calls).await;
        assert_eq!(setup::spans(&ledger, "execution").await.len(), 50);
    });
}

#[test]
fn an_outcome_that_will_be_tried_again_says_when() {
    block_on(async {
        let ledger = site().await;
        let host = setup::host_that(&ledger, HOST, with_ping()).await;
        let mut asked = request("ping.anybody").max_attempts(3).idempotency_key("k");
        asked.input = json!("fail");
        let done = host.execute(asked.clone()).await.unwrap();
        assert!(done.retry_at().is_some_and(|at| at > done.request.at), "{:?}", done.request.span);
        // Asked again, it is not run again before its time, and says the same.
        let again = host.execute(asked).await.unwrap();
        assert_eq!((again.retry_at(), again.span.id), (done.retry_at(), done.span.id));
        let mut once = request("ping.anybody");
        once.input = json!("fail");
        assert_eq!(host.execute(once).await.unwrap().retry_at(), None);
    });
}

/// A kernel whose first attempt waits to be told to go on.
struct Slow(Arc<tokio::sync::Notify>, Arc<tokio::sync::Notify>);

#[async_trait]
impl Kernel for Slow {
    fn id(&self) -> Uuid {
        PING
    }

    fn name(&self) -> &'static str {
        "ping"
    }

    fn version(&self) -> u32 {
        1
    }

    fn requests(&self) -> &'static [RequestKind] {
        &[RequestKind { this: "ping.anybody", asked_by: AskedBy::Anybody, meters: Meters::NONE }]
    }

    fn lacks(&self, _: Option<&SignedSpan>, _: &[Arc<dyn Sandbox>]) -> Option<String> {
        None
    }

    async fn run(&self, _: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        self.0.notify_one();
        if context.attempt.number == 1 {
            self.1.notified().await;
        } else {
            // Longer than its lease, so that it ends well only if it gets heartbeats.
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        Ok(Effects::new(Ok(json!(context.attempt.number))))
    }
}

#[test]
fn a_newer_attempt_of_the_same_worker_keeps_its_heartbeat_when_the_older_one_ends() {
    block_on(async {
        let ledger = site().await;
        let (is_here, go_on) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
        let set = logline_kernels::all().and(KernelSet::new().kernel(Slow(Arc::clone(&is_here), Arc::clone(&go_on))));
        let host = setup::host_that(&ledger, HOST, set).await;
        let options = WorkerOptions::default().poll(Duration::from_millis(5)).lease(Duration::from_millis(1500));
        let asked = host.submit(request("ping.anybody").max_attempts(5)).await.unwrap();
        let test = async {
            is_here.notified().await;
            host.cancel(TENANT, asked.id, "user:alice").await.unwrap();
            host.revive(TENANT, asked.id, "user:alice").await.unwrap();
            is_here.notified().await;
            // The older one ends now, if it was not stopped.
            go_on.notify_one();
            until(&ledger, 1, |row| row.id == asked.id && row.status.as_deref() == Some("complete")).await;
        };
        run_until(&host, Worker::new(options), test).await;
        let executions = setup::spans(&ledger, "execution").await;
        assert_eq!(executions.len(), 2, "one cancelled, one that ended well");
    });
}

/// Otherwise every member would outrank the rest of its tenant with a priority of its own choice.
#[test]
fn a_member_that_outranks_what_the_manifest_allows_is_refused() {
    block_on(async {
        let mut manifest = setup::manifest().allow_all(&with_ping()).grant(key(MEMBER).public_key(), Role::Member, [TENANT]);
        manifest.throttle.member_max_priority = Some(5);
        let ledger = setup::ledger_with(&manifest, &with_ping()).await;
        let host = setup::host_that(&ledger, HOST, with_ping()).await;
        let ask = async |n: u128, priority: Option<u8>| {
            let request = request("ping.anybody");
            let request = match priority {
                Some(priority) => request.priority(priority),
                None => request,
            };
            let draft = request.into_draft(Uuid::from_u128(n)).stamp(&SystemClock, &logline_core::SystemIds);
            let span = draft.seal_local(&key(MEMBER)).unwrap();
            ledger.append_one(&Scope::Operator, span.clone()).await.unwrap();
            host.run_request(TENANT, span.id).await
        };
        let refused = reason(ask(1, Some(6)).await.unwrap_err());
        assert!(matches!(refused, NotRunnable::PriorityTooHigh { priority: 6, max: 5, .. }), "{refused}");
        assert_eq!(last(&ledger, Uuid::from_u128(1)).await, ("error".to_owned(), Some("request_not_permitted".to_owned())));
        assert!(host.revive(TENANT, Uuid::from_u128(1), "user:mallory").await.is_err(), "and stays refused");
        for (n, priority) in [(2, Some(5)), (3, None), (4, Some(0))] {
            assert!(ask(n, priority).await.unwrap().result.is_ok(), "{priority:?}");
        }
        assert!(host.execute(request("ping.anybody").priority(9)).await.unwrap().result.is_ok(), "a host is not limited");
    });
}
