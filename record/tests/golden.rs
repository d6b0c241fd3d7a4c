//! The record as it stands in stores and streams: each file in `golden/` is one line that must never change its
//! meaning, and those that this version writes must not change a byte.

use std::time::Duration;

use sidelog_record::{Body, End, Envelope, Level, Message, Omitted, Record};

const FULL: &str = include_str!("golden/full.json");
const STREAMS: &str = include_str!("golden/streams.json");
const MINIMAL: &str = include_str!("golden/minimal.json");
const LOSS: &str = include_str!("golden/loss.json");
const OLD: &str = include_str!("golden/old.json");
const FOREIGN: &str = include_str!("golden/foreign.json");

/// 2026-01-31T12:34:56Z.
const NOON: u64 = 1_769_862_896_000_000_000;

fn full() -> Record<'static> {
    Record {
        timestamp: NOON + 123_456_789,
        observed_timestamp: NOON + 135_802_469,
        level: Level::Warn,
        service_name: "api-service".into(),
        service_version: Some("1.4.2".into()),
        service_instance_id: "0197f3a2-6c1e-7b55-9d0a-2f4c8e1b7a33".into(),
        environment: "production".into(),
        trace_id: Some(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes()),
        span_id: Some(0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()),
        parent_span_id: Some(0xb7ad_6b71_6920_3331_u64.to_be_bytes()),
        trace_flags: Some(3),
        request_id: Some("req-\"42\"".into()),
        method: "POST".into(),
        scheme: "https".into(),
        path: "/api/v1/users/%6Cogin".into(),
        query: Some("dry_run=true&name=J%C3%BCrgen".into()),
        route: Some("/api/v1/users/{id}".into()),
        server_address: Some("api.example.com".into()),
        server_port: Some(443),
        client_address: Some("2001:db8::7".into()),
        user_agent: Some("curl/8.5.0".into()),
        protocol_version: "2".into(),
        request: Message {
            headers: vec![
                ("content-type".into(), "application/json".into()),
                ("authorization".into(), "REDACTED".into()),
                ("accept".into(), "text/html, application/json".into()),
            ],
            headers_omitted: 2,
            body: Body {
                size: Some(70_000),
                content: Some("{\"name\":\"Zoë 🦀\",\"tab\":\"\t\",\"sep\":\"\u{2028}\u{7f}\u{1}\"}\r\n".into()),
                omitted: None,
                truncated: true,
                ..Body::default()
            },
        },
        response: Message {
            headers: vec![("content-type".into(), "image/png".into())],
            headers_omitted: 0,
            body: Body {
                size: Some(12),
                content: None,
                omitted: Some(Omitted::ContentType),
                ..Body::default()
            },
        },
        status: Some(422),
        rpc_status: None,
        rpc_message: None,
        close_code: None,
        duration: Duration::from_nanos(12_345_680),
        ttfb: Some(Duration::from_micros(11_500)),
        upstream_address: Some("127.0.0.1:9000".into()),
        upstream_attempts: Some(2),
        end: End::Complete,
        error_type: Some("422".into()),
        loss: None,
    }
}

/// What no single exchange has, but each of its own kind.
fn streams() -> Record<'static> {
    let counted = |events, messages, frames| Message {
        body: Body {
            size: Some(9),
            omitted: Some(Omitted::Upgraded),
            events,
            messages,
            frames,
            ..Body::default()
        },
        ..Message::default()
    };
    Record {
        timestamp: NOON,
        observed_timestamp: NOON,
        request: counted(Some(1), Some(2), Some(3)),
        response: counted(Some(4), Some(5), Some(6)),
        status: Some(101),
        rpc_status: Some("NOT_FOUND".into()),
        rpc_message: Some("no such order".into()),
        close_code: Some(1001),
        end: End::Upgraded,
        ..Record::default()
    }
}

fn minimal() -> Record<'static> {
    Record {
        timestamp: NOON,
        observed_timestamp: NOON,
        ..Record::default()
    }
}

fn loss() -> Record<'static> {
    Record {
        timestamp: NOON,
        observed_timestamp: NOON + 60_000_000_000,
        level: Level::Error,
        service_name: "api-service".into(),
        service_instance_id: "i-1".into(),
        environment: "production".into(),
        duration: Duration::from_secs(60),
        end: End::Loss,
        loss: Some(vec![("queue_full".into(), 1200), ("spool_full".into(), 7)]),
        ..Record::default()
    }
}

#[track_caller]
fn assert_written_and_read(record: &Record<'_>, golden: &str) {
    let mut line = Vec::new();
    record.encode(&mut line);
    line.push(b'\n');
    assert_eq!(str::from_utf8(&line), Ok(golden));
    assert_eq!(Record::decode(golden.as_bytes()).as_ref(), Ok(record));
}

#[test]
fn a_record_of_streams_is_these_bytes() {
    assert_written_and_read(&streams(), STREAMS);
}

#[test]
fn a_full_record_is_these_bytes() {
    assert_written_and_read(&full(), FULL);
}

#[test]
fn a_minimal_record_is_these_bytes() {
    assert_written_and_read(&minimal(), MINIMAL);
}

#[test]
fn a_loss_record_is_these_bytes() {
    assert_written_and_read(&loss(), LOSS);
}

#[test]
fn an_old_record_without_newer_keys_decodes() {
    let expected = Record {
        timestamp: NOON,
        observed_timestamp: NOON,
        level: Level::Error,
        service_name: "microservice".into(),
        method: "GET".into(),
        path: "/health".into(),
        status: Some(503),
        duration: Duration::from_micros(1500),
        ..Record::default()
    };
    assert_eq!(Record::decode(OLD.as_bytes()), Ok(expected));
}

#[test]
fn a_foreign_record_with_unknown_keys_decodes() {
    let expected = Record {
        timestamp: NOON - 3_600_000_000_000 + 250_000_000,
        observed_timestamp: NOON,
        level: Level::Info,
        service_name: "billing/worker".into(),
        trace_id: Some([0xab; 16]),
        method: "GET".into(),
        path: "/".into(),
        status: Some(200),
        duration: Duration::from_millis(1500),
        request: Message {
            headers: vec![("Accept".into(), "*/*".into())],
            ..Message::default()
        },
        ..Record::default()
    };
    assert_eq!(Record::decode(FOREIGN.as_bytes()), Ok(expected));
}

#[test]
fn every_golden_record_has_an_envelope() {
    for golden in [FULL, MINIMAL, LOSS, OLD, FOREIGN] {
        let record = Record::decode(golden.as_bytes()).unwrap();
        let envelope = Envelope::read(golden.as_bytes()).unwrap();
        assert_eq!(envelope.timestamp_ns, record.observed_timestamp);
        assert_eq!(envelope.service.unwrap_or_default(), record.service_name);
        assert_eq!(envelope.status, record.status);
    }
}
