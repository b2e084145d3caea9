//! The failures of the links of a group. A link that cannot be used is reported, and the other servers of the group serve; the
//! process ends only when the links to all of them have failed.

use std::collections::BTreeSet;

use crate::process::exit::Failed;

/// The links of one group that have failed since they were up.
#[derive(Debug, Default)]
pub struct GroupFailures {
    failed: BTreeSet<String>,
}

impl GroupFailures {
    /// Notes that a link has failed. `all` are the names of the links to all servers of the group, also of those that are not
    /// dialed now; none if not all servers are known yet. A link to a server that the group has no longer ends nothing. Returns
    /// the failure if the process must end with it, and otherwise logs it, once until the link is up.
    pub fn note(&mut self, link: &str, all: Option<&[String]>, failed: Failed) -> Option<Failed> {
        let is_new = self.failed.insert(link.to_owned());
        if let Some(all) = all {
            self.failed.retain(|name| name == link || all.contains(name));
            // A service that is gone has no servers, and its links leave.
            let is_listed = all.iter().any(|name| name == link);
            if is_listed && all.iter().all(|name| self.failed.contains(name)) {
                return Some(failed);
            }
        }
        if is_new {
            log::error!(target: "seaprox::link", link = link, error = failed.text; "this link cannot be used, and the others of its group serve");
        }
        None
    }

    /// Notes that a link is up.
    pub fn recovered(&mut self, link: &str) {
        self.failed.remove(link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::exit::Exit;

    #[test]
    fn only_the_failure_of_the_last_link_ends_the_process() {
        let links = ["a", "b"].map(str::to_owned);
        let failed = || Failed::new(Exit::NoPermission, "wrong key".to_owned());
        let mut group = GroupFailures::default();
        assert!(group.note("a", Some(&links), failed()).is_none());
        assert!(group.note("a", Some(&links), failed()).is_none());
        group.recovered("a");
        assert!(group.note("b", Some(&links), failed()).is_none(), "the first one has recovered");
        assert!(group.note("a", None, failed()).is_none(), "there may be others");
        assert!(group.note("a", Some(&links), failed()).is_some_and(|failed| failed.exit == Exit::NoPermission));
        let mut alone = GroupFailures::default();
        assert!(alone.note("a", Some(&links[..1]), failed()).is_some());
    }

    #[test]
    fn a_link_to_a_server_that_is_no_longer_listed_ends_nothing() {
        let links = ["a", "b"].map(str::to_owned);
        let failed = || Failed::new(Exit::NoPermission, "wrong key".to_owned());
        let mut group = GroupFailures::default();
        assert!(group.note("a", Some(&[]), failed()).is_none(), "the service is gone");
        assert!(group.note("b", Some(&links[1..]), failed()).is_some());
        assert!(group.note("a", Some(&links[1..]), failed()).is_none(), "the others decide about themselves");
    }
}
