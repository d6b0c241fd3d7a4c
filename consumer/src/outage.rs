//! What stands in the way of one thing, told once per change and not once per attempt.
//!
//! Invariants: the first report of a kind is logged, the same kind again only every [`REMIND`], and the end of an
//! outage only if its beginning was logged. A store that answers now this and now that can't fill the log: the same
//! kind is told at most every [`QUIET`]. What is in the way now is told by [`Holds`] as it is, to whoever asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// An outage that lasts is told again after this long.
const REMIND: Duration = Duration::from_secs(300);

/// A kind that comes back sooner than this after it was last told is not told again.
const QUIET: Duration = Duration::from_secs(30);

/// One thing that can be in the way: the store, the dead letters, the source.
#[derive(Debug)]
pub(crate) struct Outage {
    /// Names the thing, as a log field.
    part: &'static str,
    state: Arc<Mutex<State>>,
}

/// Every outage there may be, for the metrics and for people.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holds(Arc<Mutex<Vec<Part>>>);

/// The name of a part, and what is in its way.
type Part = (&'static str, Arc<Mutex<State>>);

/// What is in the way of one part now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InTheWay {
    pub(crate) kind: &'static str,
    pub(crate) since: Instant,
}

impl Holds {
    /// Each part, and what is in its way.
    pub(crate) fn now(&self) -> Vec<(&'static str, Option<InTheWay>)> {
        let parts = self.0.lock();
        let now = |state: &Mutex<State>| {
            let state = state.lock();
            state
                .now
                .as_ref()
                .map(|Now { kind, since, .. }| InTheWay { kind, since: *since })
        };
        parts.iter().map(|(part, state)| (*part, now(state))).collect()
    }
}

#[derive(Debug, Default)]
struct State {
    now: Option<Now>,
    told: Option<(&'static str, Instant)>,
}

#[derive(Debug)]
struct Now {
    kind: &'static str,
    since: Instant,
    logged: bool,
}

impl Outage {
    /// `holds` tells of it from now on.
    pub(crate) fn new(part: &'static str, holds: &Holds) -> Self {
        let state = Arc::default();
        holds.0.lock().push((part, Arc::clone(&state)));
        Self { part, state }
    }

    /// Something of this `kind` is in the way; `advice` says what, and what to do about it.
    pub(crate) fn report(&self, kind: &'static str, advice: impl FnOnce() -> String) {
        if let Some(lasting) = self.begin(kind, Instant::now()) {
            tracing::warn!(part = self.part, kind, lasting_s = lasting.as_secs(), "{}", advice());
        }
    }

    /// Nothing is in the way any more.
    pub(crate) fn over(&self) {
        if let Some(lasted) = self.end(Instant::now()) {
            tracing::info!(part = self.part, lasted_s = lasted.as_secs(), "works again");
        }
    }

    /// How long the outage lasts already, when it is to be told at `now`.
    fn begin(&self, kind: &'static str, now: Instant) -> Option<Duration> {
        let mut state = self.state.lock();
        let same = state.now.as_ref().is_some_and(|outage| outage.kind == kind);
        let quiet = if same { REMIND } else { QUIET };
        let tell = state
            .told
            .is_none_or(|(told, at)| told != kind || now.duration_since(at) >= quiet);
        let before = state.now.take();
        let since = before.as_ref().map_or(now, |outage| outage.since);
        let logged = tell || before.is_some_and(|outage| outage.logged);
        state.now = Some(Now { kind, since, logged });
        if tell {
            state.told = Some((kind, now));
        }
        tell.then(|| now.duration_since(since))
    }

    /// How long the outage lasted, when its end is to be told.
    fn end(&self, now: Instant) -> Option<Duration> {
        let ended = self.state.lock().now.take()?;
        ended.logged.then(|| now.duration_since(ended.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_outage_is_told_when_it_begins_when_it_changes_and_when_it_ends() {
        let outage = Outage::new("store", &Holds::default());
        let start = Instant::now();
        assert_eq!(outage.begin("away", start), Some(Duration::ZERO));
        assert_eq!(outage.begin("away", start + SECOND), None);
        assert_eq!(outage.begin("denied", start + SECOND * 2), Some(SECOND * 2));
        assert_eq!(outage.end(start + SECOND * 3), Some(SECOND * 3));
        assert_eq!(outage.end(start + SECOND * 4), None);
    }

    #[test]
    fn an_outage_that_lasts_is_told_again() {
        let outage = Outage::new("store", &Holds::default());
        let start = Instant::now();
        assert!(outage.begin("away", start).is_some());
        assert_eq!(outage.begin("away", start + REMIND - SECOND), None);
        assert_eq!(outage.begin("away", start + REMIND), Some(REMIND));
    }

    #[test]
    fn a_store_that_flaps_does_not_fill_the_log() {
        let outage = Outage::new("store", &Holds::default());
        let start = Instant::now();
        let mut lines = 0;
        for second in 0..QUIET.as_secs() as u32 {
            lines += usize::from(outage.begin("busy", start + SECOND * second).is_some());
            lines += usize::from(outage.end(start + SECOND * second).is_some());
        }
        assert_eq!(lines, 2);
    }

    #[test]
    fn what_is_in_the_way_is_told_from_its_beginning_to_its_end() {
        let holds = Holds::default();
        let (store, _source) = (Outage::new("store", &holds), Outage::new("source", &holds));
        let start = Instant::now();
        let told = |kind, since| vec![("store", Some(InTheWay { kind, since })), ("source", None)];
        store.begin("away", start);
        assert_eq!(holds.now(), told("away", start));
        store.begin("denied", start + SECOND);
        assert_eq!(
            holds.now(),
            told("denied", start),
            "the store has been missed since then"
        );
        store.end(start + SECOND * 2);
        assert_eq!(holds.now(), [("store", None), ("source", None)]);
    }
}
