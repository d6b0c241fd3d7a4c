//! The proxy killed under load.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use testbed::{NatsServer, Port};

use crate::stand::{Stored, Traffic, balanced, proxy, settled, upstream};

/// Linger, the queue's tick and the disk's time, on a machine that is busy.
const IN_HAND: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_always_kill_9_loses_only_what_was_open_queued_or_lingering() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let mut nats = NatsServer::start().await;
    let always = || proxy(&upstream, &nats.url(), spool.path(), &port).env("SIDELOG_SPOOL__MODE", "always");
    let (first, second) = (always(), always());

    let mut first = first.start().await;
    let traffic = Traffic::start(&first, 0, 1_000_000, 300);
    traffic.reaches(3_000).await;
    nats.kill();
    traffic.reaches(8_000).await;
    let killed = Instant::now();
    first.kill();
    let answered = traffic.cut_off().await;

    nats.restart().await;
    let second = second.start().await;
    Traffic::start(&second, 1_000_000, 1_001_000, 300).end().await;
    let balance = balanced(&second, "the spool is sent", |balance| {
        balance.recovered() > 0
            && balance.shipped() == balance.recovered() + balance.offered()
            && balance.spool_bytes() == 0
    })
    .await;
    assert_eq!((balance.offered(), balance.dropped()), (1_000, 0));

    let stored = Stored::of(&nats).await;
    let missing: Vec<_> = answered
        .iter()
        .filter(|(number, _)| !stored.exchanges.contains_key(number))
        .collect();
    let oldest = missing
        .iter()
        .map(|(_, at)| killed.saturating_duration_since(*at))
        .max();
    println!(
        "kill -9 with spool.mode = \"always\": {} of {} missing, the oldest {oldest:?} before; {} recovered",
        missing.len(),
        answered.len(),
        balance.recovered()
    );
    assert!(
        oldest.unwrap_or_default() < IN_HAND,
        "one from {oldest:?} before is missing"
    );
    assert_eq!(stored.doubled(), 0);
    let starts: BTreeSet<_> = stored.ids.iter().map(|id| id.split('-').next()).collect();
    assert_eq!(starts.len(), 2, "each process has ids of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn always_costs_no_record_and_leaves_no_file() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let nats = NatsServer::start().await;
    let proxy = proxy(&upstream, &nats.url(), spool.path(), &port).env("SIDELOG_SPOOL__MODE", "always");
    let proxy = proxy.start().await;
    Traffic::start(&proxy, 0, 3_000, 300).end().await;
    let balance = settled(&proxy).await;
    assert_eq!((balance.shipped(), balance.dropped()), (3_000, 0));
    balanced(&proxy, "all files are removed", |balance| balance.spool_bytes() == 0).await;
    Stored::of(&nats).await.assert_whole(3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ships_what_is_lingering_and_ends_at_once() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let nats = NatsServer::start().await;
    let proxy = proxy(&upstream, &nats.url(), spool.path(), &port).env("SIDELOG_FRAME__LINGER", "1h");
    let mut proxy = proxy.start().await;
    Traffic::start(&proxy, 0, 100, 300).end().await;
    let asked = Instant::now();
    proxy.terminate();
    let status = proxy.exit_status(Duration::from_secs(10)).await;
    assert!(
        status.success() && asked.elapsed() < Duration::from_secs(5),
        "{}",
        proxy.output()
    );
    Stored::of(&nats).await.assert_whole(100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_with_nats_frozen_spools_inside_the_deadline() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let mut nats = NatsServer::start().await;
    let command = || proxy(&upstream, &nats.url(), spool.path(), &port).env("SIDELOG_SHUTDOWN__DEADLINE", "4s");
    let (first, second) = (command(), command());
    let mut first = first.start().await;
    Traffic::start(&first, 0, 500, 300).end().await;
    settled(&first).await;
    nats.freeze();
    Traffic::start(&first, 500, 2_000, 300).end().await;
    let asked = Instant::now();
    first.terminate();
    let status = first.exit_status(Duration::from_secs(10)).await;
    assert!(
        status.success() && asked.elapsed() < Duration::from_secs(5),
        "{}",
        first.output()
    );
    assert!(first.output().contains("dropped=0 spooled=1500"), "{}", first.output());
    nats.thaw();
    let second = second.start().await;
    balanced(&second, "the spool is sent", |balance| balance.shipped() == 1_500).await;
    Stored::of(&nats).await.assert_whole(2_000);
}
