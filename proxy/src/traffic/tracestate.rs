//! `tracestate`: what vendors on the way have to say of a trace, passed on as it came or not at all.
//!
//! The parser is strict, and one member that is malformed spoils the list: half a list would make vendors
//! draw wrong conclusions (<https://www.w3.org/TR/trace-context-2/#tracestate-header>). Keys follow the
//! grammar of level 2, but for `@`, which parts tenant and system as in level 1: whoever reads by level 1 discards
//! the whole list for two of them. That each key stands once is for those to see to who add one (level 2, "Mutating the
//! tracestate Field"): a list in which one is twice goes on as it is.
//!
//! Invariants:
//! - What goes on is byte for byte what came; several header fields are joined by commas in their order
//!   (`one_header_is_untouched_and_several_are_joined`).
//! - Neither a malformed list nor one without a member goes on (`malformed_lists_are_refused`).
//! - Joining again changes nothing (`what_was_joined_is_passed_on_as_it_is`).
//! - No bytes make the parser panic (`arbitrary_values_never_panic`, and `proxy/fuzz`).

use std::borrow::Cow;

/// Members in a list at most (3.3.1.1).
const MEMBERS_MAX: usize = 32;
/// Bytes of a key without a tenant, and of a value.
const LENGTH_MAX: usize = 256;
/// Bytes of a key's part before the `@`.
const TENANT_MAX: usize = 241;
/// Bytes of a key's part behind the `@`.
const SYSTEM_MAX: usize = 14;

/// The list of all values of the header, in their order. `None` when it is malformed or has no member.
pub fn join<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Cow<'a, [u8]>> {
    let mut joined: Option<Cow<'a, [u8]>> = None;
    for value in values.filter(|value| !trim(value).is_empty()) {
        match &mut joined {
            None => joined = Some(Cow::Borrowed(value)),
            Some(joined) => {
                let list = joined.to_mut();
                list.push(b',');
                list.extend_from_slice(value);
            }
        }
    }
    joined.filter(|list| is_list(list))
}

/// `list = list-member 0*31( OWS "," OWS list-member )`, with at least one member that is not empty.
fn is_list(list: &[u8]) -> bool {
    let mut members = 0;
    for member in list.split(|byte| *byte == b',').map(trim) {
        if member.is_empty() {
            continue;
        }
        members += 1;
        if members > MEMBERS_MAX || !is_member(member) {
            return false;
        }
    }
    members > 0
}

fn is_member(member: &[u8]) -> bool {
    let Some(at) = member.iter().position(|byte| *byte == b'=') else {
        return false;
    };
    let (key, value) = member.split_at(at);
    is_key(key) && value.split_first().is_some_and(|(_, value)| is_value(value))
}

fn is_key(key: &[u8]) -> bool {
    match key.iter().position(|byte| *byte == b'@') {
        None => is_name(key, LENGTH_MAX),
        Some(at) => {
            let (tenant, system) = key.split_at(at);
            let system = system.split_first().map_or(&[][..], |(_, system)| system);
            is_name(tenant, TENANT_MAX) && is_name(system, SYSTEM_MAX)
        }
    }
}

/// A lower-case letter or a digit, then letters, digits, `_`, `-`, `*`, `/`.
fn is_name(name: &[u8], max: usize) -> bool {
    let begins = matches!(name.first(), Some(b'a'..=b'z' | b'0'..=b'9'));
    let fits = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
    begins && name.len() <= max && name.iter().all(fits)
}

/// Printable ASCII without `,` and `=`. Blanks at its end were taken off as those around the member.
fn is_value(value: &[u8]) -> bool {
    let fits = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    !value.is_empty() && value.len() <= LENGTH_MAX && value.iter().all(fits)
}

