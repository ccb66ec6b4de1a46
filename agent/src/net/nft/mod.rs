//! nf_tables over netlink: one [`Batch`] is one transaction of one table (all of it or nothing). Numbers in attributes are
//! big-endian on every machine; what lies *inside* registers is network order for packet fields and the machine's order for
//! marks, counters and route types (include/uapi/linux/netfilter/nf_tables.h).

pub(crate) mod expr;
pub(crate) mod present;

use std::time::Duration;

use super::Error;
use super::socket::{Refusal, Socket};
use super::wire::{Messages, flags};
use expr::{Expr, Verdict};

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const SUBSYS_NFTABLES: u16 = 10;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
pub(crate) const NFPROTO_IPV4: u8 = 2;

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_DESC: u16 = 9;
const NFTA_SET_DESC_SIZE: u16 = 1;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_TIMEOUT: u16 = 11;
const NFTA_SET_USERDATA: u16 = 13;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_LIST_SET_ID: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;

const NFT_SET_ANONYMOUS: u32 = 0x1;
const NFT_SET_CONSTANT: u32 = 0x2;
const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_TIMEOUT: u32 = 0x10;
const NFT_SET_EVAL: u32 = 0x20;
const NFT_DATA_VERDICT: u32 = 0xffff_ff00;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// Length of `struct nfgenmsg`.
const GENERIC_LEN: usize = 4;
/// The longest chain name the kernel takes, without its zero (NFT_CHAIN_MAXNAMELEN is 128).
pub(crate) const CHAIN_NAME_MAX: usize = 127;
/// Elements per message, so that even with the longest chain names the list fits its 16-bit length.
const ELEMENTS_PER_MESSAGE: usize = 200;
/// Entries of a set that rules fill.
const MEMORY_MAX: u32 = 65_535;
/// What `nft` calls an anonymous map; the kernel fills the number in.
pub(crate) const ANONYMOUS: &str = "__map%d";

/// nft's numbers for what keys and values are (only for who lists the ruleset). Joined keys shift by six bits.
pub(crate) mod types {
    pub(crate) const INTEGER: u32 = 4;
    pub(crate) const ADDR: u32 = 7;
    pub(crate) const PROTO: u32 = 12;
    pub(crate) const PORT: u32 = 13;
    pub(crate) const ADDR_PROTO_PORT: u32 = ADDR << 12 | PROTO << 6 | PORT;
    pub(crate) const PROTO_PORT: u32 = PROTO << 6 | PORT;
    pub(crate) const ADDR_ADDR: u32 = ADDR << 6 | ADDR;
    pub(crate) const ADDR_PORT: u32 = ADDR << 6 | PORT;
}

/// Where a base chain hooks into the packet's way.
#[derive(Clone, Copy)]
pub(crate) struct Base {
    pub(crate) kind: &'static str,
    pub(crate) hook: Hook,
    pub(crate) priority: i32,
}

#[derive(Clone, Copy)]
pub(crate) enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A set's or map's type.
#[derive(Clone, Copy)]
pub(crate) struct SetType {
    pub(crate) key: u32,
    /// Bytes of a key; each part of a joined key takes a multiple of four.
    pub(crate) key_len: u32,
    pub(crate) value: Value,
}

/// What a set's elements lead to.
#[derive(Clone, Copy)]
pub(crate) enum Value {
    None,
    Verdict,
    /// nft's type number and length in bytes.
    Data(u32, u32),
}

/// One element of a set or map.
pub(crate) struct Element<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: ElementValue<'a>,
}

