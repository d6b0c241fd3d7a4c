//! Every closed frame that is not acknowledged: where it is, and what is to be done with it next. Does no I/O.
//!
//! ```text
//!            ┌── flying ◄──┐
//! accept ──► memory ───────┘ ──acknowledged──► shipped
//!              ▲ │ a copy is written
//!         load │ ▼ release
//!             disk ──too old, too many──► dropped
//! ```
//!
//! A frame in memory may have a copy on disk; then it can be let go of in memory at any time, and the copy is removed
//! when JetStream has acknowledged the frame.
//!
//! Invariants:
//! - A frame is in memory or on disk, or it was shipped or dropped and counted; a crash loses only frames without a copy
//!   (`any_history_of_faults_leaves_every_frame_stored_counted_or_on_disk`).
//! - Memory holds at most [`Limits::staging`] frames that don't fly, [`Limits::replay`] that came from disk, and those that
//!   fly. Disk holds at most [`Limits::max_bytes`], with what is just being written; the oldest go first.
//! - Age is counted by the monotonic clock while the process lives: a jump of the clock expires nothing.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::outgoing::Outgoing;
use super::spool::file::size_on_disk;
use super::spool::folder::Contents;
use super::spool::job::{Done, Job};
use crate::queue::ledger::{DropReason, Ledger, Stage};

/// Frames written in one job.
const WRITES: usize = 8;
/// Files removed in one job.
const REMOVALS: usize = 2048;
/// Attempts to read a file.
const READS: u8 = 3;
/// How much unused time the replay's rate may make up for.
const BURST: Duration = Duration::from_millis(100);

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Frames in memory that don't fly; over this none is accepted.
    pub staging: usize,
    /// Frames from disk in memory.
    pub replay: usize,
    /// Bytes from disk in a second.
    pub replay_rate: u64,
    /// Bytes on disk.
    pub max_bytes: u64,
    /// Time on disk.
    pub max_age: Duration,
    /// Whether a frame is published only when it has a copy on disk.
    pub always: bool,
}

/// What the disk may be used for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Whether frames without a copy are written.
    pub write: bool,
    /// Whether, and how fast, frames on disk are read.
    pub replay: Replay,
}

/// How fast frames on disk are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Not now.
    No,
    /// At [`Limits::replay_rate`].
    Paced,
    /// As fast as they are acknowledged.
    AtOnce,
}

/// Whether a frame in memory is on disk too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backup {
    No,
    Writing,
    There,
    /// The disk's share is taken by frames that can't go.
    NoRoom,
}

#[derive(Debug)]
struct Held {
    outgoing: Outgoing,
    backup: Backup,
    is_flying: bool,
    is_replayed: bool,
    /// What a message may hold, once the server has refused a larger one.
    limit: usize,
    age: Age,
}

#[derive(Debug)]
struct OnDisk {
    counted: u32,
    bytes: u64,
    is_loading: bool,
    failed_reads: u8,
    age: Age,
}

/// An age that no jump of the clock changes.
#[derive(Clone, Copy, Debug)]
struct Age {
    before: Duration,
    since: Instant,
}

impl Age {
    fn at(&self, now: Instant) -> Duration {
        self.before.saturating_add(now.saturating_duration_since(self.since))
    }
}

/// All frames that are not acknowledged.
#[derive(Debug)]
pub struct Outbox {
    ledger: Arc<Ledger>,
    limits: Limits,
    next: u64,
    memory: BTreeMap<u64, Held>,
    disk: BTreeMap<u64, OnDisk>,
    /// Bytes of what is, or is being, written; what is to be removed no longer counts.
    disk_bytes: u64,
    flying: usize,
    replaying: usize,
    replay_at: Option<Instant>,
    removals: VecDeque<(u64, u64)>,
    /// What the job under way removes and writes, with its bytes.
    removing: BTreeMap<u64, u64>,
    writing: BTreeMap<u64, u64>,
}

impl Outbox {
    /// An empty one, whose frames are numbered from `first`: higher than what an earlier process has used.
    pub fn new(ledger: Arc<Ledger>, limits: Limits, first: u64) -> Self {
        Self {
            ledger,
            limits,
            next: first,
            memory: BTreeMap::new(),
            disk: BTreeMap::new(),
            disk_bytes: 0,
            flying: 0,
            replaying: 0,
            replay_at: None,
            removals: VecDeque::new(),
            removing: BTreeMap::new(),
            writing: BTreeMap::new(),
        }
    }

    /// Whether another frame may be accepted.
    pub fn has_room(&self) -> bool {
        self.resting() < self.limits.staging
    }

