//! An hour's faults in a minute: the logs of both programs stay short, and hold nothing of what was sent.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use testbed::{Answer, LokiDouble, NatsServer, Port, Sidelog, Upstream, balanced, http, settled, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Stands in every part of every request.
const CANARY: &str = "canary";
/// One in five minutes.
const OUTAGES: usize = 12;
const REFUSED: usize = 10_000;
const CONNECTIONS: usize = 20;
const BAD_LINES: usize = 300;
/// What a program tells of an outage at most: that it began, what it does meanwhile, and that it is over.
const LINES_OF_AN_OUTAGE: usize = 4;
/// And of everything else: its start, and each kind of trouble once.
const OTHER_LINES: usize = 20;

async fn exchanges(proxy: &Sidelog, count: usize) {
    let client = http::client();
    for _ in 0..count {
        let url = format!("{}/{CANARY}?{CANARY}={CANARY}", proxy.url());
        let request = client.post(url).header("cookie", CANARY).header("x-request-id", CANARY);
        let answer = request.body(CANARY).send().await.unwrap();
        answer.bytes().await.unwrap();
    }
}

/// Heads that two parsers could read differently; each costs its connection.
async fn refused_heads(proxy: &Sidelog) {
    let port = proxy.addresses()[0].port();
    let connections = (0..CONNECTIONS).map(|_| {
        tokio::spawn(async move {
            for _ in 0..REFUSED / CONNECTIONS {
                let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let head = format!("GET /{CANARY} HTTP/1.1\r\nhost: a\r\nhost: {CANARY}\r\n\r\n");
                connection.write_all(head.as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                // A reset after the answer is an end like any other.
                drop(connection.read_to_end(&mut answer).await);
                assert!(
                    answer.starts_with(b"HTTP/1.1 400"),
                    "{}",
                    String::from_utf8_lossy(&answer)
                );
            }
        })
    });
    for connection in connections.collect::<Vec<_>>() {
        connection.await.unwrap();
    }
}

async fn bad_lines(nats: &NatsServer) {
    let jetstream = nats.jetstream().await;
    for number in 0..BAD_LINES {
        let line = format!("{{\"{CANARY}\": {number}");
        jetstream.publish("logs.api", line.into()).await.unwrap().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_of_faults_makes_a_short_log_that_holds_nothing_of_the_requests() {
    let mut nats = NatsServer::start().await;
    let (upstream, loki, nowhere) = (Upstream::start(), LokiDouble::start(), Port::reserve());
    let proxy = Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("NATS_URL", nats.url())
        .env("JAEGER_URL", nowhere.address())
        .env("SIDELOG_NATS__STREAM_MAX_BYTES", "64MiB")
        .start()
        .await;
    let consumer = Sidelog::consumer()
        .env("NATS_URL", nats.url())
        .env("LOKI_URL", loki.push_url())
        .env("SIDELOG_NATS__STREAM_MAX_BYTES", "64MiB")
        .env("SIDELOG_DEAD_LETTER__MAX_BYTES", "64MiB")
        .env("SIDELOG_LOKI__BATCH_WAIT", "20ms")
        .env("SIDELOG_LOKI__BACKOFF_MIN", "5ms")
        .env("SIDELOG_LOKI__BACKOFF_MAX", "20ms")
        .start()
        .await;
    let statuses = [503, 500, 401, 502];
    for outage in 0..OUTAGES {
        loki.always(match outage % 3 {
            0 => Answer::RateLimited(None),
            _ => Answer::Status(statuses[outage % statuses.len()], String::new()),
        });
        exchanges(&proxy, 20).await;
        nats.kill();
        exchanges(&proxy, 20).await;
        nats.restart().await;
        balanced(&proxy, "records are shipped again", |balance| {
            balance.shipped() >= ((outage + 1) * 40) as u64
        })
        .await;
    }
    refused_heads(&proxy).await;
    // Nobody serves any more.
    drop(upstream);
    exchanges(&proxy, 200).await;
    loki.always(Answer::Store);
    bad_lines(&nats).await;
    settled(&proxy).await;
    wait::until("the bad lines are set aside", async || {
        consumer.metric("sidelog_dead_letters_total", "").await >= BAD_LINES as f64
    })
    .await;
    assert!(proxy.metric("sidelog_heads_refused_total", "").await >= REFUSED as f64);
    wait::until("every record is stored", async || loki.count() >= OUTAGES * 40 + 200).await;

    for program in [&proxy, &consumer] {
        let log = program.output();
        let lines = log.lines().count();
        assert!(
            lines <= OUTAGES * LINES_OF_AN_OUTAGE + OTHER_LINES,
            "{lines} lines:\n{log}"
        );
        let told: Vec<_> = log.lines().filter(|line| line.contains(CANARY)).collect();
        assert_eq!(told, Vec::<&str>::new());
    }
}
