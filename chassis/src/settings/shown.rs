//! The settings in force, for people: TOML that loads again, with every secret as `***`.
//!
//! Invariants:
//! - Types that may hold a secret write it as `***` themselves; what stands here is the second wall, by the names of keys and
//!   by what stands before an `@` in a URL (`a_secret_key_is_masked_whatever_its_type_writes`).
//! - A file that holds a secret is named, and never read.

use std::sync::Arc;

use http::Method;
use serde::Serialize;
use toml::Value;

use crate::admin::{Page, Verb};

/// What stands in a secret's place.
const MASK: &str = "***";
/// Parts of the names of keys whose texts are secrets.
const SECRET: [&str; 9] = [
    "apikey",
    "api_key",
    "api-key",
    "authorization",
    "credential",
    "passw",
    "private",
    "secret",
    "token",
];
/// The end of the names of keys that name a file.
const FILE: &str = "_file";

/// The settings as TOML.
///
/// # Errors
///
/// A value that TOML can't hold.
pub fn shown(settings: &impl Serialize) -> Result<String, toml::ser::Error> {
    let mut value = Value::try_from(settings)?;
    mask(&mut value, false);
    let text = toml::to_string_pretty(&value)?;
    Ok(format!("# The settings in force. Secrets are shown as {MASK}.\n{text}"))
}

/// `GET /config`: the settings that `current` gives.
pub fn verb<S: Serialize>(current: impl Fn() -> Arc<S> + Send + Sync + 'static) -> Verb {
    Verb::new(Method::GET, "/config", move |_| {
        let text = shown(&*current()).map_err(|error| error.to_string())?;
        Ok(Page {
            content_type: "application/toml; charset=utf-8",
            text,
        })
    })
}

fn mask(value: &mut Value, is_secret: bool) {
    match value {
        Value::String(text) if is_secret => MASK.clone_into(text),
        Value::String(text) => *text = without_users(text),
        Value::Array(list) => list.iter_mut().for_each(|value| mask(value, is_secret)),
        Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                let is_table = value.is_table();
                mask(value, is_secret || (!is_table && names_a_secret(key)));
            }
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

fn names_a_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    !key.ends_with(FILE) && SECRET.iter().any(|part| key.contains(part))
}

/// The text with whatever stands before an `@` in a URL masked; there may be several URLs.
fn without_users(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str("://");
        match part.rsplit_once('@') {
            Some((_, host)) => shown.extend([MASK, "@", host]),
            None => shown.push_str(part),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        let value: toml::Table = text.parse().unwrap();
        shown(&value).unwrap()
    }

    #[test]
    fn a_secret_key_is_masked_whatever_its_type_writes() {
        for key in [
            "password",
            "PASSWD",
            "api-key",
            "\"my.api_key\"",
            "tokens",
            "client_secret",
            "authorization",
        ] {
            for value in ["\"CANARY\"", "[\"CANARY\", \"CANARY\"]"] {
                let shown = masked(&format!("[a.b]\n{key} = {value}"));
                assert!(shown.contains("***") && !shown.contains("CANARY"), "{shown}");
            }
        }
        let table = masked("[basic_auth]\nuser = \"me\"\npassword_file = \"/a\"");
        assert!(table.contains("user = \"me\"") && table.contains("\"/a\""), "{table}");
    }

    #[test]
    fn what_stands_before_an_at_sign_in_a_url_is_masked() {
        for (text, expected) in [
            ("nats://me:CANARY@a:4222", "nats://***@a:4222"),
            (
                "nats://CANARY@a,nats://b,tls://me:CAN@ARY@c",
                "nats://***@a,nats://b,tls://***@c",
            ),
            ("http://a/b?c=d", "http://a/b?c=d"),
            ("me@example.com", "me@example.com"),
        ] {
            assert_eq!(without_users(text), expected);
        }
    }
}
