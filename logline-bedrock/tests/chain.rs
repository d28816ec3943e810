//! Region and credentials of AWS's standard chain. Each test runs again in a process of its own, because the chain reads the environment.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests may"
)]

mod stage;

use std::path::PathBuf;
use std::process::Command;

use logline_bedrock::Bedrock;
use logline_core::conformance::providing::Scene;
use logline_core::contract::provider::{Endpoint, ErrorKind, ModelRequest, Provider as _};
use stage::{Act, Server, block_on, open};

/// Tells a process that it is the one with the environment of its test, and where its files are.
const FOLDER: &str = "LOGLINE_CHAIN_FOLDER";

/// Runs `check` in a process without anything of AWS but these variables. In them, `{folder}` is a folder of the test.
fn with_environment(test: &str, variables: &[(&str, &str)], check: impl AsyncFnOnce(PathBuf)) {
    if let Some(folder) = std::env::var_os(FOLDER) {
        block_on(check(folder.into()));
        eprintln!("checked {test}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args([test, "--exact", "--nocapture"]).env(FOLDER, folder.path()).env("AWS_EC2_METADATA_DISABLED", "true");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        again.env_remove(name);
    }
    let files = [("AWS_CONFIG_FILE", "{folder}/config"), ("AWS_SHARED_CREDENTIALS_FILE", "{folder}/credentials")];
    for (name, value) in files.iter().chain(variables) {
        again.env(name, value.replace("{folder}", folder.path().to_str().unwrap()));
    }
    let ran = again.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains(&format!("checked {test}")), "{said}");
}

async fn ask(server: &Server, bedrock: &Bedrock) {
    server.act(Act::Scene(Scene::Says("ok".to_owned(), None)));
    let endpoint = Endpoint::new("trial-model", "0e4c1d0a-0000-4000-8000-000000000001");
    assert_eq!(bedrock.invoke(&endpoint, &ModelRequest::ask("hi")).await.unwrap().text(), "ok");
}

const ASSUMED: &str = "\
<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
<AccessKeyId>AKIDASSUMED</AccessKeyId><SecretAccessKey>assumed-secret</SecretAccessKey><SessionToken>assumed-token</SessionToken>\
<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";

#[test]
fn a_profile_names_region_endpoint_and_a_role_to_assume() {
    let check = async |folder: PathBuf| {
        let (_serving, server) = open().await;
        let at = server.base();
        // The SDK reads `bedrock-runtime` here, where other SDKs read `bedrock_runtime`.
        let config = format!(
            "[profile models]\nrole_arn = arn:aws:iam::123456789012:role/models\nsource_profile = base\nregion = eu-west-3\n\
             services = here\n\n[profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = base-secret\n\n\
             [services here]\nsts =\n  endpoint_url = {at}\nbedrock-runtime =\n  endpoint_url = {at}\n"
        );
        std::fs::write(folder.join("config"), config).unwrap();
        let bedrock = Bedrock::builder().profile("models").load().await.unwrap();
        assert_eq!(bedrock.region(), Some("eu-west-3"));
        server.act(Act::Raw("200 OK\r\ncontent-type: text/xml".to_owned(), ASSUMED.into()));
        for _ in 0..3 {
            ask(&server, &bedrock).await;
        }
        let seen = server.seen();
        // The role is assumed once, and not for each call.
        assert_eq!(seen.len(), 4);
        assert!(seen[0].header("authorization").unwrap().contains("Credential=AKIDBASE/"));
        for call in &seen[1..] {
            let signed = call.header("authorization").unwrap();
            assert!(signed.contains("Credential=AKIDASSUMED/") && signed.contains("/eu-west-3/bedrock/"), "{signed}");
            assert_eq!(call.header("x-amz-security-token"), Some("assumed-token"));
        }
    };
    with_environment("a_profile_names_region_endpoint_and_a_role_to_assume", &[], check);
}

#[test]
fn a_role_that_nobody_may_assume_is_denied() {
    let check = async |folder: PathBuf| {
        let (_serving, server) = open().await;
        let config = format!(
            "[profile models]\nrole_arn = arn:aws:iam::123456789012:role/models\nsource_profile = base\nregion = eu-west-3\n\
             services = here\n\n[profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = base-secret\n\n\
             [services here]\nsts =\n  endpoint_url = {}\n",
            server.base()
        );
        std::fs::write(folder.join("config"), config).unwrap();
        let refused = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized to assume</Message></Error></ErrorResponse>";
        server.act(Act::Raw("403 Forbidden\r\ncontent-type: text/xml".to_owned(), refused.into()));
        let bedrock = Bedrock::builder().profile("models").load().await.unwrap();
        let error = bedrock.ready().await.unwrap_err();
        assert!(error.kind == ErrorKind::Denied && error.message.contains("not authorized to assume"), "{error}");
        assert!(!error.message.contains("base-secret"));
    };
    with_environment("a_role_that_nobody_may_assume_is_denied", &[], check);
}

#[test]
fn a_key_of_bedrock_may_stand_in_the_environment() {
    let check = async |_: PathBuf| {
        let (_serving, server) = open().await;
        let bedrock = Bedrock::builder().endpoint_url(server.base()).load().await.unwrap();
        bedrock.ready().await.unwrap();
        ask(&server, &bedrock).await;
        assert_eq!(server.last().header("authorization"), Some("Bearer bedrock-api-key-QUJD"));
        // The key of the environment goes nowhere else either.
        let endpoint = Endpoint::new("m", "0e4c1d0a-0000-4000-8000-000000000001").url(Some("https://models.attacker.example"));
        let error = bedrock.invoke(&endpoint, &ModelRequest::ask("hi")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
    };
    let variables = [("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-QUJD"), ("AWS_REGION", "eu-central-1")];
    with_environment("a_key_of_bedrock_may_stand_in_the_environment", &variables, check);
}

#[test]
fn a_program_may_give_the_credentials() {
    let check = async |folder: PathBuf| {
        let (_serving, server) = open().await;
        let keys = r#"{"Version": 1, "AccessKeyId": "AKIDPROGRAM", "SecretAccessKey": "program-secret"}"#;
        std::fs::write(folder.join("keys.json"), keys).unwrap();
        let config = format!("[default]\ncredential_process = cat {}/keys.json\n", folder.display());
        std::fs::write(folder.join("config"), config).unwrap();
        let bedrock = Bedrock::builder().endpoint_url(server.base()).load().await.unwrap();
        ask(&server, &bedrock).await;
        assert!(server.last().header("authorization").unwrap().contains("Credential=AKIDPROGRAM/"));
    };
    with_environment("a_program_may_give_the_credentials", &[("AWS_REGION", "eu-central-1")], check);
}

#[test]
fn what_is_missing_in_the_environment_is_said() {
    let check = async |_: PathBuf| {
        let bedrock = Bedrock::load().await.unwrap();
        let endpoint = Endpoint::new("m", "0e4c1d0a-0000-4000-8000-000000000001");
        for error in
            [bedrock.ready().await.unwrap_err(), bedrock.invoke(&endpoint, &ModelRequest::ask("hi")).await.unwrap_err()]
        {
            assert!(error.kind == ErrorKind::Denied && error.message.contains("AWS_REGION"), "{error}");
        }
        let bedrock = Bedrock::builder().region("eu-central-1").load().await.unwrap();
        let error = bedrock.ready().await.unwrap_err();
        assert!(error.kind == ErrorKind::Denied && error.message.contains("AWS_ACCESS_KEY_ID"), "{error}");
    };
    with_environment("what_is_missing_in_the_environment_is_said", &[], check);
}
