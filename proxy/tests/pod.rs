//! The life of a pod, on the real binary: what the kubelet asks of the sidecar from its start to its end, in the
//! environment that the chart gives it. The injector's, template's and examples' environments are `.ci/checks/chart.py`'s.

#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it needs it")]

use std::path::Path;
use std::time::{Duration, Instant};

use testbed::{NatsServer, Port, Sidelog, SidelogCommand, Upstream, http, wait};

/// What the kubelet may leave of the grace period when the app has ended last: more than the chart's deadline of 1.5 s.
const LEFT: Duration = Duration::from_secs(2);

/// The sidecar of a pod with this upstream, NATS and spool, as the chart sets it up.
fn sidecar(upstream: &str, nats: &str, spool: &Path) -> SidelogCommand {
    Sidelog::proxy()
        .env("UPSTREAM_URL", upstream)
        .env("NATS_URL", nats)
        .env("SIDELOG_SPOOL__DIRECTORY", spool.display())
        .env("SIDELOG_SPOOL__MAX_BYTES", "98304KiB")
        .env("SIDELOG_SHUTDOWN__DEADLINE", "1500ms")
        .env("SIDELOG_TRACES__ENABLED", "false")
}

/// What a probe of the kubelet gets.
async fn probe(proxy: &Sidelog, path: &str) -> u16 {
    let answer = http::client().get(format!("{}{path}", proxy.admin_url())).send();
    answer.await.unwrap().status().as_u16()
}

/// Sends `count` requests and wants the service's answer to each.
async fn answered(proxy: &Sidelog, count: usize) {
    let client = http::client();
    for _ in 0..count {
        assert_eq!(client.get(proxy.url()).send().await.unwrap().status(), 200);
    }
}

/// Sends SIGTERM and says how long the end took.
async fn ended(proxy: &mut Sidelog) -> Duration {
    let asked = Instant::now();
    proxy.terminate();
    let status = proxy.exit_status(Duration::from_secs(20)).await;
    assert!(status.success(), "{}", proxy.output());
    asked.elapsed()
}

#[tokio::test]
async fn it_starts_and_is_ready_where_neither_the_service_nor_nats_is_there() {
    let (service, nats, spool) = (Port::reserve(), Port::reserve(), tempfile::tempdir().unwrap());
    let upstream = format!("http://{}", service.address());
    let mut proxy = sidecar(&upstream, &format!("nats://{}", nats.address()), spool.path())
        .start()
        .await;
    // The app starts only after this: it can't be there yet.
    assert_eq!(probe(&proxy, "/livez").await, 200);
    assert_eq!(probe(&proxy, "/readyz").await, 200);
    assert!(ended(&mut proxy).await < LEFT, "{}", proxy.output());
}

#[tokio::test]
async fn it_starts_without_the_secret_of_nats_and_ships_when_the_secret_is_there() {
    let (upstream, spool) = (Upstream::start(), tempfile::tempdir().unwrap());
    let nats = NatsServer::with_config("authorization { token: t0ken }").await;
    let secret = spool.path().join("token");
    let mut proxy = sidecar(&upstream.url(), &nats.url(), &spool.path().join("spool"))
        .env("SIDELOG_NATS__TOKEN_FILE", secret.display())
        .env("SIDELOG_NATS__WAIT_FOR_FILES", "true")
        .start()
        .await;
    answered(&proxy, 20).await;
    assert_eq!(probe(&proxy, "/readyz").await, 200);
    std::fs::write(&secret, "t0ken\n").unwrap();
    wait::until("all is shipped", async || {
        proxy.metric("sidelog_records_shipped_total", "").await >= 20.0
    })
    .await;
    assert!(ended(&mut proxy).await < LEFT, "{}", proxy.output());
    assert!(proxy.output().contains("(nats.token_file)"), "{}", proxy.output());
}

#[tokio::test]
async fn after_the_hook_it_serves_and_stays_ready_until_sigterm_and_ships_what_came_meanwhile() {
    let (nats, upstream, spool) = (
        NatsServer::start().await,
        Upstream::start(),
        tempfile::tempdir().unwrap(),
    );
    let mut proxy = sidecar(&upstream.url(), &nats.url(), spool.path()).start().await;
    answered(&proxy, 20).await;
    // `exec` in the container, whose environment has the address at which the sidecar listens.
    let admin = proxy.admin_url().replace("http://127.0.0.1", "0.0.0.0");
    let hook = Sidelog::proxy().arg("drain").env("SIDELOG_ADMIN__ADDRESS", admin);
    assert_eq!(hook.finish().await.code, Some(0));
    // Endpoints take a moment to learn of the end: new connections still come.
    answered(&proxy, 20).await;
    assert_eq!(probe(&proxy, "/livez").await, 200);
    assert_eq!(probe(&proxy, "/readyz").await, 200);
    wait::until("all is shipped before SIGTERM", async || {
        proxy.metric("sidelog_records_shipped_total", "").await >= 40.0
    })
    .await;
    let took = ended(&mut proxy).await;
    assert!(took < LEFT, "{took:?}: {}", proxy.output());
}

#[tokio::test]
async fn with_nats_hanging_sigterm_ends_it_inside_the_deadline_and_the_spool_has_every_record() {
    let (upstream, spool, port) = (Upstream::start(), tempfile::tempdir().unwrap(), Port::reserve());
    let mut nats = NatsServer::start().await;
    let command = || sidecar(&upstream.url(), &nats.url(), spool.path()).env("PORT", port.number());
    let (first, second) = (command(), command());
    let mut first = first.start().await;
    answered(&first, 5).await;
    wait::until("NATS has what came first", async || {
        first.metric("sidelog_records_shipped_total", "").await >= 5.0
    })
    .await;
    nats.freeze();
    answered(&first, 300).await;
    let took = ended(&mut first).await;
    assert!(took < LEFT, "{took:?}: {}", first.output());
    assert!(first.output().contains("dropped=0 spooled=300"), "{}", first.output());

    nats.thaw();
    let second = second.start().await;
    wait::until("the next process sends what was spooled", async || {
        second.metric("sidelog_records_shipped_total", "").await >= 300.0
    })
    .await;
}

#[tokio::test]
async fn with_nats_away_and_no_spool_sigterm_ends_it_inside_the_deadline_and_every_record_is_counted() {
    let (upstream, nats, folder) = (Upstream::start(), Port::reserve(), tempfile::tempdir().unwrap());
    let file = folder.path().join("no-folder");
    std::fs::write(&file, "").unwrap();
    let mut proxy = sidecar(&upstream.url(), &format!("nats://{}", nats.address()), &file)
        .start()
        .await;
    answered(&proxy, 300).await;
    let took = ended(&mut proxy).await;
    assert!(took < LEFT, "{took:?}: {}", proxy.output());
    assert!(proxy.output().contains("dropped=300 spooled=0"), "{}", proxy.output());
}

#[tokio::test]
async fn an_exchange_that_outlasts_the_deadline_is_cut_and_does_not_hold_the_pod_up() {
    let (upstream, spool, nats) = (Upstream::start(), tempfile::tempdir().unwrap(), Port::reserve());
    let mut proxy = sidecar(&upstream.url(), &format!("nats://{}", nats.address()), spool.path())
        .start()
        .await;
    let held = tokio::spawn(http::client().get(proxy.url()).header("x-answer-held", "1").send());
    upstream.holds(1).await;
    let took = ended(&mut proxy).await;
    assert!(held.await.unwrap().is_err());
    assert!(took < LEFT, "{took:?}: {}", proxy.output());
    assert!(proxy.output().contains("dropped=0 spooled=1"), "{}", proxy.output());
}
