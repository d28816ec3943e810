//! `logline witness`: watches the transparency logs of others.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use logline_core::{KeyPair, Signer as _, SystemClock};
use logline_log::note::{KeyKind, KeyName, NoteKey};
use logline_log::witness::Witness;
use logline_witness::{ServeOptions, begin_state, open_state, serve};
use serde_json::json;

use crate::{Error, output};

#[derive(Args)]
#[command(
    after_help = "Example: logline witness --name witness.example/ours --key witness.key --state witness/ --begin --listen 127.0.0.1:8080 --log log.invalid/3f…+0f1e2d3c+AR…\n\nInterrupt it (Ctrl-C or SIGTERM) at any time. Give its key, which it prints, to those whose logs it watches: they name it in a policy. It speaks HTTP; put a proxy with a certificate in front of it."
)]
pub(crate) struct Options {
    /// The witness's name, such as `witness.example/ours`: a domain of yours, and a path.
    #[arg(long, value_name = "NAME")]
    name: KeyName,
    /// The witness's key, which must sign nothing else: `logline keygen witness.key` makes one.
    #[arg(long, value_name = "KEYFILE")]
    key: PathBuf,
    /// The folder of what it has cosigned. Never restore it from a copy: a witness that forgets cosigns a second history.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Begin with an empty state. Only for a new witness, with a new key.
    #[arg(long)]
    begin: bool,
    /// The key of a log that is watched, `ORIGIN+ID+BASE64`, as `logline log checkpoint --log-key` prints it. May be given several times.
    #[arg(long = "log", value_name = "KEY", required = true)]
    logs: Vec<NoteKey>,
    /// The address and the port on which it listens; port 0 is any that is free.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: String,
    /// The most calls of one address per second. Behind a proxy all calls come from its address.
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
}

pub(crate) async fn run(options: &Options, json: bool) -> Result<bool, Error> {
    if let Some(key) = options.logs.iter().find(|key| key.kind() != KeyKind::Log) {
        return Err(format!("`{}` is the key of a witness, not of a log", key.name()).into());
    }
    let signer = KeyPair::load(&options.key)?;
    if options.logs.iter().any(|log| *log.public_key() == signer.public_key()) {
        return Err("the witness has the key of a log that it watches: it needs one of its own".into());
    }
    let key = NoteKey::new(options.name.clone(), KeyKind::Witness, signer.public_key())?;
    let state = if options.begin { begin_state(&options.state, &key)? } else { open_state(&options.state, &key)? };
    let witness = Witness::new(options.name.clone(), Arc::new(signer), Arc::new(SystemClock), options.logs.clone(), state);
    let listener = tokio::net::TcpListener::bind(&options.listen).await.map_err(|e| format!("{}: {e}", options.listen))?;
    let url = format!("http://{}", listener.local_addr()?);
    if json {
        output::line(&json!({"key": key.to_string(), "listens": url, "logs": options.logs.len()}).to_string());
    } else {
        output::line(&key.to_string());
        output::note(&format!("watching {} logs on {url}; interrupt to stop", options.logs.len()));
    }
    let mut limits = ServeOptions::default();
    if let Some(rate) = options.rate {
        limits.calls_per_second = rate;
        limits.burst = limits.burst.max(rate);
    }
    serve(listener, witness, limits, logline::shutdown_signal()).await;
    Ok(true)
}
