//! Bearer tokens. Only the join token so far.

use super::UserInfo;

/// The tokens that are good.
pub struct Tokens {
    /// `<id>.<secret>`
    pub(crate) join: String,
}

/// Compares in a time that does not tell where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |d, (a, b)| d | (a ^ b)) == 0
}

impl Tokens {
    /// Who an `Authorization` header proves its sender to be.
    pub fn user(&self, header: Option<&str>) -> Option<UserInfo> {
        let token = header?.strip_prefix("Bearer ")?.trim();
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
        let tokens = Tokens { join: "abcdef.0123456789abcdef".into() };
        let user = |h: &str| tokens.user(Some(h)).map(|u| u.name);
        assert_eq!(user("Bearer abcdef.0123456789abcdef").as_deref(), Some("system:bootstrap:abcdef"));
        for bad in ["Bearer abcdef.0123456789abcdee", "Bearer abcdef.", "Bearer ", "Basic abcdef.0123456789abcdef", ""]
        {
            assert_eq!(user(bad), None, "{bad}");
        }
        assert!(tokens.user(None).is_none());
    }
}
