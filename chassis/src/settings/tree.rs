//! Settings before they have a type: values, each with its dotted path and the place where it was set.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem, SettingsError};

/// A value, its dotted path, and where it was set.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) path: String,
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value before it has a type.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// From a variable: becomes whatever the key wants.
    Text(String),
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Value {
    /// The value's type, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::String(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Datetime(_) => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// All values that were set.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) root: Node,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            root: Node {
                path: String::new(),
                place: Place::file("default settings"),
                value: Value::Table(BTreeMap::new()),
            },
        }
    }
}

impl Tree {
    /// Parses a TOML text called `name` in messages.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, SettingsError> {
        let lines = Lines::new(name, text);
        let table = DeTable::parse(text).map_err(|error| {
            let place = error
                .span()
                .map_or_else(|| Place::file(name), |span| lines.place(span.start));
            SettingsError::one(Problem::at(place, format!("not TOML: {}", error.message())))
        })?;
        let place = Place::file(name);
        let value = lines.table(table.get_ref(), "");
        Ok(Self {
            root: Node {
                path: String::new(),
                place,
                value,
            },
        })
    }

    /// Sets the value at a dotted path and makes the tables and list elements on the way to it.
    pub(super) fn set(&mut self, path: &str, value: toml::Value, place: &Place) -> Result<(), Problem> {
        let mut node = &mut self.root;
        let mut segments = path.split('.').peekable();
        while let Some(segment) = segments.next() {
            let index = segments.peek().and_then(|next| next.parse::<usize>().ok());
            let child = join(&node.path, segment);
            let empty = || Node {
                path: child.clone(),
                place: place.clone(),
                value: if index.is_some() {
                    Value::List(Vec::new())
                } else {
                    Value::Table(BTreeMap::new())
                },
            };
            node = match &mut node.value {
                Value::Table(table) => table.entry(segment.to_owned()).or_insert_with(empty),
                Value::List(list) => element(list, segment, empty)
                    .ok_or_else(|| Problem::of_key(place.clone(), path, out_of_list(&node.path)))?,
                other => {
                    let message = format!("{} is {} and has no keys below it", node.path, other.kind());
                    return Err(Problem::of_key(place.clone(), path, message));
                }
            };
        }
        *node = from_value(path, place, value);
        Ok(())
    }

    /// Where the value at a dotted path was set; `None` where it is the default.
    pub(super) fn place_of(&self, path: &str) -> Option<Place> {
        let mut node = &self.root;
        for segment in path.split('.') {
            node = match &node.value {
                Value::Table(table) => table.get(segment)?,
                Value::List(list) => list.get(segment.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(node.place.clone())
    }

    /// Takes the node with this path out; `false` where there is none.
    pub(super) fn remove(&mut self, path: &str) -> bool {
        remove(&mut self.root, path)
    }
}

fn remove(node: &mut Node, path: &str) -> bool {
    let leads_to = |child: &Node| path.strip_prefix(&child.path).is_some_and(|rest| rest.starts_with('.'));
    match &mut node.value {
        Value::Table(table) => {
            let before = table.len();
            table.retain(|_, child| child.path != path);
            table.len() < before || table.values_mut().any(|child| leads_to(child) && remove(child, path))
        }
        Value::List(list) => {
            let before = list.len();
            list.retain(|child| child.path != path);
            list.len() < before || list.iter_mut().any(|child| leads_to(child) && remove(child, path))
        }
        _ => false,
    }
}

fn element<'a>(list: &'a mut Vec<Node>, segment: &str, new: impl FnOnce() -> Node) -> Option<&'a mut Node> {
    let index = segment.parse::<usize>().ok()?;
    if index == list.len() {
        list.push(new());
    }
    list.get_mut(index)
}

fn out_of_list(path: &str) -> String {
    format!("the elements of {path} are numbered from 0, without gaps; number this one as the next")
}

/// The dotted path of `key` in the table or list at `parent`.
pub(super) fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        key.to_owned()
    } else {
        format!("{parent}.{key}")
    }
}

/// A value from a variable.
pub(super) fn from_value(path: &str, place: &Place, value: toml::Value) -> Node {
    let value = match value {
        toml::Value::String(text) => Value::Text(text),
        toml::Value::Integer(number) => Value::Integer(number),
        toml::Value::Float(number) => Value::Float(number),
        toml::Value::Boolean(flag) => Value::Boolean(flag),
        toml::Value::Datetime(date) => Value::Datetime(date.to_string()),
        toml::Value::Array(list) => {
            let nodes = list.into_iter().enumerate();
            Value::List(
                nodes
                    .map(|(index, value)| from_value(&join(path, &index.to_string()), place, value))
                    .collect(),
            )
        }
        toml::Value::Table(table) => {
            let nodes = table.into_iter().map(|(key, value)| {
                let node = from_value(&join(path, &key), place, value);
                (key, node)
            });
            Value::Table(nodes.collect())
        }
    };
    Node {
        path: path.to_owned(),
        place: place.clone(),
        value,
    }
}

/// The lines of a text.
struct Lines {
    name: Arc<str>,
    starts: Vec<usize>,
}

impl Lines {
    fn new(name: &str, text: &str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self {
            name: name.into(),
            starts: std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect(),
        }
    }

    fn place(&self, offset: usize) -> Place {
        Place::File {
            name: Arc::clone(&self.name),
            line: Some(self.starts.partition_point(|start| *start <= offset)),
        }
    }

    fn table(&self, table: &DeTable<'_>, path: &str) -> Value {
        let nodes = table.iter().map(|(key, value)| {
            let node = self.node(value, join(path, key.get_ref()), key.span().start);
            (key.get_ref().clone().into_owned(), node)
        });
        Value::Table(nodes.collect())
    }

    fn node(&self, value: &Spanned<DeValue<'_>>, path: String, key_at: usize) -> Node {
        let at = if value.get_ref().is_table() {
            key_at
        } else {
            value.span().start
        };
        let value = match value.get_ref() {
            DeValue::String(text) => Value::String(text.clone().into_owned()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Value::String(number.to_string()), Value::Integer),
            DeValue::Float(number) => number
                .as_str()
                .parse()
                .map_or_else(|_| Value::String(number.to_string()), Value::Float),
            DeValue::Boolean(flag) => Value::Boolean(*flag),
            DeValue::Datetime(date) => Value::Datetime(date.to_string()),
            DeValue::Array(list) => {
                let nodes = list.iter().enumerate();
                let nodes =
                    nodes.map(|(index, value)| self.node(value, join(&path, &index.to_string()), value.span().start));
                Value::List(nodes.collect())
            }
            DeValue::Table(table) => self.table(table, &path),
        };
        Node {
            path,
            place: self.place(at),
            value,
        }
    }
}
