//! The steps of an orderly end: drained, requested, forced.
//!
//! Invariants:
//! - a step is never taken back, and each takes those before it, too
//! - whoever asks late is answered at once: a step is a state, not an event
//! - asking whether a step is taken is one load: it is asked on the request path

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Supervisors signal a process and then its group: the same signal again within this time is the same request.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// What SIGHUP is to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangUp {
    /// The end: the terminal that it was called from is gone.
    Ends,
    /// Nothing here: the program listens for it itself, once it can.
    Reloads,
    /// Nothing: settings are read at the start only, and the log says so.
    NeedsRestart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Running,
    Draining,
    Requested,
    Forced,
}

/// Tells every part of the process that it is to end. Clones share one state.
#[derive(Debug, Clone)]
pub struct Shutdown {
    step: watch::Sender<Step>,
    /// The same step, for those who only look.
    reached: Arc<AtomicU8>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A shutdown that nobody has asked for yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            step: watch::Sender::new(Step::Running),
            reached: Arc::new(AtomicU8::new(Step::Running as u8)),
        }
    }

    /// A shutdown that SIGTERM or SIGINT requests; the next such signal forces it, unless it is the same one again at once.
    /// `hang_up` says what SIGHUP does.
    ///
    /// A thread of its own waits for the signals, so this works before any runtime is there.
    ///
    /// # Errors
    ///
    /// The system refuses the thread or the signal handlers.
    pub fn on_signals(hang_up: HangUp) -> io::Result<Self> {
        let shutdown = Self::new();
        let signalled = shutdown.clone();
        let (ready, is_ready) = mpsc::sync_channel(1);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            let signals = runtime.and_then(|runtime| {
                let _in_runtime = runtime.enter();
                let signals = Signals::new(hang_up)?;
                Ok((runtime, signals))
            });
            match signals {
                Ok((runtime, signals)) => {
                    // The receiver waits below; were it gone, the signals would count all the same.
                    drop(ready.send(Ok(())));
                    runtime.block_on(signalled.follow(signals));
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        is_ready.recv().map_err(io::Error::other)??;
        Ok(shutdown)
    }

    /// Says that an end will be asked for soon: what keeps others here is to be let go of, everything else goes on.
    pub fn drain(&self) {
        self.advance(Step::Draining);
    }

    /// Asks for an orderly end.
    pub fn request(&self) {
        self.advance(Step::Requested);
    }

    /// Asks for an end now.
    pub fn force(&self) {
        self.advance(Step::Forced);
    }

    /// Whether an end was announced or asked for.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_at(Step::Draining)
    }

    /// Whether an end was asked for, in either way.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.is_at(Step::Requested)
    }

    /// Whether an end now was asked for.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.is_at(Step::Forced)
    }

    /// Waits until an end is announced or asked for. Cancel safe.
    pub async fn draining(&self) {
        self.until(Step::Draining).await;
    }

    /// Waits until an end is asked for, in either way. Cancel safe.
    pub async fn requested(&self) {
        self.until(Step::Requested).await;
    }

    /// Waits until an end now is asked for. Cancel safe.
    pub async fn forced(&self) {
        self.until(Step::Forced).await;
    }

    fn advance(&self, to: Step) {
        self.step.send_if_modified(|step| {
            let advances = *step < to;
            *step = to.max(*step);
            self.reached.store(*step as u8, Ordering::Release);
            advances
        });
    }

    fn is_at(&self, wanted: Step) -> bool {
        self.reached.load(Ordering::Acquire) >= wanted as u8
    }

    async fn until(&self, wanted: Step) {
        // An error would mean that all senders are gone, but `self` is one.
        drop(self.step.subscribe().wait_for(|step| *step >= wanted).await);
    }

    async fn follow(&self, mut signals: Signals) {
        let mut first: Option<(&str, Instant)> = None;
        while let Some(name) = signals.next().await {
            let (earlier, at) = *first.get_or_insert((name, Instant::now()));
            if self.is_requested() && earlier == name && at.elapsed() < SAME_SIGNAL {
                continue;
            }
            if self.is_requested() {
                tracing::warn!(signal = name, "asked to end at once");
                self.force();
            } else {
                tracing::info!(signal = name, "asked to end");
                self.request();
            }
        }
    }
}

/// The signals that a program listens for.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<(Signal, HangUp)>,
}

impl Signals {
    fn new(hang_up: HangUp) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: match hang_up {
                HangUp::Ends => None,
                HangUp::Reloads | HangUp::NeedsRestart => Some((signal(SignalKind::hangup())?, hang_up)),
            },
        })
    }

    /// The next one that asks for the end.
    async fn next(&mut self) -> Option<&'static str> {
        loop {
            tokio::select! {
                Some(()) = self.terminate.recv() => return Some("SIGTERM"),
                Some(()) = self.interrupt.recv() => return Some("SIGINT"),
                Some(meaning) = hung_up(&mut self.hang_up) => if meaning == HangUp::NeedsRestart {
                    tracing::warn!(signal = "SIGHUP", "settings are read at the start only; restart to apply changed ones");
                },
                else => return None,
            }
        }
    }
}

async fn hung_up(hang_up: &mut Option<(Signal, HangUp)>) -> Option<HangUp> {
    let (signal, meaning) = hang_up.as_mut()?;
    signal.recv().await.map(|()| *meaning)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn nothing_ends_unasked() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.is_draining() && !shutdown.is_requested());
        assert!(shutdown.draining().now_or_never().is_none());
        assert!(shutdown.requested().now_or_never().is_none());
        assert!(shutdown.forced().now_or_never().is_none());
    }

    #[test]
    fn a_drain_asks_for_no_end_and_an_end_is_a_drain() {
        let shutdown = Shutdown::new();
        shutdown.drain();
        assert!(shutdown.is_draining() && !shutdown.is_requested());
        assert!(shutdown.draining().now_or_never().is_some());
        assert!(shutdown.requested().now_or_never().is_none());
        let asked = Shutdown::new();
        asked.request();
        asked.drain();
        assert!(asked.is_draining() && asked.is_requested());
    }

    #[test]
    fn a_request_reaches_every_clone_and_forces_nothing() {
        let shutdown = Shutdown::new();
        let clone = shutdown.clone();
        shutdown.request();
        assert!(clone.is_requested());
        assert!(!clone.is_forced());
        assert!(clone.requested().now_or_never().is_some());
        assert!(clone.forced().now_or_never().is_none());
    }

    #[test]
    fn forcing_requests_too_and_is_never_taken_back() {
        let shutdown = Shutdown::new();
        shutdown.force();
        shutdown.request();
        assert!(shutdown.requested().now_or_never().is_some());
        assert!(shutdown.forced().now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_waits_already_is_woken() {
        let shutdown = Shutdown::new();
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.forced().await }
        });
        tokio::task::yield_now().await;
        shutdown.force();
        waiting.await.expect("the waiting task ends");
    }
}
