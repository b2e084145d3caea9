//! The admin server against those who may not read: clients over TCP, and pages in a browser.

use std::os::unix::fs::PermissionsExt;

use crate::admin::{Answer, LOCAL, ctl, get, link_pair, over_tcp, over_unix, post};
use crate::kit;
use kit::{Relay, SOON, Scratch, until};

pub const TOKEN: &str = "0123456789abcdef";

/// Returns the path of a file with the token.
pub fn token_file(scratch: &Scratch) -> String {
    let file = scratch.write("token", TOKEN);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file
}

fn with_token() -> String {
    format!("{LOCAL}Authorization: Bearer {TOKEN}\r\n")
}

#[test]
fn reading_over_tcp_needs_the_token_once_there_is_one() {
    let scratch = Scratch::new();
    let relay = Relay::start(&["--admin", "127.0.0.1:0", "--admin-token-file", &token_file(&scratch)]);
    let addr = relay.seaprox.admin_addr();
    for path in ["/status", "/metrics", "/events"] {
        let refused = over_tcp(addr, &get(path, LOCAL));
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.head.contains("WWW-Authenticate: Bearer"), "{}", refused.head);
        let head = get(path, &with_token()).replace("GET", "HEAD");
        assert_eq!(over_tcp(addr, &head).status, 200, "{path}");
    }
    for path in ["/", "/healthz", "/readyz"] {
        assert_eq!(over_tcp(addr, &get(path, LOCAL)).status, 200, "{path}");
    }
    assert_eq!(over_unix(&relay.seaprox, &get("/status", LOCAL)).status, 200);
    let relay = Relay::start(&["--admin", "127.0.0.1:0"]);
    for path in ["/status", "/metrics"] {
        assert_eq!(over_tcp(relay.seaprox.admin_addr(), &get(path, LOCAL)).status, 200, "{path}");
    }
}

#[test]
fn another_site_may_show_a_page_to_its_user_and_embed_none() {
    let relay = Relay::start(&["--admin", "127.0.0.1:0"]);
    let addr = relay.seaprox.admin_addr();
    let fields = format!("{LOCAL}Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n");
    assert_eq!(over_tcp(addr, &get("/status", &format!("{fields}Sec-Fetch-Dest: document\r\n"))).status, 200);
    for dest in ["", "Sec-Fetch-Dest: iframe\r\n", "Sec-Fetch-Dest: object\r\n", "Sec-Fetch-Dest: empty\r\n"] {
        assert_eq!(over_tcp(addr, &get("/status", &format!("{fields}{dest}"))).status, 403, "{dest}");
    }
    // An answer without an end keeps its place.
    let events = format!("{fields}Sec-Fetch-Dest: document\r\n");
    assert_eq!(over_tcp(addr, &get("/events", &events)).status, 403);
}

#[test]
fn scrapes_at_the_same_time_share_a_snapshot() {
    let relay = Relay::start(&["--admin", "127.0.0.1:0"]);
    let addr = relay.seaprox.admin_addr();
    let turns = |answer: &Answer| {
        answer.body.lines().find(|line| line.starts_with("seaprox_turns_total ")).expect("turns").to_owned()
    };
    let scrape = || turns(&over_tcp(addr, &get("/metrics", LOCAL)));
    // A second may end between two requests, and a busy machine may take longer than that for one.
    until("two scrapes in a row share a snapshot", || scrape() == scrape());
    let first = scrape();
    until("a later scrape is another one", || scrape() != first);
}

#[test]
fn readiness_tells_no_name_to_a_client_that_may_not_read() {
    let scratch = Scratch::new();
    let (_keys, mut far, near) =
        link_pair(&["--name", "office", "--admin", "127.0.0.1:0", "--admin-token-file", &token_file(&scratch)]);
    far.signal(libc::SIGKILL);
    far.wait(SOON);
    until("the node is not ready", || ctl(&near, &["ready"]).code == Some(69));
    let addr = near.admin_addr();
    let answer = over_tcp(addr, &get("/readyz", LOCAL));
    assert_eq!((answer.status, answer.body.as_str()), (503, "not up: 1 link\n"));
    assert!(over_tcp(addr, &get("/readyz", &with_token())).body.contains("not up: link \"office\""));
}

#[test]
fn an_unreadable_token_is_logged_once() {
    let scratch = Scratch::new();
    let file = token_file(&scratch);
    let relay = Relay::start(&["--admin", "127.0.0.1:0", "--admin-token-file", &file]);
    let ask = || {
        let body = "{\"level\":\"info\"}";
        over_tcp(relay.seaprox.admin_addr(), &post("/log-level", &format!("Authorization: Bearer {TOKEN}\r\n"), body))
    };
    assert_eq!(ask().status, 200);
    std::fs::remove_file(&file).unwrap();
    for _ in 0..10 {
        assert_eq!(ask().status, 401);
    }
    let text = "the token of the admin server cannot be read";
    until("it is told", || relay.seaprox.count_log(&[text]) == 1);
    token_file(&scratch);
    assert_eq!(ask().status, 200);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(ask().status, 401);
    until("it is told again", || relay.seaprox.count_log(&[text]) == 2);
}

#[test]
fn the_group_of_a_socket_may_connect_and_nobody_else() {
    use std::os::unix::fs::MetadataExt;
    let (scratch, mode) = (Scratch::new(), |path: &str| {
        let made = std::fs::symlink_metadata(path).unwrap();
        (made.mode() & 0o777, made.gid())
    });
    let path = scratch.file("shared");
    let own = std::fs::metadata(scratch.path()).unwrap().gid();
    // Root may give a file to any group.
    let group = if kit::is_root() { 1 } else { own };
    let relay = Relay::start(&["--admin", &format!("unix:{path}"), "--admin-group", &group.to_string()]);
    assert_eq!(mode(&path), (0o660, group));
    assert_eq!(mode(&relay.seaprox.admin_socket()), (0o600, own));
}
