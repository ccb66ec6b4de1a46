//! Lets the pods' packets pass a host firewall that drops what it forwards (Docker's and ufw's do): two rules with a comment of
//! our own at the head of each such chain, as kube-proxy has them, and nothing else is touched. Best effort: a firewall that
//! cannot be read, or that drops by rules instead of by policy, stays as it is, and legacy iptables is not seen from here.

use super::nft::Batch;
use super::nft::expr::{self, Expr, Meta, R0, Verdict};
use super::nft::present::{self, DroppingChain};
use super::socket::{Refusal, Socket};
use super::{Cidr, Error, Tag};

/// `NFPROTO_IPV4`, as the packet's family shows in a chain of several.
const FAMILY_IPV4: u8 = 2;

/// Makes way for the pods.
pub(super) fn open(tag: Tag, cluster: Cidr) {
    let want = format!("{}{cluster}", comment_start(tag));
    each_chain(
        |socket, chain, ours| {
            if ours.len() == 2 && ours.iter().all(|(_, comment)| *comment == want) {
                return Ok(());
            }
            let mut batch = cleared(chain, ours);
            for field in [expr::IP_SADDR, expr::IP_DADDR] {
                let mut rule = Vec::new();
                if chain.is_mixed() {
                    rule.push(Expr::Meta { key: Meta::NfProto, to: R0 });
                    rule.push(Expr::Cmp { reg: R0, equal: true, data: vec![FAMILY_IPV4] });
                }
                rule.extend(expr::in_cidr(field, true, cluster));
                rule.push(Expr::Verdict(Verdict::Accept));
                batch.first_rule(&chain.name, &rule, &want);
            }
            batch.commit(socket)
        },
        tag,
    );
}

/// Takes the rules away.
pub(super) fn close(tag: Tag) {
    each_chain(|socket, chain, ours| if ours.is_empty() { Ok(()) } else { cleared(chain, ours).commit(socket) }, tag);
}

fn comment_start(tag: Tag) -> String {
    format!("mote-{tag} ")
}

/// Hands every dropping chain and our own rules in it to `work`.
fn each_chain(work: impl Fn(&mut Socket, &DroppingChain, &[(u64, String)]) -> Result<(), Refusal>, tag: Tag) {
    let ours = comment_start(tag);
    let all = || -> Result<(), Error> {
        let mut socket = Socket::netfilter()?;
        let chains = present::dropping_chains(&mut socket).map_err(|e| e.error("list", "firewall chains"))?;
        for chain in chains {
            let failed = |e: Refusal| e.error("change firewall chain", format!("{} {}", chain.table, chain.name));
            let mut rules = present::commented_rules(&mut socket, &chain).map_err(failed)?;
            rules.retain(|(_, comment)| comment.starts_with(&ours));
            work(&mut socket, &chain, &rules).map_err(failed)?;
        }
        Ok(())
    };
    if let Err(e) = all() {
        log::warn!("the host's firewall may drop packets of pods: {e}");
    }
}

/// A transaction that begins by deleting these rules.
fn cleared(chain: &DroppingChain, rules: &[(u64, String)]) -> Batch {
    let mut batch = Batch::of(chain.family, &chain.table);
    rules.iter().for_each(|(handle, _)| batch.delete_rule(&chain.name, *handle));
    batch
}
