//! W3C Trace Context, sections 2 to 4, as far as they concern a proxy: one test for each requirement, in three positions.
//!
//! ```text
//! front:   client → proxy (inbound) → service → what it calls
//! behind:  client → service → proxy (outbound) → what it calls
//! both:    client → proxy (inbound) → service → proxy (outbound) → what it calls
//! ```
//! The service passes the trace headers on and has no tracing of its own. What its callee is sent is what counts. The cases
//! are those of W3C's harness (<https://github.com/w3c/trace-context/tree/main/test>), and some more.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use testbed::{Port, Received, Relay, Sidelog, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ID: &str = "12345678901234567890123456789012";
const PARENT: &str = "1234567890123456";
const GOOD: &str = "00-12345678901234567890123456789012-1234567890123456-01";
const UNSAMPLED: &str = "00-12345678901234567890123456789012-1234567890123456-00";

/// What must become of a request's trace.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trace {
    /// It goes on, under a new parent.
    Continued,
    /// Another one is begun.
    Begun,
}
use Trace::{Begun, Continued};

/// The three positions, and what is called at the end of each.
struct Positions {
    entrances: [(&'static str, SocketAddr); 3],
    callee: Upstream,
    _proxy: Sidelog,
    _services: [Relay; 2],
}

/// A `traceparent` as it arrived.
#[derive(Debug, Clone, PartialEq)]
struct Arrived {
    trace_id: String,
    parent_id: String,
    flags: String,
}

impl Positions {
    async fn start() -> Self {
        let (callee, outbound) = (Upstream::start(), Port::reserve());
        let service = Relay::start(callee.url());
        let service_with_proxy = Relay::start(format!("http://{}", outbound.address()));
        let listener = |address: &str, upstream: &str, direction: &str| {
            format!("[[listeners]]\naddress = {address:?}\nupstream = {upstream:?}\ndirection = {direction:?}\n")
        };
        let config = [
            listener("127.0.0.1:0", &service.url(), "inbound"),
            listener("127.0.0.1:0", &service_with_proxy.url(), "inbound"),
            listener(&outbound.address().to_string(), &callee.url(), "outbound"),
        ];
        let proxy = Sidelog::proxy()
            .without_env("PORT")
            .env("SIDELOG_CONFIG_TOML", config.concat())
            .env("SIDELOG_CAPTURE__ENABLED", "false")
            .env("SIDELOG_TRACES__ENABLED", "false")
            .start()
            .await;
        let [front, both, _] = *proxy.addresses() else {
            panic!("three listeners, not {:?}", proxy.addresses());
        };
        Self {
            entrances: [
                ("front", front),
                ("behind", service_with_proxy.address()),
                ("both", both),
            ],
            callee,
            _proxy: proxy,
            _services: [service, service_with_proxy],
        }
    }

    /// Sends one request with these header fields, byte for byte, and returns what the callee was sent.
    async fn send(&self, entrance: SocketAddr, fields: &[(&str, &str)]) -> Received {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let path = format!("/{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n");
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection")) {
            request.push_str("connection: close\r\n");
        }
        for (name, value) in fields {
            request.extend([name, ": ", value, "\r\n"]);
        }
        request.push_str("\r\n");
        let mut client = TcpStream::connect(entrance).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer[9..], b"200", "{fields:?}");
        let received = self.callee.received();
        let received = received.iter().find(|request| request.uri.path() == path);
        received.unwrap().clone()
    }

    /// Checks one request in all three positions.
    async fn check(&self, fields: &[(&str, &str)], trace: Trace, state: Option<&str>) {
        for (position, entrance) in self.entrances {
            let received = self.send(entrance, fields).await;
            let arrived = arrived(&received);
            let what = format!("{position}: {fields:?} became {arrived:?}");
            match trace {
                Continued => assert_eq!(arrived.trace_id, ID, "{what}"),
                Begun => assert!(!ID.contains(arrived.trace_id.split_at(28).0), "{what}"),
            }
            assert_ne!(arrived.parent_id, PARENT, "{what}");
            assert_eq!(values(&received, "tracestate"), Vec::from_iter(state), "{what}");
        }
    }
}

