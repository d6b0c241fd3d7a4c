//! The clock jumps: what is told carries its time, and nothing waits by it.

use testbed::{Clock, LokiDouble, LokiLimits, NatsServer, Port, Sidelog};

use crate::stand::{Stored, Traffic, acknowledged, balanced, proxy, settled, upstream};

const HOUR: i64 = 3600;
const ROUND: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_clock_does_nothing_is_lost_doubled_refused_or_stopped() {
    let (upstream, port, spool, clock) = (
        upstream(),
        Port::reserve(),
        tempfile::tempdir().unwrap(),
        Clock::start(),
    );
    let (mut nats, loki) = (NatsServer::start().await, LokiDouble::start());
    loki.limit(LokiLimits::default());
    let proxy = proxy(&upstream, &nats.url(), spool.path(), &port);
    let proxy = clock.of(proxy).start().await;
    let consumer = Sidelog::consumer()
        .env("NATS_URL", nats.url())
        .env("LOKI_URL", loki.push_url());
    let consumer = clock.of(consumer.env("SIDELOG_LOKI__BATCH_WAIT", "50ms")).start().await;

    // Back and forth, as far as the store takes it.
    let offsets = [0, -2 * HOUR, 300, -100 * HOUR, 0, -30 * HOUR, 0];
    for (round, offset) in offsets.into_iter().enumerate() {
        clock.set(offset);
        if round == 4 {
            nats.kill();
        }
        Traffic::start(&proxy, round * ROUND, (round + 1) * ROUND, 300)
            .end()
            .await;
    }
    let count = offsets.len() * ROUND;
    balanced(&proxy, "what NATS doesn't take is on disk", |balance| {
        balance.spooled() >= 3 * ROUND as u64
    })
    .await;
    // Longer than spool.max_age and the stream's duplicate window.
    clock.set(30 * 24 * HOUR);
    nats.restart().await;
    let balance = settled(&proxy).await;
    assert_eq!((balance.shipped(), balance.dropped()), (count as u64, 0));
    clock.set(0);
    loki.stores(count).await;
    acknowledged(&nats).await;

    Stored::of(&nats).await.assert_whole(count);
    Stored::of_lines(loki.stored().iter().map(|entry| &entry.line)).assert_whole(count);
    assert_eq!(loki.count(), count);
    assert_eq!(consumer.metric("sidelog_dead_letters_total", "").await, 0.0);
    assert!(consumer.metric("sidelog_records_late_total", "").await > 0.0);
}
