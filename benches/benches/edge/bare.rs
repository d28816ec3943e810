//! The least that takes spans: axum, and one `INSERT` by sqlx into a table with the ledger's columns and indexes. It checks nobody's token,
//! seals nothing, and its stream forgets.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::client::DATABASE;

const INSERT: &str = "INSERT INTO plain.registry (id, seq, entity_type, who, did, this, at, owner_id, tenant_id, visibility, is_deleted, \
    name, description, content, curr_hash, signature, public_key, metadata) \
    VALUES ($1, 0, $2, 'user:alice', 'created', $3, now(), 'alice', 'acme', 'private', false, $4, $5, $6::json, $7, $8, $7, $9::json)";

#[derive(Clone)]
struct Bare {
    pool: PgPool,
    rows: broadcast::Sender<Arc<str>>,
}

pub(crate) async fn start() {
    let url = std::env::var(DATABASE).unwrap();
    let pool = PgPoolOptions::new().max_connections(10).connect(&url).await.unwrap();
    let bare = Bare { pool, rows: broadcast::Sender::new(4096) };
    let app = Router::new().route("/api/spans", post(append)).route("/api/timeline/stream", get(follow)).with_state(bare);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", json!({"address": listener.local_addr().unwrap(), "tokens": ["none"]}));
    axum::serve(listener, app).await.unwrap();
}

async fn append(State(bare): State<Bare>, body: Bytes) -> Response {
    let span: Value = serde_json::from_slice(&body).unwrap();
    let mut random = [0; 16];
    getrandom::fill(&mut random).unwrap();
    let (id, text) = (Uuid::from_bytes(random), |name: &str| span[name].as_str().unwrap_or_default().to_owned());
    let (hash, signature) = ("0".repeat(64), "0".repeat(128));
    let metadata = json!({"sealed_by": {"by": "host", "for": "alice", "credential": id.to_string()}});
    let query = sqlx::query(INSERT)
        .bind(id)
        .bind(text("entity_type"))
        .bind(text("this"))
        .bind(text("name"))
        .bind(text("description"))
        .bind(span["content"].to_string())
        .bind(hash)
        .bind(signature)
        .bind(metadata.to_string());
    query.execute(&bare.pool).await.unwrap();
    // Nobody may listen.
    let _ = bare.rows.send(format!("event: span\ndata: {span}\n\n").into());
    (StatusCode::CREATED, json!({"spans": [{"id": id.to_string()}]}).to_string()).into_response()
}

async fn follow(State(bare): State<Bare>) -> Response {
    let first = stream::iter([Ok::<_, Infallible>(Arc::<str>::from(": begun\n\n"))]);
    let rows =
        stream::unfold(
            bare.rows.subscribe(),
            |mut rows| async move { Some((Ok::<_, Infallible>(rows.recv().await.ok()?), rows)) },
        );
    let lines = first.chain(rows).map(|text| text.map(|text| text.as_bytes().to_vec()));
    let body = Body::from_stream(lines);
    ([("content-type", "text/event-stream")], body).into_response()
}
