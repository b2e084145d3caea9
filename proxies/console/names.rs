//! The names that the user has given to connections, listeners and tunnels, kept in a file of the directory of states: one name
//! a line, with the ends of its object behind it, so that an object with the same ends has the name again.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// The names, and their file.
#[derive(Debug, Default)]
pub struct Names {
    file: Option<PathBuf>,
    saved: Vec<Saved>,
}

/// One name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Saved {
    name: String,
    /// The ends of the object.
    key: String,
}

/// A change of the file.
#[derive(Clone, Debug)]
pub struct NameChange {
    file: PathBuf,
    /// The ends of the object that has the name now, or none any more.
    key: String,
    name: Option<String>,
}

impl Names {
    /// Reads the names of a file. A file that is not there has none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(file: PathBuf) -> Result<Names, String> {
        let saved = read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Names { file: Some(file), saved })
    }

    /// Returns the name of the object with these ends.
    pub fn name_of(&self, key: &str) -> Option<String> {
        self.saved.iter().find(|saved| saved.key == key).map(|saved| saved.name.clone())
    }

    /// Returns the ends of the object with this name.
    pub fn key_of(&self, name: &str) -> Option<&str> {
        self.saved.iter().find(|saved| saved.name == name).map(|saved| &*saved.key)
    }

    /// Iterates over the names and the ends of their objects.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.saved.iter().map(|saved| (&*saved.name, &*saved.key))
    }

    /// Sets the name of the object with these ends, or takes it away. Returns true if the file must be changed.
    ///
    /// # Errors
    /// The name is that of an object with other ends, or there are too many names.
    pub fn set(&mut self, key: Option<&str>, name: Option<&str>) -> Result<bool, String> {
        if let Some(other) = name.and_then(|name| self.key_of(name)).filter(|other| Some(*other) != key) {
            let name = name.unwrap_or_default();
            return Err(format!("the name {name:?} is that of the object {other:?}, which forget({name:?}) gives up"));
        }
        // Only an object that can be known again is saved.
        let Some(key) = key else { return Ok(false) };
        change(&mut self.saved, key, name);
        if self.saved.len() > NAMES_MAX {
            self.saved.retain(|saved| saved.key != key);
            return Err(format!("there are {NAMES_MAX} names already"));
        }
        Ok(self.file.is_some())
    }

    /// Returns the change of the file after the name of the object with these ends has changed.
    pub fn change_of(&self, key: &str) -> Option<NameChange> {
        Some(NameChange { file: self.file.clone()?, key: key.to_owned(), name: self.name_of(key) })
    }
}

impl NameChange {
    /// Writes the change to the file, which another console may have changed meanwhile.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn save(&self) -> io::Result<()> {
        let directory = self.file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let mut saved = read(&self.file)?;
        change(&mut saved, &self.key, self.name.as_deref());
        let text: String = saved.iter().map(|Saved { name, key }| format!("{name} {key}\n")).collect();
        let new = self.file.with_extension(format!("{}.new", std::process::id()));
        let written = write_private(&new, &text).and_then(|()| fs::rename(&new, &self.file));
        if written.is_err() {
            // A file that was not made needs no removal.
            let _ = fs::remove_file(&new);
        }
        written
    }
}

/// Checks the form of a name: a word that is no name of the console's own.
///
/// # Errors
/// The name is malformed.
pub fn check(name: &str) -> Result<(), String> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_fit) {
        let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
        let expected = format!("expected at most {NAME_BYTES_MAX} letters, digits and any of _ - .");
        return Err(format!("name {shown:?}: {expected}"));
    }
    if name.parse::<f64>().is_ok() || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(format!("name {name:?}: expected no number, and none that begins with {}", OWN_PREFIXES.join(" ")));
    }
    Ok(())
}

/// Gives the object with these ends a name, or takes it away.
fn change(saved: &mut Vec<Saved>, key: &str, name: Option<&str>) {
    saved.retain(|it| it.key != key && Some(&*it.name) != name);
    saved.extend(name.map(|name| Saved { name: name.to_owned(), key: key.to_owned() }));
}

/// Reads the names of a file.
fn read(file: &Path) -> io::Result<Vec<Saved>> {
    let mut text = String::new();
    match fs::File::open(file) {
        Ok(file) => _ = file.take(FILE_BYTES_MAX).read_to_string(&mut text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let saved = text.lines().filter_map(|line| line.split_once(' '));
    let fit = saved.filter(|(name, _)| check(name).is_ok());
    Ok(fit.take(NAMES_MAX).map(|(name, key)| Saved { name: name.to_owned(), key: key.to_owned() }).collect())
}

/// Writes a new file that only its owner can read.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)?.write_all(text.as_bytes())
}

/// Names of a user.
const NAMES_MAX: usize = 1000;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 64;
/// Bytes of the file that are read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Beginnings of the names that objects have in the configuration if the user gives them none.
const OWN_PREFIXES: [&str; 3] = ["console-", "listen-", "tunnel-"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        for name in ["quinn", "web-2", "a.b_c"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for name in ["", "a b", "é", "12", "1.5", "console-1", "tunnel-x", &"x".repeat(65), "a\n"] {
            assert!(check(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_name_belongs_to_one_object_and_is_there_again() {
        let directory = std::env::temp_dir().join(format!("seaprox-names-{}", std::process::id()));
        let file = directory.join("names");
        let mut names = Names::load(file.clone()).unwrap();
        assert_eq!(names.set(Some("to a:1"), Some("quinn")), Ok(true));
        names.change_of("to a:1").unwrap().save().unwrap();
        let error = names.set(Some("to b:1"), Some("quinn")).unwrap_err();
        assert!(error.contains("\"to a:1\""), "{error}");
        assert_eq!(names.set(None, Some("other")), Ok(false), "an object that cannot be known again is not saved");
        // Another console has saved a name meanwhile.
        let mut other = Names::load(file.clone()).unwrap();
        assert_eq!(other.name_of("to a:1").as_deref(), Some("quinn"));
        assert_eq!(other.set(Some("to b:1"), Some("ed")), Ok(true));
        other.change_of("to b:1").unwrap().save().unwrap();
        assert_eq!(names.set(Some("to a:1"), None), Ok(true));
        names.change_of("to a:1").unwrap().save().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "ed to b:1\n");
        fs::remove_dir_all(&directory).unwrap();
    }
}
