//! What is wrong with settings: one line per problem, with its place.

use std::fmt;
use std::sync::Arc;

use super::Misfit;
use super::tree::Tree;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A whole file, or a line of it (from 1).
    File { name: Arc<str>, line: Option<usize> },
    /// A variable.
    Variable(Arc<str>),
}

impl Place {
    pub(super) fn file(name: &str) -> Self {
        Self::File {
            name: name.into(),
            line: None,
        }
    }

    pub(super) fn variable(name: &str) -> Self {
        Self::Variable(name.into())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line: None } => f.write_str(name),
            Self::File { name, line: Some(line) } => write!(f, "{name}:{line}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    place: Option<Place>,
    key: String,
    message: String,
}

impl Problem {
    /// A problem that belongs to no key.
    pub(super) fn at(place: Place, message: impl Into<String>) -> Self {
        Self::of_key(place, "", message)
    }

    /// A problem of the dotted `key`.
    pub(super) fn of_key(place: Place, key: &str, message: impl Into<String>) -> Self {
        Self {
            place: Some(place),
            key: key.to_owned(),
            message: message.into(),
        }
    }

    /// A problem between keys, at the first of them that was set; the places of the others stand behind the message.
    pub(super) fn of_misfit(misfit: &Misfit, tree: &Tree) -> Self {
        let places = misfit.keys.iter().map(|key| tree.place_of(key));
        let mut set = misfit
            .keys
            .iter()
            .zip(places.clone())
            .filter_map(|(key, place)| Some((key, place?)));
        let first = set.next();
        let main = first.as_ref().map(|(key, _)| *key).or_else(|| misfit.keys.first());
        let mut message = misfit.message.clone();
        for (key, place) in misfit.keys.iter().zip(places) {
            if Some(key) == main {
                continue;
            }
            match place {
                Some(place) => message.push_str(&format!(" ({key}: {place})")),
                None => message.push_str(&format!(" ({key}: by default)")),
            }
        }
        Self {
            key: main.cloned().unwrap_or_default(),
            place: first.map(|(_, place)| place),
            message,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: ")?,
            None => f.write_str("default settings: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        // A message is one line, whatever stood in the file.
        f.write_str(&self.message.replace(['\n', '\r'], " "))
    }
}

/// Everything that is wrong with a program's settings.
///
/// Shows one line per problem: `config/proxy.toml:12: capture.bod_max: unknown key, did you mean "body_max"?`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    problems: Vec<Problem>,
}

impl SettingsError {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    pub(super) fn one(problem: Problem) -> Self {
        Self {
            problems: vec![problem],
        }
    }

    /// The lines of the message, one per problem.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.problems.iter().map(ToString::to_string)
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsError {}
