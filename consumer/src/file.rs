//! Records as NDJSON, appended to a file or written to standard output.
//!
//! Invariant: a batch is stored when its lines are written, flushed and, in a file, synced to the disk (unless `sink.sync` leaves
//! that to the system).

mod appended;
mod rotation;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::answer::{Answer, Hold};
use crate::entry::Entry;
use crate::lane::bytes;
use crate::metrics::{Metrics, StatusLabel};
use crate::settings::SinkSettings;

use appended::Appended;

/// Appends lines to a file or to standard output.
#[derive(Debug)]
pub(crate) struct Lines {
    target: Arc<Mutex<Target>>,
    stream: Arc<str>,
    metrics: Metrics,
}

#[derive(Debug)]
enum Target {
    File(Appended),
    Stdout,
}

impl Lines {
    /// A sink that appends to the file `sink.path`, which is opened, and created, when the first lines come.
    ///
    /// # Errors
    /// There is no `sink.path`.
    pub(crate) fn file(settings: &SinkSettings, metrics: Metrics) -> anyhow::Result<Self> {
        let file = Appended::new(settings);
        let file = file.context("sink.path is missing; sink.kind = \"file\" needs it")?;
        Ok(Self::new(Target::File(file), metrics))
    }

    /// A sink that writes to standard output.
    pub(crate) fn stdout(metrics: Metrics) -> Self {
        Self::new(Target::Stdout, metrics)
    }

    fn new(target: Target, metrics: Metrics) -> Self {
        Self {
            target: Arc::new(Mutex::new(target)),
            stream: Arc::from(""),
            metrics,
        }
    }

    /// The one stream there is.
    pub(crate) fn stream(&self) -> Arc<str> {
        Arc::clone(&self.stream)
    }

    /// Tries once to write the entries' lines.
    pub(crate) async fn push(&self, entries: &[Entry]) -> Answer {
        let started = Instant::now();
        let failed = self.attempt(join(entries).into()).await.err();
        self.metrics.push_seconds.observe(started.elapsed().as_secs_f64());
        let status = if failed.is_some() { "error" } else { "ok" }.to_owned();
        self.metrics.pushes.get_or_create(&StatusLabel { status }).inc();
        match failed {
            None => Answer::Stored,
            Some(error) => Answer::Hold(Hold::of_store("write_failed", self.advice(&error))),
        }
    }

    async fn attempt(&self, text: Bytes) -> io::Result<()> {
        let target = Arc::clone(&self.target);
        let task = tokio::task::spawn_blocking(move || target.lock().write(&text));
        task.await.map_err(io::Error::other)?
    }

    fn advice(&self, error: &io::Error) -> String {
        match &*self.target.lock() {
            Target::File(file) => format!(
                "failed to write {} (sink.path): {error}; the records wait in JetStream until the file can be written",
                file.path().display()
            ),
            Target::Stdout => format!(
                "failed to write to standard output (sink.kind = \"stdout\"): {error}; the records wait in JetStream"
            ),
        }
    }
}

/// The entries' lines, each ended.
fn join(entries: &[Entry]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes(entries) + entries.len());
    for entry in entries {
        text.extend_from_slice(entry.line());
        text.push(b'\n');
    }
    text
}

impl Target {
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text)?;
                stdout.flush()
            }
            Self::File(file) => file.append(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::entry::tests::entry;

    fn sink(path: &Path) -> Lines {
        let settings = SinkSettings {
            path: Some(path.to_owned()),
            ..SinkSettings::default()
        };
        Lines::file(&settings, Metrics::register(&mut Registry::default())).unwrap()
    }

    fn lines(texts: &[&str]) -> Vec<Entry> {
        texts.iter().map(|text| entry(1, text)).collect()
    }

    #[tokio::test]
    async fn lines_are_appended_to_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.ndjson");
        std::fs::write(&path, "before\n").unwrap();
        let sink = sink(&path);
        assert_eq!(sink.push(&lines(&["a", "b"])).await, Answer::Stored);
        assert_eq!(sink.push(&lines(&["c"])).await, Answer::Stored);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\na\nb\nc\n");
    }

    #[tokio::test]
    async fn a_device_is_written_to_without_being_synced_or_cut() {
        assert_eq!(sink(Path::new("/dev/null")).push(&lines(&["a"])).await, Answer::Stored);
    }

    #[tokio::test]
    async fn a_full_disk_holds_and_says_so() {
        let Answer::Hold(hold) = sink(Path::new("/dev/full")).push(&lines(&["a"])).await else {
            panic!("nothing fits there");
        };
        assert!(hold.advice.contains("/dev/full (sink.path)"), "{}", hold.advice);
    }

    #[tokio::test]
    async fn a_folder_that_is_missing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("later").join("records.ndjson");
        let sink = sink(&path);
        assert!(matches!(sink.push(&lines(&["a"])).await, Answer::Hold(_)));
        std::fs::create_dir(folder.path().join("later")).unwrap();
        assert_eq!(sink.push(&lines(&["a"])).await, Answer::Stored);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\n");
    }
}
