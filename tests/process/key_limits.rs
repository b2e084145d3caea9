//! Keys with an end (`valid-until=`) and with a number of sessions (`uses=`), between real processes.

use crate::invite_kit::Inviter;
use crate::kit;
use crate::node_kit::cutter::Cutter;

use std::os::unix::fs::PermissionsExt;

use kit::{LATE, Scratch, Seaprox, run, until};
use seaprox::UtcTime;

/// Starts a link of a node that has joined, over this address.
fn link(far: &Inviter, name: &str, to: &str) -> Seaprox {
    let (near, known) = (far.scratch.file(name), far.scratch.file("known"));
    let key = String::from_utf8(run(&["pubkey", "--config-dir", &far.scratch.file("far")]).out).unwrap();
    far.scratch.write("known", format!("{to} {key}"));
    Seaprox::spawn(&["link", "--connect", to, "--config-dir", &near, "--known-nodes", &known], |_| {})
}

fn until_up(link: &Seaprox) {
    until("the link is up", || link.out().iter().any(|line| line.starts_with("link up")));
}

/// Returns the count of the only key in the file of counts.
fn counted(far: &Inviter) -> String {
    let lines = far.lines("far/authorized_keys.uses");
    lines.first().and_then(|line| line.rsplit(' ').next()).unwrap_or_default().to_owned()
}

#[test]
fn an_expired_key_loses_its_links_and_both_ends_say_why() {
    let far = Inviter::start(&[]);
    let line = far.invite(&["--valid-for", "8s", "--name", "guest"]);
    assert_eq!(far.join("near", &line, &[]).code, Some(0));
    let authorized = far.read("far/authorized_keys");
    let until_text = authorized.split('"').nth(1).unwrap();
    let end: UtcTime = until_text.parse().unwrap();
    let mut near = link(&far, "near", &far.addr.to_string());
    until_up(&near);
    far.node.wait_for_log(&["link ended", "peer=guest", "the key has expired"]);
    let late = std::time::SystemTime::now().duration_since(end.to_system()).unwrap_or_default();
    assert!(end.is_past() && late < LATE, "{late:?} after the end");
    assert_eq!(near.wait(kit::SOON).code(), Some(77));
    let log = near.log().join("\n");
    assert!(log.contains("reason=not_permitted detail=\"the key has expired\""), "{log}");
    assert!(log.contains("the key of this node has expired at"), "{log}");
    far.node.wait_for_log(&["key rejected: it has expired"]);
    // The key may come again when its line says so.
    let longer = authorized.replace(until_text, "2999-01-01T00:00:00Z");
    let draft = far.scratch.write("far/new", longer);
    std::fs::set_permissions(&draft, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::rename(draft, far.scratch.file("far/authorized_keys")).unwrap();
    until("the longer time is known", || {
        let near = link(&far, "near", &far.addr.to_string());
        let mut is_up = false;
        until("the link is up or refused", || {
            is_up = near.out().iter().any(|line| line.starts_with("link up"));
            is_up || near.log().iter().any(|line| line.contains("has expired at"))
        });
        is_up
    });
}

#[test]
fn a_key_begins_as_many_sessions_as_it_may_also_after_a_restart() {
    let far = Inviter::start(&[]);
    let line = far.invite(&["--key-uses", "2"]);
    assert_eq!(far.join("near", &line, &[]).code, Some(0));
    let authorized = far.read("far/authorized_keys");
    assert!(authorized.starts_with("uses=\"2\" "), "{authorized}");
    let near = link(&far, "near", &far.addr.to_string());
    until_up(&near);
    drop(near);
    assert_eq!(counted(&far), "1");
    let Inviter { scratch, node, .. } = far;
    drop(node);
    let far = Inviter::start_with(scratch, &[], |_| {});
    let near = link(&far, "near", &far.addr.to_string());
    until_up(&near);
    drop(near);
    assert_eq!(counted(&far), "2");
    let near = link(&far, "near", &far.addr.to_string());
    near.wait_for_log(&["no subflow: limit_reached"]);
    far.node.wait_for_log(&["session refused"]);
    assert!(!near.out().iter().any(|line| line.starts_with("link up")));
    assert_eq!((counted(&far).as_str(), far.read("far/authorized_keys")), ("2", authorized));
    assert_eq!(far.mode("far/authorized_keys.uses"), 0o600);
}

#[test]
fn further_subflows_and_resumes_are_not_counted() {
    let far = Inviter::start(&[]);
    let line = far.invite(&["--key-uses", "1"]);
    assert_eq!(far.join("near", &line, &[]).code, Some(0));
    let cutter = Cutter::new(far.addr);
    let near = link(&far, "near", &cutter.addr.to_string());
    until_up(&near);
    for round in 1..=3 {
        cutter.cut();
        until("the link has resumed", || near.count_log(&["link resumed"]) >= round);
    }
    assert_eq!(counted(&far), "1");
    drop(near);
    // With several subflows.
    let other = far.invite(&["--key-uses", "1"]);
    assert_eq!(far.join("other", &other, &[]).code, Some(0));
    let (config, known) = (far.scratch.file("other"), far.scratch.file("known"));
    let words = ["link", "--connect", &cutter.addr.to_string(), "--config-dir", &config, "--known-nodes", &known];
    let near = Seaprox::spawn(&[&words[..], &["--subflows", "3"]].concat(), |_| {});
    until_up(&near);
    until("all subflows are up", || {
        let status = near.status();
        status.pointer("/links/0/subflows").and_then(|it| it.as_array()).is_some_and(|all| all.len() == 3)
    });
    assert!(far.lines("far/authorized_keys.uses").iter().all(|line| line.ends_with(" 1")));
}

#[test]
fn a_session_that_cannot_be_counted_is_refused() {
    let scratch = Scratch::new();
    let far = Inviter::start_with(scratch, &[], |_| {});
    let line = far.invite(&["--key-uses", "100"]);
    assert_eq!(far.join("near", &line, &[]).code, Some(0));
    let config = far.scratch.file("far");
    // A node that can write no file, as on a full disk.
    let full = Seaprox::start_with(&["link", "--listen", "127.0.0.1:0", "--config-dir", &config], |command| {
        super::invitations::limit_files(command, 0)
    });
    let near = link(&far, "near", &full.addr(0).to_string());
    near.wait_for_log(&["no subflow: limit_reached"]);
    full.wait_for_log(&["cannot be counted"]);
    drop(near);
    // A malformed file admits nothing either.
    let file = far.scratch.write("far/authorized_keys.uses", "nonsense\n");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let near = link(&far, "near", &far.addr.to_string());
    near.wait_for_log(&["no subflow: limit_reached"]);
    far.node.wait_for_log(&["cannot be counted", "authorized_keys.uses:1"]);
    std::fs::remove_file(&file).unwrap();
    until_up(&near);
}
