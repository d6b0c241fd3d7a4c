//! The few labels that make a Loki stream, kept few.
//!
//! Every distinct label set is a stream that Loki keeps open, so none of the values may come unbounded from the
//! outside: `level` is a closed set, and beyond `loki.max_services` services or [`MAX_ENVIRONMENTS`] environments the
//! rest is `other`.
//!
//! Invariants: a value once given a place keeps it for the life of the process, and a label set never holds more
//! than 3 labels. The name that was replaced is still in the line.

use std::collections::HashSet;
use std::fmt::Write as _;

use parking_lot::Mutex;

use crate::entry::Entry;

/// Environments are few by nature; a program that puts something else there shall not open streams without end.
const MAX_ENVIRONMENTS: usize = 32;

/// The longest label value; Loki refuses more than 2,048 bytes (`max_label_value_length`).
const MAX_VALUE: usize = 1024;

/// What stands for every value that found no place.
const OTHER: &str = "other";

/// Hands out label values while there are places.
#[derive(Debug)]
pub(super) struct LabelLimit {
    services: Places,
    environments: Places,
}

impl LabelLimit {
    pub(super) fn new(max_services: usize) -> Self {
        Self {
            services: Places::new("service", "loki.max_services", max_services),
            environments: Places::new("env", "at most 32 environments", MAX_ENVIRONMENTS),
        }
    }

    /// The label set of an entry as LogQL writes it, names in order.
    pub(super) fn render(&self, entry: &Entry) -> String {
        let mut labels = String::with_capacity(64);
        labels.push_str("{env=\"");
        escape(&mut labels, self.environments.admit(&entry.environment));
        labels.push_str("\", level=\"");
        escape(&mut labels, entry.level);
        labels.push_str("\", service=\"");
        escape(&mut labels, self.services.admit(&entry.service));
        labels.push_str("\"}");
        labels
    }
}

/// The first so many distinct values.
#[derive(Debug)]
struct Places {
    label: &'static str,
    key: &'static str,
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    values: HashSet<String>,
    told: bool,
}

impl Places {
    fn new(label: &'static str, key: &'static str, max: usize) -> Self {
        Self {
            label,
            key,
            max,
            taken: Mutex::default(),
        }
    }

    fn admit<'a>(&self, value: &'a str) -> &'a str {
        let mut taken = self.taken.lock();
        if taken.values.contains(value) {
            return value;
        }
        if taken.values.len() < self.max {
            taken.values.insert(value.to_owned());
            return value;
        }
        if !taken.told {
            taken.told = true;
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
    use super::*;
    use crate::entry::tests::entry;

    #[test]
    fn beyond_the_limit_services_share_one_label_and_known_ones_keep_theirs() {
        let limit = LabelLimit::new(2);
        let service = |name: &str| limit.render(&entry(name, 1, ""));
        assert!(service("a").contains(r#"service="a""#));
        assert!(service("b").contains(r#"service="b""#));
        assert!(service("c").contains(r#"service="other""#));
        assert!(service("a").contains(r#"service="a""#));
    }

    #[test]
    fn a_value_can_not_break_out_of_its_quotes() {
        let limit = LabelLimit::new(9);
        let labels = limit.render(&entry("a\"} or {\\\n", 1, ""));
        assert_eq!(labels, r#"{env="test", level="info", service="a\"} or {\\\u000a"}"#);
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
