use super::*;
use proptest::prelude::*;
use simple_dns::{Packet, PacketFlag, QTYPE, RCODE, TYPE, rdata::RData};

/// A question as another library writes it.
fn question(name: &str, kind: TYPE, edns: Option<u16>) -> Vec<u8> {
    let mut packet = Packet::new_query(0x1234);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = simple_dns::Name::new_unchecked(name);
    packet.questions.push(simple_dns::Question::new(name, QTYPE::TYPE(kind), simple_dns::CLASS::IN.into(), false));
    if let Some(size) = edns {
        *packet.opt_mut() = Some(simple_dns::rdata::OPT { opt_codes: Vec::new(), udp_packet_size: size, version: 0 });
    }
    packet.build_bytes_vec().unwrap()
}

fn answer(answers: Vec<Record>) -> Answer {
    Answer { rcode: Rcode::NoError, authoritative: true, answers, authority: Vec::new(), additional: Vec::new() }
}

fn a(n: u8) -> Record {
    Record { owner: None, ttl_s: 5, data: Data::A([10, 0, 0, n].into()) }
}

#[test]
fn reads_what_others_write() {
    let query = Query::parse(&question("Web.NS.svc", TYPE::AAAA, None)).unwrap();
    assert_eq!((query.id, query.kind, query.labels.join(".").as_str()), (0x1234, kind::AAAA, "web.ns.svc"));
    assert_eq!(query.udp_max(), 512);
    for (said, used) in [(100, 512), (1000, 1000), (4096, 1232)] {
        assert_eq!(Query::parse(&question("a", TYPE::A, Some(said))).unwrap().udp_max(), used);
    }
}

#[test]
fn others_read_what_we_write() {
    let query = Query::parse(&question("Web.ns", TYPE::SRV, Some(1232))).unwrap();
    let mut full = answer(vec![Record {
        owner: None,
        ttl_s: 5,
        data: Data::Srv { weight: 50, port: 80, target: "web.ns".into() },
    }]);
    full.rcode = Rcode::NxDomain;
    let soa = Data::Soa { zone: "cluster.local".into(), serial: 7, negative_ttl_s: 5 };
    full.authority.push(Record { owner: Some("cluster.local".into()), ttl_s: 5, data: soa });
    full.additional.push(Record { owner: Some("web.ns".into()), ttl_s: 5, data: Data::A([10, 0, 0, 1].into()) });
    let bytes = query.reply(&full, 512);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!((packet.id(), packet.rcode()), (0x1234, RCODE::NameError));
    assert!(
        packet.has_flags(PacketFlag::RESPONSE | PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_AVAILABLE)
    );
    assert!(packet.has_flags(PacketFlag::RECURSION_DESIRED) && !packet.has_flags(PacketFlag::TRUNCATION));
    assert_eq!(packet.opt().unwrap().udp_packet_size, UDP_MAX);
    assert_eq!(packet.answers[0].name.to_string(), "Web.ns", "the client's own letters");
    assert!(matches!(&packet.answers[0].rdata, RData::SRV(s) if s.port == 80 && s.target.to_string() == "web.ns"));
    assert!(matches!(&packet.name_servers[0].rdata, RData::SOA(s) if s.serial == 7 && s.minimum == 5));
    assert!(matches!(&packet.additional_records[0].rdata, RData::A(a) if a.address == 0x0a00_0001));
}

#[test]
fn cuts_what_does_not_fit_and_says_so() {
    let query = Query::parse(&question("web.ns.svc.cluster.local", TYPE::A, None)).unwrap();
    let many = answer((0..200).map(a).collect());
    let bytes = query.reply(&many, query.udp_max());
    assert!(bytes.len() <= 512 && bytes.len() > 480, "{}", bytes.len());
    let packet = Packet::parse(&bytes).unwrap();
    assert!(packet.has_flags(PacketFlag::TRUNCATION));
    assert_eq!(Packet::parse(&query.reply(&many, 65_535)).unwrap().answers.len(), 200);
    let mut extra = answer(vec![a(1)]);
    extra.additional = (0..200).map(|n| Record { owner: Some("x.y".into()), ..a(n) }).collect();
    let bytes = query.reply(&extra, 512);
    assert!(!Packet::parse(&bytes).unwrap().has_flags(PacketFlag::TRUNCATION), "additional records may go silently");
}

#[test]
fn refuses_in_words_or_silence() {
    let good = question("a.b", TYPE::A, None);
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Query::parse(&bytes)
    };
    let rcode = |r: Result<Query, Bad>| match r {
        Err(Bad::Reply(bytes)) => bytes[3] & 0xf,
        other => panic!("{other:?}"),
    };
    assert_eq!(with(2, 0x80), Err(Bad::Ignore), "a reply is no question");
    assert_eq!(Query::parse(&good[..11]), Err(Bad::Ignore));
    assert_eq!(rcode(with(2, 0x28)), Rcode::NotImp as u8);
    assert_eq!(rcode(with(5, 2)), Rcode::FormErr as u8, "two questions");
    assert_eq!(rcode(with(12, 0xc0)), Rcode::FormErr as u8, "a pointer to nowhere");
    assert_eq!(rcode(with(12, 64)), Rcode::FormErr as u8);
    assert_eq!(rcode(with(20, 3)), Rcode::NotImp as u8, "another class");
    assert_eq!(rcode(Query::parse(&good[..good.len() - 1])), Rcode::FormErr as u8);
    let long = [&good[..12], &[&[63u8][..], &[b'a'; 63]].concat().repeat(4), &[0, 0, 1, 0, 1]].concat();
    assert_eq!(rcode(Query::parse(&long)), Rcode::FormErr as u8, "257 bytes of name");
}

#[test]
fn knows_its_own_answer() {
    let query = Query::parse(&question("a.b", TYPE::A, None)).unwrap();
    let mut reply = query.reply(&answer(vec![a(1)]), 512);
    assert!(query.answered_by(&reply, 0x1234) && !query.answered_by(&reply, 0x1235));
    assert_eq!(addresses(&reply), Some(vec![(5, Data::A([10, 0, 0, 1].into()))]));
    reply[13] = b'A';
    assert!(query.answered_by(&reply, 0x1234), "letters may change case");
    reply[13] = b'x';
    assert!(!query.answered_by(&reply, 0x1234));
    assert!(!query.answered_by(&question("a.b", TYPE::A, None), 0x1234), "a question is no answer");
    assert_eq!(addresses(&query.reply(&Answer::failed(Rcode::NxDomain), 512)), None);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), cut in 0usize..600) {
        let mut near = question("web.ns.svc.cluster.local", TYPE::A, Some(1232));
        let at = cut % near.len();
        near.splice(at.., bytes.iter().copied());
        for message in [&bytes, &near] {
            let _ = addresses(message);
            if let Ok(query) = Query::parse(message) {
                let reply = query.reply(&answer(vec![a(1)]), query.udp_max());
                prop_assert!(reply.len() <= query.udp_max());
                prop_assert!(query.answered_by(&reply, query.id));
            }
        }
    }
}
