//! The users of `config/nats/nats.conf` may do what their programs need, and nothing else; and both programs work over TLS
//! with certificates of both sides and an NKey.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::time::Duration;

use futures_util::StreamExt;
use testbed::{Authority, LokiDouble, NatsServer, Sidelog, SidelogCommand, Upstream, http, wait};

/// The part of the file that says who may do what, with the users' names for passwords.
fn users() -> String {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/nats/nats.conf")).unwrap();
    let (_, users) = file.split_once("\nno_auth_user").unwrap();
    format!("no_auth_user{users}")
        .replace("$NATS_PROXY_PASSWORD", "proxy")
        .replace("$NATS_CONSUMER_PASSWORD", "consumer")
        .replace("$NATS_OPERATOR_PASSWORD", "operator")
}

fn url_of(user: &str, nats: &NatsServer) -> String {
    nats.url().replace("nats://", &format!("nats://{user}:{user}@"))
}

fn proxy(upstream: &Upstream) -> SidelogCommand {
    Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("SIDELOG_TRACES__ENABLED", "false")
}

fn consumer(loki: &LokiDouble) -> SidelogCommand {
    Sidelog::consumer()
        .env("LOKI_URL", loki.push_url())
        .env("SIDELOG_NATS__STREAM_MAX_BYTES", "64MiB")
        .env("SIDELOG_DEAD_LETTER__MAX_BYTES", "64MiB")
        .env("SIDELOG_LOKI__BATCH_WAIT", "50ms")
}

#[tokio::test]
async fn both_programs_work_with_the_least_they_may_do() {
    let nats = NatsServer::with_config(&users()).await;
    let (upstream, loki) = (Upstream::start(), LokiDouble::start());
    // The proxy comes first, and may not make the stream.
    let proxy = proxy(&upstream).env("NATS_URL", url_of("proxy", &nats)).start().await;
    assert_eq!(http::client().get(proxy.url()).send().await.unwrap().status(), 200);
    wait::until("the server refuses the stream", async || {
        nats.output().contains("$JS.API.STREAM.CREATE.logs")
    })
    .await;
    let consumer = consumer(&loki).env("NATS_URL", url_of("consumer", &nats)).start().await;
    loki.stores(1).await;
    for program in [&proxy, &consumer] {
        let output = program.output();
        assert!(!output.contains("WARN") && !output.contains("ERROR"), "{output}");
    }
    let told = proxy.output();
    let creations = told.lines().filter(|line| line.contains("create"));
    assert!(creations.count() <= 1, "{told}");
    let refused = nats.output();
    let others: Vec<_> = refused
        .lines()
        .filter(|line| line.contains("Permissions Violation") && !line.contains("STREAM.CREATE.logs"))
        .collect();
    assert_eq!(others, Vec::<&str>::new());
}

#[tokio::test]
async fn what_the_store_refuses_is_set_aside_and_an_operator_sends_it_again() {
    let nats = NatsServer::with_config(&users()).await;
    let (upstream, loki) = (Upstream::start(), LokiDouble::start());
    loki.refuse(|_| Some("entry for stream '{}' has timestamp too new: 2099-01-01T00:00:00Z".to_owned()));
    let proxy = proxy(&upstream).env("NATS_URL", url_of("proxy", &nats)).start().await;
    let consumer = consumer(&loki).env("NATS_URL", url_of("consumer", &nats)).start().await;
    assert_eq!(http::client().get(proxy.url()).send().await.unwrap().status(), 200);
    wait::until("the record is a dead letter", async || {
        consumer.metric("sidelog_dead_letters_total", "").await >= 1.0
    })
    .await;
    loki.refuse(|_| None);
    let resent = Sidelog::consumer()
        .env("NATS_URL", url_of("operator", &nats))
        .arg("dead-letters")
        .arg("resend")
        .finish()
        .await;
    assert_eq!(resent.code, Some(0), "{}", resent.output);
    loki.stores(1).await;
}

