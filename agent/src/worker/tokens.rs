//! A pod's service-account tokens: asked for once and kept until they are due, like upstream's kubelet does it.
//!
//! Every token is another text, and another text is a new version of the volume it lies in: one a minute for each pod would cost a
//! disk (where the run folder is on one) 14 MB an hour, and the control plane a signature each.

use std::collections::BTreeMap;
use std::time::Duration;

use mote_api::tree::{Value, str_at};

use crate::clock::{Moment, parse};
use crate::pods::volumes::Tokens;

/// A token is not older than this, however long it would be good (upstream's bound).
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// One token, and when to ask for the next.
struct Held {
    token: String,
    due: Moment,
}

/// The tokens of one pod, by audience.
#[derive(Default)]
pub(super) struct TokenCache(BTreeMap<String, Held>);

impl TokenCache {
    /// Whether there is a token for this audience that may go on.
    pub(super) fn has(&self, audience: &str, now: Moment) -> bool {
        self.0.get(audience).is_some_and(|held| now < held.due)
    }
    /// Takes what a TokenRequest was answered with.
    pub(super) fn keep(&mut self, audience: &str, answer: &Value, now: Moment) {
        let end = parse(str_at(answer, &["status", "expirationTimestamp"])).unwrap_or(now);
        let due = now.plus((end.since(now) / 5 * 4).min(AGE_MAX));
        let token = str_at(answer, &["status", "token"]).to_owned();
        self.0.insert(audience.to_owned(), Held { token, due });
    }
    /// What there is: one whose successor could not be had is better than none.
    pub(super) fn tokens(&self) -> Tokens {
        self.0.iter().map(|(audience, held)| (audience.clone(), held.token.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::tree::json;

    #[test]
    fn a_token_is_asked_for_again_at_four_fifths_of_its_life_or_after_a_day() {
        let at = Moment::from_seconds;
        for (good_for, due) in [(3600, 2880), (600, 480), (365 * 86_400, 86_400), (0, 0)] {
            let mut cache = TokenCache::default();
            let answer = json!({"status": {"token": "t", "expirationTimestamp": at(1_000_000 + good_for).rfc3339()}});
            cache.keep("a", &answer, at(1_000_000));
            assert_eq!(cache.has("a", at(1_000_000 + due - 1)), due > 0, "{good_for}");
            assert!(!cache.has("a", at(1_000_000 + due)), "{good_for}");
            assert!(!cache.has("", at(1_000_000)), "of another audience");
            assert_eq!(
                cache.tokens().get("a").map(String::as_str),
                Some("t"),
                "the old one stays until there is a new one"
            );
        }
        let mut cache = TokenCache::default();
        cache.keep("", &json!({"status": {"token": "t"}}), at(5));
        assert!(!cache.has("", at(5)), "no end is told: asked for at every look");
    }
}
