//! Files of keys: bounded reads, atomic writes, and the detection of changes.
//!
//! [`Modes`] checks the owners and modes of the files.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::error::{KeysError, Problem};
use super::modes::{Modes, Secrecy};
use super::secret::Secret;
use super::{FILE_BYTES_MAX, PRIVATE_FILE_BYTES_MAX};
use crate::sys;
use crate::types::units::format_size;

/// The metadata of a file at the time of a read, so that one `stat` tells whether the file must be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `None` if there was no file.
    file: Option<Looks>,
    /// The last change of the file was so recent that the next change may have the same time.
    is_fresh: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Looks {
    /// Differs between two files that exist at the same time.
    identity: (u64, u64),
    size: u64,
    /// Set for a regular file, whose content can be read again.
    is_regular: bool,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a missing file.
    pub const MISSING: Stamp = Stamp { file: None, is_fresh: false };

    /// Returns the stamp of the file at a path. A file without readable metadata counts as missing.
    pub fn of(path: &Path) -> Stamp {
        fs::metadata(path).map_or(Stamp::MISSING, |metadata| Stamp::from(&metadata))
    }

    /// Returns true if the content may have changed since the stamp. Always true if the file was written shortly before
    /// the stamp, because two changes within one tick of the file system's clock have the same time.
    pub fn has_changed(&self, path: &Path) -> bool {
        self.is_fresh || Stamp::of(path).file != self.file
    }

    /// Returns true if both stamps are of the same file with the same size and times.
    pub(super) fn looks_like(&self, other: &Stamp) -> bool {
        self.file == other.file
    }

    /// Returns true if another file has replaced the earlier one.
    pub(super) fn is_another_file(&self, before: &Stamp) -> bool {
        let place = |stamp: &Stamp| stamp.file.map(|file| file.identity);
        self.file.is_some() && before.file.is_some() && place(self) != place(before)
    }

    /// Returns the stamp as if the file had not changed for long.
    #[cfg(test)]
    pub(super) fn settled(self) -> Stamp {
        Stamp { is_fresh: false, ..self }
    }

    /// Returns true for a pipe or a device, whose content can be read only once.
    pub(super) fn is_stream(&self) -> bool {
        self.file.is_some_and(|file| !file.is_regular)
    }

    fn from(metadata: &Metadata) -> Stamp {
        let [modified, changed] = sys::file_times(metadata);
        let looks = Looks {
            identity: sys::file_identity(metadata),
            size: metadata.len(),
            is_regular: metadata.is_file(),
            modified,
            changed,
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let age = i64::try_from(now.as_secs()).unwrap_or(i64::MAX).saturating_sub(looks.changed.0);
        Stamp { file: Some(looks), is_fresh: age.unsigned_abs() <= TICK_SECS_MAX }
    }
}

/// Reads a file that no other user can read or change.
pub(super) fn read_private(path: &Path, modes: Modes) -> Result<Secret, KeysError> {
    read_private_of(path, modes, PRIVATE_FILE_BYTES_MAX).map(|(content, _)| content)
}

/// Reads a file that no other user can read or change, up to a maximum size. Returns its stamp, too, from before the read.
pub(super) fn read_private_of(path: &Path, modes: Modes, bytes_max: usize) -> Result<(Secret, Stamp), KeysError> {
    let (mut file, metadata) = modes.open(path, Secrecy::Private)?;
    // The buffer never grows, because a reallocation would leave a copy of the secret in freed memory.
    let mut buf = Secret::zeroed(bytes_max + 1);
    let mut used = 0;
    while used < buf.expose().len() {
        match file.read(&mut buf.expose_mut()[used..]) {
            Ok(0) => return Ok((Secret::copied(&buf.expose()[..used]), Stamp::from(&metadata))),
            Ok(count) => used += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(KeysError::new(path, Problem::Io(error))),
        }
    }
    Err(KeysError::content(path, format!("at most {}", format_size(bytes_max as u64))))
}

/// Locks a file against other threads and processes that change it. The lock is a file beside it, which is never removed;
/// the system releases it when the process ends, however that happens.
///
/// # Errors
/// The lock cannot be made, or another process holds it for longer than [`LOCK_TIMEOUT`].
pub(super) fn lock(path: &Path) -> Result<File, KeysError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = sys::open_private(OpenOptions::new().write(true).create(true).truncate(false), &name);
    let file = file.map_err(KeysError::io(&name))?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_TIMEOUT => thread::sleep(LOCK_INTERVAL),
            Err(TryLockError::WouldBlock) => {
                let error = io::Error::new(ErrorKind::TimedOut, "another process holds this lock");
                return Err(KeysError::new(&name, Problem::Io(error)));
            }
            Err(TryLockError::Error(error)) => return Err(KeysError::new(&name, Problem::Io(error))),
        }
    }
}

