//! Confidential requests: what is encrypted before it is written, and decrypted for those who carry a request out.
//!
//! Encrypted are the input, the output, the message of a failure, and what was asked of services outside the ledger and answered by them.
//! In the clear stay: that there was a request, of which kind, when, how long it took, what it cost, and the code of a failure.

use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::contract::{Cipher, CipherError, Confidential, Kernel};
use crate::host::{Host, HostError};
use crate::ledger::LedgerError;
use crate::request::{Request, State};
use crate::span::{SignedSpan, Span, Visibility};
use crate::value::failure::Failure;

/// The member of a request that is encrypted.
const INPUT: &str = "input";

/// The member of an execution, or of the outcome of a call, that is encrypted.
pub(super) const OUTPUT: &str = "output";

/// The member of `metadata` with the encrypted message of a failure.
const MESSAGE: &str = "sealed_message";

/// What stands in place of the message of a failure.
const HIDDEN: &str = "the request is confidential: its owner's key opens the message";

/// A result as it is recorded in a span: that of an attempt, or of a call. Adds to `members` what cannot stand in it. An output that cannot
/// be encrypted, because its user has forgotten something meanwhile or because it is too long, becomes a failure, in `result` as well.
///
/// # Errors
/// If keys are away: nothing can be recorded.
pub(super) async fn hide_result(
    confidential: &Confidential,
    span: Uuid,
    result: &mut Result<Value, Failure>,
    members: &mut Map<String, Value>,
) -> Result<Result<Value, Failure>, LedgerError> {
    let failure = match &*result {
        Err(failure) => failure.clone(),
        Ok(output) => match confidential.seal(span, OUTPUT, output).await {
            Ok(sealed) => return Ok(Ok(sealed)),
            Err(error) => error.into_failure()?,
        },
    };
    match confidential.seal(span, MESSAGE, &failure.message.as_str().into()).await {
        Ok(message) => {
            members.insert(MESSAGE.to_owned(), message);
        }
        // The message is lost. Nobody may read it, as it may quote what cannot be encrypted.
        Err(error) => error.into_failure().map(drop)?,
    }
    let hidden = Failure::new(failure.code.as_str(), HIDDEN);
    *result = Err(failure);
    Ok(Err(hidden))
}

/// What an attempt of a confidential request needs.
pub(super) struct Opened {
    /// The means to encrypt what comes of it.
    pub(super) key: Confidential,
    /// The input, or why the request fails before its kernel runs.
    pub(super) input: Result<Option<Value>, Failure>,
}

impl Host {
    fn cipher(&self) -> Result<&Arc<dyn Cipher>, HostError> {
        self.inner.cipher.as_ref().ok_or(HostError::Missing { part: "cipher for confidential requests" })
    }

    /// The means to read and write what belongs to this user, with the key that the user has now.
    ///
    /// # Errors
    /// [`HostError::Missing`] if the host has no [cipher](crate::HostBuilder::cipher); the cipher's.
    pub async fn confidential(&self, tenant: &str, owner: &str) -> Result<Confidential, HostError> {
        Ok(Confidential::of(self.cipher()?, &self.trusted().authorities, tenant, owner).await?)
    }

    /// Encrypts the input of a confidential request.
    pub(super) async fn hide_input(&self, mut request: Request, id: Uuid) -> Result<Request, HostError> {
        if !request.terms.confidential {
            return Ok(request);
        }
        let refused = |reason: String| HostError::NotValid {
            entity_type: "request".to_owned(),
            reason: Failure::new("confidential_not_kept", reason),
        };
        if request.visibility != Visibility::Private {
            return Err(refused("a confidential request must be private: leave its visibility out".to_owned()));
        }
        let does = |kernel: &&Arc<dyn Kernel>| kernel.requests().iter().any(|kind| kind.this == request.this);
        if let Some(kernel) = self.inner.installed.kernels.iter().find(does).filter(|kernel| !kernel.keeps_confidential()) {
            return Err(refused(not_kept(kernel.name())));
        }
        let confidential = self.confidential(&request.tenant, &request.owner).await?;
        request.input = confidential.seal(id, INPUT, &request.input).await?;
        Ok(request)
    }

    /// Whether two confidential requests have the same input. The same input encrypted twice gives different bytes.
    pub(super) async fn asks_the_same(&self, stored: &SignedSpan, asked: &SignedSpan) -> Result<bool, HostError> {
        let is_confidential = |span: &SignedSpan| State::of(span).is_ok_and(|state| state.terms.confidential);
        let (Some(one), Some(other)) = (&stored.input, &asked.input) else { return Ok(false) };
        if !is_confidential(stored) || !is_confidential(asked) {
            return Ok(false);
        }
        let confidential = self.confidential(&stored.tenant_id, &stored.owner_id).await?;
        let one = confidential.open(stored.id, INPUT, one).await?;
        Ok(one == confidential.open(asked.id, INPUT, other).await?)
    }

    /// Opens the input of a confidential request. `None` if the request is not confidential.
    pub(super) async fn open_request(
        &self,
        running: &SignedSpan,
        state: &State,
        kernel: &dyn Kernel,
    ) -> Result<Option<Opened>, HostError> {
        if !state.terms.confidential {
            return Ok(None);
        }
        let confidential = self.confidential(&running.tenant_id, &running.owner_id).await?;
        if !kernel.keeps_confidential() {
            let failure = Failure::new("confidential_not_kept", not_kept(kernel.name()));
            return Ok(Some(Opened { key: confidential, input: Err(failure) }));
        }
        let input = match &running.input {
            None => Ok(None),
            Some(input) => match confidential.open(running.id, INPUT, input).await {
                Ok(input) => Ok(Some(input)),
                Err(error) => Err(error.into_failure()?),
            },
        };
        Ok(Some(Opened { key: confidential, input }))
    }

    /// The result that an execution of a confidential request records, in the clear.
    ///
    /// # Errors
    /// [`HostError::Cipher`] with [`CipherError::Erased`] if the user has forgotten something since.
    pub(super) async fn open_result(
        &self,
        execution: &Span,
        result: Result<Value, Failure>,
    ) -> Result<Result<Value, Failure>, HostError> {
        let confidential = self.confidential(&execution.tenant_id, &execution.owner_id).await?;
        Ok(match result {
            Ok(sealed) => Ok(confidential.open(execution.id, OUTPUT, &sealed).await?),
            Err(failure) => match execution.meta(MESSAGE) {
                None => Err(failure),
                Some(sealed) => match confidential.open(execution.id, MESSAGE, sealed).await {
                    Ok(Value::String(message)) => Err(Failure::new(failure.code, message)),
                    Ok(_) | Err(CipherError::Erased) => Err(failure),
                    Err(error) => return Err(error.into()),
                },
            },
        })
    }
}

fn not_kept(kernel: &str) -> String {
    format!(
        "the kernel `{kernel}` writes what it is asked in the clear: send the request without `confidential`, or encrypt what it asks"
    )
}
