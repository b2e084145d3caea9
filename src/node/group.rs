//! Groups: links to several servers that stand for one another, under one id.
//!
//! A group has a list of servers, which may change at any time, and a link to each of them up to a number. Each of these
//! *members* is a link of its own: with its own key check, session, subflows, events and status. A listener, a connection
//! or a forward is routed over a group as over a link, and `balance` chooses the member for each new stream.
//!
//! ```text
//!                 dialed ---------------> member --- not listed, too many, or down for REPLACE_AFTER while another
//!   listed server <--- closed, or idle ---  ^  |     server may take its place
//!                                  \        |  v
//!                                   \--- leaving: no new stream, the group's remote forwards are given back; closed
//!                                        with its last stream, or after LEAVE_MAX; comes back if it is listed and up
//!                                        while there is room
//! ```
//! `group_plan` decides about all of this at each change of the list and of the state of a member, and when a member has
//! been down for too long.
//!
//! Remote forwards of a group are requested from the peer of each member. Bounds: [`GROUPS_MAX`] groups in a loop, and
//! [`MEMBERS_MAX`] members in a group.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::control::{Deadline, Loop};
use crate::engine::core::{Core, OneOff};
use crate::engine::discovery::Discovery;
use crate::types::address::Target;
use crate::types::id::{Id, Kind};
use crate::types::link_state::LinkState;
use crate::types::reason::{Failure, Reason};
use crate::types::verb_error::VerbError;

use super::config::{LinkConfig, Reverse};
use super::control::Node;
use super::group_plan::{self, Health, MemberState, Plan, ServerState};
use super::link_mut::LinkMut;
use super::waiting::Waiting;

/// The configuration of a group of links.
pub struct GroupConfig {
    /// The name, for the log and the status.
    pub name: String,
    /// Makes the configuration of the link to a server. Its peer is the address of the server.
    pub make: MakeMember,
}

/// Makes the configuration of the link to a server of a group.
pub type MakeMember = Box<dyn FnMut(&LinkServer) -> LinkConfig>;

/// A server that a group of links may dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkServer {
    /// The address to dial.
    pub addr: Target,
    /// The address by which people know the server, and under which its key is known: a name, if `addr` is an address of it.
    pub host: Target,
}

/// The status of a group.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// The id.
    pub id: Id,
    /// The name.
    pub name: String,
    /// The maximum of its links.
    pub links_max: usize,
    /// The number of servers in its list.
    pub servers: usize,
    /// True while more servers are being looked up.
    pub expects_more: bool,
    /// Its links, without those that leave.
    pub links: Vec<Id>,
    /// Connections that wait until any of the links is up.
    pub waiting: usize,
}

/// A group of links, borrowed; see [`Loop::group`].
pub struct GroupMut<'a> {
    core: &'a mut Core,
    node: &'a mut Node,
    id: Id,
}

/// The record of a group.
pub(crate) struct Group {
    name: Arc<str>,
    /// None while it runs.
    make: Option<MakeMember>,
    pub links_max: usize,
    /// The servers, in the order of preference, each once.
    servers: Vec<Listed>,
    pub members: Vec<Member>,
    /// Dests that wait until a member is up.
    pub waiting: Waiting,
    /// The remote forwards, which are requested from each peer.
    pub remotes: Vec<(Id, Reverse)>,
    /// The place of the member that comes first among equal ones.
    pub turn: usize,
    discovery: Option<Discovery>,
    /// More servers are being looked up.
    expects_more: bool,
    /// The time of the next look at the members, if one is armed.
    look_ms: Option<u64>,
}

/// A server in the list of a group.
struct Listed {
    server: LinkServer,
    state: ServerState,
}

/// A link of a group.
pub(crate) struct Member {
    pub link: Id,
    server: LinkServer,
    /// The member takes no new streams, and is closed when it has none.
    pub is_leaving: bool,
    /// The member gives way to any other server until it is up; see [`GroupMut::give_way`].
    has_failed: bool,
}

impl From<Target> for LinkServer {
    fn from(addr: Target) -> LinkServer {
        LinkServer { host: addr.clone(), addr }
    }
}

