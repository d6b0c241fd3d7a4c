//! A changed file, or SIGHUP, puts another generation of the configuration in force, for exchanges that begin from then on.
//!
//! Invariants:
//! - Settings that can't be used are refused whole, and what is wrong with them is named; the generation before stays in
//!   force (`tests/reload.rs: bad_settings_are_refused_and_named_and_the_old_ones_stay`).
//! - Keys that are read at the start keep their values and are named; everything else of the same file is applied.
//! - SIGHUP doesn't end the process, whether there is a file or not.
//! - No thread that serves reads, parses or compiles anything.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sidelog_chassis::settings::{self, Environment, Validate};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::files::{Files, LOOK};
use crate::generation::Generations;
use crate::settings::{PROGRAM, Settings};

/// Where the settings come from.
#[derive(Debug)]
pub struct Origin {
    config: Option<PathBuf>,
    env: Environment,
    file: Files,
}

impl Origin {
    /// The file of `--config`, if there is one, and the process's environment. A file that is changed from now on is followed.
    pub fn new(config: Option<PathBuf>) -> Self {
        let env = settings::snapshot();
        let file = settings::path(config.as_deref(), &env).map(PathBuf::from);
        Self {
            file: Files::new(file.into_iter().collect()),
            config,
            env,
        }
    }
}

/// What is counted of reloads.
#[derive(Debug)]
pub struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
    last_was_applied: AtomicBool,
    /// Seconds since 1970.
    applied_at: AtomicU64,
    waiting: AtomicU64,
}

impl Default for Reloads {
    /// The settings of the start are in force since now.
    fn default() -> Self {
        Self {
            applied: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            last_was_applied: AtomicBool::new(true),
            applied_at: AtomicU64::new(now()),
            waiting: AtomicU64::new(0),
        }
    }
}

impl Reloads {
    /// Reloads that put new settings in force.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }

    /// Reloads whose settings were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether the last one was applied; so at the start.
    pub fn last_was_applied(&self) -> bool {
        self.last_was_applied.load(Ordering::Relaxed)
    }

    /// When settings were last put in force, in seconds since 1970.
    pub fn applied_at(&self) -> u64 {
        self.applied_at.load(Ordering::Relaxed)
    }

    /// Keys that have changed since the start, and wait for a restart.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    fn count_applied(&self, waiting: usize) {
        self.applied.fetch_add(1, Ordering::Relaxed);
        self.last_was_applied.store(true, Ordering::Relaxed);
        self.applied_at.store(now(), Ordering::Relaxed);
        self.waiting.store(waiting as u64, Ordering::Relaxed);
    }

    fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.last_was_applied.store(false, Ordering::Relaxed);
    }
}

fn now() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.unwrap_or_default().as_secs()
}

/// Reloads when it is told to.
#[derive(Debug)]
pub struct Reloader {
    source: Arc<Source>,
    hang_up: Signal,
}

#[derive(Debug)]
struct Source {
    origin: Origin,
    generations: Arc<Generations>,
    reloads: Arc<Reloads>,
}

impl Reloader {
    /// Listens for SIGHUP, on the runtime that it is awaited on.
    ///
    /// # Errors
    /// When the system refuses the signal's handler.
    pub async fn new(origin: Origin, generations: &Arc<Generations>, reloads: &Arc<Reloads>) -> io::Result<Self> {
        Ok(Self {
            source: Arc::new(Source {
                origin,
                generations: Arc::clone(generations),
                reloads: Arc::clone(reloads),
            }),
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Reloads at each SIGHUP and each change of the file, until the runtime ends.
    pub async fn follow(mut self) {
        loop {
            let is_asked = tokio::select! {
                Some(()) = self.hang_up.recv() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let source = Arc::clone(&self.source);
            let reloading = tokio::task::spawn_blocking(move || {
                if is_asked || source.origin.file.look() {
                    source.reload();
                }
            });
            if reloading.await.is_err() {
                tracing::error!("a reload had panicked; the old settings stay in force; please report this");
            }
        }
    }
}

impl Source {
    fn reload(&self) {
        // What is written from here on is seen by the next look.
        self.origin.file.known();
        match self.succeed() {
            Ok(waiting) => {
                self.reloads.count_applied(waiting.len());
                let generation = self.generations.in_force();
                tracing::info!(
                    generation = generation.number,
                    "settings reloaded; they are in force for new exchanges"
                );
                crate::warn_of_unredacted(&generation.settings);
                if !waiting.is_empty() {
                    tracing::warn!(
                        keys = waiting.join(", "),
                        "some settings have changed that are read at the start only; restart to apply them"
                    );
                }
            }
            Err(problems) => {
                self.reloads.count_refused();
                for problem in problems {
                    tracing::error!(problem, "settings refused; the old ones stay in force");
                }
            }
        }
    }

    /// Gives back the keys that wait for a restart, or everything that is wrong.
    fn succeed(&self) -> Result<Vec<String>, Vec<String>> {
        let loaded = settings::load::<Settings>(&PROGRAM, self.origin.config.as_deref(), &self.origin.env);
        let mut settings = loaded.map_err(|error| error.lines().collect::<Vec<_>>())?;
        let waiting = settings.keep_fixed(&self.generations.in_force().settings);
        // What fits the new values of keys that wait may not fit the old ones.
        let misfits = settings.validate();
        if !misfits.is_empty() {
            let tell = |misfit: settings::Misfit| {
                let (keys, waiting) = (misfit.keys.join(", "), waiting.join(", "));
                format!("{keys}: {}; {waiting} can't change without a restart", misfit.message)
            };
            return Err(misfits.into_iter().map(tell).collect());
        }
        let succeeded = self.generations.succeed(settings);
        succeeded.map_err(|error| vec![format!("{error:#}")])?;
        Ok(waiting)
    }
}
