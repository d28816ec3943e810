//! Finds the manifest that a host obeys, starting from the root keys that the host pins.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::keys::{self, SignatureError, Signer, Verifier};
use crate::ledger::scope::Scope;
use crate::ledger::{Ledger, LedgerError, LedgerExt as _, Query, Versions};
use crate::span::draft::Draft;
use crate::span::seal::{SealError, VerifiedSpan, VerifyError};
use crate::span::{SYSTEM_TENANT, SignedSpan};
use crate::trust::governance::{Class, Environment, Past, Pointers};
use crate::trust::manifest::ManifestHeader;
use crate::trust::{Authorities, Candidate, Ends, Logs, Manifest, ManifestError, RootSet, delegation, own};
use crate::value::clock::Clock;
use crate::value::hex::{Hash, PublicKey};
use crate::value::ids;

/// What a host pins outside the ledger: the id of the manifest, and the keys that may approve the first one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustRoot {
    /// The manifest's id, in tenant `system`.
    pub manifest_id: Uuid,
    /// The pinned root keys. Duplicates count once.
    pub keys: Vec<PublicKey>,
    /// How many distinct keys must approve, from 1 to the number of keys.
    pub threshold: u32,
    /// The oldest manifest version to obey. A ledger whose newer manifests were removed is then refused. Default 0: any
    /// version.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_version: u64,
}

fn is_zero(version: &u64) -> bool {
    *version == 0
}

/// The result of resolving a trust root.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Trusted {
    /// The newest manifest that counts.
    pub manifest: Manifest,
    /// The span that holds `manifest`.
    pub span: VerifiedSpan,
    /// What tells this ledger from every other: the hash of its first manifest.
    pub ledger: Hash,
    /// Which key may sign what: the root keys, the authorities of the manifest, and the delegations.
    pub authorities: Authorities,
    /// Versions of the manifest's id that do not count, and why. They are ignored. They are not an error.
    pub skipped: Vec<Skipped>,
    /// Ends of keys that could not be compared with a log, and why. Nothing of these keys counts.
    pub unread: Vec<String>,
    /// Where the host works that obeys it. [`TrustRoot::resolve`] sets production; a host sets its own.
    pub environment: Environment,
    /// What the manifests say of governance that count or have counted, oldest first.
    pub(crate) past: Vec<Past>,
    pub(crate) pointers: Pointers,
}

/// A version of the manifest's id that does not count.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("manifest span {row} does not count: {reason}")]
pub struct Skipped {
    /// The row as `tenant/id/seq`; `id/seq` if it is damaged.
    pub row: String,
    /// Why it does not count.
    pub reason: SkipReason,
}

/// Why a version of the manifest's id does not count.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// Its hash or signature is invalid.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Its stored row cannot be read as a span.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It has another type than `manifest`, or it is a tombstone.
    #[error("it is not an active span of type manifest")]
    NotAManifest,
    /// It is malformed, or it leaves out a key or right of the manifest before it.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Its version does not follow the version of the manifest before it.
    #[error("its version is {found}, the next is {next}")]
    Version {
        /// Its `metadata.version`.
        found: u64,
        /// The version that would count.
        next: u64,
    },
    /// Its signer is not a key of the root in force.
    #[error("it is sealed by {signer}, which is not a key of the root in force")]
    Signer {
        /// The key that sealed it.
        signer: PublicKey,
    },
    /// Too few root keys have approved it.
    #[error("{whose} root has {found} of {needed} approvals by distinct keys")]
    Approvals {
        /// Which root lacks approvals: `pinned`, `previous` (of the manifest before it), `own`, or `governed` (as the governance of the
        /// manifest before it counts them).
        whose: &'static str,
        /// How many distinct keys of that root have approved.
        found: usize,
        /// The threshold of that root.
        needed: u32,
    },
}

/// What a host does with an approved version.
enum Verdict {
    Obey(Box<(Manifest, VerifiedSpan)>),
    /// It needs more approvals. Its own root keys may give them.
    Wait(SkipReason, Candidate),
    Refuse(ManifestError),
}

