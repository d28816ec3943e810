//! `fsck` and `import` judge alike who may sign: what an audit accepts survives a restore, and nothing else gets in with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::future::Future;
use std::time::Duration;

use logline_core::fsck::{Audit, fsck};
use logline_core::ledger::{LedgerExt as _, Query};
use logline_core::ndjson::{Import, Imported, export, import};
use logline_core::roles::Role;
use logline_core::trust::{Delegation, Manifest, RootSet, TrustRoot, approval};
use logline_core::{
    Clock as _, Draft, KeyPair, MemoryLedger, Rules, SYSTEM_TENANT, Scope, Signer as _, SystemClock, SystemIds, VerifiedSpan,
};

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

/// Keys 1, 2 and 3 are root, and two of them decide.
fn trust() -> TrustRoot {
    TrustRoot::new([1, 2, 3].map(|n| key(n).public_key()), 2)
}

fn first() -> Manifest {
    Manifest::first(RootSet::new([1, 2, 3].map(|n| key(n).public_key()), 2)).grant(
        key(9).public_key(),
        Role::Runtime,
        ["*", SYSTEM_TENANT],
    )
}

async fn publish(ledger: &MemoryLedger, manifest: &Manifest, approvers: &[u8]) -> VerifiedSpan {
    let span = trust().publish(ledger, manifest, &key(1), &SystemClock).await.unwrap();
    for approver in approvers {
        trust().approve(ledger, &span, &key(*approver), &SystemClock).await.unwrap();
    }
    span
}

/// Appends a span behind the library's checks of who may sign.
async fn smuggle(ledger: &MemoryLedger, draft: Draft, signer: u8) -> VerifiedSpan {
    let span = draft.stamp(&SystemClock, &SystemIds).seal_local(&key(signer)).unwrap();
    ledger.append_one(&Scope::Operator, span.clone()).await.unwrap();
    span
}

/// Exports the ledger, imports it into an empty one, and returns what was refused, the copy, and how many problems an audit
/// finds in the original and in the copy.
async fn restore(ledger: &MemoryLedger) -> (Imported, Vec<String>, MemoryLedger, [u64; 2]) {
    let mut file = Vec::new();
    export(ledger, &Scope::Operator, None, &mut file, &mut |_| {}).await.unwrap();
    let copy = MemoryLedger::new();
    // The newest manifest is not the first that the import meets.
    let trust = TrustRoot { min_version: 1, ..trust() };
    let settings = Import {
        signer: None,
        clock: &SystemClock,
        tenant: None,
        owner: None,
        reseal: false,
        keep_unknown: false,
        trust: Some(&trust),
        logs: None,
        rules: Rules::default(),
    };
    let mut bad = Vec::new();
    let mut source = file.as_slice();
    let report = import(&copy, &mut source, &settings, &mut |line| bad.push(line.to_string()), &mut |_| {}).await.unwrap();
    let mut problems = [0; 2];
    for (found, ledger) in problems.iter_mut().zip([ledger, &copy]) {
        let authorities = trust.resolve(ledger).await.unwrap().authorities;
        let mut audit = Audit::default();
        audit.authorities = Some(&authorities);
        *found = fsck(ledger, audit, &mut |_| {}).await.unwrap().problems;
    }
    (report, bad, copy, problems)
}

fn function(tenant: &str) -> Draft {
    Draft::new("function").tenant(tenant).owner("team").who("publisher").this("function").status("active")
}

#[test]
fn a_row_signed_before_the_manifest_names_its_key_survives_a_restore() {
    block_on(async {
        let ledger = MemoryLedger::new();
        publish(&ledger, &first(), &[2]).await;
        let early = smuggle(&ledger, function("acme"), 20).await;
        smuggle(&ledger, Draft::next_version(&early), 20).await;
        smuggle(&ledger, function("acme"), 9).await;
        let mut second = first().grant(key(20).public_key(), Role::Publisher, ["acme"]);
        second = second.grant(key(9).public_key(), Role::Publisher, ["acme"]);
        second.version = 2;
        publish(&ledger, &second, &[3]).await;
        let (report, bad, _, problems) = restore(&ledger).await;
        assert_eq!((report.refused, report.appended, problems), (0, report.lines, [0, 0]), "{bad:?}");
    });
}

