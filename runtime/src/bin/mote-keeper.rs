//! `mote-keeper keeper --dir DIR`: the keeper alone, as `mote` has it, for this crate's own tests. It stays out of `mote-oci`, which is
//! small because it is only what runc is.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match args.as_slice() {
        [command, flag, dir] if command == "keeper" && flag == "--dir" => mote_runtime::keeper::main(dir.as_ref()),
        _ => {
            eprintln!("usage: mote-keeper keeper --dir DIR");
            ExitCode::from(2)
        }
    }
}
