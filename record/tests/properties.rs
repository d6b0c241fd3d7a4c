//! What holds for every record and for any bytes.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use proptest::{
    collection::{hash_map, vec},
    option,
    prelude::*,
    sample::{Index, select},
};
use sidelog_record::{
    Body, End, Envelope, Level, MAX_ENCODED, Message, Omitted, Record,
    frame::{FrameBuilder, lines},
};

type Text = Cow<'static, str>;

/// Short texts of everything that an encoder can get wrong.
fn text() -> impl Strategy<Value = Text> {
    let pieces = select(vec![
        "",
        "a",
        "\"",
        "\\",
        "/",
        "\0",
        "\u{1}",
        "\n",
        "\r",
        "\t",
        "\u{1f}",
        "\u{7f}",
        "\u{85}",
        "é",
        "\u{2028}",
        "\u{2029}",
        "\u{feff}",
        "\u{ffff}",
        "😀",
        "{\"k\":[1]}",
        "REDACTED",
    ]);
    prop_oneof![
        vec(pieces, 0..20).prop_map(|pieces| pieces.concat().into()),
        any::<String>().prop_map(Cow::Owned),
        "[a-z0-9/ .-]{0,80}".prop_map(Cow::Owned),
    ]
}

/// A body's content: short, or long enough for the escaper's pieces.
fn content() -> impl Strategy<Value = Text> {
    prop_oneof![
        4 => text(),
        1 => (text(), 0..3000_usize).prop_map(|(unit, times)| {
            let times = times.min(60_000 / (6 * unit.len()).max(1));
            Cow::Owned(unit.repeat(times))
        }),
    ]
}

fn body() -> impl Strategy<Value = Body<'static>> {
    (
        option::of(any::<u64>()),
        option::of(content()),
        option::of(select(Omitted::ALL)),
        any::<bool>(),
        any::<[Option<u64>; 3]>(),
    )
        .prop_map(|(size, content, omitted, truncated, [events, messages, frames])| Body {
            size,
            content,
            omitted,
            truncated,
            events,
            messages,
            frames,
        })
}

/// Few fields, or more than are compared pair by pair.
fn headers() -> impl Strategy<Value = HashMap<Text, Text>> {
    prop_oneof![9 => hash_map(text(), text(), 0..6), 1 => hash_map(text(), text(), 30..40)]
}

/// Boxed: two of them by value, and a test's stack is too small.
fn message() -> BoxedStrategy<Message<'static>> {
    let parts = (headers(), any::<u32>(), body());
    let message = parts.prop_map(|(headers, headers_omitted, body)| Message {
        headers: headers.into_iter().collect(),
        headers_omitted,
        body,
    });
    message.boxed()
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..100_000_000_000_u64).prop_map(Duration::from_nanos),
        (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
    ]
}

prop_compose! {
    fn identified()(
        (timestamp, observed_timestamp) in any::<(u64, u64)>(),
        level in select(Level::ALL),
        (service_name, service_instance_id, environment) in (text(), text(), text()),
        service_version in option::of(text()),
        (trace_id, span_id, parent_span_id, trace_flags) in any::<(Option<[u8; 16]>, Option<[u8; 8]>, Option<[u8; 8]>, Option<u8>)>(),
        request_id in option::of(text()),
    ) -> Record<'static> {
        Record {
            timestamp, observed_timestamp, level, service_name, service_version, service_instance_id, environment,
            trace_id, span_id, parent_span_id, trace_flags, request_id,
            ..Record::default()
        }
    }
}

prop_compose! {
    fn asked()(
        record in identified(),
        (method, scheme, path, protocol_version) in (text(), text(), text(), text()),
        (query, route, server_address) in (option::of(text()), option::of(text()), option::of(text())),
        (client_address, user_agent) in (option::of(text()), option::of(text())),
        server_port in any::<Option<u16>>(),
    ) -> Record<'static> {
        Record { method, scheme, path, protocol_version, query, route, server_address, client_address, user_agent, server_port, ..record }
    }
}

prop_compose! {
    fn record()(
        record in asked(),
        (request, response) in (message(), message()),
        status in any::<Option<u16>>(),
        (duration, ttfb) in (duration(), option::of(duration())),
        (upstream_address, error_type) in (option::of(text()), option::of(text())),
        (rpc_status, rpc_message) in (option::of(text()), option::of(text())),
        (upstream_attempts, close_code) in any::<(Option<u32>, Option<u16>)>(),
        end in select(End::ALL),
        loss in option::of(vec((text().prop_filter("short", |reason| reason.len() < 40), any::<u64>()), 0..20)),
    ) -> Record<'static> {
        Record {
            request, response, status, rpc_status, rpc_message, close_code, duration, ttfb,
            upstream_address, error_type, upstream_attempts, end, loss,
            ..record
        }
    }
}

