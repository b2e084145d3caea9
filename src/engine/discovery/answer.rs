//! Answers of name servers, parsed: the addresses of a host, or the hosts of a service (RFC 1035, RFC 2782).
//!
//! The bytes come from the network. A record that cannot be used is left out; an answer that cannot be read is an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::RData;
use simple_dns::{Packet, RCODE};

use crate::sys::DnsError;
use crate::types::address::Name;

/// The addresses of an answer, and the least time to live of its records in seconds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub addresses: Vec<IpAddr>,
    pub ttl: u32,
}

/// The hosts of a service, and the least time to live of their records in seconds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Services {
    pub services: Vec<Service>,
    pub ttl: u32,
}

/// A host of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub priority: u16,
    pub weight: u16,
    pub host: Name,
    pub port: u16,
    /// The addresses that the answer has beside the record; the host must be looked up if there are none.
    pub addresses: Vec<IpAddr>,
}

impl Service {
    /// Makes a host without a priority, a weight or known addresses.
    pub fn new(host: Name, port: u16) -> Service {
        Service { priority: 0, weight: 0, host, port, addresses: Vec::new() }
    }
}

/// Returns the addresses of an answer to a question for A or AAAA records. The time to live counts the aliases, too.
///
/// # Errors
/// [`DnsError::NotFound`] if there is no address, [`DnsError::Failed`] if the answer cannot be read.
pub(super) fn addresses(answer: &[u8]) -> Result<Addresses, DnsError> {
    let packet = parse(answer)?;
    let addresses: Vec<IpAddr> = packet.answers.iter().filter_map(|record| address(&record.rdata)).collect();
    if addresses.is_empty() {
        return Err(DnsError::NotFound);
    }
    let of_use = packet.answers.iter().filter(|record| is_on_the_way(&record.rdata));
    Ok(Addresses { addresses, ttl: of_use.map(|record| record.ttl).min().unwrap_or(0) })
}

/// Returns the hosts of an answer to a question for SRV records. A host that is the root means that the service is not
/// offered (RFC 2782).
///
/// # Errors
/// [`DnsError::NotFound`] if there is no host, [`DnsError::Failed`] if the answer cannot be read.
pub(super) fn services(answer: &[u8]) -> Result<Services, DnsError> {
    let packet = parse(answer)?;
    let mut ttl = u32::MAX;
    let mut services = Vec::new();
    for record in &packet.answers {
        let RData::SRV(srv) = &record.rdata else {
            if matches!(record.rdata, RData::CNAME(_)) {
                ttl = ttl.min(record.ttl);
            }
            continue;
        };
        let text = srv.target.to_string();
        let Ok(host) = Name::new(&text) else { continue };
        if srv.port == 0 || services.len() >= SERVICES_MAX {
            continue;
        }
        ttl = ttl.min(record.ttl);
        let mut addresses = Vec::new();
        for extra in packet.additional_records.iter().filter(|extra| extra.name == srv.target) {
            if let Some(address) = address(&extra.rdata) {
                addresses.push(address);
                ttl = ttl.min(extra.ttl);
            }
        }
        services.push(Service { priority: srv.priority, weight: srv.weight, host, port: srv.port, addresses });
    }
    if services.is_empty() { Err(DnsError::NotFound) } else { Ok(Services { services, ttl }) }
}

fn parse(answer: &[u8]) -> Result<Packet<'_>, DnsError> {
    let packet = Packet::parse(answer).map_err(|_| DnsError::Failed)?;
    match packet.rcode() {
        RCODE::NoError => Ok(packet),
        RCODE::NameError => Err(DnsError::NotFound),
        _ => Err(DnsError::Failed),
    }
}

fn address(data: &RData<'_>) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(Ipv4Addr::from(a.address).into()),
        RData::AAAA(aaaa) => Some(Ipv6Addr::from(aaaa.address).into()),
        _ => None,
    }
}

