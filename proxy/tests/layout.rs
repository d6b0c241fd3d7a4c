//! The rule that the house is built on: the request path and the shipping side know only the queue.

#![expect(clippy::unwrap_used, reason = "a test says what it expected by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Lines of a side's code that name a forbidden module.
fn mentions(side: &str, forbidden: &[&str]) -> Vec<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = sources(&src.join(side));
    files.push(src.join(format!("{side}.rs")));
    assert!(files.len() > 3, "the sources of {side} were not found");
    let code = |line: &&str| !line.trim_start().starts_with("//");
    files
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).unwrap();
            let bad = |line: &&str| forbidden.iter().any(|module| line.contains(module));
            text.lines()
                .filter(code)
                .filter(bad)
                .map(|line| format!("{}: {line}", file.display()))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn traffic_does_not_know_shipping() {
    assert_eq!(
        mentions("traffic", &["shipping", "async_nats", "opentelemetry"]),
        Vec::<String>::new()
    );
}

#[test]
fn shipping_does_not_know_traffic() {
    assert_eq!(
        mentions("shipping", &["crate::traffic", "pingora"]),
        Vec::<String>::new()
    );
}

#[test]
fn one_file_knows_pingoras_phases() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let knowing: Vec<_> = sources(&src)
        .into_iter()
        .filter(|file| fs::read_to_string(file).unwrap().contains("impl ProxyHttp for"))
        .map(|file| file.file_name().unwrap().to_owned())
        .collect();
    assert_eq!(knowing, ["service.rs"]);
}
