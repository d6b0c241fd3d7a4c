//! The process's own log, on stderr. Records of the exchanges never go here.
//!
//! Invariants:
//! - pingora is silent at usual levels, but for failures to accept: it has a line for each connection that dies, which
//!   clients could fill the log with; they are counted. At `debug` it warns, and it never logs at `trace`, where it panics
//!   on a response head that isn't UTF-8
//! - async-nats is silent: what happens to the connection is told by [`crate::nats`], once and in plain words
//! - a level that is set while it runs counts from the next line on, for lines by way of the `log` crate as well
//!   (`a_level_counts_from_the_next_line_on`)
//! - the verifier of certificates is silent too: it would tell of each attempt, and whoever connects tells of the failure anyway

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use anyhow::Context;
use http::Method;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as Unknown, StrDeserializer};
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::admin::{Page, Verb};

/// What the process's one log lets through.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// The least severe level that is logged.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// How severe a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
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
    let (filter, handle) = reload::Layer::new(targets(settings.level));
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .context("the log is started already")?;
    // Only the one log of the process comes here.
    FILTER.get_or_init(|| handle);
    Ok(())
}

/// Lets lines of `level` and above through from now on.
///
/// # Errors
///
/// The log isn't started.
pub fn set_level(level: LogLevel) -> anyhow::Result<()> {
    let filter = FILTER.get().context("the log isn't started")?;
    filter.reload(targets(level)).context("the log has ended")?;
    // Lines by way of the `log` crate are let through by a level of its own.
    log::set_max_level(as_log(LevelFilter::current()));
    Ok(())
}

/// `PUT /log-level`: the level until the process ends.
#[must_use]
pub fn verb() -> Verb {
    Verb::new(Method::PUT, "/log-level", |body| {
        let level = level(body)?;
        set_level(level).map_err(|error| error.to_string())?;
        let name = format!("{level:?}").to_lowercase();
        tracing::info!(level = name, "the log's level is set");
        Ok(Page::text(format!("{name}\n")))
    })
}

/// The level that a body names.
fn level(body: &[u8]) -> Result<LogLevel, String> {
    let text = str::from_utf8(body).unwrap_or_default().trim();
    let name: StrDeserializer<'_, Unknown> = text.into_deserializer();
    LogLevel::deserialize(name).map_err(|_| "write a level as the body: error, warn, info, debug or trace".to_owned())
}

fn as_log(level: LevelFilter) -> log::LevelFilter {
    match level {
        LevelFilter::OFF => log::LevelFilter::Off,
        LevelFilter::ERROR => log::LevelFilter::Error,
        LevelFilter::WARN => log::LevelFilter::Warn,
        LevelFilter::INFO => log::LevelFilter::Info,
        LevelFilter::DEBUG => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    }
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
    fn a_body_names_a_level_and_nothing_else() {
        for (body, expected) in [
            ("error", LogLevel::Error),
            ("warn\n", LogLevel::Warn),
            (" info ", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ] {
            assert_eq!(level(body.as_bytes()), Ok(expected));
        }
        for body in ["", "off", "DEBUG", "debug,info", "\u{e9}"] {
            assert!(
                level(body.as_bytes()).unwrap_err().contains("error, warn, info"),
                "{body:?}"
            );
        }
        assert!(level(b"\xff").is_err());
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
