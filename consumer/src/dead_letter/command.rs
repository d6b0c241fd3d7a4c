//! `dead-letters list` and `dead-letters resend`: what an operator does with lines that were set aside.
//!
//! Invariants:
//! - A letter is removed only after the records' stream has its line. What ends in between is resent again, under the
//!   same id, which the stream stores once within its duplicate window.
//! - A line that had to be cut is not resent: it would be another.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use clap::{Args, Subcommand};
use serde::Serialize;
use sidelog_chassis::drain::Shutdown;
use sidelog_chassis::nats::{self, subject_for};
use sidelog_record::frame::{HEADER_COUNT, HEADER_SCHEMA, SCHEMA};
use tokio::time::timeout;

use super::shelf::{Kept, Shelf, Wanted};
use crate::settings::{PROGRAM, Settings};

/// How long a server may take to be there.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// What a table shows of a detail, in characters.
const DETAIL_SHOWN: usize = 100;

/// What to do with the letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// Prints them, oldest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// One JSON object a line, with the line that was set aside, instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Publishes their lines to the records' stream again and removes them
    Resend {
        #[command(flatten)]
        filter: Filter,
        /// Prints what would be resent, and leaves everything as it is
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which letters.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those set aside for this reason, such as too_old
    #[arg(long)]
    reason: Option<String>,
    /// Only those of this service
    #[arg(long)]
    service: Option<String>,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// Does what is asked for, on standard output.
///
/// # Errors
/// No NATS, no permission, or an output that can't be written; a reader that has read enough is none.
pub(crate) async fn run(command: DeadLettersCommand, settings: Settings, shutdown: Shutdown) -> anyhow::Result<()> {
    let done = tokio::select! {
        done = Box::pin(execute(command, &settings)) => done,
        () = shutdown.requested() => Err(anyhow::anyhow!("interrupted; what was resent until now was removed")),
    };
    match done {
        Err(error) if is_closed_pipe(&error) => Ok(()),
        done => done,
    }
}

async fn execute(command: DeadLettersCommand, settings: &Settings) -> anyhow::Result<()> {
    let mut connection = nats::connect(&settings.nats, PROGRAM.name).await?;
    timeout(CONNECT_TIME, connection.connected())
        .await
        .with_context(|| format!("there is no NATS server at {} (nats.url) within 10s", settings.nats.url))?;
    let context = jetstream::new(connection.client.clone());
    let mut out = io::stdout();
    let Some(shelf) = Shelf::open(&context, &settings.dead_letter_stream()).await? else {
        tracing::info!(
            stream = settings.dead_letter.stream,
            "there is no dead letter stream: nothing was ever set aside"
        );
        return Ok(());
    };
    match command {
        DeadLettersCommand::List { filter, json: true } => list(&shelf, filter, &mut out, as_json).await,
        DeadLettersCommand::List { filter, json: false } | DeadLettersCommand::Resend { filter, dry_run: true } => {
            print_line(&mut out, &header())?;
            list(&shelf, filter, &mut out, |letter| Ok(as_row(letter))).await
        }
        DeadLettersCommand::Resend { filter, dry_run: false } => {
            let post = Post {
                context,
                shelf,
                settings,
            };
            post.resend(filter, &mut out).await
        }
    }
}

async fn list(
    shelf: &Shelf,
    filter: Filter,
    out: &mut impl Write,
    show: fn(&Kept) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let mut left = filter.limit.unwrap_or(usize::MAX);
    let mut reader = shelf.read(filter.into()).await?;
    while left > 0
        && let Some(letters) = reader.next().await?
    {
        for letter in letters.iter().take(left) {
            print_line(out, &show(letter)?)?;
        }
        left = left.saturating_sub(letters.len());
    }
    Ok(())
}

/// Sends letters back to where they came from.
struct Post<'a> {
    context: jetstream::Context,
    shelf: Shelf,
    settings: &'a Settings,
}

