//! One file per command.

pub(crate) mod delegate;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod fsck;
pub(crate) mod import;
pub(crate) mod keygen;
pub(crate) mod migrate;
pub(crate) mod read;
pub(crate) mod rebuild;
pub(crate) mod replay;
pub(crate) mod tail;
