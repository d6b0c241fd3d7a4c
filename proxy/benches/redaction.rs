//! What redaction costs: bytes per second over JSON that looks like an API's, with secrets in it and without.
//!
//! `make bench-redaction`: first the targets and whether they hold, then each kind and size of body.

#![expect(clippy::print_stdout, reason = "a measurement prints what it found")]

use std::time::{Duration, Instant};

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use sidelog_proxy::generation::Generation;
use sidelog_proxy::settings::{JsonRule, Settings};
use sidelog_proxy::shipping::redact::{Kind, Redactor};

fn main() {
    println!("| redaction of JSON, 1 KB | must | aim | median | least to most | holds |\n|---|---|---|---|---|---|");
    for target in TARGETS {
        target.measure();
    }
    println!();
    divan::main();
}

/// The bodies' sizes, in bytes.
const SIZES: [usize; 3] = [1024, 16 * 1024, 64 * 1024];

/// What is to be kept, in MB/s.
struct Target {
    name: &'static str,
    secrets: bool,
    must: f64,
    aim: f64,
}

const TARGETS: [Target; 2] = [
    Target {
        name: "nothing to redact",
        secrets: false,
        must: 400.0,
        aim: 1000.0,
    },
    Target {
        name: "something to redact",
        secrets: true,
        must: 200.0,
        aim: 500.0,
    },
];

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(200);

impl Target {
    /// Measures and prints it.
    fn measure(&self) {
        let texts = variants(&users(SIZES[0], self.secrets));
        let generation = Generation::new(1, Settings::default());
        let redactor = Redactor::default();
        let applied = redactor.under(generation.policy(None));
        for text in &texts {
            let found = applied.body(Kind::Json, text, false).text.matches("REDACTED").count();
            assert_eq!(found > 0, self.secrets, "what is measured is what the name says");
        }
        let mut turns = texts.iter().cycle();
        let mut rounds: [f64; ROUNDS] = std::array::from_fn(|_| {
            let (began, mut bytes) = (Instant::now(), 0);
            while began.elapsed() < ROUND {
                let text = turns.next().map(String::as_str).unwrap_or_default();
                black_box(applied.body(Kind::Json, black_box(text), false));
                bytes += text.len();
            }
            #[expect(clippy::cast_precision_loss, reason = "a rate needs no exact integers")]
            let rate = bytes as f64 / began.elapsed().as_secs_f64() / 1e6;
            rate
        });
        rounds.sort_by(f64::total_cmp);
        let [least, .., most] = rounds;
        let median = rounds[ROUNDS / 2];
        let holds = match median {
            median if median >= self.aim => "the aim, too",
            median if median >= self.must => "yes",
            _ => "NO",
        };
        let Self { name, must, aim, .. } = self;
        println!("| {name} | {must} MB/s | {aim} MB/s | {median:.0} MB/s | {least:.0} to {most:.0} | {holds} |");
    }
}

