//! Patterns of content types: `application/json`, `text/*`, `application/*+json`.

use http::HeaderName;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// Patterns in lower case, each of a type and a subtype with one `*` at most.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let patterns = Vec::<Pattern>::deserialize(deserializer)?;
    Ok(patterns.into_iter().map(|Pattern(text)| text).collect())
}

/// As [`list`], where a route may leave it out.
pub(super) fn optional_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    list(deserializer).map(Some)
}

struct Pattern(String);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map(Self).map_err(D::Error::custom)
    }
}

fn parse(text: &str) -> Result<String, String> {
    let pattern = text.trim().to_ascii_lowercase();
    // Tokens of RFC 9110, 5.6.2: what a header field's name is made of.
    let is_token = |part: &str| part.parse::<HeaderName>().is_ok();
    let parts = pattern.split_once('/');
    let is_good = parts.is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    if !is_good || pattern.matches('*').count() > 1 && pattern != "*/*" {
        return Err(format!(
            "{text:?} is not a content type; write a type and a subtype, one * allowed and no parameters, such as \
             \"application/*+json\""
        ));
    }
    Ok(if pattern == "*/*" { "*".to_owned() } else { pattern })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_a_type_and_a_subtype_and_one_star() {
        for (text, pattern) in [
            ("Application/JSON", "application/json"),
            ("application/*+json", "application/*+json"),
            ("text/*", "text/*"),
            ("*/*", "*"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(pattern));
        }
        for bad in [
            "",
            "json",
            "text/",
            "/json",
            "a/b/c",
            "text/plain; charset=utf-8",
            "*/*+json",
            "text plain/x",
        ] {
            let error = parse(bad).expect_err(bad);
            assert!(error.contains("write a type and a subtype"), "{error}");
        }
    }
}
