//! A moment that is put off with every request, by a timer that is touched only when it must be.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A time limit that may or may not be running.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    due: Option<Instant>,
    /// Fires at the deadline, or before it: then it is looked at again.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// It is due in `time`.
    pub(super) fn set(&mut self, time: Duration) {
        self.due = Some(Instant::now() + time);
    }

    /// Nothing is due.
    pub(super) fn clear(&mut self) {
        self.due = None;
    }

    /// Whether it runs.
    pub(super) fn is_set(&self) -> bool {
        self.due.is_some()
    }

    /// Ready once it is due; else the task is woken then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        loop {
            std::task::ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                self.due = None;
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_due_when_it_was_last_said_to_be() {
        let mut deadline = Deadline::default();
        let due = async |deadline: &mut Deadline| {
            let start = Instant::now();
            std::future::poll_fn(|cx| deadline.poll(cx)).await;
            start.elapsed().as_secs()
        };
        deadline.set(Duration::from_secs(10));
        deadline.set(Duration::from_secs(50));
        assert_eq!(due(&mut deadline).await, 50);
        deadline.set(Duration::from_secs(50));
        assert!(
            std::future::poll_fn(|cx| Poll::Ready(deadline.poll(cx)))
                .await
                .is_pending()
        );
        deadline.set(Duration::from_secs(5));
        assert_eq!(due(&mut deadline).await, 5);
        assert!(!deadline.is_set());
    }
}
