"""The control plane: its API under load, its store beside etcd, many objects, many watchers, a long day."""
import contextlib, json, os, socket, subprocess, tempfile, time

from node import Server, mib, node, peak_kib, pss_kib, rss_kib, to_disk
from report import IMAGE, bench_tool, median, row, wait


def part_api(mote, _oci, _):
    program = bench_tool("bench-load")
    with node(mote) as n:
        wait("the node", 20, n.node_ready)
        authority = n.dir + "/ca.pem"
        with open(authority, "wb") as pem:
            pem.write(n.authority)

        def load(what, clients, requests):
            command = [program, f"127.0.0.1:{n.port}", authority, n.dir + "/client.pem", what, str(clients), str(requests)]
            return json.loads(subprocess.check_output(command, timeout=300))

        for what, clients, requests, budget in [("create", 1, 1000, 1000), ("create", 16, 8000, 5000), ("get", 1, 5000, 5000), ("get", 16, 20000, None)]:
            runs = [load(what, clients, requests) for _ in range(3)]
            rate, p99 = median(r["per_second"] for r in runs), median(r["p99_ms"] for r in runs)
            name = "durable creates" if what == "create" else "GET"
            row(f"{name}, {clients} client(s)", f"{budget:,}/s" if budget else "-", f"{rate:.0f}/s", None if budget is None else rate >= budget, f"p99 {p99:.2f} ms")
        watch = load("watch", 1, 500)
        row("create -> its event at another client", "1 ms", f"{watch['median_ms']:.2f} ms", watch["median_ms"] <= 1, f"p99 {watch['p99_ms']:.2f} ms")
    with node(mote) as n:  # anew: exactly 1,000 pods, bound to no node
        authority = n.dir + "/ca.pem"
        with open(authority, "wb") as pem:
            pem.write(n.authority)
        for i in range(1000):
            n.create(f"p{i}", schedulerName="nobody")
        body = subprocess.check_output([program, f"127.0.0.1:{n.port}", authority, n.dir + "/client.pem", "pods", "1", "100"], timeout=300)
        rate = json.loads(body)["per_second"]
        row("LIST of 1,000 pods", "100/s", f"{rate:.0f}/s", rate >= 100)


