//! What the store answers, and what becomes of the records.

use std::time::{Duration, Instant};

use testbed::Answer;
use testbed::wait::until;

use crate::bench::{Bench, dead_letters, frame, line, sorted};

#[tokio::test]
async fn a_record_arrives_with_its_labels_metadata_time_and_line_as_published() {
    let bench = Bench::new().await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "s3cret\n").unwrap();
    let consumer = bench
        .consumer()
        .env("SIDELOG_LOKI__TENANT", "team-a")
        .env("SIDELOG_LOKI__BEARER_TOKEN_FILE", token.path().display())
        .start()
        .await;
    let line = line(1);
    bench.publish(frame(&[&line])).await;
    bench.all_acknowledged().await;

    let stored = bench.loki.stored();
    assert_eq!(stored.len(), 1);
    let entry = &stored[0];
    assert_eq!(entry.text(), line);
    assert_eq!(entry.labels, r#"{env="test", level="info", service="api-service"}"#);
    let record = sidelog_record::Record::decode(line.as_bytes()).unwrap();
    assert_eq!(entry.timestamp, record.observed_timestamp);
    for (name, value) in [
        ("trace_id", "07070707070707070707070707070707"),
        ("span_id", "0909090909090909"),
        ("http_request_method", "GET"),
        ("http_route", "/items/{id}"),
        ("http_response_status_code", "200"),
    ] {
        assert_eq!(entry.meta(name), Some(value), "{name}");
    }
    assert_eq!(entry.metadata.len(), 5, "{:?}", entry.metadata);
    let push = &bench.loki.pushes()[0];
    assert_eq!(push.headers["x-scope-orgid"], "team-a");
    assert_eq!(push.headers["authorization"], "Bearer s3cret");
    assert!(!consumer.output().contains("s3cret"));
}

#[tokio::test]
async fn whatever_is_not_a_204_is_pushed_again_until_it_is_and_the_operator_is_told_what_to_do() {
    let bench = Bench::new().await;
    let consumer = bench.consumer().start().await;
    let cases = [
        (Answer::Blocked, "block_ingestion_until"),
        (Answer::RateLimited(None), "ingestion_rate_mb"),
        (Answer::Status(200, String::new()), "only 204"),
        (Answer::Status(302, String::new()), "final address into loki.url"),
        (
            Answer::Status(401, "no org id".to_owned()),
            "loki.tenant; it says: no org id",
        ),
        (
            Answer::Status(403, String::new()),
            "may not write; check loki.basic_auth",
        ),
        (Answer::Status(404, String::new()), "check the path of loki.url"),
        (Answer::Status(500, String::new()), "answered 500"),
        // The same kind again so soon is not told again.
        (Answer::Status(503, String::new()), ""),
        (Answer::StoreAndFail, ""),
    ];
    for (number, (answer, told)) in cases.iter().enumerate() {
        let pushes = bench.loki.pushes().len();
        bench.loki.script([answer.clone(), answer.clone()]);
        bench.publish(frame(&[line(number)])).await;
        bench.loki.gets(pushes + 3).await;
        bench.all_acknowledged().await;
        assert_eq!(bench.loki.stored().len(), number + 1, "{answer:?}");
        let statuses: Vec<_> = bench.loki.pushes()[pushes..].iter().map(|push| push.status).collect();
        assert_eq!(statuses.len(), 3, "{answer:?}: {statuses:?}");
        assert!(consumer.output().contains(told), "{answer:?}: {told}");
    }
    assert_eq!(consumer.metric("sidelog_consumer_redelivered_total", "").await, 0.0);
    assert_eq!(
        consumer.metric("sidelog_records_stored_total", "").await,
        cases.len() as f64
    );
    assert_eq!(consumer.metric("sidelog_pushes_total", "status=\"260\"").await, 2.0);
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let bench = Bench::new().await;
    bench.loki.script([Answer::RateLimited(Some(1))]);
    let _consumer = bench.consumer().start().await;
    bench.publish(frame(&[line(1)])).await;
    bench.loki.gets(1).await;
    let first = Instant::now();
    bench.loki.stores(1).await;
    // The backoff alone would have been at most 100 ms; the first push was seen up to a moment late.
    assert!(first.elapsed() > Duration::from_millis(800), "{:?}", first.elapsed());
}