/// About so many bytes of users as an API lists them; every fourth has a secret, if any have.
fn users(size: usize, secrets: bool) -> String {
    let mut out = String::from(r#"{"page":1,"next_page_token":null,"users":["#);
    let mut number = 0;
    while out.len() < size {
        if number > 0 {
            out.push(',');
        }
        let secret = if secrets && number % 4 == 0 {
            format!(r#","password":"hunter{number}","note":"sent Bearer abcdefghijk{number} to https://a.test/""#)
        } else {
            String::new()
        };
        out.push_str(&format!(
            r#"{{"id":{number},"name":"Ada Lovelace {number}","email":"ada.{number}@example.test","created_at":"2026-01-31T12:00:00Z","address":{{"street":"12 St James's Square","city":"London","zip":"SW1Y 4JH","country":"GB"}},"roles":["admin","editor"],"active":true,"score":{number}.25,"url":"https://example.test/users/{number}?view=full","about":"Wrote the first program for a machine that was never built, and said what it could do."{secret}}}"#
        ));
        number += 1;
    }
    out.push_str("]}");
    out
}

/// About so many bytes of objects with other members each, and other values; every fourth has a secret.
fn objects(size: usize, seed: u64) -> String {
    let mut out = String::from("[");
    let mut random = seed;
    let mut below = |bound: u64| {
        random = random
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 33) % bound
    };
    while out.len() < size {
        let separator = if out.len() > 1 { "," } else { "" };
        out.push_str(&format!("{separator}{{\"id\":{}", below(100_000)));
        for name in ["name", "placed_at", "total", "city", "gift", "url", "note", "window"] {
            let value = match below(10) {
                0..3 => format!(
                    "\"{}\"",
                    "An old lamp of brass, kind to all ".repeat(1 + below(3) as usize)
                ),
                3 => format!("\"2026-01-{:02}T{:02}:00:00Z\"", 1 + below(28), below(24)),
                4 => format!("\"https://example.test/orders/{}\"", below(100_000)),
                5 => format!("{}.{:02}", below(1000), below(100)),
                6 => format!("[{},{}]", below(100), below(100)),
                7 => "null".to_owned(),
                _ => continue,
            };
            out.push_str(&format!(",\"{name}\":{value}"));
        }
        if below(4) == 0 {
            out.push_str(&format!(",\"signature\":\"{:x}\"", below(u64::MAX)));
        }
        out.push('}');
    }
    out.push(']');
    out
}

/// The text with another digit in its middle. Where bodies differ there only none is known and each is searched; every second one is
/// kept, for nothing.
fn variants(text: &str) -> [String; 3] {
    let (front, back) = text.split_at(text.len() / 2);
    let (middle, end) = back.split_at(back.len() - 64);
    assert!(
        middle.contains(|byte: char| byte.is_ascii_digit()),
        "the texts differ in their middle"
    );
    ["1", "2", "3"].map(|digit| {
        let middle = middle.replacen(|old: char| old.is_ascii_digit(), digit, 1);
        [front, &middle, end].concat()
    })
}

fn redact(bencher: Bencher<'_, '_>, kind: Kind, text: &str) {
    redact_in_turn(bencher, kind, &variants(text), Settings::default());
}

/// A body that came before: it is compared with what was searched then.
#[divan::bench(args = SIZES)]
fn json_that_is_known(bencher: Bencher<'_, '_>, size: usize) {
    redact_in_turn(bencher, Kind::Json, &[users(size, false)], Settings::default());
}

/// The same, and what it was made into is copied.
#[divan::bench(args = SIZES)]
fn json_with_secrets_that_is_known(bencher: Bencher<'_, '_>, size: usize) {
    redact_in_turn(bencher, Kind::Json, &[users(size, true)], Settings::default());
}

fn redact_in_turn(bencher: Bencher<'_, '_>, kind: Kind, texts: &[String], settings: Settings) {
    let generation = Generation::new(1, settings);
    let redactor = Redactor::default();
    let applied = redactor.under(generation.policy(None));
    assert!(texts.iter().all(|text| !applied.body(kind, text, false).ends_early));
    let mean = texts.iter().map(String::len).sum::<usize>() / texts.len();
    let mut turns = texts.iter().cycle();
    bencher.counter(BytesCount::new(mean)).bench_local(|| {
        let text = turns.next().map(String::as_str).unwrap_or_default();
        applied.body(kind, black_box(text), false).text.len()
    });
}

#[divan::bench(args = SIZES)]
fn json_without_secrets(bencher: Bencher<'_, '_>, size: usize) {
    redact(bencher, Kind::Json, &users(size, false));
}

#[divan::bench(args = SIZES)]
fn json_with_secrets(bencher: Bencher<'_, '_>, size: usize) {
    redact(bencher, Kind::Json, &users(size, true));
}

/// What processors remember of a text that comes again and again is of no use here.
#[divan::bench(args = SIZES)]
fn json_that_differs(bencher: Bencher<'_, '_>, size: usize) {
    // So many that hardly one is alone in its place, and known when its turn comes again.
    let texts: Vec<_> = (0..300).map(|seed| objects(size, seed)).collect();
    redact_in_turn(bencher, Kind::Json, &texts, Settings::default());
}

#[divan::bench(args = SIZES)]
fn json_under_names_of_the_configuration(bencher: Bencher<'_, '_>, size: usize) {
    let mut settings = Settings::default();
    settings.redaction.json = (0..20)
        .map(|number| JsonRule::Name(format!("internal_{number}")))
        .collect();
    redact_in_turn(bencher, Kind::Json, &variants(&users(size, true)), settings);
}

#[divan::bench(args = SIZES)]
fn json_in_a_string(bencher: Bencher<'_, '_>, size: usize) {
    let text = format!("{{\"body\":\"{}\"}}", users(size, true).replace('"', "\\\""));
    redact(bencher, Kind::Json, &text);
}

#[divan::bench(args = SIZES)]
fn text(bencher: Bencher<'_, '_>, size: usize) {
    let line = "2026-01-31T12:00:00Z INFO took 12 ms to answer GET /api/v1/users?page=2 for 192.0.2.1\n";
    redact(bencher, Kind::Text, &line.repeat(size / line.len() + 1));
}

#[divan::bench(args = SIZES)]
fn form(bencher: Bencher<'_, '_>, size: usize) {
    redact(
        bencher,
        Kind::Form,
        &"name=Ada+Lovelace&city=London&page=2&note=a%20b&".repeat(size / 48),
    );
}
