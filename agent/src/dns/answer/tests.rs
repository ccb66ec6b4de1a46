use super::*;
use serde_json::{Value, json};

fn services() -> Services {
    let service = |name: &str, spec: Value| json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
    let slice = |owner: &str, endpoints: Value| {
        json!({"metadata": {"namespace": "ns", "name": owner, "labels": {"kubernetes.io/service-name": owner}},
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080}, {"name": "peer", "port": 7000, "protocol": "UDP"}]})
    };
    let ports = json!([{"name": "http", "port": 80}, {"port": 81}]);
    let all = [
        service("web", json!({"clusterIP": "10.43.0.80", "ports": ports})),
        service("db", json!({"clusterIP": "None", "ports": ports})),
        service("idle", json!({"clusterIP": "None"})),
        service("out", json!({"type": "ExternalName", "externalName": "www.Example.com"})),
        service("alias", json!({"type": "ExternalName", "externalName": "web.ns.svc.cluster.local"})),
        service("loop", json!({"type": "ExternalName", "externalName": "loop.ns.svc.cluster.local"})),
        service("broken", json!({"type": "ExternalName", "externalName": "a..b"})),
    ];
    let slices = [
        slice("web", json!([{"addresses": ["10.42.0.5"]}])),
        slice(
            "db",
            json!([{"addresses": ["10.42.0.7"], "hostname": "db-0"}, {"addresses": ["10.42.0.8"]},
                {"addresses": ["10.42.0.9"], "hostname": "db-2", "conditions": {"ready": false}}]),
        ),
    ];
    let mut found = Services::default();
    found.replace(&all, &slices);
    found
}

/// The outcome in one line: rcode, answers, `+` additional records.
fn ask(name: &str, kind: u16) -> String {
    let query = Query::parse(&Query::ask(4, name, kind).unwrap()).unwrap();
    let show = |records: &[Record]| -> Vec<String> {
        let one = |r: &Record| {
            let owner = r.owner.as_ref().map(|o| format!("{o}=")).unwrap_or_default();
            let data = match &r.data {
                Data::A(a) => a.to_string(),
                Data::Aaaa(a) => a.to_string(),
                Data::Cname(n) => format!("cname {n}"),
                Data::Ptr(n) => format!("ptr {n}"),
                Data::Srv { weight, port, target } => format!("srv {weight} {port} {target}"),
                Data::Soa { .. } => "soa".to_owned(),
            };
            format!("{owner}{data}")
        };
        records.iter().map(one).collect()
    };
    let line = |a: &Answer| {
        let mut words = vec![format!("{:?}", a.rcode)];
        words.extend(show(&a.answers));
        words.extend(show(&a.authority).into_iter().map(|_| "SOA".to_owned()));
        words.extend(show(&a.additional).into_iter().map(|r| format!("+{r}")));
        words.join(" ")
    };
    match answer(&query, &services(), &Zone::new("Cluster.local.")) {
        Outcome::Forward => "forward".into(),
        Outcome::Chase(a, target) => format!("{} chase {target}", line(&a)),
        Outcome::Reply(a) => line(&a),
    }
}

