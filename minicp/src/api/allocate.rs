//! Cluster IPs and node ports. What is taken is what the stored Services say: nothing can be lost or leak in a crash.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::rc::Rc;

use mote_api::field::Error;
use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, i64_at, json, list_at, list_mut, remove, set, set_default, str_at};

use super::words::ListQuery;
use super::{Api, object};

/// Addresses at the start of the range that are given only to who asks for them (upstream's static band).
const STATIC_BAND_MAX: u64 = 256;

/// What is given out and not yet committed.
#[derive(Default)]
pub(crate) struct InFlight(Rc<RefCell<HashSet<Taken>>>);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Taken {
    Address(Ipv4Addr),
    Port(u16),
}

/// Keeps what it names from being given out twice until the Service is stored.
#[derive(Default)]
pub(crate) struct Hold {
    all: Rc<RefCell<HashSet<Taken>>>,
    mine: Vec<Taken>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut all = self.all.borrow_mut();
        for taken in &self.mine {
            all.remove(taken);
        }
    }
}

fn taken_by(service: &Value) -> impl Iterator<Item = Taken> {
    let ips = list_at(service, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
    let one = Some(str_at(service, &["spec", "clusterIP"]));
    let ports = list_at(service, &["spec", "ports"]).iter().filter_map(node_port);
    ips.chain(one).filter_map(|ip| ip.parse().ok()).map(Taken::Address).chain(ports.map(Taken::Port))
}

fn node_port(port: &Value) -> Option<u16> {
    i64_at(port, &["nodePort"]).and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0)
}

impl Api {
    /// Completes a Service that is about to be written.
    pub(crate) async fn allocate(&self, kind: &Rc<Kind>, old: Option<&Value>, new: &mut Value) -> Result<Hold, Status> {
        if !kind.is("", "Service") {
            return Ok(Hold::default());
        }
        let name = meta::name(new).to_owned();
        let me = object::key(kind, meta::namespace(new), &name);
        let listed = self.list(kind, "", &ListQuery::all()).await?;
        let others = listed.entries.iter().filter(|(key, _)| **key != *me);
        let mut used: HashSet<Taken> =
            others.flat_map(|(_, e)| taken_by(&object::decode(kind, e)).collect::<Vec<_>>()).collect();
        let all = self.addresses.borrow().0.clone();
        used.extend(all.borrow().iter());
        let mut hold = Hold { all: all.clone(), mine: Vec::new() };
        let seed = u64::from_le_bytes(self.random());
        let errors = complete(self, old, new, &mut used, &mut hold, seed);
        if errors.is_empty() { Ok(hold) } else { Err(Status::invalid(kind, &name, &errors)) }
    }
}

