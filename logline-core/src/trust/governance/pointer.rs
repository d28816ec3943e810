//! What is in force: the promotions of one span in one environment, in their order.
//!
//! A promotion is the next version of one span, the pointer, whose id follows from tenant, environment, class and subject. So it names
//! its predecessor by `prev_hash`, and of two hosts that promote at the same time one wins. Content never moves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::span::draft::Draft;
use crate::span::{SignedSpan, Visibility};
use crate::trust::governance::class::{Class, Environment};
use crate::trust::governance::decide::{Counted, Tally};
use crate::trust::governance::proposal::{Act, Proposed, Version};
use crate::trust::governance::rules::Rules;
use crate::value::hex::Hash;
use crate::value::ids;
use crate::value::timestamp::Timestamp;

/// The member of a promotion's metadata that holds it.
const MEMBER: &str = "promotion";

/// What one promotion has put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The version in force.
    pub subject: Version,
    /// The version of the pointer that says so.
    pub promotion: Version,
    /// The proposal that was carried out.
    pub proposal: Uuid,
    /// What was done.
    pub act: Act,
    /// The approvals that counted.
    pub approvals: Vec<Counted>,
    /// When it was done, by the ledger's clock.
    pub at: Timestamp,
    /// Whether it was an emergency, with fewer approvals.
    pub is_emergency: bool,
    /// Its end, exclusive; `None` if it has none. Emergency promotions end. Emergency rollbacks do not: they go back to what the usual
    /// approvals have allowed.
    pub until: Option<Timestamp>,
    /// The number of the manifest under which it was decided.
    pub manifest: u64,
}

/// The promotions of one span in one environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pointer {
    /// Those that count, oldest first.
    pub(crate) held: Vec<Held>,
    /// Those that do not count, and why.
    pub(crate) skipped: Vec<(Version, String)>,
    /// The last version of the pointer, whether it counts or not.
    pub(crate) last: Option<Version>,
    /// The owner of the pointer; `None` if it has no version yet.
    pub(crate) owner: Option<String>,
}

impl Pointer {
    /// What is in force at `now`. An emergency promotion that has ended gives way to what was in force before it, and so does one that is dated
    /// into the future: otherwise whoever has a host's key could make an emergency last as long as they like.
    #[must_use]
    pub fn in_force(&self, now: Timestamp) -> Option<&Held> {
        self.held.iter().rev().find(|held| held.until.is_none_or(|until| held.at <= now && now < until))
    }

    /// `now`, or the time of the last promotion if a clock was set back since: what had ended then has ended.
    #[must_use]
    pub(crate) fn not_before_last(&self, now: Timestamp) -> Timestamp {
        // The date of an emergency is bounded by nothing but its host, so it holds nobody up.
        self.held.iter().rev().find(|held| held.until.is_none()).map_or(now, |last| now.max(last.at))
    }

    /// What was in force at an earlier time.
    #[must_use]
    pub fn was_in_force_at(&self, at: Timestamp) -> Option<&Held> {
        self.held.iter().rev().find(|held| held.at <= at && held.until.is_none_or(|until| at < until))
    }

    /// The last promotion, if it was an emergency: nobody has reviewed it yet.
    #[must_use]
    pub fn awaits_review(&self) -> Option<&Held> {
        self.held.last().filter(|held| held.is_emergency)
    }

    /// Whether `version` was in force before, by more than an emergency.
    #[must_use]
    pub fn was_in_force(&self, version: &Version) -> bool {
        self.held.iter().any(|held| held.subject == *version && !held.is_emergency)
    }

    /// The promotions that count, oldest first.
    #[must_use]
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// The versions of the pointer that do not count, and why. They are ignored.
    #[must_use]
    pub fn skipped(&self) -> &[(Version, String)] {
        &self.skipped
    }
}

/// The id of the pointer to what is in force.
#[must_use]
pub fn pointer_id(tenant: &str, environment: Environment, class: Class, subject: Uuid) -> Uuid {
    ids::derive("promotion", &[tenant, environment.as_str(), class.as_str(), &subject.to_string()])
}

