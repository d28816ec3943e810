//! Ledgers as text: one span per line, canonical JSON of all columns (`docs/export.md`).

mod export;
mod import;
mod importer;
mod lines;
mod sidecar;

pub use export::{ExportError, Exported, export};
pub use import::{BadLine, Import, ImportError, Imported, LineError, import};
pub use lines::{Line, LineReader};
pub use sidecar::{SidecarError, SidecarHead, SidecarReader, write_sidecar};
