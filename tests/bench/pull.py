"""Pull and unpack one image of eight layers (about 100 MB compressed, gzip or zstd) from docker-registry on loopback: by mote, by the serial
shell pipe with and without a wait for the disk at its end, by skopeo + umoci, podman and containerd, interleaved. Standard library only;
used by tests/bench/run.

The image: a Debian root, Python and nginx (images/fixtures/build) and five slices of this machine's /usr/lib. It is made once for both
codecs, compressed by skopeo (none of the code that is measured), and kept as a registry's folder in the cache.
"""
import contextlib, ctypes, json, os, pathlib, re, shutil, statistics, subprocess, tempfile, threading, time

SLICES, SLICE_BYTES, FILE_BYTES_MAX = 5, 26_000_000, 8_000_000
ROUNDS, PEER_ROUNDS = 5, 3
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}


@contextlib.contextmanager
def registry(folder):
    """docker-registry on this folder; it chooses the port and says so."""
    with tempfile.TemporaryDirectory(prefix="mote-bench-") as work:
        config, log = work + "/config.yml", work + "/log"
        pathlib.Path(config).write_text(
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n")
        with open(log, "w") as out:
            process = subprocess.Popen(["docker-registry", "serve", config], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 20
            while not (told := re.search(r"listening on (127\.0\.0\.1:\d+)", pathlib.Path(log).read_text())):
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit("docker-registry: " + pathlib.Path(log).read_text())
                time.sleep(0.02)
            yield told.group(1), log
        finally:
            process.terminate()
            process.wait()


def slices(into):
    """Folders of real files of this machine, each of about SLICE_BYTES."""
    found, size = [], SLICE_BYTES
    for folder, folders, names in os.walk("/usr/lib"):
        folders.sort()
        for name in sorted(names):
            path = pathlib.Path(folder, name)
            stat = path.lstat()
            if stat.st_size > FILE_BYTES_MAX or not (path.is_symlink() or path.is_file()):
                continue
            if size >= SLICE_BYTES:
                if len(found) == SLICES:
                    return found
                found.append(f"{into}/{len(found)}")
                size = 0
            target = pathlib.Path(found[-1] + str(path))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)
            size += stat.st_size
    return found


def prepare(mote, cache, arch):
    """The registry's folder, made if it is not there."""
    folder = cache / "bench" / f"pull-{arch}-1"
    if folder.exists():
        return folder
    fixtures = cache / "fixtures" / arch / "layers"
    with tempfile.TemporaryDirectory(prefix="mote-bench-") as work:
        layers = [word for path in [fixtures / "base", fixtures / "python", fixtures / "nginx", *slices(work + "/slices")] for word in ("--layer", str(path))]
        pack = [mote, "image", "pack", "--data-dir", work + "/data", "--compression", "none", "--cmd", "sh", *layers, "bench:1"]
        subprocess.run(pack, check=True, stdout=subprocess.DEVNULL)
        subprocess.run([mote, "image", "export", "--data-dir", work + "/data", "bench:1", work + "/image.tar"], check=True)
        for codec, level in [("gzip", 6), ("zstd", 3)]:
            with registry(work + "/registry") as (address, _):  # a new port: skopeo remembers what lies where, compressed in whatever way
                subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-compress-format", codec, "--dest-compress-level", str(level),
                                f"oci-archive:{work}/image.tar", f"docker://{address}/bench:{codec}"], check=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(work + "/registry", folder)
    return folder


def private_mounts():
    """Mounts of podman and containerd are for this process and its children, and go with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000) or libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None):
        raise OSError(ctypes.get_errno(), "private mount namespace")


def high_water_kib(pid):
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
        return int(found.group(1)) if found else 0
    return 0


def disk_bytes(folder):
    """What a tree takes, hard links once (du)."""
    return int(subprocess.check_output(["du", "-s", "--block-size=1", folder], text=True).split()[0])


class Containerd:
    """A daemon with folders of its own; started outside of what is timed."""

    def __init__(self, work, reference):
        self.work, self.reference = work, reference
        self.socket = work + "/c.sock"
        pathlib.Path(work, "containerd.toml").write_text(
            f'version = 2\nroot = "{work}/containerd"\nstate = "{work}/containerd-state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{self.socket}"\n')
        self.process = subprocess.Popen(["containerd", "-c", work + "/containerd.toml"], **QUIET)
        end = time.monotonic() + 20
        while subprocess.run(["ctr", "-a", self.socket, "version"], **QUIET).returncode:
            if time.monotonic() > end:
                raise SystemExit("containerd did not start")
            time.sleep(0.05)

    def command(self):
        return ["ctr", "-a", self.socket, "images", "pull", "--plain-http", self.reference]

    def close(self):
        self.process.terminate()
        self.process.wait()


def timed(command):
    """Seconds and the program's own peak memory (the kernel starts counting anew at exec)."""
    began = time.monotonic()
    process = subprocess.Popen(command, **QUIET)
    peak = 0
    while process.poll() is None:
        peak = max(peak, high_water_kib(process.pid))
        time.sleep(0.005)
    took = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: status {process.returncode}")
    return took, peak


