//! Where requests go: the upstreams of a listener and of the routes, and what is spoken with each.
//!
//! Invariants:
//! - An `https` upstream's certificate is always checked, against a name or an IP address that is never empty
//!   (`the_name_that_is_checked_is_never_empty`, `tests/upstreams.rs`). To pingora an empty name means: don't check.
//! - A connection serves again only what was made with the same certificates and the same choice of protocols: pingora's
//!   pool doesn't tell them apart by itself.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use pingora::protocols::ALPN;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use pingora::{Error, Result};
use rustls::pki_types::{PrivateKeyDer, ServerName};

use super::outcome;
use super::pem;
use super::resolve::{Resolver, Resolvers};
use super::unreachable::Unreachable;
use super::watched::{Watch, Watched};
use crate::queue::exchange::Version;
use crate::settings::{Limits, Listener, Settings, Upstream, UpstreamProtocol, UpstreamTls};

/// Streams that share one HTTP/2 connection to an upstream; its own SETTINGS may allow fewer.
const UPSTREAM_STREAMS: usize = 100;
/// Bytes of an answer to an upload that one stream of HTTP/2 may send ahead, at least. pingora doesn't read the answer while it
/// waits to pass on more of the request: a service that echoes gets on only if what it has received and not read, up to its
/// own window, fits here. Those of most are smaller.
const ECHO_WINDOW: u32 = 1024 * 1024;
/// A connection's window, in those of its streams: one that isn't read holds up the others no sooner.
const UPSTREAM_WINDOWS: u32 = 4;

/// The upstreams that requests of one listener go to.
#[derive(Debug)]
pub struct Upstreams {
    default: Target,
    /// Those of the routes, in their order.
    routes: Vec<Option<Target>>,
}

impl Upstreams {
    /// The upstreams of the listener with this index, their certificates following their files by `watch`, their
    /// names known to `resolvers`.
    ///
    /// # Errors
    /// When a file can't be used; the message names it and its key.
    pub fn load(
        settings: &Settings,
        index: usize,
        listener: &Listener,
        watch: &Watch,
        resolvers: &Resolvers,
    ) -> anyhow::Result<Self> {
        let own = listener.tls_to_upstream();
        let upstream = listener.upstream.clone().unwrap_or_default();
        let key = format!("listeners.{index}");
        let default = Target::load(&key, &upstream, &own, listener, watch, resolvers)?;
        let of_route = |(index, route): (usize, &crate::settings::Route)| {
            let Some(upstream) = &route.upstream else {
                return Ok(None);
            };
            let tls = route.upstream_tls.over(&own);
            Target::load(&format!("routes.{index}"), upstream, &tls, listener, watch, resolvers).map(Some)
        };
        let routes = settings
            .routes
            .iter()
            .enumerate()
            .map(of_route)
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { default, routes })
    }

    /// Where requests go that match this route.
    pub fn target(&self, route: Option<u32>) -> &Target {
        route
            .and_then(|route| self.routes.get(route as usize)?.as_ref())
            .unwrap_or(&self.default)
    }
}

/// What of a request decides on the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Asks {
    /// What the client speaks.
    pub version: Version,
    /// It asks for another protocol on its connection.
    pub upgrade: bool,
    /// It is a call by gRPC.
    pub grpc: bool,
    /// Its body may be so long that a service answers while it still reads.
    pub uploads: bool,
    /// It waits for `100 Continue`, which is not passed on from HTTP/2.
    pub expects: bool,
}

impl Asks {
    /// What comes after an upgrade, and a stream of gRPC, may be silent for as long as the two sides want; calls have
    /// deadlines of their own.
    pub fn may_be_silent(self) -> bool {
        self.upgrade || self.grpc
    }
}

/// One upstream.
#[derive(Debug)]
pub struct Target {
    place: Place,
    tls: Option<ClientTls>,
    protocol: UpstreamProtocol,
    /// Clients come by TLS.
    tls_listener: bool,
    unreachable: Unreachable,
}