/// What was found among the versions of the manifest.
#[derive(Default)]
struct Found {
    /// The newest that counts.
    current: Option<(Manifest, VerifiedSpan)>,
    /// All that have counted, oldest first.
    past: Vec<Past>,
    skipped: Vec<Skipped>,
    /// How many versions without the seal of a root key were found. Anybody who can write in tenant `system` can make them.
    of_others: usize,
    candidates: Vec<Candidate>,
}

impl Found {
    fn skip(&mut self, row: String, reason: SkipReason) {
        let is_of_others = matches!(reason, SkipReason::Verify(_) | SkipReason::Damaged(_) | SkipReason::Signer { .. });
        self.of_others += usize::from(is_of_others);
        if !is_of_others || self.of_others <= MAX_SHOWN {
            self.skipped.push(Skipped { row, reason });
        }
    }
}

/// The most versions without the seal of a root key that are told.
const MAX_SHOWN: usize = 100;

/// Why no manifest could be resolved or published.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The threshold of the trust root is 0, or above the number of its distinct keys.
    #[error("trust root needs {threshold} of {keys} distinct keys: the threshold must be from 1 to the number of keys")]
    Threshold {
        /// The pinned threshold.
        threshold: u32,
        /// How many distinct keys are pinned.
        keys: usize,
    },
    /// The file of the trust root cannot be read.
    #[error("trust root {}: {reason}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// Why it cannot be read.
        reason: String,
    },
    /// A pinned key is malformed, weak or not canonically encoded.
    #[error("trust root pins {key}: {source}")]
    Key {
        /// The pinned key.
        key: PublicKey,
        /// Why it cannot be trusted.
        source: SignatureError,
    },
    /// No version of the manifest counts.
    #[error("no manifest {manifest_id} counts: {}; check that this is the trust root of this ledger, or seal one with a pinned root key", describe(.skipped))]
    NoManifest {
        /// The pinned id of the manifest.
        manifest_id: Uuid,
        /// The versions that were found, and why each does not count.
        skipped: Vec<Skipped>,
    },
    /// The manifest that counts is older than the pinned minimum.
    #[error(
        "the newest manifest that counts is version {found}, the trust root demands {min}: newer ones were removed; run fsck"
    )]
    TooOld {
        /// The version of the newest manifest that counts.
        found: u64,
        /// The trust root's `min_version`.
        min: u64,
    },
    /// There are more than 10,000 versions that root keys have sealed, or more than 10,000 approvals by root keys. Normal use
    /// never makes so many, and nobody else can.
    #[error(
        "the manifest has more than {MAX_MANIFESTS} versions by root keys, or as many approvals: look who has the root keys"
    )]
    Flooded,
    /// The manifest is malformed, or it demands something that this version of the library does not enforce.
    #[error(transparent)]
    Refused(#[from] ManifestError),
    /// The manifest to be published would not count.
    #[error("manifest would not count: {0}")]
    WouldNotCount(SkipReason),
    /// The key that was to approve is not a root key.
    #[error("key {key} is not a root key of this manifest or the one before: its approval would not count")]
    NotARootKey {
        /// The approver's key.
        key: PublicKey,
    },
    /// The key that was to approve has ended, or the manifest that it would approve ends it.
    #[error(
        "root key {key} has ended, or ends with this manifest: its approval would not count; approve with another root key"
    )]
    Ended {
        /// The approver's key.
        key: PublicKey,
    },
    /// The key that was to sign a list of logs is no publisher of `system`.
    #[error("key {key} is not a publisher of tenant `system`: sign lists of logs with one that is")]
    NotAPublisher {
        /// The key.
        key: PublicKey,
    },
    /// Somebody else's span has the id that this one would have.
    #[error(
        "span {id} in tenant `system` was signed by another key: it does not count, and this one cannot be stored; run fsck"
    )]
    Occupied {
        /// The id.
        id: Uuid,
    },
    /// The manifest ends a key in a list of logs that is not in the ledger. Nothing of that key would count.
    #[error("{reason}: append the list first, with `TrustRoot::list_logs`")]
    MissingList {
        /// Which list, and what is wrong.
        reason: String,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The span could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

fn describe(skipped: &[Skipped]) -> String {
    match skipped.last() {
        None => "there is none".to_owned(),
        Some(last) => format!("of {} span(s) the last: {last}", skipped.len()),
    }
}

/// The most versions by root keys, and the most approvals. More of them are a sign of an attack.
const MAX_MANIFESTS: usize = 10_000;

impl TrustRoot {
    /// Pins `keys` and `threshold` for the manifest with the usual id, `ids::MANIFEST`.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>, threshold: u32) -> Self {
        Self { manifest_id: ids::MANIFEST, keys: keys.into_iter().collect(), threshold, min_version: 0 }
    }

    fn set(&self) -> RootSet {
        RootSet::new(self.keys.iter().copied(), self.threshold)
    }

    /// Checks that the threshold can be met and that every key can be trusted. Every method that reads the ledger does this
    /// first.
    ///
    /// # Errors
    /// [`TrustError::Threshold`] or [`TrustError::Key`].
    pub fn check(&self) -> Result<(), TrustError> {
        let distinct: BTreeSet<_> = self.keys.iter().collect();
        if self.threshold == 0 || self.threshold as usize > distinct.len() {
            return Err(TrustError::Threshold { threshold: self.threshold, keys: distinct.len() });
        }
        for key in distinct {
            keys::check_key(key).map_err(|source| TrustError::Key { key: *key, source })?;
        }
        Ok(())
    }

    /// Finds the manifest to obey. The pinned keys must approve the first version. The root of the version before and its own
    /// root must approve each later version, each root with its threshold.
    ///
    /// # Errors
    /// [`TrustError::NoManifest`] if none counts, [`TrustError::TooOld`] if the newest is older than `min_version`,
    /// [`TrustError::Refused`] if the newest demands what this library cannot enforce.
    pub async fn resolve(&self, ledger: &dyn Ledger) -> Result<Trusted, TrustError> {
        self.resolve_with(ledger, None).await
    }

    /// As [`TrustRoot::resolve`], with the logs in which the manifest ends keys. Without them nothing counts that an ended key has
    /// signed: [`Trusted::unread`] says so.
    ///
    /// # Errors
    /// As [`TrustRoot::resolve`].
    pub async fn resolve_with(&self, ledger: &dyn Ledger, logs: Option<&dyn Logs>) -> Result<Trusted, TrustError> {
        let Found { current, past, skipped, candidates, .. } = self.walk(ledger).await?;
        let (Some((manifest, span)), Some(first)) = (current, past.first()) else {
            return Err(TrustError::NoManifest { manifest_id: self.manifest_id, skipped });
        };
        if manifest.version < self.min_version {
            return Err(TrustError::TooOld { found: manifest.version, min: self.min_version });
        }
        manifest.check_critical()?;
        let (ends, unread) = Ends::read(ledger, &manifest.ended, logs).await?;
        let mut authorities = Authorities::new(self.manifest_id, &manifest, &self.keys).ends(ends).candidates(candidates);
        delegation::read(ledger, &mut authorities).await?;
        let (environment, pointers) = (Environment::default(), Pointers::default());
        Ok(Trusted { manifest, span, ledger: first.hash, authorities, skipped, unread, environment, past, pointers })
    }

    async fn walk(&self, ledger: &dyn Ledger) -> Result<Found, TrustError> {
        self.check()?;
        let scope = Scope::runtime(SYSTEM_TENANT);
        let (mut verifier, mut found) = (Verifier::new(), Found::default());
        let (sealed, roots) = self.sealed(ledger, &scope, &mut verifier, &mut found).await?;
        let approvals = self.approvals(ledger, &scope, &roots, &mut verifier).await?;
        for span in sealed {
            let row = span.key().to_string();
            match self.qualify(span, found.current.as_ref().map(|(m, _)| m), &approvals) {
                Ok(Verdict::Obey(next)) => {
                    found.past.push(Past::of(&next.0, next.1.seal.curr_hash, next.1.at));
                    found.current = Some(*next);
                }
                Ok(Verdict::Wait(reason, candidate)) => {
                    found.candidates.push(candidate);
                    found.skip(row, reason);
                }
                Ok(Verdict::Refuse(error)) => return Err(error.into()),
                Err(reason) => found.skip(row, reason),
            }
        }
        Ok(found)
    }

    /// The versions that a key which may be a root key has sealed, in order, and all such keys: the pinned ones, and those that a version
    /// sealed by one of them names. What anybody else has written is skipped here, however much it is.
    async fn sealed(
        &self,
        ledger: &dyn Ledger,
        scope: &Scope,
        verifier: &mut Verifier,
        found: &mut Found,
    ) -> Result<(Vec<VerifiedSpan>, BTreeSet<PublicKey>), TrustError> {
        let query = Query::chains().tenant(SYSTEM_TENANT).id(self.manifest_id);
        let mut roots: BTreeSet<PublicKey> = self.keys.iter().copied().collect();
        let (mut sealed, mut cursor) = (Vec::new(), None);
        loop {
            let page = ledger.scan(scope, &query, cursor.as_ref()).await?;
            cursor = page.next;
            for row in page.rows {
                let span = match row.span {
                    Ok(span) => span,
                    Err(damaged) => {
                        let row = format!("{}/{}", damaged.id, damaged.seq);
                        found.skip(row, SkipReason::Damaged(damaged.reason));
                        continue;
                    }
                };
                let row = span.key().to_string();
                match span.verify(verifier) {
                    Ok(span) if roots.contains(&span.seal.public_key) => {
                        if let Ok(header) = ManifestHeader::from_span(&span) {
                            roots.extend(header.root.keys);
                        }
                        sealed.push(span);
                    }
                    Ok(span) => found.skip(row, SkipReason::Signer { signer: span.seal.public_key }),
                    Err(invalid) => found.skip(row, invalid.into()),
                }
            }
            // With the one in force.
            if sealed.len() > MAX_MANIFESTS + 1 {
                // An older manifest may allow what a later one forbids, so the host must not go on with it.
                return Err(TrustError::Flooded);
            }
            if cursor.is_none() {
                return Ok((sealed, roots));
            }
        }
    }

    /// Decides whether one version counts, given the newest manifest that counts so far.
    fn qualify(
        &self,
        span: VerifiedSpan,
        current: Option<&Manifest>,
        approvals: &BTreeSet<(Hash, PublicKey)>,
    ) -> Result<Verdict, SkipReason> {
        let (signer, pinned) = (span.seal.public_key, self.set());
        // A key of the root in force must have sealed it. Keys that it adds can only approve it.
        if !current.map_or(&pinned, |previous| &previous.root).keys.contains(&signer) {
            return Err(SkipReason::Signer { signer });
        }
        let (header, manifest) = self.candidate(&span, current)?;
        // A key that has ended decides nothing. This includes its own end.
        let has_ended = |key: &PublicKey| {
            current.is_some_and(|previous| previous.has_ended_root(key))
                || manifest.as_ref().is_ok_and(|manifest| manifest.has_ended_root(key))
        };
        if has_ended(&signer) {
            return Err(SkipReason::Signer { signer });
        }
        let mut approvers: BTreeSet<_> = approvals
            .iter()
            .filter(|(hash, key)| *hash == span.seal.curr_hash && !has_ended(key))
            .map(|(_, key)| *key)
            .collect();
        approvers.insert(signer);
        let sets = match current {
            // Only the pinned root approves the first manifest.
            None => vec![("pinned", &pinned)],
            Some(previous) => vec![("previous", &previous.root), ("own", &header.root)],
        };
        for (whose, set) in sets {
            if !set.is_met(&approvers) {
                let reason = SkipReason::Approvals { whose, found: set.count(&approvers), needed: set.threshold };
                return Ok(Verdict::Wait(reason, Candidate { hash: span.seal.curr_hash, keys: header.root.keys }));
            }
        }
        // The manifest before says how many must approve this one, whatever this one says.
        let governance = current.and_then(|previous| previous.governance.as_ref());
        if let Some((previous, governance)) = current.zip(governance)
            && let Some(rule) = governance.classes.get(&Class::Manifest)
        {
            let excluded = |key: &PublicKey| governance.exclude_proposer && *key == signer;
            let counted = approvers.iter().filter(|key| !excluded(key)).copied().collect();
            let (found, needed) = (previous.root.count(&counted), rule.threshold);
            if found < needed as usize {
                let reason = SkipReason::Approvals { whose: "governed", found, needed };
                return Ok(Verdict::Wait(reason, Candidate { hash: span.seal.curr_hash, keys: header.root.keys }));
            }
        }
        match manifest {
            Ok(manifest) => Ok(Verdict::Obey(Box::new((manifest, span)))),
            // It is approved and names critical members, so the host must not go on with the manifest before it.
            Err(error) if !header.critical.is_empty() => Ok(Verdict::Refuse(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the checks that do not depend on approvals. The header may be readable even if the rest of the manifest is not.
    fn candidate(
        &self,
        span: &SignedSpan,
        current: Option<&Manifest>,
    ) -> Result<(ManifestHeader, Result<Manifest, ManifestError>), SkipReason> {
        if span.entity_type != "manifest" || span.is_deleted || span.tenant_id != SYSTEM_TENANT {
            return Err(SkipReason::NotAManifest);
        }
        let header = ManifestHeader::from_span(span)?;
        let next = current.map_or(1, |c| c.version.saturating_add(1));
        if header.version != next {
            return Err(SkipReason::Version { found: header.version, next });
        }
        let manifest = Manifest::from_span(span);
        if let Ok(manifest) = &manifest {
            match current {
                None => manifest.check_keeps(&self.keys, &[], &[])?,
                Some(previous) => manifest.check_keeps(&previous.root.keys, &previous.authorities, &previous.ended)?,
            }
        }
        Ok((header, manifest))
    }

    /// Every valid approval of a version of the manifest by one of these keys, as (approved hash, key). An approval cannot be taken back: otherwise
    /// anybody who can hide a span could undo a manifest.
    async fn approvals(
        &self,
        ledger: &dyn Ledger,
        scope: &Scope,
        roots: &BTreeSet<PublicKey>,
        verifier: &mut Verifier,
    ) -> Result<BTreeSet<(Hash, PublicKey)>, TrustError> {
        let query =
            Query::new().tenant(SYSTEM_TENANT).entity_type("approval").parent_id(self.manifest_id).versions(Versions::All);
        let mut approved = BTreeSet::new();
        let mut cursor = None;
        loop {
            let page = ledger.scan(scope, &query, cursor.as_ref()).await?;
            cursor = page.next;
            // A damaged or unsigned row approves nothing. It must not stop the search for valid approvals.
            for span in page.rows.into_iter().filter_map(|row| row.span.ok()) {
                let Some(hash) = self.approved_hash(&span).filter(|_| roots.contains(&span.seal.public_key)) else { continue };
                if let Ok(span) = span.verify(verifier) {
                    approved.insert((hash, span.seal.public_key));
                }
            }
            if approved.len() > MAX_MANIFESTS {
                return Err(TrustError::Flooded);
            }
            if cursor.is_none() {
                return Ok(approved);
            }
        }
    }

    fn approved_hash(&self, span: &SignedSpan) -> Option<Hash> {
        let subject = span.meta("subject")?;
        let is_ours = subject.get("tenant")?.as_str()? == SYSTEM_TENANT
            && subject.get("id")?.as_str()? == self.manifest_id.to_string()
            && span.meta("decision")?.as_str()? == "approve";
        is_ours.then(|| subject.get("curr_hash")?.as_str()?.parse().ok())?
    }

    /// Seals `manifest` with a root key and appends it. It counts at once if the approval of that key is enough. Otherwise it
    /// counts when enough other root keys have approved it with [`TrustRoot::approve`].
    ///
    /// # Errors
    /// If it could never count: a wrong version, a key or right left out, or a signer that is not a root key. Nothing is
    /// appended then.
    pub async fn publish(
        &self,
        ledger: &dyn Ledger,
        manifest: &Manifest,
        signer: &dyn Signer,
        clock: &dyn Clock,
    ) -> Result<VerifiedSpan, TrustError> {
        manifest.check()?;
        manifest.check_critical()?;
        self.check_lists(ledger, &manifest.ended).await?;
        let scope = Scope::runtime(SYSTEM_TENANT);
        let current = self.walk(ledger).await?.current;
        let current = current.as_ref().map(|(manifest, _)| manifest);
        let mut draft = manifest.to_draft(self.manifest_id).at(clock.now());
        let mut from_seq = 0;
        loop {
            let versions = ledger.history(&scope, SYSTEM_TENANT, self.manifest_id, from_seq, 100).await?;
            let Some(last) = versions.last() else { break };
            from_seq = last.seq.saturating_add(1);
            draft = draft.seq(from_seq).follows(last.seal.curr_hash);
        }
        let span = draft.seal(signer).await?;
        self.candidate(&span, current).map_err(TrustError::WouldNotCount)?.1?;
        let key = signer.public_key();
        let is_root = match current {
            None => self.keys.contains(&key),
            Some(previous) => previous.root.keys.contains(&key) && !previous.has_ended_root(&key),
        } && !manifest.has_ended_root(&key);
        if !is_root {
            return Err(TrustError::WouldNotCount(SkipReason::Signer { signer: key }));
        }
        ledger.append_one(&scope, span.clone()).await?;
        Ok(span)
    }

    /// Approves a manifest span with another root key. Approving twice changes nothing.
    ///
    /// # Errors
    /// If the approval could never count, and nothing is appended: [`TrustError::NotARootKey`] if the key is not a root key,
    /// [`TrustError::Ended`] if it has ended or ends with this manifest, [`TrustError::WouldNotCount`] if the manifest is not the next one
    /// (nor the one in force).
    pub async fn approve(
        &self,
        ledger: &dyn Ledger,
        manifest: &VerifiedSpan,
        signer: &dyn Signer,
        clock: &dyn Clock,
    ) -> Result<VerifiedSpan, TrustError> {
        let key = signer.public_key();
        let current = self.walk(ledger).await?.current;
        let own = Manifest::from_span(manifest)?;
        let mut roots = self.keys.iter().chain(&own.root.keys).chain(current.iter().flat_map(|(m, _)| &m.root.keys));
        if !roots.any(|root| *root == key) {
            return Err(TrustError::NotARootKey { key });
        }
        if own.has_ended_root(&key) || current.as_ref().is_some_and(|(manifest, _)| manifest.has_ended_root(&key)) {
            return Err(TrustError::Ended { key });
        }
        let is_in_force = current.as_ref().is_some_and(|(_, span)| span.seal.curr_hash == manifest.seal.curr_hash);
        if !is_in_force {
            let current = current.as_ref().map(|(manifest, _)| manifest);
            self.candidate(manifest, current).map_err(TrustError::WouldNotCount)?.1?;
        }
        let draft = approval(manifest, "approve").at(clock.now());
        let id = ids::derive("approval", &[&manifest.seal.curr_hash.to_string(), &key.to_string()]);
        let draft = draft.id(id).tenant(SYSTEM_TENANT).owner(SYSTEM_TENANT).who("root").deterministic();
        let span = draft.seal(signer).await?;
        own::append_own(ledger, span).await?.ok_or(TrustError::Occupied { id })
    }
}

/// Drafts an approval (`decision` is `approve`) or a rejection (`reject`) of exactly this version of a span. The approver
/// signs it by sealing the draft.
#[must_use]
pub fn approval(subject: &SignedSpan, decision: &str) -> Draft {
    let subject_key = json!({
        "tenant": subject.tenant_id,
        "id": subject.id.to_string(),
        "seq": subject.seq,
        "curr_hash": subject.seal.curr_hash.to_string(),
    });
    Draft::new(if decision == "reject" { "rejection" } else { "approval" })
        .did("approved")
        .this(format!("{}.{}", subject.entity_type, subject.id))
        .parent(subject.id)
        .status("complete")
        .metadata(json!({"subject": subject_key, "decision": Value::from(decision)}))
}
