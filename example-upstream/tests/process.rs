//! The binary as an operator meets it: its log line, its signals, its exit status.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};

/// A running example on a free port. Killed if a test fails before it stops it.
struct Example {
    child: Child,
    log: BufReader<ChildStderr>,
    address: String,
}

impl Example {
    fn start() -> Self {
        let mut child = command("127.0.0.1:0").spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let (_, address) = line
            .split_once("listening on http://")
            .unwrap_or_else(|| panic!("no address in {line:?}"));
        let address = address.trim().to_owned();
        Self { child, log, address }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn command(listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_example-upstream"));
    command.env_clear().env("LISTEN", listen).stderr(Stdio::piped());
    command
}

#[test]
fn it_logs_the_bound_address_and_stops_cleanly_on_either_signal() {
    for signal in ["TERM", "INT"] {
        let mut example = Example::start();
        // An idle keep-alive connection must not hold up the end.
        let mut idle = TcpStream::connect(&example.address).unwrap();
        idle.write_all(b"GET /health HTTP/1.1\r\nhost: example\r\n\r\n")
            .unwrap();
        let mut head = [0; 15];
        idle.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        example.signal(signal);
        let status = example.child.wait().unwrap();
        assert!(status.success(), "{signal}: {status}");
        let mut rest = String::new();
        example.log.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("shutting down"), "{rest}");
    }
}

#[test]
fn a_taken_port_is_one_line_and_exit_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = command(&address).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains(&address) && log.contains("set LISTEN"), "{log}");
}

#[test]
fn a_bad_collector_address_is_one_line_and_exit_1() {
    let output = command("127.0.0.1:0")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("http://localhost:4317"), "{log}");
}
