//! The timeline: every version of every span, in append order, as pages and as streams.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use logline_core::ledger::{Cursor, Ledger as _, LedgerError, Query, Retry};
use logline_core::{Clock as _, Scope, SystemClock};
use serde_json::json;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::identity::Permission;
use crate::params::Params;
use crate::problem::{Code, Problem};
use crate::routes::spans::rows_of;
use crate::rows;
use crate::service::{Caller, Service, caller};
use crate::slots::Slot;
use crate::tail::{Entry, Follower};

/// Every version of every span, in append order.
#[utoipa::path(get, path = "/api/timeline", tag = "timeline", params(
    crate::wire::Filters,
    crate::wire::OfType,
    crate::wire::Paging,
), responses(
    (status = 200, description = "A page of versions", body = crate::wire::SpanPage),
    crate::refusals::Refused,
))]
pub(crate) async fn list(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    rows_of(&service, request, Query::timeline()).await
}

/// The timeline as it grows: server-sent events, or lines of JSON if `Accept` asks for `application/x-ndjson`.
#[utoipa::path(get, path = "/api/timeline/stream", tag = "timeline", params(
    crate::wire::Filters,
    crate::wire::OfType,
    ("after" = Option<String>, Query, description = "Resume after this event, or after this cursor of the timeline. Without it: from now on"),
    ("Last-Event-ID" = Option<String>, Header, description = "Resume after this event; it counts more than `after`"),
), responses(
    (status = 200, description = "Events `span`, each with its id; `end` before the service closes the stream", content(
        (String = "text/event-stream"), (String = "application/x-ndjson"),
    )),
    crate::refusals::Refused,
))]
pub(crate) async fn stream(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    caller.identity.need(Permission::Read)?;
    let params = Params::read(request.uri().query(), &[&rows::FILTERS[..], &["after"]].concat())?;
    let query = rows::filter(Query::timeline(), &params, &caller.identity)?;
    let scope = caller.read_scope();
    // A browser that reconnects repeats the address with its old `after`, so the header counts more.
    let last = request.headers().get("last-event-id").map(|id| id.to_str().map_err(|_| Problem::cursor())).transpose()?;
    let after = last.filter(|id| !id.is_empty()).or(params.text("after"));
    let after = after.map(|text| service.options.key.open(&scope, text)).transpose()?;
    let slot = service.slot(caller.tenant())?;
    let follower = match after {
        Some(cursor) => {
            // A position that the ledger does not know is refused now, not in the stream.
            let look = Query::timeline().limit(1);
            service.ledger().scan(&Scope::runtime(caller.tenant()), &look, Some(&cursor)).await?;
            service.tails.follow(caller.tenant(), Some(cursor)).await?
        }
        None => service.tails.follow_now(caller.tenant()).await?,
    };
    let accepts = request.headers().get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format =
        if accepts.into_iter().any(|accept| accept.contains("application/x-ndjson")) { Format::Lines } else { Format::Events };
    let mut heartbeat = tokio::time::interval(service.options.heartbeat.max(Duration::from_millis(10)));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.reset();
    let mut live = Live {
        recheck: Instant::now(),
        service,
        caller,
        scope,
        query,
        follower,
        format,
        heartbeat,
        phase: Phase::New,
        sending: None,
        _slot: slot,
    };
    live.plan_recheck();
    let frames = stream::unfold(live, |mut live| async move {
        live.next().await.map(|frame| (Ok::<_, std::convert::Infallible>(frame), live))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Rows with more bytes than this are long.
const LONG: usize = 16 << 10;

/// How long a stream waits before it asks again whether its long row may be sent.
const ROOM: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, PartialEq)]
enum Format {
    /// Server-sent events.
    Events,
    /// Lines of JSON.
    Lines,
}

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        }
    }

    /// A row. Neither an id nor canonical JSON has line ends, so nothing that a user wrote can begin another event.
    fn row(self, id: &str, line: &[u8]) -> Bytes {
        let (before, between, after) = match self {
            Self::Events => ("id: ", "\nevent: span\ndata: ", "\n\n"),
            Self::Lines => ("{\"id\":\"", "\",\"span\":", "}\n"),
        };
        [before.as_bytes(), id.as_bytes(), between.as_bytes(), line, after.as_bytes()].concat().into()
    }

    /// A position without a row: a client that resumes from it does not read what was not for it again.
    fn position(self, id: Option<&str>) -> Bytes {
        match (self, id) {
            (Self::Events, Some(id)) => format!(": alive\nid: {id}\n\n"),
            (Self::Events, None) => ": alive\n\n".to_owned(),
            (Self::Lines, id) => format!("{}\n", json!({"id": id})),
        }
        .into()
    }

    fn end(self, id: Option<&str>, code: Code) -> Bytes {
        let end = json!({"code": code.as_str()});
        match (self, id) {
            (Self::Events, Some(id)) => format!("id: {id}\nevent: end\ndata: {end}\n\n"),
            (Self::Events, None) => format!("event: end\ndata: {end}\n\n"),
            (Self::Lines, id) => format!("{}\n", json!({"id": id, "end": end})),
        }
        .into()
    }
}

