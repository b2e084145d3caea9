//! The reader of files: the sections of all files, and the keys that fill fields of the configuration.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};

use seaprox::config::Place;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::names::Names;
use super::problem::{Position, Problems};
use super::source::{Entry, ParsedFile, SourceFile};
use super::variables::substitute;
use super::{Environment, Positions, later};
use crate::cli::{Draft, EXCLUSIVE, Field, OPTIONS, OptionSpec, Section, Value, suggest};

/// Reads files into a draft.
pub struct Reader<'a> {
    /// The errors so far.
    pub problems: Problems,
    /// The positions of records and keys.
    pub positions: Positions,
    /// The keys with an error. What the validation of the whole says of them is not shown.
    pub broken: HashSet<Place>,
    /// True if keys may be missing, because a file has an error of syntax.
    pub is_incomplete: bool,
    environment: &'a Environment<'a>,
    pub(super) names: AllNames,
}

/// The names of all records.
#[derive(Default)]
pub struct AllNames {
    /// The names of listeners and forwards.
    listeners: Names,
    links: Names,
    servers: Names,
}

/// A value as text, with its position.
pub struct Text {
    /// The text, with all variables replaced.
    pub text: String,
    /// The position.
    pub position: Position,
    /// The variables that were replaced.
    pub variables: Variables,
}

/// Variables with their values, which may be secrets.
#[derive(Clone, Debug, Default)]
pub struct Variables(Vec<(String, String)>);

impl Variables {
    /// Returns an error about a value with the names of the variables in place of their values, which no log may have.
    pub fn hidden(&self, error: String) -> String {
        let long = self.0.iter().filter(|(_, value)| value.len() >= HIDDEN_BYTES_MIN);
        long.fold(error, |error, (name, value)| {
            // An error quotes a value with escapes.
            let quoted = format!("{value:?}");
            let name = format!("${{{name}}}");
            error.replace(quoted.trim_matches('"'), &name).replace(value, &name)
        })
    }
}

impl AllNames {
    /// Returns the names that the records of a section have.
    pub fn of(&mut self, section: Section) -> &mut Names {
        match section {
            Section::Link => &mut self.links,
            Section::Serve => &mut self.servers,
            _ => &mut self.listeners,
        }
    }
}