/// A text that may be far too long, of characters that swell or don't.
fn huge() -> impl Strategy<Value = Text> {
    (
        select(vec!["a", "\"", "\u{1}", "é", "😀", "a\n"]),
        prop_oneof![0..400_000_usize, 240_000..260_000_usize],
    )
        .prop_map(|(unit, bytes)| Cow::Owned(unit.repeat(bytes / unit.len())))
}

/// Header fields that may be far too many or too long, with names that repeat.
fn huge_headers() -> impl Strategy<Value = Vec<(Text, Text)>> {
    prop_oneof![
        vec((text(), huge()), 0..3),
        (text(), text(), 0..5000_usize).prop_map(|(name, value, count)| {
            (0..count)
                .map(|at| (Cow::Owned(format!("{name}{}", at % 700)), value.clone()))
                .collect()
        }),
    ]
}

prop_compose! {
    fn huge_record()(
        mut record in record(),
        texts in vec(option::of(huge()), 16),
        (request, response) in (huge_headers(), huge_headers()),
        (request_content, response_content) in (option::weighted(0.8, huge()), option::weighted(0.8, huge())),
        loss in option::of(vec((huge(), any::<u64>()), 0..3)),
        losses in option::of(0..200_u64),
    ) -> Record<'static> {
        let mut texts = texts.into_iter();
        let mut next = || texts.next().flatten();
        for required in [
            &mut record.service_name, &mut record.service_instance_id, &mut record.environment, &mut record.method,
            &mut record.scheme, &mut record.path, &mut record.protocol_version,
        ] {
            *required = next().unwrap_or_default();
        }
        for optional in [
            &mut record.service_version, &mut record.request_id, &mut record.query, &mut record.route,
            &mut record.server_address, &mut record.client_address, &mut record.user_agent,
            &mut record.upstream_address, &mut record.error_type,
        ] {
            *optional = next();
        }
        record.request.headers = request;
        record.response.headers = response;
        record.request.body.content = request_content;
        record.response.body.content = response_content;
        record.loss = losses.map(|count| (0..count).map(|at| (format!("reason-{at}").into(), at)).collect()).or(loss);
        record
    }
}

fn encoded(record: &Record<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    record.encode(&mut line);
    line
}