impl Loop<'_> {
    /// Opens a group of links without servers; see [`GroupMut::set_servers`]. The id of the group can stand where an id of
    /// a link routes a listener, a connection or a forward.
    ///
    /// # Errors
    /// [`VerbError::Full`] at the limit of groups, [`VerbError::Over`] if the loop is stopping.
    pub fn open_group(&mut self, config: GroupConfig) -> Result<Id, VerbError> {
        let (core, node) = self.parts::<Node>();
        if node.closing {
            return Err(VerbError::Over(Reason::Drained));
        }
        let name: Arc<str> = config.name.into();
        let group = Group {
            name: Arc::clone(&name),
            make: Some(config.make),
            links_max: 0,
            servers: Vec::new(),
            members: Vec::new(),
            waiting: Waiting::default(),
            remotes: Vec::new(),
            turn: 0,
            discovery: None,
            expects_more: false,
            look_ms: None,
        };
        let id = node.groups.insert(group).map_err(|_| VerbError::Full)?;
        core.link_groups.insert(id, name);
        Ok(id)
    }

    /// Returns a view of a group of links.
    ///
    /// # Errors
    /// [`VerbError::Stale`] or [`VerbError::Over`] if the group is closed, [`VerbError::Invalid`] if the id is not one of a
    /// group.
    pub fn group(&mut self, id: Id) -> Result<GroupMut<'_>, VerbError> {
        let (core, node) = self.parts::<Node>();
        match node.groups.get(id) {
            Some(_) => Ok(GroupMut { core, node, id }),
            None => Err(core.ended.missing(id, Kind::Group)),
        }
    }

    /// Returns the status of all groups.
    pub fn groups(&mut self) -> Vec<GroupStatus> {
        let (_, node) = self.parts::<Node>();
        node.groups.iter().map(|(id, group)| group.status(id)).collect()
    }
}