    /// Frames in memory that don't fly.
    pub fn resting(&self) -> usize {
        self.memory.len() - self.flying
    }

    /// Frames that fly.
    pub fn flying(&self) -> usize {
        self.flying
    }

    /// Frames on disk only.
    pub fn on_disk(&self) -> usize {
        self.disk.len()
    }

    /// Bytes of files, and of those being written.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// Whether nothing is in memory, and no file is left to be removed.
    pub fn is_settled(&self) -> bool {
        self.memory.is_empty() && self.removals.is_empty() && self.removing.is_empty() && self.writing.is_empty()
    }

    /// Whether a frame that could not be written rests in memory.
    pub fn has_unwritten(&self) -> bool {
        self.memory.values().any(|held| held.backup != Backup::There)
    }

    /// Whether a frame is in memory only because the disk's share is too small for it.
    pub fn lacks_room(&self) -> bool {
        self.memory.values().any(|held| held.backup == Backup::NoRoom)
    }

    /// Takes a closed frame.
    pub fn accept(&mut self, outgoing: Outgoing, now: Instant) {
        self.ledger
            .advance(Stage::Building, Stage::Publishing, outgoing.counted.into());
        let held = Held {
            outgoing,
            backup: Backup::No,
            is_flying: false,
            is_replayed: false,
            limit: usize::MAX,
            age: Age {
                before: Duration::ZERO,
                since: now,
            },
        };
        self.memory.insert(self.next, held);
        self.next += 1;
    }

    /// The oldest frame that may fly, with the bytes that a message of it may hold. `has_disk`: whether a copy can be had.
    pub fn next_to_publish(&mut self, has_disk: bool) -> Option<(u64, Outgoing, usize)> {
        let needs_copy = self.limits.always && has_disk;
        let may_fly =
            |held: &Held| !held.is_flying && (!needs_copy || matches!(held.backup, Backup::There | Backup::NoRoom));
        let (number, held) = self.memory.iter_mut().find(|(_, held)| may_fly(held))?;
        held.is_flying = true;
        self.flying += 1;
        Some((*number, held.outgoing.clone(), held.limit))
    }

    /// JetStream has the frame, but for `refused` of its records, which are too large for it.
    pub fn acknowledged(&mut self, number: u64, refused: u32) {
        let Some(held) = self.remove(number) else { return };
        let refused = refused.min(held.outgoing.counted);
        self.ledger.ship((held.outgoing.counted - refused).into());
        if refused > 0 {
            self.ledger
                .drop_at(Stage::Publishing, DropReason::MaxPayload, refused.into());
        }
        if held.backup == Backup::There {
            self.discard(number, size_on_disk(&held.outgoing));
        }
    }

    /// The frame was not acknowledged: it rests, and flies again.
    pub fn returned(&mut self, number: u64) {
        if let Some(held) = self.memory.get_mut(&number).filter(|held| held.is_flying) {
            held.is_flying = false;
            self.flying -= 1;
            if held.backup == Backup::NoRoom {
                held.backup = Backup::No;
            }
        }
    }

    /// The server refused a message of this frame for its size: the next ones hold at most `limit` bytes.
    pub fn too_large(&mut self, number: u64, limit: usize) {
        self.returned(number);
        if let Some(held) = self.memory.get_mut(&number) {
            held.limit = limit;
        }
    }

