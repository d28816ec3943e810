//! Machine code that was compiled elsewhere: the one place of a host with `unsafe`.
//!
//! To load machine code is to run it with all rights of this process. So it is loaded from two sources only, which this module
//! tells apart by type: a [`Sealed`] file, whose MAC by the host's key holds, and the answer of the host's own compiler.
#![allow(unsafe_code, reason = "wasmtime cannot check machine code; the sources of it are checked here")]

use logline_core::Hash;
use wasmtime::{Engine, Module};

/// A key for the MACs of cached machine code: whoever has it can have code run in this process.
#[derive(Clone)]
pub struct CacheKey([u8; 32]);

/// What the key is derived for, as BLAKE3 asks: no other use of the same secret gives the same key.
const CONTEXT: &str = "logline 2026-11-25 cache of compiled webassembly";

impl CacheKey {
    /// The key that belongs to a secret, such as the seed of the host's signing key.
    #[must_use]
    pub fn derive(secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key(CONTEXT, secret))
    }
}

impl std::fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CacheKey(…)")
    }
}

/// Machine code whose source is trusted.
pub(crate) struct Artifact<'a>(&'a [u8]);

/// Bytes of a MAC.
const MAC: usize = 32;

/// Machine code with a MAC over it, what it was compiled from, and by what.
pub(crate) struct Sealed;

impl Sealed {
    /// The MAC, and then the code.
    pub(crate) fn seal(key: &CacheKey, engine: &Hash, code: &Hash, artifact: &[u8]) -> Vec<u8> {
        let mut sealed = Self::mac(key, engine, code, artifact).as_bytes().to_vec();
        sealed.extend_from_slice(artifact);
        sealed
    }

    /// The code, if this key has sealed it for this engine and this source.
    pub(crate) fn open<'a>(key: &CacheKey, engine: &Hash, code: &Hash, sealed: &'a [u8]) -> Option<Artifact<'a>> {
        let (mac, artifact) = sealed.split_at_checked(MAC)?;
        let mac = blake3::Hash::from_slice(mac).ok()?;
        // Compared in constant time.
        (Self::mac(key, engine, code, artifact) == mac).then_some(Artifact(artifact))
    }

    fn mac(key: &CacheKey, engine: &Hash, code: &Hash, artifact: &[u8]) -> blake3::Hash {
        // Both hashes have 32 bytes, so that no other parts give the same whole.
        blake3::Hasher::new_keyed(&key.0).update(&engine.0).update(&code.0).update(artifact).finalize()
    }
}

impl<'a> Artifact<'a> {
    /// What the host's own compiler has answered through a pipe that nobody else holds.
    pub(crate) fn of_compiler(answer: &'a [u8]) -> Self {
        Self(answer)
    }

    /// Loads it.
    ///
    /// # Errors
    /// Where it is another engine's.
    pub(crate) fn load(&self, engine: &Engine) -> wasmtime::Result<Module> {
        // SAFETY: the bytes are unchanged since this library's `precompile_module` or `serialize` has made them, in this process,
        // in an earlier one with the same key (the MAC holds), or in the compiler that this process has started.
        unsafe { Module::deserialize(engine, self.0) }
    }

    /// Loads that of a component.
    ///
    /// # Errors
    /// Where it is another engine's, or a module's.
    #[cfg(feature = "component-model")]
    pub(crate) fn load_component(&self, engine: &Engine) -> wasmtime::Result<wasmtime::component::Component> {
        // SAFETY: as above.
        unsafe { wasmtime::component::Component::deserialize(engine, self.0) }
    }
}