#[tokio::test]
async fn a_consumer_that_may_not_fetch_tells_how_old_what_it_misses_is() {
    let fetch = "\"$JS.API.CONSUMER.MSG.NEXT.logs.sidelog-consumer\", ";
    let without = users().replace(fetch, "");
    assert_ne!(without, users());
    let nats = NatsServer::with_config(&without).await;
    let (upstream, loki) = (Upstream::start(), LokiDouble::start());
    let proxy = proxy(&upstream).env("NATS_URL", url_of("proxy", &nats)).start().await;
    let consumer = consumer(&loki).env("NATS_URL", url_of("consumer", &nats)).start().await;
    assert_eq!(http::client().get(proxy.url()).send().await.unwrap().status(), 200);
    wait::until("the lag has an age", async || {
        consumer.metric("sidelog_consumer_unread_messages", "").await == 1.0
            && consumer.metric("sidelog_consumer_lag_age_seconds", "").await > 0.0
    })
    .await;
}

#[tokio::test]
async fn nobody_may_do_what_is_another_s() {
    let nats = NatsServer::with_config(&users()).await;
    for (user, may_not_publish, may_not_subscribe) in [
        ("proxy", "logs_dead.api", "logs.>"),
        ("proxy", "$JS.API.STREAM.CREATE.logs", "logs_dead.>"),
        ("proxy", "$JS.API.STREAM.DELETE.logs", "$JS.>"),
        ("proxy", "$JS.API.CONSUMER.CREATE.logs.mine", ">"),
        ("consumer", "logs.api", "logs.>"),
        ("consumer", "$JS.API.STREAM.DELETE.logs", "$JS.>"),
        ("consumer", "$JS.API.STREAM.PURGE.logs", ">"),
        ("operator", "other.subject", "logs.>"),
    ] {
        let (told, mut errors) = tokio::sync::mpsc::channel(8);
        let client = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), user.to_owned())
            .event_callback(move |event| {
                let told = told.clone();
                async move { told.send(event.to_string()).await.unwrap() }
            })
            .connect(nats.url())
            .await
            .unwrap();
        client.publish(may_not_publish, "x".into()).await.unwrap();
        let mut read = client.subscribe(may_not_subscribe).await.unwrap();
        client.flush().await.unwrap();
        let mut refused = Vec::new();
        while refused.len() < 2 {
            let event = tokio::time::timeout(Duration::from_secs(10), errors.recv())
                .await
                .unwrap()
                .unwrap();
            if event.to_lowercase().contains("permissions violation") {
                refused.push(event);
            }
        }
        drop(tokio::time::timeout(Duration::from_millis(1), read.next()).await);
    }
}

#[tokio::test]
async fn both_programs_show_a_certificate_and_sign_in_by_an_nkey() {
    let authority = Authority::new();
    let server = authority.sign("server", &["127.0.0.1", "localhost"]);
    let client = authority.sign("client", &["sidelog"]);
    let user = nkeys::KeyPair::new_user();
    let nats = NatsServer::with_config(&format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}\nauthorization {{ users: [{{ nkey: {} }}] }}",
        server.cert.display(),
        server.key.display(),
        authority.ca().display(),
        user.public_key(),
    ))
    .await;
    let seed = authority.folder().join("user.nk");
    std::fs::write(&seed, user.seed().unwrap()).unwrap();
    let signed_in = |command: SidelogCommand| {
        command
            .env("NATS_URL", nats.url().replace("nats://", "tls://"))
            .env("SIDELOG_NATS__TLS__CA_FILE", authority.ca().display())
            .env("SIDELOG_NATS__TLS__CERT_FILE", client.cert.display())
            .env("SIDELOG_NATS__TLS__KEY_FILE", client.key.display())
            .env("SIDELOG_NATS__NKEY_FILE", seed.display())
    };
    let (upstream, loki) = (Upstream::start(), LokiDouble::start());
    let proxy = signed_in(proxy(&upstream)).start().await;
    let consumer = signed_in(consumer(&loki)).start().await;
    assert_eq!(http::client().get(proxy.url()).send().await.unwrap().status(), 200);
    loki.stores(1).await;
    assert!(!consumer.output().contains("ERROR"), "{}", consumer.output());
}
