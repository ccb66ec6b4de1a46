//! Device rules on cgroup v2: a small program for the kernel's BPF machine, made from the rules and attached to the group.
//!
//! v1 has files for this, v2 has BPF_PROG_TYPE_CGROUP_DEVICE (linux/bpf.h, Documentation/admin-guide/cgroup-v2.rst "Device
//! controller"). The kernel runs the program on every open and mknod of a device node; every program on the way to the root must
//! say yes. No helper is called and no map is used, so any kernel from 4.15 on takes it.

use crate::container::{DeviceKind, DeviceRule};
use crate::sys;
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd};

/// Rules of one container; at most nine instructions each, of the kernel's 4096.
const RULES_MAX: usize = 256;

// Opcodes: class, operation and operand of linux/bpf_common.h and linux/bpf.h.
const LOAD_WORD: u8 = 0x61; // LDX | W | MEM
const MOVE: u8 = 0xb7; // ALU64 | MOV | K
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// r0: the answer. r1: the kernel's `struct bpf_cgroup_dev_ctx`.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// The bits of the request that no rule has allowed so far.
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// One instruction, `struct bpf_insn` before it is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    value: i32,
}

impl Instruction {
    /// Eight bytes in this machine's order; the two registers share one byte, whose halves also follow that order.
    fn layout(self) -> [u8; 8] {
        let registers =
            if cfg!(target_endian = "little") { self.from << 4 | self.to } else { self.to << 4 | self.from };
        let ([o0, o1], [v0, v1, v2, v3]) = (self.offset.to_ne_bytes(), self.value.to_ne_bytes());
        [self.code, registers, o0, o1, v0, v1, v2, v3]
    }
}

fn with(code: u8, to: u8, value: i32) -> Instruction {
    Instruction { code, to, from: 0, offset: 0, value }
}

fn load(to: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, to, from: CONTEXT, offset, value: 0 }
}

/// Later rules win, bit by bit of the request, as on v1; what no rule speaks of is allowed. So the last rule is asked first: an
/// `allow` takes its bits out of the request and says yes when none is left, a `deny` says no when one of its bits is still there.
pub(super) fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut all = vec![
        load(KIND, 0),
        Instruction { code: MOVE_REGISTER, to: ACCESS, from: KIND, offset: 0, value: 0 },
        with(AND, KIND, 0xffff),
        with(SHIFT_RIGHT, ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        all.extend(judge(rule));
    }
    all.extend([with(MOVE, ANSWER, 1), with(EXIT, 0, 0)]);
    all
}

/// One rule: falls through to what comes after it when it does not decide.
fn judge(rule: &DeviceRule) -> Vec<Instruction> {
    let access = rule.access.chars().fold(0, |bits, letter| bits | access_bit(letter));
    let kind = rule.kind.map(|kind| if kind == DeviceKind::Block { 1 } else { 2 });
    // A number beyond the kernel's own (12 and 20 bits) names no device: -1 never comes.
    let number = |n: u32| i32::try_from(n).unwrap_or(-1);
    let conditions = [(KIND, kind), (MAJOR, rule.major.map(number)), (MINOR, rule.minor.map(number))];
    let verdict = if rule.allow {
        vec![with(AND, ACCESS, !access), skip(JUMP_NOT_EQUAL, ACCESS, 2), with(MOVE, ANSWER, 1), with(EXIT, 0, 0)]
    } else {
        vec![
            Instruction { code: MOVE_REGISTER, to: ANSWER, from: ACCESS, offset: 0, value: 0 },
            with(AND, ANSWER, access),
            skip(JUMP_EQUAL, ANSWER, 2),
            with(MOVE, ANSWER, 0),
            with(EXIT, 0, 0),
        ]
    };
    let mut all: Vec<Instruction> = Vec::new();
    let tests: Vec<(u8, i32)> =
        conditions.iter().filter_map(|(register, value)| Some((*register, (*value)?))).collect();
    for (at, (register, value)) in tests.iter().enumerate() {
        let rest = tests.len() - at - 1 + verdict.len(); // at most 2 + 5
        all.push(Instruction { value: *value, ..skip(JUMP_NOT_EQUAL, *register, rest as i16) });
    }
    all.extend(verdict);
    all
}

/// A jump over `count` instructions on comparison with 0.
fn skip(code: u8, register: u8, count: i16) -> Instruction {
    Instruction { code, to: register, from: 0, offset: count, value: 0 }
}

/// BPF_DEVCG_ACC_*.
fn access_bit(letter: char) -> i32 {
    match letter {
        'm' => 1,
        'r' => 2,
        'w' => 4,
        _ => 0,
    }
}

