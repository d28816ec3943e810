//! Trees and proofs: against the definition in RFC 6962, and against the cases of transparency-dev, of which most must fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use logline_log::tile::{Bundle, Growth, GrowthError, TileContent, TileKind, TilePath, Written};
use logline_log::tree::{Frontier, NodeId, ProofError, ProofPlan, verify_consistency, verify_inclusion};
use logline_log::{MAX_ENTRY, TreeHash};
use proptest::prelude::*;
use serde_json::Value;

fn entry(n: usize) -> Vec<u8> {
    format!("entry {n}").into_bytes()
}

/// The definition, word by word.
fn root(leaves: &[TreeHash]) -> TreeHash {
    match leaves {
        [] => TreeHash::EMPTY,
        [leaf] => *leaf,
        _ => {
            let split = leaves.len().next_power_of_two() / 2;
            TreeHash::node(&root(&leaves[..split]), &root(&leaves[split..]))
        }
    }
}

fn leaves(count: usize) -> Vec<TreeHash> {
    (0..count).map(|n| TreeHash::leaf(&entry(n))).collect()
}

fn build(plan: &ProofPlan, leaves: &[TreeHash]) -> Vec<TreeHash> {
    let node = |node: NodeId| {
        let (start, width) = (usize::try_from(node.index).unwrap() << node.level, 1 << node.level);
        Ok::<_, ()>(root(&leaves[start..start + width]))
    };
    plan.build(node).unwrap()
}

#[test]
fn every_proof_of_every_tree_up_to_70_leaves_verifies_and_no_other_does() {
    let all = leaves(70);
    for size in 0..=all.len() {
        let (tree, new) = (root(&all[..size]), size as u64);
        for index in 0..size {
            let proof = build(&ProofPlan::inclusion(index as u64, new).unwrap(), &all);
            assert_eq!(verify_inclusion(all[index], index as u64, new, tree, &proof), Ok(()), "{index} of {size}");
            for other in 0..size {
                let expected = other == index;
                assert_eq!(
                    verify_inclusion(all[index], other as u64, new, tree, &proof).is_ok(),
                    expected,
                    "{index} as {other}"
                );
            }
            for wrong in [new - 1, new + 1, new * 2] {
                let verdict = verify_inclusion(all[index], index as u64, wrong, tree, &proof);
                // The sizes of other trees may have proofs of the same form, but not the same root.
                assert!(
                    verdict.is_err() || wrong == new || proof_has_the_same_form(index as u64, new, wrong),
                    "{index} of {wrong}"
                );
            }
        }
        for old in 0..=size {
            let proof = build(&ProofPlan::consistency(old as u64, new).unwrap(), &all);
            let (old, new) = ((old as u64, root(&all[..old])), (new, tree));
            assert_eq!(verify_consistency(old, new, &proof), Ok(()), "{old:?} {new:?}");
            let longer: Vec<_> = proof.iter().copied().chain([tree]).collect();
            assert!(verify_consistency(old, new, &longer).is_err(), "an unused node is refused");
            if let Some((_, shorter)) = proof.split_last() {
                assert!(verify_consistency(old, new, shorter).is_err(), "a missing node is noticed");
            }
        }
        assert!(ProofPlan::inclusion(new, new).is_err());
        assert!(ProofPlan::consistency(new + 1, new).is_err());
    }
}

/// Whether a leaf's way to the root has the same turns in both trees: the root alone tells such trees apart, and it is the same here.
fn proof_has_the_same_form(index: u64, one: u64, other: u64) -> bool {
    let form = |size| ProofPlan::inclusion(index, size).map(|plan| plan.len());
    form(one) == form(other)
}

#[test]
fn a_proof_with_a_node_that_is_not_used_is_refused() {
    let all = leaves(8);
    for index in 0..8 {
        let proof = build(&ProofPlan::inclusion(index, 8).unwrap(), &all);
        for at in 0..=proof.len() {
            let mut longer = proof.clone();
            longer.insert(at, TreeHash::leaf(b"more"));
            assert!(verify_inclusion(all[usize::try_from(index).unwrap()], index, 8, root(&all), &longer).is_err());
        }
    }
}

