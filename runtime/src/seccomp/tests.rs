//! Own interpreter of classic BPF, and libseccomp's decisions (Debian's python3-seccomp) for the same rules as the judge.

use super::arch::{AARCH64, Family, PPC64LE, S390X, X86_64};
use super::program::{AND, INSTRUCTIONS_MAX, Instruction, JEQ, JGE, JGT, JUMP, LOAD, RETURN};
use super::*;
use serde_json::{Value, json};
use std::process::Command;

#[derive(Clone, Copy, Debug)]
struct Data {
    number: u32,
    token: u32,
    args: [u64; 6],
}

/// What a filter says, run as the kernel would run it on a machine of that byte order.
fn run(program: &[Instruction], data: &Data, big_endian: bool) -> u32 {
    let word = |offset: u32| match offset {
        0 => data.number,
        4 => data.token,
        8 | 12 => 0,
        _ => {
            let arg = data.args[(offset as usize - 16) / 8];
            let upper = offset.is_multiple_of(8) == big_endian;
            if upper { (arg >> 32) as u32 } else { arg as u32 }
        }
    };
    let (mut a, mut at) = (0u32, 0usize);
    for _ in 0..=INSTRUCTIONS_MAX {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let test = match code {
            LOAD => {
                a = word(k);
                continue;
            }
            AND => {
                a &= k;
                continue;
            }
            JUMP => {
                at += k as usize;
                continue;
            }
            RETURN => return k,
            JEQ => a == k,
            JGT => a > k,
            JGE => a >= k,
            0x45 => a & k != 0,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if test { jt } else { jf });
    }
    panic!("no end");
}

fn ours(family: &Family, value: &Value) -> Vec<Instruction> {
    let mut warnings = Vec::new();
    instructions(family, &Profile::read(value).unwrap(), &mut warnings).unwrap()
}

const ORACLE: &str = r#"
import json, seccomp as s, sys, tempfile
p = json.load(sys.stdin)
def act(e, key="action", no="errnoRet"):
    n = e.get(no, 1)
    return {"KILL": s.KILL, "KILL_THREAD": s.KILL, "KILL_PROCESS": s.KILL_PROCESS, "TRAP": s.TRAP, "ERRNO": s.ERRNO(n), "TRACE": s.TRACE(n),
            "LOG": s.LOG, "ALLOW": s.ALLOW, "NOTIFY": s.NOTIFY}[e[key][9:]]
default = act(p, "defaultAction", "defaultErrnoRet")
f = s.SyscallFilter(default)
native = s.Arch()
f.remove_arch(native)
for a in p["architectures"]: f.add_arch(s.Arch(getattr(s.Arch, a[10:])))
ops = {"NE": s.NE, "LT": s.LT, "LE": s.LE, "EQ": s.EQ, "GE": s.GE, "GT": s.GT}
for r in p["syscalls"]:
    if act(r) == default: continue
    args = []
    for a in r.get("args", []):
        if a["op"] == "SCMP_CMP_MASKED_EQ": args.append(s.Arg(a["index"], s.MASKED_EQ, a["value"], a["valueTwo"]))
        else: args.append(s.Arg(a["index"], ops[a["op"][9:]], a["value"]))
    for n in r["names"]:
        try: f.add_rule(act(r), n, *args)
        except (RuntimeError, ValueError, OSError) as e: print("skip", n, e, file=sys.stderr)
with tempfile.TemporaryFile() as out:
    f.export_bpf(out)
    out.seek(0)
    sys.stdout.write(out.read().hex())
"#;

fn is_action(k: u32) -> bool {
    let with_data = matches!(k >> 16, 5 | 0x7ff0);
    k & 0xffff < if with_data { 4096 } else { 1 }
        && matches!(k >> 16, 0 | 3 | 5 | 0x7fc0 | 0x7ff0 | 0x7ffc | 0x7fff | 0x8000)
}

/// A judge that is not there is a failure, unless someone says that it is known.
fn missing(package: &str) {
    assert!(std::env::var_os("MOTE_WITHOUT_JUDGES").is_some(), "{package} is not installed");
    eprintln!("not judged: {package} is not installed");
}

