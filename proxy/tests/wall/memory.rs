//! What many connections and large bodies hold. Each figure is printed.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testbed::{Upstream, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http2::Client;
use crate::stand::{Stand, next, statuses};

const MIB: u64 = 1024 * 1024;

/// As many open files as this process may have; the proxy inherits it.
fn many_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, most).unwrap();
}

async fn stand(connections_max: u32) -> Stand {
    many_files();
    Stand::with(|command| {
        command
            .env("SIDELOG_LIMITS__CONNECTIONS_MAX", connections_max)
            .env("SIDELOG_CAPTURE__ENABLED", "true")
    })
    .await
}

fn report(what: &str, stand: &Stand, before: u64, connections: u64, most: u64) {
    let now = stand.proxy.resident_bytes();
    let each = now.saturating_sub(before) / connections;
    println!(
        "{what}: {} MiB, before {} MiB, {each} bytes a connection",
        now / MIB,
        before / MIB
    );
    assert!(now < most, "{what}: {} MiB", now / MIB);
}

async fn idle(stand: &Stand, count: usize) -> Vec<TcpStream> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = TcpStream::connect(stand.address()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(statuses(&next(&mut client).await), [200]);
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn ten_thousand_idle_connections_fit_256_mib() {
    let stand = stand(20_000).await;
    idle_connections_fit(&stand, 10_000, 256 * MIB).await;
}

#[tokio::test]
async fn as_many_idle_connections_as_are_taken_by_default_fit_128_mib() {
    many_files();
    idle_connections_fit(&Stand::start().await, 1_990, 128 * MIB).await;
}

async fn idle_connections_fit(stand: &Stand, count: usize, most: u64) {
    let before = stand.proxy.resident_bytes();
    let clients = idle(stand, count).await;
    report(&format!("{count} idle"), stand, before, count as u64, most);
    drop(clients);
    stand.clean().await;
}

#[tokio::test]
async fn two_thousand_idle_connections_of_http2_fit_128_mib() {
    many_files();
    let stand = Stand::start().await;
    let before = stand.proxy.resident_bytes();
    let mut clients = Vec::new();
    for _ in 0..1_990 {
        let mut client = Client::connect(&stand).await;
        client.ask("GET", 1).await;
        assert_eq!(client.answer(1).await, "200");
        clients.push(client);
    }
    report("1,990 idle, HTTP/2", &stand, before, 1_990, 128 * MIB);
    drop(clients);
    stand.clean().await;
}

#[tokio::test]
async fn a_thousand_busy_connections_fit_256_mib() {
    let stand = stand(20_000).await;
    let before = stand.proxy.resident_bytes();
    let body = "a".repeat(64 * 1024);
    let head =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nx-answer-held: 1\r\nContent-Length: 65536\r\n\r\n";
    let mut clients = Vec::new();
    for _ in 0..1_000 {
        let mut client = TcpStream::connect(stand.address()).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(body.as_bytes()).await.unwrap();
        clients.push(client);
    }
    stand.upstream.holds(1_000).await;
    report("1,000 busy", &stand, before, 1_000, 256 * MIB);
    stand.upstream.release();
    for client in &mut clients {
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}

#[tokio::test]
async fn heads_without_end_hold_little() {
    let stand = stand(20_000).await;
    let before = stand.proxy.resident_bytes();
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}", "a".repeat(400_000));
    let mut clients = Vec::new();
    for _ in 0..300 {
        let mut client = TcpStream::connect(stand.address()).await.unwrap();
        // It is refused before all of it is written.
        drop(client.write_all(head.as_bytes()).await);
        clients.push(client);
    }
    wait::until("all are refused", async || {
        let label = "limit=\"header_max\"";
        stand.proxy.metric("sidelog_limits_reached_total", label).await >= 300.0
    })
    .await;
    report("300 heads of 400 KB", &stand, before, 300, 128 * MIB);
    stand.clean().await;
}

#[tokio::test]
async fn uploads_ahead_of_a_slow_service_are_bounded() {
    let stand = stand(20_000).await;
    let before = stand.proxy.resident_bytes();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nx-answer-held: 1\r\n\r\n".repeat(20_000);
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = TcpStream::connect(stand.address()).await.unwrap();
        let pushed = client.write_all(request.as_bytes());
        // What isn't taken stays in the kernel.
        drop(tokio::time::timeout(Duration::from_millis(20), pushed).await);
        clients.push(client);
    }
    stand.upstream.holds(100).await;
    report("100 pipelines", &stand, before, 100, 128 * MIB);
}

/// A service whose every answer is 4 MB, and which takes uploads.
async fn large_answers() -> Stand {
    let answer = async || vec![b'a'; 4_000_000];
    let router = axum::Router::new().fallback(answer);
    let upstream = Upstream::serving(router);
    let proxy = testbed::Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("SIDELOG_TRACES__ENABLED", "false")
        .start()
        .await;
    Stand { upstream, proxy }
}

#[tokio::test]
async fn two_clients_of_http2_that_read_nothing_are_bounded() {
    hundred_answers_each_hold("GET", 256 * MIB).await;
}

