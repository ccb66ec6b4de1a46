//! Pods resolve names at the cluster DNS address: over UDP and TCP, of the cluster and of the world.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;

use mote_agent::dns::{DnsConfig, Server};
use mote_agent::net::Network;
use mote_agent::proxy::Services;
use serde_json::json;
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, ResourceRecord, TYPE};
use tokio::sync::oneshot;

use crate::world::{Ns, WAIT, config};

const DNS: &str = "10.43.0.10:53";

fn question(name: &str) -> Vec<u8> {
    let mut packet = Packet::new_query(77);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new_unchecked(name), QTYPE::TYPE(TYPE::A), CLASS::IN.into(), false));
    packet.build_bytes_vec().unwrap()
}

/// The rcode and the addresses of a reply, and whether it was cut.
fn read(bytes: &[u8]) -> (RCODE, Vec<Ipv4Addr>, bool) {
    let packet = Packet::parse(bytes).unwrap();
    assert_eq!(packet.id(), 77);
    let address = |r: &ResourceRecord| if let RData::A(a) = &r.rdata { Some(Ipv4Addr::from(a.address)) } else { None };
    (packet.rcode(), packet.answers.iter().filter_map(address).collect(), packet.has_flags(PacketFlag::TRUNCATION))
}

fn over_udp(ns: &Ns, name: &str) -> (RCODE, Vec<Ipv4Addr>, bool) {
    let socket = ns.udp("0.0.0.0:0");
    socket.send_to(&question(name), DNS).unwrap();
    let mut buffer = [0; 4096];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from.to_string(), DNS, "answered from the address that was asked");
    read(&buffer[..len])
}

fn over_tcp(ns: &Ns, name: &str) -> (RCODE, Vec<Ipv4Addr>, bool) {
    let message = question(name);
    let bytes = ns.run(move || {
        let mut stream = TcpStream::connect(DNS).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.write_all(&u16::try_from(message.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(&message).unwrap();
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut bytes).unwrap();
        bytes
    });
    read(&bytes)
}

/// A name server of the world: knows `big.example` (100 addresses, over TCP only in full) and answers all else with 192.0.2.1.
fn world_server(ns: &Ns) -> (std::net::SocketAddr, thread::JoinHandle<()>) {
    let (udp, tcp) = ns.run(|| {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        (UdpSocket::bind(tcp.local_addr().unwrap()).unwrap(), tcp)
    });
    let address = tcp.local_addr().unwrap();
    fn reply(message: &[u8], whole: bool) -> Vec<u8> {
        let asked = Packet::parse(message).unwrap();
        let name = asked.questions[0].qname.clone();
        let big = name.to_string() == "big.example";
        let mut packet = Packet::new_reply(asked.id());
        packet.questions = asked.questions.clone();
        if big && !whole {
            packet.set_flags(PacketFlag::TRUNCATION);
        }
        for n in 0..if !big {
            1
        } else if whole {
            100
        } else {
            0
        } {
            let data = RData::A(A { address: 0xc000_0201 + n });
            packet.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, 60, data));
        }
        packet.build_bytes_vec_compressed().unwrap()
    }
    udp.set_read_timeout(Some(WAIT)).unwrap();
    let thread = thread::spawn(move || {
        thread::spawn(move || {
            // Ends with the first silence.
            let mut buffer = [0; 512];
            while let Ok((len, from)) = udp.recv_from(&mut buffer) {
                // A forged reply first: another id.
                let mut forged = reply(&buffer[..len], false);
                forged[0] ^= 1;
                let _ = udp.send_to(&forged, from);
                let _ = udp.send_to(&reply(&buffer[..len], false), from);
            }
        });
        let (mut stream, _) = tcp.accept().unwrap();
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut message).unwrap();
        let long = reply(&message, true);
        stream.write_all(&u16::try_from(long.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(&long).unwrap();
    });
    (address, thread)
}

#[test]
fn pods_resolve_names() {
    let (machine, pod) = (Ns::new(), Ns::new());
    let path = pod.path();
    machine.run(move || {
        let net = Network::open(config("d001", 0)).unwrap();
        net.attach("pod", &path).unwrap();
    });
    let (upstream, served) = world_server(&machine);
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, started) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    machine.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let many: Vec<_> = (1..=200).map(|n| json!({"addresses": [format!("10.42.9.{n}")]})).collect();
            let services = Rc::new(RefCell::new(Services::default()));
            let dns = DnsConfig {
                listen: vec![DNS.parse().unwrap()],
                domain: "cluster.local".into(),
                upstreams: vec![upstream],
            };
            let server = Server::start(dns.clone(), services.clone()).await.unwrap();
            let again = Server::start(dns, services.clone()).await.err().unwrap().to_string();
            assert!(again.starts_with("listen for DNS on 10.43.0.10:53: "), "{again}");
            // What the watches bring later is answered at once.
            let service = |name: &str, spec| json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
            services.borrow_mut().set_service(&service("web", json!({"clusterIP": "10.43.0.80"})));
            services.borrow_mut().set_service(&service("big", json!({"clusterIP": "None"})));
            let out = json!({"type": "ExternalName", "externalName": "www.example.com"});
            services.borrow_mut().set_service(&service("out", out));
            services.borrow_mut().set_slice(&json!({"addressType": "IPv4", "endpoints": many, "metadata":
                {"namespace": "ns", "name": "big-1", "labels": {"kubernetes.io/service-name": "big"}}}));
            ready.send(()).unwrap();
            stopped.await.unwrap();
            drop(server);
        });
        ended.send(()).unwrap();
    });
    started.recv_timeout(WAIT).expect("the server starts");

    let web = (RCODE::NoError, vec![Ipv4Addr::new(10, 43, 0, 80)], false);
    for from in [&pod, &machine] {
        assert_eq!(over_udp(from, "web.ns.svc.cluster.local"), web);
        assert_eq!(over_tcp(from, "web.ns.svc.cluster.local"), web);
    }
    assert_eq!(over_udp(&pod, "www.example.com.ns.svc.cluster.local").0, RCODE::NameError);
    let world = vec![Ipv4Addr::new(192, 0, 2, 1)];
    assert_eq!(over_udp(&pod, "www.example.com"), (RCODE::NoError, world.clone(), false));
    assert_eq!(over_udp(&pod, "out.ns.svc.cluster.local"), (RCODE::NoError, world, false));

    let (_, found, cut) = over_udp(&pod, "big.ns.svc.cluster.local");
    assert!(cut && (20..40).contains(&found.len()), "{}", found.len());
    assert_eq!(over_tcp(&pod, "big.ns.svc.cluster.local").1.len(), 200);
    assert!(over_udp(&pod, "big.example").2, "cut there, cut here");
    assert_eq!(over_tcp(&pod, "big.example").1.len(), 100, "asked again over TCP");
    served.join().unwrap();
    stop.send(()).unwrap();
    end.recv_timeout(WAIT).expect("the server ends");
}
