#![doc = include_str!("../README.md")]

mod client;
mod peers;
mod server;
mod state;

pub use client::{HttpWitness, SetupError};
pub use server::{MAX_CALL, ServeOptions, serve};
pub use state::{StateError, begin_state, open_state};
