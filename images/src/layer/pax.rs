//! PAX extended header records: `LENGTH KEY=VALUE\n` (pax(1), "pax Extended Header"). Values may hold any byte, newlines too, so
//! records are cut by their length, never at a newline. What is kept is what an image layer may say.

use crate::limits::{SPARSE_SEGMENTS_MAX, XATTRS_PER_ENTRY_MAX};

/// A moment, seconds and nanoseconds since 1970; nanoseconds count forward also before it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Moment {
    pub secs: i64,
    pub nanos: u32,
}

/// A name and its value, of an extended attribute.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// What extension headers said about the next entry.
#[derive(Default, Debug)]
pub struct Extensions {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Moment>,
    pub xattrs: Vec<Xattr>,
    pub sparse: Sparse,
}

/// The `GNU.sparse.*` records (GNU tar manual, "PAX Format, Versions 0.0, 0.1, 1.0").
#[derive(Default, Debug)]
pub struct Sparse {
    pub major: u64,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    /// Offsets and lengths in turn (0.0 and 0.1).
    pub numbers: Vec<u64>,
}

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

impl Extensions {
    /// Takes the records of one `x` header.
    pub fn read(&mut self, mut data: &[u8]) -> Result<(), String> {
        while !data.is_empty() {
            let (key, value, rest) = record(data).ok_or("malformed PAX record")?;
            data = rest;
            self.take(key, value)?;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match key {
            b"path" => self.path = text(key, value)?,
            b"linkpath" => self.link = text(key, value)?,
            b"size" => self.size = number(key, value)?,
            b"uid" => self.uid = number(key, value)?,
            b"gid" => self.gid = number(key, value)?,
            b"mtime" => {
                self.mtime = if value.is_empty() { None } else { Some(moment(value).ok_or("malformed PAX mtime")?) }
            }
            b"GNU.sparse.major" => self.sparse.major = number(key, value)?.unwrap_or(0),
            b"GNU.sparse.name" => self.sparse.name = text(key, value)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = number(key, value)?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                // offset and numbytes must alternate, offset first
                if self.sparse.numbers.len() % 2 != usize::from(key == b"GNU.sparse.numbytes") {
                    return Err("GNU.sparse.offset and numbytes do not alternate".to_owned());
                }
                self.sparse.push(number(key, value)?.unwrap_or(0))?;
            }
            b"GNU.sparse.map" => {
                self.sparse.numbers.clear();
                for part in value.split(|b| *b == b',').filter(|part| !part.is_empty()) {
                    self.sparse.push(number(key, part)?.unwrap_or(0))?;
                }
            }
            b"SCHILY.acl.access" => self.acl(b"system.posix_acl_access", value)?,
            b"SCHILY.acl.default" => self.acl(b"system.posix_acl_default", value)?,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                    if name.is_empty() || name.contains(&0) {
                        return Err("malformed extended attribute name".to_owned());
                    }
                    self.xattr(name, value.to_owned())?;
                }
            }
        }
        Ok(())
    }

    /// A later value of the same name counts.
    fn xattr(&mut self, name: &[u8], value: Vec<u8>) -> Result<(), String> {
        self.xattrs.retain(|(known, _)| known != name);
        if self.xattrs.len() >= XATTRS_PER_ENTRY_MAX {
            return Err(format!("more than {XATTRS_PER_ENTRY_MAX} extended attributes"));
        }
        self.xattrs.push((name.to_owned(), value));
        Ok(())
    }

    /// The kernel's own form in an extended attribute is the exact one; text counts only without it.
    fn acl(&mut self, name: &[u8], text: &[u8]) -> Result<(), String> {
        match super::acl::attribute(text)? {
            Some(value) if !self.xattrs.iter().any(|(known, _)| known == name) => self.xattr(name, value),
            _ => Ok(()),
        }
    }
}

impl Sparse {
    /// One more number of the map.
    pub fn push(&mut self, number: u64) -> Result<(), String> {
        if self.numbers.len() >= 2 * SPARSE_SEGMENTS_MAX {
            return Err(format!("more than {SPARSE_SEGMENTS_MAX} sparse segments"));
        }
        self.numbers.push(number);
        Ok(())
    }
}

