//! What pingora asks of a connection beside its bytes: the socket beneath answers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};

use super::wire::Wire;

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        if let Some(socket) = &mut self.socket {
            socket.shutdown().await;
        }
    }
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        self.socket.as_ref().map_or(UniqueIDType::MAX, |socket| socket.id())
    }
}

impl Ssl for Wire {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.socket.as_ref()?.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.socket.as_ref()?.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.socket.as_ref()?.selected_alpn_proto()
    }
}

impl GetTimingDigest for Wire {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.socket
            .as_ref()
            .map(|socket| socket.get_timing_digest())
            .unwrap_or_default()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.socket
            .as_ref()
            .map_or(Duration::ZERO, |socket| socket.get_read_pending_time())
    }

    fn get_write_pending_time(&self) -> Duration {
        self.socket
            .as_ref()
            .map_or(Duration::ZERO, |socket| socket.get_write_pending_time())
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        // Streams of HTTP/2 see their connection by this alone.
        self.streams_digest()
            .or_else(|| self.socket.as_ref()?.get_proxy_digest())
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        if let Some(socket) = &mut self.socket {
            socket.set_proxy_digest(digest);
        }
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.socket.as_ref()?.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        if let Some(socket) = &mut self.socket {
            socket.set_socket_digest(digest);
        }
    }
}
