//! XML and HTML, also cut and broken: one pass over its tags that knows in which element a text stands.
//!
//! Taken out are the texts of elements and the values of attributes whose name is a secret's, and what
//! `<input name="password" value="...">` and `<add key="token" value="..."/>` hold. Comments are read like the rest.
//!
//! Invariants:
//! - XML that can't be placed ends there (`markup_that_cannot_be_placed_is_left_out`); HTML, which browsers repair each in
//!   its own way, is read on as text.
//! - An element that is never closed is secret to the end.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memmem};

use super::edits::Edits;
use super::json::Redacted;
use super::patterns::{Around, run};
use super::trail::Rule;
use super::{LEVELS, REDACTED, Scope};

/// HTML elements that are never closed.
const VOID: [&str; 8] = ["br", "hr", "img", "input", "link", "meta", "param", "source"];
/// HTML elements whose content is no markup.
const RAW: [&str; 2] = ["script", "style"];
/// Attributes that name what another attribute holds.
const NAMING: [&str; 5] = ["id", "key", "name", "property", "http-equiv"];
/// Attributes that hold it.
const HOLDING: [&str; 3] = ["content", "data", "value"];

/// Takes the secrets out of markup; `level` counts the texts it stands in.
pub(super) fn redact<'t>(scope: &Scope<'_>, text: &'t str, html: bool, cut: bool, level: u8) -> Redacted<'t> {
    let mut walk = Walk {
        scope,
        text,
        at: 0,
        html,
        cut,
        level,
        edits: Edits::new(text),
        lenient_until: 0,
        secret: None,
        attributes: Vec::new(),
    };
    let placed = walk.all().is_some();
    let end = walk.at;
    let structured = walk.edits.finish(end);
    let cut = cut || !placed;
    Redacted {
        text: scope.patterns(structured, Around { json: false, cut }),
        placed,
    }
}

struct Walk<'t, 's> {
    scope: &'s Scope<'s>,
    text: &'t str,
    at: usize,
    html: bool,
    cut: bool,
    level: u8,
    edits: Edits<'t>,
    /// In a comment what is no tag is text.
    lenient_until: usize,
    /// The element in which everything is taken out, how many of its name are open, and the rule.
    secret: Option<(&'t str, u32, Rule<'s>)>,
    /// Names and values of the tag that is read.
    attributes: Vec<(Range<usize>, Range<usize>)>,
}

impl<'t, 's> Walk<'t, 's> {
    fn all(&mut self) -> Option<()> {
        while self.at < self.text.len() {
            let rest = self.bytes(self.at..self.text.len());
            let tag = self.at + memchr(b'<', rest).unwrap_or(rest.len());
            self.texts(self.at..tag);
            self.at = tag;
            if tag < self.text.len() {
                self.tag()?;
            }
        }
        Some(())
    }

