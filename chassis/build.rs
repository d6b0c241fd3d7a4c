//! Tells the crate the commit that it is built from: SIDELOG_COMMIT, else what git says, else `unknown`.

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

fn main() -> io::Result<()> {
    let given = env::var("SIDELOG_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| git(&["rev-parse", "--short", "HEAD"]));
    let mut cargo = io::stdout().lock();
    writeln!(cargo, "cargo::rerun-if-changed=build.rs")?;
    writeln!(cargo, "cargo::rerun-if-env-changed=SIDELOG_COMMIT")?;
    // It has a line for each commit and checkout. A file that isn't there would have this run at every build.
    let log = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]);
    if let Some(log) = log.filter(|log| Path::new(log).exists()) {
        writeln!(cargo, "cargo::rerun-if-changed={log}")?;
    }
    writeln!(
        cargo,
        "cargo::rustc-env=SIDELOG_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    )
}

/// What git prints; `None` where there is no git, or no repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