#[test]
fn the_names_of_the_specification() {
    let cases = [
        ("web.ns.svc.cluster.local", kind::A, "NoError 10.43.0.80"),
        ("WEB.ns.svc.CLUSTER.local", kind::A, "NoError 10.43.0.80"),
        ("web.ns.svc.cluster.local", kind::ANY, "NoError 10.43.0.80"),
        ("web.ns.svc.cluster.local", kind::AAAA, "NoError SOA"),
        ("db.ns.svc.cluster.local", kind::A, "NoError 10.42.0.7 10.42.0.8"),
        ("idle.ns.svc.cluster.local", kind::A, "NoError SOA"),
        ("db-0.db.ns.svc.cluster.local", kind::A, "NoError 10.42.0.7"),
        ("10-42-0-8.db.ns.svc.cluster.local", kind::A, "NoError 10.42.0.8"),
        ("db-2.db.ns.svc.cluster.local", kind::A, "NxDomain SOA"),
        ("10-42-0-7.db.ns.svc.cluster.local", kind::A, "NxDomain SOA"),
        ("10-42-0-5.web.ns.svc.cluster.local", kind::A, "NoError 10.42.0.5"),
        ("10-1-2-3.any.pod.cluster.local", kind::A, "NoError 10.1.2.3"),
        ("10-1-2.any.pod.cluster.local", kind::A, "NxDomain SOA"),
        (
            "_http._tcp.web.ns.svc.cluster.local",
            kind::SRV,
            "NoError srv 100 80 web.ns.svc.cluster.local +web.ns.svc.cluster.local=10.43.0.80",
        ),
        (
            "_http._tcp.db.ns.svc.cluster.local",
            kind::SRV,
            "NoError srv 50 8080 db-0.db.ns.svc.cluster.local srv 50 8080 10-42-0-8.db.ns.svc.cluster.local \
             +db-0.db.ns.svc.cluster.local=10.42.0.7 +10-42-0-8.db.ns.svc.cluster.local=10.42.0.8",
        ),
        (
            "web.ns.svc.cluster.local",
            kind::SRV,
            "NoError srv 100 80 web.ns.svc.cluster.local +web.ns.svc.cluster.local=10.43.0.80",
        ),
        ("_http._tcp.web.ns.svc.cluster.local", kind::A, "NoError SOA"),
        ("_http._udp.web.ns.svc.cluster.local", kind::SRV, "NxDomain SOA"),
        (
            "_peer._udp.db.ns.svc.cluster.local",
            kind::SRV,
            "NoError srv 50 7000 db-0.db.ns.svc.cluster.local srv 50 7000 10-42-0-8.db.ns.svc.cluster.local \
             +db-0.db.ns.svc.cluster.local=10.42.0.7 +10-42-0-8.db.ns.svc.cluster.local=10.42.0.8",
        ),
        ("_tcp.web.ns.svc.cluster.local", kind::A, "NoError SOA"),
        ("_udp.web.ns.svc.cluster.local", kind::A, "NxDomain SOA"),
        ("80.0.43.10.in-addr.arpa", kind::PTR, "NoError ptr web.ns.svc.cluster.local"),
        ("7.0.42.10.in-addr.arpa", kind::PTR, "NoError ptr db-0.db.ns.svc.cluster.local"),
        ("5.0.42.10.in-addr.arpa", kind::PTR, "NoError ptr 10-42-0-5.web.ns.svc.cluster.local"),
        ("5.0.42.10.in-addr.arpa", kind::A, "NoError SOA"),
        ("1.2.0.192.in-addr.arpa", kind::PTR, "forward"),
    ];
    for (name, kind, want) in cases {
        assert_eq!(ask(name, kind), want, "{name} {kind}");
    }
}

#[test]
fn aliases_lead_in_and_out() {
    let alias = "web.ns.svc.cluster.local";
    let cases = [
        ("out.ns.svc.cluster.local", kind::A, "NoError cname www.Example.com chase www.Example.com".to_owned()),
        ("out.ns.svc.cluster.local", kind::CNAME, "NoError cname www.Example.com".into()),
        ("alias.ns.svc.cluster.local", kind::A, format!("NoError cname {alias} {alias}=10.43.0.80")),
        ("alias.ns.svc.cluster.local", kind::AAAA, format!("NoError cname {alias} SOA")),
        ("loop.ns.svc.cluster.local", kind::A, "ServFail".into()),
        ("broken.ns.svc.cluster.local", kind::A, "NxDomain SOA".into()),
        ("x.out.ns.svc.cluster.local", kind::A, "NxDomain SOA".into()),
    ];
    for (name, kind, want) in cases {
        assert_eq!(ask(name, kind), want, "{name} {kind}");
    }
}

#[test]
fn what_is_not_there_and_what_is_not_ours() {
    let cases = [
        ("no.ns.svc.cluster.local", "NxDomain SOA"),
        ("web.no.svc.cluster.local", "NxDomain SOA"),
        ("a.b.web.ns.svc.cluster.local", "NxDomain SOA"),
        ("www.example.com.ns.svc.cluster.local", "NxDomain SOA"),
        ("other.cluster.local", "NxDomain SOA"),
        ("cluster.local", "NoError SOA"),
        ("svc.cluster.local", "NoError SOA"),
        ("ns.svc.cluster.local", "NoError SOA"),
        ("no.svc.cluster.local", "NxDomain SOA"),
        ("www.example.com", "forward"),
        ("local", "forward"),
        ("notcluster.local", "forward"),
        ("cluster.local.example", "forward"),
    ];
    for (name, want) in cases {
        assert_eq!(ask(name, kind::A), want, "{name}");
    }
    assert_eq!(ask("cluster.local", kind::SOA), "NoError cluster.local=soa".replace("cluster.local=", ""));
}
