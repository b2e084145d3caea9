//! The proxies of datagrams that can be measured, and their configurations.

use crate::configurations as conf;
use crate::link_configurations as link;
use crate::link_peers::pair;
use crate::peers::{Launch, Peer, Place, plain};
use crate::route::Handshake;

type Made = Result<Launch, String>;

const fn of(family: &'static str, peer: Peer) -> Peer {
    Peer { family, handshake: Handshake::Datagrams, ..peer }
}

pub static PEERS: [Peer; 6] = [
    of("seaprox", plain("seaprox-udp", "-V", seaprox)),
    of("nginx", plain("nginx-udp", "-v", nginx)),
    of("socat", plain("socat-udp", "-V", socat)),
    Peer { handshake: Handshake::Associate, ..of("seaprox", plain("seaprox-socks-udp", "-V", conf::seaprox_socks)) },
    Peer { handshake: Handshake::Associate, ..of("danted", plain("danted-udp", "-v", conf::danted)) },
    pair(of("seaprox", plain("seaprox-link-udp", "-V", seaprox_near)), "seaprox", link::seaprox_far),
];

fn seaprox(place: &Place) -> Made {
    let (listen, target) = (place.listen[0].to_string(), place.target.to_string());
    let args = ["static", "--udp", "--listen", &listen, "--to", &target, "-q", "--max-connections", "100"];
    let limits = ["--udp-flows", "12000", "--udp-flows-per-source", "0"];
    let args = args.into_iter().chain(limits).map(String::from).collect();
    Ok(Launch { args, file: None, small: place.listen[0], bulk: place.listen[0] })
}

fn seaprox_near(place: &Place) -> Made {
    let mut launch = link::seaprox_near(place)?;
    for word in &mut launch.args {
        if *word == format!("{}:{}", place.listen[0], place.target) {
            word.insert_str(0, "udp:");
        }
    }
    Ok(launch)
}

/// Runs nginx as one process without a master, with a session for each client: two of its connections.
fn nginx(place: &Place) -> Made {
    let launch = conf::nginx(&Place { connections_max: 2 * place.connections_max, ..place.clone() })?;
    let listen = format!("listen {} backlog=4096;", place.listen[0]);
    let file = launch.file.map(|file| {
        file.replace(&listen, &format!("listen {} udp;", place.listen[0])).replace("        tcp_nodelay on;\n", "")
    });
    Ok(Launch { file, ..launch })
}

fn socat(place: &Place) -> Made {
    let (listen, target) = (place.listen[0], place.target);
    let from = format!("UDP4-LISTEN:{},bind={},reuseaddr,fork", listen.port(), listen.ip());
    Ok(Launch { args: vec![from, format!("UDP4:{target}")], file: None, small: listen, bulk: listen })
}
