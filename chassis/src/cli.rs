//! From parsed arguments to `run`, and what the exit status means.
//!
//! | Status | Means |
//! |---|---|
//! | 0 | ended as asked |
//! | 1 | failed: could not start, or something was left undone |
//! | 2 | bad usage or bad settings |

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::de::DeserializeOwned;

use crate::drain::{HangUp, Shutdown};
use crate::logging::{self, LogSettings};
use crate::settings::{self, Program, Validate};

/// Bad usage or bad settings; clap ends with the same status.
const MISUSED: u8 = 2;

/// Loads the settings, starts the log, and runs the program until a signal ends it. Signals count from here on.
///
/// `log` picks the log's settings out of the program's.
pub fn run<S>(
    program: &Program,
    config: Option<&Path>,
    hang_up: HangUp,
    log: fn(&S) -> &LogSettings,
    run: impl FnOnce(S, Shutdown) -> anyhow::Result<()>,
) -> ExitCode
where
    S: DeserializeOwned + Validate,
{
    let shutdown = Shutdown::on_signals(hang_up);
    let settings = match settings::load::<S>(program, config, &settings::snapshot()) {
        Ok(settings) => settings,
        Err(error) => {
            tell(error);
            return ExitCode::from(MISUSED);
        }
    };
    let outcome = logging::init(log(&settings))
        .and_then(|()| shutdown.map_err(|error| anyhow::anyhow!("failed to listen for signals: {error}")))
        .and_then(|shutdown| run(settings, shutdown));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("{}: {error:#}", program.name));
            ExitCode::FAILURE
        }
    }
}

/// `check`: says whether the settings are good, and if not, everything that is wrong.
#[must_use]
pub fn check<S>(program: &Program, config: Option<&Path>) -> ExitCode
where
    S: DeserializeOwned + Validate,
{
    let env = settings::snapshot();
    let place = settings::place(config, &env);
    let checked = place.and_then(|place| settings::load::<S>(program, config, &env).map(|_| place));
    match checked {
        Ok(place) => print(format_args!(
            "{}: ok\n",
            place.as_deref().unwrap_or("defaults and environment")
        )),
        Err(error) => {
            tell(error);
            ExitCode::from(MISUSED)
        }
    }
}

/// Prints to stdout; fails when that can't be written to.
#[must_use]
pub fn print(text: impl Display) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Writes a line to stderr. Where that is closed there is nobody to tell.
pub fn tell(line: impl Display) {
    drop(writeln!(io::stderr(), "{line}"));
}
