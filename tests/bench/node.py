"""A node to measure: `mote up` (or `mote server`) with a folder, port and names of its own, and what its processes take."""
import base64, contextlib, http.client, json, os, pathlib, re, shutil, socket, ssl, subprocess, tempfile, time

from report import CACHE, IMAGE, debian_arch, wait


class Node:
    """`mote up` with a folder, port and names of its own; ended and removed by close()."""

    def __init__(self, mote, preload=True, under=None):
        self.mote, self.dir = mote, tempfile.mkdtemp(prefix="mote-bench-", dir=under)
        self.data = self.dir + "/data"
        self.parent = f"mote-bench-{os.getpid()}"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        os.mkdir(self.data)
        if preload:
            arguments = (CACHE / "fixtures" / debian_arch() / "busybox.pack").read_text().splitlines()
            subprocess.run([mote, "image", "pack", "--data-dir", self.data, *arguments, IMAGE], check=True, stdout=subprocess.DEVNULL)
        self.process = None

    def start(self):
        self.log = open(self.dir + "/log", "w")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [self.mote, "up", "--data-dir", self.data, "--listen", f"127.0.0.1:{self.port}", "--node-name", "bench",
             "--write-kubeconfig", self.dir + "/kubeconfig", "--cluster-cidr", "10.252.0.0/16", "--service-cidr", "10.253.0.0/16",
             "--cgroup-parent", self.parent], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)

    def listening(self):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 0.2).close()
            return True
        if self.process.poll() is not None:
            raise SystemExit(f"mote up ended: {open(self.dir + '/log').read()}")
        return False

    def ready(self):
        """Seconds from the start of the process until /readyz says yes to a client with the kubeconfig."""
        wait("the kubeconfig", 20, lambda: os.path.exists(self.dir + "/kubeconfig") and self.listening())
        self.context = self.tls()
        self.connection = self.connect()
        wait("/readyz", 20, lambda: self.status("GET", "/readyz") == 200)
        return time.monotonic() - self.began

    def tls(self):
        text = open(self.dir + "/kubeconfig").read()
        part = lambda key: base64.b64decode(re.search(key + r'"?:\s*"?([A-Za-z0-9+/=]+)', text).group(1))
        self.authority = part("certificate-authority-data")
        context = ssl.create_default_context(cadata=self.authority.decode())
        context.check_hostname = False
        with open(self.dir + "/client.pem", "wb") as pem:
            pem.write(part("client-certificate-data") + b"\n" + part("client-key-data"))
        context.load_cert_chain(self.dir + "/client.pem")
        return context

    def connect(self):
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=20)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def request(self, method, path, body=None, connection=None):
        connection = connection or self.connection
        connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
        return answer.status, data

    def status(self, method, path):
        try:
            return self.request(method, path)[0]
        except OSError:
            self.connection = self.connect()
            return 0

    def pod(self, name):
        status, data = self.request("GET", f"/api/v1/namespaces/default/pods/{name}")
        return json.loads(data) if status == 200 else None

    def create(self, name, **more):
        spec = more | {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
                # the first process of a PID namespace is deaf to signals it does not handle
                "command": ["sh", "-c", "trap 'exit 0' TERM; httpd -f -p 8080 -h /www & wait"]}]}
        status, data = self.request("POST", "/api/v1/namespaces/default/pods",
                                    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
        if status != 201:
            raise SystemExit(f"create pod: {status} {data[:500]}")

    def node_ready(self):
        status, data = self.request("GET", "/api/v1/nodes/bench")
        return status == 200 and any(c["type"] == "Ready" and c["status"] == "True" for c in json.loads(data).get("status", {}).get("conditions", []))

    def running(self, count):
        _, data = self.request("GET", "/api/v1/namespaces/default/pods")
        pods = json.loads(data)["items"]
        return sum(p.get("status", {}).get("phase") == "Running" for p in pods) >= count

    def processes(self):
        """mote up and its keeper."""
        found = {self.process.pid: "mote up"}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes().split(b"\0")
                    if b"keeper" in command and (entry / "exe").resolve() == pathlib.Path(self.mote).resolve():
                        if any(os.path.exists(p) and self.run_dir() in p.decode() for p in command if p.startswith(b"/run")) or self.data.encode() in b" ".join(command):
                            found[int(entry.name)] = "keeper"
        return found

    def run_dir(self):
        import hashlib
        return "/run/mote/" + hashlib.sha256(os.path.realpath(self.data).encode()).hexdigest()[:8]

    def close(self):
        subprocess.run([self.mote, "down", "--data-dir", self.data], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
        if self.process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            self.process.kill()
            self.process.wait()
            self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class Server(Node):
    """`mote server`: the control plane alone."""

    def __init__(self, mote, *more):
        super().__init__(mote, preload=False)
        self.more = more

    def start(self):
        self.log = open(self.dir + "/log", "w")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [self.mote, "server", "--data-dir", self.data, "--listen", f"127.0.0.1:{self.port}", "--write-kubeconfig", self.dir + "/kubeconfig", *self.more],
            stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)

    def close(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        self.start()
        self.ready()
        with open(self.dir + "/ca.pem", "wb") as pem:
            pem.write(self.authority)
        return self

    def __exit__(self, *_):
        self.close()

    def load(self, program, what, clients, requests):
        command = [program, f"127.0.0.1:{self.port}", self.dir + "/ca.pem", self.dir + "/client.pem", what, str(clients), str(requests)]
        return json.loads(subprocess.check_output(command, timeout=300))

    def stored(self):
        return sum(f.stat().st_size for f in pathlib.Path(self.data, "store").glob("*"))


@contextlib.contextmanager
def node(mote, **more):
    n = Node(mote, **more)
    try:
        n.start()
        n.up_s = n.ready()
        yield n
    finally:
        n.close()


def pss_kib(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", text, re.M).group(1))


def rss_kib(pid):
    """What is in memory and what of it is our own pages, not of the executable."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+)", text, re.M).group(1)), int(re.search(r"^RssAnon:\s+(\d+)", text, re.M).group(1))


def peak_kib(pid, anew=False):
    """The most that was in memory; `anew`: from now on."""
    if anew:
        pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
    return int(re.search(r"^VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M).group(1))


def memory_of(n):
    parts = {name: pss_kib(pid) for pid, name in n.processes().items()}
    return sum(parts.values()) / 1024, ", ".join(f"{k} {v / 1024:.1f}" for k, v in sorted(parts.items()))


def activity(n):
    """CPU seconds and voluntary context switches so far of our processes."""
    cpu = switches = 0
    for pid in n.processes():
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            cpu += int((task / "schedstat").read_text().split()[0]) / 1e9
            switches += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.M).group(1))
    return cpu, switches


def to_disk(pid):
    return int(re.search(r"^write_bytes: (\d+)", pathlib.Path(f"/proc/{pid}/io").read_text(), re.M).group(1))


def mib(kib):
    return f"{kib / 1024:.1f}"
