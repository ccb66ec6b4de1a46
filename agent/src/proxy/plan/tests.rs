use super::super::table::Hide;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn front(n: u8) -> Front {
    Front { address: [10, 43, 0, n].into(), protocol: Protocol::Udp, port: 53 }
}

fn chain(endpoints: &[u8], affinity_s: Option<u32>) -> Chain {
    let endpoints = endpoints.iter().map(|n| ([10, 42, 0, *n].into(), 5353)).collect();
    Chain { protocol: Protocol::Udp, hide: Hide::Outsiders, affinity_s, endpoints }
}

/// One Service per (name, endpoints): front n leads to chain "n".
fn world(services: &[(u8, &[u8])]) -> Table {
    let mut table = Table::default();
    for (n, endpoints) in services {
        let name: ChainName = n.to_string().into();
        table.fronts.insert(front(*n), name.clone());
        table.node_ports.insert((Protocol::Udp, u16::from(*n)), name.clone());
        table.hairpins.extend(endpoints.iter().map(|e| Ipv4Addr::from([10, 42, 0, *e])));
        table.chains.insert(name, chain(endpoints, None));
    }
    table
}

#[test]
fn the_same_is_nothing_to_do() {
    let table = world(&[(1, &[1, 2])]);
    assert_eq!(plan(&table, &table), []);
    assert_eq!(stale(&table, &table), []);
}

#[test]
fn a_changed_endpoint_touches_one_chain_only() {
    let (old, new) = (world(&[(1, &[1, 2]), (2, &[7])]), world(&[(1, &[1, 2, 3]), (2, &[7])]));
    let name: ChainName = "1".into();
    let changes = plan(&old, &new);
    let (was, now) = (&old.chains["1"], &new.chains["1"]);
    assert_eq!(
        changes,
        [Change::RefillChain { name: &name, old: was, new: now }, Change::AddHairpin([10, 42, 0, 3].into())]
    );
    let end = [10, 42, 0, 3].into();
    let want = [
        Stale { address: None, port: 1, endpoint: end },
        Stale { address: Some([10, 43, 0, 1].into()), port: 53, endpoint: end },
    ];
    assert_eq!(stale(&new, &old), want);
    assert_eq!(stale(&old, &new), []);
}

#[test]
fn a_gone_service_goes_from_the_outside_in() {
    let (old, new) = (world(&[(1, &[1])]), Table::default());
    let name: ChainName = "1".into();
    assert_eq!(
        plan(&old, &new),
        [
            Change::DeleteFront(front(1)),
            Change::DeleteNodePort(Protocol::Udp, 1),
            Change::DeleteHairpin([10, 42, 0, 1].into()),
            Change::DeleteChain(&name, &old.chains["1"]),
        ]
    );
    assert_eq!(stale(&old, &new).len(), 2);
}

/// What the kernel does with a plan: refuses to lead to a missing chain or to delete one that is led to.
fn obey(table: &Table, changes: &[Change<'_>]) -> Table {
    let mut t = table.clone();
    for change in changes {
        match change {
            Change::DeleteFront(f) => assert!(t.fronts.remove(f).is_some()),
            Change::DeleteNodePort(p, n) => assert!(t.node_ports.remove(&(*p, *n)).is_some()),
            Change::DeleteHairpin(a) => assert!(t.hairpins.remove(a)),
            Change::AddChain(name, c) => assert!(t.chains.insert((*name).clone(), (*c).clone()).is_none()),
            Change::RefillChain { name, new, .. } => {
                assert!(t.chains.insert((*name).clone(), (*new).clone()).is_some());
            }
            Change::AddFront(f, c) => {
                assert!(t.chains.contains_key(*c) && t.fronts.insert(*f, (*c).clone()).is_none());
            }
            Change::AddNodePort(p, n, c) => {
                assert!(t.chains.contains_key(*c) && t.node_ports.insert((*p, *n), (*c).clone()).is_none());
            }
            Change::AddHairpin(a) => assert!(t.hairpins.insert(*a)),
            Change::DeleteChain(name, _) => {
                assert!(t.chains.remove(*name).is_some());
                assert!(!t.fronts.values().chain(t.node_ports.values()).any(|c| c == *name), "still led to");
            }
        }
    }
    t
}

fn any_table() -> impl Strategy<Value = Table> {
    let chains =
        proptest::collection::btree_map(0u8..5, (proptest::collection::btree_set(0u8..4, 1..4), any::<bool>()), 0..5);
    (chains, proptest::collection::btree_map(0u8..4, 0u8..5, 0..4)).prop_map(|(chains, fronts)| {
        let chains: BTreeMap<ChainName, Chain> = chains
            .into_iter()
            .map(|(n, (ends, sticky))| {
                (n.to_string().into(), chain(&ends.into_iter().collect::<Vec<_>>(), sticky.then_some(9)))
            })
            .collect();
        let mut table = Table { chains, ..Table::default() };
        for (f, c) in fronts {
            let name: ChainName = c.to_string().into();
            if table.chains.contains_key(&name) {
                table.fronts.insert(front(f), name.clone());
                table.node_ports.insert((Protocol::Udp, u16::from(f)), name);
                table.hairpins.insert([10, 42, 0, c].into());
            }
        }
        table
    })
}

proptest! {
    #[test]
    fn every_plan_arrives(old in any_table(), new in any_table()) {
        prop_assert_eq!(obey(&old, &plan(&old, &new)), new);
    }
}
