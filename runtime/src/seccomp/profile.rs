//! `linux.seccomp` of config.json, and a pod's Localhost profile: JSON -> what to do with which call.

use super::SeccompError;
use super::arch::known;
use serde_json::Value;

/// Rules a profile may have; Docker's default has 40.
const RULES_MAX: usize = 4096;
/// Names in one rule.
const NAMES_MAX: usize = 4096;

/// A filter's answer, in the kernel's own encoding (SECCOMP_RET_* of linux/seccomp.h with its data).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Action(pub(crate) u32);

impl Action {
    pub(crate) const KILL_THREAD: Action = Action(0);
    pub(crate) const NOTIFY: Action = Action(0x7fc0_0000);

    pub(crate) const fn errno(number: u16) -> Action {
        Action(0x5_0000 | number as u32)
    }

    /// `errno` is the rule's own, or absent.
    fn parse(name: &str, errno: Option<u64>) -> Result<Action, SeccompError> {
        let data = u16::try_from(errno.unwrap_or(libc::EPERM as u64))
            .map_err(|_| SeccompError::Profile(format!("errnoRet {}: out of range", errno.unwrap_or_default())))?;
        Ok(match name {
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KILL_THREAD,
            "SCMP_ACT_KILL_PROCESS" => Action(0x8000_0000),
            "SCMP_ACT_TRAP" => Action(0x3_0000),
            "SCMP_ACT_ERRNO" => Action::errno(data),
            "SCMP_ACT_TRACE" => Action(0x7ff0_0000 | u32::from(data)),
            "SCMP_ACT_LOG" => Action(0x7ffc_0000),
            "SCMP_ACT_ALLOW" => Action(0x7fff_0000),
            "SCMP_ACT_NOTIFY" => Action::NOTIFY,
            other => return Err(SeccompError::Profile(format!("action {other:?}: unknown"))),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    MaskedEq(u64),
}

/// One argument against one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// 0 to 5.
    pub(crate) index: u8,
    pub(crate) compare: Compare,
    pub(crate) value: u64,
}

/// All conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) names: Vec<String>,
    pub(crate) action: Action,
    pub(crate) conditions: Vec<Condition>,
}

pub(crate) struct Profile {
    pub(crate) default: Action,
    /// Without `SCMP_ARCH_`; the build's own is meant too, named or not.
    pub(crate) arches: Vec<String>,
    pub(crate) rules: Vec<Rule>,
    /// SECCOMP_FILTER_FLAG_* as the profile asks for them.
    pub(crate) flags: u32,
    pub(crate) listener: Option<String>,
    pub(crate) metadata: String,
}

pub(crate) const FLAG_TSYNC: u32 = 1;
pub(crate) const FLAG_SPEC_ALLOW: u32 = 4;
pub(crate) const FLAG_NEW_LISTENER: u32 = 8;
pub(crate) const FLAG_WAIT_KILLABLE: u32 = 0x20;
const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", FLAG_TSYNC),
    ("SECCOMP_FILTER_FLAG_LOG", 2),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", FLAG_SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", FLAG_WAIT_KILLABLE),
];

impl Profile {
    pub(crate) fn read(value: &Value) -> Result<Profile, SeccompError> {
        let default = Action::parse(text(value, "defaultAction"), number(value, "defaultErrnoRet"))?;
        let mut arches = Vec::new();
        for name in strings(value, "architectures") {
            let short = name.strip_prefix("SCMP_ARCH_").unwrap_or(name);
            match known(short) {
                true => arches.push(short.to_owned()),
                false => return Err(SeccompError::Profile(format!("architecture {name:?}: unknown"))),
            }
        }
        // Absent, not empty: runc then keeps the speculation mitigations off, as every engine had it before the kernel's default changed.
        let mut flags = if value.get("flags").is_none_or(Value::is_null) { FLAG_SPEC_ALLOW } else { 0 };
        for name in strings(value, "flags") {
            match FLAGS.iter().find(|(n, _)| *n == name) {
                Some((_, flag)) => flags |= flag,
                None => return Err(SeccompError::Profile(format!("flag {name:?}: unknown"))),
            }
        }
        let mut rules = Vec::new();
        for entry in list(value, "syscalls") {
            rule(entry, &mut rules)?;
            if rules.len() > RULES_MAX {
                return Err(SeccompError::Profile(format!("more than {RULES_MAX} rules")));
            }
        }
        let listener = Some(text(value, "listenerPath")).filter(|p| !p.is_empty()).map(str::to_owned);
        let profile =
            Profile { default, arches, rules, flags, listener, metadata: text(value, "listenerMetadata").to_owned() };
        profile.check_listener()?;
        Ok(profile)
    }

