//! The proxy's settings: every key, its default, and what must fit together.
//!
//! `config/proxy.toml` documents them.
//!
//! Invariants:
//! - the file's values are the defaults (`proxy/tests/settings.rs: the_documented_file_is_the_defaults`)
//! - there is no key without an effect, and none that can hold a value that makes no sense by itself; what makes no
//!   sense together is told by [`Validate`](sidelog_chassis::settings::Validate)

mod capture;
mod collector;
mod content_type;
mod fixed;
mod headers;
mod limits;
mod listener;
mod network;
mod number;
mod otel;
mod redaction;
mod route;
mod rules;
mod shipping;
mod tls;
mod traces;
mod upstream;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use sidelog_chassis::admin::AdminSettings;
use sidelog_chassis::logging::LogSettings;
use sidelog_chassis::nats::NatsSettings;
use sidelog_chassis::settings::{Program, Variable, as_text, duration};

pub use capture::{Capture, CaptureOverride, KeepBodies};
pub use collector::{Collector, CollectorError};
pub use headers::Headers;
pub use limits::Limits;
pub use listener::{Direction, Listener, TraceMode, UpstreamProtocol};
pub use network::{Network, NetworkError};
pub use redaction::{JsonPath, JsonRule, Redaction, RedactionOverride, Step};
pub use route::Route;
pub use shipping::{Frame, Publish, Queue, Spool, SpoolMode};
pub use tls::{ClientAuth, ListenerTls, UpstreamTls};
pub use traces::{Compression, OtlpProtocol, Traces, TracesTls};
pub use upstream::{Upstream, UpstreamError};

/// The proxy as [`sidelog_chassis::settings::load`] knows it.
pub const PROGRAM: Program = Program {
    name: "sidelog-proxy",
    variables: &VARIABLES,
};

/// The variables of its own, then OpenTelemetry's, which win over them.
const VARIABLES: [Variable; OWN.len() + otel::VARIABLES.len()] = {
    let mut all = [OWN[0]; OWN.len() + otel::VARIABLES.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = if at < OWN.len() {
            OWN[at]
        } else {
            otel::VARIABLES[at - OWN.len()]
        };
        at += 1;
    }
    all
};

const OWN: [Variable; 10] = [
    variable("SERVICE_NAME", "service.name"),
    variable("ENVIRONMENT", "service.environment"),
    Variable {
        name: "PORT",
        key: "listeners.0.address",
        convert: listener::every_address_with_port,
    },
    variable("UPSTREAM_URL", "listeners.0.upstream"),
    variable("NATS_URL", "nats.url"),
    variable("NATS_STREAM", "nats.stream"),
    variable("NATS_SUBJECT", "nats.subject"),
    variable("NATS_STORAGE_TYPE", "nats.storage"),
    variable("NATS_MAX_AGE", "nats.max_age"),
    variable("JAEGER_URL", "traces.endpoint"),
];

/// `config/proxy.toml`: every key with its default.
pub const DEFAULTS: &str = include_str!("../../config/proxy.toml");

const fn variable(name: &'static str, key: &'static str) -> Variable {
    Variable {
        name,
        key,
        convert: as_text,
    }
}

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whose exchanges are recorded.
    pub service: Service,
    /// Where clients are served, at least one place.
    pub listeners: Vec<Listener>,
    /// What differs for some paths.
    pub routes: Vec<Route>,
    /// What is recorded unless a route says otherwise.
    pub capture: Capture,
    /// What is never recorded.
    pub redaction: Redaction,
    /// How much and how long clients and upstreams may.
    pub limits: Limits,
    /// What waits to be shipped.
    pub queue: Queue,
    /// How records are packed into messages.
    pub frame: Frame,
    /// How frames are published.
    pub publish: Publish,
    /// Where frames wait while NATS is away.
    pub spool: Spool,
    /// Where records go.
    pub nats: NatsSettings,
    /// Where spans go.
    pub traces: Traces,
    /// `/livez`, `/readyz`, `/metrics`.
    pub admin: AdminSettings,
    /// The end of the process.
    pub shutdown: ShutdownSettings,
    /// The process's own log.
    pub log: LogSettings,
    /// Threads.
    pub runtime: Runtime,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            service: Service::default(),
            listeners: vec![Listener::default()],
            routes: Vec::new(),
            capture: Capture::default(),
            redaction: Redaction::default(),
            limits: Limits::default(),
            queue: Queue::default(),
            frame: Frame::default(),
            publish: Publish::default(),
            spool: Spool::default(),
            nats: NatsSettings::default(),
            traces: Traces::default(),
            admin: AdminSettings {
                address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9901)),
            },
            shutdown: ShutdownSettings::default(),
            log: LogSettings::default(),
            runtime: Runtime::default(),
        }
    }
}

/// `[service]`: what records and spans say of the service, in the words of OpenTelemetry's resource conventions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// `service.name`; also the last part of the subject.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// `service.version`.
    pub version: Option<String>,
    /// `deployment.environment.name`.
    #[serde(deserialize_with = "name")]
    pub environment: String,
    /// `service.instance.id`; a new one for each start where unset.
    pub instance_id: Option<String>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            name: "microservice".to_owned(),
            version: None,
            environment: "development".to_owned(),
            instance_id: None,
        }
    }
}

/// `[shutdown]`: from the first signal to the end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownSettings {
    /// Still serving, no longer ready: the time that load balancers need to look elsewhere.
    #[serde(with = "duration")]
    pub delay: Duration,
    /// For what is in flight, after the delay; then it is cut.
    #[serde(with = "duration")]
    pub deadline: Duration,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            deadline: Duration::from_secs(25),
        }
    }
}

/// `[runtime]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// Threads that serve traffic; shipping has one more.
    #[serde(deserialize_with = "number::threads")]
    pub threads: usize,
}

impl Default for Runtime {
    fn default() -> Self {
        Self { threads: 1 }
    }
}

/// A name that can be shown: not empty, without control characters.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let trimmed = name.trim();
    if trimmed.is_empty() || trimmed.len() > 255 || trimmed.contains(char::is_control) {
        let advice = "write 1 to 255 printable characters, such as \"api-service\"";
        return Err(D::Error::custom(format!("{name:?} is not a name; {advice}")));
    }
    Ok(trimmed.to_owned())
}
