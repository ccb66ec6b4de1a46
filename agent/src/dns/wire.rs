//! The part of the DNS message format a cluster's server needs: it reads one question and writes A, AAAA, CNAME, PTR, SRV and
//! SOA records (RFC 1035, EDNS of RFC 6891). What goes through to other servers is passed on as bytes, untouched.
//!
//! Own code because it is smaller than any crate's, and because unknown types and odd names must pass, not fail: it is the only DNS
//! codec of the agent. `simple-dns` reads what it wrote in the tests, as a judge that shares no line with it.

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) const HEADER_LEN: usize = 12;
/// RFC 1035 section 3.1: labels of 63 bytes, names of 255.
const LABEL_MAX: usize = 63;
const NAME_MAX: usize = 255;
/// What a client without EDNS takes over UDP.
const UDP_MIN: u16 = 512;
/// What we send over UDP at most: fits every path unfragmented (DNS flag day 2020).
pub(crate) const UDP_MAX: u16 = 1232;
/// Records read of one foreign answer.
const RECORDS_MAX: usize = 64;

pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const ANY: u16 = 255;
}
const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_AUTHORITATIVE: u16 = 0x0400;
const FLAG_TRUNCATED: u16 = 0x0200;
const FLAG_RECURSION_DESIRED: u16 = 0x0100;
const FLAG_RECURSION_AVAILABLE: u16 = 0x0080;
const OPCODE_MASK: u16 = 0x7800;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
}

/// A question we understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Query {
    pub(crate) id: u16,
    recursion_desired: bool,
    /// Lower-case labels, the first first.
    pub(crate) labels: Vec<String>,
    pub(crate) kind: u16,
    /// The question section as it came, to be echoed.
    question: Vec<u8>,
    /// The client's UDP size, if it speaks EDNS.
    edns: Option<u16>,
}

/// Why there is no [`Query`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Bad {
    /// Not a question at all: silence, or two servers could talk for ever.
    Ignore,
    /// A whole reply that says what is wrong.
    Reply(Vec<u8>),
}

/// One record of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    /// Labels joined by dots; `None` is the name asked for.
    pub(crate) owner: Option<String>,
    pub(crate) ttl_s: u32,
    pub(crate) data: Data,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(String),
    Ptr(String),
    Srv {
        weight: u16,
        port: u16,
        target: String,
    },
    /// Of the zone: its name is the owner.
    Soa {
        zone: String,
        serial: u32,
        negative_ttl_s: u32,
    },
}

/// What to answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) rcode: Rcode,
    pub(crate) authoritative: bool,
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    pub(crate) additional: Vec<Record>,
}

