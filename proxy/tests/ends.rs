//! Every exchange ends in exactly one record that says how, read back from a real JetStream.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::time::Duration;

use async_nats::jetstream;
use serde_json::Value;
use testbed::{NatsServer, Port, Sidelog, SidelogCommand, Upstream, http, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(10);

/// The proxy in front of `upstream`, with `nats` and no collector.
fn proxy(upstream: &str, nats: &NatsServer) -> SidelogCommand {
    Sidelog::proxy()
        .env("UPSTREAM_URL", upstream)
        .env("NATS_URL", nats.url())
        .env("SIDELOG_TRACES__ENABLED", "false")
}

/// All records of the stream, once there are `count` of them.
async fn records(nats: &NatsServer, count: usize) -> Vec<Value> {
    let context = nats.jetstream().await;
    let records = wait::obtain("the records are in the stream", async || {
        let found = all(&context).await;
        (found.len() >= count).then_some(found)
    })
    .await;
    assert_eq!(records.len(), count, "{records:?}");
    records
}

async fn all(context: &jetstream::Context) -> Vec<Value> {
    let Ok(stream) = context.get_stream("logs").await else {
        return Vec::new();
    };
    let mut records = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        records.extend(
            sidelog_record::frame::lines(&message.payload).map(|line| serde_json::from_slice::<Value>(line).unwrap()),
        );
    }
    records
}

fn check(record: &Value, end: &str, level: &str, status: Option<u16>) {
    assert_eq!(record["end"], end, "{record}");
    assert_eq!(record["level"], level, "{record}");
    let told = record.get("http.response.status_code").and_then(Value::as_u64);
    assert_eq!(told, status.map(u64::from), "{record}");
}

#[tokio::test]
async fn an_answer_that_went_out_whole_is_complete() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let proxy = proxy(&upstream.url(), &nats).start().await;
    for status in [200, 404, 503] {
        let request = http::client().get(proxy.url()).header("x-answer-status", status);
        assert_eq!(request.send().await.unwrap().status(), status);
    }
    let records = records(&nats, 3).await;
    check(&records[0], "complete", "info", Some(200));
    check(&records[1], "complete", "warn", Some(404));
    check(&records[2], "complete", "error", Some(503));
    assert_eq!(records[2]["error.type"], "503");
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_unreachable_and_the_client_gets_502() {
    let (nats, nowhere) = (NatsServer::start().await, Port::reserve());
    let proxy = proxy(&format!("http://{}", nowhere.address()), &nats).start().await;
    let answer = http::client().post(proxy.url()).body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 502);
    let records = records(&nats, 1).await;
    check(&records[0], "upstream_unreachable", "error", Some(502));
    assert_eq!(records[0]["error.type"], "connection_refused");
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_timed_out_and_the_client_gets_504() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let proxy = proxy(&upstream.url(), &nats)
        .env("SIDELOG_LIMITS__UPSTREAM_READ_TIMEOUT", "200ms")
        .start()
        .await;
    let answer = http::client()
        .get(proxy.url())
        .header("x-answer-held", "1")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 504);
    check(&records(&nats, 1).await[0], "upstream_timeout", "error", Some(504));
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_never_passed_off_as_complete() {
    let nats = NatsServer::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            .await
            .unwrap();
    });
    let proxy = proxy(&upstream, &nats).start().await;
    let answer = http::client().post(proxy.url()).body("{}").send().await.unwrap();
    assert!(answer.bytes().await.is_err(), "half an answer was passed off as whole");
    check(&records(&nats, 1).await[0], "upstream_error", "error", Some(200));
}

#[tokio::test]
async fn a_client_that_leaves_is_gone_and_a_warning() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let proxy = proxy(&upstream.url(), &nats).start().await;
    let mut client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\nx-answer-held: 1\r\n\r\n")
        .await
        .unwrap();
    upstream.holds(1).await;
    drop(client);
    check(&records(&nats, 1).await[0], "client_gone", "warn", None);
}

