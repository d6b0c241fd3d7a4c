//! Spans as real Jaeger has them, each compared field by field with the record of the same exchange.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::{
    Authority, Jaeger, NatsServer, OtlpAnswer, OtlpDouble, Port, Relay, Sidelog, SidelogCommand, TlsDoor, Upstream,
    http, wait,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Where records and spans arrive.
struct Stage {
    nats: NatsServer,
    jaeger: Jaeger,
}

/// A record, and its span as Jaeger has it.
struct Pair {
    record: Value,
    span: Value,
}

impl Stage {
    async fn start() -> Self {
        Self {
            nats: NatsServer::start().await,
            jaeger: Jaeger::start().await,
        }
    }

    fn proxy(&self, upstream: &str) -> SidelogCommand {
        Sidelog::proxy()
            .env("SERVICE_NAME", "api")
            .env("UPSTREAM_URL", upstream)
            .env("NATS_URL", self.nats.url())
            .env("JAEGER_URL", self.jaeger.otlp_grpc())
            .env("SIDELOG_TRACES__LINGER", "0")
            .env("SIDELOG_CONFIG_TOML", "[[routes]]\npath = \"/orders/{id}\"\n")
    }

    /// The one record, and its span.
    async fn pair(&self) -> Pair {
        let context = self.nats.jetstream().await;
        let record = wait::obtain("the record is in the stream", async || {
            let stream = context.get_stream("logs").await.ok()?;
            let message = stream.get_raw_message(1).await.ok()?;
            let line = sidelog_record::frame::lines(&message.payload).next()?;
            serde_json::from_slice::<Value>(line).ok()
        })
        .await;
        let trace_id = record["trace_id"].as_str().unwrap().to_owned();
        let span = wait::obtain("Jaeger has the span", async || {
            let trace = self.jaeger.trace(&trace_id).await?;
            let spans = trace["spans"].as_array()?.clone();
            spans.into_iter().find(|span| span["spanID"] == record["span_id"])
        })
        .await;
        let pair = Pair { record, span };
        pair.agree();
        pair
    }
}

impl Pair {
    /// Ids, times, status, route and end are the same on both sides.
    fn agree(&self) {
        let Self { record, span } = self;
        assert_eq!(span["traceID"], record["trace_id"]);
        let parent = references(span, "CHILD_OF")
            .first()
            .map(|reference| reference["spanID"].clone());
        assert_eq!(parent.as_ref(), record.get("parent_span_id"));
        let (begun, ended) = (micros(&record["timestamp"]), micros(&record["observed_timestamp"]));
        assert_eq!(span["startTime"].as_u64(), Some(begun));
        let duration = span["duration"].as_u64().unwrap();
        assert!(
            duration.abs_diff(ended - begun) <= 1,
            "{duration} is not {}",
            ended - begun
        );
        let tags = tags(span);
        for (tag, key) in [
            ("http.response.status_code", "http.response.status_code"),
            ("http.route", "http.route"),
            ("sidelog.end", "end"),
            ("upstream.address", "upstream.address"),
            ("network.protocol.version", "network.protocol.version"),
            ("error.type", "error.type"),
            ("server.address", "server.address"),
            ("server.port", "server.port"),
            ("rpc.response.status_code", "rpc.response.status_code"),
        ] {
            assert_eq!(tags.get(tag), record.get(key), "{tag}");
        }
        if tags["span.kind"] == "server" {
            assert_eq!(tags["client.address"], record["client.address"]);
        }
    }

    /// The whole of the span but its times and ports: its name, and every tag.
    fn check(&self, name: &str, expected: Value) {
        assert_eq!(self.span["operationName"], name);
        let mut told = tags(&self.span);
        for (tag, kind) in [
            ("network.peer.port", "a port"),
            ("server.port", "a port"),
            ("upstream.address", "an address"),
            ("otel.scope.version", "a version"),
        ] {
            if let Some(value) = told.remove(tag) {
                assert!(value.is_u64() || value.is_string(), "{tag} is {value}, not {kind}");
            }
        }
        let mut expected: BTreeMap<String, Value> = serde_json::from_value(expected).unwrap();
        for (tag, value) in [
            ("otel.scope.name", "sidelog"),
            ("server.address", "127.0.0.1"),
            ("network.peer.address", "127.0.0.1"),
            ("network.protocol.version", "1.1"),
        ] {
            expected.entry(tag.to_owned()).or_insert_with(|| value.into());
        }
        if expected["span.kind"] == "server" {
            expected.insert("client.address".to_owned(), "127.0.0.1".into());
            expected.insert("url.scheme".to_owned(), "http".into());
        }
        expected.retain(|_, value| !value.is_null());
        // Jaeger's own word for the protocol that the span came by.
        told.remove("internal.span.format");
        assert_eq!(told, expected);
    }
}

