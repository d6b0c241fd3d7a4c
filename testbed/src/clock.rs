//! A time of day that jumps, for our own binaries.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    process::Command,
};

use tempfile::TempDir;

use crate::SidelogCommand;

/// Programs that are started [with it](Self::of) see it; it is right until it is [set](Self::set).
#[derive(Debug)]
pub struct Clock {
    folder: TempDir,
    offset: File,
}

impl Clock {
    /// A clock that is right.
    ///
    /// # Panics
    /// When the C compiler doesn't make it.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = folder.path().join("clock.c");
        fs::write(&source, include_str!("clock.c")).expect("the source is written");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(folder.path().join("clock.so"));
        let status = compiler.arg(&source).status().expect("a C compiler");
        assert!(status.success(), "the clock isn't compiled");
        let offset = File::create(folder.path().join("offset")).expect("the offset is written");
        let clock = Self { folder, offset };
        clock.set(0);
        clock
    }

    /// From now on it is off by so many seconds.
    ///
    /// # Panics
    /// When that can't be written.
    pub fn set(&self, seconds: i64) {
        let written = self.offset.write_all_at(&seconds.to_ne_bytes(), 0);
        written.expect("the offset is written");
    }

    /// Has a program see this clock.
    #[must_use]
    pub fn of(&self, command: SidelogCommand) -> SidelogCommand {
        let at = |name| self.folder.path().join(name).display().to_string();
        command
            .env("LD_PRELOAD", at("clock.so"))
            .env("TESTBED_CLOCK", at("offset"))
    }
}
