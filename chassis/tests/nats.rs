//! The connection and the stream, on a real nats-server.

#![expect(clippy::expect_used, reason = "a test stops where something is not as it needs it")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType as Storage};
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair as Nkey;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use sidelog_chassis::nats::{Connection, NatsSettings, StorageType, StreamError, TlsSettings, connect, ensure_stream};
use sidelog_chassis::settings::ByteSize;
use testbed::NatsServer;
use tokio::time::timeout;

/// Long enough for a busy machine, short enough to be seen.
const PATIENCE: Duration = Duration::from_secs(30);

fn at(url: &str) -> NatsSettings {
    NatsSettings {
        url: url.parse().expect("a URL"),
        ..NatsSettings::default()
    }
}

async fn begin(settings: &NatsSettings) -> Connection {
    connect(settings, "test").await.expect("a connection begins")
}

async fn connected(settings: &NatsSettings) -> Connection {
    let mut connection = begin(settings).await;
    timeout(PATIENCE, connection.connected())
        .await
        .expect("connected in time");
    connection
}

#[tokio::test]
async fn a_program_starts_without_a_server_and_connects_when_there_is_one() {
    let mut server = NatsServer::start().await;
    server.stop().await;
    let mut connection = begin(&at(&server.url())).await;
    assert!(!connection.is_connected());
    server.restart().await;
    timeout(PATIENCE, connection.connected())
        .await
        .expect("connected in time");
    server.kill();
    timeout(PATIENCE, connection.disconnected())
        .await
        .expect("disconnected in time");
    server.restart().await;
    timeout(PATIENCE, connection.connected())
        .await
        .expect("connected again in time");
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed() {
    let mut server = NatsServer::start().await;
    let mut connection = connected(&at(&server.url())).await;
    server.freeze();
    timeout(Duration::from_secs(20), connection.disconnected())
        .await
        .expect("noticed in time");
    server.thaw();
    timeout(PATIENCE, connection.connected())
        .await
        .expect("connected again in time");
}

#[tokio::test]
async fn the_next_server_of_a_list_is_taken() {
    let (mut gone, server) = (NatsServer::start().await, NatsServer::start().await);
    gone.kill();
    let connection = connected(&at(&format!("{},{}", gone.url(), server.url()))).await;
    assert!(connection.is_connected());
}

#[tokio::test]
async fn credentials_are_taken_from_the_url_and_from_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| -> Option<PathBuf> {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        Some(path)
    };
    let by_password = NatsServer::with_config("authorization { user: bob, password: \"s3cr@t\" }").await;
    let by_token = NatsServer::with_config("authorization { token: t0ken }").await;
    let in_url = |server: &NatsServer, credentials: &str| {
        at(&server.url().replace("nats://", &format!("nats://{credentials}@")))
    };
    for settings in [
        in_url(&by_password, "bob:s3cr%40t"),
        NatsSettings {
            user: Some("bob".to_owned()),
            password_file: file("password", "s3cr@t\n"),
            ..at(&by_password.url())
        },
        in_url(&by_token, "t0ken"),
        NatsSettings {
            token_file: file("token", "t0ken\n"),
            ..at(&by_token.url())
        },
    ] {
        assert!(connected(&settings).await.is_connected(), "{settings:?}");
    }
    let mut refused = begin(&in_url(&by_password, "bob:wrong")).await;
    timeout(Duration::from_secs(2), refused.connected())
        .await
        .expect_err("wrong credentials");
}

#[tokio::test]
async fn credentials_that_come_later_are_waited_for_and_those_that_change_are_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    let mut server = NatsServer::with_config("authorization { token: first }").await;
    let strict = NatsSettings {
        token_file: Some(file.clone()),
        ..at(&server.url())
    };
    let told = connect(&strict, "test").await.expect_err("no file");
    assert!(format!("{told:#}").contains("(nats.token_file)"), "{told:#}");

    let patient = NatsSettings {
        wait_for_files: true,
        ..strict
    };
    let mut connection = begin(&patient).await;
    timeout(Duration::from_secs(1), connection.connected())
        .await
        .expect_err("nobody told the token");
    std::fs::write(&file, "first\n").expect("a file");
    timeout(PATIENCE, connection.connected())
        .await
        .expect("the file is read when it is there");

    std::fs::write(&file, "second\n").expect("a file");
    server.kill();
    connection.disconnected().await;
    server.configure("authorization { token: second }");
    server.restart().await;
    timeout(PATIENCE, connection.connected())
        .await
        .expect("the file is read again");
}