impl Post<'_> {
    async fn resend(&self, filter: Filter, out: &mut impl Write) -> anyhow::Result<()> {
        let mut to_read = filter.limit.unwrap_or(usize::MAX);
        let mut reader = self.shelf.read(filter.into()).await?;
        let (mut resent, mut left) = (0_u64, 0_u64);
        while to_read > 0
            && let Some(letters) = reader.next().await?
        {
            for letter in letters.iter().take(to_read) {
                if letter.cut_from.is_some() {
                    left += 1;
                    continue;
                }
                self.publish(letter).await?;
                self.shelf.remove(letter).await?;
                resent += 1;
            }
            to_read = to_read.saturating_sub(letters.len());
        }
        let cut = if left > 0 {
            format!("; {left} stay, because only a part of their line was kept")
        } else {
            String::new()
        };
        print_line(
            out,
            &format!("letters resent to {}: {resent}{cut}", self.settings.nats.stream),
        )
    }

    async fn publish(&self, letter: &Kept) -> anyhow::Result<()> {
        let nats = &self.settings.nats;
        let message = PublishMessage::build()
            .message_id(format!("resent-{}-{}", letter.time.as_nanosecond(), letter.sequence))
            .header(HEADER_SCHEMA, SCHEMA.to_string())
            .header(HEADER_COUNT, "1")
            .expected_stream(&nats.stream)
            .payload(letter.line.clone());
        let subject = subject_for(&nats.subject, &letter.service);
        let published = self.context.send_publish(subject, message).await;
        let failed = || {
            format!(
                "failed to resend letter {}; it stays, with all after it",
                letter.sequence
            )
        };
        published.with_context(failed)?.await.with_context(failed)?;
        Ok(())
    }
}

impl From<Filter> for Wanted {
    fn from(filter: Filter) -> Self {
        Self {
            reason: filter.reason,
            service: filter.service,
        }
    }
}

fn header() -> String {
    row("SEQUENCE", "TIME", "REASON", "SERVICE", "DETAIL")
}

fn as_row(letter: &Kept) -> String {
    let time = letter.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let plain = |text: &str| text.replace(char::is_control, " ");
    let detail: String = letter.detail.chars().take(DETAIL_SHOWN).collect();
    row(
        &letter.sequence.to_string(),
        &time,
        &plain(&letter.reason),
        &plain(&letter.service),
        &plain(&detail),
    )
}

fn row(sequence: &str, time: &str, reason: &str, service: &str, detail: &str) -> String {
    format!("{sequence:>8}  {time:<20}  {reason:<13}  {service:<20}  {detail}")
}

/// A letter as a line of JSON.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    sequence: u64,
    time: String,
    reason: &'a str,
    service: &'a str,
    detail: &'a str,
    origin_sequence: Option<u64>,
    cut_from: Option<u64>,
    line: std::borrow::Cow<'a, str>,
}

fn as_json(letter: &Kept) -> anyhow::Result<String> {
    Ok(serde_json::to_string(&Shown {
        sequence: letter.sequence,
        time: letter.time.to_string(),
        reason: &letter.reason,
        service: &letter.service,
        detail: &letter.detail,
        origin_sequence: letter.origin,
        cut_from: letter.cut_from,
        line: String::from_utf8_lossy(&letter.line),
    })?)
}

fn print_line(out: &mut impl Write, line: &str) -> anyhow::Result<()> {
    writeln!(out, "{line}").context("failed to write to standard output")
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;

    fn letter() -> Kept {
        Kept {
            sequence: 7,
            time: Timestamp::from_second(1_769_862_896).unwrap(),
            reason: "too_old".to_owned(),
            service: "api".to_owned(),
            detail: format!("say\u{1b}[31m {}", "é".repeat(200)),
            origin: Some(42),
            cut_from: None,
            line: Bytes::from_static(b"\xff\"\n"),
        }
    }

    #[test]
    fn a_row_is_short_and_plain_whatever_the_store_said() {
        let row = as_row(&letter());
        assert!(
            row.starts_with("       7  2026-01-31T12:34:56Z  too_old        api "),
            "{row}"
        );
        assert!(!row.contains(char::is_control));
        assert!(row.chars().count() < 180);
        assert_eq!(row.find("too_old"), header().find("REASON"), "under its heading");
    }

    #[test]
    fn a_letter_as_json_is_one_line_that_holds_what_was_set_aside() {
        let json = as_json(&letter()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["sequence"], 7);
        assert_eq!(value["origin_sequence"], 42);
        assert_eq!(value["line"], "\u{fffd}\"\n");
        assert_eq!(json.lines().count(), 1);
    }
}