@contextlib.contextmanager
def etcd():
    """Debian's etcd on loopback, its data on the same disk as ours."""
    with tempfile.TemporaryDirectory(prefix="mote-bench-") as work, contextlib.ExitStack() as probes:
        ports = []
        for _ in range(2):
            probe = probes.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
        probes.close()
        client, peer = (f"http://127.0.0.1:{port}" for port in ports)
        process = subprocess.Popen(
            ["etcd", "--name", "bench", "--data-dir", work + "/data", "--listen-client-urls", client, "--advertise-client-urls", client, "--log-level", "error",
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"bench={peer}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait("etcd", 20, lambda: subprocess.run(["curl", "-sf", client + "/health"], stdout=subprocess.DEVNULL).returncode == 0, 0.05)
            yield client, process
        finally:
            process.kill()
            process.wait()


def part_store(mote, _oci, _):
    """Durable creates through the whole API (TLS, authentication, admission, validation) beside bare puts into etcd; then ours on top of that etcd."""
    load, bare = bench_tool("bench-load"), bench_tool("bench-etcd")
    with etcd() as (url, peer), Server(mote) as ours, Server(mote, "--etcd-servers", url) as both:
        for clients, requests, budget in [(1, 500, 1000), (16, 4000, 5000)]:
            rates = {"ours": [], "etcd": [], "both": []}
            for _ in range(3):
                rates["ours"].append(ours.load(load, "create", clients, requests)["per_second"])
                put = subprocess.check_output([bare, url.removeprefix("http://"), "put", str(clients), str(requests)], timeout=300)
                rates["etcd"].append(json.loads(put)["per_second"])
                rates["both"].append(both.load(load, "create", clients, requests)["per_second"])
            rate = {name: median(values) for name, values in rates.items()}
            row(f"durable creates, {clients} client(s), control plane alone", f"{budget:,}/s", f"{rate['ours']:.0f}/s", rate["ours"] >= budget,
                f"bare puts into etcd {rate['etcd']:.0f}/s; this API on etcd {rate['both']:.0f}/s")
        for clients, requests, budget in [(1, 3000, 5000), (16, 16000, None)]:
            rates = {"ours": [], "etcd": [], "both": []}
            for _ in range(3):
                rates["ours"].append(ours.load(load, "get", clients, requests)["per_second"])
                got = subprocess.check_output([bare, url.removeprefix("http://"), "get", str(clients), str(requests // 4)], timeout=300)
                rates["etcd"].append(json.loads(got)["per_second"])
                rates["both"].append(both.load(load, "get", clients, requests // 4)["per_second"])
            rate = {name: median(values) for name, values in rates.items()}
            row(f"GET, {clients} client(s), control plane alone", f"{budget:,}/s" if budget else "-", f"{rate['ours']:.0f}/s", rate["ours"] >= budget if budget else None,
                f"bare ranges of etcd {rate['etcd']:.0f}/s; this API on etcd {rate['both']:.0f}/s")
        memory = {"ours": pss_kib(ours.process.pid), "on etcd": pss_kib(both.process.pid), "etcd": pss_kib(peer.pid)}
        row("PSS after these", "-", ", ".join(f"{name} {kib / 1024:.1f}" for name, kib in memory.items()) + " MiB")
    with Server(mote) as n:
        n.create("p", schedulerName="nobody")
        status = {"phase": "Running", "containerStatuses": [{"name": "main", "ready": True, "restartCount": 0, "image": IMAGE, "imageID": "x", "state": {"running": {"startedAt": "2026-11-21T00:00:00Z"}}}]}
        began, count = n.stored(), 200
        for i in range(count):
            status["containerStatuses"][0]["restartCount"] = i
            n.connection.request("PATCH", "/api/v1/namespaces/default/pods/p/status", json.dumps({"status": status}), {"Content-Type": "application/merge-patch+json"})
            answer = n.connection.getresponse()
            if (answer.read(), answer.status)[1] != 200:
                raise SystemExit(f"patch: {answer.status}")
        each = (n.stored() - began) / count
        size = len(n.request("GET", "/api/v1/namespaces/default/pods/p")[1])
        row("bytes to disk for one status update of a pod", "1.1 x the object", f"{each:.0f} B", each <= 1.1 * size, f"the object: {size} B")


def restarted(n):
    """Seconds from a new start on the same folder until the API answers."""
    n.process.terminate()
    n.process.wait(30)
    os.remove(n.dir + "/kubeconfig")
    n.start()
    return n.ready()


def part_scale(mote, _oci, seconds):
    load = bench_tool("bench-load")
    with Server(mote) as n:
        empty = rss_kib(n.process.pid)
        n.load(load, "fill", 16, 10_000)
        before = rss_kib(n.process.pid)
        row("RSS with 10,000 objects of 2 kB", "-", mib(before[0]) + " MiB", None, f"anonymous {mib(before[1])} (values alone: {n.stored() / 2**20:.1f}); before them {mib(empty[0])}")
        peak_kib(n.process.pid, anew=True)
        lists = n.load(load, "list", 1, 10)
        row("LIST of them", "-", f"{lists['median_ms']:.0f} ms", None, f"p99 {lists['p99_ms']:.0f} ms")
        row("RSS while they are listed, at most", "-", mib(peak_kib(n.process.pid)) + " MiB", None, f"before {mib(before[0])}")
        peak_kib(n.process.pid, anew=True)
        lists = n.load(load, "list", 8, 80)
        row("the same, 8 clients", "-", mib(peak_kib(n.process.pid)) + " MiB", None, f"{lists['per_second']:.0f} lists/s, after it {mib(rss_kib(n.process.pid)[0])}")
        row("API ready after a restart with them", "-", f"{restarted(n) * 1000:.0f} ms", None, f"store of {n.stored() / 2**20:.1f} MiB")
        time.sleep(3)
        row("RSS of that restart, at most", "-", mib(peak_kib(n.process.pid)) + " MiB", None, f"after it {mib(rss_kib(n.process.pid)[0])}")
    with Server(mote) as n:
        n.load(load, "cluster", 100, 1)
        total, own = rss_kib(n.process.pid)
        row("RSS with 100 nodes and 1,000 pods", "-", mib(total) + " MiB", None, f"anonymous {mib(own)}")
        row("API ready after a restart with them", "-", f"{restarted(n) * 1000:.0f} ms", None, f"store of {n.stored() / 2**20:.1f} MiB")
        n.load(load, "quiet", 100, 1)  # the first volatile write of a store's life notes on the disk the revisions of the next 10,000
        before = to_disk(n.process.pid)
        n.load(load, "quiet", 100, min(seconds, 120))
        hourly = (to_disk(n.process.pid) - before) * 3600 / min(seconds, 120)
        row("bytes to disk per idle hour, 100 nodes renew their leases", "42 kB", f"{hourly / 1000:.1f} kB", hourly <= 1e6 / 24)


def part_crowd(mote, _oci, _):
    load = bench_tool("bench-load")
    for watchers, changes in [(500, 40), (5000, 20)]:
        with Server(mote, "--max-connections", "8192") as n:
            before = rss_kib(n.process.pid)[0]
            command = [load, f"127.0.0.1:{n.port}", n.dir + "/ca.pem", n.dir + "/client.pem", "crowd", str(watchers), str(changes)]
            crowd = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            opened = crowd.stdout.readline()
            if not opened:
                raise SystemExit(f"bench-load crowd {watchers} ended with {crowd.wait()}")
            each = (rss_kib(n.process.pid)[0] - before) / watchers
            crowd.stdin.write("\n")
            crowd.stdin.flush()
            figures = json.loads(crowd.stdout.readline())
            crowd.wait(30)
            row(f"one change to {watchers:,} watchers, p50 / p99", "-", f"{figures['median_ms']:.1f} / {figures['p99_ms']:.1f} ms", None, f"{each:.1f} KiB of RSS per watcher")


def part_day(mote, _oci, _):
    """24 hours of 100 nodes through the API: 864,000 renewed leases, 28,800 heartbeats, 4,320 restarts of containers."""
    load = bench_tool("bench-load")
    with Server(mote) as n:
        n.load(load, "cluster", 100, 1)
        hours, most, made, stored = [], 0, to_disk(n.process.pid), n.stored()
        command = [load, f"127.0.0.1:{n.port}", n.dir + "/ca.pem", n.dir + "/client.pem", "day", "100", "24"]
        day = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while day.poll() is None:
            most = max(most, n.stored())
            hours.append(rss_kib(n.process.pid)[0])
            time.sleep(0.25)
        if day.returncode:
            raise SystemExit(f"bench-load day ended with {day.returncode}")
        figures = json.loads(day.stdout.read())
        quarter = len(hours) // 4
        row("a day of 100 nodes, 1,000 pods: store on disk at most", "2 x 4 MiB + 3 x state", f"{most / 2**20:.1f} MiB", most <= (8 << 20) + 3 * stored, f"at its start {stored / 2**20:.1f}")
        row("its bytes to disk", "-", f"{(to_disk(n.process.pid) - made) / 1e6:.1f} MB", None, f"{figures['per_second'] * 1.04:.0f} requests/s")
        row("RSS at its end", "no growth after 6 h", mib(hours[-1]) + " MiB", max(hours[-quarter:]) <= 1.05 * max(hours[quarter:2 * quarter]), f"at 6 h {mib(hours[quarter])}, at 12 h {mib(hours[2 * quarter])}")
