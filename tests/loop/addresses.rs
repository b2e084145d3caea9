//! Addresses, rules and permissions with their protocol, as text and back.

use seaprox::auth::Permissions;
use seaprox::rules::{Action, Decision, Rule, Rules};
use seaprox::{Bind, Endpoint, Proto, Target, split_port_range};

const HOSTS: [&str; 7] = ["10.0.0.1", "[::1]", "dns.example", "[fe80::1%eth0]", "localhost", "udp.", "unix."];

#[test]
fn every_printed_address_is_parsed_to_the_same_address_with_its_protocol() {
    for (proto, prefix) in [(Proto::Tcp, ""), (Proto::Udp, "udp:")] {
        assert_eq!(Proto::split(&format!("{prefix}a:1")), (proto, "a:1"));
        let hosts = HOSTS.map(|host| format!("{prefix}{host}:53"));
        for text in &hosts {
            let (target, bind) = (Target::parse(text).unwrap(), Bind::parse(text).unwrap());
            assert_eq!((target.proto(), bind.proto()), (proto, proto), "{text}");
            assert_eq!((&target.to_string(), &bind.to_string()), (text, text));
            assert_eq!(target.clone().with_proto(Proto::Udp).proto(), Proto::Udp);
            let host = text.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(":53")).unwrap();
            assert_eq!(Bind::from_host(host, 53).unwrap().with_proto(proto), bind);
        }
        for text in [format!("{prefix}53"), format!("{prefix}:53")] {
            let bind = Bind::parse(&text).unwrap();
            assert_eq!((bind.proto(), bind.with_port(53).to_string()), (proto, text));
        }
        let range = split_port_range(&format!("{prefix}a:5-9")).unwrap();
        assert_eq!(range, (format!("{prefix}a:5"), 5));
        let (endpoint, addr) = (Endpoint::Ip(proto, "10.0.0.1:53".parse().unwrap()), "10.0.0.1:53".parse().ok());
        assert_eq!((endpoint.proto(), endpoint.ip()), (proto, addr));
        assert_eq!(endpoint.to_string(), format!("ipv4[{prefix}10.0.0.1:53]"));
    }
}

#[test]
fn every_printed_rule_and_permission_is_parsed_to_the_same_one_with_its_protocol() {
    for (proto, prefix) in [(Proto::Tcp, ""), (Proto::Udp, "udp:")] {
        for place in ["*", "*:53", "10.0.0.0/8:50-60", "[fd00::]/8:53", "*.example", ".example:53", "udp.:53", "udp."] {
            let text = format!("to:{prefix}{place}");
            let rule = Rule::parse(Action::Allow, &text).unwrap();
            assert_eq!((rule.proto(), rule.to_string()), (proto, text.clone()));
            assert_eq!(Rule::parse(Action::Allow, &text), Ok(rule.clone()));
            let other = Target::parse("[fd00::1]:53").unwrap();
            let other = other.with_proto(if proto == Proto::Tcp { Proto::Udp } else { Proto::Tcp });
            assert_eq!(Rules::new(vec![rule]).decide(None, &other), Decision::Deny, "{text} is about one protocol");
        }
        let listens = ["8080", "*:8000-8999", "*", "localhost:*", "[::1]:80", "gate.example:0", "udp.:53"];
        for field in listens.map(|place| format!("permit-open=\"{prefix}*:53\",permit-listen=\"{prefix}{place}\"")) {
            let permissions: Permissions = field.parse().unwrap();
            assert_eq!(permissions.to_string(), field);
            let dns = Target::parse("dns.example:53").unwrap();
            assert_eq!(permissions.may_open(&dns.clone().with_proto(proto)), Decision::Allow);
            let all = [Proto::Tcp, Proto::Udp].map(|proto| permissions.may_open(&dns.clone().with_proto(proto)));
            assert!(all.contains(&Decision::Deny), "{field} is about one protocol");
        }
    }
}
