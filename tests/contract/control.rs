//! Pausing, changing limits, counting, signalling.
use super::*;

/// Adds a line at a time: a file written anew would be empty where a pause falls between its two halves.
fn counting() -> Bundle {
    let bundle = Bundle::new("while true; do echo >> /tmp/count; sleep 0.02; done");
    bundle.ok(&["create", "ID"]);
    bundle.ok(&["start", "ID"]);
    bundle.wait_for("running");
    bundle
}

impl Bundle {
    fn count(&self) -> usize {
        let until = Instant::now() + WAIT;
        loop {
            let lines = std::fs::read(self.rootfs("tmp/count")).unwrap_or_default().len();
            if lines > 0 {
                return lines;
            }
            assert!(Instant::now() < until, "never counted");
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// The value of a limit, by its v1 or its v2 name.
    pub(super) fn limit(&self, v1: &str, v2: &str) -> String {
        let read = |f: PathBuf| std::fs::read_to_string(f).ok();
        let found = self.cgroups().into_iter().find_map(|g| read(g.join(v1)).or_else(|| read(g.join(v2))));
        found.unwrap_or_else(|| panic!("no {v1}, no {v2}")).trim().to_owned()
    }
}

#[test]
fn pause_and_resume() {
    let bundle = counting();
    bundle.count();
    bundle.ok(&["pause", "ID"]);
    assert_eq!(bundle.state()["status"], "paused");
    let before = bundle.count();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(bundle.count(), before, "it counts on");
    assert!(!bundle.call(&["exec", "ID", "true"]).status.success(), "nothing starts in a paused container");
    bundle.ok(&["resume", "ID"]);
    assert_eq!(bundle.state()["status"], "running");
    let until = Instant::now() + WAIT;
    while bundle.count() == before {
        assert!(Instant::now() < until, "never resumed");
        std::thread::sleep(Duration::from_millis(5));
    }
    bundle.ok(&["delete", "--force", "ID"]);
    bundle.nothing_left();
}

#[test]
fn a_paused_container_can_be_deleted() {
    let bundle = counting();
    bundle.ok(&["pause", "ID"]);
    bundle.ok(&["delete", "--force", "ID"]);
    bundle.nothing_left();
}

#[test]
fn limits_change_while_it_runs() {
    let bundle = counting();
    bundle.ok(&["update", "--pids-limit", "17", "--memory", "67108864", "--memory-swap", "67108864", "ID"]);
    assert_eq!(bundle.limit("pids.max", "pids.max"), "17");
    assert_eq!(bundle.limit("memory.limit_in_bytes", "memory.max"), "67108864");
    let resources = json!({"cpu": {"quota": 30_000, "period": 100_000, "shares": 512}, "memory": {"limit": 134_217_728, "swap": 134_217_728}});
    std::fs::write(bundle.dir.path().join("r.json"), resources.to_string()).unwrap();
    bundle.ok(&["update", "--resources", "r.json", "ID"]);
    assert_eq!(bundle.limit("memory.limit_in_bytes", "memory.max"), "134217728");
    let quota = bundle.limit("cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "30000" || quota == "30000 100000", "{quota}");
    bundle.ok(&["delete", "--force", "ID"]);
    bundle.nothing_left();
}

#[test]
fn rarer_limits_are_written() {
    let mut bundle = Bundle::new("sleep 1000");
    bundle.set("/linux/resources/memory", json!({"limit": 67_108_864, "reservation": 33_554_432}));
    bundle.config["linux"]["resources"]["cpu"] =
        json!({"shares": 300, "quota": 50_000, "period": 100_000, "cpus": "0"});
    bundle.ok(&["create", "ID"]);
    assert_eq!(bundle.limit("memory.soft_limit_in_bytes", "memory.low"), "33554432");
    assert_eq!(bundle.limit("cpuset.cpus", "cpuset.cpus"), "0");
    let shares = bundle.limit("cpu.shares", "cpu.weight");
    assert!(shares == "300" || shares == "12", "{shares}");
    bundle.ok(&["delete", "--force", "ID"]);
    bundle.nothing_left();
}

#[test]
fn counters_are_told() {
    if runtime().to_string_lossy().contains("crun") {
        return; // has no such command
    }
    let bundle = counting();
    let text = bundle.ok(&["events", "--stats", "ID"]);
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((line["type"].as_str(), line["id"].as_str()), (Some("stats"), Some(bundle.id.as_str())));
    let data = &line["data"];
    assert!(data["pids"]["current"].as_u64().unwrap() >= 1, "{text}");
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{text}");
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{text}");
    bundle.ok(&["delete", "--force", "ID"]);
}

#[test]
fn kill_all_reaches_every_process() {
    let bundle = Bundle::new(
        "trap : TERM; sh -c 'trap \"echo > /tmp/child; exit\" TERM; echo > /tmp/ready; while true; do sleep 0.02; done' & while true; do sleep 0.05; done",
    );
    bundle.ok(&["create", "ID"]);
    bundle.ok(&["start", "ID"]);
    let wait = |file: &str| {
        let until = Instant::now() + WAIT;
        while !bundle.rootfs(file).exists() {
            assert!(Instant::now() < until, "no {file}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait("tmp/ready");
    bundle.ok(&["kill", "--all", "ID", "TERM"]);
    wait("tmp/child");
    assert_eq!(bundle.state()["status"], "running", "its first process ignores the signal");
    bundle.ok(&["delete", "--force", "ID"]);
    bundle.nothing_left();
}

#[test]
fn signals_have_names_and_numbers() {
    let bundle = Bundle::new(
        "trap 'echo > /tmp/usr1' USR1; trap 'exit 0' INT; echo > /tmp/ready; while true; do sleep 0.02; done",
    );
    bundle.ok(&["create", "ID"]);
    bundle.ok(&["start", "ID"]);
    let until = Instant::now() + WAIT;
    while !bundle.rootfs("tmp/ready").exists() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    bundle.ok(&["kill", "ID", "SIGUSR1"]);
    while !bundle.rootfs("tmp/usr1").exists() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    bundle.ok(&["kill", "ID", "2"]);
    bundle.wait_for("stopped");
    bundle.ok(&["delete", "ID"]);
}

#[test]
fn a_detached_run_goes_on() {
    let bundle = Bundle::new("sleep 1000");
    bundle.ok(&["run", "--detach", "--pid-file", "pid", "ID"]);
    assert_eq!(bundle.state()["status"], "running");
    let list = bundle.ok(&["list"]);
    assert!(list.lines().any(|l| l.contains(&bundle.id) && l.contains("running")), "{list}");
    assert_eq!(bundle.ok(&["list", "--quiet"]).trim(), bundle.id);
    bundle.ok(&["delete", "--force", "ID"]);
    bundle.nothing_left();
}

#[test]
fn reasons_are_logged_as_json() {
    let mut bundle = Bundle::new("");
    bundle.set("/process/args", json!(["/bin/foo"]));
    let output = bundle.call(&["--log", "log.json", "--log-format", "json", "create", "ID"]);
    assert!(!output.status.success());
    let text = std::fs::read_to_string(bundle.dir.path().join("log.json")).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error", "{text}");
    assert!(last["msg"].as_str().unwrap().contains("/bin/foo"), "{text}");
}

#[test]
fn the_example_runs() {
    let mut bundle = Bundle::new("");
    let folder = bundle.dir.path().join("example");
    std::fs::create_dir(&folder).unwrap();
    bundle.command(&["spec"]).current_dir(&folder).output().unwrap();
    let mut config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/sh", "-c", "echo example"]);
    config["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id));
    bundle.config = config;
    assert_eq!(bundle.output(), "example\n");
}

#[test]
fn warnings_for_what_the_kernel_does_not_know() {
    let mut bundle = Bundle::new("grep CapBnd /proc/self/status");
    bundle.set("/process/capabilities/bounding", json!(["CAP_KILL", "CAP_FROM_THE_FUTURE"]));
    bundle.set("/process/capabilities/effective", json!(["CAP_KILL"]));
    bundle.set("/process/capabilities/permitted", json!(["CAP_KILL"]));
    assert_eq!(bundle.output(), "CapBnd:\t0000000000000020\n");
}

/// As C programs do: no complaint, and whoever asks sees why.
#[test]
fn a_closed_pipe_ends_what_only_prints() {
    if another() {
        return;
    }
    for words in [&["--version"][..], &["--help"], &["features"], &["list"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(runtime());
        command.args(words).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        assert_eq!(signal, Some(libc::SIGPIPE), "{words:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{words:?}: {output:?}");
    }
}

/// What a command prints is its result: it did not come about, and that is an error like others.
#[test]
fn a_full_disk_is_an_error_of_what_only_prints() {
    if another() {
        return;
    }
    for words in [&["--version"][..], &["--help"], &["features"], &["list"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(runtime()).args(words).stdin(Stdio::null()).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("No space left on device") && said.lines().count() == 1, "{words:?}: {said}");
    }
}

/// No file of the runtime's, nor the container's, gets the number of a stream the caller has closed.
#[test]
fn closed_streams_are_nothing() {
    if another() {
        return;
    }
    let bundle = Bundle::new("for fd in 0 1 2; do readlink /proc/self/fd/$fd; done >/data/fds");
    let command = bundle.command(&["run", "ID"]);
    let mut outer = Command::new("sh");
    outer.args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh"]).arg(command.get_program()).args(command.get_args());
    outer.current_dir(bundle.dir.path());
    let output = bounded::output(outer, &bundle.dir.path().join("outer"), WAIT);
    assert_eq!(output.status.code(), Some(0));
    let seen = std::fs::read_to_string(bundle.rootfs("data/fds")).unwrap();
    assert_eq!(seen, "/dev/null\n/data/fds\n/dev/null\n");
    bundle.nothing_left();
}
