//! Runnable examples of LogLine: `cargo run --example worker_fleet`.