proptest! {
    #[test]
    fn decoding_gives_back_what_was_encoded(record in record()) {
        let line = encoded(&record);
        prop_assert_eq!(Record::decode(&line), Ok(record));
    }

    #[test]
    fn an_encoded_record_is_one_line_of_json_as_others_read_it(record in record()) {
        let line = encoded(&record);
        prop_assert!(!line.contains(&b'\n'));
        let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(json.get("http.request.body.content").and_then(|content| content.as_str()), record.request.body.content.as_deref());
        prop_assert_eq!(json.as_object().unwrap().values().filter(|value| value.is_null()).count(), 0);
    }

    #[test]
    fn an_envelope_is_what_the_record_decodes_to(record in record()) {
        let line = encoded(&record);
        let envelope = Envelope::read(&line).unwrap();
        prop_assert_eq!(envelope.timestamp_ns, record.observed_timestamp);
        prop_assert_eq!(envelope.service.unwrap_or_default(), record.service_name);
        prop_assert_eq!(envelope.level, Some(record.level));
        prop_assert_eq!(envelope.request_id, record.request_id);
        prop_assert_eq!(envelope.route, record.route);
    }

    #[test]
    fn any_bytes_decode_or_are_refused(line in vec(any::<u8>(), 0..200)) {
        prop_assert!(Record::decode(&line).is_err() || Envelope::read(&line).is_ok());
    }

    #[test]
    fn a_damaged_record_decodes_or_is_refused(
        record in record(),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        cut in option::of(any::<Index>()),
    ) {
        let mut line = encoded(&record);
        for (at, byte) in damage {
            let at = at.index(line.len());
            line[at] = byte;
        }
        if let Some(cut) = cut {
            line.truncate(cut.index(line.len()));
        }
        let decoded = Record::decode(&line);
        let envelope = Envelope::read(&line);
        prop_assert!(decoded.is_err() || envelope.is_ok(), "a record without an envelope: {:?}", envelope);
        // A blank before it keeps it from the short way.
        let long = [b" ", line.as_slice()].concat();
        let long = Envelope::read(&long).map_err(|error| error.reason());
        prop_assert_eq!(envelope.map_err(|error| error.reason()), long);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_frame_gives_back_its_records_in_order(
        records in vec(record(), 1..12),
        max_records in 1..6_u32,
        max_bytes in prop_oneof![0..20_000_usize, 100_000..300_000_usize],
    ) {
        let mut builder = FrameBuilder::new(max_records, max_bytes);
        let mut frames: Vec<_> = records.iter().filter_map(|record| builder.push(record)).collect();
        frames.extend(builder.close());
        prop_assert!(builder.is_empty());

        let mut back = records.iter();
        for frame in &frames {
            prop_assert!(frame.count <= max_records);
            prop_assert!(frame.payload.len() <= max_bytes || frame.count == 1);
            prop_assert_eq!(frame.payload.last(), Some(&b'\n'));
            let held: Vec<_> = lines(&frame.payload).map(|line| Record::decode(line).unwrap()).collect();
            prop_assert_eq!(held.len(), usize::try_from(frame.count).unwrap());
            prop_assert_eq!(Some(frame.first_observed), held.iter().map(|record| record.observed_timestamp).min());
            prop_assert_eq!(Some(frame.last_observed), held.iter().map(|record| record.observed_timestamp).max());
            for record in held {
                prop_assert_eq!(Some(&record), back.next());
            }
        }
        prop_assert_eq!(back.next(), None);
    }

    #[test]
    fn an_encoded_record_stays_within_the_bound(record in huge_record()) {
        let line = encoded(&record);
        prop_assert!(line.len() <= MAX_ENCODED, "{} bytes", line.len());
        let decoded = Record::decode(&line).unwrap();

        for (sent, kept) in [(&record.request, &decoded.request), (&record.response, &decoded.response)] {
            let (sent, kept) = (&sent.body, &kept.body);
            let (sent_content, kept_content) = (sent.content.as_deref(), kept.content.as_deref());
            prop_assert_eq!(sent_content.is_some(), kept_content.is_some());
            prop_assert!(sent_content.unwrap_or_default().starts_with(kept_content.unwrap_or_default()));
            prop_assert_eq!(kept.truncated, sent.truncated || sent_content != kept_content);
        }
    }

    #[test]
    fn a_record_is_cut_no_more_than_it_must_be(unit in select(vec!["a", "\"", "\u{1}", "😀"]), small in 0..20_000_usize) {
        let mut record = Record::default();
        record.request.body.content = Some("a".repeat(small).into());
        record.response.body.content = Some(unit.repeat(MAX_ENCODED).into());
        let line = encoded(&record);
        prop_assert!(line.len() > MAX_ENCODED - 200, "{} bytes", line.len());
        let decoded = Record::decode(&line).unwrap();
        prop_assert_eq!(decoded.request, record.request, "the smaller body is whole");
        prop_assert!(decoded.response.body.truncated);
    }
}

#[test]
fn heads_that_are_too_large_lose_their_last_fields() {
    let field = |at: usize| (Cow::Owned(format!("x-{at}")), Cow::Owned("v".repeat(1000)));
    let mut record = Record::default();
    record.request.headers = (0..1000).map(field).collect();
    record.response.headers = (0..10).map(field).collect();
    record.response.body.content = Some("body".into());
    let line = encoded(&record);
    assert!(line.len() <= MAX_ENCODED);
    let decoded = Record::decode(&line).unwrap();
    let kept = decoded.request.headers.len();
    assert!((200..250).contains(&kept), "{kept}");
    assert_eq!(decoded.request.headers, record.request.headers[..kept]);
    assert_eq!(decoded.request.headers_omitted, u32::try_from(1000 - kept).unwrap());
    assert_eq!(
        (decoded.response.headers.len(), decoded.response.headers_omitted),
        (10, 0)
    );
}

#[test]
fn a_long_path_ends_in_an_ellipsis() {
    let record = Record {
        path: "/".repeat(20_000).into(),
        ..Record::default()
    };
    let line = encoded(&record);
    let path = Record::decode(&line).unwrap().path;
    assert_eq!(path.len(), 16 * 1024);
    assert!(path.ends_with("/…"));
}
