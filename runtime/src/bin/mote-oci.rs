//! `mote-oci`: a drop-in for runc. (`mote oci` is the same; `keeper` is for this crate's own tests and for `mote-oci` alone on a machine.)

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if let [command, flag, dir] = args.as_slice()
        && command == "keeper"
        && flag == "--dir"
    {
        return mote_runtime::keeper::main(dir.as_ref());
    }
    mote_runtime::oci_cli::main(args)
}
