//! Nodes that invite and join, and a peer that speaks the protocol of invitations by hand.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use seaprox::auth::{INVITATION_EXPORTER, Invitation, InvitedOutcome, ProofContext, ProofRole};
use seaprox::invite::ClaimFrame;

use crate::kit::{Ran, SOON, Scratch, Seaprox, run, run_with, until};
use crate::tls::{Buffers, Cipher, Identity, Tls, TlsPipe};

/// A node that listens and invites, with a directory in which other nodes of the test have theirs.
pub struct Inviter {
    pub scratch: Scratch,
    pub node: Seaprox,
    pub addr: SocketAddr,
}

impl Inviter {
    /// Starts a node without any authorized key, with these further options.
    #[track_caller]
    pub fn start(options: &[&str]) -> Inviter {
        Inviter::start_with(Scratch::new(), options, |_| {})
    }

    /// Starts a node in a directory. `touch` may change its command first.
    #[track_caller]
    pub fn start_with(scratch: Scratch, options: &[&str], touch: impl FnOnce(&mut Command)) -> Inviter {
        let config = scratch.file("far");
        let words = [&["link", "--listen", "127.0.0.1:0", "--config-dir", &config], options].concat();
        let node = Seaprox::start_with(&words, touch);
        let addr = node.addr(0);
        Inviter { scratch, node, addr }
    }

    /// Makes an invitation with these options, and waits until the node takes it.
    #[track_caller]
    pub fn invite(&self, options: &[&str]) -> String {
        let line = self.invite_unseen(options);
        self.reload();
        line
    }

    /// Lets the node read its files again.
    #[track_caller]
    pub fn reload(&self) {
        // The line is written before the files of keys are read, so the second one follows the first reading.
        for _ in 0..2 {
            let before = self.node.count_log(&["files reloaded"]);
            self.node.signal(libc::SIGHUP);
            until("the files are read again", || self.node.count_log(&["files reloaded"]) > before);
        }
    }

    /// Makes an invitation with these options.
    #[track_caller]
    pub fn invite_unseen(&self, options: &[&str]) -> String {
        let (config, addr) = (self.scratch.file("far"), self.addr.to_string());
        let ran = run(&[&["invite", "--config-dir", &config, "--address", &addr], options].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        String::from_utf8(ran.out).expect("text")
    }

    /// Waits until the node names the protocol of invitations.
    #[track_caller]
    pub fn wait_until_inviting(&self) {
        until("the node takes invitations", || RawJoiner::connect(self.addr, [9; 32]).is_ok());
    }

    /// Joins with the directory of this name, and reads the line from standard input.
    #[track_caller]
    pub fn join(&self, name: &str, line: &str, options: &[&str]) -> Ran {
        let config = self.scratch.file(name);
        run_with(&[&["join", "--config-dir", &config], options].concat(), line.as_bytes(), |_| {})
    }

    /// Returns the content of a file, or nothing if it does not exist.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.scratch.file(name)).unwrap_or_default()
    }

    /// Returns the lines of a file without comments.
    pub fn lines(&self, name: &str) -> Vec<String> {
        self.read(name).lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    pub fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.scratch.file(name)).expect("a file").permissions().mode() & 0o7777
    }
}

/// A peer whose frames the test writes.
pub struct RawJoiner {
    socket: TcpStream,
    pipe: TlsPipe,
    key: [u8; 32],
}

impl RawJoiner {
    /// Connects with the key of a seed and the protocol of invitations.
    ///
    /// # Errors
    /// The node refuses the handshake.
    pub fn connect(to: SocketAddr, seed: [u8; 32]) -> io::Result<RawJoiner> {
        RawJoiner::on(TcpStream::connect(to)?, seed)
    }

