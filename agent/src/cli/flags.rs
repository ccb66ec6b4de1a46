//! A command's flags as one table: it reads the command line and writes `--help`, so that the two cannot part.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

/// Longer flags stand in a column of their own.
const COLUMN: usize = 24;

/// Why a command ends before it began.
#[derive(Debug)]
pub(super) enum Stop {
    /// `--help`
    Help,
    /// It was not understood.
    Usage(String),
}

impl From<lexopt::Error> for Stop {
    fn from(error: lexopt::Error) -> Stop {
        Stop::Usage(error.to_string())
    }
}

/// One flag of a command whose options are `O`.
pub(super) struct Flag<O> {
    /// Without the dashes.
    pub(super) name: &'static str,
    /// What stands for the value in `--help`; empty for a switch.
    pub(super) value: &'static str,
    /// What `--help` says; empty hides the flag.
    pub(super) about: &'static str,
    /// Takes it into the options; the error names neither flag nor value.
    pub(super) set: fn(&mut O, Given) -> Result<(), String>,
}

/// The value given to a flag; empty for a switch.
pub(super) struct Given(OsString);

impl Given {
    /// The value of a flag that another parser has met.
    pub(super) fn new(value: OsString) -> Given {
        Given(value)
    }

    /// As it is.
    pub(super) fn path(self) -> PathBuf {
        self.0.into()
    }

    /// Read as what is wanted.
    pub(super) fn parse<T: FromStr<Err: std::fmt::Display>>(&self) -> Result<T, String> {
        self.0.to_str().ok_or("is not UTF-8")?.parse().map_err(|e: T::Err| e.to_string())
    }
}

/// What a flag does whose value cannot be wrong: it takes its place.
pub(super) fn put<T>(place: &mut T, value: T) -> Result<(), String> {
    *place = value;
    Ok(())
}

/// Reads the rest of the command line into `options`. Of a flag given twice the table's `set` decides what it means.
pub(super) fn read<O>(parser: &mut lexopt::Parser, flags: &[&Flag<O>], options: &mut O) -> Result<(), Stop> {
    loop {
        let flag = match parser.next()? {
            None => return Ok(()),
            Some(lexopt::Arg::Long("help") | lexopt::Arg::Short('h')) => return Err(Stop::Help),
            Some(arg) => {
                let known = flags.iter().find(|flag| matches!(arg, lexopt::Arg::Long(name) if name == flag.name));
                *known.ok_or_else(|| arg.unexpected())?
            }
        };
        let given = if flag.value.is_empty() { OsString::new() } else { parser.value()? };
        let shown = given.to_string_lossy().into_owned();
        (flag.set)(options, Given(given)).map_err(|why| Stop::Usage(format!("--{} {shown:?}: {why}", flag.name)))?;
    }
}

/// The lines of `--help` that tell the flags.
pub(super) fn lines<O>(flags: &[&Flag<O>]) -> String {
    let left = |flag: &Flag<O>| format!("--{} {}", flag.name, flag.value).trim_end().to_owned();
    let shown = flags.iter().copied().filter(|flag| !flag.about.is_empty());
    let (short, long): (Vec<&Flag<O>>, Vec<&Flag<O>>) = shown.partition(|flag| left(flag).len() <= COLUMN);
    let mut text = String::new();
    for column in [short, long] {
        let width = column.iter().map(|flag| left(flag).len()).max().unwrap_or(0);
        for flag in column {
            text.push_str(&format!("  {:width$}  {}\n", left(flag), flag.about));
        }
    }
    text
}

/// The data folder, of a command that needs nothing else.
#[cfg(feature = "minicp")]
pub(super) const DATA_DIR: Flag<PathBuf> = Flag {
    name: "data-dir",
    value: "DIR",
    about: "state of the control plane (default /var/lib/mote)",
    set: |dir, v| put(dir, v.path()),
};

/// The exit code of a command that ended early.
pub(super) fn stopped(stop: Stop, help: &str) -> ExitCode {
    match stop {
        Stop::Help => {
            mote_runtime::print(format_args!("{help}"));
            ExitCode::SUCCESS
        }
        Stop::Usage(why) => super::usage(&why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Debug, PartialEq)]
    struct Options {
        number: u8,
        files: Vec<PathBuf>,
        on: bool,
    }

    const FLAGS: &[&Flag<Options>] = &[
        &Flag { name: "number", value: "N", about: "a number", set: |o, v| v.parse().map(|n| o.number = n) },
        &Flag {
            name: "file",
            value: "F",
            about: "a file",
            set: |o, v| {
                o.files.push(v.path());
                Ok(())
            },
        },
        &Flag { name: "on", value: "", about: "", set: |o, _| put(&mut o.on, true) },
    ];

    fn of(args: &[&str]) -> Result<Options, String> {
        let mut options = Options::default();
        match read(&mut lexopt::Parser::from_args(args), FLAGS, &mut options) {
            Ok(()) => Ok(options),
            Err(Stop::Help) => Err("help".into()),
            Err(Stop::Usage(why)) => Err(why),
        }
    }

    #[test]
    fn a_table_reads_the_command_line() {
        let all = of(&["--number=7", "--file", "a", "--file", "b", "--on"]);
        assert_eq!(all, Ok(Options { number: 7, files: vec!["a".into(), "b".into()], on: true }));
        for (args, part) in [
            (&["--number", "300"][..], "--number \"300\": number too large"),
            (&["--number"], "missing argument for option '--number'"),
            (&["--numbers", "3"], "invalid option '--numbers'"),
            (&["--on=yes"], "unexpected argument for option '--on'"),
            (&["word"], "unexpected argument \"word\""),
            (&["-x"], "invalid option '-x'"),
            (&["--number", "x", "--help"], "--number \"x\": invalid digit"),
            (&["--help", "--nonsense"], "help"),
        ] {
            let why = of(args).unwrap_err();
            assert!(why.starts_with(part) && !why.contains('\n'), "{args:?}: {why}");
        }
    }

    #[test]
    fn help_is_the_table() {
        assert_eq!(lines(FLAGS), "  --number N  a number\n  --file F    a file\n");
    }
}
