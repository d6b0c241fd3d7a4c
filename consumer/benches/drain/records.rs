//! Records as a proxy writes them: an API's calls with both heads and JSON bodies, of [`RECORD_BYTES`] each.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sidelog_record::{Body, Level, Message, Record};

pub(crate) const RECORD_BYTES: usize = 1500;
/// Records in a message.
pub(crate) const FRAME: usize = 64;

const WORDS: [&str; 12] = [
    "amber", "basalt", "cedar", "delta", "ember", "fjord", "garnet", "harbor", "indigo", "juniper", "krypton", "lagoon",
];

/// The longest item of a body, when its quotes are escaped.
const LONGEST_ITEM: usize = 96;
/// A query that is empty.
const QUERY: usize = ",\"url.query\":\"\"".len();

/// The payloads of the messages that hold so many records. The same in each run, but for the time.
pub(crate) fn frames(records: usize) -> impl Iterator<Item = Vec<u8>> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    let now = u64::try_from(now.as_nanos()).expect("a clock before 2554");
    let mut random = StdRng::seed_from_u64(1);
    (0..records).step_by(FRAME).map(move |first| {
        let mut payload = Vec::with_capacity(FRAME * RECORD_BYTES);
        for number in first..(first + FRAME).min(records) {
            write(number, now, &mut random, &mut payload);
        }
        payload
    })
}

/// Appends a record and its newline, together [`RECORD_BYTES`].
fn write(number: usize, now: u64, random: &mut StdRng, payload: &mut Vec<u8>) {
    let observed_timestamp = now + number as u64 * 1000;
    let user: u32 = random.random_range(1..100_000);
    let request_id = format!("{:032x}", random.random::<u128>());
    let mut items = String::new();
    let mut record = Record {
        timestamp: observed_timestamp - 1_000_000,
        observed_timestamp,
        level: if number.is_multiple_of(20) {
            Level::Warn
        } else {
            Level::Info
        },
        service_name: "api-service".into(),
        service_instance_id: "api-service-7d4b9c6f5-x2x8k".into(),
        environment: "production".into(),
        trace_id: Some(random.random()),
        span_id: Some(random.random()),
        trace_flags: Some(1),
        request_id: Some(request_id.into()),
        method: "POST".into(),
        scheme: "http".into(),
        path: format!("/api/v1/users/{user}/orders").into(),
        route: Some("/api/v1/users/{id}/orders".into()),
        server_address: Some("api.example.com".into()),
        client_address: Some(format!("10.4.{}.{}", user % 256, user / 256 % 256).into()),
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36".into()),
        protocol_version: "1.1".into(),
        request: message(
            &[("content-type", "application/json"), ("authorization", "REDACTED")],
            random,
            &items,
        ),
        status: Some(200),
        duration: Duration::from_nanos(random.random_range(500_000..90_000_000)),
        ttfb: Some(Duration::from_nanos(random.random_range(400_000..500_000))),
        upstream_address: Some("127.0.0.1:8080".into()),
        upstream_attempts: Some(1),
        ..Record::default()
    };
    let start = payload.len();
    loop {
        record.response = message(
            &[("content-type", "application/json"), ("server", "uvicorn")],
            random,
            &items,
        );
        record.encode(payload);
        let missing = (start + RECORD_BYTES - 1).saturating_sub(payload.len());
        if missing < LONGEST_ITEM + QUERY {
            break;
        }
        payload.truncate(start);
        let (word, other) = (word(random), word(random));
        let id: u64 = random.random();
        items.push_str(&format!(
            r#",{{"id":"{id:016x}","name":"{word} {other}","count":{}}}"#,
            id % 100
        ));
    }
    pad(start, &record, payload);
}

/// The last bytes that are missing are the query's.
fn pad(start: usize, record: &Record<'_>, payload: &mut Vec<u8>) {
    let missing = (start + RECORD_BYTES - 1 - payload.len()).saturating_sub(QUERY);
    payload.truncate(start);
    let query = WORDS.join("&").chars().cycle().take(missing).collect::<String>();
    let record = Record {
        query: Some(query.into()),
        ..record.clone()
    };
    record.encode(payload);
    payload.push(b'\n');
    assert_eq!(payload.len() - start, RECORD_BYTES, "a record is as long as the others");
}

fn message<'a>(headers: &[(&'a str, &'a str)], random: &mut StdRng, items: &str) -> Message<'a> {
    let content = format!(
        r#"{{"user":"{}","total":{},"items":[{}]}}"#,
        word(random),
        random.random_range(1..10_000),
        items.trim_start_matches(',')
    );
    Message {
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        body: Body {
            size: Some(content.len() as u64),
            content: Some(content.into()),
            ..Body::default()
        },
        ..Message::default()
    }
}

fn word(random: &mut StdRng) -> &'static str {
    WORDS
        .get(random.random_range(0..WORDS.len()))
        .copied()
        .unwrap_or_default()
}