/// What the span of a promotion says. What follows from the proposal is not repeated, except for what readers look for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Promoted {
    pub(crate) act: Act,
    pub(crate) environment: Environment,
    pub(crate) class: Class,
    pub(crate) subject: Version,
    pub(crate) replaces: Option<Hash>,
    pub(crate) proposal: Version,
    /// The manifest under which it was decided.
    pub(crate) manifest: Hash,
    pub(crate) approvals: Vec<Approved>,
    /// The spans that say which gates were passed.
    pub(crate) gates: Vec<Version>,
    pub(crate) emergency: Option<Marked>,
}

/// An approval that counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Approved {
    pub(crate) id: Uuid,
    pub(crate) curr_hash: Hash,
    pub(crate) key: crate::value::hex::PublicKey,
}

/// The mark of an emergency promotion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Marked {
    pub(crate) reason: String,
    /// How long it is in force, in seconds from the promotion.
    pub(crate) lasts_s: u64,
}

impl Promoted {
    pub(crate) fn of(span: &SignedSpan) -> Result<Self, String> {
        if span.entity_type != "promotion" || span.is_deleted {
            return Err("it is not a promotion".to_owned());
        }
        let value = span.meta(MEMBER).ok_or_else(|| format!("metadata has no member `{MEMBER}`"))?;
        serde_json::from_value(value.clone()).map_err(|error| error.to_string())
    }
}

/// A proposal that may be carried out: the spans that do it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Carried {
    /// The next version of the pointer.
    pub promotion: Draft,
    /// What stands beside it: the record of a rollback; the notice of an emergency to those who were not asked.
    pub others: Vec<Draft>,
}

/// What [`carry_out`] needs besides the proposal and the outcome of its vote.
pub(crate) struct Carrying<'a> {
    pub(crate) proposed: &'a Proposed,
    pub(crate) proposal_seq: u32,
    pub(crate) tally: &'a Tally,
    pub(crate) rules: &'a Rules,
    pub(crate) pointer: &'a Pointer,
    pub(crate) manifest: Hash,
    pub(crate) gates: Vec<Version>,
    pub(crate) owner: &'a str,
    pub(crate) now: Timestamp,
}