/// Reads a file that no other user can change, up to a maximum size. The stamp is taken before the read, so that it does
/// not match a file that changes during the read.
pub(super) fn read_public(path: &Path, modes: Modes, bytes_max: usize) -> Result<(Vec<u8>, Stamp), KeysError> {
    let (file, metadata) = modes.open(path, Secrecy::Public)?;
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(KeysError::io(path))?;
    if bytes.len() > bytes_max {
        return Err(KeysError::content(path, format!("at most {}", format_size(bytes_max as u64))));
    }
    Ok((bytes, Stamp::from(&metadata)))
}

/// Creates a file that only its owner can access. The content is written to a draft in the same directory, which is then
/// renamed or linked, so the file is complete or does not exist. Without `replace` this fails if the path exists, also if
/// another process creates it at the same moment.
pub(super) fn create(path: &Path, content: &[u8], replace: bool) -> Result<(), KeysError> {
    Draft::remove_left(path);
    // This check only saves work; the link below decides.
    if !replace && fs::symlink_metadata(path).is_ok() {
        return Err(KeysError::new(path, Problem::Exists));
    }
    write_and_put(path, content, replace)
}

fn write_and_put(path: &Path, content: &[u8], replace: bool) -> Result<(), KeysError> {
    let (mut file, draft) = Draft::beside(path).map_err(KeysError::io(path))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(KeysError::io(path))?;
    let placed = if replace { fs::rename(&draft.0, path) } else { fs::hard_link(&draft.0, path) };
    drop(draft);
    match placed {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(KeysError::new(path, Problem::Exists)),
        Err(error) => Err(KeysError::new(path, Problem::Io(error))),
        Ok(()) => sys::sync_directory(parent(path)).map_err(KeysError::io(path)),
    }
}

/// Appends a line to a file in one write, so that lines of several processes do not mix. Returns the number of the line,
/// counted from 1.
pub(super) fn append_line(path: &Path, line: &str) -> Result<usize, KeysError> {
    let is_new = fs::symlink_metadata(path).is_err();
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    let mut file = sys::open_private(&mut options, path).map_err(KeysError::io(path))?;
    let mut before = Vec::new();
    (&file).take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut before).map_err(KeysError::io(path))?;
    if before.len() + line.len() + 2 > FILE_BYTES_MAX {
        return Err(KeysError::content(path, NO_ROOM));
    }
    // An editor may have left the last line without a newline.
    let lead = if before.last().is_none_or(|last| *last == b'\n') { "" } else { "\n" };
    let whole = file.write_all(format!("{lead}{line}\n").as_bytes()).and_then(|()| file.sync_all());
    if whole.is_err() {
        // A part of a line would make the whole file invalid. A full disk leaves room for less, not for more.
        let _ = file.set_len(before.len() as u64);
    }
    whole
        .and_then(|()| if is_new { sys::sync_directory(parent(path)) } else { Ok(()) })
        .map_err(KeysError::io(path))?;
    Ok(before.iter().filter(|byte| **byte == b'\n').count() + lead.len() + 1)
}

/// Checks that a line can be appended to a file. Creates the file and its directory if they do not exist. A full disk is noticed,
/// because a draft of the size of a line is written and removed.
pub(super) fn check_appendable(path: &Path) -> Result<(), KeysError> {
    make_directory(parent(path))?;
    sys::open_private(OpenOptions::new().append(true).create(true), path).map_err(KeysError::io(path))?;
    let drafted = Draft::beside(path)
        .and_then(|(mut file, _draft)| file.write_all(&[b'#'; LINE_BYTES_USUAL]).and_then(|()| file.sync_all()));
    match drafted {
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            Err(KeysError::new(path, Problem::Io(error)))
        }
        // A directory that takes no new files may have a file that takes lines.
        _ => Ok(()),
    }
}

/// Creates a directory and its parents, accessible to their owner only. Existing directories are not changed.
pub(super) fn make_directory(path: &Path) -> Result<(), KeysError> {
    sys::private_directory_builder().recursive(true).create(path).map_err(KeysError::io(path))
}

/// Returns the directory of a file.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// The temporary name of a file that is being written. Dropping it removes the name.
struct Draft(PathBuf);