#[tokio::test]
async fn an_interim_answer_is_no_status() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let proxy = proxy(&upstream.url(), &nats).start().await;
    let mut client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a.test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        .await
        .unwrap();
    let mut interim = [0; 12];
    client.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100");
    drop(client);
    check(&records(&nats, 1).await[0], "client_gone", "warn", None);
}

#[tokio::test]
async fn a_request_shorter_than_the_http2_preface_is_answered() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let proxy = proxy(&upstream.url(), &nats).start().await;
    let mut client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(SOON, client.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer[..7], b"HTTP/1.");
    assert_eq!(&answer[9..], b"200");
    assert_eq!(records(&nats, 1).await[0]["network.protocol.version"], "1.0");
}

#[tokio::test]
async fn what_is_in_flight_at_sigterm_is_answered_and_recorded() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let mut proxy = proxy(&upstream.url(), &nats).start().await;
    let held = tokio::spawn(http::client().get(proxy.url()).header("x-answer-held", "1").send());
    upstream.holds(1).await;
    proxy.terminate();
    wait::until("the proxy no longer accepts", async || {
        TcpStream::connect(proxy.addresses()[0]).await.is_err()
    })
    .await;
    upstream.release();
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    assert!(proxy.exit_status(SOON).await.success(), "{}", proxy.output());
    check(&records(&nats, 1).await[0], "complete", "info", Some(200));
}

#[tokio::test]
async fn what_the_deadline_cuts_is_recorded_as_shutdown() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let mut proxy = proxy(&upstream.url(), &nats)
        .env("SIDELOG_SHUTDOWN__DEADLINE", "500ms")
        .start()
        .await;
    let held = tokio::spawn(http::client().get(proxy.url()).header("x-answer-held", "1").send());
    upstream.holds(1).await;
    proxy.terminate();
    assert!(held.await.unwrap().is_err());
    assert!(proxy.exit_status(SOON).await.success(), "{}", proxy.output());
    check(&records(&nats, 1).await[0], "shutdown", "error", None);
}

#[tokio::test]
async fn an_idle_proxy_ends_at_once() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let mut proxy = proxy(&upstream.url(), &nats).start().await;
    let client = http::client();
    assert_eq!(client.get(proxy.url()).send().await.unwrap().status(), 200);
    records(&nats, 1).await;
    proxy.terminate();
    assert!(
        proxy.exit_status(Duration::from_secs(2)).await.success(),
        "{}",
        proxy.output()
    );
}