/// Returns true for a record that leads to an address.
fn is_on_the_way(data: &RData<'_>) -> bool {
    matches!(data, RData::A(_) | RData::AAAA(_) | RData::CNAME(_))
}

/// Hosts of one service.
pub(super) const SERVICES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::rdata::{A, AAAA, CNAME, SRV};
    use simple_dns::{CLASS, Name as DnsName, PacketFlag, ResourceRecord};

    fn record<'a>(name: &'a str, ttl: u32, data: RData<'a>) -> ResourceRecord<'a> {
        ResourceRecord::new(DnsName::new(name).unwrap(), CLASS::IN, ttl, data)
    }

    fn message(answers: Vec<ResourceRecord<'_>>, additional: Vec<ResourceRecord<'_>>) -> Vec<u8> {
        let mut packet = Packet::new_reply(1);
        packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
        (packet.answers, packet.additional_records) = (answers, additional);
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn srv<'a>(priority: u16, weight: u16, port: u16, host: &'a str) -> RData<'a> {
        RData::SRV(SRV { priority, weight, port, target: DnsName::new(host).unwrap() })
    }

    #[test]
    fn the_time_to_live_of_addresses_is_the_least_of_all_records_on_the_way() {
        let alias = record("web.example", 7, RData::CNAME(CNAME(DnsName::new("a.example").unwrap())));
        let first = record("a.example", 60, RData::A(A { address: 0x0a00_0001 }));
        let second = record("a.example", 30, RData::AAAA(AAAA { address: 1 }));
        let found = addresses(&message(vec![alias, first, second], vec![])).unwrap();
        assert_eq!(found.ttl, 7);
        assert_eq!(found.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
    }

    #[test]
    fn the_hosts_of_a_service_have_the_addresses_that_came_along() {
        let answers = vec![
            record("_http._tcp.example", 20, srv(10, 60, 8080, "a.example")),
            record("_http._tcp.example", 20, srv(20, 0, 8081, "b.example")),
            record("_http._tcp.example", 20, srv(20, 0, 0, "c.example")),
        ];
        let additional = vec![record("a.example", 5, RData::A(A { address: 0x0a00_0001 }))];
        let found = services(&message(answers, additional)).unwrap();
        assert_eq!(found.ttl, 5);
        let shown: Vec<_> = found
            .services
            .iter()
            .map(|it| (it.priority, it.weight, it.host.as_str(), it.port, it.addresses.len()))
            .collect();
        assert_eq!(shown, [(10, 60, "a.example", 8080, 1), (20, 0, "b.example", 8081, 0)]);
    }

    #[test]
    fn a_service_whose_host_is_the_root_and_an_empty_answer_are_not_found() {
        let root = message(vec![record("_http._tcp.example", 20, srv(0, 0, 1, "."))], vec![]);
        assert_eq!(services(&root), Err(DnsError::NotFound));
        assert_eq!(services(&message(vec![], vec![])), Err(DnsError::NotFound));
        assert_eq!(addresses(&message(vec![], vec![])), Err(DnsError::NotFound));
        let mut refused = Packet::new_reply(1);
        *refused.rcode_mut() = RCODE::NameError;
        assert_eq!(addresses(&refused.build_bytes_vec().unwrap()), Err(DnsError::NotFound));
        *refused.rcode_mut() = RCODE::ServerFailure;
        assert_eq!(addresses(&refused.build_bytes_vec().unwrap()), Err(DnsError::Failed));
    }

    #[test]
    fn no_answer_that_is_cut_or_changed_does_harm() {
        let answers = vec![record("_http._tcp.example", 20, srv(10, 60, 8080, "a.example"))];
        let whole = message(answers, vec![record("a.example", 5, RData::A(A { address: 0x0a00_0001 }))]);
        for length in 0..whole.len() {
            _ = (services(&whole[..length]), addresses(&whole[..length]));
        }
        for place in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xc0, 0xff] {
                let mut changed = whole.clone();
                changed[place] = value;
                _ = (services(&changed), addresses(&changed));
            }
        }
    }
}