impl<'a> Reader<'a> {
    pub fn new(
        environment: &'a Environment<'a>,
        problems: Problems,
        start: Position,
        is_incomplete: bool,
    ) -> Reader<'a> {
        let positions = Positions::new(start);
        let (broken, names) = (HashSet::new(), AllNames::default());
        Reader { problems, positions, broken, is_incomplete, environment, names }
    }

    /// Reads all files. Returns a draft with the process and all records.
    pub fn read(&mut self, files: &[ParsedFile<'_>]) -> Draft {
        let entries: Vec<Entry<'_>> = files.iter().flat_map(|it| it.file.entries(&it.table)).collect();
        let of_process = entries.iter().filter(|entry| !TABLES.contains(&entry.name())).copied().collect();
        let mut draft = Draft::default();
        self.options(Section::Process, &Place::root(), of_process, &[], &mut draft);
        let defaults = entries.iter().filter(|entry| entry.name() == "defaults");
        let tables: Vec<_> = defaults.filter_map(|entry| Some((*entry, self.table(*entry)?))).collect();
        let of_defaults = tables.iter().flat_map(|(entry, table)| entry.file.entries(table)).collect();
        self.options(Section::Defaults, &Place::root(), of_defaults, &[], &mut draft);
        self.overrides(&mut draft);
        draft.finish();
        self.records(&entries, &mut draft);
        let config = &draft.process;
        if config.listeners.is_empty() && !config.has_links() && self.problems.is_empty() {
            let start = self.positions.start.clone();
            self.problems.add(start, "expected at least one [[listener]], [[link]] or [[serve]]");
        }
        draft
    }

    /// Fills in the options of the command line and of the environment, which take precedence over the files.
    fn overrides(&mut self, draft: &mut Draft) {
        let Some(options) = self.environment.options else { return };
        if let Err(error) = options.fill_process(draft) {
            let start = self.positions.start.clone();
            self.problems.add(start, error.to_string());
        }
    }

    /// Fills in the options of a section. `own` are its other keys, which the caller reads.
    pub fn options(
        &mut self,
        section: Section,
        place: &Place,
        entries: Vec<Entry<'_>>,
        own: &[&str],
        draft: &mut Draft,
    ) {
        let mut found: Vec<(usize, &OptionSpec, Entry<'_>)> = Vec::new();
        let mut seen: HashMap<&str, Position> = HashMap::new();
        let entries = entries.into_iter().filter(|entry| !own.contains(&entry.name()));
        for entry in entries.flat_map(|entry| inner(entry)) {
            let Some((index, spec)) = find(section, entry.name()) else {
                self.unknown(section, place, entry, own);
                continue;
            };
            if let Some(first) = seen.get(spec.long) {
                let text = format!("{}: found it twice, expected it once: it also stands at {first}", spec.long);
                self.fail(place, entry.key_position(), text);
                continue;
            }
            seen.insert(spec.long, entry.key_position());
            self.positions.add(place.field(spec.long), entry.position());
            found.push((index, spec, entry));
        }
        for (one, other, why) in EXCLUSIVE {
            if let (Some(_), Some(position)) = (seen.get(one), seen.get(other)) {
                let text = format!("{other}: found it beside {one}, expected one of them, because {why}");
                self.fail(place, position.clone(), text);
            }
        }
        // A later row of the table takes precedence. Rules keep the order of the file.
        found.sort_by_key(|(index, _, _)| *index);
        for (_, spec, entry) in found {
            let field = spec.field_in(section);
            let Some(texts) = self.texts(place, entry, spec) else { continue };
            field.start(draft);
            for Text { text, position, variables } in texts {
                if let Err(expected) = field.set(draft, spec.value, &text) {
                    let error = variables.hidden(format!("found {text:?}, {expected}"));
                    self.fail(place, position, format!("{}: {error}", spec.long));
                }
            }
        }
    }

    /// Returns the values of an option: one, or those of an array if the option repeats.
    fn texts(&mut self, place: &Place, entry: Entry<'_>, spec: &OptionSpec) -> Option<Vec<Text>> {
        let is_list = matches!(spec.value, Value::Text("LIST"));
        let DeValue::Array(items) = entry.value.get_ref() else {
            return Some(vec![self.text(place, entry, entry.value, spec)?]);
        };
        if !spec.repeat && !is_list {
            self.fail(place, entry.position(), format!("{}: found an array, expected {}", spec.long, expected(spec)));
            return None;
        }
        let texts: Vec<Option<Text>> = items.iter().map(|item| self.text(place, entry, item, spec)).collect();
        let mut texts = texts.into_iter().collect::<Option<Vec<Text>>>()?;
        if is_list && texts.len() > 1 {
            let text = texts.iter().map(|text| text.text.as_str()).collect::<Vec<_>>().join(",");
            let variables = Variables(texts.into_iter().flat_map(|text| text.variables.0).collect());
            texts = vec![Text { text, position: entry.position(), variables }];
        }
        Some(texts)
    }

    /// Returns one value of an option as the text that stands behind its flag.
    pub fn text(
        &mut self,
        place: &Place,
        entry: Entry<'_>,
        value: &Spanned<DeValue<'_>>,
        spec: &OptionSpec,
    ) -> Option<Text> {
        let position = entry.file.position(value.span());
        let mut variables = Variables::default();
        let text = match value.get_ref() {
            DeValue::String(text) => self.substituted(place, entry.name(), text, position.clone(), &mut variables)?,
            DeValue::Boolean(flag) if spec.value == Value::None => flag.to_string(),
            // A port is a number to most people.
            DeValue::Integer(number)
                if spec.value != Value::None && !matches!(spec.value, Value::File | Value::Directory) =>
            {
                i64::from_str_radix(number.as_str(), number.radix())
                    .map_or_else(|_| number.to_string(), |number| number.to_string())
            }
            other => {
                let found = found(other);
                self.fail(place, position, format!("{}: found {found}, expected {}", entry.name(), expected(spec)));
                return None;
            }
        };
        let text = match spec.value {
            Value::File | Value::Directory if text != "none" => self.path(entry.file, &text),
            _ => text,
        };
        Some(Text { text, position, variables })
    }

    /// Returns a string with its variables replaced.
    pub fn string(&mut self, place: &Place, key: &str, text: &str, position: Position) -> Option<String> {
        self.substituted(place, key, text, position, &mut Variables::default())
    }

    fn substituted(
        &mut self,
        place: &Place,
        key: &str,
        text: &str,
        position: Position,
        variables: &mut Variables,
    ) -> Option<String> {
        let used = RefCell::new(Vec::new());
        let variable = |name: &str| {
            let value = (self.environment.variable)(name);
            used.borrow_mut().extend(value.clone().map(|value| (name.to_owned(), value)));
            value
        };
        let result = substitute(text, &variable);
        variables.0.extend(used.into_inner());
        match result {
            Ok(text) => Some(text),
            Err(expected) => {
                self.fail(place, position, format!("{key}: found {text:?}, {expected}"));
                None
            }
        }
    }

    /// Returns the path that a value means: from the directory of its file on.
    fn path(&self, file: &SourceFile, text: &str) -> String {
        let credentials = text.strip_prefix("$CREDENTIALS_DIRECTORY/");
        let directory = credentials.and_then(|_| (self.environment.variable)("CREDENTIALS_DIRECTORY"));
        match (credentials, directory) {
            (Some(name), Some(directory)) => format!("{directory}/{name}"),
            _ => file.directory.join(text).display().to_string(),
        }
    }

    /// Returns the value of a key that must be a table.
    fn table<'t>(&mut self, entry: Entry<'t>) -> Option<&'t DeTable<'t>> {
        match entry.value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                let text = format!("{}: found {}, expected a table [{0}]", entry.name(), found(other));
                self.fail(&Place::root(), entry.position(), text);
                None
            }
        }
    }

    /// Returns the tables of a key that must be an array of tables.
    pub fn tables<'t>(&mut self, place: &Place, entry: Entry<'t>) -> Vec<(&'t Spanned<DeValue<'t>>, &'t DeTable<'t>)> {
        let form = if entry.name() == "forward" { "an array of tables" } else { "an array of tables, with [[...]]" };
        let DeValue::Array(items) = entry.value.get_ref() else {
            let text = format!("{}: found {}, expected {form}", entry.name(), found(entry.value.get_ref()));
            self.fail(place, entry.position(), text);
            return Vec::new();
        };
        let items: &'t DeArray<'t> = items;
        let mut tables = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) => tables.push((item, table)),
                other => {
                    let text = format!("{}: found {}, expected {form}", entry.name(), found(other));
                    self.fail(place, entry.file.position(item.span()), text);
                }
            }
        }
        tables
    }

    /// Adds the error of a key that the section does not have.
    fn unknown(&mut self, section: Section, place: &Place, entry: Entry<'_>, own: &[&str]) {
        let key = entry.name();
        let elsewhere: Vec<_> = Section::ALL
            .into_iter()
            .filter(|other| *other != section && find(*other, key).is_some())
            .map(Section::place)
            .collect();
        let text = if later::is_later(section, key) {
            format!("{key}: not yet: this version does not have this key")
        } else if !elsewhere.is_empty() {
            format!("{key}: found it {}, expected it {}", section.place(), elsewhere.join(" or "))
        } else {
            let tables: &[&str] = if section == Section::Process { TABLES } else { &[] };
            let keys = OPTIONS.iter().filter(|spec| spec.sections.has(section)).map(|spec| spec.long);
            let keys: BTreeSet<&str> = keys.chain(own.iter().copied()).chain(tables.iter().copied()).collect();
            let hint = suggest::hint(key, "", keys);
            format!("{key}: found an unknown key, expected a key that may stand {}{hint}", section.place())
        };
        self.fail(place, entry.key_position(), text);
    }

    /// Adds an error of a record. Its text begins with the key and a colon.
    pub fn fail(&mut self, place: &Place, position: Position, text: impl Into<String>) {
        let text = text.into();
        let key = text.split(':').next().unwrap_or_default().to_owned();
        self.broken.insert(place.field(key));
        self.problems.add(position, text);
    }
}

