//! From the client through proxy, NATS and consumer into the store, and into Jaeger: nothing lost, nothing changed.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;
use testbed::{Jaeger, NatsServer, Sidelog, Span, Upstream, VictoriaLogs, http, wait};

const CONNECTIONS: usize = 32;
const EXCHANGES: usize = 2_000;

/// What a client sent and got.
#[derive(Debug)]
struct Sent {
    number: usize,
    body: String,
    traceparent: Option<String>,
    answer: String,
    answer_headers: BTreeMap<String, String>,
}

/// Every third exchange continues a trace of the client's.
fn traceparent(number: usize) -> Option<String> {
    number
        .is_multiple_of(3)
        .then(|| format!("00-5ca1ab1e{:024x}-{:016x}-01", number + 0xa000, number + 0xb000))
}

async fn exchange(client: &reqwest::Client, url: &str, number: usize) -> Sent {
    let body = format!(r#"{{"number":{number},"text":"grüße \"{number}\" 	and more"}}"#);
    let mut request = client
        .post(format!("{url}/orders/{number}?page={number}"))
        .header("content-type", "application/json")
        .header("x-number", number)
        .header("x-answer-body", format!(r#"{{"number":{number},"state":"taken"}}"#))
        .header("authorization", format!("Bearer SECRET-{number}"))
        .header("cookie", format!("session=SECRET-{number}"))
        .header("x-api-key", format!("SECRET-{number}"));
    if let Some(traceparent) = traceparent(number) {
        request = request.header("traceparent", traceparent);
    }
    let answer = request.body(body.clone()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let headers = answer.headers().iter();
    let answer_headers = headers
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let answer = answer.text().await.unwrap();
    Sent {
        number,
        body,
        traceparent: traceparent(number),
        answer,
        answer_headers,
    }
}

/// Half of the connections speak HTTP/1.1, half HTTP/2 by prior knowledge; each is one client's only one.
async fn send_all(url: &str) -> Vec<Sent> {
    let url = Arc::new(url.to_owned());
    let connections = (0..CONNECTIONS).map(|connection| {
        let url = Arc::clone(&url);
        tokio::spawn(async move {
            let client = if connection % 2 == 0 {
                http::client()
            } else {
                http::h2c_client()
            };
            let mut sent = Vec::new();
            for number in (connection..EXCHANGES).step_by(CONNECTIONS) {
                sent.push(exchange(&client, &url, number).await);
            }
            sent
        })
    });
    let mut all = Vec::new();
    for connection in connections.collect::<Vec<_>>() {
        all.extend(connection.await.unwrap());
    }
    all
}

fn check_record(record: &Value, sent: &Sent) {
    let number = sent.number;
    assert_eq!(record["http.request.body.content"], sent.body.as_str(), "{number}");
    assert_eq!(record["http.request.body.size"], sent.body.len(), "{number}");
    assert_eq!(record["http.response.body.content"], sent.answer.as_str(), "{number}");
    assert_eq!(record["url.path"], format!("/orders/{number}"));
    assert_eq!(record["url.query"], format!("page={number}"));
    assert_eq!(record["http.route"], "/orders/{id}");
    assert_eq!(record["http.response.status_code"], 200);
    assert_eq!(record["end"], "complete");
    let request = &record["http.request.header"];
    for (name, value) in [
        ("authorization", "Bearer REDACTED"),
        ("cookie", "session=REDACTED"),
        ("x-api-key", "REDACTED"),
    ] {
        assert_eq!(request[name], value, "{number} {name}");
    }
    assert_eq!(request["content-type"], "application/json");
    for (name, value) in &sent.answer_headers {
        // pingora says on the wire whether the connection stays, and stamps its own date.
        if !["connection", "date"].contains(&name.as_str()) {
            assert_eq!(record["http.response.header"][name], value.as_str(), "{number} {name}");
        }
    }
}

/// The record continues the trace that was sent, and the upstream was told the record's span as its parent.
fn check_trace(record: &Value, sent: &Sent, told: &str, spans: &HashMap<String, Span>) {
    let (trace_id, span_id) = (
        record["trace_id"].as_str().unwrap(),
        record["span_id"].as_str().unwrap(),
    );
    let parent = sent
        .traceparent
        .as_deref()
        .map(|header| header.split('-').collect::<Vec<_>>());
    if let Some(parent) = &parent {
        assert_eq!(trace_id, parent[1]);
        assert_eq!(record["parent_span_id"], parent[2]);
    } else {
        assert_eq!(record.get("parent_span_id"), None);
    }
    assert!(
        told.starts_with(&format!("00-{trace_id}-{span_id}-0")),
        "the upstream was told {told}"
    );
    let span = spans.get(span_id).unwrap();
    assert_eq!(span.trace_id, trace_id);
    assert_eq!(span.parent_span_id.as_deref(), parent.as_ref().map(|parent| parent[2]));
    assert_eq!(span.operation, "POST /orders/{id}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_exchanges_arrive_whole_with_their_traces() {
    let (nats, jaeger, store) = (
        NatsServer::start().await,
        Jaeger::start().await,
        VictoriaLogs::start().await,
    );
    let upstream = Upstream::start();
    let proxy = Sidelog::proxy()
        .env("SERVICE_NAME", "api-service")
        .env("UPSTREAM_URL", upstream.url())
        .env("NATS_URL", nats.url())
        .env("JAEGER_URL", jaeger.otlp_grpc())
        .env("SIDELOG_CONFIG_TOML", "[[routes]]\npath = \"/orders/{id}\"\n")
        .start()
        .await;
    let consumer = Sidelog::consumer()
        .env("NATS_URL", nats.url())
        .env("LOKI_URL", store.push_url())
        .start()
        .await;

    let sent = send_all(&proxy.url()).await;
    assert_eq!(sent.len(), EXCHANGES);
    wait::until("the store holds all records", async || store.count().await >= EXCHANGES).await;
    let lines = store.lines(r#"{service="api-service"} | limit 5000"#).await;
    assert_eq!(lines.len(), EXCHANGES, "each exchange is stored once");
    wait::until("Jaeger holds all spans", async || {
        jaeger.spans("api-service", 5_000).await.len() >= EXCHANGES
    })
    .await;
    let spans = jaeger.spans("api-service", 5_000).await;
    let spans: HashMap<String, Span> = spans.into_iter().map(|span| (span.span_id.clone(), span)).collect();
    assert_eq!(spans.len(), EXCHANGES);
    let told: HashMap<String, String> = upstream
        .received()
        .iter()
        .map(|request| {
            let header = |name: &str| request.headers[name].to_str().unwrap().to_owned();
            (header("x-number"), header("traceparent"))
        })
        .collect();

    let sent: HashMap<usize, Sent> = sent.into_iter().map(|sent| (sent.number, sent)).collect();
    let mut seen = BTreeSet::new();
    for line in &lines {
        let record: Value = serde_json::from_str(line).unwrap();
        let number = record["http.request.header"]["x-number"].as_str().unwrap();
        let sent = &sent[&number.parse().unwrap()];
        check_record(&record, sent);
        check_trace(&record, sent, &told[number], &spans);
        seen.insert(sent.number);
    }
    assert_eq!(seen.len(), EXCHANGES);
    assert_eq!(proxy.metric("sidelog_spans_dropped_total", "").await, 0.0);
    assert_eq!(proxy.metric("sidelog_spans_sent_total", "").await, 2_000.0);
    assert_eq!(proxy.metric("sidelog_records_shipped_total", "").await, 2_000.0);
    assert_eq!(proxy.metric("sidelog_records_dropped_total", "").await, 0.0);
    assert_eq!(consumer.metric("sidelog_records_stored_total", "").await, 2_000.0);
}