impl Draft {
    fn beside(path: &Path) -> io::Result<(File, Draft)> {
        let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "no name of a file"))?;
        let mut last = io::Error::from(ErrorKind::AlreadyExists);
        for _ in 0..DRAFTS_MAX {
            let mut draft = std::ffi::OsString::from(".");
            draft.push(name);
            draft.push(format!(".{}.{}", std::process::id(), DRAFTS.fetch_add(1, Ordering::Relaxed)));
            let draft = parent(path).join(draft);
            match sys::open_private(OpenOptions::new().write(true).create_new(true), &draft) {
                Ok(file) => return Ok((file, Draft(draft))),
                // A process with the same id on another host that shares the directory.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

impl Draft {
    /// Removes the drafts of a file that killed processes left behind. Ignores errors.
    fn remove_left(path: &Path) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
        let prefix = format!(".{name}.");
        for entry in fs::read_dir(parent(path)).into_iter().flatten().flatten() {
            let left = entry.file_name().to_str().and_then(|name| {
                let (process, count) = name.strip_prefix(&prefix)?.split_once('.')?;
                Some((number(process)?, number(count)?))
            });
            let is_left = |(process, count): (u32, u32)| match process == std::process::id() {
                // A draft with this process's id is an earlier process's, unless this process's counter is past it.
                true => count >= DRAFTS.load(Ordering::Relaxed),
                false => !sys::is_running(process) || is_older(&entry.path(), DRAFT_AGE_MAX),
            };
            if left.is_some_and(is_left) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Parses a number that consists of digits only.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_older(path: &Path, age: Duration) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|file| file.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|elapsed| elapsed > age))
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename the draft does not exist.
        let _ = fs::remove_file(&self.0);
    }
}

/// The number of drafts that this process has started.
static DRAFTS: AtomicU32 = AtomicU32::new(0);

/// More than a line for a key usually has.
const LINE_BYTES_USUAL: usize = 512;
/// The expected form in an error about a full file.
pub(super) const NO_ROOM: &str = "room for one more line; remove some";
/// A draft exists only for moments, so an older draft is left over, even if a process has its id.
const DRAFT_AGE_MAX: Duration = Duration::from_secs(60);
/// Attempts to find an unused name for a draft.
const DRAFTS_MAX: u32 = 16;
/// Longest wait for the lock of a file, and the interval at which it is tried.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_INTERVAL: Duration = Duration::from_millis(5);
/// The coarsest clock tick of a common file system, FAT.
const TICK_SECS_MAX: u64 = 2;

