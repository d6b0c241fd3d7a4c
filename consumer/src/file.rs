//! Records as NDJSON, appended to a file or written to standard output.
//!
//! Invariants:
//! - A batch is stored when its lines are written, flushed and, in a file, synced to the disk.
//! - A file holds whole lines only: what a failed write left behind is cut off before the next attempt, and what a
//!   crash left behind when the file is opened.
//! - One process writes to a file: it is locked while it is open.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::answer::{Answer, Hold};
use crate::entry::Entry;
use crate::lane::bytes;
use crate::metrics::{Metrics, StatusLabel};

/// How far back an open looks at a time for the end of the last whole line.
const TAIL_STEP: u64 = 64 * 1024;

/// Appends lines to a file or to standard output.
#[derive(Debug)]
pub(crate) struct Lines {
    target: Arc<Mutex<Target>>,
    stream: Arc<str>,
    metrics: Metrics,
}

#[derive(Debug)]
enum Target {
    File { path: PathBuf, open: Option<File> },
    Stdout,
}

impl Lines {
    /// A sink that appends to `path`, which is opened, and created, when the first lines come.
    pub(crate) fn file(path: PathBuf, metrics: Metrics) -> Self {
        Self::new(Target::File { path, open: None }, metrics)
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
            Target::File { path, .. } => format!(
                "failed to write {} (sink.path): {error}; the records wait in JetStream until the file can be written",
                path.display()
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
        text.extend_from_slice(&entry.line);
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
            Self::File { path, open } => {
                let mut file = match open.take() {
                    Some(file) => file,
                    None => open_whole(path)?,
                };
                // A file that failed is opened anew, which cuts off what it was left with.
                append(&mut file, text)?;
                *open = Some(file);
                Ok(())
            }
        }
    }
}

/// Appends all of `text` and syncs it, or leaves the file as it was as far as that can be done. What is no regular file
/// (a pipe, a device) is neither synced nor cut.
fn append(file: &mut File, text: &[u8]) -> io::Result<()> {
    let before = file.metadata()?;
    if !before.is_file() {
        return file.write_all(text);
    }
    let written = file.write_all(text).and_then(|()| file.sync_data());
    if written.is_err() {
        file.set_len(before.len())?;
    }
    written
}

/// Opens a file to append to, for this process alone, and cuts off a last line that isn't whole.
fn open_whole(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(file);
    }
    file.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => io::Error::other("another process writes to this file"),
        std::fs::TryLockError::Error(error) => error,
    })?;
    let length = file.metadata()?.len();
    if length == 0 {
        sync_folder(path)?;
    }
    let whole = whole_lines(&mut file, length)?;
    if whole < length {
        tracing::warn!(
            path = %path.display(),
            bytes = length - whole,
            "cut off an unfinished line that an earlier process left; its message was not acknowledged and comes again"
        );
        file.set_len(whole)?;
    }
    Ok(file)
}

/// Makes the name of a new file as lasting as what will be synced into it.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// The length of the file up to the end of its last whole line.
fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(TAIL_STEP);
        let mut piece = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        Read::by_ref(file).take(end - start).read_to_end(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::entry::tests::entry;

    fn sink(path: &Path) -> Lines {
        Lines::file(path.to_owned(), Metrics::register(&mut Registry::default()))
    }

    fn lines(texts: &[&str]) -> Vec<Entry> {
        texts.iter().map(|text| entry("api", 1, text)).collect()
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
    async fn a_line_that_a_crash_left_unfinished_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.ndjson");
        let torn = "x".repeat(TAIL_STEP as usize * 2);
        std::fs::write(&path, format!("whole\n{torn}")).unwrap();
        assert_eq!(sink(&path).push(&lines(&["next"])).await, Answer::Stored);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\nnext\n");
    }

    #[tokio::test]
    async fn a_device_is_written_to_without_being_synced_or_cut() {
        assert_eq!(sink(Path::new("/dev/null")).push(&lines(&["a"])).await, Answer::Stored);
    }

    #[test]
    fn a_full_disk_is_an_error_that_says_so() {
        let mut full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let error = append(&mut full, b"a\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_file_that_another_process_writes_to_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.ndjson");
        let first = open_whole(&path).unwrap();
        let refused = open_whole(&path).unwrap_err();
        assert!(refused.to_string().contains("another process"), "{refused}");
        drop(first);
        open_whole(&path).unwrap();
    }

    #[test]
    fn what_a_failed_write_left_behind_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.ndjson");
        std::fs::write(&path, "whole\n").unwrap();
        let mut read_only = File::open(&path).unwrap();
        assert!(append(&mut read_only, b"lost\n").is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\n");
    }
}
