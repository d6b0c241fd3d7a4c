//! Which names speak of secrets: the one list, and how a name is compared with it.
//!
//! A name is compared by its parts, in any case and joining: `access_token`, `access-token`, `accessToken`, `AccessToken`,
//! `ACCESSTOKEN` and `user[accessToken]` all hold `accesstoken`, while `tokenizer` doesn't hold `token`. An entry must
//! begin and end where a part does; what lies between is up to the writer of the name.
//!
//! Some parts around an entry say that the value is no secret: what comes last in `token_type`, `password_expires_at`
//! ([`HARMLESS_LAST`]), and what stands before `token` in `next_page_token`, `max_tokens` ([`HARMLESS_BEFORE_TOKEN`]).
//!
//! Invariants:
//! - Names of secrets are known in any spelling (`names_of_secrets_are_known_in_any_spelling`).
//! - What only looks like one stays readable (`names_that_only_sound_like_secrets_stay_open`).

/// What makes a name secret: header fields, parameters, form fields, JSON keys, XML elements and attributes.
/// Lower case, without joints, sorted.
pub(super) const SECRET: [&str; 70] = [
    "accesskey",
    "accesstoken",
    "accountkey",
    "apikey",
    "apitoken",
    "assertion",
    "auth",
    "authentication",
    "authkey",
    "authorization",
    "authtoken",
    "bearer",
    "card",
    "cardnumber",
    "clientsecret",
    "codeverifier",
    "connectionstring",
    "cookie",
    "cookies",
    "credential",
    "credentials",
    "creditcard",
    "csrf",
    "csrftoken",
    "cvc",
    "cvv",
    "encryptionkey",
    "functionskey",
    "idtoken",
    "jsessionid",
    "jwt",
    "licensekey",
    "masterkey",
    "oauth",
    "otp",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "passwords",
    "phpsessid",
    "pin",
    "privatekey",
    "pwd",
    "refreshtoken",
    "secret",
    "secretkey",
    "secrets",
    "securitycode",
    "securitytoken",
    "servicekey",
    "sessid",
    "session",
    "sessionid",
    "sessionkey",
    "sessiontoken",
    "sharedaccesskey",
    "sharedkey",
    "sid",
    "sig",
    "signature",
    "signingkey",
    "ssn",
    "storagekey",
    "subscriptionkey",
    "token",
    "tokens",
    "totp",
    "webhookkey",
    "xsrf",
];

/// What has fewer letters is none of [`SECRET`].
pub(super) const FEWEST_LETTERS: usize = 3;

const _: () = {
    let mut at = 0;
    while at < SECRET.len() {
        assert!(SECRET[at].len() >= FEWEST_LETTERS);
        at += 1;
    }
};

/// As a name's last part these say that the value is about the secret, and not the secret.
const HARMLESS_LAST: [&str; 24] = [
    "algorithm",
    "at",
    "brand",
    "count",
    "enabled",
    "endpoint",
    "expiration",
    "expires",
    "expiresin",
    "expiry",
    "in",
    "last4",
    "length",
    "limit",
    "max",
    "min",
    "policy",
    "required",
    "status",
    "supported",
    "ttl",
    "type",
    "url",
    "version",
];

/// Before `token` and `tokens` these say that it is a place in a list, or a number of words.
const HARMLESS_BEFORE_TOKEN: [&str; 14] = [
    "cached",
    "completion",
    "continuation",
    "input",
    "max",
    "min",
    "next",
    "num",
    "output",
    "page",
    "prompt",
    "reasoning",
    "sync",
    "total",
];

/// Where in [`SECRET`] the entries of each first letter begin and end.
const BY_LETTER: [(usize, usize); 26] = by_letter();

const fn by_letter() -> [(usize, usize); 26] {
    let mut ranges = [(0, 0); 26];
    let mut at = 0;
    while at < SECRET.len() {
        let letter = (SECRET[at].as_bytes()[0] - b'a') as usize;
        if ranges[letter].1 == 0 {
            ranges[letter].0 = at;
        }
        at += 1;
        ranges[letter].1 = at;
    }
    ranges
}

/// For a first letter, in either case, which letters come second in the entries, one bit each: most names are told by
/// these two.
const SECOND: [u32; 256] = second_letters();

