//! Trees, proofs, checkpoints and tiles for code that is not ours, and theirs for ours: `cargo xtask interop` runs Go's `sumdb`, pymerkle and
//! sigstore on what this writes, and this on what they write.
//!
//! A line is a case with its verdict (`valid`). Leaf `n` is the text `entry n`. `inclusion`: `index`, `size`, `leaf` (its hash), `root`,
//! `proof`. `consistency`: `old`, `old_root`, `size`, `root`, `proof`. `note`: `text` and `key`. `tiles`: `size`, `root` and the files by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use logline_core::{KeyPair, Signer as _};
use logline_log::note::{KeyKind, Note, NoteKey};
use logline_log::tile::{Growth, TileContent, TileKind, TilePath, TileSet};
use logline_log::tree::{Frontier, NodeId, ProofPlan, verify_consistency, verify_inclusion};
use logline_log::{Checkpoint, Policy, TreeHash};
use serde_json::{Value, json};

/// The leaves that there are.
const LEAVES: u64 = 600;

fn leaf(n: u64) -> TreeHash {
    TreeHash::leaf(format!("entry {n}").as_bytes())
}

fn root(first: u64, count: u64) -> TreeHash {
    let mut tree = Frontier::new();
    (first..first + count).for_each(|n| tree.push(leaf(n)));
    tree.root()
}

fn built(plan: ProofPlan) -> Vec<TreeHash> {
    plan.build(|node: NodeId| Ok::<_, ()>(root(node.index << node.level, 1 << node.level))).unwrap()
}

fn texts(proof: &[TreeHash]) -> Vec<String> {
    proof.iter().map(ToString::to_string).collect()
}

fn inclusion(index: u64, size: u64) -> Value {
    let proof = texts(&built(ProofPlan::inclusion(index, size).unwrap()));
    json!({
        "kind": "inclusion", "index": index, "size": size, "leaf": leaf(index).to_string(), "root": root(0, size).to_string(),
        "proof": proof, "valid": true
    })
}

fn consistency(old: u64, size: u64) -> Value {
    let proof = texts(&built(ProofPlan::consistency(old, size).unwrap()));
    json!({
        "kind": "consistency", "old": old, "old_root": root(0, old).to_string(), "size": size, "root": root(0, size).to_string(),
        "proof": proof, "valid": true
    })
}

/// The ways to tamper with a proof; none of them may be accepted by anybody.
fn tampered(case: &Value) -> Vec<Value> {
    let other = TreeHash::leaf(b"another").to_string();
    let mut cases = Vec::new();
    let mut push = |change: &dyn Fn(&mut Value)| {
        let mut changed = case.clone();
        change(&mut changed);
        changed["valid"] = json!(false);
        cases.push(changed);
    };
    push(&|case| case["root"] = json!(other));
    push(&|case| case["proof"].as_array_mut().unwrap().push(json!(other)));
    if case["kind"] == "inclusion" {
        push(&|case| case["leaf"] = json!(other));
        if case["size"] != 1 {
            push(&|case| case["index"] = json!((case["index"].as_u64().unwrap() + 1) % case["size"].as_u64().unwrap()));
        }
    } else {
        push(&|case| case["old_root"] = json!(other));
    }
    if !case["proof"].as_array().unwrap().is_empty() {
        push(&|case| drop(case["proof"].as_array_mut().unwrap().pop()));
        push(&|case| case["proof"][0] = json!(other));
    }
    cases
}

fn notes() -> Vec<Value> {
    let (log, witness) = (KeyPair::from_seed(&[1; 32]), KeyPair::from_seed(&[2; 32]));
    let origin = logline_log::random_origin().unwrap();
    let checkpoint = Checkpoint { origin: origin.clone(), size: 300, root: root(0, 300) };
    let mut note = checkpoint.to_note().unwrap();
    // The witness's line stands first: nobody may take the first line for the log's.
    note.cosign(&"witness.example/w".parse().unwrap(), 1_700_000_000, &witness).now_or_never().unwrap().unwrap();
    note.sign(&origin, &log).now_or_never().unwrap().unwrap();
    let key = NoteKey::new(origin, KeyKind::Log, log.public_key()).unwrap().to_string();
    let good = note.to_string();
    let case = |text: String, valid: bool| json!({"kind": "note", "text": text, "key": key, "valid": valid});
    let (head, line) = good.trim_end().rsplit_once('\n').unwrap();
    let flipped = line.rsplit_once(' ').map(|(name, signature)| {
        let mut bytes = STANDARD.decode(signature).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        format!("{head}\n{name} {}\n", STANDARD.encode(bytes))
    });
    vec![
        case(good.clone(), true),
        case(good.replacen("\n300\n", "\n301\n", 1), false),
        case(flipped.unwrap(), false),
        case(format!("{head}\n"), false),
        case(good.replacen("\n\n", "\n", 1), false),
    ]
}

