//! Waiting for a condition, never for a time.
//!
//! A condition is asked again and again until it holds. One that never holds ends the test with the words it was given.

use std::time::{Duration, Instant};

/// How long a condition may take before the test fails. Long, because machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not hold within [`PATIENCE`].
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    obtain(what, async || condition().await.then_some(())).await;
}

/// Waits until `question` has an answer, and returns it.
///
/// # Panics
/// When there is none within [`PATIENCE`].
pub async fn obtain<T>(what: &str, question: impl AsyncFnMut() -> Option<T>) -> T {
    obtain_within(PATIENCE, what, question).await
}

/// Waits until `question` has an answer, and returns it.
///
/// # Panics
/// When there is none within `patience`.
pub async fn obtain_within<T>(patience: Duration, what: &str, mut question: impl AsyncFnMut() -> Option<T>) -> T {
    let ends = Instant::now() + patience;
    loop {
        if let Some(answer) = question().await {
            return answer;
        }
        assert!(Instant::now() < ends, "waited {patience:?} in vain: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_answer_is_returned() {
        let mut asked = 0;
        let answer = obtain("three questions", async || {
            asked += 1;
            (asked == 3).then_some("yes")
        })
        .await;
        assert_eq!((answer, asked), ("yes", 3));
    }

    #[tokio::test]
    #[should_panic(expected = "in vain: pigs fly")]
    async fn a_condition_that_never_holds_fails_by_its_name() {
        let never: Option<()> = None;
        obtain_within(Duration::from_millis(30), "pigs fly", async || never).await;
    }
}
