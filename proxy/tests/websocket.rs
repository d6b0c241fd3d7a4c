//! WebSockets by tungstenite on both sides, without TLS and with it.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use testbed::{Authority, Sidelog, SidelogCommand};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

/// Longer than the timeouts that the proxy is given.
const IDLE: Duration = Duration::from_millis(1500);
const SOON: Duration = Duration::from_secs(20);

/// A service that says back what it is told, until it is told to close.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

fn proxy(upstream: SocketAddr) -> SidelogCommand {
    Sidelog::proxy()
        .env("UPSTREAM_URL", format!("http://{upstream}"))
        .env("SIDELOG_TRACES__ENABLED", "false")
        .env("SIDELOG_LIMITS__UPSTREAM_READ_TIMEOUT", "400ms")
        .env("SIDELOG_LIMITS__DOWNSTREAM_READ_TIMEOUT", "400ms")
        .env("SIDELOG_LIMITS__DOWNSTREAM_WRITE_TIMEOUT", "400ms")
        .env("SIDELOG_LIMITS__DOWNSTREAM_IDLE_TIMEOUT", "1s")
        .env("SIDELOG_LIMITS__HEADER_TIMEOUT", "1s")
}

/// Messages of all sizes, before and behind a silence longer than any timeout; then both sides close in order.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    for length in [0, 1, 125, 126, 70_000, 1 << 20] {
        let message = Message::binary(vec![7; length]);
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message, "{length} bytes");
    }
    tokio::time::sleep(IDLE).await;
    socket.send(Message::text("still there?")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("still there?"));
    socket.close(None).await.unwrap();
    let closed = tokio::time::timeout(SOON, socket.next()).await.unwrap();
    assert!(matches!(closed, Some(Ok(Message::Close(_)))), "{closed:?}");
}

#[tokio::test]
async fn a_websocket_stays_open_as_long_as_both_sides_want() {
    let proxy = proxy(echo().await).start().await;
    let stream = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    let (socket, answer) = client_async("ws://localhost/chat", stream).await.unwrap();
    assert_eq!(answer.status(), 101);
    converse(socket).await;
}

#[tokio::test]
async fn a_websocket_by_tls_stays_open_as_long_as_both_sides_want() {
    let authority = Authority::new();
    let files = authority.sign("listener", &["localhost"]);
    let proxy = proxy(echo().await)
        .env("SIDELOG_LISTENERS__0__TLS__CERT_FILE", files.cert.display())
        .env("SIDELOG_LISTENERS__0__TLS__KEY_FILE", files.key.display())
        .start()
        .await;
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority.ca()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.unwrap();
    let (socket, answer) = client_async("wss://localhost/chat", stream).await.unwrap();
    assert_eq!(answer.status(), 101);
    converse(socket).await;
}
