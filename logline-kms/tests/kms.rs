//! Against a server that plays AWS KMS. `cargo xtask interop` starts one (moto) and names it in `LOGLINE_KMS_URL`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;

use aws_credential_types::Credentials;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::{BehaviorVersion, Region};
use logline_core::contract::{DataKey, Destruction, KeyError, KeyProvider as _};
use logline_kms::KmsKeys;
use logline_memory::envelope::Place;
use logline_memory::{Sealed, Vault, VaultError};
use logline_sqlite::SqliteKeys;
use uuid::Uuid;

fn client() -> Client {
    client_of(&std::env::var("LOGLINE_KMS_URL").expect("LOGLINE_KMS_URL names no server: run `cargo xtask interop`"))
}

fn client_of(url: &str) -> Client {
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::from_keys("test", "test", None))
        .endpoint_url(url)
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// Keys that no other test uses.
fn keys() -> KmsKeys {
    let name: u128 = DataKey::random().unwrap().reveal().iter().fold(0, |name, byte| (name << 7) ^ u128::from(*byte));
    KmsKeys::new(client()).prefix(&format!("test-{name:x}")).unwrap()
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

#[test]
#[ignore = "needs a server that plays AWS KMS: cargo xtask interop runs it"]
fn a_wrapped_key_opens_with_its_tenant_epoch_and_context_only() {
    block_on(async {
        let keys = keys();
        for epoch in [1, 2] {
            keys.open_epoch("acme", epoch).await.unwrap();
            keys.open_epoch("globex", epoch).await.unwrap();
        }
        let key = DataKey::random().unwrap();
        let wrapped = keys.wrap("acme", 1, "subject:1", &key).await.unwrap();
        assert!(!wrapped.windows(32).any(|window| window == key.reveal()));
        assert_eq!(keys.unwrap("acme", 1, "subject:1", &wrapped).await.unwrap().reveal(), key.reveal());
        let mut flipped = wrapped.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for (tenant, epoch, context, wrapped) in [
            ("acme", 1, "subject:2", &wrapped),
            ("acme", 2, "subject:1", &wrapped),
            ("globex", 1, "subject:1", &wrapped),
            ("acme", 1, "subject:1", &flipped),
            ("acme", 1, "subject:1", &wrapped[..20].to_vec()),
        ] {
            let opened = keys.unwrap(tenant, epoch, context, wrapped).await;
            assert_eq!(opened.map(drop), Err(KeyError::NotOpened), "{tenant} {epoch} {context}");
        }
    });
}

#[test]
#[ignore = "needs a server that plays AWS KMS: cargo xtask interop runs it"]
fn a_destroyed_epoch_opens_nothing_and_never_comes_back() {
    block_on(async {
        let keys = keys().waiting_days(9);
        let acme = |epoch| KeyError::Destroyed { tenant: "acme".to_owned(), epoch };
        keys.open_epoch("acme", 1).await.unwrap();
        let key = DataKey::random().unwrap();
        let wrapped = keys.wrap("acme", 1, "x", &key).await.unwrap();
        assert!(matches!(keys.destroy_epoch("acme", 1).await, Err(KeyError::Refused { .. })), "the newest one goes on");
        keys.open_epoch("acme", 2).await.unwrap();
        let Destruction::At(first) = keys.destroy_epoch("acme", 1).await.unwrap() else { panic!("AWS waits") };
        let in_days = first.since(logline_core::Clock::now(&logline_core::SystemClock)).as_secs() / 86_400;
        assert!((8..=9).contains(&in_days), "{in_days}");
        assert_eq!(keys.destroy_epoch("acme", 1).await.unwrap(), Destruction::At(first), "the call may be repeated");
        // That AWS refuses to use a key which waits for its deletion, moto does not play: it encrypts and decrypts as before.
        assert_eq!(keys.open_epoch("acme", 1).await, Err(acme(1)));
        assert_eq!(keys.open_epoch("acme", 2).await, Ok(()));
        // Nor is it opened when it was never there, and a later one was.
        keys.open_epoch("globex", 5).await.unwrap();
        assert!(matches!(keys.open_epoch("globex", 4).await, Err(KeyError::Destroyed { .. })));
        assert!(matches!(keys.unwrap("globex", 7, "x", &wrapped).await, Err(KeyError::Missing { .. })));
    });
}

#[test]
#[ignore = "needs a server that plays AWS KMS: cargo xtask interop runs it"]
fn hosts_that_open_an_epoch_at_once_use_one_key() {
    block_on(async {
        let keys = keys();
        let opening: Vec<_> = (0..8)
            .map(|_| {
                let keys = keys.clone();
                tokio::spawn(async move { keys.open_epoch("acme", 1).await })
            })
            .collect();
        for opened in opening {
            // A host that was too late to remember the newest epoch is told to try again.
            let opened = opened.await.unwrap();
            assert!(matches!(opened, Ok(()) | Err(KeyError::Unavailable { .. })), "{opened:?}");
        }
        keys.open_epoch("acme", 1).await.unwrap();
        let key = DataKey::random().unwrap();
        let wrapped = keys.wrap("acme", 1, "x", &key).await.unwrap();
        assert_eq!(keys.clone().unwrap("acme", 1, "x", &wrapped).await.unwrap().reveal(), key.reveal());
    });
}

#[test]
#[ignore = "needs a server that plays AWS KMS: cargo xtask interop runs it"]
fn a_vault_forgets_with_it_and_says_when_the_old_key_is_gone() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::new(keys(), SqliteKeys::open(folder.path().join("keys.db")).unwrap());
        let place = Place { tenant: "acme", subject: "alice", span: Uuid::from_u128(1), field: "content" };
        let text = vault.seal(&place, b"the door code is 4711").await.unwrap();
        let sealed = [Sealed { span: place.span, field: place.field, envelope: &text }];
        assert_eq!(&vault.open("acme", "alice", &sealed).await.unwrap()[0].as_ref().unwrap()[..], b"the door code is 4711");
        let closed = vault.close_epoch("acme").await.unwrap();
        assert!(closed.newest == 2 && matches!(closed.destroyed, Destruction::At(_)), "{closed:?}");
        assert_eq!(&vault.open("acme", "alice", &sealed).await.unwrap()[0].as_ref().unwrap()[..], b"the door code is 4711");
        let others = Place { subject: "bob", ..place };
        vault.seal(&others, b"x").await.unwrap();
        assert!(matches!(vault.open("acme", "bob", &sealed).await.unwrap()[0], Err(VaultError::Erased)));
    });
}

