//! A proxy in front of an upstream, and clients that write what they like.

use std::net::SocketAddr;
use std::time::Duration;

use testbed::{Sidelog, SidelogCommand, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(10);

/// A request, what it is answered with, and the RFC's section that says so.
pub(crate) type Case<'a> = (&'a [u8], u16, &'a str);

pub(crate) struct Stand {
    pub(crate) upstream: Upstream,
    pub(crate) proxy: Sidelog,
}

impl Stand {
    pub(crate) async fn start() -> Self {
        Self::with(|command| command).await
    }

    pub(crate) async fn with(set: impl FnOnce(SidelogCommand) -> SidelogCommand) -> Self {
        let upstream = Upstream::start();
        let command = Sidelog::proxy()
            .env("UPSTREAM_URL", upstream.url())
            .env("SIDELOG_CAPTURE__ENABLED", "false")
            .env("SIDELOG_TRACES__ENABLED", "false");
        let proxy = set(command).start().await;
        Self { upstream, proxy }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.proxy.addresses()[0]
    }

    /// Each case on a connection of its own, followed by a clean request: what is refused ends its connection and never
    /// reaches the upstream; what passes reaches it once.
    pub(crate) async fn check(&self, cases: &[Case<'_>]) {
        assert!(!cases.is_empty());
        for (request, status, section) in cases {
            let shown = format!("{section}: {}", request.escape_ascii());
            let before = self.upstream.received().len();
            let passes = *status == 200;
            let answer = if passes {
                one(self.address(), request).await
            } else {
                all(self.address(), request).await
            };
            assert_eq!(statuses(&answer), [*status], "{shown}\n{answer}");
            assert!(!answer.to_ascii_lowercase().contains("pingora"), "{answer}");
            assert_eq!(self.upstream.received().len() - before, usize::from(passes), "{shown}");
            self.clean().await;
        }
    }

    /// A request that nothing is wrong with.
    pub(crate) async fn clean(&self) {
        let answer = one(self.address(), b"GET /clean HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert_eq!(statuses(&answer), [200], "{answer}");
        assert_eq!(self.upstream.received().last().unwrap().uri.path(), "/clean");
    }
}

/// Everything that is answered until the proxy closes; the client never does.
pub(crate) async fn all(address: SocketAddr, request: &[u8]) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request).await.unwrap();
    rest(&mut client).await
}

/// Everything that still comes on a connection.
pub(crate) async fn rest(client: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, client.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    read.unwrap_or_else(|_| panic!("the connection stays open after {answer:?}"))
        .unwrap();
    answer
}

/// The first answer; the connection is closed by the client then.
pub(crate) async fn one(address: SocketAddr, request: &[u8]) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request).await.unwrap();
    next(&mut client).await
}

/// The next answer of a connection, its length told by `content-length` or the connection's end.
pub(crate) async fn next(client: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, async {
        while !is_whole(&answer) {
            let mut byte = [0];
            if client.read(&mut byte).await.unwrap() == 0 {
                break;
            }
            answer.push(byte[0]);
        }
    })
    .await
    .unwrap_or_else(|_| panic!("no answer, but {:?}", answer.escape_ascii().to_string()));
    String::from_utf8_lossy(&answer).into_owned()
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .split("\r\n")
        .find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| length.parse().is_ok_and(|length: usize| body.len() >= length))
}

/// The statuses of all answers in a text.
pub(crate) fn statuses(answers: &str) -> Vec<u16> {
    let lines = answers.match_indices("HTTP/1.").filter_map(|(at, _)| answers.get(at..));
    lines.filter_map(|line| line.get(9..12)?.parse().ok()).collect()
}

/// A request line and a good host, with these lines behind it.
pub(crate) fn with_lines(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n").into_bytes()
}
