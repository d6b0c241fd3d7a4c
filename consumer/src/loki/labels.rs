//! The few labels that make a Loki stream, kept few.
//!
//! Every distinct label set is a stream that Loki keeps open, so none of the values may come unbounded from the
//! outside: `level` is a closed set, and beyond `loki.max_services` services or [`MAX_ENVIRONMENTS`] environments the
//! rest is `other`.
//!
//! Invariants: a value once given a place keeps it for the life of the process, and a label set never holds more
//! than 4 labels. The name that was replaced is still in the line.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;

use crate::entry::Origin;
use crate::metrics::{LabelLabel, Metrics};

/// Environments are few by nature; a program that puts something else there shall not open streams without end.
const MAX_ENVIRONMENTS: usize = 32;

/// The longest label value; Loki refuses more than 2,048 bytes (`max_label_value_length`).
const MAX_VALUE: usize = 1024;

/// What stands for every value that found no place.
const OTHER: &str = "other";

/// Hands out label sets while there are places for their values.
#[derive(Debug)]
pub(super) struct Labels {
    services: Places,
    environments: Places,
    /// By service, each label set that was asked for.
    rendered: HashMap<String, Vec<LabelSet>>,
}

#[derive(Debug)]
struct LabelSet {
    environment: String,
    level: &'static str,
    text: Arc<str>,
}

impl Labels {
    pub(super) fn new(max_services: usize, metrics: &Metrics) -> Self {
        Self {
            services: Places::new("service", "loki.max_services", max_services, metrics),
            environments: Places::new("env", "at most 32 environments", MAX_ENVIRONMENTS, metrics),
            rendered: HashMap::new(),
        }
    }

    /// The label set of records as LogQL writes it, names in order.
    pub(super) fn of(&mut self, origin: &Origin<'_>) -> Arc<str> {
        let service = self.services.admit(&origin.service);
        let environment = self.environments.admit(&origin.environment);
        let level = origin.level;
        let known = self.rendered.get(service).map(Vec::as_slice).unwrap_or_default();
        if let Some(known) = known
            .iter()
            .find(|known| known.environment == environment && known.level == level)
        {
            return Arc::clone(&known.text);
        }
        let text: Arc<str> = render(service, environment, level).into();
        self.rendered.entry(service.to_owned()).or_default().push(LabelSet {
            environment: environment.to_owned(),
            level,
            text: Arc::clone(&text),
        });
        text
    }
}

fn render(service: &str, environment: &str, level: &str) -> String {
    let mut labels = String::with_capacity(64);
    labels.push_str("{env=\"");
    escape(&mut labels, environment);
    labels.push_str("\", level=\"");
    escape(&mut labels, level);
    labels.push_str("\", service=\"");
    escape(&mut labels, service);
    labels.push_str("\"}");
    labels
}

/// The same label set with the hour of an entry that is too far behind the others: `late="2026-01-31T12"`, in UTC. Within an hour no
/// entry is too far behind another.
pub(super) fn late(labels: &str, timestamp: u64) -> Arc<str> {
    let hour = Timestamp::from_nanosecond(i128::from(timestamp)).unwrap_or_default();
    let inner = labels.strip_suffix('}').unwrap_or(labels);
    format!("{inner}, late=\"{}\"}}", hour.strftime("%Y-%m-%dT%H")).into()
}

/// The first so many distinct values.
#[derive(Debug)]
struct Places {
    label: &'static str,
    key: &'static str,
    max: usize,
    taken: HashSet<String>,
    count: Gauge,
    told: bool,
}

impl Places {
    fn new(label: &'static str, key: &'static str, max: usize, metrics: &Metrics) -> Self {
        let of = LabelLabel { label };
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        metrics.label_values_limit.get_or_create(&of).set(limit);
        Self {
            label,
            key,
            max,
            taken: HashSet::new(),
            count: metrics.label_values.get_or_create_owned(&of),
            told: false,
        }
    }

    fn admit<'a>(&mut self, value: &'a str) -> &'a str {
        if self.taken.contains(value) {
            return value;
        }
        if self.taken.len() < self.max {
            self.taken.insert(value.to_owned());
            self.count.inc();
            return value;
        }
        if !self.told {
            self.told = true;
            tracing::warn!(
                label = self.label,
                limit = self.max,
                bound = self.key,
                value,
                "there are more values than the limit; this one and all further ones get the label value \"other\""
            );
        }
        OTHER
    }
}

/// A label value inside its quotes, as Go's `strconv.Unquote` reads it; cut to [`MAX_VALUE`] on a character boundary.
fn escape(out: &mut String, value: &str) {
    let mut left = MAX_VALUE;
    for character in value.chars() {
        if character.len_utf8() > left {
            return;
        }
        left -= character.len_utf8();
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control.is_control() => {
                let written = write!(out, "\\u{:04x}", u32::from(control));
                debug_assert!(written.is_ok(), "a String takes everything");
            }
            plain => out.push(plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn origin(service: &str) -> Origin<'_> {
        Origin {
            service: service.into(),
            environment: "test".into(),
            level: "info",
        }
    }

    fn labels(max_services: usize) -> Labels {
        Labels::new(max_services, &Metrics::register(&mut Registry::default()))
    }

    #[test]
    fn beyond_the_limit_services_share_one_label_and_known_ones_keep_theirs() {
        let mut limit = labels(2);
        let mut service = |name: &str| limit.of(&origin(name));
        assert!(service("a").contains(r#"service="a""#));
        assert!(service("b").contains(r#"service="b""#));
        assert!(service("c").contains(r#"service="other""#));
        assert!(service("a").contains(r#"service="a""#));
    }

    #[test]
    fn each_environment_and_level_of_a_service_is_a_label_set_of_its_own_rendered_once() {
        let mut labels = labels(9);
        let mut origin = origin("a");
        let first = labels.of(&origin);
        assert!(Arc::ptr_eq(&first, &labels.of(&origin)));
        origin.level = "error";
        assert_eq!(&*labels.of(&origin), r#"{env="test", level="error", service="a"}"#);
        origin.environment = "prod".into();
        assert_eq!(&*labels.of(&origin), r#"{env="prod", level="error", service="a"}"#);
    }

    #[test]
    fn the_stream_of_late_entries_has_their_hour() {
        // 2026-01-31T12:59:59.999999999Z and a nanosecond later.
        let last = 1_769_864_399_999_999_999;
        let labels = r#"{env="test", service="a"}"#;
        assert_eq!(
            &*late(labels, last),
            r#"{env="test", service="a", late="2026-01-31T12"}"#
        );
        assert_eq!(
            &*late(labels, last + 1),
            r#"{env="test", service="a", late="2026-01-31T13"}"#
        );
    }

    #[test]
    fn a_value_can_not_break_out_of_its_quotes() {
        let mut limit = labels(9);
        let labels = limit.of(&origin("a\"} or {\\\n"));
        assert_eq!(&*labels, r#"{env="test", level="info", service="a\"} or {\\\u000a"}"#);
    }

    #[test]
    fn a_long_value_is_cut_on_a_character_boundary() {
        let mut out = String::new();
        escape(&mut out, &"é".repeat(MAX_VALUE));
        assert_eq!(out.len(), MAX_VALUE);
        out.clear();
        escape(&mut out, &format!("a{}", "é".repeat(MAX_VALUE)));
        assert_eq!(out.len(), MAX_VALUE - 1);
    }
}
