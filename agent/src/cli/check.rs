//! `mote check`: what this host lacks, in plain words.

use std::process::ExitCode;

use mote_runtime::check::{Finding, Level, check};
use mote_runtime::show;

use super::flags::{self, Flag, stopped};

const USAGE: &str = "\
mote check: say what this host lacks to run pods, and how to fix it

usage: mote check [OPTIONS]

";

const FLAGS: &[&Flag<bool>] = &[
    &Flag {
        name: "output",
        value: "json",
        about: "for scripts",
        set: |json, v| {
            *json = v.parse::<String>()? == "json";
            if *json { Ok(()) } else { Err("json is all it knows".into()) }
        },
    },
    // Every subcommand takes it; here it changes nothing.
    &Flag { name: "data-dir", value: "DIR", about: "", set: |_, _| Ok(()) },
];

/// Prints every finding; fails when pods cannot run here.
pub(super) fn run(mut parser: lexopt::Parser) -> ExitCode {
    let mut json = false;
    if let Err(stop) = flags::read(&mut parser, FLAGS, &mut json) {
        return stopped(stop, &format!("{USAGE}{}", flags::lines(FLAGS)));
    }
    let findings = check();
    if json {
        let list: Vec<_> = findings
            .iter()
            .map(|f| serde_json::json!({"level": word(f), "what": f.what, "says": f.says, "fix": f.fix}))
            .collect();
        show!("{}", serde_json::Value::Array(list));
    } else {
        for finding in &findings {
            let colon = if finding.says.is_empty() { "" } else { ": " };
            show!("{:8} {}{colon}{}", word(finding), finding.what, finding.says);
            if !finding.fix.is_empty() {
                show!("         {}", finding.fix);
            }
        }
    }
    let lacking = findings.iter().any(|finding| matches!(finding.level, Level::Missing));
    if lacking { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn word(finding: &Finding) -> &'static str {
    match finding.level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Missing => "missing",
    }
}
