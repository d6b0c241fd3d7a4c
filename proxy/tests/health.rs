//! What is wrong with logging is to be seen, and is none of traffic's business.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use testbed::{NatsServer, Seized, Sidelog, SidelogCommand, Upstream, http, wait};

async fn page(proxy: &Sidelog, path: &str) -> (u16, String) {
    let url = format!("{}{path}", proxy.admin_url());
    let answer = http::client().get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn command(upstream: &Upstream, nats: &NatsServer) -> SidelogCommand {
    Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("NATS_URL", nats.url())
        .env("SIDELOG_TRACES__ENABLED", "false")
}

async fn between(upstream: &Upstream, nats: &NatsServer) -> Sidelog {
    command(upstream, nats).start().await
}

async fn exchange(proxy: &Sidelog) {
    assert_eq!(http::client().get(proxy.url()).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_shipping_thread_that_is_stuck_is_told_and_traffic_goes_on_until_it_ships_again() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let proxy = between(&upstream, &nats).await;
    let shipped = async || proxy.metric("sidelog_records_shipped_total", "").await;
    exchange(&proxy).await;
    wait::until("the first record is shipped", async || shipped().await == 1.0).await;
    wait::until("all is well", async || {
        page(&proxy, "/readyz").await == (200, "ok\n".to_owned())
    })
    .await;
    assert_eq!(proxy.metric("sidelog_shipping_up", "").await, 1.0);

    let seized = Seized::thread(proxy.id(), "shipping");
    wait::until("the thread is missed", async || {
        proxy.metric("sidelog_shipping_up", "").await == 0.0
    })
    .await;
    assert!(proxy.metric("sidelog_shipping_overdue_seconds", "").await >= 10.0);
    for path in ["/livez", "/readyz"] {
        let (status, text) = page(&proxy, path).await;
        assert_eq!(status, 200, "{text}");
        assert!(text.starts_with("ok\nshipping is stuck for "), "{text}");
    }
    exchange(&proxy).await;

    drop(seized);
    wait::until("the second record is shipped", async || shipped().await == 2.0).await;
    assert_eq!(proxy.metric("sidelog_shipping_up", "").await, 1.0);
    assert_eq!(page(&proxy, "/readyz").await, (200, "ok\n".to_owned()));
}

#[tokio::test]
async fn a_server_that_is_away_is_told_and_makes_nothing_unready() {
    let (mut nats, upstream) = (NatsServer::start().await, Upstream::start());
    nats.kill();
    let without_spool = command(&upstream, &nats).env("SIDELOG_SPOOL__MAX_BYTES", "0");
    let without_spool = without_spool.start().await;
    let told = "ok\nno connection to NATS: records stay in memory\n";
    assert_eq!(page(&without_spool, "/readyz").await, (200, told.to_owned()));
    let proxy = between(&upstream, &nats).await;
    let told = "ok\nno connection to NATS: records go to the spool\n";
    assert_eq!(page(&proxy, "/readyz").await, (200, told.to_owned()));
    nats.restart().await;
    wait::until("all is well", async || {
        page(&proxy, "/livez").await == (200, "ok\n".to_owned())
    })
    .await;
}

#[tokio::test]
async fn a_spool_that_can_not_be_used_is_told_with_nats_and_without() {
    let (mut nats, upstream) = (NatsServer::start().await, Upstream::start());
    nats.kill();
    let no_folder = tempfile::NamedTempFile::new().unwrap();
    let proxy = command(&upstream, &nats)
        .env("SIDELOG_SPOOL__DIRECTORY", no_folder.path().display())
        .start()
        .await;
    let is_told = async |told: &str| {
        page(&proxy, "/readyz").await == (200, format!("ok\n{told}the spool can't be used, the log says why\n"))
    };
    wait::until("both are told", async || {
        is_told("no connection to NATS: records stay in memory\n").await
    })
    .await;
    nats.restart().await;
    wait::until("the spool is told", async || is_told("").await).await;
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_told() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let full = Config {
        name: "logs".to_owned(),
        subjects: vec!["logs.>".to_owned()],
        discard: DiscardPolicy::New,
        max_bytes: 100,
        ..Config::default()
    };
    let jetstream = nats.jetstream().await;
    jetstream.create_stream(full.clone()).await.unwrap();
    let proxy = between(&upstream, &nats).await;
    exchange(&proxy).await;
    let told = "ok\nNATS takes no records, the log says why: records go to the spool\n";
    wait::until("it is told", async || {
        page(&proxy, "/readyz").await == (200, told.to_owned())
    })
    .await;
    let max_bytes = 1 << 20;
    jetstream.update_stream(Config { max_bytes, ..full }).await.unwrap();
    wait::until("all is well", async || {
        page(&proxy, "/readyz").await == (200, "ok\n".to_owned())
    })
    .await;
}
