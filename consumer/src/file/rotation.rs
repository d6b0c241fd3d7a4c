//! When a file is full, and what becomes of it then.
//!
//! A full file is renamed: `records.ndjson` becomes `records.ndjson.20260131T123456Z`, by the time of the rename, and whoever
//! collects files may take it. Files that fall out of `sink.keep` are removed, the oldest first.
//!
//! Invariants:
//! - A rename loses nothing and tears no line: it happens between two batches, and is as lasting as what is written after
//!   it.
//! - Only files that are named as a rename names them are ever removed (`only_files_of_our_own_naming_are_removed`).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::settings::SinkSettings;

/// How the time of a rename is written; it sorts as it passes.
const TIME: &str = "%Y%m%dT%H%M%SZ";
/// Names that are tried when files are renamed several times in a second.
const TRIES: u32 = 1000;

/// The bounds of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation {
    max_bytes: u64,
    after: Duration,
    keep: usize,
}

impl Rotation {
    pub(super) fn new(settings: &SinkSettings) -> Self {
        Self {
            max_bytes: settings.rotate_bytes.bytes(),
            after: settings.rotate_after,
            keep: settings.keep,
        }
    }

    /// Whether a file of `length` bytes, begun at `began`, is full before `more` bytes are written at `now`. A file without
    /// a line never is.
    pub(super) fn is_due(self, length: u64, more: u64, began: SystemTime, now: SystemTime) -> bool {
        let is_large = self.max_bytes > 0 && length.saturating_add(more) > self.max_bytes;
        let age = now.duration_since(began).unwrap_or_default();
        let is_old = !self.after.is_zero() && age >= self.after;
        length > 0 && (is_large || is_old)
    }

    /// Renames the file at `path`, and removes what falls out of `keep`.
    pub(super) fn rotate(self, path: &Path, now: SystemTime) -> io::Result<()> {
        let renamed = rename(path, now)?;
        sync_folder(path)?;
        tracing::debug!(path = %renamed.display(), "a file is full, and was renamed");
        if self.keep > 0 {
            let mut files = renamed_files(path)?;
            files.sort();
            let surplus = files.len().saturating_sub(self.keep);
            for file in files.into_iter().take(surplus) {
                fs::remove_file(&file)?;
                tracing::info!(path = %file.display(), "removed the oldest file (sink.keep)");
            }
        }
        Ok(())
    }
}

/// Makes the names in a file's folder as lasting as what is synced into the file.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

fn rename(path: &Path, now: SystemTime) -> io::Result<PathBuf> {
    let time = Timestamp::try_from(now).unwrap_or_default().strftime(TIME).to_string();
    for number in 0..TRIES {
        let mut name = OsString::from(path);
        name.push(format!(".{time}"));
        if number > 0 {
            name.push(format!("-{number:03}"));
        }
        let target = PathBuf::from(name);
        if !target.try_exists()? {
            fs::rename(path, &target)?;
            return Ok(target);
        }
    }
    Err(io::Error::other("there is no name left for a full file of this second"))
}

/// The files beside `path` that were renamed from it.
fn renamed_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(Vec::new());
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let entry = entry?;
        let is_ours = entry
            .file_name()
            .to_str()
            .and_then(|other| other.strip_prefix(name)?.strip_prefix('.').map(is_time))
            .unwrap_or(false);
        if is_ours {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Whether a file's ending is one that [`rename`] gives.
fn is_time(ending: &str) -> bool {
    let (time, number) = ending.split_once('-').unwrap_or((ending, "000"));
    let is_pattern = time.len() == 16
        && time.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    is_pattern && number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use sidelog_chassis::settings::ByteSize;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn rotation(bytes: u64, after: Duration, keep: usize) -> Rotation {
        Rotation::new(&SinkSettings {
            rotate_bytes: ByteSize::new(bytes),
            rotate_after: after,
            keep,
            ..SinkSettings::default()
        })
    }

    /// 2026-01-31T12:34:56Z and so many seconds.
    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_862_896 + seconds)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_full_by_its_size_or_its_age_but_never_without_a_line() {
        let by_size = rotation(100, Duration::ZERO, 0);
        assert!(!by_size.is_due(60, 40, at(0), at(9999)));
        assert!(by_size.is_due(60, 41, at(0), at(0)));
        assert!(!by_size.is_due(0, 500, at(0), at(0)), "a batch larger than a file");
        let by_age = rotation(0, HOUR, 0);
        assert!(!by_age.is_due(1, u64::MAX, at(0), at(3599)));
        assert!(by_age.is_due(1, 1, at(0), at(3600)));
        assert!(!by_age.is_due(0, 1, at(0), at(3600)));
        assert!(!by_age.is_due(1, 1, at(3600), at(0)), "a clock that was set back");
    }

    #[test]
    fn only_files_of_our_own_naming_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ndjson");
        for other in [
            "a.ndjson.bak",
            "a.ndjson.20260131T123456Z.gz",
            "b.ndjson.20200131T123456Z",
        ] {
            fs::write(folder.path().join(other), "").unwrap();
        }
        let rotation = rotation(1, Duration::ZERO, 2);
        for second in [0, 0, 1, 2] {
            fs::write(&path, "").unwrap();
            rotation.rotate(&path, at(second)).unwrap();
        }
        assert_eq!(
            names(folder.path()),
            [
                "a.ndjson.20260131T123456Z.gz",
                "a.ndjson.20260131T123457Z",
                "a.ndjson.20260131T123458Z",
                "a.ndjson.bak",
                "b.ndjson.20200131T123456Z",
            ]
        );
    }

    #[test]
    fn two_in_a_second_have_two_names_that_sort_as_they_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for text in ["first", "second"] {
            fs::write(&path, text).unwrap();
            rotation(1, Duration::ZERO, 0).rotate(&path, at(0)).unwrap();
        }
        assert_eq!(names(folder.path()), ["a.20260131T123456Z", "a.20260131T123456Z-001"]);
        assert_eq!(
            fs::read_to_string(folder.path().join("a.20260131T123456Z-001")).unwrap(),
            "second"
        );
    }
}
