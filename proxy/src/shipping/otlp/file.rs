//! The files that the settings of the collector name. They are read at the start; what is wrong with one is told with its
//! path and its key, and what stands in it never.

use std::path::Path;

use ::http::HeaderMap;
use anyhow::{Context, ensure};

use crate::settings::{Headers, Traces};

/// Certificates and header fields are a few kilobytes.
const MAX: u64 = 1024 * 1024;

/// The header fields of every request, from the settings or their file.
pub(super) fn headers(traces: &Traces) -> anyhow::Result<HeaderMap> {
    let Some(path) = &traces.headers_file else {
        return Ok(traces.headers.get().clone());
    };
    let text = String::from_utf8(read("traces.headers_file", path)?);
    let headers = text
        .map_err(|_| "it is not UTF-8".to_owned())
        .and_then(|text| text.parse::<Headers>());
    let headers = headers.map_err(|error| anyhow::anyhow!("traces.headers_file: {}: {error}", path.display()))?;
    Ok(headers.get().clone())
}

/// A file of the settings.
pub(super) fn read(key: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let size = std::fs::metadata(path)
        .with_context(|| format!("{key}: failed to read {shown}; check the path and its permissions"))?
        .len();
    ensure!(
        size <= MAX,
        "{key}: {shown} is larger than {MAX} bytes; is it the right file?"
    );
    std::fs::read(path).with_context(|| format!("{key}: failed to read {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> anyhow::Result<HeaderMap> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers");
        std::fs::write(&path, text).unwrap();
        headers(&Traces {
            headers_file: Some(path),
            ..Traces::default()
        })
    }

    #[test]
    fn header_fields_are_read_from_a_file_line_by_line() {
        let headers = from("api-key=SECRET\nx-tenant=a%2Cb\n").unwrap();
        assert_eq!(headers["api-key"], "SECRET");
        assert_eq!(headers["x-tenant"], "a,b");
    }

    #[test]
    fn a_wrong_file_is_named_with_its_key_and_not_shown() {
        let told = format!("{:#}", from("api-key: SECRET").unwrap_err());
        assert!(
            told.starts_with("traces.headers_file: ") && told.contains("header field 1 has no ="),
            "{told}"
        );
        assert!(!told.contains("SECRET"), "{told}");
        let told = format!(
            "{:#}",
            read("traces.tls.ca_file", Path::new("/missing.pem")).unwrap_err()
        );
        assert!(
            told.contains("traces.tls.ca_file: failed to read /missing.pem; check the path"),
            "{told}"
        );
    }
}