#[test]
fn a_service_that_is_away_is_told_as_something_to_try_again() {
    block_on(async {
        // A port that nobody listens on.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let keys = KmsKeys::new(client_of(&format!("http://127.0.0.1:{port}")));
        assert!(matches!(keys.open_epoch("acme", 1).await, Err(KeyError::Unavailable { .. })));
        let key = DataKey::random().unwrap();
        assert!(matches!(keys.wrap("acme", 1, "x", &key).await, Err(KeyError::Unavailable { .. })));
        for prefix in ["", "aws", "a/b", "ä"] {
            assert!(matches!(keys.clone().prefix(prefix), Err(KeyError::Refused { .. })), "{prefix}");
        }
    });
}

/// A server that describes every key as being in `state`, and answers every other call with this error.
fn refusing(state: &'static str, status: u16, error: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut length, mut describes) = (0, false);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                    break;
                }
                let line = line.to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                describes |= line.contains("trentservice.describekey");
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            let metadata = format!(
                r#"{{"KeyMetadata":{{"KeyId":"k","KeyState":"{state}","Description":"LogLine, key of a tenant, epoch 2"}}}}"#
            );
            let (status, body) = match describes {
                true => (200, metadata),
                false => (status, format!(r#"{{"__type":"{error}","message":"no"}}"#)),
            };
            let head = format!("HTTP/1.1 {status} x\r\ncontent-type: application/x-amz-json-1.1\r\nconnection: close\r\n");
            let _ = write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len());
        }
    });
    url
}

#[test]
fn each_refusal_of_the_service_says_whether_a_retry_helps() {
    block_on(async {
        let key = DataKey::random().unwrap();
        let destroyed = |error: &KeyError| matches!(error, KeyError::Destroyed { tenant, epoch: 1 } if tenant == "acme");
        let away = |error: &KeyError| matches!(error, KeyError::Unavailable { .. });
        type Is<'a> = &'a dyn Fn(&KeyError) -> bool;
        let cases: [(&str, u16, &str, Is<'_>); 8] = [
            ("PendingDeletion", 400, "KMSInvalidStateException", &destroyed),
            ("Disabled", 400, "DisabledException", &away),
            ("Enabled", 400, "InvalidCiphertextException", &|error| *error == KeyError::NotOpened),
            ("Enabled", 400, "IncorrectKeyException", &|error| *error == KeyError::NotOpened),
            ("Enabled", 400, "ThrottlingException", &away),
            ("Enabled", 500, "KMSInternalException", &away),
            ("Enabled", 400, "AccessDeniedException", &|error| matches!(error, KeyError::Refused { .. })),
            ("Enabled", 400, "InvalidKeyUsageException", &|error| matches!(error, KeyError::Refused { .. })),
        ];
        for (state, status, error, is_right) in cases {
            let keys = KmsKeys::new(client_of(&refusing(state, status, error)));
            for told in [
                keys.unwrap("acme", 1, "x", b"wrapped").await.map(drop).unwrap_err(),
                keys.wrap("acme", 1, "x", &key).await.map(drop).unwrap_err(),
            ] {
                assert!(is_right(&told), "{error}: {told:?}");
            }
        }
        let keys = KmsKeys::new(client_of(&refusing("PendingDeletion", 400, "KMSInvalidStateException")));
        assert!(matches!(keys.open_epoch("acme", 1).await, Err(KeyError::Destroyed { .. })));
        // Without a date, it is not told as gone.
        assert!(matches!(keys.destroy_epoch("acme", 1).await, Ok(Destruction::At(_))));
    });
}
