//! What an operator may choose.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::store::etcd::EtcdConfig;
use crate::store::snapshot::schedule::Schedule;

/// [`Config::connections_max`], unless the operator says otherwise.
pub const CONNECTIONS_MAX: usize = 2048;

/// An IPv4 network, host bits zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    base: u32,
    prefix: u8,
}

impl Cidr {
    /// `None` if `prefix` is over 32. Host bits are cleared.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Cidr> {
        let mask = Self::mask(prefix)?;
        Some(Cidr { base: u32::from(address) & mask, prefix })
    }
    fn mask(prefix: u8) -> Option<u32> {
        match prefix {
            0 => Some(0),
            1..=32 => Some(u32::MAX << (32 - prefix)),
            _ => None,
        }
    }
    pub fn prefix(self) -> u8 {
        self.prefix
    }
    pub fn network(self) -> Ipv4Addr {
        self.base.into()
    }
    /// Number of addresses.
    pub fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }
    /// The `n`th address; 0 is the network itself.
    pub fn nth(self, n: u64) -> Option<Ipv4Addr> {
        (n < self.size()).then(|| Ipv4Addr::from(self.base.wrapping_add(u32::try_from(n).unwrap_or(0))))
    }
    /// Where `address` stands in the network.
    pub fn index(self, address: Ipv4Addr) -> Option<u64> {
        u32::from(address).checked_sub(self.base).map(u64::from).filter(|n| *n < self.size())
    }
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.index(address).is_some()
    }
    pub fn overlaps(self, other: Cidr) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

/// Not `address/prefix`, or host bits are set.
#[derive(thiserror::Error, Debug, PartialEq, Eq)]
#[error("{0:?} is not an IPv4 network such as 10.42.0.0/16")]
pub struct CidrError(String);

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let address: Ipv4Addr = address.parse().ok()?;
            Cidr::new(address, prefix.parse().ok()?).filter(|c| c.network() == address)
        });
        parsed.ok_or_else(|| CidrError(text.into()))
    }
}

/// How long the servers that share an etcd wait when one of them is to lead (to hold the Lease); upstream's defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ElectionTimes {
    /// So long after its last sign of life the holder's turn is over.
    pub lease: Duration,
    /// A holder that could not say so for so long stops by itself. Less than `lease`: then it has stopped before anybody else begins.
    pub deadline: Duration,
    /// Between two signs of life. (client-go: 2 s. A third of the lease is enough, and spares the disk of etcd.)
    pub renew: Duration,
    /// Between two looks of one that waits, and between attempts that failed.
    pub retry: Duration,
}

impl Default for ElectionTimes {
    fn default() -> ElectionTimes {
        let [lease, deadline, renew, retry] = [15, 10, 5, 2].map(Duration::from_secs);
        ElectionTimes { lease, deadline, renew, retry }
    }
}

/// How a control plane is to run.
#[derive(Clone)]
pub struct Config {
    /// Holds `store/` and `pki/`; made with mode 0700 if it is not there.
    pub data_dir: PathBuf,
    /// Port 0: any free one, see `Server::url`.
    pub listen: SocketAddr,
    /// The address others reach this server at: in certificates, the kubeconfig and the `kubernetes` EndpointSlice.
    pub advertise: IpAddr,
    /// Further names and addresses for the serving certificate.
    pub extra_sans: Vec<String>,
    pub cluster_cidr: Cidr,
    pub service_cidr: Cidr,
    /// `cluster.local`
    pub cluster_domain: String,
    /// First and last port of `type: NodePort`.
    pub node_ports: (u16, u16),
    /// False: scheduler and controllers are not started (tests of the API alone).
    pub controllers: bool,
    /// Seconds without a Lease renewal until a node is NotReady.
    pub node_grace_seconds: i64,
    /// Seconds a pod stays on a node that says it is not ready: `tolerationSeconds` of the toleration given to every pod at admission.
    pub not_ready_seconds: i64,
    /// The same for a node that says nothing.
    pub unreachable_seconds: i64,
    /// Connections at once; three quarters of them may be of one address.
    pub connections_max: usize,
    /// The etcd that holds the state; None: the store in `data_dir`.
    pub etcd: Option<EtcdConfig>,
    /// Of the election among the servers that share an etcd.
    pub election: ElectionTimes,
    /// Backups of the store; None: none.
    pub backup: Option<Schedule>,
}

impl Config {
    /// Upstream's defaults, for a data folder and a listen address.
    pub fn new(data_dir: PathBuf, listen: SocketAddr) -> Config {
        let advertise = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
        Config {
            data_dir,
            listen,
            advertise,
            extra_sans: Vec::new(),
            cluster_cidr: Cidr { base: u32::from_be_bytes([10, 42, 0, 0]), prefix: 16 },
            service_cidr: Cidr { base: u32::from_be_bytes([10, 43, 0, 0]), prefix: 16 },
            cluster_domain: "cluster.local".into(),
            node_ports: (30000, 32767),
            controllers: true,
            node_grace_seconds: 40,
            not_ready_seconds: 300,
            unreachable_seconds: 300,
            connections_max: CONNECTIONS_MAX,
            etcd: None,
            election: ElectionTimes::default(),
            backup: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let c: Cidr = "10.42.0.0/16".parse().unwrap();
        assert_eq!(c.size(), 65536);
        assert_eq!(c.nth(258), Some(Ipv4Addr::new(10, 42, 1, 2)));
        assert_eq!(c.nth(65536), None);
        assert_eq!(c.index(Ipv4Addr::new(10, 42, 1, 2)), Some(258));
        assert_eq!(c.index(Ipv4Addr::new(10, 43, 0, 0)), None);
        assert!(!c.overlaps("10.43.0.0/16".parse().unwrap()));
        assert!(c.overlaps("10.0.0.0/8".parse().unwrap()) && c.overlaps("10.42.3.0/24".parse().unwrap()));
        assert_eq!("0.0.0.0/0".parse::<Cidr>().map(|c| c.size()), Ok(1 << 32));
        for bad in ["10.42.0.1/16", "10.42.0.0/33", "10.42.0.0", "x/8", "::/0", ""] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