#[derive(Debug)]
enum Place {
    Host(Arc<Resolver>),
    Socket(String),
}

impl Target {
    fn load(
        key: &str,
        upstream: &Upstream,
        tls: &UpstreamTls,
        listener: &Listener,
        watch: &Watch,
        resolvers: &Resolvers,
    ) -> anyhow::Result<Self> {
        let (place, tls) = match upstream {
            Upstream::Unix { path } => (Place::Socket(path.clone()), None),
            Upstream::Host { tls: false, host, port } => (Place::Host(resolvers.of(host, *port)), None),
            Upstream::Host { tls: true, host, port } => {
                let tls = ClientTls::load(key, host, tls, watch)?;
                (Place::Host(resolvers.of(host, *port)), Some(tls))
            }
        };
        Ok(Self {
            place,
            tls,
            protocol: listener.upstream_protocol,
            tls_listener: listener.tls.is_on(),
            unreachable: Unreachable::new(upstream),
        })
    }

    /// Where it is told that it can't be reached.
    pub fn unreachable(&self) -> &Unreachable {
        &self.unreachable
    }

    /// How many addresses are known; a connection that fails is worth as many attempts.
    pub fn addresses(&self) -> usize {
        match &self.place {
            Place::Host(resolver) => resolver.count(),
            Place::Socket(_) => 1,
        }
    }

    /// What to connect to for the `attempt`-th try of an exchange, from 0, and its address; a socket has none.
    ///
    /// # Errors
    /// When the name has never resolved and doesn't now.
    pub async fn peer(&self, attempt: u32, asks: Asks, limits: &Limits) -> Result<(HttpPeer, Option<SocketAddr>)> {
        let (tls, name) = match &self.tls {
            Some(tls) => (true, tls.name.clone()),
            None => (false, String::new()),
        };
        let (mut peer, address) = match &self.place {
            Place::Host(resolver) => {
                let resolved = resolver.address(attempt).await;
                let address = resolved.map_err(|error| {
                    Error::because(outcome::NO_ADDRESS, "the upstream's name does not resolve", error).into_up()
                })?;
                (HttpPeer::new(address, tls, name), Some(address))
            }
            Place::Socket(path) => (HttpPeer::new_uds(path, tls, name)?, None),
        };
        if let Some(tls) = &self.tls {
            tls.show(&mut peer);
        }
        let speaks = speaks(self.protocol, self.tls_listener, tls, asks);
        let echoes = asks.uploads && speaks != Speaks::Http1;
        peer.group_key = peer.group_key.wrapping_add(speaks as u64 + (u64::from(echoes) << 8));
        let options = &mut peer.options;
        options.alpn = speaks.alpn();
        options.max_h2_streams = UPSTREAM_STREAMS;
        let window = u32::try_from(limits.h2_window.bytes()).unwrap_or(u32::MAX >> 1);
        let window = if echoes { window.max(ECHO_WINDOW) } else { window };
        options.h2_stream_window_size = Some(window);
        options.h2_connection_window_size = Some(window.saturating_mul(UPSTREAM_WINDOWS).min(u32::MAX >> 1));
        options.connection_timeout = Some(limits.upstream_connect_timeout);
        options.total_connection_timeout = Some(limits.upstream_connect_timeout);
        options.read_timeout = (!asks.may_be_silent()).then_some(limits.upstream_read_timeout);
        options.write_timeout = options.read_timeout;
        options.idle_timeout = Some(limits.upstream_idle_timeout);
        Ok((peer, address))
    }
}

/// What is spoken with an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
    /// Whichever ALPN settles.
    Either,
}

impl Speaks {
    fn alpn(self) -> ALPN {
        match self {
            Self::Http1 => ALPN::H1,
            Self::Http2 => ALPN::H2,
            Self::Either => ALPN::H2H1,
        }
    }
}

