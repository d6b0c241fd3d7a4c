//! The log, as a process of its own writes it: the log is one for the whole process.

#![expect(clippy::expect_used, reason = "a test stops where something is not as it needs it")]

use std::process::Command;

use sidelog_chassis::logging::{LogFormat, LogLevel, LogSettings, init, set_level};

/// Tells the test's own binary to be the process that logs.
const FORMAT: &str = "SIDELOG_TEST_LOG_FORMAT";

/// Not a test: what the process writes that the tests start.
#[test]
fn child() {
    let format = match std::env::var(FORMAT).as_deref() {
        Ok("json") => LogFormat::Json,
        Ok(_) => LogFormat::Text,
        Err(_) => return,
    };
    init(&LogSettings {
        level: LogLevel::Info,
        format,
    })
    .expect("the first log of the process");
    init(&LogSettings::default()).expect_err("a second log");
    log::warn!(target: "some_library::server", "by way of the log crate");
    log::info!(target: "some_library::server", "a library's small talk");
    tracing::info!(target: "sidelog_test", count = 3, "by way of tracing");
    tracing::debug!(target: "sidelog_test", "a detail");
}

/// Not a test: a process whose level is set twice.
#[test]
fn child_with_levels() {
    if std::env::var(FORMAT).is_err() {
        return;
    }
    set_level(LogLevel::Debug).expect_err("no log yet");
    init(&LogSettings::default()).expect("the first log of the process");
    for (level, at) in [(LogLevel::Trace, "trace"), (LogLevel::Error, "error")] {
        set_level(level).expect("a log");
        log::debug!(target: "some_library::server", "library {at}");
        tracing::debug!(target: "sidelog_test", "own {at}");
    }
}

#[test]
fn a_level_counts_from_the_next_line_on() {
    let lines = lines("child_with_levels", "text");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("library trace"), "{lines:?}");
    assert!(lines[1].contains("own trace"), "{lines:?}");
}

/// A child's stderr, line by line.
fn lines(child: &str, format: &str) -> Vec<String> {
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", child, "--nocapture"])
        .env(FORMAT, format)
        .output()
        .expect("the child runs");
    assert!(output.status.success(), "{output:?}");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    stderr.lines().map(str::to_owned).collect()
}

#[test]
fn lines_of_both_log_and_tracing_go_to_stderr() {
    let lines = lines("child", "text");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].contains("WARN some_library::server: by way of the log crate"),
        "{lines:?}"
    );
    assert!(
        lines[1].contains("INFO sidelog_test: by way of tracing count=3"),
        "{lines:?}"
    );
    assert!(!lines[0].contains('\u{1b}'), "colours in a pipe: {lines:?}");
}

#[test]
fn json_is_one_object_a_line() {
    let lines = lines("child", "json");
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, parts) in lines.iter().zip([
        [
            "\"level\":\"WARN\"",
            "\"message\":\"by way of the log crate\"",
            "\"target\":\"some_library::server\"",
        ],
        ["\"level\":\"INFO\"", "\"message\":\"by way of tracing\"", "\"count\":3"],
    ]) {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
        for part in parts {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}
