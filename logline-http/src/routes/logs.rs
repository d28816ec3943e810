//! The transparency log of the caller's tenant: its checkpoint, and proofs that rows are in it. They come from the published files.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderValue, header};
use logline_core::SignedSpan;
use logline_log::note::Note;
use logline_log::store::Directory;
use logline_log::{Checkpoint, Leaf, last_signed, prove};

use crate::identity::Permission;
use crate::options::LogFolders;
use crate::problem::{Code, Problem};
use crate::routes::not_known;
use crate::service::{Service, caller};

/// The most files that are read for one proof. Entries that are further back are proven by `logline log prove`.
const MOST_FILES: usize = 4096;

/// The published checkpoint of a tenant's log.
async fn published(folders: &LogFolders, tenant: &str) -> Result<(Directory, Note, Checkpoint), Problem> {
    let broken = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "a transparency log cannot be read");
        Problem::new(Code::Internal, "the log cannot be read; the service's log says why")
    };
    let (tiles, locks) = (Directory::new(&folders.tiles), Directory::new(&folders.locks));
    let signed = last_signed(&locks, tenant).await.map_err(|error| broken(&error))?.ok_or_else(Problem::not_found)?;
    let signed = Checkpoint::of(&signed).map_err(|error| broken(&error))?;
    let bytes = tiles.read_now(&format!("{}/checkpoint", signed.origin)).map_err(|error| broken(&error))?;
    let note = Note::parse(&bytes.ok_or_else(Problem::not_found)?).map_err(|error| broken(&error))?;
    let checkpoint = Checkpoint::of(&note).map_err(|error| broken(&error))?;
    Ok((tiles, note, checkpoint))
}

fn text(body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The published checkpoint, as a signed note.
#[utoipa::path(get, path = "/api/log/checkpoint", tag = "log", responses(
    (status = 200, description = "A checkpoint in the format of C2SP", body = String, content_type = "text/plain"),
    crate::refusals::Refused,
))]
pub(crate) async fn checkpoint(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    caller.identity.need(Permission::Read)?;
    not_known(&request)?;
    let folders = service.options.logs.as_ref().ok_or_else(Problem::not_found)?;
    let (_, note, _) = published(folders, caller.tenant()).await?;
    Ok(text(note.to_string()))
}

/// A row's place in its tenant's log.
pub(crate) struct Inclusion {
    /// A `.tlog-proof`.
    pub(crate) proof: String,
    /// The key of the log, if the service was given it.
    pub(crate) log_key: Option<String>,
}

/// A proof that a row is in its tenant's log, or why there is none.
pub(crate) async fn prove_row(
    service: &Service,
    folders: &LogFolders,
    row: SignedSpan,
) -> Result<Result<Inclusion, String>, Problem> {
    let tenant = row.tenant_id.clone();
    let (tiles, note, checkpoint) = match published(folders, &tenant).await {
        Ok(published) => published,
        Err(problem) if problem.code() == Code::NotFound => return Ok(Err("the tenant has no published log yet".to_owned())),
        Err(problem) => return Err(problem),
    };
    let log_key = folders.keys.iter().find(|key| *key.name() == checkpoint.origin).map(ToString::to_string);
    // It reads files, and hashes them: always on a thread of its own.
    let found = service.work(&tenant, usize::MAX, move || {
        let mut left = MOST_FILES;
        let mut read = |name: &str| {
            left = left
                .checked_sub(1)
                .ok_or_else(|| "the entry is too far back: `logline log prove` makes its proof".to_owned())?;
            tiles.read_now(&format!("{}/{name}", checkpoint.origin)).map_err(|error| error.to_string())
        };
        prove(&Leaf::of(&row), &note, &checkpoint, None, &mut read).map(|proof| proof.to_string())
    });
    Ok(found.await?.map(|proof| Inclusion { proof, log_key }).map_err(|error| error.to_string()))
}
