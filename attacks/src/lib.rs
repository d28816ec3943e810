//! Programs that attack a shared host: `cargo run --example attack`.
