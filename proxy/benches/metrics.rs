//! What the metrics cost: counting an exchange on the request path, and a scrape.
//!
//! `cargo bench -p sidelog-proxy --bench metrics`; the most that is wanted is 0.3 µs for an exchange, also where two threads
//! count into the same route, and 20 ms for a scrape of 1,000 routes.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first thing that is not as it expects"
)]

use std::sync::Arc;

use divan::{Bencher, black_box};
use sidelog_chassis::scrape::{Format, Scrape};
use sidelog_proxy::generation::Generations;
use sidelog_proxy::metrics::exchanges::{Exchanges, RouteSeries};
use sidelog_proxy::metrics::{Metrics, Sources};
use sidelog_proxy::queue::exchange::{Body, Exchange, Fields, Request, Response, TraceContext, Version};
use sidelog_proxy::queue::{Queue, QueueLimits};
use sidelog_proxy::settings::Settings;
use sidelog_proxy::traffic::capture::Budget;
use sidelog_record::End;

/// Routes of a large configuration.
const ROUTES: u32 = 1_000;

fn main() {
    divan::main();
}

fn exchange(route: u32) -> Exchange<'static> {
    let body = |size| Body {
        size,
        ..Body::default()
    };
    Exchange {
        generation: 1,
        listener: 0,
        route: Some(route),
        record: true,
        started: 1_700_000_000_000_000_000,
        duration: 3_000_000 + u64::from(route),
        first_byte: Some(2_000_000),
        end: End::Complete,
        error_type: "",
        trace: TraceContext {
            trace_id: [7; 16],
            span: true,
            ..TraceContext::default()
        },
        trace_state: b"",
        client: None,
        forwarded_for: None,
        upstream: None,
        attempts: 1,
        close_code: None,
        request: Request {
            version: Version::Http11,
            method: if route.is_multiple_of(2) { b"POST" } else { b"GET" },
            target: b"/",
            authority: b"api",
            fields: Fields::default(),
            body: body(200),
        },
        response: Response {
            status: Some(200),
            fields: Fields::default(),
            body: body(2_000),
            grpc: None,
            grpc_message: b"",
        },
    }
}

fn routes(exchanges: &Arc<Exchanges>) -> RouteSeries {
    let paths: Vec<String> = (0..ROUTES).map(|n| format!("/api/v1/things-{n}/{{id}}")).collect();
    exchanges.routes(paths.iter().map(String::as_str))
}

/// Each thread counts into the same route.
#[divan::bench(threads = [1, 2])]
fn count_an_exchange(bencher: Bencher<'_, '_>) {
    let series = routes(&Arc::default());
    let seen = exchange(1);
    bencher.bench(|| {
        series.began();
        series.ended(black_box(&seen), Some(2_900_000));
    });
}

/// Every route was asked by two methods, with five outcomes each.
#[divan::bench(args = [Format::Text, Format::OpenMetrics])]
fn scrape_1000_routes(bencher: Bencher<'_, '_>, format: Format) {
    let generations = Arc::new(Generations::begin(Settings::default()).unwrap());
    let series = routes(generations.exchanges());
    for route in 0..ROUTES {
        for method in [&b"GET"[..], b"PUT"] {
            for status in [200, 201, 304, 404, 503] {
                let mut seen = exchange(route);
                (seen.request.method, seen.response.status) = (method, Some(status));
                series.began();
                series.ended(&seen, Some(2_000_000));
            }
        }
    }
    let limits = QueueLimits {
        bodies_max_bytes: 1 << 20,
        max_bytes: 1 << 20,
    };
    let sources = Sources {
        generations,
        reloads: Arc::default(),
        queue: Queue::new(limits, 1),
        budget: Budget::new(1 << 20),
        connections: Arc::default(),
        shipping: Arc::default(),
        spans: Arc::default(),
    };
    let metrics = Metrics::new(sources, &Settings::default());
    bencher.bench_local(|| {
        let mut out = String::new();
        metrics.write(&mut out, format).unwrap();
        out.len()
    });
}
