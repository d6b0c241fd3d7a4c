//! Files that are looked at, not listened to: a look sees every way of replacing one, the symbolic links of a Kubernetes
//! volume too, and costs a `stat` a second, off the threads that serve.
//!
//! Invariants:
//! - Files that are still being written are left alone until two looks see the same
//!   (`a_change_is_told_once_and_when_two_looks_see_the_same`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;

/// How often files are looked at.
pub const LOOK: Duration = Duration::from_secs(1);

/// Files that somebody follows.
#[derive(Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    seen: Mutex<Seen>,
}

/// Device, inode, size, and the times of the last change; `None` for a file that isn't there.
type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

#[derive(Debug)]
struct Seen {
    /// The files that were last made use of, or refused.
    judged: Vec<Stamp>,
    /// Others, that the last look saw.
    changing: Option<Vec<Stamp>>,
}

impl Files {
    /// As they are now, they are known.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let judged = stamps(&paths);
        Self {
            paths,
            seen: Mutex::new(Seen { judged, changing: None }),
        }
    }

    /// Looks at them, and says whether they have changed, and are whole.
    pub fn look(&self) -> bool {
        let now = stamps(&self.paths);
        let mut seen = self.seen.lock();
        if now == seen.judged {
            seen.changing = None;
            return false;
        }
        if seen.changing.as_ref() != Some(&now) {
            seen.changing = Some(now);
            return false;
        }
        *seen = Seen {
            judged: now,
            changing: None,
        };
        true
    }

    /// They are about to be read: as they are now, they are known.
    pub fn known(&self) {
        let judged = stamps(&self.paths);
        *self.seen.lock() = Seen { judged, changing: None };
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let found = fs::metadata(path).ok()?;
        let (changed, modified) = ((found.ctime(), found.ctime_nsec()), (found.mtime(), found.mtime_nsec()));
        Some((found.dev(), found.ino(), found.size(), changed, modified))
    };
    paths.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_change_is_told_once_and_when_two_looks_see_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "1").unwrap();
        let files = Files::new(vec![path.clone()]);
        assert!(!files.look());
        fs::write(&path, "20").unwrap();
        assert!(!files.look(), "it may still be written");
        fs::write(&path, "300").unwrap();
        assert!(!files.look());
        assert!(files.look());
        assert!(!files.look());
        fs::remove_file(&path).unwrap();
        files.known();
        assert!(!files.look(), "who reads it anyway need not be told");
    }

    #[test]
    fn a_link_that_is_turned_counts_as_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [("one", "1"), ("two", "2")] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), text).unwrap();
        }
        symlink(at("one"), at("..data")).unwrap();
        symlink("..data/file", at("file")).unwrap();
        let files = Files::new(vec![at("file")]);
        symlink(at("two"), at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert!(!files.look());
        assert!(files.look());
    }
}
