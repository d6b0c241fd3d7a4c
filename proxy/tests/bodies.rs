//! Bodies as they are recorded: exact after decoding, whatever their type and coding, and never more of them than the memory.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::collections::BTreeMap;
use std::io::Write;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Response};
use serde_json::Value;
use testbed::{NatsServer, Sidelog, SidelogCommand, Upstream, http, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn proxy(nats: &NatsServer, upstream: &str) -> SidelogCommand {
    Sidelog::proxy()
        .env("UPSTREAM_URL", upstream)
        .env("NATS_URL", nats.url())
        .env("SIDELOG_TRACES__ENABLED", "false")
}

/// So many records, by their paths.
async fn records(nats: &NatsServer, count: usize) -> BTreeMap<String, Value> {
    let context = nats.jetstream().await;
    let mut records = BTreeMap::new();
    let mut next = 1;
    wait::until("the records are in the stream", async || {
        let Ok(stream) = context.get_stream("logs").await else {
            return false;
        };
        while let Ok(message) = stream.get_raw_message(next).await {
            next += 1;
            for line in sidelog_record::frame::lines(&message.payload) {
                let record: Value = serde_json::from_slice(line).unwrap();
                let path = record["url.path"].as_str().unwrap().to_owned();
                assert!(records.insert(path.clone(), record).is_none(), "two records of {path}");
            }
        }
        records.len() >= count
    })
    .await;
    assert_eq!(records.len(), count);
    records
}

fn encoded(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::fast();
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut out = Vec::new();
            brotli::CompressorWriter::new(&mut out, 4096, 4, 20)
                .write_all(bytes)
                .unwrap();
            out
        }
        "zstd" => {
            // A block is read whole or not at all: this one has several, as an answer has that is flushed while it is made.
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            for block in bytes.chunks(2048) {
                encoder.write_all(block).unwrap();
                encoder.flush().unwrap();
            }
            encoder.finish().unwrap()
        }
        _ => bytes.to_vec(),
    }
}

/// A service that gives back what it gets: type, coding and body.
fn mirror() -> Upstream {
    let answer = async |fields: HeaderMap, body: Bytes| {
        let mut answer = Response::builder();
        for name in ["content-type", "content-encoding"] {
            if let Some(value) = fields.get(name) {
                answer = answer.header(name, value);
            }
        }
        answer.body(Body::from(body)).unwrap()
    };
    Upstream::serving(Router::new().fallback(answer))
}

/// A text of some 40 KiB in each type that is recorded. The numbers keep compressors from having it too easy.
fn texts() -> Vec<(&'static str, String)> {
    let list = |part: &dyn Fn(u32) -> String| {
        let mut x = 1_u32;
        let numbers = std::iter::repeat_with(|| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            x >> 12
        });
        numbers.take(1_000).map(part).collect::<String>()
    };
    let row = |n: u32| format!("{{\"id\":{n},\"name\":\"Grüße {n}\"}}");
    let array = |n: u32| row(n) + ",";
    vec![
        ("application/json", format!("[{}0]", list(&array))),
        (
            "application/problem+json; charset=utf-8",
            format!("{{\"all\":[{}0]}}", list(&array)),
        ),
        (
            "application/x-www-form-urlencoded",
            list(&|n| format!("n{n}={n}&title=gr%C3%BC%C3%9Fe+{n}&")),
        ),
        ("text/plain", list(&|n| format!("line {n} grüßt 🦀\n"))),
        (
            "text/html; charset=UTF-8",
            list(&|n| format!("<p class=\"x\">{n} größer</p>\n")),
        ),
        ("text/csv", list(&|n| format!("{n},grün,\"{n} und mehr\"\r\n"))),
        (
            "application/xml",
            format!("<all>{}</all>", list(&|n| format!("<item id=\"{n}\">früh {n}</item>"))),
        ),
        ("text/event-stream", list(&|n| format!("id: {n}\ndata: {}\n\n", row(n)))),
        ("application/x-ndjson", list(&|n| row(n) + "\n")),
        ("application/jsonl", list(&|n| row(n) + "\n")),
        ("application/json-seq", list(&|n| format!("\u{1e}{}\n", row(n)))),
    ]
}

/// What is recorded of each text in each coding, both ways.
async fn recorded(body_max: &str, check: impl Fn(&str, &str, &str, &Value)) {
    const CODINGS: [&str; 5] = ["identity", "gzip", "br", "zstd", "deflate"];
    let (nats, upstream) = (NatsServer::start().await, mirror());
    let proxy = proxy(&nats, &upstream.url())
        .env("SIDELOG_CAPTURE__BODY_MAX", body_max)
        .start()
        .await;
    let (client, texts) = (http::client(), texts());
    for (at, (content_type, text)) in texts.iter().enumerate() {
        for coding in CODINGS {
            let sent = encoded(coding, text.as_bytes());
            let request = client
                .post(format!("{}/{at}/{coding}", proxy.url()))
                .header("content-type", *content_type)
                .header("content-encoding", coding);
            let answer = request.body(sent.clone()).send().await.unwrap();
            assert!(answer.bytes().await.unwrap() == sent, "{content_type} {coding}");
        }
    }
    let records = records(&nats, texts.len() * CODINGS.len()).await;
    for (at, (content_type, text)) in texts.iter().enumerate() {
        for coding in CODINGS {
            let record = &records[&format!("/{at}/{coding}")];
            for side in ["request", "response"] {
                let told = |key: &str| {
                    record
                        .get(format!("http.{side}.body.{key}"))
                        .cloned()
                        .unwrap_or_default()
                };
                assert_eq!(
                    told("size"),
                    encoded(coding, text.as_bytes()).len(),
                    "{content_type} {coding}"
                );
                assert_eq!(told("omitted"), Value::Null, "{content_type} {coding}");
                let body = serde_json::json!({"content": told("content"), "truncated": told("truncated"), "events": told("events")});
                check(content_type, coding, text, &body);
            }
        }
    }
}

