//! Hostile peers of a node with a pending invitation, and hostile nodes of a node that joins. A peer without a valid proof
//! learns nothing, changes nothing and costs what any unauthenticated peer costs.

use crate::invite_kit::{Inviter, RawJoiner};
use crate::kit;
use crate::tls::{Admission, Buffers, Cipher, Identity, Tls};

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use kit::{SOON, Scratch, Seaprox, run, until};
use seaprox::Target;
use seaprox::auth::{Invitation, InvitedOutcome, PublicKey};
use seaprox::invite::{CLAIM_BYTES_MAX, ClaimFrame};

fn parsed(line: &str) -> Invitation {
    Invitation::parse(line.as_bytes()).unwrap()
}

/// Returns an invitation with another secret and another id.
fn stranger() -> Invitation {
    let key = PublicKey::from_bytes([3; 32]).unwrap();
    Invitation::new(vec![Target::parse("gate:1").unwrap()], &key).unwrap()
}

#[test]
fn a_peer_without_a_valid_proof_is_closed_without_a_word() {
    let far = Inviter::start(&[]);
    let invitation = parsed(&far.invite(&[]));
    let other = stranger();
    let mut recorded = Vec::new();
    let frame = |joiner: &RawJoiner, case: &str, recorded: &[u8]| -> Vec<u8> {
        let valid = joiner.claim(&invitation);
        let bytes = valid.encode();
        match case {
            "a wrong proof" => ClaimFrame { proof: [7; 32], ..valid }.encode(),
            "one wrong bit" => {
                let mut proof = valid.proof;
                proof[31] ^= 1;
                ClaimFrame { proof, ..valid }.encode()
            }
            "another secret" => ClaimFrame { id: invitation.id(), ..joiner.claim(&other) }.encode(),
            "an unknown id" => joiner.claim(&other).encode(),
            "an unknown id with the key of zeros" => ClaimFrame { id: other.id(), ..valid }.encode(),
            "the proof of another connection" => joiner.claim_for(&invitation, &[5; 32]).encode(),
            "a replay" => recorded.to_vec(),
            "the answer's kind" => [&bytes[..2], &[2], &bytes[3..]].concat(),
            "a wrong length" => [&[0, 42], &bytes[2..], &[0]].concat(),
            "a long length" => [&[2, 0], &bytes[2..]].concat(),
            "more than the limit" => vec![0; CLAIM_BYTES_MAX + 1],
            "two frames" => [&bytes[..], &bytes[..]].concat(),
            "a hello of a link" => vec![1, 0, 0, 0, 0, 0, 0, 60],
            _ => unreachable!("{case}"),
        }
    };
    for case in [
        "a wrong proof",
        "one wrong bit",
        "another secret",
        "an unknown id",
        "an unknown id with the key of zeros",
        "the proof of another connection",
        "the answer's kind",
        "a wrong length",
        "a long length",
        "more than the limit",
        "two frames",
        "a hello of a link",
    ] {
        let mut joiner = RawJoiner::connect(far.addr, [7; 32]).unwrap();
        let bytes = frame(&joiner, case, &[]);
        joiner.send(&bytes).unwrap();
        if case == "two frames" {
            // The first one is valid, so it may be answered, but not both.
            assert!(joiner.read_to_end().len() <= 36, "{case}");
            continue;
        }
        assert_eq!(joiner.read_to_end(), b"", "{case}");
    }
    let after_two = far.lines("far/authorized_keys").len();
    let line = far.invite(&[]);
    let second = parsed(&line);
    // A claim is valid on its own connection alone.
    let mut first = RawJoiner::connect(far.addr, [8; 32]).unwrap();
    recorded.extend(first.claim(&second).encode());
    let mut thief = RawJoiner::connect(far.addr, [8; 32]).unwrap();
    thief.send(&recorded).unwrap();
    assert_eq!(thief.read_to_end(), b"", "a replay with the same key");
    assert_eq!(far.lines("far/authorized_keys").len(), after_two);
    first.send(&recorded).unwrap();
    assert_eq!(first.answer(&second), Some(InvitedOutcome::Joined), "on its own connection");
    assert!(far.node.figure("/unauthenticated_failed") >= 12);
    far.node.wait_for_log(&["unauthenticated peer refused", "reason=auth_failed", "does not prove an invitation"]);
}

