//! Flows of datagrams one end of which is the program.

use crate::loop_kit;

use std::cell::RefCell;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;

use loop_kit::*;
use seaprox::{
    Bind, Core, FlowHandler, FlowRequest, FlowTarget, Id, ListenConfig, Loop, Reason, Target, VerbError, bind,
};

/// Notes what it is told, and answers with the same bytes if it is asked to.
#[derive(Default)]
struct Notes {
    answers: bool,
    panics: bool,
    got: Vec<(Id, Vec<u8>)>,
    ended: Vec<(Id, Reason)>,
}

impl FlowHandler for Notes {
    fn datagram(&mut self, core: &mut Loop<'_>, flow: Id, content: &[u8]) {
        self.got.push((flow, content.to_vec()));
        assert!(!self.panics, "on purpose");
        if self.answers {
            core.send_datagram(flow, content).unwrap();
        }
    }

    fn ended(&mut self, core: &mut Loop<'_>, flow: Id, reason: Reason) {
        assert!(core.send_datagram(flow, b"").is_err());
        self.ended.push((flow, reason));
    }
}

fn notes(answers: bool) -> Rc<RefCell<Notes>> {
    Rc::new(RefCell::new(Notes { answers, ..Notes::default() }))
}

fn listen(rig: &mut Rig, handler: &Rc<RefCell<Notes>>) -> (Id, SocketAddr) {
    let shared = Rc::clone(handler);
    let open = move |_: &mut Core, request: &FlowRequest<'_>| {
        Ok(FlowTarget { handler: Some(Rc::clone(&shared) as _), ..FlowTarget::new(Target::from(request.local)) })
    };
    let config =
        ListenConfig { datagrams: Some(Box::new(open)), ..ListenConfig::new("udp", Box::new(|| unreachable!())) };
    let mut bounds = bind(&Bind::parse("udp:127.0.0.1:0").unwrap(), 1, &rig.config).unwrap();
    let listener = rig.core().listen(&mut bounds[0], config).unwrap();
    (listener, bounds[0].addr().ip().unwrap())
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn receive(rig: &mut Rig, socket: &UdpSocket) -> Vec<u8> {
    rig.wait("a datagram", |_| {
        let mut buf = [0; 65_536];
        socket.recv(&mut buf).ok().map(|len| buf[..len].to_vec())
    })
}

#[test]
fn a_handler_of_the_program_gets_and_sends_the_datagrams_of_a_flow() {
    let mut rig = Rig::new(config());
    let handler = notes(true);
    let (listener, addr) = listen(&mut rig, &handler);
    let client = socket();
    for len in [1, 0, 1_400, 1_400, 65_507] {
        client.send_to(&pattern(len), addr).unwrap();
        assert_eq!(receive(&mut rig, &client), pattern(len));
    }
    let flow = handler.borrow().got[0].0;
    assert!(handler.borrow().got.iter().all(|(id, _)| *id == flow), "one flow");
    assert_eq!(rig.core().flow(flow).unwrap().datagrams, (5, 5));
    rig.core().send_datagram(flow, b"by itself").unwrap();
    assert_eq!(receive(&mut rig, &client), b"by itself");
    assert_eq!(rig.core().send_datagram(flow, &[0; 65_508]), Err(VerbError::Invalid));
    assert_eq!(rig.core().send_datagram(listener, b""), Err(VerbError::Invalid));
    handler.borrow_mut().panics = true;
    client.send_to(b"x", addr).unwrap();
    rig.wait("the panic", |rig| (rig.core().totals().stats.panics == 1).then_some(()));
    handler.borrow_mut().panics = false;
    rig.core().close_flow(flow).unwrap();
    rig.wait("the end", |_| handler.borrow().ended.first().copied().filter(|end| *end == (flow, Reason::Killed)));
}

#[test]
fn the_program_opens_flows_to_targets_and_hears_of_their_end() {
    let mut rig = Rig::new(config());
    let (echo, asking) = (notes(true), notes(false));
    let (_, addr) = listen(&mut rig, &echo);
    let flow = rig.core().open_datagrams(None, addr.into(), Rc::clone(&asking) as _).unwrap();
    rig.core().send_datagram(flow, b"one").unwrap();
    rig.core().send_datagram(flow, b"two").unwrap();
    rig.wait("the answers", |_| (asking.borrow().got.len() == 2).then_some(()));
    assert_eq!(asking.borrow().got, [(flow, b"one".to_vec()), (flow, b"two".to_vec())]);
    // No socket has this port: the system says so.
    let closed = socket().local_addr().unwrap();
    let lost = rig.core().open_datagrams(None, closed.into(), Rc::clone(&asking) as _).unwrap();
    rig.core().send_datagram(lost, b"x").unwrap();
    rig.wait("the refusal", |_| asking.borrow().ended.contains(&(lost, Reason::ConnectionRefused)).then_some(()));
    assert_eq!(rig.core().open_datagrams(Some(flow), addr.into(), asking), Err(VerbError::Invalid));
}
