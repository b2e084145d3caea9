//! Types that every layer uses: ids, addresses, reasons, rules and units. This folder imports nothing else of the crate.

pub(crate) mod address;
pub(crate) mod companions;
pub(crate) mod descriptor_error;
pub(crate) mod dropped;
pub(crate) mod end;
pub(crate) mod forward_state;
pub(crate) mod human;
pub(crate) mod id;
pub(crate) mod label;
pub(crate) mod link_state;
pub(crate) mod peer;
pub(crate) mod peer_network;
pub(crate) mod proto;
pub(crate) mod reason;
pub mod rules;
pub mod units;
pub(crate) mod unix_file;
pub(crate) mod upstream;
pub(crate) mod utc;
pub(crate) mod verb_error;
