//! What never leaves the process: secrets, wherever they stand in an exchange.
//!
//! | File | What it knows |
//! |---|---|
//! | `names`, `judged` | the one list of names whose values are secrets, and which were looked up of late |
//! | `known` | which values were searched of late, and nothing found |
//! | `bodies` | which bodies came again, and what was made of them |
//! | `patterns`, `cards`, `pairs`, `marks`, `trigrams` | secrets that are known by their shape, in any text |
//! | `headers`, `parameters` | header fields; queries, forms, paths and URLs |
//! | `json`, `markup`, `multipart` | bodies with a structure |
//! | `trail` | which rule took out what |
//!
//! Invariants:
//! - What is known by its name is taken out whole, what is known by its shape as far as the shape goes.
//! - Cut and broken bodies are treated as well as whole ones; what can't be placed is left out
//!   (`what_cannot_be_placed_is_left_out`).
//! - Nothing of the input is logged.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::generation::policy::Policy;
use crate::queue::feed::Feed;
use crate::settings::{JsonPath, JsonRule, Redaction};

mod bodies;
mod cards;
mod edits;
mod escape;
mod headers;
mod json;
mod judged;
mod known;
mod marks;
mod markup;
mod multipart;
mod names;
mod pairs;
mod parameters;
mod patterns;
mod trail;
mod trigrams;

use bodies::{KnownBodies, Search};
use judged::Judged;
use known::KnownClean;
use pairs::Names;
use patterns::Around;
pub use trail::{Finding, RuleKind, Tally};
use trail::{Rule, Trail};

/// What stands in the place of a secret, as the HTTP semantic conventions have it for query values.
pub const REDACTED: &str = "REDACTED";
/// The same as a JSON value.
const REDACTED_STRING: &str = "\"REDACTED\"";
/// Shorter texts hold no secret that is known by its shape, unless it is one with its name or a URL's.
const SHORT: usize = 11;
/// Strings in strings in strings that are read as JSON; what stands deeper is read as text.
const LEVELS: u8 = 4;

/// What takes secrets out, by the built-in rules and those of an exchange's policy.
#[derive(Debug, Default)]
pub struct Redactor {
    judged: Judged,
    clean: KnownClean,
    bodies: KnownBodies,
    trail: Trail,
}

/// The rules that a configuration adds to the built-in ones.
#[derive(Debug)]
pub struct Rules {
    /// Tells them from all others of this process.
    id: u64,
    /// Header names, lower case.
    headers: Vec<String>,
    /// Names, as written and flat.
    names: Vec<(String, Box<[u8]>)>,
    /// What has fewer letters is neither one of them nor a built-in one.
    fewest_letters: usize,
    /// JSON paths.
    paths: Vec<JsonPath>,
}

impl Rules {
    /// Those of `redaction`.
    pub fn new(redaction: &Redaction) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut rules = Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            headers: redaction.headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
            names: Vec::new(),
            fewest_letters: names::FEWEST_LETTERS,
            paths: Vec::new(),
        };
        for rule in &redaction.json {
            match rule {
                JsonRule::Name(name) => {
                    let flat = names::flat(name);
                    let letters = flat.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
                    rules.fewest_letters = rules.fewest_letters.min(letters);
                    rules.names.push((name.clone(), flat));
                }
                JsonRule::Path(path) => rules.paths.push(path.clone()),
            }
        }
        rules
    }
}

impl Redactor {
    /// The same, and notes of what is taken out.
    #[must_use]
    pub fn with_notes(self) -> Self {
        Self {
            trail: Trail::on(),
            ..self
        }
    }

    /// What was taken out so far, if notes are taken.
    pub fn findings(&self) -> Vec<Finding> {
        self.trail.findings()
    }

    /// How many values were taken out since this was last asked.
    pub fn take_tally(&self) -> Tally {
        self.trail.take_tally()
    }

    /// The rules as a route's policy has them.
    pub fn under<'r>(&'r self, policy: &'r Policy) -> Applied<'r> {
        Applied(policy.redaction().map(|rules| Scope {
            rules,
            judged: &self.judged,
            clean: &self.clean,
            bodies: &self.bodies,
            trail: &self.trail,
        }))
    }
}

/// The rules as they are for one exchange: in force, or switched off.
#[derive(Clone, Copy, Debug)]
pub struct Applied<'r>(Option<Scope<'r>>);

/// What a body is, for redaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JSON, or several documents of it.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// JSON documents, one a line.
    Lines,
    /// XML.
    Xml,
    /// HTML.
    Html,
    /// Server-sent events.
    Events,
    /// Text of no structure that is known.
    Text,
}

