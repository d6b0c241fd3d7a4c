//! A stock pingora proxy that records nothing: what `make bench` measures sidelog against.
//!
//! `bare LISTEN UPSTREAM`, two addresses. Everything is as pingora sets it by default, work stealing included; the allocator is
//! sidelog's, and the profile `bare` builds it as pingora's own releases are built.

#![expect(
    clippy::expect_used,
    reason = "a measurement stops at the first thing that is not as it expects"
)]

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::Result;
use pingora::apps::HttpServerOptions;
use pingora::protocols::ALPN;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::upstreams::peer::HttpPeer;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, false, String::new());
        if session.is_http2() {
            peer.options.alpn = ALPN::H2;
        }
        Ok(Box::new(peer))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().expect("the address to listen at");
    let upstream = arguments.next().and_then(|address| address.parse().ok());
    let upstream = upstream.expect("the upstream's address");
    let mut server = Server::new(None).expect("pingora's defaults");
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare { upstream });
    if let Some(proxy) = service.app_logic_mut() {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        proxy.server_options = Some(options);
    }
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever();
}
