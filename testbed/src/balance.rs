//! What a proxy counts of its records, which adds up whenever it is read: offered + recovered = shipped + dropped + those that are
//! still here, each in one place.

use crate::{Sidelog, wait};

/// What the proxy counts.
#[derive(Debug, Default)]
pub struct Balance {
    metrics: String,
}

impl Balance {
    /// Reads the counts.
    ///
    /// # Panics
    /// When they don't add up.
    pub async fn of(proxy: &Sidelog) -> Self {
        let balance = Self {
            metrics: proxy.metrics().await,
        };
        let here = balance.queued() + balance.building() + balance.publishing() + balance.spooled();
        assert_eq!(
            balance.offered() + balance.recovered(),
            balance.shipped() + balance.dropped() + here,
            "{}",
            balance.metrics
        );
        balance
    }

    fn sum(&self, name: &str) -> u64 {
        let samples = self.metrics.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit_once(' '))?
        });
        samples.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    }

    /// Records made of exchanges.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.sum("sidelog_records_offered_total")
    }

    /// Records taken over from an earlier process's spool.
    #[must_use]
    pub fn recovered(&self) -> u64 {
        self.sum("sidelog_records_recovered_total")
    }

    /// Records that JetStream acknowledged.
    #[must_use]
    pub fn shipped(&self) -> u64 {
        self.sum("sidelog_records_shipped_total")
    }

    /// Records dropped, for whatever reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.sum("sidelog_records_dropped_total")
    }

    /// Records dropped for this reason.
    #[must_use]
    pub fn dropped_for(&self, reason: &str) -> u64 {
        self.sum(&format!("sidelog_records_dropped_total{{reason=\"{reason}\"}}"))
    }

    /// Records in the queue.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.sum("sidelog_records_queued")
    }

    /// Records in the open frame.
    #[must_use]
    pub fn building(&self) -> u64 {
        self.sum("sidelog_records_building")
    }

    /// Records in frames in memory that JetStream has not acknowledged.
    #[must_use]
    pub fn publishing(&self) -> u64 {
        self.sum("sidelog_records_publishing")
    }

    /// Records on disk only.
    #[must_use]
    pub fn spooled(&self) -> u64 {
        self.sum("sidelog_records_spooled")
    }

    /// What the disk refused.
    #[must_use]
    pub fn spool_errors(&self) -> u64 {
        self.sum("sidelog_spool_errors_total")
    }

    /// What the spool takes on disk.
    #[must_use]
    pub fn spool_bytes(&self) -> u64 {
        self.sum("sidelog_spool_bytes")
    }
}

/// Waits until everything that was offered is shipped or dropped.
///
/// # Panics
/// When that takes too long.
pub async fn settled(proxy: &Sidelog) -> Balance {
    wait::obtain("every record is shipped or dropped", async || {
        let balance = Balance::of(proxy).await;
        (balance.shipped() + balance.dropped() == balance.offered() + balance.recovered()).then_some(balance)
    })
    .await
}

/// Waits until the balance is as `condition` wants it.
///
/// # Panics
/// When that takes too long.
pub async fn balanced(proxy: &Sidelog, what: &str, condition: impl Fn(&Balance) -> bool) -> Balance {
    wait::obtain(what, async || {
        Some(Balance::of(proxy).await).filter(|balance| condition(balance))
    })
    .await
}
