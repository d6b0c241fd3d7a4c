//! Bodies that go on for long: feeds, calls by gRPC and WebSockets, each as its record tells it.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response};
use futures_util::stream;
use http_body_util::BodyExt;
use serde_json::Value;
use testbed::{NatsServer, Sidelog, Upstream, http, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// NATS, and a proxy in front of `upstream` that publishes to it.
async fn stage(upstream: &str) -> (NatsServer, Sidelog) {
    let nats = NatsServer::start().await;
    let proxy = Sidelog::proxy()
        .env("UPSTREAM_URL", upstream)
        .env("NATS_URL", nats.url())
        .env("SIDELOG_TRACES__ENABLED", "false")
        .env("SIDELOG_CAPTURE__BODY_MAX", "1000B")
        .start()
        .await;
    (nats, proxy)
}

/// The one record.
async fn record(nats: &NatsServer) -> Value {
    let context = nats.jetstream().await;
    wait::obtain("the record is in the stream", async || {
        let stream = context.get_stream("logs").await.ok()?;
        let message = stream.get_raw_message(1).await.ok()?;
        serde_json::from_slice(sidelog_record::frame::lines(&message.payload).next()?).ok()
    })
    .await
}

/// A service whose every answer is these chunks, one after the other, and these trailers.
fn answering(content_type: &'static str, chunks: Vec<Vec<u8>>, trailers: Option<HeaderMap>) -> Upstream {
    let answer = move || {
        let chunks: Vec<_> = chunks.iter().cloned().map(Ok::<_, Infallible>).collect();
        let trailers = std::future::ready(trailers.clone().map(Ok));
        let body = Body::new(Body::from_stream(stream::iter(chunks)).with_trailers(trailers));
        let answer = Response::builder()
            .header("content-type", content_type)
            .body(body)
            .unwrap();
        std::future::ready(answer)
    };
    Upstream::serving(Router::new().fallback(answer))
}

#[tokio::test]
async fn of_a_long_feed_the_record_has_both_ends_and_the_number_of_events() {
    let event = |number: usize| format!("id: {number}\ndata: {{\"n\":{number},\"token\":\"SECRET{number}\"}}\n\n");
    let chunks: Vec<_> = (0..500).map(|number| event(number).into_bytes()).collect();
    let size: usize = chunks.iter().map(Vec::len).sum();
    let upstream = answering("text/event-stream", chunks, None);
    let (nats, proxy) = stage(&upstream.url()).await;
    let answer = http::client().get(proxy.url()).send().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap().len(), size);
    let record = record(&nats).await;
    assert_eq!(record["http.response.body.events"], 500);
    assert_eq!(record["http.response.body.size"], size);
    assert_eq!(record["http.response.body.truncated"], true);
    assert!(record["ttfb_ms"].is_number());
    let content = record["http.response.body.content"].as_str().unwrap();
    assert!(content.starts_with("id: 0\ndata: {\"n\":0,\"token\":\"REDACTED\"}\n\nid: 1\n"));
    assert!(content.ends_with("\n\nid: 499\ndata: {\"n\":499,\"token\":\"REDACTED\"}\n\n"));
    assert!(content.contains(" bytes left out …\n\n") && !content.contains("SECRET"));
}

#[tokio::test]
async fn lines_are_counted_in_both_directions() {
    let lines = "{\"a\":1}\n{\"b\":2}\n".to_owned();
    let upstream = answering("application/x-ndjson", vec![lines.clone().into_bytes(); 2], None);
    let (nats, proxy) = stage(&upstream.url()).await;
    let request = http::client()
        .post(proxy.url())
        .header("content-type", "application/jsonl");
    request.body("1\n2\n3").send().await.unwrap().bytes().await.unwrap();
    let record = record(&nats).await;
    assert_eq!(
        (
            &record["http.request.body.events"],
            &record["http.response.body.events"]
        ),
        (&3.into(), &4.into())
    );
    assert_eq!(record["http.request.body.content"], "1\n2\n3");
    assert_eq!(record["http.response.body.content"], lines.repeat(2));
    assert_eq!(record.get("http.response.body.truncated"), None);
}

#[tokio::test]
async fn a_call_by_grpc_tells_its_messages_and_its_status() {
    let message = |length: u8| [&[0, 0, 0, 0, length][..], &vec![7; length.into()]].concat();
    let trailers = HeaderMap::from_iter([
        ("grpc-status".parse().unwrap(), HeaderValue::from_static("5")),
        (
            "grpc-message".parse().unwrap(),
            HeaderValue::from_static("no order f%C3%BCr token=SECRET"),
        ),
    ]);
    let split = message(9);
    let (front, back) = split.split_at(3);
    let chunks = vec![message(200), front.to_vec(), back.to_vec(), message(0)];
    let upstream = answering("application/grpc", chunks, Some(trailers));
    let (nats, proxy) = stage(&upstream.url()).await;
    let request = http::h2c_client()
        .post(format!("{}/shop.Orders/Watch", proxy.url()))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let answer = request.body([message(3), message(4)].concat()).send().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap().len(), 205 + 14 + 5);
    let record = record(&nats).await;
    for (key, value) in [
        ("http.request.body.size", Value::from(17)),
        ("http.request.body.messages", 2.into()),
        ("http.request.body.omitted", "content_type".into()),
        ("http.response.body.size", 224.into()),
        ("http.response.body.messages", 3.into()),
        ("http.response.status_code", 200.into()),
        ("rpc.response.status_code", "NOT_FOUND".into()),
        ("rpc.response.status_message", "no order für token=REDACTED".into()),
    ] {
        assert_eq!(record[key], value, "{key}");
    }
}

#[tokio::test]
async fn a_web_socket_tells_its_frames_and_its_close_code() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (nats, proxy) = stage(&format!("http://{}", listener.local_addr().unwrap())).await;
    let service = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        let answer =
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\r\n\x81\x02hi\x82\x01";
        stream.write_all(answer).await.unwrap();
        stream.write_all(b"!").await.unwrap();
        let mut frame = [0; 8];
        stream.read_exact(&mut frame).await.unwrap();
        stream.write_all(b"\x88\x02\x03\xe8").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let mut client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    let request = b"GET /live HTTP/1.1\r\nhost: a.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hi\x82\x01!") {
        assert!(client.read_buf(&mut answer).await.unwrap() > 0);
    }
    // Going away (1001), masked by 1, 2, 3, 4.
    client.write_all(b"\x88\x82\x01\x02\x03\x04\x02\xeb").await.unwrap();
    client.read_to_end(&mut answer).await.unwrap();
    drop(client);
    service.await.unwrap();
    let record = record(&nats).await;
    for (key, value) in [
        ("end", Value::from("upgraded")),
        ("http.response.status_code", 101.into()),
        ("http.request.body.frames", 1.into()),
        ("http.request.body.size", 8.into()),
        ("http.request.body.omitted", "upgraded".into()),
        ("http.response.body.frames", 3.into()),
        ("http.response.body.size", 11.into()),
        ("websocket.close_code", 1001.into()),
    ] {
        assert_eq!(record[key], value, "{key}");
    }
    assert_eq!(record["http.response.header"]["upgrade"], "WebSocket");
}