fn values(received: &Received, name: &str) -> Vec<String> {
    let values = received.headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap().to_owned()).collect()
}

/// The one well-formed `traceparent` of a request.
fn arrived(received: &Received) -> Arrived {
    let values = values(received, "traceparent");
    let [value] = values.as_slice() else {
        panic!("not one traceparent: {values:?}");
    };
    let parts: Vec<_> = value.split('-').collect();
    let [version, trace_id, parent_id, flags] = parts.as_slice() else {
        panic!("not a traceparent: {value}");
    };
    let is_hex =
        |part: &str, length| part.len() == length && part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    assert_eq!(*version, "00");
    assert!(
        is_hex(trace_id, 32) && is_hex(parent_id, 16) && is_hex(flags, 2),
        "{value}"
    );
    assert!(
        trace_id.bytes().any(|c| c != b'0') && parent_id.bytes().any(|c| c != b'0'),
        "{value}"
    );
    Arrived {
        trace_id: (*trace_id).to_owned(),
        parent_id: (*parent_id).to_owned(),
        flags: (*flags).to_owned(),
    }
}

/// A test for each name; each line in it is a request's header fields, what becomes of its trace, and the tracestate that arrives.
macro_rules! requirements {
    ($($name:ident { $([$(($field:expr, $value:expr)),* $(,)?] => $trace:expr, $state:expr;)+ })+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let positions = Positions::start().await;
                $(positions.check(&[$(($field, $value)),*], $trace, $state).await;)+
            }
        )+
    };
}

