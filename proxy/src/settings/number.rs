//! Numbers with a range.

use std::fmt::Display;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// More threads than this are a mistake.
const MAX_THREADS: usize = 256;

/// A count of at least one.
pub(super) fn positive<'de, D, N>(deserializer: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de> + Default + PartialEq + Display,
{
    let number = N::deserialize(deserializer)?;
    if number == N::default() {
        return Err(D::Error::custom(format!("{number} is too few; write 1 or more")));
    }
    Ok(number)
}

pub(super) fn threads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let threads = usize::deserialize(deserializer)?;
    if threads == 0 || threads > MAX_THREADS {
        let advice = format!("write 1 to {MAX_THREADS}; one thread serves a whole core");
        return Err(D::Error::custom(format!("{threads} is out of range; {advice}")));
    }
    Ok(threads)
}

/// A share from 0 to 1.
pub(super) fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(deserializer)?;
    if !(0.0..=1.0).contains(&share) {
        return Err(D::Error::custom(format!(
            "{share} is not a share; write 0.0 (none) to 1.0 (all)"
        )));
    }
    Ok(share)
}
