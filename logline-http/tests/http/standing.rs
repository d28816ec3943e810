//! What a token is told of itself, of who may sign, of proposals and of proofs, and what it is not told.

use std::sync::Arc;
use std::time::Duration;

use logline::home::{Home, KeyOf};
use logline_core::ledger::{LedgerExt as _, WorkQueue as _};
use logline_core::roles::Role;
use logline_core::trust::governance::{Class, Decision, Environment, Governance, Proposed, Wish};
use logline_core::trust::{Delegation, TrustRoot};
use logline_core::{
    Clock as _, Draft, IdSource as _, KeyPair, Scope, SignedSpan, Signer as _, SystemClock, SystemIds, VerifiedSpan, Visibility,
};
use logline_http::{LogFolders, Permission, ServeOptions};
use logline_log::note::{KeyKind, Note, NoteKey};
use logline_log::store::Directory;
use logline_log::{Checkpoint, Integrator, LogProof, LogSite, Policy, Step};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stage::{Stage, options};

/// Publishes the next manifest: functions are governed, and this key is an approver of `acme`.
async fn govern(stage: &Stage, approver: &KeyPair) {
    let home = Home::folder(stage.folder.path());
    let (trust, root) = (TrustRoot::load(home.trust_file()).unwrap(), home.key(KeyOf::Root).unwrap());
    let mut manifest = stage.host.trusted().manifest.clone();
    manifest.version += 1;
    let manifest = manifest
        .grant(approver.public_key(), Role::Approver, ["acme"])
        .grant(approver.public_key(), Role::Approver, ["secret-customer"])
        .governed(Governance::default().class(Class::Function, 1));
    trust.publish(stage.host.ledger().as_ref(), &manifest, &root, &SystemClock).await.unwrap();
    stage.host.refresh().await.unwrap();
}

async fn append(stage: &Stage, draft: Draft, key: &KeyPair) -> VerifiedSpan {
    let draft = if draft.has_id() { draft } else { draft.id(SystemIds.next_id(SystemClock.now())) };
    let span = draft.stamp(&SystemClock, &SystemIds).seal_local(key).unwrap();
    stage.host.ledger().append_one(&Scope::Operator, span.clone()).await.unwrap();
    span
}

