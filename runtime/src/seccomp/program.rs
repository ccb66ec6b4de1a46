//! Decisions -> classic BPF: the architecture first, then a binary search over ranges of call numbers with one answer each.
//!
//! Pieces of code are position-independent and end in returns, so a jump over one never needs more than its length. Arguments are 64 bits
//! wide and the machine's words 32: comparisons go by halves, the upper one first, whose place depends on the byte order.

use super::SeccompError;
use super::arch::{Arch, Family, X32_FIRST};
use super::profile::{Action, Compare, Condition};
use std::collections::BTreeMap;

/// BPF_MAXINSNS of linux/bpf_common.h.
pub(crate) const INSTRUCTIONS_MAX: usize = 4096;

/// `struct sock_filter` of linux/filter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

// linux/bpf_common.h: class, size or operation, mode or source, added up.
pub(crate) const LOAD: u16 = 0x20;
pub(crate) const AND: u16 = 0x54;
pub(crate) const JUMP: u16 = 0x05;
pub(crate) const JEQ: u16 = 0x15;
pub(crate) const JGT: u16 = 0x25;
pub(crate) const JGE: u16 = 0x35;
pub(crate) const RETURN: u16 = 0x06;

// Places in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// What one call number comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Holds whatever the arguments are, and then nothing else counts.
    pub(crate) always: Option<Action>,
    /// The first that matches; none = the default action.
    pub(crate) rules: Vec<(Vec<Condition>, Action)>,
}

/// One architecture's calls; what is not named gets the default action.
pub(crate) struct Calls<'a> {
    pub(crate) arch: &'a Arch,
    pub(crate) verdicts: BTreeMap<u32, Verdict>,
}

#[derive(Clone, Copy, PartialEq)]
enum Leaf<'a> {
    Answer(Action),
    Ask(&'a Verdict, bool),
}

/// `all` in the order they are to be tried; architectures of one token (x86_64 and x32) are told apart by number.
pub(crate) fn assemble(family: &Family, all: &[Calls<'_>], default: Action) -> Result<Vec<Instruction>, SeccompError> {
    let mut program = vec![load(ARCH)];
    let mut done: Vec<u32> = Vec::new();
    for calls in all {
        let token = calls.arch.token;
        if done.contains(&token) {
            continue;
        }
        done.push(token);
        let mut block = vec![load(NUMBER)];
        block.extend(Coder { family, default }.search(&ranges(all, token, default)));
        program.push(jump(JEQ, token, 1, 0));
        program.push(Instruction { code: JUMP, jt: 0, jf: 0, k: block.len() as u32 });
        program.append(&mut block);
    }
    // Programs of an architecture nobody named: as libseccomp has it.
    program.push(answer(Action::KILL_THREAD));
    if program.len() > INSTRUCTIONS_MAX {
        return Err(SeccompError::Size(program.len()));
    }
    Ok(program)
}

/// First number -> leaf, up to the next; neighbours that agree are one.
fn ranges<'a>(all: &'a [Calls<'a>], token: u32, default: Action) -> Vec<(u32, Leaf<'a>)> {
    const X86_64_TOKEN: u32 = 0xc000_003e;
    let mut ranges: Vec<(u32, Leaf<'a>)> = Vec::new();
    let mut add = |from: u32, leaf: Leaf<'a>| {
        ranges.pop_if(|(start, _)| *start == from);
        if ranges.last().is_none_or(|(_, last)| *last != leaf) {
            ranges.push((from, leaf));
        }
    };
    add(0, Leaf::Answer(default));
    let x32 = all.iter().any(|c| c.arch.name == "X32");
    let mut marked = false;
    for calls in all.iter().filter(|c| c.arch.token == token) {
        if calls.arch.name == "X32" {
            add(X32_FIRST, Leaf::Answer(default));
            marked = true;
        }
        for (number, verdict) in &calls.verdicts {
            let leaf = match verdict.always {
                Some(action) => Leaf::Answer(action),
                None => Leaf::Ask(verdict, calls.arch.narrow),
            };
            add(*number, leaf);
            add(number.saturating_add(1), Leaf::Answer(default));
        }
    }
    if token == X86_64_TOKEN && !x32 && !marked {
        add(X32_FIRST, Leaf::Answer(Action::KILL_THREAD));
        // -1 is what a tracer writes to have a call skipped.
        add(u32::MAX, Leaf::Answer(default));
    }
    ranges
}

struct Coder<'a> {
    family: &'a Family,
    default: Action,
}

