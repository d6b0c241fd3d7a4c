//! What is recorded of the exchanges of a route.

use std::sync::Arc;
use std::time::Duration;

use sidelog_record::End;

use crate::settings::{Capture, KeepBodies};
use crate::shipping::redact::Rules;

/// What is recorded of an exchange.
#[derive(Debug)]
pub struct Policy {
    capture: Capture,
    types: Vec<TypePattern>,
    redaction: Option<Arc<Rules>>,
}

impl Policy {
    pub(super) fn new(capture: Capture, redaction: Option<Arc<Rules>>) -> Self {
        let types = capture
            .content_types
            .iter()
            .map(|pattern| TypePattern::new(pattern))
            .collect();
        Self {
            capture,
            types,
            redaction,
        }
    }

    /// What the configuration says for it.
    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// Whether a record is made at all.
    pub fn record(&self) -> bool {
        self.capture.enabled
    }

    /// Whether the request's header fields are recorded.
    pub fn request_headers(&self) -> bool {
        self.capture.request_headers
    }

    /// Whether the answer's header fields are recorded.
    pub fn response_headers(&self) -> bool {
        self.capture.response_headers
    }

    /// Whether the request's body is recorded.
    pub fn request_body(&self) -> bool {
        self.capture.request_body
    }

    /// Whether the answer's body is recorded.
    pub fn response_body(&self) -> bool {
        self.capture.response_body
    }

    /// Whether there is a record of an exchange that ended so. The same trace gets the same answer everywhere.
    pub fn records(&self, trace_id: [u8; 16], end: End, status: Option<u16>) -> bool {
        let share = self.capture.sample;
        self.capture.enabled && (share >= 1.0 || end.failed(status) || place(trace_id) < share)
    }

    /// Whether the bodies of an exchange that ended so are kept.
    pub fn keeps_bodies(&self, end: End, status: Option<u16>, took: Duration) -> bool {
        match self.capture.keep_bodies {
            KeepBodies::Always => true,
            KeepBodies::Failed => end.failed(status),
            KeepBodies::FailedOrSlow => end.failed(status) || took > self.capture.slow,
            KeepBodies::Never => false,
        }
    }

    /// Whether no body is ever kept, so that none needs to be copied.
    pub fn keeps_no_bodies(&self) -> bool {
        self.capture.keep_bodies == KeepBodies::Never
    }

    /// The rules by which secrets are taken out, beside the built-in ones; `None` where nothing is.
    pub fn redaction(&self) -> Option<&Rules> {
        self.redaction.as_deref()
    }

    /// Bytes of a body that are recorded at most.
    pub fn body_max(&self) -> usize {
        self.capture.body_max.as_usize()
    }

    /// Whether bodies of this `Content-Type` are recorded; its parameters don't matter.
    pub fn records_type(&self, content_type: &[u8]) -> bool {
        let essence = content_type
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        self.types.iter().any(|pattern| pattern.fits(essence))
    }
}

/// Where a trace stands among all, from 0 to 1. Its id is mixed: not every program makes random ones.
fn place(trace_id: [u8; 16]) -> f64 {
    let id = u128::from_be_bytes(trace_id);
    let mut mixed = (id >> 64) as u64 ^ (id as u64).rotate_left(32);
    // The finaliser of SplitMix64.
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

/// A content type with at most one `*`: `application/*+json`.
#[derive(Debug)]
struct TypePattern {
    before: Vec<u8>,
    after: Option<Vec<u8>>,
}

impl TypePattern {
    fn new(pattern: &str) -> Self {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.split_once('*') {
            Some((before, after)) => Self {
                before: before.into(),
                after: Some(after.into()),
            },
            None => Self {
                before: pattern.into(),
                after: None,
            },
        }
    }

    fn fits(&self, essence: &[u8]) -> bool {
        let Some(after) = &self.after else {
            return essence.eq_ignore_ascii_case(&self.before);
        };
        essence.split_at_checked(self.before.len()).is_some_and(|(head, rest)| {
            let tail = rest.len().checked_sub(after.len()).and_then(|at| rest.get(at..));
            head.eq_ignore_ascii_case(&self.before) && tail.is_some_and(|tail| tail.eq_ignore_ascii_case(after))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_match_by_essence_in_any_case() {
        let policy = Policy::new(Capture::default(), None);
        for recorded in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/problem+json",
            "text/plain ;x",
        ] {
            assert!(policy.records_type(recorded.as_bytes()), "{recorded}");
        }
        for not_recorded in [
            "",
            "image/png",
            "application/jsonx",
            "application/octet-stream",
            "+json",
        ] {
            assert!(!policy.records_type(not_recorded.as_bytes()), "{not_recorded}");
        }
    }

    #[test]
    fn a_share_of_traces_is_recorded_and_all_that_failed() {
        let sample = 0.25;
        let policy = Policy::new(
            Capture {
                sample,
                ..Capture::default()
            },
            None,
        );
        let recorded = |id: u32| policy.records(u128::from(id).to_be_bytes(), End::Complete, Some(200));
        let count = (0..10_000).filter(|id| recorded(*id)).count();
        assert!((2_300..2_700).contains(&count), "{count}");
        assert!((0..100_u128).all(|id| policy.records(id.to_be_bytes(), End::Complete, Some(500))));
        assert!((0..100_u128).all(|id| policy.records(id.to_be_bytes(), End::ClientGone, None)));
    }

    #[test]
    fn bodies_are_kept_by_how_the_exchange_ended() {
        let kept = |keep_bodies, status, millis| {
            let policy = Policy::new(
                Capture {
                    keep_bodies,
                    ..Capture::default()
                },
                None,
            );
            policy.keeps_bodies(End::Complete, Some(status), Duration::from_millis(millis))
        };
        for (keep, good, failed, slow) in [
            (KeepBodies::Always, true, true, true),
            (KeepBodies::Failed, false, true, false),
            (KeepBodies::FailedOrSlow, false, true, true),
            (KeepBodies::Never, false, false, false),
        ] {
            assert_eq!(kept(keep, 404, 1_000), good, "{keep:?}");
            assert_eq!(kept(keep, 503, 0), failed, "{keep:?}");
            assert_eq!(kept(keep, 200, 1_001), slow, "{keep:?}");
        }
    }
}