#[test]
fn the_empty_tree_has_one_root_and_proves_nothing() {
    let root = TreeHash::leaf(b"a");
    assert_eq!(Frontier::new().root(), TreeHash::EMPTY);
    assert_eq!(verify_inclusion(root, 0, 0, TreeHash::EMPTY, &[]), Err(ProofError::OutOfTree { index: 0, size: 0 }));
    assert_eq!(verify_consistency((0, TreeHash::EMPTY), (1, root), &[]), Ok(()));
    assert!(matches!(verify_consistency((0, root), (1, root), &[]), Err(ProofError::Root { .. })));
    assert!(matches!(verify_consistency((0, TreeHash::EMPTY), (0, root), &[]), Err(ProofError::Root { .. })));
    assert!(matches!(verify_consistency((0, TreeHash::EMPTY), (1, root), &[root]), Err(ProofError::Length { .. })));
    assert!(matches!(verify_consistency((2, root), (1, root), &[]), Err(ProofError::Shrunk { .. })));
}

#[test]
fn sizes_at_the_end_of_the_numbers_do_not_panic() {
    let hash = TreeHash::leaf(b"a");
    for proof in [vec![], vec![hash; 63], vec![hash; 64], vec![hash; 65]] {
        for (a, b) in [(0, u64::MAX), (1, u64::MAX), (u64::MAX - 1, u64::MAX), (u64::MAX, u64::MAX), (1 << 63, u64::MAX)] {
            let _ = verify_inclusion(hash, a, b, hash, &proof);
            let _ = verify_consistency((a, hash), (b, hash), &proof);
            let _ = ProofPlan::inclusion(a, b);
            let _ = ProofPlan::consistency(a, b);
        }
    }
    assert_eq!(ProofPlan::inclusion(u64::MAX - 1, u64::MAX).unwrap().len(), 63);
}

/// The hashes of a case. An entry that is not 32 bytes cannot even be given to the verifier.
fn hashes(case: &Value) -> Option<Vec<TreeHash>> {
    let proof = case["proof"].as_array().cloned().unwrap_or_default();
    proof.iter().map(|text| TreeHash::from_base64(text.as_str().unwrap()).ok()).collect()
}

fn hash(case: &Value, name: &str) -> Option<TreeHash> {
    let bytes = STANDARD.decode(case[name].as_str()?).unwrap();
    bytes.try_into().ok().map(TreeHash)
}

/// The roots of some cases of consistency are short texts, of which only their equality matters. A hash stands for each of them here.
fn any_hash(case: &Value, name: &str) -> TreeHash {
    hash(case, name).unwrap_or_else(|| TreeHash::leaf(case[name].as_str().unwrap().as_bytes()))
}