impl Coder<'_> {
    /// The number is loaded.
    fn search(&self, ranges: &[(u32, Leaf<'_>)]) -> Vec<Instruction> {
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let Some((middle, _)) = high.first().filter(|_| !low.is_empty()) else {
            return match high.first() {
                Some((_, Leaf::Answer(action))) => vec![answer(*action)],
                Some((_, Leaf::Ask(verdict, narrow))) => self.ask(verdict, *narrow),
                None => vec![answer(self.default)],
            };
        };
        let mut below = self.search(low);
        let mut code = match u8::try_from(below.len()) {
            Ok(over) => vec![jump(JGE, *middle, over, 0)],
            Err(_) => {
                vec![jump(JGE, *middle, 0, 1), Instruction { code: JUMP, jt: 0, jf: 0, k: below.len() as u32 }]
            }
        };
        code.append(&mut below);
        code.append(&mut self.search(high));
        code
    }

    fn ask(&self, verdict: &Verdict, narrow: bool) -> Vec<Instruction> {
        let mut code = Vec::new();
        for (conditions, action) in &verdict.rules {
            let mut rule: Vec<Draft> = Vec::new();
            for condition in conditions {
                self.compare(condition, narrow, &mut rule);
            }
            let end = rule.len();
            code.extend(rule.iter().enumerate().map(|(at, draft)| draft.place(at, end)));
            code.push(answer(*action));
        }
        code.push(answer(self.default));
        code
    }

    fn half(&self, index: u8, upper: bool) -> Draft {
        let offset = if upper == self.family.big_endian { 0 } else { 4 };
        Draft::plain(LOAD, ARGS + 8 * u32::from(index) + offset)
    }

    /// Appends code that goes on behind itself if `condition` holds, and to the rule's end (without its answer) if not.
    fn compare(&self, condition: &Condition, narrow: bool, rule: &mut Vec<Draft>) {
        let Condition { index, compare, value } = *condition;
        let (mask, wanted) = match compare {
            Compare::MaskedEq(mask) => (Some(mask), value & mask),
            _ => (None, value),
        };
        let from = rule.len();
        // Whether the code below finds "no" where the condition says "yes".
        let reverse = matches!(compare, Compare::Ne | Compare::Lt | Compare::Le);
        let ordered = !matches!(compare, Compare::Eq | Compare::Ne | Compare::MaskedEq(_));
        if !narrow && mask.is_none_or(|m| m >> 32 != 0) {
            rule.push(self.half(index, true));
            if let Some(mask) = mask {
                rule.push(Draft::plain(AND, (mask >> 32) as u32));
            }
            let upper = (wanted >> 32) as u32;
            if ordered {
                rule.push(Draft::test(JGT, upper, To::Yes, To::Next));
            }
            rule.push(Draft::test(JEQ, upper, To::Next, To::No));
        }
        rule.push(self.half(index, false));
        if let Some(mask) = mask {
            rule.push(Draft::plain(AND, mask as u32));
        }
        let test = match compare {
            Compare::Ge | Compare::Lt => JGE,
            Compare::Gt | Compare::Le => JGT,
            Compare::Eq | Compare::Ne | Compare::MaskedEq(_) => JEQ,
        };
        rule.push(Draft::test(test, wanted as u32, To::Yes, To::No));
        let behind = rule.len();
        for draft in rule.iter_mut().skip(from) {
            draft.settle(reverse, behind);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum To {
    Next,
    Yes,
    No,
    /// Instruction of the rule.
    At(usize),
    /// Behind the rule's answer.
    Fail,
}

struct Draft {
    code: u16,
    k: u32,
    yes: To,
    no: To,
}

impl Draft {
    fn plain(code: u16, k: u32) -> Self {
        Self { code, k, yes: To::Next, no: To::Next }
    }

    fn test(code: u16, k: u32, yes: To, no: To) -> Self {
        Self { code, k, yes, no }
    }

    /// Found and not found become places.
    fn settle(&mut self, reverse: bool, behind: usize) {
        for to in [&mut self.yes, &mut self.no] {
            *to = match *to {
                To::Yes | To::No if (*to == To::Yes) != reverse => To::At(behind),
                To::Yes | To::No => To::Fail,
                other => other,
            };
        }
    }

    /// `end` is where the rule's answer stands. A rule is short (six conditions of six instructions), so eight bits always do.
    fn place(&self, at: usize, end: usize) -> Instruction {
        let over = |to: To| match to {
            To::At(target) => (target - at - 1) as u8,
            To::Fail => (end - at) as u8,
            To::Next | To::Yes | To::No => 0,
        };
        Instruction { code: self.code, jt: over(self.yes), jf: over(self.no), k: self.k }
    }
}

fn load(at: u32) -> Instruction {
    Instruction { code: LOAD, jt: 0, jf: 0, k: at }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

fn answer(action: Action) -> Instruction {
    Instruction { code: RETURN, jt: 0, jf: 0, k: action.0 }
}

/// As the kernel of this machine reads them.
pub(crate) fn bytes(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for Instruction { code, jt, jf, k } in program {
        bytes.extend(code.to_ne_bytes());
        bytes.extend([*jt, *jf]);
        bytes.extend(k.to_ne_bytes());
    }
    bytes
}
