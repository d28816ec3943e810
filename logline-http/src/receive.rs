//! Receiving bodies within limits of bytes and time, and working on them where they hold up no other call.

use axum::body::Body;
use axum::extract::Request;
use bytes::BytesMut;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use logline_core::json;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::bodies::Received;
use crate::problem::{Code, Problem};
use crate::service::{Caller, Service, media_type};

/// Bytes are counted in steps of this many.
const STEP: usize = 64 << 10;

/// What has up to this many bytes is worked on at once: it takes less time than another thread would.
const AT_ONCE: usize = 64 << 10;

impl Service {
    /// Receives a body, within the limits of bytes and time.
    pub(crate) async fn body(&self, tenant: &str, headers: &HeaderMap, body: Body) -> Result<Received, Problem> {
        let most = self.options.max_body;
        let too_large = || Problem::new(Code::TooLarge, format!("it may have {most} bytes: send it in parts"));
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > most as u64) {
            return Err(too_large());
        }
        let read = async {
            let (mut body, mut bytes) = (body, BytesMut::new());
            let (mut held, mut reserved) = (Vec::new(), 0);
            let full = || Problem::new(Code::Unavailable, "too many bodies are arriving: try again");
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| Problem::new(Code::InvalidBody, "it broke off"))?;
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > most {
                    return Err(too_large());
                }
                while bytes.len() + data.len() > reserved {
                    held.push(self.bodies.held.take_many(tenant, STEP).ok_or_else(full)?);
                    reserved += STEP;
                }
                bytes.extend_from_slice(&data);
            }
            Ok(Received { bytes: bytes.freeze(), _held: held })
        };
        let late = |_| Problem::new(Code::Timeout, "the body did not arrive in time: send it faster, or less of it");
        tokio::time::timeout(self.options.body_timeout, read).await.map_err(late)?
    }

    /// The JSON body of a call, in the shape that the route takes.
    pub(crate) async fn json<T: DeserializeOwned>(&self, caller: &Caller, request: Request) -> Result<T, Problem> {
        let value = self.value(caller, request).await?;
        serde_json::from_value(value).map_err(|error| Problem::new(Code::InvalidBody, error.to_string()))
    }

    /// The JSON body of a call.
    pub(crate) async fn value(&self, caller: &Caller, request: Request) -> Result<Value, Problem> {
        let (parts, body) = request.into_parts();
        if media_type(&parts.headers) != "application/json" {
            return Err(Problem::new(Code::UnsupportedType, "send application/json"));
        }
        let received = self.body(caller.tenant(), &parts.headers, body).await?;
        let size = received.bytes.len();
        let parsed = self.work(caller.tenant(), size, move || json::parse(&received.bytes)).await?;
        parsed.map_err(|error| Problem::new(Code::InvalidBody, error.to_string()))
    }

    /// Does work on `size` bytes that waits for nothing: parsing, hashing, checking signatures, writing JSON. If it takes long, it is
    /// done on a thread of its own, so that other calls and streams go on.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        tenant: &str,
        size: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        if size <= AT_ONCE {
            return Ok(work());
        }
        self.bodies.threads.run(tenant, work).await
    }
}
