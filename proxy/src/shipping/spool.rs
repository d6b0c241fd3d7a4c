//! The disk's side of the spool: the folder, opened and kept, and jobs for it on a thread that may block.
//!
//! Invariants:
//! - Nothing that ships waits for the disk: there is one job at a time, on the runtime's blocking pool, and one that takes
//!   longer than [`PATIENCE`] makes the spool unusable until it ends (`a_disk_that_hangs_holds_up_neither_records_nor_the_end`).
//! - A disk that is full, read-only or gone is one warning, a count, and an attempt now and then; frames then stay in memory
//!   (`tests/outage/disk.rs`).
//!
//! Metrics: `sidelog_spool_errors_total`, `sidelog_spool_bytes`.

use std::future::pending;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

pub mod file;
pub mod folder;
pub mod job;

use super::counts::Counts;
use folder::{Contents, Folder, FolderError};
use job::{Done, Job};

/// How long the disk may take for a job before shipping goes on without it.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Wait after a failure; doubled each time, up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Where the folder is.
#[derive(Debug, Clone)]
pub struct Place {
    /// `spool.directory`.
    pub directory: PathBuf,
    /// The folder's own name.
    pub name: String,
}

/// What the disk has to say.
#[derive(Debug)]
pub enum News {
    /// The folder is open, and this is in it.
    Opened(Contents),
    /// A job is done.
    Done(Done),
    /// The folder can't be opened.
    Unusable,
}

enum Task {
    Open(JoinHandle<Result<(Folder, Contents), FolderError>>),
    Job(JoinHandle<Done>, Arc<Job>),
}

/// The spool, if there is one.
pub struct Spool {
    /// `None` where it is turned off.
    place: Option<Place>,
    folder: Option<Arc<Folder>>,
    task: Option<(Task, Instant)>,
    /// After a failure: until when nothing is tried, and how long that was.
    retry: Option<(Instant, Duration)>,
    counts: Arc<Counts>,
}

impl Spool {
    /// A spool that is opened by the first [`tend`](Self::tend).
    pub fn new(place: Option<Place>, counts: Arc<Counts>) -> Self {
        Self {
            place,
            folder: None,
            task: None,
            retry: None,
            counts,
        }
    }

    /// Whether a frame may wait for being written.
    pub fn is_usable(&self, now: Instant) -> bool {
        let is_overdue = self.task.as_ref().is_some_and(|(_, since)| now - *since >= PATIENCE);
        self.place.is_some() && !is_overdue && !self.is_paused(now)
    }

    /// Whether the folder is open and there is no job under way.
    pub fn is_free(&self, now: Instant) -> bool {
        self.folder.is_some() && self.task.is_none() && !self.is_paused(now)
    }

    /// Whether the folder is being opened for the first time, which takes a moment.
    pub fn is_opening(&self, now: Instant) -> bool {
        let is_first = self.folder.is_none() && self.retry.is_none();
        is_first && self.is_usable(now)
    }

    /// Opens the folder if it isn't, and it is time.
    pub fn tend(&mut self, now: Instant) {
        let Some(place) = self.place.clone().filter(|_| self.folder.is_none()) else {
            return;
        };
        if self.task.is_some() || self.is_paused(now) {
            return;
        }
        let open = tokio::task::spawn_blocking(move || Folder::open(&place.directory, &place.name));
        self.task = Some((Task::Open(open), now));
    }

    /// Begins a job. To be called when the spool [is free](Self::is_free).
    pub fn start(&mut self, job: Job, now: Instant) {
        let Some(folder) = self.folder.clone() else { return };
        let job = Arc::new(job);
        let running = Arc::clone(&job);
        let handle = tokio::task::spawn_blocking(move || running.run(&folder));
        self.task = Some((Task::Job(handle, job), now));
    }

    /// Waits for what is under way; for ever if nothing is. Cancel safe.
    pub async fn next(&mut self) -> News {
        let news = match &mut self.task {
            None => return pending().await,
            Some((Task::Open(open), _)) => match open.await {
                Ok(Ok((folder, contents))) => {
                    self.folder = Some(Arc::new(folder));
                    if contents.damaged > 0 {
                        tracing::error!(
                            files = contents.damaged,
                            "files in the spool were damaged and removed; their records are lost"
                        );
                    }
                    News::Opened(contents)
                }
                Ok(Err(error)) => {
                    self.failed(&error, true);
                    News::Unusable
                }
                Err(panic) => {
                    self.failed(&panic, true);
                    News::Unusable
                }
            },
            Some((Task::Job(handle, job), _)) => News::Done(match handle.await {
                Ok(done) => done,
                Err(_) => job.failed(),
            }),
        };
        self.task = None;
        news
    }

    /// After a panic: whether the outcome of a job is still to come.
    pub fn recover(&mut self) -> bool {
        let is_over = |task: &Task| match task {
            Task::Open(open) => open.is_finished(),
            Task::Job(job, _) => job.is_finished(),
        };
        self.task = self.task.take().filter(|(task, _)| !is_over(task));
        matches!(self.task, Some((Task::Job(..), _)))
    }

    /// A job failed: no further one for a while. A folder that may be gone is opened anew then.
    pub fn job_failed(&mut self, error: &io::Error) {
        let is_full = matches!(
            error.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
        );
        self.failed(error, !is_full);
    }

    /// A job went well.
    pub fn job_succeeded(&mut self) {
        if self.retry.take().is_some() {
            self.counts.spool_works();
            tracing::info!("the spool is usable again");
        }
    }

    fn failed(&mut self, error: &dyn std::fmt::Display, reopen: bool) {
        self.counts.spool_error();
        if self.retry.is_none() {
            tracing::warn!(
                %error,
                "the spool can't be used, frames stay in memory; make room for it, or let spool.directory be a folder that we may write"
            );
        }
        if reopen {
            self.folder = None;
        }
        let delay = self.retry.map_or(RETRY.0, |(_, delay)| (delay * 2).min(RETRY.1));
        self.retry = Some((Instant::now() + delay, delay));
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.retry.is_some_and(|(until, _)| now < until)
    }
}