impl Kind {
    /// The kind of a body with this `Content-Type`.
    pub fn of(content_type: &[u8]) -> Self {
        let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
        let essence = essence.trim_ascii().to_ascii_lowercase();
        let ends = |end: &[u8]| essence.ends_with(end);
        match Feed::of(&essence) {
            Some(Feed::Events) => return Self::Events,
            Some(Feed::Lines) => return Self::Lines,
            // Its documents may have several lines.
            Some(Feed::Sequence) => return Self::Json,
            None => {}
        }
        match essence.as_slice() {
            b"application/x-www-form-urlencoded" => Self::Form,
            b"text/html" | b"application/xhtml+xml" => Self::Html,
            _ if ends(b"json") => Self::Json,
            _ if ends(b"xml") => Self::Xml,
            _ => Self::Text,
        }
    }
}

/// A body's text as it may leave the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clean<'t> {
    /// The text.
    pub text: Cow<'t, str>,
    /// Whether it ends early because what follows could not be placed.
    pub ends_early: bool,
}

impl Applied<'_> {
    /// The same, for what will stand under this key of the record.
    pub fn at(&self, place: &'static str) -> &Self {
        if let Some(scope) = &self.0 {
            scope.trail.at(place);
        }
        self
    }

    /// The value of a header field; `name` is in lower case.
    pub fn header<'t>(&self, name: &str, value: &'t [u8]) -> Cow<'t, str> {
        self.unless_known(name, value, |scope, text| headers::redact(scope, name, text))
    }

    /// A query string.
    pub fn query<'t>(&self, query: &'t [u8]) -> Cow<'t, str> {
        self.lossy(query, |scope, text| parameters::redact(scope, text, false))
    }

    /// A path.
    pub fn path<'t>(&self, path: &'t [u8]) -> Cow<'t, str> {
        self.lossy(path, parameters::path)
    }

    /// Text that a client chose: its user agent, its request id.
    pub fn text<'t>(&self, text: &'t [u8]) -> Cow<'t, str> {
        // No field has no name.
        self.unless_known("", text, |scope, text| scope.text(Cow::Borrowed(text), false))
    }

    /// A body's text; `cut` when it goes on behind its end.
    pub fn body<'t>(&self, kind: Kind, text: &'t str, cut: bool) -> Clean<'t> {
        let Some(scope) = &self.0 else {
            return Clean {
                text: Cow::Borrowed(text),
                ends_early: false,
            };
        };
        let (text, placed) = scope.body(kind, text, cut);
        Clean {
            text,
            ends_early: !placed,
        }
    }

    /// Whether they are not switched off.
    pub fn is_in_force(&self) -> bool {
        self.0.is_some()
    }

    /// A multipart body, cut or whole; `None` when its parts can't be told, or no rules are in force.
    pub fn multipart<'t>(&self, bytes: &[u8], boundary: &[u8], cut: bool) -> Option<Clean<'t>> {
        let (text, placed) = multipart::redact(self.0.as_ref()?, bytes, boundary, cut)?;
        Some(Clean {
            text: Cow::Owned(text),
            ends_early: !placed,
        })
    }

    /// As [`Self::lossy`]; what was found clean under this name before is not searched again.
    fn unless_known<'t>(
        &self,
        name: &str,
        bytes: &'t [u8],
        redact: impl for<'x> Fn(&Scope<'_>, &'x str) -> Cow<'x, str>,
    ) -> Cow<'t, str> {
        let Some((scope, text)) = self.0.as_ref().zip(std::str::from_utf8(bytes).ok()) else {
            return self.lossy(bytes, redact);
        };
        if scope.clean.knows(scope.rules.id, name, bytes) {
            return Cow::Borrowed(text);
        }
        let redacted = redact(scope, text);
        if is_same(&redacted, text) {
            scope.clean.note(scope.rules.id, name, bytes);
        }
        redacted
    }

    /// The bytes as text, redacted; what is no UTF-8 in them is replaced.
    fn lossy<'t>(&self, bytes: &'t [u8], redact: impl for<'x> Fn(&Scope<'_>, &'x str) -> Cow<'x, str>) -> Cow<'t, str> {
        let text = String::from_utf8_lossy(bytes);
        let Some(scope) = &self.0 else {
            return text;
        };
        match redact(scope, &text) {
            Cow::Owned(redacted) => Cow::Owned(redacted),
            Cow::Borrowed(same) if same == text => text,
            Cow::Borrowed(other) => Cow::Owned(other.to_owned()),
        }
    }
}

/// Whether redaction gave the text back whole.
fn is_same(redacted: &str, text: &str) -> bool {
    std::ptr::eq(redacted, text)
}

/// The rules in force, and who takes notes.
#[derive(Clone, Copy, Debug)]
struct Scope<'r> {
    rules: &'r Rules,
    judged: &'r Judged,
    clean: &'r KnownClean,
    bodies: &'r KnownBodies,
    trail: &'r Trail,
}