const fn second_letters() -> [u32; 256] {
    let mut letters = [0; 256];
    let mut at = 0;
    while at < SECRET.len() {
        let word = SECRET[at].as_bytes();
        letters[word[0] as usize] |= 1 << (word[1] - b'a');
        letters[word[0].to_ascii_uppercase() as usize] = letters[word[0] as usize];
        at += 1;
    }
    letters
}

/// The entry of [`SECRET`] that makes a name secret; the longest where several do.
pub(super) fn secret(name: &[u8]) -> Option<&'static str> {
    let mut found: Option<&'static str> = None;
    for (start, letters) in name.windows(2).enumerate() {
        if !may_begin(letters) || !begins_part(name, start) {
            continue;
        }
        for word in entries(name.get(start).copied().unwrap_or_default()) {
            let longer = found.is_none_or(|found| found.len() < word.len());
            if longer && end_of(word, name, start).is_some_and(|end| !harmless(word, name, start, end)) {
                found = Some(word);
            }
        }
    }
    found.or_else(|| of_password(name))
}

/// Whether an entry begins with two letters, or with the first where no letter follows.
fn may_begin(letters: &[u8]) -> bool {
    let [first, second] = *letters else {
        return false;
    };
    let seconds = SECOND[usize::from(first)];
    match second.to_ascii_lowercase().wrapping_sub(b'a') {
        second @ 0..26 => seconds & 1 << second != 0,
        _ => seconds != 0,
    }
}

/// Whether a name is `wanted` (as [`flat`] gives it), in any case and joining.
pub(super) fn is(wanted: &[u8], name: &[u8]) -> bool {
    let mut letters = name.iter().filter(|byte| !is_joint(**byte));
    wanted
        .iter()
        .all(|letter| letters.next().is_some_and(|byte| byte.eq_ignore_ascii_case(letter)))
        && letters.next().is_none()
}

/// A name in lower case, without joints.
pub(super) fn flat(name: &str) -> Box<[u8]> {
    let letters = name.bytes().filter(|byte| !is_joint(*byte));
    letters.map(|byte| byte.to_ascii_lowercase()).collect()
}

fn entries(first: u8) -> &'static [&'static str] {
    let letter = usize::from(first.to_ascii_lowercase().wrapping_sub(b'a'));
    let range = BY_LETTER.get(letter).copied().unwrap_or_default();
    SECRET.get(range.0..range.1).unwrap_or_default()
}

/// `newpassword`, `dbpasswd`: people run these together with anything, and no other word ends so.
fn of_password(name: &[u8]) -> Option<&'static str> {
    const FRONT: usize = "pass".len();
    let middles = name
        .iter()
        .enumerate()
        .skip(FRONT)
        .filter(|(_, byte)| matches!(byte, b'w' | b'W'));
    middles
        .flat_map(|(at, _)| ["password", "passwd"].map(|word| (word, at - FRONT)))
        .find(|(word, start)| {
            let end = start + word.len();
            let part = name.get(*start..end);
            part.is_some_and(|part| part.eq_ignore_ascii_case(word.as_bytes()))
                && ends_part(name, end)
                && !harmless(word, name, *start, end)
        })
        .map(|(word, _)| word)
}

/// Where in the name an entry ends that begins at `start`; `None` if it isn't there, or doesn't end with a part.
fn end_of(word: &str, name: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    for letter in word.bytes() {
        while is_joint(*name.get(at)?) {
            at += 1;
        }
        if name.get(at)?.to_ascii_lowercase() != letter {
            return None;
        }
        at += 1;
    }
    ends_part(name, at).then_some(at)
}

fn harmless(word: &str, name: &[u8], start: usize, end: usize) -> bool {
    let (before, after) = (
        name.get(..start).unwrap_or_default(),
        name.get(end..).unwrap_or_default(),
    );
    let last = HARMLESS_LAST.iter().any(|last| {
        let mut letters = after.iter().rev().filter(|byte| !is_joint(**byte));
        let ends_so = last
            .bytes()
            .rev()
            .all(|letter| letters.next().is_some_and(|byte| byte.to_ascii_lowercase() == letter));
        ends_so && after.len() >= last.len() && begins_part(name, trimmed_len(name).saturating_sub(last.len()))
    });
    let counted = matches!(word, "token" | "tokens")
        && HARMLESS_BEFORE_TOKEN.iter().any(|part| {
            let before = before.get(..trimmed_len(before)).unwrap_or_default();
            let at = before.len().saturating_sub(part.len());
            let tail = before.get(at..).unwrap_or_default();
            tail.eq_ignore_ascii_case(part.as_bytes()) && begins_part(name, at)
        });
    last || counted
}