impl GroupMut<'_> {
    /// Returns the id of the group.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Returns its links, without those that leave.
    pub fn links(&self) -> Vec<Id> {
        self.node.groups.get(self.id).map_or_else(Vec::new, Group::links)
    }

    /// Returns the servers in its list.
    pub fn servers(&self) -> Vec<LinkServer> {
        let group = self.node.groups.get(self.id);
        group.map_or_else(Vec::new, |group| group.servers.iter().map(|listed| listed.server.clone()).collect())
    }

    /// Returns the status.
    ///
    /// # Errors
    /// [`VerbError::Stale`] if this view has closed the group.
    pub fn status(&self) -> Result<GroupStatus, VerbError> {
        self.node.groups.get(self.id).map(|group| group.status(self.id)).ok_or(VerbError::Stale)
    }

    /// Sets the servers, in the order of preference, and the maximum of the links. Links to servers that are still listed
    /// go on untouched, those that are up before those that are down. A link to another server takes no new stream, and is
    /// closed with its last stream; it comes back if its server is listed again while there is room.
    ///
    /// # Errors
    /// The error of [`Loop::connect_link`] for the first server that could not be dialed, [`VerbError::Already`] if another
    /// group or a caller has a link to it. All other changes are made, and the server is tried again later.
    pub fn set_servers(&mut self, servers: &[LinkServer], links_max: usize) -> Result<(), VerbError> {
        let group = self.node.groups.get_mut(self.id).ok_or(VerbError::Stale)?;
        let mut listed: Vec<Listed> = Vec::new();
        for server in servers {
            if listed.iter().all(|listed| listed.server != *server) {
                let known = group.servers.iter().find(|known| known.server == *server);
                let state = known.map(|known| known.state).unwrap_or_default();
                listed.push(Listed { server: server.clone(), state });
            }
        }
        group.servers = listed;
        group.links_max = links_max.clamp(1, MEMBERS_MAX);
        self.node.reconcile(self.core, self.id)
    }

    /// Says that a link is of no use as it is, such as one whose peer has another key. It gives way at once to a server that
    /// has no link and was not given up a moment ago. Without such a server it stays, and the link is dialed on.
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if the group has no such link, [`VerbError::Already`] if the link is up or leaves.
    pub fn give_way(&mut self, link: Id) -> Result<(), VerbError> {
        let group = self.node.groups.get_mut(self.id).ok_or(VerbError::Stale)?;
        let member = group.members.iter_mut().find(|member| member.link == link).ok_or(VerbError::Invalid)?;
        let is_up = self.node.links.get(link).is_some_and(|link| link.state_since.0 == LinkState::Up);
        if is_up || member.is_leaving {
            return Err(VerbError::Already);
        }
        member.has_failed = true;
        self.node.look_at_group(self.core, self.id, self.core.now_ms);
        Ok(())
    }

    /// Dials the servers again whose links were closed with [`LinkMut::close`], if there is room.
    ///
    /// # Errors
    /// As [`GroupMut::set_servers`].
    pub fn dial_closed(&mut self) -> Result<(), VerbError> {
        let group = self.node.groups.get_mut(self.id).ok_or(VerbError::Stale)?;
        group.servers.iter_mut().for_each(|listed| listed.state.is_closed = false);
        self.node.reconcile(self.core, self.id)
    }

    /// Keeps the discovery that calls [`GroupMut::set_servers`] for as long as the group is there. An earlier one ends.
    pub fn follow(&mut self, discovery: Option<Discovery>) {
        if let Some(group) = self.node.groups.get_mut(self.id) {
            group.discovery = discovery;
        }
    }

    /// Says whether more servers are being looked up, so that the list is not the whole one yet.
    pub fn expect_more(&mut self, expects_more: bool) {
        self.node.groups.get_mut(self.id).into_iter().for_each(|group| group.expects_more = expects_more);
    }

    /// Says that the links of another group are about to take the places of these: [`LinkMut::set_leaving`] for each link.
    pub fn set_leaving(&mut self, is_leaving: bool) {
        for link in self.links() {
            self.node.links.get_mut(link).into_iter().for_each(|link| link.leaving = is_leaving);
        }
    }

    /// Says that the links to other servers than these are about to leave the group, so that others can dial their servers.
    pub fn set_leaving_except(&mut self, servers: &[LinkServer]) {
        let Some(group) = self.node.groups.get(self.id) else { return };
        for member in group.members.iter().filter(|member| !servers.contains(&member.server)) {
            self.node.links.get_mut(member.link).into_iter().for_each(|link| link.leaving = true);
        }
    }

    /// Makes the forwards that this node listens for those of another group, and sends the clients of listeners that go over
    /// this group over the other one from now on; see [`LinkMut::hand_over`].
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if the id is not one of a group, [`VerbError::Stale`] if that group is closed.
    pub fn hand_over(&mut self, to: Id) -> Result<(), VerbError> {
        if to.kind() != Kind::Group {
            return Err(VerbError::Invalid);
        }
        if self.node.groups.get(to).is_none() {
            return Err(VerbError::Stale);
        }
        self.node.move_forwards(self.core, self.id, to);
        Ok(())
    }

    /// Takes over the keys and the policies of the links that this function makes; see [`LinkMut::renew`].
    ///
    /// # Errors
    /// The error of the first link that could not be renewed. The others are.
    pub fn renew(&mut self, mut make: MakeMember) -> Result<(), VerbError> {
        let group = self.node.groups.get(self.id).ok_or(VerbError::Stale)?;
        let members: Vec<_> = group.members.iter().map(|member| (member.link, member.server.clone())).collect();
        let mut result = Ok(());
        for (link, server) in members {
            let config = make(&server);
            result = result.and(LinkMut::new(self.core, self.node, link).renew(config));
        }
        let group = self.node.groups.get_mut(self.id).ok_or(VerbError::Stale)?;
        group.make = Some(make);
        result
    }

    /// Closes the group with its forwards and its links.
    ///
    /// # Errors
    /// [`VerbError::Already`] if this view has closed the group.
    pub fn close(&mut self) -> Result<(), VerbError> {
        self.node.close_group(self.core, self.id).ok_or(VerbError::Already)
    }
}

impl Group {
    /// Returns the links that take new streams.
    pub fn links(&self) -> Vec<Id> {
        self.members.iter().filter(|member| !member.is_leaving).map(|member| member.link).collect()
    }

    fn status(&self, id: Id) -> GroupStatus {
        GroupStatus {
            id,
            name: self.name.to_string(),
            links_max: self.links_max,
            servers: self.servers.len(),
            expects_more: self.expects_more,
            links: self.links(),
            waiting: self.waiting.dests.len(),
        }
    }

    /// Returns the place of a server in the list.
    fn place_of(&self, server: &LinkServer) -> Option<usize> {
        self.servers.iter().position(|listed| listed.server == *server)
    }
}

