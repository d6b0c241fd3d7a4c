//! A stream that the store refuses holds up no other.

use std::collections::HashSet;

use testbed::wait::until;

use crate::bench::{Bench, frame, line, sorted};

fn of_service(service: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers
        .map(|number| line(number).replace("api-service", service))
        .collect()
}

fn stored_of(bench: &Bench, service: &str) -> Vec<String> {
    let stored = bench.loki.stored().into_iter();
    let of_service = stored.filter(|entry| entry.label("service") == Some(service));
    of_service.map(|entry| entry.text()).collect()
}

#[tokio::test]
async fn a_stream_above_its_rate_waits_alone_and_loses_nothing() {
    let bench = Bench::new().await;
    bench.loki.rate_limit(|labels| labels.contains("noisy"));
    let consumer = bench.consumer().start().await;
    let (noisy, quiet) = (of_service("noisy", 0..50), of_service("quiet", 50..100));
    let mixed: Vec<_> = noisy
        .iter()
        .zip(&quiet)
        .flat_map(|(noisy, quiet)| [noisy, quiet])
        .collect();
    bench.publish(frame(&mixed)).await;
    bench.loki.stores(50).await;
    assert_eq!(sorted(stored_of(&bench, "quiet")), sorted(quiet));
    until("the operator is told which stream waits, and what to do", async || {
        let output = consumer.output();
        output.contains("per_stream_rate_limit") && output.contains(r#"service="noisy""#)
    })
    .await;
    assert_eq!(consumer.metric("sidelog_consumer_streams_held", "").await, 1.0);

    bench.loki.rate_limit(|_| false);
    bench.all_acknowledged().await;
    assert_eq!(sorted(stored_of(&bench, "noisy")), sorted(noisy));
    assert_eq!(consumer.metric("sidelog_consumer_streams_held", "").await, 0.0);
}

#[tokio::test]
async fn a_refusal_that_loki_hides_behind_a_204_can_not_happen() {
    let bench = Bench::new().await;
    // Answered 204 if another stream came last in the same push.
    bench.loki.rate_limit(|labels| labels.contains("\"a"));
    let _consumer = bench.consumer().env("SIDELOG_LOKI__BATCH_WAIT", "200ms").start().await;
    let lines: Vec<_> = ["a1", "a2", "b1", "b2", "z"]
        .iter()
        .flat_map(|service| of_service(service, 0..10))
        .collect();
    bench.publish(frame(&lines)).await;
    bench.loki.stores(30).await;
    bench.loki.rate_limit(|_| false);
    bench.all_acknowledged().await;
    assert_eq!(sorted(bench.loki.lines()), sorted(lines));
    for push in bench.loki.pushes() {
        let streams: HashSet<_> = push.entries.iter().map(|entry| &entry.labels).collect();
        assert_eq!(streams.len(), 1, "{streams:?}");
    }
}

#[tokio::test]
async fn a_service_that_the_store_refuses_holds_up_no_other() {
    let bench = Bench::new().await;
    bench.loki.rate_limit(|labels| labels.contains("noisy"));
    let consumer = bench.consumer().env("SIDELOG_SOURCE__MEMORY_MAX", "4MiB").start().await;
    // Twice what it may hold.
    let filler = format!(r#"{{"filler":"{}","#, "x".repeat(40_000));
    let noisy: Vec<_> = of_service("noisy", 0..200)
        .iter()
        .map(|line| line.replacen('{', &filler, 1))
        .collect();
    for line in &noisy {
        bench.publish(frame(&[line])).await;
    }
    let quiet = of_service("quiet", 0..100);
    bench.publish(frame(&quiet)).await;
    bench.loki.stores(100).await;
    assert_eq!(sorted(stored_of(&bench, "quiet")), sorted(quiet));
    assert!(consumer.metric("sidelog_consumer_given_back_total", "").await > 0.0);

    bench.loki.rate_limit(|_| false);
    bench.all_acknowledged().await;
    assert_eq!(sorted(stored_of(&bench, "noisy")), sorted(noisy));
}

#[tokio::test]
async fn a_push_that_always_fails_holds_up_no_other_stream() {
    let bench = Bench::new().await;
    bench.loki.fail(|labels| labels.contains("poison"));
    let _consumer = bench.consumer().start().await;
    let poison: Vec<_> = (0..6)
        .flat_map(|number| of_service(&format!("poison-{number}"), 0..5))
        .collect();
    bench.publish(frame(&poison)).await;
    bench.loki.gets(6).await;
    let quiet = of_service("quiet", 0..50);
    for line in &quiet {
        bench.publish(frame(&[line])).await;
    }
    bench.loki.stores(50).await;
    assert_eq!(sorted(bench.loki.lines()), sorted(quiet));
    bench.loki.fail(|_| false);
    bench.all_acknowledged().await;
    assert_eq!(bench.loki.stored().len(), 80);
}
