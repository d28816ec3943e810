//! The quickstart of LogLine: `cargo run --example quickstart`.