fn speaks(protocol: UpstreamProtocol, tls_listener: bool, tls_upstream: bool, asks: Asks) -> Speaks {
    let http2 = asks.version == Version::Http2;
    match protocol {
        UpstreamProtocol::H1 => Speaks::Http1,
        UpstreamProtocol::H2 => Speaks::Http2,
        UpstreamProtocol::Auto if asks.upgrade || asks.expects && !http2 => Speaks::Http1,
        UpstreamProtocol::Auto if tls_upstream && (tls_listener || http2) => Speaks::Either,
        UpstreamProtocol::Auto if http2 && !tls_listener => Speaks::Http2,
        UpstreamProtocol::Auto => Speaks::Http1,
    }
}

/// TLS to one upstream.
#[derive(Debug)]
struct ClientTls {
    /// What its certificate is for.
    name: String,
    shown: Arc<Watched<Shown>>,
}

/// What is made of the files.
#[derive(Debug)]
struct Shown {
    /// Who signs the upstream's certificate; the system's roots where there is none.
    roots: Option<Arc<CaType>>,
    /// Our own certificate.
    own: Option<Arc<CertKey>>,
    /// Tells connections apart that were made with other files.
    group: u64,
}

impl ClientTls {
    fn load(key: &str, host: &str, tls: &UpstreamTls, watch: &Watch) -> anyhow::Result<Self> {
        let (name, name_key) = match &tls.server_name {
            Some(name) => (name.clone(), "upstream_tls.server_name"),
            None => (host.to_owned(), "upstream"),
        };
        // pingora would check another name in the place of one with an underscore.
        ServerName::try_from(name.as_str())
            .ok()
            .filter(|_| !name.contains('_'))
            .with_context(|| {
                format!("{key}.{name_key}: no certificate can be for {name:?}; set {key}.upstream_tls.server_name")
            })?;
        let files: Vec<PathBuf> = [&tls.ca_file, &tls.cert_file, &tls.key_file]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let (key, tls) = (format!("{key}.upstream_tls"), tls.clone());
        let shown = Arc::new(Watched::new(key.clone(), files, move || shown(&key, &tls))?);
        watch.add(&shown);
        Ok(Self { name, shown })
    }

    fn show(&self, peer: &mut HttpPeer) {
        let shown = self.shown.get();
        peer.options.ca.clone_from(&shown.roots);
        peer.client_cert_key.clone_from(&shown.own);
        peer.group_key = shown.group;
    }
}

