//! The machine: its two cores, what runs on which, and what a process has used of them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

/// The core of the proxy that is measured, alone.
const PROXY: usize = 0;
/// The core of everything else: load, upstream, nats-server, collector.
const REST: usize = 1;

/// Puts this thread, and what it starts from now on, on the core of everything else.
pub(crate) fn stay_aside() {
    pin(REST);
}

/// What `start` starts runs on the proxies' core.
pub(crate) fn on_the_measured_core<T>(start: impl FnOnce() -> T) -> T {
    pin(PROXY);
    let started = start();
    pin(REST);
    started
}

fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).expect("a machine with two cores");
}

/// What the threads of a process have used, those that have ended since they were last seen, too.
#[derive(Debug, Default)]
pub(crate) struct CpuTime {
    /// Nanoseconds by thread.
    threads: HashMap<OsString, u64>,
}

impl CpuTime {
    /// The CPU time of all threads that the process has, or had when this was asked before.
    pub(crate) fn of(&mut self, process: u32) -> Duration {
        let threads = fs::read_dir(format!("/proc/{process}/task")).expect("a running process");
        for thread in threads.flatten() {
            // `<ns on a core> <ns waiting for one> <times>`; a thread that has just ended has none.
            let times = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let on_a_core = times.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
            if let Some(nanos) = on_a_core {
                self.threads.insert(thread.file_name(), nanos);
            }
        }
        Duration::from_nanos(self.threads.values().sum())
    }
}

/// The most memory that a process has held, in bytes (`VmHWM`).
pub(crate) fn peak_memory_of(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line
        .and_then(|value| value.trim().trim_end_matches(" kB").parse().ok())
        .expect("the kernel's account of memory");
    kib * 1024
}

/// The time that the proxies' core was busy since the start of the machine.
pub(crate) fn busy_on_the_measured_core() -> Duration {
    let stat = fs::read_to_string("/proc/stat").expect("the kernel's account of cores");
    let line = stat.lines().find_map(|line| line.strip_prefix(&format!("cpu{PROXY} ")));
    // user, nice, system, idle, iowait, irq, softirq, steal, in hundredths of a second; a guest's time is in user.
    let fields = line.unwrap_or_default().split_whitespace().take(8).enumerate();
    let busy: u64 = fields
        .filter(|(index, _)| !matches!(index, 3 | 4))
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum();
    Duration::from_millis(busy * 10)
}

/// The machine in a line: processor, kernel, compiler.
pub(crate) fn describe() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |value| value.trim_start_matches([' ', '\t', ':']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let rust = first_line(Command::new("rustc").arg("--version"));
    format!("{model}, {cores} cores; Linux {}; {rust}", kernel.trim())
}

/// The first line that a command prints.
pub(crate) fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| [output.stdout, output.stderr].concat());
    let output = String::from_utf8_lossy(&output.unwrap_or_default()).into_owned();
    output
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("?")
        .trim()
        .to_owned()
}
