//! Canonical form, seal and verify, compared with the operations that they consist of.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench that fails may panic")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ed25519_dalek::{Signer as _, SigningKey};
use logline_benches::{draft, key};
use logline_core::{Verifier, canonical};
use serde::Serialize;
use serde_json::Value;

/// The same columns as a plain struct for serde_json. A service without a canonical form would hash this.
#[derive(Serialize)]
struct Plain<'a> {
    at: String,
    description: Option<&'a str>,
    did: Option<&'a str>,
    duration_ms: Option<u32>,
    entity_type: &'a str,
    id: String,
    input: Option<&'a Value>,
    is_deleted: bool,
    language: Option<&'a str>,
    metadata: Option<&'a Value>,
    name: Option<&'a str>,
    output: Option<&'a Value>,
    owner_id: &'a str,
    parent_id: Option<String>,
    public_key: String,
    related_to: Vec<String>,
    runtime: Option<&'a str>,
    seq: u32,
    status: Option<&'a str>,
    tenant_id: &'a str,
    this: &'a str,
    trace_id: Option<&'a str>,
    v: u32,
    visibility: &'a str,
    who: &'a str,
}

fn crypto(c: &mut Criterion) {
    let span = draft(7).seal_local(&key()).unwrap().into_signed();
    // Texts are made before the clock starts, so the floor is serialising and hashing alone.
    let plain = Plain {
        at: span.at.to_string(),
        description: span.description.as_deref(),
        did: span.did.as_deref(),
        duration_ms: span.duration_ms,
        entity_type: &span.entity_type,
        id: span.id.to_string(),
        input: span.input.as_ref(),
        is_deleted: span.is_deleted,
        language: span.language.as_deref(),
        metadata: span.metadata.as_ref(),
        name: span.name.as_deref(),
        output: span.output.as_ref(),
        owner_id: &span.owner_id,
        parent_id: span.parent_id.map(|id| id.to_string()),
        public_key: span.seal.public_key.to_string(),
        related_to: span.related_to.iter().map(ToString::to_string).collect(),
        runtime: span.runtime.as_deref(),
        seq: span.seq,
        status: span.status.as_deref(),
        tenant_id: &span.tenant_id,
        this: &span.this,
        trace_id: span.trace_id.as_deref(),
        v: 1,
        visibility: span.visibility.as_str(),
        who: &span.who,
    };
    assert_eq!(serde_json::to_vec(&plain).unwrap().len(), canonical::payload(&span.span, &span.seal.public_key).len());

    let mut group = c.benchmark_group("hash");
    group.bench_function("floor: serde_json::to_vec + blake3", |b| {
        b.iter(|| blake3::hash(&serde_json::to_vec(black_box(&plain)).unwrap()));
    });
    group.bench_function("ours: canonical payload + blake3", |b| {
        b.iter(|| blake3::hash(&canonical::payload(black_box(&span.span), &span.seal.public_key)));
    });
    group.finish();

    let signing = SigningKey::from_bytes(&[7; 32]);
    let message = logline_core::dsse::pae(logline_core::dsse::SPAN, span.seal.curr_hash.as_bytes());
    let mut group = c.benchmark_group("seal");
    group.bench_function("floor: ed25519 sign", |b| b.iter(|| signing.sign(black_box(&message))));
    let unsealed = draft(7);
    let ours = key();
    group.bench_function("ours: seal", |b| {
        b.iter_batched(|| unsealed.clone(), |draft| draft.seal_local(&ours).unwrap(), criterion::BatchSize::SmallInput);
    });
    group.finish();

    let verifying = signing.verifying_key();
    let signature = signing.sign(&message);
    let mut group = c.benchmark_group("verify");
    group.bench_function("floor: ed25519 verify_strict", |b| {
        b.iter(|| verifying.verify_strict(black_box(&message), &signature).unwrap());
    });
    let mut verifier = Verifier::new();
    group.bench_function("ours: verify a span", |b| b.iter(|| black_box(&span).check(&mut verifier).unwrap()));
    group.finish();
}

criterion_group!(benches, crypto);
criterion_main!(benches);
