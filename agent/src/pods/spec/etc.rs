//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a pod, as the kubelet writes them.

use std::net::IpAddr;

use mote_api::tree::{Value, list_at, str_at};
use mote_runtime::container::Mount;

use super::super::dirs::{self, Roots};
use super::super::model::Pod;

/// The cluster's names.
pub struct Cluster<'a> {
    /// Cluster DNS address, if there is one.
    pub dns: Option<IpAddr>,
    /// `cluster.local`
    pub domain: &'a str,
    /// The node's name.
    pub node_name: &'a str,
}

/// The name a pod has for itself.
pub fn host_name(pod: &Pod, node_name: &str) -> String {
    let wanted = str_at(&pod.object, &["spec", "hostname"]);
    let name = match (pod.host_network, wanted) {
        (true, _) => node_name,
        (false, "") => pod.name.as_str(),
        (false, wanted) => wanted,
    };
    // HOST_NAME_MAX; upstream cuts as well.
    name.get(..63).unwrap_or(name).trim_end_matches(['-', '.']).to_owned()
}

/// `/etc/hosts`.
pub fn hosts(pod: &Pod, ip: Option<IpAddr>, cluster: &Cluster<'_>, of_host: &str) -> String {
    let mut text = if pod.host_network {
        format!("# Kubernetes-managed hosts file (host network).\n{of_host}")
    } else {
        let mut text = String::from("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n");
        text.push_str("::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n");
        text.push_str("fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
        if let Some(ip) = ip {
            let name = host_name(pod, cluster.node_name);
            match str_at(&pod.object, &["spec", "subdomain"]) {
                "" => text.push_str(&format!("{ip}\t{name}\n")),
                sub => text.push_str(&format!("{ip}\t{name}.{sub}.{}.svc.{}\t{name}\n", pod.namespace, cluster.domain)),
            }
        }
        text
    };
    let aliases = list_at(&pod.object, &["spec", "hostAliases"]);
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names: Vec<&str> = list_at(alias, &["hostnames"]).iter().filter_map(Value::as_str).collect();
            text.push_str(&format!("{}\t{}\n", str_at(alias, &["ip"]), names.join("\t")));
        }
    }
    text
}

/// `/etc/resolv.conf` by `dnsPolicy` and `dnsConfig`; `of_host` is the node's own.
pub fn resolv_conf(pod: &Pod, cluster: &Cluster<'_>, of_host: &str) -> String {
    let (mut servers, mut searches, mut options) = read_resolv(of_host);
    let policy = match str_at(&pod.object, &["spec", "dnsPolicy"]) {
        "ClusterFirst" | "" if pod.host_network => "Default",
        "ClusterFirstWithHostNet" | "" => "ClusterFirst",
        other => other,
    };
    if policy == "None" {
        (servers, searches, options) = Default::default();
    }
    if let (true, Some(dns)) = (policy == "ClusterFirst", cluster.dns) {
        servers = vec![dns.to_string()];
        let mut own = vec![
            format!("{}.svc.{}", pod.namespace, cluster.domain),
            format!("svc.{}", cluster.domain),
            cluster.domain.to_owned(),
        ];
        own.append(&mut searches);
        searches = own;
        options = vec!["ndots:5".into()];
    }
    let more = |field: &str| list_at(&pod.object, &["spec", "dnsConfig", field]);
    servers.extend(more("nameservers").iter().filter_map(Value::as_str).map(str::to_owned));
    searches.extend(more("searches").iter().filter_map(Value::as_str).map(str::to_owned));
    for option in more("options") {
        let (name, value) = (str_at(option, &["name"]), str_at(option, &["value"]));
        options.retain(|known| known.split(':').next() != Some(name));
        options.push(if value.is_empty() { name.to_owned() } else { format!("{name}:{value}") });
    }
    let mut text = String::new();
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

fn read_resolv(text: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
    let (mut servers, mut searches, mut options) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let rest = |words: std::str::SplitWhitespace<'_>| words.map(str::to_owned).collect::<Vec<_>>();
        match words.next() {
            Some("nameserver") => servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => searches = rest(words),
            Some("options") => options = rest(words),
            _ => {}
        }
    }
    (servers, searches, options)
}

/// Writes the three files of a pod.
pub fn write(roots: &Roots, pod: &Pod, ip: Option<IpAddr>, cluster: &Cluster<'_>) -> Result<(), String> {
    let folder = roots.pod_run(&pod.uid).join("etc");
    dirs::make(&folder)?;
    let host = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    dirs::write(&folder.join("hosts"), hosts(pod, ip, cluster, &host("/etc/hosts")).as_bytes())?;
    dirs::write(&folder.join("resolv.conf"), resolv_conf(pod, cluster, &host("/etc/resolv.conf")).as_bytes())?;
    dirs::write(&folder.join("hostname"), format!("{}\n", host_name(pod, cluster.node_name)).as_bytes())
}

/// Their mounts.
pub fn mounts(roots: &Roots, pod: &Pod, read_only: bool) -> Vec<Mount> {
    let folder = roots.pod_run(&pod.uid).join("etc");
    ["hosts", "resolv.conf", "hostname"]
        .map(|file| Mount::bind(folder.join(file).to_string_lossy(), format!("/etc/{file}"), read_only))
        .into()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use mote_api::tree::json;

    use super::super::super::model::Source;
    use super::*;

    fn pod(spec: Value) -> Pod {
        let object = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u1"}, "spec": spec});
        Pod::read(Rc::new(object), Source::Api).unwrap_or_else(|why| panic!("{why}"))
    }

    const CLUSTER: Cluster<'static> = Cluster {
        dns: Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 43, 0, 10))),
        domain: "cluster.local",
        node_name: "n1",
    };
    const HOST: &str = "# x\nsearch lan\nnameserver 1.1.1.1\noptions edns0\n";

    #[test]
    fn dns_policies() {
        let first =
            "search ns.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.43.0.10\noptions ndots:5\n";
        let host = "search lan\nnameserver 1.1.1.1\noptions edns0\n";
        for (spec, expected) in [
            (json!({}), first),
            (json!({"dnsPolicy": "Default"}), host),
            (json!({"hostNetwork": true, "dnsPolicy": "ClusterFirst"}), host),
            (json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), first),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"], "options": [{"name": "ndots", "value": "2"}]}}),
                "nameserver 9.9.9.9\noptions ndots:2\n",
            ),
        ] {
            assert_eq!(resolv_conf(&pod(spec), &CLUSTER, HOST), expected);
        }
    }

    #[test]
    fn hosts_name_the_pod() {
        let ip = "10.42.0.2".parse().ok();
        assert!(hosts(&pod(json!({})), ip, &CLUSTER, "").contains("\n10.42.0.2\tp\n"));
        let spec =
            json!({"hostname": "h", "subdomain": "s", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]});
        let text = hosts(&pod(spec), ip, &CLUSTER, "");
        assert!(text.contains("10.42.0.2\th.s.ns.svc.cluster.local\th\n") && text.contains("1.2.3.4\ta\tb\n"));
    }
}
