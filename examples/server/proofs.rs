//! Proofs of inclusion from the files of a log.

use std::path::Path;

use logline_core::SignedSpan;
use logline_http::Inclusion;
use logline_log::note::{Note, NoteKey};
use logline_log::store::Directory;
use logline_log::{Checkpoint, Leaf, prove};

use crate::site::Failed;

/// What proves that a row is in the log of this key, whose files are below `tiles`. The checkpoint is read anew each time, so that it
/// covers what was entered since.
pub(crate) fn from_folder(
    tiles: &Path,
    key: &str,
) -> Result<impl Fn(&SignedSpan) -> Result<Inclusion, String> + Send + Sync + use<>, Failed> {
    let (tiles, log_key) = (Directory::new(tiles), key.to_owned());
    let origin = key.parse::<NoteKey>()?.name().to_string();
    Ok(move |row: &SignedSpan| {
        let mut read = |name: &str| tiles.read_now(&format!("{origin}/{name}")).map_err(|error| error.to_string());
        let bytes = read("checkpoint")?.ok_or("the log has no published checkpoint yet: run `logline log run`")?;
        let note = Note::parse(&bytes).map_err(|error| error.to_string())?;
        let checkpoint = Checkpoint::of(&note).map_err(|error| error.to_string())?;
        let proof = prove(&Leaf::of(row), &note, &checkpoint, None, &mut read).map_err(|error| error.to_string())?;
        Ok(Inclusion { proof: proof.to_string(), log_key: log_key.clone() })
    })
}
