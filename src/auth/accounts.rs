//! The accounts of this system, for the question whether a group has only one user.
//!
//! Accounts are read from `/etc/passwd` and `/etc/group`. A group that is not listed there is not private.

use std::fs::File;
use std::io::Read;

/// The two files, as text.
pub(super) struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads both files. A file that cannot be read counts as empty.
    pub fn read() -> Accounts {
        Accounts { passwd: read("/etc/passwd"), group: read("/etc/group") }
    }

    /// Returns true if a group has members, and all of them are this user or root. A user is a member of the group in its
    /// `passwd` line and of all groups that list its name.
    pub fn is_private(&self, group: u32, user: u32) -> bool {
        let users = || self.passwd.lines().filter_map(User::parse);
        let mut members = users().filter(|it| it.group == group).map(|it| it.id).collect::<Vec<_>>();
        let mut is_known = false;
        for line in self.group.lines() {
            let mut fields = line.split(':').skip(2);
            if fields.next().and_then(|id| id.parse().ok()) != Some(group) {
                continue;
            }
            is_known = true;
            for name in fields.next().unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty()) {
                match users().find(|it| it.name == name) {
                    Some(member) => members.push(member.id),
                    // Another source of accounts, such as LDAP, defines this user.
                    None => return false,
                }
            }
        }
        is_known && !members.is_empty() && members.iter().all(|member| *member == user || *member == 0)
    }
}

/// One line of `passwd`.
struct User<'a> {
    name: &'a str,
    id: u32,
    group: u32,
}

impl User<'_> {
    fn parse(line: &str) -> Option<User<'_>> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let mut number = || fields.nth(1)?.parse().ok();
        let id = number()?;
        let group = fields.next()?.parse().ok()?;
        Some(User { name, id, group })
    }
}

fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes));
    // A truncated file could hide a member.
    if read.is_ok_and(|bytes| bytes as u64 <= BYTES_MAX) {
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        String::new()
    }
}

const BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_group_has_one_user() {
        let accounts = Accounts {
            passwd: "root:x:0:0::/root:/bin/sh\njoe:x:1000:1000::/:\nann:x:1001:1001::/:\nbob:x:1002:1003::/:\n\
                     two:x:1004:100::/:\nmore:x:1005:100::/:\nbroken\n"
                .to_owned(),
            group: "root:x:0:\njoe:x:1000:\nann:x:1001:joe\nstaff:x:50:\nbob:x:1003:bob,root\nusers:x:100:\n\
                    far:x:60:ldap\nown:x:61:joe\nbroken\n"
                .to_owned(),
        };
        for (group, user, is_private) in [
            (1000, 1000, true),
            (1000, 1001, false),
            (1001, 1001, false),
            (0, 0, true),
            (0, 1000, true),
            (50, 1000, false),
            (1003, 1002, true),
            (100, 1004, false),
            (60, 1000, false),
            (61, 1000, true),
            (999, 1000, false),
        ] {
            assert_eq!(accounts.is_private(group, user), is_private, "{group} {user}");
        }
    }
}
