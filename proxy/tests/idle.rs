//! A proxy without traffic, as most sidecars are for most of the time.

use std::time::Duration;

use testbed::{NatsServer, Sidelog, Upstream, http};

#[tokio::test]
async fn a_proxy_that_has_served_and_is_idle_hardly_gets_up() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let proxy = Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("NATS_URL", nats.url())
        .env("SIDELOG_TRACES__ENABLED", "false")
        .start()
        .await;
    http::client().get(proxy.url()).send().await.unwrap();
    let before = proxy.naps();
    // The time that is measured, not one that is waited for something.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let naps = proxy.naps() - before;
    // A thread that looks each 10 ms would do it 300 times.
    assert!(naps < 150, "{naps} times in three seconds");
}