#[test]
fn an_incomplete_claim_is_closed_at_the_deadline_or_at_its_end() {
    let far = Inviter::start(&["--handshake-timeout", "1s"]);
    let invitation = parsed(&far.invite(&["--expires", "1h"]));
    for cut in [0, 1, 2, 3, 20, 42] {
        let mut joiner = RawJoiner::connect(far.addr, [7; 32]).unwrap();
        let bytes = joiner.claim(&invitation).encode();
        if cut > 0 {
            joiner.send(&bytes[..cut]).unwrap();
        }
        assert_eq!(joiner.read_to_end(), b"", "{cut}");
    }
    assert!(far.lines("far/authorized_keys").is_empty());
    // A claim in single bytes is a claim.
    let mut joiner = RawJoiner::connect(far.addr, [7; 32]).unwrap();
    let bytes = joiner.claim(&invitation).encode();
    bytes.iter().for_each(|byte| joiner.send(&[*byte]).unwrap());
    assert_eq!(joiner.answer(&invitation), Some(InvitedOutcome::Joined));
}

/// Accepts one connection as a server with a key of its own that names the protocol of invitations. Returns the plaintext
/// that arrives.
fn impostor(listener: &TcpListener) -> Vec<u8> {
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let identity = Identity::from_seed(&[66; 32]).unwrap();
    let admission = Admission { wanted: Arc::new(|_| true), expired: None, invites: Some(Arc::new(|| true)) };
    let tls = Tls::server_for(&identity, &Cipher::ALL, admission).unwrap();
    let mut pipe = tls.pipe(&Rc::new(Buffers::new())).unwrap();
    let mut pieces = Vec::new();
    loop {
        let got = pipe.read_from(|room| socket.read(room)).unwrap_or(0);
        let opened = pipe.open(&mut pieces);
        while pipe.unsent() > 0 {
            if pipe.write_to(|bytes| socket.write(bytes)).is_err() {
                return pieces.concat();
            }
        }
        if got == 0 || opened.is_err() {
            return pieces.concat();
        }
    }
}

