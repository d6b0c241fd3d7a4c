//! Header fields as a JSON object: each name once, at its first place, repeated values joined by `", "`.

use std::borrow::Cow;

use crate::json;

/// A header field: name and value.
pub(crate) type Field<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Up to this many fields are compared pair by pair; more are sorted.
const FEW: usize = 32;

/// Appends the fields as a JSON object of strings.
pub(crate) fn write(fields: &[Field<'_>], out: &mut Vec<u8>) {
    let repeats = Repeats::among(fields);
    out.push(b'{');
    let mut separator: &[u8] = b"";
    for (at, (name, value)) in fields.iter().enumerate() {
        if repeats.is_repeat(at) {
            continue;
        }
        out.extend_from_slice(separator);
        separator = b",";
        json::string(name, out);
        out.push(b':');
        json::string(value, out);
        let mut next = repeats.after(at);
        while let Some((at, (_, value))) = next.and_then(|at| Some((at, fields.get(at)?))) {
            json::extend(", ", out);
            json::extend(value, out);
            next = repeats.after(at);
        }
    }
    out.push(b'}');
}

/// At most how many bytes a field adds to the object: `"name":"value",`.
pub(crate) fn encoded_len((name, value): &Field<'_>) -> usize {
    json::escaped_len(name) + json::escaped_len(value) + r#""":"","#.len()
}

/// Which fields have a name that came before, and where it comes next. Empty, and not allocated, when none has.
struct Repeats {
    is_repeat: Vec<bool>,
    next: Vec<Option<usize>>,
}

impl Repeats {
    fn among(fields: &[Field<'_>]) -> Self {
        let mut repeats = Self {
            is_repeat: Vec::new(),
            next: Vec::new(),
        };
        if fields.len() <= FEW && !has_equal_pair(fields) {
            return repeats;
        }
        let mut by_name: Vec<usize> = (0..fields.len()).collect();
        by_name.sort_by_key(|at| fields.get(*at).map(|field| &field.0)); // stable: equal names stay in order
        repeats.is_repeat.resize(fields.len(), false);
        repeats.next.resize(fields.len(), None);
        for pair in by_name.windows(2) {
            let [earlier, later] = *pair else { continue };
            if fields[earlier].0 == fields[later].0 {
                repeats.next[earlier] = Some(later);
                repeats.is_repeat[later] = true;
            }
        }
        repeats
    }

    fn is_repeat(&self, at: usize) -> bool {
        self.is_repeat.get(at).copied().unwrap_or(false)
    }

    fn after(&self, at: usize) -> Option<usize> {
        self.next.get(at).copied().flatten()
    }
}

fn has_equal_pair(fields: &[Field<'_>]) -> bool {
    fields
        .iter()
        .enumerate()
        .any(|(at, (name, _))| fields.iter().skip(at + 1).any(|(later, _)| later == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(fields: &[(&str, &str)]) -> String {
        let fields: Vec<Field<'_>> = fields
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        let mut out = Vec::new();
        write(&fields, &mut out);
        assert!(out.len() <= 2 + fields.iter().map(encoded_len).sum::<usize>());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_repeated_field_is_joined_at_its_first_place() {
        assert_eq!(
            object(&[("via", "a"), ("accept", "x"), ("via", ""), ("via", "\"c\"")]),
            r#"{"via":"a, , \"c\"","accept":"x"}"#
        );
    }

    #[test]
    fn many_fields_are_joined_as_few_are() {
        let names: Vec<String> = (0..FEW).map(|at| format!("x-{at}")).collect();
        let mut fields: Vec<(&str, &str)> = vec![("via", "a")];
        fields.extend(names.iter().map(|name| (name.as_str(), "1")));
        fields.push(("via", "b"));
        let object = object(&fields);
        assert!(object.starts_with(r#"{"via":"a, b","x-0":"1","x-1":"1","#), "{object}");
        assert_eq!(object.matches("via").count(), 1);
    }

    #[test]
    fn no_fields_are_an_empty_object() {
        assert_eq!(object(&[]), "{}");
    }
}
