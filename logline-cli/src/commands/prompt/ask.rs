//! `logline prompt ask`

use clap::{Args, ValueEnum};
use logline::home::KeyOf;
use logline_core::request::Request;
use logline_core::roles::Role;
use logline_memory::{Memories, Mode, Wanted};
use logline_prompts::PROMPT_RUN;
use serde_json::{Value, json};

use crate::commands::function::json_of;
use crate::site::{HomeOptions, Site, check_tenant};
use crate::{Error, output};

#[derive(Args)]
pub(super) struct Ask {
    /// The name or id of the variant, or of a family of which one is chosen.
    variant: String,
    /// The question.
    question: String,
    /// The tenant.
    #[arg(long)]
    tenant: String,
    /// The user in whose name it is asked.
    #[arg(long)]
    owner: String,
    /// Values of variables: a JSON object.
    #[arg(long, value_name = "JSON")]
    vars: Option<String>,
    /// Encrypt the question, and everything that comes of it, under the owner's key.
    #[arg(long)]
    confidential: bool,
    /// Tell the model what the user has had remembered. The request is then a confidential one.
    #[arg(long, value_enum, default_value_t = Recalls::Off)]
    memory: Recalls,
    /// The session: a family keeps one variant for it, and its memories are recalled.
    #[arg(long)]
    session: Option<String>,
    /// How many memories the model is told at most.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=50))]
    limit: u16,
    #[command(flatten)]
    home: HomeOptions,
}

/// Which memories the model is told.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Recalls {
    /// None.
    Off,
    /// Those of the session.
    SessionOnly,
    /// All that the user may read.
    On,
}

impl Recalls {
    fn mode(self) -> Option<Mode> {
        match self {
            Self::Off => None,
            Self::SessionOnly => Some(Mode::SessionOnly),
            Self::On => Some(Mode::On),
        }
    }
}

pub(super) async fn run(options: &Ask, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let vars = options.vars.as_deref().map(|text| json_of("--vars", text)).transpose()?.unwrap_or(Value::Null);
    let site = Site::open(url, &options.home).await?;
    let tenant = options.tenant.as_str();
    let is_confidential = options.confidential || options.memory != Recalls::Off;
    let memory = if is_confidential { Some(site.memory().await?) } else { None };
    let host = match &memory {
        Some(memory) => site.host_of(memory).await?,
        None => site.host(KeyOf::Host).await?,
    };
    check_tenant(&host, &host.key(), Role::Runtime, tenant)?;
    let (asked, is_family) = match site.named(tenant, "prompt_variant", &options.variant).await {
        Ok(variant) => (variant, false),
        Err(error) => (site.named(tenant, "prompt_family", &options.variant).await.map_err(|_| error)?, true),
    };
    let mut input =
        json!({"question": options.question, "vars": vars, "session": options.session.as_ref().filter(|_| is_family)});
    if let (Some(mode), Some(kernel)) = (options.memory.mode(), &memory) {
        let memories = Memories::new(&host, kernel.vault(), tenant, &options.owner, mode);
        let memories = match &options.session {
            Some(session) => memories.session(session),
            None => memories,
        };
        let wanted = memories.for_prompt(&Wanted::most(options.limit.into())).await?;
        if let Some(members) = input.as_object_mut() {
            members.insert("memory".to_owned(), wanted);
        }
    }
    let request = Request::new(tenant, &options.owner, asked, input).this(PROMPT_RUN);
    let request = if is_confidential { request.confidential() } else { request };
    let told = host.execute(request).await?.result.map_err(|failure| output::plain(&failure.to_string()))?;
    if json {
        output::line(&told.to_string());
        return Ok(true);
    }
    let answer = told.get("answer").cloned().unwrap_or_default();
    output::line(&answer.get("text").and_then(Value::as_str).map_or_else(|| answer.to_string(), output::plain));
    let run = told.get("run").and_then(Value::as_str).unwrap_or_default();
    output::note(&format!(
        "run {run}: `logline prompt explain {run} --tenant {}` says how it came about",
        output::plain(tenant)
    ));
    Ok(true)
}