/// Microseconds since the epoch of an RFC 3339 time in UTC.
fn micros(time: &Value) -> u64 {
    let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
    time.as_microsecond().try_into().unwrap()
}

fn references(span: &Value, kind: &str) -> Vec<Value> {
    let all = span["references"].as_array().unwrap().iter();
    all.filter(|reference| reference["refType"] == kind).cloned().collect()
}

fn tags(span: &Value) -> BTreeMap<String, Value> {
    let tags = span["tags"].as_array().unwrap().iter();
    tags.map(|tag| (tag["key"].as_str().unwrap().to_owned(), tag["value"].clone()))
        .collect()
}

#[tokio::test]
async fn a_success_continues_its_trace_with_the_state_that_came() {
    let (stage, upstream) = (Stage::start().await, Upstream::start());
    let proxy = stage.proxy(&upstream.url()).start().await;
    let request = http::client()
        .get(format!("{}/orders/7?token=SECRET&page=2", proxy.url()))
        .header("user-agent", "tests")
        .header("traceparent", PARENT)
        .header("tracestate", "foo=1,bar=2");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let pair = stage.pair().await;
    assert_eq!(pair.record["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(pair.record["parent_span_id"], "b7ad6b7169203331");
    pair.check(
        "GET /orders/{id}",
        json!({
            "span.kind": "server",
            "http.request.method": "GET",
            "http.route": "/orders/{id}",
            "http.response.status_code": 200,
            "url.path": "/orders/7",
            "url.query": "token=REDACTED&page=2",
            "user_agent.original": "tests",
            "w3c.tracestate": "foo=1,bar=2",
            "sidelog.end": "complete",
        }),
    );
}

#[tokio::test]
async fn who_the_client_is_trusted_proxies_say() {
    for (trusted, client) in [("127.0.0.0/8, 10.0.0.0/8", "192.0.2.7"), ("10.0.0.0/8", "127.0.0.1")] {
        let (stage, upstream) = (Stage::start().await, Upstream::start());
        let proxy = stage
            .proxy(&upstream.url())
            .env("SIDELOG_LISTENERS__0__TRUSTED_PROXIES", trusted)
            .start()
            .await;
        let request = http::client()
            .get(proxy.url())
            .header("x-forwarded-for", "6.6.6.6, 192.0.2.7")
            .header("x-forwarded-for", "10.0.0.1");
        assert_eq!(request.send().await.unwrap().status(), 200);
        let pair = stage.pair().await;
        let tags = tags(&pair.span);
        assert_eq!(pair.record["client.address"], client);
        assert_eq!(
            (&tags["client.address"], &tags["network.peer.address"]),
            (&client.into(), &"127.0.0.1".into())
        );
        assert_eq!(upstream.received()[0].headers["x-forwarded-for"], "6.6.6.6, 192.0.2.7");
    }
}

#[tokio::test]
async fn what_the_client_did_wrong_is_no_error_of_the_server() {
    let (stage, upstream) = (Stage::start().await, Upstream::start());
    let proxy = stage.proxy(&upstream.url()).start().await;
    let request = http::client()
        .post(format!("{}/other", proxy.url()))
        .header("x-answer-status", 404);
    assert_eq!(request.send().await.unwrap().status(), 404);
    stage.pair().await.check(
        "POST",
        json!({
            "span.kind": "server",
            "http.request.method": "POST",
            "http.response.status_code": 404,
            "url.path": "/other",
            "sidelog.end": "complete",
        }),
    );
}

#[tokio::test]
async fn what_the_server_did_wrong_is_an_error() {
    let (stage, upstream) = (Stage::start().await, Upstream::start());
    let proxy = stage.proxy(&upstream.url()).start().await;
    let request = http::client().get(proxy.url()).header("x-answer-status", 503);
    assert_eq!(request.send().await.unwrap().status(), 503);
    stage.pair().await.check(
        "GET",
        json!({
            "span.kind": "server",
            "http.request.method": "GET",
            "http.response.status_code": 503,
            "url.path": "/",
            "error.type": "503",
            "error": true,
            "otel.status_code": "ERROR",
            "sidelog.end": "complete",
        }),
    );
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_an_error_by_name() {
    let (stage, nowhere) = (Stage::start().await, Port::reserve());
    let proxy = stage.proxy(&format!("http://{}", nowhere.address())).start().await;
    assert_eq!(http::client().get(proxy.url()).send().await.unwrap().status(), 502);
    stage.pair().await.check(
        "GET",
        json!({
            "span.kind": "server",
            "http.request.method": "GET",
            "http.response.status_code": 502,
            "url.path": "/",
            "error.type": "connection_refused",
            "error": true,
            "otel.status_code": "ERROR",
            "otel.status_description": "connection_refused",
            "sidelog.end": "upstream_unreachable",
        }),
    );
}

#[tokio::test]
async fn an_upstream_that_takes_too_long_is_a_timeout() {
    let (stage, upstream) = (Stage::start().await, Upstream::start());
    let proxy = stage
        .proxy(&upstream.url())
        .env("SIDELOG_LIMITS__UPSTREAM_READ_TIMEOUT", "200ms")
        .start()
        .await;
    let request = http::client().get(proxy.url()).header("x-answer-held", "1");
    assert_eq!(request.send().await.unwrap().status(), 504);
    stage.pair().await.check(
        "GET",
        json!({
            "span.kind": "server",
            "http.request.method": "GET",
            "http.response.status_code": 504,
            "url.path": "/",
            "error.type": "timeout",
            "error": true,
            "otel.status_code": "ERROR",
            "otel.status_description": "timeout",
            "sidelog.end": "upstream_timeout",
        }),
    );
}

#[tokio::test]
async fn a_client_that_leaves_is_no_error_of_the_server() {
    let (stage, upstream) = (Stage::start().await, Upstream::start());
    let proxy = stage.proxy(&upstream.url()).start().await;
    let mut client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: a.test\r\nx-answer-held: 1\r\n\r\n";
    client.write_all(request).await.unwrap();
    upstream.holds(1).await;
    drop(client);
    stage.pair().await.check(
        "GET",
        json!({
            "span.kind": "server",
            "http.request.method": "GET",
            "server.address": "a.test",
            "url.path": "/",
            "error.type": "client_gone",
            "sidelog.end": "client_gone",
        }),
    );
}

#[tokio::test]
async fn a_restarted_trace_is_linked_to_the_one_that_came() {
    let (stage, upstream) = (Stage::start().await, Upstream::start());
    let proxy = stage
        .proxy(&upstream.url())
        .env("SIDELOG_LISTENERS__0__TRACE", "restart")
        .start()
        .await;
    let request = http::client()
        .get(proxy.url())
        .header("traceparent", PARENT)
        .header("tracestate", "foo=1");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let pair = stage.pair().await;
    assert_ne!(pair.record["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    let links = references(&pair.span, "FOLLOWS_FROM");
    assert_eq!(links.len(), 1);
    assert_eq!(links[0]["traceID"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(links[0]["spanID"], "b7ad6b7169203331");
    pair.check(
        "GET",
        json!({
            "span.kind": "server",
            "http.request.method": "GET",
            "http.response.status_code": 200,
            "url.path": "/",
            "sidelog.end": "complete",
        }),
    );
}

#[tokio::test]
async fn a_call_that_the_service_makes_is_a_client_span() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let files = authority.sign("door", &["127.0.0.1"]);
    let door = TlsDoor::open_speaking(upstream.address(), &files.cert, &files.key, None, &["http/1.1"]);
    for address in [upstream.url(), format!("https://{}", door.address())] {
        let stage = Stage::start().await;
        let proxy = stage
            .proxy(&address)
            .env("SIDELOG_LISTENERS__0__DIRECTION", "outbound")
            .env("SIDELOG_LISTENERS__0__UPSTREAM_TLS__CA_FILE", authority.ca().display())
            .start()
            .await;
        let request = http::client()
            .get(format!("{}/orders/7?token=SECRET", proxy.url()))
            .header("host", "shop.test")
            .header("x-answer-status", 404);
        assert_eq!(request.send().await.unwrap().status(), 404);
        let (scheme, _) = address.split_once(':').unwrap();
        let pair = stage.pair().await;
        assert_eq!(pair.record["url.scheme"], scheme);
        pair.check(
            "GET /orders/{id}",
            json!({
                "span.kind": "client",
                "http.request.method": "GET",
                "http.route": "/orders/{id}",
                "http.response.status_code": 404,
                "server.address": "shop.test",
                "url.full": format!("{scheme}://shop.test/orders/7?token=REDACTED"),
                "error.type": "404",
                "error": true,
                "otel.status_code": "ERROR",
                "sidelog.end": "complete",
            }),
        );
    }
}

#[tokio::test]
async fn a_call_by_grpc_has_a_status_of_its_own() {
    for (answer, name, fails) in [
        (OtlpAnswer::Take, "OK", false),
        (
            OtlpAnswer::Refuse {
                status: 0,
                code: 13,
                retry_after: None,
            },
            "INTERNAL",
            true,
        ),
    ] {
        let (stage, service) = (Stage::start().await, OtlpDouble::start());
        service.answer([answer]);
        let proxy = stage.proxy(&service.url()).start().await;
        let request = http::h2c_client()
            .post(format!("{}/shop.Orders/Get", proxy.url()))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(vec![0; 5]);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
        let mut expected = json!({
            "span.kind": "server",
            "http.request.method": "POST",
            "http.response.status_code": 200,
            "url.path": "/shop.Orders/Get",
            "network.protocol.version": "2",
            "rpc.system.name": "grpc",
            "rpc.method": "shop.Orders/Get",
            "rpc.response.status_code": name,
            "sidelog.end": "complete",
        });
        if fails {
            expected["error.type"] = name.into();
            expected["error"] = true.into();
            expected["otel.status_code"] = "ERROR".into();
        }
        stage.pair().await.check("POST", expected);
    }
}

#[tokio::test]
async fn a_web_socket_is_one_span_from_its_handshake_to_its_end() {
    let stage = Stage::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let mut frame = [0; 5];
        stream.read_exact(&mut frame).await.unwrap();
        stream.write_all(&frame).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let proxy = stage.proxy(&upstream).start().await;
    let mut client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    let request = b"GET /live HTTP/1.1\r\nhost: a.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    client.write_all(b"hello").await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"hello"));
    drop(client);
    stage.pair().await.check(
        "GET",
        json!({
            "span.kind": "server",
            "http.request.method": "GET",
            "http.response.status_code": 101,
            "server.address": "a.test",
            "url.path": "/live",
            "sidelog.end": "upgraded",
        }),
    );
}

#[tokio::test]
async fn a_chain_of_two_services_and_their_proxies_is_one_trace() {
    let jaeger = Jaeger::start().await;
    let outbound = Port::reserve();
    let first = Relay::start(format!("http://{}", outbound.address()));
    let second = Sidelog::example_upstream()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", jaeger.otlp_grpc()))
        .env("OTEL_SERVICE_NAME", "second")
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .start()
        .await;
    let config = format!(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\nupstream = {:?}\n\
         [[listeners]]\naddress = \"{}\"\nupstream = {:?}\ndirection = \"outbound\"\n",
        first.url(),
        outbound.address(),
        second.url(),
    );
    let proxy = Sidelog::proxy()
        .without_env("PORT")
        .env("SERVICE_NAME", "first")
        .env("JAEGER_URL", jaeger.otlp_grpc())
        .env("SIDELOG_TRACES__LINGER", "0")
        .env("SIDELOG_CAPTURE__ENABLED", "false")
        .env("SIDELOG_CONFIG_TOML", config)
        .start()
        .await;
    let request = http::client()
        .get(format!("http://{}/health", proxy.addresses()[0]))
        .header("traceparent", PARENT)
        .timeout(Duration::from_secs(10));
    assert_eq!(request.send().await.unwrap().status(), 200);
    let spans = wait::obtain("Jaeger has the whole trace", async || {
        let spans = jaeger.spans_of("0af7651916cd43dd8448eb211c80319c").await;
        (spans.len() >= 3).then_some(spans)
    })
    .await;
    let of = |service: &str, kind: &str| {
        let found = spans
            .iter()
            .find(|span| span.service == service && span.tags["span.kind"] == kind);
        found.unwrap_or_else(|| panic!("no {kind} span of {service}: {spans:?}"))
    };
    let (inbound, outbound, served) = (of("first", "server"), of("first", "client"), of("second", "server"));
    assert_eq!(spans.len(), 3);
    assert_eq!(inbound.parent_span_id.as_deref(), Some("b7ad6b7169203331"));
    assert_eq!(outbound.parent_span_id.as_ref(), Some(&inbound.span_id));
    assert_eq!(served.parent_span_id.as_ref(), Some(&outbound.span_id));
}
