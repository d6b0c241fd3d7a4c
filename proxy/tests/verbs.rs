//! The admin endpoints that an operator asks for by hand, on the real binary.

use testbed::{NatsServer, Sidelog, Upstream, http, wait};

#[tokio::test]
async fn the_level_of_the_log_is_set_while_it_runs() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let proxy = Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("NATS_URL", nats.url())
        .env("SIDELOG_TRACES__ENABLED", "false")
        .start()
        .await;
    let set = async |level: &'static str| {
        let url = format!("{}/log-level", proxy.admin_url());
        let answer = http::client().put(url).body(level).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, advice) = set("loud").await;
    assert_eq!(status, 400);
    assert!(advice.contains("error, warn, info, debug or trace"), "{advice}");
    assert_eq!(set("error").await, (200, "error\n".to_owned()));
    assert!(!proxy.output().contains("the log's level is set"), "an error is more");
    assert_eq!(set("debug").await, (200, "debug\n".to_owned()));
    wait::until("a line at the new level", async || {
        proxy.output().contains("the log's level is set")
    })
    .await;
}

#[tokio::test]
async fn the_version_names_the_commit() {
    let finished = Sidelog::proxy().arg("--version").finish().await;
    let text = format!("{finished:?}");
    let start = concat!("sidelog-proxy ", env!("CARGO_PKG_VERSION"), " (");
    let (_, rest) = text.split_once(start).unwrap();
    let (commit, _) = rest.split_once(')').unwrap();
    assert!(
        !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        "{text}"
    );
}
