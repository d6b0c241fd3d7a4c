//! Stores, servers and consumers that go away and come back.

use std::time::{Duration, Instant};

use testbed::wait::until;
use testbed::{Answer, NatsServer, VictoriaLogs};

use crate::bench::{
    Bench, all_acknowledged, consumer, durable, frame, line, make_stream, publish, publish_all, sorted,
};

const AT_ONCE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_store_that_goes_away_and_comes_back_gets_everything() {
    let nats = NatsServer::start().await;
    let mut store = VictoriaLogs::start().await;
    let jetstream = nats.jetstream().await;
    make_stream(&jetstream).await;
    store.stop().await;
    let consumer = consumer(&nats.url()).env("LOKI_URL", store.push_url()).start().await;
    let lines: Vec<_> = (0..300).map(line).collect();
    for part in lines[..200].chunks(10) {
        publish(&jetstream, frame(part)).await;
    }
    until("the operator is told", async || {
        consumer.output().contains("failed to reach the store")
    })
    .await;
    store.restart().await;
    for part in lines[200..].chunks(10) {
        publish(&jetstream, frame(part)).await;
    }
    all_acknowledged(&jetstream).await;
    assert_eq!(sorted(store.lines("*").await), sorted(lines));
    until("the end of the outage is told", async || {
        consumer.output().contains("works again")
    })
    .await;
    let unreachable = consumer.output().matches("failed to reach the store").count();
    assert_eq!(unreachable, 1, "an outage is told once");
}

#[tokio::test]
async fn a_nats_server_that_is_killed_and_comes_back_loses_and_doubles_nothing() {
    let mut bench = Bench::new().await;
    let consumer = bench.consumer().start().await;
    let lines: Vec<_> = (0..60).map(line).collect();
    for round in lines.chunks(20) {
        for line in round {
            bench.publish(frame(&[line])).await;
        }
        bench.nats.restart().await;
    }
    bench.loki.stores(60).await;
    bench.all_acknowledged().await;
    assert_eq!(sorted(bench.loki.lines()), sorted(lines));
    let output = consumer.output();
    assert!(output.contains("lost the connection to NATS"));
    let told = output.matches("the NATS stream differs from the settings").count();
    assert_eq!(told, 1, "what an operator made otherwise is told once");
}

#[tokio::test]
async fn it_starts_before_the_server_and_the_stream_are_there() {
    let mut nats = NatsServer::start().await;
    nats.stop().await;
    let loki = testbed::LokiDouble::start();
    let _consumer = consumer(&nats.url()).env("LOKI_URL", loki.push_url()).start().await;
    nats.restart().await;
    let jetstream = nats.jetstream().await;
    until("the consumer makes stream and durable", async || {
        durable(&jetstream).await.is_some()
    })
    .await;
    let line = line(1);
    publish(&jetstream, frame(&[&line])).await;
    loki.stores(1).await;
    assert_eq!(loki.lines(), [line]);
}

#[tokio::test]
async fn a_stream_and_a_durable_that_are_deleted_are_made_anew() {
    let bench = Bench::new().await;
    let consumer = bench.consumer().start().await;
    let jetstream = bench.nats.jetstream().await;
    bench.publish(frame(&[line(1)])).await;
    bench.all_acknowledged().await;

    let stream = jetstream.get_stream("logs").await.unwrap();
    stream.delete_consumer("sidelog-consumer").await.unwrap();
    bench.publish(frame(&[line(2)])).await;
    until("the record behind the new durable is stored", async || {
        bench.loki.lines().iter().any(|line| line.contains("/items/2"))
    })
    .await;

    jetstream.delete_stream("logs").await.unwrap();
    until("the consumer makes the stream", async || {
        durable(&jetstream).await.is_some()
    })
    .await;
    bench.publish(frame(&[line(3)])).await;
    until("the record of the new stream is stored", async || {
        bench.loki.lines().iter().any(|line| line.contains("/items/3"))
    })
    .await;
    bench.all_acknowledged().await;
    assert!(consumer.output().contains("the durable was made anew"));
}