async fn propose(stage: &Stage, subject: &SignedSpan) -> Proposed {
    let (ledger, trusted) = (stage.host.ledger(), stage.host.trusted());
    let wish = Wish::promote(Environment::Production).because("the new rate");
    let proposal = trusted.draft_proposal(ledger.as_ref(), subject, &wish, ledger.now().await.unwrap()).await.unwrap().unwrap();
    let draft = proposal.to_draft("acme", "publisher", &stage.publisher.public_key());
    Proposed::of(&append(stage, draft, &stage.publisher).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_told_whom_it_stands_for_and_never_shown_again() {
    let stage = Stage::start().await;
    let token = stage.token_for("acme", "auditor", &[Permission::ReadTenant]).await;
    let answer = stage.get(&token, "/api/identity").await;
    assert!(!String::from_utf8_lossy(&answer.body).contains(&token));
    let body = answer.ok(200);
    assert_eq!(
        (&body["tenant"], &body["user"], &body["permissions"]),
        (&json!("acme"), &json!("auditor"), &json!(["tenant:read"]))
    );
    stage.call("GET", "/api/identity", &[], None).await.is(401, "no_token");
    stage.get(&token, "/api/identity?tenant_id=beta").await.is(403, "other_identity");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_sign_is_told_without_naming_other_tenants_of_a_delegation() {
    let stage = Stage::start().await;
    let runtime = Home::folder(stage.folder.path()).key(KeyOf::Host).unwrap();
    let [ours, theirs, stolen] = [(); 3].map(|()| KeyPair::generate().unwrap());
    let now = SystemClock.now();
    let delegation = |key: &KeyPair, tenants: &[&str]| {
        Delegation::new(key.public_key(), tenants.iter().copied(), now, now.saturating_add(Duration::from_secs(3600)))
    };
    let trust = TrustRoot::load(Home::folder(stage.folder.path()).trust_file()).unwrap();
    let ledger = stage.host.ledger();
    for (key, tenants) in [(&ours, &["acme", "secret-customer"][..]), (&theirs, &["secret-customer"][..])] {
        trust.delegate(ledger.as_ref(), &delegation(key, tenants), &runtime, &SystemClock).await.unwrap();
    }
    // Somebody without the right writes a delegation to themselves, past the library.
    let value = json!({"delegation": {"key": stolen.public_key().to_string(), "tenants": ["acme"],
        "not_before": now.to_string(), "expires": now.saturating_add(Duration::from_secs(60)).to_string()}});
    let forged = Draft::new("delegation").tenant("system").owner("system").who("x").this("host.key").metadata(value);
    append(&stage, forged, &stolen).await;
    stage.host.refresh().await.unwrap();

    let token = stage.token("acme", "alice").await;
    let answer = stage.get(&token, "/api/trust").await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(!text.contains("secret-customer") && !text.contains(&stolen.public_key().to_string()), "{text}");
    let body = answer.ok(200);
    let keys: Vec<_> = body["delegations"].as_array().unwrap().iter().map(|given| given["key"].as_str().unwrap()).collect();
    assert_eq!(keys, [ours.public_key().to_string()]);
    assert_eq!(body["has_all_delegations"], true);
    assert_eq!(body["types"]["execution"], json!({"first": ["runtime"], "later": ["runtime"]}));
    assert_eq!(body["types"]["request"], json!({"first": ["member", "publisher", "runtime"], "later": ["runtime"]}));
    // The manifest is the signed row: whoever reads it can verify it.
    let line = serde_json::to_vec(&body["manifest"]).unwrap();
    let logline_core::ParsedSpan::Signed(row) = logline_core::parse_line(&line, stage.host.rules()).unwrap() else { panic!() };
    assert_eq!(row.verify(&mut logline_core::Verifier::new()).unwrap().seal, stage.host.trusted().span.seal);
    let writer = stage.token_for("acme", "alice", &[Permission::Write]).await;
    stage.get(&writer, "/api/trust").await.is(403, "not_permitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_is_shown_with_both_versions_and_its_votes() {
    let stage = Stage::start().await;
    stage.work();
    let approver = KeyPair::generate().unwrap();
    govern(&stage, &approver).await;
    let first = stage.fee("acme").await;
    let token = stage.token("acme", "alice").await;
    let show = async |proposed: &Proposed| stage.get(&token, &format!("/api/proposals/{}", proposed.id)).await.ok(200);

    let proposed = propose(&stage, &first).await;
    let body = show(&proposed).await;
    assert_eq!(stage.get(&token, "/api/proposals").await.ok(200)["proposals"], json!([body]), "it waits");
    assert_eq!(
        (&body["needed"], &body["refusal"]["code"], &body["in_force"]),
        (&json!(1), &json!("not_approved"), &Value::Null)
    );
    assert_eq!(body["subject"]["curr_hash"], first.seal.curr_hash.to_string());

    let statement = proposed.statement(stage.host.trusted().ledger, Decision::Approve);
    // Who is no approver signs as well. It is shown, and does not count.
    let stranger = stage.publisher.clone();
    let vote = async |key: &KeyPair| statement.clone().sign(key).await.unwrap().to_draft("approver").parent(proposed.id);
    append(&stage, vote(&stranger).await, &stranger).await;
    let sealed = vote(&approver).await.stamp(&SystemClock, &SystemIds).seal_local(&approver).unwrap();
    let voter = stage.token("acme", "approver").await;
    let body = stage.post(&voter, "/api/approvals", &[], &serde_json::from_slice(&sealed.to_line()).unwrap()).await.ok(201);
    assert_eq!(body, show(&proposed).await);
    assert_eq!(
        (body["counted"][0]["key"].as_str(), &body["refusal"]),
        (Some(approver.public_key().to_string().as_str()), &Value::Null)
    );
    assert_eq!(body["void"][0]["key"], stranger.public_key().to_string());

    let promote = logline_core::request::Request::new("acme", "alice", proposed.id, Value::Null).this("governance.promote");
    stage.host.execute(promote).await.unwrap().result.unwrap();
    let body = show(&proposed).await;
    assert!(body["carried_out"].is_string() && body["refusal"].is_null());
    assert_eq!(stage.get(&token, "/api/proposals").await.ok(200)["proposals"], json!([]), "it waits no more");
    assert_eq!((body["counted"].as_array().unwrap().len(), &body["void"]), (1, &json!([])));

    let next = Draft::next_version(&first).input(json!({"rate": 30}));
    let second = append(&stage, next, &stage.publisher).await;
    let body = show(&propose(&stage, &second).await).await;
    assert_eq!((&body["in_force"]["input"], &body["subject"]["input"]), (&json!({"rate": 25}), &json!({"rate": 30})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_of_another_tenant_or_of_a_private_span_is_not_shown() {
    let stage = Stage::start().await;
    govern(&stage, &KeyPair::generate().unwrap()).await;
    let secret = Draft::new("function")
        .tenant("acme")
        .owner("bob")
        .who("publisher")
        .this("function.secret")
        .visibility(Visibility::Private);
    let secret = append(&stage, secret.runtime("wasm@1").code("AGFzbQEAAAA="), &stage.publisher).await;
    let proposed = propose(&stage, &secret).await;
    let path = format!("/api/proposals/{}", proposed.id);
    let (alice, mallory) = (stage.token("acme", "alice").await, stage.token("beta", "alice").await);
    let shown = stage.get(&alice, &path).await.ok(200);
    assert_eq!((&shown["subject"], &shown["in_force"]), (&Value::Null, &Value::Null));
    stage.get(&mallory, &path).await.is(404, "not_found");
    // A span of another type is no proposal, and one that nobody could have made is shown as what it is.
    stage.get(&alice, &format!("/api/proposals/{}", secret.id)).await.is(404, "not_found");
    let odd =
        Draft::new("proposal").tenant("acme").owner("publisher").who("publisher").this("x").visibility(Visibility::Tenant);
    let odd = append(&stage, odd, &stage.publisher).await;
    let shown = stage.get(&alice, &format!("/api/proposals/{}", odd.id)).await.ok(200);
    assert_eq!(shown["refusal"]["code"], "proposal_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_of_the_version_that_is_asked_for_or_says_why_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let (tiles, locks) = (folder.path().join("tiles"), folder.path().join("locks"));
    let mut with_logs = options();
    with_logs.logs = Some(LogFolders::new(&tiles, &locks));
    let stage = Stage::with(with_logs, ServeOptions::default()).await;
    let first = stage.fee("acme").await;
    let token = stage.token("acme", "alice").await;
    let path = format!("/api/spans/{}/proof", first.id);
    assert_eq!(stage.get(&token, &path).await.ok(200)["reason"], "the tenant has no published log yet");
    stage.get(&token, "/api/log/checkpoint").await.is(404, "not_found");
    let signer = Arc::new(KeyPair::generate().unwrap());
    let site = LogSite::new(Arc::new(Directory::new(&tiles)), Arc::new(Directory::new(&locks)), signer.clone());
    let mut integrator = Integrator::new(Arc::new(stage.host.ledger().clone()), site, "acme");
    while integrator.step().await.unwrap() != Step::Idle {}
    let checkpoint = stage.get(&token, "/api/log/checkpoint").await;
    let checkpoint = Checkpoint::of(&Note::parse(&checkpoint.body).unwrap()).unwrap();
    let policy = Policy::of_log(NoteKey::new(checkpoint.origin, KeyKind::Log, signer.public_key()).unwrap());
    let second = append(&stage, Draft::next_version(&first).input(json!({"rate": 30})), &stage.publisher).await;
    let proof = async |seq: u32| stage.get(&token, &format!("/api/spans/{}/proof?seq={seq}", second.id)).await;
    let given = proof(0).await.ok(200);
    let given = LogProof::parse(given["proof"].as_str().unwrap().as_bytes()).unwrap();
    given.verify(&first, &policy).unwrap();
    assert!(given.verify(&second, &policy).is_err(), "it is of one version");
    assert!(proof(1).await.ok(200)["reason"].as_str().unwrap().contains("log"), "no checkpoint covers it yet");
    proof(2).await.is(404, "not_found");
    let mallory = stage.token("beta", "alice").await;
    stage.get(&mallory, &format!("/api/spans/{}/proof?seq=0", second.id)).await.is(404, "not_found");
    stage.get(&token, &format!("/api/spans/{}/proof?seq=x", second.id)).await.is(400, "invalid_parameter");
    stage.get(&token, &format!("/api/spans/{}/proof", Uuid::max())).await.is(404, "not_found");

    let without = Stage::start().await;
    let row = without.fee("acme").await;
    let token = without.token("acme", "alice").await;
    let body = without.get(&token, &format!("/api/spans/{}/proof", row.id)).await.ok(200);
    assert_eq!((&body["proof"], &body["reason"]), (&Value::Null, &json!("this service has no transparency log")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_proposal_is_named_in_the_list() {
    let stage = Stage::start().await;
    govern(&stage, &KeyPair::generate().unwrap()).await;
    let first = stage.fee("acme").await;
    let proposed = propose(&stage, &first).await;
    let file = rusqlite::Connection::open(stage.folder.path().join("service.ledger")).unwrap();
    file.execute_batch("DROP TRIGGER ur_no_update").unwrap();
    let damage = "UPDATE universal_registry SET metadata = '{' WHERE id = ?1";
    assert_eq!(file.execute(damage, [proposed.id.to_string()]).unwrap(), 1);
    let list = stage.get(&stage.token("acme", "alice").await, "/api/proposals").await.ok(200);
    assert_eq!((&list["proposals"], &list["damaged"][0]["id"]), (&json!([]), &json!(proposed.id)));
}
