//! `mote`: a Kubernetes node in one file. See [`mote_agent::cli`].
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    mote_agent::cli::main()
}
