//! The admin endpoints that an operator asks for by hand.

#![allow(
    clippy::expect_used,
    reason = "a test stops at the first thing that is not as it needs it"
)]

use sidelog_chassis::settings::{Environment, load, shown};
use sidelog_consumer::settings::{PROGRAM, Settings};
use testbed::{NatsServer, Sidelog, http, wait};

const CANARY: &str = "CANARY";

fn loaded(variables: &[(&str, &str)]) -> Settings {
    let pairs = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(&PROGRAM, None, &pairs.collect::<Environment>()).expect("good settings")
}

#[tokio::test]
async fn sighup_changes_nothing_and_the_log_says_what_would() {
    let nats = NatsServer::start().await;
    let mut consumer = Sidelog::consumer().env("NATS_URL", nats.url()).start().await;
    consumer.hang_up();
    wait::until("the log says so", async || {
        consumer.output().contains("restart to apply changed ones")
    })
    .await;
    assert!(consumer.is_running());
    assert_eq!(consumer.metric("sidelog_nats_connected", "").await, 1.0);
}

#[test]
fn the_settings_that_are_shown_load_again_and_hold_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, CANARY).unwrap();
    let file = file.to_str().unwrap();
    for settings in [
        Settings::default(),
        loaded(&[("SIDELOG_LOKI__TENANT", "a"), ("SIDELOG_LOKI__BEARER_TOKEN_FILE", file)]),
        loaded(&[
            ("SIDELOG_LOKI__BASIC_AUTH__USER", "me"),
            ("SIDELOG_LOKI__BASIC_AUTH__PASSWORD_FILE", file),
            ("SIDELOG_SINK__KIND", "file"),
            ("SIDELOG_SINK__PATH", "/var/log/records"),
        ]),
    ] {
        let text = shown::shown(&settings).unwrap();
        assert!(!text.contains(CANARY), "{text}");
        assert_eq!(loaded(&[("SIDELOG_CONFIG_TOML", &text)]), settings, "{text}");
    }
    for secret in [
        ("LOKI_URL", "https://logs.example/push?token=CANARY"),
        ("NATS_URL", "nats://me:CANARY@127.0.0.1:4222"),
    ] {
        let text = shown::shown(&loaded(&[secret])).unwrap();
        assert!(text.contains("***") && !text.contains(CANARY), "{text}");
        loaded(&[("SIDELOG_CONFIG_TOML", &text)]);
    }
}

#[tokio::test]
async fn a_running_consumer_shows_its_settings() {
    let consumer = Sidelog::consumer()
        .env("NATS_URL", "nats://me:CANARY@127.0.0.1:1")
        .env("SIDELOG_SINK__KIND", "stdout")
        .start()
        .await;
    let url = format!("{}/config", consumer.admin_url());
    let text = http::client().get(url).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("kind = \"stdout\"") && !text.contains(CANARY), "{text}");
}

#[tokio::test]
async fn the_level_of_the_log_is_set_while_it_runs() {
    let nats = NatsServer::start().await;
    let consumer = Sidelog::consumer()
        .env("NATS_URL", nats.url())
        .env("SIDELOG_SINK__KIND", "stdout")
        .start()
        .await;
    let set = async |level: &'static str| {
        let url = format!("{}/log-level", consumer.admin_url());
        let answer = http::client().put(url).body(level).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, advice) = set("loud").await;
    assert_eq!(status, 400);
    assert!(advice.contains("error, warn, info, debug or trace"), "{advice}");
    assert_eq!(set("error").await, (200, "error\n".to_owned()));
    assert!(
        !consumer.output().contains("the log's level is set"),
        "an error is more"
    );
    assert_eq!(set("debug").await, (200, "debug\n".to_owned()));
    wait::until("a line at the new level", async || {
        consumer.output().contains("the log's level is set")
    })
    .await;
}

#[tokio::test]
async fn the_version_names_the_commit() {
    let finished = Sidelog::consumer().arg("--version").finish().await;
    let text = format!("{finished:?}");
    let start = concat!("sidelog-consumer ", env!("CARGO_PKG_VERSION"), " (");
    let (_, rest) = text.split_once(start).unwrap();
    let (commit, _) = rest.split_once(')').unwrap();
    assert!(
        !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        "{text}"
    );
}
