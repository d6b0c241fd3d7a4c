//! Secrets in every place that one can sit: not a byte of them reaches NATS, the collector, the log or the disk.
//!
//! With redaction switched off the same suite finds them all, so that it is known to look.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use percent_encoding::percent_decode_str;
use testbed::{NatsServer, Sidelog, Upstream, http, wait};

/// The most that is copied of a body, in bytes.
const BODY_MAX: usize = 2048;

/// An exchange with a secret in it.
#[derive(Clone, Debug, Default)]
struct Case {
    what: String,
    /// What is searched for: the secret, or its beginning.
    needle: String,
    target: String,
    request: Vec<(String, String)>,
    answer: Vec<(String, String)>,
    /// Sent both ways.
    body: Vec<u8>,
    content_type: String,
    coding: String,
}

/// The cases, each with a secret of its own: `@` in a text stands for it.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, what: &str, fill: impl FnOnce(&mut Case, &dyn Fn(&str) -> String)) {
        let needle = format!("zq{:03}z", self.0.len());
        let secret = format!("{needle}hunter2");
        let mut case = Case {
            what: what.to_owned(),
            needle,
            target: "/".to_owned(),
            ..Case::default()
        };
        // Where two stand together, the second is itself.
        fill(&mut case, &|text| {
            text.replace("@@", "@\u{1}").replace('@', &secret).replace('\u{1}', "@")
        });
        self.0.push(case);
    }

    fn header(&mut self, name: &str, value: &str) {
        self.add(&format!("request field {name}: {value}"), |case, with| {
            case.request.push((name.to_owned(), with(value)));
        });
        self.add(&format!("response field {name}: {value}"), |case, with| {
            case.answer.push((name.to_owned(), with(value)));
        });
    }

    fn target(&mut self, target: &str) {
        self.add(&format!("target {target}"), |case, with| case.target = with(target));
    }

    fn body(&mut self, content_type: &str, text: &str) {
        self.made(content_type, "", text, |text| text.as_bytes().to_vec());
    }

    fn made(&mut self, content_type: &str, coding: &str, text: &str, make: impl Fn(&str) -> Vec<u8>) {
        self.add(&format!("{coding} {content_type} {text}"), |case, with| {
            case.content_type = content_type.to_owned();
            case.coding = coding.to_owned();
            case.body = make(&with(text));
        });
    }
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const XML: &str = "application/xml";

fn fields(cases: &mut Cases) {
    for (name, value) in [
        ("authorization", "Bearer @"),
        ("authorization", "@"),
        ("proxy-authorization", "Basic @"),
        ("cookie", "a=@; b=2"),
        ("set-cookie", "sid=@; Path=/; HttpOnly"),
        ("set-cookie", "a=b; odd=@"),
        ("x-api-key", "@"),
        ("X-Auth-Token", "@"),
        ("x-amz-security-token", "@"),
        ("x-csrf-token", "@"),
        ("ocp-apim-subscription-key", "@"),
        ("x-internal-thing", "@"),
        ("referer", "http://a.test/?token=@&b=1"),
        ("referer", "http://me:@@a.test/"),
        ("location", "/next?code_verifier=@"),
        ("location", "/cb#access_token=@&x=1"),
        ("link", "</a?sig=@>; rel=next"),
        ("x-note", "password=@"),
        ("x-note", "got Bearer @"),
        ("user-agent", "agent/1 (token=@)"),
        ("x-request-id", "eyJhbGciOiJub25lIn0.@.x"),
        ("x-debug", "{\"password\":\"@\"}"),
    ] {
        cases.header(name, value);
    }
    for target in [
        "/a?token=@",
        "/a?x=1&%74oken=@",
        "/a?user[password]=@;x&y=1",
        "/a?X-Amz-Signature=@",
        "/a?next=http%3A%2F%2Fa.test%2F%3Fapi_key%3D@",
        "/a?q=eyJhbGciOiJub25lIn0.@.x",
        "/a;jsessionid=@/b?c=d",
        "/reset/eyJhbGciOiJub25lIn0.@.x",
        "/reset/%65yJhbGciOiJub25lIn0.@.x",
    ] {
        cases.target(target);
    }
}

