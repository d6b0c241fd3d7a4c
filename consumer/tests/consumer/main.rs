//! The consumer as an operator runs it, between a real nats-server and a store.
//!
//! | Module | What it shows |
//! |---|---|
//! | `answers` | what the store answers, and what becomes of the records |
//! | `backlog` | a large one, while everything is killed again and again |
//! | `bad_input` | what is no record is set aside, the rest arrives |
//! | `command_line` | settings, exit statuses |
//! | `dead_letters` | the commands that list and resend them |
//! | `lag` | how far behind it is, and what is in its way |
//! | `late` | entries too far behind, too old, too new |
//! | `restarts` | stores, servers and consumers that go away and come back |
//! | `sinks` | files and standard output |
//! | `streams` | a stream that the store refuses holds up no other |
//! | `tls` | certificates of the store, and ours |
//! | `verbs` | what an operator asks the admin endpoints for |

mod answers;
mod backlog;
mod bad_input;
mod bench;
mod command_line;
mod dead_letters;
mod lag;
mod late;
mod restarts;
mod sinks;
mod streams;
mod tls;
mod verbs;
