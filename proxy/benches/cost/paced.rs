//! Requests at a fixed rate by HTTP/1.1. Each connection is a thread that sleeps until its next request is due, sends it and
//! waits for the answer: what is measured is the time of a request from when it is sent, and not that of a generator's own timers.
//! A stall is felt once on each connection: what falls due meanwhile is sent late, and counts from then on.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use memchr::memmem;

/// Bytes of an answer that are read at once.
const READ: usize = 64 * 1024;
/// How long an answer may stay away.
const PATIENCE: Duration = Duration::from_secs(10);
/// Stack of a connection's thread: what is read goes there.
const STACK: usize = 4 * READ;

/// What ends a head.
const END: &[u8] = b"\r\n\r\n";

/// When the requests of all connections are due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Between two requests of the same connection.
    pub(crate) period: Duration,
    /// Between the first requests of one connection and the next.
    pub(crate) step: Duration,
    pub(crate) time: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The time of each request that was answered 2xx, in seconds.
    pub(crate) times: Vec<f64>,
    /// Requests that were not.
    pub(crate) failed: u64,
}

/// Sends this request at this pace over so many connections.
pub(crate) fn run(to: SocketAddr, request: &[u8], connections: usize, pace: Pace) -> Outcome {
    let begin = Instant::now();
    let mut all = Outcome::default();
    thread::scope(|scope| {
        let threads = (0..connections).map(|number| {
            let first = begin + pace.step * u32::try_from(number).expect("few connections");
            thread::Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, move || {
                    connection(to, request, first, begin + pace.time, pace.period)
                })
                .expect("a thread")
        });
        for thread in threads.collect::<Vec<_>>() {
            let one = thread.join().expect("a connection that ends");
            all.times.extend(one.times);
            all.failed += one.failed;
        }
    });
    all
}

fn connection(to: SocketAddr, request: &[u8], first: Instant, end: Instant, period: Duration) -> Outcome {
    let mut outcome = Outcome::default();
    let mut stream = None;
    let mut due = first;
    while due < end {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += period;
        match exchange(&mut stream, to, request) {
            Ok((200..=299, time)) => outcome.times.push(time.as_secs_f64()),
            Ok(_) => outcome.failed += 1,
            Err(_) => {
                stream = None;
                outcome.failed += 1;
            }
        }
    }
    outcome
}

/// The status of an answer, and how long all of it took; of a first request without the time to connect.
fn exchange(stream: &mut Option<TcpStream>, to: SocketAddr, request: &[u8]) -> io::Result<(u16, Duration)> {
    let stream = match stream {
        Some(stream) => stream,
        none => {
            let new = TcpStream::connect(to)?;
            new.set_nodelay(true)?;
            new.set_read_timeout(Some(PATIENCE))?;
            none.insert(new)
        }
    };
    let sent = Instant::now();
    stream.write_all(request)?;
    let mut buffer = [0; READ];
    let mut head = 0;
    let (status, mut missing) = loop {
        let read = stream.read(buffer.get_mut(head..).unwrap_or_default())?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head += read;
        let read = buffer.get(..head).unwrap_or_default();
        if let Some(end) = memmem::find(read, END) {
            let (status, length) = judge(read.get(..end).unwrap_or_default()).ok_or(io::ErrorKind::InvalidData)?;
            break (status, (end + END.len() + length).saturating_sub(head));
        }
    };
    while missing > 0 {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        missing = missing.saturating_sub(read);
    }
    Ok((status, sent.elapsed()))
}

/// The status of an answer and the length of its body; `None` where the head doesn't say them.
fn judge(head: &[u8]) -> Option<(u16, usize)> {
    let text = std::str::from_utf8(head).ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    });
    Some((status, length?))
}
