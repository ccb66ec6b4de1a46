//! Every name an instance gives to something in the kernel, derived from its tag: so that several instances live side by
//! side in one network namespace, and that what one of them left behind can be found again without any file.

use std::fmt;
use std::path::Path;

use ring::digest;

use super::Error;

/// Four hex digits that tell one instance (one data folder) from the others of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag([u8; 4]);

impl Tag {
    /// The tag of the instance whose canonical data folder is `dir`.
    pub fn of(dir: &Path) -> Tag {
        use std::os::unix::ffi::OsStrExt;
        let mut digits = [0; 4];
        for (digit, out) in hex(dir.as_os_str().as_bytes()).bytes().zip(digits.iter_mut()) {
            *out = digit;
        }
        Tag(digits)
    }

    /// Reads four lower-case hex digits.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn parse(text: &str) -> Result<Tag, Error> {
        match <[u8; 4]>::try_from(text.as_bytes()) {
            Ok(digits) if digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => Ok(Tag(digits)),
            _ => Err(Error::Config(format!("instance tag {text:?} is not four lower-case hex digits"))),
        }
    }

    /// The link that holds the node's pod gateway and the cluster DNS address.
    pub fn bridge(self) -> String {
        format!("mote{self}")
    }

    /// What the host ends of all pods' veth pairs start with.
    pub fn veth_prefix(self) -> String {
        format!("mv{self}")
    }

    /// The host end of the veth pair of the sandbox `id`.
    pub fn veth(self, id: &str) -> String {
        let hash: String = hex(id.as_bytes()).chars().take(8).collect();
        format!("mv{self}{hash}")
    }

    /// The nf_tables table of the pod network.
    pub fn net_table(self) -> String {
        format!("mote-{self}-net")
    }

    /// The nf_tables table of the service proxy.
    pub fn proxy_table(self) -> String {
        format!("mote-{self}-proxy")
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or("????"))
    }
}

/// The first 16 hex digits of the SHA-256 of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().iter().take(8).fold(String::with_capacity(16), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interface names hold at most 15 bytes (IFNAMSIZ is 16 with the final zero).
    const LINK_NAME_MAX: usize = 15;

    #[test]
    fn names_fit_an_interface() {
        let tag = Tag::of(Path::new("/var/lib/mote"));
        assert!(Tag::parse(&tag.to_string()).unwrap() == tag);
        for name in [tag.bridge(), tag.veth("0a1b2c3d-1111-2222-3333-444455556666"), tag.veth("")] {
            assert!(name.len() <= LINK_NAME_MAX, "{name}");
        }
        assert!(tag.veth("a").starts_with(&tag.veth_prefix()));
        assert_ne!(tag.veth("a"), tag.veth("b"));
        assert_ne!(tag.to_string(), Tag::of(Path::new("/var/lib/mote2")).to_string());
        for bad in ["", "abc", "abcde", "ABCD", "zzzz", "ab d"] {
            assert!(Tag::parse(bad).is_err(), "{bad}");
        }
    }
}
