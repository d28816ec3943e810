//! Traces for whoever runs a collector: the `tracing` spans of a call, its request, the attempts, the sandbox, the provider and the ledger,
//! as OTLP over HTTP. `docs/metrics.md` lists them.
//!
//! A request is carried out later, and perhaps by another process, which knows of its trace what the ledger says: the trace and the request.
//! So the span of a request has the id that follows from the request's, and attempts hang on it wherever they run.
//!
//! Only the fields that [`ATTRIBUTES`] lists leave the process: no input, output, text, name of a tenant or of a user.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use logline_kernels::provider::telemetry;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, IdGenerator as _, RandomIdGenerator, SpanData, SpanProcessor};
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use url::Url;
use uuid::Uuid;

use crate::site::Failed;

/// The fields that are exported, and their names.
const ATTRIBUTES: [(&str, &str); 33] = [
    ("http.request.method", "http.request.method"),
    ("http.route", "http.route"),
    ("http.response.status_code", "http.response.status_code"),
    ("request_id", "logline.call.id"),
    ("request", "logline.request.id"),
    ("kind", "logline.request.kind"),
    ("attempt", "logline.attempt"),
    ("outcome", "logline.outcome"),
    ("runtime", "logline.sandbox.runtime"),
    ("fuel", "logline.sandbox.fuel"),
    ("db.operation.name", "db.operation.name"),
    ("spans", "logline.spans"),
    ("adapter", "logline.provider.adapter"),
    ("ordinal", "logline.provider.try"),
    (telemetry::OPERATION, telemetry::OPERATION),
    (telemetry::PROVIDER, telemetry::PROVIDER),
    (telemetry::REQUEST_MODEL, telemetry::REQUEST_MODEL),
    (telemetry::MAX_TOKENS, telemetry::MAX_TOKENS),
    (telemetry::TEMPERATURE, telemetry::TEMPERATURE),
    (telemetry::OUTPUT_TYPE, telemetry::OUTPUT_TYPE),
    (telemetry::DIMENSIONS, telemetry::DIMENSIONS),
    (telemetry::RESPONSE_MODEL, telemetry::RESPONSE_MODEL),
    (telemetry::FINISH_REASONS, telemetry::FINISH_REASONS),
    (telemetry::FIRST_CHUNK, telemetry::FIRST_CHUNK),
    (telemetry::INPUT_TOKENS, telemetry::INPUT_TOKENS),
    (telemetry::OUTPUT_TOKENS, telemetry::OUTPUT_TOKENS),
    (telemetry::CACHE_READ_TOKENS, telemetry::CACHE_READ_TOKENS),
    (telemetry::CACHE_WRITE_TOKENS, telemetry::CACHE_WRITE_TOKENS),
    (telemetry::REASONING_TOKENS, telemetry::REASONING_TOKENS),
    (telemetry::TOOL_NAME, telemetry::TOOL_NAME),
    (telemetry::TOOL_TYPE, telemetry::TOOL_TYPE),
    (telemetry::TOOL_CALL, telemetry::TOOL_CALL),
    (telemetry::ERROR, telemetry::ERROR),
];

/// The longest value of an attribute, bytes: some are words of a provider.
const MAX_VALUE: usize = 256;

/// The most bytes of a collector's answer. What it says is not needed.
const MAX_ANSWER: usize = 64 << 10;

/// Sends spans to a collector, in batches, on a thread of its own. If the collector is away or slow, spans are lost, and nothing else.
pub(crate) struct Traces {
    processor: Arc<BatchSpanProcessor>,
}

