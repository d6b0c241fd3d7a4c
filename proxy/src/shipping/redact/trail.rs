//! Which rule took out what: counted for the metrics by its kind, and told for `explain`. While records are made only the
//! counts are kept: then a note costs an addition.

use std::cell::{Cell, RefCell};

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

/// The kinds of rules. Closed set; the metric's `rule` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// A built-in name.
    Name,
    /// A name of the configuration.
    Configured,
    /// A JSON path of the configuration.
    Path,
    /// A shape.
    Pattern,
}

impl RuleKind {
    /// All kinds, in the order of their metrics.
    pub const ALL: [Self; 4] = [Self::Name, Self::Configured, Self::Path, Self::Pattern];

    /// The value of the `rule` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Configured => "configured",
            Self::Path => "path",
            Self::Pattern => "pattern",
        }
    }
}

/// Values that were taken out, by [`RuleKind::ALL`].
pub type Tally = [u64; RuleKind::ALL.len()];

/// Counts, and takes notes or doesn't.
#[derive(Debug, Default)]
pub(super) struct Trail {
    tally: [Cell<u64>; RuleKind::ALL.len()],
    notes: Option<RefCell<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    place: &'static str,
    findings: Vec<Finding>,
}

impl Trail {
    /// A trail that takes notes.
    pub(super) fn on() -> Self {
        Self {
            notes: Some(RefCell::default()),
            ..Self::default()
        }
    }

    /// Whether it takes notes, and doesn't only count.
    pub(super) fn takes_notes(&self) -> bool {
        self.notes.is_some()
    }

    /// What is found from here on is at `place`.
    pub(super) fn at(&self, place: &'static str) {
        if let Some(notes) = &self.notes {
            notes.borrow_mut().place = place;
        }
    }

    /// What was counted since it was last taken.
    pub(super) fn take_tally(&self) -> Tally {
        self.tally.each_ref().map(Cell::take)
    }

    /// Counts what was counted for the same before.
    pub(super) fn add(&self, more: Tally) {
        for (count, more) in self.tally.iter().zip(more) {
            count.set(count.get() + more);
        }
    }

    /// What `work` returns and counts.
    pub(super) fn counted<T>(&self, work: impl FnOnce() -> T) -> (T, Tally) {
        let before = self.take_tally();
        let done = work();
        let tally = self.take_tally();
        self.add(before);
        self.add(tally);
        (done, tally)
    }

    /// The notes so far.
    pub(super) fn findings(&self) -> Vec<Finding> {
        self.notes
            .as_ref()
            .map(|notes| notes.borrow().findings.clone())
            .unwrap_or_default()
    }

    /// A rule took something out.
    pub(super) fn note(&self, name: &[u8], rule: &Rule<'_>) {
        if let Some(count) = self.tally.get(rule.kind() as usize) {
            count.set(count.get() + 1);
        }
        if let Some(notes) = &self.notes {
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

impl Rule<'_> {
    fn kind(&self) -> RuleKind {
        match self {
            Self::Name(_) => RuleKind::Name,
            Self::Configured(_) => RuleKind::Configured,
            Self::Path(_) => RuleKind::Path,
            Self::Pattern(_) => RuleKind::Pattern,
        }
    }
}
