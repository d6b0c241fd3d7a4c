//! The outbox on a real folder, against a server that is a set of ids: random histories of faults, crashes and restarts.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::queue::ledger::Balance;
use crate::shipping::outgoing::tests::outgoing;
use crate::shipping::spool::file;
use crate::shipping::spool::folder::Folder;

/// Frames take one to three blocks.
const BLOCK: usize = 4096;

#[derive(Clone, Debug)]
enum Step {
    /// A frame of so many records and blocks is closed.
    Accept { records: u32, blocks: usize },
    /// As many frames fly as may.
    Publish { has_disk: bool },
    /// One of the frames that fly is answered.
    Answer { which: prop::sample::Index, answer: Answer },
    /// The disk does what is to be done; some of it fails.
    Disk { write: bool, replay: bool, fault: Fault },
    /// Frames that are on disk are let go of.
    Release,
    /// Time passes.
    Wait { seconds: u64 },
    /// The process is killed, and another one takes over.
    Crash,
    /// The disk was gone, and is opened again.
    Reopen,
    /// A panic: nothing is known of what flew, or of the disk's last job.
    Panic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Acknowledged,
    /// The server has it, but its answer is lost.
    Unheard,
    MessageLost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Writes,
    Removals,
    Reads,
}

fn step() -> impl Strategy<Value = Step> {
    let answer = prop_oneof![
        4 => Just(Answer::Acknowledged),
        1 => Just(Answer::Unheard),
        1 => Just(Answer::MessageLost)
    ];
    let fault = prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::Writes),
        1 => Just(Fault::Removals),
        1 => Just(Fault::Reads)
    ];
    prop_oneof![
        12 => (1..4_u32, 0..3_usize).prop_map(|(records, blocks)| Step::Accept { records, blocks }),
        6 => any::<bool>().prop_map(|has_disk| Step::Publish { has_disk }),
        10 => (any::<prop::sample::Index>(), answer).prop_map(|(which, answer)| Step::Answer { which, answer }),
        12 => (any::<bool>(), any::<bool>(), fault)
            .prop_map(|(write, replay, fault)| Step::Disk { write, replay, fault }),
        4 => Just(Step::Release),
        2 => (0..5_u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Crash),
        1 => Just(Step::Reopen),
        1 => Just(Step::Panic),
    ]
}

/// What a history runs on, and what is true whatever the outbox says.
struct World {
    directory: TempDir,
    folder: Option<Folder>,
    limits: Limits,
    ledger: Arc<Ledger>,
    outbox: Outbox,
    flying: Vec<(u64, Outgoing)>,
    now: Instant,
    /// Records of every frame ever accepted, by id.
    accepted: BTreeMap<String, u64>,
    /// What the server holds.
    server: BTreeMap<String, u64>,
    /// Records dropped by earlier processes, and those that a crash took out of memory.
    dropped: u64,
    crashed: u64,
}