/// libseccomp's program for the same profile; `None` where it is not installed.
fn theirs(family: &Family, value: &Value) -> Option<Vec<Instruction>> {
    use std::io::Write;
    let python = Command::new("timeout")
        .args(["10", "/usr/bin/python3", "-c", ORACLE])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut python = python.ok()?;
    python.stdin.take().unwrap().write_all(value.to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No module named 'seccomp'") {
        missing("python3-seccomp");
        return None;
    }
    if output.status.code() == Some(124) {
        return None; // some mixtures of conditions keep it busy for ever
    }
    assert!(output.status.success(), "{said}");
    let hex = String::from_utf8(output.stdout).unwrap();
    let bytes: Vec<u8> = (0..hex.len() / 2).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect();
    let two = |b: [u8; 2]| if family.big_endian { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) };
    let four = |b: [u8; 4]| if family.big_endian { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) };
    let read = |b: &[u8; 8]| {
        let (code, k) = (two([b[0], b[1]]), [b[4], b[5], b[6], b[7]]);
        // Some of its answers for the other byte order stay in that of the machine it runs on.
        let meant = if code == RETURN && !is_action(four(k)) { four(k).swap_bytes() } else { four(k) };
        Instruction { code, jt: b[2], jf: b[3], k: meant }
    };
    Some(bytes.as_chunks::<8>().0.iter().map(read).collect())
}

/// Numbers that repeat themselves on every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.next() as usize % all.len()].clone()
    }
}

const INTERESTING: [u64; 14] =
    [0, 1, 2, 8, 9, 16, 40, 0x2_0000, 0x7e02_0000, 0x7fff_ffff, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, u64::MAX];

/// Every number and a few arguments for each, on every architecture and one that is none of ours.
fn compare(family: &Family, value: &Value, dice: &mut Dice) {
    let Some(theirs) = theirs(family, value) else { return };
    let ours = ours(family, value);
    assert!(ours.len() <= INSTRUCTIONS_MAX);
    let numbers = (0..520).chain([600, 0xf_0002, 0xf_0005, 0x3fff_ffff, u32::MAX, u32::MAX - 1]);
    let numbers = numbers.chain((0x4000_0000..0x4000_0240).step_by(1));
    let tokens: Vec<(u32, bool)> = family.arches.iter().map(|a| (a.token, a.narrow)).chain([(0x1234, false)]).collect();
    for number in numbers {
        for (token, narrow) in &tokens {
            for _ in 0..4 {
                let mut args = [(); 6].map(|()| dice.of(&INTERESTING));
                if *narrow {
                    args = args.map(|a| a & 0xffff_ffff);
                }
                if (number >= 0x4000_0000) && *token == X86_64.arches[0].token {
                    args = args.map(|a| a & 0xffff_ffff);
                }
                let data = Data { number, token: *token, args };
                let (a, b) = (run(&ours, &data, family.big_endian), run(&theirs, &data, family.big_endian));
                assert_eq!(
                    a,
                    b,
                    "ours {a:#x}, libseccomp's {b:#x}: {data:x?} {}",
                    rules_of(family, value, number, *token)
                );
            }
        }
    }
}

/// What a profile says of a call, for the message of a failure.
fn rules_of(family: &Family, value: &Value, number: u32, token: u32) -> String {
    let table = Table::read(family);
    let column = family.arches.iter().position(|a| a.token == token).unwrap_or(0);
    let name = table.names().find(|n| table.find(n).unwrap()[column] == Some(number)).unwrap_or("nobody's number");
    let rules = value["syscalls"].as_array().unwrap().iter();
    let rules: Vec<String> =
        rules.filter(|r| r["names"].as_array().unwrap().iter().any(|n| n == name)).map(Value::to_string).collect();
    format!("{name}: {rules:?} of {}", value["architectures"])
}

