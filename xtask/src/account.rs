//! Who the servers run as: PostgreSQL refuses to be root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// An unprivileged user of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Numbers of `nobody` on Linux, for a machine without /etc/passwd.
const NOBODY: Account = Account {
    uid: 65534,
    gid: 65534,
};

impl Account {
    /// The account for servers if we are root, `None` if they run as ourselves.
    pub(crate) fn for_servers() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Some(
            ["postgres", "nobody"]
                .iter()
                .find_map(|name| find(&passwd, name))
                .unwrap_or(NOBODY),
        )
    }

    /// Lets a command run under this account. Its groups are only the account's own: std drops root's others.
    pub(crate) fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Whether this account may walk through every folder down to `path`.
    pub(crate) fn can_enter(self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else {
            return false;
        };
        path.ancestors().all(|folder| {
            fs::metadata(folder).is_ok_and(|meta| {
                let bit = match () {
                    () if meta.uid() == self.uid => 0o100,
                    () if meta.gid() == self.gid => 0o010,
                    () => 0o001,
                };
                meta.mode() & bit != 0
            })
        })
    }
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let account = Account {
            uid: fields.nth(1)?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        };
        (account.uid != 0).then_some(account)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_their_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\nnobody2:x:7:7::/:\nbroken\nnobody:x:65534:65533::/:\npostgres:x:0:0::/:\n";
        let check = |name, expected| assert_eq!(find(passwd, name), expected, "{name}");
        check(
            "nobody",
            Some(Account {
                uid: 65534,
                gid: 65533,
            }),
        );
        check("nobod", None);
        check("broken", None);
        check("postgres", None); // an alias of root is of no use
    }
}
