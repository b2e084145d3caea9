//! Discovery: the candidates of a list of upstreams, as its owner is told of them.

use crate::loop_kit;

use std::cell::RefCell;
use std::rc::Rc;

use loop_kit::*;
use seaprox::{Candidates, Family, Upstream};

fn upstreams(texts: &[&str]) -> Vec<Upstream> {
    texts.iter().map(|text| Upstream::parse(text).unwrap()).collect()
}

#[test]
fn a_name_is_looked_up_and_its_owner_is_told_once_until_the_handle_is_dropped() {
    let mut rig = Rig::with_workers(config());
    let told: Rc<RefCell<Vec<Candidates>>> = Rc::default();
    let list = upstreams(&["192.0.2.1:1", "localhost:2", "unix:/s"]);
    let first = Candidates::of(&list);
    assert!(!first.is_complete && first.list.iter().all(|it| it.address.is_none()) && first.list.len() == 3);
    let heard = Rc::clone(&told);
    let discovery =
        rig.core().discover(list.clone(), Family::OnlyIpv4, move |_, now| heard.borrow_mut().push(now.clone()));
    rig.until("the owner was told", |_| !told.borrow().is_empty());
    let now = told.borrow()[0].clone();
    assert!(now.is_complete);
    let addresses: Vec<_> = now.list.iter().map(|it| (it.upstream, it.address.map(|it| it.to_string()))).collect();
    assert_eq!(addresses, [(0, None), (1, Some("127.0.0.1:2".to_owned())), (2, None)]);
    assert_eq!(now.list.iter().map(|it| Upstream::from(it.target.clone())).collect::<Vec<_>>(), list);
    assert_eq!(rig.core().stats().discoveries, 1);
    drop(discovery);
}

#[test]
fn a_list_without_names_needs_no_lookup() {
    let mut rig = Rig::new(config());
    let list = upstreams(&["192.0.2.1:1", "[fe80::1%lo]:2", "unix:/s"]);
    assert!(Candidates::of(&list).is_complete);
    let _discovery = rig.core().discover(list, Family::default(), |_, _| panic!("nothing changes"));
    rig.turn();
    assert_eq!(rig.core().stats().discoveries, 0);
}
