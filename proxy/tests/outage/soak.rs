//! Load with outages in every round, from the client to the store, for as long as is wished: does anything add up wrong, or grow?

use std::time::{Duration, Instant};

use testbed::{LokiDouble, NatsServer, Port, Sidelog};

use crate::stand::{Balance, Stored, Traffic, acknowledged, proxy, settled, upstream};

const ROUND: usize = 5_000;
const MIB: u64 = 1024 * 1024;

/// `SIDELOG_SOAK_SECONDS` says how long; a minute where unset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes a minute, or as long as SIDELOG_SOAK_SECONDS says"]
async fn soak() {
    let seconds = std::env::var("SIDELOG_SOAK_SECONDS").map_or(60, |seconds| seconds.parse().unwrap());
    let ends = Instant::now() + Duration::from_secs(seconds);
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let (mut nats, mut loki) = (NatsServer::start().await, LokiDouble::start());
    let proxy = proxy(&upstream, &nats.url(), spool.path(), &port).start().await;
    let (nats_url, push_url) = (nats.url(), loki.push_url());
    let start_consumer = async || {
        let consumer = Sidelog::consumer()
            .env("NATS_URL", &nats_url)
            .env("LOKI_URL", &push_url);
        consumer.env("SIDELOG_SOURCE__ACK_WAIT", "1s").start().await
    };
    let mut consumer = start_consumer().await;
    let (start, mut highest, mut round) = (proxy.resident_bytes(), 0, 0);
    while Instant::now() < ends {
        let traffic = Traffic::start(&proxy, round * ROUND, (round + 1) * ROUND, 300);
        traffic.reaches(ROUND / 3).await;
        let is_frozen = round.is_multiple_of(5);
        if is_frozen {
            nats.freeze();
        } else {
            nats.kill();
        }
        if round.is_multiple_of(2) {
            consumer.kill();
        } else {
            loki.kill();
        }
        traffic.reaches(ROUND * 2 / 3).await;
        if is_frozen {
            nats.thaw();
        } else {
            nats.restart().await;
        }
        if round.is_multiple_of(2) {
            consumer = start_consumer().await;
        } else {
            loki.restart();
        }
        traffic.end().await;

        let balance = arrived(&proxy, &nats, &loki, round).await;
        round += 1;
        let memory = proxy.resident_bytes();
        highest = highest.max(memory);
        println!(
            "round {round}: offered {}, shipped {}, stored {}, dropped {}; proxy {} MiB, consumer {} MiB",
            balance.offered(),
            balance.shipped(),
            round * ROUND,
            balance.dropped(),
            memory / MIB,
            consumer.resident_bytes() / MIB
        );
    }
    let grown = highest.saturating_sub(start) / MIB;
    println!(
        "{} exchanges in {round} rounds: 0 lost, 0 doubled; the proxy's memory grew by {grown} MiB",
        round * ROUND
    );
    // The queue's limit, the window of 64 frames of 256 KiB, and 20 MiB.
    assert!(grown <= 32 + 16 + 20, "the proxy has grown by {grown} MiB");
}

/// Waits until the exchanges of a round have arrived, and takes them out of the store: each is there once.
async fn arrived(proxy: &Sidelog, nats: &NatsServer, loki: &LokiDouble, round: usize) -> Balance {
    let balance = settled(proxy).await;
    assert_eq!(
        (balance.offered(), balance.dropped()),
        (((round + 1) * ROUND) as u64, 0)
    );
    acknowledged(nats).await;
    let stored = loki.take();
    let numbers = Stored::of_lines(stored.iter().map(|entry| &entry.line)).exchanges;
    let expected = (round * ROUND..(round + 1) * ROUND).map(|number| (number, 1));
    assert!(
        numbers.into_iter().eq(expected),
        "round {round}: each exchange is in the store once"
    );
    balance
}
