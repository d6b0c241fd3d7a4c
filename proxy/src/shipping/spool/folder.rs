//! The proxy's own folder: who may use it, and what lies in it.
//!
//! `<spool.directory>/<service>-<port>`, with a file `<number>.frame` for each frame, numbers being the order; `.part` while
//! it is written; and `lock`. All here blocks, and runs where nobody waits for it.
//!
//! Invariants:
//! - The folder is a folder, ours, and nobody else's to read; links and others' folders are refused
//!   (`a_link_is_refused`, `a_folder_that_was_open_to_others_is_closed`).
//! - One process uses it at a time; the lock goes with the process, however that ends
//!   (`two_proxies_never_share_a_folder`).
//! - A file has its name only when it is whole. A part that is whole is kept, any other is removed
//!   (`what_a_crash_leaves_behind_is_sorted_out`).
//! - Files are not synced: they outlive the process and its kill, but not a power cut; a file that one left
//!   short is found by its checksum.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufReader, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::file;
use crate::shipping::outgoing::Outgoing;

const FRAME: &str = "frame";
const PART: &str = "part";

/// Why a folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process has the lock.
    #[error("{path} is in use by another proxy; give each its own spool.directory, service.name or port")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It is a link, a file, or another user's.
    #[error("{path} is a link, a file or another user's; remove it, or set spool.directory to a folder of our own")]
    NotOurs {
        /// The folder.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("failed to use {path}: {source}; set spool.directory to a folder that we may write")]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// A frame that lies in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub number: u64,
    /// Its records that the ledger counts.
    pub counted: u32,
    /// What its file takes.
    pub bytes: u64,
    /// The latest `observed_timestamp` in it, in unix nanoseconds.
    pub last_observed: u64,
}

/// What was found in a folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Whole frames, in order.
    pub frames: Vec<Found>,
    /// Files that were damaged, and removed.
    pub damaged: u64,
}

/// A folder that is ours alone as long as this value lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl Folder {
    /// Makes or takes over the folder `name` in `directory`, and says what lies in it.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn open(directory: &Path, name: &str) -> Result<(Self, Contents), FolderError> {
        let path = directory.join(name);
        let io = |source| FolderError::Io {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(directory).map_err(io)?;
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(io(error)),
            _ => {}
        }
        let found = fs::symlink_metadata(&path).map_err(io)?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
            return Err(FolderError::NotOurs { path });
        }
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(io)?;
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(FolderError::InUse { path }),
            Err(fs::TryLockError::Error(error)) => return Err(io(error)),
        }
        let folder = Self {
            path: path.clone(),
            _lock: lock,
        };
        let contents = folder.contents().map_err(io)?;
        Ok((folder, contents))
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// What the system answered; nothing of the frame is left then, if that can be.
    pub fn write(&self, number: u64, outgoing: &Outgoing) -> io::Result<()> {
        let part = self.at(number, PART);
        let written = write_part(&part, outgoing).and_then(|()| fs::rename(&part, self.at(number, FRAME)));
        if written.is_err() {
            // It may not have been there in the first place.
            drop(fs::remove_file(&part));
        }
        written
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// `InvalidData` when it is damaged; else what the system answered.
    pub fn read(&self, number: u64) -> io::Result<Outgoing> {
        read_whole(&self.at(number, FRAME))
    }

    /// Removes a frame; one that is gone already is as good.
    ///
    /// # Errors
    /// What the system answered.
    pub fn remove(&self, number: u64) -> io::Result<()> {
        match fs::remove_file(self.at(number, FRAME)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn at(&self, number: u64, extension: &str) -> PathBuf {
        self.path.join(format!("{number:020}.{extension}"))
    }

    fn contents(&self) -> io::Result<Contents> {
        let mut contents = Contents::default();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let Some((number, is_part)) = number_of(&path) else {
                continue;
            };
            let frame = self.at(number, FRAME);
            if is_part {
                // Whole, and only its name was still to come; else nobody was ever told that it was kept.
                if read_whole(&path).is_err() || frame.exists() {
                    fs::remove_file(&path)?;
                    continue;
                }
                fs::rename(&path, &frame)?;
            }
            match found(number, &frame) {
                Ok(found) => contents.frames.push(found),
                Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
                    contents.damaged += 1;
                    fs::remove_file(&frame)?;
                }
                Err(error) => return Err(error),
            }
        }
        contents.frames.sort_unstable_by_key(|found| found.number);
        contents.frames.dedup_by_key(|found| found.number);
        Ok(contents)
    }
}

