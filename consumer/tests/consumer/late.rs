//! Entries that the store refuses for their time.

use testbed::{Answer, LokiLimits};

use crate::bench::{Bench, dead_letters, frame, line_at, now, sorted};

const HOUR: u64 = 3_600_000_000_000;

#[tokio::test]
async fn entries_too_far_behind_their_stream_are_stored_in_the_stream_of_their_hour() {
    let bench = Bench::new().await;
    bench.loki.limit(LokiLimits::default());
    let consumer = bench.consumer().start().await;
    let newest = now();
    let fresh: Vec<_> = (0..20).map(|number| line_at(number, newest + number as u64)).collect();
    bench.publish(frame(&fresh)).await;
    bench.loki.stores(20).await;
    // What a proxy sends that was cut off for some hours, among what others send.
    let behind: Vec<_> = (20..60)
        .map(|number| line_at(number, newest - 10 * HOUR + number as u64 * HOUR / 20))
        .collect();
    let mixed = [&behind[..25], &[line_at(60, newest + 60)][..], &behind[25..]].concat();
    bench.publish(frame(&mixed)).await;
    bench.all_acknowledged().await;

    assert_eq!(sorted(bench.loki.lines()), sorted([fresh, mixed].concat()));
    let late: Vec<_> = bench
        .loki
        .stored()
        .into_iter()
        .filter(|entry| entry.label("late").is_some())
        .collect();
    assert_eq!(late.len(), behind.len());
    for entry in &late {
        let record = entry.text();
        let hour = entry.label("late").unwrap();
        assert!(
            record.contains(&format!(r#""observed_timestamp":"{hour}:"#)),
            "{hour}: {record}"
        );
        assert_eq!(entry.label("service"), Some("api-service"));
    }
    assert_eq!(consumer.metric("sidelog_records_late_total", "").await, 40.0);
    assert_eq!(consumer.metric("sidelog_records_stored_total", "").await, 61.0);
    assert_eq!(consumer.metric("sidelog_dead_letters_total", "").await, 0.0);
    // Loki's words tell which ones: one refusal, and one push for each hour and the rest.
    let pushes = bench.loki.pushes().len();
    assert!(pushes <= 8, "{pushes}");
}

#[tokio::test]
async fn entries_that_no_stream_takes_are_dead_by_their_reason_in_few_pushes() {
    let bench = Bench::new().await;
    bench.loki.limit(LokiLimits::default());
    let _consumer = bench.consumer().start().await;
    let newest = now();
    let good: Vec<_> = (0..50).map(|number| line_at(number, newest + number as u64)).collect();
    let old = (50..250).map(|number| line_at(number, newest - 200 * HOUR + number as u64));
    let new = [line_at(250, newest + HOUR)];
    let lines: Vec<_> = good.iter().cloned().chain(old).chain(new).collect();
    bench.publish(frame(&lines)).await;

    let dead = dead_letters(&bench.nats.jetstream().await, 201).await;
    bench.all_acknowledged().await;
    assert_eq!(sorted(bench.loki.lines()), sorted(good));
    let count = |reason: &str| dead.iter().filter(|dead| dead.reason == reason).count();
    assert_eq!((count("too_old"), count("too_new")), (200, 1));
    assert!(dead.iter().all(|dead| dead.detail.contains("has timestamp too")));
    let pushes = bench.loki.pushes().len();
    assert!(pushes < 20, "{pushes}");
}

/// The bound of what Loki can know again: the README tells it.
#[tokio::test]
async fn what_died_unacknowledged_and_fell_more_than_an_hour_behind_is_stored_under_late_once_more() {
    let bench = Bench::new().await;
    bench.loki.limit(LokiLimits::default());
    let newest = now();
    let (early, next) = (line_at(1, newest - 2 * HOUR), line_at(2, newest));
    let consumer = || bench.consumer().env("SIDELOG_SOURCE__ACK_WAIT", "3s");
    bench.loki.always(Answer::StoreAndFail);
    let mut first = consumer().start().await;
    bench.publish(frame(&[&early])).await;
    bench.loki.stores(1).await;
    first.kill();

    bench.loki.always(Answer::Store);
    let _second = consumer().start().await;
    bench.publish(frame(&[&next])).await;
    bench.all_acknowledged().await;
    let stored = bench.loki.stored().into_iter();
    let mut stored: Vec<_> = stored
        .map(|entry| (entry.text(), entry.label("late").is_some()))
        .collect();
    stored.sort();
    let mut expected = [(early.clone(), false), (early, true), (next, false)];
    expected.sort();
    assert_eq!(stored, expected);
}