fn cases(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_cases_of_transparency_dev_have_their_verdicts() {
    let (mut valid, mut invalid) = (0, 0);
    for case in cases(include_str!("testdata/merkle-inclusion.ndjson")) {
        let verdict =
            hashes(&case).zip(hash(&case, "leafHash")).zip(hash(&case, "root")).is_some_and(|((proof, leaf), root)| {
                verify_inclusion(leaf, case["leafIdx"].as_u64().unwrap(), case["treeSize"].as_u64().unwrap(), root, &proof)
                    .is_ok()
            });
        assert_eq!(verdict, case["wantErr"] == false, "{case}");
        if verdict { valid += 1 } else { invalid += 1 }
    }
    for case in cases(include_str!("testdata/merkle-consistency.ndjson")) {
        // The one case in which we differ: they call a proof from the empty tree useless, and a witness of C2SP must accept it.
        let differs = case["case"] == "additional/size1-is-zero-and-size2-is-not-zero";
        let verdict = hashes(&case).is_some_and(|proof| {
            let head = |size: &str, root: &str| (case[size].as_u64().unwrap(), any_hash(&case, root));
            verify_consistency(head("size1", "root1"), head("size2", "root2"), &proof).is_ok()
        });
        assert_eq!(verdict, differs || case["wantErr"] == false, "{case}");
        if verdict { valid += 1 } else { invalid += 1 }
    }
    assert!(valid >= 10 && invalid >= 100, "{valid} valid and {invalid} invalid cases");
}

#[test]
fn paths_are_those_of_c2sp() {
    let path = |kind, index, size| TilePath::of(kind, index, size).unwrap().to_string();
    assert_eq!(path(TileKind::Hashes(0), 1_234_067, u64::MAX), "tile/0/x001/x234/067");
    assert_eq!(path(TileKind::Entries, 0, 256), "tile/entries/000");
    assert_eq!(path(TileKind::Entries, 273, 70_000), "tile/entries/273.p/112");
    assert_eq!(path(TileKind::Hashes(7), 0, u64::MAX), "tile/7/000.p/255");
    let added: Vec<_> = TilePath::added(0, 70_000).collect();
    let of = |kind| added.iter().filter(|tile| tile.kind == kind).map(|tile| tile.width).collect::<Vec<_>>();
    assert_eq!(
        (of(TileKind::Hashes(0)).len(), of(TileKind::Hashes(1)), of(TileKind::Hashes(2))),
        (274, vec![256, 17], vec![1])
    );
    assert_eq!(
        TilePath::added(0, 256).map(|tile| tile.to_string()).collect::<Vec<_>>(),
        ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    );
    assert_eq!(TilePath::added(70_000, 70_000).count(), 0);
    assert!(TilePath::of(TileKind::Hashes(0), 1, 256).is_none(), "empty tiles are not served");
}

struct Files(std::collections::BTreeMap<TilePath, Vec<u8>>);

impl Files {
    fn grow(growth: &mut Growth, entries: std::ops::Range<usize>) -> Self {
        let mut files = std::collections::BTreeMap::new();
        let mut add = |file: Written| assert!(files.insert(file.path, file.bytes).is_none());
        for n in entries {
            assert!(growth.push(&entry(n), &mut add));
        }
        growth.partial().into_iter().for_each(add);
        Self(files)
    }
}

#[test]
fn a_tree_in_tiles_is_the_tree_of_the_definition_and_goes_on_where_it_ended() {
    let mut whole = Files(Default::default());
    let (mut growth, mut size) = (Growth::new(), 0);
    for step in [0, 1, 1, 253, 1, 1, 255, 300, 700, 64_500, 10] {
        let old = size;
        size += step;
        let files = Files::grow(&mut growth, old..size);
        let names: std::collections::BTreeSet<_> = files.0.keys().copied().collect();
        // Exactly the files that the larger tree needs, besides those that were full of the last one.
        for path in TilePath::added(old as u64, size as u64) {
            assert!(names.contains(&path), "{path} of {size}");
        }
        whole.0.extend(files.0);
        let all = leaves(size);
        assert_eq!(growth.root(), root(&all));
        let resumed = Growth::resume(size as u64, growth.root(), |path| whole.0.get(path).cloned()).unwrap();
        assert_eq!(resumed, growth);
    }
    let all = leaves(size);
    let node = |node: NodeId| {
        let path = TilePath::with_node(node, size as u64).unwrap();
        TileContent::parse(path, &whole.0[&path]).unwrap().node(node)
    };
    for index in [0, 255, 256, 65_535, 65_536, size - 1] {
        let proof = ProofPlan::inclusion(index as u64, size as u64).unwrap().build(node).unwrap();
        assert_eq!(verify_inclusion(all[index], index as u64, size as u64, growth.root(), &proof), Ok(()));
    }
    for old in [1, 255, 256, 257, 65_536, 65_537, size - 1] {
        let proof = ProofPlan::consistency(old as u64, size as u64).unwrap().build(node).unwrap();
        assert_eq!(verify_consistency((old as u64, root(&all[..old])), (size as u64, growth.root()), &proof), Ok(()));
    }
}

#[test]
fn a_tile_that_was_truncated_or_replaced_is_not_built_on() {
    let mut growth = Growth::new();
    let files = Files::grow(&mut growth, 0..1000);
    let root = growth.root();
    for path in Growth::needed(1000) {
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            Growth::resume(1000, root, |asked| {
                let mut bytes = files.0[asked].clone();
                if *asked == path {
                    change(&mut bytes);
                }
                Some(bytes)
            })
        };
        assert!(with(&|_| ()).is_ok());
        assert!(matches!(with(&|bytes| bytes.truncate(bytes.len() - 1)), Err(GrowthError::Tile(_))), "{path}");
        assert!(with(&|bytes| bytes.truncate(bytes.len() - 32)).is_err(), "{path}");
        assert!(matches!(with(&|bytes| bytes.clear()), Err(GrowthError::Tile(_))), "{path}");
        assert!(with(&|bytes| *bytes.last_mut().unwrap() ^= 1).is_err(), "a flipped bit in {path}");
        assert!(with(&|bytes| bytes[2] ^= 0x40).is_err(), "a flipped bit in {path}");
        let missing = Growth::resume(1000, root, |asked| (*asked != path).then(|| files.0[asked].clone()));
        assert_eq!(missing.unwrap_err(), GrowthError::Missing { path });
    }
}

