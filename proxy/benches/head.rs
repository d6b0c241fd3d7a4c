//! What it costs to judge a request's head: a plain GET with ten fields, as browsers and clients send them.
//!
//! `cargo bench -p sidelog-proxy --bench head`; it is to stay well below 1 µs.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use sidelog_proxy::traffic::head::{HeadLimits, Judge, Verdict};

const LIMITS: HeadLimits = HeadLimits {
    bytes: 64 * 1024,
    fields: 200,
    target: 16 * 1024,
};

const GET: &[u8] = b"GET /api/v1/users/42?view=full HTTP/1.1\r\n\
    Host: api.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: application/json, text/plain;q=0.9, */*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n\
    X-Request-Id: 0198b2f0-7c1e-7d4a-9f3e-2b1c0d9e8f7a\r\n\
    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: no-cache\r\n\r\n";

fn main() {
    divan::main();
}

#[divan::bench]
fn a_get_with_ten_fields(bencher: Bencher<'_, '_>) {
    assert!(matches!(Judge::default().judge(GET, &LIMITS), Verdict::Taken(_)));
    bencher
        .counter(BytesCount::of_slice(GET))
        .bench_local(|| Judge::default().judge(black_box(GET), &LIMITS));
}
