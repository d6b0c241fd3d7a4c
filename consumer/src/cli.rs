//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use sidelog_chassis::cli;
use sidelog_chassis::drain::{HangUp, Shutdown};

use crate::dead_letter::{self, DeadLettersCommand};
use crate::settings::{DEFAULTS, PROGRAM, Settings};

/// Moves records in batches from NATS JetStream to Loki, a file or standard output.
#[derive(Debug, Parser)]
#[command(name = PROGRAM.name, version = sidelog_chassis::VERSION)]
struct Arguments {
    /// The TOML file with the settings; without it SIDELOG_CONFIG, SIDELOG_CONFIG_TOML, or the defaults
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says whether the settings are good, and if not, everything that is wrong
    Check,
    /// Prints the documented default settings as TOML
    Defaults,
    /// Lists lines that were set aside, or sends them on their way again
    DeadLetters {
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
}

/// Runs what the command line asks for. Exit status: 0 as asked, 1 failed, 2 bad usage or settings.
#[must_use]
pub fn main() -> ExitCode {
    let Arguments { config, command } = Arguments::parse();
    match command {
        None => cli::run::<Settings>(
            &PROGRAM,
            config.as_deref(),
            HangUp::NeedsRestart,
            |settings| &settings.log,
            run,
        ),
        Some(Command::Check) => cli::check::<Settings>(&PROGRAM, config.as_deref()),
        Some(Command::Defaults) => cli::print(DEFAULTS),
        Some(Command::DeadLetters { command }) => cli::run::<Settings>(
            &PROGRAM,
            config.as_deref(),
            HangUp::Ends,
            |settings| &settings.log,
            |settings, shutdown| block_on(dead_letter::run_command(command, settings, shutdown)),
        ),
    }
}

fn run(settings: Settings, shutdown: Shutdown) -> anyhow::Result<()> {
    block_on(crate::run(settings, shutdown))
}

fn block_on(work: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    // On a worker, like everything that it talks to: from this thread each word would be a switch of threads.
    let outcome = runtime
        .block_on(runtime.spawn(work))
        .context("the program broke down")?;
    // A write to a pipe that nobody reads would hold the process up.
    runtime.shutdown_background();
    outcome
}