fn families() -> [(&'static str, Family); 4] {
    [("x86_64", X86_64), ("aarch64", AARCH64), ("s390x", S390X), ("ppc64le", PPC64LE)]
}

fn arches(family: &Family) -> Vec<String> {
    family.arches.iter().map(|a| format!("SCMP_ARCH_{}", a.name)).collect()
}

/// The engines' profile as podman resolves it for a container of these capabilities.
fn engine_profile(family: &Family, machine: &str, capabilities: &[&str]) -> Option<Value> {
    let text = std::fs::read_to_string("/usr/share/containers/seccomp.json").ok()?;
    let profile: Value = serde_json::from_str(&text).unwrap();
    let mut rules = Vec::new();
    for rule in profile["syscalls"].as_array().unwrap() {
        let has = |side: &str, key: &str, what: &[&str]| {
            let list = rule[side][key].as_array().cloned().unwrap_or_default();
            (!list.is_empty()).then(|| list.iter().any(|v| what.contains(&v.as_str().unwrap())))
        };
        let wanted = has("includes", "caps", capabilities) != Some(false)
            && has("includes", "arches", &[machine]) != Some(false)
            && has("excludes", "caps", capabilities) != Some(true);
        if wanted {
            let mut rule = rule.clone();
            if rule["args"].is_null() {
                rule["args"] = json!([]);
            }
            rules.push(rule);
        }
    }
    Some(json!({"defaultAction": profile["defaultAction"], "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": arches(family), "syscalls": rules}))
}

#[test]
fn the_engines_profile_decides_as_with_libseccomp() {
    let mut dice = Dice(0x5eed);
    for (name, family) in families() {
        let machine = match name {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        for capabilities in [&[][..], &["CAP_SYS_CHROOT", "CAP_AUDIT_WRITE"], &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]] {
            let Some(profile) = engine_profile(&family, machine, capabilities) else {
                missing("golang-github-containers-common (/usr/share/containers/seccomp.json)");
                return;
            };
            compare(&family, &profile, &mut dice);
        }
    }
}

#[test]
fn multiplexed_calls_are_decided_as_with_libseccomp() {
    let mut dice = Dice(0xabc);
    let condition = |index: u32, value: u32| json!({"index": index, "op": "SCMP_CMP_EQ", "value": value});
    for (_, family) in families() {
        for args in
            [json!([]), json!([condition(0, 16)]), json!([condition(2, 9)]), json!([condition(0, 2), condition(1, 1)])]
        {
            let rules = json!([{"names": ["socket", "bind", "shmat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22, "args": args}]);
            let profile =
                json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": arches(&family), "syscalls": rules});
            compare(&family, &profile, &mut dice);
        }
    }
}

fn random_profile(family: &Family, dice: &mut Dice, alternatives: u64) -> Value {
    let table = Table::read(family);
    let actions = ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "TRAP", "TRACE", "LOG"].map(|a| format!("SCMP_ACT_{a}"));
    let operations = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"].map(|o| format!("SCMP_CMP_{o}"));
    // What libseccomp 2.5.4 of the judge knows too, and calls with no second way in by socketcall(2) or ipc(2).
    let names: Vec<&str> = table
        .names()
        .filter(|n| multiplexed(n).is_none())
        .filter(|n| {
            table.find(n).unwrap().iter().flatten().all(|n| n & 0xffff <= 450 || (512..548).contains(&(n & 0xffff)))
        })
        .filter(|n| {
            !matches!(*n, "socketcall" | "ipc" | "uprobe" | "uretprobe" | "sync_file_range2" | "arm_sync_file_range")
        })
        .collect();
    // The first architecture alone: with a second one of 32 bits libseccomp 2.5.4 loses some conditions on arguments (a rule for utime with one
    // GE on an x86_64 argument is not seen once x32 is there). Second ones are judged by the engines' profile, which has few conditions.
    let arches = &arches(family)[..1];
    let mut rules = Vec::new();
    for _ in 0..20 + dice.next() % 60 {
        let name = dice.of(&names);
        if rules.iter().any(|r: &Value| r["names"][0] == name) {
            continue;
        }
        let (action, errno) = (dice.of(&actions), dice.next() % 200);
        for _ in 0..dice.next() % alternatives + 1 {
            let mut args = Vec::new();
            for index in 0..6 {
                if dice.next().is_multiple_of(4) {
                    let (value, two) = (dice.of(&INTERESTING), dice.of(&INTERESTING));
                    args.push(json!({"index": index, "op": dice.of(&operations), "value": value, "valueTwo": two}));
                }
            }
            rules.push(json!({"names": [name], "action": action, "errnoRet": errno, "args": args}));
        }
    }
    let default = dice.of(&actions);
    json!({"defaultAction": default, "defaultErrnoRet": 7, "architectures": arches, "syscalls": rules})
}

/// Rounds over all families; more by `MOTE_SECCOMP_ROUNDS`.
fn rounds() -> usize {
    std::env::var("MOTE_SECCOMP_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
}

#[test]
fn random_profiles_decide_as_with_libseccomp() {
    let mut dice = Dice(0xd1ce);
    for _ in 0..rounds() {
        for (_, family) in families() {
            // One rule a call: of two that ask for the same argument in different ways it sometimes takes one for the other.
            let profile = random_profile(&family, &mut dice, 1);
            compare(&family, &profile, &mut dice);
        }
    }
}

/// What the words of a profile mean, read anew and without halves or jumps.
fn meaning(value: &Value, name: &str, args: &[u64; 6]) -> u32 {
    let answer = |action: &Value, errno: &Value| {
        let data = errno.as_u64().unwrap() as u32;
        match action.as_str().unwrap() {
            "SCMP_ACT_KILL" => 0,
            "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
            "SCMP_ACT_TRAP" => 0x3_0000,
            "SCMP_ACT_ERRNO" => 0x5_0000 | data,
            "SCMP_ACT_TRACE" => 0x7ff0_0000 | data,
            "SCMP_ACT_LOG" => 0x7ffc_0000,
            _ => 0x7fff_0000,
        }
    };
    let holds = |c: &Value| {
        let (arg, first) = (args[c["index"].as_u64().unwrap() as usize], c["value"].as_u64().unwrap());
        match c["op"].as_str().unwrap() {
            "SCMP_CMP_NE" => arg != first,
            "SCMP_CMP_LT" => arg < first,
            "SCMP_CMP_LE" => arg <= first,
            "SCMP_CMP_EQ" => arg == first,
            "SCMP_CMP_GE" => arg >= first,
            "SCMP_CMP_GT" => arg > first,
            _ => arg & first == c["valueTwo"].as_u64().unwrap() & first,
        }
    };
    let rules = value["syscalls"].as_array().unwrap().iter().filter(|r| r["names"][0] == name);
    let conditions = |r: &&Value| r["args"].as_array().unwrap().clone();
    let always = rules.clone().find(|r| conditions(r).is_empty());
    match always.or_else(|| rules.clone().find(|r| conditions(r).iter().all(holds))) {
        Some(rule) => answer(&rule["action"], &rule["errnoRet"]),
        None => answer(&value["defaultAction"], &value["defaultErrnoRet"]),
    }
}

#[test]
fn random_profiles_decide_as_they_say() {
    let mut dice = Dice(0xfeed);
    for _ in 0..2 * rounds() {
        for (_, family) in families() {
            let profile = random_profile(&family, &mut dice, 4);
            let program = ours(&family, &profile);
            let table = Table::read(&family);
            let ruled = |n: &&str| profile["syscalls"].as_array().unwrap().iter().any(|r| r["names"][0] == **n);
            for name in table.names().filter(ruled).chain(["read", "openat2"]) {
                let Some(number) = table.find(name).unwrap()[0] else { continue };
                for _ in 0..40 {
                    let args = [(); 6].map(|()| dice.of(&INTERESTING));
                    let token = family.arches[0].token;
                    let said = run(&program, &Data { number, token, args }, family.big_endian);
                    assert_eq!(
                        said,
                        meaning(&profile, name, &args),
                        "{name} {args:x?}: {}",
                        rules_of(&family, &profile, number, token)
                    );
                }
            }
        }
    }
}

fn decision(value: &Value, number: i64, args: [u64; 6]) -> u32 {
    let data = Data { number: number as u32, token: X86_64.arches[0].token, args };
    run(&ours(&X86_64, value), &data, false)
}

#[test]
fn every_comparison_by_halves() {
    let holds = |op: &str, a: u64, v: u64| match op {
        "NE" => a != v,
        "LT" => a < v,
        "LE" => a <= v,
        "EQ" => a == v,
        "GE" => a >= v,
        "GT" => a > v,
        _ => a & 0xff_0000_00ff == v & 0xff_0000_00ff,
    };
    for op in ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"] {
        for value in INTERESTING {
            let (first, second) = if op == "MASKED_EQ" { (0xff_0000_00ff, value) } else { (value, 0) };
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 1, "op": format!("SCMP_CMP_{op}"), "value": first, "valueTwo": second}]}]});
            let program = ours(&X86_64, &profile);
            for arg in INTERESTING {
                let data = Data { number: 83, token: X86_64.arches[0].token, args: [9, arg, 9, 9, 9, 9] };
                assert_eq!(run(&program, &data, false) == 0x5_0001, holds(op, arg, value), "{arg:#x} {op} {value:#x}");
            }
        }
    }
}

