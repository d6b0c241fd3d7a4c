//! What the disk is asked to do in one go, and what came of it.

use std::io;

use super::folder::Folder;
use crate::shipping::outgoing::Outgoing;

/// Files to remove, then to write, then to read. Nothing is written when something can't be removed: the room was
/// counted on.
#[derive(Debug, Default)]
pub struct Job {
    /// Frames that are no longer needed.
    pub remove: Vec<u64>,
    /// Frames to write.
    pub write: Vec<(u64, Outgoing)>,
    /// Frames to read.
    pub load: Vec<u64>,
}

/// The outcome of each part of a [`Job`].
#[derive(Debug, Default)]
pub struct Done {
    /// Of the removals.
    pub removed: Vec<(u64, io::Result<()>)>,
    /// Of the writes.
    pub written: Vec<(u64, io::Result<()>)>,
    /// Of the reads.
    pub loaded: Vec<(u64, io::Result<Outgoing>)>,
}

impl Job {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.write.is_empty() && self.load.is_empty()
    }

    /// Does it. Blocks.
    pub fn run(&self, folder: &Folder) -> Done {
        let removed: Vec<_> = self
            .remove
            .iter()
            .map(|number| (*number, folder.remove(*number)))
            .collect();
        let has_made_room = removed.iter().all(|(_, removed)| removed.is_ok());
        let write = |number, outgoing| match has_made_room {
            true => folder.write(number, outgoing),
            false => Err(io::Error::other("what had to go first can't be removed")),
        };
        Done {
            removed,
            written: self
                .write
                .iter()
                .map(|(number, outgoing)| (*number, write(*number, outgoing)))
                .collect(),
            loaded: self.load.iter().map(|number| (*number, folder.read(*number))).collect(),
        }
    }

    /// The outcome if nothing could be done.
    pub fn failed(&self) -> Done {
        let error = || io::Error::other("the disk's thread panicked");
        Done {
            removed: self.remove.iter().map(|number| (*number, Err(error()))).collect(),
            written: self.write.iter().map(|(number, _)| (*number, Err(error()))).collect(),
            loaded: self.load.iter().map(|number| (*number, Err(error()))).collect(),
        }
    }
}