/// What `nsc` would make: an operator, an account and a user of it; the server's configuration and the user's credentials.
fn decentralized() -> (String, String) {
    let (operator, account, user) = (Nkey::new_operator(), Nkey::new_account(), Nkey::new_user());
    let of_operator = jwt(&operator, &operator, json!({ "type": "operator", "version": 2 }));
    let unlimited = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1 });
    let claims = json!({ "type": "account", "version": 2, "limits": unlimited });
    let of_account = jwt(&operator, &account, claims);
    let claims = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
    let of_user = jwt(&account, &user, claims);
    let config = format!(
        "jetstream: false\noperator: {of_operator}\nresolver: MEMORY\nresolver_preload: {{ {}: {of_account} }}",
        account.public_key()
    );
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n\
         ************************* IMPORTANT *************************\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().expect("a seed")
    );
    (config, creds)
}

/// A JWT of NATS about `subject`, signed by `issuer`.
fn jwt(issuer: &Nkey, subject: &Nkey, nats: Value) -> String {
    let claims = json!({ "jti": "x", "iat": 1, "iss": issuer.public_key(), "sub": subject.public_key(), "nats": nats });
    let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let head = encode(json!({ "typ": "JWT", "alg": "ed25519-nkey" }).to_string().as_bytes());
    let signed = format!("{head}.{}", encode(claims.to_string().as_bytes()));
    let signature = issuer.sign(signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", encode(&signature))
}

#[tokio::test]
async fn a_credentials_file_tells_who_we_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, creds) = decentralized();
    let server = NatsServer::with_config(&config).await;
    let file = folder.path().join("nats.creds");
    std::fs::write(&file, creds).expect("a file");
    let settings = NatsSettings {
        creds_file: Some(file),
        ..at(&server.url())
    };
    assert!(connected(&settings).await.is_connected());
}

