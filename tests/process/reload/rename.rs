//! Links and servers whose session outlives a change.

use std::path::PathBuf;

use seaprox::auth::{Modes, NodeKey};
use seaprox::config::{Config, ExpectedKey, Forward, FrontEndConfig, KeySource, Link, Pin, Server, Service};
use seaprox::{Bind, Proto, Target};

use super::world::own_addrs;
use crate::config::{Client, Process, server};
use crate::kit::{Scratch, Seaprox, until};

#[test]
fn the_sessions_of_a_renamed_link_and_of_a_renamed_server_go_on() {
    let (one, scratch) = (server(b'1'), Scratch::new());
    let key = |name: &str| NodeKey::load_or_create(&PathBuf::from(scratch.file(name)), Modes::Lax).unwrap().0.public();
    let (near_key, far_key) = (key("near-key"), key("far-key"));
    let authorized = |name: &str| scratch.write(name, format!("permit-open=\"*:*\" {near_key}\n"));
    let base = |name: &str| {
        let mut config = Config { modes: Modes::Lax, ..Config::default() };
        config.node.key = KeySource::File(Some(scratch.file(name).into()));
        config
    };
    let far_config = |name: &str, keys: String| {
        let server = Server::new(name, vec![Bind::parse("127.0.0.1:0").unwrap()]);
        Config { servers: vec![Server { authorized_keys: Some(keys.into()), ..server }], ..base("far-key") }
    };
    let mut far = Process::start(far_config("links", authorized("keys")));
    let near_config = |name: &str, pin: Pin| {
        let front_end = FrontEndConfig::new("static").with("to", Target::Ip(Proto::Tcp, one));
        let listen = Bind::parse("127.0.0.1:0").unwrap();
        let forwards = vec![Forward { name: "db".to_owned(), listen, service: Service::Local(front_end) }];
        let peer = Target::Ip(Proto::Tcp, far.addr("links"));
        let link = Link { expected_key: ExpectedKey::Pinned(pin), forwards, ..Link::new(name, peer) };
        Config { links: vec![link], ..base("near-key") }
    };
    let (first, second) =
        (near_config("home", Pin::Key(far_key)), near_config("office", Pin::Fingerprint(far_key.fingerprint())));
    let mut near = Process::start(first);
    let mut client = Client::connect(near.addr("db"));
    assert_eq!(client.ask().unwrap(), b'1');
    // The link has another name, and its key is pinned in another form.
    let id = near.running.link("home");
    near.running.apply(second).unwrap();
    assert_eq!((near.running.link("office"), near.running.link("home")), (id, None));
    let names =
        near.running.remotes()[0].ask(|core| core.links().into_iter().map(|link| link.name).collect::<Vec<_>>());
    let names = names.unwrap().wait_for(std::time::Duration::from_secs(60)).unwrap();
    assert_eq!(names, Some(vec!["office".to_owned()]), "the status has the new name at once");
    assert_eq!(client.ask().unwrap(), b'1');
    // The server has another name and another file, which permits the same key.
    let at = far.addr("links");
    let mut renamed = far_config("gate", authorized("others"));
    renamed.servers[0].timing = Some(seaprox::node::Timing { streams: 7, ..Default::default() });
    far.running.apply(renamed.clone()).unwrap();
    assert_eq!((far.addr("gate"), client.ask().unwrap()), (at, b'1'));
    // The links are judged by the present file, and belong to the present server.
    renamed.servers[0].authorized_keys = Some(scratch.write("nobody", "").into());
    far.running.apply(renamed).unwrap();
    until("the link of a key that is not admitted any more ends", || client.ask().is_err());
}

#[test]
fn the_links_of_a_reload_are_logged_and_none_of_them_ends_the_process() {
    let world = super::world::World::new(2);
    let (path, addrs) = (world.scratch.file("near.toml"), own_addrs(1));
    let write = |text: &str| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    let peer = |far: usize| world.far[far].addr("links");
    let start = format!(
        "key = \"{}\"\n[[listener]]\nlisten = \"{}\"\nfront = \"socks\"\n",
        world.scratch.file("near-key"),
        addrs[0]
    );
    let link = |name: &str, far: usize, key: &str, forward: &str| {
        format!("[[link]]\nname = \"{name}\"\nconnect = \"{}\"\npeer-key = \"{key}\"\n{forward}", peer(far))
    };
    write(&start);
    let mut near = Seaprox::start(&["run", &path]);
    let (right, wrong) = (world.far_key().to_string(), NodeKey::generate().unwrap().public().to_string());
    write(&(start.clone() + &link("home", 0, &right, "") + &link("wrong", 1, &wrong, "")));
    near.signal(libc::SIGHUP);
    near.wait_for_log(&["link up", "link=home"]);
    near.wait_for_log(&["the link cannot be used as it is", "did not match"]);
    until("the link is announced", || near.out().iter().any(|line| line.starts_with("link up home")));
    // A remote forward of a link that is up is announced when its peer listens; the link has another name then.
    let far = world.far_addrs[0];
    let forward = format!("forward = [{{ remote = \"{far}:{}\" }}]\n", world.targets[0]);
    write(&(start + &link("office", 0, &right, &forward)));
    near.signal(libc::SIGHUP);
    let line = format!("listening remote {far} -> {}", world.targets[0]);
    until("the forward is announced", || near.out().contains(&line));
    assert_eq!(Client::connect(far).ask().unwrap(), b'1');
    assert_eq!(near.count_log(&["link up"]), 1, "the session goes on: {:?}", near.log());
    assert!(near.runs());
}
