//! TLS with clients: the handshake on an accepted socket, and the connection behind it.
//!
//! pingora would wait a minute for a handshake, and count none that fails. rustls does the work: TLS 1.2 and 1.3, ALPN for h2,
//! HTTP/1.1 and HTTP/1.0, session tickets, no early data (a request in it could be replayed).
//!
//! Invariants:
//! - A handshake that isn't over within `limits.header_timeout` ends its connection (`a_handshake_is_not_waited_for_long`).
//! - A certificate that is renewed is shown from the next handshake on; open connections stay
//!   (`tests/tls.rs: a_renewed_certificate_is_shown_and_open_connections_stay`).
//! - With a new certificate, or new roots of clients', no ticket of the old ones is taken.
//! - Every handshake that fails is counted once, by reason.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use pingora::server::ShutdownWatch;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::accept::NoRequest;
use super::head::TLS_HANDSHAKE;
use super::pem;
use super::seldom::Seldom;
use super::watched::{Watch, Watched};
use crate::settings::{ClientAuth, ListenerTls};

/// What a client is told that speaks HTTP without TLS.
const NOT_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 38\r\nconnection: close\r\n\r\n\
    this port speaks TLS: write https://\r\n";

/// TLS of one listener.
#[derive(Debug)]
pub struct ServerTls {
    config: Arc<Watched<ServerConfig>>,
    seldom: Seldom,
}

/// Why there is no connection.
#[derive(Debug)]
enum Refusal {
    /// Nothing was said.
    Silent,
    /// The client closed in the middle of the handshake.
    BrokeOff,
    /// HTTP without TLS.
    Cleartext,
    /// The handshake failed.
    Failed(io::Error),
}

impl ServerTls {
    /// TLS as the settings at `key` say, following its files by `watch`; `None` where they say that there is none.
    ///
    /// # Errors
    /// When a file can't be used; the message names it and its key.
    pub fn load(key: &str, tls: &ListenerTls, watch: &Watch) -> anyhow::Result<Option<Arc<Self>>> {
        let (Some(cert_file), Some(key_file)) = (&tls.cert_file, &tls.key_file) else {
            return Ok(None);
        };
        let files: Vec<PathBuf> = [cert_file, key_file]
            .into_iter()
            .chain(&tls.client_ca_file)
            .cloned()
            .collect();
        let (key, tls) = (key.to_owned(), tls.clone());
        let watched = Watched::new(key.clone(), files, move || config(&key, &tls))?;
        let config = Arc::new(watched);
        watch.add(&config);
        Ok(Some(Arc::new(Self {
            config,
            seldom: Seldom::default(),
        })))
    }

    /// Does the handshake; the error is the reason to count, if there is one.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn accept(
        &self,
        stream: Stream,
        within: Duration,
        mut shutdown: ShutdownWatch,
    ) -> Result<Stream, Option<NoRequest>> {
        let socket = stream.get_socket_digest();
        let opened = tokio::select! {
            opened = tokio::time::timeout(within, self.open(stream)) => opened,
            // Nothing has begun that could be finished.
            _ = shutdown.wait_for(|down| *down) => return Err(None),
        };
        let (reason, error) = match opened {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(Refusal::Silent)) => return Err(None),
            Ok(Err(Refusal::BrokeOff)) => return Err(Some(NoRequest::BrokeOff)),
            Ok(Err(Refusal::Cleartext)) => (NoRequest::Cleartext, "HTTP without TLS".to_owned()),
            Ok(Err(Refusal::Failed(error))) => (NoRequest::TlsHandshake, error.to_string()),
            Err(_) => (NoRequest::Timeout, "the handshake took too long".to_owned()),
        };
        if let Some(left_out) = self.seldom.due() {
            let client = socket
                .as_deref()
                .and_then(SocketDigest::peer_addr)
                .map(ToString::to_string);
            tracing::warn!(client, error, left_out, "a client's TLS handshake failed");
        }
        Err(Some(reason))
    }

    async fn open(&self, mut stream: Stream) -> Result<Stream, Refusal> {
        let mut first = [TLS_HANDSHAKE];
        if stream.try_peek(&mut first).await.is_err() {
            return Err(Refusal::Silent);
        }
        match first {
            [TLS_HANDSHAKE] => {}
            [byte] if byte.is_ascii_uppercase() => {
                tell_cleartext(&mut stream).await;
                return Err(Refusal::Cleartext);
            }
            _ => return Err(Refusal::Failed(io::Error::other("what came is not TLS"))),
        }
        match TlsAcceptor::from(self.config.get()).accept(stream).await {
            Ok(stream) => Ok(Box::new(Secured::new(stream))),
            Err(error)
                if error
                    .get_ref()
                    .is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) =>
            {
                Err(Refusal::Failed(error))
            }
            Err(_) => Err(Refusal::BrokeOff),
        }
    }
}