/// Drafts the spans that carry out a proposal. Two hosts that find the same votes draft the same.
pub(crate) fn carry_out(carrying: &Carrying<'_>) -> Carried {
    let Carrying { proposed, tally, rules, pointer, manifest, gates, owner, now, .. } = carrying;
    let (proposal, tenant) = (&proposed.proposal, &proposed.tenant);
    let (environment, class, subject) = (proposal.environment, proposal.class, proposal.subject);
    let id = pointer_id(tenant, environment, class, subject.id);
    let emergency = rules.emergency.zip(proposal.emergency.clone());
    let marked = emergency.map(|(rule, reason)| Marked { reason, lasts_s: rule.expires_s });
    let said = Promoted {
        act: proposal.act,
        environment,
        class,
        subject,
        replaces: proposal.replaces,
        proposal: Version { id: proposed.id, seq: carrying.proposal_seq, curr_hash: proposed.curr_hash },
        manifest: *manifest,
        approvals: tally
            .counted
            .iter()
            .map(|vote| Approved { id: vote.id, curr_hash: vote.curr_hash, key: vote.key })
            .collect(),
        gates: gates.clone(),
        emergency: marked.clone(),
    };
    let base = |entity_type: &str, did: &str| {
        Draft::new(entity_type)
            .tenant(tenant)
            .owner(*owner)
            .visibility(Visibility::Tenant)
            .at(*now)
            .who("kernel:governance")
            .did(did)
            .related([subject.id, proposed.id])
    };
    let did = match proposal.act {
        Act::Promote => "promoted",
        Act::Rollback => "rolled_back",
    };
    let mut promotion = base("promotion", did)
        .id(id)
        .this(format!("{class}.{environment}"))
        .parent(subject.id)
        .status(if marked.is_some() { "emergency" } else { "active" })
        // A struct of texts and numbers always serialises.
        .metadata(json!({ MEMBER: serde_json::to_value(&said).unwrap_or_default() }));
    let seq = match pointer.last {
        Some(last) => {
            promotion = promotion.seq(last.seq.saturating_add(1)).follows(last.curr_hash);
            last.seq.saturating_add(1)
        }
        None => 0,
    };
    let mut others = Vec::new();
    let reference = json!({"tenant": tenant, "id": id.to_string(), "seq": seq});
    if proposal.act == Act::Rollback {
        others.push(
            base("rollback", "rolled_back")
                .id(ids::derive("rollback", &[tenant, &id.to_string(), &seq.to_string()]))
                .this(format!("{class}.{environment}"))
                .parent(subject.id)
                .status("complete")
                .metadata(json!({"rollback": {
                    "promotion": reference,
                    "from": proposal.replaces.map(|hash| hash.to_string()),
                    "to": subject,
                    "proposal": proposed.id.to_string(),
                    "reason": proposal.reason,
                }})),
        );
    }
    if let Some(marked) = marked {
        let asked: Vec<_> = tally.counted.iter().chain(&tally.rejected).map(|vote| vote.key).collect();
        let skipped: Vec<_> = rules.approvers.iter().filter(|key| !asked.contains(key)).map(ToString::to_string).collect();
        others.push(
            base("escalation_request", "notified")
                .id(ids::derive("escalation_request", &[tenant, &id.to_string(), &seq.to_string()]))
                .this("governance.emergency")
                .parent(proposed.id)
                .status("open")
                .metadata(json!({"emergency": {
                    "promotion": reference,
                    "reason": marked.reason,
                    "skipped": skipped,
                    "lasts_s": marked.lasts_s,
                    "review": "promote the version with the usual approvals, or another one",
                }})),
        );
    }
    Carried { promotion: promotion.deterministic(), others: others.into_iter().map(Draft::deterministic).collect() }
}

/// The promotion that has allowed what `record` records; `None` if it names none.
#[must_use]
pub fn promotion_of(record: &SignedSpan) -> Option<Version> {
    version_of(record.meta("promotion")?)
}

/// As [`promotion_of`], for records that may use several governed spans, such as the blocks of a prompt: by the id of each. A call to a
/// provider has them in the details of its intent.
#[must_use]
pub fn promotions_of(record: &SignedSpan) -> BTreeMap<Uuid, Version> {
    let in_details = || record.meta("details").and_then(|details| details.get(PROMOTIONS));
    let named = record.meta(PROMOTIONS).or_else(in_details).and_then(Value::as_object).into_iter().flatten();
    named.filter_map(|(id, named)| Some((id.parse().ok()?, version_of(named)?))).collect()
}

/// The name of the metadata that [`promotions_of`] reads.
pub const PROMOTIONS: &str = "promotions";

fn version_of(named: &Value) -> Option<Version> {
    let seq = named.get("seq")?.as_u64().and_then(|seq| u32::try_from(seq).ok())?;
    Some(Version {
        id: named.get("id")?.as_str()?.parse().ok()?,
        seq,
        curr_hash: named.get("curr_hash")?.as_str()?.parse().ok()?,
    })
}

/// The reference to a promotion, as it stands in records of what it has allowed.
#[must_use]
pub fn promotion_reference(tenant: &str, promotion: &Version) -> Value {
    json!({
        "tenant": tenant,
        "id": promotion.id.to_string(),
        "seq": promotion.seq,
        "curr_hash": promotion.curr_hash.to_string(),
    })
}

/// The references to promotions, by the id of the span that each has put in force: the value of [`PROMOTIONS`].
#[must_use]
pub fn promotion_references(tenant: &str, promotions: impl IntoIterator<Item = (Uuid, Version)>) -> Value {
    promotions.into_iter().map(|(id, promotion)| (id.to_string(), promotion_reference(tenant, &promotion))).collect()
}