impl Answer {
    /// An answer that only says what went wrong.
    pub(crate) fn failed(rcode: Rcode) -> Answer {
        Answer { rcode, authoritative: false, answers: Vec::new(), authority: Vec::new(), additional: Vec::new() }
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

impl Query {
    /// Reads a message from a client.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Query, Bad> {
        let (Some(id), Some(flags), Some(questions)) = (be16(bytes, 0), be16(bytes, 2), be16(bytes, 4)) else {
            return Err(Bad::Ignore);
        };
        if flags & FLAG_RESPONSE != 0 || bytes.len() < HEADER_LEN {
            return Err(Bad::Ignore);
        }
        let refuse = |rcode| Err(Bad::Reply(header(id, FLAG_RESPONSE | (flags & OPCODE_MASK) | rcode as u16, [0; 4])));
        if flags & OPCODE_MASK != 0 {
            return refuse(Rcode::NotImp);
        }
        let Some((labels, end)) = (questions == 1).then(|| name(bytes, HEADER_LEN)).flatten() else {
            return refuse(Rcode::FormErr);
        };
        let (Some(kind), Some(class), Some(question)) =
            (be16(bytes, end), be16(bytes, end + 2), bytes.get(HEADER_LEN..end + 4))
        else {
            return refuse(Rcode::FormErr);
        };
        if class != CLASS_IN && class != CLASS_ANY {
            return refuse(Rcode::NotImp);
        }
        let recursion_desired = flags & FLAG_RECURSION_DESIRED != 0;
        let edns = edns(bytes, end + 4);
        Ok(Query { id, recursion_desired, labels, kind, question: question.to_vec(), edns })
    }

    /// A question of our own for `target`.
    pub(crate) fn ask(id: u16, target: &str, kind: u16) -> Option<Vec<u8>> {
        let mut bytes = header(id, FLAG_RECURSION_DESIRED, [1, 0, 0, 0]);
        write_name(&mut bytes, target)?;
        put16(&mut bytes, kind);
        put16(&mut bytes, CLASS_IN);
        Some(bytes)
    }

    /// How long a reply over UDP may be.
    pub(crate) fn udp_max(&self) -> usize {
        usize::from(self.edns.unwrap_or(UDP_MIN).clamp(UDP_MIN, UDP_MAX))
    }

    /// Writes the reply in at most `len_max` bytes: additional records go first, then the answer is truncated and says so.
    pub(crate) fn reply(&self, answer: &Answer, len_max: usize) -> Vec<u8> {
        let mut bytes = header(self.id, 0, [0; 4]);
        bytes.extend_from_slice(&self.question);
        // The OPT record has eleven bytes.
        let room = len_max.saturating_sub(if self.edns.is_some() { 11 } else { 0 });
        let mut counts = [1u16, 0, 0, 0];
        let mut truncated = false;
        let sections = [(1, &answer.answers), (2, &answer.authority), (3, &answer.additional)];
        for (section, records) in sections {
            for record in records {
                let before = bytes.len();
                if truncated || write_record(&mut bytes, record).is_none() || bytes.len() > room {
                    bytes.truncate(before);
                    truncated |= section < 3;
                    break;
                }
                if let Some(count) = counts.get_mut(section) {
                    *count = count.saturating_add(1);
                }
            }
        }
        if self.edns.is_some() {
            bytes.push(0);
            put16(&mut bytes, kind::OPT);
            put16(&mut bytes, UDP_MAX);
            bytes.extend_from_slice(&[0; 6]);
            counts[3] = counts[3].saturating_add(1);
        }
        let mut flags = FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | answer.rcode as u16;
        for (set, flag) in [
            (self.recursion_desired, FLAG_RECURSION_DESIRED),
            (answer.authoritative, FLAG_AUTHORITATIVE),
            (truncated, FLAG_TRUNCATED),
        ] {
            flags |= if set { flag } else { 0 };
        }
        bytes.splice(..HEADER_LEN, header(self.id, flags, counts));
        bytes
    }

    /// Whether `reply` answers our question `id` with this question section (whatever the case of its letters).
    pub(crate) fn answered_by(&self, reply: &[u8], id: u16) -> bool {
        let question = reply.get(HEADER_LEN..HEADER_LEN.saturating_add(self.question.len()));
        is_reply(reply, id) && question.is_some_and(|q| q.eq_ignore_ascii_case(&self.question))
    }
}

/// Whether these bytes are a reply to `id`.
pub(crate) fn is_reply(bytes: &[u8], id: u16) -> bool {
    be16(bytes, 0) == Some(id) && be16(bytes, 2).is_some_and(|f| f & FLAG_RESPONSE != 0) && bytes.len() >= HEADER_LEN
}

/// Whether a reply says it was cut.
pub(crate) fn is_truncated(reply: &[u8]) -> bool {
    be16(reply, 2).is_some_and(|f| f & FLAG_TRUNCATED != 0)
}

/// Puts another id on a message.
pub(crate) fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

/// The addresses a foreign reply ends in, with their TTLs; `None` if it is no good answer.
pub(crate) fn addresses(reply: &[u8]) -> Option<Vec<(u32, Data)>> {
    if be16(reply, 2)? & 0xf != Rcode::NoError as u16 {
        return None;
    }
    let mut at = HEADER_LEN;
    for _ in 0..be16(reply, 4)? {
        at = skip_name(reply, at)?.checked_add(4)?;
    }
    let mut found = Vec::new();
    for _ in 0..usize::from(be16(reply, 6)?).min(RECORDS_MAX) {
        at = skip_name(reply, at)?;
        let (kind, len) = (be16(reply, at)?, usize::from(be16(reply, at + 8)?));
        let ttl_s = u32::from(be16(reply, at + 4)?) << 16 | u32::from(be16(reply, at + 6)?);
        let data = reply.get(at + 10..at + 10 + len)?;
        match kind {
            kind::A => found.push((ttl_s, Data::A(<[u8; 4]>::try_from(data).ok()?.into()))),
            kind::AAAA => found.push((ttl_s, Data::Aaaa(<[u8; 16]>::try_from(data).ok()?.into()))),
            _ => {}
        }
        at += 10 + len;
    }
    Some(found)
}

/// The labels of an uncompressed name and where it ends. (The first name of a message has nothing to point back to.)
fn name(bytes: &[u8], mut at: usize) -> Option<(Vec<String>, usize)> {
    let start = at;
    let mut labels = Vec::new();
    loop {
        let len = usize::from(*bytes.get(at)?);
        at += 1;
        if len == 0 {
            return (at - start <= NAME_MAX).then_some((labels, at));
        }
        if len > LABEL_MAX || at - start > NAME_MAX {
            return None;
        }
        let label = bytes.get(at..at + len)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += len;
    }
}

/// Where a name ends, compressed or not.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*bytes.get(at)?) {
            0 => return Some(at + 1),
            len if len <= LABEL_MAX => at += 1 + len,
            len if len >= 0xc0 => return Some(at + 2),
            _ => return None,
        }
    }
}

