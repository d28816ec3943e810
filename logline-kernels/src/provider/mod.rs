//! Calls to providers of models: which provider, at what price, within which limits, and what to do if it fails.
//!
//! A provider is a span of type `provider`, signed by a publisher of the tenant. [`ProviderSpec`] is what its metadata say. An adapter
//! ([`logline_core::contract::provider::Provider`]) makes one call; everything else is here. `docs/providers.md` is the specification.

mod ask;
mod breaker;
mod call;
mod gates;
mod kernel;
mod mask;
mod price;
mod price_table;
mod remote;
mod schemas;
mod scripted;
mod secrets;
mod spec;
mod streams;
pub mod telemetry;
mod verify_cost;

pub use ask::{Ask, Asked, FromPrompt, Permit};
pub use breaker::Breaker;
pub use call::{Providers, Told, call_hash};
pub use kernel::{PROVIDER_EMBED, PROVIDER_INVOKE, ProviderExec};
pub use price::{Prices, cost};
pub use price_table::{PRICE_TABLE, PriceRow, PriceTable};
pub use scripted::{Script, ScriptedProvider};
pub use secrets::HostSecrets;
pub use spec::{DeadlineSpec, ModelSpec, ProviderLimits, ProviderSpec, Retries, Target};
pub use streams::{Listener, Streams};
pub use verify_cost::{CostError, CostReport, Costed, verify_cost, verify_costs};