fn json(cases: &mut Cases) {
    for text in [
        r#"{"password":"@"}"#,
        r#"{"a":[{"b":{"Access-Token":"@"}}]}"#,
        r#"{"pass\u0077ord":"@"}"#,
        r#"{"token":1,"token":"@"}"#,
        r#"{"secret":{"a":["@"]}}"#,
        r#"{"card":{"holder":"@"}}"#,
        r#"{"clientSecret" : "a\"@"}"#,
        r#"{"internal_id":"@"}"#,
        r#"{"user":{"cards":[{"note":"@"}]}}"#,
        r#"{"a":"{\"pin\":\"@\"}"}"#,
        r#"{"a":"{\"b\":\"{\\\"otp\\\":\\\"@\\\"}\"}"}"#,
        r#"{"log":"sent {\"password\": \"@\"} on"}"#,
        r#"{"log":"password=@ on"}"#,
        r#"{"url":"https:\/\/me:@@a.test\/"}"#,
        r#"{"log":"-----BEGIN PRIVATE KEY-----\nMII@\n-----END PRIVATE KEY-----"}"#,
        r#"[1,"Bearer @"]"#,
        r#"{password:'@'}"#,
        "{\"a\":1}\n{\"pin\":\"@\"}\n",
        // Broken: the first quote of a key is missing, or the comma before it.
        r#"{"a":"b, "password":"@"}"#,
        r#"{"a":1 "password":"@"}"#,
        r#"{"a":1}} {"password":"@"}"#,
    ] {
        cases.body(JSON, text);
    }
    cases.body("application/problem+json", r#"{"detail":{"ssn":"@"}}"#);
    cases.body("application/x-ndjson", "{\"a\" 1}\n{\"pin\":\"@\"}\n");
}

fn other_bodies(cases: &mut Cases) {
    for text in [
        "a=1&password=@&b=2",
        "pass%77ord=@",
        "payload=%7B%22token%22%3A%22@%22%7D",
        "a=http%3A%2F%2Fme%3A@%40a.test%2F",
        "a=1;pin=@;x",
    ] {
        cases.body(FORM, text);
    }
    for text in [
        "<a><password>@</password></a>",
        "<w:UserToken w:pin='@'/>",
        "<secret><![CDATA[@]]></secret>",
        "<!-- <pwd>@</pwd> --><a/>",
        "<a>&lt;pin&gt;@&lt;/pin&gt;</a>",
        "<add key=\"ApiKey\" value=\"@\"/>",
        "<a>1 < 2<pin>@</pin></a>",
        "<pin>@",
    ] {
        cases.body(XML, text);
    }
    cases.body("text/html", "<form><input name=csrf_token value=@></form>");
    cases.body("text/html", "<script>x = {\"token\": \"@\"};</script>");
    cases.body("text/plain", "Authorization: Bearer @\nx");
    cases.body("text/plain", "mongodb://me:@@db/x");
    cases.body("text/plain", "{\"password\": \"@\"}");
    cases.body("text/event-stream", "event: a\ndata: {\"token\":\"@\"}\n\n");
    cases.body(
        "multipart/form-data; boundary=xyz",
        "--xyz\r\ncontent-disposition: form-data; name=\"password\"\r\n\r\n@\r\n--xyz--\r\n",
    );
    cases.body(
        "multipart/form-data; boundary=\"xyz\"",
        "--xyz\r\ncontent-disposition: form-data; name=a\r\ncontent-type: application/json\r\n\r\n{\"pin\":\"@\"}\r\n--xyz--",
    );
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    cases.made("application/json; charset=utf-16le", "", r#"{"password":"@"}"#, utf16);
    cases.made("text/plain; charset=latin1", "", "é password=@", |text| {
        text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
    });
}

fn compressed(cases: &mut Cases) {
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let deflate = |text: &str| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let brotli = |bytes: &[u8]| {
        let mut out = Vec::new();
        let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 4, 20);
        encoder.write_all(bytes).unwrap();
        drop(encoder);
        out
    };
    let text = r#"{"a":"b","password":"@"}"#;
    cases.made(JSON, "gzip", text, gzip);
    cases.made(JSON, "deflate", text, deflate);
    cases.made(JSON, "br", text, |text| brotli(text.as_bytes()));
    cases.made(JSON, "zstd", text, |text| zstd::encode_all(text.as_bytes(), 1).unwrap());
    cases.made(JSON, "gzip, br", text, |text| brotli(&gzip(text)));
    // What is copied of it ends in the middle; what is decoded of it holds the secret.
    cases.made(JSON, "gzip", text, |text| {
        let noise: Vec<String> = (0..2_000_u32)
            .map(|i| i.wrapping_mul(2_654_435_761).to_string())
            .collect();
        let front = text.strip_suffix('}').unwrap();
        gzip(&format!("{front},\"n\":[{}]}}", noise.join(",")))
    });
}

/// Bodies that the copy's end goes through: of the secret so many bytes are left before it.
fn cut(cases: &mut Cases) {
    for (content_type, front, back) in [
        (JSON, r#"{"fill":"#, r#","password":"@"}"#),
        (JSON, r#"{"fill":"#, r#","a":"{\"pin\":\"@\"}"}"#),
        (JSON, r#"{"fill":"#, r#","a":"token=@"}"#),
        (FORM, "fill=", "&password=@"),
        (XML, "<a><fill>", "</fill><pin>@</pin></a>"),
        (XML, "<a><fill>", "</fill><b pin=\"@\"/></a>"),
        ("text/plain", "fill ", " password: @"),
        ("text/plain", "fill ", " http://me:@@a.test"),
        ("text/plain", "fill ", " Bearer @"),
        ("text/plain", "fill ", " eyJhbGciOiJub25lIn0.@.x"),
    ] {
        let what = format!("cut {content_type} {back}");
        cases.add(&what, |case, with| {
            let back = with(back);
            let before = back.find("zq").unwrap();
            let filled = BODY_MAX - front.len() - before - "zq000zhu".len();
            case.body = format!("{front}{}{back}{}", "1".repeat(filled), " ".repeat(BODY_MAX)).into_bytes();
            case.content_type = content_type.to_owned();
        });
    }
}

/// Secrets that have a shape of their own, in text and in JSON.
fn shapes(cases: &mut Cases) {
    for secret in [
        "4111111111111111",
        "5555 5555 5555 4444",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
        "xoxb-123456789012-abcdefghijkl",
        "AIzaSyA0123456789abcdefghijklmnopqrstuv",
    ] {
        for (content_type, text) in [
            ("text/plain", format!("see {secret} there")),
            (JSON, format!("{{\"a\":[\"{secret}\"]}}")),
            (FORM, format!("a={}&b=1", secret.replace(' ', "+"))),
            (XML, format!("<a>{secret}</a>")),
        ] {
            cases.add(&format!("{content_type} {text}"), |case, _| {
                case.needle = secret.to_owned();
                case.body = text.clone().into_bytes();
                case.content_type = content_type.to_owned();
            });
        }
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Cases::default();
    fields(&mut cases);
    json(&mut cases);
    other_bodies(&mut cases);
    compressed(&mut cases);
    cut(&mut cases);
    shapes(&mut cases);
    assert!(cases.0.len() > 120, "{}", cases.0.len());
    cases.0
}

/// Answers with what the case that `x-case` names says, once the whole request is there.
async fn answer(State(cases): State<Arc<Vec<Case>>>, headers: HeaderMap, _whole: Bytes) -> Response<Body> {
    let number: usize = headers["x-case"].to_str().unwrap().parse().unwrap();
    let case = &cases[number];
    let mut answer = Response::builder();
    for (name, value) in &case.answer {
        answer = answer.header(name, value);
    }
    if !case.content_type.is_empty() {
        answer = answer.header("content-type", &case.content_type);
    }
    if !case.coding.is_empty() {
        answer = answer.header("content-encoding", &case.coding);
    }
    answer.body(Body::from(case.body.clone())).unwrap()
}

/// What reached each place outside of the process, as it is and with escapes undone.
struct Seen {
    nats: Vec<String>,
    collector: Vec<String>,
    other: Vec<String>,
}

impl Seen {
    fn holds(&self, needle: &str) -> bool {
        [&self.nats, &self.collector, &self.other]
            .into_iter()
            .flatten()
            .any(|text| text.contains(needle))
    }
}

/// The bytes as text, and the same with the escapes of JSON and URLs undone, as often as strings are in strings.
fn unfolded(bytes: &[u8]) -> Vec<String> {
    let mut all = vec![String::from_utf8_lossy(bytes).into_owned()];
    for _ in 0..4 {
        let last = all
            .last()
            .unwrap()
            .replace("\\\"", "\"")
            .replace("\\/", "/")
            .replace("\\\\", "\\");
        all.push(last);
    }
    let decoded: Vec<String> = all
        .iter()
        .map(|text| {
            percent_decode_str(&text.replace('+', " "))
                .decode_utf8_lossy()
                .into_owned()
        })
        .collect();
    all.extend(decoded);
    all
}

/// Sends all cases through a proxy with these variables, and gathers what came out of it.
async fn seen(cases: &Arc<Vec<Case>>, variables: &[(&str, &str)]) -> Seen {
    let (nats, collector) = (NatsServer::start().await, Upstream::start());
    let upstream = Upstream::serving(Router::new().fallback(answer).with_state(Arc::clone(cases)));
    let mut command = Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("NATS_URL", nats.url())
        .env("JAEGER_URL", collector.address())
        .env("SIDELOG_LOG__LEVEL", "debug")
        .env("SIDELOG_SPOOL__MODE", "always")
        .env("SIDELOG_CAPTURE__BODY_MAX", BODY_MAX)
        .env("SIDELOG_CAPTURE__CONTENT_TYPES", "*/*")
        .env("SIDELOG_REDACTION__HEADERS", "x-internal-thing")
        .env("SIDELOG_REDACTION__JSON", "internal-id, $.user.cards[*].note");
    for (name, value) in variables {
        command = command.env(name, value);
    }
    let mut proxy = command.start().await;
    let client = http::client();
    for (number, case) in cases.iter().enumerate() {
        let mut request = client
            .post(format!("{}{}", proxy.url(), case.target))
            .header("x-case", number)
            .body(case.body.clone());
        for (name, value) in &case.request {
            request = request.header(name, value);
        }
        if !case.content_type.is_empty() {
            request = request.header("content-type", &case.content_type);
        }
        if !case.coding.is_empty() {
            request = request.header("content-encoding", &case.coding);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", case.what);
        assert!(answer.bytes().await.unwrap() == case.body, "{}", case.what);
    }
    wait::until("all records are shipped", async || {
        proxy.metric("sidelog_records_shipped_total", "").await >= cases.len() as f64
    })
    .await;
    let folder = proxy.temporary_folder();
    let mut other = files(&folder);
    proxy.terminate();
    assert!(proxy.exit_status(Duration::from_secs(20)).await.success());
    other.extend(unfolded(proxy.output().as_bytes()));
    let told = collector.received();
    assert!(!told.is_empty(), "no span reached the collector");
    Seen {
        nats: messages(&nats).await,
        collector: told.iter().flat_map(|request| unfolded(&request.body)).collect(),
        other,
    }
}

/// The headers and payloads of all messages of the stream.
async fn messages(nats: &NatsServer) -> Vec<String> {
    let context = nats.jetstream().await;
    let stream = context.get_stream("logs").await.unwrap();
    let mut seen = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        seen.extend(unfolded(&message.payload));
        seen.push(format!("{:?}", message.headers));
    }
    assert!(!seen.is_empty(), "no record reached NATS");
    seen
}

/// What stands in the files of a folder and all below it.
fn files(folder: &Path) -> Vec<String> {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            seen.extend(files(&path));
        } else if let Ok(bytes) = std::fs::read(&path) {
            // A file of the spool may be gone by now: its frame was acknowledged.
            seen.extend(unfolded(&bytes));
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_leaves_the_process() {
    let cases = Arc::new(cases());
    let seen = seen(&cases, &[]).await;
    let found: Vec<_> = cases
        .iter()
        .filter(|case| seen.holds(&case.needle))
        .map(|case| &case.what)
        .collect();
    assert!(found.is_empty(), "{} secrets were found: {found:#?}", found.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_finds_every_secret_when_redaction_is_off() {
    let cases = Arc::new(cases());
    let seen = seen(&cases, &[("SIDELOG_REDACTION__ENABLED", "false")]).await;
    let missed: Vec<_> = cases
        .iter()
        .filter(|case| !seen.holds(&case.needle))
        .map(|case| &case.what)
        .collect();
    assert!(
        missed.is_empty(),
        "{} secrets were not found: {missed:#?}",
        missed.len()
    );
    let query = cases.iter().find(|case| case.target.starts_with("/a?token=")).unwrap();
    assert!(
        seen.collector.iter().any(|text| text.contains(&query.needle)),
        "spans were not searched"
    );
}

#[tokio::test]
async fn a_redacted_record_still_shows_structure_names_and_sizes() {
    let mut cases = Cases::default();
    cases.body(
        JSON,
        r#"{"user":"Ada","password":"@","card":{"brand":"visa","number":"@"}}"#,
    );
    let cases = Arc::new(cases.0);
    let seen = seen(&cases, &[]).await;
    let line = seen.nats.first().unwrap();
    let record: serde_json::Value = serde_json::from_str(line.trim()).unwrap_or_else(|error| panic!("{error}: {line}"));
    let content = r#"{"user":"Ada","password":"REDACTED","card":{"brand":"REDACTED","number":"REDACTED"}}"#;
    for side in ["request", "response"] {
        assert_eq!(record[format!("http.{side}.body.content")], content);
        assert_eq!(record[format!("http.{side}.body.size")], cases[0].body.len());
        assert_eq!(record.get(format!("http.{side}.body.omitted")), None);
    }
}
