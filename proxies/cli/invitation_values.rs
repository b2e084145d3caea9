//! The getters of options about invitations.

use std::time::Duration;

use seaprox::Target;
use seaprox::auth::{INVITATION_ADDRESSES_MAX, INVITATION_TIME_MAX, Permissions};
use seaprox::units::format_duration;

use super::{Parsed, UsageError};
use crate::links::addresses;

/// An address of `--address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvitingAddress {
    /// This address.
    Of(Target),
    /// The addresses of the interfaces, with this port.
    Interfaces(u16),
}

impl Parsed {
    /// Returns the permissions of the other node.
    pub fn invited_permissions(&self) -> Result<Permissions, UsageError> {
        let mut options = Vec::new();
        for long in ["permit-open", "permit-end", "permit-listen", "permit-source", "name"] {
            for (name, text) in self.given(long) {
                // A quote or another option within the value would end it.
                let option = format!("{long}=\"{text}\"");
                let single = option.parse::<Permissions>().map_err(|wrong| self.wrong(&name, &text, wrong))?;
                if text.contains('"') || single.to_string().is_empty() {
                    return Err(self.wrong(&name, &text, "expected a value without quotes"));
                }
                options.push(option);
            }
        }
        if options.is_empty() {
            return Ok(Permissions::default());
        }
        options.join(",").parse().map_err(|wrong| self.error(format!("{wrong}")))
    }

    /// Returns the addresses of `--address`.
    pub fn inviting_addresses(&self) -> Result<Vec<InvitingAddress>, UsageError> {
        let address = |(name, text): (String, String)| {
            let expected = "expected HOST[:PORT], [IPV6][:PORT] or :PORT";
            if let Some(port) = text.strip_prefix(':') {
                let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
                let port = port.parse().ok().filter(|port| is_number && *port > 0);
                return port.map(InvitingAddress::Interfaces).ok_or_else(|| self.wrong(&name, &text, expected));
            }
            let target = addresses::peer(&text).map_err(|_| self.wrong(&name, &text, expected))?;
            target.proto().require_tcp().map_err(|error| self.wrong(&name, &text, error))?;
            match target {
                Target::Unix(_) => Err(self.wrong(&name, &text, expected)),
                target => Ok(InvitingAddress::Of(target)),
            }
        };
        let all = self.given("address").into_iter().map(address).collect::<Result<Vec<_>, _>>()?;
        if all.len() > INVITATION_ADDRESSES_MAX {
            return Err(self.error(format!("--address: expected at most {INVITATION_ADDRESSES_MAX} of them")));
        }
        Ok(all)
    }

    /// Returns the time for which an invitation may be used.
    pub fn invitation_time(&self) -> Result<Duration, UsageError> {
        let time = self.duration("expires")?;
        if time.is_zero() || time > INVITATION_TIME_MAX {
            let (given, most) = (format_duration(time), format_duration(INVITATION_TIME_MAX));
            return Err(self.error(format!("--expires {given}: expected a duration above 0 and at most {most}")));
        }
        // A part of a second would be cut off.
        Ok(time.max(Duration::from_secs(1)))
    }

    /// Returns the time for which the key of the other node is valid, if it ends.
    pub fn key_time(&self) -> Result<Option<Duration>, UsageError> {
        let time = self.duration("valid-for")?;
        Ok((!time.is_zero()).then(|| time.max(Duration::from_secs(1))))
    }

    /// Returns the number of sessions that the key of the other node may begin, if there is a limit.
    pub fn key_sessions(&self) -> Result<Option<u64>, UsageError> {
        self.number("key-uses").map(|uses| Some(uses).filter(|uses| *uses > 0))
    }
}
