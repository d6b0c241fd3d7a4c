//! `[[routes]]`: paths for which something differs.

use http::Method;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use super::capture::CaptureOverride;
use super::redaction::RedactionOverride;
use super::tls::UpstreamTls;
use super::upstream::Upstream;

/// A path, and what differs for it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The path: literal segments, `{name}` for any one segment, `/*` at the end for the folder and all below it. Also
    /// the span's `http.route`.
    #[serde(deserialize_with = "path")]
    pub path: String,
    /// The methods it is for, in upper case; empty for all.
    #[serde(default, deserialize_with = "methods")]
    pub methods: Vec<String>,
    /// The host it is for, without a port, in lower case; all where unset.
    #[serde(default, deserialize_with = "host")]
    pub host: Option<String>,
    /// Where its requests go; the listener's upstream where unset.
    #[serde(default)]
    pub upstream: Option<Upstream>,
    /// TLS to its `https` upstream; what is unset is the listener's, but for the name.
    #[serde(default, alias = "tls")]
    pub upstream_tls: UpstreamTls,
    /// What is recorded otherwise.
    #[serde(default)]
    pub capture: CaptureOverride,
    /// What is taken out otherwise.
    #[serde(default)]
    pub redaction: RedactionOverride,
}

impl Route {
    /// What two routes have in common that serve the same requests: the later of them never would.
    pub(super) fn requests(&self) -> (Vec<&str>, Vec<&str>, Option<&str>) {
        let segments = self.path.split('/').filter(|segment| !segment.is_empty());
        let shape = segments.map(|segment| if segment.starts_with('{') { "{}" } else { segment });
        let mut methods: Vec<_> = self.methods.iter().map(String::as_str).collect();
        methods.sort_unstable();
        methods.dedup();
        (shape.collect(), methods, self.host.as_deref())
    }
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let path = String::deserialize(deserializer)?;
    match misfit(&path) {
        Some(why) => Err(D::Error::custom(format!("{path:?} is not a path: {why}"))),
        None => Ok(path),
    }
}

/// Why a text is no path.
fn misfit(path: &str) -> Option<&'static str> {
    let Some(below) = path.strip_prefix('/') else {
        return Some("begin it with /");
    };
    if path.contains(['?', '#']) {
        return Some("routes don't look at the query; leave out what begins with ? or #");
    }
    if path.contains(|c: char| !c.is_ascii_graphic()) {
        return Some("write blanks and non-ASCII characters percent-encoded, as they come in requests: %20, %C3%A4");
    }
    let segments: Vec<_> = below.strip_suffix('/').unwrap_or(below).split('/').collect();
    let last = segments.len() - 1;
    for (index, segment) in segments.iter().enumerate() {
        let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let is_name = name.is_some_and(|name| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        });
        match *segment {
            "" if !below.is_empty() => return Some("it has an empty segment; write one / between segments"),
            "." | ".." => return Some("paths are matched without . and .. segments; write it without them"),
            "*" if index < last => return Some("* stands for all below, so it can only be the last segment"),
            "*" => {}
            segment if segment.contains('*') => return Some("* is a whole segment, at the end: /files/*"),
            segment if segment.contains(['{', '}']) && !is_name => {
                return Some("a {name} is a whole segment, of letters, digits, - and _: /users/{id}");
            }
            _ => {}
        }
    }
    None
}

fn methods<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let methods = Vec::<MethodName>::deserialize(deserializer)?;
    Ok(methods.into_iter().map(|MethodName(name)| name).collect())
}

/// A method in upper case.
struct MethodName(String);

impl<'de> Deserialize<'de> for MethodName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match Method::from_bytes(text.trim().to_ascii_uppercase().as_bytes()) {
            Ok(method) => Ok(Self(method.as_str().to_owned())),
            Err(_) => Err(D::Error::custom(format!(
                "{text:?} is not a method; write one such as \"GET\""
            ))),
        }
    }
}

fn host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let host = String::deserialize(deserializer)?;
    let lower = host.trim().to_ascii_lowercase();
    let is_ipv6 = lower.starts_with('[') && lower.ends_with(']');
    let bad = |c: char| !c.is_ascii_graphic() || matches!(c, '/' | '@' | '*' | '?' | '#');
    if lower.is_empty() || lower.contains(bad) || (!is_ipv6 && lower.contains(':')) {
        let advice = "write a name or an IP address without scheme and port, such as \"api.example.com\"";
        return Err(D::Error::custom(format!("{host:?} is not a host; {advice}")));
    }
    Ok(Some(lower))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_paths_are_taken() {
        for path in [
            "/",
            "/*",
            "/a",
            "/a/",
            "/api/v1/users/{id}",
            "/internal/*",
            "/{a}/{b-1}/*",
            "/%C3%A4",
            "/a~b.c",
        ] {
            assert_eq!(misfit(path), None, "{path}");
        }
    }

    #[test]
    fn bad_paths_are_refused_with_the_reason() {
        for (path, part) in [
            ("", "begin it with /"),
            ("users", "begin it with /"),
            ("/a?b=c", "the query"),
            ("/a b", "percent-encoded"),
            ("/ä", "percent-encoded"),
            ("/a//b", "empty segment"),
            ("//", "empty segment"),
            ("/a/../b", "without . and .."),
            ("/*/a", "the last segment"),
            ("/a*", "a whole segment"),
            ("/users/{id}.json", "a whole segment"),
            ("/users/{}", "a whole segment"),
            ("/users/{a b}", "percent-encoded"),
            ("/users/{a/b}", "a whole segment"),
        ] {
            let why = misfit(path).unwrap_or_else(|| panic!("{path} was taken"));
            assert!(why.contains(part), "{path}: {why}");
        }
    }

    #[test]
    fn routes_for_the_same_requests_are_recognised_whatever_they_are_spelled_like() {
        let route = |path: &str, methods: &[&str]| Route {
            path: path.to_owned(),
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            ..Route::default()
        };
        assert_eq!(
            route("/a/{x}/", &["GET", "PUT"]).requests(),
            route("/a/{y}", &["PUT", "GET"]).requests()
        );
        assert_ne!(route("/a/{x}", &[]).requests(), route("/a/*", &[]).requests());
        assert_ne!(route("/a", &["GET"]).requests(), route("/a", &[]).requests());
    }
}