/// Pure but for the configuration: fills in addresses and ports that `used` does not have.
fn complete(
    api: &Api,
    old: Option<&Value>,
    new: &mut Value,
    used: &mut HashSet<Taken>,
    hold: &mut Hold,
    seed: u64,
) -> Vec<Error> {
    let mut errors = Vec::new();
    let take = |taken, used: &mut HashSet<Taken>, hold: &mut Hold| {
        let fresh = used.insert(taken);
        if fresh {
            hold.all.borrow_mut().insert(taken);
            hold.mine.push(taken);
        }
        fresh
    };
    let ty = str_at(new, &["spec", "type"]).to_owned();
    if ty == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            remove(new, &["spec", field]);
        }
        return errors;
    }
    if str_at(new, &["spec", "clusterIP"]).is_empty() {
        let kept = old.map_or("", |o| str_at(o, &["spec", "clusterIP"]));
        let first = list_at(new, &["spec", "clusterIPs"]).first().and_then(Value::as_str).unwrap_or(kept).to_owned();
        set(new, &["spec", "clusterIP"], first.into());
    }
    let ip = str_at(new, &["spec", "clusterIP"]).to_owned();
    let cidr = api.config.service_cidr;
    if ip.is_empty() {
        let (size, band) = (cidr.size(), STATIC_BAND_MAX.min(cidr.size() / 16).max(1));
        let room = size.saturating_sub(band + 1).max(1);
        let free = (0..room).filter_map(|n| cidr.nth(band + (seed.wrapping_add(n)) % room));
        match free.into_iter().find(|ip| !used.contains(&Taken::Address(*ip))) {
            Some(ip) => {
                take(Taken::Address(ip), used, hold);
                set(new, &["spec", "clusterIP"], ip.to_string().into());
            }
            None => errors.push(Error::invalid_str("spec.clusterIPs", "", "failed to allocate IP: range is full")),
        }
    } else if ip != "None" && old.is_none_or(|o| str_at(o, &["spec", "clusterIP"]) != ip) {
        let list = json!([ip]);
        match ip.parse() {
            Ok(address) if !cidr.contains(address) => {
                let why = format!(
                    "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {cidr}"
                );
                errors.push(Error::invalid("spec.clusterIPs", &list, &why));
            }
            Ok(address) if !take(Taken::Address(address), used, hold) => {
                let why = format!("failed to allocate IP {ip}: provided IP is already allocated");
                errors.push(Error::invalid("spec.clusterIPs", &list, &why));
            }
            Ok(_) => {}
            Err(_) => errors.push(Error::invalid_str(
                "spec.clusterIPs[0]",
                &ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            )),
        }
    }
    let ip = str_at(new, &["spec", "clusterIP"]).to_owned();
    set(new, &["spec", "clusterIPs"], json!([ip]));
    set_default(new, &["spec", "ipFamilies"], json!(["IPv4"]));
    set_default(new, &["spec", "ipFamilyPolicy"], "SingleStack".into());
    node_ports(api.config.node_ports, &ty, old, new, seed, &mut errors, |port| take(Taken::Port(port), used, hold));
    errors
}

fn node_ports(
    (first, last): (u16, u16),
    ty: &str,
    old: Option<&Value>,
    new: &mut Value,
    seed: u64,
    errors: &mut Vec<Error>,
    mut take: impl FnMut(u16) -> bool,
) {
    let wants = matches!(ty, "NodePort" | "LoadBalancer");
    let had: Vec<(Value, u16)> = old
        .map(|o| list_at(o, &["spec", "ports"]).iter().filter_map(|p| Some((p.clone(), node_port(p)?))).collect())
        .unwrap_or_default();
    for (i, port) in list_mut(new, &["spec", "ports"]).iter_mut().enumerate() {
        let asked = node_port(port);
        if !wants {
            if asked.is_some_and(|a| had.iter().any(|(_, h)| *h == a)) {
                remove(port, &["nodePort"]);
            }
            continue;
        }
        let same = |p: &Value| ["name", "port", "protocol"].iter().all(|f| p.get(f) == port.get(f));
        let kept = had.iter().find(|(p, _)| same(p)).map(|(_, n)| *n);
        match asked.or(kept) {
            Some(p) => {
                let field = format!("spec.ports[{i}].nodePort");
                if had.iter().all(|(_, h)| *h != p) {
                    if !(first..=last).contains(&p) {
                        let why = format!(
                            "provided port is not in the valid range. The range of valid ports is {first}-{last}"
                        );
                        errors.push(Error::invalid(field, &json!(p), &why));
                    } else if !take(p) {
                        errors.push(Error::invalid(field, &json!(p), "provided port is already allocated"));
                    }
                }
                set(port, &["nodePort"], json!(p));
            }
            None => {
                let count = u64::from(last.saturating_sub(first)) + 1;
                let free =
                    (0..count).map(|n| first.saturating_add(u16::try_from(seed.wrapping_add(n) % count).unwrap_or(0)));
                match free.into_iter().find(|p| take(*p)) {
                    Some(p) => set(port, &["nodePort"], json!(p)),
                    None => errors.push(Error::invalid_str(format!("spec.ports[{i}].nodePort"), "", "range is full")),
                }
            }
        }
    }
}
