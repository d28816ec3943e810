//! Homes: what is made, what is kept, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::fs;
use std::path::Path;

use logline::behaviours;
use logline::core::ledger::{Ledger as _, LedgerExt as _, Query};
use logline::core::request::Request;
use logline::core::roles::Role;
use logline::core::trust::{Manifest, RootSet, TrustError, TrustRoot};
use logline::core::{Clock as _, KeyPair, MemoryLedger, Scope, Signer as _, SystemClock, Verifier};
use logline::home::{Home, HomeError, KeyOf, Ready, Setup};
use serde_json::json;
use tempfile::TempDir;

async fn set_up(home: &Home, ledger: &MemoryLedger, setup: &Setup) -> Result<Ready, HomeError> {
    home.set_up(ledger, setup, &behaviours(), &SystemClock).await
}

fn home() -> (TempDir, Home) {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::beside(&folder.path().join("service.ledger"));
    (folder, home)
}

async fn rows(ledger: &MemoryLedger) -> usize {
    ledger.collect(&Scope::Operator, &Query::timeline(), usize::MAX).await.unwrap().len()
}

fn other(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

#[tokio::test]
async fn to_set_up_again_changes_nothing_and_a_new_tenant_is_the_next_manifest() {
    let ((folder, home), ledger) = (home(), MemoryLedger::new());
    let acme = Setup::default().tenants(["acme"]);
    let first = set_up(&home, &ledger, &acme).await.unwrap();
    let names: Vec<_> = first.made.iter().map(|path| path.strip_prefix(folder.path()).unwrap().to_str().unwrap()).collect();
    let keys = ["root", "publisher", "host"].map(|name| format!("service.ledger.keys/{name}.key"));
    assert_eq!(names, [keys[0].as_str(), &keys[1], &keys[2], "service.ledger.trust.json"]);
    assert_eq!(first.published, Some(1));
    let (before, key) = (rows(&ledger).await, fs::read(home.key_file(KeyOf::Host)).unwrap());
    let again = set_up(&home, &ledger, &acme).await.unwrap();
    assert!(again.made.is_empty() && again.published.is_none() && again.trust == first.trust);
    assert_eq!((rows(&ledger).await, fs::read(home.key_file(KeyOf::Host)).unwrap()), (before, key));
    let beta = set_up(&home, &ledger, &Setup::default().tenants(["beta"])).await.unwrap();
    assert_eq!(beta.published, Some(2));
    let authorities = &beta.trusted.unwrap().authorities;
    let host = home.key(KeyOf::Host).unwrap().public_key();
    for tenant in ["acme", "beta", "system"] {
        assert!(authorities.has(&host, Role::Runtime, tenant, SystemClock.now()), "{tenant}");
    }
}

#[tokio::test]
async fn a_set_up_that_was_interrupted_goes_on_with_the_keys_that_are_there() {
    let ((_folder, home), ledger) = (home(), MemoryLedger::new());
    let setup = Setup::default();
    set_up(&home, &MemoryLedger::new(), &setup).await.unwrap();
    // After the keys and before the trust root.
    fs::remove_file(home.trust_file()).unwrap();
    fs::remove_file(home.key_file(KeyOf::Publisher)).unwrap();
    let root = fs::read(home.key_file(KeyOf::Root)).unwrap();
    let ready = set_up(&home, &ledger, &setup).await.unwrap();
    assert_eq!(ready.made, [home.key_file(KeyOf::Publisher), home.trust_file().to_owned()]);
    assert_eq!(fs::read(home.key_file(KeyOf::Root)).unwrap(), root);
    // After the trust root and before the manifest.
    let ledger = MemoryLedger::new();
    assert_eq!(set_up(&home, &ledger, &setup).await.unwrap().published, Some(1));
}

#[tokio::test]
async fn a_lost_key_is_made_anew_and_named_in_the_manifest_with_the_root_key_and_not_without_it() {
    let ((folder, home), ledger) = (home(), MemoryLedger::new());
    let setup = Setup::default().tenants(["acme"]);
    set_up(&home, &ledger, &setup).await.unwrap();
    let lost = home.key(KeyOf::Host).unwrap().public_key();
    fs::remove_file(home.key_file(KeyOf::Host)).unwrap();
    let ready = set_up(&home, &ledger, &setup).await.unwrap();
    assert_eq!((ready.made, ready.published), (vec![home.key_file(KeyOf::Host)], Some(2)));
    let found = home.key(KeyOf::Host).unwrap().public_key();
    let authorities = ready.trusted.unwrap().authorities;
    assert!(found != lost && authorities.has(&found, Role::Runtime, "acme", SystemClock.now()));
    // The root key is kept elsewhere: what needs it says so before anything is made, what does not goes on.
    fs::rename(home.key_file(KeyOf::Root), folder.path().join("elsewhere")).unwrap();
    assert!(set_up(&home, &ledger, &setup).await.unwrap().made.is_empty());
    let refused = set_up(&home, &ledger, &Setup::default().tenants(["beta"])).await.unwrap_err();
    assert!(matches!(&refused, HomeError::NeedsRoot { .. }) && refused.to_string().contains("beta"), "{refused}");
    fs::remove_file(home.key_file(KeyOf::Publisher)).unwrap();
    let refused = set_up(&home, &ledger, &setup).await.unwrap_err();
    assert!(refused.to_string().contains("restore the missing key from a copy"), "{refused}");
    assert!(!home.key_file(KeyOf::Publisher).exists());
}

#[tokio::test]
async fn a_tenant_that_cannot_be_one_is_refused_before_anything_is_made() {
    let ((_folder, home), ledger) = (home(), MemoryLedger::new());
    for name in ["", " ", "system", &"x".repeat(100_000)] {
        let refused = set_up(&home, &ledger, &Setup::default().tenants([name])).await.unwrap_err();
        assert!(matches!(refused, HomeError::Tenant { .. }));
    }
    assert!(!home.trust_file().exists() && !home.key_file(KeyOf::Root).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_that_start_at_once_on_a_new_ledger_all_have_a_host() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new.ledger");
        let starts = (0..4).map(|_| {
            let file = file.clone();
            tokio::spawn(async move { logline::dev(&file).await.map(|host| host.key()) })
        });
        let starts: Vec<_> = starts.collect();
        let mut keys = Vec::new();
        for start in starts {
            keys.push(start.await.unwrap().unwrap());
        }
        keys.dedup();
        assert_eq!(keys.len(), 1, "they have the key of the home");
    }
}

#[tokio::test]
async fn a_ledger_of_somebody_else_is_refused() {
    let ((_folder, home), ledger) = (home(), MemoryLedger::new());
    let root = other(7);
    let theirs = TrustRoot::new([root.public_key()], 1);
    let manifest = Manifest::first(RootSet::new([root.public_key()], 1));
    theirs.publish(&ledger, &manifest, &root, &SystemClock).await.unwrap();
    let before = rows(&ledger).await;
    let refused = set_up(&home, &ledger, &Setup::default()).await.unwrap_err();
    assert!(matches!(refused, HomeError::NoTrustRoot { .. }), "{refused}");
    assert!(!home.trust_file().exists() && !home.key_file(KeyOf::Root).exists(), "nothing was made");
    // A home of another ledger, with a trust root of its own.
    set_up(&home, &MemoryLedger::new(), &Setup::default()).await.unwrap();
    let refused = set_up(&home, &ledger, &Setup::default()).await.unwrap_err();
    assert!(matches!(refused, HomeError::Trust(TrustError::NoManifest { .. })), "{refused}");
    assert_eq!(rows(&ledger).await, before);
}

#[tokio::test]
async fn a_manifest_that_several_roots_must_approve_counts_after_they_have() {
    let ((_folder, home), ledger) = (home(), MemoryLedger::new());
    let setup = Setup::default().tenants(["acme"]).roots([other(8).public_key(), other(9).public_key()], 2);
    let waiting = set_up(&home, &ledger, &setup).await.unwrap();
    assert!(waiting.trusted.is_none() && waiting.published == Some(1));
    // Again, before anybody has approved it.
    let before = rows(&ledger).await;
    assert!(set_up(&home, &ledger, &setup).await.unwrap().published.is_none());
    assert_eq!(rows(&ledger).await, before);
    let manifest = ledger.get(&Scope::Operator, "system", waiting.trust.manifest_id).await.unwrap();
    let manifest = manifest.verify(&mut Verifier::new()).unwrap();
    waiting.trust.approve(&ledger, &manifest, &other(9), &SystemClock).await.unwrap();
    let ready = set_up(&home, &ledger, &setup).await.unwrap();
    assert_eq!(ready.trusted.unwrap().manifest.root.threshold, 2);
    // It cannot be changed here alone.
    let refused = set_up(&home, &ledger, &Setup::default().tenants(["beta"])).await.unwrap_err();
    assert!(refused.to_string().contains("beta") && refused.to_string().contains("2 root keys"), "{refused}");
    // Nor can other roots take its place.
    for roots in [vec![other(8)], vec![other(8), other(10)]] {
        let setup = Setup::default().tenants(["acme"]).roots(roots.iter().map(KeyPair::public_key), 2);
        assert!(matches!(set_up(&home, &ledger, &setup).await, Err(HomeError::OtherRoot { .. })));
    }
}

#[tokio::test]
async fn a_threshold_that_cannot_be_met_or_a_folder_that_is_missing_leaves_nothing_usable() {
    let ((folder, home), ledger) = (home(), MemoryLedger::new());
    let setup = Setup::default().roots([other(8).public_key()], 3);
    assert!(matches!(set_up(&home, &ledger, &setup).await, Err(HomeError::Trust(TrustError::Threshold { .. }))));
    assert!(!home.trust_file().exists());
    assert_eq!(rows(&ledger).await, 0);
    fs::write(folder.path().join("file"), "").unwrap();
    for path in ["none/service.ledger", "file/service.ledger"] {
        let home = Home::beside(&folder.path().join(path));
        let refused = set_up(&home, &ledger, &Setup::default()).await.unwrap_err();
        assert!(matches!(refused, HomeError::Io { .. }) && refused.to_string().contains("service.ledger.keys"), "{refused}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_may_read_the_keys() {
    use std::os::unix::fs::PermissionsExt as _;
    let ((_folder, home), ledger) = (home(), MemoryLedger::new());
    set_up(&home, &ledger, &Setup::default()).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.key_file(KeyOf::Host)), 0o600);
    assert_eq!(mode(home.key_file(KeyOf::Host).parent().unwrap()), 0o700);
}

#[tokio::test]
async fn a_host_for_development_runs_a_function_and_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dev.ledger");
    let mut hashes = Vec::new();
    for n in 0..2 {
        let host = logline::dev(&file).await.unwrap();
        let code = include_bytes!("../examples/fee.wasm");
        let fee = host.publish_module("acme", "fee", code, Some(json!({"rate": 25}))).await.unwrap();
        assert_eq!(fee.seq, 0, "published once");
        hashes.push(fee.seal.curr_hash);
        let payment = json!({"payment": format!("pay_{n}"), "amount_minor": 10_000});
        let done = host.execute(Request::new("acme", "payments-api", fee.id, payment)).await.unwrap();
        assert_eq!(done.result.unwrap(), json!({"fee_minor": 25}));
    }
    assert_eq!(hashes[0], hashes[1]);
    let guest = include_bytes!("../../logline-wasm/guests/fee.wasm");
    assert!(guest == include_bytes!("../examples/fee.wasm"), "the example has a copy of the guest");
}

