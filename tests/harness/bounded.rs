//! A command to its end, which may leave processes behind and may hang.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Its code and both streams. These go by the files `<stem>.out` and `<stem>.err`, so that what is left running holds no pipe of ours; panics when
/// it takes longer than `most`.
pub(crate) fn output(mut command: Command, stem: &Path, most: Duration) -> Output {
    let [out, err] = ["out", "err"].map(|kind| stem.with_extension(kind));
    command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    let until = Instant::now() + most;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} takes longer than {most:?}: {}", std::fs::read_to_string(err).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    Output { status, stdout: std::fs::read(out).unwrap(), stderr: std::fs::read(err).unwrap() }
}