#[derive(PartialEq)]
enum Phase {
    New,
    Open,
    Ended,
}

/// An open stream. It holds one position and at most one row, whatever its client does.
struct Live {
    service: Arc<Service>,
    caller: Caller,
    scope: Scope,
    query: Query,
    follower: Follower,
    format: Format,
    heartbeat: Interval,
    /// When the token is checked again.
    recheck: Instant,
    phase: Phase,
    /// The bytes of the row that was sent last, if it is a long one. They count until the client has taken it.
    sending: Option<Slot>,
    _slot: Slot,
}

enum Event {
    Drain,
    Recheck,
    Heartbeat,
    Row(Result<Arc<Entry>, LedgerError>),
}

impl Live {
    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        match self.phase {
            Phase::Ended => return None,
            Phase::New => {
                self.phase = Phase::Open;
                return Some(self.position());
            }
            Phase::Open => {}
        }
        // The server asks for more when the client has taken what there was.
        self.sending = None;
        loop {
            let event = tokio::select! {
                biased;
                () = self.service.options.drain.wait() => Event::Drain,
                () = tokio::time::sleep_until(self.recheck) => Event::Recheck,
                _ = self.heartbeat.tick() => Event::Heartbeat,
                row = self.follower.next() => Event::Row(row),
            };
            match event {
                Event::Drain => return Some(self.end(Code::Draining)),
                Event::Recheck => {
                    if let Err(code) = self.check_token().await {
                        return Some(self.end(code));
                    }
                }
                Event::Heartbeat => return Some(self.position()),
                Event::Row(Ok(entry)) => {
                    if self.scope.may_read(&entry.columns, None) && self.query.matches(&entry.columns) {
                        if self.has_room(&entry) {
                            self.heartbeat.reset();
                            return Some(self.format.row(&self.id(&entry.cursor), &entry.line));
                        }
                        self.follower.put_back();
                        drop(entry);
                        tokio::time::sleep(ROOM).await;
                    }
                }
                Event::Row(Err(error)) if error.retry() == Retry::Later => {
                    tracing::debug!(%error, "a stream waits for the ledger");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Event::Row(Err(error)) => return Some(self.end(Problem::from(error).code())),
            }
        }
    }

    fn id(&self, cursor: &Cursor) -> String {
        self.service.options.key.seal(&self.scope, cursor)
    }

    /// Whether a row may be sent now. A long one takes its bytes from a limit, which all streams have together.
    fn has_room(&mut self, entry: &Entry) -> bool {
        if entry.line.len() <= LONG {
            return true;
        }
        self.sending = self.service.sending.take_many(self.caller.tenant(), entry.line.len());
        self.sending.is_some()
    }

    fn position(&self) -> Bytes {
        self.format.position(self.follower.position().map(|cursor| self.id(cursor)).as_deref())
    }

    fn end(&mut self, code: Code) -> Bytes {
        self.phase = Phase::Ended;
        self.format.end(self.follower.position().map(|cursor| self.id(cursor)).as_deref(), code)
    }

    /// Plans the next check of the token: when it ends, or after the usual time.
    fn plan_recheck(&mut self) {
        let usual = self.service.options.recheck;
        let left = self.caller.identity.expires.map_or(usual, |end| end.since(SystemClock.now()));
        self.recheck = Instant::now() + left.min(usual).max(Duration::from_millis(10));
    }

    /// Checks the token again. A stream does not outlive it.
    async fn check_token(&mut self) -> Result<(), Code> {
        let had = &self.caller.identity;
        match self.service.identify(&self.caller.token).await {
            Ok(now) => {
                if (&now.tenant, &now.user) != (&had.tenant, &had.user) || now.read_scope() != self.scope {
                    return Err(Code::InvalidToken);
                }
                now.need(Permission::Read).map_err(|problem| problem.code())?;
                self.caller.identity = now;
                self.plan_recheck();
                Ok(())
            }
            // While it cannot be checked, it counts as long as it would have.
            Err(problem) if problem.code() == Code::Unavailable && had.expires.is_none_or(|end| SystemClock.now() < end) => {
                self.recheck = Instant::now() + Duration::from_secs(1);
                Ok(())
            }
            Err(problem) => Err(problem.code()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &[u8]) -> serde_json::Value {
        serde_json::from_slice(line).unwrap()
    }

    #[test]
    fn lines_and_events_have_the_same_parts() {
        let line = br#"{"name":"a\r\nb"}"#;
        assert_eq!(&Format::Events.row("x", line)[..], b"id: x\nevent: span\ndata: {\"name\":\"a\\r\\nb\"}\n\n");
        assert_eq!(parse_line(&Format::Lines.row("x", line)), json!({"id": "x", "span": {"name": "a\r\nb"}}));
        assert_eq!(&Format::Events.position(Some("x"))[..], b": alive\nid: x\n\n");
        assert_eq!(parse_line(&Format::Lines.position(None)), json!({"id": null}));
        assert_eq!(parse_line(&Format::Lines.end(Some("x"), Code::Draining)), json!({"id": "x", "end": {"code": "draining"}}));
    }
}
