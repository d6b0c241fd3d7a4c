//! Files that settings name: certificates, keys, secrets.
//!
//! Invariant: what is wrong with one is told with its key and its path, and what stands in it never.

use std::path::Path;

use anyhow::{Context, ensure};

/// Certificates and secrets are a few kilobytes.
const MAX: u64 = 1024 * 1024;

/// The file that the setting `key` names.
///
/// # Errors
///
/// When it can't be read, or is too large to be the right one.
pub fn read(key: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let size = std::fs::metadata(path)
        .with_context(|| format!("{key}: failed to read {shown}; check the path and its permissions"))?
        .len();
    ensure!(
        size <= MAX,
        "{key}: {shown} is larger than {MAX} bytes; is it the right file?"
    );
    std::fs::read(path).with_context(|| format!("{key}: failed to read {shown}; check its permissions"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_is_named_with_its_key() {
        let told = format!("{:#}", read("a.ca_file", Path::new("/missing.pem")).unwrap_err());
        assert!(
            told.starts_with("a.ca_file: failed to read /missing.pem; check the path"),
            "{told}"
        );
        let told = format!("{:#}", read("a.ca_file", Path::new("/")).unwrap_err());
        assert!(told.starts_with("a.ca_file: failed to read /"), "{told}");
    }
}
