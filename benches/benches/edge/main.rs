//! The HTTP edge under load, beside the least that could do the same: a bare axum server that inserts rows by sqlx into a table with the same
//! columns and indexes. Each server is a process of its own, and so is the client.
//!
//! `cargo bench -p logline-benches --bench edge -- PART [NUMBER…]`
//!
//! | part | numbers | what |
//! |---|---|---|
//! | `rate` | seconds, rounds, clients | spans per second on PostgreSQL, one in a call, in turns with the bare server; the ratio of the medians |
//! | `fanout` | seconds, rounds, streams | events per second that all streams together get while spans are written, in turns with the bare server |
//! | `latency` | seconds, clients | executions per second at most, and how long one takes at half of that (SQLite) |
//! | `idle` | streams, MiB | open streams that nothing happens on, and the memory of the server; fails if it is over the limit |
//! | `flat` | seconds | memory of the server under a mixture of calls, good and bad; fails if it goes on growing |
//!
//! Without a part it runs all of them at a small size.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench that fails may panic, and it prints"
)]

mod bare;
mod client;
mod hold;
mod load;
mod ours;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the median of many measurements is.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Each connection is a file.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

fn main() {
    allow_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // A child of this program: one of the servers.
    if let Ok(kind) = std::env::var(client::SERVER) {
        // Whoever has started it holds the other end of this.
        std::thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(0);
        });
        return match kind.as_str() {
            "bare" => runtime.block_on(bare::start()),
            _ => runtime.block_on(ours::start()),
        };
    }
    // `cargo bench` adds an option of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let part = arguments.next();
    let numbers: Vec<usize> = arguments.map(|text| text.parse().expect("a whole number")).collect();
    let number = |at: usize, default: usize| numbers.get(at).copied().unwrap_or(default);
    runtime.block_on(async {
        match part.as_deref() {
            Some("rate") => load::rate(number(0, 10), number(1, 5), number(2, 32)).await,
            Some("fanout") => load::fanout(number(0, 10), number(1, 3), number(2, 200)).await,
            Some("latency") => load::latency(number(0, 10), number(1, 32)).await,
            Some("idle") => hold::idle(number(0, 10_000), number(1, 1024)).await,
            Some("flat") => hold::flat(number(0, 600)).await,
            None => {
                load::rate(1, 2, 8).await;
                load::fanout(1, 2, 20).await;
                load::latency(1, 8).await;
                hold::idle(500, 1024).await;
                hold::flat(10).await;
            }
            Some(other) => panic!("`{other}` is no part: rate, fanout, latency, idle or flat"),
        }
    });
}
