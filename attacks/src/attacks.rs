//! What a hostile user does.

use std::time::Duration;

use clap::ValueEnum;
use futures_util::future::{Either, pending, select};
use logline_core::request::Request;
use logline_core::{Clock as _, Draft, IdSource as _, MAX_INTEGER, SystemClock, SystemIds, Visibility, ids};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::guests;
use crate::site::{ATTACKER, Failure, HOSTILE, Key, Site, function};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// Requests that nobody can follow with another version.
    Unclosable,
    /// Requests signed by a key that nobody knows.
    Strangers,
    /// More requests than the host can carry out.
    Flood,
    /// Requests with the highest priority.
    Priority,
    /// Requests for a function that uses all its fuel.
    Spinning,
    /// Functions that read rows which they may not see.
    HiddenRows,
    /// Functions that read the private rows of another tenant.
    ForeignRows,
    /// Policies in WebAssembly that use all their fuel.
    SpinningPolicies,
    /// Active policies signed by a key that nobody knows.
    ForgedPolicies,
    /// A policy that is due again and again.
    DueAgain,
    /// Requests of as many tenants, for functions that do not exist.
    ManyTenants,
}

/// Prepares an attack and keeps it up while `measured` runs.
pub(crate) async fn during<T>(
    site: &Site,
    attack: Attack,
    size: usize,
    measured: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    prepare(site, attack, size).await?;
    match select(std::pin::pin!(measured), std::pin::pin!(keep_up(site, attack))).await {
        Either::Left((measured, _)) => measured,
        Either::Right((failed, _)) => Err(failed),
    }
}

fn request(site: &Site, function: Option<Uuid>) -> Request {
    Request::new(HOSTILE, ATTACKER, function.unwrap_or(site.echo()), json!(1))
}

fn draft(request: Request) -> Draft {
    request.into_draft(SystemIds.next_id(SystemClock.now()))
}

fn private_note(tenant: &str, owner: &str) -> Draft {
    Draft::new("note").tenant(tenant).owner(owner).who("user").this("note").visibility(Visibility::Private)
}

/// Arrays in each other.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

async fn prepare(site: &Site, attack: Attack, size: usize) -> Result<(), Failure> {
    let plain = || draft(request(site, None));
    match attack {
        Attack::Unclosable => {
            let kinds: [fn(Draft) -> Draft; 5] = [
                |draft| draft.seq(MAX_INTEGER),
                |draft| draft.seq(MAX_INTEGER - 1),
                |draft| draft.metadata(nested(62)),
                |draft| draft.meta("max_attempts", "many"),
                |draft| draft.related((0..2000).map(|n: u32| ids::derive("relation", &[&n.to_string()]))),
            ];
            let drafts = (0..size).map(|n| kinds.get(n % kinds.len()).map_or_else(plain, |change| change(plain())));
            site.fill(drafts.collect(), Key::Member).await
        }
        Attack::Strangers => site.fill((0..size).map(|_| plain()).collect(), Key::Stranger).await,
        Attack::Flood => site.fill((0..size).map(|_| plain()).collect(), Key::Member).await,
        Attack::Priority => {
            let drafts = (0..size).map(|_| draft(request(site, None).priority(9)));
            site.fill(drafts.collect(), Key::Member).await
        }
        Attack::Spinning => {
            let spin = site.publish(function(HOSTILE, ATTACKER, &guests::spin())).await?;
            let drafts = (0..size.div_ceil(10)).map(|_| draft(request(site, Some(spin))));
            site.fill(drafts.collect(), Key::Member).await
        }
        Attack::HiddenRows | Attack::ForeignRows => {
            let (tenant, query) = match attack {
                Attack::HiddenRows => (HOSTILE, json!({"entity_type": "note", "limit": 1})),
                _ => ("tenant-1", json!({"tenant": "tenant-1", "entity_type": "note"})),
            };
            site.fill((0..size * 10).map(|_| private_note(tenant, "bob")).collect(), Key::Host).await?;
            let reads = site.publish(function(HOSTILE, ATTACKER, &guests::query(&query.to_string()))).await?;
            let drafts = (0..size.div_ceil(10)).map(|_| draft(request(site, Some(reads))));
            site.fill(drafts.collect(), Key::Member).await
        }
        Attack::SpinningPolicies => {
            for n in 0..12 {
                let spins = policy(&format!("spins_{n}"), json!({"on": ["note"]}));
                site.publish(spins.language("wasm").runtime("wasm@1").code(guests::spin())).await?;
            }
            let notes = (0..size.div_ceil(10)).map(|_| private_note(HOSTILE, ATTACKER).visibility(Visibility::Tenant));
            site.write(notes.collect(), Key::Member).await.map(drop)
        }
        Attack::ForgedPolicies => {
            let replies = json!({"on": ["note"], "when": "true", "then": [{"emit": {"entity_type": "reply"}}]});
            let forged = (0..size).map(|n| policy(&format!("forged_{n}"), replies.clone()).owner(ATTACKER));
            site.fill(forged.collect(), Key::Stranger).await
        }
        Attack::DueAgain => {
            let again = json!({"on": ["note"], "when": "true", "due": "now + duration('1ms')",
                "then": [{"emit": {"entity_type": "note", "content": "again"}}]});
            site.publish(policy("again", again)).await?;
            let notes = (0..size.div_ceil(10)).map(|_| private_note(HOSTILE, ATTACKER).visibility(Visibility::Tenant));
            site.write(notes.collect(), Key::Member).await.map(drop)
        }
        Attack::ManyTenants => {
            let of = |n: usize| {
                let nothing = ids::derive("function", &["none"]);
                draft(Request::new(format!("crowd-{n}"), ATTACKER, nothing, json!(1)))
            };
            site.fill((0..size).map(of).collect(), Key::Host).await
        }
    }
}

fn policy(name: &str, content: Value) -> Draft {
    Draft::new("policy")
        .id(logline_policy::policy_id(name))
        .tenant(HOSTILE)
        .owner("compliance")
        .who("publisher")
        .this(format!("policy.{name}"))
        .name(name)
        .status("active")
        .language("cel")
        .content(content)
}

/// Repeats what has to be repeated. Returns only if it fails.
async fn keep_up(site: &Site, attack: Attack) -> Failure {
    let one = match attack {
        // New rows make the host look at the policies again.
        Attack::SpinningPolicies | Attack::ForgedPolicies => private_note(HOSTILE, ATTACKER).visibility(Visibility::Tenant),
        // Each is a reason to read the manifest again.
        Attack::Strangers => draft(request(site, None)),
        _ => return pending().await,
    };
    loop {
        let signer = if attack == Attack::Strangers { Key::Stranger } else { Key::Member };
        let mut again = one.clone();
        again.columns_mut().id = SystemIds.next_id(SystemClock.now());
        if let Err(failed) = site.write(vec![again], signer).await {
            return failed;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
