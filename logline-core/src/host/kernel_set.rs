//! A set of kernels, loops, validators and the drafts of their function spans, which is registered in one call.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::contract::{Kernel, Validator};
use crate::host::service::Service;
use crate::span::draft::Draft;

/// Kernels, loops and validators for a host. A crate that provides them returns a set, and a host
/// [installs](crate::HostBuilder::install) it.
#[derive(Clone, Default)]
pub struct KernelSet {
    pub(crate) kernels: Vec<Arc<dyn Kernel>>,
    pub(crate) services: Vec<Arc<dyn Service>>,
    pub(crate) validators: Vec<Arc<dyn Validator>>,
    seeds: Vec<Draft>,
}

impl KernelSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kernel.
    #[must_use]
    pub fn kernel(mut self, kernel: impl Kernel + 'static) -> Self {
        self.kernels.push(Arc::new(kernel));
        self
    }

    /// Adds a loop.
    #[must_use]
    pub fn service(mut self, service: impl Service + 'static) -> Self {
        self.services.push(Arc::new(service));
        self
    }

    /// Adds a validator, which checks spans before they are published.
    #[must_use]
    pub fn validator(mut self, validator: impl Validator + 'static) -> Self {
        self.validators.push(Arc::new(validator));
        self
    }

    /// Adds the drafts of function spans, to be sealed and appended when the set is installed in a ledger.
    #[must_use]
    pub fn seeds(mut self, drafts: impl IntoIterator<Item = Draft>) -> Self {
        self.seeds.extend(drafts);
        self
    }

    /// Adds everything in another set.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.kernels.extend(other.kernels);
        self.services.extend(other.services);
        self.validators.extend(other.validators);
        self.seeds.extend(other.seeds);
        self
    }

    /// The kernels in the set.
    #[must_use]
    pub fn kernels(&self) -> &[Arc<dyn Kernel>] {
        &self.kernels
    }

    /// The validators in the set.
    #[must_use]
    pub fn validators(&self) -> &[Arc<dyn Validator>] {
        &self.validators
    }

    /// The loops in the set.
    #[must_use]
    pub fn services(&self) -> &[Arc<dyn Service>] {
        &self.services
    }

    /// The drafts of the function spans, from [`KernelSet::seeds`].
    #[must_use]
    pub fn drafts(&self) -> &[Draft] {
        &self.seeds
    }

    /// The name and the id of every kernel and loop, each once, in the order of names.
    #[must_use]
    pub fn names(&self) -> Vec<(&'static str, Uuid)> {
        let kernels = self.kernels.iter().map(|kernel| (kernel.name(), kernel.id()));
        let mut names: Vec<_> = kernels.chain(self.services.iter().map(|service| (service.name(), service.id()))).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Gives the names and ids, so that a manifest can [allow](crate::trust::Manifest::allow_all) a set.
impl IntoIterator for &KernelSet {
    type Item = (&'static str, Uuid);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.names().into_iter()
    }
}

impl fmt::Debug for KernelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelSet").field("names", &self.names()).finish_non_exhaustive()
    }
}