fn code(rules: &[DeviceRule]) -> Vec<u8> {
    program(rules).into_iter().flat_map(Instruction::layout).collect()
}

/// Binds `group` to the rules, in place of those given before.
///
/// # Errors
/// What bpf(2) says: EPERM without the right to load, ENOSYS or EINVAL from a kernel without CONFIG_CGROUP_BPF; E2BIG for too many.
pub(super) fn attach(group: BorrowedFd<'_>, rules: &[DeviceRule]) -> Result<(), Errno> {
    if rules.len() > RULES_MAX {
        return Err(Errno::E2BIG);
    }
    let before = sys::device_programs(group)?;
    let program = sys::load_device_program(&code(rules))?;
    sys::attach_device_program(group, program.as_fd())?;
    for old in before {
        sys::detach_device_program(group, old.as_fd())?;
    }
    Ok(())
}

/// Whether this kernel takes such a program from us; it is loaded, attached nowhere and gone again.
pub(crate) fn supported() -> bool {
    sys::load_device_program(&code(&[])).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::defaults;

    /// The kernel's machine, as far as these programs go.
    fn run(program: &[Instruction], kind: u64, access: u64, major: u64, minor: u64) -> bool {
        let mut registers = [0u64; 11];
        let mut at = 0;
        loop {
            let i = program[at];
            at += 1;
            let (to, value) = (i.to as usize, i64::from(i.value) as u64);
            let jump = match i.code {
                JUMP_EQUAL => registers[to] == value,
                JUMP_NOT_EQUAL => registers[to] != value,
                _ => false,
            };
            match i.code {
                LOAD_WORD => registers[to] = [access << 16 | kind, major, minor][i.offset as usize / 4],
                MOVE => registers[to] = value,
                MOVE_REGISTER => registers[to] = registers[i.from as usize],
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                EXIT => return registers[0] == 1,
                _ if jump => at += i.offset as usize,
                JUMP_EQUAL | JUMP_NOT_EQUAL => {}
                other => panic!("{other:#x}"),
            }
        }
    }

    const BLOCK: u64 = 1;
    const CHAR: u64 = 2;
    const MKNOD: u64 = 1;
    const READ: u64 = 2;
    const WRITE: u64 = 4;

    fn rule(allow: bool, kind: Option<DeviceKind>, major: Option<u32>, minor: Option<u32>, access: &str) -> DeviceRule {
        DeviceRule { allow, kind, major, minor, access: access.into() }
    }

    #[test]
    fn the_engines_rules() {
        let program = program(&defaults::device_rules());
        for (kind, access, major, minor, allowed) in [
            (CHAR, READ | WRITE, 1, 3, true),
            (CHAR, READ | WRITE, 1, 1, false), // /dev/mem
            (BLOCK, READ, 1, 3, false),
            (CHAR, MKNOD, 1, 1, true),
            (BLOCK, MKNOD, 8, 0, true),
            (BLOCK, MKNOD | READ, 8, 0, false),
            (BLOCK, READ, 8, 0, false),
            (CHAR, WRITE, 136, 7, true),
        ] {
            assert_eq!(run(&program, kind, access, major, minor), allowed, "{kind} {access} {major}:{minor}");
        }
    }

    #[test]
    fn later_rules_win_bit_by_bit() {
        let c = Some(DeviceKind::Char);
        let rules = [
            rule(false, None, None, None, "rwm"),
            rule(true, c, Some(10), None, "r"),
            rule(true, c, Some(10), Some(5), "w"),
            rule(false, c, Some(10), Some(6), "r"),
        ];
        let program = program(&rules);
        assert!(run(&program, CHAR, READ, 10, 1) && !run(&program, CHAR, WRITE, 10, 1));
        assert!(run(&program, CHAR, READ | WRITE, 10, 5), "two rules allow one bit each");
        assert!(!run(&program, CHAR, READ, 10, 6) && !run(&program, CHAR, READ, 11, 5));
        assert!(run(&super::program(&[]), BLOCK, READ, 8, 0), "no rule, no limit");
        let beyond = [rule(false, c, Some(u32::MAX), None, "rwm")];
        assert!(run(&super::program(&beyond), CHAR, READ, u64::from(u32::MAX), 0));
    }

    #[test]
    fn instructions_are_eight_bytes() {
        let bytes = load(MAJOR, 4).layout();
        assert_eq!((bytes[0], bytes[1]), (0x61, if cfg!(target_endian = "little") { 0x14 } else { 0x41 }));
        assert_eq!(i16::from_ne_bytes([bytes[2], bytes[3]]), 4);
        assert!(code(&vec![rule(false, Some(DeviceKind::Char), Some(1), Some(1), "rwm"); RULES_MAX]).len() / 8 < 4096);
    }
}