/// An answer to an upload has a larger window, for services that echo.
#[tokio::test]
async fn two_clients_of_http2_that_upload_and_read_nothing_are_bounded() {
    hundred_answers_each_hold("POST", 400_000_000).await;
}

async fn hundred_answers_each_hold(method: &str, most: u64) {
    let stand = large_answers().await;
    let before = stand.proxy.resident_bytes();
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(&stand).await;
        client.wants_everything().await;
        for stream in (1..200).step_by(2) {
            client.ask(method, stream).await;
        }
        clients.push(client);
    }
    wait::until("all are being answered", async || {
        stand.proxy.metric("sidelog_exchanges_open", "").await == 200.0
    })
    .await;
    // What each has sent ahead to the kernel's buffers is there when nothing more is passed on.
    holds_no_more(&stand).await;
    report(&format!("2 × 100 answers of 4 MB to {method}"), &stand, before, 2, most);
    drop(clients);
}

/// Returns when what the proxy holds has not changed for a while.
async fn holds_no_more(stand: &Stand) {
    let mut held = 0;
    wait::until("the proxy holds no more", async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = stand.proxy.resident_bytes();
        now.abs_diff(std::mem::replace(&mut held, now)) < MIB / 4
    })
    .await;
}

#[tokio::test]
async fn two_clients_of_http2_that_upload_to_nobody_are_bounded() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stand = Stand::with(|command| {
        command
            .env("UPSTREAM_URL", url)
            .env("SIDELOG_LISTENERS__0__UPSTREAM_PROTOCOL", "h1")
    })
    .await;
    let before = stand.proxy.resident_bytes();
    let sent = bytes::Bytes::from(vec![b'a'; 4_000_000]);
    let mut uploads = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let client = testbed::http::h2c_client();
        for _ in 0..100 {
            uploads.spawn(client.post(stand.proxy.url()).body(sent.clone()).send());
        }
    }
    let mut silent = Vec::new();
    while silent.len() < 200 {
        silent.push(listener.accept().await.unwrap());
    }
    holds_no_more(&stand).await;
    report("2 × 100 uploads of 4 MB", &stand, before, 2, 128 * MIB);
    uploads.abort_all();
}

#[tokio::test]
async fn a_hundred_megabytes_pass_either_way_in_little_memory() {
    let takes = async |body: axum::body::Body| {
        let taken = axum::body::to_bytes(body, usize::MAX).await;
        if taken.unwrap() == large() {
            "as it was"
        } else {
            "changed"
        }
    };
    // It takes the request's body first: hyper resets a connection on which it left some of it unread, and what is on its
    // way by then is lost.
    let gives = async |_asked: bytes::Bytes| large();
    let router = axum::Router::new()
        .fallback(takes)
        .route("/give", axum::routing::post(gives));
    let stand = in_front_of(router).await;
    for (what, client) in [
        ("HTTP/1.1", testbed::http::client()),
        ("HTTP/2", testbed::http::h2c_client()),
    ] {
        passes(&format!("{what}, up"), &stand, &client, large(), "as it was".into()).await;
        passes(&format!("{what}, down"), &stand, &client, "give".into(), large()).await;
    }
}

/// The service reads no more than it has room to answer: whoever is between must take both ways on.
#[tokio::test]
async fn an_echo_of_a_hundred_megabytes_passes_by_http2() {
    let echo = async |request: axum::extract::Request| request.into_body();
    let stand = in_front_of(axum::Router::new().fallback(echo)).await;
    let client = testbed::http::h2c_client();
    passes("HTTP/2, both ways", &stand, &client, large(), large()).await;
}

async fn in_front_of(service: axum::Router) -> Stand {
    let upstream = Upstream::serving(service);
    let proxy = testbed::Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("SIDELOG_TRACES__ENABLED", "false")
        .start()
        .await;
    Stand { upstream, proxy }
}

/// 100 MB that look the same nowhere.
fn large() -> bytes::Bytes {
    (0..100_000_000_u32).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect()
}

/// What is sent is answered with `expected`, and the proxy holds little of it at any time.
async fn passes(what: &str, stand: &Stand, client: &reqwest::Client, sent: bytes::Bytes, expected: bytes::Bytes) {
    let before = stand.proxy.resident_bytes();
    let url = format!("{}{}", stand.proxy.url(), if sent == "give" { "/give" } else { "/" });
    let asking = client.post(url).body(sent).send();
    let mut most = before;
    let mut look = async || most = most.max(stand.proxy.resident_bytes());
    let mut asking = std::pin::pin!(asking);
    let mut answer = loop {
        tokio::select! {
            answer = &mut asking => break answer.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(10)) => look().await,
        }
    };
    let mut got = 0;
    while let Some(chunk) = answer.chunk().await.unwrap() {
        assert_eq!(
            Some(chunk.as_ref()),
            expected.get(got..got + chunk.len()),
            "{what} at {got}"
        );
        got += chunk.len();
        look().await;
    }
    assert_eq!(got, expected.len(), "{what}");
    println!("100 MB by {what}: {} MiB, before {} MiB", most / MIB, before / MIB);
    assert!(most < before + 16 * MIB, "{what}: {} MiB", most / MIB);
}
