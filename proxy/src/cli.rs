//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sidelog_chassis::cli;

use crate::settings::{DEFAULTS, PROGRAM, Settings};

/// Passes HTTP through untouched and records each exchange.
///
/// Runs when no command is given. Every key of the file can be set by a variable, too: `SIDELOG_<SECTION>__<KEY>`.
#[derive(Debug, Parser)]
#[command(name = "sidelog-proxy", version)]
struct Arguments {
    /// The TOML file with the settings; SIDELOG_CONFIG names one, too
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says whether the settings are good, and if not, what to write instead
    Check,
    /// Prints a file with every key, its default and what it does
    Defaults,
}

/// What `main` does: 0 ended as asked, 1 failed, 2 bad usage or settings.
#[must_use]
pub fn main() -> ExitCode {
    let Arguments { config, command } = Arguments::parse();
    match command {
        None => cli::run(
            &PROGRAM,
            config.as_deref(),
            |settings: &Settings| &settings.log,
            crate::run,
        ),
        Some(Command::Check) => cli::check::<Settings>(&PROGRAM, config.as_deref()),
        Some(Command::Defaults) => cli::print(DEFAULTS),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
