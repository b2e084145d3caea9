use super::*;
use crate::node::{Path, Timing};
use crate::types::address::{Bind, Target};
use crate::types::rules::{Action, Rule, Rules};

/// A registry with a front end that needs a target, and one without options.
struct Registry;

impl FrontEnds for Registry {
    fn names(&self) -> Vec<&'static str> {
        vec!["static", "socks"]
    }

    fn options(&self, name: &str) -> Option<&'static [FrontEndOption]> {
        match name {
            "static" => Some(&[FrontEndOption { name: "to", kind: OptionKind::Targets, is_required: true }]),
            "socks" => Some(&[]),
            _ => None,
        }
    }
}

fn bind(text: &str) -> Bind {
    Bind::parse(text).unwrap()
}

fn target(text: &str) -> Target {
    Target::parse(text).unwrap()
}

fn socks(name: &str, port: &str) -> Listener {
    Listener::new(name, vec![bind(port)], FrontEndConfig::new("socks"))
}

fn relay(name: &str, port: &str, to: &str) -> Listener {
    Listener::new(name, vec![bind(port)], FrontEndConfig::new("static").with("to", target(to)))
}

fn with_listeners(listeners: Vec<Listener>) -> Config {
    Config { listeners, ..Config::default() }
}

fn with_link(link: Link) -> Config {
    Config { links: vec![link], ..Config::default() }
}

fn home() -> Link {
    Link::new("home", target("home:23232"))
}

fn problems(config: &Config) -> Vec<String> {
    config.validate(&Registry).iter().map(Problem::to_string).collect()
}

#[test]
fn the_default_configuration_has_no_problem_and_equals_itself() {
    let config = Config::default();
    assert_eq!(problems(&config), [""; 0]);
    assert!(Diff::between(&config, &config).is_empty());
}

#[test]
fn all_problems_are_found_at_once_and_each_names_its_place() {
    let mut config = Config { workers: 0, ..Config::default() };
    config.loops.limits.buffer_bytes = 4096;
    config.node.timing.dead = Duration::from_secs(1);
    config.node.timing.hold = Duration::ZERO;
    let mut web = relay("web", "80", "unix:/x");
    web.link = Some("home".to_owned());
    let mut shop = socks("web", "81");
    shop.front_end = FrontEndConfig::new("socks").with("colour", "red");
    shop.addresses.push(bind("81"));
    config.listeners = vec![
        web,
        shop,
        Listener::new("a\n", vec![], FrontEndConfig::new("gopher")),
        Listener::new("bare", vec![bind("82")], FrontEndConfig::new("static").with("to", 3)),
        Listener::new("none", vec![bind("0"), bind("0")], FrontEndConfig::new("static")),
    ];
    let mut link = Link::new("office", target("unix:/y"));
    link.subflows = 9;
    link.paths = LinkPaths::List(vec![Path::default(), Path { interface: Some("wlan0".into()), ..Path::default() }]);
    link.forwards =
        vec![Forward { name: "web".into(), listen: bind("unix:/z"), service: Service::Remote(target("a:1")) }];
    config.links = vec![link];
    let expected = [
        "workers 0: expected a number above 0",
        "buffer 32KiB: expected at most the 4KiB of buffer-memory",
        "link-hold \"0\": expected a duration above 0, because a link needs this timer",
        "link-dead 1s: expected more than the 5s of link-keepalive",
        "listener \"web\": to \"unix:/x\" with via: expected HOST:PORT, because a link carries TCP",
        "listener \"web\": via \"home\": expected the name of a link",
        "listener \"web\": name \"web\": expected a name that no other record of its kind has",
        "listener \"web\": listen \"81\": expected each address once",
        "listener \"web\": colour is no option of \"socks\"",
        "listener \"a\\n\": name \"a\\n\": expected 1 to 128 bytes without control characters",
        "listener \"a\\n\": listen: expected at least one address",
        "listener \"a\\n\": front \"gopher\": expected static or socks",
        "listener \"bare\": to \"3\": expected HOST:PORT or srv:NAME",
        "listener \"none\": to: expected HOST:PORT or srv:NAME",
        "link \"office\": connect \"unix:/y\": expected HOST[:PORT]",
        "link \"office\": subflows 9: expected at most 16 subflows in total, not 20 over 2 paths, of which 2 have QUIC beside TCP, because they name no carrier (tcp:%wlan0)",
        "link \"office\": forward \"web\": name \"web\": expected a name that no other record of its kind has",
        "link \"office\": forward \"web\": listen \"unix:/z\": expected a TCP port, because it is at the far end",
    ];
    assert_eq!(problems(&config), expected);
}

