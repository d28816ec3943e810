//! What is refused before a provider is asked.

use logline_core::contract::provider::{Block, ModelAnswer, ModelRequest, Secret, SecretSource as _, StopReason, Usage};
use logline_core::ledger::{Ledger as _, LedgerExt as _};
use logline_core::request::Request;
use logline_core::trust::governance::{Class, Governance, promotions_of};
use logline_core::{Draft, Host, HostError, Scope, Visibility};
use logline_kernels::provider::{HostSecrets, PROVIDER_INVOKE, ProviderExec, Script};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::setup;
use crate::setup::quorum::{approve, governed, promote_directly, propose};
use crate::setup::{HOST, PUBLISHER, TENANT, USER, block_on, key, trust};
use crate::site::*;

#[test]
fn a_secret_goes_to_its_own_url_and_into_no_span() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let of = |url: &str, secret: &str| with(spec(), json!({"url": url, "secret": secret}));
        let good = publish(&host, of("https://models.example/v1", "main")).await;
        assert!(host.execute(asking(good, "hello")).await.unwrap().result.is_ok());
        for url in [
            "https://models.example.attacker/v1",
            "https://attacker/https://models.example",
            "http://models.example",
            "https://models.example@attacker/",
        ] {
            let stolen = publish(&host, of(url, "main")).await;
            let execution = host.execute(asking(stolen, "hello")).await.unwrap();
            assert_eq!(code(&execution), "secret_not_available", "{url}");
        }
        let missing = publish(&host, of("https://models.example", "nobody")).await;
        let execution = host.execute(asking(missing, "hello")).await.unwrap();
        assert!(execution.result.unwrap_err().message.contains("no secret `nobody`"));
        // A provider may send the secret back as the id of the call.
        let id = Some("Bearer hunter2".to_owned());
        let usage = Usage::of(1, 1);
        site.provider
            .then([Script::Answer(ModelAnswer::new(vec![Block::text("hi")], StopReason::EndTurn, usage).request_id(id))]);
        assert!(host.execute(asking(good, "hello")).await.unwrap().result.is_ok());
        assert_eq!(site.provider.calls().len(), 2);
        let everything = site.ledger.scan(&Scope::Operator, &logline_core::ledger::Query::timeline(), None).await.unwrap();
        for row in everything.rows {
            assert!(!format!("{:?}", row.span.unwrap()).contains("hunter2"));
        }
        assert_eq!(format!("{:?}", Secret::new("hunter2".to_owned())), "Secret(…)");
    });
}

#[test]
fn a_provider_that_its_asker_may_not_use_is_not_asked() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let private = host.publish(provider(spec()).visibility(Visibility::Private), &key(PUBLISHER)).await.unwrap().id;
        let inactive = host.publish(provider(spec()).status("archived"), &key(PUBLISHER)).await.unwrap().id;
        // A member writes a provider span behind the host's back.
        let forged = setup::smuggle(&site.ledger, provider(spec()).owner(USER), setup::STRANGER).await.id;
        let theirs =
            setup::smuggle(&site.ledger, provider(spec()).tenant("globex").visibility(Visibility::Public), PUBLISHER).await.id;
        let note =
            setup::smuggle(&site.ledger, Draft::new("note").tenant(TENANT).owner(USER).who(USER).this("n"), HOST).await.id;
        let unsaid = Uuid::from_u128(7);
        for (id, expected) in [
            (private, "provider_not_found"),
            (inactive, "provider_not_active"),
            (forged, "provider_not_authorised"),
            (theirs, "provider_not_found"),
            (note, "provider_not_found"),
            (unsaid, "provider_not_found"),
        ] {
            let execution = host.execute(asking(id, "hello")).await.unwrap();
            assert_eq!(code(&execution), expected);
        }
        assert!(site.provider.calls().is_empty() && site.spans("provider_request").await.is_empty());
    });
}

