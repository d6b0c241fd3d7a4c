//! How the stream is created, and what an existing one has otherwise.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType as Storage};

use super::settings::{NatsSettings, StorageType};
use super::subject::covers;
use crate::settings::{ByteSize, duration};

/// Within this window the server stores a frame that is sent twice only once.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(600);

/// The stream as it is created.
pub(super) fn config(settings: &NatsSettings, size: ByteSize) -> Config {
    Config {
        name: settings.stream.clone(),
        subjects: vec![settings.subject.clone()],
        description: Some("HTTP exchanges recorded by sidelog".to_owned()),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        storage: storage(settings.storage),
        max_age: settings.max_age,
        max_bytes: i64::try_from(size.bytes()).unwrap_or(i64::MAX),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: -1,
        num_replicas: settings.stream_replicas,
        duplicate_window: duplicate_window(settings),
        ..Config::default()
    }
}

fn storage(storage: StorageType) -> Storage {
    match storage {
        StorageType::File => Storage::File,
        StorageType::Memory => Storage::Memory,
    }
}

/// The server refuses a window that is longer than messages live.
fn duplicate_window(settings: &NatsSettings) -> Duration {
    if settings.max_age.is_zero() {
        DUPLICATE_WINDOW
    } else {
        DUPLICATE_WINDOW.min(settings.max_age)
    }
}

/// What the operator made otherwise than the settings say, each as a phrase.
pub(super) fn differences(actual: &Config, settings: &NatsSettings) -> Vec<String> {
    let wanted = config(settings, settings.stream_max_bytes);
    let mut found = Vec::new();
    let mut differ = |what: &str, is: String, expected: String| {
        if is != expected {
            found.push(format!("{what} is {is}, not {expected}"));
        }
    };
    differ(
        "storage",
        format!("{:?}", actual.storage),
        format!("{:?}", wanted.storage),
    );
    differ(
        "retention",
        format!("{:?}", actual.retention),
        format!("{:?}", wanted.retention),
    );
    differ(
        "discard",
        format!("{:?}", actual.discard),
        format!("{:?}", wanted.discard),
    );
    differ(
        "max_age",
        duration::format(actual.max_age),
        duration::format(wanted.max_age),
    );
    differ("max_bytes", bytes(actual.max_bytes), bytes(wanted.max_bytes));
    differ(
        "duplicate_window",
        duration::format(actual.duplicate_window),
        duration::format(wanted.duplicate_window),
    );
    if actual.num_replicas < wanted.num_replicas {
        found.push(format!(
            "num_replicas is {}, not {}",
            actual.num_replicas, wanted.num_replicas
        ));
    }
    if !actual.subjects.iter().any(|filter| covers(filter, &settings.subject)) {
        found.push(format!(
            "subjects are {:?}, without {:?}",
            actual.subjects, settings.subject
        ));
    }
    found
}

fn bytes(limit: i64) -> String {
    match u64::try_from(limit) {
        Ok(limit) if limit > 0 => ByteSize::new(limit).to_string(),
        _ => "unlimited".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_as_we_would_create_it_has_no_differences() {
        let settings = NatsSettings::default();
        assert_eq!(
            differences(&config(&settings, settings.stream_max_bytes), &settings),
            Vec::<String>::new()
        );
    }

    #[test]
    fn every_difference_is_named_with_both_values() {
        let settings = NatsSettings {
            stream_replicas: 3,
            ..NatsSettings::default()
        };
        let actual = Config {
            num_replicas: 1,
            storage: Storage::Memory,
            discard: DiscardPolicy::New,
            max_age: Duration::from_secs(3600),
            max_bytes: -1,
            duplicate_window: Duration::from_secs(120),
            subjects: vec!["other.>".to_owned()],
            ..config(&settings, settings.stream_max_bytes)
        };
        let told = differences(&actual, &settings).join("; ");
        for part in [
            "storage is Memory, not File",
            "discard is New, not Old",
            "max_age is 1h, not 7d",
            "max_bytes is unlimited, not 4GiB",
            "duplicate_window is 2m, not 10m",
            "num_replicas is 1, not 3",
            "subjects are [\"other.>\"], without \"logs.>\"",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn more_replicas_than_are_asked_for_are_no_difference() {
        let settings = NatsSettings::default();
        let actual = Config {
            num_replicas: 3,
            ..config(&settings, settings.stream_max_bytes)
        };
        assert_eq!(differences(&actual, &settings), Vec::<String>::new());
    }

    #[test]
    fn the_duplicate_window_is_never_longer_than_messages_live() {
        let with_age = |max_age| NatsSettings {
            max_age,
            ..NatsSettings::default()
        };
        assert_eq!(duplicate_window(&with_age(Duration::ZERO)), DUPLICATE_WINDOW);
        assert_eq!(
            duplicate_window(&with_age(Duration::from_secs(60))),
            Duration::from_secs(60)
        );
        assert_eq!(
            duplicate_window(&with_age(Duration::from_secs(86_400))),
            DUPLICATE_WINDOW
        );
    }
}
