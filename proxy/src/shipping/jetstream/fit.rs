//! What server and stream announce, held against the settings: each misfit is one sentence that names both sides.
//!
//! Nothing is refused: a server can be changed while we run, and what doesn't fit costs a piece more or a record, not the rest.

use std::time::Duration;

use sidelog_chassis::settings::{ByteSize, duration};
use sidelog_record::MAX_ENCODED;

use crate::settings::Settings;

/// What a record has beside its bodies, where there is much of it.
const BESIDE_BODIES: u64 = 16 * 1024;

/// The settings that a server may not fit.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    frame_max: ByteSize,
    /// Of the route that records most.
    body_max: ByteSize,
    ack_timeout: Duration,
    spool_max: ByteSize,
}

/// What is known of server and stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The server's `max_payload`.
    pub max_payload: u64,
    /// The stream's `max_msg_size`, if it has one.
    pub max_msg_size: Option<u64>,
    /// The stream's `duplicate_window`, where we may look at the stream.
    pub duplicate_window: Option<Duration>,
    /// The stream's `max_bytes`, if it has one.
    pub max_bytes: Option<u64>,
}

impl Wanted {
    /// What of the settings matters here.
    pub fn of(settings: &Settings) -> Self {
        let routes = settings.routes.iter().filter_map(|route| route.capture.body_max);
        Self {
            frame_max: settings.frame.max_bytes,
            body_max: routes.fold(settings.capture.body_max, ByteSize::max),
            ack_timeout: settings.publish.ack_timeout,
            spool_max: settings.spool.max_bytes,
        }
    }

    /// Both bodies and the rest, as far as a record goes.
    fn record_max(&self) -> u64 {
        let bodies = self.body_max.bytes().saturating_mul(2);
        bodies.saturating_add(BESIDE_BODIES).min(MAX_ENCODED as u64)
    }

    /// Everything that doesn't fit together.
    pub fn misfits(&self, announced: &Announced) -> Vec<String> {
        let of_server = Some(("the server's max_payload", announced.max_payload));
        let of_stream = announced.max_msg_size.map(|size| ("the stream's max_msg_size", size));
        let mut found = Vec::new();
        for (name, limit) in of_server.into_iter().chain(of_stream) {
            let size = ByteSize::new(limit);
            if limit < self.record_max() {
                found.push(format!(
                    "{name} ({size}) is less than a record with two bodies of capture.body_max ({}) may have; raise the former or lower the \
                     latter, or records that are larger are dropped",
                    self.body_max
                ));
            }
            if limit < self.frame_max.bytes() {
                found.push(format!(
                    "{name} ({size}) is less than frame.max_bytes ({}); raise the former, or frames are made smaller",
                    self.frame_max
                ));
            }
        }
        if let Some(max_bytes) = announced.max_bytes.filter(|bytes| *bytes < self.spool_max.bytes()) {
            found.push(format!(
                "the stream's max_bytes ({}) is less than spool.max_bytes ({}); raise the former, or what comes from a full spool pushes \
                 out older records",
                ByteSize::new(max_bytes),
                self.spool_max
            ));
        }
        if let Some(window) = announced.duplicate_window.filter(|window| *window <= self.ack_timeout) {
            found.push(format!(
                "the stream's duplicate_window ({}) is not longer than publish.ack_timeout ({}); raise the former, or what is sent \
                 again is stored twice",
                duration::format(window),
                duration::format(self.ack_timeout)
            ));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Announced = Announced {
        max_payload: 1024 * 1024,
        max_msg_size: None,
        duplicate_window: Some(Duration::from_secs(600)),
        max_bytes: Some(4 * 1024 * 1024 * 1024),
    };

    #[test]
    fn the_defaults_fit_a_server_as_it_comes() {
        let wanted = Wanted::of(&Settings::default());
        assert_eq!(wanted.misfits(&USUAL), Vec::<String>::new());
    }

    #[test]
    fn each_misfit_is_a_sentence_that_names_both_sides() {
        let wanted = Wanted::of(&Settings::default());
        let payload = |kib: u64| Announced {
            max_payload: kib * 1024,
            ..USUAL
        };
        let stream = Announced {
            max_msg_size: Some(200 * 1024),
            ..USUAL
        };
        let tiny = Announced {
            max_bytes: Some(64 * 1024 * 1024),
            ..USUAL
        };
        let short = Announced {
            duplicate_window: Some(Duration::from_secs(5)),
            ..USUAL
        };
        for (announced, sides) in [
            (payload(200), ["max_payload (200KiB)", "frame.max_bytes (256KiB)"]),
            (payload(100), ["max_payload (100KiB)", "capture.body_max (64KiB)"]),
            (stream, ["max_msg_size (200KiB)", "frame.max_bytes (256KiB)"]),
            (short, ["duplicate_window (5s)", "publish.ack_timeout (5s)"]),
            (tiny, ["max_bytes (64MiB)", "spool.max_bytes (256MiB)"]),
        ] {
            let found = wanted.misfits(&announced);
            let named = found
                .iter()
                .filter(|misfit| sides.iter().all(|side| misfit.contains(side)));
            assert_eq!(named.count(), 1, "{sides:?}: {found:?}");
        }
    }

    #[test]
    fn the_route_that_records_most_counts() {
        let mut settings = Settings::default();
        settings.capture.body_max = ByteSize::kib(1);
        assert!(
            Wanted::of(&settings)
                .misfits(&Announced {
                    max_payload: 300 * 1024,
                    ..USUAL
                })
                .is_empty()
        );
        let text = "capture.body_max = \"1KiB\"\n[[routes]]\npath = \"/a\"\ncapture.body_max = \"240KiB\"\n";
        let settings: Settings = toml::from_str(text).unwrap();
        let found = Wanted::of(&settings).misfits(&Announced {
            max_payload: 200 * 1024,
            ..USUAL
        });
        assert!(
            found.iter().any(|misfit| misfit.contains("capture.body_max (240KiB)")),
            "{found:?}"
        );
    }
}
