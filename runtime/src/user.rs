//! `USER` of an image or `runAsUser` of a pod -> numbers, by the image's own /etc/passwd and /etc/group.

use crate::container::User;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
}

/// A user with the home folder its passwd line names (for `HOME`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    pub user: User,
    /// `/` when the user has no passwd line.
    pub home: String,
    /// Login name, empty when there is no passwd line.
    pub name: String,
}

/// Most bytes read of either file.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// `spec` is `""` (root), `user`, `uid`, `user:group`, `uid:gid`, … as in the OCI image specification (config.User). `passwd` and `group` are the files'
/// contents (lossy text; empty if the image has none). Without `:group`, the primary group of the passwd line counts, and all
/// groups that list the user become supplementary; with it, only the given group (as Docker and containerd do).
pub fn resolve(spec: &str, passwd: &str, group: &str) -> Result<Resolved, UserError> {
    let (user, wanted_group) = match spec.split_once(':') {
        Some((u, g)) => (u, Some(g).filter(|g| !g.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let mut found = Resolved { home: "/".into(), ..Resolved::default() };
    match entries(passwd).find(|e| e.first() == Some(&user) || (number.is_some() && numeric(e, 2) == number)) {
        Some(entry) => {
            found.user.uid = numeric(&entry, 2).unwrap_or_default();
            found.user.gid = numeric(&entry, 3).unwrap_or_default();
            found.name = entry.first().map(|n| (*n).to_owned()).unwrap_or_default();
            if let Some(home) = entry.get(5).filter(|h| !h.is_empty()) {
                found.home = (*home).to_owned();
            }
        }
        None => found.user.uid = number.ok_or_else(|| UserError::NoUser(user.to_owned()))?,
    }
    match wanted_group {
        Some(g) => {
            let number = g.parse::<u32>().ok();
            let entry = entries(group).find(|e| e.first() == Some(&g));
            found.user.gid =
                entry.and_then(|e| numeric(&e, 2)).or(number).ok_or_else(|| UserError::NoGroup(g.to_owned()))?;
        }
        None if !found.name.is_empty() => {
            for entry in entries(group) {
                let listed = entry.get(3).is_some_and(|m| m.split(',').any(|name| name == found.name));
                match numeric(&entry, 2) {
                    Some(gid) if listed && gid != found.user.gid && !found.user.groups.contains(&gid) => {
                        found.user.groups.push(gid)
                    }
                    _ => {}
                }
            }
        }
        None => {}
    }
    Ok(found)
}

fn entries(file: &str) -> impl Iterator<Item = Vec<&str>> {
    file.lines().filter(|l| !l.starts_with('#')).map(|l| l.trim_end().split(':').collect())
}

fn numeric(entry: &[&str], at: usize) -> Option<u32> {
    entry.get(at).and_then(|v| v.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:w:/var/www:/bin/false\n#c:x:1:1::/:\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlog:x:4:web,root\nadm:x:5:webx\nssl:x:6:a,web\n";

    #[test]
    fn names_and_numbers() {
        let table: [(&str, u32, u32, &[u32], &str); 8] = [
            ("", 0, 0, &[4], "/root"),
            ("root", 0, 0, &[4], "/root"),
            ("web", 33, 34, &[4, 6], "/var/www"),
            ("33", 33, 34, &[4, 6], "/var/www"),
            ("web:log", 33, 4, &[], "/var/www"),
            ("web:77", 33, 77, &[], "/var/www"),
            ("1000", 1000, 0, &[], "/"),
            ("1000:1001", 1000, 1001, &[], "/"),
        ];
        for (spec, uid, gid, groups, home) in table {
            let found = resolve(spec, PASSWD, GROUP).unwrap();
            assert_eq!(
                (found.user.uid, found.user.gid, &found.user.groups[..], found.home.as_str()),
                (uid, gid, groups, home),
                "{spec}"
            );
        }
    }

    #[test]
    fn unknown_names_are_errors() {
        assert_eq!(resolve("nobody", PASSWD, GROUP), Err(UserError::NoUser("nobody".into())));
        assert_eq!(resolve("web:nogroup", PASSWD, GROUP), Err(UserError::NoGroup("nogroup".into())));
        assert_eq!(resolve("c", PASSWD, GROUP), Err(UserError::NoUser("c".into())));
        assert!(resolve("-1", PASSWD, GROUP).is_err());
    }
}