/// Returns the keys of a table of [`INLINE`]: `a = { b = 1 }` is `a-b = 1`. Every other key is returned as it is.
fn inner<'t>(entry: Entry<'t>) -> Vec<Entry<'t>> {
    let DeValue::Table(table) = entry.value.get_ref() else { return vec![entry] };
    if !INLINE.contains(&entry.name()) {
        return vec![entry];
    }
    let row = |inner: &Entry<'_>| OPTIONS.iter().find(|spec| spec.long == format!("{}-{}", entry.name(), inner.name()));
    let named = |inner: Entry<'t>| inner.named(row(&inner).map_or(inner.name(), |spec| spec.long));
    entry.file.entries(table).into_iter().map(named).collect()
}

/// Returns the row of a key of a section, and its order among the rows.
fn find(section: Section, key: &str) -> Option<(usize, &'static OptionSpec)> {
    let found = OPTIONS.iter().enumerate().find(|(_, spec)| spec.long == key && spec.sections.has(section))?;
    // Rules share a place, so that those of a file keep their order.
    let is_rule = |spec: &OptionSpec| matches!(spec.field, Field::Rules(_));
    match found {
        (_, spec) if is_rule(spec) => Some((OPTIONS.iter().position(is_rule).unwrap_or(0), spec)),
        found => Some(found),
    }
}

/// Returns a value as an error names it.
pub fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Returns the form of the value of an option.
fn expected(spec: &OptionSpec) -> String {
    match spec.value {
        Value::None => "true or false".to_owned(),
        Value::Duration => "a duration in quotes, such as \"30s\"".to_owned(),
        Value::Size(..) => "a size in quotes, such as \"64KiB\"".to_owned(),
        Value::Number(least, most) => format!("a number from {least} to {most}"),
        Value::File => "the name of a file in quotes".to_owned(),
        Value::Directory => "the name of a directory in quotes".to_owned(),
        Value::Choice(words) => words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "),
        _ => format!("{} in quotes", spec.placeholder().unwrap_or_default()),
    }
}

/// The shortest value of a variable that is hidden in errors. Shorter ones are ports and the like.
const HIDDEN_BYTES_MIN: usize = 4;
/// The options that may also stand in an inline table, by the common start of their names.
const INLINE: &[&str] = &["proxy-protocol"];
/// The keys at the top of a file that are no options.
pub const TABLES: &[&str] = &["include", "defaults", "listener", "link", "serve"];
