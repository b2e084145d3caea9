//! Transfers over the links of a loop: each has a thread of its own, which waits for disks, users and peers, while the loop goes
//! on.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver as Channel, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use seaprox::node::{PeerKey, ServicePeer};
use seaprox::system::Directory;
use seaprox::{Failure, Handler, Id, Loop, Reason, Remote};

use super::event::{Event, OnEvent, Progress, Reporter, TransferError};
use super::fault::{Fault, FileError};
use super::join::{Join, Told};
use super::message::Message;
use super::offer::Offer;
use super::receiver::{NO_KEY, Place, Receiver};
use super::sender::Sender;
use super::source::Source;
use super::wire::{Reader, Socket, Writer, pair, split};
use super::{GET_SERVICE, SERVICE};

/// A transfer that this node has begun. It goes on if this is dropped.
#[derive(Clone)]
pub struct Transfer(Arc<Shared>);

/// The state that a transfer and its thread share.
#[derive(Default)]
struct Shared {
    /// The socket of the present stream.
    socket: Mutex<Option<Socket>>,
    is_cancelled: AtomicBool,
    is_over: AtomicBool,
    /// Ends a pause when the transfer is cancelled.
    cancelled: Condvar,
    progress: Mutex<Progress>,
}

/// The settings of a transfer that this node begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// The time for which a lost link is waited for; zero ends the transfer with its stream. It counts anew from all that
    /// arrives.
    pub retry: Duration,
}

/// The peer of a transfer that it has begun.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its key.
    pub key: PeerKey,
    /// Its name.
    pub name: String,
    /// The link.
    pub link: Id,
    /// The folders that its key may get files of.
    pub folders: Vec<PathBuf>,
}

/// Decides about an offer of a peer. Called in the thread of the transfer, so it may wait for a user.
pub type Accept = Arc<dyn Fn(&Peer, &Offer) -> Result<Place, FileError> + Send + Sync>;
/// Returns the folders that a peer may get files of; [`Peer::folders`] are those that its key names.
pub type Folders = Arc<dyn Fn(&Peer) -> Vec<PathBuf> + Send + Sync>;
/// Called with the events of a transfer that a peer has begun, in the thread of the transfer.
pub type OnPeerEvent = Arc<dyn Fn(&Peer, Event) + Send + Sync>;

/// Sends files and folders to the peer of a link, or of one of the links of a group, one after another. The peer must receive
/// files. The calling thread does not wait.
///
/// # Errors
/// Fails if no thread can be started. All other errors are events.
pub fn send(
    remote: Remote,
    link: Id,
    paths: Vec<PathBuf>,
    settings: Settings,
    on_event: OnEvent,
) -> io::Result<Transfer> {
    begin(on_event, move |task| {
        let mut waiting = paths.as_slice();
        task.repeat(&remote, link, SERVICE, settings, |task, reader, writer, on_event| {
            let mut sender = Sender::new(reader, writer).map_err(FileError::from)?;
            while let Some((path, rest)) = waiting.split_first() {
                let about = |error: FileError| error.about(&path.display().to_string());
                let source = Source::open(path).map_err(|error| about(sender.refuse(error)))?;
                let finished = sender.send(&source, &mut Reporter::new(on_event, &task.progress)).map_err(about)?;
                on_event(Event::Done(finished));
                waiting = rest;
            }
            // The receiver has all.
            let _ = sender.finish();
            Ok(())
        })
    })
}

/// Gets a file or a folder of the peer of a link, by its path in a folder that the peer shares, into a folder of this node.
/// The calling thread does not wait.
///
/// # Errors
/// Fails if no thread can be started. All other errors are events.
pub fn get(
    remote: Remote,
    link: Id,
    name: String,
    into: PathBuf,
    settings: Settings,
    on_event: OnEvent,
) -> io::Result<Transfer> {
    begin(on_event, move |task| {
        task.repeat(&remote, link, GET_SERVICE, settings, |task, reader, writer, on_event| {
            let place = Place { folder: into.clone(), quota: None };
            let mut receiver = Receiver::new(reader, writer, NO_KEY);
            receiver.ask(&name)?;
            let mut decide = |_: &Offer| Ok(place.clone());
            match receiver.run(&mut decide, &mut Reporter::new(on_event, &task.progress))? {
                0 => Err(FileError::interrupted()),
                _ => Ok(()),
            }
        })
    })
}

/// Receives files and folders of the peers of all links of a loop, as far as they are accepted.
pub fn receive(core: &mut Loop<'_>, accept: Accept, on_event: OnPeerEvent) {
    serve(core, SERVICE, on_event, move |peer, reader, writer, on_event| {
        let _ = reader.limit(IDLE_TIME);
        let progress = Mutex::default();
        let mut decide = |offer: &Offer| accept(peer, offer);
        let mut receiver = Receiver::new(reader, writer, peer.key);
        receiver.run(&mut decide, &mut Reporter::new(on_event, &progress)).map(drop)
    });
}