#[cfg(test)]
pub(super) mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use std::os::unix::fs::MetadataExt;

    pub fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_new_file_is_its_owners_only_and_an_existing_one_is_replaced_only_on_request() {
        let scratch = Scratch::new();
        let path = scratch.path("key");
        create(&path, b"one", false).unwrap();
        assert_eq!(mode(&path), 0o600);
        let error = create(&path, b"two", false).unwrap_err();
        assert!(matches!(error.problem(), Problem::Exists), "{error}");
        let error = write_and_put(&path, b"two", false).unwrap_err();
        assert!(matches!(error.problem(), Problem::Exists), "a file from another process at the same moment: {error}");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        create(&path, b"three", true).unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), mode(&path)), (b"three".as_slice(), 0o600));
        // A dangling symbolic link is neither replaced nor followed.
        std::os::unix::fs::symlink(scratch.path("elsewhere"), scratch.path("link")).unwrap();
        assert!(matches!(create(&scratch.path("link"), b"x", false).unwrap_err().problem(), Problem::Exists));
        assert_eq!(scratch.names(), ["key", "link"], "nothing else is left behind");
    }

    #[test]
    fn a_draft_of_a_killed_process_is_removed() {
        let scratch = Scratch::new();
        let path = scratch.path("key");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let ours = std::process::id();
        let left = [format!(".key.{dead}.0"), format!(".key.{ours}.4000000000"), ".key.1.7".to_owned()];
        let stays =
            [format!(".other.{dead}.0"), format!(".key.{dead}"), format!(".key.{dead}.x"), ".key.1.8".to_owned()];
        for name in left.iter().chain(&stays) {
            scratch.write(name, "half", 0o600);
        }
        // Process 1 is running, but its draft is too old.
        let old = SystemTime::now() - DRAFT_AGE_MAX - Duration::from_secs(1);
        File::options().write(true).open(scratch.path(&left[2])).unwrap().set_modified(old).unwrap();
        create(&path, b"whole", false).unwrap();
        let mut expected: Vec<_> = stays.into_iter().chain(["key".to_owned()]).collect();
        expected.sort();
        assert_eq!(scratch.names(), expected);
    }

    #[test]
    fn one_of_many_concurrent_creators_makes_the_file_and_it_is_complete() {
        let scratch = Scratch::new();
        let path = scratch.path("key");
        let start = std::sync::Barrier::new(8);
        let made = std::thread::scope(|scope| {
            let one = |index: u8| {
                let (path, start) = (&path, &start);
                scope.spawn(move || {
                    start.wait();
                    write_and_put(path, &[index; 64], false).is_ok()
                })
            };
            let threads: Vec<_> = (0..8).map(one).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap().then_some(())).count()
        });
        assert_eq!(made, 1);
        let content = fs::read(&path).unwrap();
        assert!(content.len() == 64 && content.iter().all(|byte| *byte == content[0]));
        assert_eq!(scratch.names(), ["key"]);
    }

    #[test]
    fn a_file_that_other_users_can_read_or_change_is_refused() {
        let scratch = Scratch::new();
        for (file_mode, private, public) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o640, false, true),
            (0o604, false, true),
            (0o602, false, false),
        ] {
            let path = scratch.write("file", "x", file_mode);
            assert_eq!(read_private(&path, Modes::Strict).is_ok(), private, "{file_mode:o}");
            assert_eq!(read_public(&path, Modes::Strict, 9).is_ok(), public, "{file_mode:o}");
        }
        let path = scratch.write("file", "x", 0o666);
        let error = read_public(&path, Modes::Strict, 9).unwrap_err().to_string();
        assert!(error.contains("mode 0666") && error.ends_with(&format!("chmod go-w {}", path.display())), "{error}");
    }

    #[test]
    fn a_file_above_its_size_limit_is_refused() {
        let scratch = Scratch::new();
        for (bytes, fits) in [(PRIVATE_FILE_BYTES_MAX, true), (PRIVATE_FILE_BYTES_MAX + 1, false)] {
            let path = scratch.write("private", vec![b'x'; bytes], 0o600);
            assert_eq!(
                read_private(&path, Modes::Strict).map(|content| content.expose().len()).ok(),
                fits.then_some(bytes)
            );
        }
        for (bytes, fits) in [(FILE_BYTES_MAX, true), (FILE_BYTES_MAX + 1, false)] {
            let path = scratch.write("public", vec![b'x'; bytes], 0o600);
            assert_eq!(
                read_public(&path, Modes::Strict, FILE_BYTES_MAX).map(|(content, _)| content.len()).ok(),
                fits.then_some(bytes)
            );
        }
        assert_eq!(
            create(Path::new("/dev/zero"), b"", false).unwrap_err().to_string(),
            "/dev/zero: the file exists already and is not replaced"
        );
        assert!(read_private(Path::new("/dev/zero"), Modes::Strict).is_err(), "an endless file");
    }

    #[test]
    fn a_line_is_appended_after_the_existing_lines() {
        let scratch = Scratch::new();
        let path = scratch.path("nodes");
        assert_eq!(append_line(&path, "one").unwrap(), 1);
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("one\n", 0o600));
        assert_eq!(append_line(&path, "two").unwrap(), 2);
        fs::write(&path, "mine, without an end").unwrap();
        assert_eq!(append_line(&path, "three").unwrap(), 2);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine, without an end\nthree\n");
        fs::write(&path, vec![b'x'; FILE_BYTES_MAX - 5]).unwrap();
        assert!(append_line(&path, "four").unwrap_err().to_string().contains(NO_ROOM));
        assert_eq!(append_line(&path, "six").unwrap(), 2, "exactly the limit");
    }

    #[test]
    fn a_stamp_notices_each_kind_of_change() {
        let scratch = Scratch::new();
        let path = scratch.write("file", "one", 0o600);
        let old = |path: &Path| Stamp { is_fresh: false, ..Stamp::of(path) };
        let stamp = old(&path);
        assert!(!stamp.has_changed(&path));
        assert!(Stamp::of(&path).has_changed(&path), "the file is too new to be sure");
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(stamp.has_changed(&path), "another time");
        let stamp = old(&path);
        let other = scratch.write("other", "two", 0o600);
        File::options().write(true).open(&other).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(stamp.has_changed(&path), "another file of the same size and time");
        let stamp = old(&path);
        fs::remove_file(&path).unwrap();
        assert!(stamp.has_changed(&path));
        assert!(!Stamp::MISSING.has_changed(&path));
        scratch.write("file", "", 0o600);
        assert!(Stamp::MISSING.has_changed(&path));
    }
}
