//! HTTP/2: RFC 9113. Frames by hand.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stand::Stand;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Field lines as literals that are not indexed (RFC 7541, 6.2.2).
fn fields(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in lines {
        block.push(0);
        for text in [name, value] {
            // An integer with a prefix of 7 bits (RFC 7541, 5.1).
            match text.len().checked_sub(127) {
                None => block.push(text.len() as u8),
                Some(mut more) => {
                    block.push(127);
                    while more >= 128 {
                        block.push((more % 128 + 128) as u8);
                        more /= 128;
                    }
                    block.push(more as u8);
                }
            }
            block.extend(text.as_bytes());
        }
    }
    block
}

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a.test"),
    (":path", "/h2"),
];

type Lines<'a> = Vec<(&'a str, &'a str)>;

pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    /// It has room for all that is sent to it.
    pub(crate) async fn wants_everything(&mut self) {
        let most = 0x7fff_ffff_u32.to_be_bytes();
        // SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113, 6.5.2).
        self.send(SETTINGS, 0, 0, &[&[0, 4], most.as_slice()].concat()).await;
        self.send(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()).await;
    }

    /// Asks on this stream; the body of what isn't GET is still to come.
    pub(crate) async fn ask(&mut self, method: &str, stream: u32) {
        let ends = if method == "GET" { END_STREAM } else { 0 };
        let mut lines = GET;
        lines[0].1 = method;
        self.send(HEADERS, ends | END_HEADERS, stream, &fields(&lines)).await;
    }

    pub(crate) async fn connect(stand: &Stand) -> Self {
        let mut stream = TcpStream::connect(stand.address()).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        Self { stream }
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.stream
            .write_all(&frame(kind, flags, stream, payload))
            .await
            .unwrap();
    }

    /// What a stream is answered with: a status (of what HPACK calls by an index), or that it or the connection ends.
    pub(crate) async fn answer(&mut self, stream: u32) -> String {
        let reading = async {
            loop {
                let mut head = [0; 9];
                if self.stream.read_exact(&mut head).await.is_err() {
                    return "closed".to_owned();
                }
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let mut payload = vec![0; length];
                if self.stream.read_exact(&mut payload).await.is_err() {
                    return "closed".to_owned();
                }
                let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                match head[3] {
                    HEADERS if id == stream => return status(&payload),
                    RST_STREAM if id == stream => return "reset".to_owned(),
                    7 => return "goaway".to_owned(),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap()
    }
}

/// `:status` in the first field line, by the static table (RFC 7541, A), or literally.
fn status(block: &[u8]) -> String {
    let known = [(0x88, "200"), (0x8c, "400"), (0x8d, "404"), (0x8e, "500")];
    // A change of the table's size may come first (RFC 7541, 6.3).
    let block = &block[block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count()..];
    match known.iter().find(|(index, _)| *index == block[0]) {
        Some((_, status)) => (*status).to_owned(),
        None => huffman_digits(&block[2..]),
    }
}

/// Three digits, in the code of RFC 7541, B, or plain.
fn huffman_digits(value: &[u8]) -> String {
    if value[0].is_ascii_digit() {
        return String::from_utf8_lossy(&value[..3]).into_owned();
    }
    let bits: Vec<u8> = value
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let mut digits = String::new();
    let mut at = 0;
    while digits.len() < 3 {
        let take = |count: usize| bits[at..at + count].iter().fold(0, |code: u8, bit| code << 1 | bit);
        match (take(5), take(6)) {
            (code @ 0..=2, _) => {
                digits.push(char::from(b'0' + code));
                at += 5;
            }
            (_, code) => {
                digits.push(char::from(b'3' + (code - 0x19)));
                at += 6;
            }
        }
    }
    digits
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "most of them are a table of cases")]
async fn requests_have_one_reading() {
    let stand = Stand::start().await;
    let long = format!("/{}", "a".repeat(17_000));
    let with = |name: &'static str, value: &'static str| [GET.as_slice(), &[(name, value)]].concat();
    let instead = |at: usize, value| {
        let mut lines = GET.to_vec();
        lines[at].1 = value;
        lines
    };
    let hosts = |hosts: &[&'static str]| {
        let mut lines = vec![GET[0], GET[1], GET[3]];
        lines.extend(hosts.iter().map(|host| ("host", *host)));
        lines
    };
    let method = "M".repeat(80);
    let cases: [(Lines<'_>, &[&str], &str); 29] = [
        (GET.to_vec(), &["200"], "RFC 9113, 8.3.1"),
        (GET[..3].to_vec(), &["reset", "400"], "RFC 9113, 8.3.1: no :path"),
        (GET[1..].to_vec(), &["reset", "400"], "RFC 9113, 8.3.1: no :method"),
        (
            with(":path", "/again"),
            &["reset", "goaway", "400"],
            "RFC 9113, 8.3: twice",
        ),
        (with(":status", "200"), &["reset", "goaway", "400"], "RFC 9113, 8.3"),
        (with(":unknown", "a"), &["reset", "goaway", "400"], "RFC 9113, 8.3"),
        (with("X-Upper", "a"), &["reset", "goaway", "400"], "RFC 9113, 8.2.1"),
        (with("connection", "close"), &["reset", "400"], "RFC 9113, 8.2.2"),
        (
            with("transfer-encoding", "chunked"),
            &["reset", "400"],
            "RFC 9113, 8.2.2",
        ),
        (with("te", "gzip"), &["reset", "400"], "RFC 9113, 8.2.2"),
        (with("host", "b.test"), &["400"], "RFC 9113, 8.3.1"),
        (with("host", "a.test"), &["200"], "RFC 9113, 8.3.1: the same"),
        (instead(2, "user@a.test"), &["400"], "RFC 9113, 8.3.1"),
        (instead(2, "a.test,b.test"), &["400"], "RFC 3986, 3.2.2"),
        (hosts(&[]), &["400"], "RFC 9113, 8.3.1: none"),
        (hosts(&["a.test"]), &["200"], "RFC 9113, 8.3.1"),
        (hosts(&[""]), &["400"], "RFC 9110, 4.2.1: empty"),
        (hosts(&["a b,c"]), &["400"], "RFC 3986, 3.2.2"),
        (hosts(&["a.test", "a.test"]), &["400"], "RFC 9112, 3.2: twice"),
        (instead(0, &method), &["501"], "RFC 9110, 9.1"),
        (instead(3, "*"), &["400"], "RFC 9113, 8.3.1: of OPTIONS alone"),
        (with("content-length", "0"), &["200"], "RFC 9113, 8.1.1"),
        (
            [with("content-length", "0"), vec![("content-length", "0")]].concat(),
            &["400"],
            "RFC 9110, 8.6: twice",
        ),
        (
            with("content-length", "5"),
            &["reset", "400"],
            "RFC 9113, 8.1.1: no body of that length",
        ),
        (with("x", "a\nb"), &["reset", "goaway", "400"], "RFC 9113, 8.2.1"),
        (instead(3, "/a b"), &["reset", "goaway", "400"], "RFC 9113, 8.3.1"),
        (instead(3, "a"), &["reset", "goaway", "400"], "RFC 9113, 8.3.1"),
        (instead(3, &long), &["414"], "RFC 9110, 15.5.15"),
        (
            vec![(":method", "CONNECT"), (":authority", "a.test:1")],
            &["405"],
            "RFC 9110, 9.3.6",
        ),
    ];
    let mut refused = 0.0_f64;
    let mut passes = 0;
    for (lines, expected, section) in cases {
        let mut client = Client::connect(&stand).await;
        let block = fields(&lines);
        let (first, rest) = block.split_at(block.len().min(16_000));
        let flags = if rest.is_empty() {
            END_STREAM | END_HEADERS
        } else {
            END_STREAM
        };
        client.send(HEADERS, flags, 1, first).await;
        if !rest.is_empty() {
            client.send(CONTINUATION, END_HEADERS, 1, rest).await;
        }
        let answer = client.answer(1).await;
        passes += usize::from(answer == "200");
        assert!(expected.contains(&answer.as_str()), "{section}: {lines:?}: {answer}");
        refused += if answer == "200" { 0.0 } else { 1.0 };
        let counted = stand.proxy.metric("sidelog_heads_refused_total", "").await;
        assert!(
            (counted - refused).abs() < f64::EPSILON,
            "{section}: {lines:?}: {answer}: {counted} of {refused}"
        );
        stand.clean().await;
    }
    let passed = stand
        .upstream
        .received()
        .iter()
        .filter(|request| request.uri.path() != "/clean")
        .count();
    assert_eq!(passed, passes);
}

#[tokio::test]
async fn a_body_of_another_length_than_its_own_is_refused() {
    let stand = Stand::start().await;
    for (body, length) in [(b"abc".as_slice(), "5"), (b"abc", "2")] {
        let mut client = Client::connect(&stand).await;
        let mut post = GET.to_vec();
        post[0].1 = "POST";
        post.push(("content-length", length));
        client.send(HEADERS, END_HEADERS, 1, &fields(&post)).await;
        client.send(DATA, END_STREAM, 1, body).await;
        assert_eq!(client.answer(1).await, "reset", "RFC 9113, 8.1.1");
    }
    testbed::wait::until("both are recorded as refused", async || {
        stand.proxy.metric("sidelog_exchanges_total", "end=\"rejected\"").await >= 2.0
    })
    .await;
    assert!(
        stand.upstream.received().is_empty(),
        "half a body was passed off as whole"
    );
    stand.clean().await;
}

#[tokio::test]
async fn an_upload_that_does_not_get_on_is_reset() {
    let stand = Stand::with(|command| {
        command
            .env("SIDELOG_LIMITS__DOWNSTREAM_READ_TIMEOUT", "500ms")
            .env("SIDELOG_LIMITS__DOWNSTREAM_RATE_MIN", "100B")
    })
    .await;
    let mut client = Client::connect(&stand).await;
    let mut post = GET.to_vec();
    post[0].1 = "POST";
    client.send(HEADERS, END_HEADERS, 1, &fields(&post)).await;
    client.send(DATA, 0, 1, b"abc").await;
    assert_eq!(client.answer(1).await, "reset");
    let label = "limit=\"downstream_rate_min\"";
    assert!((stand.proxy.metric("sidelog_limits_reached_total", label).await - 1.0).abs() < f64::EPSILON);
    stand.clean().await;
}

#[tokio::test]
async fn who_takes_too_much_back_is_cut_off() {
    let stand = Stand::with(|command| command.env("SIDELOG_LIMITS__H2_RESETS_MAX", "10")).await;
    let mut client = Client::connect(&stand).await;
    let block = fields(&[GET.as_slice(), &[("x-answer-held", "1")]].concat());
    let mut flood = Vec::new();
    for stream in (1..60).step_by(2) {
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block));
        flood.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    drop(client.stream.write_all(&flood).await);
    let answer = client.answer(1).await;
    assert!(
        ["closed", "goaway"].contains(&answer.as_str()),
        "CVE-2023-44487: {answer}"
    );
    stand.clean().await;
}

#[tokio::test]
async fn half_a_head_has_a_deadline() {
    let stand = Stand::with(|command| command.env("SIDELOG_LIMITS__HEADER_TIMEOUT", "300ms")).await;
    let mut silent = TcpStream::connect(stand.address()).await.unwrap();
    silent.write_all(PREFACE).await.unwrap();
    let mut client = Client::connect(&stand).await;
    client.send(HEADERS, END_STREAM, 1, &fields(&GET)).await;
    for mut client in [client, Client { stream: silent }] {
        let answer = client.answer(1).await;
        assert!(["closed", "goaway"].contains(&answer.as_str()), "{answer}");
    }
    stand.clean().await;
}

#[tokio::test]
async fn a_client_without_a_request_does_not_hold_up_the_end() {
    let mut stand = Stand::start().await;
    let _idle = Client::connect(&stand).await;
    let mut served = Client::connect(&stand).await;
    served.send(HEADERS, END_STREAM | END_HEADERS, 1, &fields(&GET)).await;
    assert_eq!(served.answer(1).await, "200");
    stand.proxy.terminate();
    let status = stand.proxy.exit_status(Duration::from_secs(3)).await;
    assert!(status.success(), "{}", stand.proxy.output());
}

async fn reached(stand: &Stand, limit: &str) -> f64 {
    let label = format!("limit={limit:?}");
    stand.proxy.metric("sidelog_limits_reached_total", &label).await
}

#[tokio::test]
async fn limits_are_told_by_their_keys() {
    let stand = Stand::with(|command| {
        command
            .env("SIDELOG_LIMITS__DOWNSTREAM_IDLE_TIMEOUT", "500ms")
            .env("SIDELOG_LIMITS__H2_STREAMS_MAX", "2")
    })
    .await;
    let large = "a".repeat(70_000);
    let block = fields(&[GET.as_slice(), &[("x", &large)]].concat());
    let mut client = Client::connect(&stand).await;
    let mut parts = block.chunks(16_000).peekable();
    client.send(HEADERS, END_STREAM, 1, parts.next().unwrap()).await;
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_none() { END_HEADERS } else { 0 };
        client.send(CONTINUATION, flags, 1, part).await;
    }
    assert_eq!(client.answer(1).await, "431", "RFC 6585, 5");
    assert!((reached(&stand, "header_max").await - 1.0).abs() < f64::EPSILON);
    for stream in [3, 5, 7] {
        client.ask("POST", stream).await;
    }
    assert_eq!(client.answer(7).await, "reset", "RFC 9113, 5.1.2");
    assert!((reached(&stand, "h2_streams_max").await - 1.0).abs() < f64::EPSILON);
    let mut idle = Client::connect(&stand).await;
    idle.ask("GET", 1).await;
    assert_eq!(idle.answer(1).await, "200");
    let answer = idle.answer(3).await;
    assert!(["closed", "goaway"].contains(&answer.as_str()), "{answer}");
    testbed::wait::until("it is counted", async || {
        reached(&stand, "downstream_idle_timeout").await >= 1.0
    })
    .await;
    // One that leaves by itself reached nothing.
    drop(client);
    stand.clean().await;
    assert!((reached(&stand, "downstream_idle_timeout").await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let stand = Stand::with(|command| command.env("SIDELOG_LIMITS__DOWNSTREAM_WRITE_TIMEOUT", "500ms")).await;
    let mut client = Client::connect(&stand).await;
    // SETTINGS_INITIAL_WINDOW_SIZE: no room for a body at all (RFC 9113, 6.5.2).
    client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    client.ask("GET", 1).await;
    assert_eq!(client.answer(1).await, "200");
    assert_eq!(client.answer(1).await, "reset");
    assert!((reached(&stand, "downstream_write_timeout").await - 1.0).abs() < f64::EPSILON);
}