/// Shares folders with the peers of all links of a loop.
pub fn share(core: &mut Loop<'_>, folders: Folders, on_event: OnPeerEvent) {
    serve(core, GET_SERVICE, on_event, move |peer, mut reader, writer, on_event| {
        let _ = reader.limit(IDLE_TIME);
        let name = match reader.read()? {
            Some(Message::Ask(name)) => name,
            _ => return Err(FileError::protocol("expected a name")),
        };
        let progress = Mutex::default();
        let mut sender = Sender::new(reader, writer)?;
        let source = find(&folders(peer), &name).map_err(|error| sender.refuse(error))?;
        let finished = sender.send(&source, &mut Reporter::new(on_event, &progress))?;
        on_event(Event::Done(finished));
        // The receiver has all.
        let _ = sender.finish();
        Ok(())
    });
}

/// Returns the file or the folder with this path in the first folder that has it.
fn find(folders: &[PathBuf], path: &str) -> Result<Source, FileError> {
    let mut result = Err(FileError::new(Fault::Refused, "no such file is shared"));
    for folder in folders {
        result = match Directory::open(folder) {
            Ok(folder) => Source::beneath(&folder, path),
            Err(_) => continue,
        };
        if !matches!(&result, Err(error) if error.fault == Fault::Refused) {
            break;
        }
    }
    result
}

impl Transfer {
    /// Ends the transfer. What has arrived stays at the receiver.
    pub fn cancel(&self) {
        self.0.is_cancelled.store(true, Ordering::Release);
        if let Some(socket) = &*lock(&self.0.socket) {
            // A socket that is not connected any more needs no end.
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.0.cancelled.notify_all();
    }

    /// Returns true after the last event.
    pub fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Acquire)
    }

    /// Returns the progress of the present file or folder.
    pub fn progress(&self) -> Progress {
        *lock(&self.0.progress)
    }
}

/// The thread of a transfer that this node has begun.
struct Task {
    shared: Arc<Shared>,
    on_event: OnEvent,
}

fn begin(
    on_event: OnEvent,
    body: impl FnOnce(&mut Task) -> Result<(), TransferError> + Send + 'static,
) -> io::Result<Transfer> {
    let shared = Arc::<Shared>::default();
    let mut task = Task { shared: Arc::clone(&shared), on_event };
    let body = move || {
        let result = body(&mut task);
        task.shared.is_over.store(true, Ordering::Release);
        (task.on_event)(Event::Ended(result));
    };
    thread::Builder::new().name("transfer".into()).spawn(body)?;
    Ok(Transfer(shared))
}