/// Key, value and what follows the first record.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(11).position(|b| *b == b' ')?;
    let length = decimal(data.get(..space)?)?;
    let length = usize::try_from(length).ok()?;
    let body = data.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    let (key, value) = (body.get(..equals)?, body.get(equals + 1..)?);
    (!key.is_empty()).then_some((key, value, data.get(length..)?))
}

/// Digits only, no sign, no overflow.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for digit in text {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    Some(value)
}

/// An empty value takes an earlier one back.
fn number(key: &[u8], value: &[u8]) -> Result<Option<u64>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    decimal(value).map(Some).ok_or_else(|| format!("malformed PAX {}", String::from_utf8_lossy(key)))
}

fn text(key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, String> {
    if value.contains(&0) {
        return Err(format!("PAX {} contains a NUL byte", String::from_utf8_lossy(key)));
    }
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

/// `[-]SECONDS[.FRACTION]`, more than nine digits of fraction are cut.
fn moment(value: &[u8]) -> Option<Moment> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |b| *b == b'.');
    let secs = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanos = 0u32;
    if let Some(fraction) = parts.next() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for place in 0..9 {
            nanos = nanos * 10 + fraction.get(place).map_or(0, |digit| u32::from(digit - b'0'));
        }
    }
    Some(match (negative, nanos) {
        (false, _) => Moment { secs, nanos },
        (true, 0) => Moment { secs: secs.checked_neg()?, nanos: 0 },
        (true, _) => Moment { secs: secs.checked_neg()?.checked_sub(1)?, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rec(key: &str, value: &[u8]) -> Vec<u8> {
        let body = 3 + key.len() + value.len();
        let mut length = body + 1;
        while length != body + length.to_string().len() {
            length = body + length.to_string().len();
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn values_may_hold_newlines_and_nuls_where_that_is_legal() {
        let mut ext = Extensions::default();
        let data = [
            rec("SCHILY.xattr.user.x", b"a\nb=\0c"),
            rec("path", b"long\nname"),
            rec("mtime", b"12.5"),
            rec("comment", b"x"),
            rec("uid", b"3000000000"),
        ];
        ext.read(&data.concat()).unwrap();
        assert_eq!(ext.xattrs, [(b"user.x".to_vec(), b"a\nb=\0c".to_vec())]);
        assert_eq!(ext.path.unwrap(), b"long\nname");
        assert_eq!(ext.mtime, Some(Moment { secs: 12, nanos: 500_000_000 }));
        assert_eq!(ext.uid, Some(3_000_000_000));
    }

    #[test]
    fn times_before_1970_and_fine_fractions() {
        for (text, secs, nanos) in [
            ("-1", -1, 0),
            ("-1.25", -2, 750_000_000),
            ("0.123456789999", 0, 123_456_789),
            ("5.", 5, 0),
            ("-0.5", -1, 500_000_000),
        ] {
            assert_eq!(moment(text.as_bytes()), Some(Moment { secs, nanos }), "{text}");
        }
        for text in ["", "-", "1.x", "x", "--1", "99999999999999999999", "1 "] {
            assert_eq!(moment(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn broken_records_are_refused() {
        for data in [
            &b"5 a=b"[..],
            b"6 a=b",
            b"9 a=b\n",
            b"x a=b\n",
            b" a=b\n",
            b"5 a=\n\n",
            b"6 =ab\n",
            b"00000000000000000006 a=b\n",
            b"4 a\n",
            b"3 \n",
            b"0 \n",
        ] {
            assert!(Extensions::default().read(data).is_err(), "{:?}", String::from_utf8_lossy(data));
        }
        for (key, value) in [
            ("path", &b"a\0b"[..]),
            ("size", b"-1"),
            ("size", b"99999999999999999999"),
            ("GNU.sparse.numbytes", b"1"),
            ("SCHILY.xattr.", b"1"),
        ] {
            assert!(Extensions::default().read(&rec(key, value)).is_err(), "{key}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Extensions::default().read(&data);
        }
    }
}