#[test]
fn a_path_with_quic_beside_tcp_has_two_of_the_subflows() {
    let path = |n: usize, carrier| Path { interface: Some(format!("e{n}")), carrier, ..Path::default() };
    let found = |unnamed: usize, named: usize, change: &dyn Fn(&mut Link)| {
        let named = (0..named).map(|n| path(n, Some(crate::node::CarrierKind::Tcp)));
        let mut link = home();
        link.paths = LinkPaths::List((0..unnamed).map(|n| path(n, None)).chain(named).collect());
        change(&mut link);
        problems(&with_link(link))
    };
    assert_eq!(found(8, 0, &|_| ()), [""; 0]);
    assert_eq!(found(7, 2, &|_| ()), [""; 0]);
    assert_eq!(found(16, 0, &|link| link.carrier = Some(crate::node::CarrierKind::Tcp)), [""; 0]);
    assert_eq!(found(1, 0, &|link| link.subflows = 16), [""; 0], "a single path does without QUIC");
    let too_many = "link \"home\": subflows 1: expected at most 16 subflows in total, not 18 over 9 paths, of which 9 have QUIC beside \
                    TCP, because they name no carrier (tcp:%wlan0)";
    assert_eq!(found(9, 0, &|_| ()), [too_many]);
}

#[test]
fn a_link_that_both_nodes_dial_needs_a_local_port_one_server_and_tcp() {
    let mut link = home();
    link.simultaneous = true;
    let no_port = "link \"home\": simultaneous: expected local-port, because the peer dials to that port";
    assert_eq!(problems(&with_link(link.clone())), [no_port]);
    link.paths = LinkPaths::File("uplinks".into());
    assert_eq!(problems(&with_link(link.clone())), [no_port]);
    link.paths = LinkPaths::List(vec![Path { local_port: Some(7000), ..Path::default() }]);
    assert_eq!(problems(&with_link(link.clone())), [""; 0]);
    link.carrier = Some(crate::node::CarrierKind::Mptcp);
    link.links_max = Some(1);
    let expected = [
        "link \"home\": simultaneous with carrier mptcp: expected tcp",
        "link \"home\": simultaneous with several servers: expected one HOST[:PORT]",
    ];
    assert_eq!(problems(&with_link(link)), expected);
}

#[test]
fn a_udp_address_is_refused_where_a_tcp_address_is_expected() {
    let mut config = with_listeners(vec![relay("dns", "udp::53", "udp:dns:53")]);
    let mut link = Link::new("home", target("udp:home:23232"));
    link.paths = LinkPaths::List(vec![Path { peer: Some(target("udp:gate:1")), ..Path::default() }]);
    let service = Service::Remote(target("udp:a:1"));
    link.forwards = vec![Forward { name: "far".into(), listen: bind("udp:5"), service }];
    config.links = vec![link];
    config.servers = vec![Server::new("links", vec![bind("udp:6")])];
    let expected = [
        "listener \"dns\": listen \"udp::53\"",
        "link \"home\": connect \"udp:home:23232\"",
        "link \"home\": path \"udp:gate:1\"",
        "server \"links\": listen \"udp:6\"",
    ];
    assert_eq!(problems(&config), expected.map(|place| format!("{place}: expected a TCP address")));
}

#[test]
fn two_links_with_one_peer_are_refused_by_name() {
    let mut config = with_link(home());
    config.links.push(Link { name: "work".to_owned(), ..home() });
    let expected = "link \"work\": connect \"home:23232\": the link \"home\" has this peer: expected another peer";
    assert_eq!(problems(&config), [expected]);
    config.links[1].peers = vec![target("work:23232").into()];
    assert_eq!(problems(&config), [""; 0]);
}

#[test]
fn more_threads_need_more_connections_and_buffers() {
    let mut config = Config { threads: 4, ..Config::default() };
    config.loops.limits.connections = 3;
    config.loops.limits.buffer_bytes = 100 << 10;
    let expected = [
        "buffer-memory 100KiB: expected at least 128KiB, one buffer for each of threads",
        "threads 4: expected at most 3, because each thread needs one of the connections that max-connections and the \
         descriptor limit allow",
    ];
    assert_eq!(problems(&config), expected);
}

