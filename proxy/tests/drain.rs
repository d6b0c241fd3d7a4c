//! `POST /drain` and `sidelog-proxy drain`: clients are let go of, everything else goes on, and only a signal ends.

#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it needs it")]

use std::process::{Command, Output};
use std::time::Duration;

use testbed::{NatsServer, Sidelog, Upstream, http, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The proxy in front of `upstream`, with a linger that no test would wait for.
async fn proxy(upstream: &Upstream, nats: &NatsServer) -> Sidelog {
    let proxy = Sidelog::proxy()
        .env("UPSTREAM_URL", upstream.url())
        .env("NATS_URL", nats.url())
        .env("SIDELOG_FRAME__LINGER", "10m")
        .env("SIDELOG_TRACES__ENABLED", "false");
    proxy.start().await
}

/// `sidelog-proxy drain` for a proxy whose `admin.address` is this.
fn drain(admin: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidelog-proxy"))
        .arg("drain")
        .env_clear()
        .env("SIDELOG_ADMIN__ADDRESS", admin)
        .output()
        .unwrap()
}

/// Has `proxy` drained by its command, which asks every address at loopback.
async fn drained(proxy: &Sidelog) {
    let every = proxy.admin_url().replace("http://127.0.0.1", "0.0.0.0");
    let output = tokio::task::spawn_blocking(move || drain(&every)).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"draining\n");
}

/// Sends a request on a kept connection and reads the head and the body of its answer.
async fn ask(client: &mut TcpStream) -> String {
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\nx-answer-body: whole\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("whole") {
        assert!(
            client.read_buf(&mut answer).await.unwrap() > 0,
            "the connection is closed"
        );
    }
    String::from_utf8(answer).unwrap().to_ascii_lowercase()
}

#[tokio::test]
async fn a_drained_proxy_goes_on_and_tells_its_clients_to_close() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let mut proxy = proxy(&upstream, &nats).await;
    let mut early = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    assert!(!ask(&mut early).await.contains("connection: close"));

    drained(&proxy).await;
    assert!(ask(&mut early).await.contains("connection: close"));
    assert_eq!(
        early.read(&mut [0; 64]).await.unwrap(),
        0,
        "it is closed behind the answer"
    );
    for _ in 0..3 {
        let mut late = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
        assert!(ask(&mut late).await.contains("connection: close"));
    }
    let ready = http::client().get(format!("{}/readyz", proxy.admin_url())).send().await;
    assert_eq!(ready.unwrap().status(), 200, "a drain leaves it ready");
    wait::until("nothing lingers", async || {
        proxy.metric("sidelog_records_shipped_total", "").await >= 5.0
    })
    .await;
    assert_eq!(proxy.output().matches("draining: ").count(), 1);
    assert!(proxy.is_running(), "only a signal ends");
    proxy.terminate();
    assert!(proxy.exit_status(Duration::from_secs(25)).await.success());
}

#[tokio::test]
async fn an_http2_client_is_told_by_goaway_and_loses_no_request() {
    let (nats, upstream) = (NatsServer::start().await, Upstream::start());
    let mut proxy = proxy(&upstream, &nats).await;
    let mut early = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    early
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    assert_eq!(frame(&mut early).await, 4, "the server's settings");
    let client = http::h2c_client();
    let get = async || client.get(proxy.url()).send().await.unwrap().status();
    assert_eq!(get().await, 200);

    drained(&proxy).await;
    let told = async { while frame(&mut early).await != 7 {} };
    tokio::time::timeout(Duration::from_secs(20), told).await.unwrap();
    drop(early);
    for _ in 0..200 {
        assert_eq!(get().await, 200);
    }
    proxy.terminate();
    assert!(proxy.exit_status(Duration::from_secs(25)).await.success());
}

/// Reads a frame of HTTP/2 and says of which type it is.
async fn frame(stream: &mut TcpStream) -> u8 {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).await.unwrap();
    head[3]
}

#[tokio::test]
async fn a_drain_of_nobody_is_an_error_that_says_so() {
    let nobody = testbed::Port::reserve();
    let output = drain(&nobody.address().to_string());
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("nothing answers at 127.0.0.1:"), "{told}");
    assert!(told.contains("is the process running"), "{told}");
    assert_eq!(drain("127.0.0.1:0").status.code(), Some(1));
    assert_eq!(drain("nowhere").status.code(), Some(2));
}