#[test]
fn an_entry_that_is_too_long_is_not_entered() {
    let mut growth = Growth::new();
    assert!(!growth.push(&vec![0; MAX_ENTRY + 1], |_| ()));
    assert_eq!(growth.size(), 0);
    assert!(growth.push(&vec![0; MAX_ENTRY], |_| ()));
    assert!(growth.push(&[], |_| ()));
    let bundle = growth.partial().into_iter().find(|file| file.path.kind == TileKind::Entries).unwrap();
    assert_eq!(Bundle::parse(bundle.path, &bundle.bytes).unwrap().entries(), [vec![0; MAX_ENTRY], vec![]]);
}

#[test]
fn a_full_tile_may_be_read_in_the_place_of_a_narrow_one_and_no_other() {
    let mut growth = Growth::new();
    let files = Files::grow(&mut growth, 0..256);
    for kind in [TileKind::Hashes(0), TileKind::Entries] {
        let full = TilePath::of(kind, 0, 256).unwrap();
        let narrow = TilePath::of(kind, 0, 100).unwrap();
        assert_eq!(narrow.full(), full);
        let bytes = &files.0[&full];
        match kind {
            TileKind::Entries => assert_eq!(Bundle::parse(narrow, bytes).unwrap().entries().len(), 100),
            TileKind::Hashes(_) => {
                assert_eq!(TileContent::parse(narrow, bytes).unwrap().hashes().len(), 100);
                assert!(TileContent::parse(narrow, &bytes[..32 * 101]).is_err());
                assert!(TileContent::parse(narrow, &bytes[..32 * 99]).is_err());
            }
        }
    }
}

#[test]
fn a_narrow_tile_under_the_name_of_the_full_one_is_refused() {
    let mut growth = Growth::new();
    let files = Files::grow(&mut growth, 0..100);
    for (path, bytes) in &files.0 {
        match path.kind {
            TileKind::Entries => assert!(Bundle::parse(path.full(), bytes).is_err()),
            TileKind::Hashes(_) => assert!(TileContent::parse(path.full(), bytes).is_err()),
        }
    }
}

/// The most memory that this process has had, in KiB.
#[cfg(target_os = "linux")]
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn a_bundle_of_millions_of_empty_entries_is_refused_before_they_are_collected() {
    let zeros = vec![0; 17 << 20];
    #[cfg(target_os = "linux")]
    let before = peak();
    for size in [256, 100] {
        let path = TilePath::of(TileKind::Entries, 0, size).unwrap();
        assert!(Bundle::parse(path, &zeros).is_err());
        // One more than a bundle has.
        assert!(Bundle::parse(path, &zeros[..257 * 2]).is_err());
    }
    #[cfg(target_os = "linux")]
    assert!(peak() - before < 100 << 10, "eight million entries of 24 bytes were collected: {before} to {} KiB", peak());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bundles_and_tiles_of_any_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), size in 1_u64..600) {
        let path = TilePath::of(TileKind::Entries, (size - 1) / 256, size).unwrap();
        let _ = Bundle::parse(path, &bytes);
        let path = TilePath::of(TileKind::Hashes(0), (size - 1) / 256, size).unwrap();
        if let Ok(tile) = TileContent::parse(path, &bytes) {
            let _ = tile.node(NodeId { level: 3, index: size });
            let _ = tile.node(NodeId { level: 255, index: u64::MAX });
        }
    }

    #[test]
    fn proofs_of_large_trees_hold_wherever_they_are(size in 1_usize..3000, index in any::<prop::sample::Index>(), old in any::<prop::sample::Index>()) {
        let all = leaves(size);
        let (index, old) = (index.index(size), old.index(size) + 1);
        let tree = root(&all);
        let proof = build(&ProofPlan::inclusion(index as u64, size as u64).unwrap(), &all);
        prop_assert_eq!(verify_inclusion(all[index], index as u64, size as u64, tree, &proof), Ok(()));
        let proof = build(&ProofPlan::consistency(old as u64, size as u64).unwrap(), &all);
        prop_assert_eq!(verify_consistency((old as u64, root(&all[..old])), (size as u64, tree), &proof), Ok(()));
        let mut frontier = Frontier::new();
        all.iter().for_each(|leaf| frontier.push(*leaf));
        prop_assert_eq!(frontier.root(), tree);
    }
}