impl World {
    fn new(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::default());
        let mut world = Self {
            outbox: Outbox::new(Arc::clone(&ledger), limits, 7),
            ledger,
            directory,
            folder: None,
            limits,
            flying: Vec::new(),
            now: Instant::now(),
            accepted: BTreeMap::new(),
            server: BTreeMap::new(),
            dropped: 0,
            crashed: 0,
        };
        world.open();
        world
    }

    fn open(&mut self) {
        self.folder = None;
        let (folder, contents) = Folder::open(self.directory.path(), "api-8080").unwrap();
        self.outbox.opened(&contents, 9, self.now);
        self.folder = Some(folder);
    }

    fn balance(&self) -> Balance {
        self.ledger.balance()
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Accept { records, blocks } => self.accept(records, blocks),
            Step::Publish { has_disk } => {
                while let Some((number, outgoing, _)) = self.outbox.next_to_publish(has_disk) {
                    self.flying.push((number, outgoing));
                }
            }
            Step::Answer { which, answer } => {
                if !self.flying.is_empty() {
                    let (number, outgoing) = self.flying.swap_remove(which.index(self.flying.len()));
                    self.answer(number, &outgoing, answer);
                }
            }
            Step::Disk { write, replay, fault } => {
                let replay = if replay { Replay::AtOnce } else { Replay::No };
                self.disk(Wish { write, replay }, fault);
            }
            Step::Release => self.outbox.release(),
            Step::Wait { seconds } => {
                self.now += Duration::from_secs(seconds);
                self.outbox.expire(self.now);
            }
            Step::Crash => self.crash(),
            Step::Reopen => self.open(),
            Step::Panic => {
                self.flying.clear();
                self.outbox.land();
                self.outbox.forget_job();
            }
        }
    }

    fn accept(&mut self, records: u32, blocks: usize) {
        if !self.outbox.has_room() {
            return;
        }
        let id = format!("id-{}", self.accepted.len());
        let frame = outgoing(&id, records, (blocks * BLOCK / records as usize).max(2));
        self.accepted.insert(id, records.into());
        (0..records).for_each(|_| self.ledger.offer());
        self.ledger.take(records.into());
        self.outbox.accept(frame, self.now);
    }

    fn answer(&mut self, number: u64, outgoing: &Outgoing, answer: Answer) {
        if answer != Answer::MessageLost {
            // The server takes an id once.
            self.server.insert(outgoing.id.clone(), outgoing.counted.into());
        }
        match answer {
            Answer::Acknowledged => self.outbox.acknowledged(number, 0),
            Answer::Unheard | Answer::MessageLost => self.outbox.returned(number),
        }
    }

    fn disk(&mut self, wish: Wish, fault: Fault) {
        let job = self.outbox.job(wish, self.now);
        let folder = self.folder.as_ref().unwrap();
        // As in a real job, nothing is written when something can't be removed.
        let is_stuck = fault == Fault::Removals && !job.remove.is_empty();
        let mut spoilt = Job {
            remove: job.remove.clone(),
            write: job.write.clone(),
            load: job.load.clone(),
        };
        match fault {
            Fault::Removals if is_stuck => (spoilt.remove, spoilt.write) = (Vec::new(), Vec::new()),
            Fault::Writes => spoilt.write.clear(),
            Fault::Reads => spoilt.load.clear(),
            Fault::None | Fault::Removals => {}
        }
        let (mut done, failed) = (spoilt.run(folder), job.failed());
        match fault {
            Fault::None => {}
            Fault::Writes => done.written = failed.written,
            Fault::Removals if is_stuck => (done.removed, done.written) = (failed.removed, failed.written),
            Fault::Removals => {}
            Fault::Reads => done.loaded = failed.loaded,
        }
        let error = self.outbox.done(done);
        assert!(error.is_none_or(|error| error.kind() == ErrorKind::Other));
    }

    /// What was in memory and nowhere else is lost; the rest must come back.
    fn crash(&mut self) {
        let before = self.balance();
        self.dropped += before.dropped_total();
        let copied = |held: &&Held| held.backup == Backup::There;
        let copies: u64 = self
            .outbox
            .memory
            .values()
            .filter(copied)
            .map(|held| u64::from(held.outgoing.counted))
            .sum();
        self.crashed += before.publishing - copies;
        self.flying.clear();
        self.ledger = Arc::new(Ledger::default());
        self.outbox = Outbox::new(Arc::clone(&self.ledger), self.limits, 7);
        self.open();
        let recovered = self.balance().recovered;
        assert!(
            recovered >= before.spooled + copies,
            "of {} and {copies} on disk, {recovered} came back",
            before.spooled
        );
    }

    fn assert_sound(&self) {
        let balance = self.balance();
        assert!(balance.adds_up(), "{balance:?}");
        assert!(self.outbox.replaying <= self.limits.replay);
        let on_disk = bytes_in(&self.directory.path().join("api-8080"));
        let doomed: u64 = self.outbox.removals.iter().map(|(_, bytes)| bytes).sum();
        assert!(on_disk <= self.limits.max_bytes + doomed, "{on_disk} bytes on disk");
    }

    /// The server is back, the disk is well.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.disk(
                Wish {
                    write: self.limits.always,
                    replay: Replay::AtOnce,
                },
                Fault::None,
            );
            self.take(&Step::Publish { has_disk: true });
            for (number, outgoing) in std::mem::take(&mut self.flying) {
                self.answer(number, &outgoing, Answer::Acknowledged);
            }
            if self.outbox.is_settled() && self.outbox.on_disk() == 0 {
                return;
            }
        }
        panic!("it never settles: {:?}", self.outbox);
    }
}

fn bytes_in(folder: &Path) -> u64 {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "frame"))
        .map(|entry| file::blocks(entry.metadata().unwrap().len()))
        .sum()
}

fn run(limits: Limits, steps: &[Step]) -> World {
    let mut world = World::new(limits);
    for step in steps {
        world.take(step);
        world.assert_sound();
    }
    // What still flies is never answered.
    world.flying.clear();
    world.outbox.land();
    world.settle();
    world.assert_sound();
    world
}

