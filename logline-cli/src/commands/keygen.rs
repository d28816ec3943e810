//! `logline keygen`

use std::path::PathBuf;

use clap::Args;
use logline_core::{KeyPair, Signer as _};
use serde_json::json;

use crate::{Error, output};

#[derive(Args)]
pub(crate) struct Options {
    /// The file to create. An existing file is not overwritten.
    file: PathBuf,
}

pub(crate) fn run(options: &Options, json: bool) -> Result<bool, Error> {
    let key = KeyPair::generate()?;
    key.save_new(&options.file)?;
    if json {
        output::line(&format!(
            "{}",
            json!({"file": options.file.display().to_string(), "public_key": key.public_key().to_string()})
        ));
    } else {
        output::line(&format!("{}", key.public_key()));
        output::note(&format!("the secret key is in {}: keep it private, and keep a copy", options.file.display()));
    }
    Ok(true)
}