// 3.2, the traceparent header.
requirements! {
    without_trace_headers_a_trace_is_begun {
        [] => Begun, None;
    }
    a_traceparent_alone_is_continued {
        [("traceparent", GOOD)] => Continued, None;
        [("traceparent", UNSAMPLED)] => Continued, None;
    }
    two_traceparents_begin_a_trace {
        [("traceparent", "00-12345678901234567890123456789011-1234567890123456-01"), ("traceparent", GOOD)] => Begun, None;
        [("traceparent", GOOD), ("traceparent", GOOD)] => Begun, None;
        [("traceparent", GOOD), ("traceparent", "")] => Begun, None;
    }
    a_traceparent_of_another_name_is_none {
        [("trace-parent", GOOD)] => Begun, None;
        [("trace.parent", GOOD)] => Begun, None;
    }
    traceparent_is_found_in_any_case {
        [("TraceParent", GOOD)] => Continued, None;
        [("TrAcEpArEnT", GOOD)] => Continued, None;
        [("TRACEPARENT", GOOD)] => Continued, None;
    }
    version_00_has_nothing_behind_the_flags {
        [("traceparent", "00-12345678901234567890123456789012-1234567890123456-01.")] => Begun, None;
        [("traceparent", "00-12345678901234567890123456789012-1234567890123456-01-")] => Begun, None;
        [("traceparent", "00-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like")] => Begun, None;
    }
    a_later_version_is_read_as_far_as_it_is_known {
        [("traceparent", "cc-12345678901234567890123456789012-1234567890123456-01")] => Continued, None;
        [("traceparent", "cc-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like")] => Continued, None;
        [("traceparent", "cc-12345678901234567890123456789012-1234567890123456-01.what-the-future-will-be-like")] => Begun, None;
        [("traceparent", "01-12345678901234567890123456789012-1234567890123456-01-")] => Continued, None;
    }
    version_ff_is_none {
        [("traceparent", "ff-12345678901234567890123456789012-1234567890123456-01")] => Begun, None;
    }
    a_version_is_two_hex_digits {
        [("traceparent", ".0-12345678901234567890123456789012-1234567890123456-01")] => Begun, None;
        [("traceparent", "0.-12345678901234567890123456789012-1234567890123456-01")] => Begun, None;
        [("traceparent", "CC-12345678901234567890123456789012-1234567890123456-01")] => Begun, None;
    }
    a_version_is_not_longer {
        [("traceparent", "000-12345678901234567890123456789012-1234567890123456-01")] => Begun, None;
        [("traceparent", "0000-12345678901234567890123456789012-1234567890123456-01")] => Begun, None;
    }
    a_version_is_not_shorter {
        [("traceparent", "0-12345678901234567890123456789012-1234567890123456-01")] => Begun, None;
    }
    a_trace_id_is_not_zero {
        [("traceparent", "00-00000000000000000000000000000000-1234567890123456-01")] => Begun, None;
    }
    a_trace_id_is_lower_case_hex {
        [("traceparent", "00-.2345678901234567890123456789012-1234567890123456-01")] => Begun, None;
        [("traceparent", "00-1234567890123456789012345678901.-1234567890123456-01")] => Begun, None;
        [("traceparent", "00-ABCDEF78901234567890123456789012-1234567890123456-01")] => Begun, None;
    }
    a_trace_id_is_not_longer {
        [("traceparent", "00-123456789012345678901234567890123-1234567890123456-01")] => Begun, None;
    }
    a_trace_id_is_not_shorter {
        [("traceparent", "00-1234567890123456789012345678901-1234567890123456-01")] => Begun, None;
    }
    a_parent_id_is_not_zero {
        [("traceparent", "00-12345678901234567890123456789012-0000000000000000-01")] => Begun, None;
    }
    a_parent_id_is_lower_case_hex {
        [("traceparent", "00-12345678901234567890123456789012-.234567890123456-01")] => Begun, None;
        [("traceparent", "00-12345678901234567890123456789012-123456789012345.-01")] => Begun, None;
        [("traceparent", "00-12345678901234567890123456789012-ABCDEF7890123456-01")] => Begun, None;
    }
    a_parent_id_is_not_longer {
        [("traceparent", "00-12345678901234567890123456789012-12345678901234567-01")] => Begun, None;
    }
    a_parent_id_is_not_shorter {
        [("traceparent", "00-12345678901234567890123456789012-123456789012345-01")] => Begun, None;
    }
    flags_are_two_hex_digits {
        [("traceparent", "00-12345678901234567890123456789012-1234567890123456-.0")] => Begun, None;
        [("traceparent", "00-12345678901234567890123456789012-1234567890123456-0.")] => Begun, None;
        [("traceparent", "00-12345678901234567890123456789012-1234567890123456-0A")] => Begun, None;
    }
    flags_are_not_longer {
        [("traceparent", "00-12345678901234567890123456789012-1234567890123456-001")] => Begun, None;
    }
    flags_are_not_shorter {
        [("traceparent", "00-12345678901234567890123456789012-1234567890123456-1")] => Begun, None;
    }
    blanks_around_a_traceparent_are_the_fields {
        [("traceparent", " 00-12345678901234567890123456789012-1234567890123456-01")] => Continued, None;
        [("traceparent", "\t00-12345678901234567890123456789012-1234567890123456-01")] => Continued, None;
        [("traceparent", "00-12345678901234567890123456789012-1234567890123456-01 ")] => Continued, None;
        [("traceparent", "00-12345678901234567890123456789012-1234567890123456-01\t")] => Continued, None;
        [("traceparent", "\t 00-12345678901234567890123456789012-1234567890123456-01 \t")] => Continued, None;
    }
}

