//! The process's own log, on stderr. Records of the exchanges never go here.
//!
//! Invariants:
//! - pingora is silent at usual levels, but for failures to accept: it has a line for each connection that dies, which
//!   clients could fill the log with; they are counted. At `debug` it warns, and it never logs at `trace`, where it panics
//!   on a response head that isn't UTF-8
//! - async-nats is silent: what happens to the connection is told by [`crate::nats`], once and in plain words
//! - the verifier of certificates is silent too: it would tell of each attempt, and whoever connects tells of the failure anyway

use std::io::{self, IsTerminal};

use anyhow::Context;
use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// The least severe level that is logged.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// How severe a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something was lost, or someone must act.
    Error,
    /// Something is not as it should be; nothing was lost.
    Warn,
    /// What an operator wants to have seen.
    #[default]
    Info,
    /// What a developer wants to see.
    Debug,
    /// Everything.
    Trace,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log. Lines written by way of the `log` crate appear too.
///
/// # Errors
///
/// The process has a log already.
pub fn init(settings: &LogSettings) -> anyhow::Result<()> {
    let lines = match settings.format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(io::stderr)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(targets(settings.level))
        .with(lines)
        .try_init()
        .context("the log is started already")
}

/// What is logged: own lines at `level`, those of libraries less.
fn targets(level: LogLevel) -> Targets {
    use LevelFilter as F;
    let (own, pingora, told_by_us, others) = match level {
        LogLevel::Error => (F::ERROR, F::OFF, F::OFF, F::ERROR),
        LogLevel::Warn => (F::WARN, F::OFF, F::OFF, F::WARN),
        LogLevel::Info => (F::INFO, F::OFF, F::OFF, F::WARN),
        LogLevel::Debug => (F::DEBUG, F::WARN, F::WARN, F::INFO),
        LogLevel::Trace => (F::TRACE, F::DEBUG, F::DEBUG, F::DEBUG),
    };
    Targets::new()
        .with_default(others)
        .with_target("sidelog", own)
        .with_target("pingora", pingora)
        // Its accept loop, which can run out of file descriptors.
        .with_target("pingora_core::services", pingora.max(F::ERROR))
        .with_target("async_nats", told_by_us)
        .with_target("rustls_platform_verifier", told_by_us)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn pingora_is_quiet_and_never_at_trace() {
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug] {
            assert!(
                !targets(level).would_enable("pingora_proxy::proxy_h1", &Level::INFO),
                "{level:?}"
            );
        }
        assert!(!targets(LogLevel::Info).would_enable("pingora_proxy", &Level::ERROR));
        assert!(targets(LogLevel::Info).would_enable("pingora_core::services::listening", &Level::ERROR));
        assert!(!targets(LogLevel::Trace).would_enable("pingora_core::protocols::http::v1::client", &Level::TRACE));
    }

    #[test]
    fn own_lines_appear_at_the_level_asked_for() {
        assert!(targets(LogLevel::Info).would_enable("sidelog_proxy::shipping", &Level::INFO));
        assert!(!targets(LogLevel::Info).would_enable("sidelog_proxy::shipping", &Level::DEBUG));
        assert!(targets(LogLevel::Trace).would_enable("sidelog_consumer", &Level::TRACE));
        assert!(!targets(LogLevel::Error).would_enable("sidelog_consumer", &Level::WARN));
    }

    #[test]
    fn what_we_tell_ourselves_is_not_told_by_libraries_at_usual_levels() {
        for target in ["async_nats::connector", "rustls_platform_verifier::verification"] {
            assert!(!targets(LogLevel::Info).would_enable(target, &Level::ERROR), "{target}");
            assert!(targets(LogLevel::Debug).would_enable(target, &Level::WARN), "{target}");
        }
    }
}
