//! A service that has its ledger in PostgreSQL and asks models of Bedrock and OpenAI speaks TLS with all of them from one process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests may"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use logline_bedrock::{Bedrock, Credentials};
use logline_core::contract::provider::{Endpoint, ModelRequest, Provider, Secret};
use logline_openai::OpenAi;
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Where the process that is tested finds the URL of its database.
const URL: &str = "LOGLINE_TLS_URL";

/// Where it finds the folder of the certificates.
const FOLDER: &str = "LOGLINE_TLS_FOLDER";

/// Nobody names a provider of cryptography for the process. If a crate of the build brought a second one, rustls would panic at the first
/// connection of whoever relies on the only one.
#[test]
fn postgres_and_the_providers_speak_tls_in_one_process() {
    if let (Ok(url), Ok(folder)) = (std::env::var(URL), std::env::var(FOLDER)) {
        return block_on(one_process(&url, Path::new(&folder)));
    }
    let folder = tempfile::tempdir().unwrap();
    let tls = certificates(folder.path());
    let server = PrivateServer::start(&ServerOptions { tls: Some(tls), ..ServerOptions::default() }).unwrap();
    // In a process of its own, because the machine's authorities are those that the environment names.
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["postgres_and_the_providers_speak_tls_in_one_process", "--exact", "--nocapture"])
        .env(URL, server.url("postgres", "postgres") + "?sslmode=verify-full")
        .env(FOLDER, folder.path())
        .env("SSL_CERT_FILE", folder.path().join("authority.pem"))
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed") && said.contains(DONE), "{said}");
}

/// Shows that the process did what it was started for.
const DONE: &str = "all three spoke TLS";

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// An authority, and a certificate of it for this machine.
fn certificates(folder: &Path) -> ServerTls {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "trial authority");
    let authority_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let tls = ServerTls { certificate: certificate.pem(), key: key.serialize_pem() };
    for (name, pem) in [("authority.pem", &root.pem()), ("server.pem", &tls.certificate), ("key.pem", &tls.key)] {
        std::fs::write(folder.join(name), pem).unwrap();
    }
    tls
}

async fn one_process(url: &str, folder: &Path) {
    assert!(CryptoProvider::get_default().is_none(), "the test must name none either");
    let options = PgOptions::new(url).unwrap();
    migrate(&options).await.unwrap();
    let _ledger = PgLedger::connect(options).await.unwrap();
    let mut connection = PgConnection::connect(url).await.unwrap();
    let is_tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(sqlx::query_scalar::<_, bool>(is_tls).fetch_one(&mut connection).await.unwrap());

    let models = models(folder).await;
    let keys = Credentials::new("AKIDTRIAL", "secret", None, None, "trial");
    let bedrock = Bedrock::builder().region("eu-central-1").credentials(keys).endpoint_url(&models).load().await.unwrap();
    let endpoint = Endpoint::new("trial-model", "0e4c1d0a-0000-4000-8000-000000000001");
    let question = ModelRequest::ask("hi");
    assert_eq!(bedrock.invoke(&endpoint, &question).await.unwrap().text(), "Bedrock");
    let secret = Secret::new("key".to_owned());
    let endpoint = endpoint.url(Some(&models)).secret(Some(&secret));
    assert_eq!(OpenAi::new().unwrap().invoke(&endpoint, &question).await.unwrap().text(), "OpenAI");
    // PostgreSQL after the others, too.
    assert!(sqlx::query_scalar::<_, bool>(is_tls).fetch_one(&mut connection).await.unwrap());
    eprintln!("{DONE}");
}

/// A server that answers as both providers do, over TLS. Returns its URL.
async fn models(folder: &Path) -> String {
    let read = |name: &str| -> PathBuf { folder.join(name) };
    let chain = vec![CertificateDer::from_pem_file(read("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(read("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let mut socket = acceptor.accept(socket).await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                socket.read_buf(&mut head).await.unwrap();
            }
            let body = match head.starts_with(b"POST /model/") {
                true => json!({
                    "output": {"message": {"role": "assistant", "content": [{"text": "Bedrock"}]}},
                    "stopReason": "end_turn",
                    "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
                    "metrics": {"latencyMs": 1},
                }),
                false => json!({"choices": [{"message": {"content": "OpenAI"}, "finish_reason": "stop"}]}),
            };
            let body = body.to_string();
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            socket.write_all((head + &body).as_bytes()).await.unwrap();
            let _ = socket.shutdown().await;
        }
    });
    url
}
