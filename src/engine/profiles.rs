//! Profiles: the settings that a connection keeps from the listener that accepted it, whatever becomes of the listener.
//!
//! A connection holds the index of its profile, and listeners with equal settings share one. A profile lives as long as a
//! listener or a connection uses it. The profile with the settings of the loop is used by connections that no listener
//! accepted, such as the streams of peers.

use std::ops::Index;
use std::rc::Rc;
use std::time::Duration;

use crate::engine::core::Core;
use crate::engine::limits::{Config, Family, Timeouts};
use crate::relay::connection::Connection;
use crate::relay::dial::Egress;
use crate::relay::timer::{Durations, TimerLists};
use crate::types::id::Id;
use crate::types::verb_error::VerbError;

/// The settings of one profile.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub timeouts: Timeouts,
    pub family: Family,
    pub nodelay: bool,
    pub tcp_keepalive: Duration,
    /// The way out of this host for dests; none if the system chooses it.
    pub egress: Option<Rc<Egress>>,
}

/// Settings that are in use, with their timer lists.
pub(crate) struct Profile {
    pub settings: Settings,
    pub durations: Durations,
    users: u32,
}

/// The profiles of one loop.
pub(crate) struct Profiles {
    all: Vec<Profile>,
    /// The profile with the settings of the loop.
    of_loop: u16,
}

impl Profiles {
    /// Creates the profiles of a loop, with the profile of its configuration.
    pub fn new(config: &Config, timers: &mut TimerLists) -> Profiles {
        let mut profiles = Profiles { all: Vec::new(), of_loop: 0 };
        let first = profiles.enter(Settings::of(config), timers);
        debug_assert_eq!(first, Some(profiles.of_loop), "the lists are empty");
        profiles
    }

    /// Returns the profile with the settings of the loop.
    pub fn of_loop(&self) -> u16 {
        self.of_loop
    }

    /// Returns the profile with these settings, with one more user. Returns none if there are too many profiles.
    pub fn enter(&mut self, settings: Settings, timers: &mut TimerLists) -> Option<u16> {
        if let Some(index) = self.all.iter().position(|profile| profile.users > 0 && profile.settings == settings) {
            self.all[index].users += 1;
            return Some(index as u16);
        }
        let index = self.all.iter().position(|profile| profile.users == 0).unwrap_or(self.all.len());
        if index == PROFILES_MAX {
            return None;
        }
        let durations = timers.add(settings.timeouts.of_classes())?;
        let profile = Profile { settings, durations, users: 1 };
        match self.all.get_mut(index) {
            Some(free) => *free = profile,
            None => self.all.push(profile),
        }
        Some(index as u16)
    }

    /// Counts one more user of a profile that is in use.
    pub fn keep(&mut self, index: u16) {
        self.all[usize::from(index)].users += 1;
    }

    /// Counts one user less. The profile and its timer lists are free after the last one.
    pub fn leave(&mut self, index: u16, timers: &mut TimerLists) {
        let profile = &mut self.all[usize::from(index)];
        profile.users -= 1;
        if profile.users == 0 {
            profile.settings.egress = None;
            timers.remove(profile.durations);
        }
    }
}

impl Index<u16> for Profiles {
    type Output = Profile;

    fn index(&self, index: u16) -> &Profile {
        &self.all[usize::from(index)]
    }
}

impl Profile {
    /// Returns true if TCP keepalive is enabled only after a delay, so that short connections save two system calls. With
    /// an idle timer, which needs the connection's place in the lists, it is enabled at once.
    pub fn delays_keepalive(&self) -> bool {
        self.settings.timeouts.idle.is_zero() && !self.settings.tcp_keepalive.is_zero()
    }
}

impl Settings {
    /// Returns the settings of a loop.
    pub fn of(config: &Config) -> Settings {
        let Config { timeouts, family, nodelay, tcp_keepalive, .. } = config.clone();
        Settings { timeouts, family, nodelay, tcp_keepalive, egress: None }
    }
}

impl Core {
    /// Returns the settings of a connection.
    pub(crate) fn settings_of(&self, connection: &Connection) -> &Settings {
        &self.profiles[connection.profile].settings
    }

    /// Returns the settings of the connection that a side belongs to, or those of the loop.
    pub(crate) fn settings_of_side(&self, side: Id) -> &Settings {
        let connection = self.owner(side).and_then(|(connection, _)| self.connections.get(connection));
        &self.profiles[connection.map_or(self.profiles.of_loop, |connection| connection.profile)].settings
    }

    /// Gives connections that no listener accepts from now on, such as the streams of peers, other settings, and listeners
    /// that are opened from now on other defaults: the timers of [`Timeouts`] that a listener has, the families and the
    /// socket options of `config`. Present listeners and connections keep their settings.
    ///
    /// # Errors
    /// [`VerbError::Full`] at the limit of different settings; then nothing is changed.
    pub fn set_defaults(&mut self, config: &Config) -> Result<(), VerbError> {
        let of_loop = &self.config.timeouts;
        let timeouts = Timeouts {
            happy_eyeballs: of_loop.happy_eyeballs,
            name_cache: of_loop.name_cache,
            keepalive_delay: of_loop.keepalive_delay,
            descriptors_retry: of_loop.descriptors_retry,
            ..config.timeouts.clone()
        };
        let config = Config { timeouts, limits: self.config.limits.clone(), ..config.clone() };
        let profile = self.profiles.enter(Settings::of(&config), &mut self.timers).ok_or(VerbError::Full)?;
        let left = std::mem::replace(&mut self.profiles.of_loop, profile);
        self.profiles.leave(left, &mut self.timers);
        self.config = config;
        Ok(())
    }
}

/// Profiles of one loop.
const PROFILES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_settings_share_a_profile_that_lives_until_its_last_user_leaves() {
        let config = Config::default();
        let mut timers = TimerLists::new(4);
        let mut profiles = Profiles::new(&config, &mut timers);
        assert_eq!(profiles.enter(Settings::of(&config), &mut timers), Some(profiles.of_loop()));
        let hasty = || Settings { nodelay: false, ..Settings::of(&config) };
        assert_eq!([hasty(), hasty()].map(|settings| profiles.enter(settings, &mut timers)), [Some(1); 2]);
        profiles.keep(1);
        (0..2).for_each(|_| profiles.leave(1, &mut timers));
        let other = Settings { family: Family::OnlyIpv4, ..hasty() };
        assert_eq!(profiles.enter(other.clone(), &mut timers), Some(2), "a connection still uses the first one");
        profiles.leave(1, &mut timers);
        assert_eq!(profiles.enter(hasty(), &mut timers), Some(1));
        assert!(!profiles[1].settings.nodelay && profiles[2].settings == other);
    }

    #[test]
    fn the_number_of_profiles_is_bounded() {
        let (config, mut timers) = (Config::default(), TimerLists::new(4));
        let mut profiles = Profiles::new(&config, &mut timers);
        let of_ms = |ms| Settings { tcp_keepalive: Duration::from_millis(ms), ..Settings::of(&config) };
        assert!((1..PROFILES_MAX as u64).all(|ms| profiles.enter(of_ms(ms), &mut timers).is_some()));
        assert_eq!(profiles.enter(of_ms(0), &mut timers), None);
        profiles.leave(77, &mut timers);
        assert_eq!(profiles.enter(of_ms(0), &mut timers), Some(77));
    }
}
