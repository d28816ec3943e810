//! What `/api/chat` asks: a provider by the configuration, and the prompt `chat@v1`.

use std::sync::Arc;

use logline::home::Home;
use logline_core::contract::provider::{Block, ModelAnswer, ModelRequest, Provider, StopReason, Usage};
use logline_core::{Draft, Host, Signer, Visibility, ids};
use logline_kernels::provider::{HostSecrets, ProviderExec, ScriptedProvider};
use logline_openai::OpenAi;
use serde_json::{Value, json};

use crate::config::{Model, Secret};
use crate::site::{Failed, unless_stopped};

/// The name of the prompt.
const PROMPT: &str = "chat@v1";

/// The name of the adapter that follows a script.
const SCRIPTED: &str = "scripted";

/// The name under which the host knows the provider's secret.
const SECRET: &str = "chat";

/// What the model is told before the question.
const INSTRUCTION: &str = "Answer the user of this service in a few sentences. If you do not know something, say so.";

/// The adapters of this host with its secrets: those that `secrets.json` beside its keys names, and the one of the configuration. They serve
/// every provider that a publisher has put into the ledger, not only the one of the configuration.
pub(crate) fn providers(home: &Home, chat: Option<&Model>) -> Result<ProviderExec, Failed> {
    let file = home.secrets_file();
    let secrets = match std::fs::read_to_string(&file) {
        Ok(text) => HostSecrets::read(&text).map_err(|reason| format!("{}: {reason}", file.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => HostSecrets::new(),
        Err(error) => return Err(format!("{}: {error}", file.display()).into()),
    };
    let secrets = match chat {
        Some(Model::OpenAi { url, secret: Some(Secret::Environment(name)), .. }) => secrets.env(SECRET, name, [url]),
        Some(Model::OpenAi { url, secret: Some(Secret::File(path)), .. }) => secrets.file(SECRET, path, [url]),
        _ => secrets,
    };
    let mut adapters: Vec<Arc<dyn Provider>> = vec![Arc::new(OpenAi::new()?)];
    if chat == Some(&Model::Scripted) {
        adapters.push(Arc::new(ScriptedProvider::new(SCRIPTED).answering(|request| Ok(repeated(request)))));
    }
    Ok(ProviderExec::new(adapters, secrets))
}

/// What the script says.
fn repeated(request: &ModelRequest) -> ModelAnswer {
    let blocks = request.messages.iter().flat_map(|message| &message.content).rev();
    let texts = blocks.filter_map(|block| if let Block::Text { text } = block { Some(text.as_str()) } else { None });
    let text = format!("This is a script, not a model. It was asked: {}", texts.take(1).collect::<String>());
    let tokens = |text: &str| u64::try_from(text.len().div_ceil(4)).unwrap_or(u64::MAX);
    let usage = Usage::of(tokens(INSTRUCTION), tokens(&text));
    ModelAnswer::new(vec![Block::Text { text }], StopReason::EndTurn, usage)
}

/// Publishes the provider and the prompt, unless the ledger says the same already. So every instance may do it at each start.
pub(crate) async fn publish(host: &Host, tenant: &str, publisher: &dyn Signer, chat: &Model) -> Result<(), Failed> {
    let put = async |entity_type: &str, name: &str, metadata: Value, content: Option<&str>| {
        let id = ids::published(tenant, entity_type, name);
        let draft = Draft::new(entity_type)
            .id(id)
            .tenant(tenant)
            .owner("server")
            .who("publisher:server")
            .this(format!("{entity_type}.chat"))
            .name(name)
            .visibility(Visibility::Tenant)
            .status("active")
            .metadata(metadata);
        let draft = content.into_iter().fold(draft, |draft, text| draft.content(json!(text)));
        unless_stopped(host.publish_if_changed(draft, publisher).await).map(|()| id)
    };
    let provider = match chat {
        Model::Scripted => json!({"adapter": SCRIPTED, "models": {SCRIPTED: {"max_tokens": 1000}}}),
        Model::OpenAi { url, model, max_tokens, secret } => {
            let mut spec = json!({"adapter": "openai", "url": url, "models": {model: {"max_tokens": max_tokens}}});
            if let (Some(_), Some(members)) = (secret, spec.as_object_mut()) {
                members.insert("secret".to_owned(), SECRET.into());
            }
            spec
        }
    };
    let provider = put("provider", "chat", provider, None).await?;
    let block = put("prompt_block", "chat", json!({"rank": "app", "vars": {}}), Some(INSTRUCTION)).await?;
    let run = json!({"provider": provider});
    put("prompt_variant", PROMPT, json!({"family": "chat", "block_ids": [block], "run": run}), None).await?;
    Ok(())
}