impl Task {
    /// Opens a stream and runs a program over it, again and again while links are lost.
    fn repeat(
        &mut self,
        remote: &Remote,
        link: Id,
        service: &'static str,
        settings: Settings,
        mut program: impl FnMut(&Shared, Reader, Writer, &mut dyn FnMut(Event)) -> Result<(), FileError>,
    ) -> Result<(), TransferError> {
        let (mut since, mut before, mut was_open) = (Instant::now(), 0, false);
        loop {
            let result = self.run(remote, link, service, &mut was_open, &mut program);
            let Err(error) = result else { return Ok(()) };
            if self.shared.is_cancelled.load(Ordering::Acquire) {
                return Err(FileError::new(Fault::Interrupted, "cancelled; what has arrived is kept").into());
            }
            let bytes = lock(&self.shared.progress).bytes;
            if bytes != before {
                (since, before) = (Instant::now(), bytes);
            }
            if !error.is_interruption() || !was_open || since.elapsed() >= settings.retry {
                return Err(error);
            }
            let failure = match error {
                TransferError::Stream(failure) => failure,
                TransferError::File(error) => Failure::new(Reason::LinkLost, error.to_string()),
            };
            (self.on_event)(Event::Retrying(failure));
            let progress = lock(&self.shared.progress);
            let is_cancelled = |_: &mut Progress| !self.shared.is_cancelled.load(Ordering::Acquire);
            let waited = self.shared.cancelled.wait_timeout_while(progress, RETRY_PAUSE, is_cancelled);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn run(
        &mut self,
        remote: &Remote,
        link: Id,
        service: &'static str,
        was_open: &mut bool,
        program: &mut impl FnMut(&Shared, Reader, Writer, &mut dyn FnMut(Event)) -> Result<(), FileError>,
    ) -> Result<(), TransferError> {
        let stream = |reason: Reason, text: String| TransferError::Stream(Failure::new(reason, text));
        let (socket, duplex) = pair().map_err(FileError::from)?;
        let (join, told) = Join::opening(duplex);
        let opened =
            remote.ask_within(ASK_TIME, move |core| core.open_service(link, service, Box::new(join)).map(drop));
        let opened = opened.map_err(|error| stream(Reason::LimitReached, error.to_string()))?;
        let opened = opened.wait().map_err(|_| stream(Reason::Drained, "the loop has ended".to_owned()))?;
        opened.map_err(|error| stream(Reason::LinkLost, error.to_string()))?;
        *lock(&self.shared.socket) = Some(socket.try_clone().map_err(FileError::from)?);
        if self.shared.is_cancelled.load(Ordering::Acquire) {
            return Err(FileError::interrupted().into());
        }
        match told.recv() {
            Ok(Told::Opened) => *was_open = true,
            Ok(Told::Ended(failure)) => return Err(TransferError::Stream(failure)),
            Err(_) => return Err(stream(Reason::Drained, "the loop has ended".to_owned())),
        }
        let (reader, writer) = split(socket).map_err(FileError::from)?;
        let result = program(&self.shared, reader, writer, &mut *self.on_event);
        *lock(&self.shared.socket) = None;
        result.map_err(|error| match error.fault {
            Fault::Interrupted => cause(&told).map_or(TransferError::File(error), TransferError::Stream),
            _ => TransferError::File(error),
        })
    }
}

/// Returns the reason why a stream was lost.
fn cause(told: &Channel<Told>) -> Option<Failure> {
    match told.recv_timeout(TOLD_TIME) {
        Ok(Told::Ended(failure)) if !matches!(failure.reason, Reason::SourceFin | Reason::DestFin) => Some(failure),
        Ok(_) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => None,
    }
}

/// The number of transfers that a peer has begun, and that go on.
#[derive(Default)]
struct Running {
    total: usize,
    of_keys: HashMap<PeerKey, usize>,
}

/// Counts a transfer until it is dropped.
struct Counted(Arc<Mutex<Running>>, PeerKey);

impl Counted {
    fn new(running: &Arc<Mutex<Running>>, key: PeerKey) -> Option<Counted> {
        let mut counts = lock(running);
        if counts.total >= TRANSFERS_MAX || counts.of_keys.get(&key).is_some_and(|its| *its >= TRANSFERS_OF_KEY_MAX) {
            return None;
        }
        counts.total += 1;
        *counts.of_keys.entry(key).or_default() += 1;
        Some(Counted(Arc::clone(running), key))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = lock(&self.0);
        counts.total -= 1;
        if let Some(its) = counts.of_keys.get_mut(&self.1) {
            *its -= 1;
            if *its == 0 {
                counts.of_keys.remove(&self.1);
            }
        }
    }
}

/// Offers a service to the peers of a loop. Each stream has a thread that runs the program.
fn serve(
    core: &mut Loop<'_>,
    service: &str,
    on_event: OnPeerEvent,
    program: impl Fn(&Peer, Reader, Writer, &mut dyn FnMut(Event)) -> Result<(), FileError> + Send + Sync + 'static,
) {
    let (program, running) = (Arc::new(program), Arc::<Mutex<Running>>::default());
    let make = move |peer: &ServicePeer<'_>| -> Option<Box<dyn Handler>> {
        let counted = Counted::new(&running, *peer.key)?;
        let (key, name, folders) = (*peer.key, peer.name.to_owned(), peer.folders.to_vec());
        let peer = Peer { key, name, link: peer.link, folders };
        let (socket, duplex) = pair().ok()?;
        let (program, on_event) = (Arc::clone(&program), Arc::clone(&on_event));
        let body = move || {
            let mut report = |event: Event| on_event(&peer, event);
            let result = split(socket).map_err(FileError::from);
            let result = result.and_then(|(reader, writer)| program(&peer, reader, writer, &mut report));
            report(Event::Ended(result.map_err(TransferError::File)));
            drop(counted);
        };
        thread::Builder::new().name("transfer".into()).spawn(body).ok()?;
        Some(Box::new(Join::accepted(duplex)))
    };
    core.set_service(service, Box::new(make));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Most transfers that peers have begun and that go on, over each service of each loop.
const TRANSFERS_MAX: usize = 64;
/// Most such transfers of one key.
const TRANSFERS_OF_KEY_MAX: usize = 16;
/// Time in which nothing arrives after which a transfer of a peer ends, longer than the hold of a link.
const IDLE_TIME: Duration = Duration::from_secs(3600);
/// Time for the loop to answer.
const ASK_TIME: Duration = Duration::from_secs(5);
/// Time for the loop to tell why a stream was lost.
const TOLD_TIME: Duration = Duration::from_secs(5);
/// Pause before a stream is opened again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