/// Writes `ca.pem`, and for `server` and `client` a certificate and its key.
fn write_certificates(folder: &Path) {
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("a file");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("ca.pem", params.self_signed(&key).expect("a certificate").pem());
    let issuer = Issuer::new(params, key);
    for name in ["server", "client"] {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
        write(
            &format!("{name}.pem"),
            params.signed_by(&key, &issuer).expect("a certificate").pem(),
        );
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

#[tokio::test]
async fn tls_checks_the_server_and_shows_the_clients_certificate() {
    sidelog_chassis::install_crypto_provider();
    let folder = tempfile::tempdir().expect("a folder");
    write_certificates(folder.path());
    let file = |name: &str| Some(folder.path().join(name));
    let shown = folder.path().display();
    let server = NatsServer::with_config(&format!(
        "tls {{ cert_file: \"{shown}/server.pem\", key_file: \"{shown}/server.key\", ca_file: \"{shown}/ca.pem\", verify: true }}"
    ))
    .await;
    let mutual = TlsSettings {
        ca_file: file("ca.pem"),
        cert_file: file("client.pem"),
        key_file: file("client.key"),
        required: true,
    };
    let with = |tls: &TlsSettings| NatsSettings {
        tls: tls.clone(),
        ..at(&server.url())
    };
    assert!(connected(&with(&mutual)).await.is_connected());

    let anonymous = TlsSettings {
        cert_file: None,
        key_file: None,
        ..mutual.clone()
    };
    let other_ca = TlsSettings {
        ca_file: file("client.pem"),
        ..mutual
    };
    for refused in [with(&anonymous), with(&other_ca)] {
        let mut connection = begin(&refused).await;
        timeout(Duration::from_secs(2), connection.connected())
            .await
            .expect_err("not trusted");
    }
}

#[tokio::test]
async fn a_missing_stream_is_created_as_set() {
    let server = NatsServer::start().await;
    let settings = NatsSettings {
        stream_max_bytes: ByteSize::mib(64),
        max_age: Duration::from_secs(120),
        storage: StorageType::Memory,
        ..at(&server.url())
    };
    let connection = connected(&settings).await;
    let created = ensure_stream(&connection, &settings).await.expect("a stream").config;
    assert_eq!(
        (created.name.as_str(), created.subjects.as_slice()),
        ("logs", &["logs.>".to_owned()][..])
    );
    assert_eq!(
        (created.storage, created.discard),
        (Storage::Memory, DiscardPolicy::Old)
    );
    assert_eq!(created.max_age, Duration::from_secs(120));
    assert_eq!(created.duplicate_window, Duration::from_secs(120));
    assert_eq!(created.max_bytes, 64 << 20);
    let again = ensure_stream(&connection, &settings)
        .await
        .expect("the same stream")
        .config;
    assert_eq!(again, created);
}

/// A server with so much room for files.
async fn with_room(room: &str) -> (tempfile::TempDir, NatsServer) {
    let store = tempfile::tempdir().expect("a folder");
    let config = format!("jetstream {{ store_dir: {:?}, max_file_store: {room} }}", store.path());
    (store, NatsServer::with_config(&config).await)
}

#[tokio::test]
async fn the_stream_is_as_large_as_the_server_can_reserve() {
    let (_store, server) = with_room("1500MB").await;
    let settings = at(&server.url());
    let connection = connected(&settings).await;
    let created = ensure_stream(&connection, &settings)
        .await
        .expect("a smaller stream")
        .config;
    assert_eq!(created.max_bytes, 1 << 30);
}

#[tokio::test]
async fn a_server_without_room_says_so() {
    let (_store, server) = with_room("8MB").await;
    let settings = at(&server.url());
    let connection = connected(&settings).await;
    let error = ensure_stream(&connection, &settings).await.expect_err("no room");
    assert!(matches!(error, StreamError::NoRoom { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("can't reserve 16MiB for stream \"logs\" (nats.stream_max_bytes)"),
        "{error}"
    );
}

#[tokio::test]
async fn a_stream_on_more_servers_than_there_are_says_so() {
    let server = NatsServer::start().await;
    let settings = NatsSettings {
        stream_replicas: 3,
        ..at(&server.url())
    };
    let connection = connected(&settings).await;
    let error = ensure_stream(&connection, &settings)
        .await
        .expect_err("one server can't keep three copies");
    assert!(matches!(error, StreamError::NoReplicas { replicas: 3, .. }), "{error}");
    assert!(error.to_string().contains("nats.stream_replicas"), "{error}");
}

#[tokio::test]
async fn an_existing_stream_is_used_as_it_is() {
    let server = NatsServer::start().await;
    let settings = at(&server.url());
    let connection = connected(&settings).await;
    let made = Config {
        name: "logs".to_owned(),
        subjects: vec!["logs.>".to_owned()],
        max_messages: 5,
        max_age: Duration::from_secs(60),
        ..Config::default()
    };
    let made = jetstream::new(connection.client.clone())
        .create_stream(made)
        .await
        .expect("a stream")
        .cached_info()
        .config
        .clone();
    let used = ensure_stream(&connection, &settings).await.expect("the stream").config;
    assert_eq!(used, made);
}

#[tokio::test]
async fn many_programs_that_start_at_once_agree_on_one_stream() {
    let server = NatsServer::start().await;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..8_u64 {
        let settings = NatsSettings {
            stream_max_bytes: ByteSize::mib(64 + index),
            ..at(&server.url())
        };
        tasks.spawn(async move { ensure_stream(&connected(&settings).await, &settings).await });
    }
    let outcomes = tasks.join_all().await;
    let sizes: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| outcome.expect("the stream").config.max_bytes)
        .collect();
    assert!(sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}");
}

#[tokio::test]
async fn a_denied_stream_is_told_from_every_other_trouble_and_at_once() {
    let config = "authorization { users = [ { user: bob, password: x, permissions: { publish: { deny: \"$JS.API.STREAM.>\" } } } ] }";
    let server = NatsServer::with_config(config).await;
    let settings = at(&server.url().replace("nats://", "nats://bob:x@"));
    let connection = connected(&settings).await;
    for _ in 0..2 {
        let asked = timeout(Duration::from_secs(4), ensure_stream(&connection, &settings));
        let error = asked.await.expect("an answer at once").expect_err("denied");
        assert!(matches!(error, StreamError::Denied { .. }), "{error}");
        assert!(error.to_string().contains("$JS.API.STREAM.INFO.logs"), "{error}");
    }
}

#[tokio::test]
async fn a_server_without_jetstream_and_a_clash_of_subjects_say_so() {
    let config = "accounts { A: { users: [ { user: bob, password: x } ] } }";
    let server = NatsServer::with_config(config).await;
    let settings = at(&server.url().replace("nats://", "nats://bob:x@"));
    let error = ensure_stream(&connected(&settings).await, &settings)
        .await
        .expect_err("no JetStream");
    assert!(matches!(error, StreamError::NoJetStream), "{error}");

    let server = NatsServer::start().await;
    let settings = NatsSettings {
        stream_max_bytes: ByteSize::mib(16),
        ..at(&server.url())
    };
    let connection = connected(&settings).await;
    ensure_stream(&connection, &settings).await.expect("a stream");
    let other = NatsSettings {
        stream: "other".to_owned(),
        ..settings
    };
    let error = ensure_stream(&connection, &other)
        .await
        .expect_err("the subject is taken");
    assert!(matches!(error, StreamError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("subjects overlap"), "{error}");
}
