//! The views of connections and sides: what they tell, the data that they keep, and the answers for ids without a record.

use crate::loop_kit;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use loop_kit::*;
use seaprox::{
    Cause, DescriptorError, Ending, Fault, Id, Label, Limits, Proxy, Reason, Role, SideState, Stage, Target, VerbError,
};

/// Returns a loop with one established connection, its id, and its two peers.
fn established() -> (Rig, Id, Peer, Peer) {
    let mut rig = Rig::new(config());
    let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (id, client) = rig.adopt(Kind::Tcp4, relay_to(target.local_addr().unwrap()));
    let server = rig.accept(&target);
    rig.until("the connection relays", |proxy| stage_of(&mut proxy.core(), id) == Some(Stage::Established));
    (rig, id, client, server)
}

#[test]
fn a_view_and_the_status_give_description_source_and_dest_of_a_connection() {
    let (mut rig, id, client, server) = established();
    let (from, to) = (client.addr(), server.socket.local_addr().unwrap().as_socket().unwrap());
    let description = format!("test[ipv4[{from}]->ipv4[{to}]]");
    let mut core = rig.core();
    let view = core.connection(id).unwrap();
    assert_eq!((view.id(), view.description()), (id, description.clone()));
    assert_eq!((view.peer(Role::Source).ip(), view.peer(Role::Dest).ip()), (Some(from), Some(to)));
    assert_eq!((view.kind().map(Label::as_str), view.asked()), (Some("test"), Some(&Target::from(to))));
    assert_eq!((view.state(Role::Dest), view.ending()), (Some(SideState::Connected), None));
    let (by_view, by_status) = (view.status().unwrap(), core.snapshot().connections.remove(0));
    for status in [by_view, by_status] {
        assert_eq!((status.id, status.description), (id, description.clone()));
        assert_eq!(status.source.endpoint, format!("ipv4[{from}]"));
        assert_eq!(status.dest.unwrap().endpoint, format!("ipv4[{to}]"));
    }
}

#[test]
fn the_kind_of_a_front_end_may_be_a_text_that_was_made_at_run_time() {
    let mut rig = Rig::new(config());
    let (_peer, ours) = pair(Kind::Unix);
    let kind = ["script", "7"].join("-");
    let id = rig.core().adopt(ours, kind, handler(|_, _| 0)).unwrap();
    assert_eq!(rig.core().connection(id).unwrap().description(), "script-7[unix[]->none[]]");
    rig.core().connection(id).unwrap().set_kind("script");
    assert_eq!(rig.core().connection(id).unwrap().description(), "script[unix[]->none[]]");
}

#[test]
fn sides_find_each_other_and_their_connection() {
    let (mut rig, id, _client, _server) = established();
    let mut core = rig.core();
    let [source, dest] = [Role::Source, Role::Dest].map(|role| core.connection(id).unwrap().side_of(role).unwrap());
    for (side, other, role) in [(source, dest, Role::Source), (dest, source, Role::Dest)] {
        let view = core.side(side).unwrap();
        assert_eq!((view.side(), view.other(), view.role(), view.id()), (side, Some(other), role, id));
        let back = view.other().and_then(|other| core.side(other).unwrap().other());
        assert_eq!(back, Some(side), "the other side of the other side");
    }
}

#[test]
fn data_of_a_side_lasts_as_long_as_the_side_and_is_there_in_its_last_callback() {
    let (last, drops) = (Rc::new(Cell::new(0)), Rc::new(()));
    let (mut rig, noted) = (Rig::new(config()), Rc::clone(&last));
    let (id, client) = rig.adopt(
        Kind::Tcp4,
        handler(move |cx, call| {
            match call {
                Call::Opened => _ = cx.set_data(Box::new(7u32)),
                Call::Readable(_) => *cx.data_mut::<u32>().unwrap() += 1,
                Call::Ended(Cause::Over(_)) => noted.set(*cx.data::<u32>().unwrap()),
                _ => {}
            }
            1
        }),
    );
    let mut client = client;
    rig.send(&mut client, b"x");
    rig.until("the handler counts", |proxy| data(proxy, id) == Some(8));
    let mut core = rig.core();
    let source = core.connection(id).unwrap().side_of(Role::Source).unwrap();
    let mut side = core.side(source).unwrap();
    assert_eq!(side.data::<String>(), None, "a value of another type");
    let before = side.set_data(Box::new(Rc::clone(&drops))).unwrap();
    assert_eq!((*before.downcast::<u32>().unwrap(), Rc::strong_count(&drops)), (8, 2));
    assert!(side.take_data().unwrap().is::<Rc<()>>() && side.take_data().is_none());
    side.set_data(Box::new(9u32));
    rig.core().connection(id).unwrap().close(Reason::Killed);
    rig.until_empty();
    assert_eq!((last.get(), Rc::strong_count(&drops)), (9, 1));
}

fn data(proxy: &mut Proxy, id: Id) -> Option<u32> {
    let mut core = proxy.core();
    let source = core.connection(id).ok()?.side_of(Role::Source)?;
    core.side(source).ok()?.data::<u32>().copied()
}