#[tokio::test]
async fn a_second_signal_forces_the_end() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let mut proxy = proxy(&upstream.url(), &nats).start().await;
    let _held = tokio::spawn(http::client().get(proxy.url()).header("x-answer-held", "1").send());
    upstream.holds(1).await;
    proxy.terminate();
    wait::until("the proxy drains", async || proxy.output().contains("shutting down")).await;
    proxy.interrupt();
    proxy.exit_status(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn routes_decide_where_requests_go_and_what_is_recorded() {
    let (nats, default, orders) = (NatsServer::start().await, Upstream::start(), Upstream::start());
    let config = format!(
        r#"
        [[routes]]
        path = "/orders/{{id}}"
        methods = ["GET"]
        upstream = "{}"
        capture.response_body = false

        [[routes]]
        path = "/internal/*"
        capture.enabled = false
        "#,
        orders.url()
    );
    let proxy = proxy(&default.url(), &nats)
        .env("SIDELOG_CONFIG_TOML", config)
        .start()
        .await;
    for path in ["/internal/secrets", "/orders/7", "/orders"] {
        let answer = http::client()
            .get(format!("{}{path}", proxy.url()))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(orders.received().len(), 1);
    assert_eq!(default.received().len(), 2);
    let records = records(&nats, 2).await;
    assert_eq!(records[0]["http.route"], "/orders/{id}");
    assert_eq!(records[0]["http.response.body.omitted"], "policy");
    assert_eq!(records[1]["url.path"], "/orders");
    assert!(records[1]["http.response.body.content"].is_string());
}

#[tokio::test]
async fn a_taken_port_is_one_line_and_exit_1() {
    let upstream = Upstream::start();
    let finished = Sidelog::proxy().env("PORT", upstream.address().port()).finish().await;
    let taken = Sidelog::proxy()
        .env("SIDELOG_ADMIN__ADDRESS", upstream.address())
        .finish()
        .await;
    assert_eq!(taken.code, Some(1), "{}", taken.output);
    assert_eq!(taken.output.lines().count(), 1, "{}", taken.output);
    assert!(taken.output.contains("admin.address"), "{}", taken.output);
    assert_eq!(finished.code, Some(1), "{}", finished.output);
    assert!(finished.output.contains("PORT"), "{}", finished.output);
}

#[tokio::test]
async fn forwarded_headers_are_added_only_where_asked_for() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let plain = proxy(&upstream.url(), &nats).start().await;
    let config = "[[listeners]]\nforwarded = true\n";
    let forwarding = proxy(&upstream.url(), &nats)
        .env("SIDELOG_CONFIG_TOML", config)
        .start()
        .await;
    for proxy in [&plain, &forwarding] {
        let request = http::client()
            .get(proxy.url())
            .header("host", "a.test")
            .header("x-forwarded-for", "192.0.2.1");
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let received = upstream.received();
    assert_eq!(received[0].headers["x-forwarded-for"], "192.0.2.1");
    assert!(!received[0].headers.contains_key("x-forwarded-host"));
    assert_eq!(received[1].headers["x-forwarded-for"], "192.0.2.1, 127.0.0.1");
    assert_eq!(received[1].headers["x-forwarded-proto"], "http");
    assert_eq!(received[1].headers["x-forwarded-host"], "a.test");
}

#[tokio::test]
async fn an_http10_client_reads_to_the_end_of_the_connection() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let proxy = proxy(&upstream.url(), &nats).start().await;
    let mut client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.0\r\nx-answer-body: all\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    tokio::time::timeout(SOON, client.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.ends_with("all"), "{answer}");
}

#[tokio::test]
async fn heads_that_never_became_a_request_are_counted_by_reason() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let proxy = proxy(&upstream.url(), &nats)
        .env("SIDELOG_LIMITS__HEADER_TIMEOUT", "300ms")
        .start()
        .await;
    let cases: [(&str, &[u8]); 3] = [
        ("tls", b"\x16\x03\x01\x02\x00 TLS to a plain port"),
        ("host", b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
        ("timeout", b"GET / HTTP/1.1\r\nhost: "),
    ];
    for (reason, bytes) in cases {
        let label = format!("reason=\"{reason}\"");
        let before = proxy.metric("sidelog_heads_refused_total", &label).await;
        let mut client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
        client.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        tokio::time::timeout(SOON, client.read_to_end(&mut rest))
            .await
            .unwrap()
            .ok();
        wait::until("it is counted", async || {
            proxy.metric("sidelog_heads_refused_total", &label).await == before + 1.0
        })
        .await;
    }
    assert_eq!(http::client().get(proxy.url()).send().await.unwrap().status(), 200);
    assert!(!proxy.output().contains("pingora"), "{}", proxy.output());
}

#[tokio::test]
async fn a_connection_that_said_nothing_does_not_hold_up_the_end() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let mut proxy = proxy(&upstream.url(), &nats).start().await;
    let _silent = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    wait::until("it is accepted", async || {
        proxy.metric("sidelog_connections_open", "").await == 1.0
    })
    .await;
    proxy.terminate();
    assert!(
        proxy.exit_status(Duration::from_secs(2)).await.success(),
        "{}",
        proxy.output()
    );
}
