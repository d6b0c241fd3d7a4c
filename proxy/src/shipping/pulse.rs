//! Whether the shipping thread lives: it says when it will be back, and whoever looks sees whether it is.
//!
//! Invariant: nothing of it makes the proxy unready; traffic needs no shipping (`tests/health.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Later than this the thread is stuck. No work of its takes nearly as long.
const STUCK: Duration = Duration::from_secs(10);

/// What the thread promised last.
#[derive(Debug)]
pub struct Pulse {
    began: Instant,
    /// When it is back, in milliseconds from `began`.
    back: AtomicU64,
    has_ended: AtomicBool,
}

/// Held by the thread; its end, in whichever way, is the thread's.
#[derive(Debug)]
pub(super) struct Alive(Arc<Pulse>);

impl Default for Pulse {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            back: AtomicU64::default(),
            has_ended: AtomicBool::default(),
        }
    }
}

impl Pulse {
    /// Whether the thread runs, and isn't stuck.
    pub fn is_up(&self) -> bool {
        !self.has_ended() && self.overdue() < STUCK
    }

    /// How long ago it should have been back.
    pub fn overdue(&self) -> Duration {
        self.overdue_at(Instant::now())
    }

    /// What an operator is to know of it.
    pub fn trouble(&self) -> Option<String> {
        let advice = "records are dropped when the queue is full; restart the proxy, and please report it";
        if self.has_ended() {
            return Some(format!("shipping has ended: {advice}"));
        }
        let stuck = self.overdue();
        (stuck >= STUCK).then(|| format!("shipping is stuck for {} s: {advice}", stuck.as_secs()))
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    fn overdue_at(&self, now: Instant) -> Duration {
        let back = Duration::from_millis(self.back.load(Ordering::Relaxed));
        now.saturating_duration_since(self.began).saturating_sub(back)
    }

    /// The thread will be back at that time; while it works, that is when it began to.
    pub(super) fn back_at(&self, time: Instant) {
        let back = time.saturating_duration_since(self.began).as_millis();
        self.back
            .store(u64::try_from(back).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn alive(self: &Arc<Self>) -> Alive {
        Alive(Arc::clone(self))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_not_back_in_time_is_stuck() {
        let pulse = Pulse::default();
        let soon = pulse.began + Duration::from_secs(60);
        pulse.back_at(soon);
        assert!(pulse.is_up() && pulse.overdue_at(soon).is_zero());
        assert_eq!(pulse.overdue_at(soon + STUCK), STUCK);
        assert_eq!(pulse.trouble(), None);
    }

    #[test]
    fn a_thread_that_panicked_for_good_has_ended() {
        let pulse = Arc::<Pulse>::default();
        let alive = pulse.alive();
        assert!(pulse.is_up());
        let thread = std::thread::spawn(move || {
            let _alive = alive;
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(thread.join().is_err());
        assert!(!pulse.is_up());
        assert!(pulse.trouble().unwrap().contains("has ended"));
    }
}
