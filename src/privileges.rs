//! Giving up root once the ports are bound.
//!
//! A thread's identity is its own in Linux, and threads inherit it: this is called while the
//! process has one thread, so that all later ones are the named user too.

use std::fs;
use std::io;

use rustix::process::{Gid, Resource, Rlimit, Uid, getegid, geteuid, setrlimit};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid, set_thread_uid};

/// Why the process cannot become another user. All of it is the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// There is no such user or group.
    #[error("{setting} {name:?} is neither in {file} nor a number; create it or change {setting}")]
    Unknown {
        /// The setting.
        setting: &'static str,
        /// Its value.
        name: String,
        /// Where names are looked up.
        file: &'static str,
    },
    /// The process is not root.
    #[error("cannot become another user: {0}; start as root, or leave `user` and `group` empty")]
    Refused(io::Error),
    /// There are threads that would stay root.
    #[error("{0} threads run already, and would stay root; please report this")]
    Threads(usize),
    /// The change did not hold.
    #[error("the process could become root again; please report this")]
    Reversible,
}

/// Becomes `user` and `group`, by name or number; an empty one is left as it is. Without `group`
/// it is the user's own. Locked memory stays as unlimited as it is for root.
///
/// # Errors
/// The user or group does not exist, or the process may not change. It must not serve then.
pub fn drop_to(user: &str, group: &str) -> Result<(), PrivilegesError> {
    if user.is_empty() && group.is_empty() {
        return Ok(());
    }
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(PrivilegesError::Threads(threads));
    }
    let users = fs::read_to_string(PASSWD).unwrap_or_default();
    let groups = fs::read_to_string(GROUP).unwrap_or_default();
    let account = match user {
        "" => None,
        name => Some(Account::find(&users, name).ok_or_else(|| PrivilegesError::Unknown {
            setting: "user",
            name: name.into(),
            file: PASSWD,
        })?),
    };
    let gid = match (group, &account) {
        ("", account) => account.as_ref().and_then(|account| account.gid),
        (name, _) => Some(group_id(&groups, name).ok_or_else(|| PrivilegesError::Unknown {
            setting: "group",
            name: name.into(),
            file: GROUP,
        })?),
    };
    let is_already = account.as_ref().is_none_or(|account| account.uid == geteuid().as_raw())
        && gid.is_none_or(|gid| gid == getegid().as_raw());
    if is_already && !geteuid().is_root() {
        return Ok(());
    }
    if geteuid().is_root() {
        // Registered memory is charged to the user, whose limit is a few MiB on most machines.
        let unlimited = Rlimit { current: None, maximum: None };
        let _ = setrlimit(Resource::Memlock, unlimited);
    }
    let refused = |errno: rustix::io::Errno| PrivilegesError::Refused(errno.into());
    if let Some(gid) = gid {
        let gid = Gid::from_raw(gid);
        let more = account.as_ref().map(|account| supplementary(&groups, &account.name));
        let mut all: Vec<Gid> = more.unwrap_or_default().into_iter().map(Gid::from_raw).collect();
        all.push(gid);
        set_thread_groups(&all).map_err(refused)?;
        set_thread_res_gid(gid, gid, gid).map_err(refused)?;
    }
    if let Some(account) = account {
        let uid = Uid::from_raw(account.uid);
        set_thread_res_uid(uid, uid, uid).map_err(refused)?;
        if !uid.is_root() && set_thread_uid(Uid::ROOT).is_ok() {
            return Err(PrivilegesError::Reversible);
        }
    }
    Ok(())
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

#[derive(Debug, PartialEq, Eq)]
struct Account {
    name: String,
    uid: u32,
    /// `None` for a number without an account.
    gid: Option<u32>,
}

impl Account {
    fn find(passwd: &str, wanted: &str) -> Option<Account> {
        let number = wanted.parse::<u32>().ok();
        let listed = passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, ..] = fields[..] else { return None };
            let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
            let found = name == wanted || Some(uid) == number;
            found.then(|| Account { name: name.into(), uid, gid: Some(gid) })
        });
        listed.or(number.map(|uid| Account { name: wanted.into(), uid, gid: None }))
    }
}

fn group_id(groups: &str, wanted: &str) -> Option<u32> {
    let listed = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        (name == wanted).then_some(gid)
    });
    listed.or_else(|| wanted.parse().ok())
}

/// The groups that name the user as a member.
fn supplementary(groups: &str, user: &str) -> Vec<u32> {
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members, ..] = fields[..] else { return None };
        members.split(',').any(|member| member == user).then(|| gid.parse().ok())?
    };
    groups.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nmedia:x:990:980::/:/bin/false\nbroken\n";
    const GROUPS: &str = "root:x:0:\nmedia:x:980:\nvideo:x:44:other,media\naudio:x:29:other\n";

    #[test]
    fn names_and_numbers_are_looked_up() {
        let media = Account { name: "media".into(), uid: 990, gid: Some(980) };
        assert_eq!(Account::find(USERS, "media"), Some(media));
        assert_eq!(Account::find(USERS, "990").unwrap().name, "media");
        assert_eq!(Account::find(USERS, "5000").unwrap().gid, None);
        assert_eq!(Account::find(USERS, "nobody"), None);
        assert_eq!((group_id(GROUPS, "video"), group_id(GROUPS, "77")), (Some(44), Some(77)));
        assert_eq!(group_id(GROUPS, "none"), None);
        assert_eq!(supplementary(GROUPS, "media"), [44]);
    }

    #[test]
    fn nothing_is_asked_for_and_nothing_happens() {
        drop_to("", "").unwrap();
        // Tests run in threads, where the change would not hold for all.
        assert!(matches!(drop_to("no-such-user", ""), Err(PrivilegesError::Threads(_))));
    }
}