#[test]
fn a_provider_span_that_cannot_work_is_not_published() {
    block_on(async {
        let site = Site::with(budget(None, Some(10))).await;
        let host = site.host().await;
        let model = |model: Value| json!({"models": {FAST: model}});
        let other = Uuid::from_u128(9);
        for (change, said) in [
            (json!({"adapter": "nobody"}), "no adapter `nobody`, it has `scripted`, `other`"),
            (json!({"models": {}}), "at least one model"),
            (json!({"default_model": "slow"}), "no model `slow`"),
            (json!({"currency": "dollars"}), "three capital letters"),
            (json!({"currency": "EUR"}), "budget is in USD"),
            (json!({"currency": null}), "the prices need one"),
            (json!({"secrets": "x"}), "unknown field `secrets`"),
            (model(json!({"max_tokens": 0})), "max_tokens"),
            (model(json!({"max_tokens": -1})), "-1"),
            (model(json!({"max_tokens": 10})), "needs prices"),
            (model(json!({"max_tokens": 10, "prices": {"input": -3}})), "-3"),
            (model(json!({"max_tokens": 10, "prices": {"input": 2_000_000_000_000_000_u64}})), "input is over"),
            (model(json!({"max_tokens": 10, "prices": {"input": 1.5}})), "1.5"),
            (json!({"limits": {"concurrent": 0}}), "allows none"),
            (json!({"limits": {"tokens_per_day": -1}}), "-1"),
            (json!({"deadlines": {"total_ms": 0}}), "total_ms"),
            (json!({"retry": {"tries": 11}}), "from 1 to 10"),
            (json!({"breaker": {"failures": 51}}), "50 is the most"),
            (json!({"fallback": [{"provider": other}]}), "no other provider"),
            (json!({"fallback": vec![json!({"provider": other}); 8]}), "7 is the most"),
        ] {
            let refused = host.publish(provider(with(spec(), change.clone())), &key(PUBLISHER)).await;
            let message = refused.map(drop).unwrap_err().to_string();
            assert!(message.contains(said), "{change}: {message}");
        }
        publish(&host, spec()).await;
        assert!(matches!(
            host.publish(provider(spec()), &key(setup::STRANGER)).await,
            Err(HostError::Admit(_) | HostError::NotAuthorised(_))
        ));
    });
}

#[test]
fn a_request_that_no_provider_would_take_costs_no_call() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let main = publish(&host, spec()).await;
        let tool_use = json!({"type": "tool_use", "id": "t1", "name": "add", "input": {}});
        let said = |blocks: Value| json!({"role": "assistant", "content": blocks});
        let user = |blocks: Value| json!({"role": "user", "content": blocks});
        let text = json!([{"type": "text", "text": "hello"}]);
        let result = |id: &str| json!([{"type": "tool_result", "id": id, "content": []}]);
        let document = json!({"type": "document", "media_type": "text/plain", "name": "Plan", "data": "aGk="});
        for (request, place) in [
            (json!({}), "messages"),
            (json!({"messages": [said(text.clone())]}), "messages"),
            (json!({"messages": [user(json!([{"type": "text", "text": "  \n"}]))]}), "messages"),
            (json!({"messages": [user(json!([{"type": "image", "media_type": "x"}]))]}), "data"),
            (json!({"messages": [user(json!([{"type": "hologram"}]))]}), "hologram"),
            (json!({"messages": [user(text.clone()), said(json!([tool_use])), user(text.clone())]}), "`t1`"),
            (json!({"messages": [user(text.clone()), said(json!([tool_use])), user(result("t2"))]}), "`t2`"),
            (json!({"messages": [user(text.clone()), said(json!([tool_use]))]}), "`t1`"),
            (json!({"messages": [user(result("t1"))]}), "messages[0].content[0]"),
            (json!({"messages": [user(text.clone())], "max_tokens": 0}), "max_tokens"),
            (json!({"messages": [user(text.clone())], "max_tokens": 101}), "100 at most"),
            (json!({"messages": [user(text.clone())], "temperature": 3}), "temperature"),
            (json!({"messages": [user(text.clone())], "tool_choice": "any"}), "tool_choice"),
            (json!({"messages": [user(text.clone())], "tools": [{"name": "a b", "input_schema": {}}]}), "tools[0].name"),
            (json!({"messages": [user(text.clone())], "output_schema": {"name": "x", "schema": 5}}), "output_schema"),
            (
                json!({"messages": [user(json!([{"type": "cache_point", "ttl": "5m"}, {"type": "cache_point", "ttl": "1h"}]))]}),
                "content[1]",
            ),
            (
                json!({"system": [{"type": "cache_point", "ttl": "5m"}], "messages": [user(json!([{"type": "cache_point", "ttl": "1h"}]))]}),
                "messages[0].content[0]",
            ),
            (json!({"messages": [user(json!([document, document]))]}), "two documents `Plan`"),
            (
                json!({"messages": [user(json!([document])), said(json!([tool_use])),
                    user(json!([{"type": "tool_result", "id": "t1", "content": [document]}]))]}),
                "messages[2].content[0]",
            ),
            (json!({"messages": [user(text.clone())], "model": "x"}), "unknown field `model`"),
        ] {
            let asked = Request::new(TENANT, USER, main, json!({"request": request})).this(PROVIDER_INVOKE);
            let execution = host.execute(asked).await.unwrap();
            assert_eq!(code(&execution), "provider:invalid", "{request}");
            let message = execution.result.unwrap_err().message;
            assert!(message.contains(place), "{request}: {message}");
        }
        for (input, said) in [
            (json!("hello"), "must be an object"),
            (json!({"model": FAST}), "no `request`"),
            (json!({"request": {}, "provider": "x"}), "no member `provider`"),
            (json!({"request": ModelRequest::ask("hi"), "model": "slow"}), "no model `slow`: it has `fast`"),
        ] {
            let execution = host.execute(Request::new(TENANT, USER, main, input.clone()).this(PROVIDER_INVOKE)).await.unwrap();
            let message = execution.result.unwrap_err().message;
            assert!(message.contains(said), "{input}: {message}");
        }
        assert!(site.provider.calls().is_empty() && site.spans("provider_request").await.is_empty());
    });
}

