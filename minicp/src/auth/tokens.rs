//! Bearer tokens: the join token, and who may sign those of ServiceAccounts.

use super::UserInfo;
use super::account::Signer;

/// The tokens that are good.
pub struct Tokens {
    /// `<id>.<secret>`
    pub(crate) join: String,
    pub(crate) accounts: Signer,
}

/// The token in an `Authorization` header.
pub(crate) fn bearer(header: &str) -> Option<&str> {
    header.strip_prefix("Bearer ").map(str::trim)
}

/// Compares in a time that does not tell where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |d, (a, b)| d | (a ^ b)) == 0
}

impl Tokens {
    /// Whom the join token proves its sender to be.
    pub(crate) fn joining(&self, token: &str) -> Option<UserInfo> {
        let (id, _) = self.join.split_once('.')?;
        same(token.as_bytes(), self.join.as_bytes())
            .then(|| UserInfo::new(format!("system:bootstrap:{id}"), &["system:bootstrappers", "system:authenticated"]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_der();
        let accounts = Signer::new(&key, String::new()).unwrap();
        let tokens = Tokens { join: "abcdef.0123456789abcdef".into(), accounts };
        let user = |h: &str| bearer(h).and_then(|token| tokens.joining(token)).map(|u| u.name);
        assert_eq!(user("Bearer abcdef.0123456789abcdef").as_deref(), Some("system:bootstrap:abcdef"));
        for bad in ["Bearer abcdef.0123456789abcdee", "Bearer abcdef.", "Bearer ", "Basic abcdef.0123456789abcdef", ""]
        {
            assert_eq!(user(bad), None, "{bad}");
        }
    }
}
