//! Who the client is behind trusted proxies: the last address of `X-Forwarded-For` that isn't one of theirs; and what this
//! hop adds to those fields.
//!
//! Invariants:
//! - What a peer says that isn't trusted is of no account (`only_trusted_proxies_are_believed`).
//! - Nothing to the left of the first address that isn't trusted is believed: the client may have written it
//!   (`what_a_client_writes_itself_is_of_no_account`).

use std::net::{IpAddr, SocketAddr};

use http::HeaderName;
use pingora::Result;
use pingora::http::RequestHeader;

use crate::settings::Network;

/// The addresses that a request has come from, each hop having added its own.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address by the values of `X-Forwarded-For`, in their order. `None` when the peer is all that is known.
pub fn forwarded_for<'v>(
    peer: IpAddr,
    values: impl DoubleEndedIterator<Item = &'v [u8]>,
    trusted: &[Network],
) -> Option<IpAddr> {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if trusted.is_empty() || !is_trusted(peer) {
        return None;
    }
    let mut client = None;
    for entry in values.rev().flat_map(|value| value.rsplit(|byte| *byte == b',')) {
        let Some(address) = address(entry) else { break };
        client = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    client
}

/// An entry: an address, some write its port behind it.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_ascii();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse().ok();
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    address.or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

/// `X-Forwarded-For`, `-Proto` and `-Host`: the client added to the first, the others as this hop saw them.
///
/// # Errors
/// Never: what is written are values of fields.
pub fn forward(
    came: &RequestHeader,
    authority: &[u8],
    peer: Option<SocketAddr>,
    scheme: &str,
    upstream: &mut RequestHeader,
) -> Result<()> {
    let values = came.headers.get_all(FORWARDED_FOR).iter();
    let mut chain: Vec<_> = values
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    chain.extend(peer.map(|peer| peer.ip().to_string()));
    upstream.insert_header(FORWARDED_FOR, chain.join(", "))?;
    upstream.insert_header("x-forwarded-proto", scheme)?;
    upstream.insert_header("x-forwarded-host", authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(peer: &str, values: &[&str], trusted: &[&str]) -> Option<String> {
        let trusted: Vec<Network> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let values = values.iter().map(|value| value.as_bytes());
        forwarded_for(peer.parse().unwrap(), values, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(told("10.0.0.1", &["1.2.3.4"], &[]), None);
        assert_eq!(told("8.8.8.8", &["1.2.3.4"], &["10.0.0.0/8"]), None);
        assert_eq!(
            told("10.0.0.1", &["1.2.3.4"], &["10.0.0.0/8"]).as_deref(),
            Some("1.2.3.4")
        );
        assert_eq!(
            told("::ffff:10.0.0.1", &["1.2.3.4"], &["10.0.0.0/8"]).as_deref(),
            Some("1.2.3.4")
        );
        assert_eq!(told("10.0.0.1", &[], &["10.0.0.0/8"]), None);
    }

    #[test]
    fn what_a_client_writes_itself_is_of_no_account() {
        let trusted = ["10.0.0.0/8"];
        for (values, client) in [
            (&["6.6.6.6, 1.2.3.4"][..], Some("1.2.3.4")),
            (&["6.6.6.6", "1.2.3.4, 10.0.0.2"], Some("1.2.3.4")),
            (&["10.6.6.6, 1.2.3.4, 10.0.0.3 , 10.0.0.2"], Some("1.2.3.4")),
            (&["6.6.6.6, unknown, 10.0.0.2"], Some("10.0.0.2")),
            (&["6.6.6.6, "], None),
            (&["nonsense"], None),
            (&["10.0.0.3, 10.0.0.2"], Some("10.0.0.3")),
        ] {
            assert_eq!(told("10.0.0.1", values, &trusted).as_deref(), client, "{values:?}");
        }
    }

    #[test]
    fn addresses_are_read_with_and_without_a_port() {
        for (entry, address) in [
            ("1.2.3.4:567", "1.2.3.4"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:567", "2001:db8::7"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
        ] {
            assert_eq!(told("::1", &[entry], &["::1"]).as_deref(), Some(address), "{entry}");
        }
    }
}
