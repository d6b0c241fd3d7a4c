//! What the pieces of recording cost, one by one, for a POST of 1 KB of JSON that is answered by the same: on the request
//! path the flat exchange is written, on the shipping thread the rest.
//!
//! `cargo bench -p sidelog-proxy --bench pieces`

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first thing that is not as it expects"
)]

use std::net::SocketAddr;

use divan::{Bencher, black_box};
use sidelog_proxy::generation::Generation;
use sidelog_proxy::queue::exchange::{Body, Exchange, Fields, Request, Response, TraceContext, Version};
use sidelog_proxy::settings::Settings;
use sidelog_proxy::shipping::attributes::Attributes;
use sidelog_proxy::shipping::record::{Identity, record};
use sidelog_proxy::shipping::redact::Redactor;
use sidelog_proxy::shipping::span::span;
use sidelog_record::frame::FrameBuilder;
use sidelog_record::{End, Record};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A body of about 1 KB.
const ORDER: &str = include_str!("cost/order.json");
/// The header fields of a client, and of a service behind a web server.
const REQUEST: [(&str, &str); 8] = [
    ("host", "shop.example.test"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36",
    ),
    ("accept", "application/json, text/plain;q=0.9"),
    ("accept-encoding", "gzip, br"),
    ("authorization", "Bearer 0123456789abcdef0123456789abcdef"),
    ("content-type", "application/json"),
    ("content-length", "1024"),
    ("x-request-id", "5f0c7a0e-9d1e-4d5c-8a52-0f6d3c1b2a90"),
];
const RESPONSE: [(&str, &str); 5] = [
    ("server", "nginx/1.22.1"),
    ("date", "Sat, 31 Jan 2026 12:00:00 GMT"),
    ("content-type", "application/json"),
    ("content-length", "1024"),
    ("cache-control", "no-store"),
];

fn main() {
    divan::main();
}

fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in list {
        Fields::push(&mut out, name.as_bytes(), value.as_bytes());
    }
    out
}

/// The exchange as it travels between the threads.
fn flat() -> Vec<u8> {
    let body = Body {
        size: ORDER.len() as u64,
        bytes: ORDER.as_bytes(),
        head: ORDER.len(),
        ..Body::default()
    };
    let (request, response) = (fields(&REQUEST), fields(&RESPONSE));
    let exchange = Exchange {
        generation: 1,
        listener: 0,
        route: None,
        record: true,
        started: 1_769_860_800_000_000_000,
        duration: 1_500_000,
        first_byte: Some(1_000_000),
        end: End::Complete,
        error_type: "",
        trace: TraceContext {
            trace_id: [7; 16],
            span_id: [8; 8],
            span: true,
            flags: 3,
            ..TraceContext::default()
        },
        trace_state: b"",
        client: Some(SocketAddr::from(([127, 0, 0, 1], 40_000))),
        forwarded_for: None,
        upstream: Some(SocketAddr::from(([127, 0, 0, 1], 9_000))),
        attempts: 1,
        close_code: None,
        request: Request {
            version: Version::Http11,
            method: b"POST",
            target: b"/api/v1/orders?dry_run=false",
            authority: b"shop.example.test",
            fields: Fields(&request),
            body: body.clone(),
        },
        response: Response {
            status: Some(201),
            grpc: None,
            grpc_message: b"",
            fields: Fields(&response),
            body,
        },
    };
    let mut out = Vec::new();
    exchange.encode(&mut out);
    out
}

/// What an exchange is made into a record with.
struct Stand {
    flat: Vec<u8>,
    identity: Identity,
    generation: Generation,
    redactor: Redactor,
}

impl Stand {
    fn new() -> Self {
        Self {
            flat: flat(),
            identity: Identity {
                service: "shop".to_owned(),
                version: Some("1.4.2".to_owned()),
                instance: "shop-7d9f8b6c5-x2x4z".to_owned(),
                environment: "production".to_owned(),
            },
            generation: Generation::new(1, Settings::default()),
            redactor: Redactor::default(),
        }
    }

    fn exchange(&self) -> Exchange<'_> {
        Exchange::decode(&self.flat).unwrap().0
    }

    fn attributes<'s>(&'s self, exchange: &Exchange<'s>) -> Attributes<'s> {
        Attributes::of(exchange, &self.generation, &self.redactor)
    }

    fn record<'s>(&'s self, exchange: &Exchange<'s>) -> Record<'s> {
        let attributes = self.attributes(exchange);
        record(exchange, attributes, &self.identity, &self.generation, &self.redactor)
    }
}

#[divan::bench]
fn exchange_written(bencher: Bencher<'_, '_>) {
    let stand = Stand::new();
    let exchange = stand.exchange();
    let mut out = Vec::new();
    bencher.bench_local(|| {
        out.clear();
        black_box(&exchange).encode(&mut out);
        out.len()
    });
}

#[divan::bench]
fn exchange_read(bencher: Bencher<'_, '_>) {
    let stand = Stand::new();
    bencher.bench_local(|| Exchange::decode(black_box(&stand.flat)).unwrap().0.duration);
}

/// What record and span share, redaction included.
#[divan::bench]
fn attributes_found(bencher: Bencher<'_, '_>) {
    let stand = Stand::new();
    let exchange = stand.exchange();
    bencher.bench_local(|| stand.attributes(black_box(&exchange)));
}

/// With its attributes, redaction included. Its bodies came before, and aren't searched; what that takes, the bench `redaction` says.
#[divan::bench]
fn record_made(bencher: Bencher<'_, '_>) {
    let stand = Stand::new();
    let exchange = stand.exchange();
    bencher.bench_local(|| stand.record(black_box(&exchange)));
}

/// Escaping included.
#[divan::bench]
fn record_written(bencher: Bencher<'_, '_>) {
    let stand = Stand::new();
    let exchange = stand.exchange();
    let record = stand.record(&exchange);
    let mut out = Vec::new();
    bencher.bench_local(|| {
        out.clear();
        black_box(&record).encode(&mut out);
        out.len()
    });
}

/// The same into frames as they are by default.
#[divan::bench]
fn record_framed(bencher: Bencher<'_, '_>) {
    let stand = Stand::new();
    let exchange = stand.exchange();
    let record = stand.record(&exchange);
    let settings = Settings::default();
    let mut frame = FrameBuilder::new(settings.frame.max_records, settings.frame.max_bytes.as_usize());
    bencher.bench_local(|| frame.push(black_box(&record)));
}

/// Made and encoded.
#[divan::bench]
fn span_written(bencher: Bencher<'_, '_>) {
    let stand = Stand::new();
    let exchange = stand.exchange();
    let attributes = stand.attributes(&exchange);
    bencher.bench_local(|| span(black_box(&exchange), &attributes, &stand.generation));
}
