//! Runnable examples of LogLine: `cargo run --example quickstart`.
