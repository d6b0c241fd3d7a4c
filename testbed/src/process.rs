//! A child process with its output in a file. It ends with its value, by its process id.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{PATIENCE, obtain_within};

/// How much of the output is printed when a test fails.
const TAIL: usize = 16 * 1024;

/// A running, stopped or ended child process.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `command` with stdout and stderr appended to the file `output`.
    pub(crate) fn start(name: &'static str, mut command: Command, output: &Path) -> Self {
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(output)
                .unwrap_or_else(|error| panic!("{}: {error}", output.display()))
        };
        command.stdin(Stdio::null()).stdout(open()).stderr(open());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} can't be started: {error}"));
        Self {
            name,
            child,
            output: output.to_owned(),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far, to stdout and stderr.
    pub(crate) fn output(&self) -> String {
        let output = fs::read(&self.output).unwrap_or_default();
        String::from_utf8_lossy(&output).into_owned()
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the state of a child")
    }

    /// Fails the test if it has ended.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended at once: {status}", self.name);
        }
    }

    /// Waits for its end.
    pub(crate) async fn end(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        obtain_within(patience, &what, async || self.ended()).await
    }

    /// Stops it in mid-air, and waits until none of its threads runs any more.
    pub(crate) fn freeze(&mut self) {
        self.signal(Signal::STOP);
        let ends = Instant::now() + PATIENCE;
        while !self.is_frozen() {
            assert!(Instant::now() < ends, "{} can't be frozen", self.name);
            thread::yield_now();
        }
    }

    fn is_frozen(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id())).expect("a running process");
        threads.flatten().all(|thread| {
            let state = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // `<id> (<name>) <state> …`; a thread that is gone has none.
            state.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
        })
    }

    /// Sends a signal. Of no effect on one that has ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            kill_process(Pid::from_child(&self.child), signal).expect("a signal to a child");
        }
    }

    /// Ends it at once, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        // It fails for one that has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let output = fs::read(&self.output).unwrap_or_default();
            let tail = output.get(output.len().saturating_sub(TAIL)..).unwrap_or_default();
            let tail = String::from_utf8_lossy(tail);
            eprintln!(
                "--- the output of {} ---\n{tail}--- end of {} ---",
                self.name, self.name
            );
        }
    }
}

/// A command that gets nothing of the tests' environment.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command
}
