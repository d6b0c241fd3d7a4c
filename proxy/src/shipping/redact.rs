//! What never leaves the process: values of header fields and parameters whose name says that they are secret.
//!
//! Invariants:
//! - A name is judged by its parts, in any case and joining: `X-Api-Key`, `access_token`, `sessionId`
//!   (`names_of_secrets_are_known_in_any_spelling`).
//! - A value is replaced whole (`a_secret_value_is_replaced_whole`).

use std::borrow::Cow;

use crate::settings::Redaction;

/// What stands in the place of a secret, as the HTTP semantic conventions have it for query values.
pub const REDACTED: &str = "REDACTED";

/// One of these as a part of a name makes its value secret.
const SECRET_PARTS: &[&str] = &[
    "apikey",
    "auth",
    "authentication",
    "authorization",
    "cookie",
    "cookies",
    "credential",
    "credentials",
    "csrf",
    "jwt",
    "otp",
    "passwd",
    "password",
    "pin",
    "pwd",
    "secret",
    "session",
    "sessionid",
    "sig",
    "signature",
    "token",
    "xsrf",
];
/// Two of these one behind the other do, too.
const SECRET_PAIRS: &[(&str, &str)] = &[
    ("access", "key"),
    ("api", "key"),
    ("private", "key"),
    ("secret", "key"),
    ("subscription", "key"),
];
/// Names that the parts above speak of, but whose values are no secrets.
const HARMLESS: &[&str] = &[
    "www-authenticate",
    "proxy-authenticate",
    "next_page_token",
    "page_token",
];
/// Header fields that carry a URL.
const URL_FIELDS: &[&str] = &["content-location", "location", "origin", "referer"];

/// The rules in force.
#[derive(Debug)]
pub struct Redactor {
    /// Header names of the configuration, lower case.
    headers: Vec<String>,
}

impl Redactor {
    /// The built-in rules and those of the configuration.
    pub fn new(redaction: &Redaction) -> Self {
        Self {
            headers: redaction.headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
        }
    }

    /// The value of a header field as it may leave the process; `name` is lower case.
    pub fn header<'a>(&self, name: &str, value: &'a [u8]) -> Cow<'a, str> {
        if is_secret(name) || self.headers.iter().any(|own| own == name) {
            return Cow::Borrowed(REDACTED);
        }
        let text = String::from_utf8_lossy(value);
        if URL_FIELDS.contains(&name) { url(text) } else { text }
    }

    /// A query string as it may leave the process.
    pub fn query<'a>(&self, query: &'a [u8]) -> Cow<'a, str> {
        parameters(String::from_utf8_lossy(query))
    }
}

/// Whether a name speaks of a secret.
fn is_secret(name: &str) -> bool {
    if HARMLESS.iter().any(|harmless| name.eq_ignore_ascii_case(harmless)) {
        return false;
    }
    let parts = parts(name);
    parts.iter().any(|part| SECRET_PARTS.contains(&part.as_str()))
        || parts
            .windows(2)
            .any(|pair| SECRET_PAIRS.iter().any(|(a, b)| pair == [*a, *b]))
}

/// `X-Api-Key`, `api_key` and `apiKey` all have the parts `api` and `key`.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut after_lower = false;
    for c in name.chars() {
        let joint = !c.is_alphanumeric();
        if joint || (after_lower && c.is_uppercase()) {
            parts.push(String::new());
        }
        if let Some(last) = parts.last_mut().filter(|_| !joint) {
            last.extend(c.to_lowercase());
        }
        after_lower = c.is_lowercase() || c.is_ascii_digit();
    }
    parts
}

/// A URL without its user information, its query by the rules for queries.
fn url(text: Cow<'_, str>) -> Cow<'_, str> {
    let (before, query) = match text.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (text.as_ref(), None),
    };
    let authority = before
        .split_once("//")
        .map(|(scheme, rest)| (scheme, rest.split_once('/').unwrap_or((rest, ""))));
    let has_userinfo = authority.is_some_and(|(_, (authority, _))| authority.contains('@'));
    let has_secret = query.is_some_and(|query| matches!(parameters(Cow::Borrowed(query)), Cow::Owned(_)));
    if !has_userinfo && !has_secret {
        return text;
    }
    let mut out = match authority {
        Some((scheme, (authority, path))) if has_userinfo => {
            let host = authority.rsplit('@').next().unwrap_or_default();
            let slash = if path.is_empty() { "" } else { "/" };
            format!("{scheme}//{REDACTED}@{host}{slash}{path}")
        }
        _ => before.to_owned(),
    };
    if let Some(query) = query {
        out.push('?');
        out.push_str(&parameters(Cow::Borrowed(query)));
    }
    Cow::Owned(out)
}

