//! Closed frames on their way: outbox, disk and JetStream put together.
//!
//! What decides is in the [outbox](super::outbox); here is when. Frames go to disk when NATS takes none, or fewer than
//! come; with `spool.mode = "always"` each goes there first. What lies on disk is sent when nothing newer waits.
//!
//! Invariants:
//! - Neither the disk nor NATS is waited for: each has its futures, and [`next`](Delivery::next) takes whichever comes.
//! - When both fail, no more frames are accepted, and the queue's limit decides.

use std::sync::Arc;
use std::time::Duration;

use sidelog_chassis::nats::{Connection, subject_for};
use sidelog_record::frame::Frame;
use tokio::time::Instant;
use uuid::Uuid;

use super::counts::Counts;
use super::jetstream::{Answer, Publisher};
use super::loss::wall_clock;
use super::outbox::{Limits, Outbox, Replay, Wish};
use super::outgoing::Outgoing;
use super::spool::{News, Place, Spool};
use crate::queue::Queue;
use crate::queue::ledger::DropReason;
use crate::settings::{Settings, SpoolMode};

/// Frames in memory beside those in flight.
const STAGING: usize = 16;
/// Frames from disk in memory, those in flight included.
const REPLAY: usize = 8;
/// Characters of a service's name in its folder's.
const LONGEST_NAME: usize = 100;
/// So long nothing may be acknowledged before frames go to disk.
const STALL: Duration = Duration::from_millis(500);

/// Frames that are not acknowledged, and the ways they can go.
pub struct Delivery {
    outbox: Outbox,
    publisher: Publisher,
    spool: Spool,
    subject: Arc<str>,
    start: Uuid,
    sequence: u64,
    always: bool,
    /// When something was last acknowledged, or nothing was to be.
    progress: Instant,
    /// Whether the process ends and everything goes to disk.
    is_evacuating: bool,
    counts: Arc<Counts>,
}

impl Delivery {
    /// A delivery for the frames of this process, whose first listener has `port`. Call it inside the runtime that will
    /// drive it.
    pub fn new(
        connection: Connection,
        settings: &Settings,
        port: u16,
        queue: &Arc<Queue>,
        counts: Arc<Counts>,
    ) -> Self {
        let spool = &settings.spool;
        let always = spool.mode == SpoolMode::Always;
        let limits = Limits {
            staging: STAGING,
            replay: REPLAY.min(settings.publish.window),
            replay_rate: spool.replay_rate.bytes(),
            max_bytes: spool.max_bytes.bytes(),
            max_age: spool.max_age,
            always,
        };
        let place = (spool.max_bytes.bytes() > 0).then(|| Place {
            directory: spool.folder(),
            name: format!("{}-{port}", file_name(&settings.service.name)),
        });
        Self {
            outbox: Outbox::new(Arc::clone(queue.ledger()), limits, wall_clock()),
            publisher: Publisher::new(connection, settings),
            spool: Spool::new(place, Arc::clone(&counts)),
            subject: subject_for(&settings.nats.subject, &settings.service.name).into(),
            start: Uuid::now_v7(),
            sequence: 0,
            always,
            progress: Instant::now(),
            is_evacuating: false,
            counts,
        }
    }

    /// Whether another frame may be handed over.
    pub fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// Whether nothing is in memory and nothing on disk.
    pub fn is_idle(&self) -> bool {
        self.is_settled() && self.outbox.on_disk() == 0
    }

    /// Whether nothing is in memory, and the folder is as it should be.
    pub fn is_settled(&self) -> bool {
        self.outbox.is_settled() && !self.spool.is_opening(Instant::now())
    }

    /// Whether there is a server, and it takes frames.
    pub fn can_ship(&self) -> bool {
        self.publisher.is_connected() && !self.publisher.is_failing()
    }

    /// Whether there is a server to publish to.
    pub fn is_connected(&self) -> bool {
        self.publisher.is_connected()
    }

    /// The bytes that a frame may have to be one message.
    pub fn message_max(&self) -> usize {
        self.publisher.message_max()
    }

    /// Whether nothing can be published at this instant.
    pub fn is_held_up(&self) -> bool {
        self.publisher.room() == 0
    }

