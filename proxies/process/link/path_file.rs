//! A file of paths: the ways to the peer, one a line, as `--path` takes them. It is read again when it has changed, so that
//! ways come and go while the link lives.
//!
//! What cannot be read changes nothing: the paths that it had hold on, and a fault is told once for each content.

use std::path::PathBuf;
use std::sync::Arc;

use seaprox::auth::{FromFile, KeysError, Modes, Wrong};
use seaprox::node::Path;

use crate::cli::addresses;
use crate::shared_file::{Look, Shared};

/// The file, and what was last taken from it.
pub struct PathFile(Shared<Paths>, Meant);

/// The content of a file of paths.
#[derive(PartialEq)]
struct Paths(Vec<Path>);

/// Parameters for reading a file of paths.
#[derive(Clone, Copy)]
struct Meant {
    /// Where the peer listens, if a path says nothing else.
    port: u16,
    /// How many paths there may be.
    most: usize,
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
    pub fn load(file: PathBuf, port: u16, most: usize, modes: Modes) -> Result<PathFile, KeysError> {
        let meant = Meant { port, most };
        Shared::load(file, modes, meant).map(|file| PathFile(file, meant))
    }

    /// The paths that it last had.
    pub fn paths(&self) -> Vec<Path> {
        self.0.now().0.clone()
    }

    /// Reads the file again if it has changed. Returns the changes, if any.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn refresh(&self, look: Look) -> Result<Option<Change>, KeysError> {
        let PathFile(file, Meant { most, .. }) = self;
        let before: Arc<Paths> = file.now();
        if !file.refresh(look)? {
            return Ok(None);
        }
        let now = file.now();
        let (added, removed) = (now.without(&before), before.without(&now));
        let is_tight = before.0.len() + added.len() > *most;
        Ok((!added.is_empty() || !removed.is_empty()).then_some(Change { added, removed, is_tight }))
    }
}

impl Paths {
    fn without(&self, others: &Paths) -> Vec<Path> {
        self.0.iter().filter(|path| !others.0.contains(path)).cloned().collect()
    }
}

impl FromFile for Paths {
    type Context = Meant;
    // A file of paths is a few lines.
    const BYTES_MAX: usize = 64 << 10;

    fn parse(file: &std::path::Path, bytes: Option<&[u8]>, meant: &Meant) -> Result<Paths, KeysError> {
        let bytes = bytes.ok_or_else(|| KeysError::missing(file))?;
        let text = std::str::from_utf8(bytes).map_err(|_| KeysError::content(file, "UTF-8"))?;
        let mut paths = Vec::new();
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |error| KeysError::text(file, number, format!("{line:?}: {error}"));
            let path = addresses::path(line, meant.port).map_err(wrong)?;
            if paths.contains(&path) {
                return Err(KeysError::at(file, number, Wrong::word(line, "each path once")));
            }
            paths.push(path);
        }
        match paths.len() {
            0 => Err(KeysError::content(file, "a path in a line, such as %wlan0")),
            count if count > meant.most => {
                Err(KeysError::content(file, format!("{} paths at most, not {count}", meant.most)))
            }
            _ => Ok(Paths(paths)),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn keeps(&self, earlier: &Paths) -> bool {
        earlier.without(self).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::link::scratch::Scratch;
    use std::time::{Duration, Instant};

    #[test]
    fn paths_come_and_go_with_their_lines() {
        let scratch = Scratch::new();
        let path = |text: &str| addresses::path(text, 23232).unwrap();
        let at = scratch.path("paths");
        let write = |text: &str| drop(scratch.write("paths", text, 0o600));
        let load = || PathFile::load(at.clone(), 23232, 2, Modes::Strict).map_err(|error| error.to_string());
        assert!(load().err().unwrap().contains("paths: "), "missing");
        write("# uplinks\n\n %wlan0 \n");
        let file = load().unwrap();
        assert_eq!(file.paths(), [path("%wlan0")]);
        let mut now = Instant::now();
        let mut refresh = || {
            now += Duration::from_secs(1);
            file.refresh(Look::Again(now)).map_err(|error| error.to_string())
        };
        assert_eq!(refresh(), Ok(None));
        write("%wlan0\n10.0.0.2%eth0->gate\n");
        let added = vec![path("10.0.0.2%eth0->gate")];
        assert_eq!(refresh(), Ok(Some(Change { added, removed: vec![], is_tight: false })));
        write("nonsense\n");
        assert_eq!(refresh(), Ok(None), "it may be half written");
        assert!(
            refresh()
                .unwrap_err()
                .ends_with("paths:1: \"nonsense\": the source \"nonsense\": expected an address of this host")
        );
        assert_eq!(refresh(), Ok(None), "told once");
        assert!(file.refresh(Look::Now).is_err(), "but to whoever asks");
        for (text, part) in [("", "expected a path"), ("%a\n%a\n", "once"), ("%a\n%b\n%c\n", "expected 2 paths")] {
            write(text);
            assert!(file.refresh(Look::Now).unwrap_err().to_string().contains(part), "{text}");
        }
        assert_eq!(file.paths().len(), 2, "and the paths hold on");
        write("%wwan0\n%eth1\n");
        assert_eq!(refresh(), Ok(None), "lines are gone, which may come again");
        let change = refresh().unwrap().unwrap();
        assert_eq!((change.added.len(), change.removed.len(), change.is_tight), (2, 2, true));
        scratch.write("paths", "%wwan0\n", 0o666);
        assert!(refresh().unwrap_err().contains("others can change it"));
    }
}
