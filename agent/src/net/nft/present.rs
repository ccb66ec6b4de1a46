//! What lies in the kernel's tables: chains of others that stand in our way, the rules we put there, whether a table is there at all.

use super::{
    GENERIC_LEN, GETCHAIN, GETRULE, GETTABLE, Hook, NF_DROP, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_UNSPEC,
    NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE, NFTA_HOOK_HOOKNUM,
    NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_TABLE, NFTA_RULE_USERDATA, NFTA_TABLE_NAME, SUBSYS_NFTABLES, generic,
};
use crate::net::Error;
use crate::net::socket::{Refusal, Socket};
use crate::net::wire::{self, Attrs, Messages, flags};

/// A base chain that drops forwarded packets nobody accepts, of the families IPv4 passes through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DroppingChain {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) name: String,
}

impl DroppingChain {
    /// Whether packets of other protocols than IPv4 pass it too.
    pub(crate) fn is_mixed(&self) -> bool {
        self.family == NFPROTO_INET
    }
}

/// All chains that drop forwarded packets by policy.
pub(crate) fn dropping_chains(socket: &mut Socket) -> Result<Vec<DroppingChain>, Refusal> {
    let request = Messages::one(SUBSYS_NFTABLES << 8 | GETCHAIN, flags::DUMP, |m| generic(m, NFPROTO_UNSPEC, 0));
    socket.dump(&request, |found: &mut Vec<DroppingChain>, _, body| found.extend(dropping_chain(body)))
}

fn dropping_chain(body: &[u8]) -> Option<DroppingChain> {
    let family = *body.first().filter(|f| matches!(**f, NFPROTO_INET | NFPROTO_IPV4))?;
    let attrs = Attrs::after(body, GENERIC_LEN);
    let number = |path: &[u16]| attrs.find_path(path).and_then(|v| v.first_chunk()).map(|b| u32::from_be_bytes(*b));
    let forward = number(&[NFTA_CHAIN_HOOK, NFTA_HOOK_HOOKNUM])? == Hook::Forward as u32;
    let drops = number(&[NFTA_CHAIN_POLICY])? == NF_DROP;
    let filters = wire::text(attrs.find(NFTA_CHAIN_TYPE)?) == "filter";
    (forward && drops && filters).then_some(DroppingChain {
        family,
        table: wire::text(attrs.find(NFTA_CHAIN_TABLE)?),
        name: wire::text(attrs.find(NFTA_CHAIN_NAME)?),
    })
}

/// The rules of a chain that carry a comment, as (handle, comment).
pub(crate) fn commented_rules(socket: &mut Socket, chain: &DroppingChain) -> Result<Vec<(u64, String)>, Refusal> {
    let request = Messages::one(SUBSYS_NFTABLES << 8 | GETRULE, flags::DUMP, |m| {
        generic(m, chain.family, 0);
        m.attr_str(NFTA_RULE_TABLE, &chain.table);
        m.attr_str(NFTA_RULE_CHAIN, &chain.name);
    });
    socket.dump(&request, |found: &mut Vec<(u64, String)>, _, body| {
        let attrs = Attrs::after(body, GENERIC_LEN);
        let handle = attrs.find(NFTA_RULE_HANDLE).and_then(|v| v.first_chunk()).map(|b| u64::from_be_bytes(*b));
        if let (Some(handle), Some([0, _, text @ ..])) = (handle, attrs.find(NFTA_RULE_USERDATA)) {
            found.push((handle, wire::text(text)));
        }
    })
}

/// Whether the table is there.
pub(crate) fn table_exists(socket: &mut Socket, table: &str) -> Result<bool, Error> {
    let request = Messages::one(SUBSYS_NFTABLES << 8 | GETTABLE, 0, |m| {
        generic(m, NFPROTO_IPV4, 0);
        m.attr_str(NFTA_TABLE_NAME, table);
    });
    match socket.get(&request, |_| ()) {
        Ok(()) => Ok(true),
        Err(e) if e.errno == libc::ENOENT => Ok(false),
        Err(e) => Err(e.error("read nf_tables table", table)),
    }
}
