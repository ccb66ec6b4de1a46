//! `mote check`: what this host lacks, in plain words.

use std::process::ExitCode;

use mote_runtime::check::{Finding, Level, check};

use super::options::{Stop, stopped};

const HELP: &str = "\
mote check: say what this host lacks to run pods, and how to fix it

usage: mote check [--output json]
";

/// Prints every finding; fails when pods cannot run here.
pub(super) fn run(mut parser: lexopt::Parser) -> ExitCode {
    let mut json = false;
    let parsed = (|| -> Result<(), Stop> {
        while let Some(arg) = parser.next()? {
            match arg {
                lexopt::Arg::Long("output") => {
                    json = parser.value()? == "json";
                    if !json {
                        return Err(Stop::Usage("--output knows json only".into()));
                    }
                }
                lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Err(Stop::Help),
                // Every subcommand takes it; here it changes nothing.
                lexopt::Arg::Long("data-dir") => drop(parser.value()?),
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(())
    })();
    if let Err(stop) = parsed {
        return stopped(stop, HELP);
    }
    let findings = check();
    if json {
        let list: Vec<_> = findings
            .iter()
            .map(|f| serde_json::json!({"level": word(f), "what": f.what, "says": f.says, "fix": f.fix}))
            .collect();
        println!("{}", serde_json::Value::Array(list));
    } else {
        for finding in &findings {
            println!("{:8} {}: {}", word(finding), finding.what, finding.says);
            if !finding.fix.is_empty() {
                println!("         {}", finding.fix);
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
