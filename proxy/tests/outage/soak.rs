//! Load with an outage in every round, for as long as is wished: does anything add up wrong, or grow?

use std::time::{Duration, Instant};

use testbed::{NatsServer, Port};

use crate::stand::{Balance, Traffic, proxy, settled, upstream};

const ROUND: usize = 5_000;
const MIB: u64 = 1024 * 1024;

/// `SIDELOG_SOAK_SECONDS` says how long; a minute where unset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes a minute, or as long as SIDELOG_SOAK_SECONDS says"]
async fn soak() {
    let seconds = std::env::var("SIDELOG_SOAK_SECONDS").map_or(60, |seconds| seconds.parse().unwrap());
    let ends = Instant::now() + Duration::from_secs(seconds);
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let mut nats = NatsServer::start().await;
    let proxy = proxy(&upstream, &nats.url(), spool.path(), &port).start().await;
    let (start, mut highest, mut round) = (proxy.resident_bytes(), 0, 0);
    while Instant::now() < ends {
        let traffic = Traffic::start(&proxy, round * ROUND, (round + 1) * ROUND, 300);
        traffic.reaches(ROUND / 3).await;
        if round.is_multiple_of(5) {
            nats.freeze();
        } else {
            nats.kill();
        }
        traffic.reaches(ROUND * 2 / 3).await;
        if round.is_multiple_of(5) {
            nats.thaw();
        } else {
            nats.restart().await;
        }
        traffic.end().await;
        round += 1;
        let balance = Balance::of(&proxy).await;
        let memory = proxy.resident_bytes();
        highest = highest.max(memory);
        println!(
            "round {round}: offered {} shipped {} dropped {} spooled {}, {} MiB",
            balance.offered(),
            balance.shipped(),
            balance.dropped(),
            balance.spooled(),
            memory / MIB
        );
    }
    let balance = settled(&proxy).await;
    assert_eq!((balance.offered(), balance.dropped()), ((round * ROUND) as u64, 0));
    let grown = highest.saturating_sub(start) / MIB;
    println!(
        "{} exchanges in {round} rounds: 0 lost; memory grew by {grown} MiB",
        balance.offered()
    );
    // The queue's limit, the window of 64 frames of 256 KiB, and 20 MiB.
    assert!(grown <= 32 + 16 + 20, "the proxy has grown by {grown} MiB");
}