#[test]
fn a_command_line_shows_the_options_of_a_problem_with_dashes() {
    let mut config = Config::default();
    config.loops.limits.buffer_bytes = 4096;
    let problem = config.validate(&Registry).remove(0);
    assert_eq!(problem.place, Place::root().field("buffer"));
    assert_eq!(problem.text(|name| format!("--{name}")), " 32KiB: expected at most the 4KiB of --buffer-memory");
}

#[test]
fn the_difference_from_the_empty_tree_adds_everything() {
    let mut config = with_listeners(vec![socks("socks", "1080")]);
    config.links = vec![home()];
    config.servers = vec![Server::new("links", vec![bind("23232")])];
    let diff = Diff::between(&Config::default(), &config);
    assert_eq!((diff.listeners.added.len(), diff.links.added.len(), diff.servers.added.len()), (1, 1, 1));
    assert_eq!(diff.restarts, []);
    // A record is compared and applied with what it inherits.
    assert_eq!(diff.listeners.added[0].timers.idle, Some(Duration::ZERO));
    assert_eq!(diff.links.added[0].timing, Some(Timing::default()));
}

#[test]
fn a_change_of_one_listener_touches_no_other() {
    let old = with_listeners(vec![socks("a", "1"), relay("b", "2", "x:1"), socks("c", "3")]);
    let mut new = with_listeners(vec![socks("a", "1"), relay("b", "2", "y:1"), socks("d", "4")]);
    let diff = Diff::between(&old, &new);
    let names = |all: &[Listener]| all.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
    assert_eq!((names(&diff.listeners.added), names(&diff.listeners.removed)), (vec!["d".into()], vec!["c".into()]));
    assert_eq!(diff.listeners.changed.len(), 1);
    let change = &diff.listeners.changed[0];
    assert_eq!((change.listener.name.as_str(), change.bound.len(), change.closed.len()), ("b", 0, 0));
    assert!(diff.links.is_empty() && diff.servers.is_empty() && diff.restarts.is_empty());
    // An address is exchanged alone, and another backlog is set at the sockets that are there.
    new.listeners[0].addresses.push(bind("5"));
    let change = &Diff::between(&old, &new).listeners.changed[0];
    assert_eq!((change.bound.clone(), change.closed.clone()), (vec![bind("5")], vec![]));
    new.listeners[0].backlog = Some(9);
    let change = &Diff::between(&old, &new).listeners.changed[0];
    assert_eq!((change.bound.clone(), change.closed.clone()), (vec![bind("5")], vec![]));
    // Another mode exchanges the files of Unix sockets alone.
    let mut old = with_listeners(vec![socks("a", "1")]);
    old.listeners[0].addresses.push(bind("unix:/x"));
    let mut new = old.clone();
    new.loops.unix_mode = "0660".parse().ok();
    let change = &Diff::between(&old, &new).listeners.changed[0];
    assert_eq!((change.bound.clone(), change.closed.clone()), (vec![bind("unix:/x")], vec![bind("unix:/x")]));
}

