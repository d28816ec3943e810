//! Keys that are encrypted under other keys, and small texts that lie beside them.
//!
//! A wrap is `1 ‖ nonce (12) ‖ ciphertext ‖ tag (16)` under AES-256-GCM. The key of the cipher is
//! `HKDF(no salt, wrapping key, "logline.wrap.v1")`; its nonces are random, so a wrapping key has a limit of uses
//! ([`MAX_WRAPS`](logline_core::contract::MAX_WRAPS)). Authenticated with it are the parts of its context, each with its length before it.

use logline_core::contract::{DataKey, KeyError};
use ring::aead::{Aad, LessSafeKey, Nonce};
use ring::hmac;
use zeroize::Zeroizing;

use crate::envelope::{cipher, derive, framed};

const VERSION: u8 = 1;
const NONCE: usize = 12;

fn key_for(key: &DataKey, purpose: &str) -> Result<LessSafeKey, KeyError> {
    derive(&[], key, purpose).and_then(|key| cipher(&key)).ok_or(KeyError::NotOpened)
}

fn context_of(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    framed(parts.iter().copied(), &mut bytes);
    bytes
}

/// Encrypts a small text for a purpose.
pub(crate) fn seal(key: &DataKey, purpose: &str, context: &[&[u8]], text: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|e| KeyError::Unavailable { reason: format!("no random bytes: {e}") })?;
    let mut body = Zeroizing::new(text.to_vec());
    let aad = Aad::from(context_of(context));
    let key = key_for(key, purpose)?;
    let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body);
    let tag = tag.map_err(|_| KeyError::Refused { reason: "what is to be wrapped is too long".to_owned() })?;
    let mut wrapped = vec![VERSION];
    wrapped.extend(nonce);
    wrapped.extend(body.iter());
    wrapped.extend(tag.as_ref());
    Ok(wrapped)
}

/// Decrypts what [`seal`] made.
pub(crate) fn open(key: &DataKey, purpose: &str, context: &[&[u8]], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let (nonce, body) = match wrapped.split_first() {
        Some((&VERSION, rest)) => rest.split_at_checked(NONCE).ok_or(KeyError::NotOpened)?,
        _ => return Err(KeyError::NotOpened),
    };
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyError::NotOpened)?;
    let mut body = Zeroizing::new(body.to_vec());
    let key = key_for(key, purpose)?;
    let text = key.open_in_place(nonce, Aad::from(context_of(context)), &mut body).map_err(|_| KeyError::NotOpened)?.len();
    body.truncate(text);
    Ok(body)
}

/// The purpose of keys that wrap keys.
const WRAP: &str = "logline.wrap.v1";

/// Encrypts a key under another one.
pub(crate) fn wrap(key: &DataKey, context: &[&[u8]], wrapped: &DataKey) -> Result<Vec<u8>, KeyError> {
    seal(key, WRAP, context, wrapped.reveal())
}

/// Decrypts a key.
pub(crate) fn unwrap(key: &DataKey, context: &[&[u8]], wrapped: &[u8]) -> Result<DataKey, KeyError> {
    let bytes = open(key, WRAP, context, wrapped)?;
    let bytes = Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| KeyError::NotOpened)?);
    Ok(DataKey::new(*bytes))
}

/// A keyed hash, which nobody can compute without `key`.
pub(crate) fn tag(key: &DataKey, purpose: &str, parts: &[&[u8]]) -> Result<[u8; 32], KeyError> {
    let key = derive(&[], key, purpose).ok_or(KeyError::NotOpened)?;
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), &context_of(parts));
    <[u8; 32]>::try_from(tag.as_ref()).map_err(|_| KeyError::NotOpened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrap_opens_with_its_key_and_context_only() {
        let (key, other) = (DataKey::new([1; 32]), DataKey::new([2; 32]));
        let inner = DataKey::random().unwrap();
        let wrapped = wrap(&key, &[b"acme", b"alice"], &inner).unwrap();
        assert_eq!(unwrap(&key, &[b"acme", b"alice"], &wrapped).unwrap().reveal(), inner.reveal());
        assert_ne!(wrapped, wrap(&key, &[b"acme", b"alice"], &inner).unwrap(), "a nonce came twice");
        let contexts: [&[&[u8]]; 3] = [&[b"acme", b"bob"], &[b"acm", b"ealice"], &[b"acme"]];
        for context in contexts {
            assert_eq!(unwrap(&key, context, &wrapped).map(drop), Err(KeyError::NotOpened));
        }
        assert_eq!(unwrap(&other, &[b"acme", b"alice"], &wrapped).map(drop), Err(KeyError::NotOpened));
        for at in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[at] ^= 1;
            assert!(unwrap(&key, &[b"acme", b"alice"], &changed).is_err(), "byte {at}");
            assert!(unwrap(&key, &[b"acme", b"alice"], &wrapped[..at]).is_err(), "cut at {at}");
        }
        // A text of another purpose does not open as a key.
        let text = seal(&key, "logline.note.v1", &[b"acme"], inner.reveal()).unwrap();
        assert!(unwrap(&key, &[b"acme"], &text).is_err());
    }
}
