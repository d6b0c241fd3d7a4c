//! The servers do what the tests of the other crates take for granted.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::{Jaeger, NatsServer, Sidelog, Upstream, VictoriaLogs, http, wait};

#[tokio::test]
async fn nats_keeps_its_streams_when_it_is_killed_and_started_again() {
    let mut nats = NatsServer::start().await;
    let url = nats.url();
    let jetstream = nats.jetstream().await;
    let config = async_nats::jetstream::stream::Config {
        name: "logs".to_owned(),
        subjects: vec!["logs.>".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(config).await.unwrap();
    jetstream.publish("logs.api", "x".into()).await.unwrap().await.unwrap();

    nats.kill();
    assert!(async_nats::connect(&url).await.is_err(), "a killed server answers");
    nats.restart().await;

    assert_eq!(nats.url(), url);
    let stream = nats.jetstream().await.get_stream("logs").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 1);
}

#[tokio::test]
async fn nats_takes_a_configuration_of_the_tests() {
    let nats = NatsServer::with_config("authorization { user: a, password: b }\nmax_payload: 64KB").await;
    assert!(
        async_nats::connect(nats.url()).await.is_err(),
        "no credentials were asked for"
    );
    let options = async_nats::ConnectOptions::with_user_and_password("a".to_owned(), "b".to_owned());
    let client = options.connect(nats.url()).await.unwrap();
    assert_eq!(client.server_info().max_payload, 64 * 1024);
    assert_eq!(nats.monitoring("/varz").await["max_payload"], 64 * 1024);
}

#[tokio::test]
async fn nats_that_is_frozen_answers_when_it_is_let_go_on() {
    let mut nats = NatsServer::start().await;
    let client = nats.client().await;
    client.flush().await.unwrap();
    nats.freeze();
    let silent = tokio::time::timeout(Duration::from_millis(200), client.request("nobody", "".into())).await;
    assert!(silent.is_err(), "a frozen server answers");
    nats.thaw();
    let answer = client.request("nobody", "".into()).await;
    assert!(answer.unwrap_err().to_string().contains("no responders"));
}

#[tokio::test]
async fn jaeger_gives_back_spans_with_their_parents() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let jaeger = Jaeger::start().await;
    let span = json!({
        "traceId": TRACE, "spanId": "0102030405060708", "parentSpanId": "b7ad6b7169203331",
        "name": "GET /users/{id}", "kind": 2,
        "startTimeUnixNano": "1769862896000000000", "endTimeUnixNano": "1769862896001000000",
        "attributes": [{"key": "http.request.method", "value": {"stringValue": "GET"}}],
    });
    let service = json!([{"key": "service.name", "value": {"stringValue": "api-service"}}]);
    let export = json!({"resourceSpans": [{"resource": {"attributes": service}, "scopeSpans": [{"spans": [span]}]}]});
    let sent = http::client()
        .post(format!("{}/v1/traces", jaeger.otlp_http()))
        .header("content-type", "application/json")
        .body(export.to_string())
        .send();
    assert_eq!(sent.await.unwrap().status(), 200);

    wait::until("Jaeger has the span", async || !jaeger.spans_of(TRACE).await.is_empty()).await;
    let spans = jaeger.spans_of(TRACE).await;
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0].parent_span_id.as_deref(), Some("b7ad6b7169203331"));
    assert_eq!((spans[0].service.as_str(), spans[0].duration_us), ("api-service", 1000));
    assert_eq!(spans[0].tags["http.request.method"], "GET");
    assert_eq!(spans[0].tags["span.kind"], "server");
    assert_eq!(jaeger.operations("api-service").await, ["GET /users/{id}"]);
    assert_eq!(jaeger.spans_of(&TRACE.replace('4', "5")).await, []);
    assert!(std::net::TcpStream::connect(jaeger.otlp_grpc()).is_ok());
}

#[tokio::test]
async fn victoria_logs_keeps_lines_as_they_are_and_over_a_restart() {
    let mut store = VictoriaLogs::start().await;
    assert_eq!(store.count().await, 0);
    let line = r#"{"level":"info","http.route":"/users/{id}"}"#;
    let push = json!({"streams": [{"stream": {"service": "api-service"}, "values": [["1769862896000000001", line]]}]});
    let sent = http::client()
        .post(store.push_url())
        .header("content-type", "application/json")
        .body(push.to_string())
        .send();
    assert_eq!(sent.await.unwrap().status(), 204);
    assert_eq!(store.lines(r#"{service="api-service"}"#).await, [line]);

    store.stop().await;
    store.restart().await;
    let entries = store.query(r#"{service="api-service"}"#).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["_time"], "2026-01-31T12:34:56.000000001Z");
    assert_eq!(store.count().await, 1);
}

#[tokio::test]
async fn the_upstream_echoes_by_both_protocols_and_remembers() {
    let upstream = Upstream::start();
    for (client, version) in [(http::client(), "HTTP/1.1"), (http::h2c_client(), "HTTP/2.0")] {
        let sent = client
            .post(upstream.url() + "/a?b=c")
            .header("x-many", "1")
            .header("x-many", "2")
            .body("hello");
        let echo: Value = sent.send().await.unwrap().json().await.unwrap();
        assert_eq!((&echo["method"], &echo["version"]), (&json!("POST"), &json!(version)));
        assert_eq!(
            (&echo["headers"]["x-many"], &echo["body"]),
            (&json!(["1", "2"]), &json!("hello"))
        );
    }
    let received = upstream.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].uri.path_and_query().unwrap(), "/a?b=c");
}

#[tokio::test]
async fn the_upstream_answers_as_it_is_told() {
    let upstream = Upstream::start();
    let told = http::client()
        .get(upstream.url())
        .header("x-answer-status", "503")
        .header("x-answer-body", "no");
    let answer = told.header("x-answer-type", "text/plain").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (503, &"text/plain".parse().unwrap())
    );
    assert_eq!(answer.text().await.unwrap(), "no");
}

#[tokio::test]
async fn the_upstream_holds_a_request_until_it_is_released() {
    let upstream = Upstream::start();
    let held = tokio::spawn(http::client().get(upstream.url()).header("x-answer-held", "1").send());
    upstream.holds(1).await;
    assert!(!held.is_finished());
    upstream.release();
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn an_upstream_that_is_killed_cuts_its_connections() {
    let mut upstream = Upstream::start();
    let held = tokio::spawn(http::client().get(upstream.url()).header("x-answer-held", "1").send());
    upstream.holds(1).await;
    upstream.kill();
    assert!(held.await.unwrap().is_err());
    assert!(http::client().get(upstream.url()).send().await.is_err());
    upstream.restart();
    assert_eq!(http::client().get(upstream.url()).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_program_of_ours_is_run_and_ended() {
    let mut example = Sidelog::example_upstream().start().await;
    let health = http::json(&http::client(), &(example.url() + "/health")).await;
    assert_eq!(health, json!({"status": "ok"}));
    assert!(example.resident_bytes() > 0);
    example.terminate();
    assert!(example.exit_status(wait::PATIENCE).await.success());
    assert!(!example.is_running());
}

#[tokio::test]
async fn a_program_that_cannot_start_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let finished = Sidelog::example_upstream().env("LISTEN", address).finish().await;
    assert_eq!(finished.code, Some(1));
    assert!(finished.output.contains(&address.to_string()), "{}", finished.output);
}
