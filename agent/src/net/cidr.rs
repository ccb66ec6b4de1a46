//! An IPv4 range in its canonical form, and the arithmetic the pod network does with it.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 prefix. Holding one proves that no host bit is set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cidr {
    base: u32,
    len: u8,
}

/// Why a text is no [`Cidr`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("parse range {text:?}: {why}")]
pub struct CidrError {
    text: String,
    why: &'static str,
}

impl Cidr {
    /// The range of `len` leading bits around `addr`; host bits are cleared. Lengths above 32 count as 32.
    pub fn new(addr: Ipv4Addr, len: u8) -> Cidr {
        let len = len.min(32);
        Cidr { base: u32::from(addr) & mask(len), len }
    }

    /// The first address of the range (its network address).
    pub fn base(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base)
    }

    /// The number of leading bits that are fixed, 0 to 32.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// The netmask as an address.
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(mask(self.len))
    }

    /// How many addresses the range holds.
    pub fn size(&self) -> u64 {
        1u64 << (32 - u32::from(self.len))
    }

    /// Whether `addr` lies in the range.
    pub fn contains(&self, addr: Ipv4Addr) -> bool {
        u32::from(addr) & mask(self.len) == self.base
    }

    /// Whether every address of `other` lies in this range.
    pub fn covers(&self, other: &Cidr) -> bool {
        self.len <= other.len && self.contains(other.base())
    }

    /// The address `n` places after the base, if it is in the range.
    pub fn nth(&self, n: u64) -> Option<Ipv4Addr> {
        if n >= self.size() {
            return None;
        }
        u32::try_from(n).ok().and_then(|n| self.base.checked_add(n)).map(Ipv4Addr::from)
    }
}

fn mask(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.len)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Reads `10.42.0.0/16`. Set host bits are an error, as in upstream's range flags.
    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let bad = |why| CidrError { text: text.chars().take(64).collect(), why };
        let (addr, len) = text.split_once('/').ok_or_else(|| bad("want ADDRESS/BITS"))?;
        let addr: Ipv4Addr = addr.parse().map_err(|_| bad("not an IPv4 address"))?;
        let digits = !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit());
        let len: u8 = len.parse().ok().filter(|n| digits && *n <= 32).ok_or_else(|| bad("want 0 to 32 bits"))?;
        let cidr = Cidr::new(addr, len);
        if cidr.base() != addr {
            return Err(bad("bits are set beyond the prefix"));
        }
        Ok(cidr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for text in ["10.42.0.0/16", "0.0.0.0/0", "10.1.2.3/32", "192.168.1.0/25"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        for text in ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0/8", "x/8", "10.0.0.0/"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn knows_its_addresses() {
        let c: Cidr = "10.42.1.0/24".parse().unwrap();
        assert_eq!(c.size(), 256);
        assert_eq!(c.nth(1), Some(Ipv4Addr::new(10, 42, 1, 1)));
        assert_eq!(c.nth(255), Some(Ipv4Addr::new(10, 42, 1, 255)));
        assert_eq!(c.nth(256), None);
        assert!(c.contains(Ipv4Addr::new(10, 42, 1, 200)));
        assert!(!c.contains(Ipv4Addr::new(10, 42, 2, 0)));
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert_eq!(all.size(), 1 << 32);
        assert!(all.covers(&c) && !c.covers(&all) && c.covers(&c));
        assert_eq!(all.nth(u64::MAX), None);
    }
}
