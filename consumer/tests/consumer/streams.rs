//! A stream that the store refuses holds up no other.

use std::collections::HashSet;
use std::time::Duration;

use testbed::wait::until;

use crate::bench::{Bench, dead_letters, durable, frame, line, publish_all, sorted};

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

/// Lines of a service, together twice what a consumer of 4 MiB may hold.
fn large_of_service(service: &str) -> Vec<String> {
    let filler = format!(r#"{{"filler":"{}","#, "x".repeat(40_000));
    let lines = of_service(service, 0..200).into_iter();
    lines.map(|line| line.replacen('{', &filler, 1)).collect()
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
    let noisy = large_of_service("noisy");
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

/// What is given back counts as pending with NATS, too: the durable's limit has to have room for what others wait behind.
#[tokio::test]
async fn many_small_messages_of_a_service_that_the_store_refuses_hold_up_no_other() {
    const NOISY: usize = 40_000;
    let bench = Bench::new().await;
    bench.loki.rate_limit(|labels| labels.contains("noisy"));
    let _consumer = bench.consumer().env("SIDELOG_SOURCE__ACK_WAIT", "5s").start().await;
    let jetstream = bench.nats.jetstream().await;
    for numbers in (0..NOISY).collect::<Vec<_>>().chunks(2_000) {
        let lines = numbers
            .iter()
            .map(|number| line(*number).replace("api-service", "noisy"));
        publish_all(&jetstream, lines).await;
    }
    let quiet = of_service("quiet", 0..100);
    bench.publish(frame(&quiet)).await;
    bench.loki.stores(100).await;
    assert_eq!(sorted(stored_of(&bench, "quiet")), sorted(quiet));

    bench.loki.rate_limit(|_| false);
    bench.all_acknowledged().await;
    assert_eq!(stored_of(&bench, "noisy").len(), NOISY);
}

#[tokio::test]
async fn a_service_whose_entries_are_all_refused_holds_up_no_other() {
    let bench = Bench::new().await;
    bench
        .loki
        .refuse(|entry| entry.labels.contains("odd").then(|| "too odd".to_owned()));
    bench
        .loki
        .slow(Duration::from_millis(50), |labels| labels.contains("odd"));
    let consumer = bench.consumer().env("SIDELOG_SOURCE__MEMORY_MAX", "4MiB").start().await;
    let odd = large_of_service("odd");
    for line in &odd {
        bench.publish(frame(&[line])).await;
    }
    let quiet = of_service("quiet", 0..100);
    bench.publish(frame(&quiet)).await;
    bench.loki.stores(100).await;
    let dead = consumer.metric("sidelog_dead_letters_total", "").await;
    assert!(dead < 75.0, "the others waited until {dead} of 200 were set aside");

    bench.loki.slow(Duration::ZERO, |_| false);
    bench.all_acknowledged().await;
    assert_eq!(sorted(bench.loki.lines()), sorted(quiet));
    assert_eq!(
        dead_letters(&bench.nats.jetstream().await, odd.len()).await.len(),
        odd.len()
    );
}

#[tokio::test]
async fn a_service_that_the_store_is_slow_with_holds_up_no_other() {
    let bench = Bench::new().await;
    bench
        .loki
        .slow(Duration::from_millis(2_200), |labels| labels.contains("slow"));
    let consumer = bench.consumer().env("SIDELOG_SOURCE__MEMORY_MAX", "4MiB").start().await;
    let (slow, quiet) = (large_of_service("slow"), of_service("quiet", 0..100));
    for (slow, quiet) in slow.chunks(20).zip(quiet.chunks(10)) {
        for line in slow {
            bench.publish(frame(&[line])).await;
        }
        bench.publish(frame(quiet)).await;
    }
    until("the others are stored", async || {
        stored_of(&bench, "quiet").len() == 100
    })
    .await;
    let stored = stored_of(&bench, "slow").len();
    assert!(stored <= 100, "the others waited until {stored} of 200 were stored");
    assert!(consumer.metric("sidelog_consumer_given_back_total", "").await > 0.0);

    bench.loki.slow(Duration::ZERO, |_| false);
    bench.all_acknowledged().await;
    assert_eq!(bench.loki.count(), 300);
}

#[tokio::test]
async fn a_service_that_fills_the_memory_before_the_store_refuses_it_holds_up_no_other() {
    let bench = Bench::new().await;
    bench.loki.rate_limit(|labels| labels.contains("noisy"));
    bench
        .loki
        .slow(Duration::from_millis(500), |labels| labels.contains("noisy"));
    let noisy = large_of_service("noisy");
    for line in &noisy {
        bench.publish(frame(&[line])).await;
    }
    let quiet = of_service("quiet", 0..100);
    bench.publish(frame(&quiet)).await;
    let _consumer = bench.consumer().env("SIDELOG_SOURCE__MEMORY_MAX", "4MiB").start().await;
    bench.loki.stores(100).await;
    assert_eq!(sorted(stored_of(&bench, "quiet")), sorted(quiet));

    bench.loki.rate_limit(|_| false);
    bench.loki.slow(Duration::ZERO, |_| false);
    bench.all_acknowledged().await;
    assert_eq!(sorted(stored_of(&bench, "noisy")), sorted(noisy));
}

#[tokio::test]
async fn a_stream_of_which_each_message_has_a_line_does_not_keep_the_memory_until_its_push_is_full() {
    let bench = Bench::new().await;
    let _consumer = bench
        .consumer()
        .env("SIDELOG_SOURCE__MEMORY_MAX", "4MiB")
        .env("SIDELOG_LOKI__BATCH_WAIT", "1h")
        .start()
        .await;
    let (common, rare) = (large_of_service("common"), of_service("rare", 0..200));
    for (number, (common, rare)) in common.iter().zip(&rare).enumerate() {
        bench.publish(frame(&[common, rare])).await;
        // As it comes: about 26 are a full push. 100 have room in its memory.
        until("all full pushes are stored", async || {
            stored_of(&bench, "common").len() + 26 >= number
        })
        .await;
    }
    assert!(!stored_of(&bench, "rare").is_empty());
}

#[tokio::test]
async fn a_service_that_the_store_always_fails_with_holds_up_no_other() {
    let bench = Bench::new().await;
    bench.loki.fail(|labels| labels.contains("poison"));
    let (poison, quiet) = (large_of_service("poison"), of_service("quiet", 0..100));
    for (poison, quiet) in poison.chunks(20).zip(quiet.chunks(10)) {
        for line in poison {
            bench.publish(frame(&[line])).await;
        }
        bench.publish(frame(quiet)).await;
    }
    let consumer = bench.consumer().env("SIDELOG_SOURCE__MEMORY_MAX", "4MiB").start().await;
    bench.loki.stores(100).await;
    assert_eq!(sorted(bench.loki.lines()), sorted(quiet));
    assert!(consumer.metric("sidelog_consumer_given_back_total", "").await > 0.0);

    bench.loki.fail(|_| false);
    bench.all_acknowledged().await;
    assert_eq!(sorted(stored_of(&bench, "poison")), sorted(poison));
}

#[tokio::test]
async fn a_service_that_the_store_fails_with_after_a_restart_lets_others_pass() {
    let bench = Bench::new().await;
    bench.loki.fail(|labels| labels.contains("poison"));
    let consumer = || bench.consumer().env("SIDELOG_SOURCE__MEMORY_MAX", "4MiB");
    let mut before = consumer().start().await;
    let poison = &large_of_service("poison")[..80];
    for line in poison {
        bench.publish(frame(&[line])).await;
    }
    until("its memory is full", async || {
        before.metric("sidelog_consumer_inflight_bytes", "").await > 3e6
    })
    .await;
    let pushes = bench.loki.pushes().len();
    bench.loki.gets(pushes + 6).await;
    let given_back = before.metric("sidelog_consumer_given_back_total", "").await;
    assert_eq!(given_back, 0.0, "nothing tells it from an outage");
    before.kill();

    let after = consumer().start().await;
    until("all came again", async || {
        after.metric("sidelog_consumer_redelivered_total", "").await >= 80.0
    })
    .await;
    let quiet = of_service("quiet", 0..100);
    bench.publish(frame(&quiet)).await;
    bench.loki.stores(100).await;
    assert_eq!(sorted(bench.loki.lines()), sorted(quiet));
    bench.loki.fail(|_| false);
    bench.all_acknowledged().await;
    assert_eq!(bench.loki.count(), 180);
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

#[tokio::test]
async fn a_durable_without_room_for_more_is_told_until_it_has_some() {
    let bench = Bench::new().await;
    bench.loki.rate_limit(|labels| labels.contains("noisy"));
    let consumer = bench
        .consumer()
        .env("SIDELOG_SOURCE__MAX_ACK_PENDING", "1024")
        .start()
        .await;
    let held = async || consumer.metric("sidelog_consumer_held", "part=\"durable\"").await;
    let jetstream = bench.nats.jetstream().await;
    publish_all(&jetstream, of_service("noisy", 0..1_500)).await;
    bench.publish(frame(&of_service("quiet", 0..10))).await;
    until("it is told why nothing more comes", async || held().await == 1.0).await;
    assert_eq!(consumer.metric("sidelog_consumer_pending_messages", "").await, 1024.0);
    assert_eq!(
        consumer.metric("sidelog_consumer_pending_limit_messages", "").await,
        1024.0
    );
    let output = consumer.output();
    let told: Vec<_> = output
        .lines()
        .filter(|line| line.contains("raise source.max_ack_pending"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");

    bench.loki.rate_limit(|_| false);
    bench.all_acknowledged().await;
    until("it is over", async || held().await == 0.0).await;
}

#[tokio::test]
async fn a_durable_with_less_room_than_the_settings_say_is_raised_if_a_consumer_made_it() {
    let bench = Bench::new().await;
    let jetstream = bench.nats.jetstream().await;
    let room = async || durable(&jetstream).await.map(|info| info.config.max_ack_pending);
    let mut earlier = bench
        .consumer()
        .env("SIDELOG_SOURCE__MAX_ACK_PENDING", "16384")
        .start()
        .await;
    until("there is a durable", async || room().await == Some(16_384)).await;
    bench.publish(frame(&[line(1)])).await;
    bench.all_acknowledged().await;
    earlier.kill();

    let mut later = bench.consumer().start().await;
    until("it is raised", async || room().await == Some(131_072)).await;
    bench.publish(frame(&[line(2)])).await;
    bench.all_acknowledged().await;
    assert_eq!(bench.loki.count(), 2, "it goes on where it was");
    assert!(!later.output().contains("the durable differs"), "{}", later.output());
    later.kill();

    let mut of_operator = durable(&jetstream).await.expect("the durable").config;
    (of_operator.description, of_operator.max_ack_pending) = (None, 2_000);
    jetstream
        .update_consumer_on_stream(of_operator, "logs")
        .await
        .expect("an edited durable");
    let last = bench.consumer().start().await;
    until("the difference is told", async || {
        last.output().contains("max_ack_pending is 2000, not 131072")
    })
    .await;
    assert_eq!(room().await, Some(2_000));
}
