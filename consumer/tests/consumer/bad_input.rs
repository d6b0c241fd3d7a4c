//! What is no record is set aside, the rest arrives.

use testbed::wait::until;
use testbed::{LokiDouble, NatsServer, VictoriaLogs};

use crate::bench::{all_acknowledged, consumer, dead_letters, durable, frame, line, make_stream, publish, sorted};

#[tokio::test]
async fn garbage_is_set_aside_with_its_reason_and_the_good_records_of_the_same_frame_arrive() {
    let (nats, store) = (NatsServer::start().await, VictoriaLogs::start().await);
    let jetstream = nats.jetstream().await;
    make_stream(&jetstream).await;
    let consumer = consumer(&nats.url()).env("LOKI_URL", store.push_url()).start().await;

    let good: Vec<_> = (0..3).map(line).collect();
    let cut = good[0].strip_suffix("}").unwrap();
    let long = line(8).replacen('{', &format!(r#"{{"filler":"{}","#, "x".repeat(900_000)), 1);
    let other_schema = line(9).replacen(r#""schema":1"#, r#""schema":2"#, 1);
    let mut payload = format!("{}\nnot json\n{}\n{cut}\n{other_schema}\n[1]\n", good[0], good[1]).into_bytes();
    payload.extend_from_slice(b"{\"a\":\"\xff\"}\n");
    payload.extend_from_slice(good[2].as_bytes());
    publish(&jetstream, payload).await;
    publish(&jetstream, long.clone()).await;
    publish(&jetstream, "").await;

    let dead = dead_letters(&jetstream, 7).await;
    all_acknowledged(&jetstream).await;
    assert_eq!(sorted(store.lines("*").await), sorted(good));
    let told: Vec<_> = dead
        .iter()
        .map(|dead| (dead.reason.as_str(), dead.sequence.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("empty", "3"),
            ("not_an_object", "1"),
            ("not_json", "1"),
            ("not_json", "1"),
            ("not_utf8", "1"),
            ("schema", "1"),
            ("too_long", "2"),
        ]
    );
    let payload_of = |reason: &str| {
        dead.iter()
            .find(|dead| dead.reason == reason)
            .map(|dead| dead.payload.clone())
    };
    assert_eq!(payload_of("too_long").unwrap(), long);
    assert_eq!(payload_of("not_utf8").unwrap(), &b"{\"a\":\"\xff\"}"[..]);
    for dead in &dead {
        let service = if dead.reason == "too_long" {
            "api-service"
        } else {
            "api"
        };
        assert_eq!(dead.subject, format!("logs_dead.{service}"));
        assert!(!dead.detail.is_empty());
        let counted = consumer
            .metric("sidelog_dead_letters_total", &format!("reason=\"{}\"", dead.reason))
            .await;
        assert!(counted >= 1.0, "{}", dead.reason);
    }
    assert_eq!(
        consumer.output().matches("set a line aside").count(),
        6,
        "each reason is told once"
    );
    assert_eq!(consumer.metric("sidelog_records_received_total", "").await, 10.0);
    assert_eq!(consumer.metric("sidelog_records_stored_total", "").await, 3.0);
    assert_eq!(consumer.metric("sidelog_dead_letters_total", "").await, 7.0);
}

#[tokio::test]
async fn a_dead_letter_stream_that_is_denied_holds_the_messages_with_bad_lines_and_no_others() {
    let nats = NatsServer::with_config(
        "accounts { A { jetstream: enabled, users: [
           { user: admin, password: admin }
           { user: consumer, password: consumer, permissions: { publish: { deny: [\"logs_dead.>\", \"$JS.API.STREAM.CREATE.>\"] } } }
         ] } }",
    )
    .await;
    let admin = async_nats::ConnectOptions::with_user_and_password("admin".to_owned(), "admin".to_owned());
    let jetstream = async_nats::jetstream::new(admin.connect(nats.url()).await.unwrap());
    make_stream(&jetstream).await;
    let loki = LokiDouble::start();
    let url = nats.url().replace("nats://", "nats://consumer:consumer@");
    let consumer = consumer(&url).env("LOKI_URL", loki.push_url()).start().await;

    let good: Vec<_> = (0..20).map(line).collect();
    publish(&jetstream, format!("{}\ngarbage\n", good[0])).await;
    for line in &good[1..] {
        publish(&jetstream, frame(&[line])).await;
    }
    loki.stores(20).await;
    assert_eq!(sorted(loki.lines()), sorted(good));
    until("only the message with the bad line is held", async || {
        durable(&jetstream)
            .await
            .is_some_and(|info| info.num_pending == 0 && info.num_ack_pending == 1)
    })
    .await;
    until("the operator is told", async || {
        consumer.output().contains("messages with bad lines are held")
    })
    .await;
    assert_eq!(consumer.metric("sidelog_dead_letters_total", "").await, 0.0);
}
