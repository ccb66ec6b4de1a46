"""The runtime: `mote-oci` beside crun and runc, and the keeper."""
import json, os, pathlib, shutil, subprocess, tempfile, time

from report import CACHE, TOP, debian_arch, median, row


def disk_with_journal(folder):
    """What runs a command with an ext4 as nodes have it (with a journal) for its temporary folder, in a mount namespace of its own. Without one, finding
    an inode takes the longer the more were freed in the last minutes, and mounting an overlay takes several."""
    disk, place = folder + "/disk", folder + "/place"
    os.mkdir(place)
    subprocess.run(["truncate", "-s", "1G", disk], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
    script = f'mount -o loop {disk} {place} && TMPDIR={place} "$@"; status=$?; umount {place}; exit $status'
    return ["unshare", "-m", "sh", "-c", script, "sh"]


def built_floor(folder):
    """What the kernel alone takes, in C: how fast this machine is now."""
    program = folder + "/floor"
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", program, TOP / "tests/bench/src/floor.c"], check=True)
    return program


def part_keeper(mote, _oci, _):
    layer = CACHE / "fixtures" / debian_arch() / "layers/busybox"
    subprocess.run(["cargo", "build", "--locked", "--release", "-p", "mote-runtime", "--features", "bench", "--bin", "bench-keeper"], cwd=TOP, check=True)
    program = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "release/bench-keeper"
    rounds, starts, held, cycles = 4, 51, 200, int(os.environ.get("MOTE_CYCLES", 10_000))

    def told(*command):
        return [line.split() for line in subprocess.check_output(command, text=True, timeout=600).splitlines()]

    def measured(*counts, disk=()):
        return told(*disk, program, mote, layer, *map(str, counts))

    def middle(figures, name):
        times = sorted(float(value) for what, value in figures if what == name)
        return median(times), f"p90 {times[len(times) * 9 // 10]:.2f} ms"

    def warm(figures):
        """Without the first of each name, which fills caches."""
        seen = set()
        return [one for one in figures if one[0] in seen or seen.add(one[0])]

    with tempfile.TemporaryDirectory(prefix="mote-bench-") as folder:
        journal = disk_with_journal(folder)
        floor, ours = built_floor(folder), []
        for _ in range(rounds):
            ours += warm(measured(starts, 0, 0, disk=journal))
            ours += warm(told(*journal, "sh", "-c", 'exec "$0" "$1" "$(mktemp -d)" "$2"', floor, layer, str(starts)))
        for what, name, budget in [("sandbox + container: request -> program runs", "both_ms", 3), ("of that the sandbox (net, ipc, uts)", "sandbox_ms", None), ("of that the container", "start_ms", None)]:
            took, tail = middle(ours, name)
            row("keeper: " + what, f"{budget} ms" if budget else "-", f"{took:.2f} ms", None if budget is None else took <= budget, tail)
        took, least = (middle(ours, name)[0] for name in ("both_ms", "floor_ms"))
        row("keeper: request -> program runs, beside bare calls", f"{3 / 2.1:.2f}", f"{took / least:.2f}", took / least <= 3 / 2.1, f"run, end and clean-up in C {least:.2f} ms; such a program took 2.1 when the budget of 3 was set")
    figures = measured(4 * starts, held, cycles)
    took, tail = middle(warm(figures), "both_ms")
    row("the same, writable layers on this machine's " + os.path.realpath(tempfile.gettempdir()), "-", f"{took:.2f} ms", None, tail)
    one = {name: int(float(value)) for name, value in figures}
    grown = {kind: (one[f"held_{kind}_kib"] - one[f"empty_{kind}_kib"]) / held for kind in ("pss", "dirty")}
    row(f"keeper: PSS a container, {held} of them", "-", f"{grown['pss']:.1f} KiB", None, f"dirty {grown['dirty']:.1f} KiB; PSS {one['empty_pss_kib']} -> {one['held_pss_kib']} KiB")
    kinds = [name.removeprefix("before_") for name in one if name.startswith("before_")]
    more = {kind: one["after_" + kind] - one["before_" + kind] for kind in kinds}
    leaked = {kind: count for kind, count in more.items() if count > 0 and not (kind.endswith("_kib") and count <= 64)}
    row(f"keeper: {cycles:,} starts and ends leave behind", "nothing", "nothing" if not leaked else str(leaked), not leaked, f"{one['cycle_ms']} ms each; RSS " + ", ".join(f"{k.removesuffix('_rss_kib')} {more[k]:+d} KiB" for k in kinds if k.endswith("_kib")))


def without_unified():
    """crun refuses a hybrid machine's empty v2 hierarchy: a mount namespace of our own, without it, for this process and its children."""
    import ctypes
    if not os.path.ismount("/sys/fs/cgroup/unified"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    clone_newns, ms_rec_private, mnt_detach = 0x20000, 0x4000 | 0x40000, 2
    if libc.unshare(clone_newns) or libc.mount(b"none", b"/", None, ms_rec_private, None) or libc.umount2(b"/sys/fs/cgroup/unified", mnt_detach):
        raise OSError(ctypes.get_errno(), "private mount namespace")


class Runtime:
    """One OCI runtime on a bundle of our own."""

    def __init__(self, name, program, bundle):
        self.name, self.program, self.bundle, self.count = name, program, bundle, 0

    def call(self, *words, wrapper=(), check=True):
        """Wall and CPU milliseconds of the whole process and those it waits for."""
        began = time.monotonic()
        process = subprocess.Popen([*wrapper, self.program, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, process.returncode, usage = os.wait4(process.pid, 0)
        wall = (time.monotonic() - began) * 1000
        if check and process.returncode:
            raise SystemExit(f"{self.name} {words[0]}: status {process.returncode}")
        return wall, (usage.ru_utime + usage.ru_stime) * 1000, process.returncode == 0

    def id(self):
        self.count += 1
        return f"bench-{os.getpid()}-{self.name}-{self.count}"

    def peak_kib(self):
        """Of a create: by a small wrapper, for what a process was before its exec counts too."""
        with tempfile.NamedTemporaryFile("r") as said:
            name = self.id()
            self.call("create", "--bundle", self.bundle, name, wrapper=["/usr/bin/time", "-o", said.name, "-f", "%M"])
            self.call("delete", "--force", name)
            return int(said.read().split()[-1])

    def smallest_kib(self, config):
        """Of the memory limits in which `true` runs, three times out of three."""
        def works(kib):
            limited = json.loads(json.dumps(config))
            limited["linux"].setdefault("resources", {})["memory"] = {"limit": kib * 1024}
            json.dump(limited, open(self.bundle + "/config.json", "w"))
            for _ in range(3):
                name = self.id()
                if not self.call("run", "--bundle", self.bundle, name, check=False)[2]:
                    self.call("delete", "--force", name, check=False)
                    return False
            return True

        low, high = 0, 16 << 10
        while high - low > 4:
            middle = (low + high) // 8 * 4
            low, high = (low, middle) if works(middle) else (middle, high)
        json.dump(config, open(self.bundle + "/config.json", "w"))
        return high


def bundle_of_true(folder, oci):
    shutil.copytree(CACHE / "fixtures" / debian_arch() / "layers/busybox", folder + "/rootfs", symlinks=True)
    subprocess.run([shutil.which("runc") or oci, "spec"], cwd=folder, check=True)
    config = json.load(open(folder + "/config.json"))
    config["process"]["args"], config["process"]["terminal"] = ["true"], False
    config["process"].pop("rlimits", None)
    config["linux"]["cgroupsPath"] = f"/mote-bench-{os.getpid()}"
    json.dump(config, open(folder + "/config.json", "w"))
    return config


def part_oci(_mote, oci, _):
    without_unified()
    with tempfile.TemporaryDirectory(prefix="mote-bench-") as bundle:
        config = bundle_of_true(bundle, oci)
        peers = [Runtime("mote-oci", oci, bundle)] + [Runtime(n, shutil.which(n), bundle) for n in ("crun", "runc") if shutil.which(n)]
        figures = {}

        def note(peer, what, value):
            figures.setdefault(what, {}).setdefault(peer.name, []).append(value)

        for i in range(101):
            for peer in peers:
                wall, cpu, _ = peer.call("run", "--bundle", bundle, peer.id())
                if i:  # the first warms caches
                    note(peer, "run true, whole process", wall), note(peer, "run true, CPU", cpu)
        for i in range(31):
            for peer in peers:
                name = peer.id()
                for word in ("create", "start", "delete"):
                    arguments = ["--bundle", bundle, name] if word == "create" else [name]
                    wall = peer.call(word, *(["--force"] if word == "delete" else []), *arguments)[0]
                    if i:
                        note(peer, word, wall)
        for what, all in figures.items():
            ours, middle = median(all["mote-oci"]), {name: median(values) for name, values in all.items()}
            ratio = ours / middle["crun"] if "crun" in middle else None
            goal = 0.5 if what.startswith("run") else 1
            beside = ", ".join(f"{name} {value:.1f}" for name, value in middle.items() if name != "mote-oci")
            row(what, "half of crun" if goal < 1 else "crun", f"{ours:.1f} ms", None if ratio is None else ratio <= goal, beside + (f"; ratio to crun {ratio:.2f}" if ratio else ""))
        for what, measure in [("peak RSS of create", lambda p: median(p.peak_kib() for _ in range(5))), ("smallest memory limit that runs true", lambda p: p.smallest_kib(config))]:
            values = {peer.name: measure(peer) for peer in peers}
            beside = ", ".join(f"{name} {value} KiB" for name, value in values.items() if name != "mote-oci")
            row(what, "crun", f"{values['mote-oci']} KiB", values["mote-oci"] <= values["crun"] if "crun" in values else None, beside)
