//! One thread of a program that stands still while the others run, as one does that is stuck.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::{fs, thread};

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// A stopped thread; it runs on when this is dropped.
#[derive(Debug)]
pub struct Seized {
    release: Option<mpsc::Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl Seized {
    /// Stops the thread `name` of the process.
    ///
    /// # Panics
    /// When there is no such thread, or it can't be stopped.
    #[must_use]
    pub fn thread(process: u32, name: &str) -> Self {
        let thread = id(process, name);
        let (release, released) = mpsc::channel();
        let (stopped, is_stopped) = mpsc::channel();
        // The kernel takes orders from the thread that seized it, and from no other.
        let tracer = thread::spawn(move || {
            ptrace::seize(thread, Options::empty()).expect("leave to trace a child");
            ptrace::interrupt(thread).expect("a thread that can be stopped");
            waitpid(thread, Some(WaitPidFlag::__WALL)).expect("the thread stops");
            stopped.send(()).expect("a test that waits");
            // An error is the end of the test.
            released.recv().ok();
            // It fails for a process that has ended.
            ptrace::detach(thread, None).ok();
        });
        is_stopped.recv().expect("a stopped thread");
        Self {
            release: Some(release),
            tracer: Some(tracer),
        }
    }
}

impl Drop for Seized {
    fn drop(&mut self) {
        drop(self.release.take());
        if let Some(tracer) = self.tracer.take() {
            drop(tracer.join());
        }
    }
}

fn id(process: u32, name: &str) -> Pid {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("a running process");
    let found = threads.flatten().find(|thread| {
        let told = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        told.trim_end() == name
    });
    let id = found.expect("a thread of that name").file_name();
    let id = id.to_str().and_then(|id| id.parse().ok()).expect("a number");
    Pid::from_raw(id)
}