impl Node {
    /// Lets members go, brings them back and dials servers, as the plan of the group is now. Returns the error of the first
    /// server that could not be dialed.
    fn reconcile(&mut self, core: &mut Core, id: Id) -> Result<(), VerbError> {
        let Some(group) = self.groups.get_mut(id) else { return Err(VerbError::Stale) };
        // A link to a server that is not listed stands in nobody's way.
        for member in group.members.iter().filter(|member| group.place_of(&member.server).is_none()) {
            self.links.get_mut(member.link).into_iter().for_each(|link| link.leaving = true);
        }
        let (members, now_ms) = (self.members_of(id), core.now_ms);
        let Some(group) = self.groups.get_mut(id) else { return Err(VerbError::Stale) };
        let (links_max, links): (usize, Vec<Id>) =
            (group.links_max, group.members.iter().map(|member| member.link).collect());
        let servers: Vec<ServerState> = group.servers.iter().map(|listed| listed.state).collect();
        let mut result = Ok(());
        // The new members come first, so that the group is not without a link meanwhile.
        let plan = group_plan::plan(&servers, &members, links_max, now_ms, |place| {
            let dialed = self.dial_member(core, id, place);
            result = result.and(dialed);
            dialed.is_ok()
        });
        self.carry_out(core, id, &links, &plan);
        result
    }

    /// Carries out the plan of a group that had these links.
    fn carry_out(&mut self, core: &mut Core, id: Id, links: &[Id], plan: &Plan) {
        for link in plan.back.iter().filter_map(|place| links.get(*place)) {
            let group = self.groups.get_mut(id);
            let member = group.and_then(|group| group.members.iter_mut().find(|member| member.link == *link));
            member.into_iter().for_each(|member| member.is_leaving = false);
            self.come_back(core, id, *link);
        }
        plan.leave.iter().filter_map(|place| links.get(*place)).for_each(|link| self.leave(core, id, *link));
        let Some(group) = self.groups.get_mut(id) else { return };
        for place in &plan.given_up {
            group.servers.get_mut(*place).into_iter().for_each(|it| it.state.given_up_ms = Some(core.now_ms));
        }
        plan.next_ms.into_iter().for_each(|at_ms| self.look_at_group(core, id, at_ms));
    }

    /// Returns the states of the members of a group.
    fn members_of(&mut self, id: Id) -> Vec<MemberState> {
        let Some(group) = self.groups.get_mut(id) else { return Vec::new() };
        let mut states = Vec::new();
        for index in 0..group.members.len() {
            let server = group.place_of(&group.members[index].server);
            let member = &mut group.members[index];
            let record = self.links.get(member.link).filter(|link| !link.closing);
            let health = match record.map(|link| link.state_since) {
                None | Some((LinkState::Ended, _)) => Health::Ended,
                Some((LinkState::Up, _)) => {
                    member.has_failed = false;
                    Health::Up
                }
                Some(_) if member.has_failed => Health::Failed,
                Some((_, since_ms)) => Health::Down { since_ms },
            };
            states.push(MemberState { server, health, is_leaving: member.is_leaving });
        }
        states
    }

    /// Dials the server at a place of the list.
    fn dial_member(&mut self, core: &mut Core, id: Id, place: usize) -> Result<(), VerbError> {
        let Some(group) = self.groups.get_mut(id) else { return Err(VerbError::Stale) };
        let server = group.servers.get(place).map(|listed| listed.server.clone()).ok_or(VerbError::Stale)?;
        let Some(mut make) = group.make.take() else { return Err(VerbError::Already) };
        let config = make(&server);
        let Some(group) = self.groups.get_mut(id) else { return Err(VerbError::Stale) };
        group.make = Some(make);
        let dialed = self.connect_link(core, config)?;
        if !dialed.is_new {
            // Two owners would close it for each other.
            return Err(VerbError::Already);
        }
        let Some(group) = self.groups.get_mut(id) else { return Err(VerbError::Stale) };
        group.members.push(Member { link: dialed.id, server, is_leaving: false, has_failed: false });
        if let Some(link) = self.links.get_mut(dialed.id) {
            link.group = Some(id);
        }
        self.come_back(core, id, dialed.id);
        Ok(())
    }

    /// Requests the remote forwards of a group from the peer of a member that is new, or that stays after all.
    fn come_back(&mut self, core: &mut Core, id: Id, link: Id) {
        let remotes = self.groups.get(id).map(|group| group.remotes.clone()).unwrap_or_default();
        if let Some(link) = self.links.get_mut(link) {
            (link.leave_by_ms, link.leaving) = (None, false);
        }
        for (forward, reverse) in remotes {
            self.add_remote_at(link, forward, reverse);
        }
        self.request_remotes(core, link);
    }

