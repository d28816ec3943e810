//! `logline init`

use std::path::PathBuf;

use clap::Args;
use logline::home::{KeyOf, Ready, Setup};
use logline_core::{PublicKey, SystemClock};
use serde_json::json;

use crate::open::Location;
use crate::site::{behaviours, home_of};
use crate::{Error, output};

#[derive(Args)]
#[command(after_help = "Example: logline init --ledger sqlite:demo.ledger --tenant acme")]
pub(crate) struct Options {
    /// The tenants of the publisher and the host; `*` for all. Without it: all for a new ledger, none in addition for another.
    #[arg(long = "tenant", value_name = "TENANT,…", value_delimiter = ',')]
    tenants: Vec<String>,
    /// Have a manifest that exists allow the kernels of this version of the tool that it does not allow yet.
    #[arg(long)]
    add_kernels: bool,
    /// A root key that somebody else holds. The home's own root key is one more.
    #[arg(long = "root-key", value_name = "PUBLIC")]
    root_keys: Vec<PublicKey>,
    /// How many root keys must approve a manifest.
    #[arg(long, value_name = "K", default_value_t = 1)]
    threshold: u32,
    /// The folder for the keys and the trust root. Without it they are beside the SQLite file.
    #[arg(long, value_name = "DIR", env = "LOGLINE_HOME")]
    home: Option<PathBuf>,
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let location = Location::of(url)?;
    let home = home_of(&location, options.home.as_deref())?;
    if let Some(folder) = &options.home {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let ledger = location.for_writing().await?;
    let mut setup = Setup::default();
    if !options.tenants.is_empty() {
        setup = setup.tenants(options.tenants.iter().map(String::as_str));
    }
    setup.adds_kernels = options.add_kernels;
    let setup = setup.roots(options.root_keys.iter().copied(), options.threshold);
    let ready = home.set_up(&ledger, &setup, &behaviours()?, &SystemClock).await?;
    let files = [
        ("root key", home.key_file(KeyOf::Root), "decides who may sign what: keep it offline, and keep a copy"),
        ("publisher key", home.key_file(KeyOf::Publisher), "signs functions and policies: with those who publish them"),
        ("host key", home.key_file(KeyOf::Host), "signs what ran: on the machine of the service"),
        ("trust root", home.trust_file().to_owned(), "whom to trust: with every host and every auditor"),
    ];
    let version = ready.trusted.as_ref().map(|trusted| trusted.manifest.version);
    if json {
        let made: Vec<_> = ready.made.iter().map(|path| path.display().to_string()).collect();
        let file = |n: usize| files.get(n).map(|(_, path, _)| path.display().to_string());
        output::line(
            &json!({
                "made": made, "manifest_version": version, "published": ready.published, "root_key": file(0),
                "publisher_key": file(1), "host_key": file(2), "trust": file(3),
                "approvals_needed": ready.trust.threshold,
            })
            .to_string(),
        );
        return Ok(true);
    }
    output::line(&told(&ready));
    for (name, path, advice) in &files {
        let state = if ready.made.contains(path) { "new " } else { "kept" };
        output::line(&format!("  {state} {name:<14} {}  ({advice})", output::plain(&path.display().to_string())));
    }
    Ok(true)
}

fn told(ready: &Ready) -> String {
    match (&ready.trusted, ready.published) {
        (None, _) => format!(
            "the first manifest waits until {} of {} root keys have approved it (docs/trust.md)",
            ready.trust.threshold,
            ready.trust.keys.len()
        ),
        (Some(trusted), None) => {
            format!("nothing to do: manifest version {} is in force and says this already", trusted.manifest.version)
        }
        (Some(_), Some(version)) => format!("the ledger is ready: manifest version {version} is in force"),
    }
}
