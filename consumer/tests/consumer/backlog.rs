//! A large backlog, drained while everything is killed again and again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use testbed::Sidelog;
use testbed::wait::{obtain_within, until};

use crate::bench::{Bench, durable, frame, line_at, now, publish_all};

const RECORDS: usize = 200_000;
/// Records of a message.
const FRAME: usize = 100;
const KILLED_CONSUMERS: usize = 10;
const KILLED_STORES: usize = 5;
const MINUTE: u64 = 60_000_000_000;
const PATIENCE: Duration = Duration::from_secs(120);

/// Publishes records of four services in order of time, over `span` nanoseconds up to now.
async fn publish_backlog(bench: &Bench, records: usize, span: u64) {
    let jetstream = bench.nats.jetstream().await;
    let (start, step) = (now() - span, span / records as u64);
    for frames in (0..records / FRAME).collect::<Vec<_>>().chunks(200) {
        let frames = frames.iter().map(|number| {
            let service = format!("service-{}", number % 4);
            let numbers = number * FRAME..(number + 1) * FRAME;
            let lines = numbers.map(|number| line_at(number, start + step * number as u64));
            frame(
                &lines
                    .map(|line| line.replace("api-service", &service))
                    .collect::<Vec<_>>(),
            )
        });
        publish_all(&jetstream, frames).await;
    }
}

async fn progress(bench: &Bench, stored: usize) {
    obtain_within(PATIENCE, "the backlog gets smaller", async || {
        (bench.loki.count() >= stored).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_backlog_is_drained_without_loss_or_double_while_consumers_and_store_are_killed() {
    let mut bench = Bench::new().await;
    bench.loki.limit(testbed::LokiLimits::default());
    // What is delivered again after a kill is not yet too far behind: it would be stored again under another label.
    publish_backlog(&bench, RECORDS, 50 * MINUTE).await;
    let began = Instant::now();
    let start = async |bench: &Bench| -> Sidelog { bench.consumer().start().await };
    let mut consumers = [start(&bench).await, start(&bench).await];
    for kill in 0..KILLED_CONSUMERS {
        progress(&bench, (kill + 1) * RECORDS / (KILLED_CONSUMERS + 5)).await;
        consumers[kill % 2].kill();
        if kill % (KILLED_CONSUMERS / KILLED_STORES) == 0 {
            bench.loki.kill();
            bench.loki.restart();
        }
        consumers[kill % 2] = start(&bench).await;
    }
    let jetstream = bench.nats.jetstream().await;
    progress(&bench, RECORDS).await;
    let took = began.elapsed();
    until("every message is acknowledged", async || {
        durable(&jetstream)
            .await
            .is_some_and(|info| info.num_pending == 0 && info.num_ack_pending == 0)
    })
    .await;

    let stored = bench.loki.stored();
    let lines: HashSet<_> = stored.iter().map(|entry| &entry.line).collect();
    assert_eq!(lines.len(), RECORDS, "nothing is lost");
    assert_eq!(stored.len(), RECORDS, "nothing is doubled");
    let repeated: usize = bench.loki.pushes().iter().map(|push| push.entries.len()).sum();
    eprintln!("{repeated} entries were pushed for {RECORDS} records in {took:?}");
}

#[tokio::test]
async fn a_backlog_of_days_is_drained_in_order_of_time_so_that_nothing_is_late() {
    let bench = Bench::new().await;
    bench.loki.limit(testbed::LokiLimits::default());
    let records = 20_000;
    publish_backlog(&bench, records, 5 * 24 * 60 * MINUTE).await;
    let consumer = bench.consumer().start().await;
    progress(&bench, records).await;
    bench.all_acknowledged().await;
    assert_eq!(bench.loki.count(), records);
    assert_eq!(consumer.metric("sidelog_records_late_total", "").await, 0.0);
    assert_eq!(consumer.metric("sidelog_dead_letters_total", "").await, 0.0);
}
