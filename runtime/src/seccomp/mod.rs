//! Seccomp profiles (OCI `linux.seccomp`) compiled to classic BPF, for this build's own family of architectures: x86_64 (with i386 and
//! x32), aarch64 (with arm), s390x (with s390), ppc64le. Pure: bytes in, bytes out; `sys::load_seccomp` hands them to the kernel.
//!
//! `profile` reads the JSON, `arch` knows the numbers, `program` writes the code, [`standard`] is what containers get who ask for nothing.
//! The decisions are libseccomp's (see `tests.rs`): what a profile allows under runc or crun it allows here.

mod arch;
mod profile;
mod program;
mod standard;

pub use standard::standard;

use crate::container::{SeccompFilter, SeccompListener};
use arch::{Calls as Table, Family, multiplexed};
use profile::{Compare, Condition, FLAG_NEW_LISTENER, FLAG_TSYNC, FLAG_WAIT_KILLABLE, Profile, Rule};
use program::Calls;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("seccomp profile: {0}")]
    Profile(String),
    #[error("seccomp profile: comes to {0} instructions, the kernel takes {max}", max = program::INSTRUCTIONS_MAX)]
    Size(usize),
    #[error("seccomp profile: this build knows no system call numbers of its architecture")]
    Architecture,
}

/// A filter and what of its profile was left out, one line each.
pub struct Compiled {
    pub filter: SeccompFilter,
    pub warnings: Vec<String>,
}

/// `linux.seccomp` as runc, containerd and podman write it (no `includes` and `excludes`: engines resolve those).
///
/// # Errors
/// What the profile says that has no meaning. A call nobody knows is a warning.
pub fn compile(value: &Value) -> Result<Compiled, SeccompError> {
    let profile = Profile::read(value)?;
    let family = arch::family().ok_or(SeccompError::Architecture)?;
    let mut warnings = Vec::new();
    let code = instructions(&family, &profile, &mut warnings)?;
    Ok(Compiled { filter: filter(&code, &profile), warnings })
}

fn filter(code: &[program::Instruction], profile: &Profile) -> SeccompFilter {
    let mut flags = profile.flags;
    let listener = profile.listener.as_ref().filter(|_| profile.notifies());
    if listener.is_some() {
        // There is one thread to synchronise, and the kernel refuses both at once.
        flags = (flags & !FLAG_TSYNC) | FLAG_NEW_LISTENER;
    } else {
        flags &= !FLAG_WAIT_KILLABLE;
    }
    SeccompFilter {
        program: program::bytes(code),
        flags,
        listener: listener.map(|path| SeccompListener {
            path: path.into(),
            metadata: profile.metadata.clone(),
            state: String::new(),
        }),
    }
}

fn instructions(
    family: &Family,
    profile: &Profile,
    warnings: &mut Vec<String>,
) -> Result<Vec<program::Instruction>, SeccompError> {
    let wanted = |n: usize, name: &str| n == 0 || profile.arches.iter().any(|a| a == name);
    let columns: Vec<usize> =
        family.arches.iter().enumerate().filter(|(n, arch)| wanted(*n, arch.name)).map(|(n, _)| n).collect();
    let table = Table::read(family);
    let mut all: Vec<Calls<'_>> = columns
        .iter()
        .filter_map(|n| family.arches.get(*n))
        .map(|arch| Calls { arch, verdicts: BTreeMap::new() })
        .collect();
    for rule in profile.rules.iter().filter(|r| r.action != profile.default) {
        for name in &rule.names {
            let numbers = table.find(name);
            if numbers.is_none() && multiplexed(name).is_none() {
                warnings.push(format!("ignoring unknown system call {name} of the seccomp profile"));
                continue;
            }
            for (calls, column) in all.iter_mut().zip(&columns) {
                if let Some(number) = numbers.and_then(|n| n.get(*column).copied().flatten()) {
                    decide(calls, number, rule, &rule.conditions);
                }
                multiplex(calls, name, rule);
            }
        }
    }
    program::assemble(family, &all, profile.default)
}

/// An unconditional rule beats conditional ones; of two, the first stands.
fn decide(calls: &mut Calls<'_>, number: u32, rule: &Rule, conditions: &[Condition]) {
    let verdict = calls.verdicts.entry(number).or_default();
    if verdict.always.is_some() {
        return;
    }
    if conditions.is_empty() {
        verdict.always = Some(rule.action);
    } else {
        verdict.rules.push((conditions.to_vec(), rule.action));
    }
}

/// The same call by way of socketcall(2) or ipc(2), whose own arguments lie in memory where no filter sees them. As libseccomp has it, what is
/// said of the first argument is lost there and what is said of the others is kept, little as it means.
fn multiplex(calls: &mut Calls<'_>, name: &str, rule: &Rule) {
    if !calls.arch.multiplexers {
        return;
    }
    if let Some((number, argument)) = multiplexed(name) {
        let which = Condition { index: 0, compare: Compare::Eq, value: u64::from(argument) };
        let others = rule.conditions.iter().filter(|c| c.index != 0).copied();
        let conditions: Vec<Condition> = std::iter::once(which).chain(others).collect();
        decide(calls, number, rule, &conditions);
    }
}

#[cfg(test)]
mod tests;
