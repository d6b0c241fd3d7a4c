//! How serious a record is; the value of Loki's `level` label.

use crate::closed_set::closed_set;

closed_set! {
    /// The severity of a record, by [`End::level`](crate::End::level).
    #[derive(Default, PartialOrd, Ord)]
    pub enum Level {
        /// Nothing to look at.
        #[default]
        Info = "info",
        /// The client's doing: a 4xx, or it went away.
        Warn = "warn",
        /// The service's or sidelog's doing.
        Error = "error",
    }
}
