//! A file of paths to the peer, one path per line in the grammar of `--path`. It is read again when it has changed, so that
//! paths are added and removed while the link is up.

use std::path::PathBuf;
use std::sync::Arc;

use seaprox::auth::{FromFile, KeysError, Modes, Wrong};
use seaprox::config::PathRoom;
use seaprox::node::Path;

use super::addresses;
use crate::shared_file::{Refresh, SharedFile};

/// A file of paths.
pub struct PathFile {
    file: SharedFile<Paths>,
    room: PathRoom,
}

/// The content of the file.
#[derive(PartialEq)]
struct Paths(Vec<Path>);

/// Parameters for parsing the file.
#[derive(Clone, Copy)]
struct PathsContext {
    /// The port of a peer address without a port.
    port: u16,
    room: PathRoom,
}

/// The difference between two contents of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// The new paths.
    pub added: Vec<Path>,
    /// The paths that are gone.
    pub removed: Vec<Path>,
    /// True if the limit of subflows has room for the new ones only after the others are removed.
    pub is_tight: bool,
}

impl PathFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// Fails if the file cannot be read or parsed.
    pub fn load(file: PathBuf, port: u16, room: PathRoom, modes: Modes) -> Result<PathFile, KeysError> {
        let file = SharedFile::load(file, modes, PathsContext { port, room })?;
        Ok(PathFile { file, room })
    }

    /// Returns the paths that are in use.
    pub fn paths(&self) -> Vec<Path> {
        self.file.value().0.clone()
    }

    /// Reads the file again if it has changed. Returns the change, if any.
    ///
    /// # Errors
    /// Fails if the file cannot be read or parsed; the previous paths stay in use. The same error is returned once for
    /// periodic readings.
    pub fn refresh(&self, refresh: Refresh) -> Result<Option<FileChange>, KeysError> {
        let before: Arc<Paths> = self.file.value();
        if !self.file.refresh(refresh)? {
            return Ok(None);
        }
        let now = self.file.value();
        let (added, removed) = (now.without(&before), before.without(&now));
        let is_tight = self.room.check(&[&before.0[..], &added].concat()).is_err();
        Ok((!added.is_empty() || !removed.is_empty()).then_some(FileChange { added, removed, is_tight }))
    }
}

impl Paths {
    fn without(&self, others: &Paths) -> Vec<Path> {
        self.0.iter().filter(|path| !others.0.contains(path)).cloned().collect()
    }
}

impl FromFile for Paths {
    type Context = PathsContext;
    // A path takes less than 100 bytes, and there are at most a few dozen.
    const BYTES_MAX: usize = 64 << 10;

    fn parse(file: &std::path::Path, bytes: Option<&[u8]>, context: &PathsContext) -> Result<Paths, KeysError> {
        let bytes = bytes.ok_or_else(|| KeysError::missing(file))?;
        let text = std::str::from_utf8(bytes).map_err(|_| KeysError::content(file, "UTF-8"))?;
        let mut paths = Vec::new();
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |error| KeysError::text(file, number, format!("{line:?}: {error}"));
            let path = addresses::path(line, context.port).map_err(wrong)?;
            if paths.contains(&path) {
                return Err(KeysError::at(file, number, Wrong::word(line, "each path once")));
            }
            paths.push(path);
        }
        if paths.is_empty() {
            return Err(KeysError::content(file, "at least one path on a line, such as %wlan0"));
        }
        context.room.check(&paths).map_err(|expected| KeysError::content(file, expected))?;
        Ok(Paths(paths))
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
    use crate::links::scratch::Scratch;
    use std::time::{Duration, Instant};

    #[test]
    fn paths_are_added_and_removed_with_their_lines() {
        let scratch = Scratch::new();
        let path = |text: &str| addresses::path(text, 23232).unwrap();
        let at = scratch.path("paths");
        let write = |text: &str| drop(scratch.write("paths", text, 0o600));
        let room = PathRoom { subflows: 1, most: 3, has_quic_beside: true };
        let load = || PathFile::load(at.clone(), 23232, room, Modes::Strict).map_err(|error| error.to_string());
        assert!(load().err().unwrap().contains("paths: "), "the file is missing");
        write("# uplinks\n\n %wlan0 \n");
        let file = load().unwrap();
        assert_eq!(file.paths(), [path("%wlan0")]);
        let mut now = Instant::now();
        let mut refresh = || {
            now += Duration::from_secs(1);
            file.refresh(Refresh::Periodic(now)).map_err(|error| error.to_string())
        };
        assert_eq!(refresh(), Ok(None));
        write("%wlan0\ntcp:10.0.0.2%eth0->gate\n");
        let added = vec![path("tcp:10.0.0.2%eth0->gate")];
        assert_eq!(refresh(), Ok(Some(FileChange { added, removed: vec![], is_tight: false })));
        write("nonsense\n");
        assert_eq!(refresh(), Ok(None), "it may be half written");
        assert!(
            refresh()
                .unwrap_err()
                .ends_with("paths:1: \"nonsense\": the source \"nonsense\": expected an address of this host")
        );
        assert_eq!(refresh(), Ok(None), "the error is reported once");
        assert!(file.refresh(Refresh::Forced).is_err(), "a forced reading reports it again");
        for (text, part) in [
            ("", "expected at least one path"),
            ("%a\n%a\n", "once"),
            ("%a\n%b\n", "expected at most 3 subflows in total, not 4 over 2 paths, of which 2 have QUIC"),
        ] {
            write(text);
            assert!(file.refresh(Refresh::Forced).unwrap_err().to_string().contains(part), "{text}");
        }
        assert_eq!(file.paths().len(), 2, "the previous paths stay in use");
        write("tcp:%wwan0\n%eth1\n");
        assert_eq!(refresh(), Ok(None), "removed lines may come back");
        let change = refresh().unwrap().unwrap();
        assert_eq!((change.added.len(), change.removed.len(), change.is_tight), (2, 2, true));
        scratch.write("paths", "%wwan0\n", 0o666);
        assert!(refresh().unwrap_err().contains("others can change it"));
    }
}
