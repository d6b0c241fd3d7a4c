//! `[[listeners]]`: where clients are served.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use sidelog_chassis::settings::address;

use super::network::Network;
use super::tls::{ListenerTls, UpstreamTls};
use super::upstream::Upstream;

/// A place where clients are served.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// Where it listens; port 0 is any free port.
    #[serde(with = "address")]
    pub address: SocketAddr,
    /// Where requests go; [`Upstream::default`] where unset.
    pub upstream: Option<Upstream>,
    /// Whose calls these are.
    pub direction: Direction,
    /// How far the trace headers of clients are trusted.
    pub trace: TraceMode,
    /// What is spoken with the upstream.
    pub upstream_protocol: UpstreamProtocol,
    /// Whether `X-Forwarded-For`, `-Proto` and `-Host` are added.
    pub forwarded: bool,
    /// The certificate that clients are shown, and what is asked of theirs.
    pub tls: ListenerTls,
    /// TLS to an `https` upstream; for routes' upstreams, too, but for the name.
    pub upstream_tls: UpstreamTls,
    /// The proxies in front of this one whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
}

impl Listener {
    /// `https` or `http`: what its clients speak.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_on() { "https" } else { "http" }
    }

    /// TLS to its own upstream.
    pub fn tls_to_upstream(&self) -> UpstreamTls {
        let mut tls = self.upstream_tls.clone();
        tls.ca_file = tls.ca_file.or_else(|| self.tls.ca.clone());
        tls
    }
}

impl Default for Listener {
    /// At `0.0.0.0:8080`.
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            upstream: None,
            direction: Direction::Inbound,
            trace: TraceMode::Continue,
            upstream_protocol: UpstreamProtocol::Auto,
            forwarded: false,
            tls: ListenerTls::default(),
            upstream_tls: UpstreamTls::default(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// Whose calls a listener carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Calls to the service.
    #[default]
    Inbound,
    /// Calls that the service makes.
    Outbound,
}

/// How far the trace headers of clients are trusted (W3C Trace Context, "Privacy Considerations").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceMode {
    /// The trace goes on.
    #[default]
    Continue,
    /// A new trace begins, linked to the old one.
    Restart,
    /// The headers pass unchanged, without a span.
    Ignore,
}

/// What is spoken with an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamProtocol {
    /// What the client speaks; on TLS listeners HTTP/1.1 to `http`, and what ALPN settles to `https`.
    #[default]
    Auto,
    /// HTTP/1.1.
    H1,
    /// HTTP/2, without TLS by prior knowledge.
    H2,
}

/// `PORT`: a port on every address of the machine.
pub(super) fn every_address_with_port(text: &str) -> Result<Option<toml::Value>, String> {
    let port: u16 = text
        .trim()
        .parse()
        .map_err(|_| format!("{text:?} is not a port; write a number from 0 to 65535, such as 8080"))?;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    Ok(Some(toml::Value::String(address.to_string())))
}
