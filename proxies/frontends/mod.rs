//! The front ends: each speaks with a client until its target is known, then lets the loop relay the bytes.
//!
//! [`SPECS`] is the registry. A front end is one file or folder with a handler and a [`FrontEndSpec`]: its name, its default
//! address, its own options and its constructor. The command line, the help and the process are made from these. All front
//! ends ask [`access::AccessPolicy`] before they connect a client.

pub mod access;
mod auth_penalties;
pub mod http;
pub mod proxy_protocol;
pub mod redirect;
pub mod socks;
mod spec;
pub mod r#static;
pub mod users;

use seaprox::config::{FrontEndOption, FrontEnds};

pub use spec::FrontEndSpec;

/// The registry: all front ends, in the order of the help.
pub const SPECS: &[FrontEndSpec] = &[r#static::SPEC, socks::SPEC, http::SPEC, redirect::SPEC];

/// A front end of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontEndKind(usize);

/// The registry of front ends, for the validation of a configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registry;

impl FrontEndKind {
    /// All front ends, in the order of the help.
    pub const ALL: [FrontEndKind; SPECS.len()] = {
        let mut all = [FrontEndKind(0); SPECS.len()];
        let mut index = 0;
        while index < all.len() {
            all[index] = FrontEndKind(index);
            index += 1;
        }
        all
    };

    /// Returns the front end with this name.
    pub fn find(name: &str) -> Option<FrontEndKind> {
        FrontEndKind::ALL.into_iter().find(|kind| kind.spec().name == name)
    }

    /// Returns the properties of this front end.
    pub const fn spec(self) -> &'static FrontEndSpec {
        &SPECS[self.0]
    }

    /// Returns the place of the front end in the registry.
    pub const fn index(self) -> usize {
        self.0
    }
}

impl FrontEnds for Registry {
    fn names(&self) -> Vec<&'static str> {
        SPECS.iter().map(|spec| spec.name).collect()
    }

    fn options(&self, name: &str) -> Option<&'static [FrontEndOption]> {
        FrontEndKind::find(name).map(|kind| kind.spec().options)
    }

    fn carries_datagrams(&self, name: &str) -> bool {
        FrontEndKind::find(name).is_some_and(|kind| kind.spec().make_datagrams.is_some())
    }
}
