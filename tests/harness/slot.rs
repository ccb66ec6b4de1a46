//! Ports and address ranges nobody else on the machine uses.
//!
//! Slot N is held by an abstract socket's name for as long as the guard lives; the kernel lets go of it when the process dies, however
//! it dies, and every copy of these tests on the machine sees it, wherever its temporary files are.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

const SLOTS: u16 = 60;
const PORT_BASE: u16 = 21_000;
const PORTS_PER_SLOT: u16 = 20;

pub struct Slot {
    pub number: u16,
    _name: UnixListener,
}

impl Slot {
    pub fn take() -> Slot {
        for number in 0..SLOTS {
            let name = SocketAddr::from_abstract_name(format!("mote-test-slot.{number}")).expect("a short name");
            if let Ok(listener) = UnixListener::bind_addr(&name) {
                return Slot { number, _name: listener };
            }
        }
        panic!("all {SLOTS} test slots are taken");
    }

    /// One of the slot's ports.
    pub fn port(&self, offset: u16) -> u16 {
        assert!(offset < PORTS_PER_SLOT, "a slot has {PORTS_PER_SLOT} ports");
        PORT_BASE + self.number * PORTS_PER_SLOT + offset
    }

    /// The pods' range.
    pub fn cluster_cidr(&self) -> String {
        format!("10.{}.0.0/16", 130 + 2 * self.number)
    }

    /// The Services' range.
    pub fn service_cidr(&self) -> String {
        format!("10.{}.0.0/16", 131 + 2 * self.number)
    }

    /// What addresses of the pods start with.
    pub fn pod_prefix(&self) -> String {
        format!("10.{}.", 130 + 2 * self.number)
    }

    /// What cluster addresses of Services start with.
    pub fn service_prefix(&self) -> String {
        format!("10.{}.", 131 + 2 * self.number)
    }
}
