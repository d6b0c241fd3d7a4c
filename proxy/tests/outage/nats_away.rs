//! nats-server killed, frozen and away.

use testbed::{NatsServer, Port};

use crate::stand::{Balance, Stored, Traffic, balanced, proxy, settled, upstream};

const MIB: u64 = 1024 * 1024;
/// Exchanges of the long run; `SIDELOG_TEST_EXCHANGES` sets another number.
const EXCHANGES: usize = 20_000;

fn exchanges() -> usize {
    std::env::var("SIDELOG_TEST_EXCHANGES").map_or(EXCHANGES, |number| number.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_nats_each_record_is_in_the_stream_once() {
    let count = exchanges();
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let mut nats = NatsServer::start().await;
    // Away from the start.
    nats.kill();
    let proxy = proxy(&upstream, &nats.url(), spool.path(), &port).start().await;
    let before = proxy.resident_bytes();
    let mut highest = before;
    let traffic = Traffic::start(&proxy, 0, count, 300);
    let step = count / 16;
    traffic.reaches(step).await;
    nats.restart().await;
    for round in 1..=5 {
        let chance = rand::random_range(0..step);
        println!("the {round}. kill comes after {} exchanges", step * 2 * round + chance);
        traffic.reaches(step * 2 * round + chance).await;
        nats.kill();
        highest = highest.max(proxy.resident_bytes());
        traffic.reaches(step * (2 * round + 1) + chance / 2).await;
        nats.restart().await;
    }
    traffic.reaches(step * 12).await;
    nats.freeze();
    traffic.reaches(step * 14).await;
    nats.thaw();
    highest = highest.max(proxy.resident_bytes());
    traffic.end().await;

    let balance = settled(&proxy).await;
    assert_eq!((balance.offered(), balance.dropped()), (count as u64, 0));
    Stored::of(&nats).await.assert_whole(count);
    let grown = highest.saturating_sub(before) / MIB;
    // The queue's limit, the window of 64 frames of 256 KiB, and 20 MiB.
    assert!(grown <= 32 + 16 + 20, "the proxy has grown by {grown} MiB");
    println!("{count} exchanges: 0 lost, 0 doubled; memory grew by {grown} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nats_did_not_take_is_spooled_and_the_next_process_sends_it() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let mut nats = NatsServer::start().await;
    nats.kill();
    let mut first = proxy(&upstream, &nats.url(), spool.path(), &port).start().await;
    Traffic::start(&first, 0, 3_000, 300).end().await;
    let spooled = balanced(&first, "frames go to disk", |balance| balance.spooled() > 2_000).await;
    assert!(spooled.spool_bytes() > 0);
    first.terminate();
    let status = first.exit_status(std::time::Duration::from_secs(5)).await;
    assert!(status.success(), "{}", first.output());
    assert!(first.output().contains("spooled=3000"), "{}", first.output());

    nats.restart().await;
    let second = proxy(&upstream, &nats.url(), spool.path(), &port).start().await;
    Traffic::start(&second, 3_000, 4_000, 300).end().await;
    balanced(&second, "the spool is sent", |balance| balance.shipped() == 4_000).await;
    let balance = Balance::of(&second).await;
    assert_eq!(
        (balance.recovered(), balance.offered(), balance.spool_bytes()),
        (3_000, 1_000, 0)
    );
    Stored::of(&nats).await.assert_whole(4_000);
}
