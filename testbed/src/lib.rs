//! Real servers for the tests.
//!
//! | Type | What it is |
//! |---|---|
//! | [`NatsServer`] | nats-server with JetStream on a file store |
//! | [`NatsCluster`] | three of them that hold streams together |
//! | [`Jaeger`] | Jaeger all-in-one, spans in memory |
//! | [`VictoriaLogs`] | a store that takes Loki's push protocol |
//! | [`LokiDouble`] | answers pushes as Loki documents it, refusals too |
//! | [`TlsDoor`] | TLS in front of a server that has none |
//! | [`Turnstile`] | counts the connections to a server |
//! | [`Authority`] | signs certificates |
//! | [`Clock`] | the time of day of our own binaries, which can jump |
//! | [`Upstream`] | an HTTP service that tests steer |
//! | [`OtlpDouble`] | a trace collector that answers as it is told |
//! | [`Relay`] | a service that passes trace headers on |
//! | [`Sidelog`] | our own binaries |
//! | [`Balance`] | what a proxy counts of its records |
//! | [`Seized`] | one thread of them, stopped |
//!
//! Invariants:
//! - Every server listens on 127.0.0.1, at a port of its own ([`Port`]), and writes into a folder of its own.
//! - `start` returns when the server answers. Nothing sleeps in place of a condition ([`wait`]).
//! - A server ends with its value, by its process id; if the test failed, the end of its output is printed.
//! - What is not as a test needs it ends the test: methods panic and say what they waited for.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it needs it, and shows what servers wrote"
)]

pub mod http;
pub mod wait;

mod authority;
mod balance;
mod clock;
mod hosted;
mod jaeger;
mod loki_double;
mod nats_cluster;
mod nats_server;
mod otlp_double;
mod port;
mod process;
mod relay;
mod seized;
mod sidelog;
mod tls_door;
mod tools;
mod turnstile;
mod upstream;
mod victoria_logs;

pub use authority::{Authority, CertificateFiles};
pub use balance::{Balance, balanced, settled};
pub use clock::Clock;
pub use jaeger::{Jaeger, Span};
pub use loki_double::{Answer, Entry, LokiDouble, LokiLimits, Push};
pub use nats_cluster::NatsCluster;
pub use nats_server::NatsServer;
pub use otlp_double::{OtlpAnswer, OtlpDouble, OtlpRequest};
pub use port::Port;
pub use relay::Relay;
pub use seized::Seized;
pub use sidelog::{Finished, Program, Sidelog, SidelogCommand};
pub use tls_door::TlsDoor;
pub use turnstile::Turnstile;
pub use upstream::{Received, Upstream};
pub use victoria_logs::VictoriaLogs;
