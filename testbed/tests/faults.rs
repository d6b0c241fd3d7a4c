//! Parts away and parts killed: traffic goes on as if nothing had happened, and every record is accounted for.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use testbed::{
    Balance, Jaeger, NatsServer, Port, Sidelog, SidelogCommand, Upstream, VictoriaLogs, balanced, http, settled, wait,
};

/// The proxy in front of `upstream`, with NATS and Jaeger at `nowhere`, a port where nobody listens.
fn alone(upstream: &Upstream, nowhere: &Port) -> SidelogCommand {
    Sidelog::proxy()
        .env("SERVICE_NAME", "api-service")
        .env("UPSTREAM_URL", upstream.url())
        .env("NATS_URL", format!("nats://{}", nowhere.address()))
        .env("JAEGER_URL", nowhere.address())
}

/// The balance, once so many exchanges have their record: an answer may be read before that.
async fn balance(proxy: &Sidelog, exchanges: usize) -> Balance {
    balanced(proxy, "every exchange is counted", |balance| {
        balance.offered() == exchanges as u64
    })
    .await
}

async fn post(client: &reqwest::Client, url: &str, number: usize) {
    let body = format!(r#"{{"number":{number},"fill":"{}"}}"#, "x".repeat(1_500));
    let answer = client
        .post(format!("{url}/orders"))
        .header("content-type", "application/json")
        .header("x-answer-body", format!("answer {number}"))
        .header("x-answer-status", [200, 404, 503][number % 3])
        .header("x-answer-type", "text/plain")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), [200, 404, 503][number % 3]);
    assert_eq!(answer.text().await.unwrap(), format!("answer {number}"));
}

/// Sends `count` exchanges over 16 connections, all of which must be answered as the upstream answers.
async fn load(url: &str, count: usize) {
    let next = Arc::new(AtomicUsize::new(0));
    let connections = (0..16).map(|_| {
        let (next, url) = (Arc::clone(&next), url.to_owned());
        tokio::spawn(async move {
            let client = http::client();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                post(&client, &url, number).await;
            }
        })
    });
    for connection in connections.collect::<Vec<_>>() {
        connection.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_everything_away_every_answer_is_the_upstreams() {
    let (upstream, nowhere) = (Upstream::start(), Port::reserve());
    let mut proxy = alone(&upstream, &nowhere).start().await;
    load(&proxy.url(), 600).await;
    balance(&proxy, 600).await;
    proxy.terminate();
    let status = proxy.exit_status(Duration::from_secs(10)).await;
    assert!(status.success(), "{}", proxy.output());
    let output = proxy.output();
    assert!(output.contains("dropped=0 spooled=600"), "{output}");
}

/// What 500 exchanges a second make in a minute, as fast as the machine sends them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nats_away_memory_stays_under_its_bound_and_drops_are_counted() {
    const MIB: u64 = 1024 * 1024;
    let (upstream, nowhere) = (Upstream::start(), Port::reserve());
    let proxy = alone(&upstream, &nowhere)
        .env("SIDELOG_QUEUE__MAX_BYTES", "16MiB")
        .env("SIDELOG_QUEUE__BODIES_MAX_BYTES", "12MiB")
        .env("SIDELOG_SPOOL__MAX_BYTES", "0");
    let proxy = proxy.start().await;
    load(&proxy.url(), 500).await;
    let before = proxy.resident_bytes();
    load(&proxy.url(), 30_000).await;
    let grown = proxy.resident_bytes().saturating_sub(before) / MIB;
    // The queue, the window of 64 frames of 256 KiB, 8,192 spans, and 20 MiB.
    assert!(grown <= 16 + 16 + 10 + 20, "the proxy has grown by {grown} MiB");
    assert!(balance(&proxy, 30_500).await.dropped_for("queue_full") > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_in_mid_run_is_neither_seen_by_clients_nor_lost() {
    let (mut nats, mut jaeger, mut store) = (
        NatsServer::start().await,
        Jaeger::start().await,
        VictoriaLogs::start().await,
    );
    let (upstream, nowhere) = (Upstream::start(), Port::reserve());
    let proxy = alone(&upstream, &nowhere)
        .env("NATS_URL", nats.url())
        .env("JAEGER_URL", jaeger.otlp_grpc())
        .start()
        .await;
    let _consumer = Sidelog::consumer()
        .env("NATS_URL", nats.url())
        .env("LOKI_URL", store.push_url())
        .start()
        .await;

    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let traffic: Vec<_> = (0..4)
        .map(|_| {
            let (stop, sent, url) = (Arc::clone(&stop), Arc::clone(&sent), proxy.url());
            tokio::spawn(async move {
                let client = http::client();
                while !stop.load(Ordering::Acquire) {
                    post(&client, &url, sent.fetch_add(1, Ordering::AcqRel)).await;
                }
            })
        })
        .collect();
    let more = async |n: usize| {
        let goal = sent.load(Ordering::Acquire) + n;
        wait::until("traffic goes on", async || sent.load(Ordering::Acquire) >= goal).await;
    };
    more(300).await;
    nats.kill();
    more(300).await;
    nats.restart().await;
    more(300).await;
    // In order, because VictoriaLogs answers 204 before it has written: with SIGKILL it loses what it has taken.
    store.stop().await;
    more(300).await;
    store.restart().await;
    jaeger.kill();
    more(300).await;
    jaeger.restart().await;
    more(300).await;
    stop.store(true, Ordering::Release);
    for task in traffic {
        task.await.unwrap();
    }

    let sent = sent.load(Ordering::Acquire);
    balance(&proxy, sent).await;
    assert_eq!(
        settled(&proxy).await.dropped(),
        0,
        "the outage was shorter than the queue is long"
    );
    wait::until("the store holds every record", async || store.count().await >= sent).await;
}