def most_on_disk(mote, reference, work):
    """The most a pull takes on the disk at any moment, and what it leaves there: on a file system of its own (memory), watched."""
    mount = work + "/alone"
    os.mkdir(mount)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "mote-bench", mount], check=True)
    try:
        used = lambda: (lambda s: (s.f_blocks - s.f_bfree) * s.f_frsize)(os.statvfs(mount))
        process = subprocess.Popen([mote, "image", "pull", "--data-dir", mount + "/data", "--drop-blobs", reference], **QUIET)
        most = 0
        while process.poll() is None:
            most = max(most, used())
            time.sleep(0.002)
        if process.returncode:
            raise SystemExit(f"pull: status {process.returncode}")
        return most, used()
    finally:
        subprocess.run(["umount", mount], check=True)


def measure(mote, row, cache, arch, codec):
    folder = prepare(mote, cache, arch)
    private_mounts()
    with registry(folder) as (address, log), tempfile.TemporaryDirectory(prefix="mote-bench-") as work:
        reference = f"{address}/bench:{codec}"
        manifest = json.loads(subprocess.check_output(
            ["curl", "-sf", "-H", "Accept: application/vnd.oci.image.manifest.v1+json", f"http://{address}/v2/bench/manifests/{codec}"]))
        inflate = {"gzip": "zcat", "zstd": "zstd -dcq"}[codec]
        steps = " && ".join(f"curl -sf http://{address}/v2/bench/blobs/{layer['digest']} | {inflate} | tar -x -C {work}/pipe" for layer in manifest["layers"])
        pipe = f"set -o pipefail; mkdir {work}/pipe && {steps}"
        ways = {
            "mote": [mote, "image", "pull", "--data-dir", work + "/mote", "--drop-blobs", reference],
            "pipe": ["bash", "-c", pipe],
            "pipe + sync": ["bash", "-c", f"{pipe} && sync -f {work}/pipe"],
        }
        peers = {
            "skopeo+umoci": ["sh", "-c", f"skopeo copy -q --src-tls-verify=false docker://{reference} oci:{work}/layout:x && umoci unpack --image {work}/layout:x {work}/umoci"],
            "podman": ["podman", "--root", work + "/podman", "--runroot", work + "/podman-run", "--storage-driver", "overlay", "--events-backend", "none", "pull", "-q", "--tls-verify=false", reference],
            "containerd": None,
        }
        if codec == "zstd":  # umoci 0.4 knows gzip only: the copy in between is compressed anew for it
            peers["skopeo+umoci"][2] = peers["skopeo+umoci"][2].replace("copy -q", "copy -q --dest-compress-format gzip", 1)
        for name in [name for name, needs in [("skopeo+umoci", ("skopeo", "umoci")), ("podman", ("podman",)), ("containerd", ("containerd", "ctr"))]
                     if not all(map(shutil.which, needs))]:
            del peers[name]
        times, peak, disk = {}, {}, {}
        for turn in range(ROUNDS):
            for name, command in (ways | (peers if turn < PEER_ROUNDS else {})).items():
                daemon = Containerd(work, reference) if name == "containerd" else None
                os.sync()
                took, high = timed(daemon.command() if daemon else command)
                if daemon:
                    high = high_water_kib(daemon.process.pid)
                    daemon.close()
                times.setdefault(name, []).append(took)
                peak[name] = max(peak.get(name, 0), high)
                if turn == 0 and name in ("mote", "pipe"):
                    disk[name] = disk_bytes(f"{work}/{name}")
                for leftover in os.listdir(work):
                    path = f"{work}/{leftover}"
                    shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.remove(path)
        ours, middle = statistics.median(times["mote"]), {name: statistics.median(values) for name, values in times.items()}
        size = sum(layer["size"] for layer in manifest["layers"]) / 1e6
        each = lambda name: f"{name} {middle[name]:.2f}"
        row(f"pull + unpack, {len(manifest['layers'])} {codec} layers of {size:.0f} MB", "the pipe", f"{ours:.2f} s", ours <= middle["pipe"],
            f"{each('pipe')}, {each('pipe + sync')} s; best of each {min(times['mote']):.2f}, {min(times['pipe']):.2f}, {min(times['pipe + sync']):.2f}")
        for name in peers:
            row(f"pull + unpack, {codec}: {name} / mote", "2", f"{middle[name] / ours:.1f}", middle[name] >= 2 * ours,
                f"{middle[name]:.2f} s" + (f", peak RSS {peak[name] / 1024:.0f} MiB" if name != "skopeo+umoci" else ""))
        row(f"pull, {codec}: peak RSS", "16 MiB", f"{peak['mote'] / 1024:.1f} MiB", peak["mote"] <= 16 * 1024)
        row(f"pull, {codec}: disk / that of the unpacked tree", "1.05", f"{disk['mote'] / disk['pipe']:.3f}", disk["mote"] <= 1.05 * disk["pipe"], f"{disk['pipe'] / 1e6:.0f} MB")
        most, left = most_on_disk(mote, reference, work)
        row(f"pull, {codec}: most disk at any moment / what stays", "1.05", f"{most / left:.3f}", most <= 1.05 * left, f"{left / 1e6:.0f} MB")
