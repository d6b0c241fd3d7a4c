//! Time: who is silent, drips, or doesn't read, and who only thinks.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stand::{Stand, next, rest, statuses};

async fn reached(stand: &Stand, limit: &str) -> f64 {
    let label = format!("limit={limit:?}");
    stand.proxy.metric("sidelog_limits_reached_total", &label).await
}

#[tokio::test]
async fn a_head_has_a_deadline_the_first_and_the_next() {
    let stand = Stand::with(|command| command.env("SIDELOG_LIMITS__HEADER_TIMEOUT", "300ms")).await;
    let mut silent = TcpStream::connect(stand.address()).await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    let mut slow = TcpStream::connect(stand.address()).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    assert_eq!(statuses(&rest(&mut slow).await), [408], "RFC 9110, 15.5.9");
    let mut second = TcpStream::connect(stand.address()).await.unwrap();
    second.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(statuses(&next(&mut second).await), [200]);
    second.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    assert_eq!(statuses(&rest(&mut second).await), [408]);
    assert!((reached(&stand, "header_timeout").await - 3.0).abs() < f64::EPSILON);
    stand.clean().await;
}

#[tokio::test]
async fn an_idle_connection_ends_and_empty_lines_do_not_keep_it() {
    let stand = Stand::with(|command| command.env("SIDELOG_LIMITS__DOWNSTREAM_IDLE_TIMEOUT", "500ms")).await;
    let mut client = TcpStream::connect(stand.address()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(statuses(&next(&mut client).await), [200]);
    let (mut reader, mut writer) = client.into_split();
    let dripping = tokio::spawn(async move {
        while writer.write_all(b"\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut more = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), reader.read_to_end(&mut more)).await;
    assert!(ended.is_ok() && more.is_empty(), "{}", more.escape_ascii());
    dripping.abort();
    assert!((reached(&stand, "downstream_idle_timeout").await - 1.0).abs() < f64::EPSILON);
    stand.clean().await;
}

#[tokio::test]
async fn an_upload_that_does_not_get_on_is_answered_408() {
    let stand = Stand::with(|command| {
        command
            .env("SIDELOG_LIMITS__DOWNSTREAM_READ_TIMEOUT", "500ms")
            .env("SIDELOG_LIMITS__DOWNSTREAM_RATE_MIN", "100B")
    })
    .await;
    let chunked = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for framing in ["Content-Length: 1000\r\n\r\nabc", chunked] {
        let mut client = TcpStream::connect(stand.address()).await.unwrap();
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}");
        client.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(statuses(&rest(&mut client).await), [408], "RFC 9110, 15.5.9: {framing}");
    }
    assert!((reached(&stand, "downstream_rate_min").await - 2.0).abs() < f64::EPSILON);
    assert!(
        stand.upstream.received().is_empty(),
        "half a body was passed off as whole"
    );
    stand.clean().await;
}

/// Nor does one whose chunks hold nothing.
#[tokio::test]
async fn what_is_said_of_a_chunk_is_no_upload() {
    let stand = Stand::with(|command| {
        command
            .env("SIDELOG_LIMITS__DOWNSTREAM_READ_TIMEOUT", "500ms")
            .env("SIDELOG_LIMITS__DOWNSTREAM_RATE_MIN", "100B")
    })
    .await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for start in ["3;name=", "0\r\nX-Sum: "] {
        let client = TcpStream::connect(stand.address()).await.unwrap();
        let (mut reader, mut writer) = client.into_split();
        writer.write_all(format!("{head}{start}").as_bytes()).await.unwrap();
        let dripping = tokio::spawn(async move {
            while writer.write_all(&[b'a'; 20]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), reader.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(ended.is_ok() && statuses(&answer) == [408], "{start:?}: {answer}");
        dripping.abort();
    }
    stand.clean().await;
}

#[tokio::test]
async fn a_client_may_close_its_side_where_no_other_request_follows() {
    let stand = Stand::start().await;
    let held = "x-answer-held: 1\r\n\r\n";
    let waits = [
        format!("GET / HTTP/1.0\r\n{held}"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{held}"),
    ];
    let mut clients = Vec::new();
    for request in waits {
        let mut client = TcpStream::connect(stand.address()).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        clients.push(client);
    }
    stand.upstream.holds(2).await;
    let mut leaver = TcpStream::connect(stand.address()).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{held}");
    leaver.write_all(request.as_bytes()).await.unwrap();
    stand.upstream.holds(3).await;
    leaver.shutdown().await.unwrap();
    assert_eq!(rest(&mut leaver).await, "", "it has left");
    stand.upstream.release();
    for client in &mut clients {
        assert_eq!(statuses(&rest(client).await), [200]);
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let stand = Stand::with(|command| command.env("SIDELOG_LIMITS__DOWNSTREAM_WRITE_TIMEOUT", "500ms")).await;
    let body = "a".repeat(8 * 1024 * 1024);
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut client = TcpStream::connect(stand.address()).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    testbed::wait::until("the answer is given up", async || {
        reached(&stand, "downstream_write_timeout").await >= 1.0
    })
    .await;
    stand.clean().await;
}

#[tokio::test]
async fn over_the_limit_of_connections_the_next_is_answered_503() {
    let stand = Stand::with(|command| command.env("SIDELOG_LIMITS__CONNECTIONS_MAX", "2")).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut client = TcpStream::connect(stand.address()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(statuses(&next(&mut client).await), [200]);
        open.push(client);
    }
    let mut third = TcpStream::connect(stand.address()).await.unwrap();
    assert_eq!(statuses(&rest(&mut third).await), [503], "RFC 9110, 15.6.4");
    assert!((reached(&stand, "connections_max").await - 1.0).abs() < f64::EPSILON);
    drop(open);
    testbed::wait::until("the connections are closed", async || {
        stand.proxy.metric("sidelog_connections_open", "").await < 1.0
    })
    .await;
    stand.clean().await;
}
