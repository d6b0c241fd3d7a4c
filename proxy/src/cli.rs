//! The command line.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use http::Method;
use sidelog_chassis::admin::client;
use sidelog_chassis::drain::HangUp;
use sidelog_chassis::{cli, settings};

use crate::reload::Origin;
use crate::settings::{DEFAULTS, PROGRAM, Settings};
use crate::{explain, traffic};

/// Passes HTTP through untouched and records each exchange.
///
/// Runs when no command is given. Every key of the file can be set by a variable, too: `SIDELOG_<SECTION>__<KEY>`.
#[derive(Debug, Parser)]
#[command(name = "sidelog-proxy", version = sidelog_chassis::VERSION)]
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
    /// Reads an HTTP request, and its response if given, from stdin; prints the route, the policy, the record, and which rule
    /// took out what
    Explain,
    /// Prints a file with every key, its default and what it does
    Defaults,
    /// Asks the running proxy with the same settings to let its clients go: it goes on serving, and tells them to close.
    /// Returns at once; for a preStop hook. Only SIGTERM ends the proxy
    Drain,
}

/// What `main` does: 0 ended as asked, 1 failed, 2 bad usage or settings.
#[must_use]
pub fn main() -> ExitCode {
    let Arguments { config, command } = Arguments::parse();
    match command {
        None => {
            let origin = Origin::new(config.clone());
            cli::run(
                &PROGRAM,
                config.as_deref(),
                HangUp::Reloads,
                |settings: &Settings| &settings.log,
                |settings, shutdown| crate::run(settings, origin, shutdown),
            )
        }
        Some(Command::Check) => check(config.as_deref()),
        Some(Command::Explain) => explained(config.as_deref()),
        Some(Command::Defaults) => cli::print(DEFAULTS),
        Some(Command::Drain) => drain(config.as_deref()),
    }
}

/// As [`cli::check`], then what is wrong with certificates, and a warning for each key by which secrets are recorded.
fn check(config: Option<&Path>) -> ExitCode {
    let settings: Settings = match settings::load(&PROGRAM, config, &settings::snapshot()) {
        Ok(settings) => settings,
        // Told, with its exit status, by the check.
        Err(_) => return cli::check::<Settings>(&PROGRAM, config),
    };
    let misfits = traffic::misfits(&settings);
    for misfit in &misfits {
        cli::tell(format_args!("{misfit:#}"));
    }
    if !misfits.is_empty() {
        return ExitCode::from(2);
    }
    let code = cli::check::<Settings>(&PROGRAM, config);
    for key in settings.unredacted() {
        let advice = "secrets in them reach the store; remove the key, or record no bodies there";
        cli::tell(format_args!(
            "warning: {key}: bodies are recorded with redaction switched off: {advice}"
        ));
    }
    code
}

fn drain(config: Option<&Path>) -> ExitCode {
    let settings: Settings = match settings::load(&PROGRAM, config, &settings::snapshot()) {
        Ok(settings) => settings,
        // Told, with its exit status, by the check.
        Err(_) => return cli::check::<Settings>(&PROGRAM, config),
    };
    match client::ask(settings.admin.address, &Method::POST, crate::DRAIN) {
        Ok(answer) => cli::print(answer),
        Err(error) => {
            cli::tell(format_args!("drain: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn explained(config: Option<&Path>) -> ExitCode {
    let settings: Settings = match settings::load(&PROGRAM, config, &settings::snapshot()) {
        Ok(settings) => settings,
        // Told, with its exit status, by the check.
        Err(_) => return cli::check::<Settings>(&PROGRAM, config),
    };
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(explain::MAX_INPUT).read_to_end(&mut input);
    let explained = read
        .map_err(anyhow::Error::from)
        .and_then(|_| explain::explain(settings, &input));
    match explained {
        Ok(text) => cli::print(text),
        Err(error) => {
            cli::tell(format_args!("explain: {error:#}"));
            ExitCode::from(2)
        }
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
