//! Settings: from defaults, a TOML file and the environment to one value that can't be wrong.
//!
//! Order, later wins: the defaults of the type, the TOML file (`--config`, else SIDELOG_CONFIG, or its whole text in
//! SIDELOG_CONFIG_TOML), the program's named [`Variable`]s in their order, `SIDELOG_<SECTION>__<KEY>`.
//!
//! Invariants:
//! - whatever is wrong is told in one line that names the place (file and line, or variable), the key, and what to write
//!   instead; all wrong keys are told at once
//! - an empty variable is an unset variable
//! - `SIDELOG_` variables without `__` are never read (Kubernetes puts `SIDELOG_…_SERVICE_HOST` there)

pub mod address;
mod byte_size;
mod deserializer;
pub mod duration;
mod environment;
mod fault;
pub mod file;
mod problem;
pub mod shown;
mod source;
mod tree;

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;

pub use byte_size::{ByteSize, ByteSizeError};
pub use environment::snapshot;
pub use problem::SettingsError;

use problem::Problem;
use tree::Tree;

/// A snapshot of environment variables, by name. [`snapshot`] takes the process's; tests bring their own.
pub type Environment = BTreeMap<String, String>;

/// A variable with a name of its own, such as `PORT`, and the key that it sets.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// The variable's name.
    pub name: &'static str,
    /// The key it sets, dotted, list elements by number: `listeners.0.address`.
    pub key: &'static str,
    /// From the variable's text to the key's value; `None` where this text says nothing of the key. A variable that
    /// speaks of several keys is there once for each. An error is a sentence that says what to write instead.
    ///
    /// [`as_text`] where the key takes the text as it is.
    pub convert: fn(&str) -> Result<Option<toml::Value>, String>,
}

/// What [`load`] has to know of a program.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// The binary's name, for messages: `sidelog-proxy`.
    pub name: &'static str,
    /// Its named variables; where two set one key, the later one wins.
    pub variables: &'static [Variable],
}

/// Rules that span several keys. Rules for one key belong to the key's type.
pub trait Validate {
    /// Every broken rule; empty when the settings fit together.
    fn validate(&self) -> Vec<Misfit>;
}

/// Keys whose values don't fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The dotted keys, the one to change first. [`load`] adds where each was set.
    pub keys: Vec<String>,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl Misfit {
    /// A misfit between `keys`.
    pub fn new<K: Into<String>>(keys: impl IntoIterator<Item = K>, message: impl Into<String>) -> Self {
        Self {
            keys: keys.into_iter().map(Into::into).collect(),
            message: message.into(),
        }
    }
}

/// The conversion of a [`Variable`] whose text is taken as it is: a string, a number, or a comma-separated list,
/// whichever the key wants.
///
/// # Errors
///
/// Never.
pub fn as_text(text: &str) -> Result<Option<toml::Value>, String> {
    Ok(Some(toml::Value::String(text.to_owned())))
}

/// Loads `program`'s settings.
///
/// `config` is the file of `--config`; where it is `None`, SIDELOG_CONFIG and SIDELOG_CONFIG_TOML are looked up in `env`.
///
/// # Errors
///
/// Every problem of the file and the environment at once; rules across keys are looked at when each key is good by itself.
pub fn load<S>(program: &Program, config: Option<&Path>, env: &Environment) -> Result<S, SettingsError>
where
    S: DeserializeOwned + Validate,
{
    let source = source::find(config, env)?;
    let mut tree = match &source {
        Some(source) => Tree::parse(&source.name, &source.text)?,
        None => Tree::default(),
    };
    let mut problems = environment::overlay(&mut tree, program, env);
    let settings = deserializer::read::<S>(&mut tree, &mut problems);
    let Some(settings) = settings.filter(|_| problems.is_empty()) else {
        return Err(SettingsError::new(problems));
    };
    let misfits = settings.validate();
    if misfits.is_empty() {
        return Ok(settings);
    }
    let problems = misfits.iter().map(|misfit| Problem::of_misfit(misfit, &tree));
    Err(SettingsError::new(problems.collect()))
}

/// The file that [`load`] reads; `None` where there is none.
#[must_use]
pub fn path<'a>(config: Option<&'a Path>, env: &'a Environment) -> Option<&'a Path> {
    source::path(config, env)
}

/// The name of the place that the settings' file or text has in messages; `None` where there is neither.
///
/// # Errors
///
/// As [`load`]: the file can't be read, or there are two.
pub fn place(config: Option<&Path>, env: &Environment) -> Result<Option<String>, SettingsError> {
    Ok(source::find(config, env)?.map(|source| source.name))
}