fn missing(world: &World) -> u64 {
    let missing = world.accepted.iter().filter(|(id, _)| !world.server.contains_key(*id));
    missing.map(|(_, records)| records).sum()
}

const ROOMY: Limits = Limits {
    staging: 6,
    replay: 3,
    replay_rate: 1 << 30,
    max_bytes: 1 << 30,
    max_age: Duration::from_secs(1 << 30),
    always: false,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_faults_leaves_every_frame_stored_counted_or_on_disk(
        steps in proptest::collection::vec(step(), 1..120),
        always in any::<bool>(),
        blocks in prop_oneof![Just(1_u64 << 20), 4..20_u64],
        max_age in prop_oneof![Just(1_u64 << 30), 3..10_u64],
    ) {
        let limits = Limits {
            always,
            max_bytes: blocks * BLOCK as u64,
            max_age: Duration::from_secs(max_age),
            ..ROOMY
        };
        let world = run(limits, &steps);
        let dropped = world.dropped + world.balance().dropped_total();
        prop_assert!(missing(&world) <= dropped + world.crashed, "{} are missing", missing(&world));
        let is_roomy = blocks == 1 << 20 && max_age == 1 << 30;
        let reads_fail = steps.iter().any(|step| matches!(step, Step::Disk { fault: Fault::Reads, .. }));
        if is_roomy && !reads_fail {
            prop_assert_eq!(dropped, 0);
            prop_assert!(missing(&world) <= world.crashed);
        }
    }
}

#[test]
fn with_always_a_crash_loses_nothing_that_was_published() {
    let limits = Limits { always: true, ..ROOMY };
    let mut world = World::new(limits);
    (0..6).for_each(|_| world.accept(2, 1));
    world.take(&Step::Publish { has_disk: true });
    assert!(world.flying.is_empty(), "no frame flies without a copy");
    world.disk(
        Wish {
            write: true,
            replay: Replay::No,
        },
        Fault::None,
    );
    world.take(&Step::Publish { has_disk: true });
    assert_eq!(world.flying.len(), 6);
    world.crash();
    assert_eq!(world.crashed, 0);
    world.settle();
    assert_eq!(missing(&world), 0);
}

#[test]
fn the_oldest_go_first_when_the_disk_is_full() {
    let limits = Limits {
        max_bytes: 4 * BLOCK as u64,
        ..ROOMY
    };
    let mut world = World::new(limits);
    let wish = Wish {
        write: true,
        replay: Replay::No,
    };
    for _ in 0..6 {
        world.accept(1, 0);
        world.disk(wish, Fault::None);
        world.outbox.release();
    }
    world.settle();
    let kept: Vec<_> = world.server.keys().cloned().collect();
    assert_eq!(kept, ["id-2", "id-3", "id-4", "id-5"]);
    assert_eq!(world.balance().dropped[DropReason::SpoolFull as usize], 2);
}

#[test]
fn a_frame_expires_by_its_age_and_not_by_the_clock() {
    let limits = Limits {
        max_age: Duration::from_secs(60),
        ..ROOMY
    };
    let mut world = World::new(limits);
    world.accept(1, 0);
    let wish = Wish {
        write: true,
        replay: Replay::No,
    };
    world.disk(wish, Fault::None);
    world.outbox.release();
    world.take(&Step::Wait { seconds: 59 });
    assert_eq!(world.balance().spooled, 1);
    world.take(&Step::Wait { seconds: 1 });
    assert_eq!(world.balance().dropped[DropReason::SpoolExpired as usize], 1);
}

#[test]
fn the_replay_keeps_to_its_rate() {
    let limits = Limits {
        replay: 100,
        staging: 100,
        replay_rate: 10 * BLOCK as u64,
        ..ROOMY
    };
    let mut world = World::new(limits);
    let wish = Wish {
        write: true,
        replay: Replay::No,
    };
    (0..80).for_each(|_| world.accept(1, 0));
    (0..10).for_each(|_| world.disk(wish, Fault::None));
    world.outbox.release();
    assert_eq!(world.outbox.on_disk(), 80);
    let paced = Wish {
        write: false,
        replay: Replay::Paced,
    };
    for _ in 0..40 {
        world.now += Duration::from_millis(50);
        world.disk(paced, Fault::None);
    }
    let sent = 80 - world.outbox.on_disk();
    assert!(
        (18..=23).contains(&sent),
        "{sent} frames of a block in 2 s, at 10 blocks a second"
    );
}