impl<'r> Scope<'r> {
    /// The rule that makes a name secret.
    fn name(&self, name: &[u8]) -> Option<Rule<'r>> {
        self.names().rule(name)
    }

    /// The same for a name that stands in a text.
    fn name_at(&self, text: &[u8], name: Range<usize>) -> Option<Rule<'r>> {
        self.names().rule_at(text, name)
    }

    fn names(&self) -> Names<'r> {
        Names {
            rules: self.rules,
            judged: self.judged,
        }
    }

    /// A body's text, and whether all of it could be placed; one that came before is not searched again.
    fn body<'t>(&self, kind: Kind, text: &'t str, cut: bool) -> (Cow<'t, str>, bool) {
        if self.trail.takes_notes() {
            return self.of_kind(kind, text, cut);
        }
        let rules = self.rules.id;
        let search = Search { rules, kind, cut };
        if let Some((redacted, tally)) = self.bodies.recall(search, text) {
            self.trail.add(tally);
            return (redacted, true);
        }
        let ((redacted, placed), tally) = self.trail.counted(|| self.of_kind(kind, text, cut));
        if placed {
            self.bodies.note(search, text, &redacted, tally);
        }
        (redacted, placed)
    }

    /// The same, searched.
    fn of_kind<'t>(&self, kind: Kind, text: &'t str, cut: bool) -> (Cow<'t, str>, bool) {
        let redacted = match kind {
            Kind::Json => json::redact(self, text, cut, 0),
            Kind::Xml => markup::redact(self, text, false, cut, 0),
            Kind::Html => markup::redact(self, text, true, cut, 0),
            Kind::Lines => return self.lines(text, cut, |line, cut| json::redact(self, line, cut, 0)),
            Kind::Events => return self.lines(text, cut, |line, cut| self.event(line, cut)),
            Kind::Form => return (parameters::redact(self, text, cut), true),
            Kind::Text => return (self.embedded(text, cut, 0), true),
        };
        (redacted.text, redacted.placed)
    }

    /// Line by line; one that can't be placed leaves the others as they are.
    fn lines<'t>(
        &self,
        text: &'t str,
        cut: bool,
        redact: impl for<'l> Fn(&'l str, bool) -> json::Redacted<'l>,
    ) -> (Cow<'t, str>, bool) {
        let mut edits = edits::Edits::new(text);
        let (mut at, mut placed) = (0, true);
        for line in text.split_inclusive('\n') {
            let redacted = redact(line, cut && at + line.len() == text.len());
            placed &= redacted.placed;
            if !redacted.placed || matches!(redacted.text, Cow::Owned(_)) {
                edits.replace(at..at + line.len(), &redacted.text);
                if !redacted.placed {
                    edits.replace(at + line.len()..at + line.len(), "\n");
                }
            }
            at += line.len();
        }
        (edits.finish(text.len()), placed)
    }

    /// A line of a server-sent event (HTML Living Standard, 9.2.5): its field, its data as JSON or text.
    fn event<'t>(&self, line: &'t str, cut: bool) -> json::Redacted<'t> {
        let text = match line.split_once(':') {
            Some(("data", data)) => match self.embedded(data, cut, 0) {
                Cow::Owned(data) => Cow::Owned(format!("data:{data}")),
                Cow::Borrowed(_) => Cow::Borrowed(line),
            },
            _ => self.text(Cow::Borrowed(line), cut),
        };
        json::Redacted { text, placed: true }
    }

    fn paths(&self) -> &'r [JsonPath] {
        &self.rules.paths
    }

    fn patterns<'t>(&self, text: Cow<'t, str>, around: Around) -> Cow<'t, str> {
        patterns::redact(&self.names(), text, around, self.trail)
    }

    /// The rule for the first secret of a scalar that is known by its shape.
    fn shape(&self, text: &str, around: Around) -> Option<Rule<'static>> {
        let found = patterns::find(&self.names(), text.as_bytes(), around);
        found.iter().find_map(|found| match found.rule {
            Rule::Pattern(pattern) => Some(Rule::Pattern(pattern)),
            Rule::Name(word) => Some(Rule::Name(word)),
            Rule::Configured(_) | Rule::Path(_) => None,
        })
    }

    /// A text of no structure.
    fn text<'t>(&self, text: Cow<'t, str>, cut: bool) -> Cow<'t, str> {
        if !cut && text.len() < SHORT && !text.contains(['=', ':']) {
            return text;
        }
        self.patterns(text, Around { json: false, cut })
    }

    /// A text that may hold JSON.
    fn embedded<'t>(&self, text: &'t str, cut: bool, level: u8) -> Cow<'t, str> {
        let begins = text.trim_start().as_bytes();
        if matches!(begins.first(), Some(b'{' | b'[')) && level <= LEVELS {
            let redacted = json::redact(self, text, cut, level);
            if redacted.placed {
                return redacted.text;
            }
        }
        self.text(Cow::Borrowed(text), cut)
    }
}

#[cfg(test)]
mod tests;
