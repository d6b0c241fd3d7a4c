//! Settings and exit statuses.

use testbed::{Port, Sidelog};

#[tokio::test]
async fn what_is_wrong_is_one_line_that_says_what_to_do() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let cases = [
        ("LOKI_URL", "localhost:3100", 2, "loki.url"),
        ("LOKI_URL", "http://me:s3cret@loki:3100/", 2, "loki.basic_auth"),
        ("NATS_URL", "http://x", 2, "nats.url"),
        ("NATS_MAX_AGE", "7 days", 2, "nats.max_age"),
        ("NATS_STORAGE_TYPE", "disk", 2, "nats.storage"),
        ("SIDELOG_LOKI__BATCH_WAITS", "1s", 2, "batch_wait"),
        ("SIDELOG_LOKI__CONCURRENCY", "many", 2, "loki.concurrency"),
        ("SIDELOG_SINK__KIND", "file", 2, "sink.path"),
        ("SIDELOG_CONFIG", "/nowhere/consumer.toml", 2, "/nowhere/consumer.toml"),
        ("SIDELOG_CONFIG_TOML", "[loki]\nurl = 5", 2, "loki.url"),
        (
            "SIDELOG_LOKI__BEARER_TOKEN_FILE",
            "/nowhere/token",
            1,
            "loki.bearer_token_file",
        ),
        ("SIDELOG_LOKI__TLS__CA_FILE", "/nowhere/ca.pem", 1, "loki.tls.ca_file"),
        ("SIDELOG_NATS__CREDS_FILE", "/nowhere/nats.creds", 1, "nats.creds_file"),
        ("SIDELOG_ADMIN__ADDRESS", &taken, 1, "admin.address"),
    ];
    for (variable, value, code, told) in cases {
        let finished = Sidelog::consumer().env(variable, value).finish().await;
        assert_eq!(finished.code, Some(code), "{variable}={value}: {}", finished.output);
        assert_eq!(
            finished.output.lines().count(),
            1,
            "{variable}={value}: {}",
            finished.output
        );
        assert!(
            finished.output.contains(told),
            "{variable}={value}: {}",
            finished.output
        );
        assert!(!finished.output.contains("s3cret"));
    }
}

#[tokio::test]
async fn the_printed_defaults_are_a_config_that_check_finds_good() {
    let printed = Sidelog::consumer().arg("defaults").finish().await;
    assert_eq!(printed.code, Some(0));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("consumer.toml");
    std::fs::write(&path, &printed.output).unwrap();
    let checked = Sidelog::consumer()
        .arg("check")
        .arg("--config")
        .arg(path.display())
        .finish()
        .await;
    assert_eq!(checked.code, Some(0), "{}", checked.output);
}

#[tokio::test]
async fn it_starts_with_no_file_at_all() {
    let nowhere = Port::reserve();
    let mut consumer = Sidelog::consumer()
        .env("NATS_URL", format!("nats://{}", nowhere.address()))
        .start()
        .await;
    assert!(consumer.is_running());
}
