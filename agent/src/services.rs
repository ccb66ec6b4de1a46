//! Follows Services and EndpointSlices; keeps the proxy's rules, the DNS server's snapshot and the pods' service variables true.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use mote_api::meta;
use mote_api::tree::Value;

use crate::agent::{Agent, variables_of};
use crate::client::Client;
use crate::client::reflect::{Change, Reflector};
use crate::proxy::Proxy;

/// Changes that come together become one transaction.
const SETTLE: Duration = Duration::from_millis(5);
const RETRY: Duration = Duration::from_secs(5);

type Known = BTreeSet<(String, String)>;

fn key(object: &Value) -> (String, String) {
    (meta::namespace(object).to_owned(), meta::name(object).to_owned())
}

fn services(agent: &Agent, known: &mut Known, change: Change) {
    let mut services = agent.services.borrow_mut();
    let mut variables = agent.service_env.borrow_mut();
    let mut put = |service: &Value, known: &mut Known| {
        services.set_service(service);
        variables.insert(key(service), variables_of(service));
        known.insert(key(service));
    };
    let mut gone = Vec::new();
    match change {
        Change::All(all) => {
            let now: Known = all.iter().map(key).collect();
            gone.extend(known.difference(&now).cloned());
            all.iter().for_each(|service| put(service, known));
        }
        Change::Put(service) => put(&service, known),
        Change::Gone(service) => gone.push(key(&service)),
    }
    for key in gone {
        services.remove_service(&key.0, &key.1);
        variables.remove(&key);
        known.remove(&key);
    }
}

fn slices(agent: &Agent, known: &mut Known, change: Change) {
    let mut services = agent.services.borrow_mut();
    let mut gone = Vec::new();
    match change {
        Change::All(all) => {
            let now: Known = all.iter().map(key).collect();
            gone.extend(known.difference(&now).cloned());
            for slice in &all {
                services.set_slice(slice);
            }
            *known = known.union(&now).cloned().collect();
        }
        Change::Put(slice) => {
            services.set_slice(&slice);
            known.insert(key(&slice));
        }
        Change::Gone(slice) => gone.push(key(&slice)),
    }
    for key in gone {
        services.remove_slice(&key.0, &key.1);
        known.remove(&key);
    }
}

/// Follows both for ever. The proxy comes with the pod network, through `proxy`.
pub async fn follow(agent: Rc<Agent>, client: Rc<Client>, mut proxy: tokio::sync::mpsc::Receiver<Proxy>) {
    let mut of_services = Reflector::new(client.clone(), "/api/v1/services", "");
    let mut of_slices = Reflector::new(client, "/apis/discovery.k8s.io/v1/endpointslices", "");
    let (mut known_services, mut known_slices) = (Known::new(), Known::new());
    let mut rules: Option<Proxy> = None;
    let mut dirty: Option<Duration> = None;
    let mut lists = 0u8;
    loop {
        let due = async {
            match dirty {
                // A former agent's rules stay until both lists are known.
                Some(pause) if rules.is_some() && lists == 3 => tokio::time::sleep(pause).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            change = of_services.next() => {
                if matches!(change, Change::All(_)) {
                    lists |= 1;
                }
                services(&agent, &mut known_services, change);
                dirty = Some(SETTLE);
            }
            change = of_slices.next() => {
                if matches!(change, Change::All(_)) {
                    lists |= 2;
                }
                slices(&agent, &mut known_slices, change);
                dirty = Some(SETTLE);
            }
            Some(new) = proxy.recv() => {
                rules = Some(new);
                dirty = Some(SETTLE);
            }
            () = due => {
                let Some(rules) = &mut rules else { continue };
                dirty = match rules.apply(&agent.services.borrow()) {
                    Ok(()) => None,
                    Err(error) => {
                        log::error!("apply service rules: {error}");
                        Some(RETRY)
                    }
                };
            }
        }
    }
}
