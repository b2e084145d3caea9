//! `seaprox invite`: makes an invitation and prints its line. A node that runs reads the file of invitations when it changes,
//! so the command works beside it, and before it is started.
//!
//! stdout gets the line alone; everything else goes to stderr. The line is the only place where the secret is.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use seaprox::auth::{
    ConfigDirectory, INVITATION_ADDRESSES_MAX, Invitation, Invitations, KeysError, NodeKey, PendingInvitation,
    SecretError,
};
use seaprox::units::format_duration;
use seaprox::{Target, UtcTime, system};

use super::exit::{Exit, Failed};
use super::logging;
use super::output::print_secret;
use crate::cli::{InvitingAddress, Parsed};
use crate::links::addresses::PORT;

/// Makes an invitation, adds it to the file of invitations, and prints it.
///
/// # Errors
/// Fails if an option is wrong, a file cannot be used, or no address of this host is known.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let modes = parsed.modes()?;
    let permissions = parsed.invited_permissions()?;
    let (time, uses) = (parsed.invitation_time()?, parsed.number("uses")?);
    let (valid_for, sessions) = (parsed.key_time()?, parsed.key_sessions()?);
    let addresses = addresses(parsed)?;
    let directory = parsed.config_directory();
    refuse_secret(parsed, &directory)?;
    let unusable = |error: KeysError| Failed::unusable("seaprox invite", &error);
    let key_file = parsed.path("key").unwrap_or_else(|| directory.key());
    let (key, _) = NodeKey::load_or_create(&key_file, modes).map_err(unusable)?;
    let no_random = |error: SecretError| Failed::new(Exit::Failure, format!("seaprox invite: {error}"));
    let invitation = Invitation::new(addresses, &key.public()).map_err(no_random)?;
    let expires = UtcTime::now().after(time);
    let pending = PendingInvitation {
        id: invitation.id(),
        key: invitation.proof_key(),
        expires,
        uses: u32::try_from(uses).unwrap_or(u32::MAX),
        used: 0,
        valid_for,
        permissions: permissions.limited(None, sessions),
    };
    let file = directory.invitations();
    Invitations::add(&file, modes, pending).map_err(unusable)?;
    print_secret(&invitation.to_line())?;
    if parsed.verbosity() >= 0 {
        let nodes = if uses == 1 { "one node".to_owned() } else { format!("{uses} nodes") };
        logging::say(&format!(
            "seaprox invite: whoever has this line can join until {expires} ({}, {nodes}). On the other node type \
             `seaprox join`, and paste it there.\nIts number is {}; to withdraw it, remove its line from {}",
            format_duration(time),
            invitation.id(),
            file.display()
        ));
    }
    Ok(())
}

/// Refuses to invite to a node with a shared secret: a secret is named, or the directory has a secret and no key.
fn refuse_secret(parsed: &Parsed, directory: &ConfigDirectory) -> Result<(), Failed> {
    let is_alone = || {
        let has_key = parsed.path("key").is_some() || directory.key().exists();
        Some(directory.secret()).filter(|secret| !has_key && secret.exists())
    };
    let Some(secret) = parsed.path("secret").or_else(is_alone) else { return Ok(()) };
    let text = format!(
        "seaprox invite: a node with a shared secret takes no invitations; copy {} to the other node, or give this node a key \
         with `seaprox keygen` and start it without --secret",
        secret.display()
    );
    Err(Failed::new(Exit::Config, text))
}

/// Returns the addresses at which the other node dials this one.
fn addresses(parsed: &Parsed) -> Result<Vec<Target>, Failed> {
    let mut given = parsed.inviting_addresses()?;
    if given.is_empty() {
        given.push(InvitingAddress::Interfaces(PORT));
    }
    let mut all = Vec::new();
    for address in given {
        match address {
            InvitingAddress::Of(target) => all.push(target),
            InvitingAddress::Interfaces(port) => {
                let found = of_interfaces(parsed)?.into_iter().map(|ip| Target::from(SocketAddr::new(ip, port)));
                all.extend(found);
            }
        }
    }
    all.truncate(INVITATION_ADDRESSES_MAX);
    Ok(all)
}

/// Returns the public addresses of the interfaces, or the private ones if there are no others, which is said.
fn of_interfaces(parsed: &Parsed) -> Result<Vec<IpAddr>, Failed> {
    let failed = |why: String| {
        let text = format!("seaprox invite: {why}; name an address with --address HOST[:PORT]");
        Failed::new(Exit::Unavailable, text)
    };
    let found = system::interface_addresses().map_err(|error| failed(error.to_string()))?;
    let (public, private) = sorted(found);
    if !public.is_empty() {
        return Ok(public);
    }
    if private.is_empty() {
        return Err(failed("no interface of this host has an address that another host can reach".to_owned()));
    }
    if parsed.verbosity() >= 0 {
        logging::say(
            "seaprox invite: this host has private addresses only, so the other node must be in the same network; \
             --address HOST[:PORT] names another one, such as that of a router that forwards the port",
        );
    }
    Ok(private)
}

/// Returns the public addresses and the private ones, each once and in the order of the interfaces, IPv4 first.
fn sorted(found: Vec<IpAddr>) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let mut seen = BTreeSet::new();
    let mut all: Vec<IpAddr> = found.into_iter().filter(|ip| is_global(*ip) && seen.insert(*ip)).collect();
    all.sort_by_key(IpAddr::is_ipv6);
    all.into_iter().partition(|ip| !is_private(*ip))
}

/// Returns true if another host may reach an address: it belongs neither to this host alone nor to one link.
fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast()),
    }
}

/// Returns true if an address is routed within one network only: RFC 1918, RFC 6598 and RFC 4193.
fn is_private(ip: IpAddr) -> bool {
    let is_shared = |ip: Ipv4Addr| ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
    let is_unique_local = |ip: Ipv6Addr| ip.octets()[0] & 0xfe == 0xfc;
    match ip {
        IpAddr::V4(ip) => ip.is_private() || is_shared(ip),
        IpAddr::V6(ip) => is_unique_local(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_told_from_private_ones_and_from_those_of_one_link() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let found = ips(&[
            "2001:db8::1",
            "fe80::1",
            "192.168.1.5",
            "203.0.113.5",
            "169.254.1.1",
            "127.0.0.1",
            "::1",
            "fd00::5",
            "100.64.0.1",
            "100.128.0.1",
            "203.0.113.5",
        ]);
        let (public, private) = sorted(found);
        assert_eq!(public, ips(&["203.0.113.5", "100.128.0.1", "2001:db8::1"]));
        assert_eq!(private, ips(&["192.168.1.5", "100.64.0.1", "fd00::5"]));
    }
}
