//! Bearer tokens: who they prove their bearer to be.
//!
//! | token | where it is known from |
//! |---|---|
//! | join token | `<data-dir>/pki/join-token` |
//! | static tokens | `<data-dir>/token-auth.csv`: `token,user,uid,"group,group"` (upstream's `--token-auth-file`) |
//! | bootstrap tokens | Secrets `bootstrap-token-<id>` of kube-system |
//! | service-account tokens | signed here: [`account`] |
//! | tokens of other issuers | `<data-dir>/authentication.yaml`: [`oidc`] |

pub(crate) mod account;
mod issuer_keys;
pub(crate) mod jwt;
pub(crate) mod oidc;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use mote_api::tree::Value;
use ring::digest;

use crate::api::Api;
use crate::user::UserInfo;
use account::Accounts;
use jwt::Unproven;

/// Proven service-account tokens remembered, so that their signature is checked once.
const PROVEN_MAX: usize = 512;
/// Rows of the static token file.
const STATIC_MAX: usize = 10_000;

/// The tokens that are good.
pub struct Tokens {
    /// `<id>.<secret>`
    pub(crate) join: String,
    /// By the SHA-256 of the token: looking it up takes no time that tells of it.
    fixed: HashMap<Hash, UserInfo>,
    pub(crate) accounts: Accounts,
    issuers: Vec<oidc::Issuer>,
    proven: RefCell<HashMap<Hash, Value>>,
}

type Hash = [u8; 32];

/// What a token proves.
pub(crate) struct Proven {
    pub user: UserInfo,
    pub audiences: Vec<String>,
}

fn hash(token: &str) -> Hash {
    digest::digest(&digest::SHA256, token.as_bytes()).as_ref().try_into().unwrap_or_default()
}

/// Compares in a time that does not tell where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |d, (a, b)| d | (a ^ b)) == 0
}

impl Tokens {
    /// `folder`: the data folder, for the files that may be there.
    pub(crate) fn new(join: String, accounts: Accounts, folder: &Path) -> Result<Tokens, String> {
        let read = |name: &str| match std::fs::read_to_string(folder.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(format!("read {}: {e}", folder.join(name).display())),
        };
        let fixed = match read("token-auth.csv")? {
            Some(text) => static_tokens(&text).map_err(|e| format!("token-auth.csv: {e}"))?,
            None => HashMap::new(),
        };
        let issuers = match read("authentication.yaml")? {
            Some(text) => oidc::parse(&text, folder).map_err(|e| format!("authentication.yaml: {e}"))?,
            None => Vec::new(),
        };
        Ok(Tokens { join, fixed, accounts, issuers, proven: RefCell::default() })
    }
    /// Who an `Authorization` header proves its sender to be.
    pub(crate) async fn user(&self, api: &Api, header: Option<&str>) -> Option<UserInfo> {
        let token = header?.strip_prefix("Bearer ")?.trim();
        match self.prove(api, token, &[]).await {
            Ok(proven) => proven.map(|p| p.user),
            Err(why) => {
                log::debug!("a token was refused: {why}");
                None
            }
        }
    }
    /// Whose token this is; Err: it is known, but not good (any more). `audiences`: who asks, if it is not the API itself.
    pub(crate) async fn prove(&self, api: &Api, token: &str, audiences: &[&str]) -> Result<Option<Proven>, String> {
        // Whoever gives out a token without an audience means the API.
        let own = &self.accounts.issuer;
        let plain = |user| {
            let good = audiences.is_empty() || audiences.contains(&own.as_str());
            good.then(|| Proven { user, audiences: vec![own.clone()] })
        };
        if same(token.as_bytes(), self.join.as_bytes()) {
            let id = self.join.split_once('.').map_or("", |(id, _)| id);
            let groups = ["system:bootstrappers", "system:authenticated"];
            return Ok(plain(UserInfo::new(format!("system:bootstrap:{id}"), &groups)));
        }
        let hash = hash(token);
        if let Some(user) = self.fixed.get(&hash) {
            return Ok(plain(user.clone()));
        }
        let Some(unproven) = Unproven::parse(token) else {
            return Ok(account::bootstrap(api, token).await.and_then(plain));
        };
        let now = api.now().unix();
        if unproven.issuer() != self.accounts.issuer {
            return match oidc::user(&self.issuers, unproven, now).await {
                Some(user) => user.map(plain),
                None => Ok(None),
            };
        }
        let known = self.proven.borrow().get(&hash).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = self.accounts.open(unproven).ok_or("token is of another issuer")??;
                let mut proven = self.proven.borrow_mut();
                if proven.len() >= PROVEN_MAX {
                    proven.clear();
                }
                proven.insert(hash, claims.clone());
                claims
            }
        };
        jwt::in_time(&claims, now)?;
        let audiences = account::good_for(&self.accounts, &claims, audiences);
        if audiences.is_empty() {
            return Err("token is not for this audience".into());
        }
        let user = self.accounts.user(api, &claims).await?;
        Ok(Some(Proven { user, audiences }))
    }
}

/// Rows `token,user,uid[,"group,group"]`.
fn static_tokens(text: &str) -> Result<HashMap<Hash, UserInfo>, String> {
    let mut out = HashMap::new();
    for (n, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#')) {
        let bad = |why: &str| format!("line {}: {why}", n + 1);
        let mut cells = line.splitn(4, ',').map(str::trim);
        let mut cell = || cells.next().map(|c| c.trim_matches('"').trim());
        let (Some(token), Some(user), Some(uid)) = (cell(), cell(), cell()) else {
            return Err(bad("want token,user,uid[,\"group,group\"]"));
        };
        if token.is_empty() || user.is_empty() {
            return Err(bad("token or user is empty"));
        }
        let groups = cell().unwrap_or("").split(',').map(str::trim).filter(|g| !g.is_empty());
        let groups = groups.chain(["system:authenticated"]).map(str::to_owned).collect();
        let user = UserInfo { name: user.into(), uid: uid.into(), groups, extra: Vec::new() };
        if out.len() >= STATIC_MAX {
            return Err(bad("too many rows"));
        }
        if out.insert(hash(token), user).is_some() {
            return Err(bad("the same token again"));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_token_file() {
        let table = static_tokens("# who\nabc,ann,1,\"dev, ops\"\nd,bob,2\n").unwrap();
        let ann = &table[&hash("abc")];
        assert_eq!(
            (ann.name.as_str(), ann.uid.as_str(), ann.groups.join(" ").as_str()),
            ("ann", "1", "dev ops system:authenticated")
        );
        assert_eq!(table[&hash("d")].groups, ["system:authenticated"]);
        for (bad, why) in [("a,b", "line 1"), (",b,c", "empty"), ("a,b,c\na,d,e", "line 2")] {
            assert!(static_tokens(bad).unwrap_err().contains(why), "{bad}");
        }
    }

    #[test]
    fn sameness() {
        assert!(same(b"abc", b"abc") && !same(b"abc", b"abd") && !same(b"abc", b"ab") && same(b"", b""));
    }
}
