//! A stream on three nodes, two consumers, and nodes that are killed in mid-stream: nothing is lost, nothing doubled.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use testbed::{LokiDouble, NatsCluster, Sidelog, Upstream, http, wait};

const CLIENTS: usize = 4;
const EXCHANGES: usize = 12_000;

/// Clients that go on until all is sent; every answer is right, whatever becomes of NATS.
fn load(url: &str, sent: &Arc<AtomicUsize>) -> tokio::task::JoinSet<()> {
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (url, sent) = (url.to_owned(), Arc::clone(sent));
        clients.spawn(async move {
            let client = http::client();
            loop {
                let number = sent.fetch_add(1, Ordering::AcqRel);
                if number >= EXCHANGES {
                    return;
                }
                let answer = client.get(&url).header("x-number", number).send().await.unwrap();
                assert_eq!(answer.status(), 200);
                assert!(!answer.bytes().await.unwrap().is_empty());
            }
        });
    }
    clients
}

async fn reaches(sent: &AtomicUsize, count: usize) {
    wait::until("so many are sent", async || sent.load(Ordering::Acquire) >= count).await;
}

fn numbers(lines: &[String]) -> Vec<usize> {
    let number = |line: &String| {
        let record: Value = serde_json::from_str(line).unwrap();
        record["http.request.header"]["x-number"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    lines.iter().map(number).collect()
}

#[tokio::test]
async fn nodes_that_are_killed_in_mid_stream_lose_and_double_nothing() {
    let mut nats = NatsCluster::start().await;
    let (upstream, loki) = (Upstream::start(), LokiDouble::start());
    let proxy = Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("NATS_URL", nats.url())
        .env("SIDELOG_NATS__STREAM_REPLICAS", 3)
        .env("SIDELOG_TRACES__ENABLED", "false")
        .start()
        .await;
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let consumer = Sidelog::consumer()
            .env("NATS_URL", nats.url())
            .env("LOKI_URL", loki.push_url())
            .env("SIDELOG_NATS__STREAM_REPLICAS", 3)
            // What a dead node had handed out comes again after this.
            .env("SIDELOG_SOURCE__ACK_WAIT", "10s")
            .start()
            .await;
        consumers.push(consumer);
    }

    let sent = Arc::new(AtomicUsize::new(0));
    let clients = load(&proxy.url(), &sent);
    reaches(&sent, EXCHANGES / 4).await;
    let first = nats.leader("logs").await;
    nats.kill(first);
    reaches(&sent, EXCHANGES / 2).await;
    nats.restart(first).await;
    let second = (nats.leader("logs").await + 1) % 3;
    nats.kill(second);
    reaches(&sent, EXCHANGES * 3 / 4).await;
    nats.restart(second).await;
    clients.join_all().await;

    wait::until("the proxy has shipped all", async || {
        proxy.metric("sidelog_records_shipped_total", "").await >= EXCHANGES as f64
    })
    .await;
    assert_eq!(proxy.metric("sidelog_records_dropped_total", "").await, 0.0);
    loki.stores(EXCHANGES).await;
    let stored = numbers(&loki.lines());
    assert_eq!(
        stored.iter().copied().collect::<BTreeSet<_>>(),
        (0..EXCHANGES).collect()
    );
    assert_eq!(stored.len(), EXCHANGES, "the store has identical lines once");
    let stream = nats.jetstream().await.get_stream("logs").await.unwrap();
    assert_eq!(stream.cached_info().config.num_replicas, 3);
    let mut in_stream = 0;
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        in_stream += message
            .payload
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .count();
    }
    assert_eq!(in_stream, EXCHANGES, "no frame is in the stream twice");
}
