//! The kinds of code that a sandbox runs: which one a function is, its `runtime` says.

use logline_core::Failure;
use logline_core::Hash;

use crate::scan::invalid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A module, by ABI v1.
    Core,
    /// A component of the world `logline:kernel/kernel@1.0.0`.
    #[cfg(feature = "component-model")]
    Component,
}

impl Kind {
    /// Where machine code of this kind is kept. The same code as another kind is another thing.
    pub(crate) fn cache_key(self, code: Hash) -> Hash {
        match self {
            Self::Core => code,
            #[cfg(feature = "component-model")]
            Self::Component => Hash::of(&[&code.0[..], b"component"].concat()),
        }
    }

    /// Refuses text of another kind, which the parser may not know.
    pub(crate) fn check_text(self, text: &str) -> Result<(), Failure> {
        if self == Self::Core && text.starts_with("(component") { Err(component()) } else { Ok(()) }
    }

    /// Refuses a binary of another kind, with what to do.
    pub(crate) fn check(self, binary: &[u8]) -> Result<(), Failure> {
        // After the magic bytes: the version, and the layer, 0 for modules and 1 for components.
        let is_component = binary.get(6) == Some(&1);
        match (self, is_component) {
            (Self::Core, true) => Err(component()),
            #[cfg(feature = "component-model")]
            (Self::Component, false) => Err(invalid("it is a module, no component: publish it with runtime `wasm@1`")),
            _ => Ok(()),
        }
    }
}

fn component() -> Failure {
    invalid("it is a component: publish it with runtime `wasm-component@1`, for hosts that run those")
}