    /// How long something has waited in vain for an acknowledgement.
    pub fn stalled_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.progress)
    }

    /// Whether the disk takes nothing, and something in memory is not on it.
    pub fn cannot_save(&self, now: Instant) -> bool {
        self.outbox.has_unwritten() && (!self.spool.is_usable(now) || self.outbox.lacks_room())
    }

    /// Takes a closed frame of `counted` records that the ledger counts.
    pub fn accept(&mut self, frame: Frame, counted: u32) {
        let id = format!("{}-{}", self.start.simple(), self.sequence);
        self.sequence += 1;
        let mut outgoing = Outgoing::new(id, Arc::clone(&self.subject), frame);
        outgoing.counted = counted;
        self.outbox.accept(outgoing, Instant::now());
    }

    /// From now on nothing is published; everything goes to disk.
    pub fn evacuate(&mut self) {
        if !self.is_evacuating {
            self.is_evacuating = true;
            self.publisher.abandon();
            self.outbox.land();
        }
    }

    /// After a panic: what was in flight is sent again.
    pub fn recover(&mut self) {
        self.publisher.abandon();
        self.outbox.land();
        if !self.spool.recover() {
            self.outbox.forget_job();
        }
    }

    /// Drops what is nowhere but in memory, and counts it.
    pub fn give_up(&mut self, reason: DropReason) -> u64 {
        self.publisher.abandon();
        self.outbox.give_up(reason)
    }

    /// Moves everything one step on. `is_ending`: what lies on disk is sent as fast as it goes.
    pub fn work(&mut self, is_ending: bool) {
        let now = Instant::now();
        self.spool.tend(now);
        self.outbox.expire(now);
        if !self.is_evacuating {
            self.publish(now);
        }
        if self.outbox.resting() + self.outbox.flying() == 0 {
            self.progress = now;
        }
        let is_pressed = self.is_evacuating || !self.outbox.has_room() || self.stalled_for(now) >= STALL;
        if is_pressed {
            self.outbox.release();
        }
        if self.spool.is_free(now) {
            let replay = match is_ending {
                _ if is_pressed || self.is_held_up() => Replay::No,
                true => Replay::AtOnce,
                false => Replay::Paced,
            };
            let write = is_pressed || self.always;
            let job = self.outbox.job(Wish { write, replay }, now);
            if !job.is_empty() {
                self.spool.start(job, now);
            }
        }
        self.counts.spool_holds(self.outbox.disk_bytes());
        self.counts
            .flying(self.publisher.in_flight(), self.publisher.is_failing());
    }

    fn publish(&mut self, now: Instant) {
        let has_disk = self.spool.is_usable(now);
        for _ in 0..self.publisher.room() {
            let Some((number, mut outgoing, limit)) = self.outbox.next_to_publish(has_disk) else {
                return;
            };
            if outgoing.subject != self.subject {
                // It was spooled under other settings; the stream of today may not know that subject.
                outgoing.subject = Arc::clone(&self.subject);
            }
            self.publisher.publish(number, outgoing, limit);
        }
    }

    /// Waits for the next thing that JetStream or the disk has to say; for ever if they owe us nothing. Cancel safe.
    pub async fn next(&mut self) {
        tokio::select! {
            answer = self.publisher.next() => self.answered(&answer),
            news = self.spool.next() => self.heard(news),
        }
    }

    fn answered(&mut self, answer: &Answer) {
        match *answer {
            Answer::Stored {
                number,
                refused,
                bytes,
                took,
            } => {
                self.progress = Instant::now();
                self.counts.acknowledged(bytes, took);
                self.outbox.acknowledged(number, refused);
            }
            Answer::Failed { number } => {
                self.counts.publish_failed();
                self.outbox.returned(number);
            }
            Answer::TooLarge { number, limit } => {
                self.counts.publish_failed();
                self.outbox.too_large(number, limit);
            }
        }
    }

    fn heard(&mut self, news: News) {
        match news {
            News::Unusable => {}
            News::Opened(contents) => {
                let (recovered, lost) = self.outbox.opened(&contents, wall_clock(), Instant::now());
                if recovered > 0 {
                    tracing::info!(
                        records = recovered,
                        "records of an earlier process are in the spool, and will be sent"
                    );
                }
                if lost > 0 {
                    tracing::error!(records = lost, "records are gone from the spool");
                }
            }
            News::Done(done) => match self.outbox.done(done) {
                Some(error) => self.spool.job_failed(&error),
                None => self.spool.job_succeeded(),
            },
        }
    }
}

/// A service's name as part of a file's. Names that look alike then share a folder only if they share a port, too, and not
/// at a time.
fn file_name(service: &str) -> String {
    subject_for("*", service).chars().take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_name_is_safe_in_a_path() {
        assert_eq!(file_name("api-service"), "api-service");
        assert_eq!(file_name("../etc/a b"), "___etc_a_b");
        assert_eq!(file_name(&"ü".repeat(255)).len(), LONGEST_NAME);
    }
}
