//! A file of paths: the ways to the peer, one a line, as `--path` takes them. It is read again when it has changed, so that
//! ways come and go while the link lives.
//!
//! What cannot be read changes nothing: the paths that it had hold on, and a fault is told once for each content.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use seaprox::node::Path;

use super::places;

/// The file, and what was last read from it.
pub struct PathFile {
    file: PathBuf,
    /// Where the peer listens, if a path says nothing else.
    port: u16,
    /// How many paths there may be.
    most: usize,
    state: Mutex<State>,
}

struct State {
    /// What it said when it was last looked at, whether or not that made sense.
    seen: Result<String, String>,
    paths: Vec<Path>,
}

/// What is to become of the paths of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Those that are new.
    pub added: Vec<Path>,
    /// Those that are gone.
    pub removed: Vec<Path>,
    /// Whether there is room for the new ones only once the others are gone.
    pub is_tight: bool,
}

impl PathFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(file: PathBuf, port: u16, most: usize) -> Result<PathFile, String> {
        let state = State { seen: Ok(String::new()), paths: Vec::new() };
        let paths = PathFile { file, port, most, state: Mutex::new(state) };
        paths.refresh(true).map(|_| paths)
    }

    /// The paths that it last had.
    pub fn paths(&self) -> Vec<Path> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).paths.clone()
    }

    /// Reads the file again, and says what is new. What is wrong with it is told once, or in any case.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn refresh(&self, anyway: bool) -> Result<Option<Change>, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let text = self.read();
        if text == state.seen && !anyway {
            return Ok(None);
        }
        state.seen = text.clone();
        let paths = self.parse(&text?)?;
        let not_in = |some: &[Path], others: &[Path]| -> Vec<Path> {
            some.iter().filter(|path| !others.contains(path)).cloned().collect()
        };
        let (added, removed) = (not_in(&paths, &state.paths), not_in(&state.paths, &paths));
        let is_tight = state.paths.len() + added.len() > self.most;
        state.paths = paths;
        Ok((!added.is_empty() || !removed.is_empty()).then_some(Change { added, removed, is_tight }))
    }

    fn read(&self) -> Result<String, String> {
        let mut text = String::new();
        let opened = File::open(&self.file).and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text));
        match opened {
            Ok(bytes) if bytes as u64 > BYTES_MAX => {
                Err(format!("{}: expected at most {BYTES_MAX} bytes", self.file.display()))
            }
            Ok(_) => Ok(text),
            Err(error) => Err(format!("{}: {error}", self.file.display())),
        }
    }

    fn parse(&self, text: &str) -> Result<Vec<Path>, String> {
        let file = self.file.display();
        let mut paths = Vec::new();
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let path = places::path(line, self.port).map_err(|error| format!("{file}:{number}: {line:?}: {error}"))?;
            if paths.contains(&path) {
                return Err(format!("{file}:{number}: {line:?}: expected each path once"));
            }
            paths.push(path);
        }
        match paths.len() {
            0 => Err(format!("{file}: expected a path in a line, such as %wlan0")),
            count if count > self.most => Err(format!("{file}: {count} paths: expected {} at most", self.most)),
            _ => Ok(paths),
        }
    }
}

/// A file of paths is a few lines.
const BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::scratch::Scratch;

    #[test]
    fn paths_come_and_go_with_their_lines() {
        let scratch = Scratch::new();
        let path = |text: &str| places::path(text, 23232).unwrap();
        let at = scratch.path("paths");
        let write = |text: &str| std::fs::write(&at, text).unwrap();
        let load = || PathFile::load(at.clone(), 23232, 2);
        assert!(load().err().unwrap().contains("paths: "), "missing");
        write("# uplinks\n\n %wlan0 \n");
        let file = load().unwrap();
        assert_eq!(file.paths(), [path("%wlan0")]);
        assert_eq!(file.refresh(false), Ok(None));
        write("%wlan0\n10.0.0.2%eth0->gate\n");
        let added = vec![path("10.0.0.2%eth0->gate")];
        assert_eq!(file.refresh(false), Ok(Some(Change { added, removed: vec![], is_tight: false })));
        write("nonsense\n");
        assert!(
            file.refresh(false)
                .unwrap_err()
                .ends_with("paths:1: \"nonsense\": the source \"nonsense\": expected an address of this host")
        );
        assert_eq!(file.refresh(false), Ok(None), "told once");
        assert!(file.refresh(true).is_err(), "but to whoever asks");
        for (text, part) in [("", "expected a path"), ("%a\n%a\n", "once"), ("%a\n%b\n%c\n", "3 paths: expected 2")] {
            write(text);
            assert!(file.refresh(false).unwrap_err().contains(part), "{text}");
        }
        assert_eq!(file.paths().len(), 2, "and the paths hold on");
        write("%wwan0\n%eth1\n");
        let change = file.refresh(false).unwrap().unwrap();
        assert_eq!((change.added.len(), change.removed.len(), change.is_tight), (2, 2, true));
    }
}
