//! POSIX access control lists as star and GNU tar write them (`SCHILY.acl.access`, `SCHILY.acl.default`: text, one entry after another,
//! by commas or newlines; acl(5), "long text form", with star's numeric id as a fourth field), as the extended attribute of the kernel
//! (linux/posix_acl_xattr.h; little-endian on every architecture).
//!
//! A name without a number cannot be told without the image's user database, which other layers may change: such a list is left out, as
//! umoci, docker and containerd leave out all of these records.

/// Entries of one list (the kernel itself sets no limit but an attribute's 64 KiB).
const ENTRIES_MAX: usize = 1024;
const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;

/// The attribute's value; `None` for an empty list, or one with a name that has no number.
pub fn attribute(text: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "access control list is no text".to_owned())?;
    let mut entries = Vec::new();
    for item in text.split([',', '\n']) {
        let item = item.split('#').next().unwrap_or_default().trim();
        if item.is_empty() {
            continue;
        }
        if entries.len() >= ENTRIES_MAX {
            return Err(format!("access control list of more than {ENTRIES_MAX} entries"));
        }
        let (tag, id, permissions) =
            entry(item).ok_or_else(|| format!("access control list entry {item:?} is not understood"))?;
        let Some(id) = id else { return Ok(None) };
        entries.push((tag, id, permissions));
    }
    if entries.is_empty() {
        return Ok(None);
    }
    entries.sort_unstable(); // the kernel wants them by tag
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    Ok(Some(value))
}

/// Tag, id where it can be told, permissions.
fn entry(item: &str) -> Option<(u16, Option<u32>, u16)> {
    let mut fields = item.split(':').map(str::trim);
    let kind = fields.next()?;
    let (qualifier, permissions) = match (fields.next()?, fields.next()) {
        (qualifier, Some(permissions)) => (qualifier, permissions),
        (permissions, None) if matches!(kind, "mask" | "m" | "other" | "o") => ("", permissions),
        _ => return None,
    };
    let number = fields.next();
    let tag = match (kind, qualifier.is_empty()) {
        ("user" | "u", true) => USER_OBJ,
        ("user" | "u", false) => USER,
        ("group" | "g", true) => GROUP_OBJ,
        ("group" | "g", false) => GROUP,
        ("mask" | "m", true) => MASK,
        ("other" | "o", true) => OTHER,
        _ => return None,
    };
    let id = match tag {
        USER | GROUP => number.unwrap_or(qualifier).parse().ok().filter(|id| *id != NO_ID),
        _ => Some(NO_ID),
    };
    let bit = |c: char| match c {
        'r' => Some(4),
        'w' => Some(2),
        'x' => Some(1),
        '-' => Some(0),
        _ => None,
    };
    let permissions = permissions.chars().try_fold(0u16, |bits, c| Some(bits | bit(c)?))?;
    Some((tag, id, permissions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_the_kernels_form_in_its_order() {
        let want: Vec<u8> = [
            &[2u8, 0, 0, 0][..],
            &[1, 0, 6, 0, 255, 255, 255, 255],
            &[2, 0, 5, 0, 0xe8, 3, 0, 0],
            &[4, 0, 4, 0, 255, 255, 255, 255],
            &[8, 0, 7, 0, 0x39, 0x30, 0, 0],
            &[16, 0, 7, 0, 255, 255, 255, 255],
            &[32, 0, 0, 0, 255, 255, 255, 255],
        ]
        .concat();
        for text in [
            "user::rw-\nuser:1000:r-x\ngroup::r--\ngroup:12345:rwx\nmask::rwx\nother::---\n",
            "other::---,mask::rwx,group:staff:rwx:12345,group::r--,user:lisa:r-x:1000,user::rw-",
            "u::rw,u:1000:rx,g::r,g:12345:rwx #effective:r-x\nm:rwx,o:-",
        ] {
            assert_eq!(attribute(text.as_bytes()).unwrap().unwrap(), want, "{text}");
        }
        assert_eq!(attribute(b"\n").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_told_is_left_out_and_what_is_none_refused() {
        for text in ["user:lisa:rwx", "user:4294967295:r", "u::rw-,user:-1:r"] {
            assert_eq!(attribute(text.as_bytes()), Ok(None), "{text}");
        }
        for text in ["user", "user:", "wolf::rwx", "user::rwz", "mask:5:rwx", "\u{fffd}"] {
            assert!(attribute(text.as_bytes()).is_err(), "{text}");
        }
        assert!(attribute(b"\xff").is_err());
        assert!(attribute("u::rwx,".repeat(1025).as_bytes()).unwrap_err().contains("1024"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[ugmo:rwx0-9,#\n-]{0,80}") {
            let _ = attribute(text.as_bytes());
        }
    }
}
