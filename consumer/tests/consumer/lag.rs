//! How far behind it is, and what is in its way.

use testbed::wait::{obtain, until};
use testbed::{Answer, Sidelog, http};

use crate::bench::{Bench, frame, line};

async fn age(consumer: &Sidelog) -> f64 {
    consumer.metric("sidelog_consumer_lag_age_seconds", "").await
}

async fn lag(consumer: &Sidelog) -> f64 {
    consumer.metric("sidelog_consumer_lag_messages", "").await
}

#[tokio::test]
async fn the_lag_grows_while_the_store_is_away_and_is_gone_when_it_is_back() {
    let mut bench = Bench::new().await;
    bench.loki.always(Answer::Status(503, String::new()));
    let consumer = bench.consumer().start().await;
    for number in 0..5 {
        bench.publish(frame(&[line(number)])).await;
    }
    until("five messages are behind", async || lag(&consumer).await == 5.0).await;
    let before = obtain("they have an age", async || {
        Some(age(&consumer).await).filter(|age| *age > 0.0)
    })
    .await;
    // Also while nobody can be asked.
    bench.nats.kill();
    until("they grow older", async || age(&consumer).await > before).await;
    until("it tells that NATS is away", async || {
        consumer.metric("sidelog_nats_connected", "").await == 0.0
    })
    .await;
    bench.nats.restart().await;
    bench.loki.always(Answer::Store);
    bench.all_acknowledged().await;
    until("nothing is behind any more", async || {
        (lag(&consumer).await, age(&consumer).await) == (0.0, 0.0)
    })
    .await;
    let stored: usize = bench.loki.lines().iter().map(String::len).sum();
    assert_eq!(consumer.metric("sidelog_stored_bytes_total", "").await, stored as f64);
    assert_eq!(consumer.metric("sidelog_nats_connected", "").await, 1.0);
}

#[tokio::test]
async fn what_the_stream_may_lose_is_told_beside_its_limits() {
    let bench = Bench::new().await;
    let jetstream = bench.nats.jetstream().await;
    let mut config = jetstream.get_stream("logs").await.unwrap().cached_info().config.clone();
    config.max_bytes = 1 << 20;
    config.max_age = std::time::Duration::from_secs(3600);
    jetstream.update_stream(config).await.unwrap();
    bench.publish(frame(&[line(1)])).await;
    let consumer = bench.consumer().start().await;
    bench.all_acknowledged().await;
    until("the stream was looked at", async || {
        consumer.metric("sidelog_consumer_stream_bytes", "").await > 100.0
    })
    .await;
    let told = async |name: &str| consumer.metric(name, "").await;
    assert_eq!(told("sidelog_consumer_stream_limit_bytes").await, f64::from(1 << 20));
    assert_eq!(told("sidelog_consumer_stream_limit_seconds").await, 3600.0);
    let age = told("sidelog_consumer_stream_age_seconds").await;
    assert!(age > 0.0 && age < 60.0, "{age}");
    for (metric, expected) in [
        ("sidelog_consumer_label_values", 1.0),
        ("sidelog_consumer_label_values_limit", 100.0),
    ] {
        assert_eq!(consumer.metric(metric, "label=\"service\"").await, expected, "{metric}");
    }
}

#[tokio::test]
async fn what_is_in_the_way_is_told_and_why_until_it_is_not() {
    let bench = Bench::new().await;
    bench.loki.always(Answer::Status(401, String::new()));
    let consumer = bench.consumer().start().await;
    let held = async |labels: &str| consumer.metric("sidelog_consumer_held", labels).await;
    assert_eq!(held("").await, 0.0);
    bench.publish(frame(&[line(1)])).await;
    until("the store is in the way", async || {
        held("part=\"sink\",reason=\"unauthorized\"").await == 1.0
    })
    .await;
    assert_eq!(held("").await, 1.0, "and nothing else is");
    let ready = async || {
        let url = format!("{}/readyz", consumer.admin_url());
        let answer = http::client().get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, text) = ready().await;
    assert_eq!(status, 200, "{text}");
    assert!(text.starts_with("ok\nsink is held for "), "{text}");
    assert!(text.ends_with(" s: unauthorized; the log says what to do\n"), "{text}");
    bench.loki.always(Answer::Store);
    bench.all_acknowledged().await;
    assert_eq!(held("").await, 0.0);
    assert_eq!(ready().await, (200, "ok\n".to_owned()));
}
