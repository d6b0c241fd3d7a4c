//! A command's way to the running process: one request to its admin endpoints.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use http::Method;

/// The time for the connection, and for each read and write.
const TIME: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const ANSWER_MAX: u64 = 64 * 1024;

/// Why the process didn't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The settings say "any port".
    #[error("admin.address has port 0, any free one: set the port that the process tells in its log")]
    AnyPort,
    /// Nobody answered.
    #[error(
        "nothing answers at {address} (admin.address): {source}; is the process running, and with the same settings?"
    )]
    Away {
        /// Where it was asked.
        address: SocketAddr,
        /// What happened.
        source: io::Error,
    },
    /// Somebody answered, but not what was asked for.
    #[error("{address} (admin.address) answered {answer:?}")]
    Refused {
        /// Where it was asked.
        address: SocketAddr,
        /// The answer's status, and its body.
        answer: String,
    },
}

/// Asks the process whose `admin.address` is `bound`, on this machine, and gives back the answer's body.
///
/// # Errors
///
/// Nobody listens there, or the answer isn't 200.
pub fn ask(bound: SocketAddr, method: &Method, path: &str) -> Result<String, AskError> {
    if bound.port() == 0 {
        return Err(AskError::AnyPort);
    }
    let address = reachable(bound);
    let answer = exchange(address, method, path).map_err(|source| AskError::Away { address, source })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.starts_with("HTTP/1.1 200 ") {
        return Ok(body.to_owned());
    }
    Err(AskError::Refused {
        address,
        answer: format!("{} {}", status.trim_start_matches("HTTP/1.1 "), body.trim_end()),
    })
}

/// Every address is no address to connect to, but this machine's loopback is one of them.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

fn exchange(address: SocketAddr, method: &Method, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIME)?;
    stream.set_read_timeout(Some(TIME))?;
    stream.set_write_timeout(Some(TIME))?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_at_loopback() {
        for (bound, asked) in [
            ("0.0.0.0:9901", "127.0.0.1:9901"),
            ("[::]:9901", "[::1]:9901"),
            ("127.0.0.2:1", "127.0.0.2:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn any_port_can_not_be_asked() {
        let error = ask("127.0.0.1:0".parse().unwrap(), &Method::POST, "/drain").unwrap_err();
        assert!(matches!(error, AskError::AnyPort), "{error}");
    }
}
