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

/// The id of the kernel `prompt_bandit`, as the specification writes it. It is no UUID, so [`prompt_bandit`] maps it.
pub const PROMPT_BANDIT: &str = "c0c0c0c0-0000-4000-8000-band00000001";

/// The id of the kernel's function span: the UUIDv5 of [`PROMPT_BANDIT`].
#[must_use]
pub fn prompt_bandit() -> Uuid {
    ids::from_text(PROMPT_BANDIT)
}

/// The id of the kernel `prompt_eval`, as the specification writes it. It is no UUID, so [`prompt_eval`] maps it.
pub const PROMPT_EVAL: &str = "c0c0c0c0-0000-4000-8000-eval00000001";

/// The id of the kernel's function span: the UUIDv5 of [`PROMPT_EVAL`].
#[must_use]
pub fn prompt_eval() -> Uuid {
    ids::from_text(PROMPT_EVAL)
}
