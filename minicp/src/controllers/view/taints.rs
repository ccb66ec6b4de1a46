//! What keeps pods from nodes, and what lets them go there all the same.

use mote_api::time::Time;
use mote_api::tree::{Value, i64_at, str_at};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl Effect {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "NoSchedule" => Some(Effect::NoSchedule),
            "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
            "NoExecute" => Some(Effect::NoExecute),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Effect::NoSchedule => "NoSchedule",
            Effect::PreferNoSchedule => "PreferNoSchedule",
            Effect::NoExecute => "NoExecute",
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Taint {
    pub key: Box<str>,
    pub value: Box<str>,
    pub effect: Effect,
    /// When a NoExecute taint was set.
    pub added: Option<Time>,
}

pub struct Toleration {
    /// Empty with `exists`: every taint.
    pub key: Box<str>,
    pub exists: bool,
    pub value: Box<str>,
    pub effect: Option<Effect>,
    /// For how long a NoExecute taint is borne; `None` is for ever.
    pub seconds: Option<i64>,
}

impl Toleration {
    pub(super) fn parse(t: &Value) -> Self {
        Toleration {
            key: str_at(t, &["key"]).into(),
            exists: str_at(t, &["operator"]) == "Exists",
            value: str_at(t, &["value"]).into(),
            effect: Effect::parse(str_at(t, &["effect"])),
            seconds: i64_at(t, &["tolerationSeconds"]),
        }
    }

    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && if self.exists {
                self.key.is_empty() || self.key == taint.key
            } else {
                self.key == taint.key && self.value == taint.value
            }
    }
}
