//! The files that the settings of the collector name. They are read at the start; what is wrong with one is told with its
//! path and its key, and what stands in it never.

use ::http::HeaderMap;
pub(super) use sidelog_chassis::settings::file::read;

use crate::settings::{Headers, Traces};

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
    }
}
