//! The rules of Loki by which it refuses single entries, with the texts it gives.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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
    /// Why the entry is refused, in Loki's words; if it isn't, it counts for its stream's order.
    pub(super) fn refusal(&mut self, entry: &Entry) -> Option<String> {
        let Entry {
            labels,
            timestamp,
            line,
            ..
        } = entry;
        if line.len() > self.max_line_size {
            return Some(format!(
                "Max entry size '{}' bytes exceeded for stream '{labels}' while adding an entry with length '{}' bytes\n",
                self.max_line_size,
                line.len()
            ));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = Duration::from_nanos(*timestamp);
        if time + self.max_age < now {
            return Some(format!(
                "entry for stream '{labels}' has timestamp too old: {timestamp}, oldest acceptable timestamp is: {}\n",
                (now - self.max_age).as_nanos()
            ));
        }
        if time > now + self.grace {
            return Some(format!(
                "entry for stream '{labels}' has timestamp too new: {timestamp}\n"
            ));
        }
        let newest = self.newest.entry(labels.clone()).or_default();
        let oldest = Duration::from_nanos(*newest).saturating_sub(self.out_of_order);
        if time < oldest {
            return Some(format!(
                "entry with timestamp {timestamp} ignored, reason: 'entry too far behind, entry timestamp is: {timestamp}, oldest acceptable timestamp is: {}',\nuser 'fake', total ignored: 1 out of 1 for stream: {labels}\n",
                oldest.as_nanos()
            ));
        }
        *newest = (*newest).max(*timestamp);
        None
    }
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
        assert!(
            limits
                .refusal(&entry(200 * HOUR))
                .unwrap()
                .contains("timestamp too old")
        );
        assert_eq!(limits.refusal(&entry(100 * HOUR)), None, "the first of its stream");
        assert_eq!(limits.refusal(&entry(Duration::ZERO)), None);
        assert_eq!(limits.refusal(&entry(HOUR / 2)), None);
        assert!(
            limits
                .refusal(&entry(2 * HOUR))
                .unwrap()
                .contains("entry too far behind")
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_refused() {
        let mut long = entry(Duration::ZERO);
        long.line = vec![b'x'; 256 * 1024 + 1].into();
        assert!(
            LokiLimits::default()
                .refusal(&long)
                .unwrap()
                .contains("Max entry size '262144' bytes exceeded")
        );
    }
}