#[test]
fn a_token_finds_its_side_until_the_side_is_gone() {
    let (mut rig, id, _client, _server) = established();
    let mut core = rig.core();
    let [source, dest] = [Role::Source, Role::Dest].map(|role| core.connection(id).unwrap().side_of(role).unwrap());
    assert_eq!((core.side(source).unwrap().token(), core.side_of_token(0), core.side_of_token(11)), (None, None, None));
    core.side(source).unwrap().set_token(Some(11));
    core.side(dest).unwrap().set_token(Some(22));
    for side in [source, dest] {
        let token = core.side(side).unwrap().token().unwrap();
        assert_eq!(core.side_of_token(token), Some(side));
    }
    core.side(source).unwrap().set_token(Some(22));
    assert_eq!((core.side_of_token(11), core.side_of_token(22)), (None, Some(source)), "the last one that got it");
    core.side(dest).unwrap().set_token(None);
    assert_eq!((core.side(dest).unwrap().token(), core.side_of_token(22)), (None, Some(source)));
    core.connection(id).unwrap().close(Reason::Killed);
    rig.until_empty();
    assert_eq!(rig.core().side_of_token(22), None);
}

#[test]
fn an_id_of_an_ended_connection_answers_with_the_reason_until_many_others_have_ended() {
    let limits = Limits { ended_records: 3, ..config().limits };
    let mut rig = Rig::new(seaprox::Config { limits, ..config() });
    let ended: Vec<_> = (0..5)
        .map(|_| {
            let (id, _client) = rig.adopt(Kind::Unix, handler(|_, _| 0));
            let side = rig.core().connection(id).unwrap().side_of(Role::Source).unwrap();
            rig.core().connection(id).unwrap().close(Reason::Killed);
            assert_eq!(rig.core().connection(id).err(), Some(VerbError::Over(Reason::Killed)), "before it is freed");
            rig.until_empty();
            (id, side)
        })
        .collect();
    for (count, (id, side)) in ended.into_iter().enumerate() {
        let answer = if count < 2 { VerbError::Stale } else { VerbError::Over(Reason::Killed) };
        assert_eq!(rig.core().connection(id).err(), Some(answer));
        assert_eq!(rig.core().side(side).err(), Some(answer));
    }
}

#[test]
fn an_id_of_another_kind_is_invalid_and_one_that_was_never_given_out_is_stale() {
    let (mut rig, id, _client, _server) = established();
    let mut core = rig.core();
    let side = core.connection(id).unwrap().side_of(Role::Source).unwrap();
    assert_eq!((id.kind(), side.kind()), (seaprox::Kind::Connection, seaprox::Kind::Side));
    assert_eq!(core.connection(side).err(), Some(VerbError::Invalid));
    assert_eq!(core.side(id).err(), Some(VerbError::Invalid));
    assert_eq!(core.connection(id).unwrap().route(side), Err(VerbError::Invalid), "no link");
    let never = Id::from_u64(id.to_u64() + (77 << 32)).unwrap();
    assert_eq!(core.connection(never).err(), Some(VerbError::Stale));
    for kind in [seaprox::Kind::Link, seaprox::Kind::Group] {
        let never = Id::from_u64(77 << 32 | (kind as u64) << 28).unwrap();
        assert_eq!(core.connection(id).unwrap().route(never), Err(VerbError::Stale), "no {kind:?}");
    }
    let far = Id::from_u64(id.to_u64() | 0xfff_ffff).unwrap();
    assert_eq!(core.connection(far).err(), Some(VerbError::Stale));
}

#[test]
fn verbs_that_cannot_be_done_say_why() {
    let (mut rig, id, _client, _server) = established();
    let mut core = rig.core();
    let mut view = core.connection(id).unwrap();
    assert_eq!(view.connect(Target::from(refusing()), None), Err(VerbError::Already));
    view.close(Reason::Killed);
    assert_eq!(view.connect(Target::from(refusing()), None), Err(VerbError::Over(Reason::Killed)));
    assert_eq!(view.reply(b"x"), Err(VerbError::Over(Reason::Killed)));
    assert_eq!(view.ending(), Some((Ending::Aborted, Fault::Proxy)));
    let limits = Limits { connections: 1, ..config().limits };
    let mut rig = Rig::new(seaprox::Config { limits, ..config() });
    let (id, _client) = rig.adopt(Kind::Unix, handler(|_, _| 0));
    let link_of_nothing = rig.core().connection(id).unwrap().side_of(Role::Source).unwrap();
    assert_eq!(rig.core().connection(id).unwrap().route(link_of_nothing), Err(VerbError::Invalid));
    assert_eq!(rig.core().connection(id).unwrap().send(Role::Dest, b"x"), Err(VerbError::Stale), "there is no dest");
    let error = rig.core().adopt(pair(Kind::Unix).1, "test", handler(|_, _| 0)).unwrap_err();
    assert!(matches!(error, DescriptorError::Verb(VerbError::Full)) && error.code() == -28);
}

#[test]
fn a_dest_is_released_once_and_a_connection_that_is_over_refuses() {
    for reset in [false, true] {
        let (mut rig, id, _client, _server) = established();
        let mut core = rig.core();
        let mut view = core.connection(id).unwrap();
        let mut release = || if reset { view.reset_dest() } else { view.disconnect() };
        assert_eq!((release(), release()), (Ok(()), Err(VerbError::Stale)), "a dest, and none");
        view.close(Reason::Other);
        let over = Err(VerbError::Over(Reason::Other));
        assert_eq!((view.disconnect(), view.reset_dest(), view.wake_after(Duration::ZERO)), (over, over, over));
        view.close(Reason::Internal);
        assert_eq!(
            core.connection(id).map(|view| view.id()),
            Err(VerbError::Over(Reason::Other)),
            "the first reason stays"
        );
        rig.until_empty();
    }
}
