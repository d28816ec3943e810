//! Ids that are fixed for every ledger.

use logline_core::ids;
use uuid::Uuid;

/// The id of the kernel `build_prompt`, as the specification writes it. It is no UUID, so [`build_prompt`] maps it.
pub const BUILD_PROMPT: &str = "c0c0c0c0-0000-4000-8000-bldp00000001";

/// The id of the kernel `prompt_runner`, as the specification writes it. It is no UUID, so [`prompt_runner`] maps it.
pub const PROMPT_RUNNER: &str = "c0c0c0c0-0000-4000-8000-runp00000001";

/// The id of the kernel's function span: the UUIDv5 of [`PROMPT_RUNNER`].
#[must_use]
pub fn prompt_runner() -> Uuid {
    ids::from_text(PROMPT_RUNNER)
}

/// The id of the kernel's function span: the UUIDv5 of [`BUILD_PROMPT`].
#[must_use]
pub fn build_prompt() -> Uuid {
    ids::from_text(BUILD_PROMPT)
}
