//! The first steps: a ledger, a function, an execution and its proof.
#![allow(clippy::print_stdout, reason = "an example prints its results")]

use logline::core::request::Request;
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), logline::Failed> {
    let host = logline::dev("service.ledger").await?;
    let code = include_bytes!("fee.wasm");
    let fee = host.publish_module("acme", "fee", code, Some(json!({"rate": 25}))).await?;

    let payment = json!({"payment": "pay_1", "amount_minor": 10_000});
    let done = host.execute(Request::new("acme", "payments-api", fee.id, payment)).await?;
    println!("{}", done.result?);
    println!("proven by {}, signed by {}", done.span.seal.curr_hash, done.span.seal.public_key);
    Ok(())
}
