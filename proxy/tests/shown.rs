//! `GET /config`: the settings in force, which load again, and no secret in them.

#![allow(
    clippy::expect_used,
    reason = "a test stops at the first thing that is not as it needs it"
)]

use sidelog_chassis::settings::{Environment, load, shown};
use sidelog_proxy::settings::{PROGRAM, Settings};
use testbed::{Sidelog, Upstream, http};

const CANARY: &str = "CANARY";

fn loaded(variables: &[(&str, &str)]) -> Settings {
    let pairs = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(&PROGRAM, None, &pairs.collect::<Environment>()).expect("good settings")
}

fn again(text: &str) -> Settings {
    loaded(&[("SIDELOG_CONFIG_TOML", text)])
}

/// Something in every section, and in every kind of key.
const TEXT: &str = r#"
service = { name = "shop", version = "1.2", environment = "test" }
listeners = [
  { address = "127.0.0.1:0", upstream = "unix:/run/a.sock", trusted_proxies = ["10.0.0.0/8"], trace = "restart" },
  { address = "[::1]:0", direction = "outbound", upstream_protocol = "h2", upstream_tls = { server_name = "a" } },
]
capture = { slow = "1m30s", sample = 0.25, keep_bodies = "failed_or_slow", content_types = ["a/b"] }
redaction = { headers = ["x-internal-token"], json = ["password", "$.a[*].b"] }
limits = { header_max = "10000B" }
spool = { directory = "/var/lib/x", mode = "always" }
nats = { url = ["nats://a:4222", "tls://b:1"], token_file = "/run/token", storage = "memory" }
log = { format = "json" }

[[routes]]
path = "/users/{id}"
methods = ["get"]
host = "api.example.com"
capture = { slow = "2s", sample = 1, body_max = "1KiB", response_body = false }
redaction.enabled = true

[traces]
endpoint = "https://otel.example:4318/v1/traces"
protocol = "http/protobuf"
resource = { "cloud.region" = "eu" }
"#;

#[test]
fn what_is_shown_loads_again_as_the_same_settings() {
    for settings in [Settings::default(), again(TEXT)] {
        let text = shown::shown(&settings).unwrap();
        assert_eq!(again(&text), settings, "{text}");
    }
    let routes = again(TEXT).routes;
    assert_eq!(routes.len(), 1, "there is one");
}

#[test]
fn what_a_variable_set_is_shown() {
    let text = shown::shown(&loaded(&[("PORT", "4001"), ("SIDELOG_CAPTURE__SLOW", "3s")])).unwrap();
    assert!(
        text.contains("address = \"0.0.0.0:4001\"") && text.contains("slow = \"3s\""),
        "{text}"
    );
}

#[test]
fn no_secret_is_shown_whatever_key_it_stands_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, format!("{CANARY}\n")).unwrap();
    let file = file.to_str().unwrap();
    for secret in [
        (
            "NATS_URL",
            "nats://CANARY:CANARY@127.0.0.1:4222,nats://CANARY:CANARY@127.0.0.1:4223",
        ),
        ("SIDELOG_NATS__TOKEN_FILE", file),
        ("SIDELOG_NATS__NKEY_FILE", file),
        ("SIDELOG_NATS__CREDS_FILE", file),
        ("SIDELOG_TRACES__HEADERS", "api-key=CANARY,x=CANARY"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=CANARY"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Bearer%20CANARY"),
        ("SIDELOG_TRACES__HEADERS_FILE", file),
        ("JAEGER_URL", "https://otel.example:4318/v1/traces?token=CANARY"),
        ("OTEL_RESOURCE_ATTRIBUTES", "api.token=CANARY,db.password=CANARY"),
    ] {
        let settings = loaded(&[secret]);
        assert_ne!(settings, Settings::default(), "{secret:?}");
        let text = shown::shown(&settings).unwrap();
        assert!(!text.contains(CANARY), "{secret:?}: {text}");
        assert!(
            text.contains("= \"") && text.contains(if secret.1 == file { file } else { "***" }),
            "{text}"
        );
        again(&text);
    }
    let both = [("SIDELOG_NATS__USER", "me"), ("SIDELOG_NATS__PASSWORD_FILE", file)];
    let text = shown::shown(&loaded(&both)).unwrap();
    assert!(text.contains("user = \"me\"") && !text.contains(CANARY), "{text}");
}

#[tokio::test]
async fn a_running_proxy_shows_its_settings() {
    let upstream = Upstream::start();
    let proxy = Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("SERVICE_NAME", "shop")
        .env("NATS_URL", "nats://me:CANARY@127.0.0.1:1")
        .env("SIDELOG_TRACES__HEADERS", "api-key=CANARY")
        .start()
        .await;
    let answer = http::client()
        .get(format!("{}/config", proxy.admin_url()))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], "application/toml; charset=utf-8");
    let text = answer.text().await.unwrap();
    assert!(!text.contains(CANARY), "{text}");
    let settings = again(&text);
    assert_eq!(settings.service.name, "shop");
    assert_eq!(
        settings.listeners[0].upstream.as_ref().unwrap().to_string(),
        upstream.url()
    );
}
