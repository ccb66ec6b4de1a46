"""The whole node: its size, how soon it is there, what it takes idle and with pods, how soon pods run."""
import os, pathlib, socket, subprocess, time

from node import activity, memory_of, node
from pull import fresh_disk
from report import ROUNDS, TOP, median, row, wait


def part_size(mote, oci, _):
    for what, path, budget in [("executable: everything", mote, 10), ("executable: mote-oci (part of the agent budget)", oci, 6)]:
        size = os.path.getsize(path) / 1e6
        row(what, f"{budget} MB", f"{size:.2f} MB", size <= budget, pathlib.Path(path).name)
    for path in sorted((TOP / "cross/out").glob("mote-*")):
        if path.suffix == "" and "." not in path.name:
            budget = 6 if "agent-only" in path.name else 10
            row(f"static executable {path.name}", f"{budget} MB", f"{os.path.getsize(path) / 1e6:.2f} MB", os.path.getsize(path) <= budget * 1e6)


def part_start(mote, _oci, _):
    ready, node_s = [], []
    for _ in range(ROUNDS):
        with node(mote, preload=False) as n:
            ready.append(n.up_s * 1000)
            wait("the node", 20, n.node_ready)
            node_s.append((time.monotonic() - n.began) * 1000)
    row("API ready after start, fresh data folder (certificates made)", "60 ms", f"{median(ready):.0f} ms", median(ready) <= 60)
    row("node Ready after start", "-", f"{median(node_s):.0f} ms")


def part_memory(mote, _oci, _):
    with node(mote) as n:
        wait("the node", 20, n.node_ready)
        time.sleep(3)
        total, parts = memory_of(n)
        row("PSS idle, control plane + agent + keeper", "16 MiB", f"{total:.1f} MiB", total <= 16, parts)
        for count in (1, 10):
            for i in range(count):
                if not n.pod(f"p{i}"):
                    n.create(f"p{i}")
            wait("pods", 60, lambda: n.running(count), 0.05)
            time.sleep(3)
            now, parts = memory_of(n)
            row(f"PSS with {count} pod(s)", "-", f"{now:.1f} MiB", None, parts)
        per_pod = (now - total) * 1024 / 10
        row("per pod beyond its own processes", "256 KiB", f"{per_pod:.0f} KiB", per_pod <= 256)


def reached_disk(folder):
    """Bytes that the device of a file system has been told to write so far, after all that is dirty: journal and metadata count too."""
    subprocess.run(["sync", "-f", folder], check=True)
    at = os.stat(folder).st_dev
    return int(pathlib.Path(f"/sys/dev/block/{os.major(at)}:{os.minor(at)}/stat").read_text().split()[6]) * 512


def part_idle(mote, _oci, seconds):
    with fresh_disk() as disk, node(mote, under=disk) as n:
        wait("the node", 20, n.node_ready)
        for i in range(10):
            n.create(f"p{i}")
        wait("pods", 60, lambda: n.running(10), 0.05)
        n.connection.close()
        time.sleep(75)  # what comes once, at the first look at volumes after a minute, is not idling
        on_disk, before = reached_disk(disk), activity(n)
        time.sleep(seconds)
        cpu, switches = (b - a for a, b in zip(before, activity(n)))
        written = reached_disk(disk) - on_disk
        row(f"CPU idle with 10 pods, over {seconds} s", "0.1 % of a core", f"{cpu / seconds * 100:.3f} %", cpu / seconds <= 0.001)
        row("wake-ups idle with 10 pods", "5/s", f"{switches / seconds:.2f}/s", switches / seconds <= 5)
        hourly = written * 3600 / seconds
        row("bytes written to disk per idle hour", "42 kB", f"{hourly / 1000:.1f} kB", hourly <= 1e6 / 24)


def get_200(ip):
    try:
        with socket.create_connection((ip, 8080), 0.5) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b" 200 " in s.recv(200)
    except OSError:
        return False


def part_pods(mote, _oci, _):
    with node(mote) as n:
        wait("the node", 20, n.node_ready)
        running, answered, gone = [], [], []
        for i in range(ROUNDS + 1):
            name, began = f"p{i}", time.monotonic()
            n.create(name)
            ip = None

            def is_running():
                nonlocal ip
                status = n.pod(name).get("status", {})
                ip = status.get("podIP")
                return status.get("phase") == "Running"

            wait("Running", 20, is_running)
            ran = time.monotonic() - began
            wait("HTTP 200", 20, lambda: get_200(ip), 0.001)
            http = time.monotonic() - began
            began = time.monotonic()
            n.request("DELETE", f"/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=1")
            wait("deletion", 20, lambda: n.pod(name) is None)
            if i:  # the first warms caches
                running.append(ran * 1000), answered.append(http * 1000), gone.append((time.monotonic() - began) * 1000)
        row("apply -> Running, image present", "100 ms", f"{median(running):.0f} ms", median(running) <= 100)
        row("apply -> HTTP 200", "150 ms", f"{median(answered):.0f} ms", median(answered) <= 150)
        row("delete -> gone", "200 ms", f"{median(gone):.0f} ms", median(gone) <= 200)
        began = time.monotonic()
        for i in range(30):
            n.create(f"many{i}")
        wait("30 pods", 60, lambda: n.running(30), 0.01)
        took = time.monotonic() - began
        row("30 pods at once -> all Running", "1 s", f"{took:.2f} s", took <= 1)
