//! What a manifest allows: limits, shares, exemptions, budgets, rights that it must keep; delegations, and files of trust roots.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::fs;
use std::future::Future;
use std::time::Duration;

use logline_core::ledger::{AppendOptions, Ledger as _, LedgerExt as _, Tenants};
use logline_core::roles::Role;
use logline_core::trust::governance::{Class, Governance};
use logline_core::trust::{
    Authority, Budget, Delegation, DelegationError, Limits, Manifest, ManifestError, Money, RootSet, SkipReason, TrustError,
    TrustRoot, approval,
};
use logline_core::{
    Draft, Host, KeyPair, MemoryLedger, PublicKey, SYSTEM_TENANT, Scope, SignedSpan, Signer as _, Span, SystemClock, SystemIds,
    Timestamp,
};
use serde_json::{Value, json};

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn key(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

fn public(n: u8) -> PublicKey {
    key(n).public_key()
}

fn manifest() -> Manifest {
    Manifest::first(RootSet::new([public(1)], 1)).grant(public(2), Role::Publisher, [SYSTEM_TENANT, "acme"])
}

fn function(metadata: Value, signer: u8) -> SignedSpan {
    let draft = Draft::new("function").tenant("acme").owner("risk").who("publisher").this("function.fee").metadata(metadata);
    draft.stamp(&SystemClock, &SystemIds).seal_local(&key(signer)).unwrap().into_signed()
}

fn refused(manifest: &Manifest) -> String {
    manifest.check().unwrap_err().to_string()
}

#[test]
fn a_tenant_has_its_own_limits_where_they_are_set_and_the_common_ones_elsewhere() {
    let mut manifest = manifest();
    manifest.limits.fuel = 7_000;
    manifest.tenant_limits.insert("acme".to_owned(), json!({"host_calls": 3, "timeout_ms": 9_000}));
    let acme = manifest.limits_of("acme");
    // The time of `policy` applies where it is lower.
    assert_eq!((acme.fuel, acme.host_calls, acme.timeout_ms), (7_000, 3, 5_000));
    let others = manifest.limits_of("globex");
    assert_eq!((others.fuel, others.host_calls, others.timeout_ms), (7_000, 1_000, 5_000));
    manifest.times.timeout_ms = Some(60_000);
    assert_eq!(manifest.limits_of("acme").timeout_ms, 9_000);
    assert_eq!(manifest.limits_of("globex").timeout_ms, 5_000);
    manifest.times.timeout_ms = Some(100);
    assert_eq!(manifest.limits_of("acme").timeout_ms, 100);
}

#[test]
fn a_function_can_lower_its_limits_and_not_raise_them() {
    let mut manifest = manifest();
    manifest.limits.fuel = 1_000;
    manifest.limits.emitted = 5;
    let of = |limits: Value| manifest.limits_for(&function(json!({"limits": limits}), 2));
    let all = manifest.limits_of("acme");
    assert_eq!(manifest.limits_for(&function(json!({}), 2)), Ok(all.clone()));
    let lower = json!({
        "fuel": 10, "timeout_ms": 11, "call_timeout_ms": 17, "memory_bytes": 12, "input_bytes": 13, "output_bytes": 14, "host_calls": 15, "host_call_bytes": 16,
        "emitted": 1, "log_bytes": 18, "journal_bytes": 19, "module_bytes": 20,
    });
    assert_eq!(serde_json::to_value(of(lower.clone()).unwrap()).unwrap(), lower);
    let raised: Value = lower
        .as_object()
        .unwrap()
        .keys()
        .map(|name| (name.clone(), json!(1_u64 << 31)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert_eq!(of(raised), Ok(all));
    for (wrong, said) in
        [(json!(5), "must be an object"), (json!({"fule": 1}), "unknown field `fule`"), (json!({"fuel": -1}), "")]
    {
        let reason = of(wrong).unwrap_err();
        assert!(reason.starts_with("metadata.limits") && reason.contains(said), "{reason}");
    }
}

#[test]
fn limits_above_the_ceiling_are_refused_by_name() {
    let ceilings = json!({
        "fuel": 100_000_000_000_u64, "timeout_ms": 3_600_000, "call_timeout_ms": 3_600_000, "memory_bytes": 64 << 20, "input_bytes": 256 << 10, "output_bytes": 256 << 10,
        "host_calls": 100_000, "host_call_bytes": 4 << 20, "emitted": 1_000, "log_bytes": 64 << 10, "journal_bytes": 256 << 10,
        "module_bytes": 16 << 20,
    });
    let most = Limits::default().with(&ceilings).unwrap();
    assert_eq!(most.check(), Ok(()), "each may be at its ceiling");
    for (name, ceiling) in ceilings.as_object().unwrap() {
        let above = most.with(&json!({name.as_str(): ceiling.as_u64().unwrap() + 1})).unwrap();
        let reason = above.check().unwrap_err();
        assert!(reason.contains(&format!("limits.{name} is ")), "{reason}");
        let mut manifest = manifest();
        manifest.tenant_limits.insert("acme".to_owned(), json!({name.as_str(): ceiling.as_u64().unwrap() + 1}));
        assert!(refused(&manifest).contains("tenant_limits of `acme`"), "{name}");
    }
}

#[test]
fn what_a_tenant_may_use_of_a_host_must_suffice_for_one_run() {
    let mut manifest = manifest();
    assert_eq!((manifest.share().calls, manifest.share().memory_bytes), (32, 2 << 30));
    manifest.throttle.per_tenant_concurrent_calls = Some(3);
    manifest.throttle.per_tenant_memory_bytes = Some(64 << 20);
    assert_eq!((manifest.share().calls, manifest.share().memory_bytes), (3, 64 << 20));
    manifest.check().expect("exactly one run fits");
    manifest.throttle.per_tenant_memory_bytes = Some((64 << 20) - 1);
    assert!(refused(&manifest).contains("below the 67108864 of one run"));
    // A tenant with more memory than the others counts too.
    manifest.limits.memory_bytes = 1 << 20;
    manifest.check().unwrap();
    manifest.tenant_limits.insert("acme".to_owned(), json!({"memory_bytes": 64 << 20}));
    assert!(refused(&manifest).contains("per_tenant_memory_bytes"));
    manifest.tenant_limits.clear();
    manifest.throttle.per_tenant_concurrent_calls = Some(0);
    assert!(refused(&manifest).contains("no function could run"));
}

#[test]
fn only_a_function_that_asks_for_it_under_the_override_key_is_exempt() {
    let mut manifest = manifest();
    let forced = json!({"force": true});
    assert!(!manifest.is_forced(&function(forced.clone(), 2)), "there is no override key");
    manifest.override_pubkey_hex = Some(public(2));
    assert!(manifest.is_forced(&function(forced.clone(), 2)));
    assert!(!manifest.is_forced(&function(forced, 3)), "another key");
    for metadata in [json!({}), json!({"force": false}), json!({"force": "true"}), json!({"force": 1})] {
        assert!(!manifest.is_forced(&function(metadata.clone(), 2)), "{metadata}");
    }
}

#[test]
fn a_budget_is_the_tenants_own_or_that_of_all_others() {
    let mut manifest = manifest();
    assert_eq!(manifest.budget_of("acme"), Budget::default());
    let tokens = |n| Budget { tokens_per_day: Some(n), money_per_day: None };
    manifest.budgets.insert("*".to_owned(), tokens(1));
    manifest.budgets.insert("acme".to_owned(), tokens(2));
    assert_eq!((manifest.budget_of("acme"), manifest.budget_of("globex")), (tokens(2), tokens(1)));
    manifest.check().unwrap();
    let most = (1 << 53) - 1;
    let money = |nanos, currency: &str| Budget {
        tokens_per_day: None,
        money_per_day: Some(Money { nanos, currency: currency.to_owned() }),
    };
    for good in [tokens(most), money(most, "EUR"), tokens(0)] {
        manifest.budgets.insert("acme".to_owned(), good);
        manifest.check().unwrap();
    }
    for (bad, said) in [
        (tokens(most + 1), "tokens_per_day is over"),
        (money(most + 1, "EUR"), "money_per_day is over"),
        (money(1, "euro"), "three capital letters"),
        (money(1, "EURO"), "three capital letters"),
        (money(1, "Eur"), "three capital letters"),
        (money(1, ""), "three capital letters"),
    ] {
        manifest.budgets.insert("acme".to_owned(), bad);
        let reason = refused(&manifest);
        assert!(reason.contains("budget of `acme`") && reason.contains(said), "{reason}");
    }
}

#[test]
fn what_a_manifest_does_not_know_is_kept_and_what_it_knows_is_not_kept_twice() {
    let mut manifest = manifest();
    manifest.governance = Some(Governance::required().class(Class::Function, 2));
    manifest.unknown.insert("motto".to_owned(), json!("festina lente"));
    let draft = manifest.to_draft(logline_core::ids::MANIFEST);
    let read = Manifest::from_span(draft.columns()).unwrap();
    assert_eq!(read, manifest);
    assert_eq!(read.unknown.keys().collect::<Vec<_>>(), ["motto"], "neither what is enforced nor what is recorded");
    let mut none = draft.columns().clone();
    for metadata in [None, Some(json!([])), Some(json!({"version": 1}))] {
        none.metadata = metadata;
        assert!(matches!(Manifest::from_span(&none), Err(ManifestError::Malformed { .. })));
    }
}

#[test]
fn a_next_manifest_keeps_every_root_key_and_every_right() {
    let old = [Authority::new(public(2), Role::Publisher, ["acme", "globex"]), Authority::new(public(3), Role::Runtime, ["*"])];
    let next = |authorities: Vec<Authority>| {
        let mut next = Manifest::first(RootSet::new([public(1), public(9)], 1));
        next.authorities = authorities;
        next.check_keeps(&[public(1)], &old, &[])
    };
    let runtime = |tenants: &[&str]| Authority::new(public(3), Role::Runtime, tenants.iter().copied());
    let publisher = |tenants: &[&str]| Authority::new(public(2), Role::Publisher, tenants.iter().copied());
    next(old.to_vec()).unwrap();
    next(vec![runtime(&["*"]), publisher(&["acme"]), publisher(&["globex"])]).expect("spread over two entries");
    next(vec![runtime(&["*"]), publisher(&["*"])]).expect("`*` covers them");
    for (authorities, said) in [
        (vec![runtime(&["*"]), publisher(&["acme"])], "role publisher"),
        (vec![runtime(&["*"])], "tenant `acme`"),
        (vec![runtime(&["acme", "globex"]), publisher(&["*"])], "tenant `*`"),
        (vec![runtime(&["*"]), Authority::new(public(4), Role::Publisher, ["*"])], "role publisher"),
        (vec![runtime(&["*"]), Authority::new(public(2), Role::Member, ["*"])], "role publisher"),
        (vec![publisher(&["*"]), Authority::new(public(3), Role::Publisher, ["*"])], "role runtime"),
    ] {
        let reason = next(authorities).unwrap_err().to_string();
        assert!(reason.contains("leaves out") && reason.contains(said), "{reason}");
    }
    // `*` is not `system`.
    let system = [Authority::new(public(3), Role::Runtime, [SYSTEM_TENANT])];
    let all = Manifest::first(RootSet::new([public(1)], 1)).grant(public(3), Role::Runtime, ["*"]);
    assert!(all.check_keeps(&[], &system, &[]).is_err());
    assert!(all.check_keeps(&[public(1), public(2)], &[], &[]).unwrap_err().to_string().contains("root key"));
}

#[test]
fn distinct_keys_count_and_a_threshold_is_within_them() {
    let of = |keys: &[u8], threshold| Manifest::first(RootSet::new(keys.iter().map(|n| public(*n)), threshold)).check();
    of(&[1, 2, 3], 3).unwrap();
    of(&[1], 1).unwrap();
    for (keys, threshold) in [(&[1, 1, 2][..], 3), (&[1][..], 0), (&[][..], 0), (&[][..], 1), (&[1, 2][..], 3)] {
        assert!(matches!(of(keys, threshold), Err(ManifestError::Threshold { .. })), "{keys:?} {threshold}");
    }
}

#[test]
fn a_delegation_has_a_key_tenants_and_an_interval_that_is_not_too_long() {
    let from: Timestamp = "2026-05-01T00:00:00Z".parse().unwrap();
    let days = |n: u64| Duration::from_secs(n * 86_400);
    let until = |time: Duration| Delegation::new(public(5), ["acme"], from, from.saturating_add(time));
    let longest = (1..400).take_while(|n| until(days(*n)).check().is_ok()).last().expect("some days are allowed");
    until(days(longest)).check().unwrap();
    let more = until(days(longest) + Duration::from_micros(1)).check();
    assert!(matches!(more, Err(DelegationError::Interval { .. })));
    assert!(matches!(until(Duration::ZERO).check(), Err(DelegationError::Interval { .. })));
    until(Duration::from_micros(1)).check().unwrap();
    let nobody = Delegation::new(public(5), Vec::<String>::new(), from, from.saturating_add(days(1)));
    assert!(matches!(nobody.check(), Err(DelegationError::NoTenant { .. })));

    let day = until(days(1));
    assert!(day.covers("acme", from) && !day.covers("globex", from));
    assert!(!day.covers("acme", from.saturating_add(days(1))), "it ends before its last moment");
    let draft = |entity_type: &str, tenant: &str, value: Value| {
        let draft =
            Draft::new(entity_type).tenant(tenant).owner("system").who("host").this("delegation").meta("delegation", value);
        draft.columns().clone()
    };
    let value = serde_json::to_value(&day).unwrap();
    let read = |span: &Span| Delegation::from_span(span);
    assert_eq!(read(&draft("delegation", SYSTEM_TENANT, value.clone())), Some(day));
    assert_eq!(read(&draft("note", SYSTEM_TENANT, value.clone())), None, "another type");
    assert_eq!(read(&draft("delegation", "acme", value)), None, "another tenant");
    assert_eq!(read(&draft("delegation", SYSTEM_TENANT, json!({}))), None);
}

/// A host works where its key is a runtime key, and `system` is never a tenant to work for.
#[test]
fn a_host_works_for_the_tenants_of_its_key() {
    block_on(async {
        let root = TrustRoot::new([public(1)], 1);
        for (tenants, role, expected) in [
            (
                &["acme", "globex", SYSTEM_TENANT][..],
                Role::Runtime,
                Tenants::Only(["acme", "globex"].map(str::to_owned).into()),
            ),
            (&[SYSTEM_TENANT, "*"][..], Role::Runtime, Tenants::All),
            (&[SYSTEM_TENANT][..], Role::Runtime, Tenants::Only([].into())),
            (&["acme"][..], Role::Publisher, Tenants::Only([].into())),
        ] {
            let ledger = MemoryLedger::new();
            let manifest =
                manifest().grant(public(4), role, tenants.iter().copied()).grant(public(5), Role::Runtime, ["initech"]);
            root.publish(&ledger, &manifest, &key(1), &SystemClock).await.unwrap();
            let host = Host::builder().ledger(ledger).trust(root.clone()).key(key(4)).build().await.unwrap();
            assert_eq!(host.tenants(), expected, "{tenants:?} {role:?}");
            assert_eq!(
                host.works_for("acme"),
                role == Role::Runtime && tenants.iter().any(|name| ["acme", "*"].contains(name))
            );
        }
    });
}

/// A root key may approve the manifest, and nothing else; an approval of something else is no approval of the manifest.
#[test]
fn what_only_looks_like_an_approval_of_the_manifest_counts_for_nothing() {
    block_on(async {
        let (ledger, root) = (MemoryLedger::new(), TrustRoot::new([public(1), public(2)], 2));
        let manifest = Manifest::first(RootSet::new([public(1), public(2)], 2));
        let span = root.publish(&ledger, &manifest, &key(1), &SystemClock).await.unwrap();
        let genuine = approval(&span, "approve").tenant(SYSTEM_TENANT).owner(SYSTEM_TENANT).who("root");
        for change in [
            json!({"tenant": "acme"}),
            json!({"id": logline_core::ids::RUN_CODE.to_string()}),
            json!({"tenant": null}),
            json!({"curr_hash": "00"}),
        ] {
            let mut false_one = genuine.clone();
            let metadata = false_one.columns_mut().metadata.as_mut().unwrap();
            metadata["subject"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let sealed = false_one.stamp(&SystemClock, &SystemIds).seal_local(&key(2)).unwrap();
            ledger.append_one(&Scope::Operator, sealed).await.unwrap();
            assert!(matches!(root.resolve(&ledger).await, Err(TrustError::NoManifest { .. })), "{change}");
        }
        let mut as_note = genuine.clone();
        as_note.columns_mut().entity_type = "note".to_owned();
        ledger
            .append_one(&Scope::Operator, as_note.stamp(&SystemClock, &SystemIds).seal_local(&key(2)).unwrap())
            .await
            .unwrap();
        assert!(root.resolve(&ledger).await.is_err());
        root.approve(&ledger, &span, &key(2), &SystemClock).await.unwrap();
        let trusted = root.resolve(&ledger).await.unwrap();
        // Under the manifest, a root key's span counts for the manifest alone.
        let other = Draft::new("approval")
            .tenant(SYSTEM_TENANT)
            .owner("system")
            .who("root")
            .this("x")
            .meta("subject", json!({"tenant": SYSTEM_TENANT}));
        let other = other.stamp(&SystemClock, &SystemIds).seal_local(&key(2)).unwrap();
        assert!(trusted.authorities.check(&other).is_err());
    });
}

#[test]
fn a_trust_root_is_read_from_a_file_of_a_bounded_size_that_others_cannot_write() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trust.json");
    let root = TrustRoot::new([public(1)], 1);
    root.save_new(&path).unwrap();
    assert_eq!(TrustRoot::load(&path).unwrap(), root);
    assert!(!fs::read_to_string(&path).unwrap().contains("min_version"), "it is written where it says something");
    let newer = TrustRoot { min_version: 3, ..root.clone() };
    newer.save_new(folder.path().join("newer.json")).unwrap();
    assert_eq!(TrustRoot::load(folder.path().join("newer.json")).unwrap(), newer);
    let text = fs::read_to_string(&path).unwrap();
    let padded = |bytes: usize| {
        fs::write(&path, format!("{text}{}", " ".repeat(bytes - text.len()))).unwrap();
        TrustRoot::load(&path)
    };
    // The most that is read, found by the message.
    let message = padded(4 << 20).unwrap_err().to_string();
    let most: usize = message.split("more than ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    padded(most).expect("exactly the most");
    assert!(padded(most + 1).unwrap_err().to_string().contains("more than"));
    fs::write(&path, &text).unwrap();
    for mode in [0o666, 0o664, 0o646, 0o620, 0o602] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(TrustRoot::load(&path).unwrap_err().to_string().contains("others may write it"), "{mode:o}");
    }
    for mode in [0o644, 0o600, 0o444] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        TrustRoot::load(&path).unwrap();
    }
    assert!(TrustRoot::load(folder.path()).unwrap_err().to_string().contains("not a regular file"));
    assert!(TrustRoot::load(folder.path().join("none")).is_err());
}

/// A root key's span counts as a manifest if it is one: of the type, in `system`, and not deleted.
#[test]
fn what_only_looks_like_a_manifest_is_skipped() {
    block_on(async {
        let root = TrustRoot::new([public(1)], 1);
        let draft = || manifest().to_draft(logline_core::ids::MANIFEST);
        let seal = |draft: Draft| draft.stamp(&SystemClock, &SystemIds).seal_local(&key(1)).unwrap();
        let of_type = |entity_type: &str| {
            let mut draft = draft();
            draft.columns_mut().entity_type = entity_type.to_owned();
            draft
        };
        for odd in [of_type("note"), of_type("function"), draft().deleted()] {
            let ledger = MemoryLedger::new();
            ledger.append_one(&Scope::Operator, seal(odd)).await.unwrap();
            let Err(TrustError::NoManifest { skipped, .. }) = root.resolve(&ledger).await else { panic!("it counts") };
            assert!(matches!(skipped[0].reason, SkipReason::NotAManifest), "{skipped:?}");
        }
        // A tombstone does not end a manifest.
        let ledger = MemoryLedger::new();
        let first = root.publish(&ledger, &manifest(), &key(1), &SystemClock).await.unwrap();
        let second = Manifest { version: 2, ..manifest() }.to_draft(logline_core::ids::MANIFEST);
        let deleted = Draft::next_version(&first).metadata(second.columns().metadata.clone().unwrap()).deleted();
        ledger.append_one(&Scope::Operator, seal(deleted)).await.unwrap();
        assert_eq!(root.resolve(&ledger).await.unwrap().manifest.version, 1);
    });
}

/// Whoever can write in `system` can write rows without end, and no row is ever deleted: what needs no root key must not stop a host.
#[test]
fn a_flood_by_strangers_stops_no_host() {
    block_on(async {
        let root = TrustRoot::new([public(1)], 1);
        let ledger = MemoryLedger::new();
        let span = root.publish(&ledger, &manifest(), &key(1), &SystemClock).await.unwrap();
        let (mut last, mut batch) = (span.clone(), Vec::new());
        for n in 0..10_100 {
            last = Draft::next_version(&last).stamp(&SystemClock, &SystemIds).seal_local(&key(9)).unwrap();
            batch.push(last.clone());
            let mut draft = approval(&span, "approve").tenant(SYSTEM_TENANT).owner(SYSTEM_TENANT).who("root");
            draft.columns_mut().metadata.as_mut().unwrap()["subject"]["curr_hash"] = json!(format!("{n:064x}"));
            batch.push(draft.stamp(&SystemClock, &SystemIds).seal_local(&key(9)).unwrap());
        }
        for some in batch.chunks(1000) {
            ledger.append(&Scope::Operator, some.to_vec(), &AppendOptions::default()).await.unwrap();
        }
        let trusted = root.resolve(&ledger).await.unwrap();
        assert_eq!((trusted.manifest.version, trusted.skipped.len()), (1, 100), "a hundred of them are told");
        let mut next = manifest();
        next.version = 2;
        root.publish(&ledger, &next, &key(1), &SystemClock).await.unwrap();
        assert_eq!(root.resolve(&ledger).await.unwrap().manifest.version, 2);
    });
}

/// As many manifests that do not count, and as many approvals, as a host reads. With one more it goes no further.
#[test]
fn a_flood_of_manifests_or_approvals_stops_a_host_and_not_one_less() {
    const MOST: usize = 10_000;
    block_on(async {
        let root = TrustRoot::new([public(1)], 1);
        let ledger = MemoryLedger::new();
        let mut last = root.publish(&ledger, &manifest(), &key(1), &SystemClock).await.unwrap();
        let mut batch = Vec::new();
        for _ in 0..MOST {
            last = Draft::next_version(&last).stamp(&SystemClock, &SystemIds).seal_local(&key(1)).unwrap();
            batch.push(last.clone());
        }
        for some in batch.chunks(1000) {
            ledger.append(&Scope::Operator, some.to_vec(), &AppendOptions::default()).await.unwrap();
        }
        assert_eq!(root.resolve(&ledger).await.unwrap().manifest.version, 1, "they repeat version 1, so they do not count");
        let more = Draft::next_version(&last).stamp(&SystemClock, &SystemIds).seal_local(&key(1)).unwrap();
        ledger.append_one(&Scope::Operator, more).await.unwrap();
        assert!(matches!(root.resolve(&ledger).await, Err(TrustError::Flooded)));

        let ledger = MemoryLedger::new();
        let span = root.publish(&ledger, &manifest(), &key(1), &SystemClock).await.unwrap();
        let approval_of = |n: usize| {
            let mut draft = approval(&span, "approve").tenant(SYSTEM_TENANT).owner(SYSTEM_TENANT).who("root");
            draft.columns_mut().metadata.as_mut().unwrap()["subject"]["curr_hash"] = json!(format!("{n:064x}"));
            draft.stamp(&SystemClock, &SystemIds).seal_local(&key(1)).unwrap()
        };
        let batch: Vec<_> = (0..MOST).map(approval_of).collect();
        for some in batch.chunks(1000) {
            ledger.append(&Scope::Operator, some.to_vec(), &AppendOptions::default()).await.unwrap();
        }
        assert_eq!(root.resolve(&ledger).await.unwrap().manifest.version, 1);
        ledger.append_one(&Scope::Operator, approval_of(MOST)).await.unwrap();
        assert!(matches!(root.resolve(&ledger).await, Err(TrustError::Flooded)));
    });
}