    /// Does the same on a connected socket.
    ///
    /// # Errors
    /// The node refuses the handshake.
    pub fn on(socket: TcpStream, seed: [u8; 32]) -> io::Result<RawJoiner> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SOON))?;
        let identity = Identity::from_seed(&seed).map_err(io::Error::other)?;
        let tls = Tls::joiner(&identity, &Cipher::ALL, Arc::new(|_| true)).map_err(io::Error::other)?;
        let pipe = tls.pipe(&Rc::new(Buffers::new())).map_err(io::Error::other)?;
        let mut joiner = RawJoiner { socket, pipe, key: identity.public_key() };
        while joiner.pipe.is_handshaking() {
            joiner.flush()?;
            joiner.receive(&mut Vec::new())?;
        }
        joiner.flush()?;
        Ok(joiner)
    }

    /// Returns the claim that proves an invitation on this connection.
    pub fn claim(&self, invitation: &Invitation) -> ClaimFrame {
        self.claim_for(invitation, &self.exporter())
    }

    /// Returns a claim that is bound to the connection with this exporter value.
    pub fn claim_for(&self, invitation: &Invitation, channel: &[u8; 32]) -> ClaimFrame {
        let inviter = self.pipe.peer_key().expect("the handshake is done");
        let (id, joiner) = (invitation.id(), &self.key);
        let context = ProofContext { id, inviter: &inviter, joiner, channel };
        ClaimFrame { id, proof: invitation.proof_key().prove(ProofRole::Joiner, &context) }
    }

    pub fn exporter(&self) -> [u8; 32] {
        self.pipe.exporter(INVITATION_EXPORTER, &[]).expect("the handshake is done")
    }

    pub fn peer_key(&self) -> [u8; 32] {
        self.pipe.peer_key().expect("the handshake is done")
    }

    /// Sends bytes in one record.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pipe.seal([bytes]).map_err(io::Error::other)?;
        self.flush()
    }

    /// Reads until the node closes. Returns the outcome of its answer, which must be proven; none if there is no answer, or if
    /// the node has failed.
    #[track_caller]
    pub fn answer(&mut self, invitation: &Invitation) -> Option<InvitedOutcome> {
        let plain = self.read_to_end();
        let (head, proof) = plain.split_at_checked(4)?;
        let (inviter, channel) = (self.peer_key(), self.exporter());
        let context = ProofContext { id: invitation.id(), inviter: &inviter, joiner: &self.key, channel: &channel };
        let proof = proof.try_into().expect("a proof of 32 bytes");
        assert!(
            invitation.proof_key().is_proven(ProofRole::Inviter, &context, proof),
            "the inviter proves the secret, too"
        );
        assert_eq!(head[..3], [0, 34, 2]);
        match head[3] {
            0 => Some(InvitedOutcome::Joined),
            1 => Some(InvitedOutcome::Known),
            2 => Some(InvitedOutcome::Used),
            3 => Some(InvitedOutcome::Expired),
            5 => Some(InvitedOutcome::KeyExpired),
            _ => None,
        }
    }

    /// Reads until the node closes. Returns the plaintext.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut plain = Vec::new();
        while self.receive(&mut plain).is_ok() {}
        plain
    }

    /// Returns true if the node has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        self.socket.set_nonblocking(true).expect("a socket");
        let closed = loop {
            match self.receive(&mut Vec::new()) {
                Ok(()) => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        self.socket.set_nonblocking(false).expect("a socket");
        closed
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.pipe.unsent() > 0 {
            let socket = &mut self.socket;
            self.pipe.write_to(|bytes| socket.write(bytes))?;
        }
        Ok(())
    }

    fn receive(&mut self, plain: &mut Vec<u8>) -> io::Result<()> {
        let (socket, mut pieces) = (&mut self.socket, Vec::new());
        let got = self.pipe.read_from(|room| socket.read(room))?;
        let opened = self.pipe.open(&mut pieces);
        pieces.iter().for_each(|piece| plain.extend_from_slice(piece));
        opened.map_err(io::Error::other)?;
        if got == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}
