//! `logline publish`

use std::path::{Path, PathBuf};

use clap::Args;
use logline::home::KeyOf;
use logline_core::ledger::LedgerExt as _;
use logline_core::roles::Role;
use logline_core::{Draft, ParsedSpan, Rules, Scope, Signer as _, Visibility, parse_line};
use serde_json::{Map, Value, json};

use crate::site::{HomeOptions, Site, check_tenant, published_id};
use crate::{Error, output};

#[derive(Args)]
#[command(
    after_help = "Example: logline publish refunds.json --ledger sqlite:demo.ledger --tenant acme\n\nA draft needs `entity_type` and `name`, and what its type needs. Its id follows from tenant, type and name, unless it has one."
)]
pub(crate) struct Options {
    /// The drafts: one JSON object, a list of them, or one a line. `-` reads standard input.
    file: PathBuf,
    /// The tenant.
    #[arg(long)]
    tenant: String,
    /// The owner of drafts that name none.
    #[arg(long, default_value = "publisher")]
    owner: String,
    /// Who may see drafts that do not say it: `private` (the owner), `tenant` or `public`.
    #[arg(long, default_value = "tenant")]
    visibility: String,
    /// Publish also what was stopped or deleted: it works again.
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    home: HomeOptions,
}

/// A larger file is not read.
const MAX_BYTES: u64 = 64 << 20;

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let visibility: Result<Visibility, ()> = options.visibility.parse();
    let visibility = visibility.map_err(|()| "--visibility is `private`, `tenant` or `public`")?;
    let drafts = objects(&options.file)?;
    let site = Site::open(url, &options.home).await?;
    let publisher = site.key(KeyOf::Publisher)?;
    // It runs nothing, so the publisher's key is its key.
    let host = site.host(KeyOf::Publisher).await?;
    check_tenant(&host, &publisher.public_key(), Role::Publisher, &options.tenant)?;
    // All are read before the first is published, so that a file that cannot be read changes nothing.
    let drafts = drafts
        .into_iter()
        .map(|(at, columns)| Ok((at.clone(), draft(options, visibility, columns).map_err(|e| format!("{at}: {e}"))?)));
    let drafts = drafts.collect::<Result<Vec<_>, Error>>()?;
    let all = drafts.len();
    for (done, (at, draft)) in drafts.into_iter().enumerate() {
        let id = draft.columns().id;
        let before = site.ledger.find(&Scope::runtime(&options.tenant), &options.tenant, id).await?;
        // One may need those before it, so that they cannot be published together.
        let published = match options.again {
            true => host.publish_again(draft, &publisher).await,
            false => host.publish_if_changed(draft, &publisher).await,
        };
        let published = published.map_err(|e| match done {
            0 => format!("{at}: {e}; nothing is published"),
            _ => format!(
                "{at}: {e}; {done} of {all} drafts are published, those before it: correct it and publish the whole file again, what has \
                 not changed stays as it is"
            ),
        })?;
        let is_new = before.is_none_or(|before| before.seal.curr_hash != published.seal.curr_hash);
        let (kind, name) = (published.entity_type.as_str(), published.name.clone().unwrap_or_default());
        let hash = published.seal.curr_hash.to_string();
        output::line(&if json {
            json!({"entity_type": kind, "name": name, "id": id.to_string(), "seq": published.seq, "curr_hash": hash, "published": is_new}).to_string()
        } else {
            let what = if is_new { "published" } else { "unchanged:" };
            format!("{what} {kind} {} version {} ({id}, {hash})", output::plain(&name), published.seq)
        });
    }
    Ok(true)
}

/// An object of a file, with its place for messages.
type Placed = (String, Map<String, Value>);

/// The objects of a file.
fn objects(path: &Path) -> Result<Vec<Placed>, Error> {
    let text = output::text_of(path, MAX_BYTES)?;
    let shown = path.display();
    let object = |at: String, value: Value| match value {
        Value::Object(columns) => Ok((at, columns)),
        _ => Err(format!("{at}: a draft is a JSON object")),
    };
    let parse = |at: &str, text: &str| logline_core::json::parse(text.as_bytes()).map_err(|e| format!("{at}: {e}"));
    let whole = logline_core::json::parse(text.as_bytes());
    let found: Result<Vec<_>, String> = match whole {
        Ok(Value::Array(all)) => {
            all.into_iter().enumerate().map(|(n, one)| object(format!("{shown}, draft {}", n + 1), one)).collect()
        }
        Ok(one) => object(shown.to_string(), one).map(|one| vec![one]),
        Err(error) => {
            let lines = || text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            if lines().count() < 2 || lines().next().is_some_and(|(_, line)| parse("", line).is_err()) {
                return Err(format!("{shown}: {error}").into());
            }
            let at = |n: usize| format!("{shown}, line {}", n + 1);
            lines().map(|(n, line)| object(at(n), parse(&at(n), line)?)).collect()
        }
    };
    match found? {
        none if none.is_empty() => Err(format!("{shown}: there is no draft").into()),
        found => Ok(found),
    }
}

/// A draft with everything that the file leaves out.
fn draft(options: &Options, visibility: Visibility, mut columns: Map<String, Value>) -> Result<Draft, String> {
    let text = |columns: &Map<String, Value>, name: &str| columns.get(name).and_then(Value::as_str).map(str::to_owned);
    let kind = text(&columns, "entity_type").ok_or("`entity_type` is missing, such as `policy` or `prompt_block`")?;
    let name = text(&columns, "name").ok_or("`name` is missing")?;
    match text(&columns, "tenant_id") {
        Some(tenant) if tenant != options.tenant => return Err(format!("it is of tenant `{}`", tenant.escape_debug())),
        _ => columns.insert("tenant_id".to_owned(), options.tenant.as_str().into()),
    };
    let id = published_id(&options.tenant, &kind, &name);
    for (member, value) in [
        ("id", id.to_string()),
        ("owner_id", options.owner.clone()),
        ("visibility", visibility.to_string()),
        ("who", format!("publisher:{}", options.owner)),
        ("did", "defined".to_owned()),
        ("this", format!("{kind}.{name}")),
        ("status", "active".to_owned()),
    ] {
        columns.entry(member).or_insert_with(|| value.into());
    }
    // Publishing finds the version that follows.
    columns.remove("seq");
    let line = Value::Object(columns).to_string();
    match parse_line(line.as_bytes(), &Rules::default()).map_err(|e| e.to_string())? {
        ParsedSpan::Unsigned(draft) => Ok(*draft),
        _ => Err("it is sealed: give a draft, or use `logline import`".to_owned()),
    }
}
