//! Code that is ready to be called: machine code that is linked with its imports.

use std::sync::Arc;

use logline_core::Failure;
use wasmtime::InstancePre;

#[cfg(feature = "component-model")]
use crate::component;
use crate::state::{CallState, Exports};

/// A module or component that is ready to be called.
pub(crate) struct Compiled {
    pub(crate) code: Code,
    /// The size of the binary, bytes.
    pub(crate) bytes: usize,
    /// The size of the machine code and its metadata, bytes.
    pub(crate) image_bytes: usize,
}

/// The compiled code, by its kind. The `runtime` of the function says which kind it is.
pub(crate) enum Code {
    /// A module, by ABI v1.
    Core(Core),
    /// A component of the world `logline:kernel/kernel@1.0.0`.
    #[cfg(feature = "component-model")]
    Component(component::Kernel),
}

/// A module by ABI v1, with its exports.
pub(crate) struct Core {
    pub(crate) pre: InstancePre<CallState>,
    pub(crate) exports: Exports,
}

impl Compiled {
    /// The exports that ABI v1 needs; `None` for components.
    pub(crate) fn exports(&self) -> Option<Exports> {
        match &self.code {
            Code::Core(core) => Some(core.exports),
            #[cfg(feature = "component-model")]
            Code::Component(_) => None,
        }
    }

    /// Returns the module if its binary has at most `max_bytes`, which is a limit of the tenant.
    pub(crate) fn within(self: Arc<Self>, max_bytes: usize) -> Result<Arc<Self>, Failure> {
        too_large(self.bytes, max_bytes).map(|()| self)
    }
}

/// Refuses a binary of more than `max` bytes.
pub(crate) fn too_large(bytes: usize, max: usize) -> Result<(), Failure> {
    if bytes <= max {
        return Ok(());
    }
    Err(Failure::new("module_limit", format!("the module has {bytes} bytes, the limit is {max}: build it smaller")))
}