    fn bytes(&self, range: Range<usize>) -> &'t [u8] {
        self.text.as_bytes().get(range).unwrap_or_default()
    }

    fn part(&self, range: Range<usize>) -> &'t str {
        self.text.get(range).unwrap_or_default()
    }

    /// Behind the next `end`, or the text's end.
    fn behind(&self, end: &[u8]) -> usize {
        let rest = self.bytes(self.at..self.text.len());
        memmem::find(rest, end).map_or(self.text.len(), |found| self.at + found + end.len())
    }

    /// What stands between tags.
    fn texts(&mut self, range: Range<usize>) {
        let text = self.part(range.clone());
        let (start, len) = (text.len() - text.trim_start().len(), text.trim().len());
        let inner = range.start + start..range.start + start + len;
        if inner.is_empty() {
            return;
        }
        if let Some((name, _, rule)) = self.secret {
            self.scope.trail.note(name.as_bytes(), &rule);
            return self.edits.replace(inner, REDACTED);
        }
        let held = self.part(inner.clone());
        let cut = self.cut && inner.end == self.text.len();
        if held.contains("&lt;") && self.level < LEVELS {
            let markup = undone(held);
            if let Cow::Owned(redacted) = redact(self.scope, &markup, true, cut, self.level + 1).text {
                self.edits.replace(inner, &escaped(&redacted));
            }
        } else if held.starts_with(['{', '[']) {
            let text = held.replace("&quot;", "\"");
            if let Cow::Owned(redacted) = self.scope.embedded(&text, cut, self.level + 1) {
                self.edits.replace(inner, &redacted);
            }
        }
    }

    /// One tag, or what else begins with `<`.
    fn tag(&mut self) -> Option<()> {
        let rest = self.part(self.at..self.text.len());
        if rest.starts_with("<!--") {
            self.lenient_until = self.behind(b"-->");
            self.at += "<!--".len();
        } else if rest.starts_with("<![CDATA[") {
            let end = self.behind(b"]]>");
            let inner = self.at + "<![CDATA[".len()..end - if end < self.text.len() { "]]>".len() } else { 0 };
            self.section(inner);
            self.at = end;
        } else if rest.starts_with("<!") {
            let subset = memchr(b'[', self.bytes(self.at..self.behind(b">"))).is_some();
            self.at = self.behind(if subset { b"]>" } else { b">" });
        } else if rest.starts_with("<?") {
            self.at = self.behind(b"?>");
        } else if rest.starts_with("</") {
            self.close();
        } else {
            let name = run(self.text.as_bytes(), self.at + 1, is_name);
            if name.is_empty() && name.end < self.text.len() {
                if !self.html && self.at >= self.lenient_until {
                    return None;
                }
                self.at += 1;
                return Some(());
            }
            self.open(name)?;
        }
        Some(())
    }

    /// A CDATA section: text in which `<` is no tag.
    fn section(&mut self, inner: Range<usize>) {
        let held = self.part(inner.clone());
        if let Some((name, _, rule)) = self.secret.filter(|_| !held.is_empty()) {
            self.scope.trail.note(name.as_bytes(), &rule);
            return self.edits.replace(inner, REDACTED);
        }
        let cut = self.cut && inner.end == self.text.len();
        let redacted = if held.contains('<') && self.level < LEVELS {
            redact(self.scope, held, true, cut, self.level + 1).text
        } else {
            self.scope.embedded(held, cut, self.level + 1)
        };
        if let Cow::Owned(redacted) = redacted {
            self.edits.replace(inner, &redacted);
        }
    }

    fn close(&mut self) {
        let name = self.part(run(self.text.as_bytes(), self.at + 2, is_name));
        if let Some((open, count, _)) = &mut self.secret
            && open.eq_ignore_ascii_case(name)
        {
            *count -= 1;
            if *count == 0 {
                self.secret = None;
            }
        }
        self.at = self.behind(b">");
    }

    fn open(&mut self, name: Range<usize>) -> Option<()> {
        self.at = name.end;
        let name = self.part(name);
        let closed = self.read_attributes()?;
        let naming = self.naming();
        self.redact_attributes(naming);
        let is = |names: &[&str]| self.html && names.iter().any(|known| name.eq_ignore_ascii_case(known));
        if closed || is(&VOID) {
            return Some(());
        }
        if let Some((open, count, _)) = &mut self.secret {
            *count += u32::from(open.eq_ignore_ascii_case(name));
        } else if let Some(rule) = self.scope.name(local(name).as_bytes()).or(naming) {
            self.secret = Some((name, 1, rule));
        } else if is(&RAW) {
            let end = format!("</{}", name.to_ascii_lowercase());
            let rest = self.bytes(self.at..self.text.len());
            self.at += memmem::find(rest, end.as_bytes()).unwrap_or(rest.len());
        }
        Some(())
    }

    /// Reads up to the tag's end; tells whether the element is closed, too.
    fn read_attributes(&mut self) -> Option<bool> {
        let bytes = self.text.as_bytes();
        self.attributes.clear();
        let mut closed = false;
        loop {
            self.at = run(bytes, self.at, |byte| byte.is_ascii_whitespace()).end;
            match bytes.get(self.at) {
                None => return Some(true),
                Some(b'>') => {
                    self.at += 1;
                    return Some(closed);
                }
                Some(b'/') => {
                    closed = true;
                    self.at += 1;
                }
                Some(_) => {
                    closed = false;
                    self.attribute()?;
                }
            }
        }
    }

    fn attribute(&mut self) -> Option<()> {
        let bytes = self.text.as_bytes();
        let blank = |byte: u8| byte.is_ascii_whitespace();
        let name = run(bytes, self.at, |byte| {
            !blank(byte) && !matches!(byte, b'=' | b'>' | b'/' | b'"' | b'\'' | b'<')
        });
        if name.is_empty() {
            if !self.html && self.at >= self.lenient_until {
                return None;
            }
            self.at += 1;
            return Some(());
        }
        self.at = run(bytes, name.end, blank).end;
        if bytes.get(self.at) != Some(&b'=') {
            return Some(());
        }
        let start = run(bytes, self.at + 1, blank).end;
        let value = match bytes.get(start) {
            Some(quote @ (b'"' | b'\'')) => run(bytes, start + 1, |byte| byte != *quote),
            _ => run(bytes, start, |byte| !blank(byte) && byte != b'>'),
        };
        let quoted = value.start > start;
        self.at = (value.end + usize::from(quoted)).min(bytes.len());
        self.attributes.push((name, value));
        Some(())
    }

    /// The rule for what a tag holds whose attributes name it.
    fn naming(&self) -> Option<Rule<'s>> {
        self.attributes.iter().find_map(|(name, value)| {
            let name = self.part(name.clone());
            let names = NAMING.iter().any(|naming| name.eq_ignore_ascii_case(naming));
            self.scope.name(self.bytes(value.clone())).filter(|_| names)
        })
    }

    fn redact_attributes(&mut self, naming: Option<Rule<'s>>) {
        for (name, value) in std::mem::take(&mut self.attributes) {
            let name = self.part(name);
            let holds = HOLDING.iter().any(|holding| name.eq_ignore_ascii_case(holding));
            let own = self
                .scope
                .name(local(name).as_bytes())
                .filter(|_| !name.starts_with("xmlns"));
            let rule = own
                .or(naming.filter(|_| holds))
                .or(self.secret.map(|(_, _, rule)| rule));
            if let Some(rule) = rule.filter(|_| !value.is_empty()) {
                self.scope.trail.note(name.as_bytes(), &rule);
                self.edits.replace(value, REDACTED);
            }
        }
    }
}

/// A name without its namespace's prefix.
fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || matches!(byte, b'_' | b'-' | b'.' | b':')
}

/// The five entities of XML undone.
fn undone(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
