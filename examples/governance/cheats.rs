//! Ways to get a version into force without its approvals. Each is tried, and must be refused for its own reason.

use logline_core::trust::governance::{
    Class, Environment, Proposed, Refusal, Statement, Version, VoidReason, Wish, pointer_id,
};
use logline_core::{Draft, KeyPair, Timestamp};
use serde_json::json;

use crate::Result;
use crate::site::{Site, TENANT};

/// How many of the rows that are written here an audit must name: the promotion that a host's key has forged.
pub(crate) const SMUGGLED: usize = 1;

/// Tries everything on a version that nobody has approved. Whether all was refused.
pub(crate) async fn all(site: &Site, promoted: &Proposed, third: &KeyPair) -> Result<bool> {
    let [one, ..] = &site.keys.approvers;
    let v1 = site.publish(99).await?;
    let production = Wish::promote(Environment::Production);
    let proposed = site.propose(&v1, &production).await?;
    let mut held = true;
    let mut tried = |what: &str, reason: Option<String>, expected: bool| {
        println!("   {} {what}: {}", if expected { "ok " } else { "NO " }, reason.unwrap_or_else(|| "it counts".to_owned()));
        held &= expected;
    };

    // Votes that do not count.
    let said = site.statement(&proposed);
    let own = said.clone();
    let swapped = Statement { approves: promoted.proposal.subject.curr_hash, ..said.clone() };
    let staging = Statement { environment: Environment::Staging, ..said.clone() };
    let elsewhere = Statement { ledger: logline_core::Hash::of(b"the ledger of another company"), ..said.clone() };
    let late = Statement { expires: Timestamp::EPOCH, ..said.clone() };
    let moved = Statement { replaces: None, ..said.clone() };
    type Expected = fn(&VoidReason) -> bool;
    let votes: [(&str, Statement, &KeyPair, Expected); 6] = [
        ("the proposer approves", own, &site.keys.publisher, |reason| *reason == VoidReason::Proposer),
        ("an approval of another version", swapped, one, |reason| *reason == VoidReason::Other { what: "version" }),
        ("an approval for staging", staging, one, |reason| *reason == VoidReason::Other { what: "environment" }),
        ("an approval for another ledger", elsewhere, one, |reason| *reason == VoidReason::Other { what: "ledger" }),
        ("an approval that has ended", late, one, |reason| matches!(reason, VoidReason::Expired { .. })),
        ("an approval from another base", moved, one, |reason| *reason == VoidReason::BaseMoved),
    ];
    for (what, statement, key, expected) in votes {
        let known = site.docket(&proposed).await?.tally.void.len();
        site.vote(&proposed, statement, key).await?;
        let void = site.docket(&proposed).await?.tally.void;
        let reason = void.iter().map(|void| &void.reason).find(|reason| expected(reason));
        tried(what, reason.map(ToString::to_string), reason.is_some() && void.len() == known + 1);
    }
    site.approve(&proposed, third).await?;
    site.approve(&proposed, third).await?;
    let tally = site.docket(&proposed).await?.tally;
    let reason = tally.void.iter().find(|void| void.reason == VoidReason::Again).map(|void| void.reason.to_string());
    tried("one key approves twice", reason, tally.counted.len() == 1);

    // Proposals that are not carried out.
    let again = site.propose(&site.version(&promoted.proposal.subject).await?, &production).await?;
    let refused = site.docket(&again).await?.tally.verdict.err();
    tried("a change that changes nothing", refused.as_ref().map(ToString::to_string), refused == Some(Refusal::NoChange));

    // A host's key is stolen, and writes a promotion of its own.
    let pointer = pointer_id(TENANT, Environment::Production, Class::Function, Site::function());
    let last = site.last(pointer).await?;
    let mut forged = last.meta("promotion").cloned().unwrap_or_default();
    if let Some(members) = forged.as_object_mut() {
        members.insert("subject".to_owned(), json!(Version::of(&v1)));
    }
    site.smuggle(Draft::next_version(&last).meta("promotion", forged), &site.keys.host).await?;
    let rate = site.run().await?.1?;
    tried("a host's key writes a promotion", Some(format!("hosts skip it, the rate is still {rate}")), rate == 25);
    tried("the version that nobody approved", Some(format!("rate {rate}, not 99")), rate != 99);
    println!("   the vote stands at {} of {}", tally.counted.len(), tally.needed);
    Ok(held)
}
