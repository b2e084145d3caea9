//! The two programs against one another, and against peers that do not keep to the protocol.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use seaprox::system::Directory;

use super::event::{Event, Finished, Reporter};
use super::fault::{Fault, FileError};
use super::message::{Digest, Message, read};
use super::offer::{Entry, Offer};
use super::receiver::{Place, Receiver};
use super::sender::Sender;
use super::source::Source;
use super::wire::{Socket, split};
use super::{Quota, check_name};

const KEY: [u8; 32] = [1; 32];

/// Two folders, of a sender and of a receiver, which are removed at the end.
struct Folders(PathBuf);

impl Folders {
    fn new() -> Folders {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("seaprox-files-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("from")).unwrap();
        fs::create_dir_all(path.join("to")).unwrap();
        Folders(path)
    }

    fn from(&self, path: &str) -> PathBuf {
        self.0.join("from").join(path)
    }

    fn to(&self, path: &str) -> PathBuf {
        self.0.join("to").join(path)
    }

    /// Writes a file of the sender.
    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.from(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Returns the names in the folder of the receiver.
    fn names(&self) -> Vec<String> {
        names(&self.to(""))
    }

    fn receive(&self, socket: Socket, key: [u8; 32]) -> (Result<u64, FileError>, Vec<Finished>) {
        self.receive_within(socket, key, None)
    }

    fn receive_within(
        &self,
        socket: Socket,
        key: [u8; 32],
        quota: Option<Arc<Quota>>,
    ) -> (Result<u64, FileError>, Vec<Finished>) {
        let (reader, writer) = split(socket).unwrap();
        let place = Place { folder: self.to(""), quota };
        let (mut finished, progress) = (Vec::new(), Mutex::default());
        let mut on_event = |event| {
            if let Event::Done(one) = event {
                finished.push(one);
            }
        };
        let mut decide = |_: &Offer| Ok(place.clone());
        let mut reporter = Reporter::new(&mut on_event, &progress);
        let result = Receiver::new(reader, writer, key).run(&mut decide, &mut reporter);
        (result, finished)
    }

    /// Sends from one folder to the other. Returns the results of the sender and of the receiver.
    fn transfer(&self, name: &str) -> (Result<Vec<String>, FileError>, Result<Vec<Finished>, FileError>) {
        self.transfer_as(name, KEY)
    }

    fn transfer_as(
        &self,
        name: &str,
        key: [u8; 32],
    ) -> (Result<Vec<String>, FileError>, Result<Vec<Finished>, FileError>) {
        let (near, far) = Socket::pair().unwrap();
        let source = Source::open(&self.from(name));
        let sending = thread::spawn(move || send(near, source));
        let (result, finished) = self.receive(far, key);
        (sending.join().unwrap(), result.map(|_| finished))
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Sends a source. Returns what was skipped.
fn send(socket: Socket, source: Result<Source, FileError>) -> Result<Vec<String>, FileError> {
    let (reader, writer) = split(socket).unwrap();
    let mut sender = Sender::new(reader, writer).unwrap();
    let source = source.map_err(|error| sender.refuse(error))?;
    let (mut skipped, progress) = (Vec::new(), Mutex::default());
    let mut on_event = |event| {
        if let Event::Skipped(path) = event {
            skipped.push(path);
        }
    };
    sender.send(&source, &mut Reporter::new(&mut on_event, &progress))?;
    sender.finish().unwrap();
    Ok(skipped)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn sha256(bytes: &[u8]) -> Digest {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap()
}

fn offer(name: &str, is_folder: bool, entries: u64, bytes: u64) -> Message<'static> {
    Message::Offer(Offer { name: name.to_owned(), is_folder, entries, bytes })
}

fn entry(path: &str, is_folder: bool, size: u64) -> Entry {
    Entry { path: path.to_owned(), is_folder, size, mode: 0o755, modified: (1_000_000_000, 0) }
}

/// A sender that writes what a test wants.
struct Raw(Socket, Vec<u8>);

impl Raw {
    /// Starts it against a receiver. Returns it with the result of the receiver.
    fn start(folders: &Arc<Folders>) -> (Raw, thread::JoinHandle<Result<u64, FileError>>) {
        let (near, far) = Socket::pair().unwrap();
        near.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let folders = Arc::clone(folders);
        (Raw(near, Vec::new()), thread::spawn(move || folders.receive(far, KEY).0))
    }

    /// Sends messages. A receiver that has failed takes no more.
    fn say(&mut self, messages: &[Message<'_>]) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.encode(&mut bytes));
        let _ = self.0.write_all(&bytes);
    }

    fn hear(&mut self) -> Option<Message<'_>> {
        read(&mut self.0, &mut self.1).unwrap()
    }

    /// Reads until the receiver says that it has failed.
    fn fault(&mut self) -> Fault {
        loop {
            match self.hear() {
                Some(Message::Failed(error)) => return error.fault,
                Some(_) => {}
                None => panic!("the receiver has not failed"),
            }
        }
    }
}

/// Sends messages to a receiver of its own. Returns the fault that it tells.
#[track_caller]
fn refused(messages: &[Message<'_>]) -> Fault {
    let folders = Arc::new(Folders::new());
    let (mut raw, receiving) = Raw::start(&folders);
    raw.say(messages);
    let fault = raw.fault();
    drop(raw);
    assert_eq!(receiving.join().unwrap().map_err(|error| error.fault), Err(fault));
    assert_eq!(names(&folders.0), ["from", "to"], "nothing is made outside");
    fault
}

#[test]
fn a_folder_arrives_as_a_tree_with_modes_and_times() {
    let folders = Folders::new();
    let big: Vec<u8> = (0..700_000_u32).map(|at| ((at * 7) >> 3) as u8).collect();
    folders.write("tree/a/big", &big);
    folders.write("tree/a/b/small", b"small");
    folders.write("tree/.hidden", b"");
    fs::create_dir(folders.from("tree/empty")).unwrap();
    (0..600).for_each(|number| folders.write(&format!("tree/many/{number}"), number.to_string().as_bytes()));
    fs::set_permissions(folders.from("tree/a/b/small"), PermissionsExt::from_mode(0o4751)).unwrap();
    fs::set_permissions(folders.from("tree/a/b"), PermissionsExt::from_mode(0o1555)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5000);
    for path in ["tree/a/big", "tree/empty", "tree"] {
        fs::File::open(folders.from(path)).unwrap().set_modified(time).unwrap();
    }
    let (sent, received) = folders.transfer("tree");
    assert_eq!(sent, Ok(Vec::new()));
    let finished = received.unwrap().pop().unwrap();
    assert_eq!((finished.kept, finished.path, finished.offer.entries), (0, Some(folders.to("tree")), 608));
    assert_eq!(folders.names(), ["tree"]);
    assert!(fs::read(folders.to("tree/a/big")).unwrap() == big, "the bytes differ");
    assert_eq!(names(&folders.to("tree/many")).len(), 600);
    assert_eq!(fs::read(folders.to("tree/many/599")).unwrap(), b"599");
    assert_eq!((names(&folders.to("tree/empty")).len(), fs::read(folders.to("tree/.hidden")).unwrap().len()), (0, 0));
    assert_eq!((mode(&folders.to("tree/a/b/small")), mode(&folders.to("tree/a/b"))), (0o751, 0o555));
    for path in ["tree/a/big", "tree/empty", "tree"] {
        assert_eq!(fs::metadata(folders.to(path)).unwrap().modified().unwrap(), time, "{path}");
    }
    // It can be removed at the end.
    for path in [folders.from("tree/a/b"), folders.to("tree/a/b")] {
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

#[test]
fn links_and_other_entries_of_a_folder_are_not_sent() {
    let folders = Folders::new();
    folders.write("secret", b"secret");
    folders.write("tree/file", b"file");
    symlink("../secret", folders.from("tree/link")).unwrap();
    symlink("..", folders.from("tree/up")).unwrap();
    std::os::unix::net::UnixListener::bind(folders.from("tree/socket")).unwrap();
    let (sent, received) = folders.transfer("tree");
    assert_eq!(sent.unwrap(), ["link", "socket", "up"]);
    received.unwrap();
    assert_eq!(names(&folders.to("tree")), ["file"]);
}

#[test]
fn a_folder_goes_on_where_it_stopped_and_has_what_the_sender_has_then() {
    let folders = Arc::new(Folders::new());
    let big: Vec<u8> = (0..300_000_u32).map(|at| ((at * 11) >> 2) as u8).collect();
    // An earlier transfer of the tree stops in the middle of a file.
    let (mut raw, receiving) = Raw::start(&folders);
    raw.say(&[offer("tree", true, 7, 1 << 20)]);
    assert_eq!(raw.hear(), Some(Message::Accept { has_part: false }));
    let sizes = [("same", 4), ("gone/file", 4), ("other", 5), ("big", 300_000)];
    let mut entries = vec![entry("", true, 0), entry("gone", true, 0)];
    entries.extend(sizes.map(|(path, size)| entry(path, false, size)));
    raw.say(&[Message::Entries(entries)]);
    for bytes in [&b"same"[..], b"gone", b"other"] {
        raw.say(&[Message::Start { offset: 0 }, Message::Data(bytes), Message::End(sha256(bytes))]);
    }
    raw.say(&[Message::Start { offset: 0 }, Message::Data(&big[..200_000])]);
    drop(raw);
    assert_eq!(receiving.join().unwrap().map_err(|error| error.fault), Err(Fault::Interrupted));
    assert_eq!(folders.names(), [".tree.seaprox-journal", ".tree.seaprox-part"]);
    // The sender has another tree by now.
    [("same", &b"same"[..]), ("other", b"longer"), ("big", &big), ("new/file", b"new")]
        .iter()
        .for_each(|(path, bytes)| folders.write(&format!("tree/{path}"), bytes));
    let (sent, received) = folders.transfer("tree");
    assert_eq!(sent, Ok(Vec::new()));
    assert_eq!(received.unwrap()[0].kept, 4 + 200_000);
    assert_eq!(folders.names(), ["tree"]);
    assert_eq!(names(&folders.to("tree")), ["big", "new", "other", "same"]);
    assert!(fs::read(folders.to("tree/big")).unwrap() == big, "the bytes differ");
    assert_eq!(fs::read(folders.to("tree/other")).unwrap(), b"longer");
}

#[test]
fn a_part_is_kept_for_the_same_file_of_the_same_peer_only() {
    let folders = Arc::new(Folders::new());
    let part = |key: [u8; 32], size: u64| {
        let (near, far) = Socket::pair().unwrap();
        let mut raw = Raw(near, Vec::new());
        let folders = Arc::clone(&folders);
        let receiving = thread::spawn(move || folders.receive(far, key).0);
        raw.say(&[offer("film", false, 1, size)]);
        let has_part = raw.hear() == Some(Message::Accept { has_part: true });
        raw.say(&[Message::Entries(vec![entry("", false, size)])]);
        let length = match has_part.then(|| raw.hear().unwrap()) {
            Some(Message::Parts(parts)) => parts[0].0,
            _ => 0,
        };
        raw.say(&[Message::Start { offset: 0 }, Message::Data(b"the f")]);
        drop(raw);
        let _ = receiving.join().unwrap();
        length
    };
    assert_eq!(part(KEY, 8), 0);
    assert_eq!(part(KEY, 8), 5);
    assert_eq!(part([2; 32], 8), 0, "another peer");
    assert_eq!(part(KEY, 8), 5, "another peer has not wiped it");
    assert_eq!(part(KEY, 9), 0, "another size");
    assert_eq!(folders.names(), [".film.seaprox-journal", ".film.seaprox-part"]);
}

#[test]
fn a_file_that_is_there_or_is_being_received_is_not_replaced() {
    let folders = Arc::new(Folders::new());
    folders.write("film", b"new");
    let (mut raw, receiving) = Raw::start(&folders);
    raw.say(&[offer("film", false, 1, 3)]);
    assert_eq!(raw.hear(), Some(Message::Accept { has_part: false }));
    assert_eq!(folders.transfer_as("film", [2; 32]).0.map_err(|error| error.fault), Err(Fault::Exists));
    // The name comes into being while the bytes arrive.
    raw.say(&[Message::Entries(vec![entry("", false, 3)]), Message::Start { offset: 0 }, Message::Data(b"old")]);
    fs::write(folders.to("film"), "there").unwrap();
    raw.say(&[Message::End(sha256(b"old")), Message::Finish]);
    assert_eq!(raw.fault(), Fault::Exists);
    drop(raw);
    receiving.join().unwrap().unwrap_err();
    assert_eq!(folders.transfer("film").0.map_err(|error| error.fault), Err(Fault::Exists));
    assert_eq!(fs::read(folders.to("film")).unwrap(), b"there");
}

#[test]
fn a_part_that_is_a_second_name_of_a_whole_file_is_not_written() {
    let folders = Folders::new();
    folders.write("film", b"old film");
    folders.transfer("film").1.unwrap();
    // An earlier program was killed after the link to the name and before the end of the part, and the user has moved the file.
    fs::rename(folders.to("film"), folders.to("mine")).unwrap();
    fs::hard_link(folders.to("mine"), folders.to(".film.seaprox-part")).unwrap();
    let key = "01".repeat(32);
    fs::write(folders.to(".film.seaprox-journal"), format!("seaprox file/1\nsize 8\nkey {key}\n")).unwrap();
    folders.write("film", b"new film");
    folders.transfer("film").1.unwrap();
    assert_eq!(fs::read(folders.to("mine")).unwrap(), b"old film");
    assert_eq!(fs::read(folders.to("film")).unwrap(), b"new film");
}

#[test]
fn an_offer_whose_end_the_sender_has_not_heard_of_is_complete_when_it_is_repeated() {
    let folders = Folders::new();
    folders.write("film", b"the film");
    folders.write("tree/in/file", b"file");
    for name in ["film", "tree"] {
        assert_eq!(folders.transfer(name).1.unwrap()[0].kept, 0);
        let again = folders.transfer(name).1.unwrap();
        assert_eq!((again[0].kept > 0, again[0].path.clone()), (true, Some(folders.to(name))));
        assert_eq!(folders.transfer_as(name, [2; 32]).1.map_err(|error| error.fault), Err(Fault::Exists), "{name}");
    }
    for (name, path) in [("film", "film"), ("tree", "tree/in/file")] {
        let length = fs::read(folders.from(path)).unwrap().len();
        folders.write(path, &vec![b'x'; length]);
        assert_eq!(folders.transfer(name).0.map_err(|error| error.fault), Err(Fault::Exists), "{name}: other bytes");
        assert_ne!(fs::read(folders.to(path)).unwrap(), vec![b'x'; length]);
    }
    assert_eq!(folders.names(), ["film", "tree"]);
}

#[test]
fn a_silent_stream_gives_way_to_another_one_of_the_same_peer_for_the_same_file() {
    let folders = Arc::new(Folders::new());
    folders.write("film", b"the film");
    let (mut raw, receiving) = Raw::start(&folders);
    raw.say(&[offer("film", false, 1, 8)]);
    assert_eq!(raw.hear(), Some(Message::Accept { has_part: false }));
    raw.say(&[Message::Entries(vec![entry("", false, 8)]), Message::Start { offset: 0 }, Message::Data(b"the")]);
    // The sender is gone, and its stream is not.
    assert_eq!(folders.transfer("film").1.unwrap()[0].path, Some(folders.to("film")));
    assert_eq!(receiving.join().unwrap().map_err(|error| error.fault), Err(Fault::Interrupted));
    assert_eq!(fs::read(folders.to("film")).unwrap(), b"the film");
}

#[test]
fn the_parts_of_a_peer_are_limited_and_old_ones_are_removed() {
    let folders = Folders::new();
    folders.write("film", b"the film");
    let key = "01".repeat(32);
    let part = |number: u32| folders.to(&format!(".{number}.seaprox-part"));
    let journal = |number: u32| folders.to(&format!(".{number}.seaprox-journal"));
    for number in 0..64 {
        fs::write(part(number), "part").unwrap();
        fs::write(journal(number), format!("seaprox file/1\nsize 8\nkey {key}\n")).unwrap();
    }
    assert_eq!(folders.transfer("film").0.map_err(|error| error.fault), Err(Fault::TooLarge));
    assert_eq!(folders.names().len(), 128, "no journal is left");
    let long_ago = SystemTime::now() - Duration::from_secs(31 * 24 * 3600);
    fs::File::options().write(true).open(journal(7)).unwrap().set_modified(long_ago).unwrap();
    folders.transfer("film").1.unwrap();
    assert!(!part(7).exists() && !journal(7).exists() && part(8).exists());
    assert_eq!(folders.names().len(), 127);
}

#[test]
fn a_name_that_turns_the_direction_of_text_is_refused() {
    assert_eq!(refused(&[offer("film\u{202e}gpj.exe", false, 1, 8)]), Fault::Refused);
    assert_eq!(FileError::new(Fault::Other, "a\u{202e}b").text, "a?b");
}

#[test]
fn bytes_that_are_not_those_of_the_file_are_never_placed() {
    let end = |digest| {
        let start = [offer("film", false, 1, 4), Message::Entries(vec![entry("", false, 4)])];
        let bytes = [Message::Start { offset: 0 }, Message::Data(b"file"), Message::End(digest), Message::Finish];
        refused(&[&start[..], &bytes[..]].concat())
    };
    assert_eq!(end(sha256(b"life")), Fault::Changed);
    assert_eq!(end([0; 32]), Fault::Changed);
}

#[test]
fn hostile_paths_are_refused() {
    for path in ["../a", "/etc/a", "a/../../b", "..", ".", "a//b", "a/", "a\\b", "none/a"] {
        for is_folder in [true, false] {
            let entries = vec![entry("", true, 0), entry(path, is_folder, 0)];
            let end = [Message::Start { offset: 0 }, Message::End(sha256(b"")), Message::Finish];
            let fault = refused(&[&[offer("tree", true, 2, 0), Message::Entries(entries)], &end[..]].concat());
            assert!(matches!(fault, Fault::Refused | Fault::Unusable), "{path}: {fault:?}");
        }
    }
    for name in ["..", "../a", "a/b", ".bashrc", ".film.seaprox-part"] {
        assert!(check_name(name).is_err());
        assert_eq!(refused(&[offer(name, true, 1, 0)]), Fault::Refused, "{name}");
    }
    let deep = vec!["a"; 10_000].join("/");
    // It is longer than a path may be, and has more components.
    for path in [&deep[..4001], &deep[..200]] {
        let entries = vec![entry("", true, 0), entry(path, true, 0)];
        assert_eq!(refused(&[offer("tree", true, 2, 0), Message::Entries(entries)]), Fault::Refused);
    }
}

#[test]
fn a_path_that_comes_twice_and_a_file_in_the_place_of_a_folder_are_refused() {
    let file = |bytes: &'static [u8]| [Message::Start { offset: 0 }, Message::Data(bytes), Message::End(sha256(bytes))];
    let begin = |entries: &[Entry]| {
        let all = [&[entry("", true, 0)], entries].concat();
        [offer("tree", true, 9, 9), Message::Entries(all)]
    };
    let twice = begin(&[entry("a", false, 1), entry("a", false, 1)]);
    assert_eq!(refused(&[&twice[..], &file(b"1"), &file(b"2")].concat()), Fault::Exists);
    assert_eq!(refused(&begin(&[entry("a", true, 0), entry("a", true, 0)])), Fault::Exists);
    let on_folder = begin(&[entry("a", true, 0), entry("a", false, 1)]);
    assert_eq!(refused(&[&on_folder[..], &file(b"1")].concat()), Fault::Exists);
    let in_file = begin(&[entry("a", false, 1), entry("a/b", false, 1)]);
    assert_eq!(refused(&[&in_file[..], &file(b"1"), &file(b"2")].concat()), Fault::Unusable);
    assert_eq!(refused(&begin(&[entry("", true, 0)])), Fault::Protocol);
}

#[test]
fn a_sender_cannot_send_more_than_it_has_offered() {
    let (root, file) = (entry("", true, 0), entry("a", false, 4));
    let with = |entries: u64, bytes: u64, rest: &[Message<'_>]| {
        let start = [offer("tree", true, entries, bytes), Message::Entries(vec![root.clone(), file.clone()])];
        refused(&[&start[..], rest].concat())
    };
    assert_eq!(with(1, 4, &[]), Fault::Protocol, "more entries");
    assert_eq!(with(2, 3, &[]), Fault::Protocol, "more bytes");
    assert_eq!(with(2, 4, &[Message::Start { offset: 0 }, Message::Data(b"a fifth")]), Fault::Protocol);
    assert_eq!(with(2, 4, &[Message::Start { offset: 3 }]), Fault::Protocol, "an offset that was not offered");
    assert_eq!(with(2, 4, &[Message::Finish]), Fault::Protocol, "a file is missing");
    assert_eq!(with(2, 4, &[Message::Data(b"a")]), Fault::Protocol);
    assert_eq!(with(2, 4, &[Message::Start { offset: 0 }, Message::Start { offset: 0 }]), Fault::Protocol);
    assert_eq!(refused(&[offer("tree", true, 0, 0)]), Fault::TooLarge);
    assert_eq!(refused(&[offer("tree", true, u64::MAX, 0)]), Fault::TooLarge);
    assert_eq!(refused(&[offer("film", false, 2, 0)]), Fault::TooLarge);
    assert_eq!(refused(&[Message::Finish]), Fault::Protocol);
    let many: Vec<Entry> = (0..256).map(|number| entry(&number.to_string(), false, 0)).collect();
    let many = |from: u32| {
        Message::Entries(
            many.iter().map(|entry| Entry { path: format!("{from}-{}", entry.path), ..entry.clone() }).collect(),
        )
    };
    let all = [offer("tree", true, 9999, 0), Message::Entries(vec![root.clone()]), many(1), many(2), many(3)];
    assert_eq!(refused(&all), Fault::Protocol, "too many are announced at once");
}

#[test]
fn a_link_that_takes_the_place_of_a_folder_is_not_followed() {
    let folders = Arc::new(Folders::new());
    let (mut raw, receiving) = Raw::start(&folders);
    raw.say(&[offer("tree", true, 3, 4)]);
    assert_eq!(raw.hear(), Some(Message::Accept { has_part: false }));
    raw.say(&[Message::Entries(vec![entry("", true, 0), entry("a", true, 0), entry("a/file", false, 4)])]);
    let inner = folders.to(".tree.seaprox-part/a");
    let deadline = SystemTime::now() + Duration::from_secs(20);
    while !inner.exists() {
        assert!(SystemTime::now() < deadline, "the folder is not made");
        thread::yield_now();
    }
    fs::remove_dir(&inner).unwrap();
    symlink(folders.from(""), &inner).unwrap();
    raw.say(&[Message::Start { offset: 0 }, Message::Data(b"evil"), Message::End(sha256(b"evil")), Message::Finish]);
    assert_eq!(raw.fault(), Fault::Unusable);
    drop(raw);
    receiving.join().unwrap().unwrap_err();
    assert!(names(&folders.from("")).is_empty(), "nothing is written through the link");
}

#[test]
fn a_quota_holds_before_and_while_bytes_arrive() {
    let folders = Folders::new();
    let quota = Arc::new(Quota::new(10));
    let offered = |name: &str, bytes: u64| {
        let (near, far) = Socket::pair().unwrap();
        let mut raw = Raw(near, Vec::new());
        raw.say(&[offer(name, false, 1, bytes), Message::Entries(vec![entry("", false, bytes)])]);
        raw.say(&[Message::Start { offset: 0 }, Message::Data(b"12345")]);
        raw.0.shutdown(std::net::Shutdown::Write).unwrap();
        let (result, _) = folders.receive_within(far, KEY, Some(Arc::clone(&quota)));
        result.map_err(|error| error.fault)
    };
    assert_eq!(offered("a", 11), Err(Fault::TooLarge));
    assert_eq!(offered("a", 4), Err(Fault::Protocol), "more bytes than were offered");
    assert_eq!(offered("b", 10), Err(Fault::Interrupted));
    assert_eq!(offered("c", 6), Err(Fault::TooLarge), "the part of b is there");
    assert_eq!(offered("b", 10), Err(Fault::Interrupted), "it counts once");
}

#[test]
fn what_is_shared_is_found_beneath_its_folder_only() {
    let folders = Folders::new();
    folders.write("secret", b"secret");
    folders.write("share/film", b"film");
    folders.write("share/tree/a", b"a");
    symlink("../secret", folders.from("share/link")).unwrap();
    symlink("..", folders.from("share/up")).unwrap();
    let share = Directory::open(&folders.from("share")).unwrap();
    let find = |path: &str| Source::beneath(&share, path).map(|source| source.offer().name.clone());
    assert_eq!((find("film"), find("tree"), find("tree/a")), (Ok("film".into()), Ok("tree".into()), Ok("a".into())));
    for path in
        ["../secret", "link", "up", "up/secret", "none", "tree/none", "/etc/passwd", "", ".", "tree/..", "tree/../film"]
    {
        assert_eq!(find(path).map_err(|error| error.fault), Err(Fault::Refused), "{path}");
    }
}

#[test]
fn a_file_that_becomes_shorter_fails_at_both_ends() {
    let folders = Folders::new();
    folders.write("film", b"four");
    let source = Source::open(&folders.from("film"));
    folders.write("film", b"two");
    let (near, far) = Socket::pair().unwrap();
    let sending = thread::spawn(move || send(near, source));
    let received = folders.receive(far, KEY).0;
    assert_eq!(sending.join().unwrap().map_err(|error| error.fault), Err(Fault::Changed));
    assert_eq!(received.map_err(|error| error.fault), Err(Fault::Changed));
}
