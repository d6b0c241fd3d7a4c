//! Why a body is not in its record.

use crate::closed_set::closed_set;

closed_set! {
    /// The reason that a body's content, or a part of it, is not recorded.
    pub enum Omitted {
        /// Its content type is not among the recorded ones.
        ContentType = "content_type",
        /// The route's policy records no body in this direction.
        Policy = "policy",
        /// The exchange ended in a way whose bodies are not kept.
        Tail = "tail",
        /// The memory for captures or for the queue was spent.
        Budget = "budget",
        /// It could not be decoded as text.
        Decode = "decode",
        /// It could not be searched for secrets, so nothing of it is kept.
        Redaction = "redaction",
        /// The connection was upgraded; what follows is no body.
        Upgraded = "upgraded",
    }
}