/// Answers as HTTP would: the client's user learns what is wrong.
async fn tell_cleartext(stream: &mut Stream) {
    // What is left unread would take the answer back (a reset). Whoever has left needs no answer.
    if stream.read(&mut [0; 4096]).await.is_ok() && stream.write_all(NOT_TLS).await.is_ok() {
        drop(AsyncWriteExt::shutdown(stream).await);
    }
}

fn config(key: &str, tls: &ListenerTls) -> anyhow::Result<ServerConfig> {
    let (Some(cert_file), Some(key_file)) = (&tls.cert_file, &tls.key_file) else {
        anyhow::bail!("{key}.cert_file and {key}.key_file are needed");
    };
    let pair = pem::pair(key, cert_file, key_file)?;
    let builder = ServerConfig::builder_with_provider(pem::provider()).with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let (roots, _) = pem::roots(&format!("{key}.client_ca_file"), path)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), pem::provider());
            let verifier = match tls.client_auth {
                ClientAuth::Required => verifier,
                ClientAuth::Optional => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let mut config = builder.with_single_cert(pair.chain, pair.key)?;
    config.alpn_protocols = [&b"h2"[..], b"http/1.1", b"http/1.0"].map(<[u8]>::to_vec).to_vec();
    // Sessions are in tickets, which cost no memory here.
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(config)
}

/// A connection by TLS, as pingora knows connections.
#[derive(Debug)]
struct Secured {
    inner: TlsStream<Stream>,
    digest: Arc<SslDigest>,
}

impl Secured {
    fn new(inner: TlsStream<Stream>) -> Self {
        let (_, session) = inner.get_ref();
        let cipher = session
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str());
        let version = session.protocol_version().and_then(|version| version.as_str());
        let digest = SslDigest::new(
            cipher.unwrap_or_default(),
            version.unwrap_or_default(),
            None,
            None,
            Vec::new(),
        );
        Self {
            inner,
            digest: Arc::new(digest),
        }
    }

    fn socket(&self) -> &Stream {
        self.inner.get_ref().0
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Secured {
    async fn shutdown(&mut self) {
        // Who doesn't wait for the last word has left.
        drop(self.inner.shutdown().await);
    }
}

impl UniqueID for Secured {
    fn id(&self) -> UniqueIDType {
        self.socket().id()
    }
}

impl Ssl for Secured {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        Some(Arc::clone(&self.digest))
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        match self.inner.get_ref().1.alpn_protocol()? {
            b"h2" => Some(ALPN::H2),
            _ => Some(ALPN::H1),
        }
    }
}

impl Peek for Secured {}

impl GetTimingDigest for Secured {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.socket().get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.socket().get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.socket().get_write_pending_time()
    }
}

impl GetProxyDigest for Secured {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.socket().get_proxy_digest()
    }
}

impl GetSocketDigest for Secured {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.socket().get_socket_digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tokio::sync::watch;

    fn tls(folder: &std::path::Path) -> Arc<ServerTls> {
        let own = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        fs::write(&cert, own.cert.pem()).unwrap();
        fs::write(&key, own.signing_key.serialize_pem()).unwrap();
        let settings = ListenerTls {
            cert_file: Some(cert),
            key_file: Some(key),
            ..ListenerTls::default()
        };
        ServerTls::load("listeners.0.tls", &settings, &Watch::default())
            .unwrap()
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_is_not_waited_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let (mut client, server) = tokio::io::duplex(1024);
        let (_running, shutdown) = watch::channel(false);
        client.write_all(&[TLS_HANDSHAKE, 3, 1]).await.unwrap();
        let tls = tls(folder.path());
        let accepted = tls.accept(Box::new(server), Duration::from_secs(10), shutdown);
        assert_eq!(accepted.await.unwrap_err(), Some(NoRequest::Timeout));
    }

    #[tokio::test]
    async fn a_handshake_ends_with_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let (_client, server) = tokio::io::duplex(1024);
        let (running, shutdown) = watch::channel(false);
        let tls = tls(folder.path());
        let (accepted, ()) = tokio::join!(tls.accept(Box::new(server), Duration::from_secs(10), shutdown), async {
            assert!(!running.send_replace(true))
        });
        assert_eq!(accepted.unwrap_err(), None);
    }

    #[tokio::test]
    async fn what_is_no_handshake_is_told_from_one_that_breaks_off() {
        let folder = tempfile::tempdir().unwrap();
        let tls = tls(folder.path());
        for (sent, reason) in [
            (&[TLS_HANDSHAKE, 3, 1, 0, 5, 9, 9, 9, 9, 9][..], NoRequest::TlsHandshake),
            (&[TLS_HANDSHAKE, 3, 1, 0, 5][..], NoRequest::BrokeOff),
        ] {
            let (mut client, server) = tokio::io::duplex(1024);
            let (_running, shutdown) = watch::channel(false);
            client.write_all(sent).await.unwrap();
            AsyncWriteExt::shutdown(&mut client).await.unwrap();
            let accepted = tls.accept(Box::new(server), Duration::from_secs(10), shutdown);
            assert_eq!(accepted.await.unwrap_err(), Some(reason), "{sent:?}");
        }
    }
}