#[test]
fn a_new_default_changes_the_listeners_that_inherit_it() {
    let mut old = with_listeners(vec![socks("a", "1"), socks("b", "2")]);
    old.listeners[1].timers.idle = Some(Duration::from_secs(7));
    old.listeners[1].rules = Some(Rules::default());
    old.listeners[1].egress = Some(crate::Egress::default());
    let mut new = old.clone();
    new.loops.timeouts.idle = Duration::from_secs(9);
    new.access.rules = Rules::new(vec![Rule::parse(Action::Deny, "10.0.0.0/8").unwrap()]);
    new.egress = crate::Egress::from(std::net::IpAddr::from([127, 0, 0, 2]));
    assert!(Diff::between(&old, &new).is_default_changed && !Diff::between(&old, &old).is_default_changed);
    let changed = Diff::between(&old, &new).listeners.changed;
    assert_eq!(changed.iter().map(|it| it.listener.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(changed[0].listener.egress, Some(new.egress.clone()));
    assert_eq!(changed[0].listener.timers.idle, Some(Duration::from_secs(9)));
    assert_eq!(changed[0].listener.rules, Some(new.access.rules.clone()));
}

#[test]
fn paths_and_local_forwards_change_while_the_link_lives_on() {
    let path = |name: &str| Path { interface: Some(name.to_owned()), ..Path::default() };
    let forward = |name: &str, service| Forward { name: name.to_owned(), listen: bind("8080"), service };
    let remote = |to: &str| Service::Remote(target(to));
    let mut old = home();
    old.paths = LinkPaths::List(vec![path("eth0"), path("wlan0")]);
    old.forwards = vec![forward("db", remote("db:1")), forward("web", remote("web:1"))];
    let mut new = old.clone();
    new.paths = LinkPaths::List(vec![path("eth0"), path("wwan0")]);
    new.forwards.push(forward("mail", Service::Local(FrontEndConfig::new("socks"))));
    let diff = |new: &Link| Diff::between(&with_link(old.clone()), &with_link(new.clone()));
    let change = diff(&new).links.changed.remove(0);
    assert!(!change.is_redialed && change.forwards.is_empty());
    assert_eq!((&change.added_paths, &change.removed_paths), (&vec![path("wwan0")], &vec![path("wlan0")]));
    // A local forward is a listener whose clients go over the link.
    let added = diff(&new).listeners.added;
    assert_eq!((added[0].name.as_str(), added[0].link.as_deref()), ("mail", Some("home")));
    let others: [fn(&mut Link); 4] = [
        |link| link.simultaneous = true,
        |link| link.carrier = Some(crate::node::CarrierKind::Mptcp),
        |link| link.subflows = 2,
        |link| link.mode = Some(crate::link::Mode::Single),
    ];
    for change in others {
        let mut new = new.clone();
        change(&mut new);
        let change = diff(&new).links.changed.remove(0);
        assert!(change.is_redialed && change.added_paths.is_empty());
    }
    new.peers.push(target("other:1").into());
    let change = diff(&new).links.changed.remove(0);
    assert!(!change.is_redialed && change.has_other_servers, "the links to the other servers live on");
    new.forwards = vec![forward("db", remote("db:2")), forward("ssh", remote("ssh:1"))];
    let change = diff(&new).links.changed.remove(0);
    assert!(!change.is_redialed);
    let forwards = change.forwards;
    assert_eq!(forwards.added, [forward("ssh", remote("ssh:1"))]);
    assert_eq!(forwards.removed, [forward("web", remote("web:1"))]);
    assert_eq!(forwards.changed, [(forward("db", remote("db:1")), forward("db", remote("db:2")))]);
}

#[test]
fn a_link_and_a_server_with_another_name_live_on() {
    let named = |link: &str, server: &str| {
        let mut config = with_link(Link { name: link.to_owned(), ..home() });
        config.servers = vec![Server::new(server, vec![bind("1"), bind("2")])];
        config.listeners = vec![Listener { link: Some(link.to_owned()), ..socks("over", "3") }];
        config
    };
    let (old, mut new) = (named("a", "b"), named("c", "d"));
    let diff = Diff::between(&old, &new);
    assert!(diff.listeners.is_empty() && diff.links.added.is_empty() && diff.links.removed.is_empty());
    let link = &diff.links.changed[0];
    assert_eq!((link.link.name.as_str(), link.is_redialed, link.is_renewed), ("c", false, true));
    let server = &diff.servers.changed[0];
    assert_eq!((server.server.name.as_str(), server.bound.len(), server.closed.len()), ("d", 0, 0));
    // Another expected key is judged by the link that is there; another peer is another link.
    new.links[0].expected_key = ExpectedKey::Known(Some("/other".into()));
    let link = &Diff::between(&named("c", "d"), &new).links.changed[0];
    assert!(link.is_renewed && !link.is_redialed);
    new.links[0].peers = vec![target("elsewhere:1").into()];
    let diff = Diff::between(&old, &new);
    assert_eq!((diff.links.added.len(), diff.links.removed.len(), diff.renames.len()), (1, 1, 1));
}

#[test]
fn a_change_of_threads_limits_or_keys_needs_a_restart() {
    let old = Config::default();
    let mut new = Config { threads: 2, drain: Duration::ZERO, ..Config::default() };
    new.loops.limits.pipes = 0;
    new.loops.limits.backlog = 1;
    new.node.key = KeySource::Secret("/secret".into());
    let fields: Vec<String> = Diff::between(&old, &new).restarts.iter().map(Place::to_string).collect();
    assert_eq!(fields, ["threads", "limits", "key"]);
}

#[test]
fn a_pin_is_a_key_or_a_fingerprint() {
    let key = crate::auth::NodeKey::generate().unwrap().public();
    for text in [key.to_string(), key.fingerprint()] {
        assert!(text.parse::<Pin>().unwrap().fits(&key));
    }
    let error = |text: &str| text.parse::<Pin>().unwrap_err().to_string();
    assert_eq!(error("SHA256:x"), "expected SHA256: and the 43 characters of a fingerprint");
    assert_eq!(error("x"), "expected 'seaprox-ed25519 BASE64' or a fingerprint SHA256:...");
}
