//! What the audit log needs to know of a request, from its beginning to its end.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use mote_api::time::Time;
use mote_api::tree::Value;

use super::App;
use super::answer::Answer;
use super::asked::Asked;
use super::body::AnswerBody;
use crate::api::request::Target;
use crate::audit::{Facts, Level, Record};
use crate::user::UserInfo;

/// Bytes of an answer that is written into the audit log; of a longer one its length is.
const ANSWER_BYTES_MAX: usize = 1 << 20;

pub(super) struct Trail {
    sender: Rc<UserInfo>,
    target: Option<Target>,
    level: Level,
    from: Option<IpAddr>,
    received: Time,
}

impl Trail {
    /// Makes `asked` keep its body if the policy wants it.
    pub(super) fn new(app: &App, asked: &mut Asked, from: Option<IpAddr>, received: Time) -> Trail {
        let parsed = Target::parse(&app.api.registry(), asked.method.as_str(), &asked.path, &asked.query);
        let mut trail = Trail {
            sender: asked.user.clone(),
            target: parsed.and_then(Result::ok),
            level: Level::None,
            from,
            received,
        };
        let verb = trail.verb(asked);
        trail.level = app.audit.as_ref().map_or(Level::None, |a| a.level(&trail.facts(asked, &verb)));
        let whole = matches!(trail.level, Level::Request | Level::RequestResponse);
        asked.kept = whole.then(|| RefCell::new(Value::Null));
        trail
    }
    /// The object of an answer, where the policy wants it.
    fn answer(&self, answer: &Answer) -> Option<Result<Value, usize>> {
        let AnswerBody::Whole(Some(bytes)) = answer.body() else { return None };
        if self.level != Level::RequestResponse {
            return None;
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            return Some(Err(bytes.len()));
        }
        serde_json::from_slice(bytes).ok().map(Ok)
    }
    fn verb(&self, asked: &Asked) -> String {
        let plain = || asked.method.as_str().to_ascii_lowercase();
        self.target.as_ref().map_or_else(plain, |t| t.verb.name().to_owned())
    }
    fn facts<'a>(&'a self, asked: &'a Asked, verb: &'a str) -> Facts<'a> {
        Facts { user: &self.sender, verb, path: &asked.path, target: self.target.as_ref() }
    }
    /// Notes the answer.
    pub(super) fn end(self, app: &App, asked: &Asked, answer: &Answer, message: &str) {
        let Some(audit) = &app.audit else { return };
        let verb = self.verb(asked);
        audit.note(Record {
            id: app.api.uuid(),
            level: self.level,
            facts: self.facts(asked, &verb),
            uri: &asked.uri.to_string(),
            impersonated: (!Rc::ptr_eq(&self.sender, &asked.user)).then_some(&*asked.user),
            from: self.from.map_or_else(String::new, |ip| ip.to_string()),
            agent: asked.user_agent(),
            body: asked.kept.as_ref().map(RefCell::take),
            answer: self.answer(answer),
            complete: matches!(answer.body(), AnswerBody::Whole(_)),
            code: answer.status().as_u16(),
            message,
            received: self.received.micro(),
            done: app.api.now().micro(),
        });
    }
}