/// The number in a file's name, and whether it is only a part.
fn number_of(path: &Path) -> Option<(u64, bool)> {
    let number = path.file_stem()?.to_str()?;
    let is_number = number.len() == 20 && number.bytes().all(|byte| byte.is_ascii_digit());
    let extension = path.extension()?;
    let is_part = extension == PART;
    (is_number && (is_part || extension == FRAME)).then_some((number.parse().ok()?, is_part))
}

fn write_part(path: &Path, outgoing: &Outgoing) -> io::Result<()> {
    let head = file::head(outgoing).ok_or_else(|| io::Error::from(ErrorKind::FileTooLarge))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&head)?;
    file.write_all(&outgoing.frame.payload)
}

fn read_whole(path: &Path) -> io::Result<Outgoing> {
    let mut file = File::open(path)?;
    let head = file::read_head(&mut file)?;
    file::read_payload(head, &mut file)
}

fn found(number: u64, path: &Path) -> io::Result<Found> {
    let file = File::open(path)?;
    let bytes = file::blocks(file.metadata()?.len());
    let head = file::read_head(&mut BufReader::with_capacity(256, file))?;
    Ok(Found {
        number,
        counted: head.counted,
        bytes,
        last_observed: head.last_observed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipping::outgoing::tests::outgoing;

    fn open(directory: &Path) -> (Folder, Contents) {
        Folder::open(directory, "api-8080").unwrap()
    }

    #[test]
    fn the_next_process_finds_the_frames_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let (folder, contents) = open(directory.path());
        assert_eq!(contents, Contents::default());
        for number in [10, 9, 100] {
            folder.write(number, &outgoing(&format!("a-{number}"), 2, 50)).unwrap();
        }
        folder.remove(9).unwrap();
        folder.remove(9).unwrap();
        drop(folder);
        let (folder, contents) = open(directory.path());
        let numbers: Vec<_> = contents.frames.iter().map(|found| found.number).collect();
        assert_eq!((numbers, contents.damaged), (vec![10, 100], 0));
        let first = contents.frames[0];
        assert_eq!((first.counted, first.bytes, first.last_observed), (2, 4096, 9));
        assert_eq!(folder.read(100).unwrap(), outgoing("a-100", 2, 50));
    }

    #[test]
    fn two_proxies_never_share_a_folder() {
        let directory = tempfile::tempdir().unwrap();
        let (first, _) = open(directory.path());
        let second = Folder::open(directory.path(), "api-8080").unwrap_err();
        assert!(matches!(second, FolderError::InUse { .. }), "{second}");
        Folder::open(directory.path(), "api-8081").unwrap();
        drop(first);
        open(directory.path());
    }

    #[test]
    fn a_link_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), directory.path().join("api-8080")).unwrap();
        let refused = Folder::open(directory.path(), "api-8080").unwrap_err();
        assert!(matches!(refused, FolderError::NotOurs { .. }), "{refused}");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_was_open_to_others_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api-8080");
        DirBuilder::new().mode(0o755).create(&path).unwrap();
        let (folder, _) = open(directory.path());
        folder.write(1, &outgoing("a-1", 1, 50)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&folder.at(1, FRAME)), 0o600);
    }

    #[test]
    fn what_a_crash_leaves_behind_is_sorted_out() {
        let directory = tempfile::tempdir().unwrap();
        let (folder, _) = open(directory.path());
        for number in 1..=4 {
            folder.write(number, &outgoing("a", 2, 50)).unwrap();
        }
        let cut = |path: &Path, bytes: u64| File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
        fs::rename(folder.at(1, FRAME), folder.at(1, PART)).unwrap();
        fs::rename(folder.at(2, FRAME), folder.at(2, PART)).unwrap();
        cut(&folder.at(2, PART), 90);
        cut(&folder.at(3, FRAME), 20);
        fs::write(folder.path.join("notes.txt"), "not ours").unwrap();
        drop(folder);

        let (folder, contents) = open(directory.path());
        let numbers: Vec<_> = contents.frames.iter().map(|found| found.number).collect();
        assert_eq!((numbers, contents.damaged), (vec![1, 4], 1));
        folder.read(1).unwrap();
        let mut left: Vec<_> = fs::read_dir(&folder.path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "00000000000000000001.frame",
                "00000000000000000004.frame",
                "lock",
                "notes.txt"
            ]
        );
    }

    #[test]
    fn a_frame_cut_short_later_is_known_when_it_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let (folder, _) = open(directory.path());
        folder.write(1, &outgoing("a", 2, 5_000)).unwrap();
        let file = File::options().write(true).open(folder.at(1, FRAME)).unwrap();
        file.set_len(6_000).unwrap();
        assert_eq!(folder.read(1).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(folder.read(2).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