#[test]
fn alternatives_and_order() {
    let value = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
        {"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "op": "SCMP_CMP_EQ", "value": 1}, {"index": 0, "op": "SCMP_CMP_EQ", "value": 2}]},
        {"names": ["rmdir", "from_the_future"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 1}]},
        {"names": ["rmdir"], "action": "SCMP_ACT_TRACE", "errnoRet": 5},
        {"names": ["rmdir"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]});
    assert_eq!(
        [0, 1, 2].map(|a| decision(&value, 83, [a; 6])),
        [0x5_0026, 0x7fff_0000, 0x7fff_0000],
        "one or the other"
    );
    assert_eq!(decision(&value, 84, [1; 6]), 0x7ff0_0005, "the unconditional one, and of two the first");
    assert_eq!(decision(&value, 0, [0; 6]), 0x5_0026);
    let compiled = compile(&value).unwrap();
    assert_eq!(compiled.warnings, ["ignoring unknown system call from_the_future of the seccomp profile"]);
    assert_eq!(compiled.filter.flags, profile::FLAG_SPEC_ALLOW);
    assert_eq!(compiled.filter.program.len() % 8, 0);
}

#[test]
fn nonsense_is_told() {
    let wrong = [
        (json!({}), "action \"\""),
        (json!({"defaultAction": "SCMP_ACT_SHRUG"}), "SHRUG"),
        (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "default action"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]}), "Z80"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]}), "FLAG_X"),
        (json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 70000}), "70000"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}),
            "listenerPath",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x",
            "syscalls": [{"names": ["sendmsg"], "action": "SCMP_ACT_NOTIFY"}]}),
            "sendmsg",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL",
            "args": [{"index": 6, "op": "SCMP_CMP_EQ", "value": 0}]}]}),
            "index",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL",
            "args": [{"index": 5, "op": "SCMP_CMP_ISH", "value": 0}]}]}),
            "ISH",
        ),
    ];
    for (value, word) in wrong {
        let error = compile(&value).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    }
    let many: Vec<Value> = (0..1500u64)
        .map(|n| json!({"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": n}]}))
        .collect();
    let error = compile(&json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": many})).err().unwrap();
    assert!(matches!(error, SeccompError::Size(n) if n > INSTRUCTIONS_MAX), "{error}");
}