    /// Lets a member go: it takes no new stream, and the forwards of the group are given back at its peer.
    fn leave(&mut self, core: &mut Core, id: Id, link: Id) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let Some(member) = group.members.iter_mut().find(|member| member.link == link) else { return };
        member.is_leaving = true;
        let forwards: Vec<Id> = group.remotes.iter().map(|(forward, _)| *forward).collect();
        forwards.into_iter().for_each(|forward| self.close_remote_at(core, link, forward, true));
        let by_ms = core.now_ms.saturating_add(LEAVE_MAX.as_millis() as u64);
        let Some(record) = self.links.get_mut(link) else { return };
        (record.leave_by_ms, record.leaving) = (Some(by_ms), true);
        core.one_offs.push(by_ms, OneOff::Control(Deadline::Member(link)));
        // Nothing waits for a link that leaves.
        self.gather_waiting(core, id);
        self.open_waiting_of(core, id);
        core.pools.sessions.touch(link);
    }

    /// Closes a member that leaves, once it has no stream or the time is over.
    pub(super) fn end_leaving(&mut self, core: &mut Core, link: Id) {
        let Some(by_ms) = self.links.get(link).filter(|link| !link.closing).and_then(|link| link.leave_by_ms) else {
            return;
        };
        let is_idle = core.pools.sessions.get(link).is_none_or(|link| link.streams.is_empty());
        if is_idle || by_ms <= core.now_ms {
            self.close_link(core, link);
        }
    }

    /// Arms a look at the members of a group.
    pub(super) fn look_at_group(&mut self, core: &mut Core, id: Id, at_ms: u64) {
        let Some(group) = self.groups.get_mut(id) else { return };
        if group.look_ms.is_none_or(|armed_ms| at_ms < armed_ms) {
            group.look_ms = Some(at_ms);
            core.one_offs.push(at_ms, OneOff::Control(Deadline::Group(id)));
        }
    }

    /// Looks at the members of a group, if it is time.
    pub(super) fn group_due(&mut self, core: &mut Core, id: Id) {
        let Some(group) = self.groups.get_mut(id) else { return };
        if group.look_ms.is_none_or(|at_ms| core.now_ms < at_ms) {
            return;
        }
        group.look_ms = None;
        // A server that cannot be dialed is tried again with the next look.
        let _ = self.reconcile(core, id);
    }

    /// Takes the server of a link that a caller closes out of use, until [`GroupMut::dial_closed`].
    pub(super) fn member_closed(&mut self, link: Id) {
        let Some(group) = self.links.get(link).and_then(|link| link.group) else { return };
        let Some(group) = self.groups.get_mut(group) else { return };
        let Some(member) = group.members.iter().find(|member| member.link == link) else { return };
        if let Some(place) = group.place_of(&member.server) {
            group.servers[place].state.is_closed = true;
        }
    }

    /// Takes a link that has ended out of its group. Another server may take its place.
    pub(super) fn member_ended(&mut self, core: &mut Core, group: Id, link: Id) {
        let Some(record) = self.groups.get_mut(group) else { return };
        record.members.retain(|member| member.link != link);
        self.note_group_forwards(core, group);
        self.look_at_group(core, group, core.now_ms);
    }

    fn close_group(&mut self, core: &mut Core, id: Id) -> Option<()> {
        self.gather_waiting(core, id);
        self.close_forwards(core, id, Reason::Drained);
        let group = self.groups.remove(id)?;
        core.link_groups.remove(&id);
        core.ended.note(id, Reason::Drained);
        let failure = Failure::new(Reason::LinkLost, "the link was closed");
        group.waiting.dests.into_iter().for_each(|dest| core.queues.dialled.push_back((dest, Err(failure.clone()))));
        group.members.iter().for_each(|member| self.close_link(core, member.link));
        Some(())
    }

    /// Closes all groups of a loop that stops.
    pub(super) fn close_groups(&mut self, core: &mut Core) {
        self.groups.ids().into_iter().for_each(|id| _ = self.close_group(core, id));
    }
}

/// Maximum of the groups of one loop.
pub(super) const GROUPS_MAX: usize = 256;
/// Maximum of the links of one group.
pub const MEMBERS_MAX: usize = 64;
/// Longest time for which a link that leaves its group keeps its streams.
const LEAVE_MAX: Duration = Duration::from_secs(600);