/// Without the blanks around it (`OWS` of RFC 9110, 5.6.3).
fn trim(text: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !is_blank(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_blank(byte)).map_or(start, |at| at + 1);
    text.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn joined(values: &[&str]) -> Option<String> {
        join(values.iter().map(|value| value.as_bytes())).map(|list| String::from_utf8(list.into_owned()).unwrap())
    }

    #[test]
    fn one_header_is_untouched_and_several_are_joined() {
        for (values, expected) in [
            (&["foo=1,bar=2"][..], "foo=1,bar=2"),
            (&["foo=1 \t , \t bar=2, \t baz=3"], "foo=1 \t , \t bar=2, \t baz=3"),
            (&["foo=1,,bar=2,"], "foo=1,,bar=2,"),
            (&["foo= 1"], "foo= 1"),
            (&["foo=1,foo=2"], "foo=1,foo=2"),
            (&["1foo=1,foo@1bar=1"], "1foo=1,foo@1bar=1"),
            (&["foo=1", "bar=2,baz=3", "qux=4"], "foo=1,bar=2,baz=3,qux=4"),
            (&["", "foo=1", " ", "bar=2"], "foo=1,bar=2"),
            (&["", "foo=1 , "], "foo=1 , "),
        ] {
            assert_eq!(joined(values).as_deref(), Some(expected), "{values:?}");
        }
        let one: &[u8] = b"foo=1";
        assert!(matches!(join([b"", one].into_iter()), Some(Cow::Borrowed(same)) if same == one));
    }

    #[test]
    fn malformed_lists_are_refused() {
        for values in [
            &[][..],
            &[""],
            &["", " \t "],
            &[","],
            &[" , ,"],
            &["foo"],
            &["foo="],
            &["=1"],
            &["foo=,bar=3"],
            &["foo=bar=baz"],
            &["foo =1"],
            &["FOO=1"],
            &["foo.bar=1"],
            &["_foo=1"],
            &["foo@=1,bar=2"],
            &["@foo=1,bar=2"],
            &["foo@@bar=1,bar=2"],
            &["foo@bar@baz=1,bar=2"],
            &["foo=1", "bar"],
            &["foo=gr\u{fc}n"],
            &["foo=a\tb"],
        ] {
            assert_eq!(joined(values), None, "{values:?} went on");
        }
    }

    #[test]
    fn every_length_may_be_reached_and_none_exceeded() {
        let key = |length| format!("{}=1", "k".repeat(length));
        let value = |length| format!("k={}", "v".repeat(length));
        let tenant = |tenant, system| format!("{}@{}=1", "1".repeat(tenant), "s".repeat(system));
        for (fits, too_long) in [
            (key(256), key(257)),
            (value(256), value(257)),
            (tenant(241, 14), tenant(242, 14)),
            (tenant(241, 14), tenant(241, 15)),
        ] {
            assert_eq!(joined(&[&fits]).as_deref(), Some(fits.as_str()));
            assert_eq!(joined(&[&too_long]), None);
        }
        let members = |count| {
            let members: Vec<_> = (0..count).map(|number| format!("k{number}={number}")).collect();
            members.join(",")
        };
        assert_eq!(joined(&[&members(32)]), Some(members(32)));
        assert_eq!(joined(&[&members(33)]), None);
        assert_eq!(joined(&[&members(16), &members(17)]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_values_never_panic(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..4)) {
            join(values.iter().map(Vec::as_slice));
        }

        #[test]
        fn what_was_joined_is_passed_on_as_it_is(
            values in proptest::collection::vec("([a-z][a-z0-9_*/-]{0,5}(@[a-z]{1,3})?=[!-+.-<>-~]{1,5}[ \t]{0,2},?){0,5}", 0..4)
        ) {
            if let Some(list) = join(values.iter().map(String::as_bytes)) {
                prop_assert_eq!(join([list.as_ref()].into_iter()), Some(list.clone()));
                let members = |text: &[u8]| text.split(|byte| *byte == b',').map(|member| trim(member).to_vec())
                    .filter(|member| !member.is_empty()).collect::<Vec<_>>();
                let came: Vec<_> = values.iter().flat_map(|value| members(value.as_bytes())).collect();
                prop_assert_eq!(members(&list), came);
            }
        }
    }
}