/// The length without joints at the end.
fn trimmed_len(name: &[u8]) -> usize {
    let joints = name.iter().rev().take_while(|byte| is_joint(**byte)).count();
    name.len() - joints
}

/// What joins the parts of a name: everything but letters and digits. Letters beyond ASCII count as letters.
fn is_joint(byte: u8) -> bool {
    byte.is_ascii() && !byte.is_ascii_alphanumeric()
}

/// Whether a part begins here: after a joint, a lower-case letter before an upper-case one, a change between letters
/// and digits, or the last capital of a run of them (`AWSAccess`).
fn begins_part(name: &[u8], at: usize) -> bool {
    let Some(here) = name.get(at).copied().filter(|byte| !is_joint(*byte)) else {
        return false;
    };
    let Some(before) = at.checked_sub(1).and_then(|at| name.get(at)).copied() else {
        return true;
    };
    let next = name.get(at + 1).copied().unwrap_or_default();
    is_joint(before)
        || (here.is_ascii_uppercase() && (!before.is_ascii_uppercase() || next.is_ascii_lowercase()))
        || here.is_ascii_digit() != before.is_ascii_digit()
}

fn ends_part(name: &[u8], at: usize) -> bool {
    match name.get(at) {
        None => true,
        Some(byte) => is_joint(*byte) || begins_part(name, at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_flat() {
        assert!(SECRET.is_sorted());
        assert!(
            SECRET
                .iter()
                .all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase()))
        );
        for letter in b'a'..=b'z' {
            assert!(entries(letter).iter().all(|word| word.as_bytes()[0] == letter));
        }
    }

    #[test]
    fn every_entry_is_found_in_every_casing() {
        for word in SECRET {
            for spelling in [
                word.to_owned(),
                word.to_uppercase(),
                format!("x_{word}"),
                format!("{word}-x"),
            ] {
                assert!(secret(spelling.as_bytes()).is_some(), "{spelling}");
            }
        }
    }

    #[test]
    fn names_of_secrets_are_known_in_any_spelling() {
        for name in [
            "authorization",
            "Proxy-Authorization",
            "set-cookie",
            "x-api-key",
            "X-API-KEY",
            "APIkey",
            "apiKey",
            "API_Key",
            "x-auth-token",
            "accessToken",
            "ACCESSTOKEN",
            "AWSAccessKeyId",
            "X-Amz-Signature",
            "X-Amz-Credential",
            "x-amz-security-token",
            "X-Goog-Signature",
            "sessionId",
            "client_secret",
            "x-hub-signature-256",
            "Ocp-Apim-Subscription-Key",
            "user[password]",
            "password2",
            "newPassword",
            "newpassword",
            "db.passwd",
            "pass_word",
            "code_verifier",
            "privateKey",
            "private_key",
            "card",
            "cardNumber",
            "pin",
            "user_pin",
            "ssn",
            "token",
            "oauth_token",
            "connect.sid",
        ] {
            assert!(secret(name.as_bytes()).is_some(), "{name}");
        }
    }

    #[test]
    fn names_that_only_sound_like_secrets_stay_open() {
        for name in [
            "",
            "-",
            "content-type",
            "x-request-id",
            "idempotency-key",
            "www-authenticate",
            "next_page_token",
            "nextPageToken",
            "pageToken",
            "max_tokens",
            "total_tokens",
            "token_type",
            "tokenType",
            "token_expires_in",
            "password_expires_at",
            "passwordless",
            "author",
            "authority",
            "authenticated",
            "tokenizer",
            "secretary",
            "pinned",
            "spin",
            "discard",
            "design",
            "sec-websocket-key",
            "public_key",
            "key",
            "host",
            "company",
        ] {
            assert_eq!(secret(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_configured_name_is_the_whole_name() {
        let wanted = flat("internal-id");
        for name in ["internal-id", "internalId", "INTERNAL_ID"] {
            assert!(is(&wanted, name.as_bytes()), "{name}");
        }
        for name in ["internal-ids", "my-internal-id", "internal"] {
            assert!(!is(&wanted, name.as_bytes()), "{name}");
        }
    }
}
