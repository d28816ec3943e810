//! A file with everything that an approver needs to decide without the ledger: the proposal, the proposed version, and the one that it
//! would replace. Each row is verified again where it is signed.

use std::io::Write as _;
use std::path::Path;

use logline_core::trust::governance::{Docket, Proposed};
use logline_core::{Hash, ParsedSpan, Rules, SignedSpan, VerifiedSpan, Verifier, parse_line};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Error, output};

/// A larger file is not read.
const MAX_BYTES: u64 = 16 << 20;

/// The first line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// The version of the format.
    logline_ballot: u32,
    /// The hash of the ledger's first manifest.
    ledger: Hash,
    proposal: Uuid,
}

/// What is decided about, verified.
pub(super) struct Ballot {
    pub(super) ledger: Hash,
    pub(super) proposed: Proposed,
    pub(super) subject: SignedSpan,
    pub(super) replaced: Option<SignedSpan>,
}

impl Ballot {
    /// Writes the file.
    pub(super) fn write(
        path: &Path,
        ledger: Hash,
        docket: &Docket,
        proposal: &SignedSpan,
        replaced: Option<&SignedSpan>,
    ) -> Result<(), Error> {
        let head = Head { logline_ballot: 1, ledger, proposal: docket.proposed.id };
        let mut bytes = serde_json::to_vec(&head)?;
        for row in [Some(proposal), Some(&*docket.subject), replaced].into_iter().flatten() {
            bytes.push(b'\n');
            bytes.extend_from_slice(&row.to_line());
        }
        bytes.push(b'\n');
        create(path, &bytes)
    }

    /// Reads the file, and verifies that its rows are what was signed and what the proposal names. Whether the ledger is the one that it
    /// names, and who may sign there, it cannot tell: a vote for another ledger counts nowhere.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let text = output::text_of(path, MAX_BYTES)?;
        let mut lines = text.lines();
        let head: Head = serde_json::from_str(lines.next().unwrap_or_default())
            .map_err(|error| format!("{}: the first line is not that of a ballot: {error}", path.display()))?;
        if head.logline_ballot != 1 {
            return Err(format!("the ballot has format {}, this tool reads 1: upgrade it", head.logline_ballot).into());
        }
        let mut rows = lines.map(row);
        let mut next = |what: &str| rows.next().transpose().map_err(|error| format!("the {what}: {error}"));
        let proposal = next("proposal")?.ok_or("the ballot has no proposal")?;
        let proposed = Proposed::of(&proposal).map_err(|reason| format!("the proposal does not count: {reason}"))?;
        let subject = next("proposed version")?.ok_or("the ballot has no proposed version")?.into_signed();
        let replaced = next("version in force")?.map(VerifiedSpan::into_signed);
        let wanted = &proposed.proposal;
        let is_it = proposed.id == head.proposal
            && subject.seal.curr_hash == wanted.subject.curr_hash
            && (subject.id, subject.seq) == (wanted.subject.id, wanted.subject.seq)
            && subject.tenant_id == proposed.tenant;
        if !is_it {
            return Err("the ballot does not hold the version that its proposal names: do not sign it".into());
        }
        if replaced.as_ref().map(|row| row.seal.curr_hash) != wanted.replaces
            || replaced.as_ref().is_some_and(|row| (row.id, &row.tenant_id) != (subject.id, &subject.tenant_id))
        {
            return Err("the ballot does not hold the version that its proposal would replace: do not sign it".into());
        }
        Ok(Self { ledger: head.ledger, proposed, subject, replaced })
    }
}

fn row(line: &str) -> Result<VerifiedSpan, Error> {
    match parse_line(line.as_bytes(), &Rules::default())? {
        ParsedSpan::Signed(span) => Ok(span.verify(&mut Verifier::new())?),
        _ => Err("it is not signed".into()),
    }
}

/// Writes a file that must not exist yet.
pub(super) fn create(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = std::fs::File::options().write(true).create_new(true).open(path).map_err(named)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(named)?;
    Ok(())
}