    /// Whatever flew rests: its acknowledgements are no longer awaited.
    pub fn land(&mut self) {
        let numbers: Vec<u64> = self.memory.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.returned(number));
    }

    /// The outcome of the job under way will never be known: it is taken for a failure.
    pub fn forget_job(&mut self) {
        self.removals.extend(std::mem::take(&mut self.removing));
        let writing: Vec<u64> = self.writing.keys().copied().collect();
        writing.into_iter().for_each(|number| self.written(number, false));
        for on_disk in self.disk.values_mut().filter(|on_disk| on_disk.is_loading) {
            on_disk.is_loading = false;
            self.replaying -= 1;
        }
    }

    /// Lets go, in memory, of every resting frame that has a copy on disk.
    pub fn release(&mut self) {
        let copied = |held: &Held| !held.is_flying && held.backup == Backup::There;
        let numbers: Vec<u64> = self
            .memory
            .iter()
            .filter(|(_, held)| copied(held))
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            let Some(held) = self.remove(number) else { continue };
            let counted = held.outgoing.counted;
            self.ledger.advance(Stage::Publishing, Stage::Spooled, counted.into());
            let on_disk = OnDisk {
                counted,
                bytes: size_on_disk(&held.outgoing),
                is_loading: false,
                failed_reads: 0,
                age: held.age,
            };
            self.disk.insert(number, on_disk);
        }
    }

    /// Drops what has lain on disk for too long.
    pub fn expire(&mut self, now: Instant) {
        while let Some((number, oldest)) = self.disk.first_key_value() {
            if oldest.is_loading || oldest.age.at(now) < self.limits.max_age {
                return;
            }
            let number = *number;
            self.drop_from_disk(number, DropReason::SpoolExpired);
        }
    }

    /// What the disk is to do next. There is one job at a time; [`done`](Self::done) takes its outcome.
    pub fn job(&mut self, wish: Wish, now: Instant) -> Job {
        let write = if wish.write && self.removals.len() < REMOVALS / 2 {
            self.writes()
        } else {
            Vec::new()
        };
        let load = self.loads(wish.replay, now);
        let removals = self.removals.len().min(REMOVALS);
        self.removing = self.removals.drain(..removals).collect();
        Job {
            remove: self.removing.keys().copied().collect(),
            write,
            load,
        }
    }

    fn writes(&mut self) -> Vec<(u64, Outgoing)> {
        let mut writes = Vec::new();
        let resting = |held: &Held| !held.is_flying && held.backup == Backup::No;
        let numbers: Vec<_> = self
            .memory
            .iter()
            .filter(|(_, held)| resting(held))
            .map(|(number, held)| (*number, size_on_disk(&held.outgoing)))
            .take(WRITES)
            .collect();
        for (number, bytes) in numbers {
            let has_room = self.make_room(bytes);
            let Some(held) = self.memory.get_mut(&number) else {
                continue;
            };
            if has_room {
                held.backup = Backup::Writing;
                self.disk_bytes += bytes;
                self.writing.insert(number, bytes);
                writes.push((number, held.outgoing.clone()));
            } else {
                held.backup = Backup::NoRoom;
            }
        }
        writes
    }

    fn loads(&mut self, replay: Replay, now: Instant) -> Vec<u64> {
        let mut loads = Vec::new();
        let mut at = self.replay_at.map_or(now, |at| at.max(now - BURST));
        while replay != Replay::No && self.replaying < self.limits.replay && (at <= now || replay == Replay::AtOnce) {
            let Some((number, on_disk)) = self.disk.iter_mut().find(|(_, on_disk)| !on_disk.is_loading) else {
                break;
            };
            on_disk.is_loading = true;
            self.replaying += 1;
            at += Duration::from_secs(1).mul_f64(on_disk.bytes as f64 / self.limits.replay_rate.max(1) as f64);
            loads.push(*number);
        }
        self.replay_at = Some(at);
        loads
    }

    /// Takes a job's outcome. Gives back the first error that the disk answered with.
    pub fn done(&mut self, done: Done) -> Option<std::io::Error> {
        let mut failed = None;
        for (number, removed) in done.removed {
            let bytes = self.removing.remove(&number).unwrap_or_default();
            if let Err(error) = removed {
                self.removals.push_back((number, bytes));
                failed.get_or_insert(error);
            }
        }
        for (number, written) in done.written {
            self.written(number, written.is_ok());
            if let Err(error) = written {
                failed.get_or_insert(error);
            }
        }
        for (number, loaded) in done.loaded {
            match loaded {
                Ok(outgoing) => self.loaded(number, outgoing),
                Err(error) => {
                    self.unreadable(number, error.kind());
                    failed.get_or_insert(error);
                }
            }
        }
        failed
    }

    fn written(&mut self, number: u64, is_there: bool) {
        let bytes = self.writing.remove(&number).unwrap_or_default();
        match (self.memory.get_mut(&number), is_there) {
            (Some(held), true) => held.backup = Backup::There,
            (Some(held), false) => {
                held.backup = Backup::No;
                self.disk_bytes -= bytes;
            }
            // It was acknowledged in the meantime.
            (None, true) => self.discard(number, bytes),
            (None, false) => self.disk_bytes -= bytes,
        }
    }

    fn loaded(&mut self, number: u64, outgoing: Outgoing) {
        let Some(on_disk) = self.disk.remove(&number) else {
            self.replaying -= 1;
            return;
        };
        self.ledger
            .advance(Stage::Spooled, Stage::Publishing, on_disk.counted.into());
        let held = Held {
            outgoing,
            backup: Backup::There,
            is_flying: false,
            is_replayed: true,
            limit: usize::MAX,
            age: on_disk.age,
        };
        self.memory.insert(number, held);
    }

    /// A damaged file is dropped at once; what the disk doesn't give is asked for again, but not for ever.
    fn unreadable(&mut self, number: u64, kind: ErrorKind) {
        self.replaying -= 1;
        let Some(on_disk) = self.disk.get_mut(&number) else {
            return;
        };
        on_disk.is_loading = false;
        on_disk.failed_reads += 1;
        let is_damaged = matches!(kind, ErrorKind::InvalidData | ErrorKind::UnexpectedEof);
        if is_damaged || on_disk.failed_reads >= READS {
            self.drop_from_disk(number, DropReason::SpoolDamaged);
        }
    }

    /// Takes over what lies in the folder, after it was opened for the first time or again. Gives back how many records are new
    /// to us, and how many are gone.
    pub fn opened(&mut self, contents: &Contents, wall_clock: u64, now: Instant) -> (u64, u64) {
        let there: BTreeMap<u64, u64> = contents
            .frames
            .iter()
            .map(|found| (found.number, found.bytes))
            .collect();
        let gone: Vec<u64> = self
            .disk
            .keys()
            .filter(|number| !there.contains_key(number))
            .copied()
            .collect();
        let before = self.ledger.balance();
        for number in gone {
            self.drop_from_disk(number, DropReason::SpoolDamaged);
        }
        self.removals.retain(|(number, _)| there.contains_key(number));
        for (number, held) in &mut self.memory {
            if held.backup == Backup::There && !there.contains_key(number) {
                held.backup = Backup::No;
            }
        }
        let removed: u64 = self.removals.iter().map(|(_, bytes)| *bytes).sum();
        self.disk_bytes = there.values().sum::<u64>().saturating_sub(removed);
        let doomed: Vec<u64> = self.removals.iter().map(|(number, _)| *number).collect();
        for found in &contents.frames {
            let number = found.number;
            let is_known =
                self.memory.contains_key(&number) || self.disk.contains_key(&number) || doomed.contains(&number);
            if is_known {
                continue;
            }
            let before = Duration::from_nanos(wall_clock.saturating_sub(found.last_observed));
            let on_disk = OnDisk {
                counted: found.counted,
                bytes: found.bytes,
                is_loading: false,
                failed_reads: 0,
                age: Age { before, since: now },
            };
            self.ledger.recover(found.counted.into());
            self.disk.insert(number, on_disk);
        }
        // A removal that failed before a crash left more than there may be.
        self.make_room(0);
        let highest = contents.frames.last().map_or(0, |found| found.number + 1);
        self.next = self.next.max(highest);
        let damaged = DropReason::SpoolDamaged as usize;
        let after = self.ledger.balance();
        (
            after.recovered - before.recovered,
            after.dropped.get(damaged).copied().unwrap_or_default()
                - before.dropped.get(damaged).copied().unwrap_or_default(),
        )
    }

    /// Drops what is in memory and nowhere else, and leaves to the next process what has a copy. Gives back how many records
    /// are lost.
    pub fn give_up(&mut self, reason: DropReason) -> u64 {
        self.land();
        self.release();
        let lost: u64 = self.memory.values().map(|held| u64::from(held.outgoing.counted)).sum();
        self.ledger.drop_at(Stage::Publishing, reason, lost);
        self.memory.clear();
        self.replaying = 0;
        lost
    }

    fn remove(&mut self, number: u64) -> Option<Held> {
        let held = self.memory.remove(&number)?;
        self.flying -= usize::from(held.is_flying);
        self.replaying -= usize::from(held.is_replayed);
        Some(held)
    }

    /// Drops the oldest on disk until `bytes` more fit; false if they never will.
    fn make_room(&mut self, bytes: u64) -> bool {
        while self.disk_bytes + bytes > self.limits.max_bytes {
            let oldest = self.disk.iter().find(|(_, on_disk)| !on_disk.is_loading);
            let Some(number) = oldest.map(|(number, _)| *number) else {
                return false;
            };
            self.drop_from_disk(number, DropReason::SpoolFull);
        }
        true
    }

    fn drop_from_disk(&mut self, number: u64, reason: DropReason) {
        if let Some(on_disk) = self.disk.remove(&number) {
            self.ledger.drop_at(Stage::Spooled, reason, on_disk.counted.into());
            self.discard(number, on_disk.bytes);
        }
    }

    /// The file is to be removed.
    fn discard(&mut self, number: u64, bytes: u64) {
        self.disk_bytes -= bytes;
        self.removals.push_back((number, bytes));
    }
}

#[cfg(test)]
mod model;
