//! A place in the tree of the configuration, such as `listener "web": to`. A reader of files maps it to a line and a column.

use std::borrow::Cow;
use std::fmt;

/// A place in the tree: the record, and the field in it.
///
/// A field has the name of the option that sets it, without the dashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The records on the way from the root, each with its kind and its name: `("link", "home")`, `("forward", "db")`.
    pub records: Vec<(&'static str, String)>,
    /// The field, if the place is not a whole record.
    pub field: Option<Cow<'static, str>>,
}

impl Place {
    /// Returns the root of the tree.
    pub fn root() -> Place {
        Place::default()
    }

    /// Returns the place of a record at the root.
    pub fn record(kind: &'static str, name: &str) -> Place {
        Place::root().within(kind, name)
    }

    /// Returns the place of a record inside of this one.
    pub fn within(mut self, kind: &'static str, name: &str) -> Place {
        self.records.push((kind, name.to_owned()));
        self
    }

    /// Returns the place of a field of this record.
    pub fn field(&self, field: impl Into<Cow<'static, str>>) -> Place {
        Place { records: self.records.clone(), field: Some(field.into()) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (kind, name)) in self.records.iter().enumerate() {
            write!(f, "{}{kind} {name:?}", if index == 0 { "" } else { ": " })?;
        }
        match &self.field {
            Some(field) if self.records.is_empty() => f.write_str(field),
            Some(field) => write!(f, ": {field}"),
            None if self.records.is_empty() => f.write_str("the configuration"),
            None => Ok(()),
        }
    }
}