#[tokio::test]
async fn what_is_held_for_long_is_not_delivered_again() {
    let bench = Bench::new().await;
    bench.loki.always(Answer::Status(503, String::new()));
    let consumer = bench.consumer().start().await;
    bench.publish(frame(&[line(1)])).await;
    bench.loki.gets(1).await;
    let held = Instant::now();
    // Three times ack_wait.
    until("the store has been away for 3 s", async || {
        held.elapsed() > Duration::from_secs(3)
    })
    .await;
    bench.loki.always(Answer::Store);
    bench.all_acknowledged().await;
    assert_eq!(bench.loki.stored().len(), 1);
    assert_eq!(consumer.metric("sidelog_consumer_redelivered_total", "").await, 0.0);
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved_until_it_fits_and_what_never_fits_is_set_aside() {
    let bench = Bench::new().await;
    bench.loki.max_body(4_000);
    let consumer = bench.consumer().start().await;
    let lines: Vec<_> = (0..50).map(line).collect();
    let huge = line(99).replacen('{', &format!(r#"{{"filler":"{}","#, "x".repeat(5_000)), 1);
    let mut all = lines.clone();
    all.insert(20, huge.clone());
    bench.publish(frame(&all)).await;

    let dead = dead_letters(&bench.nats.jetstream().await, 1).await;
    bench.all_acknowledged().await;
    assert_eq!(
        (dead[0].reason.as_str(), dead[0].subject.as_str()),
        ("too_large", "logs_dead.api-service")
    );
    assert_eq!(dead[0].payload, huge);
    assert_eq!(sorted(bench.loki.lines()), sorted(lines));
    assert_eq!(
        consumer
            .metric("sidelog_dead_letters_total", "reason=\"too_large\"")
            .await,
        1.0
    );
}

#[tokio::test]
async fn entries_that_the_store_refuses_are_set_aside_with_its_reason_and_the_others_are_stored_once() {
    let bench = Bench::new().await;
    let is_refused = |number: usize| number % 17 == 3;
    bench.loki.refuse(|entry| {
        let record = entry.text();
        let number = record
            .split("/items/")
            .nth(1)?
            .split('"')
            .next()?
            .parse::<usize>()
            .ok()?;
        (number % 17 == 3).then(|| "stream has too many structured metadata labels\n".to_owned())
    });
    let _consumer = bench.consumer().start().await;
    let lines: Vec<_> = (0..100).map(line).collect();
    bench.publish(frame(&lines[..60])).await;
    bench.publish(frame(&lines[60..])).await;

    let (refused, stored): (Vec<_>, Vec<_>) = lines
        .into_iter()
        .enumerate()
        .partition(|(number, _)| is_refused(*number));
    let texts = |pairs: Vec<(usize, String)>| pairs.into_iter().map(|(_, line)| line).collect::<Vec<_>>();
    let dead = dead_letters(&bench.nats.jetstream().await, refused.len()).await;
    bench.all_acknowledged().await;
    assert_eq!(sorted(bench.loki.lines()), sorted(texts(stored)));
    let payloads = dead
        .iter()
        .map(|dead| String::from_utf8_lossy(&dead.payload).into_owned());
    assert_eq!(sorted(payloads.collect()), sorted(texts(refused)));
    assert!(
        dead.iter()
            .all(|dead| dead.reason == "refused" && dead.detail == "stream has too many structured metadata labels")
    );
}

#[tokio::test]
async fn services_beyond_the_limit_share_a_stream() {
    let bench = Bench::new().await;
    let _consumer = bench.consumer().env("SIDELOG_LOKI__MAX_SERVICES", "2").start().await;
    for service in ["a", "b", "c", "d", "a"] {
        bench.publish(line(1).replace("api-service", service)).await;
        bench.all_acknowledged().await;
    }
    let stored = bench.loki.stored();
    let services: Vec<_> = stored.iter().filter_map(|entry| entry.label("service")).collect();
    assert_eq!(services, ["a", "b", "other", "other", "a"]);
}
