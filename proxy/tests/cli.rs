//! The command line, on the real binary: what it prints, and its exit status.

#![expect(clippy::expect_used, reason = "a test stops where something is not as it needs it")]

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use sidelog_proxy::settings::DEFAULTS;

/// The program with these arguments and no environment but this.
fn run(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidelog-proxy"))
        .args(arguments)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .expect("the program runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn bad_usage_and_bad_settings_end_with_2_and_a_line_that_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("proxy.toml");
    std::fs::write(&file, "[capture]\nbod_max = \"64KiB\"\n").expect("a file");
    let file = file.to_str().expect("UTF-8");
    for (arguments, env, part) in [
        (&["--configx", "x"][..], &[][..], "--config"),
        (&["serve"], &[], "unrecognized subcommand"),
        (
            &["--config", file],
            &[],
            "proxy.toml:2: capture.bod_max: unknown key, did you mean \"body_max\"?",
        ),
        (
            &["check", "--config", file],
            &[],
            "proxy.toml:2: capture.bod_max: unknown key",
        ),
        (
            &["--config", file, "check"],
            &[],
            "proxy.toml:2: capture.bod_max: unknown key",
        ),
        (
            &["check"],
            &[("SIDELOG_CONFIG", file)],
            "proxy.toml:2: capture.bod_max: unknown key",
        ),
        (
            &["--config", "missing.toml"],
            &[],
            "missing.toml: no such file; check --config",
        ),
        (&[], &[("PORT", "http")], "PORT: \"http\" is not a port; write a number"),
        (&[], &[("UPSTREAM_URL", "localhost")], "write \"http://localhost\""),
    ] {
        let output = run(arguments, env);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {env:?}: {told}");
        assert!(told.contains(part), "{arguments:?} {env:?}: {told}");
        assert!(stdout(&output).is_empty(), "{arguments:?}");
        let is_ours = part.contains(": ");
        assert!(!is_ours || told.lines().count() == 1, "{told}");
    }
}

#[test]
fn a_taken_port_ends_with_1_and_one_line() {
    let taken = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    for (name, value) in [
        ("PORT", port.clone()),
        ("SIDELOG_ADMIN__ADDRESS", format!("0.0.0.0:{port}")),
    ] {
        let mut env = vec![("PORT", "0"), ("SIDELOG_ADMIN__ADDRESS", "127.0.0.1:0")];
        env.retain(|(key, _)| *key != name);
        env.push((name, &value));
        let output = run(&[], &env);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.starts_with("sidelog-proxy: ") && told.contains(&port), "{told}");
    }
}

#[test]
fn a_file_that_cannot_be_read_ends_with_1_and_names_its_key() {
    let env = [
        ("PORT", "0"),
        ("SIDELOG_ADMIN__ADDRESS", "127.0.0.1:0"),
        ("SIDELOG_NATS__CREDS_FILE", "/missing.creds"),
    ];
    let output = run(&[], &env);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("/missing.creds (nats.creds_file)"), "{told}");
}

#[test]
fn good_settings_are_checked_with_0() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("proxy.toml");
    std::fs::write(&file, DEFAULTS).expect("a file");
    let path = file.to_str().expect("UTF-8");
    for (arguments, env, line) in [
        (&["check", "--config", path][..], &[][..], format!("{path}: ok\n")),
        (
            &["check"],
            &[("SIDELOG_CONFIG_TOML", "[log]")],
            "SIDELOG_CONFIG_TOML: ok\n".to_owned(),
        ),
        (&["check"], &[], "defaults and environment: ok\n".to_owned()),
    ] {
        let output = run(arguments, env);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stdout(&output), line);
    }
}

#[test]
fn defaults_and_version_are_printed() {
    let defaults = run(&["defaults"], &[]);
    assert_eq!(
        (defaults.status.code(), stdout(&defaults)),
        (Some(0), DEFAULTS.to_owned())
    );
    let version = run(&["--version"], &[]);
    assert_eq!(
        stdout(&version),
        format!("sidelog-proxy {}\n", sidelog_chassis::VERSION)
    );
}

#[test]
fn check_warns_of_bodies_that_are_recorded_with_their_secrets() {
    let quiet = "[redaction]\nenabled = false\n[capture]\nkeep_bodies = 'never'\n";
    let route = "[[routes]]\npath = '/a'\nredaction.enabled = false\n";
    for (toml, key) in [
        ("[redaction]\nenabled = false\n", Some("warning: redaction.enabled: ")),
        (route, Some("warning: routes.0.redaction.enabled: ")),
        (quiet, None),
        ("", None),
    ] {
        let output = run(&["check"], &[("SIDELOG_CONFIG_TOML", toml)]);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{told}");
        match key {
            Some(key) => assert!(told.contains(key), "{toml}: {told}"),
            None => assert!(!told.contains("warning"), "{toml}: {told}"),
        }
    }
}

#[test]
fn explain_reads_an_exchange_and_says_what_would_be_recorded() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sidelog-proxy"))
        .arg("explain")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let request = b"GET /a?token=hunter2 HTTP/1.1\r\nhost: a.test\r\n\r\n";
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(request).expect("the program reads");
    drop(stdin);
    let output = child.wait_with_output().expect("the program ends");
    let told = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.starts_with("route: none\npolicy: enabled=true "), "{told}");
    assert!(
        told.ends_with("taken out: url.query token by name \"token\"\n"),
        "{told}"
    );
    assert!(!told.contains("hunter2"), "{told}");
}
