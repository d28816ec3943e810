//! Reads an answer that comes in events, whichever they are, and delivers its pieces on the way.

use std::time::Duration;

use aws_sdk_bedrockruntime::primitives::event_stream::EventReceiver;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::event_stream::RawMessage;
use logline_core::contract::provider::{Chunk, Chunks, ModelAnswer, ProviderError};

use crate::error::too_late;

/// What has been read of an answer.
pub(crate) trait Pieces: Default + Send {
    type Event: Send;
    /// What the service says in place of an event.
    type Failed: Send;

    /// Sets the service's id of the call.
    fn named(self, request_id: Option<String>) -> Self;

    /// Whether nothing follows.
    fn is_done(&self) -> bool;

    /// Whether the model has said everything. Then the answer was paid for, and is not lost for what is still missing.
    fn is_whole(&self) -> bool;

    /// Takes an event; the piece that it brought. `delivered` is how many pieces came before.
    fn take(&mut self, event: Self::Event, delivered: u32) -> Result<Option<Chunk>, ProviderError>;

    /// The error of a stream that broke after so many pieces.
    fn broken(failed: &SdkError<Self::Failed, RawMessage>, delivered: u32) -> ProviderError;

    /// The whole answer.
    fn finish(self) -> Result<ModelAnswer, ProviderError>;
}

/// How long the end of a body is waited for after the last event.
const END_OF_BODY: Duration = Duration::from_millis(100);

/// Reads all events of a call. Between two of them it waits no longer than `idle`.
pub(crate) async fn read<R: Pieces>(
    mut events: EventReceiver<R::Event, R::Failed>,
    request_id: Option<String>,
    idle: Duration,
    (chunks, delivered): (&mut dyn Chunks, &mut u32),
) -> Result<ModelAnswer, ProviderError> {
    let mut reading = R::default().named(request_id.clone());
    let named = |error: ProviderError| error.request_id(request_id.clone());
    while !reading.is_done() {
        let event = match tokio::time::timeout(idle, events.recv()).await {
            Ok(Ok(Some(event))) => event,
            Ok(Ok(None)) => break,
            _ if reading.is_whole() => break,
            Ok(Err(failed)) => return Err(named(R::broken(&failed, *delivered))),
            Err(_) => return Err(named(too_late("no further piece of the answer", idle))),
        };
        if let Some(chunk) = reading.take(event, *delivered).map_err(named)? {
            chunks.deliver(chunk).await;
            *delivered = delivered.saturating_add(1);
        }
    }
    if reading.is_done() {
        // Only the end of the body follows. Whoever has read it can use the connection again.
        let _ = tokio::time::timeout(END_OF_BODY, events.recv()).await;
    }
    reading.finish()
}
