//! The transparency log: integrating leaves beside hashing them, and proofs in small and large trees.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench that fails may panic")]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use logline_benches::{draft, key};
use logline_log::tile::{Growth, TilePath, TileSet};
use logline_log::tree::{ProofPlan, verify_inclusion};
use logline_log::{Checkpoint, Leaf, TreeHash, random_origin};

/// Records of spans that differ in their ids.
fn leaves(count: u64) -> Vec<Leaf> {
    let span = draft(7).seal_local(&key()).unwrap();
    let leaf = Leaf::of(&span);
    (0..count).map(|n| Leaf { id: uuid::Uuid::from_u128(u128::from(n)), ..leaf }).collect()
}

fn integrate(c: &mut Criterion) {
    const SPANS: u64 = 1_000_000;
    let leaves = leaves(SPANS);
    let mut group = c.benchmark_group("log: 1 million spans");
    group.sample_size(10).throughput(Throughput::Elements(SPANS));
    group.bench_function("floor: records and their hashes", |b| {
        b.iter(|| {
            for leaf in &leaves {
                black_box(TreeHash::leaf(&leaf.to_bytes()));
            }
        });
    });
    group.bench_function("ours: records, tree, tiles and bundles", |b| {
        b.iter(|| {
            let mut growth = Growth::new();
            for leaf in &leaves {
                growth.push(&leaf.to_bytes(), |file| drop(black_box(file)));
            }
            black_box(growth.partial());
            growth.root()
        });
    });
    group.finish();
}

/// The tiles of a log.
struct Log {
    checkpoint: Checkpoint,
    files: BTreeMap<TilePath, Vec<u8>>,
}

impl Log {
    fn of(leaves: &[Leaf]) -> Self {
        let (mut growth, mut files) = (Growth::new(), BTreeMap::new());
        for leaf in leaves {
            growth.push(&leaf.to_bytes(), |file| drop(files.insert(file.path, file.bytes)));
        }
        files.extend(growth.partial().into_iter().map(|file| (file.path, file.bytes)));
        Self { checkpoint: Checkpoint { origin: random_origin().unwrap(), size: growth.size(), root: growth.root() }, files }
    }

    /// As a server does it for one request: reads the tiles, makes the proof and verifies it.
    fn prove(&self, leaf: TreeHash, index: u64) -> Vec<TreeHash> {
        let plan = ProofPlan::inclusion(index, self.checkpoint.size).unwrap();
        let mut tiles = TileSet::new(self.checkpoint.size);
        for path in tiles.needed(&plan) {
            tiles.insert(path, &self.files[&path]).unwrap();
        }
        tiles.inclusion(leaf, index, &self.checkpoint).unwrap()
    }
}

fn prove(c: &mut Criterion) {
    let mut group = c.benchmark_group("log: proof of inclusion");
    for size in [10_000, 1_000_000] {
        let leaves = leaves(size);
        let log = Log::of(&leaves);
        let index = size / 3;
        let leaf = leaves[usize::try_from(index).unwrap()].hash();
        let proof = log.prove(leaf, index);
        let Checkpoint { size, root, .. } = log.checkpoint.clone();
        group.bench_function(format!("create, {size} leaves, {} hashes", proof.len()), |b| {
            b.iter(|| log.prove(leaf, black_box(index)))
        });
        group.bench_function(format!("verify, {size} leaves"), |b| {
            b.iter(|| verify_inclusion(leaf, black_box(index), size, root, &proof).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, integrate, prove);
criterion_main!(benches);