fn tiles(size: u64) -> Value {
    let mut growth = Growth::new();
    let mut levels: Vec<Vec<TreeHash>> = vec![Vec::new(); 3];
    (0..size).for_each(|n| {
        levels[0].push(leaf(n));
        growth.push(format!("entry {n}").as_bytes(), |_| ());
    });
    assert_eq!(growth.root(), root(0, size));
    for level in 1..3 {
        levels[level] = levels[level - 1]
            .as_chunks::<256>()
            .0
            .iter()
            .map(|full| {
                let mut tree = Frontier::new();
                full.iter().for_each(|hash| tree.push(*hash));
                tree.root()
            })
            .collect();
    }
    let mut files = serde_json::Map::new();
    for path in TilePath::added(0, size) {
        let TileKind::Hashes(level) = path.kind else { continue };
        let first = usize::try_from(path.index * 256).unwrap();
        let hashes = &levels[usize::from(level)][first..first + usize::from(path.width)];
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        files.insert(path.to_string(), json!(STANDARD.encode(bytes)));
    }
    json!({"kind": "tiles", "size": size, "root": root(0, size).to_string(), "files": files, "valid": true})
}

/// Our own verdict on a case.
fn holds(case: &Value) -> bool {
    let number = |name: &str| case[name].as_u64().unwrap();
    let hash = |name: &str| TreeHash::from_base64(case[name].as_str().unwrap()).unwrap();
    let proof = || -> Vec<_> {
        case["proof"].as_array().unwrap().iter().map(|hash| TreeHash::from_base64(hash.as_str().unwrap()).unwrap()).collect()
    };
    match case["kind"].as_str().unwrap() {
        "inclusion" => verify_inclusion(hash("leaf"), number("index"), number("size"), hash("root"), &proof()).is_ok(),
        "consistency" => {
            verify_consistency((number("old"), hash("old_root")), (number("size"), hash("root")), &proof()).is_ok()
        }
        "note" => {
            let policy = Policy::of_log(case["key"].as_str().unwrap().parse().unwrap());
            Note::parse(case["text"].as_str().unwrap().as_bytes()).is_ok_and(|note| policy.verify(&note).is_ok())
        }
        "tiles" => {
            let checkpoint = Checkpoint { origin: "log".parse().unwrap(), size: number("size"), root: hash("root") };
            (0..checkpoint.size).step_by(7).all(|n| {
                let plan = ProofPlan::inclusion(n, checkpoint.size).unwrap();
                let mut set = TileSet::new(checkpoint.size);
                for path in set.needed(&plan) {
                    let bytes = STANDARD.decode(case["files"][path.to_string()].as_str().unwrap()).unwrap();
                    assert!(TileContent::parse(path, &bytes).is_ok());
                    set.insert(path, &bytes).unwrap();
                }
                set.inclusion(leaf(n), n, &checkpoint).is_ok()
            })
        }
        other => panic!("a kind of case that nobody knows: {other}"),
    }
}

fn ours() -> Vec<Value> {
    let mut cases = notes();
    for size in (1..=34).chain([63, 64, 65, 255, 256, 257, 600]) {
        for index in [0, size / 3, size / 2, size - 1] {
            cases.push(inclusion(index, size));
        }
        for old in [1, size.div_ceil(3), size.div_ceil(2), size] {
            cases.push(consistency(old, size));
        }
    }
    let more: Vec<_> = cases.iter().filter(|case| case["kind"] != "note").flat_map(tampered).collect();
    cases.extend(more);
    for size in [9, 255, 256, 257, LEAVES] {
        let good = tiles(size);
        let mut bad = good.clone();
        let file = bad["files"].as_object_mut().unwrap().values_mut().next().unwrap();
        let mut bytes = STANDARD.decode(file.as_str().unwrap()).unwrap();
        bytes[0] ^= 1;
        *file = json!(STANDARD.encode(bytes));
        bad["valid"] = json!(false);
        cases.extend([good, bad]);
    }
    cases
}

#[test]
fn what_is_written_for_others_is_what_we_say_ourselves() {
    let cases = ours();
    for case in &cases {
        assert_eq!(holds(case), case["valid"] == true, "{case}");
    }
    assert!(cases.iter().filter(|case| case["valid"] == false).count() > 1000);
    if let Some(file) = std::env::var_os("LOGLINE_RECORD_LOG") {
        let lines: String = cases.iter().map(|case| format!("{case}\n")).collect();
        std::fs::write(file, lines).unwrap();
    }
}

#[test]
#[ignore = "`cargo xtask interop` makes the files that it reads"]
fn what_others_have_written_is_accepted_and_what_they_tampered_with_is_not() {
    let files = std::env::var("LOGLINE_FOREIGN_LOGS").expect("`cargo xtask interop` names the files in LOGLINE_FOREIGN_LOGS");
    for file in files.split(':') {
        let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{file}: {e}"));
        let (mut valid, mut invalid) = (0, 0);
        for line in text.lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            assert_eq!(holds(&case), case["valid"] == true, "{file}: {case}");
            if case["valid"] == true { valid += 1 } else { invalid += 1 }
        }
        assert!(valid > 50 && invalid > 50, "{file}: {valid} that are valid, {invalid} that are not");
    }
}