#[test]
fn listeners_and_flags() {
    let value = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock", "listenerMetadata": "m",
        "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let filter = compile(&value).unwrap().filter;
    let listener = filter.listener.unwrap();
    assert_eq!((filter.flags, listener.metadata.as_str()), (0x2a, "m"), "no TSYNC with a listener");
    assert_eq!(decision(&value, 83, [0; 6]), 0x7fc0_0000);
    let mut silent = value;
    silent["syscalls"] = json!([]);
    let filter = compile(&silent).unwrap().filter;
    assert_eq!((filter.flags, filter.listener), (3, None), "nobody to ask without NOTIFY");
}

#[test]
fn the_standard_profile() {
    use crate::container::CapSet;
    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x5_0001;
    const ENOSYS: u32 = 0x5_0026;
    let bytes = standard(CapSet::DEFAULT).unwrap().filter.program;
    let read = |b: &[u8; 8]| Instruction {
        code: u16::from_ne_bytes([b[0], b[1]]),
        jt: b[2],
        jf: b[3],
        k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    };
    let program: Vec<Instruction> = bytes.as_chunks::<8>().0.iter().map(read).collect();
    assert!(program.len() < 1000, "neighbours are one range: {} instructions", program.len());
    let arches = arch::family().unwrap().arches;
    let table = Table::read(&arch::family().unwrap());
    let say = |name: &str, args: [u64; 6]| {
        let number = table.find(name).unwrap()[0].unwrap();
        run(&program, &Data { number, token: arches[0].token, args }, cfg!(target_endian = "big"))
    };
    for name in ["read", "execve", "openat2", "futex", "ptrace", "chroot", "mknodat", "seccomp", "rseq"] {
        assert_eq!(say(name, [0; 6]), ALLOW, "{name}");
    }
    for name in
        ["mount", "unshare", "bpf", "keyctl", "reboot", "init_module", "io_uring_setup", "setns", "kexec_load", "mbind"]
    {
        assert_eq!(say(name, [0; 6]), EPERM, "{name}");
    }
    assert_eq!(say("clone3", [0; 6]), ENOSYS);
    assert_eq!((say("clone", [0x11; 6]), say("clone", [0x1000_0011; 6])), (ALLOW, EPERM));
    assert_eq!((say("socket", [1; 6]), say("socket", [40; 6])), (ALLOW, EPERM));
    assert_eq!((say("personality", [8; 6]), say("personality", [0x40000; 6])), (ALLOW, EPERM));
    let data = Data { number: 9999, token: arches[0].token, args: [0; 6] };
    assert_eq!(run(&program, &data, cfg!(target_endian = "big")), ENOSYS, "what we do not know yet");
    let all = standard(CapSet(u64::MAX)).unwrap().filter.program;
    assert!(all.len() < bytes.len() * 2 && !all.is_empty());
}
