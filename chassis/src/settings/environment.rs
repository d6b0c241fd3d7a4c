//! The environment's part of the settings: named variables, and `SIDELOG_<SECTION>__<KEY>` for every key.

use super::problem::{Place, Problem};
use super::tree::Tree;
use super::{Environment, Program};

const PREFIX: &str = "SIDELOG_";
const SEPARATOR: &str = "__";

/// The process's environment as it is now. Bytes that aren't UTF-8 become U+FFFD.
#[must_use]
pub fn snapshot() -> Environment {
    let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// A variable's value; an empty one counts as unset.
pub(super) fn value_of<'a>(env: &'a Environment, name: &str) -> Option<&'a str> {
    env.get(name)
        .map(String::as_str)
        .filter(|value| !value.trim().is_empty())
}

/// Lays the environment over the file's values. Gives back what is wrong with it.
pub(super) fn overlay(tree: &mut Tree, program: &Program, env: &Environment) -> Vec<Problem> {
    let mut problems = Vec::new();
    for variable in program.variables {
        let Some(text) = value_of(env, variable.name) else {
            continue;
        };
        let place = Place::variable(variable.name);
        let set = (variable.convert)(text)
            .map_err(|message| Problem::at(place.clone(), message))
            .and_then(|value| match value {
                Some(value) => tree.set(variable.key, value, &place),
                None => Ok(()),
            });
        problems.extend(set.err());
    }
    for name in env.keys() {
        let Some(key) = name.strip_prefix(PREFIX).filter(|key| key.contains(SEPARATOR)) else {
            continue;
        };
        let Some(text) = value_of(env, name) else {
            continue;
        };
        let place = Place::variable(name);
        let set = path(key)
            .ok_or_else(|| {
                Problem::at(
                    place.clone(),
                    "not SIDELOG_<SECTION>__<KEY>; correct the name, or unset it",
                )
            })
            .and_then(|path| tree.set(&path, toml::Value::String(text.to_owned()), &place));
        problems.extend(set.err());
    }
    problems
}

/// `NATS__TLS__CA_FILE` → `nats.tls.ca_file`; `None` where a part is empty.
fn path(key: &str) -> Option<String> {
    let parts: Vec<_> = key.split(SEPARATOR).map(str::to_ascii_lowercase).collect();
    let whole = parts
        .iter()
        .all(|part| !part.is_empty() && !part.starts_with('_') && !part.contains('.'));
    whole.then(|| parts.join("."))
}
