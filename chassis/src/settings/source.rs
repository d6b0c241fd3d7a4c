//! Where the settings' text comes from: a file, or a variable that holds the whole text.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::environment::value_of;
use super::problem::{Place, Problem, SettingsError};
use super::{ByteSize, Environment};

/// The variable that names the file.
const FILE_VARIABLE: &str = "SIDELOG_CONFIG";
/// The variable that holds the whole text.
const TEXT_VARIABLE: &str = "SIDELOG_CONFIG_TOML";
/// No settings file is larger; a device or a log given by mistake is.
const MAX_SIZE: ByteSize = ByteSize::mib(4);

/// A settings text and its name in messages.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
}

/// Finds and reads the settings' text; `None` where neither flag nor variable names one.
pub(super) fn find(config: Option<&Path>, env: &Environment) -> Result<Option<Source>, SettingsError> {
    let text = value_of(env, TEXT_VARIABLE);
    let flag = config.map_or(FILE_VARIABLE, |_| "--config");
    match (path(config, env), text) {
        (Some(path), None) => read(path, flag).map(Some),
        (None, Some(text)) => Ok(Some(Source {
            name: TEXT_VARIABLE.to_owned(),
            text: text.to_owned(),
        })),
        (None, None) => Ok(None),
        (Some(path), Some(_)) => Err(SettingsError::one(Problem::at(
            Place::variable(TEXT_VARIABLE),
            format!(
                "{flag} names the file {} too; unset one of the two, there is only one configuration",
                path.display()
            ),
        ))),
    }
}

/// The file that the flag or the variable names.
pub(super) fn path<'a>(config: Option<&'a Path>, env: &'a Environment) -> Option<&'a Path> {
    config.or_else(|| value_of(env, FILE_VARIABLE).map(Path::new))
}

fn read(path: &Path, flag: &str) -> Result<Source, SettingsError> {
    let name = path.display().to_string();
    let refuse = |message: String| SettingsError::one(Problem::at(Place::file(&name), message));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_SIZE.bytes() + 1).read_to_end(&mut bytes))
        .map_err(|error| refuse(explain(&error, flag)))?;
    if bytes.len() > MAX_SIZE.as_usize() {
        return Err(refuse(format!("larger than {MAX_SIZE}; name a TOML file by {flag}")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = 1 + good.filter(|byte| **byte == b'\n').count();
        refuse(format!("line {line} is not UTF-8; save the file as UTF-8 text"))
    })?;
    Ok(Source { name, text })
}

fn explain(error: &std::io::Error, flag: &str) -> String {
    match error.kind() {
        ErrorKind::NotFound => format!("no such file; check {flag}"),
        ErrorKind::PermissionDenied => "permission denied; let the program's user read it".to_owned(),
        ErrorKind::IsADirectory => format!("a directory; name the TOML file in it by {flag}"),
        _ => format!("can't be read: {error}"),
    }
}