// 3.3, the tracestate header.
requirements! {
    a_tracestate_without_traceparent_is_left_out {
        [("tracestate", "foo=1")] => Begun, None;
        [("tracestate", "foo=1,bar=2")] => Begun, None;
        [("tracestate", "foo=1"), ("traceparent", "00-0-0-00")] => Begun, None;
    }
    a_tracestate_goes_on_with_its_traceparent {
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1,bar=2")] => Continued, Some("foo=1,bar=2");
        [("tracestate", "foo=1,bar=2"), ("traceparent", GOOD)] => Continued, Some("foo=1,bar=2");
    }
    a_tracestate_of_another_name_is_none {
        [("traceparent", UNSAMPLED), ("trace-state", "foo=1")] => Continued, None;
        [("traceparent", UNSAMPLED), ("trace.state", "foo=1")] => Continued, None;
    }
    tracestate_is_found_in_any_case {
        [("traceparent", UNSAMPLED), ("TraceState", "foo=1")] => Continued, Some("foo=1");
        [("traceparent", UNSAMPLED), ("TrAcEsTaTe", "foo=1")] => Continued, Some("foo=1");
        [("traceparent", UNSAMPLED), ("TRACESTATE", "foo=1")] => Continued, Some("foo=1");
    }
    an_empty_tracestate_is_left_out {
        [("traceparent", UNSAMPLED), ("tracestate", "")] => Continued, None;
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1"), ("tracestate", "")] => Continued, Some("foo=1");
        [("traceparent", UNSAMPLED), ("tracestate", ""), ("tracestate", "foo=1")] => Continued, Some("foo=1");
        [("traceparent", UNSAMPLED), ("tracestate", " , ,")] => Continued, None;
    }
    several_tracestates_are_one_list_in_their_order {
        [
            ("traceparent", UNSAMPLED),
            ("tracestate", "foo=1,bar=2"),
            ("tracestate", "rojo=1,congo=2"),
            ("tracestate", "baz=3"),
        ] => Continued, Some("foo=1,bar=2,rojo=1,congo=2,baz=3");
    }
    duplicate_keys_go_on_as_they_are {
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1,foo=1")] => Continued, Some("foo=1,foo=1");
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1,foo=2")] => Continued, Some("foo=1,foo=2");
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1"), ("tracestate", "foo=1")] => Continued, Some("foo=1,foo=1");
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1"), ("tracestate", "foo=2")] => Continued, Some("foo=1,foo=2");
    }
    every_legal_character_goes_on {
        [("traceparent", UNSAMPLED), ("tracestate", &all_characters(""))] => Continued, Some(&all_characters(""));
        [("traceparent", UNSAMPLED), ("tracestate", &all_characters("@a-z0-9_-*/"))] => Continued, Some(&all_characters("@a-z0-9_-*/"));
    }
    blanks_around_members_go_on {
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1 \t , \t bar=2, \t baz=3")] => Continued, Some("foo=1 \t , \t bar=2, \t baz=3");
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1\t \t,\t \tbar=2,\t \tbaz=3")] => Continued, Some("foo=1\t \t,\t \tbar=2,\t \tbaz=3");
        [("traceparent", UNSAMPLED), ("tracestate", " foo=1")] => Continued, Some("foo=1");
        [("traceparent", UNSAMPLED), ("tracestate", "\tfoo=1")] => Continued, Some("foo=1");
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1 ")] => Continued, Some("foo=1");
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1\t")] => Continued, Some("foo=1");
        [("traceparent", UNSAMPLED), ("tracestate", "\t foo=1 \t")] => Continued, Some("foo=1");
    }
    empty_members_go_on {
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1,,bar=2,")] => Continued, Some("foo=1,,bar=2,");
    }
    an_illegal_key_spoils_the_list {
        [("traceparent", UNSAMPLED), ("tracestate", "foo =1")] => Continued, None;
        [("traceparent", UNSAMPLED), ("tracestate", "FOO=1")] => Continued, None;
        [("traceparent", UNSAMPLED), ("tracestate", "foo.bar=1")] => Continued, None;
    }
    a_key_begins_with_a_letter_or_a_digit {
        [("traceparent", UNSAMPLED), ("tracestate", "1foo=1,2@3=4")] => Continued, Some("1foo=1,2@3=4");
        [("traceparent", UNSAMPLED), ("tracestate", "_foo=1")] => Continued, None;
    }
    an_illegal_tenant_or_system_spoils_the_list {
        [("traceparent", UNSAMPLED), ("tracestate", "foo@=1,bar=2")] => Continued, None;
        [("traceparent", UNSAMPLED), ("tracestate", "@foo=1,bar=2")] => Continued, None;
        [("traceparent", UNSAMPLED), ("tracestate", "foo@@bar=1,bar=2")] => Continued, None;
        [("traceparent", UNSAMPLED), ("tracestate", "foo@bar@baz=1,bar=2")] => Continued, None;
    }
    a_list_has_thirty_two_members_at_most {
        [
            ("traceparent", UNSAMPLED),
            ("tracestate", &members(1, 10)),
            ("tracestate", &members(11, 20)),
            ("tracestate", &members(21, 30)),
            ("tracestate", &members(31, 32)),
        ] => Continued, Some(&members(1, 32));
        [
            ("traceparent", UNSAMPLED),
            ("tracestate", &members(1, 10)),
            ("tracestate", &members(11, 20)),
            ("tracestate", &members(21, 30)),
            ("tracestate", &members(31, 33)),
        ] => Continued, None;
    }
    a_key_has_a_longest_length {
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1"), ("tracestate", &key(256, 0))] => Continued, Some(&format!("foo=1,{}", key(256, 0)));
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1"), ("tracestate", &key(257, 0))] => Continued, None;
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1"), ("tracestate", &key(241, 14))] => Continued, Some(&format!("foo=1,{}", key(241, 14)));
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1"), ("tracestate", &key(242, 1))] => Continued, None;
        [("traceparent", UNSAMPLED), ("tracestate", "foo=1"), ("tracestate", &key(1, 15))] => Continued, None;
    }
    an_illegal_value_spoils_the_list {
        [("traceparent", UNSAMPLED), ("tracestate", "foo=bar=baz")] => Continued, None;
        [("traceparent", UNSAMPLED), ("tracestate", "foo=,bar=3")] => Continued, None;
    }
}

