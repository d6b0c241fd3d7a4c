//! Header fields: of credentials the scheme stays, of cookies the names, of URLs everything but their secrets.
//!
//! Invariants:
//! - A field whose name is a secret's never shows its value (`the_values_of_secret_fields_are_gone`).

use std::borrow::Cow;

use super::trail::Rule;
use super::{REDACTED, Scope, parameters};

/// Fields that carry URLs.
const URLS: [&str; 12] = [
    "alt-svc",
    "content-location",
    "destination",
    "link",
    "location",
    "origin",
    "referer",
    "refresh",
    "x-forwarded-uri",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];
/// What may stand beside the cookie itself in `set-cookie` (RFC 6265, 4.1).
const COOKIE_ATTRIBUTES: [&str; 8] = [
    "domain",
    "expires",
    "httponly",
    "max-age",
    "partitioned",
    "path",
    "samesite",
    "secure",
];

/// The value of a header field as it may leave the process; `name` is in lower case.
pub(super) fn redact<'t>(scope: &Scope<'_>, name: &str, text: &'t str) -> Cow<'t, str> {
    if let Some(own) = scope.rules.headers.iter().find(|own| *own == name) {
        scope.trail.note(name.as_bytes(), &Rule::Configured(own));
        return Cow::Borrowed(REDACTED);
    }
    if let Some(rule) = scope.name(name.as_bytes()) {
        scope.trail.note(name.as_bytes(), &rule);
        return match name {
            "authorization" | "proxy-authorization" => credentials(text),
            "cookie" => Cow::Owned(text.split(';').map(cookie).collect::<Vec<_>>().join("; ")),
            "set-cookie" => set_cookie(text),
            _ => Cow::Borrowed(REDACTED),
        };
    }
    let text = if URLS.contains(&name) {
        parameters::url(scope, text)
    } else {
        Cow::Borrowed(text)
    };
    scope.text(text, false)
}

/// `Bearer abc` is `Bearer REDACTED`; what has no scheme is taken out whole (RFC 9110, 11.4).
fn credentials<'t>(text: &str) -> Cow<'t, str> {
    match text.trim_start().split_once(' ') {
        Some((scheme, _)) if !scheme.is_empty() && scheme.len() <= 32 && scheme.bytes().all(is_scheme) => {
            Cow::Owned(format!("{scheme} {REDACTED}"))
        }
        _ => Cow::Borrowed(REDACTED),
    }
}

fn is_scheme(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// `name=value` is `name=REDACTED`; what has no name is taken out.
fn cookie(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, _)) => format!("{}={REDACTED}", name.trim()),
        None => REDACTED.to_owned(),
    }
}

fn set_cookie<'t>(text: &str) -> Cow<'t, str> {
    let mut parts = text.split(';');
    let mut out = cookie(parts.next().unwrap_or_default());
    for part in parts {
        let name = part.split('=').next().unwrap_or_default().trim();
        let known = COOKIE_ATTRIBUTES.iter().any(|known| name.eq_ignore_ascii_case(known));
        out.push_str("; ");
        out.push_str(if known { part.trim() } else { REDACTED });
    }
    Cow::Owned(out)
}
