//! The kinds of code that a sandbox runs. The `runtime` of a function says which kind it is.

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
    /// The key under which machine code of this kind is cached. The same code has another key for another kind.
    pub(crate) fn cache_key(self, code: Hash) -> Hash {
        match self {
            Self::Core => code,
            #[cfg(feature = "component-model")]
            Self::Component => Hash::of(&[&code.0[..], b"component"].concat()),
        }
    }

    /// Refuses text of another kind. The parser may not know that kind, so its own message would not help.
    pub(crate) fn check_text(self, text: &str) -> Result<(), Failure> {
        if self == Self::Core && text.starts_with("(component") { Err(component()) } else { Ok(()) }
    }

    /// Refuses a binary of another kind. The message says what to do.
    pub(crate) fn check(self, binary: &[u8]) -> Result<(), Failure> {
        // The version follows the magic bytes, and then the layer: 0 for modules, 1 for components.
        let is_component = binary.get(6) == Some(&1);
        match (self, is_component) {
            (Self::Core, true) => Err(component()),
            #[cfg(feature = "component-model")]
            (Self::Component, false) => Err(invalid("the code is a module, not a component: publish it with runtime `wasm@1`")),
            _ => Ok(()),
        }
    }
}

fn component() -> Failure {
    invalid("the code is a component: publish it with runtime `wasm-component@1`, for hosts that run components")
}