/// The README shows the example as it is.
#[test]
fn the_readme_has_the_example() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = fs::read_to_string(folder.join("examples/first_steps.rs")).unwrap();
    let code = example.split_once("\n\n").unwrap().1;
    let readme = fs::read_to_string(folder.join("../README.md")).unwrap();
    assert!(readme.contains(&format!("```rust,ignore\n{code}```")), "copy examples/first_steps.rs to README.md");
}

#[tokio::test]
async fn a_second_set_up_gives_no_rights_that_nobody_named() {
    let ((_folder, home), ledger) = (home(), MemoryLedger::new());
    set_up(&home, &ledger, &Setup::default().tenants(["acme"])).await.unwrap();
    let again = set_up(&home, &ledger, &Setup::default()).await.unwrap();
    assert_eq!(again.published, None);
    let manifest = again.trusted.unwrap().manifest;
    assert!(manifest.authorities.iter().all(|authority| authority.tenants == ["system", "acme"]));
    // A kernel that was taken out of the manifest stays out, until somebody asks for it.
    let mut fewer = manifest.clone();
    fewer.version += 1;
    fewer.allowed_boot_ids.retain(|id| *id != logline::core::ids::OBSERVER);
    let root = home.key(KeyOf::Root).unwrap();
    again.trust.publish(&ledger, &fewer, &root, &SystemClock).await.unwrap();
    assert_eq!(set_up(&home, &ledger, &Setup::default()).await.unwrap().published, None);
    assert_eq!(set_up(&home, &ledger, &Setup::default().add_kernels()).await.unwrap().published, Some(3));
    // A new host key gets the tenants that the lost one had, and no more.
    fs::remove_file(home.key_file(KeyOf::Host)).unwrap();
    let ready = set_up(&home, &ledger, &Setup::default()).await.unwrap();
    let (host, authorities) = (home.key(KeyOf::Host).unwrap().public_key(), ready.trusted.unwrap().authorities);
    let has = |tenant| authorities.has(&host, Role::Runtime, tenant, SystemClock.now());
    assert!(has("acme") && has("system") && !has("beta"));
}

