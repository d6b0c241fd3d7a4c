//! Which rule took out what, for `explain`. Off while records are made: then a note costs a branch.

use std::cell::RefCell;

/// What one rule took out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The record's key it would have stood in.
    pub place: &'static str,
    /// The name of the field, parameter, key or element; empty where a pattern found it.
    pub name: String,
    /// The rule: `name "token"`, `pattern "jwt"`, `path "$.user.pin"`, `configured "x-internal"`.
    pub rule: String,
}

/// Takes notes, or doesn't.
#[derive(Debug, Default)]
pub(super) struct Trail(Option<RefCell<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    place: &'static str,
    findings: Vec<Finding>,
}

impl Trail {
    /// A trail that takes notes.
    pub(super) fn on() -> Self {
        Self(Some(RefCell::default()))
    }

    /// What is found from here on is at `place`.
    pub(super) fn at(&self, place: &'static str) {
        if let Some(notes) = &self.0 {
            notes.borrow_mut().place = place;
        }
    }

    /// The notes so far.
    pub(super) fn findings(&self) -> Vec<Finding> {
        self.0
            .as_ref()
            .map(|notes| notes.borrow().findings.clone())
            .unwrap_or_default()
    }

    /// A rule took something out.
    pub(super) fn note(&self, name: &[u8], rule: &Rule<'_>) {
        if let Some(notes) = &self.0 {
            let mut notes = notes.borrow_mut();
            let finding = Finding {
                place: notes.place,
                name: String::from_utf8_lossy(name).into_owned(),
                rule: match rule {
                    Rule::Name(word) => format!("name {word:?}"),
                    Rule::Configured(name) => format!("configured {name:?}"),
                    Rule::Path(path) => format!("path {path:?}"),
                    Rule::Pattern(pattern) => format!("pattern {pattern:?}"),
                },
            };
            notes.findings.push(finding);
        }
    }
}

/// Why something is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule<'r> {
    /// An entry of the built-in list of names.
    Name(&'static str),
    /// A name of the configuration.
    Configured(&'r str),
    /// A JSON path of the configuration.
    Path(&'r str),
    /// What has a shape of its own.
    Pattern(&'static str),
}
