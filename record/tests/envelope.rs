//! The short way to an envelope gives what the long one gives, for records, for what is nearly one, and for what is none.
//!
//! A blank before the line is white space, which the short way leaves to the long one.

use std::time::Duration;

use sidelog_record::{Body, Envelope, Level, Message, Record};

/// Values of JSON and what is nearly one, by bars.
const VALUES: &str = r#"null|true|false|no|truee|nulls|0|-0|-1|00|01|1|2|1.|1.0|.5|1.5e3|1e|1E+2|65535|65536|404
    |18446744073709551616|""|"a"|"a|"\u00e9"|"\u00g0"|"\ud800"|"\x"|"\|"\""|"info"|"INFO"|"\u0069nfo"|"0123456789abcdef"
    |"0123456789ABCDEF0123456789abcdef"|"0123456789abcdeg"|"1970-01-01T00:00:01Z"|"1970-01-01T00:00:01.000000000Z"
    |"1970-13-01T00:00:01.000000000Z"|"2026-02-29T00:00:01.000000000Z"|"2026-01-01T24:00:01.000000000Z"
    |"2016-12-31T23:59:60.000000000Z"|"1969-12-31T23:59:59.000000000Z"|"2600-01-01T00:00:00.000000000Z"
    |"9999-01-01T00:00:00.000000000Z"|{}|{|{}}|{"a":1}|{"a":{}}|{"a":[]}|{"a":1,}|{,}|{"a"}|{1:2}|{"a" :1}|[]|[1]|[|"a" |"é""#;

/// Keys of an envelope and others.
const KEYS: &str = "timestamp observed_timestamp schema level service.name deployment.environment.name trace_id span_id request_id \
                    http.request.method http.route http.response.status_code url.path x  le\\u0076el a\\\"b";

/// Both ways say the same; true if it is a record.
#[track_caller]
fn agree(line: &[u8]) -> bool {
    let long = [b" ", line].concat();
    let (short, long) = (Envelope::read(line), Envelope::read(&long));
    assert_eq!(
        short.as_ref().map_err(|error| error.reason()),
        long.as_ref().map_err(|error| error.reason()),
        "{}",
        String::from_utf8_lossy(line)
    );
    short.is_ok()
}

fn record() -> Vec<u8> {
    let headers = || vec![("accept".into(), "a/b".into()), ("x-é".into(), "\"\u{1}\\".into())];
    let message = |content: &'static str| Message {
        headers: headers(),
        body: Body {
            size: Some(12),
            content: Some(content.into()),
            truncated: true,
            ..Body::default()
        },
        ..Message::default()
    };
    let record = Record {
        timestamp: 1_769_864_399_999_999_999,
        observed_timestamp: 1_769_864_400_000_000_000,
        level: Level::Warn,
        service_name: "api".into(),
        environment: "prod".into(),
        trace_id: Some([0xab; 16]),
        span_id: Some([0xcd; 8]),
        request_id: Some("r-1".into()),
        method: "GET".into(),
        path: "/é/😀".into(),
        route: Some("/{id}".into()),
        request: message("{\"a\":[1,\"b\\n\"]}"),
        response: message(""),
        status: Some(404),
        duration: Duration::from_nanos(1_500_001),
        loss: Some(vec![("queue".into(), 3)]),
        ..Record::default()
    };
    let mut line = Vec::new();
    record.encode(&mut line);
    line
}

#[test]
fn a_record_that_is_changed_anywhere_is_judged_the_same() {
    let line = record();
    assert!(agree(&line));
    let (mut good, mut bad) = (0, 0);
    let mut count = |line: &[u8]| *if agree(line) { &mut good } else { &mut bad } += 1;
    for at in 0..line.len() {
        count(&line[..at]);
        count(&[&line[..at], &line[at + 1..]].concat());
        for byte in *b"\"\\{}[]:,.-+ eEu019nrtfaZT\n\0\x7f\x80\xff" {
            count(&[&line[..at], &[byte], &line[at..]].concat());
            count(&[&line[..at], &[byte], &line[at + 1..]].concat());
        }
    }
    assert!(good > 1000 && bad > 1000, "{good} good, {bad} bad");
}

#[test]
fn values_of_every_kind_are_judged_the_same_under_every_key() {
    let time = "\"timestamp\":\"1970-01-01T00:00:01.000000000Z\"";
    let mut good = 0;
    let values = || {
        VALUES
            .split('|')
            .map(str::trim)
            .chain(["\"\t\"", "\"\u{7f}\"", "1 ", ""])
    };
    for (key, value) in KEYS.split(' ').flat_map(|key| values().map(move |value| (key, value))) {
        for line in [
            format!("{{\"{key}\":{value}}}"),
            format!("{{\"{key}\":{value},{time}}}"),
            format!("{{{time},\"{key}\":{value}}}"),
            format!("{{{time},\"{key}\":\"a\",\"{key}\":{value}}}"),
            format!("{{{time},\"{key}\":{value}}} "),
            format!("{{{time},\"{key}\":{value}}},"),
            format!("{{{time},\"{key}\":{value},}}"),
            format!("{{{time},\"{key}\" :{value}}}"),
        ] {
            good += usize::from(agree(line.as_bytes()));
        }
    }
    assert!(good > 500, "{good}");
}
