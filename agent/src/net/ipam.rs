//! Which pod has which address of the node's range. Pure: the kernel's links are the memory, this is only their index.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::Cidr;

/// The longest sandbox id: its alias must fit the kernel's 255 bytes.
pub(crate) const ID_LEN_MAX: usize = 200;
const ALIAS_START: &str = "mote-pod";

/// The taken addresses of a node.
pub(crate) struct Pool {
    range: Cidr,
    of: BTreeMap<String, Ipv4Addr>,
    taken: BTreeSet<Ipv4Addr>,
    /// Where the last search ended: a freed address rests as long as possible before it gets a new owner.
    last: u64,
}

impl Pool {
    /// An empty pool. The network address, the gateway (first) and the broadcast address are never given away.
    pub(crate) fn new(range: Cidr) -> Pool {
        Pool { range, of: BTreeMap::new(), taken: BTreeSet::new(), last: 1 }
    }

    /// Notes what a link's alias said. Addresses outside the range (the configuration changed) are noted but never given again.
    pub(crate) fn note(&mut self, id: &str, address: Ipv4Addr) {
        self.taken.insert(address);
        if let Some(old) = self.of.insert(id.to_owned(), address).filter(|old| *old != address) {
            self.taken.remove(&old);
        }
    }

    /// The address of `id`: the one it has, else the next free one. `None` when all are taken.
    pub(crate) fn take(&mut self, id: &str) -> Option<Ipv4Addr> {
        if let Some(address) = self.of.get(id) {
            return Some(*address);
        }
        let end = self.range.size().saturating_sub(1);
        let order = (self.last.saturating_add(1)..end).chain(2..self.last.saturating_add(1).min(end));
        // Bounded: among taken + 1 candidates one is free, if any is.
        let found = order
            .take(self.taken.len().saturating_add(1))
            .find_map(|n| self.range.nth(n).filter(|a| !self.taken.contains(a)).map(|a| (n, a)));
        let (n, address) = found?;
        self.last = n;
        self.note(id, address);
        Some(address)
    }

    /// Frees the address of `id`, if it has one.
    pub(crate) fn free(&mut self, id: &str) {
        if let Some(address) = self.of.remove(id) {
            self.taken.remove(&address);
        }
    }
}

/// What the host end of a pod's veth pair says about it, for us and for who looks at `ip link`.
pub(crate) fn alias(id: &str, address: Ipv4Addr) -> String {
    format!("{ALIAS_START} {id} {address}")
}

/// The sandbox and address an alias names; `None` if it is not of our making.
pub(crate) fn parse_alias(alias: &str) -> Option<(&str, Ipv4Addr)> {
    let (id, address) = alias.strip_prefix(ALIAS_START)?.strip_prefix(' ')?.rsplit_once(' ')?;
    Some((id, address.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(range: &str) -> Pool {
        Pool::new(range.parse().unwrap())
    }

    fn ip(text: &str) -> Option<Ipv4Addr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn gives_each_its_own_and_the_same_again() {
        let mut p = pool("10.0.0.0/29");
        assert_eq!(p.take("a"), ip("10.0.0.2"));
        assert_eq!(p.take("b"), ip("10.0.0.3"));
        assert_eq!(p.take("a"), ip("10.0.0.2"));
        for (id, want) in [("c", "10.0.0.4"), ("d", "10.0.0.5"), ("e", "10.0.0.6")] {
            assert_eq!(p.take(id), ip(want));
        }
        assert_eq!(p.take("f"), None, "broadcast, gateway and network addresses stay");
        p.free("c");
        p.free("never was");
        assert_eq!(p.take("f"), ip("10.0.0.4"));
    }

    #[test]
    fn a_freed_address_rests() {
        let mut p = pool("10.0.0.0/28");
        p.take("a");
        p.free("a");
        assert_eq!(p.take("b"), ip("10.0.0.3"));
        p.free("b");
        for n in 4..15 {
            p.take("x");
            assert_eq!(p.take("x"), ip(&format!("10.0.0.{n}")));
            p.free("x");
        }
        assert_eq!(p.take("y"), ip("10.0.0.2"), "comes round");
    }

    #[test]
    fn what_the_kernel_says_is_kept() {
        let mut p = pool("10.0.0.0/29");
        p.note("old", Ipv4Addr::new(10, 0, 0, 2));
        p.note("foreign", Ipv4Addr::new(10, 9, 0, 2));
        assert_eq!(p.take("new"), ip("10.0.0.3"));
        assert_eq!(p.take("old"), ip("10.0.0.2"));
        p.note("old", Ipv4Addr::new(10, 0, 0, 4));
        p.free("new");
        let all: Vec<_> = ["p", "q", "r", "s"].iter().map(|id| p.take(id)).collect();
        assert_eq!(all, [ip("10.0.0.5"), ip("10.0.0.6"), ip("10.0.0.2"), ip("10.0.0.3")]);
    }

    #[test]
    fn aliases_come_back() {
        let address = Ipv4Addr::new(10, 0, 0, 2);
        assert_eq!(parse_alias(&alias("ns_a b", address)), Some(("ns_a b", address)));
        for bad in ["", "mote-pod", "mote-pod x", "mote-pod x 1.2.3", "other x 1.2.3.4", "mote-podx 1.2.3.4"] {
            assert_eq!(parse_alias(bad), None, "{bad}");
        }
    }
}