pub(crate) enum ElementValue<'a> {
    None,
    Goto(&'a str),
    Data(&'a [u8]),
}

/// One transaction on one table.
pub(crate) struct Batch {
    messages: Messages,
    family: u8,
    table: String,
    last_set_id: u32,
}

impl Batch {
    /// On a table of the ip family, as all of ours are.
    pub(crate) fn new(table: &str) -> Batch {
        Batch::of(NFPROTO_IPV4, table)
    }

    /// On someone else's table.
    pub(crate) fn of(family: u8, table: &str) -> Batch {
        let mut messages = Messages::default();
        messages.message(NFNL_MSG_BATCH_BEGIN, 0, |m| generic(m, NFPROTO_UNSPEC, SUBSYS_NFTABLES));
        Batch { messages, family, table: table.to_owned(), last_set_id: 0 }
    }

    fn add(&mut self, kind: u16, kind_flags: u16, body: impl FnOnce(&mut Messages, &str)) {
        let (family, table) = (self.family, &self.table);
        self.messages.message(SUBSYS_NFTABLES << 8 | kind, kind_flags, |m| {
            generic(m, family, 0);
            body(m, table);
        });
    }

    /// Makes the table empty, whether it was there or not.
    pub(crate) fn reset_table(&mut self) {
        self.new_table();
        self.delete_table();
        self.new_table();
    }

    fn new_table(&mut self) {
        self.add(NEWTABLE, flags::CREATE, |m, table| m.attr_str(NFTA_TABLE_NAME, table));
    }

    /// Deletes the table with all that is in it.
    pub(crate) fn delete_table(&mut self) {
        self.add(DELTABLE, 0, |m, table| m.attr_str(NFTA_TABLE_NAME, table));
    }

    /// A chain that is only jumped to, or a base chain with policy accept.
    pub(crate) fn chain(&mut self, name: &str, base: Option<Base>) {
        self.add(NEWCHAIN, flags::CREATE, |m, table| {
            m.attr_str(NFTA_CHAIN_TABLE, table);
            m.attr_str(NFTA_CHAIN_NAME, name);
            if let Some(base) = base {
                m.nest(NFTA_CHAIN_HOOK, |m| {
                    m.attr_be32(NFTA_HOOK_HOOKNUM, base.hook as u32);
                    m.attr_be32(NFTA_HOOK_PRIORITY, base.priority.cast_unsigned());
                });
                m.attr_be32(NFTA_CHAIN_POLICY, NF_ACCEPT);
                m.attr_str(NFTA_CHAIN_TYPE, base.kind);
            }
        });
    }

    /// Deletes a chain nothing refers to; its rules must be gone ([`Batch::flush_chain`]).
    pub(crate) fn delete_chain(&mut self, name: &str) {
        self.add(DELCHAIN, 0, |m, table| {
            m.attr_str(NFTA_CHAIN_TABLE, table);
            m.attr_str(NFTA_CHAIN_NAME, name);
        });
    }

    /// Appends a rule.
    pub(crate) fn rule(&mut self, chain: &str, exprs: &[Expr<'_>]) {
        self.new_rule(chain, exprs, flags::APPEND, None);
    }

    /// Puts a rule with a comment before all others of the chain.
    pub(crate) fn first_rule(&mut self, chain: &str, exprs: &[Expr<'_>], comment: &str) {
        self.new_rule(chain, exprs, 0, Some(comment));
    }

    /// Deletes one rule.
    pub(crate) fn delete_rule(&mut self, chain: &str, handle: u64) {
        self.add(DELRULE, 0, |m, table| {
            m.attr_str(NFTA_RULE_TABLE, table);
            m.attr_str(NFTA_RULE_CHAIN, chain);
            m.attr(NFTA_RULE_HANDLE, &handle.to_be_bytes());
        });
    }

    fn new_rule(&mut self, chain: &str, exprs: &[Expr<'_>], place: u16, comment: Option<&str>) {
        self.add(NEWRULE, flags::CREATE | place, |m, table| {
            m.attr_str(NFTA_RULE_TABLE, table);
            m.attr_str(NFTA_RULE_CHAIN, chain);
            m.nest(NFTA_RULE_EXPRESSIONS, |m| {
                for e in exprs {
                    m.nest(NFTA_LIST_ELEM, |m| e.write(m));
                }
            });
            if let Some(comment) = comment {
                m.attr(NFTA_RULE_USERDATA, &user_comment(comment));
            }
        });
    }

    /// Deletes all rules of a chain.
    pub(crate) fn flush_chain(&mut self, chain: &str) {
        self.add(DELRULE, 0, |m, table| {
            m.attr_str(NFTA_RULE_TABLE, table);
            m.attr_str(NFTA_RULE_CHAIN, chain);
        });
    }

    /// A named set or map.
    pub(crate) fn set(&mut self, name: &str, set: SetType) {
        self.new_set(name, set, 0, |_| {});
    }

    /// A set that rules fill, each entry of which ends after `timeout` without use.
    pub(crate) fn memory_set(&mut self, name: &str, set: SetType, timeout: Duration) {
        let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.new_set(name, set, NFT_SET_TIMEOUT | NFT_SET_EVAL, |m| {
            m.nest(NFTA_SET_DESC, |m| m.attr_be32(NFTA_SET_DESC_SIZE, MEMORY_MAX));
            m.attr(NFTA_SET_TIMEOUT, &ms.to_be_bytes());
        });
    }

    /// An anonymous map for the next rule, which refers to it by [`ANONYMOUS`] and the returned id. Its keys are numbers in
    /// the machine's order.
    pub(crate) fn anonymous_map(&mut self, set: SetType, elements: &[Element<'_>]) -> u32 {
        let size = u32::try_from(elements.len()).unwrap_or(u32::MAX);
        self.new_set(ANONYMOUS, set, NFT_SET_ANONYMOUS | NFT_SET_CONSTANT, |m| {
            m.nest(NFTA_SET_DESC, |m| m.attr_be32(NFTA_SET_DESC_SIZE, size));
            // nft's note to itself: attribute 0 (key byte order), four bytes, 1 = the host's.
            let [a, b, c, d] = 1u32.to_ne_bytes();
            m.attr(NFTA_SET_USERDATA, &[0, 4, a, b, c, d]);
        });
        let id = self.last_set_id;
        self.change_elements(NEWSETELEM, ANONYMOUS, Some(id), elements);
        id
    }

    fn new_set(&mut self, name: &str, set: SetType, extra: u32, more: impl FnOnce(&mut Messages)) {
        self.last_set_id += 1;
        let id = self.last_set_id;
        let map = if matches!(set.value, Value::None) { 0 } else { NFT_SET_MAP };
        self.add(NEWSET, flags::CREATE, |m, table| {
            m.attr_str(NFTA_SET_TABLE, table);
            m.attr_str(NFTA_SET_NAME, name);
            m.attr_be32(NFTA_SET_FLAGS, map | extra);
            m.attr_be32(NFTA_SET_KEY_TYPE, set.key);
            m.attr_be32(NFTA_SET_KEY_LEN, set.key_len);
            match set.value {
                Value::None => {}
                Value::Verdict => {
                    m.attr_be32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT);
                    m.attr_be32(NFTA_SET_DATA_LEN, 0);
                }
                Value::Data(kind, len) => {
                    m.attr_be32(NFTA_SET_DATA_TYPE, kind);
                    m.attr_be32(NFTA_SET_DATA_LEN, len);
                }
            }
            m.attr_be32(NFTA_SET_ID, id);
            more(m);
        });
    }

    /// Deletes a set nothing refers to.
    pub(crate) fn delete_set(&mut self, name: &str) {
        self.add(DELSET, 0, |m, table| {
            m.attr_str(NFTA_SET_TABLE, table);
            m.attr_str(NFTA_SET_NAME, name);
        });
    }

    /// Adds elements to a named set.
    pub(crate) fn add_elements(&mut self, set: &str, elements: &[Element<'_>]) {
        self.change_elements(NEWSETELEM, set, None, elements);
    }

    /// Deletes elements of a named set (only the keys count).
    pub(crate) fn delete_elements(&mut self, set: &str, elements: &[Element<'_>]) {
        self.change_elements(DELSETELEM, set, None, elements);
    }

    fn change_elements(&mut self, kind: u16, set: &str, id: Option<u32>, elements: &[Element<'_>]) {
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let kind_flags = if kind == NEWSETELEM { flags::CREATE } else { 0 };
            self.add(kind, kind_flags, |m, table| {
                m.attr_str(NFTA_SET_ELEM_LIST_TABLE, table);
                m.attr_str(NFTA_SET_ELEM_LIST_SET, set);
                if let Some(id) = id {
                    m.attr_be32(NFTA_SET_ELEM_LIST_SET_ID, id);
                }
                m.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |m| {
                    for element in chunk {
                        m.nest(NFTA_LIST_ELEM, |m| {
                            m.nest(NFTA_SET_ELEM_KEY, |m| expr::data_value(m, element.key));
                            match element.value {
                                ElementValue::None => {}
                                ElementValue::Goto(chain) => {
                                    m.nest(NFTA_SET_ELEM_DATA, |m| expr::data_verdict(m, Verdict::Goto(chain)));
                                }
                                ElementValue::Data(data) => {
                                    m.nest(NFTA_SET_ELEM_DATA, |m| expr::data_value(m, data));
                                }
                            }
                        });
                    }
                });
            });
        }
    }

    /// The whole transaction as messages.
    pub(crate) fn finish(mut self) -> Messages {
        self.messages.message(NFNL_MSG_BATCH_END, 0, |m| generic(m, NFPROTO_UNSPEC, SUBSYS_NFTABLES));
        self.messages
    }

    /// Sends the transaction.
    ///
    /// # Errors
    /// The kernel's refusal; then nothing has changed.
    pub(crate) fn commit(self, socket: &mut Socket) -> Result<(), Refusal> {
        socket.batch(&self.finish())
    }
}

/// `struct nfgenmsg`; its resource id is the one fixed field in network order.
pub(crate) fn generic(m: &mut Messages, family: u8, resource: u16) {
    m.raw(&[family, 0]);
    m.raw(&resource.to_be_bytes());
}

/// nft's form of a comment on a rule: kind 0, length, text, zero. Longer ones are cut.
fn user_comment(text: &str) -> Vec<u8> {
    let text = text.as_bytes().get(..text.len().min(128)).unwrap_or_default();
    let mut data = vec![0, u8::try_from(text.len() + 1).unwrap_or(0)];
    data.extend_from_slice(text);
    data.push(0);
    data
}

/// Deletes a table; fine if there is none, or no nf_tables at all.
pub(crate) fn delete_table(socket: &mut Socket, table: &str) -> Result<(), Error> {
    let mut batch = Batch::new(table);
    batch.delete_table();
    match batch.commit(socket) {
        Err(e) if matches!(e.errno, libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => Ok(()),
        other => other.map_err(|e| e.error("delete nf_tables table", table)),
    }
}