// What the headers are to other headers.
requirements! {
    what_connection_names_is_of_no_account {
        [("connection", "close, traceparent, tracestate"), ("traceparent", GOOD), ("tracestate", "foo=1")] => Continued, Some("foo=1");
    }
}

fn all_characters(system: &str) -> String {
    let value: String = (' '..='~').filter(|c| !matches!(c, ',' | '=')).collect();
    format!("abcdefghijklmnopqrstuvwxyz0123456789_-*/{system}={value}")
}

fn members(from: usize, to: usize) -> String {
    let members: Vec<_> = (from..=to)
        .map(|number| format!("bar{number:02}={number:02}"))
        .collect();
    members.join(",")
}

fn key(tenant: usize, system: usize) -> String {
    match system {
        0 => format!("{}=1", "z".repeat(tenant)),
        _ => format!("{}@{}=1", "t".repeat(tenant), "v".repeat(system)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sampled_and_random_go_on_and_unknown_flags_do_not() {
    let positions = Positions::start().await;
    for (came, expected) in [
        ("00", "00"),
        ("01", "01"),
        ("02", "02"),
        ("03", "03"),
        ("ff", "03"),
        ("fc", "00"),
    ] {
        let value = format!("00-{ID}-{PARENT}-{came}");
        for (position, entrance) in positions.entrances {
            let received = positions.send(entrance, &[("traceparent", &value)]).await;
            assert_eq!(arrived(&received).flags, expected, "{position}: {came}");
        }
    }
    for (position, entrance) in positions.entrances {
        let received = positions.send(entrance, &[]).await;
        assert_eq!(
            arrived(&received).flags,
            "03",
            "{position}: a new trace is sampled, and its id random"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_has_a_parent_of_its_own() {
    let positions = Positions::start().await;
    for (position, entrance) in positions.entrances {
        for (fields, ids) in [
            (&[("traceparent", GOOD)][..], 1),
            (&[], 3),
            (
                &[("traceparent", "00-00000000000000000000000000000000-1234567890123456-01")],
                3,
            ),
        ] {
            let mut seen = (BTreeSet::new(), BTreeSet::new());
            for _ in 0..3 {
                let arrived = arrived(&positions.send(entrance, fields).await);
                seen.0.insert(arrived.trace_id);
                seen.1.insert(arrived.parent_id);
            }
            assert_eq!((seen.0.len(), seen.1.len()), (ids, 3), "{position}: {seen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn baggage_passes_whatever_becomes_of_the_trace() {
    let positions = Positions::start().await;
    let baggage = "user=7;ttl=3 , odd%20name = a=b";
    for (position, entrance) in positions.entrances {
        for traceparent in [GOOD, "nonsense"] {
            let fields = [("traceparent", traceparent), ("baggage", baggage), ("baggage", "b=2")];
            let received = positions.send(entrance, &fields).await;
            assert_eq!(values(&received, "baggage"), [baggage, "b=2"], "{position}");
        }
    }
}

/// One proxy with a listener in this mode, and what it calls.
async fn listener(mode: &str) -> (Sidelog, Upstream) {
    let upstream = Upstream::start();
    let proxy = Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("SIDELOG_LISTENERS__0__TRACE", mode)
        .env("SIDELOG_CAPTURE__ENABLED", "false")
        .env("SIDELOG_TRACES__ENABLED", "false")
        .start()
        .await;
    (proxy, upstream)
}

async fn get(proxy: &Sidelog, upstream: &Upstream, fields: &[(&str, &str)]) -> Received {
    let mut request = testbed::http::h2c_client().get(proxy.url());
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    assert_eq!(request.send().await.unwrap().status(), 200);
    upstream.received().pop().unwrap()
}

#[tokio::test]
async fn a_restarting_listener_begins_a_trace_and_leaves_the_state_behind() {
    let (proxy, upstream) = listener("restart").await;
    let received = get(&proxy, &upstream, &[("traceparent", GOOD), ("tracestate", "foo=1")]).await;
    assert_ne!(arrived(&received).trace_id, ID);
    assert_eq!(values(&received, "tracestate"), Vec::<String>::new());
}

#[tokio::test]
async fn an_ignoring_listener_passes_the_headers_as_they_came() {
    let (proxy, upstream) = listener("ignore").await;
    for fields in [
        &[("traceparent", GOOD), ("tracestate", "foo=1"), ("tracestate", "foo=,")][..],
        &[("traceparent", GOOD), ("traceparent", "nonsense")],
        &[],
    ] {
        let received = get(&proxy, &upstream, fields).await;
        for name in ["traceparent", "tracestate"] {
            let sent: Vec<_> = fields
                .iter()
                .filter(|(known, _)| *known == name)
                .map(|(_, value)| *value)
                .collect();
            assert_eq!(values(&received, name), sent);
        }
    }
}

#[tokio::test]
async fn an_ignoring_listener_passes_what_connection_names() {
    let (proxy, upstream) = listener("ignore").await;
    let mut client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close, traceparent, tracestate\r\ntraceparent: {GOOD}\r\n\
         tracestate: foo=1\r\ntracestate: bar=2\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    let received = upstream.received().pop().unwrap();
    assert_eq!(values(&received, "traceparent"), [GOOD]);
    assert_eq!(values(&received, "tracestate"), ["foo=1", "bar=2"]);
}

#[tokio::test]
async fn over_http2_a_trace_is_continued_as_over_http1() {
    let (proxy, upstream) = listener("continue").await;
    let received = get(
        &proxy,
        &upstream,
        &[("traceparent", GOOD), ("tracestate", "foo=1"), ("tracestate", "bar=2")],
    )
    .await;
    assert_eq!(arrived(&received).trace_id, ID);
    assert_eq!(values(&received, "tracestate"), ["foo=1,bar=2"]);
}