#[tokio::test]
async fn a_row_of_a_stranger_at_the_id_of_the_manifest_is_named_and_nothing_waits_for_its_approval() {
    for threshold in [1, 2] {
        let ((_folder, home), ledger) = (home(), MemoryLedger::new());
        let setup = Setup::default().tenants(["acme"]);
        let setup = if threshold == 2 { setup.roots([other(8).public_key()], 2) } else { setup };
        set_up(&home, &MemoryLedger::new(), &setup).await.unwrap();
        // The home is there, and the ledger is new: a stranger was faster.
        let stranger = other(66);
        let theirs = TrustRoot::new([stranger.public_key()], 1);
        let manifest = Manifest::first(RootSet::new([stranger.public_key()], 1));
        theirs.publish(&ledger, &manifest, &stranger, &SystemClock).await.unwrap();
        let refused = set_up(&home, &ledger, &setup).await.unwrap_err().to_string();
        let told = format!("sealed by {}", stranger.public_key());
        assert!(refused.contains(&told) && refused.contains("trust root of this ledger"), "{refused}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn files_that_somebody_else_has_put_there_are_not_written_to_or_trusted() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let ((folder, home), ledger) = (home(), MemoryLedger::new());
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    // A folder for the keys in which others may exchange them.
    let keys = home.key_file(KeyOf::Root).parent().unwrap().to_owned();
    fs::create_dir(&keys).unwrap();
    chmod(&keys, 0o777);
    assert!(matches!(set_up(&home, &ledger, &Setup::default()).await, Err(HomeError::Folder { .. })));
    chmod(&keys, 0o700);
    // A link in the place of the trust root.
    let victim = folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, home.trust_file()).unwrap();
    assert!(set_up(&home, &ledger, &Setup::default()).await.is_err());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    fs::remove_file(home.trust_file()).unwrap();
    set_up(&home, &ledger, &Setup::default()).await.unwrap();
    assert_eq!(fs::metadata(home.trust_file()).unwrap().permissions().mode() & 0o022, 0);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("part")), "{left:?}");
    // A trust root that others may write decides nothing.
    chmod(home.trust_file(), 0o666);
    let refused = home.trust().unwrap_err().to_string();
    assert!(refused.contains("others may write it"), "{refused}");
}

#[tokio::test]
async fn two_set_ups_at_once_with_different_roots_do_not_replace_each_other() {
    for _ in 0..10 {
        let ((_folder, home), ledger) = (home(), MemoryLedger::new());
        let other = Setup::default().roots([other(8).public_key()], 2);
        let default = Setup::default();
        let (a, b) = tokio::join!(set_up(&home, &ledger, &default), set_up(&home, &ledger, &other));
        let pinned = home.trust().unwrap();
        for (ready, threshold) in [(a, 1), (b, 2)] {
            match ready {
                Ok(ready) => assert_eq!((ready.trust.threshold, &ready.trust), (threshold, &pinned)),
                Err(error) => assert!(pinned.threshold != threshold, "{error}"),
            }
        }
    }
}