fn shown(key: &str, tls: &UpstreamTls) -> anyhow::Result<Shown> {
    let mut group = DefaultHasher::new();
    let roots = match &tls.ca_file {
        None => None,
        Some(path) => {
            let (_, roots) = pem::roots(&format!("{key}.ca_file"), path)?;
            roots.hash(&mut group);
            let parsed = roots.iter().map(|root| WrappedX509::new(root.to_vec(), parse_x509));
            Some(parsed.collect::<Arc<CaType>>())
        }
    };
    let own = match (&tls.cert_file, &tls.key_file) {
        (Some(cert_file), Some(key_file)) => {
            let pair = pem::pair(key, cert_file, key_file)?;
            pair.chain.hash(&mut group);
            let secret = pair.key.secret_der().to_vec();
            // pingora guesses the kind of the key from its bytes, and panics where it can't.
            PrivateKeyDer::try_from(secret.clone())
                .map_err(|error| anyhow::anyhow!("{key}.key_file: {}: {error}", key_file.display()))?;
            let chain = pair.chain.iter().map(|certificate| certificate.to_vec()).collect();
            Some(Arc::new(CertKey::new(chain, secret)))
        }
        _ => None,
    };
    Ok(Shown {
        roots,
        own,
        group: group.finish(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use UpstreamProtocol as P;
    use Version::{Http2, Http11};

    fn asks(version: Version) -> Asks {
        Asks {
            version,
            upgrade: false,
            grpc: false,
            uploads: false,
            expects: false,
        }
    }

    #[test]
    fn what_is_spoken_follows_the_client_the_listener_and_the_upstream() {
        // Protocol, TLS listener, TLS upstream, client: what is spoken.
        let cases = [
            (P::Auto, false, false, Http11, Speaks::Http1),
            (P::Auto, false, false, Http2, Speaks::Http2),
            (P::Auto, false, true, Http11, Speaks::Http1),
            (P::Auto, false, true, Http2, Speaks::Either),
            (P::Auto, true, false, Http11, Speaks::Http1),
            (P::Auto, true, false, Http2, Speaks::Http1),
            (P::Auto, true, true, Http11, Speaks::Either),
            (P::Auto, true, true, Http2, Speaks::Either),
        ];
        for (protocol, tls_listener, tls_upstream, client, expected) in cases {
            let what = format!("{protocol:?} {tls_listener} {tls_upstream} {client:?}");
            assert_eq!(
                speaks(protocol, tls_listener, tls_upstream, asks(client)),
                expected,
                "{what}"
            );
            for (protocol, expected) in [(P::H1, Speaks::Http1), (P::H2, Speaks::Http2)] {
                assert_eq!(speaks(protocol, tls_listener, tls_upstream, asks(client)), expected);
            }
        }
    }

    #[test]
    fn what_http2_does_not_carry_goes_by_http1() {
        let upgrade = Asks {
            upgrade: true,
            ..asks(Http11)
        };
        let expects = Asks {
            expects: true,
            ..asks(Http11)
        };
        for asks in [upgrade, expects] {
            assert_eq!(speaks(P::Auto, true, true, asks), Speaks::Http1, "{asks:?}");
        }
    }

    fn target(upstream: &str, tls: UpstreamTls) -> anyhow::Result<Target> {
        let upstream = upstream.parse().unwrap();
        let (watch, resolvers) = (Watch::default(), Resolvers::default());
        Target::load("listeners.0", &upstream, &tls, &Listener::default(), &watch, &resolvers)
    }

    async fn peer(upstream: &str, tls: UpstreamTls) -> HttpPeer {
        let limits = Limits::default();
        let target = target(upstream, tls).unwrap();
        target.peer(0, asks(Http11), &limits).await.unwrap().0
    }

    #[tokio::test]
    async fn the_name_that_is_checked_is_never_empty() {
        let named = UpstreamTls {
            server_name: Some("a.test".to_owned()),
            ..UpstreamTls::default()
        };
        for (upstream, tls, name) in [
            ("https://localhost:1", UpstreamTls::default(), "localhost"),
            ("https://127.0.0.1:1", UpstreamTls::default(), "127.0.0.1"),
            ("https://[::1]:1", UpstreamTls::default(), "::1"),
            ("https://127.0.0.1:1", named, "a.test"),
        ] {
            let peer = peer(upstream, tls).await;
            assert_eq!(peer.sni, name);
            assert!(peer.is_tls() && peer.options.verify_cert && peer.options.verify_hostname);
        }
        let told = target("https://a_b.c.test:1", UpstreamTls::default())
            .unwrap_err()
            .to_string();
        assert!(
            told.starts_with("listeners.0.upstream: ") && told.contains("set listeners.0.upstream_tls.server_name"),
            "{told}"
        );
    }

    #[tokio::test]
    async fn connections_made_with_other_roots_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let roots = |name: &str| {
            let path = folder.path().join(name);
            let own = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
            std::fs::write(&path, own.cert.pem()).unwrap();
            UpstreamTls {
                ca_file: Some(path),
                ..UpstreamTls::default()
            }
        };
        let (one, two) = (roots("one"), roots("two"));
        let first = peer("https://127.0.0.1:1", one.clone()).await;
        assert!(first.options.ca.is_some());
        assert_eq!(first.group_key, peer("https://127.0.0.1:1", one).await.group_key);
        assert_ne!(first.group_key, peer("https://127.0.0.1:1", two).await.group_key);
    }
}