    pub(crate) fn notifies(&self) -> bool {
        self.rules.iter().any(|r| r.action == Action::NOTIFY)
    }

    /// Who notifies must have someone to tell, and must be able to hand over the descriptor.
    fn check_listener(&self) -> Result<(), SeccompError> {
        if self.default == Action::NOTIFY {
            return Err(SeccompError::Profile("SCMP_ACT_NOTIFY cannot be the default action".into()));
        }
        if !self.notifies() {
            return Ok(());
        }
        if self.listener.is_none() {
            return Err(SeccompError::Profile("SCMP_ACT_NOTIFY needs listenerPath".into()));
        }
        for rule in self.rules.iter().filter(|r| r.action == Action::NOTIFY) {
            if let Some(name) = rule.names.iter().find(|n| matches!(n.as_str(), "write" | "sendmsg")) {
                let text =
                    format!("SCMP_ACT_NOTIFY cannot be used for {name}: the listener itself is handed over by it");
                return Err(SeccompError::Profile(text));
            }
        }
        Ok(())
    }
}

fn rule(entry: &Value, rules: &mut Vec<Rule>) -> Result<(), SeccompError> {
    let action = Action::parse(text(entry, "action"), number(entry, "errnoRet"))?;
    // `name` is how profiles of Docker before 1.13 write it.
    let mut names: Vec<String> = strings(entry, "names").map(str::to_owned).collect();
    names.extend(Some(text(entry, "name")).filter(|n| !n.is_empty()).map(str::to_owned));
    if names.len() > NAMES_MAX {
        return Err(SeccompError::Profile(format!("more than {NAMES_MAX} names in one rule")));
    }
    let conditions = list(entry, "args").map(condition).collect::<Result<Vec<_>, _>>()?;
    let twice = conditions.iter().enumerate().any(|(n, c)| conditions.iter().take(n).any(|b| b.index == c.index));
    if twice {
        // As runc has it since 2017: conditions on one argument twice are alternatives, each a rule of its own.
        rules.extend(conditions.into_iter().map(|c| Rule { names: names.clone(), action, conditions: vec![c] }));
    } else {
        rules.push(Rule { names, action, conditions });
    }
    Ok(())
}

fn condition(arg: &Value) -> Result<Condition, SeccompError> {
    let index = number(arg, "index").and_then(|n| u8::try_from(n).ok()).filter(|n| *n < 6);
    let index = index.ok_or_else(|| SeccompError::Profile("args: index is not 0 to 5".into()))?;
    let value = number(arg, "value").unwrap_or(0);
    let (compare, value) = match text(arg, "op") {
        "SCMP_CMP_NE" => (Compare::Ne, value),
        "SCMP_CMP_LT" => (Compare::Lt, value),
        "SCMP_CMP_LE" => (Compare::Le, value),
        "SCMP_CMP_EQ" => (Compare::Eq, value),
        "SCMP_CMP_GE" => (Compare::Ge, value),
        "SCMP_CMP_GT" => (Compare::Gt, value),
        "SCMP_CMP_MASKED_EQ" => (Compare::MaskedEq(value), number(arg, "valueTwo").unwrap_or(0)),
        other => return Err(SeccompError::Profile(format!("args: op {other:?}: unknown"))),
    };
    Ok(Condition { index, compare, value })
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, key: &str) -> Option<u64> {
    // Negative numbers are what some write for large ones.
    value.get(key).and_then(|n| n.as_u64().or_else(|| n.as_i64().map(|n| n as u64)))
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn strings<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    list(value, key).filter_map(Value::as_str)
}
