//! Names of streams and subjects.
//!
//! Source: NATS docs, "Subject-Based Messaging" (tokens, wildcards) and ADR-6 (naming rules).

/// A subject or a stream's name that NATS would refuse. Says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSubject(String);

/// The longest subject; far below what a NATS server takes in a line.
const MAX_LENGTH: usize = 255;

/// The subject of a service's records: `pattern` with its wildcard replaced by the service, or as it is without one.
///
/// Whatever in the service's name is not `A-Z a-z 0-9 _ -` becomes `_`; an empty name becomes `_`.
#[must_use]
pub fn subject_for(pattern: &str, service: &str) -> String {
    let tokens = pattern.split('.').map(|token| match token {
        "*" | ">" => token_of(service),
        _ => token.to_owned(),
    });
    tokens.collect::<Vec<_>>().join(".")
}

fn token_of(service: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
            c
        } else {
            '_'
        }
    };
    let token: String = service.chars().map(safe).collect();
    if token.is_empty() { "_".to_owned() } else { token }
}

/// Checks a stream's subject: tokens joined by dots, at most one wildcard.
///
/// # Errors
///
/// It isn't one.
pub fn check_subject(subject: &str) -> Result<(), InvalidSubject> {
    let refuse = |why: &str| {
        let advice = "write tokens joined by dots, with one wildcard for the service, such as \"logs.>\"";
        Err(InvalidSubject(format!(
            "{subject:?} is not a subject ({why}); {advice}"
        )))
    };
    if subject.len() > MAX_LENGTH {
        return refuse("more than 255 bytes");
    }
    let tokens: Vec<_> = subject.split('.').collect();
    if tokens.iter().any(|token| token.is_empty()) {
        return refuse("an empty token");
    }
    if subject.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return refuse("a blank");
    }
    if subject.starts_with('$') {
        return refuse("subjects that begin with $ belong to the server");
    }
    let wildcards = tokens.iter().filter(|token| token.contains(['*', '>']));
    if wildcards.clone().any(|token| token.len() > 1) {
        return refuse("a wildcard is a whole token");
    }
    if wildcards.count() > 1 {
        return refuse("more than one wildcard");
    }
    match tokens.iter().position(|token| *token == ">") {
        Some(at) if at + 1 < tokens.len() => refuse("> stands at the end"),
        Some(0) => refuse("> alone takes everything, also what the server needs"),
        _ => Ok(()),
    }
}

/// Checks a stream's name: ADR-6 forbids blanks, dots, wildcards and slashes.
///
/// # Errors
///
/// It isn't one.
pub fn check_stream_name(name: &str) -> Result<(), InvalidSubject> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\');
    if name.is_empty() || name.len() > MAX_LENGTH || name.contains(bad) {
        return Err(InvalidSubject(format!(
            "{name:?} is not a stream's name; write letters, digits, - and _, such as \"logs\""
        )));
    }
    Ok(())
}

/// Whether everything that `subject` can match is taken by the `filter` of a stream or a durable.
#[must_use]
pub fn covers(filter: &str, subject: &str) -> bool {
    let mut wanted = subject.split('.');
    for token in filter.split('.') {
        match (token, wanted.next()) {
            (">", Some(_)) => return true,
            ("*", Some(given)) if given != ">" => {}
            (token, Some(given)) if token == given => {}
            _ => return false,
        }
    }
    wanted.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wildcard_becomes_the_service() {
        for (pattern, service, subject) in [
            ("logs.>", "api-service", "logs.api-service"),
            ("logs.*", "api_service", "logs.api_service"),
            ("prod.*.logs", "api", "prod.api.logs"),
            ("logs", "api", "logs"),
            ("logs.>", "my service.v2/ä", "logs.my_service_v2__"),
            ("logs.>", "", "logs._"),
        ] {
            assert_eq!(subject_for(pattern, service), subject);
        }
    }

    #[test]
    fn subjects_that_nats_would_refuse_are_refused_with_the_reason() {
        for good in ["logs", "logs.>", "logs.*", "a.*.b", "a-b_c.d"] {
            assert_eq!(check_subject(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", "an empty token"),
            ("logs.", "an empty token"),
            ("logs..a", "an empty token"),
            ("logs. a", "a blank"),
            ("logs.>.a", "> stands at the end"),
            (">", "takes everything"),
            ("logs.a*", "a whole token"),
            ("logs.*.>", "more than one wildcard"),
            ("$JS.logs", "belong to the server"),
        ] {
            let error = check_subject(bad).expect_err(bad).to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn stream_names_have_no_dots_blanks_or_wildcards() {
        assert_eq!(check_stream_name("logs-prod_1"), Ok(()));
        for bad in ["", "a.b", "a b", "a*", "a>", "a/b", "a\\b"] {
            assert!(check_stream_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_filter_covers_what_it_takes_whole() {
        for (filter, subject, covered) in [
            ("logs.>", "logs.>", true),
            (">", "logs.>", true),
            ("logs.*", "logs.*", true),
            ("logs.>", "logs.*", true),
            ("logs.*", "logs.>", false),
            ("logs.a", "logs.>", false),
            ("logs", "logs.>", false),
            ("logs.>", "logs", false),
            ("*.>", "logs.a", true),
        ] {
            assert_eq!(covers(filter, subject), covered, "{filter} {subject}");
        }
    }
}