#[tokio::test]
async fn told_to_stop_while_the_store_is_away_it_ends_in_time_and_the_next_one_stores_everything() {
    let mut bench = Bench::new().await;
    bench.loki.kill();
    let mut first = bench.consumer().env("SIDELOG_SHUTDOWN__DEADLINE", "2s").start().await;
    let lines: Vec<_> = (0..50).map(line).collect();
    for part in lines.chunks(5) {
        bench.publish(frame(part)).await;
    }
    until("messages are held", async || {
        first.metric("sidelog_consumer_inflight_bytes", "").await > 0.0
    })
    .await;
    let asked = Instant::now();
    first.terminate();
    let status = first.exit_status(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_millis(2500), "{:?}", asked.elapsed());
    assert!(
        first.output().contains("stopped before everything was stored"),
        "{}",
        first.output()
    );

    bench.loki.restart();
    let _second = bench.consumer().start().await;
    bench.loki.stores(50).await;
    bench.all_acknowledged().await;
    assert_eq!(sorted(bench.loki.lines()), sorted(lines));
}

#[tokio::test]
async fn told_to_stop_it_stores_what_it_holds_before_it_ends() {
    let bench = Bench::new().await;
    let mut consumer = bench.consumer().env("SIDELOG_LOKI__BATCH_WAIT", "1h").start().await;
    bench.publish(frame(&[line(1)])).await;
    until("a message waits in its batch", async || {
        consumer.metric("sidelog_consumer_inflight_bytes", "").await > 0.0
    })
    .await;
    consumer.terminate();
    assert_eq!(consumer.exit_status(AT_ONCE).await.code(), Some(0));
    assert_eq!(bench.loki.stored().len(), 1);
    bench.all_acknowledged().await;
}

#[tokio::test]
async fn with_nothing_to_do_it_ends_at_once_whether_nats_is_there_or_not() {
    let mut bench = Bench::new().await;
    for is_there in [true, false] {
        if !is_there {
            bench.nats.stop().await;
        }
        let mut consumer = bench.consumer().start().await;
        consumer.terminate();
        assert_eq!(consumer.exit_status(AT_ONCE).await.code(), Some(0), "{is_there}");
    }
}

#[tokio::test]
async fn killed_between_push_and_acknowledgement_the_same_bytes_come_again() {
    let bench = Bench::new().await;
    bench.loki.always(Answer::StoreAndFail);
    let lines: Vec<_> = (0..30).map(line).collect();
    let mut first = bench.consumer().start().await;
    bench.publish(frame(&lines)).await;
    bench.loki.gets(1).await;
    first.kill();
    let before = bench.loki.pushes().len();
    bench.loki.always(Answer::Store);
    let second = bench.consumer().start().await;
    bench.all_acknowledged().await;

    let pushes = bench.loki.pushes();
    assert!(pushes.len() > before);
    assert_eq!(pushes[0].entries, pushes[before].entries);
    assert_eq!(sorted(bench.loki.lines()), sorted(lines));
    assert!(second.metric("sidelog_consumer_redelivered_total", "").await >= 1.0);
}

#[tokio::test]
async fn two_consumers_share_the_work_and_one_may_die() {
    let bench = Bench::new().await;
    let mut first = bench.consumer().start().await;
    let _second = bench.consumer().start().await;
    let lines: Vec<_> = (0..400).map(line).collect();
    for (number, part) in lines.chunks(4).enumerate() {
        if number == 50 {
            first.kill();
        }
        bench.publish(frame(part)).await;
    }
    bench.all_acknowledged().await;
    assert_eq!(sorted(bench.loki.lines()), sorted(lines));
}

