//! A file that is appended to, a batch at a time.
//!
//! Invariants:
//! - It holds whole lines only: what a failed write left behind is cut off before the next attempt, and what a crash
//!   left behind when the file is opened.
//! - One process writes to it: it is locked while it is open.
//! - What is no regular file (a pipe, a device) is neither synced, cut, locked nor renamed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::rotation::{Rotation, sync_folder};
use crate::settings::{SinkSettings, SyncPolicy};

/// How far back an open looks at a time for the end of the last whole line.
const TAIL_STEP: u64 = 64 * 1024;

/// The file, open or not.
#[derive(Debug)]
pub(super) struct Appended {
    path: PathBuf,
    sync: SyncPolicy,
    rotation: Rotation,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Its first line is about as old.
    began: SystemTime,
    is_regular: bool,
}

impl Appended {
    /// `None` where the settings name no file.
    pub(super) fn new(settings: &SinkSettings) -> Option<Self> {
        Some(Self {
            path: settings.path.clone()?,
            sync: settings.sync,
            rotation: Rotation::new(settings),
            open: None,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends all of `text`, or leaves the file as it was as far as that can be done.
    pub(super) fn append(&mut self, text: &[u8]) -> io::Result<()> {
        // A file that failed is opened anew, which cuts off what it was left with.
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::at(&self.path)?,
        };
        if open.is_regular {
            let (now, length) = (SystemTime::now(), open.file.metadata()?.len());
            if self.rotation.is_due(length, text.len() as u64, open.began, now) {
                // Whoever reads it has all of it, also when `sync` leaves that to the system.
                open.file.sync_all()?;
                self.rotation.rotate(&self.path, now)?;
                open = Open::at(&self.path)?;
            }
        }
        open.append(text, self.sync)?;
        self.open = Some(open);
        Ok(())
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let file = open_whole(path)?;
        let known = file.metadata()?;
        // Where a file's creation is not known, its last change before is the nearest.
        let began = if known.len() == 0 {
            SystemTime::now()
        } else {
            known.created().or_else(|_| known.modified())?
        };
        Ok(Self {
            file,
            began,
            is_regular: known.is_file(),
        })
    }

    fn append(&mut self, text: &[u8], sync: SyncPolicy) -> io::Result<()> {
        if !self.is_regular {
            return self.file.write_all(text);
        }
        let before = self.file.metadata()?.len();
        let written = self.file.write_all(text).and_then(|()| match sync {
            SyncPolicy::Batch => self.file.sync_data(),
            SyncPolicy::System => Ok(()),
        });
        if written.is_err() {
            self.file.set_len(before)?;
        }
        written
    }
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
    use std::fs;

    use sidelog_chassis::settings::ByteSize;

    use super::*;

    fn appended(path: &Path, rotate_bytes: u64) -> Appended {
        let settings = SinkSettings {
            path: Some(path.to_owned()),
            rotate_bytes: ByteSize::new(rotate_bytes),
            ..SinkSettings::default()
        };
        Appended::new(&settings).unwrap()
    }

    #[test]
    fn a_line_that_a_crash_left_unfinished_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.ndjson");
        let torn = "x".repeat(TAIL_STEP as usize * 2);
        fs::write(&path, format!("whole\n{torn}")).unwrap();
        appended(&path, 0).append(b"next\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\nnext\n");
    }

    #[test]
    fn a_file_that_another_process_writes_to_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.ndjson");
        let mut first = appended(&path, 0);
        first.append(b"a\n").unwrap();
        let refused = appended(&path, 0).append(b"b\n").unwrap_err();
        assert!(refused.to_string().contains("another process"), "{refused}");
        drop(first);
        appended(&path, 0).append(b"b\n").unwrap();
    }

    #[test]
    fn what_a_failed_write_left_behind_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.ndjson");
        fs::write(&path, "whole\n").unwrap();
        let mut read_only = Open {
            file: File::open(&path).unwrap(),
            began: SystemTime::now(),
            is_regular: true,
        };
        assert!(read_only.append(b"lost\n", SyncPolicy::Batch).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\n");
    }

    #[test]
    fn a_full_file_is_renamed_and_the_new_one_is_locked_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.ndjson");
        let mut file = appended(&path, 10);
        for text in [
            &b"aaaa\n"[..],
            b"bbbb\n",
            b"cccc\n",
            b"a batch larger than a file\n",
            b"d\n",
        ] {
            file.append(text).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "d\n");
        assert!(appended(&path, 10).append(b"x\n").is_err());
        let mut files: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files.rotate_left(1);
        let all: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        assert_eq!(all, "aaaa\nbbbb\ncccc\na batch larger than a file\nd\n");
        assert_eq!(files.len(), 4);
    }
}