/// The UDP size in the OPT record behind the question, if there is one. Clients put nothing else there, and a record we
/// cannot read is as good as none.
fn edns(bytes: &[u8], mut at: usize) -> Option<u16> {
    let sections = (6..HEADER_LEN).step_by(2).map(|at| usize::from(be16(bytes, at).unwrap_or(0)));
    let records: usize = sections.sum();
    for _ in 0..records.min(RECORDS_MAX) {
        at = skip_name(bytes, at)?;
        if be16(bytes, at)? == kind::OPT {
            return be16(bytes, at + 2);
        }
        at += 10 + usize::from(be16(bytes, at + 8)?);
    }
    None
}

fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    put16(&mut bytes, id);
    put16(&mut bytes, flags);
    counts.iter().for_each(|count| put16(&mut bytes, *count));
    bytes
}

fn put16(bytes: &mut Vec<u8>, value: u16) {
    bytes.extend_from_slice(&value.to_be_bytes());
}

fn put32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend_from_slice(&value.to_be_bytes());
}

/// Writes a dotted name uncompressed; `None` if it is no name.
fn write_name(bytes: &mut Vec<u8>, name: &str) -> Option<()> {
    let start = bytes.len();
    for label in name.trim_end_matches('.').split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=LABEL_MAX).contains(&usize::from(*len)))?;
        bytes.push(len);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() - start <= NAME_MAX).then_some(())
}

/// Writes a record; what it wrote before it found that it cannot is for the caller to cut off.
fn write_record(bytes: &mut Vec<u8>, record: &Record) -> Option<()> {
    match &record.owner {
        // The question's name begins right behind the header.
        None => put16(bytes, 0xc000 | 12),
        Some(name) => write_name(bytes, name)?,
    }
    let code = match record.data {
        Data::A(_) => kind::A,
        Data::Aaaa(_) => kind::AAAA,
        Data::Cname(_) => kind::CNAME,
        Data::Ptr(_) => kind::PTR,
        Data::Srv { .. } => kind::SRV,
        Data::Soa { .. } => kind::SOA,
    };
    put16(bytes, code);
    put16(bytes, CLASS_IN);
    put32(bytes, record.ttl_s);
    let at = bytes.len();
    put16(bytes, 0);
    match &record.data {
        Data::A(address) => bytes.extend_from_slice(&address.octets()),
        Data::Aaaa(address) => bytes.extend_from_slice(&address.octets()),
        Data::Cname(name) | Data::Ptr(name) => write_name(bytes, name)?,
        Data::Srv { weight, port, target } => {
            [0, *weight, *port].iter().for_each(|n| put16(bytes, *n));
            write_name(bytes, target)?;
        }
        Data::Soa { zone, serial, negative_ttl_s } => {
            write_name(bytes, &format!("ns.dns.{zone}"))?;
            write_name(bytes, &format!("hostmaster.{zone}"))?;
            [*serial, 7200, 1800, 86_400, *negative_ttl_s].iter().for_each(|n| put32(bytes, *n));
        }
    }
    let len = u16::try_from(bytes.len() - at - 2).ok()?;
    bytes.get_mut(at..at + 2)?.copy_from_slice(&len.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests;