fn is_feed(content_type: &str) -> bool {
    ["event-stream", "ndjson", "jsonl", "json-seq"]
        .iter()
        .any(|feed| content_type.ends_with(feed))
}

#[tokio::test]
async fn a_body_is_recorded_as_it_was_before_it_was_coded() {
    recorded("200KiB", |content_type, coding, text, body| {
        assert!(body["content"] == text, "{content_type} {coding}");
        assert_eq!(body["truncated"], Value::Null, "{content_type} {coding}");
        let events = if is_feed(content_type) && coding == "identity" {
            Value::from(1_000)
        } else {
            Value::Null
        };
        assert_eq!(body["events"], events, "{content_type} {coding}");
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_too_long_is_its_beginning_and_of_a_feed_its_end_too() {
    recorded("4KiB", |content_type, coding, text, body| {
        let content = body["content"].as_str().unwrap();
        assert_eq!(body["truncated"], true, "{content_type} {coding}");
        let front = match content.split_once(" bytes left out …\n") {
            Some((front, back)) => {
                assert!(is_feed(content_type) && coding == "identity", "{content_type} {coding}");
                assert!(
                    text.ends_with(back.trim_start()) && back.len() > 1_000,
                    "{content_type}: {back}"
                );
                front.rsplit_once('…').unwrap().0.trim_end_matches(": ")
            }
            None => content,
        };
        assert!(
            text.starts_with(front) && front.len() > 1_000,
            "{content_type} {coding}: {front}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_sent_twice_is_recorded_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    let service = tokio::spawn(async move {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
        let mut request = Vec::new();
        let (mut first, _) = listener.accept().await.unwrap();
        while !request.ends_with(b"\r\n\r\n") {
            assert!(first.read_buf(&mut request).await.unwrap() > 0);
        }
        first.write_all(answer).await.unwrap();
        request.clear();
        // The second request comes by the same connection, and finds it closed.
        while !request.ends_with(b"the body") {
            assert!(first.read_buf(&mut request).await.unwrap() > 0);
        }
        drop(first);
        request.clear();
        let (mut second, _) = listener.accept().await.unwrap();
        while !request.ends_with(b"the body") {
            assert!(second.read_buf(&mut request).await.unwrap() > 0);
        }
        second.write_all(answer).await.unwrap();
    });
    let nats = NatsServer::start().await;
    let proxy = proxy(&nats, &upstream).start().await;
    let client = http::client();
    client
        .get(format!("{}/first", proxy.url()))
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let request = client
        .get(format!("{}/second", proxy.url()))
        .header("content-type", "text/plain");
    let answer = request.body("the body").send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "ok");
    service.await.unwrap();
    let records = records(&nats, 2).await;
    let record = &records["/second"];
    assert_eq!(record["upstream.attempts"], 2);
    assert_eq!(
        (&record["http.request.body.content"], &record["http.request.body.size"]),
        (&"the body".into(), &8.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_open_exchanges_share_the_memory_for_captures() {
    const BODY: usize = 64 * 1024;
    const OPEN: usize = 1_000;
    const MEMORY: usize = 8 * 1024 * 1024;
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let proxy = proxy(&nats, &upstream.url())
        .env("SIDELOG_CAPTURE__MEMORY_MAX", format!("{MEMORY}B"))
        .env("SIDELOG_CAPTURE__RESPONSE_BODY", "false")
        .start()
        .await;
    let client = http::client();
    let body = Bytes::from(vec![b'a'; BODY]);
    let answers: Vec<_> = (0..OPEN)
        .map(|number| {
            let request = client
                .post(format!("{}/{number}", proxy.url()))
                .header("content-type", "text/plain")
                .header("x-answer-held", "1")
                .header("x-answer-body", "ok");
            tokio::spawn(request.body(body.clone()).send())
        })
        .collect();
    upstream.holds(OPEN).await;
    upstream.release();
    for answer in answers {
        assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    }
    let records = records(&nats, OPEN).await;
    let (kept, omitted): (Vec<_>, Vec<_>) = records
        .values()
        .partition(|record| record.get("http.request.body.content").is_some());
    assert_eq!(
        kept.len(),
        MEMORY / BODY,
        "as many bodies as there is memory for, all of them whole"
    );
    for record in kept {
        assert_eq!(record["http.request.body.content"].as_str().unwrap().len(), BODY);
    }
    for record in omitted {
        assert_eq!(record["http.request.body.omitted"], "budget");
        assert_eq!(record["http.request.body.size"], BODY);
    }
}
