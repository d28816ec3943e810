//! One file per command.

pub(crate) mod completions;
pub(crate) mod delegate;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod fsck;
pub(crate) mod function;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod keygen;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod memory;
pub(crate) mod migrate;
pub(crate) mod policy;
pub(crate) mod prompt;
pub(crate) mod provider;
pub(crate) mod publish;
pub(crate) mod read;
pub(crate) mod rebuild;
pub(crate) mod replay;
pub(crate) mod request;
pub(crate) mod run;
pub(crate) mod stats;
pub(crate) mod tail;
pub(crate) mod verify;