/// `name=value` pairs joined by `&` or `;`, the values of secret names replaced.
fn parameters(text: Cow<'_, str>) -> Cow<'_, str> {
    let secret = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| is_secret(&decoded(name)));
    if !text.split(['&', ';']).any(secret) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(['&', ';']) {
        let (pair, joint) = match piece.strip_suffix(['&', ';']) {
            Some(pair) => (pair, piece.get(pair.len()..).unwrap_or_default()),
            None => (piece, ""),
        };
        match pair.split_once('=').filter(|_| secret(pair)) {
            Some((name, _)) => out.extend([name, "=", REDACTED]),
            None => out.push_str(pair),
        }
        out.push_str(joint);
    }
    Cow::Owned(out)
}

/// Percent-decoded as far as it is valid, for judging a name.
fn decoded(name: &str) -> Cow<'_, str> {
    if !name.contains('%') {
        return Cow::Borrowed(name);
    }
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail
            .split_first_chunk::<2>()
            .filter(|_| byte == b'%')
            .and_then(|(digits, after)| {
                let text = std::str::from_utf8(digits).ok()?;
                Some((u8::from_str_radix(text, 16).ok()?, after))
            });
        let (byte, after) = escaped.unwrap_or((byte, tail));
        out.push(byte);
        rest = after;
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redactor() -> Redactor {
        Redactor::new(&Redaction {
            headers: vec!["X-Internal".to_owned()],
        })
    }

    #[test]
    fn names_of_secrets_are_known_in_any_spelling() {
        let secret = [
            "authorization",
            "Proxy-Authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "X-API-KEY",
            "apikey",
            "api_key",
            "apiKey",
            "x-auth-token",
            "access_token",
            "accessToken",
            "x-amz-security-token",
            "x-csrf-token",
            "sessionId",
            "client_secret",
            "x-hub-signature-256",
            "ocp-apim-subscription-key",
            "password",
            "user[password]",
        ];
        for name in secret {
            assert!(is_secret(name), "{name}");
        }
        let open = [
            "content-type",
            "accept",
            "x-request-id",
            "idempotency-key",
            "www-authenticate",
            "next_page_token",
            "author",
            "tokenizer",
            "sec-websocket-key",
            "host",
        ];
        for name in open {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn a_secret_value_is_replaced_whole() {
        assert_eq!(redactor().header("authorization", b"Bearer abc"), REDACTED);
        assert_eq!(redactor().header("x-internal", b"abc"), REDACTED);
        assert_eq!(redactor().header("accept", b"text/html"), "text/html");
        assert_eq!(redactor().header("x-odd", b"caf\xe9"), "caf\u{fffd}");
    }

    #[test]
    fn query_parameters_are_judged_by_name() {
        let query = |text: &str| redactor().query(text.as_bytes()).into_owned();
        assert_eq!(query("page=2&token=abc&x=1"), "page=2&token=REDACTED&x=1");
        assert_eq!(query("a=1;api_key=abc"), "a=1;api_key=REDACTED");
        assert_eq!(query("%74oken=abc"), "%74oken=REDACTED");
        assert_eq!(query("token"), "token");
        assert_eq!(query("token=a=b&"), "token=REDACTED&");
        assert_eq!(query(""), "");
    }

    #[test]
    fn urls_in_header_fields_lose_their_secrets() {
        let location = |text: &str| redactor().header("location", text.as_bytes()).into_owned();
        assert_eq!(location("/next?sig=abc&page=2"), "/next?sig=REDACTED&page=2");
        assert_eq!(
            location("https://me:pw@example.test/a?b=c"),
            "https://REDACTED@example.test/a?b=c"
        );
        assert_eq!(location("https://me:pw@example.test"), "https://REDACTED@example.test");
        assert_eq!(location("https://example.test/@me"), "https://example.test/@me");
    }

    proptest! {
        #[test]
        fn a_query_without_secret_names_is_left_as_it_is(query in "[a-f0-9=&;%]{0,60}") {
            prop_assert_eq!(redactor().query(query.as_bytes()).into_owned(), query);
        }

        #[test]
        fn no_marked_value_of_a_secret_name_survives(before in "[a-z=&]{0,20}", after in "[a-z=&]{0,20}") {
            let query = format!("{before}&password=MARK&{after}");
            prop_assert!(!redactor().query(query.as_bytes()).contains("MARK"));
        }
    }
}
