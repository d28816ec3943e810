//! Machine code that was compiled elsewhere. This is the only file of a host with `unsafe`.
//!
//! Machine code that is loaded runs with all rights of this process. So it is loaded only as an [`Artifact`], which comes from
//! two sources: a [`Sealed`] file with a valid MAC by the host's key, or the answer of the host's own compiler.
#![allow(unsafe_code, reason = "wasmtime cannot check machine code; this module checks its source")]

use logline_core::Hash;
use wasmtime::{Engine, Module};

/// A key for the MACs of cached machine code. Keep it secret: anybody who has it and can write to the cache folder can run code
/// in this process.
#[derive(Clone)]
pub struct CacheKey([u8; 32]);

/// The context for BLAKE3's key derivation. With another context, the same secret gives another key.
const CONTEXT: &str = "logline 2026-11-25 cache of compiled webassembly";

impl CacheKey {
    /// Derives the key from a secret, such as the seed of the host's signing key. The same secret always gives the same key.
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

/// The length of a MAC, bytes.
const MAC: usize = 32;

/// Machine code with a MAC. The MAC covers the machine code, the hash of its source and the hash of its engine.
pub(crate) struct Sealed;

impl Sealed {
    /// The bytes of a sealed file: the MAC, followed by the machine code.
    pub(crate) fn seal(key: &CacheKey, engine: &Hash, code: &Hash, artifact: &[u8]) -> Vec<u8> {
        let mut sealed = Self::mac(key, engine, code, artifact).as_bytes().to_vec();
        sealed.extend_from_slice(artifact);
        sealed
    }

    /// The machine code, if it was sealed with this key for this engine and this source. Otherwise `None`.
    pub(crate) fn open<'a>(key: &CacheKey, engine: &Hash, code: &Hash, sealed: &'a [u8]) -> Option<Artifact<'a>> {
        let (mac, artifact) = sealed.split_at_checked(MAC)?;
        let mac = blake3::Hash::from_slice(mac).ok()?;
        // This comparison takes constant time.
        (Self::mac(key, engine, code, artifact) == mac).then_some(Artifact(artifact))
    }

    fn mac(key: &CacheKey, engine: &Hash, code: &Hash, artifact: &[u8]) -> blake3::Hash {
        // INVARIANT: both hashes have 32 bytes, so different parts never give the same input.
        blake3::Hasher::new_keyed(&key.0).update(&engine.0).update(&code.0).update(artifact).finalize()
    }
}

impl<'a> Artifact<'a> {
    /// The answer of the host's own compiler, through a pipe that no other process can write to.
    pub(crate) fn of_compiler(answer: &'a [u8]) -> Self {
        Self(answer)
    }

    /// Loads the machine code of a module.
    ///
    /// # Errors
    /// If it was compiled for another engine.
    pub(crate) fn load(&self, engine: &Engine) -> wasmtime::Result<Module> {
        // SAFETY: the bytes have not changed since wasmtime's `precompile_module` or `serialize` made them in this process, in
        // an earlier process with the same key (the MAC is valid), or in the compiler that this process started.
        unsafe { Module::deserialize(engine, self.0) }
    }

    /// Loads the machine code of a component.
    ///
    /// # Errors
    /// If it was compiled for another engine, or from a module.
    #[cfg(feature = "component-model")]
    pub(crate) fn load_component(&self, engine: &Engine) -> wasmtime::Result<wasmtime::component::Component> {
        // SAFETY: as in `load`.
        unsafe { wasmtime::component::Component::deserialize(engine, self.0) }
    }
}
