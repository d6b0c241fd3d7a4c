//! The rules of Loki by which it refuses single entries, with the texts it gives.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;

use super::Entry;

/// Loki's `limits_config`, as far as single entries are refused by it. The default is Loki's.
#[derive(Debug, Clone)]
pub struct LokiLimits {
    /// `max_line_size`: bytes of a line.
    pub max_line_size: usize,
    /// `reject_old_samples_max_age`.
    pub max_age: Duration,
    /// `creation_grace_period`: how far in the future.
    pub grace: Duration,
    /// Half of `max_chunk_age`: how far behind the newest entry of its stream.
    pub out_of_order: Duration,
    newest: HashMap<String, u64>,
}

impl Default for LokiLimits {
    fn default() -> Self {
        Self {
            max_line_size: 256 * 1024,
            max_age: Duration::from_secs(168 * 3600),
            grace: Duration::from_secs(600),
            out_of_order: Duration::from_secs(3600),
            newest: HashMap::new(),
        }
    }
}

impl LokiLimits {
    /// Why a distributor refuses the entry, in Loki's words.
    pub(super) fn invalid(&self, entry: &Entry) -> Option<String> {
        let Entry {
            labels,
            timestamp,
            line,
            ..
        } = entry;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = Duration::from_nanos(*timestamp);
        if time + self.max_age < now {
            return Some(format!(
                "entry for stream '{labels}' has timestamp too old: {}, oldest acceptable timestamp is: {}",
                rfc3339(time),
                rfc3339(now - self.max_age)
            ));
        }
        if time > now + self.grace {
            return Some(format!(
                "entry for stream '{labels}' has timestamp too new: {}",
                rfc3339(time)
            ));
        }
        (line.len() > self.max_line_size).then(|| {
            format!(
                "max entry size '{}' bytes exceeded for stream '{labels}' while adding an entry with length '{}' bytes",
                self.max_line_size,
                line.len()
            )
        })
    }

    /// Why an ingester refuses the entry, in Loki's words; if it doesn't, the entry counts for its stream's order.
    pub(super) fn too_far_behind(&mut self, entry: &Entry) -> Option<String> {
        let newest = self.newest.entry(entry.labels.clone()).or_default();
        let oldest = Duration::from_nanos(*newest).saturating_sub(self.out_of_order);
        let time = Duration::from_nanos(entry.timestamp);
        if time < oldest {
            return Some(format!(
                "entry too far behind, entry timestamp is: {}, oldest acceptable timestamp is: {}",
                rfc3339(time),
                rfc3339(oldest)
            ));
        }
        *newest = (*newest).max(entry.timestamp);
        None
    }
}

/// How an ingester tells of the entries of a stream that it did not take: each with its reason.
pub(super) fn ignored(failed: &[(&Entry, String)], total: usize) -> String {
    let mut text = String::new();
    for (entry, reason) in failed.iter().take(10) {
        let time = timestamp(Duration::from_nanos(entry.timestamp));
        let time = time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC");
        text += &format!("entry with timestamp {time} ignored, reason: '{reason}',\n");
    }
    let stream = failed.first().map_or("", |(entry, _)| &entry.labels);
    text + &format!(
        "user 'fake', total ignored: {} out of {total} for stream: {stream}",
        failed.len()
    )
}

/// What an ingester says of each entry of a stream that gets more than its rate.
pub(super) fn rate_limited(entry: &Entry) -> String {
    format!(
        "Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest for stream '{}' totaling {}B, consider splitting a \
         stream via additional labels or contact your Loki administrator to see if the limit can be increased",
        entry.labels,
        entry.line.len()
    )
}

fn timestamp(time: Duration) -> Timestamp {
    let nanoseconds = i128::try_from(time.as_nanos()).expect("a time before 2262");
    Timestamp::from_nanosecond(nanoseconds).expect("a time before 2262")
}

/// Whole seconds, rounded down, as Go's `time.RFC3339` has it.
fn rfc3339(time: Duration) -> String {
    timestamp(time).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(age: Duration) -> Entry {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - age;
        Entry {
            labels: "{service=\"api\"}".to_owned(),
            timestamp: u64::try_from(time.as_nanos()).unwrap(),
            line: "x".into(),
            metadata: Vec::new(),
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn entries_are_refused_for_their_age_and_their_place_in_the_stream() {
        let mut limits = LokiLimits::default();
        let invalid = |age, text: &str| limits.invalid(&entry(age)).unwrap().contains(text);
        assert!(invalid(200 * HOUR, "timestamp too old"));
        let mut behind = |age| limits.too_far_behind(&entry(age));
        assert_eq!(behind(100 * HOUR), None, "the first of its stream");
        assert_eq!(behind(Duration::ZERO), None);
        assert_eq!(behind(HOUR / 2), None);
        assert!(behind(2 * HOUR).unwrap().contains("entry too far behind"));
    }

    #[test]
    fn what_an_ingester_ignored_is_told_as_loki_does() {
        let entry = Entry {
            timestamp: 1_769_862_896_123_456_789,
            ..entry(HOUR)
        };
        let told = ignored(&[(&entry, "why".to_owned())], 2);
        assert_eq!(
            told,
            "entry with timestamp 2026-01-31 12:34:56.123456789 +0000 UTC ignored, reason: 'why',\nuser 'fake', total ignored: 1 out of \
             2 for stream: {service=\"api\"}"
        );
        assert_eq!(rfc3339(Duration::from_nanos(entry.timestamp)), "2026-01-31T12:34:56Z");
    }

    #[test]
    fn a_line_that_is_too_long_is_refused() {
        let mut long = entry(Duration::ZERO);
        long.line = vec![b'x'; 256 * 1024 + 1].into();
        assert!(
            LokiLimits::default()
                .invalid(&long)
                .unwrap()
                .contains("max entry size '262144' bytes exceeded")
        );
    }
}
