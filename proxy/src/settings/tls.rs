//! `[listeners.tls]`, what clients see, and `upstream_tls` of listeners and routes, what `https` upstreams see.
//!
//! The files are read, and judged, where they are used: in `traffic`, at the start and by `check`.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use sidelog_chassis::settings::Misfit;

/// `[listeners.tls]`: the listener speaks TLS where there is a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTls {
    /// The certificate (PEM), with those between it and the root.
    pub cert_file: Option<PathBuf>,
    /// The key (PEM) of `cert_file`.
    pub key_file: Option<PathBuf>,
    /// The certificates (PEM) that sign the clients'; clients are asked for one where set.
    pub client_ca_file: Option<PathBuf>,
    /// What becomes of clients without a certificate.
    pub client_auth: ClientAuth,
    /// Short for `upstream_tls.ca_file`.
    pub ca: Option<PathBuf>,
}

/// What becomes of clients without a certificate, where `client_ca_file` asks for one. One that is not signed by it is
/// always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are refused.
    #[default]
    Required,
    /// They are served.
    Optional,
}

impl ListenerTls {
    /// Whether the listener speaks TLS.
    pub fn is_on(&self) -> bool {
        self.cert_file.is_some()
    }

    /// What doesn't fit together below `key`.
    pub(super) fn misfits(&self, key: &str) -> Vec<Misfit> {
        let mut misfits: Vec<_> = pair(key, self.cert_file.as_ref(), self.key_file.as_ref())
            .into_iter()
            .collect();
        if self.client_ca_file.is_some() && !self.is_on() {
            misfits.push(Misfit::new(
                [format!("{key}.client_ca_file")],
                format!("is of no use without TLS; set {key}.cert_file and {key}.key_file beside it"),
            ));
        }
        if self.client_auth != ClientAuth::default() && self.client_ca_file.is_none() {
            misfits.push(Misfit::new(
                [format!("{key}.client_auth")],
                format!("is of no use without {key}.client_ca_file; set it, or take this out"),
            ));
        }
        misfits
    }
}

/// `upstream_tls`: how the certificate of an `https` upstream is checked, and what it is shown. It is always checked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// The certificates (PEM) that sign the upstream's; the system's where unset.
    #[serde(alias = "ca")]
    pub ca_file: Option<PathBuf>,
    /// The proxy's own certificate (PEM), for upstreams that ask for one.
    pub cert_file: Option<PathBuf>,
    /// The key (PEM) of `cert_file`.
    pub key_file: Option<PathBuf>,
    /// The name that the upstream's certificate is for, and that it is asked for; the host of its address where unset.
    #[serde(deserialize_with = "server_name")]
    pub server_name: Option<String>,
}

impl UpstreamTls {
    /// With what `listener` says where this says nothing. The name is of one upstream only.
    #[must_use]
    pub fn over(&self, listener: &Self) -> Self {
        let mut over = self.clone();
        over.ca_file = over.ca_file.or_else(|| listener.ca_file.clone());
        if over.cert_file.is_none() {
            over.cert_file.clone_from(&listener.cert_file);
            over.key_file.clone_from(&listener.key_file);
        }
        over
    }

    /// What doesn't fit together below `key`.
    pub(super) fn misfits(&self, key: &str) -> Option<Misfit> {
        pair(key, self.cert_file.as_ref(), self.key_file.as_ref())
    }
}

/// A certificate is of use with its key only.
fn pair(key: &str, cert: Option<&PathBuf>, secret: Option<&PathBuf>) -> Option<Misfit> {
    let (given, missing) = match (cert, secret) {
        (Some(_), None) => ("cert_file", "key_file"),
        (None, Some(_)) => ("key_file", "cert_file"),
        _ => return None,
    };
    Some(Misfit::new(
        [format!("{key}.{given}")],
        format!("needs {key}.{missing} beside it; set both or neither"),
    ))
}

/// A name without a port, or an IP address. An empty one would be no name to check.
fn server_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let name = text.trim();
    let is_name = name.len() <= 253
        && !name.is_empty()
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        });
    if is_name || name.parse::<IpAddr>().is_ok() {
        return Ok(Some(name.to_owned()));
    }
    let advice = "write the name or IP address in its certificate, such as \"api.internal\"";
    Err(D::Error::custom(format!("{text:?} is not a server's name; {advice}")))
}
