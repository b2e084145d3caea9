//! The keys of the records, which the library makes in its handshake and at each KeyUpdate.

use ring::aead;
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, Error, SupportedCipherSuite};

use super::cipher::Cipher;
use super::group::Group;
use super::machine::Machine;
use super::records::{Aead, Fault, KeySchedule};

/// The rest of the library's connection behind the handshake: its key schedule, and what was negotiated.
pub(super) struct Keys {
    schedule: Schedule,
    group: Option<Group>,
}

enum Schedule {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// The first keys of both directions.
pub(super) struct FirstKeys {
    pub sealing: Aead,
    pub opening: Aead,
    pub keys: Keys,
}

impl Keys {
    /// Takes the keys out of a connection whose handshake is done and whose last message was taken.
    pub fn of(machine: Machine) -> Result<FirstKeys, Error> {
        let group = machine.common().negotiated_key_exchange_group().and_then(|group| Group::of(group.name()));
        let (secrets, schedule) = match machine {
            Machine::Client(connection) => {
                let (secrets, rest) = connection.dangerous_into_kernel_connection()?;
                (secrets, Schedule::Client(rest))
            }
            Machine::Server(connection) => {
                let (secrets, rest) = connection.dangerous_into_kernel_connection()?;
                (secrets, Schedule::Server(rest))
            }
        };
        let unusable = |_| Error::General("a key of another cipher".into());
        let (sealing, opening) = (key(secrets.tx).map_err(unusable)?, key(secrets.rx).map_err(unusable)?);
        Ok(FirstKeys { sealing, opening, keys: Keys { schedule, group } })
    }

    pub fn suite(&self) -> SupportedCipherSuite {
        match &self.schedule {
            Schedule::Client(rest) => rest.negotiated_cipher_suite(),
            Schedule::Server(rest) => rest.negotiated_cipher_suite(),
        }
    }

    pub fn cipher(&self) -> Option<Cipher> {
        Cipher::of(self.suite().suite())
    }

    pub const fn group(&self) -> Option<Group> {
        self.group
    }

    /// Returns the number of records that the cipher permits with one key.
    pub fn records_max(&self) -> u64 {
        self.suite().tls13().map_or(0, |suite| suite.common.confidentiality_limit)
    }

    pub const fn is_client(&self) -> bool {
        matches!(self.schedule, Schedule::Client(_))
    }
}

impl KeySchedule for Keys {
    fn next_opening(&mut self) -> Result<Aead, Fault> {
        next(match &mut self.schedule {
            Schedule::Client(rest) => rest.update_rx_secret(),
            Schedule::Server(rest) => rest.update_rx_secret(),
        })
    }

    fn next_sealing(&mut self) -> Result<Aead, Fault> {
        next(match &mut self.schedule {
            Schedule::Client(rest) => rest.update_tx_secret(),
            Schedule::Server(rest) => rest.update_tx_secret(),
        })
    }
}

fn next(secrets: Result<(u64, ConnectionTrafficSecrets), Error>) -> Result<Aead, Fault> {
    secrets.map_err(|_| Fault::Internal("no next key")).and_then(key)
}

fn key((number, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Aead, Fault> {
    let (algorithm, key, iv) = match &secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
        _ => return Err(Fault::Internal("a key of another cipher")),
    };
    Aead::new(algorithm, key.as_ref(), iv.as_ref(), number)
}