#[test]
fn a_node_with_another_key_is_sent_no_proof() {
    let far = Inviter::start(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let thread = thread::spawn(move || impostor(&listener));
    let ran = run(&["invite", "--config-dir", &far.scratch.file("far"), "--address", &place]);
    let refused = far.join("near", &String::from_utf8(ran.out).unwrap(), &[]);
    assert_eq!(refused.code, Some(77), "{}", refused.err);
    assert!(refused.err.contains("another key than the invitation names"), "{}", refused.err);
    assert_eq!(thread.join().unwrap(), b"", "nothing was sent to it");
    assert!(far.read("near/known_nodes").is_empty());
}

#[test]
fn an_address_of_another_node_does_not_keep_the_right_one_from_being_dialed() {
    let far = Inviter::start(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    thread::spawn(move || impostor(&listener));
    let line = far.invite(&[]);
    let right = far.addr.to_string();
    let options = ["invite", "--config-dir", &far.scratch.file("far"), "--address", &place, "--address", &right];
    let both = run(&options);
    assert_eq!(far.join("near", &String::from_utf8(both.out).unwrap(), &[]).code, Some(0));
    assert!(far.read("near/known_nodes").starts_with(&format!("{right} ")) && !line.is_empty());
}

#[test]
fn a_relay_in_the_middle_sees_no_secret_and_can_use_nothing() {
    let far = Inviter::start(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let to = far.addr;
    // Relays the bytes, keeps them, and plays those of the joining node once more.
    let thread = thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let server = TcpStream::connect(to).unwrap();
        let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let up = thread::spawn(move || {
            let (mut kept, mut bytes) = (Vec::new(), [0; 4096]);
            while let Ok(got @ 1..) = from.read(&mut bytes) {
                kept.extend_from_slice(&bytes[..got]);
                if into.write_all(&bytes[..got]).is_err() {
                    break;
                }
            }
            kept
        });
        let (mut from, mut into) = (server, client);
        let _ = std::io::copy(&mut from, &mut into);
        let _ = into.shutdown(std::net::Shutdown::Both);
        up.join().unwrap()
    });
    let config = far.scratch.file("far");
    let ran = run(&["invite", "--config-dir", &config, "--address", &place, "--uses", "2"]);
    let line = String::from_utf8(ran.out).unwrap();
    far.wait_until_inviting();
    let joined = far.join("near", &line, &[]);
    assert_eq!(joined.code, Some(0), "{}", joined.err);
    let kept = thread.join().unwrap();
    let id = parsed(&line).id();
    assert!(!kept.windows(8).any(|bytes| bytes == id.0), "not even the id is in the clear");
    let mut again = TcpStream::connect(to).unwrap();
    again.set_read_timeout(Some(SOON)).unwrap();
    again.write_all(&kept).unwrap();
    let _ = again.read_to_end(&mut Vec::new());
    assert_eq!(far.lines("far/authorized_keys").len(), 1, "the bytes are of no use a second time");
    let uses: Vec<_> =
        far.lines("far/invitations").iter().map(|line| line.split(' ').nth(4).unwrap().to_owned()).collect();
    assert_eq!(uses, ["1"]);
}

#[test]
fn a_pending_invitation_does_not_let_a_stranger_begin_a_link() {
    let far = Inviter::start(&[]);
    far.invite(&[]);
    let near = far.scratch.file("near");
    let key = far.scratch.file("far");
    let pin = String::from_utf8(run(&["pubkey", "--fingerprint", "--config-dir", &key]).out).unwrap();
    let pin = pin.lines().nth(1).unwrap();
    let ran = run(&["link", "--connect", &far.addr.to_string(), "--config-dir", &near, "--peer-key", pin]);
    assert_eq!(ran.code, Some(77), "{}", ran.err);
    assert!(ran.err.contains("rejected the key"), "{}", ran.err);
}

#[test]
fn a_node_of_an_earlier_version_or_without_invitations_refuses_the_protocol() {
    let scratch = Scratch::new();
    let config = scratch.file("far");
    let ran = run(&["invite", "--config-dir", &config, "--address", "127.0.0.1:1"]);
    let line = String::from_utf8(ran.out).unwrap();
    let key = scratch.file("far/key");
    // The same key in a directory without invitations.
    let other = scratch.file("plain");
    let node = Seaprox::start(&["link", "--listen", "127.0.0.1:0", "--config-dir", &other, "--key", &key]);
    assert!(RawJoiner::connect(node.addr(0), [7; 32]).is_err(), "the protocol is not named");
    let words = line.replace("127.0.0.1:1", &node.addr(0).to_string());
    // The addresses are a part of the check.
    let ran = kit::run_with(&["join", "--config-dir", &scratch.file("near")], words.as_bytes(), |_| {});
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    let place = node.addr(0).to_string();
    let ran = run(&["invite", "--config-dir", &config, "--address", &place]);
    let ran = kit::run_with(&["join", "--config-dir", &scratch.file("near")], &ran.out, |_| {});
    assert_eq!(ran.code, Some(77), "{}", ran.err);
    assert!(ran.err.contains("earlier version"), "{}", ran.err);
}

/// Connects from an address of loopback.
fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(SocketAddrV4::new(source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[test]
fn a_crowd_of_strangers_keeps_neither_a_link_nor_a_joining_node_out() {
    let far = Inviter::start(&[]);
    let first = far.invite(&["--expires", "1h"]);
    assert_eq!(far.join("first", &first, &[]).code, Some(0));
    let line = far.invite(&["--expires", "1h"]);
    // Each stranger finishes its handshake and says nothing more, or a wrong proof.
    let mut crowd: Vec<RawJoiner> = Vec::new();
    for number in 0..120u32 {
        let source = Ipv4Addr::from_bits(Ipv4Addr::new(127, 9, 0, 1).to_bits() + number);
        if let Ok(mut joiner) = RawJoiner::on(connect_from(source, far.addr), [number as u8 + 20; 32]) {
            if number % 3 == 0 {
                let claim = joiner.claim(&stranger());
                let _ = joiner.send(&claim.encode());
            }
            crowd.push(joiner);
        }
    }
    let joined = far.join("near", &line, &[]);
    assert_eq!(joined.code, Some(0), "{}", joined.err);
    let near = far.scratch.file("first");
    let link =
        Seaprox::start(&["link", "--connect", &far.addr.to_string(), "--config-dir", &near, "-D", "127.0.0.1:0"]);
    until("the link is up", || link.out().iter().any(|line| line.starts_with("link up")));
    assert_eq!(far.lines("far/authorized_keys").len(), 2);
    until("those with a wrong proof are closed", || {
        crowd.iter_mut().filter_map(|joiner| joiner.is_closed().then_some(())).count() >= 40
    });
}
