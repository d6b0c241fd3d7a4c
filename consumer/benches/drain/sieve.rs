//! A store of Loki's protocol that keeps nothing: it answers every push with 204.

use std::io::{BufRead, BufReader, Read, Write, copy, sink};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Listens until the process ends.
pub(crate) struct Sieve {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Sieve {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                thread::spawn(move || serve(&connection, &counted));
            }
        });
        Self { address, bytes }
    }

    pub(crate) fn push_url(&self) -> String {
        format!("http://{}/loki/api/v1/push", self.address)
    }

    /// The bytes of all bodies so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Answers the requests of a connection until it is closed.
fn serve(mut connection: &TcpStream, counted: &AtomicU64) {
    let mut reader = BufReader::with_capacity(64 * 1024, connection);
    while let Some(length) = head(&mut reader) {
        let dropped = copy(&mut (&mut reader).take(length), &mut sink());
        counted.fetch_add(length, Ordering::Relaxed);
        if dropped.is_err() || connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
            return;
        }
    }
}

/// Reads a request's head, and says how long its body is.
fn head(reader: &mut impl BufRead) -> Option<u64> {
    let mut length = None;
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
        line.clear();
    }
    length
}