#[tokio::test]
async fn a_store_that_is_away_does_not_make_it_hold_more_than_its_memory() {
    let mut bench = Bench::new().await;
    bench.loki.kill();
    let consumer = bench.consumer().env("SIDELOG_SOURCE__MEMORY_MAX", "4MiB").start().await;
    let filler = "x".repeat(50_000);
    let lines: Vec<_> = (0..200)
        .map(|number| line(number).replacen('{', &format!(r#"{{"filler":"{filler}","#), 1))
        .collect();
    for line in &lines {
        bench.publish(frame(&[line])).await;
    }
    let jetstream = bench.nats.jetstream().await;
    until("its memory is full", async || {
        durable(&jetstream).await.is_some_and(|info| info.num_ack_pending > 30)
    })
    .await;
    let held = consumer.metric("sidelog_consumer_inflight_bytes", "").await;
    assert!(held <= 4.0 * 1024.0 * 1024.0, "{held}");
    bench.loki.restart();
    bench.all_acknowledged().await;
    assert_eq!(sorted(bench.loki.lines()), sorted(lines));
    let held = consumer.metric("sidelog_consumer_inflight_bytes", "").await;
    assert_eq!(held, 0.0);
}

#[tokio::test]
async fn a_store_that_is_away_does_not_make_many_small_records_cost_more_than_their_memory() {
    const MIB: u64 = 1024 * 1024;
    let mut bench = Bench::new().await;
    bench.loki.kill();
    let record = r#"{"observed_timestamp":"2026-01-31T12:34:56Z","service.name":"api","level":"info","trace_id":"0af7651916cd43dd8448eb211c80319c"}"#;
    let records = 400_000;
    let frames = (0..records / 2000).map(|_| frame(&[record; 2000]));
    publish_all(&bench.nats.jetstream().await, frames).await;
    let consumer = bench
        .consumer()
        .env("SIDELOG_SOURCE__MEMORY_MAX", "32MiB")
        .start()
        .await;
    let began = consumer.resident_bytes();
    let jetstream = bench.nats.jetstream().await;
    until("its memory is full", async || {
        let held = consumer.metric("sidelog_consumer_inflight_bytes", "").await;
        held > 25.0 * MIB as f64 && durable(&jetstream).await.is_some_and(|info| info.num_pending > 0)
    })
    .await;
    until("the store was asked some times", async || {
        consumer.metric("sidelog_pushes_total", "status=\"error\"").await > 20.0
    })
    .await;
    // Messages, half as much for their entries, a push or two, and what the allocator keeps.
    let grown = consumer.resident_bytes() - began;
    assert!(grown < (32 + 16 + 32) * MIB, "{} MiB", grown / MIB);
    bench.loki.restart();
    bench.all_acknowledged().await;
    assert_eq!(
        consumer.metric("sidelog_records_stored_total", "").await,
        f64::from(records)
    );
}

#[tokio::test]
async fn what_expired_while_the_consumer_was_away_is_counted_and_told() {
    let nats = NatsServer::start().await;
    let jetstream = nats.jetstream().await;
    let config = async_nats::jetstream::stream::Config {
        name: "logs".to_owned(),
        subjects: vec!["logs.>".to_owned()],
        max_messages: 50,
        ..Default::default()
    };
    jetstream.create_stream(config).await.unwrap();
    let loki = testbed::LokiDouble::start();
    let command = || consumer(&nats.url()).env("LOKI_URL", loki.push_url());
    let mut first = command().start().await;
    let publish_some = async |numbers: std::ops::Range<usize>| {
        for number in numbers {
            publish(&jetstream, frame(&[line(number)])).await;
        }
    };
    publish_some(0..30).await;
    all_acknowledged(&jetstream).await;
    assert_eq!(first.metric("sidelog_consumer_lost_messages_total", "").await, 0.0);
    first.kill();
    // A message that is sent to a fetch of one that just died counts as delivered.
    until("its fetches are forgotten", async || {
        durable(&jetstream).await.is_some_and(|info| info.num_waiting == 0)
    })
    .await;

    publish_some(30..120).await;
    let second = command().start().await;
    all_acknowledged(&jetstream).await;
    assert_eq!(loki.stored().len(), 30 + 50);
    assert_eq!(second.metric("sidelog_consumer_lost_messages_total", "").await, 40.0);
    let output = second.output();
    assert!(
        output.contains("ERROR") && output.contains("messages left the stream before they were read"),
        "{output}"
    );
}
