//! Cursors as clients hold them: sealed, so that a client can neither read nor change them, nor use those of others.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use logline_core::Scope;
use logline_core::ledger::Cursor;
use zeroize::Zeroizing;

use crate::problem::Problem;

const NONCE: usize = 24;
/// No ledger has cursors as long as this.
const MAX_TEXT: usize = 2048;

/// The secret with which a service seals cursors and digests of bodies. All hosts of one service share it, so that a client can
/// resume at another host, or after a restart. A service that gets a new one refuses the cursors of the old one.
#[derive(Clone)]
pub struct ServiceKey {
    seal: Zeroizing<[u8; 32]>,
    nonce: Zeroizing<[u8; 32]>,
    digest: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServiceKey(secret)")
    }
}

impl ServiceKey {
    /// The key that follows from a secret of at least 32 random bytes, which nothing else uses in this way. Shorter secrets can be
    /// guessed: they are not refused here.
    #[must_use]
    pub fn derive(secret: &[u8]) -> Self {
        let of = |purpose: &str| Zeroizing::new(blake3::derive_key(purpose, secret));
        Self {
            seal: of("logline-http 2026 cursors: key"),
            nonce: of("logline-http 2026 cursors: nonces"),
            digest: of("logline-http 2026 digests of bodies"),
        }
    }

    /// A key of this process alone: cursors end with it.
    ///
    /// # Errors
    /// If the machine has no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut())?;
        Ok(Self::derive(secret.as_ref()))
    }

    /// A digest that nobody without the key can compare with guesses.
    pub(crate) fn digest(&self, bytes: &[u8]) -> String {
        blake3::keyed_hash(&self.digest, bytes).to_hex().to_string()
    }

    /// A digest of a token, by which it is known again and not read.
    pub(crate) fn token(&self, token: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.digest, token.as_bytes()).as_bytes()
    }

    /// Seals a position for the reader with this scope. The same position always has the same text.
    pub(crate) fn seal(&self, scope: &Scope, cursor: &Cursor) -> String {
        let (aad, text) = (reader(scope), cursor.as_str().as_bytes());
        let mut hasher = blake3::Hasher::new_keyed(&self.nonce);
        hasher.update(&(aad.len() as u64).to_le_bytes()).update(&aad).update(text);
        let mut sealed = [0; NONCE];
        hasher.finalize_xof().fill(&mut sealed);
        let nonce = XNonce::from(sealed);
        let mut sealed = sealed.to_vec();
        // Encryption fails only for texts of many gigabytes.
        let body = self.cipher().encrypt(&nonce, Payload { msg: text, aad: &aad }).unwrap_or_default();
        sealed.extend(body);
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// Opens what [`ServiceKey::seal`] made for the same reader.
    pub(crate) fn open(&self, scope: &Scope, text: &str) -> Result<Cursor, Problem> {
        let open = || {
            let sealed = URL_SAFE_NO_PAD.decode(Some(text).filter(|text| text.len() <= MAX_TEXT)?).ok()?;
            let (nonce, body) = sealed.split_first_chunk::<NONCE>()?;
            let aad = reader(scope);
            let plain = self.cipher().decrypt(&XNonce::from(*nonce), Payload { msg: body, aad: &aad }).ok()?;
            String::from_utf8(plain).ok()
        };
        open().map(Cursor::from_text).ok_or_else(Problem::cursor)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.seal).into())
    }
}

/// Names a reader, with the length of each part, so that no two readers have the same name.
fn reader(scope: &Scope) -> Vec<u8> {
    let (tenant, user) = match scope {
        Scope::User { tenant, user } => (tenant.as_str(), Some(user.as_str())),
        Scope::Runtime { tenant } => (tenant.as_str(), None),
        Scope::Operator => ("", None),
    };
    let mut name = Vec::new();
    for part in [Some(tenant), user].into_iter().flatten() {
        name.extend((part.len() as u64).to_le_bytes());
        name.extend(part.as_bytes());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ServiceKey {
        ServiceKey::derive(&[7; 32])
    }

    #[test]
    fn a_cursor_is_opened_by_its_reader_alone() {
        let (alice, cursor) = (Scope::user("acme", "alice"), Cursor::from_text("a:42"));
        let text = key().seal(&alice, &cursor);
        assert_eq!(text, key().seal(&alice, &cursor));
        assert_eq!(key().open(&alice, &text).unwrap(), cursor);
        assert!(!text.contains("42"));
        for other in
            [Scope::user("acme", "bob"), Scope::user("beta", "alice"), Scope::user("acmea", "lice"), Scope::runtime("acme")]
        {
            assert!(key().open(&other, &text).is_err(), "{other:?}");
        }
        assert!(ServiceKey::derive(&[8; 32]).open(&alice, &text).is_err());
    }

    #[test]
    fn a_cursor_that_was_changed_in_one_place_is_refused() {
        let alice = Scope::user("acme", "alice");
        let text = key().seal(&alice, &Cursor::from_text("a:42"));
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(key().open(&alice, &String::from_utf8(changed).unwrap()).is_err(), "{at}");
        }
        for text in ["", "a:42", &text[1..], &format!("{text}A"), &"A".repeat(3000)] {
            assert!(key().open(&alice, text).is_err());
        }
    }
}