#[test]
fn a_row_signed_before_the_delegation_of_its_key_survives_a_restore() {
    block_on(async {
        let ledger = MemoryLedger::new();
        publish(&ledger, &first(), &[2]).await;
        let metric = Draft::new("metric").tenant("acme").owner("host").who("host").this("metric.runs");
        smuggle(&ledger, metric, 30).await;
        let now = SystemClock.now();
        let from = now.saturating_sub(Duration::from_secs(60));
        let delegation = Delegation {
            key: key(30).public_key(),
            tenants: vec!["acme".to_owned()],
            not_before: from,
            expires: now.saturating_add(Duration::from_secs(3600)),
        };
        trust().delegate(&ledger, &delegation, &key(9), &SystemClock).await.unwrap();
        let (report, bad, _, problems) = restore(&ledger).await;
        assert_eq!((report.refused, problems), (0, [0, 0]), "{bad:?}");
    });
}

#[test]
fn a_key_that_a_waiting_manifest_names_may_approve_this_version_and_no_other() {
    block_on(async {
        let ledger = MemoryLedger::new();
        let of_first = publish(&ledger, &first(), &[2]).await;
        let mut second = first();
        second.version = 2;
        second.root = RootSet::new([1, 2, 3, 4].map(|n| key(n).public_key()), 2);
        publish(&ledger, &second, &[4]).await;
        let (report, bad, copy, problems) = restore(&ledger).await;
        assert_eq!((report.refused, problems), (0, [0, 0]), "{bad:?}");
        assert_eq!(trust().resolve(&copy).await.unwrap().manifest.version, 1, "it still waits");
        // What the key says of another version, or in another matter, counts for nothing and is not let in.
        let system = |draft: Draft| draft.tenant(SYSTEM_TENANT).owner(SYSTEM_TENANT).who("root");
        smuggle(&ledger, system(approval(&of_first, "approve")), 4).await;
        smuggle(&ledger, function(SYSTEM_TENANT), 4).await;
        // A version that no root key has sealed names nobody.
        let mut forged = second.clone();
        forged.root = RootSet::new([66].map(|n| key(n).public_key()), 1);
        let versions = Query::chains().tenant(SYSTEM_TENANT).id(trust().manifest_id);
        let last = ledger.collect(&Scope::Operator, &versions, 10).await.unwrap();
        let draft = forged.to_draft(trust().manifest_id);
        let last = last.last().unwrap();
        let forged = smuggle(&ledger, draft.seq(last.seq + 1).follows(last.seal.curr_hash), 66).await;
        smuggle(&ledger, system(approval(&forged, "approve")), 66).await;
        let (report, bad, _, problems) = restore(&ledger).await;
        assert_eq!((report.refused, problems), (4, [4, 0]), "{bad:?}");
    });
}

#[test]
fn lines_that_no_manifest_permits_are_refused_at_the_end_with_their_chains() {
    block_on(async {
        let ledger = MemoryLedger::new();
        publish(&ledger, &first(), &[2]).await;
        let stranger = smuggle(&ledger, function("acme"), 66).await;
        smuggle(&ledger, Draft::next_version(&stranger), 66).await;
        let (report, bad, _, problems) = restore(&ledger).await;
        assert_eq!((report.refused, problems), (2, [2, 0]), "{bad:?}");
        assert!(bad[0].starts_with("line 3: span") && bad[0].contains("publisher"), "{bad:?}");
        assert!(bad[1].contains("a version of this id before it was refused on line 3"), "{bad:?}");
    });
}
