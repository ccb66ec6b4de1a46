//! Pods bound to this node, by watch.

use std::rc::Rc;

use mote_api::meta;
use mote_api::tree::{Value, str_at};
use tokio::sync::Notify;

use crate::agent::Agent;
use crate::client::Client;
use crate::client::reflect::{Change, Reflector};
use crate::pods::model::Source;
use crate::worker::mirror;

/// Follows the API server's wishes for ever; rings `heard` after the first whole list.
pub async fn follow(agent: Rc<Agent>, client: Rc<Client>, heard: Rc<Notify>) {
    let query = format!("fieldSelector=spec.nodeName%3D{}", agent.config.node_name);
    let mut reflector = Reflector::new(client, "/api/v1/pods", &query);
    loop {
        match reflector.next().await {
            Change::All(pods) => {
                let (mirrors, pods): (Vec<Value>, Vec<Value>) = pods.into_iter().partition(mirror::is_mirror);
                mirror::all(&agent, &mirrors);
                agent.want_all(pods, Source::Api);
                heard.notify_one();
            }
            Change::Put(pod) if mirror::is_mirror(&pod) => mirror::put(&agent, &pod),
            Change::Gone(pod) if mirror::is_mirror(&pod) => mirror::gone(&agent, &pod),
            Change::Put(pod) => {
                let name = format!("{}/{}", meta::namespace(&pod), meta::name(&pod));
                if let Err(why) = agent.want(Rc::new(pod), Source::Api) {
                    log::error!("read pod {name}: {why}");
                }
            }
            Change::Gone(pod) => agent.unwant(str_at(&pod, &["metadata", "uid"])),
        }
    }
}