impl Traces {
    /// Sends spans to this address.
    pub(crate) fn to(endpoint: &Url) -> Result<Self, Failed> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new()?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint.as_str())
            .build()?;
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        // `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` count more.
        let named = std::env::var_os("OTEL_SERVICE_NAME").is_some()
            || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|text| text.contains("service.name="));
        let resource = match named {
            true => Resource::builder(),
            false => Resource::builder().with_service_name("logline-server"),
        };
        processor.set_resource(&resource.build());
        Ok(Self { processor: Arc::new(processor) })
    }

    /// What sees the spans of this library.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'s> LookupSpan<'s>,
    {
        let is_ours = |metadata: &Metadata<'_>| metadata.is_span() && metadata.target().starts_with("logline");
        let filter: FilterFn = filter_fn(is_ours as fn(&Metadata<'_>) -> bool).with_max_level_hint(LevelFilter::DEBUG);
        let scope = InstrumentationScope::builder("logline").with_version(env!("CARGO_PKG_VERSION")).build();
        Export { processor: Arc::clone(&self.processor), scope, ids: RandomIdGenerator::default() }.with_filter(filter)
    }

    /// Sends what has not been sent, for at most five seconds. It blocks.
    pub(crate) fn finish(self) {
        if let Err(error) = self.processor.shutdown() {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

struct Export {
    processor: Arc<BatchSpanProcessor>,
    scope: InstrumentationScope,
    ids: RandomIdGenerator,
}

/// A span that has not ended.
struct Open {
    trace: TraceId,
    id: SpanId,
    parent: SpanId,
    is_parent_remote: bool,
    began: SystemTime,
    fields: Fields,
}

/// The id of the span of a request: the last 8 bytes of the request's, which are drawn at random or derived, and never zero.
fn span_of(request: Uuid) -> SpanId {
    SpanId::from(request.as_u64_pair().1)
}

impl<S> Layer<S> for Export
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let above = span.parent().and_then(|parent| parent.extensions().get::<Open>().map(|open| (open.trace, open.id)));
        let name = attributes.metadata().name();
        // Where it hangs: on the span around it, if that is of the same trace; else on what the ledger or the caller says.
        let around = above.filter(|(trace, _)| fields.trace.is_none_or(|own| own == *trace));
        let caller = || fields.trace.map(|trace| (trace, fields.parent_span.unwrap_or(SpanId::INVALID), true));
        let hangs = match (name, fields.request) {
            ("attempt", Some(request)) => fields.trace.map(|trace| (trace, span_of(request), true)),
            _ => around.map(|(trace, parent)| (trace, parent, false)).or_else(caller),
        };
        // What no call and no request has begun is not shown: workers that look for work, tails, the expiry of caches.
        let Some((trace, parent, is_parent_remote)) = hangs else { return };
        let id = match (name, fields.request) {
            ("request", Some(request)) => span_of(request),
            _ => self.ids.new_span_id(),
        };
        let open = Open { trace, id, parent, is_parent_remote, began: SystemTime::now(), fields };
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<Open>()
        {
            values.record(&mut open.fields);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(Open { trace, id, parent, is_parent_remote, began, fields }) = span.extensions_mut().remove::<Open>() else {
            return;
        };
        let sampled = TraceFlags::SAMPLED;
        self.processor.on_end(SpanData {
            span_context: SpanContext::new(trace, id, sampled, false, TraceState::NONE),
            parent_span_id: parent,
            parent_span_is_remote: is_parent_remote,
            span_kind: fields.kind,
            name: fields.name.map_or(Cow::Borrowed(span.name()), Cow::Owned),
            start_time: began,
            end_time: SystemTime::now(),
            attributes: fields.attributes,
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: if fields.has_failed { Status::error("") } else { Status::Unset },
            instrumentation_scope: self.scope.clone(),
        });
    }
}

/// What the fields of a span say.
struct Fields {
    trace: Option<TraceId>,
    parent_span: Option<SpanId>,
    request: Option<Uuid>,
    name: Option<String>,
    kind: SpanKind,
    has_failed: bool,
    attributes: Vec<KeyValue>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            trace: None,
            parent_span: None,
            request: None,
            name: None,
            kind: SpanKind::Internal,
            has_failed: false,
            attributes: Vec::new(),
        }
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        if let Some((_, name)) = ATTRIBUTES.iter().find(|(field_name, _)| *field_name == field.name()) {
            self.attributes.push(KeyValue::new(*name, value));
        }
    }

    fn text(&mut self, field: &Field, text: &str) {
        let is_hex = |digits: usize| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match field.name() {
            "trace_id" => self.trace = TraceId::from_hex(text).ok().filter(|id| is_hex(32) && *id != TraceId::INVALID),
            "parent_span" => self.parent_span = SpanId::from_hex(text).ok().filter(|_| is_hex(16)),
            "otel.name" => self.name = Some(shortened(text)),
            "otel.kind" => {
                self.kind = match text {
                    "server" => SpanKind::Server,
                    "client" => SpanKind::Client,
                    _ => SpanKind::Internal,
                }
            }
            name => {
                match name {
                    "request" => self.request = Uuid::try_parse(text).ok(),
                    "outcome" => self.has_failed = text == "error",
                    "error.type" => self.has_failed = true,
                    _ => {}
                }
                let text = shortened(text);
                match name {
                    // A list by the conventions.
                    telemetry::FINISH_REASONS => self.put(field, Value::Array(vec![StringValue::from(text)].into())),
                    _ => self.put(field, Value::from(text)),
                }
            }
        }
    }
}

/// A text that is not longer than it may be.
fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_VALUE);
    text.get(..end).unwrap_or_default().to_owned()
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, text: &str) {
        self.text(field, text);
    }

    fn record_u64(&mut self, field: &Field, number: u64) {
        if field.name() == "http.response.status_code" && number >= 500 {
            self.has_failed = true;
        }
        self.put(field, Value::I64(i64::try_from(number).unwrap_or(i64::MAX)));
    }

    fn record_f64(&mut self, field: &Field, number: f64) {
        self.put(field, Value::F64(number));
    }

    fn record_i64(&mut self, field: &Field, number: i64) {
        self.put(field, Value::I64(number));
    }

    fn record_debug(&mut self, field: &Field, shown: &dyn fmt::Debug) {
        self.text(field, &format!("{shown:?}"));
    }
}

/// The way to the collector, by the client and the TLS that adapters of providers have.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    runtime: Handle,
}

impl Collector {
    fn new() -> Result<Self, Failed> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // The headers may hold a secret of this collector's.
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, runtime: Handle::current() })
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let call = self.client.execute(request.try_into()?);
        // Who waits is a thread without a runtime, and the connection needs one.
        let answered = self.runtime.spawn(async move {
            let mut answer = call.await?;
            let mut body = Vec::new();
            while let Some(piece) = answer.chunk().await? {
                body.extend_from_slice(&piece);
                if body.len() > MAX_ANSWER {
                    break;
                }
            }
            let mut response = Response::new(Bytes::from(body));
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            Ok::<_, reqwest::Error>(response)
        });
        Ok(answered.await??)
    }
}