/// Somebody has put the secret itself where the name of a variable belongs. The error is printed and logged.
#[test]
fn a_secret_in_the_file_that_names_secrets_is_not_quoted_in_the_error() {
    for file in [
        r#"{"main": "hunter2"}"#,
        r#"{"main": {"env": ["hunter2"]}}"#,
        r#"{"main": {"hunter2": 1}}"#,
        r#"["hunter2"]"#,
        r#"{"main": {"env": "A", "urls": "hunter2"}}"#,
    ] {
        let told = HostSecrets::read(file).unwrap_err();
        assert!(!told.contains("hunter2") && told.contains("line 1"), "{told}");
    }
}

#[test]
fn a_secret_does_not_leave_its_path() {
    block_on(async {
        let secret = || Secret::new("hunter2".to_owned());
        let secrets = HostSecrets::new().text("main", secret(), ["https://gw.example/team-a"]);
        for good in ["https://gw.example/team-a", "https://gw.example/team-a/v1", "https://gw.example/team-a/v1/"] {
            secrets.secret("main", Some(good)).await.unwrap();
        }
        for bad in [
            "https://gw.example/team-a/../team-b",
            "https://gw.example/team-a/./../team-b",
            "https://gw.example/team-a/%2e%2e/team-b",
            "https://gw.example/team-a/..\\team-b",
            "https://gw.example/team-a/.\t./team-b",
            "https://gw.example/team-ab",
            "https://gw.example/team-a@evil",
            "https://gw.example/team-a?x=1",
        ] {
            assert!(secrets.secret("main", Some(bad)).await.is_err(), "{bad}");
        }
        assert!(secrets.secret("main", None).await.is_err());
    });
}

/// A host without the adapter leaves the request to others.
#[test]
fn a_host_without_the_adapter_does_not_claim() {
    block_on(async {
        let site = Site::new().await;
        let main = publish(&site.host().await, spec()).await;
        let bare = ProviderExec::new([], HostSecrets::new());
        let builder = Host::builder().ledger(site.ledger.clone()).trust(trust()).key(key(HOST)).clock(site.clock.clone());
        let bare = builder.install(bare.behaviours()).build().await.unwrap();
        let error = bare.execute(asking(main, "hello")).await.unwrap_err().to_string();
        assert!(error.contains("adapter `scripted`"), "{error}");
        assert_eq!(site.spans("request").await.len(), 1, "it is still open, and has no other version");
    });
}

#[test]
fn a_provider_is_asked_as_it_was_promoted() {
    block_on(async {
        let rules = Governance::required().class(Class::Provider, 1);
        let site = Site::with(|manifest| *manifest = governed(manifest.clone(), rules, &[TENANT])).await;
        let host = site.host().await;
        let id = logline_core::ids::derive("provider", &["main"]);
        host.publish(provider(spec()).id(id), &key(PUBLISHER)).await.unwrap();
        assert_eq!(code(&host.execute(asking(id, "hello")).await.unwrap()), "not_promoted");
        assert!(site.provider.calls().is_empty());
        let proposed = propose(&host, TENANT, id).await;
        approve(&host, &proposed, [21]).await;
        promote_directly(&host, &proposed).await;
        assert!(host.execute(asking(id, "hello")).await.unwrap().result.is_ok());
        // Another adapter, which nobody has approved.
        let changed = with(spec(), json!({"adapter": "other"}));
        host.publish_if_changed(provider(changed).id(id), &key(PUBLISHER)).await.unwrap();
        assert!(host.execute(asking(id, "hello")).await.unwrap().result.is_ok());
        assert_eq!((site.provider.calls().len(), site.other.calls().len()), (2, 0));
        // Each intent names the promotion, before anything was sent.
        let query = logline_core::ledger::Query::chains().entity_type("provider_request");
        let intents = site.ledger.collect(&Scope::Operator, &query, 10).await.unwrap();
        let first = intents.iter().filter(|row| row.prev_hash.is_none());
        assert_eq!(first.filter(|row| promotions_of(row).into_keys().eq([id])).count(), 2);
    });
}

#[test]
fn a_provider_is_called_as_often_as_its_limits_allow() {
    block_on(async {
        let site = Site::new().await;
        let host = site.host().await;
        let limits = json!({"limits": {"calls_per_minute": 1}, "deadlines": {"total_ms": 1000}});
        let main = publish(&host, with(spec(), limits)).await;
        site.provider.then([Script::Text("Paris.".to_owned())]);
        host.execute(asking(main, "one")).await.unwrap().result.unwrap();
        let refused = host.execute(asking(main, "two")).await.unwrap();
        assert_eq!((code(&refused), site.provider.calls().len()), ("provider:throttled", 1));
        assert_eq!(site.spans("provider_request").await.len(), 1, "what is not asked leaves no intent");
    });
}
