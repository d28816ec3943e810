//! Code that is ready to be called: machine code linked with what it may import.

use std::sync::Arc;

use logline_core::Failure;
use wasmtime::InstancePre;

#[cfg(feature = "component-model")]
use crate::component;
use crate::state::{CallState, Exports};

/// Code that is ready to be called.
pub(crate) struct Compiled {
    pub(crate) code: Code,
    /// Bytes of the binary.
    pub(crate) bytes: usize,
    /// Bytes of machine code and what belongs to it.
    pub(crate) image_bytes: usize,
}

/// What kind of code it is, which the `runtime` of its function says.
pub(crate) enum Code {
    /// A module, by ABI v1.
    Core(Core),
    /// A component.
    #[cfg(feature = "component-model")]
    Component(component::Kernel),
}

/// A module by ABI v1.
pub(crate) struct Core {
    pub(crate) pre: InstancePre<CallState>,
    pub(crate) exports: Exports,
}

impl Compiled {
    /// Where an instance has what ABI v1 needs; `None` for components.
    pub(crate) fn exports(&self) -> Option<Exports> {
        match &self.code {
            Code::Core(core) => Some(core.exports),
            #[cfg(feature = "component-model")]
            Code::Component(_) => None,
        }
    }

    /// The same, where its binary is no larger than a tenant may have it.
    pub(crate) fn within(self: Arc<Self>, max_bytes: usize) -> Result<Arc<Self>, Failure> {
        too_large(self.bytes, max_bytes).map(|()| self)
    }
}

/// Refuses a binary that is too large.
pub(crate) fn too_large(bytes: usize, max: usize) -> Result<(), Failure> {
    if bytes <= max {
        return Ok(());
    }
    Err(Failure::new("module_limit", format!("the module has {bytes} bytes, the limit is {max}: build it smaller")))
}
